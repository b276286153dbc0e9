//! What the kernel's bridge does with the kernel's gretap it does with xgre's: VLANs, groups, addresses that
//! are set, learned and gone. What it no longer forwards, XDP does not either.

use std::{collections::BTreeSet, sync::Mutex};

use anyhow::{Context as _, Result, ensure};
use tests::{
    config::Xdp,
    gateways::SOON,
    namespace::Namespace,
    process::wait_until,
    xgre::{Daemon, tunnel, xgre},
};

use crate::{
    bond,
    checks::{Checks, FROM_KERNEL, TO_KERNEL},
    lab::{batch, on_one_cpu},
    lan::{
        BROADCAST, BURST, Counted, Flow, Host, Lan, R1, R2, STATIC, STICKY, Seen, TAG, VLAN_10,
        VLAN_20, VLAN_30, counted,
    },
    stations::{Mac, group_mac, number},
};

const NOBODY: Mac = [2, 0x77, 0, 0, 0, 1];
const GROUP: Mac = [1, 0, 0x5e, 1, 2, 3];
const SERVICE_TAG: u16 = 0x88a8;

/// The tags that every host sends with.
const TAGS: [&[(u16, u16)]; 9] = [
    &[],
    VLAN_10,
    VLAN_20,
    VLAN_30,
    &[(TAG, 40)],
    // A priority alone, and one with a VLAN.
    &[(TAG, 0xe000)],
    &[(TAG, 0xa00a)],
    // No port's.
    &[(TAG, 999)],
    // To a bridge that filters by the other kind of tag it has none.
    &[(SERVICE_TAG, 10), (TAG, 10)],
];

/// What came of a round, and what R1's bridge says then.
#[derive(Clone, PartialEq, Eq)]
struct Found {
    seen: Seen,
    bridge: BTreeSet<String>,
}

/// With the kernel's gretap at both ends: VLANs, and groups. Worked out once.
static KERNEL: Mutex<Option<[Found; 2]>> = Mutex::new(None);

pub fn a_bridge_treats_xgres_gretap_as_the_kernels(xdp: Xdp) -> Result<()> {
    on_one_cpu()?;
    let mut lan = Lan::new()?;
    let [by_vlans, by_groups] = of_kernel(&lan)?;
    let daemon = lan.xgre(xdp)?;
    let mut checks = Checks::new(xdp)?;

    let before = counted(&daemon)?;
    let found = vlans(&lan)?;
    let carried = counted(&daemon)? - before;
    checks.check(cell("VLANs"), TO_KERNEL, "frames", || same(&by_vlans.seen, &found.seen))?;
    checks.check(cell("fdb show"), TO_KERNEL, "fdb", || {
        same_lines(&by_vlans.bridge, &found.bridge)
    })?;
    checks.check(cell("VLANs"), TO_KERNEL, "filtered", || none_of_vlan_20_crossed(&found.seen))?;
    checks.check(cell("VLANs"), TO_KERNEL, "tier", || fast(xdp, carried))?;
    let found = groups(&lan)?;
    checks.check(cell("snooping"), TO_KERNEL, "frames", || same(&by_groups.seen, &found.seen))?;
    checks.check(cell("mdb show"), TO_KERNEL, "mdb", || {
        same_lines(&by_groups.bridge, &found.bridge)
    })?;
    checks
        .check(cell("snooping"), TO_KERNEL, "groups", || only_to_those_who_joined(&found.seen))?;

    let change = Change { lan: &lan, daemon: &daemon, xdp };
    change.vlan_of_a_member(&mut checks)?;
    change.filtering(&mut checks)?;
    change.state_of_a_port(&mut checks)?;
    change.key_of_the_peer(&mut checks)?;
    bond::is_declined_with_a_reason(&mut lan, &daemon, xdp, &mut checks)?;
    Change { lan: &lan, daemon: &daemon, xdp }.spanning_tree(&mut checks)?;
    daemon.stop()?;
    checks.conclude()
}

/// A row of the table.
pub fn cell(what: &str) -> [&str; 3] {
    ["gretap, bridge", what, "-"]
}

fn of_kernel(lan: &Lan) -> Result<[Found; 2]> {
    let mut kernel = KERNEL.lock().expect("no test panics in here");
    if let Some(found) = &*kernel {
        return Ok(found.clone());
    }
    lan.kernel()?;
    let found = [vlans(lan)?, groups(lan)?];
    lan.without_kernel()?;
    Ok(kernel.insert(found).clone())
}

/// Every host to every other, to all, to a group and to nobody, with all kinds of tags.
fn vlans(lan: &Lan) -> Result<Found> {
    let [a, b, c] = Host::ALL;
    let seen = lan.watch(|| {
        let mut number = 0;
        for from in Host::ALL {
            let others = Host::ALL.into_iter().filter(|host| *host != from).map(Host::mac);
            for destination in others.chain([BROADCAST, GROUP, NOBODY]) {
                for tags in TAGS {
                    lan.send(from, &from.frame(destination, tags, number).bytes())?;
                    number += 1;
                }
            }
        }
        for (from, destination) in [(a, STATIC), (c, STICKY), (b, STATIC)] {
            lan.send(from, &from.frame(destination, VLAN_10, number).bytes())?;
            number += 1;
        }
        // Whose address stays where it was set.
        let mut frame = a.frame(c.mac(), VLAN_10, number);
        frame.source = STICKY;
        lan.send(a, &frame.bytes())
    })?;
    // Those of the hosts; devices have their own.
    let fdb = lan.r1.run("bridge fdb show br br0")?;
    let of_hosts = |line: &&str| !line.contains("permanent");
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let bridge = fdb.lines().filter(of_hosts).map(line).collect();
    Ok(Found { seen, bridge })
}

const JOINED: [u8; 4] = [239, 1, 2, 3];
const OTHER: [u8; 4] = [239, 9, 9, 9];
/// Which is flooded whoever joined (RFC 4541, 2.1.2).
const LINK_LOCAL: [u8; 4] = [224, 0, 0, 5];
const ADDRESSES: [[u8; 4]; 3] = [[192, 0, 2, 1], [192, 0, 2, 2], [192, 0, 2, 3]];

/// B joins a group, for which C asks; then all send to groups.
fn groups(lan: &Lan) -> Result<Found> {
    let [_, b, c] = Host::ALL;
    lan.r1.ip("link set br0 type bridge mcast_snooping 1")?;
    let [_, of_b, of_c] = ADDRESSES;
    // A general query of IGMPv3 that leaves no time to answer, and so none in which all is flooded.
    let all = [224, 0, 0, 1];
    let query = c.frame(group_mac(all), VLAN_10, 0).igmp(
        of_c,
        all,
        &[0x11, 0, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0],
    );
    lan.send(c, &query)?;
    let mdb = || lan.r1.run("bridge -d mdb show dev br0");
    wait_until("R1's bridge knows where the querier is", SOON, || {
        let mdb = mdb()?;
        ensure!(mdb.contains("router ports on br0: gretap1"), "{mdb}");
        Ok(())
    })?;
    let report = [&[0x16, 0, 0, 0][..], &JOINED].concat();
    lan.send(b, &b.frame(group_mac(JOINED), &[], 0).igmp(of_b, JOINED, &report))?;
    wait_until("B has joined", SOON, || {
        let mdb = mdb()?;
        ensure!(mdb.contains("port lan2 grp 239.1.2.3"), "{mdb}");
        Ok(())
    })?;
    let seen = lan.watch(|| {
        let mut number = 0;
        for (host, source) in Host::ALL.into_iter().zip(ADDRESSES) {
            let tags = if host == b { &[] } else { VLAN_10 };
            for group in [JOINED, OTHER, LINK_LOCAL] {
                lan.send(
                    host,
                    &host.frame(group_mac(group), tags, number).datagram(source, group),
                )?;
                number += 1;
            }
        }
        Ok(())
    })?;
    let bridge = mdb()?.lines().map(|line| line.trim().to_owned()).collect();
    lan.r1.ip("link set br0 type bridge mcast_snooping 0")?;
    Ok(Found { seen, bridge })
}

/// Every frame at every host, with its tags, as often.
fn same(kernel: &Seen, xgre: &Seen) -> Result<()> {
    for (host, (kernel, xgre)) in Host::ALL.iter().zip(kernel.iter().zip(xgre)) {
        ensure!(!kernel.is_empty(), "nothing was at {host:?}");
        let missing: Vec<_> = kernel.iter().filter(|frame| !xgre.contains(frame)).collect();
        let more: Vec<_> = xgre.iter().filter(|frame| !kernel.contains(frame)).collect();
        ensure!(kernel == xgre, "at {host:?} lacks {missing:02x?}, and is not due {more:02x?}");
    }
    Ok(())
}

fn same_lines(kernel: &BTreeSet<String>, xgre: &BTreeSet<String>) -> Result<()> {
    ensure!(!kernel.is_empty(), "the kernel's bridge has learned nothing");
    ensure!(kernel == xgre, "with the kernel's gretap {kernel:#?}, with xgre's {xgre:#?}");
    Ok(())
}

/// A and C both send in VLAN 20, and R1's tunnel is not in it.
fn none_of_vlan_20_crossed(seen: &Seen) -> Result<()> {
    let tagged = |frame: &&Vec<u8>| frame[12..16] == [0x81, 0, 0, 20];
    for host in Host::ALL {
        let frames = &seen[host as usize];
        let of = |source: Host| {
            frames.iter().filter(tagged).filter(|frame| frame[6..12] == source.mac()).count()
        };
        for source in Host::ALL {
            // What it sends itself is seen at its own device.
            let expected = if source == host { 5 } else { 0 };
            ensure!(of(source) == expected, "{} of {source:?} at {host:?}", of(source));
        }
    }
    Ok(())
}

/// Frames whose tag both members have in common took XDP, and no others.
fn fast(xdp: Xdp, carried: Counted) -> Result<()> {
    let found = (carried.tx_xdp, carried.decapsulated, carried.bridged);
    // To C: 3 tags of A's and 2 of B's, and two frames to a static address; from C, and from B to A, 2 tags.
    let expected = if xdp == Xdp::Off { (0, 0, 0) } else { (7, 2, 2) };
    ensure!(found == expected, "{found:?}, expected {expected:?} of {carried:?}");
    Ok(())
}

fn only_to_those_who_joined(seen: &Seen) -> Result<()> {
    let at = |host: Host, wanted: u16| {
        seen[host as usize].iter().filter(|frame| number(frame) == wanted).count()
    };
    let [a, b, c] = Host::ALL;
    // By A, B and C to the group that B joined, to another, and to a local one; the querier gets all.
    for (sender, first) in [(a, 0), (b, 3), (c, 6)] {
        for (group, receivers) in [(0, &[b, c][..]), (1, &[c]), (2, &[a, b, c])] {
            for host in Host::ALL {
                let expected = usize::from(host == sender || receivers.contains(&host));
                let found = at(host, first + group);
                ensure!(found == expected, "{found} of {sender:?}'s to group {group} at {host:?}");
            }
        }
    }
    Ok(())
}

/// What changes while frames flow.
pub struct Change<'a> {
    pub lan: &'a Lan,
    pub daemon: &'a Daemon,
    /// The mode that shows in the counters.
    pub xdp: Xdp,
}

impl Change<'_> {
    /// Waits until a flow takes the tier of the mode, whole.
    pub fn flows(&self, flow: Flow<'_>) -> Result<()> {
        wait_until("all frames arrive, in the tier of the mode", SOON, || {
            self.lan.teach(flow)?;
            let before = counted(self.daemon)?;
            let arrived = self.lan.burst(flow, flow)?;
            let carried = counted(self.daemon)? - before;
            ensure!(arrived == BURST, "{arrived} of {BURST} arrive");
            // With the one that is sent after them.
            let due = if self.xdp == Xdp::Off || flow.broadcast { 0 } else { BURST as u64 + 1 };
            let fast = if flow.to == Host::C { carried.tx_xdp } else { carried.decapsulated };
            ensure!(fast == due, "{carried:?}, {due} of them due in XDP");
            Ok(())
        })
    }

    /// Soon no frame of a flow arrives, and then none ever; `open` is a flow that goes on.
    fn ends(&self, flow: Flow<'_>, open: Flow<'_>) -> Result<()> {
        let none = || {
            let arrived = self.lan.burst(flow, open)?;
            ensure!(arrived == 0, "{arrived} of {BURST} arrive");
            Ok(())
        };
        wait_until("none arrive", SOON, none)?;
        (0..5).try_for_each(|_| none())
    }

    /// The same where nothing else goes that way either: R1 sends nothing into the tunnel, and what it
    /// receives from there does not arrive.
    pub fn nothing_crosses(&self, out: Flow<'_>, back: Flow<'_>) -> Result<()> {
        let none = || {
            let before = counted(self.daemon)?;
            self.lan.burst_into_nothing(out)?;
            let number = self.lan.burst_into_nothing(back)?;
            let carried = wait_until("R1 has received them", SOON, || {
                let carried = counted(self.daemon)? - before;
                ensure!(carried.rx == BURST as u64, "{carried:?}");
                Ok(carried)
            })?;
            let arrived = self.lan.arrived(back.to, number);
            ensure!((carried.tx, arrived) == (0, 0), "{carried:?}, {arrived} arrive");
            Ok(())
        };
        wait_until("nothing crosses", SOON, none)?;
        (0..2).try_for_each(|_| none())
    }

    fn bridge(&self, line: &str) -> Result<()> {
        self.lan.r1.run(&format!("bridge {line}")).map(drop)
    }

    fn vlan_of_a_member(&self, checks: &mut Checks) -> Result<()> {
        let [a, _, c] = Host::ALL;
        let (out, back) = (Flow::new(a, c, VLAN_10), Flow::new(c, a, VLAN_10));
        let open = |from, to| Flow::new(from, to, VLAN_30);
        checks.check(cell("vlan add, del"), TO_KERNEL, "flows", || self.flows(out))?;
        self.bridge("vlan del dev gretap1 vid 10")?;
        checks.check(cell("vlan add, del"), TO_KERNEL, "ends", || self.ends(out, open(a, c)))?;
        checks.check(cell("vlan add, del"), FROM_KERNEL, "ends", || self.ends(back, open(c, a)))?;
        self.bridge("vlan add dev gretap1 vid 10")?;
        checks.check(cell("vlan add, del"), TO_KERNEL, "again", || self.flows(out))?;
        checks.check(cell("vlan add, del"), FROM_KERNEL, "again", || self.flows(back))
    }

    fn filtering(&self, checks: &mut Checks) -> Result<()> {
        let [a, _, c] = Host::ALL;
        let (out, back) = (Flow::new(a, c, VLAN_20), Flow::new(c, a, VLAN_20));
        let open = |from, to| Flow::new(from, to, VLAN_10);
        let filtering =
            |on: u8| self.lan.r1.ip(&format!("link set br0 type bridge vlan_filtering {on}"));
        filtering(0)?;
        checks.check(cell("filtering on, off"), TO_KERNEL, "flows", || self.flows(out))?;
        checks.check(cell("filtering on, off"), FROM_KERNEL, "flows", || self.flows(back))?;
        filtering(1)?;
        checks
            .check(cell("filtering on, off"), TO_KERNEL, "ends", || self.ends(out, open(a, c)))?;
        checks.check(cell("filtering on, off"), FROM_KERNEL, "ends", || self.ends(back, open(c, a)))
    }

    fn state_of_a_port(&self, checks: &mut Checks) -> Result<()> {
        let [a, b, c] = Host::ALL;
        let out = Flow::new(a, c, VLAN_10);
        checks.check(cell("blocked port"), TO_KERNEL, "flows", || self.flows(out))?;
        // "blocking" the kernel takes back at once, where it does not speak the protocol itself.
        self.bridge("link set dev gretap1 state listening")?;
        checks.check(cell("blocked port"), TO_KERNEL, "tunnel", || {
            self.nothing_crosses(out, Flow::new(c, a, VLAN_10))
        })?;
        self.bridge("link set dev gretap1 state forwarding")?;
        checks.check(cell("blocked port"), TO_KERNEL, "again", || self.flows(out))?;
        self.bridge("link set dev lan state learning")?;
        checks.check(cell("blocked port"), TO_KERNEL, "port", || {
            self.ends(out, Flow::new(b, c, VLAN_10))
        })?;
        self.bridge("link set dev lan state forwarding")?;
        checks.check(cell("blocked port"), TO_KERNEL, "again", || self.flows(out))
    }

    /// S9: what the kernel's gretap sends with a key is explained, and mended by what is named.
    fn key_of_the_peer(&self, checks: &mut Checks) -> Result<()> {
        let [a, _, c] = Host::ALL;
        let back = Flow::new(c, a, VLAN_10);
        let key = |words: &str| {
            let line =
                format!("link set gretap1 type gretap local {R2} remote {R1} ttl 64 {words}");
            self.lan.r2.ip(&line)
        };
        key("key 7")?;
        let fix = "xgre tunnel change gretap1 key 7";
        checks.check(cell("another key"), FROM_KERNEL, "told", || {
            let number = self.lan.burst_into_nothing(back)?;
            wait_until("R1 says what it gets", SOON, || {
                let shown = tunnel(&self.lan.r1, "gretap1")?.context("no gretap1")?;
                let mismatch = &shown["mismatch"];
                let told = [&mismatch["sends"], &mismatch["expects"], &mismatch["fix"]];
                ensure!(told == ["key 7", "no key", fix], "{shown}");
                ensure!(mismatch["packets"] == BURST, "{shown}");
                Ok(())
            })?;
            let text = xgre(&self.lan.r1, "tunnel show gretap1")?;
            let said = format!("peer sends key 7; this tunnel expects no key ({BURST} packets");
            ensure!(text.contains(&said) && self.lan.arrived(a, number) == 0, "{text}");
            Ok(())
        })?;
        xgre(&self.lan.r1, fix.trim_start_matches("xgre "))?;
        checks.check(cell("another key"), FROM_KERNEL, "mended", || self.flows(back))
    }

    /// A second tunnel between the bridges: one of the two is blocked, and takes over.
    fn spanning_tree(&self, checks: &mut Checks) -> Result<()> {
        let Lan { r1, r2, .. } = self.lan;
        let [a, b, c] = Host::ALL;
        let stp =
            "type bridge vlan_filtering 0 stp_state 1 forward_delay 200 hello_time 100 max_age 600";
        batch(r1, &format!("link set br0 {stp} priority 32768\n"))?;
        // The root, so that what is blocked is R1's.
        batch(
            r2,
            &format!(
                "link set br0 {stp} priority 4096\n\
                 link add gretap2 type gretap local {R2} remote {R1} ttl 64 key 2\n\
                 link set gretap2 up master br0\n"
            ),
        )?;
        xgre(r1, &format!("link add gretap2 type gretap local {R1} remote {R2} ttl 64 key 2"))?;
        r1.ip("link set gretap2 up master br0")?;
        let states = |gateway: &Namespace| -> Result<Vec<(String, String)>> {
            let text = gateway.run("bridge link show")?;
            let state = |line: &str| {
                let after =
                    |word| line.split_whitespace().skip_while(|found| *found != word).nth(1);
                let name = line.split(": ").nth(1)?.split(['@', ' ']).next()?;
                Some((name.to_owned(), after("state")?.to_owned()))
            };
            Ok(text.lines().filter_map(state).collect())
        };
        let settle = |gateway: &Namespace, wanted: &[(&str, &str)]| {
            wait_until("the spanning tree has settled", SOON * 3, || {
                let states = states(gateway)?;
                let has = |(name, state): &(&str, &str)| {
                    states.iter().any(|(found, is)| found == name && is == state)
                };
                ensure!(wanted.iter().all(has), "{states:?}");
                Ok(())
            })
        };
        let carried = || -> Result<_> {
            Ok([self.daemon.packets("gretap1")?, self.daemon.packets("gretap2")?])
        };
        checks.check(cell("two tunnels, STP"), TO_KERNEL, "one is blocked", || {
            let open = ["gretap1", "bond0", "lan2"].map(|port| (port, "forwarding"));
            settle(r1, &[&open[..], &[("gretap2", "blocking")]].concat())?;
            settle(r2, &["gretap1", "gretap2", "lan"].map(|port| (port, "forwarding")))?;
            self.flows(Flow::new(b, c, &[]))?;
            let before = carried()?;
            for (from, to) in [(b, c), (c, b), (c, a)] {
                let flow = Flow::broadcast(from, to);
                let arrived = self.lan.burst(flow, flow)?;
                ensure!(arrived == BURST, "{arrived} of {BURST} from {from:?} at {to:?}");
            }
            let after = carried()?;
            ensure!(after[1].tx() == before[1].tx(), "frames went into the tunnel that is blocked");
            let [open, blocked] = [after[0].rx() - before[0].rx(), after[1].rx() - before[1].rx()];
            let due = 2 * (BURST as u64 + 1);
            ensure!(open >= due && blocked >= due, "{open} and {blocked} received, of {due}");
            Ok(())
        })?;
        r1.ip("link set gretap1 down")?;
        checks.check(cell("two tunnels, STP"), TO_KERNEL, "the other takes over", || {
            settle(r1, &[("gretap2", "forwarding")])?;
            for (from, to) in [(b, c), (c, b)] {
                wait_until("all frames arrive by the other tunnel", SOON, || {
                    let flow = Flow::new(from, to, &[]);
                    self.lan.teach(flow)?;
                    let before = carried()?[1];
                    let arrived = self.lan.burst(flow, flow)?;
                    let moved = carried()?[1] - before;
                    ensure!(arrived == BURST, "{arrived} of {BURST} from {from:?}");
                    let due = if self.xdp == Xdp::Off { 0 } else { BURST as u64 + 1 };
                    let fast = if to == c { moved.tx_xdp } else { moved.rx_xdp };
                    ensure!(fast >= due, "{moved:?}");
                    Ok(())
                })?;
            }
            Ok(())
        })
    }
}
