//! `xgre link`: what `ip link` does for GRE devices. Everything else about them is `ip link`'s own.

mod facts;
mod json;
mod show;

use clap::Subcommand;

pub use self::{facts::Device, json::json, show::text};
use super::{
    Clock, Failure, Output,
    output::print,
    tunnel::{does_not_exist, find_device, named, no_such_tunnel, of_family},
    usage, with_daemon,
    words::{Grammar, LinkWords, Shown, link_words, shortens, shown},
};
use crate::{
    config::nearest,
    control::{
        api,
        client::{Client, ClientError},
    },
    model::{DeviceSettings, Tunnel},
    report::{LinkInfo, TunnelInfo},
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a tunnel and its device
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        /// As `ip link add` takes them:
        /// [ name ] NAME [ mtu MTU ] [ address LLADDR ] [ up | down ]
        /// type { gre | ip6gre | gretap | ip6gretap } remote ADDR local ADDR
        /// and the other words of `xgre tunnel add`
        #[arg(value_name = "WORDS", verbatim_doc_comment)]
        words: Vec<String>,
    },
    /// Change the options of a tunnel, or its device's settings; the device stays
    #[command(aliases = ["set", "s"], after_help = CHANGE_EXAMPLES)]
    Change {
        /// [ dev ] NAME [ mtu MTU ] [ address LLADDR ] [ up | down ]
        /// [ type TYPE and words of `xgre tunnel change` ]
        #[arg(value_name = "WORDS", verbatim_doc_comment)]
        words: Vec<String>,
    },
    /// Add a tunnel, or give the one of this name these options and no others
    #[command(after_help = REPLACE_EXAMPLES)]
    Replace {
        /// As for `xgre link add`
        #[arg(value_name = "WORDS", verbatim_doc_comment)]
        words: Vec<String>,
    },
    /// Delete a tunnel and its device
    #[command(alias = "del", after_help = DELETE_EXAMPLES)]
    Delete {
        /// [ dev ] NAME [ type TYPE ]
        #[arg(value_name = "WORDS")]
        words: Vec<String>,
    },
    /// Show the devices of tunnels, as `ip link show` does, and whether each is accelerated
    #[command(aliases = ["list", "lst"], after_help = SHOW_EXAMPLES)]
    Show {
        /// [ [ dev ] NAME ] [ up ] [ master DEVICE ] [ type TYPE ]
        #[arg(value_name = "WORDS")]
        words: Vec<String>,
    },
    #[command(external_subcommand)]
    Other(Vec<String>),
}

impl Default for Verb {
    fn default() -> Self {
        Self::Show { words: Vec::new() }
    }
}

/// For what is mistyped.
const VERBS: [&str; 6] = ["add", "change", "set", "replace", "delete", "show"];
/// iproute2's, of all devices.
const OTHER_VERBS: [&str; 3] = ["xstats", "afstats", "property"];

pub(super) const EXAMPLES: &str = "\
Examples:
  xgre link add gretap1 type gretap remote 10.56.88.66 local 192.168.22.196 ttl 255 nopmtudisc
  xgre link set gretap1 up
  ip link set gretap1 master br0
  xgre -d link show gretap1
  xgre link delete gretap1";

const ADD_EXAMPLES: &str = "\
Where:
  gre and ip6gre carry IP, gretap and ip6gretap Ethernet frames, as a port of a bridge does;
  gre and gretap run over IPv4, ip6gre and ip6gretap over IPv6
  MTU is the device's; by default what the underlay leaves
  `xgre tunnel add --help` explains the other words, which may be shortened behind the type

Examples:
  xgre link add gretap1 type gretap remote 10.56.88.66 local 192.168.22.196 ttl 255 nopmtudisc
  xgre link add name tap6 up type ip6gretap remote 2001:db8::2 local 2001:db8::1 key 42";

const CHANGE_EXAMPLES: &str = "\
Examples:
  xgre link set gretap1 up mtu 1400
  xgre link change gretap1 type gretap key 42";

const REPLACE_EXAMPLES: &str = "\
Examples:
  xgre link replace gretap1 type gretap remote 10.56.88.66 local 192.168.22.196 key 42";

const DELETE_EXAMPLES: &str = "\
Examples:
  xgre link delete gretap1";

const SHOW_EXAMPLES: &str = "\
Examples:
  xgre link show
  xgre -d link show gretap1                 with the tunnel's options
  xgre -s -s link show type gretap          with counters, which are the tunnel's
  xgre -br link
  xgre -j -p -d link show                   as JSON";

pub(super) fn execute(verb: Verb, output: Output) -> Result<(), Failure> {
    match verb {
        Verb::Add { words } => add(&link_words(&words)?),
        Verb::Change { words } => change(&link_words(&words)?),
        Verb::Replace { words } => replace(&link_words(&words)?),
        Verb::Delete { words } => delete(&link_words(&words)?),
        Verb::Show { words } => show(&shown(&words)?, output),
        Verb::Other(words) => Err(unknown(&words)),
    }
}

fn unknown(words: &[String]) -> Failure {
    let word = words.first().map_or("", String::as_str);
    if shortens(word, "help") {
        return usage::link();
    }
    if OTHER_VERBS.contains(&word) {
        return Failure::senseless(format!("\"{word}\" is the kernel's: use `ip link {word}`"));
    }
    usage::verb("link", word, nearest(word, &VERBS))
}

fn add(words: &LinkWords) -> Result<(), Failure> {
    let tunnel = words.tunnel()?;
    find_device(&tunnel, Grammar::Link)?;
    with_daemon(async |daemon| make(daemon, &tunnel, words.settings).await)
}

/// The tunnel, and of its device what is the tunnel's from the start is not; all of it, or nothing.
async fn make(
    daemon: &mut Client,
    tunnel: &Tunnel,
    settings: DeviceSettings,
) -> Result<(), Failure> {
    daemon.add_tunnel(tunnel).await.map_err(failed)?;
    let settings = DeviceSettings { mtu: None, ..settings };
    if settings.is_empty() {
        return Ok(());
    }
    let set = daemon.set_link(&tunnel.name, settings).await;
    if set.is_err() {
        // The first error is the one to tell; a tunnel that stays can be seen.
        let _ = daemon.delete_tunnel(&tunnel.name).await;
    }
    set.map_err(failed)
}

fn change(words: &LinkWords) -> Result<(), Failure> {
    let name = words.existing("xgre link set NAME up")?;
    with_daemon(async |daemon| {
        let Some(old) = named(daemon, name).await? else {
            return Err(failed(no_such_tunnel(name)));
        };
        let new = words.change(&old)?;
        find_device(&new, Grammar::Link)?;
        if new != old {
            daemon.change_tunnel(name, &new).await.map_err(failed)?;
        }
        set(daemon, name, words.settings).await
    })
}

fn replace(words: &LinkWords) -> Result<(), Failure> {
    let tunnel = words.tunnel()?;
    let name = &tunnel.name;
    find_device(&tunnel, Grammar::Link)?;
    with_daemon(async |daemon| {
        if named(daemon, name).await?.is_none() {
            return make(daemon, &tunnel, words.settings).await;
        }
        let options = Tunnel { mtu: None, ..tunnel.clone() };
        daemon.change_tunnel(name, &options).await.map_err(failed)?;
        set(daemon, name, words.settings).await
    })
}

async fn set(daemon: &mut Client, name: &str, settings: DeviceSettings) -> Result<(), Failure> {
    if settings.is_empty() {
        return Ok(());
    }
    daemon.set_link(name, settings).await.map_err(failed)
}

fn delete(words: &LinkWords) -> Result<(), Failure> {
    let name = words.existing("xgre link delete NAME")?;
    with_daemon(async |daemon| daemon.delete_tunnel(name).await.map_err(failed))
}

/// iproute2's line for what was refused; the error's second line says more.
fn failed(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(api::Error::NoSuchTunnel { name }) => Failure::refused(format!(
            "Cannot find device \"{name}\"\n\
             no tunnel is called \"{name}\"; `xgre link show` lists them"
        )),
        ClientError::Refused(error) => Failure::kernels(format!("RTNETLINK answers: {error}")),
        error => error.into(),
    }
}

fn show(shown: &Shown, output: Output) -> Result<(), Failure> {
    let counted = output.statistics > 0;
    let (tunnels, links, stats) = with_daemon(async |daemon| {
        let tunnels = of_family(daemon.tunnels().await?, output.family);
        let links = daemon.links().await?;
        Ok((tunnels, links, if counted { Some(daemon.stats().await?) } else { None }))
    })?;
    let devices = devices(&tunnels, &links);
    if let Some(name) = &shown.name
        && !devices.iter().any(|device| device.tunnel.name == *name)
    {
        return Err(does_not_exist(name));
    }
    let devices: Vec<_> = devices.into_iter().filter(|device| chosen(shown, device)).collect();
    let stats = stats.as_ref();
    print(&if output.json {
        output.json(&json(&devices, stats, output))?
    } else {
        text(&devices, stats, output, Clock::local(), output.paint())
    })?;
    Ok(())
}

/// By interface index, as the kernel lists them.
fn devices<'a>(tunnels: &'a [TunnelInfo], links: &'a [LinkInfo]) -> Vec<Device<'a>> {
    let device = |link: &'a LinkInfo| {
        let tunnel = tunnels.iter().find(|tunnel| tunnel.name == link.name)?;
        Some(Device { tunnel, link })
    };
    let mut devices: Vec<_> = links.iter().filter_map(device).collect();
    devices.sort_by_key(|device| device.link.ifindex);
    devices
}

fn chosen(shown: &Shown, Device { tunnel, link }: &Device<'_>) -> bool {
    let Shown { name, kind, up, master } = shown;
    name.as_ref().is_none_or(|name| *name == tunnel.name)
        && kind.as_ref().is_none_or(|kind| *kind == tunnel.mode)
        && (!up || tunnel.up)
        && (master.is_none() || *master == link.master)
}
