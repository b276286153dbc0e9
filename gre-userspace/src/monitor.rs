//! Follows the kernel: a task that hears of changes over netlink and publishes a new [`Snapshot`]
//! for them.
//!
//! A notification says only that something changed; what there is now comes from a dump of that
//! class. So a notification that is late, doubled or out of order does no harm, and one that is
//! lost is made up for by reading everything again.

use std::{future::pending, io, mem, sync::Arc, time::Duration};

use netlink_packet_core::{DecodeError, NLMSG_NOOP};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::libc::{AF_BRIDGE, AF_INET, AF_INET6, ENOBUFS};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout_at},
};

use crate::{
    netlink::{
        Classes, Kernel, NFNLGRP_NFTABLES, NetlinkError, is_looked_up, is_of_chains, legacy_chains,
        netfilter_sees_bridges,
        socket::{Socket, messages},
    },
    observed::{FilterChain, Snapshot},
};

/// How long the events that follow the first are waited for: `ip` commands, a device being set up
/// or a routing daemon's update come in bursts.
const BURST: Duration = Duration::from_millis(3);

/// The least time between full reads forced by lost notifications, and before a failed read is
/// tried again.
const RESYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How often the kernel is asked for what it does not tell.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// How often losses are told, at most.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Of each socket, in bytes. A burst of 10 000 route changes takes some 8 MiB.
const RECEIVE_BUFFER: usize = 16 << 20;

// linux/rtnetlink.h
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_TC: u32 = 4;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV4_RULE: u32 = 8;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const RTNLGRP_IPV6_RULE: u32 = 19;
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const RTNLGRP_IPV6_NETCONF: u32 = 25;
const RTNLGRP_NEXTHOP: u32 = 32;
const RTNLGRP_BRVLAN: u32 = 33;
const GROUPS: [u32; 13] = [
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_TC,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_NEXTHOP,
    RTNLGRP_BRVLAN,
];
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTCLASS: u16 = 40;
const RTM_DELTCLASS: u16 = 41;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_NEWCHAIN: u16 = 100;
const RTM_DELCHAIN: u16 = 101;
const RTM_NEWNETCONF: u16 = 80;
const RTM_DELNETCONF: u16 = 81;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;
const RTN_MULTICAST: u8 = 5;
const NTF_SELF: u8 = 1 << 1;

/// Starts following; the first snapshot is in the receiver. The task ends with the last receiver.
pub async fn watch(kernel: &Kernel) -> Result<watch::Receiver<Arc<Snapshot>>, NetlinkError> {
    // Listening first: what changes while the first snapshot is read is heard of afterwards.
    let listener = Listener::open(kernel).await?;
    let (sender, receiver) = watch::channel(Arc::new(kernel.snapshot().await?));
    tokio::spawn(follow(kernel.clone(), listener, sender));
    Ok(receiver)
}

async fn follow(kernel: Kernel, mut listener: Listener, sender: watch::Sender<Arc<Snapshot>>) {
    let mut losses = Losses::default();
    let mut stale = Classes::NONE;
    let mut not_before = Instant::now();
    loop {
        stale = tokio::select! {
            stale = gather(&mut listener, stale, not_before, &mut losses, &sender) => stale,
            () = sender.closed() => return,
        };
        let known = Arc::clone(&sender.borrow());
        let started = Instant::now();
        match kernel.refresh(&known, stale).await {
            Ok(snapshot) => {
                stale = Classes::NONE;
                // With tables so large that reading takes long, half the time is the daemon's.
                not_before = Instant::now() + started.elapsed();
                sender.send_if_modified(|published| {
                    let differs = **published != snapshot;
                    if differs {
                        *published = Arc::new(snapshot);
                    }
                    differs
                });
            }
            Err(error) => {
                tracing::error!("{error}; reading everything again");
                doubt(&sender);
                stale = Classes::ALL;
                not_before = Instant::now() + RESYNC_INTERVAL;
            }
        }
    }
}

/// Publishes that what was published last may be out of date.
fn doubt(sender: &watch::Sender<Arc<Snapshot>>) {
    sender.send_if_modified(|published| {
        let is_new = !published.in_doubt;
        if is_new {
            *published = Arc::new(Snapshot { in_doubt: true, ..Snapshot::clone(published) });
        }
        is_new
    });
}

/// Waits until something is stale, and then until the burst is over and `not_before` has come.
async fn gather(
    listener: &mut Listener,
    mut stale: Classes,
    not_before: Instant,
    losses: &mut Losses,
    sender: &watch::Sender<Arc<Snapshot>>,
) -> Classes {
    // Set once, so that a steady stream of events cannot put the reading off for ever.
    let mut until = (stale != Classes::NONE).then_some(not_before);
    loop {
        let heard = match until {
            None => listener.hear(sender).await,
            Some(until) => match timeout_at(until, listener.hear(sender)).await {
                Ok(heard) => heard,
                Err(_) => return stale,
            },
        };
        match heard {
            Ok(Classes::NONE) => {}
            Ok(classes) => {
                stale |= classes;
                until.get_or_insert_with(|| not_before.max(Instant::now() + BURST));
            }
            Err(loss) => {
                doubt(sender);
                // Nothing still to be heard could make up for it, so the socket is left alone.
                sleep_until(losses.next_resync(&loss, Instant::now()).max(not_before)).await;
                return Classes::ALL;
            }
        }
    }
}

/// The sockets that notifications come from.
struct Listener {
    route: Socket,
    /// XDP features; none where the kernel does not tell them.
    features: Option<Socket>,
    /// Rules of nftables; none while the kernel has no netfilter.
    nftables: Option<Socket>,
    untold: Untold,
}

impl Listener {
    async fn open(kernel: &Kernel) -> Result<Self, NetlinkError> {
        let failed = |source| NetlinkError::Socket { purpose: "for notifications", source };
        let features = match kernel.features_group().await? {
            Some(group) => Some(subscribe(NETLINK_GENERIC, &[group]).map_err(failed)?),
            None => None,
        };
        let route = subscribe(NETLINK_ROUTE, &GROUPS).map_err(failed)?;
        Ok(Self { route, features, nftables: nftables(), untold: Untold::new() })
    }

    /// What the next datagram makes stale; or what has changed without one since it was published.
    async fn hear(&mut self, published: &watch::Sender<Arc<Snapshot>>) -> Result<Classes, Loss> {
        tokio::select! {
            datagram = self.route.receive() => {
                let mut stale = Classes::NONE;
                for message in messages(datagram?) {
                    let message = message?;
                    stale |= made_stale(message.message_type(), message.payload())?;
                }
                Ok(stale)
            }
            datagram = receive_if_any(&mut self.features) => {
                datagram?;
                Ok(Classes::LINKS)
            }
            datagram = receive_if_any(&mut self.nftables) => {
                let mut stale = Classes::NONE;
                for message in messages(datagram?) {
                    if is_of_chains(message?.message_type()) {
                        stale = Classes::FILTERS;
                    }
                }
                Ok(stale)
            }
            stale = self.untold.change(published) => {
                if self.nftables.is_some() {
                    return Ok(stale);
                }
                // The kernel's module may have been loaded since.
                self.nftables = nftables();
                Ok(stale | if self.nftables.is_some() { Classes::FILTERS } else { Classes::NONE })
            }
        }
    }
}

/// What tells of changes of nftables, if the kernel has it.
fn nftables() -> Option<Socket> {
    subscribe(NETLINK_NETFILTER, &[NFNLGRP_NFTABLES]).ok()
}

/// What the kernel tells nobody when it changes: whether netfilter sees the frames of bridges, and the
/// tables of the older iptables.
struct Untold {
    ask: Interval,
    sees_bridges: bool,
}

impl Untold {
    fn new() -> Self {
        let mut ask = interval(ASK_INTERVAL);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ask, sees_bridges: netfilter_sees_bridges() }
    }

    /// Asks when it is time to, and says what has changed, if anything has.
    async fn change(&mut self, published: &watch::Sender<Arc<Snapshot>>) -> Classes {
        self.ask.tick().await;
        let mut stale = Classes::NONE;
        let sees_bridges = netfilter_sees_bridges();
        if mem::replace(&mut self.sees_bridges, sees_bridges) != sees_bridges {
            stale |= Classes::LINKS;
        }
        // Not with what was there a second ago: something else may have had them read meanwhile.
        let is_legacy = |chain: &&FilterChain| chain.legacy;
        if !published.borrow().filters.iter().filter(is_legacy).eq(&legacy_chains()) {
            stale |= Classes::FILTERS;
        }
        stale
    }
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let socket = Socket::open(protocol)?;
    socket.set_receive_buffer(RECEIVE_BUFFER)?;
    for group in groups {
        socket.join(*group)?;
    }
    Ok(socket)
}

async fn receive_if_any(socket: &mut Option<Socket>) -> io::Result<&[u8]> {
    match socket {
        Some(socket) => socket.receive().await,
        None => pending().await,
    }
}

/// Which classes a notification makes stale.
fn made_stale(message_type: u16, payload: &[u8]) -> Result<Classes, DecodeError> {
    // Every family's header begins with the address family.
    let byte = |offset: usize| {
        payload
            .get(offset)
            .copied()
            .ok_or_else(|| DecodeError::from(format!("a notification of {} bytes", payload.len())))
    };
    let family = || Ok::<_, DecodeError>(i32::from(byte(0)?));
    Ok(match message_type {
        NLMSG_NOOP => Classes::NONE,
        // Of a bridge about a member: its state and settings, its VLANs, that it has left.
        RTM_NEWLINK | RTM_DELLINK if family()? == AF_BRIDGE => {
            Classes::LINKS | Classes::BRIDGE_VLANS
        }
        // The kernel takes away the routes of a device that goes down, and what an address brought
        // with it, without a notification for each.
        RTM_NEWLINK | RTM_DELLINK => Classes::LINKS | Classes::ADDRESSES | Classes::ROUTES,
        RTM_NEWADDR | RTM_DELADDR => Classes::ADDRESSES | routes_of(family()?),
        // The header's table is 8 bits; one that does not fit is told as 252.
        RTM_NEWROUTE | RTM_DELROUTE if is_looked_up(family()?, byte(4)?.into()) => {
            // ff00::/8 of a device: how the kernel tells that IPv6 was turned on or off there
            // (net.ipv6.conf.IF.disable_ipv6).
            let of_device = byte(7)? == RTN_MULTICAST && family()? == AF_INET6;
            routes_of(family()?) | if of_device { Classes::LINKS } else { Classes::NONE }
        }
        // Rules may lead there.
        RTM_NEWROUTE | RTM_DELROUTE if matches!(family()?, AF_INET | AF_INET6) => {
            Classes::OTHER_TABLES
        }
        RTM_NEWROUTE | RTM_DELROUTE => Classes::NONE,
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Classes::ROUTES,
        RTM_NEWNEIGH | RTM_DELNEIGH if matches!(family()?, AF_INET | AF_INET6) => {
            Classes::NEIGHBOURS
        }
        // Not what devices filter by.
        RTM_NEWNEIGH | RTM_DELNEIGH if family()? == AF_BRIDGE && byte(10)? & NTF_SELF == 0 => {
            Classes::STATIONS
        }
        RTM_NEWNEIGH | RTM_DELNEIGH => Classes::NONE,
        RTM_NEWVLAN | RTM_DELVLAN => Classes::BRIDGE_VLANS,
        RTM_NEWRULE | RTM_DELRULE => Classes::RULES,
        // Whether packets of the kernel's own tunnels are queued or filtered.
        RTM_NEWQDISC | RTM_DELQDISC | RTM_NEWTFILTER | RTM_DELTFILTER => Classes::LINKS,
        RTM_NEWTCLASS | RTM_DELTCLASS | RTM_NEWCHAIN | RTM_DELCHAIN => Classes::NONE,
        // net.ipvN.conf.*.ignore_routes_with_linkdown decides which routes are dead.
        RTM_NEWNETCONF | RTM_DELNETCONF => Classes::LINKS | routes_of(family()?),
        _ => Classes::ALL,
    })
}

fn routes_of(family: i32) -> Classes {
    match family {
        AF_INET => Classes::ROUTES4,
        AF_INET6 => Classes::ROUTES6,
        _ => Classes::ROUTES,
    }
}

/// Notifications were lost, or cannot be understood.
#[derive(Debug, Error)]
enum Loss {
    #[error("more changes came than the receive buffer holds")]
    Overrun,
    #[error("the netlink socket failed: {0}")]
    Socket(io::Error),
    #[error("a notification cannot be decoded: {0}")]
    Undecodable(#[from] DecodeError),
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(ENOBUFS) => Self::Overrun,
            _ => Self::Socket(error),
        }
    }
}

/// Keeps losses from costing more than a full read a second, and from filling the log.
#[derive(Default)]
struct Losses {
    last_resync: Option<Instant>,
    last_report: Option<Instant>,
    unreported: u32,
}

impl Losses {
    /// When to read everything again.
    fn next_resync(&mut self, loss: &Loss, now: Instant) -> Instant {
        self.unreported += 1;
        if self.last_report.is_none_or(|last| now - last >= REPORT_INTERVAL) {
            tracing::warn!(
                losses = self.unreported,
                "{loss}; reading everything again (further losses are told once a minute)"
            );
            self.last_report = Some(now);
            self.unreported = 0;
        }
        let next = self.last_resync.map_or(now, |last| now.max(last + RESYNC_INTERVAL));
        self.last_resync = Some(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of `family` and, for routes, `table`.
    fn header(family: u8, table: u8) -> [u8; 12] {
        let mut header = [0; 12];
        (header[0], header[4]) = (family, table);
        header
    }

    #[test]
    fn each_notification_makes_its_classes_stale() {
        const AF_BRIDGE: u8 = 7;
        const AF_INET6: u8 = 10;
        let mut of_device = header(AF_BRIDGE, 0);
        of_device[10] = NTF_SELF;
        let links_and_theirs = Classes::LINKS | Classes::ADDRESSES | Classes::ROUTES;
        let mut all_nodes = header(AF_INET6, 255);
        all_nodes[7] = RTN_MULTICAST;
        for (message_type, header, expected) in [
            (NLMSG_NOOP, header(0, 0), Classes::NONE),
            (RTM_NEWLINK, header(0, 0), links_and_theirs),
            (RTM_DELLINK, header(0, 0), links_and_theirs),
            (RTM_NEWLINK, header(AF_BRIDGE, 0), Classes::LINKS | Classes::BRIDGE_VLANS),
            (RTM_DELLINK, header(AF_BRIDGE, 0), Classes::LINKS | Classes::BRIDGE_VLANS),
            (RTM_NEWADDR, header(2, 0), Classes::ADDRESSES | Classes::ROUTES4),
            (RTM_DELADDR, header(2, 0), Classes::ADDRESSES | Classes::ROUTES4),
            (RTM_NEWADDR, header(AF_INET6, 0), Classes::ADDRESSES | Classes::ROUTES6),
            (RTM_DELADDR, header(AF_INET6, 0), Classes::ADDRESSES | Classes::ROUTES6),
            (RTM_NEWROUTE, header(2, 254), Classes::ROUTES4),
            (RTM_NEWROUTE, header(2, 255), Classes::ROUTES4),
            (RTM_DELROUTE, header(2, 253), Classes::ROUTES4),
            (RTM_NEWROUTE, header(2, 100), Classes::OTHER_TABLES),
            (RTM_NEWROUTE, header(2, 252), Classes::OTHER_TABLES),
            (RTM_NEWROUTE, header(AF_INET6, 254), Classes::ROUTES6),
            (RTM_DELROUTE, header(AF_INET6, 255), Classes::ROUTES6),
            (RTM_DELROUTE, all_nodes, Classes::ROUTES6 | Classes::LINKS),
            (RTM_NEWROUTE, header(AF_INET6, 253), Classes::OTHER_TABLES),
            (RTM_NEWROUTE, header(AF_INET6, 100), Classes::OTHER_TABLES),
            (RTM_NEWROUTE, header(AF_BRIDGE, 254), Classes::NONE),
            (RTM_NEWNEXTHOP, header(2, 0), Classes::ROUTES),
            (RTM_DELNEXTHOP, header(2, 0), Classes::ROUTES),
            (RTM_NEWNEIGH, header(2, 0), Classes::NEIGHBOURS),
            (RTM_DELNEIGH, header(2, 0), Classes::NEIGHBOURS),
            (RTM_NEWNEIGH, header(AF_INET6, 0), Classes::NEIGHBOURS),
            (RTM_NEWNEIGH, header(AF_BRIDGE, 0), Classes::STATIONS),
            (RTM_DELNEIGH, header(AF_BRIDGE, 0), Classes::STATIONS),
            (RTM_NEWNEIGH, of_device, Classes::NONE),
            (RTM_NEWVLAN, header(AF_BRIDGE, 0), Classes::BRIDGE_VLANS),
            (RTM_DELVLAN, header(AF_BRIDGE, 0), Classes::BRIDGE_VLANS),
            (RTM_NEWRULE, header(2, 0), Classes::RULES),
            (RTM_DELRULE, header(2, 0), Classes::RULES),
            (RTM_DELRULE, header(AF_INET6, 0), Classes::RULES),
            (RTM_NEWQDISC, header(0, 0), Classes::LINKS),
            (RTM_DELTFILTER, header(0, 0), Classes::LINKS),
            (RTM_NEWTCLASS, header(0, 0), Classes::NONE),
            (RTM_NEWNETCONF, header(2, 0), Classes::LINKS | Classes::ROUTES4),
            (RTM_DELNETCONF, header(2, 0), Classes::LINKS | Classes::ROUTES4),
            (RTM_NEWNETCONF, header(AF_INET6, 0), Classes::LINKS | Classes::ROUTES6),
        ] {
            assert_eq!(made_stale(message_type, &header).unwrap(), expected, "{message_type}");
        }
    }

    #[test]
    fn a_notification_of_an_unknown_kind_makes_everything_stale() {
        assert_eq!(made_stale(999, &[]).unwrap(), Classes::ALL);
        assert_eq!(made_stale(netlink_packet_core::NLMSG_OVERRUN, &[]).unwrap(), Classes::ALL);
    }

    #[test]
    fn a_notification_cut_short_is_a_loss() {
        assert!(made_stale(RTM_NEWROUTE, &[2, 0, 0, 0]).is_err());
        assert!(made_stale(RTM_NEWNEIGH, &[]).is_err());
    }

    #[test]
    fn losses_force_at_most_one_full_read_a_second() {
        let mut losses = Losses::default();
        let start = Instant::now();

        assert_eq!(losses.next_resync(&Loss::Overrun, start), start);
        let soon = start + Duration::from_millis(10);
        assert_eq!(losses.next_resync(&Loss::Overrun, soon), start + RESYNC_INTERVAL);
        let later = start + Duration::from_secs(5);
        assert_eq!(losses.next_resync(&Loss::Overrun, later), later);
    }

    /// Runs `test` in a network namespace of its thread's own.
    fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Kernel) -> F + Send + 'static) {
        use nix::sched::{CloneFlags, unshare};

        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a namespace: run it as root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async { test(Kernel::connect().unwrap()).await });
        };
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn a_change_of_xdp_features_makes_links_stale() {
        in_namespace(|kernel| async move {
            let mut listener = Listener::open(&kernel).await.unwrap();
            // Deaf to what is told about links themselves.
            listener.route = Socket::open(NETLINK_ROUTE).unwrap();

            kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap();

            let (sender, _receiver) = watch::channel(Arc::default());
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut heard = Classes::NONE;
            while heard == Classes::NONE {
                heard = timeout_at(deadline, listener.hear(&sender)).await.unwrap().unwrap();
            }
            assert_eq!(heard, Classes::LINKS);
        });
    }

    #[test]
    fn after_a_loss_what_was_published_is_in_doubt_until_everything_is_read_again() {
        in_namespace(|kernel| async move {
            let device =
                kernel.create_tunnel_device("tunnel0", "xgre-0", 1476, "", false).await.unwrap();
            let known = Arc::new(kernel.snapshot().await.unwrap());
            let mut listener = Listener::open(&kernel).await.unwrap();
            listener.route = Socket::open(NETLINK_ROUTE).unwrap();
            // The least that the kernel takes (SOCK_MIN_RCVBUF): some notifications of a link.
            listener.route.set_receive_buffer(0).unwrap();
            listener.route.join(RTNLGRP_LINK).unwrap();
            for mtu in 1400..1500 {
                kernel.set_mtu(device.ifindex, mtu).await.unwrap();
            }
            let (sender, _receiver) = watch::channel(Arc::clone(&known));

            let mut losses = Losses::default();
            let now = Instant::now();
            let stale = gather(&mut listener, Classes::NONE, now, &mut losses, &sender).await;

            assert_eq!(stale, Classes::ALL);
            let doubted = Snapshot { in_doubt: true, ..Snapshot::clone(&known) };
            assert_eq!(**sender.borrow(), doubted);
            let read = kernel.refresh(&doubted, stale).await.unwrap();
            assert!(!read.in_doubt);
            assert_eq!(read.links[&device.ifindex].mtu, 1499);
        });
    }
}
