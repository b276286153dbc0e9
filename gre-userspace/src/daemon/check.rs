//! Whether the machine can satisfy a configuration.

use anyhow::{Error, Result, bail};
use tracing::warn;

use crate::{
    control::access::Members,
    dataplane::is_device,
    instance::Instance,
    loader::Programs,
    model::{Desired, XdpMode},
    observed::Snapshot,
    reconcile,
};

/// Refuses a configuration that the machine cannot satisfy, before anything is changed.
pub fn can_be(desired: &Desired, instance: &Instance, snapshot: &Snapshot) -> Result<()> {
    let named = |name: &str| snapshot.links.values().find(|link| link.name == name);
    for name in desired.ports.keys() {
        if named(name).is_none() {
            let links: Vec<_> = snapshot.links.values().map(|link| link.name.as_str()).collect();
            bail!(
                "[[port]] \"{name}\": no such interface; this network namespace has {}",
                links.join(", ")
            );
        }
    }
    if let Some(group) = &desired.control_group {
        Members::named(group).map_err(Error::msg)?;
    }
    for tunnel in desired.tunnels.values() {
        if let Some(link) = named(&tunnel.name)
            && !is_device(link)
        {
            bail!(
                "tunnel \"{0}\": an interface of that name exists and is not a tunnel of xgre: \
                 `ip link del {0}`, or choose another name",
                tunnel.name
            );
        }
    }
    for (ifindex, (name, mode)) in reconcile::ports(desired, snapshot) {
        let link = &snapshot.links[&ifindex];
        if let Some(xdp) = link.xdp
            && mode != XdpMode::Off
            && !Programs::is_pinned(&instance.pins, ifindex)
        {
            bail!(
                "port {name}: it already has an XDP program (id {}): take it off with \
                 `ip link set dev {name} {} off`, or leave the port to TC with [[port]] name = \
                 \"{name}\", xdp = \"off\"",
                xdp.program_id,
                if xdp.generic { "xdpgeneric" } else { "xdp" },
            );
        }
        if mode == XdpMode::Off && link.xdp.is_some() {
            warn!(port = name, "its XDP program sees packets before xgre does");
        }
    }
    Ok(())
}
