//! From outcome to action. The only file that names the kernel's actions.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::generated::bpf_redirect,
};
use gre_ebpf_common::{
    counters::Tier,
    outcome::{Disposition, Outcome, Stop},
};

use crate::{counters, tunnels};

/// Counts a packet that a program stopped working on, and its tunnel's drop. What would end here of a
/// tunnel that is the kernel's own is for the kernel to judge.
#[inline(always)]
fn count(tier: Tier, stop: Stop) -> Disposition {
    let disposition = stop.outcome.disposition();
    let ends = matches!(disposition, Disposition::Drop | Disposition::Consume);
    if let Some(tunnel) = stop.tunnel() {
        if ends && tunnels::is_adopted(tunnel) {
            counters::outcome(tier, Outcome::Adopted);
            return Disposition::Pass;
        }
        if matches!(disposition, Disposition::Drop | Disposition::Abort) {
            counters::tunnel_drop(tunnel, stop.outcome);
        }
    }
    counters::outcome(tier, stop.outcome);
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

/// The same for the program of plain packets, which drops none: it has a detour for what it would
/// drop.
#[inline(always)]
pub fn plain(result: Result<Outcome, Stop>) -> u32 {
    let (outcome, action) = match result {
        Ok(outcome) => (outcome, xdp_action::XDP_REDIRECT),
        Err(Stop { outcome: Outcome::Aborted, .. }) => (Outcome::Aborted, xdp_action::XDP_ABORTED),
        Err(Stop { outcome, .. }) => (outcome, xdp_action::XDP_PASS),
    };
    counters::outcome(Tier::Xdp, outcome);
    action
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
        Disposition::Drop | Disposition::Abort => TC_ACT_SHOT,
        // Redirected to nowhere, which its sender takes for success. After a drop the kernel would
        // not send the other fragments of the same packet (ip_do_fragment), and TCP would slow down.
        // (There is TC_ACT_STOLEN, but not for programs attached by links.)
        // SAFETY: the helper has no precondition.
        Disposition::Consume => unsafe { bpf_redirect(0, 0) as i32 },
    }
}

/// Delivers a frame on an interface, whatever its MTU. It is not counted: who sent it has done so.
#[inline(always)]
pub fn deliver(ifindex: Option<u32>) -> i32 {
    match ifindex {
        // SAFETY: the helper has no precondition.
        Some(ifindex) => unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) as i32 },
        None => TC_ACT_UNSPEC,
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
