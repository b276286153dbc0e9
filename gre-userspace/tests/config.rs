//! What a config file gives, and the exact words in which a wrong one is refused.

use std::path::Path;

use gre_userspace::{
    config::{self, ConfigError},
    model::{Address, Desired, Limits, Mode, Tunnel, XdpMode},
};
use miette::{GraphicalReportHandler, GraphicalTheme};

const TUNNEL: &str = r#"[[tunnel]]
name = "tunnel0"
local = "192.168.22.196"
remote = "10.56.88.66"
"#;

#[test]
fn the_example_is_read_as_it_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/xgre.toml");
    let desired = config::load(&path).unwrap();

    assert_eq!(
        desired.tunnels["tunnel0"],
        Tunnel {
            name: "tunnel0".into(),
            mode: Mode::Gre,
            local: [192, 168, 22, 196].into(),
            remote: [10, 56, 88, 66].into(),
            ttl: 245,
            tos: 0,
            key: Some(42),
            pmtudisc: true,
            mtu: None,
            addresses: vec![Address { local: "172.16.168.1/30".parse().unwrap(), peer: None }],
            routes: vec!["10.20.0.0/16".parse().unwrap()],
            up: true,
        }
    );
    assert_eq!(
        desired.tunnels["tunnel1"],
        Tunnel {
            name: "tunnel1".into(),
            mode: Mode::Gre,
            local: [192, 168, 22, 196].into(),
            remote: [10, 56, 88, 66].into(),
            ttl: 0,
            tos: 1,
            key: Some(43),
            pmtudisc: false,
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
            routes: vec![],
            up: true,
        }
    );
    assert_eq!(desired.tunnels.len(), 2);
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
    let tunnel = &config::parse("xgre.toml", TUNNEL).unwrap().tunnels["tunnel0"];
    assert_eq!((tunnel.ttl, tunnel.tos, tunnel.key), (64, 0, None));
    assert!(tunnel.pmtudisc && tunnel.up);
    assert_eq!((tunnel.mtu, &tunnel.addresses[..], &tunnel.routes[..]), (None, &[][..], &[][..]));
}

#[test]
fn limits_that_are_given_replace_the_defaults_one_by_one() {
    let desired = config::parse("xgre.toml", "[limits]\ntunnels = 5000\n").unwrap();
    assert_eq!(desired.limits, Limits { tunnels: 5000, ..Limits::default() });
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
            "unknown key `colour`; known here: `name`, `mode`, `local`, `remote`, `ttl`, `tos`, \
             `key`, `pmtudisc`, `mtu`, `addresses`, `routes`",
        ),
        ("[[tunel]]\n".into(), "unknown key `tunel`; did you mean `tunnel`?"),
        ("[[tunnel]]\nname = \"a\"\nlocal = \"1.1.1.1\"\n".into(), "missing field `remote`"),
        (
            "[[port]]\nname = \"a\"\nxdp = \"nativ\"\n".into(),
            "unknown value `nativ`; did you mean `native`?",
        ),
        (with("mode = \"gretap\""), "unknown value `gretap`; did you mean `gre`?"),
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
        (with("key = 1\nmtu = 65508"), "the MTU of this tunnel is 68 to 65507 bytes, not 65508"),
        (
            with("routes = [\"10.0.0.1/24\"]"),
            "10.0.0.1/24 has host bits set; did you mean 10.0.0.0/24?",
        ),
        (with("routes = [\"10.0.0/24\"]"), "an IPv4 prefix is expected rather than \"10.0.0/24\""),
        (
            with("addresses = [\"172.16.168.1/33\"]"),
            "an IPv4 prefix is expected rather than \"172.16.168.1/33\"",
        ),
        (
            with("addresses = [\"172.16.168.1/30 172.16.168.2/30\"]"),
            "invalid value: string \"172.16.168.1/30 172.16.168.2/30\", expected an address such \
             as \"172.16.168.1/30\" or \"10.0.0.1/32 peer 10.0.0.2/32\"",
        ),
        (
            with("addresses = [{ local = \"1.1.1.1/32\", per = \"1.1.1.2/32\" }]"),
            "unknown key `per`; did you mean `peer`?",
        ),
        (
            TUNNEL.replace("10.56.88.66", "10.56.88.666"),
            "an IPv4 address is expected rather than \"10.56.88.666\"",
        ),
        (
            TUNNEL.replace("10.56.88.66", "192.168.22.196"),
            "local and remote are both 192.168.22.196: a tunnel leads to another host",
        ),
        (
            TUNNEL.replace("10.56.88.66", "0.0.0.0"),
            "remote 0.0.0.0 stands for any address, and wildcards are not supported yet",
        ),
        (
            TUNNEL.replace("10.56.88.66", "239.1.1.1"),
            "remote 239.1.1.1 is not the address of one host",
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
