//! The kernel's answers, by netlink and by `ip`.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
    thread,
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType,
};
use nix::{errno::Errno, net::if_::if_nametoindex};
use rtnetlink::{Handle, RouteMessageBuilder};

/// What the kernel says of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// No route, a refusal, or for this host.
    Not,
    Unicast {
        oif: u32,
        gateway: Option<IpAddr>,
        mtu: Option<u32>,
    },
}

/// RTM_GETROUTE, as `ip route get` asks it.
pub async fn ask(handle: &Handle, destination: IpAddr) -> Answer {
    let message = match destination {
        IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, 32).build(),
        IpAddr::V6(ip) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, 128).build()
        }
    };
    match handle.route().get(message).execute().try_next().await {
        Ok(Some(message)) => answer(&message),
        Ok(None) => panic!("{destination}: the kernel said nothing"),
        Err(rtnetlink::Error::NetlinkError(error)) => {
            let errno = Errno::from_raw(-error.raw_code());
            // No route, unreachable, prohibit, blackhole.
            let refusals = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];
            assert!(refusals.contains(&errno), "{destination}: {errno}");
            Answer::Not
        }
        Err(error) => panic!("{destination}: {error}"),
    }
}

fn answer(message: &RouteMessage) -> Answer {
    if message.header.kind != RouteType::Unicast {
        return Answer::Not;
    }
    let (mut oif, mut gateway, mut mtu) = (0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = *index,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some((*address).into())
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some((*address).into());
            }
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Answer::Unicast { oif, gateway, mtu }
}

/// The kernel's answers once more, by the program that people ask it with.
pub fn compare_with_ip_route_get(answers: &[(IpAddr, Answer)]) {
    let reached = |answer: &Answer| matches!(answer, Answer::Unicast { .. });
    let some: Vec<_> = answers.iter().filter(|(_, answer)| reached(answer)).take(300).collect();
    let commands: String = some.iter().map(|(ip, _)| format!("route get {ip}\n")).collect();
    let output = ip(&["-json"], &commands);
    assert_eq!(output.lines().count(), some.len());
    for (line, (destination, answer)) in output.lines().zip(some) {
        let text: serde_json::Value = serde_json::from_str(line).expect("`ip -json` prints JSON");
        let text = |key: &str| text[0][key].as_str();
        let device = text("dev").expect("a route has a device");
        let Answer::Unicast { oif, gateway, .. } = *answer else {
            unreachable!("they are reached")
        };
        assert_eq!(text("dst"), Some(destination.to_string().as_str()));
        assert_eq!(if_nametoindex(device), Ok(oif), "{destination}");
        assert_eq!(text("gateway").map(str::to_owned), gateway.map(|ip| ip.to_string()));
    }
}

/// Runs `ip -batch` and returns what it printed.
pub fn ip(options: &[&str], commands: &str) -> String {
    let mut child = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting `ip`, of iproute2");
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut output = String::new();
    thread::scope(|scope| {
        // Where `ip` gives up it says on which line.
        scope.spawn(move || drop(stdin.write_all(commands.as_bytes())));
        stdout.read_to_string(&mut output).expect("reading from `ip`");
    });
    assert!(child.wait().unwrap().success(), "`ip -batch` failed on a line of:\n{commands}");
    output
}
