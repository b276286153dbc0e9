//! What a config file gives, and the exact words in which a wrong one is refused.

use std::path::Path;

use gre_userspace::{
    config::{self, ConfigError},
    model::{
        Address, Adopt, Desired, FlowLabel, Limits, Mode, Mss, Netfilter, SeqMode, Tunnel, XdpMode,
    },
};
use miette::{GraphicalReportHandler, GraphicalTheme};

const TUNNEL: &str = r#"[[tunnel]]
name = "tunnel0"
local = "192.168.22.196"
remote = "10.56.88.66"
"#;

/// Between the addresses of [`TUNNEL`], as a config file leaves the rest.
fn tunnel(name: &str) -> Tunnel {
    let (local, remote) = ([192, 168, 22, 196].into(), [10, 56, 88, 66].into());
    Tunnel { ttl: 64, up: true, ..Tunnel::new(name, Mode::Gre, local, remote) }
}

#[test]
fn the_group_that_may_change_what_runs_is_named() {
    let group = |text: &str| config::parse("xgre.toml", text).unwrap().control_group;
    assert_eq!(group("[control]\ngroup = \"net_ops-1.x\"\n").as_deref(), Some("net_ops-1.x"));
    assert_eq!(group("[control]\n"), None);
    assert_eq!(group(""), None);
}

#[test]
fn tunnels_of_the_kernels_are_adopted_all_or_by_name() {
    let adopt = |text: &str| config::parse("xgre.toml", text).unwrap().adopt;
    assert_eq!(adopt(""), Adopt::default());
    assert_eq!(adopt("adopt = \"all\""), Adopt::all(Netfilter::Respect));
    assert_eq!(adopt("adopt = [\"gre1\", \"gre2\"]"), Adopt::of_names(["gre1", "gre2"]));
    let named = [("gre1".to_owned(), None), ("gre2".to_owned(), Some(Netfilter::Bypass))];
    let both = Adopt { all: Some(Netfilter::Bypass), named: named.into() };
    let inline = "adopt = [{ name = \"all\", netfilter = \"bypass\" }, { name = \"gre1\", off = true }, \
                  { name = \"gre2\", netfilter = \"bypass\" }]";
    assert_eq!(adopt(inline), both);
    let tables = "[[adopt]]\nname = \"all\"\nnetfilter = \"bypass\"\n\
                  [[adopt]]\nname = \"gre1\"\noff = true\n\
                  [[adopt]]\nname = \"gre2\"\nnetfilter = \"bypass\"\n";
    assert_eq!(adopt(tables), both);
}

#[test]
fn the_example_is_read_as_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/xgre.toml");
    let desired = config::load(&path).unwrap();

    assert_eq!(
        desired.tunnels["tunnel0"],
        Tunnel {
            ttl: 245,
            ikey: Some(42),
            okey: Some(42),
            addresses: vec![Address { local: "172.16.168.1/30".parse().unwrap(), peer: None }],
            routes: vec!["10.20.0.0/16".parse().unwrap()],
            ..tunnel("tunnel0")
        }
    );
    assert_eq!(
        desired.tunnels["tunnel1"],
        Tunnel {
            ttl: 0,
            tos: 1,
            ikey: Some(43),
            okey: Some(43),
            pmtudisc: false,
            ignore_df: true,
            mtu: Some(1400),
            addresses: vec![
                Address {
                    local: "172.16.168.5/32".parse().unwrap(),
                    peer: Some("172.16.168.6/32".parse().unwrap()),
                },
                Address {
                    local: "172.16.169.1/32".parse().unwrap(),
                    peer: Some("172.16.169.2/32".parse().unwrap()),
                },
            ],
            ..tunnel("tunnel1")
        }
    );
    let (local, remote) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
    assert_eq!(
        desired.tunnels["tunnel6"],
        Tunnel {
            dev: Some("eth0".into()),
            tos: 1,
            icsum: true,
            ocsum: true,
            iseq: true,
            seq_mode: SeqMode::Rfc2890,
            flow_label: FlowLabel::Fixed(0x12345),
            mss: Mss::Auto,
            addresses: vec![Address { local: "fd00::1/64".parse().unwrap(), peer: None }],
            routes: vec!["fd00:1::/32".parse().unwrap()],
            up: true,
            ..Tunnel::new("tunnel6", Mode::Ip6gre, local, remote)
        }
    );
    assert_eq!(desired.tunnels.len(), 3);
    assert_eq!(
        desired.ports,
        [("eth0".into(), XdpMode::Auto), ("eth1".into(), XdpMode::Generic)].into()
    );
    assert_eq!(desired.limits, Limits::default());
}

#[test]
fn an_empty_file_asks_for_nothing() {
    assert_eq!(config::parse("xgre.toml", "").unwrap(), Desired::default());
}

#[test]
fn what_is_left_out_has_iproute2s_defaults() {
    assert_eq!(config::parse("xgre.toml", TUNNEL).unwrap().tunnels["tunnel0"], tunnel("tunnel0"));
}

#[test]
fn every_option_has_its_key() {
    let keys = [
        ("dev = \"eth0\"", Tunnel { dev: Some("eth0".into()), ..tunnel("tunnel0") }),
        ("hoplimit = 9", Tunnel { ttl: 9, ..tunnel("tunnel0") }),
        ("tclass = 184", Tunnel { tos: 184, ..tunnel("tunnel0") }),
        ("key = 7", Tunnel { ikey: Some(7), okey: Some(7), ..tunnel("tunnel0") }),
        ("key = 7\nokey = 8", Tunnel { ikey: Some(7), okey: Some(8), ..tunnel("tunnel0") }),
        ("ikey = \"0.0.0.9\"", Tunnel { ikey: Some(9), ..tunnel("tunnel0") }),
        ("okey = 9", Tunnel { okey: Some(9), ..tunnel("tunnel0") }),
        ("csum = true", Tunnel { icsum: true, ocsum: true, ..tunnel("tunnel0") }),
        ("csum = true\nicsum = false", Tunnel { ocsum: true, ..tunnel("tunnel0") }),
        ("icsum = true", Tunnel { icsum: true, ..tunnel("tunnel0") }),
        ("ocsum = true", Tunnel { ocsum: true, ..tunnel("tunnel0") }),
        ("seq = true", Tunnel { iseq: true, oseq: true, ..tunnel("tunnel0") }),
        ("seq = true\noseq = false", Tunnel { iseq: true, ..tunnel("tunnel0") }),
        ("iseq = true", Tunnel { iseq: true, ..tunnel("tunnel0") }),
        ("oseq = true", Tunnel { oseq: true, ..tunnel("tunnel0") }),
        ("seq-mode = \"rfc2890\"", Tunnel { seq_mode: SeqMode::Rfc2890, ..tunnel("tunnel0") }),
        (
            "pmtudisc = false\nignore-df = true",
            Tunnel { pmtudisc: false, ignore_df: true, ..tunnel("tunnel0") },
        ),
        ("mss = \"auto\"", Tunnel { mss: Mss::Auto, ..tunnel("tunnel0") }),
        ("mss = \"off\"", tunnel("tunnel0")),
        ("netfilter = \"respect\"", tunnel("tunnel0")),
        ("netfilter = \"bypass\"", Tunnel { netfilter: Netfilter::Bypass, ..tunnel("tunnel0") }),
        ("mss = 1360", Tunnel { mss: Mss::Fixed(1360), ..tunnel("tunnel0") }),
        ("encaplimit = \"none\"", tunnel("tunnel0")),
        (
            "routes = [\"fd00::/8\", \"10.0.0.1\"]",
            Tunnel {
                routes: vec!["fd00::/8".parse().unwrap(), "10.0.0.1/32".parse().unwrap()],
                ..tunnel("tunnel0")
            },
        ),
        (
            "addresses = [\"fd00::1/64\"]",
            Tunnel {
                addresses: vec![Address { local: "fd00::1/64".parse().unwrap(), peer: None }],
                ..tunnel("tunnel0")
            },
        ),
    ];
    for (key, expected) in keys {
        let desired = config::parse("xgre.toml", &format!("{TUNNEL}{key}\n"));
        assert_eq!(desired.unwrap().tunnels["tunnel0"], expected, "{key}");
    }
}

const TUNNEL6: &str = r#"[[tunnel]]
name = "tunnel6"
mode = "ip6gre"
local = "any"
remote = "2001:db8::2"
"#;

#[test]
fn ip6gre_has_options_of_its_own() {
    let plain = || {
        let remote = "2001:db8::2".parse().unwrap();
        Tunnel { up: true, ..Tunnel::new("tunnel6", Mode::Ip6gre, Mode::Ip6gre.any(), remote) }
    };
    let keys = [
        ("", plain()),
        ("encaplimit = 4", Tunnel { encap_limit: Some(4), ..plain() }),
        ("flowlabel = 0x12345", Tunnel { flow_label: FlowLabel::Fixed(0x12345), ..plain() }),
        ("flowlabel = \"inherit\"", Tunnel { flow_label: FlowLabel::Inherit, ..plain() }),
        ("hoplimit = \"inherit\"", Tunnel { ttl: 0, ..plain() }),
        ("tclass = \"inherit\"", Tunnel { tos: 1, ..plain() }),
    ];
    for (key, expected) in keys {
        let desired = config::parse("xgre.toml", &format!("{TUNNEL6}{key}\n"));
        assert_eq!(desired.unwrap().tunnels["tunnel6"], expected, "{key}");
    }
}

/// On Linux the last resort of the look-up does not tell the two apart.
#[test]
fn a_keyless_and_a_key_0_tunnel_open_to_all_are_warned_of() {
    let open = |name: &str, mode: &str, key: &str| {
        format!(
            "[[tunnel]]\nname = \"{name}\"\nmode = \"{mode}\"\n\
             local = \"any\"\nremote = \"any\"\n{key}\n"
        )
    };
    let warnings = |text: &str| config::warnings(&config::parse("xgre.toml", text).unwrap());
    let pair = open("a", "gre", "") + &open("b", "gre", "key = 0");
    assert_eq!(
        warnings(&pair),
        ["tunnels `a` without a key and `b` with key 0 both have local any and remote any: on \
             Linux the packets of both land on one of them; give one an address, or another key"]
    );
    assert_eq!(warnings(&pair.replace("key = 0", "key = 1")), [""; 0]);
    assert_eq!(warnings(&pair.replacen("remote = \"any\"", "remote = \"10.0.0.1\"", 1)), [""; 0]);
    assert_eq!(warnings(&(open("a", "gre", "") + &open("b", "ip6gre", "key = 0"))), [""; 0]);
}

#[test]
fn limits_that_are_given_replace_the_defaults_one_by_one() {
    for (key, limits) in [
        ("tunnels = 5", Limits { tunnels: 5, ..Limits::DEFAULT }),
        ("next_hops = 5", Limits { next_hops: 5, ..Limits::DEFAULT }),
        ("route_blocks = 5", Limits { route_blocks: 5, ..Limits::DEFAULT }),
        ("interfaces = 5", Limits { interfaces: 5, ..Limits::DEFAULT }),
        ("route6_nodes = 5", Limits { route6_nodes: 5, ..Limits::DEFAULT }),
        ("hosts6 = 5", Limits { hosts6: 5, ..Limits::DEFAULT }),
        ("vlans = 5", Limits { vlans: 5, ..Limits::DEFAULT }),
        ("fragments = 5", Limits { fragments: 5, ..Limits::DEFAULT }),
        ("fdb = 5", Limits { fdb: 5, ..Limits::DEFAULT }),
    ] {
        let desired = config::parse("xgre.toml", &format!("[limits]\n{key}\n")).unwrap();
        assert_eq!(desired.limits, limits);
    }
}

/// `ip link` takes a fixed TTL without Don't Fragment; only `ip tunnel` refuses it.
#[test]
fn a_fixed_ttl_without_pmtudisc_is_accepted() {
    let desired = config::parse("xgre.toml", &format!("{TUNNEL}ttl = 9\npmtudisc = false\n"));
    assert_eq!(desired.unwrap().tunnels["tunnel0"].ttl, 9);
}

#[test]
fn the_default_route_is_a_prefix() {
    let desired = config::parse("xgre.toml", &format!("{TUNNEL}routes = [\"default\"]\n"));
    assert_eq!(desired.unwrap().tunnels["tunnel0"].routes, ["0.0.0.0/0".parse().unwrap()]);
}

#[test]
fn a_mistake_is_named_in_one_sentence() {
    let with = |line: &str| format!("{TUNNEL}{line}\n");
    let table = [
        (with("tttl = 4"), "unknown key `tttl`; did you mean `ttl`?"),
        (
            with("colour = 4"),
            "unknown key `colour`; known here: `name`, `mode`, `local`, `remote`, `dev`, `hoplimit`, \
             `ttl`, `tclass`, `tos`, `key`, `ikey`, `okey`, `csum`, `icsum`, `ocsum`, `seq`, \
             `iseq`, `oseq`, `seq-mode`, `pmtudisc`, `ignore-df`, `encaplimit`, `flowlabel`, \
             `mss`, `netfilter`, `mtu`, `addresses`, `routes`",
        ),
        ("[[tunel]]\n".into(), "unknown key `tunel`; did you mean `tunnel`?"),
        ("[[tunnel]]\nname = \"a\"\nlocal = \"1.1.1.1\"\n".into(), "missing field `remote`"),
        (
            "[[port]]\nname = \"a\"\nxdp = \"nativ\"\n".into(),
            "unknown value `nativ`; did you mean `native`?",
        ),
        (with("mode = \"gretab\""), "unknown value `gretab`; did you mean `gretap`?"),
        (with("ttl = 0"), "invalid value: integer `0`, expected a ttl of 1 to 255 or \"inherit\""),
        (
            with("ttl = 256"),
            "invalid value: integer `256`, expected a ttl of 1 to 255 or \"inherit\"",
        ),
        (
            with("ttl = \"copy\""),
            "invalid value: string \"copy\", expected a ttl of 1 to 255 or \"inherit\"",
        ),
        (
            with("ttl = true"),
            "invalid type: boolean `true`, expected a ttl of 1 to 255 or \"inherit\"",
        ),
        (
            with("tos = 1"),
            "invalid value: integer `1`, expected a tos of 0 to 252 that is a multiple of 4, or \
             \"inherit\"",
        ),
        (
            with("key = 4294967296"),
            "invalid value: integer `4294967296`, expected a key of 0 to 4294967295 or a dotted \
             quad",
        ),
        (
            with("key = \"1.2.3\""),
            "invalid value: string \"1.2.3\", expected a key of 0 to 4294967295 or a dotted quad",
        ),
        (with("mtu = 60"), "the MTU of this tunnel is 68 to 65511 bytes, not 60"),
        (with("okey = 1\nmtu = 65508"), "the MTU of this tunnel is 68 to 65507 bytes, not 65508"),
        (
            with("routes = [\"10.0.0.1/24\"]"),
            "10.0.0.1/24 has host bits set; did you mean 10.0.0.0/24?",
        ),
        (with("routes = [\"10.0.0/24\"]"), "an IP prefix is expected rather than \"10.0.0/24\""),
        (
            with("addresses = [\"172.16.168.1/33\"]"),
            "an IP prefix is expected rather than \"172.16.168.1/33\"",
        ),
        (
            with("addresses = [\"172.16.168.1/30 172.16.168.2/30\"]"),
            "an address such as \"172.16.168.1/30\" or \"10.0.0.1/32 peer 10.0.0.2/32\" is expected \
             rather than \"172.16.168.1/30 172.16.168.2/30\"",
        ),
        (
            with("addresses = [{ local = \"1.1.1.1/32\", per = \"1.1.1.2/32\" }]"),
            "unknown key `per`; did you mean `peer`?",
        ),
        (
            TUNNEL.replace("10.56.88.66", "10.56.88.666"),
            "an IP address is expected rather than \"10.56.88.666\"",
        ),
        (
            TUNNEL.replace("10.56.88.66", "192.168.22.196"),
            "local and remote are both 192.168.22.196: a tunnel leads to another host",
        ),
        (
            TUNNEL.replace("10.56.88.66", "255.255.255.255"),
            "remote 255.255.255.255 is not the address of one host",
        ),
        (
            TUNNEL.replace("10.56.88.66", "2001:db8::1"),
            "remote 2001:db8::1 is not IPv4, which mode gre runs over; mode ip6gre does",
        ),
        (
            TUNNEL6.replace("any", "10.0.0.1"),
            "local 10.0.0.1 is not IPv6, which mode ip6gre runs over; mode gre does",
        ),
        (
            with("encaplimit = 4"),
            "encaplimit belongs to the outer IPv6 header, and mode gre, which runs over IPv4, has \
             none: leave it out, or use mode ip6gre",
        ),
        (
            with("flowlabel = 1"),
            "flowlabel belongs to the outer IPv6 header, and mode gre, which runs over IPv4, has \
             none: leave it out, or use mode ip6gre",
        ),
        (
            format!("{TUNNEL6}pmtudisc = false"),
            "nopmtudisc belongs to the outer IPv4 header, and mode ip6gre, which runs over IPv6, \
             has none: leave it out, or use mode gre",
        ),
        (
            format!("{TUNNEL6}ignore-df = true"),
            "ignore-df belongs to the outer IPv4 header, and mode ip6gre, which runs over IPv6, \
             has none: leave it out, or use mode gre",
        ),
        (
            with("ignore-df = true"),
            "ignore-df and pmtudisc are incompatible: add nopmtudisc, or leave ignore-df out",
        ),
        (
            with("encaplimit = 256"),
            "invalid value: integer `256`, expected an encaplimit of 0 to 255 or \"none\"",
        ),
        (
            with("flowlabel = 0x100000"),
            "invalid value: integer `1048576`, expected a flowlabel of 0 to 0xfffff or \"inherit\"",
        ),
        (
            with("mss = 87"),
            "invalid value: integer `87`, expected an mss of 88 to 65495 bytes, \"auto\" or \"off\"",
        ),
        (with("seq-mode = \"strict\""), "a seq-mode is linux or rfc2890, not \"strict\""),
        (with("seqmode = \"linux\""), "unknown key `seqmode`; did you mean `seq-mode`?"),
        (
            with("dev = \"tunnel0\""),
            "`tunnel0` is the tunnel itself: dev is the interface it runs over",
        ),
        (
            with("addresses = [\"10.0.0.1/32 peer fd00::1/128\"]"),
            "10.0.0.1/32 and its peer fd00::1/128 are not of one family",
        ),
        (
            TUNNEL.replace("10.56.88.66", "239.1.1.1"),
            "remote 239.1.1.1 is a multicast group: tunnels to several hosts are not supported, with \
             a key or without; make one tunnel for each host",
        ),
        (
            TUNNEL.replace("tunnel0", "sixteen-bytes-xx"),
            "a device name has 1 to 15 bytes; `sixteen-bytes-xx` has 16",
        ),
        (TUNNEL.replace("tunnel0", ""), "a device name has 1 to 15 bytes; `` has 0"),
        (
            TUNNEL.replace("tunnel0", "a/b"),
            "a device name has no `/`, no `:` and no space, and `a/b` is not one",
        ),
        (
            TUNNEL.replace("tunnel0", "a b"),
            "a device name has no `/`, no `:` and no space, and `a b` is not one",
        ),
        (format!("{TUNNEL}{TUNNEL}"), "two tunnels are called `tunnel0`, at lines 2 and 6"),
        (
            "[[port]]\nname = \"eth0\"\n[[port]]\nname = \"eth0\"\n".into(),
            "port `eth0` is given twice, at lines 2 and 4",
        ),
        (
            format!("[limits]\ntunnels = 1\n{TUNNEL}{}", TUNNEL.replace("0\"", "1\"\nkey = 7")),
            "there are more tunnels than the limit of 1; raise `tunnels` in `[limits]`",
        ),
        (
            "[control]\ngroup = \"a b\"\n".into(),
            "a group is 1 to 32 letters, digits, `_`, `-` and `.`, of which a letter or `_` comes first, \
             and `a b` is not one",
        ),
        ("[control]\ngrup = \"a\"\n".into(), "unknown key `grup`; did you mean `group`?"),
        ("adopt = \"gre1\"\n".into(), "adopt is \"all\" or an array: adopt = [\"gre1\"]"),
        ("adopt = [\"a\", \"a\"]\n".into(), "`a` is given twice"),
        (
            "adopt = [\"all\", { name = \"a\", netfiler = \"bypass\" }]\n".into(),
            "unknown key `netfiler`; did you mean `netfilter`?",
        ),
        ("[limits]\ntunnels = 0\n".into(), "invalid value: integer `0`, expected a nonzero u32"),
    ];
    for (text, reason) in table {
        let error = config::parse("xgre.toml", &text).expect_err(&text);
        assert_eq!(error.to_string(), reason, "for\n{text}");
    }
}

#[test]
fn an_unknown_key_is_shown_where_it_stands() {
    let text = TUNNEL.replace("remote", "remot");
    assert_eq!(
        rendered(&config::parse("/etc/xgre/xgre.toml", &text).unwrap_err()),
        r#"
  × unknown key `remot`; did you mean `remote`?
   ╭─[/etc/xgre/xgre.toml:4:1]
 3 │ local = "192.168.22.196"
 4 │ remot = "10.56.88.66"
   · ─────
   ╰────
"#
    );
}

#[test]
fn tunnels_that_cannot_be_told_apart_are_both_shown() {
    let text = format!("{TUNNEL}\n{}", TUNNEL.replace("tunnel0", "tunnel1"));
    assert_eq!(
        rendered(&config::parse("/etc/xgre/xgre.toml", &text).unwrap_err()),
        r#"
  × tunnels `tunnel0` (line 2) and `tunnel1` (line 7) have the same local, remote and key: packets of one could not be told from the other's
   ╭─[/etc/xgre/xgre.toml:2:8]
 1 │ [[tunnel]]
 2 │ name = "tunnel0"
   ·        ────┬────
   ·            ╰── first here
 3 │ local = "192.168.22.196"
   ╰────
   ╭─[/etc/xgre/xgre.toml:7:8]
 6 │ [[tunnel]]
 7 │ name = "tunnel1"
   ·        ────┬────
   ·            ╰── and again here
 8 │ local = "192.168.22.196"
   ╰────
"#
    );
}

#[test]
fn a_different_key_tells_two_tunnels_apart() {
    let text = format!("{TUNNEL}{}key = 1\n", TUNNEL.replace("tunnel0", "tunnel1"));
    assert_eq!(config::parse("xgre.toml", &text).unwrap().tunnels.len(), 2);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = config::load(Path::new("/nonexistent/xgre.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the config file /nonexistent/xgre.toml: No such file or directory (os error 2)"
    );
}

fn rendered(error: &ConfigError) -> String {
    let mut text = "\n".to_owned();
    GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
        .render_report(&mut text, error)
        .unwrap();
    text
}
