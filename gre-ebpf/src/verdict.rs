//! From outcome to action. The only file that names the kernel's actions.

use aya_ebpf::bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use gre_ebpf_common::{
    counters::Tier,
    outcome::{Disposition, Outcome, Stop},
};

use crate::counters;

#[inline(always)]
fn count(tier: Tier, result: Result<Outcome, Stop>) -> Outcome {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(Stop { outcome, tunnel }) => {
            let is_drop =
                matches!(outcome.disposition(), Disposition::Drop | Disposition::Abort);
            if let Some(tunnel) = tunnel.filter(|_| is_drop) {
                counters::tunnel_drop(tunnel, outcome);
            }
            outcome
        }
    };
    counters::outcome(tier, outcome);
    outcome
}

#[inline(always)]
pub fn xdp(result: Result<Outcome, Stop>) -> u32 {
    match count(Tier::Xdp, result).disposition() {
        Disposition::Forward => xdp_action::XDP_REDIRECT,
        Disposition::Pass => xdp_action::XDP_PASS,
        Disposition::Drop | Disposition::Consume => xdp_action::XDP_DROP,
        Disposition::Abort => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
pub fn tc(result: Result<Outcome, Stop>) -> i32 {
    match count(Tier::Tc, result).disposition() {
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
