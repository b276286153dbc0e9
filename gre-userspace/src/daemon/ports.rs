//! How XDP is to run on each port.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    dataplane,
    loader::{Programs, XdpModes},
    model::{Desired, XdpMode},
    observed::{Link, Snapshot, xdp_features},
    reconcile::{self, AttachedPort},
};

/// By interface index, their names and the modes that are asked for.
type Ports = BTreeMap<u32, (String, XdpMode)>;

/// The modes that XDP is going to run in as far as one can tell before it does.
pub(super) fn modes(desired: &Desired, snapshot: &Snapshot) -> XdpModes {
    let ports = reconcile::ports(desired, snapshot);
    let asked = ports.iter().map(|(&ifindex, (_, mode))| (ifindex, *mode));
    modes_of(asked, &ports, snapshot)
}

/// The same of these of all ports, by what they ask for.
pub(super) fn modes_of(
    asked: impl Iterator<Item = (u32, XdpMode)>,
    ports: &Ports,
    snapshot: &Snapshot,
) -> XdpModes {
    let modes = asked.map(|(ifindex, mode)| match possible(ports, snapshot, ifindex, mode).0 {
        XdpMode::Auto | XdpMode::Native => XdpModes::NATIVE,
        XdpMode::Generic => XdpModes::GENERIC,
        XdpMode::Off => XdpModes::NONE,
    });
    modes.fold(XdpModes::NONE, |all, mode| all | mode)
}

/// Attaches to a port that asks for `mode`.
pub(super) fn attach(
    programs: &mut Programs,
    (ifindex, name): (u32, &str),
    mode: XdpMode,
    ports: &Ports,
    snapshot: &Snapshot,
) -> Result<AttachedPort> {
    let (possible, why) = possible(ports, snapshot, ifindex, mode);
    let (attachment, note) = programs.attach_port(ifindex, name, possible)?;
    Ok(AttachedPort { mode, attachment, note: why.or(note) })
}

/// The mode that a port can have of what it asks for, and why no better.
fn possible(
    ports: &Ports,
    snapshot: &Snapshot,
    ifindex: u32,
    asked: XdpMode,
) -> (XdpMode, Option<String>) {
    if let Some(base) = vlan_base(ports, snapshot, ifindex) {
        return (XdpMode::Off, Some(format!("XDP runs on {base}, below it")));
    }
    let instead = match (asked, snapshot.links.get(&ifindex)) {
        (XdpMode::Auto | XdpMode::Native | XdpMode::Generic, Some(link))
            if dataplane::is_of_several(link) =>
        {
            Some((XdpMode::Off, OF_SEVERAL))
        }
        (XdpMode::Auto, Some(link)) if dataplane::is_unsure(link) => {
            Some((XdpMode::Generic, UNSURE))
        }
        (XdpMode::Auto, Some(link)) if has_no_native_xdp(link) => {
            Some((XdpMode::Generic, NO_NATIVE))
        }
        _ => None,
    };
    instead.map_or((asked, None), |(mode, why)| (mode, Some(why.to_owned())))
}

/// The port on which the frames of a VLAN device arrive, by name: XDP has seen them there already.
fn vlan_base<'a>(ports: &'a Ports, snapshot: &Snapshot, ifindex: u32) -> Option<&'a str> {
    snapshot.links.get(&ifindex)?.vlan?;
    let (base, _) = dataplane::wire(snapshot, ifindex)?;
    ports.get(&base).filter(|(_, mode)| *mode != XdpMode::Off).map(|(name, _)| name.as_str())
}

/// Its driver has no XDP, says the kernel.
fn has_no_native_xdp(link: &Link) -> bool {
    link.xdp_features.is_some_and(|features| features & xdp_features::BASIC == 0)
}

/// Why XDP is off on a bond; see [`dataplane::is_of_several`].
const OF_SEVERAL: &str = "XDP sees the frames of this interface as come in on a member of it, or without their \
                          VLAN tags";
/// Why a port is no better than generic; see [`dataplane::is_unsure`].
const UNSURE: &str = "this kernel, older than 6.3, does not say whether the other end of this veth \
                      receives redirected packets: where it has GRO or an XDP program, ask for \
                      `xdp = \"native\"`";
const NO_NATIVE: &str = "no native XDP: the kernel says that its driver has none";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observed::Vlan,
        testing::{desired, link},
    };

    const CAN: Option<u64> = Some(xdp_features::BASIC);

    /// A card, one whose driver has no XDP, a veth that an old kernel says nothing of, a bond, and a VLAN on the
    /// card.
    fn snapshot() -> Snapshot {
        let named = |ifindex, name: &str, kind: Option<&str>, xdp_features| {
            let kind = kind.map(str::to_owned);
            Link { kind, xdp_features, ..link(ifindex, name) }
        };
        let mut links = [
            named(2, "card", None, CAN),
            named(3, "old", None, Some(0)),
            named(4, "veth", Some("veth"), None),
            named(5, "bond", Some("bond"), CAN),
            named(6, "vlan", Some("vlan"), Some(0)),
        ];
        links[4].vlan = Some(Vlan { id: 7, protocol: 0x8100 });
        links[4].link = Some(2);
        Snapshot {
            links: links.into_iter().map(|link| (link.ifindex, link)).collect(),
            ..Snapshot::default()
        }
    }

    fn asking(ports: &[(&str, XdpMode)]) -> Desired {
        let mut desired = desired([]);
        desired.ports.extend(ports.iter().map(|(name, mode)| ((*name).to_owned(), *mode)));
        desired
    }

    #[test]
    fn only_modes_that_ports_can_have_are_going_to_be_run() {
        use XdpMode::{Auto, Generic, Native, Off};
        let both = XdpModes { native: true, generic: true };
        for (ports, expected) in [
            (&[][..], XdpModes::NONE),
            (&[("card", Off), ("bond", Native), ("bond", Auto)], XdpModes::NONE),
            (&[("card", Auto)], XdpModes::NATIVE),
            (&[("card", Auto), ("vlan", Auto)], XdpModes::NATIVE),
            (&[("card", Off), ("vlan", Generic)], XdpModes::GENERIC),
            (&[("old", Auto)], XdpModes::GENERIC),
            (&[("old", Native)], XdpModes::NATIVE),
            (&[("veth", Auto), ("card", Native)], both),
            (&[("veth", Native), ("card", Off)], XdpModes::NATIVE),
        ] {
            assert_eq!(modes(&asking(ports), &snapshot()), expected, "{ports:?}");
        }
    }

    #[test]
    fn what_is_no_better_says_why() {
        let told = |name: &str, mode, others: &[(&str, XdpMode)]| {
            let snapshot = snapshot();
            let desired = asking(&[&[(name, mode)], others].concat());
            let ports = reconcile::ports(&desired, &snapshot);
            let link = snapshot.links.values().find(|link| link.name == name).unwrap();
            possible(&ports, &snapshot, link.ifindex, mode)
        };
        let because = |mode, why: &str| (mode, Some(why.to_owned()));
        assert_eq!(told("card", XdpMode::Auto, &[]), (XdpMode::Auto, None));
        assert_eq!(told("old", XdpMode::Auto, &[]), because(XdpMode::Generic, NO_NATIVE));
        assert_eq!(told("old", XdpMode::Native, &[]), (XdpMode::Native, None), "it is asked for");
        assert_eq!(told("veth", XdpMode::Auto, &[]), because(XdpMode::Generic, UNSURE));
        assert_eq!(told("bond", XdpMode::Generic, &[]), because(XdpMode::Off, OF_SEVERAL));
        assert_eq!(told("bond", XdpMode::Off, &[]), (XdpMode::Off, None));
        let below = [("card", XdpMode::Auto)];
        assert_eq!(
            told("vlan", XdpMode::Auto, &below),
            because(XdpMode::Off, "XDP runs on card, below it")
        );
    }
}
