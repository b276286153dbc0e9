//! The control socket, over a real socket: the daemon's task is played by the tests.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use gre_userspace::{
    control::{
        access::Access,
        api,
        client::{Client, ClientError},
        server::{Server, ServerError},
    },
    daemon::handle::{Command, Handle, Refusal, When},
    model::{
        Adopt, Adoption, Desired, DeviceSettings, FlowLabel, Mode, Mss, Netfilter, SeqMode, Tunnel,
    },
    plan::Step,
    report::{
        Count, Direction, LinkInfo, Mismatch, PathMtu, PortInfo, Sequence, Stats, TierOutcomes,
        Traffic, TunnelInfo, TunnelStats,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

struct Daemon {
    socket: PathBuf,
    _server: Server,
    _directory: TempDir,
}

/// A server whose commands are answered by the caller.
fn serve() -> (Daemon, Receiver<Command>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let (handle, commands) = Handle::new();
    let server = Server::start(&socket, handle, Access::default()).unwrap();
    (Daemon { socket, _server: server, _directory: directory }, commands)
}

/// A server whose daemon has one tunnel and refuses to change it.
fn serve_one_tunnel() -> Daemon {
    let (daemon, mut commands) = serve();
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            match command {
                Command::AddTunnel(tunnel, reply) => {
                    reply.send(add(&tunnel)).unwrap();
                }
                Command::ChangeTunnel(name, tunnel, reply) => {
                    let changed = match (name.as_str(), tunnel.name.as_str()) {
                        ("tunnel0", "new" | "new6") => add(&tunnel),
                        _ => Err(Refusal::NoSuchTunnel(name)),
                    };
                    reply.send(changed).unwrap();
                }
                Command::ResetSequence(name, reply) if name == "tunnel0" => {
                    reply.send(Ok(())).unwrap();
                }
                Command::ResetSequence(name, reply) => {
                    reply.send(Err(Refusal::NoSuchTunnel(name))).unwrap();
                }
                Command::DeleteTunnel(name, reply) if name == "tunnel0" => {
                    reply.send(Ok(())).unwrap();
                }
                Command::DeleteTunnel(name, reply) => {
                    reply.send(Err(Refusal::NoSuchTunnel(name))).unwrap();
                }
                Command::SetLink(name, settings, reply) => {
                    let set = match (name.as_str(), settings) {
                        ("tunnel0", settings) if settings == link_settings() => Ok(()),
                        ("tunnel0", _) => Err(Refusal::Invalid("not like this".into())),
                        _ => Err(Refusal::NoSuchTunnel(name)),
                    };
                    reply.send(set).unwrap();
                }
                Command::Adopt(adoption, reply) => {
                    let adopted = match (adoption.name(), adoption.netfilter) {
                        (None, None) | (Some("gre1"), Some(Netfilter::Bypass)) => Ok(()),
                        (name, _) => Err(Refusal::NoSuchTunnel(name.unwrap_or("all").into())),
                    };
                    reply.send(adopted).unwrap();
                }
                Command::Adopted(reply) => reply.send(adopted()).unwrap(),
                Command::Links(reply) => reply.send(Ok(vec![link()])).unwrap(),
                Command::Apply(wanted, when, reply) => reply.send(apply(*wanted, when)).unwrap(),
                Command::Running(reply) => {
                    reply.send(vec![tunnel("new"), tunnel6("new6")]).unwrap();
                }
                Command::Tunnels(reply) => reply.send(vec![info()]).unwrap(),
                Command::Ports(reply) => reply.send(vec![port()]).unwrap(),
                Command::Stats(reply) => reply.send(stats()).unwrap(),
            }
        }
    });
    daemon
}

fn add(tunnel: &Tunnel) -> Result<(), Refusal> {
    match tunnel.name.as_str() {
        "new" if *tunnel == self::tunnel("new") => Ok(()),
        "new6" if *tunnel == tunnel6("new6") => Ok(()),
        "twin" => Err(Refusal::Exists("tunnel \"tunnel0\" has the same key".into())),
        "bad" => Err(Refusal::Invalid("not like this".into())),
        _ => Err(Refusal::Kernel("creating the veth pair: Operation not supported".into())),
    }
}

/// Whatever is wanted is there already, but where it is to be done only a port is new.
fn apply(wanted: Desired, when: When) -> Result<Vec<Step>, Refusal> {
    match when {
        When::Never => Ok(wanted.tunnels.into_values().map(Step::Delete).collect()),
        When::Now => Ok(vec![Step::Ports { old: Default::default(), new: wanted.ports }]),
    }
}

#[tokio::test]
async fn a_config_is_sent_as_a_text_and_answered_with_steps() {
    let daemon = serve_one_tunnel();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may change tunnels");
    }
    let text = "[[tunnel]]\nname = \"old\"\nlocal = \"any\"\nremote = \"192.0.2.1\"\n[[port]]\nname = \"e\"";
    let dry = client.apply("xgre.toml", text, true).await.unwrap();
    let told: Vec<_> = dry.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["- tunnel old: mode gre local any remote 192.0.2.1"]);
    let done = client.apply("xgre.toml", text, false).await.unwrap();
    let told: Vec<_> = done.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["+ port e: xdp auto", "- port *: those that are not named"]);

    let wrong = client.apply("xgre.toml", "[[port]]\nnam = 1", false).await.unwrap_err();
    assert!(wrong.to_string().contains("did you mean `name`?"), "{wrong}");
    let of_config = |tunnel| Tunnel { up: true, ..tunnel };
    let running = client.running().await.unwrap();
    let tunnels = vec![of_config(tunnel("new")), of_config(tunnel6("new6"))];
    assert_eq!(running, (tunnels, adopted()));
}

/// All but one, and one past netfilter.
fn adopted() -> Adopt {
    let named = [("gre1", Some(Netfilter::Bypass)), ("gre2", None)];
    let named = named.map(|(name, netfilter)| (name.to_owned(), netfilter));
    Adopt { all: Some(Netfilter::Respect), named: named.into() }
}

#[tokio::test]
async fn a_tunnel_of_the_kernels_is_adopted_by_name_and_so_are_all() {
    let daemon = serve_one_tunnel();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may change tunnels");
    }
    client.adopt(&Adoption::new("gre1", Some(Netfilter::Bypass))).await.unwrap();
    client.adopt(&Adoption::new(Adoption::ALL, None)).await.unwrap();
    let error = client.adopt(&Adoption::new("gre7", Some(Netfilter::Respect))).await.unwrap_err();
    assert!(error.to_string().contains("no tunnel is called \"gre7\""), "{error}");
}

/// With every option that gre has.
fn tunnel(name: &str) -> Tunnel {
    let (local, remote) = ([192, 168, 22, 196].into(), [10, 56, 88, 66].into());
    Tunnel {
        dev: Some("wan0".into()),
        ttl: 245,
        tos: 0xb8,
        ikey: Some(u32::MAX),
        okey: Some(0),
        icsum: true,
        oseq: true,
        seq_mode: SeqMode::Rfc2890,
        pmtudisc: false,
        ignore_df: true,
        mss: Mss::Fixed(1360),
        netfilter: Netfilter::Bypass,
        mtu: Some(1400),
        addresses: vec![
            "172.16.168.1/30".parse().unwrap(),
            "fd00::1/128 peer fd00::2/128".parse().unwrap(),
        ],
        routes: vec!["10.0.0.0/8".parse().unwrap(), "fd00:1::/32".parse().unwrap()],
        ..Tunnel::new(name, Mode::Gre, local, remote)
    }
}

/// With every option that ip6gre has besides.
fn tunnel6(name: &str) -> Tunnel {
    Tunnel {
        ocsum: true,
        iseq: true,
        encap_limit: Some(0),
        flow_label: FlowLabel::Inherit,
        mss: Mss::Auto,
        ..Tunnel::new(name, Mode::Ip6gre, Mode::Ip6gre.any(), "2001:db8::2".parse().unwrap())
    }
}

fn info() -> TunnelInfo {
    let (local, remote) = ([192, 168, 22, 196].into(), [10, 56, 88, 66].into());
    let tunnel = Tunnel::new("tunnel0", Mode::Gre, local, remote);
    let tunnel = Tunnel { ttl: 64, ikey: Some(1), ocsum: true, iseq: true, ..tunnel };
    TunnelInfo {
        ifindex: Some(7),
        up: true,
        mtu: Some(1476),
        underlay: Some("wan0".into()),
        why_not: Some("the next hop is not resolved".into()),
        mismatch: Some(mismatch()),
        path_mtus: vec![PathMtu { remote: "10.56.88.66".into(), mtu: 1400, expires_in: 598 }],
        payload_mtu: Some(1376),
        sequence: Some(Sequence { next_sent: 1 << 32, next_expected: 7, resynchronised: 0 }),
        ..TunnelInfo::configured(&tunnel)
    }
}

fn link() -> LinkInfo {
    LinkInfo {
        name: "tunnel0".into(),
        ifindex: 7,
        flags: 0x1_0043,
        mtu: 1476,
        qdisc: Some("noqueue".into()),
        operstate: "UP".into(),
        linkmode: "DEFAULT".into(),
        gro_max_size: Some(65_536),
        ..LinkInfo::default()
    }
}

fn link_settings() -> DeviceSettings {
    DeviceSettings { up: Some(true), mtu: Some(1400), mac: Some([2, 0, 0, 0, 0, 0xab]) }
}

fn mismatch() -> Mismatch {
    Mismatch {
        reason: "key-unexpected".into(),
        sends: "key 42".into(),
        expects: "no key".into(),
        since: 1_795_512_725,
        last: 1_795_517_998,
        packets: 1234,
        fix: "xgre tunnel change tunnel0 key 42".into(),
    }
}

fn port() -> PortInfo {
    PortInfo { name: "wan0".into(), ifindex: 3, xdp: "native".into(), note: None, forwarding: true }
}

fn stats() -> Stats {
    let drops = vec![Count { reason: "loop".into(), help: "Round.".into(), packets: 1 }];
    // Above what a 64-bit float holds exactly: counters must not go through one.
    let xdp = Traffic { packets: (1 << 53) + 1, bytes: i64::MAX as u64 };
    Stats {
        tunnels: vec![TunnelStats {
            name: "tunnel0".into(),
            rx: Direction { xdp, drops: drops.clone(), ..Direction::default() },
            tx: Direction::default(),
            mismatch: Some(mismatch()),
        }],
        tiers: vec![TierOutcomes { tier: "xdp".into(), outcomes: drops }],
    }
}

#[tokio::test]
async fn reports_arrive_as_they_were_sent() {
    let daemon = serve_one_tunnel();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    assert_eq!(client.tunnels().await.unwrap(), [info()]);
    assert_eq!(client.links().await.unwrap(), [link()]);
    assert_eq!(client.ports().await.unwrap(), [port()]);
    assert_eq!(client.stats().await.unwrap(), stats());
}

#[tokio::test]
async fn changes_and_refusals_arrive_as_they_were_sent() {
    let daemon = serve_one_tunnel();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may change tunnels");
    }
    client.add_tunnel(&tunnel("new")).await.unwrap();
    client.add_tunnel(&tunnel6("new6")).await.unwrap();
    client.change_tunnel("tunnel0", &tunnel("new")).await.unwrap();
    client.change_tunnel("tunnel0", &tunnel6("new6")).await.unwrap();
    client.reset_sequence("tunnel0").await.unwrap();
    client.set_link("tunnel0", link_settings()).await.unwrap();
    client.delete_tunnel("tunnel0").await.unwrap();

    let refused = |result: Result<(), ClientError>| result.unwrap_err().to_string();
    assert_eq!(
        refused(client.add_tunnel(&tunnel("twin")).await),
        "File exists\ntunnel \"tunnel0\" has the same key"
    );
    assert_eq!(refused(client.add_tunnel(&tunnel("bad")).await), "Invalid argument\nnot like this");
    assert_eq!(
        refused(client.add_tunnel(&tunnel("other")).await),
        "creating the veth pair: Operation not supported"
    );
    for refusal in [
        refused(client.delete_tunnel("nosuch").await),
        refused(client.set_link("nosuch", link_settings()).await),
        refused(client.change_tunnel("nosuch", &tunnel("new")).await),
        refused(client.reset_sequence("nosuch").await),
    ] {
        assert_eq!(
            refusal,
            "No such device\nno tunnel is called \"nosuch\"; `xgre tunnel show` lists them"
        );
    }
}

/// Calls that `varlinkctl` could make, with what no client of ours would send.
#[tokio::test]
async fn a_wrong_parameter_is_answered_in_words() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may change tunnels");
    }
    let daemon = serve_one_tunnel();
    let good = json!({"name": "x", "local": "10.0.0.1", "remote": "10.0.0.2"});
    for (key, value, reason) in [
        ("ttl", json!(256), "ttl: 256 does not fit"),
        ("key", json!(-1), "key: -1 does not fit"),
        ("mode", json!("sit"), "a mode is one of gre, ip6gre, gretap, ip6gretap, not \"sit\""),
        ("local", json!("10.0.0"), "local: an IP address is expected rather than \"10.0.0\""),
        (
            "local",
            json!("fe80::1"),
            "local fe80::1 is not IPv4, which mode gre runs over; mode ip6gre does",
        ),
        (
            "encap_limit",
            json!(4),
            "encaplimit belongs to the outer IPv6 header, and mode gre, which runs over IPv4, has \
             none: leave it out, or use mode ip6gre",
        ),
        ("seq_mode", json!("strict"), "seq_mode: a seq-mode is linux or rfc2890, not \"strict\""),
        (
            "flow_label",
            json!("100000"),
            "flow_label: a flow label is 0x0 to 0xfffff or inherit, not \"100000\"",
        ),
        ("netfilter", json!("ignore"), "netfilter: netfilter is respect or bypass, not \"ignore\""),
        ("mss", json!("9"), "mss: an mss is auto, off, or 88 to 65495 bytes, not \"9\""),
        ("mtu", json!(60), "the MTU of this tunnel is 68 to 65511 bytes, not 60"),
        (
            "addresses",
            json!(["10.0.0.1/24", "10.0.0"]),
            "addresses: an IP prefix is expected rather than \"10.0.0\"",
        ),
        (
            "routes",
            json!(["10.0.0.1/24"]),
            "routes: 10.0.0.1/24 has host bits set; did you mean 10.0.0.0/24?",
        ),
        (
            "name",
            json!("a/b"),
            "a device name has no `/`, no `:` and no space, and `a/b` is not one",
        ),
        (
            "remote",
            json!("10.0.0.1"),
            "local and remote are both 10.0.0.1: a tunnel leads to another host",
        ),
    ] {
        let mut spec = good.clone();
        spec[key] = value;
        let call = json!({"method": "io.xgre.Control.AddTunnel", "parameters": {"tunnel": spec}});
        let socket = daemon.socket.clone();
        let answer = tokio::task::spawn_blocking(move || call_raw(&socket, &call)).await.unwrap();
        assert_eq!(
            answer,
            json!({"error": "io.xgre.Control.InvalidTunnel", "parameters": {"reason": reason}})
        );
    }
}

/// Older clients know of no other parameters, and of one key.
#[tokio::test]
async fn what_is_left_out_has_iproute2s_defaults() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may change tunnels");
    }
    let (daemon, mut commands) = serve();
    let any = Mode::Gre.any();
    let keyed = Tunnel { ikey: Some(7), okey: Some(7), ..Tunnel::new("x", Mode::Gre, any, any) };
    let one_way = Tunnel { ikey: Some(8), ..keyed.clone() };
    let any6 = Mode::Ip6gre.any();
    for (spec, expected) in [
        (json!({"name": "x", "local": "any", "remote": "0.0.0.0", "key": 7}), keyed),
        (json!({"name": "x", "local": "any", "remote": "any", "key": 7, "ikey": 8}), one_way),
        (
            json!({"name": "x", "mode": "ip6gre", "local": "any", "remote": "any"}),
            Tunnel::new("x", Mode::Ip6gre, any6, any6),
        ),
    ] {
        let call = json!({"method": "io.xgre.Control.AddTunnel", "parameters": {"tunnel": spec}});
        let socket = daemon.socket.clone();
        let answer = tokio::task::spawn_blocking(move || call_raw(&socket, &call));
        let Command::AddTunnel(tunnel, reply) = next(&mut commands).await else {
            panic!("AddTunnel was called")
        };
        assert_eq!(*tunnel, expected);
        reply.send(Ok(())).unwrap();
        assert!(answer.await.unwrap()["error"].is_null());
    }
}

/// The command line changes a tunnel from what the daemon tells of it.
#[tokio::test]
async fn a_told_tunnel_is_the_tunnel() {
    let daemon = serve_one_tunnel();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    let told = client.tunnels().await.unwrap().remove(0);
    let (local, remote) = ([192, 168, 22, 196].into(), [10, 56, 88, 66].into());
    assert_eq!(
        Tunnel::try_from(api::TunnelSpec::from(&told)).unwrap(),
        Tunnel {
            ttl: 64,
            ikey: Some(1),
            ocsum: true,
            iseq: true,
            ..Tunnel::new("tunnel0", Mode::Gre, local, remote)
        }
    );
}

#[tokio::test]
async fn one_client_that_waits_does_not_hold_up_another() {
    let (daemon, mut commands) = serve();
    let mut waiting = Client::connect(&daemon.socket).await.unwrap();
    let mut quick = Client::connect(&daemon.socket).await.unwrap();

    let waiting = tokio::spawn(async move { waiting.stats().await });
    let Command::Stats(late) = next(&mut commands).await else { panic!("Stats was called") };

    let quick = tokio::spawn(async move { quick.tunnels().await });
    let Command::Tunnels(reply) = next(&mut commands).await else { panic!("Tunnels was called") };
    reply.send(vec![info()]).unwrap();
    assert_eq!(quick.await.unwrap().unwrap(), [info()]);

    late.send(stats()).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), stats());
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_up_another() {
    let daemon = serve_one_tunnel();
    // Until the server's replies fill the socket, it stops reading, and this side is full as well.
    let mut deaf = UnixStream::connect(&daemon.socket).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let deaf = tokio::task::spawn_blocking(move || {
        let call = b"{\"method\":\"io.xgre.Control.Stats\"}\0";
        while deaf.write_all(call).is_ok() {}
        deaf
    })
    .await
    .unwrap();

    let mut client = Client::connect(&daemon.socket).await.unwrap();
    assert_eq!(client.tunnels().await.unwrap(), [info()]);
    drop(deaf);
}

#[tokio::test]
async fn a_daemon_that_stops_says_so() {
    let (daemon, commands) = serve();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    drop(commands);
    let error = client.stats().await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(api::Error::Stopping)), "{error}");
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_leaves_the_first_alone() {
    let daemon = serve_one_tunnel();
    let error = Server::start(&daemon.socket, Handle::new().0, Access::default()).unwrap_err();
    assert!(matches!(error, ServerError::Taken(_)), "{error}");
    assert_eq!(
        error.to_string(),
        format!(
            "another xgre daemon answers on {}; stop it first: `systemctl stop xgre`",
            daemon.socket.display()
        )
    );
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    assert_eq!(client.tunnels().await.unwrap(), [info()]);
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_stopped_ones_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());

    let server = Server::start(&socket, Handle::new().0, Access::default()).unwrap();
    Client::connect(&socket).await.unwrap();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    // Who may do what is looked at in each call.
    assert_eq!(mode & 0o777, 0o666);

    drop(server);
    assert!(!socket.exists());
    let error = Client::connect(&socket).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the xgre daemon is not running: nothing answers on {}\n\
             start it with `systemctl start xgre`, or in the foreground with `xgre run`",
            socket.display()
        )
    );
}

async fn next(commands: &mut Receiver<Command>) -> Command {
    let command = tokio::time::timeout(Duration::from_secs(5), commands.recv()).await;
    command.expect("a command within 5 seconds").unwrap()
}

fn call_raw(socket: &Path, call: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(format!("{call}\0").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    serde_json::from_slice(answer.strip_suffix(b"\0").expect("an answer")).unwrap()
}
