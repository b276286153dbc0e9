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
        api,
        client::{Client, ClientError},
        server::{Server, ServerError},
    },
    daemon::handle::{Command, Handle, Refusal},
    model::{Mode, Tunnel},
    report::{Count, Direction, PortInfo, Stats, TierOutcomes, Traffic, TunnelInfo, TunnelStats},
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
    let server = Server::start(&socket, handle).unwrap();
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
                Command::DeleteTunnel(name, reply) if name == "tunnel0" => {
                    reply.send(Ok(())).unwrap();
                }
                Command::DeleteTunnel(name, reply) => {
                    reply.send(Err(Refusal::NoSuchTunnel(name))).unwrap();
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
        "twin" => Err(Refusal::Exists("tunnel \"tunnel0\" has the same key".into())),
        "bad" => Err(Refusal::Invalid("not like this".into())),
        _ => Err(Refusal::Kernel("creating the veth pair: Operation not supported".into())),
    }
}

fn tunnel(name: &str) -> Tunnel {
    Tunnel {
        name: name.into(),
        mode: Mode::Gre,
        local: [192, 168, 22, 196].into(),
        remote: [10, 56, 88, 66].into(),
        ttl: 245,
        tos: 0xb8,
        key: Some(u32::MAX),
        pmtudisc: false,
        mtu: None,
        addresses: vec![],
        routes: vec![],
        up: false,
    }
}

fn info() -> TunnelInfo {
    TunnelInfo {
        name: "tunnel0".into(),
        mode: "gre".into(),
        local: "192.168.22.196".into(),
        remote: "10.56.88.66".into(),
        ttl: 64,
        tos: 0,
        key: None,
        pmtudisc: true,
        ifindex: Some(7),
        up: true,
        mtu: Some(1476),
        underlay: Some("wan0".into()),
        via: None,
        fast: false,
        why_not: Some("the next hop is not resolved".into()),
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
            rx: Direction { xdp, tc: Traffic::default(), drops: drops.clone() },
            tx: Direction::default(),
        }],
        tiers: vec![TierOutcomes { tier: "xdp".into(), outcomes: drops }],
    }
}

#[tokio::test]
async fn reports_arrive_as_they_were_sent() {
    let daemon = serve_one_tunnel();
    let mut client = Client::connect(&daemon.socket).await.unwrap();
    assert_eq!(client.tunnels().await.unwrap(), [info()]);
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
    assert_eq!(
        refused(client.delete_tunnel("nosuch").await),
        "No such device\nno tunnel is called \"nosuch\"; `xgre tunnel show` lists them"
    );
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
        ("mode", json!("sit"), "mode \"sit\" is not supported; use \"gre\""),
        ("local", json!("fe80::1"), "local: an IP address is expected rather than \"fe80::1\""),
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

#[tokio::test]
async fn the_interface_describes_itself() {
    let (daemon, _commands) = serve();
    let socket = daemon.socket.clone();
    let answer = tokio::task::spawn_blocking(move || {
        call_raw(
            &socket,
            &json!({
                "method": "org.varlink.service.GetInterfaceDescription",
                "parameters": {"interface": "io.xgre.Control"},
            }),
        )
    })
    .await
    .unwrap();
    let description = answer["parameters"]["description"].as_str().unwrap();
    let declared: Vec<&str> = description
        .lines()
        .filter_map(|line| match line.split_once(' ')? {
            ("interface" | "method" | "error", _) => Some(line),
            ("type", rest) => rest.split_once(' ').map(|(name, _)| name),
            _ => None,
        })
        .collect();
    assert_eq!(
        declared,
        [
            "interface io.xgre.Control",
            "TunnelSpec",
            "TunnelInfo",
            "PortInfo",
            "TunnelStats",
            "Direction",
            "Traffic",
            "Count",
            "TierOutcomes",
            "method AddTunnel(tunnel: TunnelSpec) -> ()",
            "method DeleteTunnel(name: string) -> ()",
            "method Tunnels() -> (tunnels: []TunnelInfo)",
            "method Ports() -> (ports: []PortInfo)",
            "method Stats() -> (tunnels: []TunnelStats, tiers: []TierOutcomes)",
            "error TunnelExists (reason: string)",
            "error NoSuchTunnel (name: string)",
            "error InvalidTunnel (reason: string)",
            "error KernelRefused (reason: string)",
            "error RootRequired ()",
            "error Stopping ()",
        ],
        "{description}"
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
    let error = Server::start(&daemon.socket, Handle::new().0).unwrap_err();
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

    let server = Server::start(&socket, Handle::new().0).unwrap();
    Client::connect(&socket).await.unwrap();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

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
