//! IPv6 that enters a tunnel over IPv6 (RFC 2473, 4; ip6gre_xmit_ipv6): what is refused, and the
//! encapsulation limit that a packet brings along.

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_skb_load_bytes, programs::TcContext};
use gre_ebpf_common::{
    event::Kind,
    limit::{Limit, Search, Step},
    outcome::{Outcome, Stop},
    tunnel::{Flags, Tunnel},
    wire::ethernet,
};

use crate::{
    events::{self, QUOTED},
    header::Header,
    tunnels,
    verifier::{forget, opaque},
};

/// XDP: whether a packet may enter. Whether one with extension headers may, TC tells.
#[inline(always)]
pub fn xdp<H: Header>(id: u32, tunnel: &Tunnel, inner: &H) -> Result<(), Stop> {
    refuse_remote(id, tunnel, inner)?;
    if tunnel.flags.has(Flags::IPV6) && inner.may_be_limited() {
        return Err(Outcome::Ipv6Extension.into());
    }
    Ok(())
}

/// TC: whether a packet may enter, and the encapsulation limit that is sent on its account.
#[inline(always)]
pub fn tc<H: Header>(
    ctx: &TcContext,
    id: u32,
    tunnel: &Tunnel,
    inner: &H,
) -> Result<Option<u8>, Stop> {
    refuse_remote(id, tunnel, inner)?;
    let found = if tunnel.flags.has(Flags::IPV6) && inner.may_be_limited() {
        xgre_limit_tc(ctx.skb.skb, inner.protocol().into())
    } else {
        0
    };
    let Some(limit) = decode(opaque(found as usize)) else { return Ok(None) };
    if limit.outer().is_none() {
        // Without a daemon its sender is not told.
        events::send(ctx, Kind::EncapsulationLimit, id, QUOTED.min(ctx.len()));
        return Err(Stop::on(id, Outcome::EncapsulationLimit));
    }
    Ok(limit.outer())
}

/// Refuses what the tunnel's remote itself has sent, which goes in a circle.
#[inline(always)]
fn refuse_remote<H: Header>(id: u32, tunnel: &Tunnel, inner: &H) -> Result<(), Stop> {
    if tunnel.flags.has(Flags::IPV6)
        && tunnels::addresses6(id).is_some_and(|ends| inner.is_from6(&ends.remote))
    {
        return Err(Stop::on(id, Outcome::InnerSource));
    }
    Ok(())
}

/// A limit in one word, as a function returns it; 0 is none, since no option stands at the start.
#[inline(always)]
fn encode(limit: Limit) -> u32 {
    (limit.offset as u32) << 8 | u32::from(limit.value)
}

#[inline(always)]
fn decode(word: usize) -> Option<Limit> {
    (word != 0).then_some(Limit { value: word as u8, offset: word >> 8 })
}

/// A function of its own, which the verifier looks at once: it is long, and few packets have options.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn xgre_limit_tc(ctx: *mut __sk_buff, next_header: u32) -> u32 {
    // SAFETY: the context is the caller's.
    let len = unsafe { (*ctx).len };
    let mut search = Search::new(next_header as u8);
    for _ in 0..Search::STEPS {
        search.at = forget(search.at, len);
        search.end = forget(search.end, len);
        // A word, which is cleared without a call.
        let mut word = 0u32;
        let (at, to) = ((ethernet::HEADER_LEN + search.at) as u32, (&raw mut word).cast());
        // SAFETY: the helper checks what it reads from the packet; there is room for all of it.
        if unsafe { bpf_skb_load_bytes(ctx.cast(), at, to, Search::WINDOW as u32) } != 0 {
            return 0;
        }
        let [first, second, third, _] = word.to_ne_bytes();
        search = match search.step([first, second, third], len as usize - ethernet::HEADER_LEN) {
            Step::Found(limit) => return encode(limit),
            Step::On(search) => search,
            Step::Nothing => return 0,
        };
    }
    0
}
