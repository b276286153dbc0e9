//! A network namespace with interfaces and neighbours, and what its routes come to.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use gre_userspace::dataplane::{Attachment, Hop};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

use crate::{
    kernel::{Answer, ip},
    random::Random,
};

/// Plain devices, `d0` and on.
pub const DEVICES: u32 = 6;

/// The namespace's interfaces and neighbours.
pub struct World {
    tunnel: u32,
    several: u32,
    pub ports: BTreeMap<u32, Attachment>,
    /// With a MAC address, by interface index.
    pub neighbours: HashSet<(u32, Ipv4Addr)>,
}

impl World {
    pub fn new(random: &mut Random) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET), which needs root");
        let mut commands = "link set lo up\n".to_owned();
        for name in (0..DEVICES).map(|i| format!("d{i}")).chain(["m0".into(), "t0".into()]) {
            let _ = write!(
                commands,
                "link add {name} type veth peer name {name}p\nlink set {name} up\nlink set {name}p up\n"
            );
        }
        // By which the device of a tunnel is known.
        commands.push_str("link set t0 alias \"xgre gre\"\n");
        for i in 0..DEVICES {
            let _ = writeln!(commands, "addr add 172.16.{i}.1/24 dev d{i}");
        }
        // Local and broadcast addresses in the midst of the routes.
        for i in 0..DEVICES {
            let address = Ipv4Addr::from(random.address() & 0x001f_03ff | 0x0a00_0000);
            let _ = writeln!(commands, "addr add {address}/{} brd + dev d{i}", 22 + i);
        }
        ip(&[], &commands);
        let index = |name: String| if_nametoindex(name.as_str()).expect("it was made");
        let ports: BTreeMap<_, _> =
            (0..DEVICES).map(|i| (index(format!("d{i}")), Attachment::Native)).collect();

        let mut neighbours = HashSet::new();
        let mut commands = String::new();
        let gateways =
            (0..DEVICES).flat_map(|i| (2..6).map(move |g| (i, [172, 16, i as u8, g].into())));
        let hosts: Vec<_> = (0..500)
            .map(|_| (random.below(DEVICES), Ipv4Addr::from(random.address())))
            .filter(|(_, ip)| is_unicast(*ip))
            .collect();
        for (device, ip) in gateways.chain(hosts) {
            if neighbours.insert((index(format!("d{device}")), ip)) {
                let mac = mac(ip).map(|byte| format!("{byte:02x}")).join(":");
                let _ =
                    writeln!(commands, "neigh add {ip} dev d{device} nud permanent lladdr {mac}");
            }
        }
        ip(&[], &commands);
        Self { tunnel: index("t0".into()), several: index("m0".into()), ports, neighbours }
    }

    /// What the table must say, by the kernel's answer.
    pub fn expected(&self, destination: Ipv4Addr, answer: Answer) -> Expected {
        let Answer::Unicast { oif, gateway, mtu } = answer else {
            return Expected::Punt;
        };
        if oif == self.tunnel {
            return Expected::Tunnel;
        }
        // A host on the link is a next hop of its own, if its MAC address is known.
        let on_link = self.neighbours.contains(&(oif, destination)).then_some(destination);
        let gateway = gateway.map(|gateway| match gateway {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(ip) => unreachable!("no route here goes by {ip}"),
        });
        match gateway.or(on_link) {
            Some(ip) if oif == self.several => {
                Expected::OneOf(Hop { ifindex: oif, ip: ip.into(), mtu })
            }
            Some(ip) => Expected::NextHop(Hop { ifindex: oif, ip: ip.into(), mtu }),
            None => Expected::Punt,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Punt,
    Tunnel,
    NextHop(Hop),
    /// Of a route with several next hops, of which the kernel chose this one.
    OneOf(Hop),
}

/// A MAC address that tells the IP address.
pub fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [2, 0, a, b, c, d]
}

/// Other destinations the programs leave to the kernel by the address, whatever the table says.
pub fn is_unicast(ip: Ipv4Addr) -> bool {
    ip.octets()[0] != 0 && ip.octets()[0] < 224
}
