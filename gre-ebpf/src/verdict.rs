//! From outcome to action. The only file that names the kernel's actions.

use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use gre_ebpf_common::{
    counters::Tier,
    outcome::{Disposition, NO_TUNNEL, Outcome, Stop},
};

use crate::counters;

/// Counts a packet that a program stopped working on, and its tunnel's drop.
#[inline(always)]
fn count(tier: Tier, stop: Stop) -> Disposition {
    let Stop { outcome, tunnel } = stop;
    let disposition = outcome.disposition();
    let is_drop = matches!(disposition, Disposition::Drop | Disposition::Abort);
    if is_drop && tunnel != NO_TUNNEL {
        counters::tunnel_drop(tunnel, outcome);
    }
    counters::outcome(tier, outcome);
    disposition
}

/// What a program finished always goes on its way.
#[inline(always)]
pub fn xdp(result: Result<Outcome, Stop>) -> u32 {
    let stop = match result {
        Ok(outcome) => {
            counters::outcome(Tier::Xdp, outcome);
            return xdp_action::XDP_REDIRECT;
        }
        Err(stop) => stop,
    };
    match count(Tier::Xdp, stop) {
        Disposition::Forward => xdp_action::XDP_REDIRECT,
        Disposition::Pass => xdp_action::XDP_PASS,
        Disposition::Drop | Disposition::Consume => xdp_action::XDP_DROP,
        Disposition::Abort => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
pub fn tc(result: Result<Outcome, Stop>) -> i32 {
    let stop = match result {
        Ok(outcome) => {
            counters::outcome(Tier::Tc, outcome);
            return TC_ACT_REDIRECT;
        }
        Err(stop) => stop,
    };
    match count(Tier::Tc, stop) {
        Disposition::Forward => TC_ACT_REDIRECT,
        Disposition::Pass => TC_ACT_UNSPEC,
        Disposition::Drop | Disposition::Abort | Disposition::Consume => TC_ACT_SHOT,
    }
}

/// Whether a helper armed a redirect.
#[inline(always)]
pub fn xdp_redirects(action: u32) -> bool {
    action == xdp_action::XDP_REDIRECT
}

#[inline(always)]
pub fn tc_redirects(action: i64) -> bool {
    action == i64::from(TC_ACT_REDIRECT)
}
