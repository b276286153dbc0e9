//! The words of `ip link` in front of `type`, which are of every device, and of `ip link show`.

use super::{
    grammar::{setting, shortens},
    options::{Words, garbage, incomplete, valid_name},
    other_mode,
    values::{mac, mtu},
};
use crate::{
    cli::{Failure, usage},
    model::{DeviceSettings, Mode, Tunnel},
};

/// What the words of `link add`, `change` and `delete` say.
#[derive(Debug, Clone, Default)]
pub struct LinkWords {
    pub(in crate::cli) name: Option<String>,
    pub(in crate::cli) mode: Option<Mode>,
    pub(in crate::cli) settings: DeviceSettings,
    options: Words,
}

/// What needs no value, of what is not ours to set.
const WITHOUT_VALUE: &str = "nomaster";

pub(in crate::cli) fn link_words(words: &[String]) -> Result<LinkWords, Failure> {
    let mut found = LinkWords::default();
    let mut rest = words.iter().map(String::as_str);
    while let Some(word) = rest.next() {
        let option = setting(word);
        match option {
            Some("up") => found.settings.up = Some(true),
            Some("down") => found.settings.up = Some(false),
            Some("help") => return Err(usage::link()),
            Some(WITHOUT_VALUE) => return Err(not_ours(WITHOUT_VALUE, "")),
            None => found.device(word)?,
            Some(option) => {
                let value = rest.next().ok_or_else(incomplete)?;
                if option == "type" {
                    let mode = mode(value)?;
                    let options: Vec<_> = rest.map(str::to_owned).collect();
                    found.mode = Some(mode);
                    found.options = Words::of_link(&options, mode)?;
                    break;
                }
                found.value(option, value)?;
            }
        }
    }
    Ok(found)
}

impl LinkWords {
    fn value(&mut self, option: &str, value: &str) -> Result<(), Failure> {
        match option {
            "name" | "dev" => self.device(value)?,
            "mtu" if self.settings.mtu.is_some() => return Err(duplicate(option, value)),
            "mtu" => self.settings.mtu = Some(mtu(value)?),
            "address" => self.settings.mac = Some(mac(value)?),
            _ => return Err(not_ours(option, value)),
        }
        Ok(())
    }

    fn device(&mut self, name: &str) -> Result<(), Failure> {
        if self.name.is_some() {
            return Err(garbage("dev", name, None));
        }
        self.name = Some(valid_name("dev", name)?);
        Ok(())
    }

    /// To add. Its MTU is the tunnel's; the other settings are made when the device is there.
    pub(in crate::cli) fn tunnel(&self) -> Result<Tunnel, Failure> {
        let Some(mode) = self.mode else {
            return Err(Failure::refused(
                "Not enough information: \"type\" argument is required\n\
                 xgre does type gre, ip6gre, gretap and ip6gretap",
            ));
        };
        let Some(name) = &self.name else {
            return Err(no_device("xgre link add NAME type gretap remote ADDR local ADDR"));
        };
        let mtu = self.settings.mtu;
        let tunnel = Tunnel { mtu, ..Tunnel::new(name, mode, mode.any(), mode.any()) };
        self.options.clone().apply(tunnel, super::Grammar::Link)
    }

    /// Of a change or a deletion.
    pub(in crate::cli) fn existing(&self, example: &str) -> Result<&str, Failure> {
        self.name.as_deref().ok_or_else(|| no_device(example))
    }

    /// What the options behind the type make of a tunnel.
    pub(in crate::cli) fn change(&self, tunnel: &Tunnel) -> Result<Tunnel, Failure> {
        if let Some(mode) = self.mode.filter(|mode| *mode != tunnel.mode) {
            return Err(other_mode(tunnel, mode, "type"));
        }
        self.options.clone().apply(tunnel.clone(), super::Grammar::Link)
    }
}

fn mode(value: &str) -> Result<Mode, Failure> {
    value.parse().map_err(|_| {
        let hint = match value {
            "erspan" | "ip6erspan" => "xgre does not do ERSPAN yet: make it with `ip link`",
            _ => "xgre does type gre, ip6gre, gretap and ip6gretap; others are `ip link`'s",
        };
        Failure::kernels(format!("Error: Unknown device type.\n{hint}"))
    })
}

fn no_device(example: &str) -> Failure {
    Failure::senseless(format!("Not enough information: \"dev\" argument is required.\n{example}"))
}

fn duplicate(option: &str, value: &str) -> Failure {
    Failure::senseless(format!("Error: duplicate \"{option}\": \"{value}\" is the second value."))
}

/// A setting that the daemon leaves to `ip link`, or cannot have changed.
fn not_ours(option: &str, value: &str) -> Failure {
    let hint = match option {
        "alias" => "xgre keeps a tunnel's options in the alias of its device".to_owned(),
        "netns" | "link-netns" | "link-netnsid" | "index" => {
            "a tunnel's device stays in the daemon's network namespace, with the index that it got"
                .to_owned()
        }
        "numtxqueues" | "numrxqueues" => {
            "the kernel chooses the queues of a tunnel's device: leave it out".to_owned()
        }
        _ => format!("set it on the device: ip link set dev NAME {option} {value}"),
    };
    let words = format!("{option} {value}");
    Failure::senseless(format!(
        "Error: \"{}\" is not supported by xgre\n{}",
        words.trim_end(),
        hint.trim_end()
    ))
}

/// Which devices `link show` is to show.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Shown {
    pub(in crate::cli) name: Option<String>,
    /// Its type, whatever it is: `ip link` shows nothing of one that there is not.
    pub(in crate::cli) kind: Option<String>,
    pub(in crate::cli) up: bool,
    pub(in crate::cli) master: Option<String>,
}

pub(in crate::cli) fn shown(words: &[String]) -> Result<Shown, Failure> {
    let mut shown = Shown::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut value = || words.next().map(str::to_owned).ok_or_else(incomplete);
        match word {
            "up" => shown.up = true,
            "type" => shown.kind = Some(value()?),
            "master" => shown.master = Some(value()?),
            _ if shortens(word, "help") => return Err(usage::link()),
            _ => {
                let name = if word == "dev" { value()? } else { word.to_owned() };
                if shown.name.is_some() {
                    return Err(garbage("dev", &name, None));
                }
                shown.name = Some(name);
            }
        }
    }
    Ok(shown)
}
