//! `xgre adopt`: accelerates tunnels of the kernel's own, which stay what they are.

use clap::Args;

use super::{
    Clock, Failure, Output,
    output::{Paint, print},
    tunnel, with_daemon,
};
use crate::{
    control::client::{Client, ClientError},
    model::{Adoption, Netfilter},
    report::TunnelInfo,
};

#[derive(Debug, Args)]
pub(super) struct Adopt {
    /// { NAME | all } [ off | netfilter { respect | bypass } ]; without words, what there is
    #[arg(value_name = "WORDS")]
    words: Vec<String>,
}

pub(super) const EXAMPLES: &str = "\
Where:
  NAME is a GRE device that `ip tunnel`, `ip link`, systemd-networkd or FRR made; all are those to come, too
  off leaves it to the kernel again
  netfilter bypass accelerates it past the rules of netfilter that its packets meet; with respect, as by
    default, those packets are the kernel's

Nothing of the device changes: XDP forwards what it can, and all else takes the way that it always took.
`ip -s link` does not count what XDP forwards; `xgre stats` does. What is adopted stays so until `off`, a
teardown, or the next boot; `xgre save`, or `adopt = \"all\"` in the config, keeps it for good.

Examples:
  xgre adopt                       the kernel's tunnels, and what keeps each from being accelerated
  xgre adopt gre1
  xgre adopt gre1 netfilter bypass
  xgre adopt all
  xgre adopt gre1 off";

impl Adopt {
    pub(super) fn execute(self, output: Output) -> Result<(), Failure> {
        let adoption = parse(&self.words)?;
        let tunnels = with_daemon(async |daemon| {
            if let Some(adoption) = &adoption {
                let adopted = daemon.adopt(adoption).await;
                adopted.map_err(|error| failed(adoption, error))?;
            }
            kernels(daemon, adoption.as_ref().and_then(Adoption::name)).await
        })?;
        print(&if output.json {
            output.json(&tunnel::json(&tunnels, None))?
        } else {
            text(&tunnels, output.paint())
        })?;
        Ok(())
    }
}

/// The tunnels of the kernel's own, or the one of this name.
async fn kernels(daemon: &mut Client, name: Option<&str>) -> Result<Vec<TunnelInfo>, Failure> {
    let mut tunnels = daemon.tunnels().await?;
    tunnels
        .retain(|tunnel| tunnel.adopted.is_some() && name.is_none_or(|name| tunnel.name == name));
    Ok(tunnels)
}

fn text(tunnels: &[TunnelInfo], paint: Paint) -> String {
    if tunnels.is_empty() {
        return "the kernel has no GRE tunnels of its own here: `ip tunnel show`\n".to_owned();
    }
    tunnel::text(tunnels, None, Clock::local(), paint)
}

fn parse(words: &[String]) -> Result<Option<Adoption>, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, netfilter) = match words[..] {
        [] => return Ok(None),
        [name] => (name, Some(Netfilter::default())),
        [name, "off"] => (name, None),
        [name, "netfilter", netfilter] => {
            let netfilter: Netfilter =
                netfilter.parse().map_err(|reason: String| Failure::refused(reason))?;
            (name, Some(netfilter))
        }
        [_, word, ..] => {
            return Err(Failure::refused(format!(
                "\"{word}\" is unexpected\n\
                 xgre adopt {{ NAME | all }} [ off | netfilter {{ respect | bypass }} ]"
            )));
        }
    };
    Ok(Some(Adoption::new(name, netfilter)))
}

fn failed(adoption: &Adoption, error: ClientError) -> Failure {
    match error {
        ClientError::Refused(error) => {
            let name = adoption.name().unwrap_or(Adoption::ALL);
            Failure::refused(format!("adopt \"{name}\" failed: {error}"))
        }
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Option<Adoption>, Failure> {
        parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_say_which_and_how() {
        let adoption = |name, netfilter| Ok(Some(Adoption::new(name, netfilter)));
        assert_eq!(parsed(""), Ok(None));
        assert_eq!(parsed("gre1"), adoption("gre1", Some(Netfilter::Respect)));
        assert_eq!(parsed("all off"), adoption("all", None));
        assert_eq!(parsed("gre1 netfilter bypass"), adoption("gre1", Some(Netfilter::Bypass)));
        for wrong in ["gre1 on", "gre1 netfilter", "gre1 netfilter drop", "gre1 off now"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
