//! The control socket of a running daemon: what an independent Varlink client makes of it, who may call
//! what, and what `xgre link` does by it.
//!
//! ```text
//!      host                  elsewhere
//!  +----------+            +-----------+
//!  | u0    u1 |  socket    |           |
//!  | daemon --|------------|- callers  |   and callers of other users and user namespaces
//!  +----------+            +-----------+
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Group;
use serde_json::{Value, json};
use tests::{
    config::{Gateway, Xdp},
    namespace::{Namespace, Resident},
    process::{Finished, Process, wait_until},
    topology::wire,
    xgre::{Daemon, attempt, binary, xgre},
};

/// The distribution's, which everybody may run.
const PYTHON: &str = "/usr/bin/python3";
const SOON: Duration = Duration::from_secs(20);
/// Nobody's user and group, on Debian as on others.
const NOBODY: u32 = 65_534;
/// Of a group that every Linux has, whose members may change what runs.
const GROUP: &str = "daemon";

struct Lab {
    host: Namespace,
    daemon: Daemon,
    socket: PathBuf,
}

impl Lab {
    fn start(config: &str) -> Result<Self> {
        let host = Namespace::new("host")?;
        wire((&host, "u0"), (&host, "u1"))?;
        host.ip("addr add 192.0.2.1/24 dev u0")?;
        let file = host.scratch().join("xgre.toml");
        fs::write(&file, Gateway::without_tunnels().ports(&["u0"]).xdp(Xdp::Off).toml() + config)?;
        let daemon = Daemon::start_from(&host, &file)?;
        let socket = socket(&host)?;
        Ok(Self { host, daemon, socket })
    }

    /// A call from a namespace, by what stands in front of the program.
    fn call(&self, from: &Namespace, as_whom: &[&str], call: &Value) -> Result<Value> {
        let call = call.to_string();
        let python = [PYTHON, "-c", include_str!("../varlink/call.py")];
        let socket = self.socket.to_str().context("the socket's path is not UTF-8")?;
        let line: Vec<&str> =
            as_whom.iter().copied().chain(python).chain([socket, &call]).collect();
        let text = from.spawn(line[0], &line[1..])?.process.finish(SOON)?.success()?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }
}

fn socket(namespace: &Namespace) -> Result<PathBuf> {
    let pins = namespace.pins();
    let instance = pins.file_name().context("the pins' directory has a name")?;
    Ok(Path::new("/run/xgre").join(instance).join("control.sock"))
}

fn delete(name: &str) -> Value {
    json!({"method": "io.xgre.Control.DeleteTunnel", "parameters": {"name": name}})
}

fn look() -> Value {
    json!({"method": "io.xgre.Control.Tunnels"})
}

/// PyPI's varlink parses the description, and calls by what it says.
#[test]
fn an_independent_client_introspects_and_calls() -> Result<()> {
    let lab = Lab::start("")?;
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("python");
    ensure!(python.is_dir(), "PyPI's varlink is not installed: cargo xtask setup");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("varlink/client.py");
    let tunnel = json!({"name": "t0", "local": "192.0.2.1", "remote": "192.0.2.2", "key": 42});
    let twin =
        json!({"tunnel": {"name": "t1", "local": "192.0.2.1", "remote": "192.0.2.2", "key": 42}});
    let calls = [
        ("AddTunnel", json!({"tunnel": tunnel})),
        ("SetLink", json!({"name": "t0", "settings": {"up": true, "mtu": 1400}})),
        ("Tunnels", json!({})),
        ("AddTunnel", twin),
        ("DeleteTunnel", json!({"name": "nosuch"})),
        ("DeleteTunnel", json!({"name": "t0"})),
        ("Tunnels", json!({})),
    ];
    let mut command = lab.host.command(PYTHON);
    command.env("PYTHONPATH", python).arg(script).arg(&lab.socket);
    for (method, parameters) in &calls {
        command.arg(method).arg(parameters.to_string());
    }
    let found: Value = serde_json::from_str(&Process::spawn(command)?.finish(SOON)?.success()?)?;

    assert_eq!(found["info"]["vendor"], "xgre");
    let interfaces = found["info"]["interfaces"].as_array().context("no interfaces")?;
    ensure!(interfaces.contains(&"io.xgre.Control".into()), "{interfaces:?}");
    assert_eq!(
        found["methods"],
        json!([
            "AddTunnel",
            "ChangeTunnel",
            "ResetSequence",
            "DeleteTunnel",
            "SetLink",
            "Adopt",
            "Apply",
            "Running",
            "Tunnels",
            "Links",
            "Ports",
            "Stats"
        ])
    );
    let answers = found["answers"].as_array().context("no answers")?;
    let shown = &answers[2]["reply"]["tunnels"][0];
    let seen = ["name", "key", "up", "mtu"].map(|key| shown[key].clone());
    assert_eq!(seen, [json!("t0"), json!(42), json!(true), json!(1400)]);
    for done in [0, 1, 5] {
        assert_eq!(answers[done]["error"], Value::Null, "{:?}: {}", calls[done], answers[done]);
    }
    assert_eq!(
        answers[3],
        json!({
            "error": "io.xgre.Control.TunnelExists",
            "parameters": {"reason": "tunnel \"t0\" has the same local, remote and key"},
        })
    );
    assert_eq!(
        answers[4],
        json!({"error": "io.xgre.Control.NoSuchTunnel", "parameters": {"name": "nosuch"}})
    );
    assert_eq!(answers[6]["reply"], json!({"tunnels": []}));
    lab.daemon.stop().map(drop)
}

/// `setpriv` and its words for a user with one more group.
fn as_user(group: u32) -> [String; 4] {
    [
        "setpriv".into(),
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        format!("--groups={group}"),
    ]
}

fn words(text: &[String]) -> Vec<&str> {
    text.iter().map(String::as_str).collect()
}

#[test]
fn others_may_look_and_only_root_and_the_group_may_change() -> Result<()> {
    let gid = Group::from_name(GROUP)?.context("there is no group daemon")?.gid.as_raw();
    let lab = Lab::start(&format!("[control]\ngroup = \"{GROUP}\"\n"))?;
    let host = &lab.host;
    let (member, stranger) = (as_user(gid), as_user(NOBODY));
    let gone = json!({"error": "io.xgre.Control.NoSuchTunnel", "parameters": {"name": "t0"}});
    let denied = |reason: &str| json!({"error": "io.xgre.Control.PermissionDenied", "parameters": {"reason": reason}});
    let members = format!(
        "only root and the group \"{GROUP}\" may change what runs: use `sudo`, or `usermod --append \
         --groups {GROUP} USER` and log in anew"
    );
    for who in [&member, &stranger] {
        assert_eq!(lab.call(host, &words(who), &look())?["parameters"], json!({"tunnels": []}));
    }
    // That it is asked for is what tells that it would have been deleted.
    assert_eq!(lab.call(host, &words(&member), &delete("t0"))?, gone);
    assert_eq!(lab.call(host, &words(&stranger), &delete("t0"))?, denied(&members));

    // The config lets another group, while the daemon runs.
    let plain = Gateway::without_tunnels().ports(&["u0"]).xdp(Xdp::Off).toml();
    let file = lab.daemon.config();
    fs::write(&file, &plain)?;
    let file = file.to_str().context("the file's name is not UTF-8")?;
    let applied = xgre(host, &format!("apply {file}"))?;
    ensure!(applied.starts_with(&format!("~ control group: {GROUP} -> none\n")), "{applied}");
    let nobody = "only root may change what runs: use `sudo`, or let a group do it by `group` in the \
                  config's [control]";
    assert_eq!(lab.call(host, &words(&member), &delete("t0"))?, denied(nobody));
    fs::write(file, plain + "[control]\ngroup = \"no-such-group\"\n")?;
    let refused = attempt(host, &format!("apply {file}"))?.failure()?;
    ensure!(refused.contains("there is no such group on this machine: `groupadd"), "{refused}");
    lab.daemon.stop().map(drop)
}

/// Neither another network namespace nor root of another user namespace makes more of a caller than
/// its user.
#[test]
fn a_caller_from_another_namespace_gets_no_more_than_its_user() -> Result<()> {
    let lab = Lab::start("")?;
    let elsewhere = Namespace::new("elsewhere")?;
    let is_denied = |answer: &Value| answer["error"] == "io.xgre.Control.PermissionDenied";
    let stranger = as_user(NOBODY);
    let answer = lab.call(&elsewhere, &words(&stranger), &delete("t0"))?;
    ensure!(is_denied(&answer), "{answer}");
    assert_eq!(lab.call(&elsewhere, &["env"], &delete("t0"))?["parameters"]["name"], "t0");

    let (_resident, users) = user_namespace(&elsewhere)?;
    let inside = ["nsenter".to_owned(), format!("--user={users}"), "--".into()];
    let whoami = ["id", "-u"];
    let line: Vec<_> = words(&inside).into_iter().chain(whoami).collect();
    let id = elsewhere.spawn(line[0], &line[1..])?.process.finish(SOON)?.success()?;
    assert_eq!(id.trim(), "0", "root in there");
    let answer = lab.call(&elsewhere, &words(&inside), &delete("t0"))?;
    ensure!(is_denied(&answer), "{answer}");
    assert_eq!(
        lab.call(&elsewhere, &words(&inside), &look())?["parameters"],
        json!({"tunnels": []})
    );
    lab.daemon.stop().map(drop)
}

/// One whose root is nobody out here, for as long as the process lives.
fn user_namespace(namespace: &Namespace) -> Result<(Resident, String)> {
    let resident = namespace.spawn("unshare", &["--user", "sleep", "600"])?;
    let process = PathBuf::from(format!("/proc/{}", resident.process.id()));
    let users = process.join("ns/user");
    let own = fs::read_link("/proc/self/ns/user")?;
    wait_until("the user namespace is there", SOON, || {
        ensure!(fs::read_link(&users)? != own, "it is still ours");
        Ok(())
    })?;
    for map in ["uid_map", "gid_map"] {
        fs::write(process.join(map), format!("0 {NOBODY} 1\n"))?;
    }
    Ok((resident, users.display().to_string()))
}

/// The command line, as somebody else, in a place that is open to them.
#[test]
fn the_command_line_says_who_may() -> Result<()> {
    let lab = Lab::start("")?;
    let place = lab.host.scratch().join("xgre");
    let copied = Command::new("cp").arg(binary()?).arg(&place).status()?;
    ensure!(copied.success(), "copying xgre");
    let stranger = as_user(NOBODY);
    let run = |line: &str| -> Result<Finished> {
        let place = place.to_str().context("the place's name is not UTF-8")?;
        let words: Vec<_> =
            words(&stranger).into_iter().chain([place]).chain(line.split_whitespace()).collect();
        lab.host.spawn(words[0], &words[1..])?.process.finish(SOON)
    };
    xgre(&lab.host, "tunnel add t0 mode gre remote 192.0.2.2 local 192.0.2.1")?;
    let shown = run("tunnel show")?.success()?;
    ensure!(shown.starts_with("t0: gre/ip remote 192.0.2.2 local 192.0.2.1"), "{shown}");
    let reason = "Operation not permitted\nonly root may change what runs: use `sudo`, or let a group do \
                  it by `group` in the config's [control]\n";
    for (line, start, code) in [
        ("tunnel del t0", "delete tunnel \"t0\" failed: ", 1),
        ("tunnel change t0 key 1", "change tunnel \"t0\" failed: ", 1),
        ("link set t0 up", "RTNETLINK answers: ", 2),
    ] {
        let refused = run(line)?;
        assert_eq!(refused.output.stderr, format!("{start}{reason}"), "{line}");
        assert_eq!(refused.status.code(), Some(code), "{line}");
    }
    lab.daemon.stop().map(drop)
}

/// What `xgre link` sets on the device, and that a refusal leaves nothing.
#[test]
fn a_device_is_set_as_by_ip_link() -> Result<()> {
    let lab = Lab::start("")?;
    let host = &lab.host;
    const ENDS: &str = "remote 192.0.2.2 local 192.0.2.1";
    xgre(host, &format!("link add tap1 up mtu 1400 address 02:00:00:00:00:01 type gretap {ENDS}"))?;
    let device = host.ip("-o link show dev tap1")?;
    for word in ["mtu 1400 ", "link/ether 02:00:00:00:00:01 ", ",UP,"] {
        ensure!(device.contains(word), "no {word} in {device}");
    }
    xgre(host, "link set dev tap1 down mtu 1300 type gretap k 7")?;
    let device = host.ip("-o link show dev tap1")?;
    // A key costs four bytes, and then comes the MTU that was asked for.
    ensure!(device.contains("mtu 1300 ") && !device.contains("UP"), "{device}");
    xgre(host, &format!("link replace tap1 type gretap {ENDS} ttl 9"))?;
    let shown = xgre(host, "tunnel show tap1")?;
    assert_eq!(shown.lines().next(), Some("tap1: gretap remote 192.0.2.2 local 192.0.2.1 ttl 9"));
    xgre(host, &format!("link replace gre1 up type gre {ENDS}"))?;
    ensure!(host.ip("-o link show dev gre1")?.contains(",UP,"), "gre1 is not up");

    // A device for IP has no address to set: neither the tunnel nor its device is left.
    let refused = attempt(
        host,
        "link add gre2 address 02:00:00:00:00:02 type gre remote 192.0.2.3 local 192.0.2.1",
    )?;
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        refused.output.stderr,
        "RTNETLINK answers: Invalid argument\ngre2 is gre, which carries no Ethernet: leave `address` \
         out\n"
    );
    ensure!(!host.devices()?.contains(&"gre2".to_owned()), "gre2 is still there");
    let refused = attempt(host, "link set gre1 mtu 67")?;
    ensure!(
        refused.output.stderr.contains("the MTU of this tunnel is 68 to"),
        "{}",
        refused.output
    );
    lab.daemon.stop().map(drop)
}
