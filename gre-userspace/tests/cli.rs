//! The command line: what iproute2's words mean, the words in which they are refused, and what is
//! printed. Expected texts marked (ip) are iproute2 6.1's for the same tunnel or mistake.

use std::{
    process::{Command, Output as Outcome},
    time::Duration,
};

use gre_userspace::{
    cli::{self, Clock, Output, Paint, Probed, Sample},
    doctor::{Finding, Severity},
    model::{FlowLabel, Mode, Mss, Netfilter, SeqMode, Tunnel},
    probe::{ALL_NODES, Verdict},
    report::{
        Count, Direction, Mismatch, PathMtu, PortInfo, Sequence, Stats, TierOutcomes, Traffic,
        TunnelInfo, TunnelStats,
    },
};
use serde_json::{Value, json};

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// `tunnel0 mode gre remote 10.56.88.66 local 192.168.22.196`, and nothing else said.
fn plain() -> Tunnel {
    let (local, remote) = ([192, 168, 22, 196].into(), [10, 56, 88, 66].into());
    Tunnel::new("tunnel0", Mode::Gre, local, remote)
}

/// `tunnel0 mode ip6gre remote 2001:db8::2 local 2001:db8::1`, and nothing else said.
fn plain6() -> Tunnel {
    let (local, remote) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
    Tunnel::new("tunnel0", Mode::Ip6gre, local, remote)
}

fn keyed(key: u32) -> Tunnel {
    Tunnel { ikey: Some(key), okey: Some(key), ..plain() }
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
        (format!("tunnel0 mode gre {ENDS} key 42"), keyed(42)),
        (format!("tunnel0 mode gre {ENDS} key 0.0.0.42"), keyed(42)),
        (format!("tunnel0 mode gre {ENDS} key 1.2.3.4"), keyed(0x0102_0304)),
        (format!("tunnel0 mode gre {ENDS} key 0"), keyed(0)),
        (format!("tunnel0 mode gre {ENDS} key 010"), keyed(8)),
        (format!("tunnel0 mode gre {ENDS} key 4294967295"), keyed(u32::MAX)),
        (format!("tunnel0 mode gre {ENDS} ikey 0x2a"), Tunnel { ikey: Some(42), ..plain() }),
        (format!("tunnel0 mode gre {ENDS} okey 0.0.0.7"), Tunnel { okey: Some(7), ..plain() }),
        (format!("tunnel0 mode gre {ENDS} key 7 okey 8"), Tunnel { okey: Some(8), ..keyed(7) }),
        (format!("tunnel0 mode gre {ENDS} key 7 nookey"), Tunnel { okey: None, ..keyed(7) }),
        (format!("tunnel0 mode gre {ENDS} ikey 7 okey 8 nokey"), plain()),
        (
            format!("tunnel0 mode gre {ENDS} dev eth0"),
            Tunnel { dev: Some("eth0".into()), ..plain() },
        ),
        (format!("tunnel0 mode gre {ENDS} csum"), Tunnel { icsum: true, ocsum: true, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} icsum"), Tunnel { icsum: true, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} ocsum"), Tunnel { ocsum: true, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} csum noicsum"), Tunnel { ocsum: true, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} seq"), Tunnel { iseq: true, oseq: true, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} iseq"), Tunnel { iseq: true, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} oseq"), Tunnel { oseq: true, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} seq nooseq"), Tunnel { iseq: true, ..plain() }),
        (
            format!("tunnel0 mode gre {ENDS} iseq seq-mode rfc2890"),
            Tunnel { iseq: true, seq_mode: SeqMode::Rfc2890, ..plain() },
        ),
        (
            format!("tunnel0 mode gre {ENDS} nopmtudisc ignore-df"),
            Tunnel { pmtudisc: false, ignore_df: true, ..plain() },
        ),
        (format!("tunnel0 mode gre {ENDS} ignore-df noignore-df"), plain()),
        (format!("tunnel0 mode gre {ENDS} mss auto"), Tunnel { mss: Mss::Auto, ..plain() }),
        (format!("tunnel0 mode gre {ENDS} mss 1360"), Tunnel { mss: Mss::Fixed(1360), ..plain() }),
        (format!("tunnel0 mode gre {ENDS} mss off"), plain()),
        (format!("tunnel0 mode gre {ENDS} netfilter respect"), plain()),
        (
            format!("tunnel0 mode gre {ENDS} netfilter bypass"),
            Tunnel { netfilter: Netfilter::Bypass, ..plain() },
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
        (
            "tunnel0 mode gre".to_owned(),
            Tunnel { local: Mode::Gre.any(), remote: Mode::Gre.any(), ..plain() },
        ),
        (
            "tunnel0 mode gre remote any local 192.168.22.196".to_owned(),
            Tunnel { remote: Mode::Gre.any(), ..plain() },
        ),
    ];
    for (line, tunnel) in table {
        assert_eq!(cli::tunnel_of_words(&words(&line)), Ok(tunnel), "{line}");
    }
}

#[test]
fn words_of_ip6gre_mean_what_they_mean_to_iproute2() {
    const ENDS: &str = "remote 2001:db8::2 local 2001:db8::1";
    let table = [
        (format!("tunnel0 mode ip6gre {ENDS}"), plain6()),
        (format!("tunnel0 {ENDS} mode ip6gre/ip"), plain6()),
        (format!("tunnel0 {ENDS} mode gre/ipv6"), plain6()),
        (format!("ip6gre7 {ENDS}"), Tunnel { name: "ip6gre7".into(), ..plain6() }),
        (format!("tunnel0 mode ip6gre {ENDS} hoplimit 9"), Tunnel { ttl: 9, ..plain6() }),
        (format!("tunnel0 mode ip6gre {ENDS} hlim inherit"), Tunnel { ttl: 0, ..plain6() }),
        (format!("tunnel0 mode ip6gre {ENDS} tclass 0xb8"), Tunnel { tos: 0xb8, ..plain6() }),
        (format!("tunnel0 mode ip6gre {ENDS} tc b8"), Tunnel { tos: 0xb8, ..plain6() }),
        (format!("tunnel0 mode ip6gre {ENDS} tclass inherit"), Tunnel { tos: 1, ..plain6() }),
        (
            format!("tunnel0 mode ip6gre {ENDS} encaplimit 4"),
            Tunnel { encap_limit: Some(4), ..plain6() },
        ),
        (format!("tunnel0 mode ip6gre {ENDS} encaplimit none"), plain6()),
        (
            format!("tunnel0 mode ip6gre {ENDS} flowlabel 12345"),
            Tunnel { flow_label: FlowLabel::Fixed(0x12345), ..plain6() },
        ),
        (
            format!("tunnel0 mode ip6gre {ENDS} fl inherit"),
            Tunnel { flow_label: FlowLabel::Inherit, ..plain6() },
        ),
        (
            format!("tunnel0 mode ip6gre {ENDS} key 7 csum seq dev eth0"),
            Tunnel {
                ikey: Some(7),
                okey: Some(7),
                icsum: true,
                ocsum: true,
                iseq: true,
                oseq: true,
                dev: Some("eth0".into()),
                ..plain6()
            },
        ),
        (
            "tunnel0 mode ip6gre remote any local 2001:db8::1".to_owned(),
            Tunnel { remote: Mode::Ip6gre.any(), ..plain6() },
        ),
    ];
    for (line, tunnel) in table {
        assert_eq!(cli::tunnel_of_words(&words(&line)), Ok(tunnel), "{line}");
    }
}

#[test]
fn a_change_begins_with_what_the_tunnel_is() {
    let full = Tunnel {
        ikey: Some(7),
        okey: Some(8),
        icsum: true,
        ocsum: true,
        iseq: true,
        oseq: true,
        dev: Some("eth0".into()),
        mss: Mss::Auto,
        ttl: 64,
        ..plain()
    };
    let table = [
        ("tunnel0", full.clone()),
        ("tunnel0 key 42", Tunnel { ikey: Some(42), okey: Some(42), ..full.clone() }),
        ("tunnel0 ikey 42", Tunnel { ikey: Some(42), ..full.clone() }),
        (
            "tunnel0 noikey nocsum",
            Tunnel { ikey: None, icsum: false, ocsum: false, ..full.clone() },
        ),
        ("tunnel0 mode gre noseq", Tunnel { iseq: false, oseq: false, ..full.clone() }),
        ("tunnel0 noiseq mss off", Tunnel { iseq: false, mss: Mss::Off, ..full.clone() }),
        ("tunnel0 remote 10.0.0.9", Tunnel { remote: [10, 0, 0, 9].into(), ..full.clone() }),
        ("tunnel0 local any", Tunnel { local: Mode::Gre.any(), ..full.clone() }),
        ("tunnel0 nopmtudisc ttl inherit", Tunnel { pmtudisc: false, ttl: 0, ..full.clone() }),
    ];
    for (line, changed) in table {
        assert_eq!(cli::change_of_words(&words(line), &full), Ok(changed), "{line}");
    }
}

/// The config file takes a fixed TTL with nopmtudisc, and other options can still be changed.
#[test]
fn what_a_change_does_not_mention_is_not_held_against_it() {
    let tunnel = Tunnel { ttl: 64, pmtudisc: false, ..plain() };
    let keyed = Tunnel { ikey: Some(1), okey: Some(1), ..tunnel.clone() };
    assert_eq!(cli::change_of_words(&words("tunnel0 key 1"), &tunnel), Ok(keyed));
    assert_eq!(
        cli::change_of_words(&words("tunnel0 ttl 9"), &tunnel).unwrap_err().to_string(),
        "ttl != 0 and nopmtudisc are incompatible"
    );
}

#[test]
fn misc2_a_change_makes_no_remote_a_multicast_one() {
    for (tunnel, line) in
        [(plain(), "tunnel0 remote 224.0.0.5"), (plain6(), "tunnel0 remote ff02::5")]
    {
        let failure = cli::change_of_words(&words(line), &tunnel).expect_err(line).to_string();
        assert!(failure.contains("is a multicast group"), "{line}: {failure}");
    }
}

#[test]
fn what_a_change_cannot_do_is_said() {
    let table = [
        (
            plain(),
            "tunnel0 mode ip6gre",
            "Error: tunnel0 is gre, and a tunnel keeps its mode\n\
             delete it and add it again with `mode ip6gre`",
        ),
        (
            plain(),
            "tunnel0 encaplimit 4",
            "Error: \"encaplimit\" is an option of mode ip6gre, and tunnel0 is gre\nleave it out",
        ),
        (
            plain(),
            "tunnel0 ignore-df",
            "Error: ignore-df and pmtudisc are incompatible: add nopmtudisc, or leave ignore-df out",
        ),
        (
            plain6(),
            "tunnel0 remote 192.0.2.1",
            "Error: inet6 address is expected rather than \"192.0.2.1\".\n\
             mode ip6gre runs over IPv6; over IPv4 it is `mode gre`",
        ),
    ];
    for (tunnel, line, refusal) in table {
        let failure = cli::change_of_words(&words(line), &tunnel).expect_err(line);
        assert_eq!(failure.to_string(), refusal, "{line}");
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
             xgre does gre: add `mode gre`, or `mode ip6gre` for GRE over IPv6",
        ),
        // (ip)
        (
            format!("{GOOD} ikey abc"),
            "invalid value for \"ikey\": \"abc\"; it should be an unsigned integer",
        ),
        (
            "tunnel0 mode gre mode ip6gre".to_owned(),
            "You managed to ask for more than one tunnel mode.",
        ),
        (
            "tunnel0 mode ip6gre encaplimit 256".to_owned(),
            "Error: argument \"256\" is wrong: invalid ELIM",
        ),
        // (ip), then a line of our own
        (
            "tunnel0 mode gre remote 2001:db8::1".to_owned(),
            "Error: an IP address is expected rather than \"2001:db8::1\"\n\
             mode gre runs over IPv4; over IPv6 it is `mode ip6gre`",
        ),
        (
            "tunnel0 mode ip6gre remote 192.0.2.1".to_owned(),
            "Error: inet6 address is expected rather than \"192.0.2.1\".\n\
             mode ip6gre runs over IPv6; over IPv4 it is `mode gre`",
        ),
        (
            "tunnel0 mode ip6gre flowlabel 100000".to_owned(),
            "Error: argument \"100000\" is wrong: invalid Flowlabel\n\
             a flow label is 0x0 to 0xfffff or inherit, not \"100000\"",
        ),
        (
            "tunnel0 mode ip6gre tclass 3".to_owned(),
            "Error: argument \"0x03\" is wrong: invalid TClass\n\
             its last two bits are ECN's, which follows the inner packet",
        ),
        (
            "tunnel0 mode ip6gre tclass inherit/EF".to_owned(),
            "Error: argument \"0xb8\" is wrong: invalid TClass\n\
             a traffic class is either inherited or fixed",
        ),
        (
            format!("{GOOD} dev averyveryverylongname"),
            "Cannot find device \"averyveryverylongname\"\n\
             a device name has 1 to 15 bytes; `averyveryverylongname` has 21",
        ),
        // Ours
        (
            format!("{GOOD} dev tunnel0"),
            "Error: `tunnel0` is the tunnel itself: dev is the interface it runs over",
        ),
        (
            format!("{GOOD} seq-mode strict"),
            "Error: argument \"strict\" is wrong: invalid seq-mode\n\
             a seq-mode is linux or rfc2890, not \"strict\"",
        ),
        (
            format!("{GOOD} netfilter off"),
            "Error: argument \"off\" is wrong: invalid netfilter\n\
             netfilter is respect or bypass, not \"off\"",
        ),
        (
            format!("{GOOD} mss 87"),
            "Error: argument \"87\" is wrong: invalid mss\n\
             an mss is auto, off, or 88 to 65495 bytes, not \"87\"",
        ),
        (
            format!("{GOOD} ignore-df"),
            "Error: ignore-df and pmtudisc are incompatible: add nopmtudisc, or leave ignore-df out",
        ),
        (
            format!("{GOOD} fl 1"),
            "Error: \"fl\" is an option of mode ip6gre, and tunnel0 is gre\nleave it out",
        ),
        (
            "tunnel0 mode ip6gre nopmtudisc".to_owned(),
            "Error: \"nopmtudisc\" is an option of mode gre, and tunnel0 is ip6gre\nleave it out",
        ),
        (
            "tunnel0 mode gre remote 239.1.1.1 local 10.0.0.1 key 5".to_owned(),
            "Error: remote 239.1.1.1 is a multicast group: tunnels to several hosts are not \
             supported, with a key or without; make one tunnel for each host",
        ),
        (
            "tunnel0 mode ip6gre remote ff02::1".to_owned(),
            "Error: remote ff02::1 is a multicast group: tunnels to several hosts are not \
             supported, with a key or without; make one tunnel for each host",
        ),
        (
            format!("{GOOD} fwmark 4"),
            "Error: \"fwmark 4\" is not supported by xgre yet\n\
             leave it out, or make this tunnel with `ip tunnel`",
        ),
        (
            format!("{GOOD} external"),
            "Error: \"external\" is not supported by xgre yet\n\
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
        ("tunnel add x mode gre dev nosuch", 1),
        ("tunnel change x mss 4", 255),
        ("tunnel change x csum seq reset", 1),
        ("tunnel change csum", 1),
    ] {
        let outcome = xgre(line);
        assert_eq!(outcome.status.code(), Some(code), "{line}: {outcome:?}");
        assert!(outcome.stdout.is_empty());
    }
}

#[test]
fn a_device_that_does_not_exist_is_named() {
    let outcome = xgre("tunnel add x mode gre dev nosuch");
    assert_eq!(
        String::from_utf8(outcome.stderr).unwrap(),
        "Cannot find device \"nosuch\"\n`ip link` lists the interfaces\n"
    );
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
        "tunnel change x remote y",
        "t c x remote y",
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
        "tunnel change ",
        "tunnel delete ",
        "tunnel show ",
        "link ",
        "link add ",
        "link set ",
        "link replace ",
        "link delete ",
        "link show ",
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
    // By another process: a file that this one has open for writing, and so a child that another
    // test is starting just then, cannot be executed.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_xgre")).arg(&copy).status().unwrap();
    assert!(copied.success());

    let outcome = Command::new(copy).arg("run").uid(65534).gid(65534).output().unwrap();
    assert_eq!(
        String::from_utf8(outcome.stderr).unwrap(),
        "xgre run needs root, to load BPF programs and to make devices\n\
         run `sudo xgre run` or `systemctl start xgre`\n"
    );
    assert_eq!(outcome.status.code(), Some(1));
}

fn fast() -> TunnelInfo {
    let ends = ["192.168.22.196", "10.56.88.66"].map(|end| end.parse().unwrap());
    let tunnel = Tunnel::new("tunnel0", Mode::Gre, ends[0], ends[1]);
    TunnelInfo {
        ifindex: Some(7),
        up: true,
        mtu: Some(1472),
        underlay: Some("wan0".into()),
        via: Some("192.168.22.1".into()),
        fast: true,
        ..TunnelInfo::configured(&Tunnel { ttl: 245, ikey: Some(42), okey: Some(42), ..tunnel })
    }
}

/// Every option, and everything that a daemon may have learned.
fn full() -> TunnelInfo {
    TunnelInfo {
        local: "0.0.0.0".into(),
        remote: "0.0.0.0".into(),
        dev: Some("wan0".into()),
        ttl: 0,
        key: None,
        okey: Some(43),
        icsum: true,
        ocsum: true,
        iseq: true,
        oseq: true,
        seq_mode: "rfc2890".into(),
        pmtudisc: false,
        ignore_df: true,
        mss: "1360".into(),
        netfilter: "bypass".into(),
        mismatch: Some(mismatch()),
        path_mtus: vec![PathMtu { remote: "10.56.88.66".into(), mtu: 1400, expires_in: 598 }],
        payload_mtu: Some(1376),
        sequence: Some(Sequence { next_sent: 12, next_expected: 34, resynchronised: 2 }),
        ..fast()
    }
}

fn mismatch() -> Mismatch {
    Mismatch {
        reason: "key-unexpected".into(),
        sends: "key 42".into(),
        expects: "no key".into(),
        since: NOON.now - 5275,
        last: NOON.now - 2,
        packets: 1234,
        fix: "xgre tunnel change tunnel0 key 42".into(),
    }
}

/// 2026-11-24 12:00:00, one hour east of Greenwich.
const NOON: Clock = Clock { now: 1_795_518_000, offset: 3600 };

fn ip6() -> TunnelInfo {
    TunnelInfo {
        mode: "ip6gre".into(),
        local: "2001:db8::1".into(),
        remote: "::".into(),
        ttl: 64,
        encap_limit: Some(4),
        tos: 0xb8,
        flow_label: "0x12345".into(),
        dev: Some("wan0".into()),
        ..fast()
    }
}

fn ip6_inheriting() -> TunnelInfo {
    TunnelInfo {
        ttl: 0,
        encap_limit: None,
        tos: 1,
        flow_label: "inherit".into(),
        dev: None,
        key: None,
        ikey: None,
        okey: None,
        oseq: true,
        sequence: Some(Sequence { next_sent: 5, next_expected: 0, resynchronised: 0 }),
        ..ip6()
    }
}

fn slow() -> TunnelInfo {
    TunnelInfo {
        name: "tunnel1".into(),
        ttl: 0,
        tos: 0xb9,
        key: None,
        ikey: None,
        okey: None,
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
                ..Direction::default()
            },
            tx: Direction {
                xdp: Traffic { packets: 0, bytes: 0 },
                tc: Traffic { packets: 9, bytes: 756 },
                drops: vec![count("no-route", 2), count("tunnel-loop", 1), count("aborted", 5)],
                ..Direction::default()
            },
            mismatch: None,
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
        cli::tunnels_text(&[fast(), slow()], None, NOON, Paint(false)),
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
fn every_option_and_what_was_learned_is_shown() {
    assert_eq!(
        cli::tunnels_text(&[full(), ip6(), ip6_inheriting()], None, NOON, Paint(false)),
        "\
tunnel0: gre/ip remote any local any dev wan0 ttl inherit nopmtudisc ikey 42 okey 43
  Drop packets out of sequence.
  Checksum in received packet is required.
  Sequence packets on output.
  Checksum output packets.
    state UP mtu 1472 via 192.168.22.1 dev wan0
    accelerated by XDP
    ignore-df seq-mode rfc2890 mss 1360 netfilter bypass
    peer sends key 42; this tunnel expects no key (1,234 packets, since 10:32:05, last 2 s ago)
      mend it here: xgre tunnel change tunnel0 key 42
    path to 10.56.88.66: mtu 1400 expires 598sec
    sequence next sent 12 next expected 34 resynchronised 2
tunnel0: gre/ipv6 remote :: local 2001:db8::1 dev wan0 encaplimit 4 hoplimit 64 tclass 0xb8 \
         flowlabel 0x12345 (flowinfo 0x0b812345) key 42
    state UP mtu 1472 via 192.168.22.1 dev wan0
    accelerated by XDP
tunnel0: gre/ipv6 remote :: local 2001:db8::1 encaplimit none hoplimit inherit tclass inherit \
         flowlabel inherit (flowinfo 0x00000000)
  Sequence packets on output.
    state UP mtu 1472 via 192.168.22.1 dev wan0
    accelerated by XDP
    sequence next sent 5
"
    );
}

#[test]
fn rfc7676_3_a_path_that_takes_less_than_ipv6_is_promised_is_shown() {
    // MTU of the device, the longest inner packet that the path takes, and whether that is said.
    for (mtu, payload_mtu, is_narrow) in [
        (1472, Some(1472), false),
        (1472, Some(1280), false),
        (1472, Some(1279), true),
        (1280, Some(1236), true),
        // The kernel has no IPv6 on it.
        (1279, Some(1236), false),
        (1472, None, false),
    ] {
        let tunnel = TunnelInfo { mtu: Some(mtu), payload_mtu, ..fast() };
        let shown = cli::tunnels_text(&[tunnel], None, NOON, Paint(false));
        assert_eq!(shown.contains("path too narrow for IPv6"), is_narrow, "{shown}");
    }
    let tunnel = TunnelInfo { payload_mtu: Some(1236), ..fast() };
    let shown = cli::tunnels_text(&[tunnel], None, NOON, Paint(false));
    let line = "    path too narrow for IPv6: it takes 1236 of 1280 bytes in one piece, so that longer \
                packets go in outer fragments; raise the underlay's MTU by 44\n";
    assert!(shown.ends_with(line), "{shown}");
}

#[test]
fn rfc7676_3_a_probe_says_what_is_wrong_and_what_to_do() {
    let by = "2001:db8:168::1".parse().unwrap();
    let within = Duration::from_micros(1234);
    let carried = Verdict::Carried { by, within };
    let narrow = TunnelInfo { payload_mtu: Some(1236), ..fast() };
    let said = |tunnel: &TunnelInfo, verdict| {
        let probed = Probed { tunnel, address: ALL_NODES, overhead: 28, verdict };
        let json = Output { json: true, ..Output::default() }.json(&cli::probe_json(&probed));
        (cli::probe_text(&probed, Paint(false)), json.unwrap())
    };
    let carried_line =
        "tunnel0: carried: 2001:db8:168::1 answered an IPv6 packet of 1280 bytes, 1.2 ms\n";
    let asked = r#"{"ifname":"tunnel0","address":"ff02::1","bytes":1280,"result":"#;
    let answered = r#""answered_by":"2001:db8:168::1""#;
    for (tunnel, verdict, text, json) in [
        (
            fast(),
            carried,
            carried_line.to_owned(),
            format!(r#""carried",{answered},"milliseconds":1.234,"outer_fragments":false"#),
        ),
        (
            narrow.clone(),
            carried,
            format!(
                "{carried_line}    in outer fragments, which is slow: in one piece the path takes \
                 1236 bytes; raise the underlay's MTU to 1308\n"
            ),
            format!(r#""carried",{answered},"milliseconds":1.234,"outer_fragments":true"#),
        ),
        (
            fast(),
            Verdict::TooLong { by },
            "\
tunnel0: not carried: 2001:db8:168::1 answers IPv6 packets of 64 bytes, but none of 1280
    a link of the path, there or back, takes less than 1308 bytes, and no router says so
    raise its MTU to 1308, or let its router's ICMP through, or have both ends cut the outer packet:
      ip link set tunnel0 mtu 1280 && ip route add 10.56.88.66/32 via 192.168.22.1 dev wan0 mtu MTU
"
            .to_owned(),
            format!(r#""not-carried",{answered},"outer_fragments":false"#),
        ),
        (
            narrow,
            Verdict::Silent,
            "\
tunnel0: no answer: ff02::1 does not answer ICMPv6 echo requests, not even of 64 bytes
    has the far end an IPv6 address on its tunnel, and does `xgre tunnel show tunnel0` show a mismatch?
    or name who answers: xgre tunnel probe tunnel0 ADDRESS
"
            .to_owned(),
            r#""no-answer","outer_fragments":false"#.to_owned(),
        ),
    ] {
        let json = format!("{asked}{json},\"needed_path_mtu\":1308}}\n");
        assert_eq!(said(&tunnel, verdict), (text, json));
    }
}

#[test]
fn a_tunnel_to_any_remote_needs_no_route_to_it() {
    let open = TunnelInfo { underlay: None, via: None, ..ip6() };
    let shown = cli::tunnels_text(&[open], None, NOON, Paint(false));
    assert_eq!(shown.lines().nth(1), Some("    state UP mtu 1472"));
}

#[test]
fn json_has_iproute2s_keys_for_every_option() {
    let text = Output { json: true, ..Output::default() }
        .json(&cli::tunnels_json(&[full(), ip6(), ip6_inheriting()], None))
        .unwrap();
    assert_eq!(
        text,
        concat!(
            r#"[{"ifname":"tunnel0","mode":"gre/ip","remote":"0.0.0.0","local":"0.0.0.0","#,
            r#""dev":"wan0","nopmtudisc":null,"ikey":42,"okey":43,"#,
            r#""flags":["rx_drop_ooseq","rx_csum","tx_seq","tx_csum"],"ifindex":7,"up":true,"#,
            r#""mtu":1472,"underlay":"wan0","via":"192.168.22.1","accelerated":true,"#,
            r#""ignore_df":true,"seq_mode":"rfc2890","mss":"1360","netfilter":"bypass","#,
            r#""mismatch":{"reason":"key-unexpected","sends":"key 42","expects":"no key","#,
            r#""since":1795512725,"last":1795517998,"packets":1234,"#,
            r#""fix":"xgre tunnel change tunnel0 key 42"},"#,
            r#""path_mtus":[{"remote":"10.56.88.66","mtu":1400,"expires_in":598}],"#,
            r#""payload_mtu":1376,"#,
            r#""sequence":{"next_sent":12,"next_expected":34,"resynchronised":2}},"#,
            r#"{"ifname":"tunnel0","mode":"gre/ipv6","remote":"::","local":"2001:db8::1","#,
            r#""link":"wan0","encap_limit":4,"hoplimit":64,"tclass":"0xb8","#,
            r#""flowlabel":"0x12345","flowinfo":"0x0b812345","key":42,"flags":[],"ifindex":7,"#,
            r#""up":true,"mtu":1472,"underlay":"wan0","via":"192.168.22.1","accelerated":true,"#,
            r#""ignore_df":false,"seq_mode":"linux","mss":"off","netfilter":"respect","path_mtus":[]},"#,
            r#"{"ifname":"tunnel0","mode":"gre/ipv6","remote":"::","local":"2001:db8::1","#,
            r#""ip6_tnl_f_ign_encap_limit":null,"ip6_tnl_f_use_orig_tclass":null,"#,
            r#""ip6_tnl_f_use_orig_flowlabel":null,"flowinfo":"0x00000000","flags":["tx_seq"],"#,
            r#""ifindex":7,"up":true,"mtu":1472,"underlay":"wan0","via":"192.168.22.1","#,
            r#""accelerated":true,"ignore_df":false,"seq_mode":"linux","mss":"off","netfilter":"respect","#,
            r#""path_mtus":[],"#,
            r#""sequence":{"next_sent":5,"next_expected":0,"resynchronised":0}}]"#,
            "\n"
        )
    );
}

#[test]
fn statistics_fill_iproute2s_columns() {
    assert_eq!(
        cli::tunnels_text(&[fast()], Some(&stats()), NOON, Paint(false)),
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
            r#""mtu":1472,"underlay":"wan0","via":"192.168.22.1","accelerated":true,"#,
            r#""ignore_df":false,"seq_mode":"linux","mss":"off","netfilter":"respect","path_mtus":[]},"#,
            r#"{"ifname":"tunnel1","mode":"gre/ip","remote":"10.56.88.66","#,
            r#""local":"192.168.22.196","tos":"0xb9","nopmtudisc":null,"flags":[],"ifindex":7,"#,
            r#""up":false,"mtu":1476,"underlay":null,"via":null,"accelerated":false,"#,
            r#""why_not":"no route leads to 10.56.88.66","ignore_df":false,"seq_mode":"linux","#,
            r#""mss":"off","netfilter":"respect","path_mtus":[]}]"#,
            "\n"
        )
    );
    serde_json::from_str::<Value>(&text).unwrap();
}

/// Where `ip -j -s tunnel show` prints text between the objects.
#[test]
fn json_with_statistics_is_json() {
    let output = Output { json: true, pretty: true, statistics: 1, ..Output::default() };
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
    let text = cli::tunnels_text(&[fast()], None, NOON, Paint(true));
    assert!(text.starts_with("\x1b[36mtunnel0\x1b[0m: gre/ip"), "{text:?}");
    assert!(text.contains("state \x1b[32mUP\x1b[0m mtu"), "{text:?}");
}

#[test]
fn stats_say_what_each_drop_means() {
    assert_eq!(
        cli::stats_text(&Sample { stats: stats(), before: None }, NOON, Paint(false)),
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
  one direction goes without XDP, as this host's own packets do; if others should not: `xgre tunnel show tunnel0`, `xgre port show`

xdp, all ports
              1000  decapsulated  What decapsulated means.
                12  not-ipv4      What not-ipv4 means.

tc, all ports
  no packets yet

"
    );
}

#[test]
fn stats_say_what_the_peer_sends_that_does_not_fit() {
    let mut stats = stats();
    stats.tunnels[0].mismatch = Some(Mismatch { packets: 1, ..mismatch() });
    stats.tunnels[0].tx = Direction::default();
    stats.tiers.clear();
    assert_eq!(
        cli::stats_text(&Sample { stats, before: None }, NOON, Paint(false)),
        "\
tunnel0                 packets              bytes
  rx xdp                   1000              64000
  rx tc                      24               1536
  tx xdp                      0                  0
  tx tc                       0                  0
  rx dropped
                 3  checksum-unexpected  What checksum-unexpected means.
                 4  key-mismatch         What key-mismatch means.
  peer sends key 42; this tunnel expects no key (1 packet, since 10:32:05, last 2 s ago)
    mend it here: xgre tunnel change tunnel0 key 42

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
        cli::stats_text(&sample, NOON, Paint(false)),
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
  one direction goes without XDP, as this host's own packets do; if others should not: `xgre tunnel show tunnel0`, `xgre port show`

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
        cli::stats_text(&Sample { stats, before: None }, NOON, Paint(false)),
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

fn finding(severity: Severity, check: &'static str) -> Finding {
    Finding {
        topic: "paths",
        check,
        subject: None,
        severity,
        found: format!("{check} was found"),
        why: None,
        fix: None,
    }
}

#[test]
fn the_doctor_tells_the_worst_first_and_sums_up() {
    let fine = finding(Severity::Ok, "btf");
    let note = Finding { why: Some("it is so".into()), ..finding(Severity::Note, "queues") };
    let error = Finding {
        subject: Some("tunnel0".into()),
        why: Some("nothing gets through".into()),
        fix: Some("ip link set tunnel0 up".into()),
        ..finding(Severity::Error, "tunnel")
    };
    let findings = [fine, note, error];
    let troubles = "error: tunnel0: tunnel was found\n\
                    \x20   nothing gets through\n\
                    \x20   do: ip link set tunnel0 up\n\
                    note: queues was found\n\
                    \x20   it is so\n";
    assert_eq!(
        cli::doctor_text(&findings, false, Paint(false)),
        format!("{troubles}1 error, 0 warnings, 1 note; 1 fine (-v tells them)\n")
    );
    assert_eq!(
        cli::doctor_text(&findings, true, Paint(false)),
        format!("{troubles}ok: btf was found\n1 error, 0 warnings, 1 note; 1 fine\n")
    );
    let painted = cli::doctor_text(&findings, false, Paint(true));
    assert!(painted.contains("\x1b[31merror\x1b[0m: \x1b[36mtunnel0\x1b[0m: "), "{painted:?}");
}

#[test]
fn a_finding_is_told_as_json_by_stable_keys() {
    let all = Finding {
        subject: Some("tunnel0".into()),
        why: Some("it is slow".into()),
        fix: Some("ip link set dev tunnel0 mtu 1476".into()),
        ..finding(Severity::Warning, "mtu")
    };
    let expected = json!({
        "topic": "paths", "check": "mtu", "subject": "tunnel0", "severity": "warning",
        "found": "mtu was found", "why": "it is slow", "fix": "ip link set dev tunnel0 mtu 1476",
    });
    assert_eq!(serde_json::to_value(all).unwrap(), expected);
    let least = json!({
        "topic": "paths", "check": "btf", "severity": "ok", "found": "btf was found",
    });
    assert_eq!(serde_json::to_value(finding(Severity::Ok, "btf")).unwrap(), least);
}
