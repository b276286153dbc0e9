//! The data plane. Read on: `parse` -> `tunnels` -> `decap` | `encap` -> `forward` -> `verdict`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod counters;
mod decap;
mod encap;
mod forward;
mod packet;
mod parse;
mod tunnels;
mod verdict;

use aya_ebpf::{
    bindings::__sk_buff,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use gre_ebpf_common::{
    outcome::{Outcome, Stop},
    wire::ipv4::PROTOCOL_GRE,
};
use packet::Packet;

/// Tier 1, on every port: out of a tunnel, into one, or both; what it cannot finish it passes on
/// as it came.
#[xdp]
pub fn xgre_xdp(ctx: XdpContext) -> u32 {
    verdict::xdp(forward_frame(&ctx))
}

#[inline(always)]
fn forward_frame(ctx: &XdpContext) -> Result<Outcome, Stop> {
    let port = parse::port(ctx.ingress_ifindex() as u32).ok_or(Outcome::UnknownPort)?;
    let packet = Packet::of_xdp(ctx);
    let ip = parse::ipv4(&packet, port)?;
    if ip.protocol() == PROTOCOL_GRE
        && let Some(received) = tunnels::receive(&packet, &ip)?
    {
        return decap::xdp(ctx, port, &packet, &ip, &received);
    }
    encap::xdp(ctx, port, &packet, &ip)
}

/// Tier 2, on the ingress of every port: takes GRE that XDP did not see off and hands it to the
/// tunnel's device.
#[classifier]
pub fn xgre_tc_in(ctx: TcContext) -> i32 {
    verdict::tc(from_underlay(&ctx))
}

#[inline(always)]
fn from_underlay(ctx: &TcContext) -> Result<Outcome, Stop> {
    let port = parse::port(skb(ctx).ifindex).ok_or(Outcome::UnknownPort)?;
    let packet = Packet::of_tc(ctx);
    let ip = parse::ipv4(&packet, port)?;
    if ip.protocol() != PROTOCOL_GRE {
        return Err(Outcome::NoTunnelRoute.into());
    }
    match tunnels::receive(&packet, &ip)? {
        Some(received) => decap::tc(ctx, &packet, &ip, &received),
        None => Err(Outcome::NoTunnel.into()),
    }
}

/// Tier 2, on the egress of a tunnel's device: encapsulates what the kernel routed into it.
#[classifier]
pub fn xgre_tc_out(ctx: TcContext) -> i32 {
    verdict::tc(into_tunnel(&ctx))
}

#[inline(always)]
fn into_tunnel(ctx: &TcContext) -> Result<Outcome, Stop> {
    let device = parse::port(skb(ctx).ifindex).ok_or(Outcome::UnknownPort)?;
    encap::tc(ctx, device.tunnel())
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
