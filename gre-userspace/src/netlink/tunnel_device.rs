//! A tunnel's network device: a veth pair, of which users see one end.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVeth, LinkAttribute},
};
use nix::{libc::EAFNOSUPPORT, net::if_::if_nametoindex};
use rtnetlink::{LinkUnspec, LinkVeth};

use super::{Kernel, NetlinkError, device};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelDevice {
    /// The end with the tunnel's name.
    pub ifindex: u32,
    pub peer_ifindex: u32,
}

/// The longest packet that a veth takes, in bytes.
const PEER_MTU: u32 = 65_535;

impl Kernel {
    /// Makes the pair `name` and `peer_name`, the first with GRO. For IP neither has ARP or an IPv6
    /// address of its own making; for Ethernet the first is a station like any other. `mtu`, in bytes, is the named end's; the peer takes whatever fits the
    /// device, so that it need not follow the MTU that users set there. The peer is up; `name` is down, as after
    /// `ip tunnel add`, and has `alias`. All or nothing: what was made is deleted on failure.
    pub async fn create_tunnel_device(
        &self,
        name: &str,
        peer_name: &str,
        mtu: u32,
        alias: &str,
        ethernet: bool,
    ) -> Result<TunnelDevice, NetlinkError> {
        let attempt = || format!("create the tunnel device {name} with its peer {peer_name}");
        let peer = LinkUnspec::new_with_name(peer_name).arp(false).mtu(PEER_MTU).build();
        let pair = LinkVeth::new(name, peer_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .arp(ethernet)
            .mtu(mtu)
            .build();
        self.change(attempt, RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL).await?;

        let index_of = |name: &str| {
            if_nametoindex(name).map_err(|errno| NetlinkError::Refused {
                attempt: attempt(),
                errno: errno.into(),
                detail: Some(format!("{name} was gone as soon as it was made")),
            })
        };
        let ifindex = index_of(name)?;
        let finish = async {
            let tunnel = TunnelDevice { ifindex, peer_ifindex: index_of(peer_name)? };
            self.set_alias(tunnel.ifindex, alias).await?;
            self.generate_no_ipv6_address(tunnel.peer_ifindex).await?;
            if !ethernet {
                self.generate_no_ipv6_address(tunnel.ifindex).await?;
            }
            // Not at the peer: what the device has cut must not be merged again.
            self.turn_gro_on(tunnel.ifindex).await?;
            // Last: the veth driver takes GRO into its XDP features when a device is brought up.
            self.set_up(tunnel.peer_ifindex, true).await?;
            Ok(tunnel)
        };
        match finish.await {
            Ok(tunnel) => Ok(tunnel),
            Err(error) => {
                // The first error is the one to tell; a pair that stays can be seen.
                if let Err(leftover) = self.delete_link(ifindex).await {
                    tracing::warn!("{leftover}");
                }
                Err(error)
            }
        }
    }

    /// `ip link set DEV addrgenmode none`: nothing but what users add may speak on a tunnel.
    async fn generate_no_ipv6_address(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let message = LinkUnspec::new_with_index(ifindex)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
                none,
            ])]))
            .build();
        let result = self
            .set_link(
                || format!("stop the device {} making IPv6 addresses", device(ifindex)),
                message,
            )
            .await;
        match result {
            // No IPv6 in this kernel, or none on a device with an MTU below 1280: none to stop.
            Err(refusal) if refusal.errno() == Some(EAFNOSUPPORT) => Ok(()),
            result => result,
        }
    }
}
