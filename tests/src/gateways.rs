//! The document's topology with a daemon on each gateway, and its tests in each XDP mode.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{
    config::{Gateway, Xdp},
    counters::Packets,
    ipv6,
    process::wait_until,
    topology::{Lab, PC1, PC2},
    traffic::{ping_all, ping_until_answered},
    xgre::Daemon,
};

/// For everything that should happen soon, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(10);

pub struct Gateways {
    pub r1: Daemon,
    pub r2: Daemon,
    pub lab: Lab,
    xdp: Xdp,
}

impl Gateways {
    /// R1 and R2 as in the document, PC1 and PC2 reaching each other through the tunnel.
    pub fn forwarding(xdp: Xdp) -> Result<Self> {
        let gateways = Self::start(xdp, Gateway::both())?;
        gateways.settle()?;
        Ok(gateways)
    }

    /// Both daemons, with these configs and every port in this mode.
    pub fn start(xdp: Xdp, configs: [Gateway; 2]) -> Result<Self> {
        Self::start_in(Lab::new()?, xdp, configs)
    }

    /// The same in a laboratory that has been prepared.
    pub fn start_in(lab: Lab, xdp: Xdp, configs: [Gateway; 2]) -> Result<Self> {
        let [r1, r2] = configs.map(|config| config.xdp(xdp));
        Ok(Self { r1: Daemon::start(&lab.r1, &r1)?, r2: Daemon::start(&lab.r2, &r2)?, lab, xdp })
    }

    /// Waits until every neighbour is resolved, and so until each packet takes the tier that the
    /// mode is meant to show. Until then XDP passes packets on to TC, which loses none.
    pub fn settle(&self) -> Result<()> {
        ping_until_answered(&self.lab.pc1, PC2, SOON)?;
        ping_until_answered(&self.lab.pc2, PC1, SOON)?;
        wait_until("all packets take the expected tier", SOON, || {
            let found = self.during(|| ping_all(&self.lab.pc1, PC2, 2))?;
            let expected = [self.ping_counts(2); 2];
            if found != expected {
                bail!("found {found:?}, expected {expected:?}");
            }
            Ok(())
        })
    }

    /// [`Self::settle`] over IPv6.
    pub fn settle6(&self) -> Result<()> {
        ping_until_answered(&self.lab.pc1, ipv6::PC2, SOON)?;
        ping_until_answered(&self.lab.pc2, ipv6::PC1, SOON)?;
        wait_until("all IPv6 packets take the expected tier", SOON, || {
            let found = self.during(|| ping_all(&self.lab.pc1, ipv6::PC2, 2))?;
            let expected = [Packets::pings6(self.xdp, 2); 2];
            if found != expected {
                bail!("found {found:?}, expected {expected:?}");
            }
            Ok(())
        })
    }

    /// What tunnel0 of R1 and of R2 has carried while something was done.
    pub fn during(&self, work: impl FnOnce() -> Result<()>) -> Result<[Packets; 2]> {
        let before = self.packets()?;
        work()?;
        let after = self.packets()?;
        Ok([after[0] - before[0], after[1] - before[1]])
    }

    /// What R1 and R2 should each count for `count` pings that are answered.
    pub fn ping_counts(&self, count: u64) -> Packets {
        Packets::pings(self.xdp, count)
    }

    fn packets(&self) -> Result<[Packets; 2]> {
        Ok([self.r1.packets("tunnel0")?, self.r2.packets("tunnel0")?])
    }
}

/// Makes functions of an XDP mode into tests: `native::NAME`, `generic::NAME` and `off::NAME`.
#[macro_export]
macro_rules! in_each_xdp_mode {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        $crate::with_xdp!($($(#[$attribute])* $name),*);

        mod off {
            $(#[test]
            $(#[$attribute])*
            fn $name() -> ::anyhow::Result<()> {
                super::$name($crate::config::Xdp::Off)
            })*
        }
    };
}

/// The same for what is about XDP itself: `native::NAME` and `generic::NAME`.
#[macro_export]
macro_rules! with_xdp {
    ($($(#[$attribute:meta])* $name:ident),* $(,)?) => {
        mod native {
            $(#[test]
            $(#[$attribute])*
            fn $name() -> ::anyhow::Result<()> {
                super::$name($crate::config::Xdp::Native)
            })*
        }

        mod generic {
            $(#[test]
            $(#[$attribute])*
            fn $name() -> ::anyhow::Result<()> {
                super::$name($crate::config::Xdp::Generic)
            })*
        }
    };
}
