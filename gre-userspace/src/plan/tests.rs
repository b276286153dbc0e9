use proptest::{collection::btree_map, prelude::*};

use super::*;
use crate::{
    model::{Adoption, Mode, Netfilter},
    testing::tunnel,
};

fn desired(tunnels: impl IntoIterator<Item = Tunnel>) -> Desired {
    Desired {
        tunnels: tunnels.into_iter().map(|tunnel| (tunnel.name.clone(), tunnel)).collect(),
        ..Desired::default()
    }
}

fn keyed(name: &str, key: u32) -> Tunnel {
    Tunnel { ikey: Some(key), okey: Some(key), up: true, ..tunnel(name) }
}

fn told(steps: &[Step]) -> Vec<String> {
    steps.iter().flat_map(Step::told).map(|step| step.to_string()).collect()
}

#[test]
fn what_is_as_it_should_be_is_left_alone() {
    let both = desired([keyed("a", 1), keyed("b", 2)]);
    assert_eq!(plan(&both, &both), Ok(vec![]));
}

#[test]
fn only_what_differs_is_changed_and_what_goes_goes_last() {
    let current = desired([keyed("a", 1), keyed("b", 2)]);
    let mut slower = keyed("b", 2);
    (slower.ttl, slower.okey, slower.mtu) = (9, Some(7), Some(1400));
    let steps = plan(&current, &desired([slower, keyed("c", 3)])).unwrap();
    assert_eq!(
        told(&steps),
        [
            "~ tunnel b: ikey default -> 2, key 2 -> default, mtu default -> 1400, okey default -> 7, \
             ttl default -> 9",
            "+ tunnel c: mode gre local 192.0.2.1 remote 198.51.100.1 key 3",
            "- tunnel a: mode gre local 192.0.2.1 remote 198.51.100.1 key 1",
        ]
    );
}

#[test]
fn tunnels_made_by_commands_stay_unless_they_are_named() {
    let by_command = |name, key| Tunnel { up: false, ..keyed(name, key) };
    let current = desired([by_command("a", 1), by_command("b", 2)]);
    let steps = plan(&current, &desired([keyed("b", 2)])).unwrap();
    assert_eq!(told(&steps), ["~ tunnel b: kept in the config from now on"]);

    let clash = plan(&current, &desired([keyed("c", 1)])).unwrap_err();
    assert_eq!(clash, Impossible::Clash { new: "c".into(), old: "a".into() });
}

#[test]
fn a_key_passes_from_one_to_another_whatever_their_names() {
    let current = desired([keyed("a", 1), keyed("b", 2), keyed("c", 3)]);
    let wanted = desired([keyed("a", 2), keyed("b", 3), keyed("d", 1)]);
    let steps = plan(&current, &wanted).unwrap();
    let names: Vec<_> = told(&steps).iter().map(|line| line[..10].to_owned()).collect();
    assert_eq!(names, ["- tunnel c", "~ tunnel b", "~ tunnel a", "+ tunnel d"]);
}

#[test]
fn tunnels_that_swap_their_keys_meet_at_no_time() {
    let current = desired([keyed("a", 1), keyed("b", 2)]);
    let steps = plan(&current, &desired([keyed("a", 2), keyed("b", 1)])).unwrap();
    let names: Vec<_> = told(&steps).iter().map(|line| line[..10].to_owned()).collect();
    assert_eq!(names, ["- tunnel a", "~ tunnel b", "+ tunnel a"]);
}

#[test]
fn another_mode_is_another_device() {
    let current = desired([keyed("a", 1)]);
    let tap = Tunnel { mode: Mode::Gretap, ..keyed("a", 1) };
    let steps = plan(&current, &desired([tap.clone()])).unwrap();
    assert_eq!(steps, [Step::Delete(keyed("a", 1)), Step::Add(tap)]);
}

#[test]
fn a_full_table_is_emptied_before_it_is_filled() {
    let limits = Limits { tunnels: 1, ..Limits::DEFAULT };
    let of = |tunnel| Desired { limits, ..desired([tunnel]) };
    let steps = plan(&of(keyed("b", 1)), &of(keyed("a", 2))).unwrap();
    assert_eq!(steps, [Step::Delete(keyed("b", 1)), Step::Add(keyed("a", 2))]);

    let command = Tunnel { up: false, ..keyed("b", 1) };
    let refusal = plan(&of(command), &of(keyed("a", 2))).unwrap_err();
    assert_eq!(refusal, Impossible::TooMany { count: 2, commands: 1, limit: 1 });
}

#[test]
fn limits_do_not_change_while_it_runs() {
    let wanted = Desired { limits: Limits { fdb: 1, ..Limits::DEFAULT }, ..desired([]) };
    let refusal = plan(&desired([]), &wanted).unwrap_err();
    assert_eq!(refusal, Impossible::Limit { name: "fdb", old: 16_384, new: 1 });
}

#[test]
fn ports_are_told_one_by_one() {
    let with = |ports: &[(&str, XdpMode)]| Desired {
        ports: ports.iter().map(|&(name, mode)| (name.to_owned(), mode)).collect(),
        ..desired([])
    };
    let named = with(&[("eth0", XdpMode::Auto), ("eth1", XdpMode::Off)]);
    let steps = plan(&desired([]), &named).unwrap();
    assert_eq!(
        told(&steps),
        ["+ port eth0: xdp auto", "+ port eth1: xdp off", "- port *: those that are not named"]
    );
    let other = with(&[("eth1", XdpMode::Native), ("eth2", XdpMode::Auto)]);
    let steps = plan(&named, &other).unwrap();
    assert_eq!(
        told(&steps),
        ["- port eth0: xdp auto", "~ port eth1: xdp off -> native", "+ port eth2: xdp auto"]
    );
}

/// Tunnels that are alike now and then.
fn some_tunnels() -> impl Strategy<Value = Desired> {
    btree_map("[a-e]", (0..6u32, any::<bool>(), 1..3u8), 0..6).prop_map(|tunnels| {
        let mut keys = BTreeSet::new();
        desired(tunnels.into_iter().filter(|(_, (key, ..))| keys.insert(*key)).map(
            |(name, (key, tap, ttl))| {
                let mode = if tap { Mode::Gretap } else { Mode::Gre };
                Tunnel { ttl, mode, ..keyed(&name, key) }
            },
        ))
    })
}

proptest! {
    #[test]
    fn a_plan_leads_there_and_its_inverse_back(current in some_tunnels(), wanted in some_tunnels()) {
        let steps = plan(&current, &wanted).unwrap();
        let mut now = current.tunnels.clone();
        for step in &steps {
            take(&mut now, step);
        }
        prop_assert_eq!(&now, &wanted.tunnels);
        for step in steps.iter().rev() {
            take(&mut now, &step.inverse());
        }
        prop_assert_eq!(&now, &current.tunnels);
    }
}

/// As the daemon does it, refusing what it would refuse.
fn take(now: &mut BTreeMap<String, Tunnel>, step: &Step) {
    match step {
        Step::Ports { .. } | Step::Group { .. } | Step::Adopt { .. } => {}
        Step::Add(new) => assert_eq!(now.insert(new.name.clone(), new.clone()), None),
        Step::Change { old, new } => {
            assert_eq!((old.mode, old), (new.mode, &now[&old.name]));
            now.insert(new.name.clone(), new.clone());
        }
        Step::Delete(old) => assert_eq!(now.remove(&old.name).as_ref(), Some(old)),
    }
    let identities: BTreeSet<_> = now.values().map(Tunnel::identity).collect();
    assert_eq!(identities.len(), now.len(), "after {step:?}");
}

#[test]
fn the_group_of_the_control_socket_is_changed_before_tunnels_are() {
    let old = desired([]);
    let new = Desired { control_group: Some("net".into()), ..desired([keyed("a", 1)]) };
    let steps = plan(&old, &new).unwrap();
    assert_eq!(told(&steps)[0], "~ control group: none -> net");
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0].inverse(), Step::Group { old: Some("net".into()), new: None });
    assert_eq!(plan(&new, &new), Ok(vec![]));
}

#[test]
fn what_is_adopted_follows_the_config_in_its_words() {
    let adopting = |adopt| Desired { adopt, ..desired([]) };
    let none = adopting(Adopt::default());
    let all = adopting(Adopt::all(Netfilter::Respect));
    let named = adopting(Adopt::of_names(["gre1", "gre2"]));
    let text = |old, new| told(&plan(old, new).unwrap());
    assert_eq!(text(&none, &all), ["~ adopt kernel's GRE: none -> all"]);
    assert_eq!(text(&all, &named), ["~ adopt kernel's GRE: all -> gre1 + gre2"]);
    let commanded = Desired { told: vec![Adoption::new("gre1", None)], ..all.clone() };
    assert_eq!(plan(&commanded, &all), Ok(vec![]), "what commands asked for stays");
}
