//! The netlink layer against the kernel. Each test has a network namespace of its own, made for a
//! thread that ends with it, so nothing outside is touched; what is asserted was made by iproute2
//! or is read back by it.

mod addresses;
mod bridges;
mod filters;
mod links;
mod neighbours;
mod routes;
mod rules;
mod tunnel_device;
mod watching;

use std::{
    collections::BTreeMap, fs, future::Future, panic::resume_unwind, process::Command, sync::Arc,
    thread, time::Duration,
};

use gre_userspace::{
    netlink::Kernel,
    observed::{Link, Route, Snapshot},
};
use ipnet::IpNet;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::Uid,
};
use tokio::{sync::watch, time::timeout};

const MAIN: u32 = 254;
const LOCAL: u32 = 255;

/// Runs `test` in a thread with a network namespace and a runtime of its own.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Kernel) -> F + Send + 'static) {
    assert!(
        Uid::effective().is_root(),
        "these tests make network namespaces: run them as root, e.g. with `sudo -E cargo test`"
    );
    let result = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { test(Kernel::connect().unwrap()).await });
    })
    .join();
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Runs iproute2 in the thread's namespace and returns what it prints.
fn ip(arguments: &str) -> String {
    try_ip(arguments).unwrap_or_else(|errors| panic!("ip {arguments}: {errors}"))
}

/// As [`ip`], or what it complains of.
fn try_ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Sets net.SETTING, written with slashes, of the thread's namespace.
fn sysctl(setting: &str, value: &str) {
    let path = format!("/proc/sys/net/{setting}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn by_name(snapshot: &Snapshot) -> BTreeMap<String, Link> {
    snapshot.links.values().map(|link| (link.name.clone(), link.clone())).collect()
}

fn route<'a>(snapshot: &'a Snapshot, destination: &str) -> Option<&'a Route> {
    let destination: IpNet = destination.parse().unwrap();
    snapshot.routes.iter().find(|route| route.destination == destination)
}

/// Waits for a published snapshot that `condition` holds of.
async fn until(
    watched: &mut watch::Receiver<Arc<Snapshot>>,
    condition: impl Fn(&Snapshot) -> bool,
) {
    let published = watched.wait_for(|snapshot| condition(snapshot));
    let found = matches!(timeout(Duration::from_secs(20), published).await, Ok(Ok(_)));
    let last = watched.borrow();
    assert!(
        found,
        "not published in 20 s; the last had {} routes and {:#?}",
        last.routes.len(),
        last.links
    );
}
