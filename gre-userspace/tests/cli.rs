//! The command line: what iproute2's words mean, the words in which they are refused, and what is
//! printed. Expected texts marked (ip) are iproute2 6.1's for the same tunnel or mistake.

use std::{
    process::{Command, Output as Outcome},
    time::Duration,
};

use gre_userspace::{
    cli::{self, Output, Paint, Sample},
    model::{Mode, Tunnel},
    report::{Count, Direction, PortInfo, Stats, TierOutcomes, Traffic, TunnelInfo, TunnelStats},
};
use serde_json::{Value, json};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// `tunnel0 mode gre remote 10.56.88.66 local 192.168.22.196`, and nothing else said.
fn plain() -> Tunnel {
    Tunnel {
        name: "tunnel0".into(),
        mode: Mode::Gre,
        local: [192, 168, 22, 196].into(),
        remote: [10, 56, 88, 66].into(),
        ttl: 0,
        tos: 0,
        key: None,
        pmtudisc: true,
        mtu: None,
        addresses: vec![],
        routes: vec![],
        up: false,
    }
}

#[test]
fn words_mean_what_they_mean_to_iproute2() {
    const ENDS: &str = "remote 10.56.88.66 local 192.168.22.196";
    let table = [
        (format!("tunnel0 mode gre {ENDS}"), plain()),
        (format!("tunnel0 mode gre {ENDS} ttl 245"), Tunnel { ttl: 245, ..plain() }),
        (format!("{ENDS} mode gre tunnel0"), plain()),
        (format!("mode gre {ENDS} name tunnel0"), plain()),
        (format!("name tunnel0 {ENDS} mode gre/ip"), plain()),
        (format!("gre7 {ENDS}"), Tunnel { name: "gre7".into(), ..plain() }),
        (format!("tunnel0 mode gre {ENDS} ttl inherit"), plain()),
        (format!("tunnel0 mode gre {ENDS} ttl 0"), plain()),
        (format!("tunnel0 mode gre {ENDS} hoplimit 0x40"), Tunnel { ttl: 64, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} key 42"), Tunnel { key: Some(42), ..plain() }),
        (format!("tunnel0 mode gre {ENDS} key 0.0.0.42"), Tunnel { key: Some(42), ..plain() }),
        (
            format!("tunnel0 mode gre {ENDS} key 1.2.3.4"),
            Tunnel { key: Some(0x0102_0304), ..plain() },
        ),
        (format!("tunnel0 mode gre {ENDS} key 0"), Tunnel { key: Some(0), ..plain() }),
        (format!("tunnel0 mode gre {ENDS} key 010"), Tunnel { key: Some(8), ..plain() }),
        (
            format!("tunnel0 mode gre {ENDS} key 4294967295"),
            Tunnel { key: Some(u32::MAX), ..plain() },
        ),
        (format!("tunnel0 mode gre {ENDS} tos inherit"), Tunnel { tos: 1, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} tos 10"), Tunnel { tos: 0x10, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} tos 0xb8"), Tunnel { tos: 0xb8, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} dsfield EF"), Tunnel { tos: 0xb8, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} tos inherit/AF11"), Tunnel { tos: 0x29, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} nopmtudisc"), Tunnel { pmtudisc: false, ..plain() }),
        (
            format!("tunnel0 mode gre {ENDS} nopmtudisc pmtudisc ttl 9"),
            Tunnel { ttl: 9, ..plain() },
        ),
    ];
    for (line, tunnel) in table {
        assert_eq!(cli::tunnel_of_words(&words(&line)), Ok(tunnel), "{line}");
    }
}

#[test]
fn words_are_refused_in_iproute2s_words() {
    const GOOD: &str = "tunnel0 mode gre remote 10.56.88.66 local 192.168.22.196";
    let table = [
        // (ip)
        (
            "tunnel0 mode gre remote 192.0.2.999 local 192.0.2.1".to_owned(),
            "Error: an IP address is expected rather than \"192.0.2.999\"",
        ),
        (format!("{GOOD} ttl 64 nopmtudisc"), "ttl != 0 and nopmtudisc are incompatible"),
        (format!("{GOOD} ttl 264"), "Error: argument \"264\" is wrong: invalid TTL"),
        (format!("{GOOD} ttl abc"), "Error: argument \"abc\" is wrong: invalid TTL"),
        (format!("{GOOD} tos 999"), "Error: argument \"999\" is wrong: bad TOS value"),
        (
            format!("{GOOD} key abc"),
            "invalid value for \"key\": \"abc\"; it should be an unsigned integer",
        ),
        (
            format!("{GOOD} key 4294967296"),
            "invalid value for \"key\": \"4294967296\"; it should be an unsigned integer",
        ),
        (
            format!("{GOOD} key 1.2.3.999"),
            "Error: an IP address is expected rather than \"1.2.3.999\"",
        ),
        ("tunnel0 mode foo".to_owned(), "Unknown tunnel mode \"foo\""),
        ("tunnel0 remote".to_owned(), "Command line is not complete. Try option \"help\""),
        // (ip), then a line of our own
        (
            format!("{GOOD} garbage"),
            "Error: either \"name\" is duplicate, or \"garbage\" is a garbage.",
        ),
        (
            format!("{GOOD} tttl 4"),
            "Error: either \"name\" is duplicate, or \"tttl\" is a garbage.\n\
             did you mean \"ttl\"?",
        ),
        (
            "averyveryverylongname mode gre".to_owned(),
            "Error: argument \"averyveryverylongname\" is wrong: \"name\" not a valid ifname\n\
             a device name has 1 to 15 bytes; `averyveryverylongname` has 21",
        ),
        (
            "tunnel0 remote 10.0.0.1 local 10.0.0.2".to_owned(),
            "cannot determine tunnel mode (ipip, gre, vti or sit)\n\
             xgre does gre: add `mode gre`",
        ),
        // Ours: what we do not do yet
        (
            "tunnel0 mode gre remote 10.56.88.66".to_owned(),
            "Error: local is any\n\
             wildcards are not supported yet: give the tunnel's local address, `local ADDR`",
        ),
        (
            "tunnel0 mode gre remote any local 10.0.0.1".to_owned(),
            "Error: remote is any\n\
             wildcards are not supported yet: give the tunnel's remote address, `remote ADDR`",
        ),
        (
            format!("{GOOD} dev eth0"),
            "Error: \"dev eth0\" is not supported by xgre yet\n\
             leave it out, or make this tunnel with `ip tunnel`",
        ),
        (
            format!("{GOOD} ikey 4"),
            "Error: \"ikey 4\" is not supported by xgre yet\n\
             leave it out, or make this tunnel with `ip tunnel`",
        ),
        (
            format!("{GOOD} csum"),
            "Error: \"csum\" is not supported by xgre yet\n\
             leave it out, or make this tunnel with `ip tunnel`",
        ),
        (
            "tunnel0 mode ipip".to_owned(),
            "Error: \"mode ipip\" is not supported by xgre yet\n\
             leave it out, or make this tunnel with `ip tunnel`",
        ),
        (
            "mode gre remote 10.56.88.66 local 192.168.22.196".to_owned(),
            "the tunnel has no name\n\
             xgre tunnel add NAME mode gre remote ADDR local ADDR [ ttl TTL ] [ key KEY ]",
        ),
        (
            "tunnel0 mode gre remote 10.0.0.1 local 10.0.0.1".to_owned(),
            "Error: local and remote are both 10.0.0.1: a tunnel leads to another host",
        ),
    ];
    for (line, refusal) in table {
        let failure = cli::tunnel_of_words(&words(&line)).expect_err(&line);
        assert_eq!(failure.to_string(), refusal, "{line}");
    }
}

fn xgre(line: &str) -> Outcome {
    Command::new(env!("CARGO_BIN_EXE_xgre")).args(words(line)).output().unwrap()
}

#[test]
fn exit_codes_are_iproute2s() {
    for (line, code) in [
        ("tunnel add x mode gre remote 192.0.2.999 local 1.1.1.1", 1),
        ("tunnel add x mode gre remote 192.0.2.9 local 1.1.1.1 ttl 64 nopmtudisc", 1),
        ("tunnel add x remote 1.1.1.1 remote 1.1.1.2", 1),
        ("tunnel add x mode gre ttl 264", 255),
        ("tunnel add x mode foo", 255),
        ("tunnel add x y z", 255),
        ("tunnel add x remote", 255),
    ] {
        let outcome = xgre(line);
        assert_eq!(outcome.status.code(), Some(code), "{line}: {outcome:?}");
        assert!(outcome.stdout.is_empty());
    }
}

#[test]
fn verbs_may_be_shortened_and_options_stand_anywhere() {
    const REFUSAL: &str = "Error: an IP address is expected rather than \"y\"\n";
    for line in [
        "tunnel add x remote y",
        "tu a x remote y",
        "t a x remote y",
        "-j -s t add x remote y",
        "-json -statistics -p tunnel add x remote y",
        "tunnel -j add x remote y",
        "tunnel add x remote y -j",
        "tunnel show x remote y",
        "t s x remote y",
        "t list x remote y",
        "t lst x remote y",
        "t l x remote y",
        "tunnel del x remote y",
        "tunnel delete x remote y",
        "t d x remote y",
    ] {
        let outcome = xgre(line);
        assert_eq!(String::from_utf8(outcome.stderr).unwrap(), REFUSAL, "{line}");
    }
}

#[test]
fn every_help_has_examples() {
    for line in [
        "",
        "run ",
        "tunnel ",
        "tunnel add ",
        "tunnel delete ",
        "tunnel show ",
        "stats ",
        "port ",
        "port show ",
    ] {
        let outcome = xgre(&format!("{line}--help"));
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert!(outcome.status.success() && text.contains("\nExamples:\n  "), "{line}: {text}");
    }
}

#[test]
fn a_daemon_that_does_not_run_is_said_to_be_missing_where_it_should_be() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: a new network namespace takes root");
    }
    // In a new network namespace there is none.
    let outcome = Command::new("unshare")
        .args(["--net", env!("CARGO_BIN_EXE_xgre"), "tunnel", "show"])
        .output()
        .unwrap();
    let text = String::from_utf8(outcome.stderr).unwrap();
    let socket = text
        .strip_prefix("the xgre daemon is not running: nothing answers on ")
        .and_then(|text| {
            text.strip_suffix(
                "\nstart it with `systemctl start xgre`, or in the foreground with `xgre run`\n",
            )
        })
        .unwrap_or_else(|| panic!("{text}"));
    let inode = socket
        .strip_prefix("/run/xgre/netns-")
        .and_then(|rest| rest.strip_suffix("/control.sock"))
        .unwrap_or_else(|| panic!("{socket}"));
    assert!(inode.parse::<u64>().is_ok(), "{socket}");
    assert_eq!(outcome.status.code(), Some(1));
}

#[test]
fn run_without_root_says_one_thing() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: becoming another user takes root");
    }
    use std::os::unix::process::CommandExt as _;
    // The build directory need not be open to others, so the program is copied out of it.
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let copy = directory.path().join("xgre");
    std::fs::copy(env!("CARGO_BIN_EXE_xgre"), &copy).unwrap();

    let outcome = Command::new(copy).arg("run").uid(65534).gid(65534).output().unwrap();
    assert_eq!(
        String::from_utf8(outcome.stderr).unwrap(),
        "xgre run needs root, to load BPF programs and to make devices\n\
         run `sudo xgre run` or `systemctl start xgre`\n"
    );
    assert_eq!(outcome.status.code(), Some(1));
}

fn fast() -> TunnelInfo {
    TunnelInfo {
        name: "tunnel0".into(),
        mode: "gre".into(),
        local: "192.168.22.196".into(),
        remote: "10.56.88.66".into(),
        ttl: 245,
        tos: 0,
        key: Some(42),
        pmtudisc: true,
        ifindex: Some(7),
        up: true,
        mtu: Some(1472),
        underlay: Some("wan0".into()),
        via: Some("192.168.22.1".into()),
        fast: true,
        why_not: None,
    }
}

fn slow() -> TunnelInfo {
    TunnelInfo {
        name: "tunnel1".into(),
        ttl: 0,
        tos: 0xb9,
        key: None,
        pmtudisc: false,
        up: false,
        mtu: Some(1476),
        underlay: None,
        via: None,
        fast: false,
        why_not: Some("no route leads to 10.56.88.66".into()),
        ..fast()
    }
}

fn count(reason: &str, packets: u64) -> Count {
    Count { reason: reason.into(), help: format!("What {reason} means."), packets }
}

fn stats() -> Stats {
    Stats {
        tunnels: vec![TunnelStats {
            name: "tunnel0".into(),
            rx: Direction {
                xdp: Traffic { packets: 1000, bytes: 64_000 },
                tc: Traffic { packets: 24, bytes: 1536 },
                drops: vec![count("checksum-unexpected", 3), count("key-mismatch", 4)],
            },
            tx: Direction {
                xdp: Traffic { packets: 0, bytes: 0 },
                tc: Traffic { packets: 9, bytes: 756 },
                drops: vec![count("no-route", 2), count("tunnel-loop", 1), count("aborted", 5)],
            },
        }],
        tiers: vec![
            TierOutcomes {
                tier: "xdp".into(),
                outcomes: vec![count("decapsulated", 1000), count("not-ipv4", 12)],
            },
            TierOutcomes { tier: "tc".into(), outcomes: vec![] },
        ],
    }
}

#[test]
fn tunnels_are_shown_as_iproute2_does_with_our_lines_below() {
    assert_eq!(
        cli::tunnels_text(&[fast(), slow()], None, Paint(false)),
        "\
tunnel0: gre/ip remote 10.56.88.66 local 192.168.22.196 ttl 245 key 42
    state UP mtu 1472 via 192.168.22.1 dev wan0
    accelerated by XDP
tunnel1: gre/ip remote 10.56.88.66 local 192.168.22.196 ttl inherit tos inherit/EF nopmtudisc
    state DOWN mtu 1476 no route to the remote
    not accelerated: no route leads to 10.56.88.66
"
    );
}

#[test]
fn statistics_fill_iproute2s_columns() {
    assert_eq!(
        cli::tunnels_text(&[fast()], Some(&stats()), Paint(false)),
        "\
tunnel0: gre/ip remote 10.56.88.66 local 192.168.22.196 ttl 245 key 42
RX: Packets    Bytes        Errors CsumErrs OutOfSeq Mcasts
    1024       65536        7      3        0        0       
TX: Packets    Bytes        Errors DeadLoop NoRoute  NoBufs
    9          756          8      1        2        0     
    state UP mtu 1472 via 192.168.22.1 dev wan0
    accelerated by XDP
"
    );
}

#[test]
fn json_has_iproute2s_keys_first() {
    let text = Output { json: true, ..Output::default() }
        .json(&cli::tunnels_json(&[fast(), slow()], None))
        .unwrap();
    assert_eq!(
        text,
        concat!(
            r#"[{"ifname":"tunnel0","mode":"gre/ip","remote":"10.56.88.66","#,
            r#""local":"192.168.22.196","ttl":245,"key":42,"flags":[],"ifindex":7,"up":true,"#,
            r#""mtu":1472,"underlay":"wan0","via":"192.168.22.1","accelerated":true},"#,
            r#"{"ifname":"tunnel1","mode":"gre/ip","remote":"10.56.88.66","#,
            r#""local":"192.168.22.196","tos":"EF","nopmtudisc":null,"flags":[],"ifindex":7,"#,
            r#""up":false,"mtu":1476,"underlay":null,"via":null,"accelerated":false,"#,
            r#""why_not":"no route leads to 10.56.88.66"}]"#,
            "\n"
        )
    );
    serde_json::from_str::<Value>(&text).unwrap();
}

/// Where `ip -j -s tunnel show` prints text between the objects.
#[test]
fn json_with_statistics_is_json() {
    let output = Output { json: true, pretty: true, statistics: 1 };
    let text = output.json(&cli::tunnels_json(&[fast()], Some(&stats()))).unwrap();
    assert!(text.starts_with("[\n    {\n        \"ifname\": \"tunnel0\",\n"), "{text}");
    let parsed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        parsed[0]["stats64"],
        json!({
            "rx": {
                "bytes": 65536, "packets": 1024, "errors": 7, "csum_errors": 3,
                "out_of_sequence": 0, "multicast": 0,
            },
            "tx": {
                "bytes": 756, "packets": 9, "errors": 8, "dead_loop": 1, "no_route": 2,
                "no_buffers": 0,
            },
        })
    );
}

#[test]
fn names_and_states_are_coloured_only_when_asked() {
    let text = cli::tunnels_text(&[fast()], None, Paint(true));
    assert!(text.starts_with("\x1b[36mtunnel0\x1b[0m: gre/ip"), "{text:?}");
    assert!(text.contains("state \x1b[32mUP\x1b[0m mtu"), "{text:?}");
}

#[test]
fn stats_say_what_each_drop_means() {
    assert_eq!(
        cli::stats_text(&Sample { stats: stats(), before: None }, Paint(false)),
        "\
tunnel0                 packets              bytes
  rx xdp                   1000              64000
  rx tc                      24               1536
  tx xdp                      0                  0
  tx tc                       9                756
  rx dropped
                 3  checksum-unexpected  What checksum-unexpected means.
                 4  key-mismatch         What key-mismatch means.
  tx dropped
                 2  no-route     What no-route means.
                 1  tunnel-loop  What tunnel-loop means.
                 5  aborted      What aborted means.
  one direction goes without XDP: `xgre tunnel show tunnel0` and `xgre port show` say why

xdp, all ports
              1000  decapsulated  What decapsulated means.
                12  not-ipv4      What not-ipv4 means.

tc, all ports
  no packets yet

"
    );
}

#[test]
fn rates_are_over_the_time_between_two_samples() {
    let mut before = stats();
    before.tunnels[0].rx.xdp = Traffic { packets: 0, bytes: 4_000 };
    before.tunnels[0].rx.drops = vec![count("key-mismatch", 2)];
    // Counters that went back belong to maps that were made anew.
    before.tunnels[0].tx.tc = Traffic { packets: 10_000, bytes: 1_000_000 };
    before.tiers.clear();
    let sample = Sample { stats: stats(), before: Some((before, Duration::from_millis(500))) };
    assert_eq!(
        cli::stats_text(&sample, Paint(false)),
        "\
tunnel0                 packets              bytes      packets/s          bits/s
  rx xdp                   1000              64000           2000          960.0k
  rx tc                      24               1536              0               0
  tx xdp                      0                  0              0               0
  tx tc                       9                756              0               0
  rx dropped
                 3          6/s  checksum-unexpected  What checksum-unexpected means.
                 4          4/s  key-mismatch         What key-mismatch means.
  tx dropped
                 2          0/s  no-route     What no-route means.
                 1          0/s  tunnel-loop  What tunnel-loop means.
                 5          0/s  aborted      What aborted means.
  one direction goes without XDP: `xgre tunnel show tunnel0` and `xgre port show` say why

xdp, all ports
              1000  decapsulated  What decapsulated means.
                12  not-ipv4      What not-ipv4 means.

tc, all ports
  no packets yet

"
    );
}

#[test]
fn no_tunnels_is_said_rather_than_left_blank() {
    let stats = Stats { tunnels: vec![], tiers: vec![] };
    assert_eq!(
        cli::stats_text(&Sample { stats, before: None }, Paint(false)),
        "no tunnels: `xgre tunnel add --help` shows how to make one\n"
    );
}

#[test]
fn ports_say_how_xdp_runs_and_why_not_better() {
    let wan = PortInfo {
        name: "wan0".into(),
        ifindex: 3,
        xdp: "native".into(),
        note: None,
        forwarding: true,
    };
    let lan = PortInfo {
        name: "lan0".into(),
        ifindex: 4,
        xdp: "generic".into(),
        note: Some("the driver has no native XDP".into()),
        forwarding: false,
    };
    assert_eq!(
        cli::ports_text(&[wan, lan], Paint(false)),
        "\
3: wan0: xdp native forwarding on
4: lan0: xdp generic forwarding off
    the driver has no native XDP
    packets that arrive here are not forwarded: `sysctl net.ipv4.ip_forward=1` turns it on
"
    );
}
