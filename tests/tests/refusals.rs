//! What cannot be had is refused in words that say what to do, and nothing is half done.
//!
//! ```text
//!  port ------- far        one namespace, no daemon but those that refuse to start
//! ```

use std::{fs::File, path::PathBuf, thread};

use anyhow::{Result, ensure};
use aya::programs::XdpMode;
use gre_userspace::{
    instance::Instance,
    loader::{self, Build, Loaded, Programs, XdpModes},
    model::Limits,
};
use nix::sched::{CloneFlags, setns};
use tests::{
    config::{Gateway, Xdp},
    gateways::SOON,
    namespace::Namespace,
    process::wait_until,
    xgre::{Daemon, refused_run},
};

const TUNNEL: &str = "[[tunnel]]\nname = \"tunnel0\"\nmode = \"gre\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n";

/// A namespace with one Ethernet interface that has an address.
fn host() -> Result<Namespace> {
    let host = Namespace::new("refuses")?;
    host.ip("link add port type veth peer name far")?;
    host.ip("link set port up")?;
    host.ip("link set far up")?;
    host.ip("addr add 192.0.2.1/24 dev port")?;
    // The kernel says of the first that came up only a moment later that the other one did.
    wait_until("both ends are up", SOON, || {
        let links = host.ip("-br link")?;
        ensure!(!links.contains("DOWN"), "{links}");
        Ok(())
    })?;
    Ok(host)
}

/// The daemon refuses the config with all these words, and changes nothing.
fn refuses(host: &Namespace, config: &str, words: &[&str]) -> Result<()> {
    let state = |host: &Namespace| -> Result<String> {
        Ok(host.ip("-br link")? + &host.ip("route")? + &host.ip("-d link show dev port")?)
    };
    let before = state(host)?;
    let said = refused_run(host, config)?;
    for word in words {
        ensure!(said.contains(word), "no {word:?} in:\n{said}");
    }
    assert_eq!(state(host)?, before);
    Ok(())
}

#[test]
fn a_port_that_does_not_exist() -> Result<()> {
    let config = "[[port]]\nname = \"eth7\"\n";
    refuses(&host()?, config, &["\"eth7\": no such interface", "port"])
}

#[test]
fn a_tunnel_with_the_name_of_another_interface() -> Result<()> {
    let config = TUNNEL.replace("tunnel0", "far");
    refuses(&host()?, &config, &["tunnel \"far\"", "not a tunnel of xgre", "ip link del far"])
}

#[test]
fn an_unknown_key_with_its_line_and_the_nearest_known_one() -> Result<()> {
    let config = TUNNEL.replace("remote", "remot");
    refuses(&host()?, &config, &["unknown key `remot`; did you mean `remote`?", "refused.toml:5:1"])
}

#[test]
fn a_wrong_address_with_its_line() -> Result<()> {
    let config = TUNNEL.replace("192.0.2.2", "192.0.2.300");
    refuses(&host()?, &config, &["expected rather than \"192.0.2.300\"", "refused.toml:5:10"])
}

#[test]
fn two_tunnels_that_could_not_be_told_apart() -> Result<()> {
    let config = format!("{TUNNEL}{}", TUNNEL.replace("tunnel0", "tunnel1"));
    refuses(&host()?, &config, &["have the same local", "`tunnel0` (line 2)", "`tunnel1` (line 7)"])
}

#[test]
fn a_port_that_has_an_xdp_program_already() -> Result<()> {
    let host = host()?;
    let _foreign = attach_foreign_program(&host)?;
    refuses(
        &host,
        TUNNEL,
        &["port: it already has an XDP program (id ", "ip link set dev port xdp", "xdp = \"off\""],
    )
}

/// XDP programs of others run before ours; with XDP off for the port both live side by side.
#[test]
fn a_port_that_has_an_xdp_program_is_left_to_tc_where_the_config_says_so() -> Result<()> {
    let host = host()?;
    let _foreign = attach_foreign_program(&host)?;
    let before = host.ip("link show dev port")?;
    let config = Gateway::new("192.0.2.1", "192.0.2.2").ports(&["port"]).xdp(Xdp::Off);
    let daemon = Daemon::start(&host, &config)?;
    assert_eq!(host.ip("link show dev port")?, before);
    daemon.stop().map(drop)
}

/// Attaches a program that no daemon has pinned, as another's would be; until it is dropped.
fn attach_foreign_program(host: &Namespace) -> Result<Foreign> {
    let namespace = format!("/run/netns/{}", host.name());
    let pins = PathBuf::from(format!("/sys/fs/bpf/{}", host.name()));
    // Mounts bpffs where no daemon has been yet.
    Instance::current()?.prepare()?;
    let limits =
        Limits { tunnels: 1, next_hops: 1, route_blocks: 1, interfaces: 64, ..Limits::DEFAULT };
    let attach = move || -> Result<Foreign> {
        setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
        let Loaded { mut programs, .. } =
            loader::load(&Build::THIS, &limits, &pins, XdpModes::NATIVE)?;
        programs.xdp()?.attach("port", XdpMode::default())?;
        Ok(Foreign(Some(programs)))
    };
    // The thread changes its namespace for good.
    thread::spawn(attach).join().expect("the thread does not panic")
}

struct Foreign(Option<Programs>);

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(Programs::teardown) {
            eprintln!("removing the foreign program's pins: {error}");
        }
    }
}
