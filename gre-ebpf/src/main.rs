//! The data plane. Read on: `parse` -> `tunnels` -> `decap` | `encap` -> `forward` -> `verdict`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod bridge;
mod checksum;
mod counters;
mod decap;
mod detour;
mod encap;
mod events;
mod forward;
mod fragment;
mod frames;
mod header;
mod mismatch;
mod mss;
mod nesting;
mod packet;
mod parse;
mod reassemble;
mod scratch;
mod sequence;
mod tunnels;
mod verdict;
mod verifier;

use aya_ebpf::{
    bindings::__sk_buff,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    counters::Tier,
    outcome::{Outcome, Stop},
    tunnel::Flags,
    wire::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use packet::Packet;
use tunnels::Gre;

/// Tier 1, on every port: out of a tunnel, into one, or both; what it cannot finish it passes on
/// as it came. It handles untagged IPv4 through IPv4 tunnels without options but a key, which most
/// packets are, and leaves the rest to `xgre_xdp_any`: so small a program is the faster one.
#[xdp(frags)]
#[inline(always)]
pub fn xgre_xdp(ctx: XdpContext) -> u32 {
    let result = forward_plain(&ctx);
    detour::take(&ctx, &result);
    verdict::plain(result)
}

/// The same for every IP packet, tunnel and option.
#[xdp(frags)]
#[inline(always)]
pub fn xgre_xdp_any(ctx: XdpContext) -> u32 {
    let result = forward_any(&ctx);
    detour::take(&ctx, &result);
    verdict::xdp(result)
}

/// For Ethernet frames: those in tunnels, and those that a bridge forwards.
#[xdp(frags)]
#[inline(always)]
pub fn xgre_xdp_frames(ctx: XdpContext) -> u32 {
    let result = forward_ethernet(&ctx);
    detour::take(&ctx, &result);
    verdict::xdp(result)
}

#[inline(always)]
fn forward_ethernet(ctx: &XdpContext) -> Result<Outcome, Stop> {
    let packet = Packet::in_pieces(ctx)?;
    let ifindex = ctx.ingress_ifindex() as u32;
    if let Some(port) = parse::bridged(&packet, ifindex) {
        return bridge::xdp(ctx, &packet, port);
    }
    let frame = parse::frame::<true>(Tier::Xdp, &packet, ifindex)?;
    let gre = match frame.ethertype {
        ETHERTYPE_IPV4 => {
            let ip = parse::ipv4(&packet, &frame)?;
            tunnels::receive4::<true>(&packet, &frame, &ip)?
        }
        ETHERTYPE_IPV6 => {
            let ip = parse::ipv6(&packet, &frame)?;
            tunnels::receive6(&packet, &frame, &ip)?
        }
        _ => return Err(Outcome::NotIp.into()),
    };
    match gre {
        Gre::Ours(received) => decap::frame(ctx, &packet, &frame, &received),
        // One in a tunnel of others is a packet like any other.
        Gre::Foreign | Gre::None => Err(Outcome::Detour.into()),
    }
}

/// What is not of the plainest kind ends as a `Detour`.
#[inline(always)]
fn forward_plain(ctx: &XdpContext) -> Result<Outcome, Stop> {
    // One in pieces looks cut short, and takes the detour.
    let packet = Packet::of_xdp(ctx);
    let frame = parse::frame::<false>(Tier::Xdp, &packet, ctx.ingress_ifindex() as u32)?;
    let ip = parse::plain_ipv4(&packet, &frame).ok_or(Outcome::Detour)?;
    match tunnels::receive4::<false>(&packet, &frame, &ip)? {
        Gre::Ours(received) => decap::xdp::<false>(ctx, &packet, &frame, &received),
        other => encap::xdp::<_, false>(ctx, &packet, &frame, &ip, other),
    }
}

#[inline(always)]
fn forward_any(ctx: &XdpContext) -> Result<Outcome, Stop> {
    let packet = Packet::in_pieces(ctx)?;
    let ifindex = ctx.ingress_ifindex() as u32;
    if parse::bridged(&packet, ifindex).is_some() {
        return Err(Outcome::DetourOfFrames.into());
    }
    let frame = parse::frame::<true>(Tier::Xdp, &packet, ifindex)?;
    let received = match frame.ethertype {
        ETHERTYPE_IPV4 => {
            let ip = parse::ipv4(&packet, &frame)?;
            match tunnels::receive4::<true>(&packet, &frame, &ip)? {
                Gre::Ours(received) => received,
                other => return encap::xdp::<_, true>(ctx, &packet, &frame, &ip, other),
            }
        }
        ETHERTYPE_IPV6 => {
            let ip = parse::ipv6(&packet, &frame)?;
            match tunnels::receive6(&packet, &frame, &ip)? {
                Gre::Ours(received) => received,
                other => return encap::xdp::<_, true>(ctx, &packet, &frame, &ip, other),
            }
        }
        _ => return Err(Outcome::NotIp.into()),
    };
    decap::xdp::<true>(ctx, &packet, &frame, &received)
}

/// Tier 2, on the ingress of every port: takes GRE that XDP did not see off and hands it to the
/// tunnel's device.
#[classifier]
#[inline(always)]
pub fn xgre_tc_in(ctx: TcContext) -> i32 {
    verdict::tc(from_underlay(&ctx))
}

#[inline(always)]
fn from_underlay(ctx: &TcContext) -> Result<Outcome, Stop> {
    let packet = Packet::of_tc(ctx, packet::OUTER_AND_INNER);
    if let Some(port) = parse::bridged(&packet, skb(ctx).ifindex) {
        return bridge::tc(ctx, port);
    }
    // The kernel has taken the tag out of the frame; the VLAN's own device sees it next.
    if skb(ctx).vlan_present != 0 {
        return Err(Outcome::VlanUnknown.into());
    }
    let mut packet = Packet::of_tc(ctx, packet::OUTER_AND_INNER);
    let frame = parse::frame::<true>(Tier::Tc, &packet, skb(ctx).ifindex)?;
    let gre = match frame.ethertype {
        ETHERTYPE_IPV4 => {
            let mut ip = parse::ipv4_with_options(&packet, &frame)?;
            if reassemble::fragment(ctx, &frame, &ip)? {
                packet = Packet::of_tc(ctx, packet::OUTER_AND_INNER);
                ip = parse::ipv4_with_options(&packet, &frame)?;
            }
            tunnels::receive4::<true>(&packet, &frame, &ip)
        }
        ETHERTYPE_IPV6 => {
            let ip = parse::ipv6(&packet, &frame)?;
            tunnels::receive6(&packet, &frame, &ip)
        }
        _ => return Err(Outcome::NotIp.into()),
    };
    match gre {
        Ok(Gre::Ours(received)) if received.tunnel.flags.has(Flags::ADOPTED) => {
            Err(Outcome::Adopted.into())
        }
        Ok(Gre::Ours(received)) => decap::tc(ctx, &frame, &received),
        Ok(Gre::Foreign) => Err(Outcome::NoTunnel.into()),
        Ok(Gre::None) => Err(Outcome::NoTunnelRoute.into()),
        Err(stop) => Err(events::take_over(ctx, stop)),
    }
}

/// Tier 2, on the egress of a tunnel's device: encapsulates what the kernel routed into it. On the
/// ingress of the device's other end it does the same for what the device has to cut or to sum first.
#[classifier]
#[inline(always)]
pub fn xgre_tc_out(ctx: TcContext) -> i32 {
    verdict::tc(into_tunnel(&ctx))
}

#[inline(always)]
fn into_tunnel(ctx: &TcContext) -> Result<Outcome, Stop> {
    let device = parse::port(skb(ctx).ifindex).ok_or(Outcome::UnknownPort)?;
    encap::tc(ctx, device)
}

/// On the egress of the other end of a tunnel's device: delivers on the device what the daemon has
/// put together, and is too long for its MTU. That limits what is sent; a peer may send more.
#[classifier]
#[inline(always)]
pub fn xgre_tc_deliver(ctx: TcContext) -> i32 {
    verdict::deliver(device_of_too_long(&ctx))
}

#[inline(always)]
fn device_of_too_long(ctx: &TcContext) -> Option<u32> {
    let peer = parse::port(skb(ctx).ifindex)?;
    let tunnel = tunnels::get(peer.tunnel())?;
    let is_merged = skb(ctx).gso_size != 0;
    let is_too_long = ctx.len() > u32::from(tunnel.mtu) + ethernet::HEADER_LEN as u32;
    (is_too_long && !is_merged).then_some(tunnel.ifindex)
}

#[inline(always)]
fn skb(ctx: &TcContext) -> &__sk_buff {
    // SAFETY: the kernel passes a valid context to the program.
    unsafe { &*ctx.skb.skb }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel only lends its GPL helpers to programs that may be used under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
