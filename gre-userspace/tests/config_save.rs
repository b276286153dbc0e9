//! What `xgre save` makes of a config file, and the schema of config files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use gre_userspace::{
    config,
    model::{Adopt, FlowLabel, Mode, Mss, Netfilter, SeqMode, Tunnel},
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use serde_json::Value;

const FILE: &str = r#"# Tunnels to the branches.
[limits]
tunnels = 16

# Kiruna, by way of AS64500
[[tunnel]]
name = "kiruna"   # 7 ms
local = "192.0.2.1"
remote = "198.51.100.1"
hoplimit = 9      # it is near
key = 42
csum = true

[[tunnel]]
name = "old"
local = "192.0.2.1"
remote = "198.51.100.2"

[[port]]
name = "eth0"
"#;

fn tunnels(text: &str) -> Vec<Tunnel> {
    config::parse("xgre.toml", text).unwrap().tunnels.into_values().collect()
}

#[test]
fn a_file_that_says_it_all_stays_as_it_is() {
    assert_eq!(config::save("xgre.toml", FILE, &tunnels(FILE), &NONE).unwrap(), FILE);
}

#[test]
fn only_what_differs_is_written_and_comments_stay() {
    let mut tunnels = tunnels(FILE);
    tunnels.retain(|tunnel| tunnel.name != "old");
    tunnels[0].ttl = 10;
    tunnels[0].icsum = false;
    tunnels[0].okey = None;
    let branch = Tunnel { name: "luleå".to_owned(), ..tunnels[0].clone() };
    let branch = Tunnel { remote: [198, 51, 100, 3].into(), ttl: 64, ..branch };
    tunnels.push(branch);
    let expected = r#"# Tunnels to the branches.
[limits]
tunnels = 16

# Kiruna, by way of AS64500
[[tunnel]]
name = "kiruna"   # 7 ms
local = "192.0.2.1"
remote = "198.51.100.1"
ttl = 10
ikey = 42
ocsum = true

[[tunnel]]
name = "luleå"
mode = "gre"
local = "192.0.2.1"
remote = "198.51.100.3"
ikey = 42
ocsum = true

[[port]]
name = "eth0"
"#;
    assert_eq!(config::save("xgre.toml", FILE, &tunnels, &NONE).unwrap(), expected);
}

#[test]
fn a_file_that_cannot_be_read_is_not_written() {
    let error = config::save("xgre.toml", "[[tunnel]]\nname = \"half", &[], &NONE).unwrap_err();
    assert!(error.to_string().contains("string"), "{error}");
}

proptest! {
    #[test]
    fn what_is_saved_is_what_is_read(
        before in some_tunnels(),
        after in some_tunnels(),
        adopt in any_adopt(),
    ) {
        let first = config::save("xgre.toml", "", &before, &adopt).unwrap();
        prop_assert_eq!(tunnels(&first), before);
        let read = config::parse("xgre.toml", &first).unwrap().adopt;
        prop_assert_eq!(&read, &adopt);
        let second = config::save("xgre.toml", &first, &after, &NONE).unwrap();
        prop_assert_eq!(tunnels(&second), after);
        prop_assert_eq!(config::parse("xgre.toml", &second).unwrap().adopt, NONE);
    }
}

const NONE: Adopt = Adopt { all: None, named: BTreeMap::new() };

fn any_adopt() -> impl Strategy<Value = Adopt> {
    let netfilter = || prop_oneof![Just(Netfilter::Respect), Just(Netfilter::Bypass)];
    let named = btree_map("gre[0-9]", option::of(netfilter()), 0..4);
    (option::of(netfilter()), named).prop_map(|(all, mut named)| {
        // One that is left alone need not be named where all are.
        named.retain(|_, to| to.is_some() || all.is_some());
        Adopt { all, named }
    })
}

#[test]
fn what_is_adopted_is_said_in_front_of_the_tables_in_few_words() {
    let saved = |adopt: &Adopt| config::save("xgre.toml", FILE, &tunnels(FILE), adopt).unwrap();
    let line = |adopt: &Adopt| {
        let text = saved(adopt);
        assert_eq!(config::parse("xgre.toml", &text).unwrap().adopt, *adopt, "{text}");
        let (before, after) = text.split_once("adopt = ").unwrap();
        assert!(!before.contains('['), "{text}");
        after.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(line(&Adopt::all(Netfilter::Respect)), "\"all\"");
    assert_eq!(line(&Adopt::of_names(["gre1", "gre2"])), "[\"gre1\", \"gre2\"]");
    let named = [("gre1".to_owned(), Some(Netfilter::Bypass)), ("gre2".to_owned(), None)];
    assert_eq!(
        line(&Adopt { all: Some(Netfilter::Respect), named: named.into() }),
        "[\"all\", { name = \"gre1\", netfilter = \"bypass\" }, { name = \"gre2\", off = true }]"
    );
}

/// By name, each with a remote of its own.
fn some_tunnels() -> impl Strategy<Value = Vec<Tunnel>> {
    vec(option::of(any_tunnel()), 4).prop_map(|tunnels| {
        tunnels
            .into_iter()
            .enumerate()
            .filter_map(|(number, tunnel)| Some((number, tunnel?)))
            .map(|(number, tunnel)| {
                let remote = [198, 51, 100, number as u8 + 1];
                Tunnel { name: format!("t{number}"), remote: remote.into(), ..tunnel }
            })
            .collect()
    })
}

fn any_tunnel() -> impl Strategy<Value = Tunnel> {
    let mss = prop_oneof![Just(Mss::Off), Just(Mss::Auto), Mss::RANGE.prop_map(Mss::Fixed)];
    let mtu = option::of(68..1500u32);
    let tos = prop_oneof![Just(1), (0..64u8).prop_map(|dscp| dscp << 2)];
    (
        any::<(bool, bool, bool, bool, bool, bool, bool)>(),
        (any::<(u8, Option<u32>, Option<u32>)>(), tos, mss, mtu),
        any::<(bool, bool, bool)>(),
    )
        .prop_map(|(flags, (numbers, tos, mss, mtu), (addresses, routes, bypass))| {
            let (icsum, ocsum, iseq, oseq, rfc2890, pmtudisc, ignore_df) = flags;
            let (ttl, ikey, okey) = numbers;
            let ignore_df = ignore_df && !pmtudisc;
            let seq_mode = if rfc2890 { SeqMode::Rfc2890 } else { SeqMode::Linux };
            let new = Tunnel::new("t", Mode::Gre, [192, 0, 2, 1].into(), [0; 4].into());
            let tunnel = Tunnel { ttl, tos, ikey, okey, icsum, ocsum, iseq, oseq, ..new };
            Tunnel {
                seq_mode,
                pmtudisc,
                ignore_df,
                mss,
                netfilter: if bypass { Netfilter::Bypass } else { Netfilter::Respect },
                mtu,
                flow_label: FlowLabel::default(),
                addresses: if addresses { vec!["10.0.0.1/30".parse().unwrap()] } else { vec![] },
                routes: if routes { vec!["10.9.0.0/16".parse().unwrap()] } else { vec![] },
                up: true,
                ..tunnel
            }
        })
}

/// The example has every key.
#[test]
fn the_schema_knows_every_key_of_the_example_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/xgre.toml");
    let example: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let schema = config::schema();
    let keys_of = |table: &str| -> BTreeSet<String> {
        let pointer = format!("/$defs/{table}/properties");
        let properties = schema.pointer(&pointer).and_then(Value::as_object);
        properties.unwrap_or_else(|| panic!("no {pointer}")).keys().cloned().collect()
    };
    let written = |tables: &toml::Value| -> BTreeSet<String> {
        let tables = tables.as_array().cloned().unwrap_or_else(|| vec![tables.clone()]);
        tables.iter().flat_map(|table| table.as_table().unwrap().keys().cloned()).collect()
    };
    assert_eq!(keys_of("PortTable"), written(&example["port"]));
    assert_eq!(keys_of("LimitsTable"), written(&example["limits"]));
    let others = ["icsum", "ikey", "iseq", "ocsum", "okey", "oseq", "seq", "tos", "csum"];
    let tunnel = written(&example["tunnel"]);
    let known: BTreeSet<_> = tunnel.iter().cloned().chain(others.map(str::to_owned)).collect();
    assert_eq!(keys_of("TunnelTable"), known);
}

#[test]
fn the_schema_in_the_documentation_is_this_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/xgre.schema.json");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let schema = serde_json::to_value(config::schema()).unwrap();
    assert_eq!(written, schema, "`xgre check --schema > docs/xgre.schema.json` renews it");
}
