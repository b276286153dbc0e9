//! `xgre tunnel probe`: does a tunnel carry what IPv6 is promised?

use std::{fmt::Write as _, io, net::Ipv6Addr};

use clap::Args;
use nix::libc;
use serde::Serialize;

use super::{failed, no_such_tunnel};
use crate::{
    cli::{
        Failure, Output,
        output::{Paint, print},
        with_daemon,
    },
    control::{api::TunnelSpec, client::ClientError},
    model::Tunnel,
    probe::{ALL_NODES, LONG, SHORT, Verdict, probe},
    report::TunnelInfo,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Probe {
    /// The tunnel
    #[arg(value_name = "NAME")]
    name: String,
    /// Who is to answer [default: whoever is at the tunnel's other end, ff02::1]
    #[arg(value_name = "ADDRESS")]
    address: Option<Ipv6Addr>,
}

pub(in crate::cli) const EXAMPLES: &str = "\
A tunnel must carry an IPv6 packet of 1280 bytes whole (RFC 7676, 3.2). This sends ICMPv6 echo requests
of 64 bytes through the tunnel and then of 1280, three of each at most, and waits a second for each.
The status is 0 if an answer of 1280 bytes comes back, and else 1: a timer may run this, and tell.

Examples:
  xgre tunnel probe tunnel0                       the far end's own IPv6 address answers
  xgre tunnel probe tunnel0 2001:db8:110::10      a host behind it does
  xgre -j tunnel probe tunnel0                    as JSON";

/// What came of a probe, and what it takes to say what follows from it.
pub struct Probed<'a> {
    pub tunnel: &'a TunnelInfo,
    pub address: Ipv6Addr,
    /// Bytes that encapsulation adds.
    pub overhead: u32,
    pub verdict: Verdict,
}

impl Probe {
    pub(super) fn execute(&self, output: Output) -> Result<(), Failure> {
        let before = self.tunnel()?;
        let address = self.address(&before)?;
        let verdict = probe(&self.name, address).map_err(|error| self.unsent(address, &error))?;
        // The probe may have taught the tunnel its path's MTU.
        let tunnel = self.tunnel()?;
        let overhead = Tunnel::try_from(TunnelSpec::from(&tunnel));
        let overhead = overhead.map_err(ClientError::Refused)?.overhead();
        let probed = Probed { tunnel: &tunnel, address, overhead, verdict };
        print(&if output.json {
            output.json(&json(&probed))?
        } else {
            text(&probed, output.paint())
        })?;
        match verdict {
            Verdict::Carried { .. } => Ok(()),
            Verdict::TooLong { .. } | Verdict::Silent => Err(Failure::told()),
        }
    }

    fn tunnel(&self) -> Result<TunnelInfo, Failure> {
        let name = &self.name;
        with_daemon(async |daemon| {
            let tunnels = daemon.tunnels().await?;
            let found = tunnels.into_iter().find(|tunnel| tunnel.name == *name);
            found.ok_or_else(|| failed("probe", name, no_such_tunnel(name)))
        })
    }

    /// Who is asked, if there is anybody to ask.
    fn address(&self, tunnel: &TunnelInfo) -> Result<Ipv6Addr, Failure> {
        let spec = Tunnel::try_from(TunnelSpec::from(tunnel)).map_err(ClientError::Refused)?;
        if spec.mode.is_ethernet() {
            return Err(self.refused(
                "it carries Ethernet, whose hosts have their own addresses and MTU\n\
                 ask one of them: ping -6 -M do -s 1232 HOST",
            ));
        }
        if !tunnel.up {
            return Err(self
                .refused(&format!("Network is down\nbring it up: ip link set {} up", self.name)));
        }
        match self.address {
            Some(address) => Ok(address),
            None if spec.remote.is_unspecified() => Err(self.refused(&format!(
                "it has no one remote to ask\n\
                 name an address that is routed into it: xgre tunnel probe {} ADDRESS",
                self.name
            ))),
            None => Ok(ALL_NODES),
        }
    }

    fn unsent(&self, address: Ipv6Addr, error: &io::Error) -> Failure {
        let name = &self.name;
        let hint = match error.raw_os_error() {
            Some(libc::EPERM) => "it takes root: run this with `sudo`".into(),
            Some(libc::ENETUNREACH) => {
                format!("is {address} routed into {name}? `ip route get {address} oif {name}`")
            }
            Some(libc::EADDRNOTAVAIL) => format!(
                "this host needs an IPv6 address to send from: ip address add ADDRESS/LEN dev {name}"
            ),
            _ => format!("`ip -6 address show dev {name}` tells whether there is IPv6 on it"),
        };
        self.refused(&format!("{error}\n{hint}"))
    }

    fn refused(&self, reason: &str) -> Failure {
        Failure::refused(format!("probe tunnel \"{}\" failed: {reason}", self.name))
    }
}

/// A line with the verdict, and where it is not as it should be what to do.
pub fn text(probed: &Probed, paint: Paint) -> String {
    let Probed { tunnel, address, overhead, verdict } = probed;
    let mut text = format!("{}: ", paint.name(&tunnel.name));
    let need = u32::from(LONG) + overhead;
    _ = match verdict {
        Verdict::Carried { by, within } => {
            let milliseconds = within.as_secs_f64() * 1e3;
            let carried = paint.good("carried");
            writeln!(
                text,
                "{carried}: {by} answered an IPv6 packet of {LONG} bytes, {milliseconds:.1} ms"
            )
        }
        Verdict::TooLong { by } => writeln!(
            text,
            "{}: {by} answers IPv6 packets of {SHORT} bytes, but none of {LONG}\n\
             \x20   a link of the path, there or back, takes less than {need} bytes, and no router says so\n\
             \x20   raise its MTU to {need}, or let its router's ICMP through, or have both ends cut the outer packet:\n\
             \x20     ip link set {} mtu {LONG} && ip route add {}/{}{} mtu MTU",
            paint.bad("not carried"),
            tunnel.name,
            tunnel.remote,
            if tunnel.remote.contains(':') { 128 } else { 32 },
            way(tunnel),
        ),
        Verdict::Silent => writeln!(
            text,
            "{}: {address} does not answer ICMPv6 echo requests, not even of {SHORT} bytes\n\
             \x20   has the far end an IPv6 address on its tunnel, and does `xgre tunnel show {name}` show a mismatch?\n\
             \x20   or name who answers: xgre tunnel probe {name} ADDRESS",
            paint.bad("no answer"),
            name = tunnel.name
        ),
    };
    if in_fragments(probed) {
        let mtu = tunnel.payload_mtu.unwrap_or_default();
        _ = writeln!(
            text,
            "    in outer fragments, which is slow: in one piece the path takes {mtu} bytes; raise the \
             underlay's MTU to {need}"
        );
    }
    text
}

/// How the underlay gets to the remote, in words of `ip route`.
fn way(tunnel: &TunnelInfo) -> String {
    let word = |word: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(" {word} {value}")).unwrap_or_default()
    };
    word("via", &tunnel.via) + &word("dev", &tunnel.underlay)
}

fn in_fragments(probed: &Probed) -> bool {
    matches!(probed.verdict, Verdict::Carried { .. }) && probed.tunnel.fragments_ipv6()
}

#[derive(Serialize)]
struct Json<'a> {
    ifname: &'a str,
    address: Ipv6Addr,
    bytes: u16,
    /// `carried`, `not-carried` or `no-answer`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_by: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<f64>,
    outer_fragments: bool,
    /// What the path must take for it to be carried whole, in bytes.
    needed_path_mtu: u32,
}

pub fn json<'a>(probed: &Probed<'a>) -> impl Serialize + use<'a> {
    let (result, answered_by, within) = match probed.verdict {
        Verdict::Carried { by, within } => ("carried", Some(by), Some(within)),
        Verdict::TooLong { by } => ("not-carried", Some(by), None),
        Verdict::Silent => ("no-answer", None, None),
    };
    Json {
        ifname: &probed.tunnel.name,
        address: probed.address,
        bytes: LONG,
        result,
        answered_by,
        milliseconds: within.map(|within| within.as_secs_f64() * 1e3),
        outer_fragments: in_fragments(probed),
        needed_path_mtu: u32::from(LONG) + probed.overhead,
    }
}
