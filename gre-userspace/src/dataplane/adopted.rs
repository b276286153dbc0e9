//! Tunnels of the kernel's own: XDP forwards for those that are adopted, and all that it does not forward
//! is their device's, as it was before.
//!
//! The others have records, too, so that their packets are not taken for those of a tunnel of ours that the
//! peer has misconfigured.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use super::Device;
use crate::{
    config::unfit,
    model::{Desired, Tunnel},
    observed::{KernelTunnel, Link, Snapshot},
};

/// A tunnel of the kernel's own, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernels {
    pub tunnel: Tunnel,
    /// Whether the user wants it accelerated.
    pub adopted: bool,
    /// Why it cannot be, or is not to be, in words.
    pub refused: Option<String>,
    /// It has a record; else its packets are another's, or there is no room.
    recorded: bool,
}

/// Those of the network namespace by name, without the devices that the kernel makes by itself.
pub fn kernels(desired: &Desired, snapshot: &Snapshot) -> BTreeMap<String, Kernels> {
    let mut found = snapshot
        .links
        .values()
        .filter_map(|link| link.tunnel.as_deref())
        .filter(|kernel| !kernel.is_fallback())
        .peekable();
    if found.peek().is_none() {
        return BTreeMap::new();
    }
    let ours: HashMap<_, _> =
        desired.tunnels.values().map(|tunnel| (tunnel.identity(), &tunnel.name)).collect();
    let mut room = (desired.limits.tunnels as usize).saturating_sub(desired.tunnels.len());
    let adopt = desired.adoption();
    let mut kernels = BTreeMap::new();
    for kernel in found {
        let name = &kernel.tunnel.name;
        let wanted = adopt.of(name);
        let netfilter = wanted.unwrap_or_default();
        let alike = ours.get(&kernel.tunnel.identity()).filter(|ours| **ours != name);
        let is_ours = desired.tunnels.contains_key(name);
        let recorded = alike.is_none() && !is_ours && room > 0;
        let refused = if wanted.is_none() {
            Some(format!("not adopted: `xgre adopt {name}`"))
        } else if let Some(ours) = alike {
            Some(format!("xgre's own tunnel {ours} has the same local, remote and key"))
        } else if room == 0 {
            let limit = desired.limits.tunnels;
            Some(format!("there are {limit} tunnels already: raise `limits.tunnels` in the config"))
        } else {
            obstacle(kernel)
        };
        room = room.saturating_sub(usize::from(recorded));
        let tunnel = Tunnel { netfilter, ..kernel.tunnel.clone() };
        let adopted = wanted.is_some();
        kernels.insert(name.clone(), Kernels { tunnel, adopted, refused, recorded });
    }
    kernels
}

/// What makes a tunnel the kernel's alone.
fn obstacle(kernel: &KernelTunnel) -> Option<String> {
    let tunnel = &kernel.tunnel;
    let name = &tunnel.name;
    if !kernel.beyond.is_empty() {
        return Some(format!("it has {}, which only the kernel does", kernel.beyond.join(" and ")));
    }
    if tunnel.iseq || tunnel.oseq {
        return Some(
            "its packets are numbered, and only one can count: the kernel does".to_owned(),
        );
    }
    if let Some(queue) = &kernel.qdisc {
        return Some(format!(
            "what XDP forwards would go past its queue {queue}: `tc qdisc del dev {name} root`, if \
             it is not needed"
        ));
    }
    if kernel.filtered {
        return Some(format!(
            "what XDP forwards would go past the filters on it: `tc filter show dev {name} egress`, \
             `tc filter show dev {name} ingress`"
        ));
    }
    unfit(tunnel).map(|unfit| unfit.reason)
}

/// The devices of those that have records, by name.
pub fn devices_of_kernels<'a>(
    kernels: &BTreeMap<String, Kernels>,
    snapshot: &'a Snapshot,
) -> BTreeMap<String, Device<'a>> {
    let is_recorded = |link: &&Link| kernels.get(&link.name).is_some_and(|kernel| kernel.recorded);
    let links = snapshot.links.values().filter(|link| link.tunnel.is_some()).filter(is_recorded);
    links.map(|link| (link.name.clone(), Device { link, peer: None })).collect()
}

/// Why some are not accelerated, by name.
pub(super) fn refusals(kernels: &BTreeMap<String, Kernels>) -> BTreeMap<String, String> {
    let refused =
        |(name, kernel): (&String, &Kernels)| Some((name.clone(), kernel.refused.clone()?));
    kernels.iter().filter_map(refused).collect()
}

/// What the user asks for, with the kernel's own tunnels that have records.
pub(super) fn with_recorded<'a>(
    desired: &'a Desired,
    kernels: &BTreeMap<String, Kernels>,
) -> Cow<'a, Desired> {
    let recorded = kernels.values().filter(|kernel| kernel.recorded);
    let mut recorded = recorded.map(|kernel| (kernel.tunnel.name.clone(), kernel.tunnel.clone()));
    match recorded.next() {
        None => Cow::Borrowed(desired),
        Some(first) => {
            let mut desired = desired.clone();
            desired.tunnels.extend([first]);
            desired.tunnels.extend(recorded);
            Cow::Owned(desired)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Adopt, Limits, Netfilter},
        testing::{desired, gre, link, tunnel},
    };

    fn snapshot(kernels: impl IntoIterator<Item = KernelTunnel>) -> Snapshot {
        let links = kernels.into_iter().zip(10..).map(|(kernel, ifindex)| {
            let link = link(ifindex, &kernel.tunnel.name);
            (ifindex, Link { tunnel: Some(Box::new(kernel)), mac: None, ..link })
        });
        Snapshot { links: links.collect(), ..Snapshot::default() }
    }

    fn adopting(adopt: Adopt) -> Desired {
        Desired { adopt, ..desired([]) }
    }

    fn refusal(desired: &Desired, kernel: KernelTunnel) -> Option<String> {
        let name = kernel.tunnel.name.clone();
        kernels(desired, &snapshot([kernel])).remove(&name).unwrap().refused
    }

    #[test]
    fn a_tunnel_that_is_asked_for_is_adopted_and_no_other() {
        let named = adopting(Adopt::of_names(["gre1"]));
        let found = kernels(&named, &snapshot(["gre1", "gre2"].map(gre)));
        assert_eq!((found["gre1"].adopted, &found["gre1"].refused), (true, &None));
        let refused = found["gre2"].refused.as_deref();
        assert_eq!(
            (found["gre2"].adopted, refused),
            (false, Some("not adopted: `xgre adopt gre2`"))
        );

        let all = adopting(Adopt::all(Netfilter::Bypass));
        let found = kernels(&all, &snapshot(["gre1", "gre2"].map(gre)));
        assert!(found.values().all(|kernel| kernel.adopted && kernel.refused.is_none()));
        assert_eq!(found["gre2"].tunnel.netfilter, Netfilter::Bypass);
    }

    #[test]
    fn the_kernels_own_last_resort_is_no_tunnel() {
        let mut fallback = gre("gre0");
        fallback.tunnel = Tunnel { name: "gre0".into(), ..unspecified() };
        assert!(kernels(&Desired::default(), &snapshot([fallback])).is_empty());
    }

    fn unspecified() -> Tunnel {
        use crate::model::Mode;
        Tunnel::new("", Mode::Gre, Mode::Gre.any(), Mode::Gre.any())
    }

    #[test]
    fn what_only_the_kernel_can_do_is_left_to_it_in_words() {
        let all = adopting(Adopt::all(Netfilter::Respect));
        let plain = gre("gre1");
        let numbered = Tunnel { oseq: true, ..plain.tunnel.clone() };
        for (kernel, expected) in [
            (KernelTunnel { beyond: vec!["fwmark", "encap"], ..plain.clone() }, "fwmark and encap"),
            (KernelTunnel { tunnel: numbered, ..plain.clone() }, "numbered"),
            (KernelTunnel { qdisc: Some("tbf".into()), ..plain.clone() }, "its queue tbf"),
            (KernelTunnel { filtered: true, ..plain.clone() }, "tc filter show dev gre1"),
            (
                KernelTunnel {
                    tunnel: Tunnel { remote: [224, 0, 0, 5].into(), ..plain.tunnel.clone() },
                    ..plain.clone()
                },
                "multicast",
            ),
        ] {
            let refused = refusal(&all, kernel).unwrap();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn one_with_the_ends_of_a_tunnel_of_ours_is_not_its_rival() {
        let plain = gre("gre1");
        let ours = Tunnel { name: "tunnel0".into(), ..plain.tunnel.clone() };
        let both = Desired { adopt: Adopt::all(Netfilter::Respect), ..desired([ours]) };
        let found = kernels(&both, &snapshot([plain]));
        assert!(found["gre1"].refused.as_deref().unwrap().contains("tunnel0 has the same local"));
        assert!(matches!(with_recorded(&both, &found), Cow::Borrowed(_)));
    }

    #[test]
    fn records_are_as_many_as_there_is_room_for() {
        let limits = Limits { tunnels: 2, ..Limits::DEFAULT };
        let one = Desired { limits, ..desired([tunnel("tunnel0")]) };
        let all = Desired { adopt: Adopt::all(Netfilter::Respect), ..one };
        let found = kernels(&all, &snapshot(["gre1", "gre2"].map(gre)));
        assert_eq!(found["gre1"].refused, None);
        assert!(
            found["gre2"].refused.as_deref().unwrap().starts_with("there are 2 tunnels already")
        );
        let recorded = with_recorded(&all, &found);
        assert_eq!(recorded.tunnels.keys().collect::<Vec<_>>(), ["gre1", "tunnel0"]);
    }
}
