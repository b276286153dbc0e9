//! The gateways with many tunnels between them at once, each with addresses of its own.
//!
//! ```text
//!      PC1                    R1                  switch                 R2
//!  +----------+       +-----------------+    +--------------+    +----------------+
//!  | lo   eth0|-------|lan         wan  |----|to-r1    to-r2|----|wan         lo  |
//!  +----------+       +-----------------+    +--------------+    +----------------+
//!  10.150.0.N .10      .1   10.56.88.66                          10.56.88.67  10.110.0.N
//!  fd15::N     fd50::/64    fd56::66                             fd56::67     fd11::N
//!
//!                           tN 10.58.0.N or  <============> tN 10.57.0.N or
//!                              fd58::N                         fd57::N
//!                           xgre or the kernel              the kernel
//! ```
//!
//! The switch makes the underlay a wire, whatever R2's offloads are.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    gateways::SOON,
    namespace::Namespace,
    process::wait_until,
    topology::{like_wire, wire},
    xgre::{Daemon, xgre},
};

use crate::rows::{Ends, Inner, Row};

pub struct Lab {
    pub pc1: Namespace,
    pub r1: Namespace,
    pub r2: Namespace,
    pub switch: Namespace,
    rows: Vec<Row>,
}

impl Lab {
    /// Everything but R1's tunnels.
    pub fn new(rows: &[Row]) -> Result<Self> {
        let lab = Self {
            pc1: Namespace::new("pc1")?,
            r1: Namespace::new("r1")?,
            r2: Namespace::new("r2")?,
            switch: Namespace::new("switch")?,
            rows: rows.to_vec(),
        };
        let Self { pc1, r1, r2, switch, .. } = &lab;
        for namespace in [pc1, r1, r2] {
            with_ipv6(namespace)?;
        }
        wire((pc1, "eth0"), (r1, "lan"))?;
        wire((r1, "wan"), (switch, "to-r1"))?;
        wire((switch, "to-r2"), (r2, "wan"))?;
        like_wire(pc1, "eth0")?;
        like_wire(switch, "to-r1")?;
        like_wire(switch, "to-r2")?;
        batch(
            switch,
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set to-r1 master br0\nlink set to-r2 master br0\nlink set br0 up\n",
        )?;
        r1.sysctl("net.ipv4.ip_forward", 1)?;
        r1.sysctl("net.ipv6.conf.all.forwarding", 1)?;
        // Each of a row's answers is one that the next row waits for.
        r1.sysctl("net.ipv4.icmp_ratelimit", 0)?;
        for gateway in [r1, r2] {
            // Tunnels have no link-local addresses, which their ends would announce through them; the
            // devices above need theirs to find neighbours.
            gateway.sysctl("net.ipv6.conf.default.addr_gen_mode", 1)?;
        }
        if rows.iter().all(|row| !row.inner.contains(&Inner::Ipv6)) {
            // As a router it would join groups, and say so, on tunnels that carry IPv4 only.
            r1.sysctl("net.ipv6.conf.default.disable_ipv6", 1)?;
        }
        batch(pc1, &host(rows))?;
        batch(r1, &near(rows))?;
        batch(r2, &far(rows))?;
        Ok(lab)
    }

    /// Makes R1's tunnels the kernel's.
    pub fn kernel(&self) -> Result<()> {
        let mut lines = String::new();
        for row in &self.rows {
            _ = writeln!(lines, "link add {}", row.near_words());
            neighbour(&mut lines, row, row.options.near_ends, &row.far());
        }
        batch(&self.r1, &lines)?;
        self.up()
    }

    /// Removes those, and makes R2's anew: they would take the numbers of another sender for old.
    pub fn without_kernel(&self) -> Result<()> {
        let delete = |row: &Row| format!("link del {}\n", row.device());
        let delete: String = self.rows.iter().map(delete).collect();
        batch(&self.r1, &delete)?;
        batch(&self.r2, &(delete + &far_tunnels(&self.rows)))
    }

    /// How many segments of a stream R2's tunnels take at once; with 1, TCP does all the work.
    pub fn far_segments(&self, count: u32) -> Result<()> {
        let set = |row: &Row| format!("link set {} gso_max_segs {count}\n", row.device());
        batch(&self.r2, &self.rows.iter().map(set).collect::<String>())
    }

    /// Makes R1's tunnels xgre's; returns when packets take the tier of the mode.
    pub fn xgre(&self, xdp: Xdp) -> Result<Daemon> {
        let daemon = Daemon::start(&self.r1, &Gateway::without_tunnels().xdp(xdp))?;
        for row in &self.rows {
            xgre(&self.r1, &format!("tunnel add {}", row.xgre_words()))?;
        }
        self.up()?;
        if xdp != Xdp::Off {
            wait_until("every tunnel is accelerated", SOON, || {
                let reply = xgre(&self.r1, "tunnel show -j")?;
                let tunnels: Vec<Value> = serde_json::from_str(&reply)?;
                ensure!(tunnels.len() == self.rows.len(), "there are {}", tunnels.len());
                let not_yet = tunnels.iter().find(|tunnel| tunnel["accelerated"] != true);
                ensure!(not_yet.is_none(), "not yet: {not_yet:?}");
                Ok(())
            })?;
        }
        Ok(daemon)
    }

    /// R1's devices up, with their routes.
    fn up(&self) -> Result<()> {
        let mut lines = String::new();
        for row in &self.rows {
            station(&mut lines, row, &row.near_mac());
            up(&mut lines, row);
            for inner in row.inner {
                let via = via(row.options.near_ends, &row.far());
                let target = row.target(*inner);
                known(&mut lines, row, &target, &row.far_mac());
                _ = writeln!(lines, "route add {target} {via} dev {}", row.device());
            }
        }
        batch(&self.r1, &lines)
    }
}

/// Namespaces have no IPv6 of their own accord; without duplicate address detection, which would
/// take a second, and without solicitations, which nobody asked for.
fn with_ipv6(namespace: &Namespace) -> Result<()> {
    let settings = [("accept_dad", 0), ("router_solicitations", 0), ("disable_ipv6", 0)];
    let mut line = "sysctl -q -w".to_owned();
    for (key, value) in settings {
        for which in ["default", "all"] {
            _ = write!(line, " net.ipv6.conf.{which}.{key}={value}");
        }
    }
    namespace.run(&line).map(drop)
}

fn host(rows: &[Row]) -> String {
    let mut lines = "addr add 192.168.150.10/24 dev eth0\nroute add default via 192.168.150.1\n\
                     addr add fd50::10/64 dev eth0 nodad\nroute add default via fd50::1\n"
        .to_owned();
    for row in rows {
        for inner in [Inner::Ipv4, Inner::Ipv6] {
            address(&mut lines, &row.host(inner));
        }
    }
    lines
}

fn near(rows: &[Row]) -> String {
    let mut lines = "addr add 10.150.1.1/32 dev lo\n\
                     addr add 192.168.150.1/24 dev lan\naddr add fd50::1/64 dev lan nodad\n\
                     addr add 10.56.88.66/24 dev wan\naddr add fd56::66/64 dev wan nodad\n\
                     route add 10.150.0.0/24 via 192.168.150.10\nroute add fd15::/64 via fd50::10\n"
        .to_owned();
    for row in rows {
        outer(&mut lines, &row.near(), &row.far(), ["10.56.88.67", "fd56::67"]);
    }
    lines
}

fn far(rows: &[Row]) -> String {
    let mut lines =
        "addr add 10.56.88.67/24 dev wan\naddr add fd56::67/64 dev wan nodad\n".to_owned();
    for row in rows {
        outer(&mut lines, &row.far(), &row.near(), ["10.56.88.66", "fd56::66"]);
        for inner in row.inner {
            address(&mut lines, &row.target(*inner));
        }
    }
    lines + &far_tunnels(rows)
}

/// R1's own address, which R2 reaches by the first row's tunnel.
pub const OWN: &str = "10.150.1.1";

fn far_tunnels(rows: &[Row]) -> String {
    let mut lines = String::new();
    for row in rows {
        _ = writeln!(lines, "link add {}", row.far_words());
        neighbour(&mut lines, row, row.options.far_ends, &row.near());
        station(&mut lines, row, &row.far_mac());
        up(&mut lines, row);
        for inner in row.inner {
            let (host, target) = (row.host(*inner), row.target(*inner));
            known(&mut lines, row, &host, &row.near_mac());
            let via = via(row.options.far_ends, &row.near());
            _ = writeln!(lines, "route add {host} {via} dev {} src {target}", row.device());
        }
    }
    let first = &rows[0];
    _ = writeln!(lines, "route add {OWN} dev {} src {}", first.device(), first.target(Inner::Ipv4));
    lines
}

/// An outer address, and the way to the other, which says what is sent from where no `local` does.
fn outer(lines: &mut String, own: &str, other: &str, [v4, v6]: [&str; 2]) {
    let via = if own.contains(':') { v6 } else { v4 };
    address(lines, own);
    _ = writeln!(lines, "route add {other} via {via} src {own}");
}

/// Of the host itself. One of IPv6 would be tentative for a moment, even here.
fn address(lines: &mut String, address: &str) {
    let rest = if address.contains(':') { "/128 dev lo nodad" } else { "/32 dev lo" };
    _ = writeln!(lines, "addr add {address}{rest}");
}

/// Of a route into a tunnel without a remote address, which is the next hop's.
fn via(ends: Ends, other: &str) -> String {
    match ends {
        Ends::Both | Ends::Remote => String::new(),
        Ends::Local | Ends::Neither => format!("via {other} onlink"),
    }
}

/// The kernel's device takes such an address from the next hop's entry in the neighbour table.
fn neighbour(lines: &mut String, row: &Row, ends: Ends, other: &str) {
    if matches!(ends, Ends::Local | Ends::Neither) {
        let device = row.device();
        _ = writeln!(lines, "neigh add {other} lladdr {other} dev {device} nud permanent");
    }
}

/// The address of a device that frames are sent from.
fn station(lines: &mut String, row: &Row, mac: &str) {
    if row.outer.is_ethernet() {
        _ = writeln!(lines, "link set {} address {mac}", row.device());
    }
}

/// Which station a host is behind; asking would show between the packets that are compared.
fn known(lines: &mut String, row: &Row, host: &str, mac: &str) {
    if row.outer.is_ethernet() {
        _ = writeln!(lines, "neigh add {host} lladdr {mac} dev {} nud permanent", row.device());
    }
}

fn up(lines: &mut String, row: &Row) {
    let mtu = row.options.mtu.map_or_else(String::new, |mtu| format!("mtu {mtu}"));
    _ = writeln!(lines, "link set {} {mtu} up", row.device());
}

/// Many commands of `ip` by one process: a guest starts few a second.
pub fn batch(namespace: &Namespace, lines: &str) -> Result<()> {
    batch_of("ip", namespace, lines)
}

/// The same of another program of iproute2.
pub fn batch_of(program: &str, namespace: &Namespace, lines: &str) -> Result<()> {
    let file = namespace.scratch().join("batch");
    fs::write(&file, lines).with_context(|| format!("writing {}", file.display()))?;
    let result = namespace.run(&format!("{program} -batch {}", file.display()));
    result.with_context(|| format!("of these lines:\n{lines}")).map(drop)
}

/// This thread, what it starts, and so what the kernel does for them. Two CPUs that send through one of
/// the kernel's tunnels take its sequence numbers one before the other, and send the other way round.
pub fn on_one_cpu() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &one).context("staying on one CPU")
}
