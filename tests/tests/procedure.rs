//! The document's procedure, as `docs/procedure` tells it: each command there is run, and says what the page says.
//!
//! What a page leaves open it writes as trycmd does, `[..]` and `...`. `TRYCMD=overwrite` writes what was said into
//! the pages.

use std::{
    env,
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tests::{
    config::Gateway,
    lan::Lan,
    namespace::Namespace,
    topology::Lab,
    xgre::{Daemon, binary},
};
use trycmd::{TestCases, schema::Bin};

#[test]
fn the_routed_procedure_is_as_its_page_says() -> Result<()> {
    let lab = Lab::new()?;
    let Lab { pc1, r1, r2, pc2, .. } = &lab;
    page("routed.md", [pc1, r1, r2, pc2], &Gateway::without_tunnels())
}

#[test]
fn the_bridged_procedure_is_as_its_page_says() -> Result<()> {
    let lan = Lan::new()?;
    let Lan { pc1, r1, r2, pc2, .. } = &lan;
    page("bridged.md", [pc1, r1, r2, pc2], &Gateway::without_tunnels().ports(&["wan", "lan"]))
}

/// Runs a page's commands, with a daemon on R1 and on R2 that knows of no tunnel.
fn page(name: &str, hosts: [&Namespace; 4], config: &Gateway) -> Result<()> {
    let [_, r1, r2, _] = hosts;
    let daemons = [Daemon::start(r1, config)?, Daemon::start(r2, config)?];
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/procedure").join(name);
    let programs = binary()?.parent().context("xgre is in a directory")?.to_owned();
    let path = format!("{}:{}", programs.display(), env::var("PATH")?);
    thread::scope(|scope| {
        let run = scope.spawn(|| -> Result<()> {
            name_hosts(hosts)?;
            let cases = TestCases::new();
            cases.env("PATH", path).register_bin("ip", Bin::Path("/bin/ip".into()));
            cases.case(page).run();
            Ok(())
        });
        run.join().expect("the page says what the commands do")
    })?;
    for daemon in daemons {
        daemon.stop()?;
    }
    Ok(())
}

/// Calls namespaces as the pages do, for this thread and what it starts.
fn name_hosts(hosts: [&Namespace; 4]) -> Result<()> {
    const NAMES: &str = "/run/netns";
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let files = hosts.map(|host| File::open(Path::new(NAMES).join(host.name())));
    mount(Some("none"), NAMES, Some("tmpfs"), MsFlags::empty(), none)?;
    for (name, file) in ["PC1", "R1", "R2", "PC2"].into_iter().zip(files) {
        let place = Path::new(NAMES).join(name);
        fs::write(&place, "")?;
        let file = file?;
        let open = format!("/proc/self/fd/{}", file.as_raw_fd());
        mount(Some(open.as_str()), &place, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("naming {name}"))?;
    }
    Ok(())
}
