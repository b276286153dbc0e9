//! Keys over IPv6, where zero is none, and over IPv4, where it is one.

use gre_ebpf_common::{outcome::Outcome::*, tunnel::Flags};
use gre_userspace::dataplane::DataPlane;

use crate::{
    case::{Case, check},
    change,
    demux::keyed,
    frame::from_wan,
    outer::TIERS,
    packet::inbound,
    world::{Family, KEYED6, PLAIN4, PLAIN6, Spec},
};

/// ip6gre compares the number alone; ip_gre tells a key of zero from none.
#[test]
fn l1_key_zero_is_no_key_over_ipv6_and_a_key_over_ipv4() {
    let mut cases = Vec::new();
    for hook in TIERS {
        for tunnel in [PLAIN4, PLAIN6] {
            let inner = inbound(Family::V6, tunnel);
            let case = |what: &str, key| {
                Case::new(what, hook, from_wan(&keyed(tunnel, key, &inner).bytes()))
            };
            // As the daemon records a tunnel with `key 0`.
            let with_key_zero = move |plane: &mut DataPlane| {
                change::tunnel_flag(plane, tunnel, Flags::KEY, true);
                if tunnel.outside == Family::V4 {
                    change::ends_are(
                        plane,
                        Spec { key: Some(0), ..tunnel },
                        Family::V4.local(),
                        tunnel.remote(),
                    );
                }
            };
            let [zero, none] = [case("key 0", Some(0)), case("no key", None)];
            let [zero_at_zero, none_at_zero] = [case("key 0", Some(0)), case("no key", None)];
            let zero_at_zero = zero_at_zero.given(with_key_zero).comes_out(tunnel, &inner);
            let none_at_zero = none_at_zero.given(with_key_zero);
            cases.push(none.comes_out(tunnel, &inner));
            cases.push(zero_at_zero);
            cases.extend(match tunnel.outside {
                Family::V4 => {
                    [zero.drops(KeyUnexpected, tunnel), none_at_zero.drops(KeyMissing, tunnel)]
                }
                Family::V6 => {
                    [zero.comes_out(tunnel, &inner), none_at_zero.comes_out(tunnel, &inner)]
                }
            });
        }
    }
    check(cases);
}

#[test]
fn rfc2890_1_d3_only_the_tunnels_own_key_opens_it() {
    let mut cases = Vec::new();
    for hook in TIERS {
        let inner = inbound(Family::V6, KEYED6);
        let own = KEYED6.key.unwrap();
        let mut keys: Vec<_> = (0..32).map(|bit| own ^ 1 << bit).collect();
        keys.push(own.swap_bytes());
        for key in keys {
            let frame = from_wan(&keyed(KEYED6, Some(key), &inner).bytes());
            let case = Case::new(format!("key {key:#x}"), hook, frame);
            cases.push(case.drops(KeyMismatch, KEYED6));
        }
        let case = |key| Case::new("key", hook, from_wan(&keyed(KEYED6, key, &inner).bytes()));
        cases.push(case(Some(own)).comes_out(KEYED6, &inner));
        cases.push(case(None).drops(KeyMissing, KEYED6));
        // Zero is none, but on the wire there is a key.
        cases.push(case(Some(0)).drops(KeyMismatch, KEYED6));
        let case = Case::new("key 1", hook, from_wan(&keyed(PLAIN6, Some(1), &inner).bytes()));
        cases.push(case.drops(KeyUnexpected, PLAIN6));
    }
    check(cases);
}
