//! The document's topology where a routing protocol finds the ways, and what must hold of it whatever
//! the protocol.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{
    config::{Gateway, Xdp},
    frr::Router,
    gateways::{Gateways, SOON},
    namespace::Namespace,
    process::wait_until,
    topology::{FAR_LAN_OF_R1, FAR_LAN_OF_R2, PC1, PC2, R1_TUNNEL, R1_WAN, R2_TUNNEL, R2_WAN},
    traffic::{Flow, Load, ping_all, ping_none, ping_until_answered, tcp},
};

/// What a protocol takes to find its neighbour again on a busy machine.
const LEARNED: Duration = Duration::from_secs(60);

pub struct Protocol {
    /// FRR's.
    pub daemon: &'static str,
    /// What the kernel's routes are marked with.
    pub name: &'static str,
    /// Of R1 and R2.
    pub configs: [String; 2],
    /// What makes R2 say that it has its LAN no longer, and what makes it say so again.
    pub withdraw: &'static [&'static str],
    pub announce: &'static [&'static str],
}

pub struct Routed {
    pub r1: Router,
    pub r2: Router,
    pub gateways: Gateways,
    protocol: Protocol,
}

impl Routed {
    /// Returns once each gateway knows the other's LAN.
    pub fn start(protocol: Protocol, xdp: Xdp) -> Result<Self> {
        let gateways = Gateways::start(
            xdp,
            [
                Gateway::new(R1_WAN, R2_WAN).address(R1_TUNNEL, R2_TUNNEL),
                Gateway::new(R2_WAN, R1_WAN).address(R2_TUNNEL, R1_TUNNEL),
            ],
        )?;
        for gateway in [&gateways.lab.r1, &gateways.lab.r2] {
            // The kernel's own reports of OSPF's groups would come while packets are counted.
            gateway.sysctl("net.ipv4.igmp_link_local_mcast_reports", 0)?;
        }
        let router = |gateway, config| Router::start(gateway, protocol.daemon, config);
        let r1 = router(&gateways.lab.r1, &protocol.configs[0])?;
        let r2 = router(&gateways.lab.r2, &protocol.configs[1])?;
        let routed = Self { r1, r2, gateways, protocol };
        routed.wait_until_learned()?;
        Ok(routed)
    }

    /// R2 first: until it has heard of R1 again, R1 may go by what it remembers of it, and then forget that.
    fn wait_until_learned(&self) -> Result<()> {
        let lab = &self.gateways.lab;
        self.wait_for_route(&lab.r2, FAR_LAN_OF_R2, R1_TUNNEL)?;
        self.wait_for_route(&lab.r1, FAR_LAN_OF_R1, R2_TUNNEL)?;
        ping_until_answered(&lab.pc1, PC2, SOON)
    }

    /// Waits for a route of the protocol into the tunnel, by way of a nexthop object: FRR's habit.
    pub fn wait_for_route(&self, gateway: &Namespace, prefix: &str, via: &str) -> Result<()> {
        let what = format!("{} has learned {prefix}", gateway.name());
        wait_until(&what, LEARNED, || {
            let routes = routes(gateway, prefix)?;
            let route = &routes[0];
            let found = ["protocol", "dev", "gateway"].map(|key| route[key].as_str());
            let expected = [self.protocol.name, "tunnel0", via].map(Some);
            ensure!(found == expected && route["nhid"].is_u64(), "its routes: {routes}");
            Ok(())
        })
    }

    /// Waits until a gateway has no route to a prefix.
    fn wait_until_forgotten(&self, gateway: &Namespace, prefix: &str) -> Result<()> {
        wait_until(&format!("{} has forgotten {prefix}", gateway.name()), LEARNED, || {
            let routes = routes(gateway, prefix)?;
            ensure!(routes.as_array().is_some_and(Vec::is_empty), "its routes: {routes}");
            Ok(())
        })
    }

    /// Does something while the protocol says nothing, so that all that the tunnel counts is known.
    /// That has to take less time than a gateway waits for its neighbour.
    pub fn while_silent<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let routers = [&self.r1, &self.r2];
        routers.into_iter().try_for_each(Router::halt)?;
        let result = work();
        routers.into_iter().try_for_each(Router::go_on)?;
        result
    }

    /// PC1 and PC2 reach each other, and each packet is counted once in the tier of the mode.
    fn is_forwarded(&self) -> Result<()> {
        self.while_silent(|| {
            let Gateways { lab, .. } = &self.gateways;
            self.gateways.settle()?;
            for (from, to) in [(&lab.pc1, PC2), (&lab.pc2, PC1)] {
                let found = self.gateways.during(|| ping_all(from, to, 50))?;
                assert_eq!(found, [self.gateways.ping_counts(50); 2], "to {to}");
            }
            Ok(())
        })
    }

    /// R1 has no route to PC2 any more, and puts nothing for it into the tunnel.
    fn is_not_forwarded(&self) -> Result<()> {
        let Gateways { lab, .. } = &self.gateways;
        self.wait_until_forgotten(&lab.r1, FAR_LAN_OF_R1)?;
        self.while_silent(|| {
            wait_until("the route is followed no more", SOON, || ping_none(&lab.pc1, PC2))?;
            let [near, far] = self.gateways.during(|| ping_none(&lab.pc1, PC2))?;
            assert_eq!((near.tx(), far.rx()), (0, 0));
            Ok(())
        })
    }
}

pub fn what_is_learned_is_forwarded(protocol: Protocol, xdp: Xdp) -> Result<()> {
    let routed = Routed::start(protocol, xdp)?;
    routed.is_forwarded()?;
    let Gateways { lab, .. } = &routed.gateways;
    for flow in [Flow::ToServer, Flow::ToClient] {
        tcp(&lab.pc1, &lab.pc2, PC2, Load::Seconds(1), flow)?;
    }
    Ok(())
}

pub fn what_is_withdrawn_is_not(protocol: Protocol, xdp: Xdp) -> Result<()> {
    let mut routed = Routed::start(protocol, xdp)?;
    routed.is_forwarded()?;
    routed.r2.configure(routed.protocol.withdraw)?;
    routed.is_not_forwarded()?;
    routed.r2.configure(routed.protocol.announce)?;
    routed.wait_until_learned()?;
    routed.is_forwarded()?;

    routed.r2.kill()?;
    routed.is_not_forwarded()?;
    routed.r2.start_again()?;
    routed.wait_until_learned()?;
    routed.is_forwarded()
}

pub fn a_tunnel_that_goes_down_takes_its_routes_along(protocol: Protocol, xdp: Xdp) -> Result<()> {
    let routed = Routed::start(protocol, xdp)?;
    routed.is_forwarded()?;
    let Gateways { lab, .. } = &routed.gateways;
    lab.r1.ip("link set tunnel0 down")?;
    routed.is_not_forwarded()?;
    // R2 hears nothing any more.
    routed.wait_until_forgotten(&lab.r2, FAR_LAN_OF_R2)?;
    lab.r1.ip("link set tunnel0 up")?;
    routed.wait_until_learned()?;
    routed.is_forwarded()
}

/// The kernel's routes to exactly this prefix.
fn routes(gateway: &Namespace, prefix: &str) -> Result<Value> {
    let text = gateway.ip(&format!("-j route show {prefix}"))?;
    serde_json::from_str(&text).with_context(|| format!("ip's output is not JSON: {text}"))
}
