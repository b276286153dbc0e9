//! `xgre link` and the words of `ip link`: what they mean, how far they may be shortened, how they are
//! refused, and how devices are shown. Texts marked (ip) are iproute2 6.1's for the kernel's own tunnels.

use std::process::{Command, Output as Outcome};

use gre_userspace::{
    cli::{self, Clock, Device, Filter, Output, Paint},
    control::api::TunnelSpec,
    model::{FlowLabel, Mode, Tunnel},
    report::{Count, Direction, LinkInfo, Stats, Traffic, TunnelInfo, TunnelStats},
};
use serde_json::Value;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn xgre(line: &str) -> Outcome {
    Command::new(env!("CARGO_BIN_EXE_xgre")).args(words(line)).output().unwrap()
}

fn gre(name: &str) -> Tunnel {
    Tunnel::new(name, Mode::Gre, [192, 0, 2, 1].into(), [192, 0, 2, 2].into())
}

fn ip6(mode: Mode) -> Tunnel {
    Tunnel::new("x", mode, "2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
}

#[test]
fn words_behind_the_type_may_be_shortened_as_in_iproute2() {
    const ENDS: &str = "r 192.0.2.2 l 192.0.2.1";
    let plain = gre("x");
    let full = Tunnel {
        ttl: 64,
        tos: 0xb8,
        ikey: Some(1),
        okey: Some(2),
        icsum: true,
        ocsum: true,
        iseq: true,
        oseq: true,
        dev: Some("u0".into()),
        ..plain.clone()
    };
    for (line, tunnel) in [
        (format!("x type gre {ENDS}"), plain.clone()),
        ("name x ty gre remo 192.0.2.2 loc 192.0.2.1".to_owned(), plain.clone()),
        (format!("dev x type gre {ENDS} t 64 to 0xb8 i 1 o 2 c s d u0"), full.clone()),
        (format!("x type gre {ENDS} hl 64 dsf EF ik 1 okey 2 cs se de u0"), full.clone()),
        (format!("x type gre {ENDS} k 3 n c noc s nos nop p"), plain.clone()),
        (
            format!("x type gre {ENDS} k 7 noi seq noo"),
            Tunnel { okey: None, iseq: true, oseq: true, ..plain.clone() },
        ),
        (
            format!("x type gre {ENDS} nop ignore-df ttl 9"),
            Tunnel { ttl: 9, pmtudisc: false, ignore_df: true, ..plain.clone() },
        ),
        (format!("mtu 1400 x type gre {ENDS}"), Tunnel { mtu: Some(1400), ..plain.clone() }),
        (
            format!("x addr 02:00:00:00:00:01 up type gretap {ENDS}"),
            Tunnel { mode: Mode::Gretap, ..plain.clone() },
        ),
        // What every tunnel of ours is anyway.
        (
            format!(
                "x type gre {ENDS} noencap encap none fwmark 0 noencap-csum noallow-localremote"
            ),
            plain.clone(),
        ),
        (
            "x type ip6gre r 2001:db8::2 l 2001:db8::1 h inherit tc b8 encaplimit 4 fl 7"
                .to_owned(),
            Tunnel {
                ttl: 0,
                tos: 0xb8,
                encap_limit: Some(4),
                flow_label: FlowLabel::Fixed(7),
                ..ip6(Mode::Ip6gre)
            },
        ),
        (
            "x type ip6gretap r 2001:db8::2 l 2001:db8::1 to inherit".to_owned(),
            Tunnel { tos: 1, ..ip6(Mode::Ip6gretap) },
        ),
    ] {
        assert_eq!(cli::link_of_words(&words(&line)), Ok(tunnel), "{line}");
    }
}

#[test]
fn words_of_devices_are_refused_in_iproute2s_words() {
    for (line, refusal, code) in [
        // (ip)
        (
            "add x mtu 1400 mtu 1500 type gre",
            "Error: duplicate \"mtu\": \"1500\" is the second value.",
            255,
        ),
        ("add x mtu x type gre", "Error: argument \"x\" is wrong: Invalid \"mtu\" value", 255),
        ("add x address zz type gretap", "\"zz\" is invalid lladdr.", 1),
        ("add x u type gre", "Error: either \"dev\" is duplicate, or \"u\" is a garbage.", 255),
        (
            "add x type gre remote 2001:db8::1",
            "Error: inet address is expected rather than \"2001:db8::1\".",
            1,
        ),
        ("add x type gre remote x", "Error: inet address is expected rather than \"x\".", 1),
        ("add x type ip6gre remote x", "Error: inet6 address is expected rather than \"x\".", 1),
        ("add x type ip6gre ttl 264", "Error: argument \"264\" is wrong: invalid HLIM", 255),
        ("add x type gre encap foo", "Error: argument \"foo\" is wrong: Invalid encap type.", 255),
        ("add x type ip6gre dscp foo", "Error: argument \"foo\" is wrong: not inherit", 255),
        ("add x type gre fwmark x", "Error: argument \"x\" is wrong: invalid fwmark", 255),
        ("add x type foo", "Error: Unknown device type.", 2),
        ("add x", "Not enough information: \"type\" argument is required", 1),
        ("set up", "Not enough information: \"dev\" argument is required.", 255),
        ("s", "Not enough information: \"dev\" argument is required.", 255),
        ("add x type", "Command line is not complete. Try option \"help\"", 255),
        ("add x type gre dev nosuch", "Cannot find device \"nosuch\"", 255),
        ("show gre1 gre2", "Error: either \"dev\" is duplicate, or \"gre2\" is a garbage.", 255),
        ("foo", "Command \"foo\" is unknown, try \"xgre link help\".", 255),
        // Ours
        ("add x type gre encap fou", "Error: \"encap fou\" is not supported by xgre yet", 255),
        ("add x type gre external", "Error: \"external\" is not supported by xgre yet", 255),
        ("add x type gre fwmark 3", "Error: \"fwmark 3\" is not supported by xgre yet", 255),
        (
            "add x type ip6gre dscp inherit",
            "Error: \"dscp inherit\" is not supported by xgre yet",
            255,
        ),
        (
            "add x type ip6gre allow-localremote",
            "Error: \"allow-localremote\" is not supported by xgre yet",
            255,
        ),
        (
            "add x type gre erspan_ver 2",
            "Error: \"erspan_ver 2\" is not supported by xgre yet",
            255,
        ),
        ("add x numtxq 4 type gre", "Error: \"numtxqueues 4\" is not supported by xgre", 255),
        ("set x alias x", "Error: \"alias x\" is not supported by xgre", 255),
        ("set x nomaster", "Error: \"nomaster\" is not supported by xgre", 255),
        ("set x group 5", "Error: \"group 5\" is not supported by xgre", 255),
        ("add x type gre csums", "\"csums\" is no option of this type; did you mean \"csum\"?", 1),
        ("xstats", "\"xstats\" is the kernel's: use `ip link xstats`", 255),
    ] {
        let outcome = xgre(&format!("link {line}"));
        let text = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(text.lines().next(), Some(refusal), "{line}: {text}");
        assert_eq!(outcome.status.code(), Some(code), "{line}");
    }
}

#[test]
fn what_is_unknown_is_named_and_help_is_given() {
    for (line, answer, code) in [
        // (ip), of xgre
        ("foo", "Object \"foo\" is unknown, try \"xgre help\".", 1),
        ("tunnel foo", "Command \"foo\" is unknown, try \"xgre tunnel help\"", 255),
        ("-foo tunnel show", "Option \"-foo\" is unknown, try \"xgre -help\".", 255),
        ("-6 tunnel add x mode gre", "Unknown tunnel mode \"gre\"", 255),
        ("-6 tunnel add x remote y", "Error: inet6 address is expected rather than \"y\".", 1),
        (
            "-f inet6 tunnel add x mode ip6gre tclass 100",
            "Error: argument \"100\" is wrong: invalid TClass",
            255,
        ),
        ("tunnel he", "Usage: xgre tunnel { add | change | del | show | probe } [ NAME ]", 255),
        (
            "-6 tunnel add help",
            "Usage: xgre -6 tunnel { add | change | del | show | probe } [ NAME ]",
            255,
        ),
        (
            "link h",
            "Usage: xgre link add [ name ] NAME [ mtu MTU ] [ address LLADDR ] [ up | down ]",
            255,
        ),
        ("link add x type gre help", "Usage: ... TYPE [ remote ADDR ]", 1),
        ("tunnel prl", "\"prl\" is of tunnels that xgre does not do: use `ip tunnel prl`", 255),
    ] {
        let outcome = xgre(line);
        let text = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(text.lines().next(), Some(answer), "{line}");
        assert_eq!(outcome.status.code(), Some(code), "{line}");
    }
    let outcome = xgre("-V");
    assert_eq!(outcome.stdout, format!("xgre {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}

#[test]
fn iproute2s_options_may_be_shortened_too() {
    let refusal = |line: &str| {
        let outcome = xgre(&format!("{line} add x type gre remote y"));
        String::from_utf8(outcome.stderr).unwrap()
    };
    let plain = refusal("link");
    assert!(plain.starts_with("Error: inet address"), "{plain}");
    for line in [
        "-d link",
        "-det -de l",
        "-br link",
        "-brief link",
        "-o link",
        "-oneline link",
        "-4 link",
        "-6 link",
        "-f inet link",
        "-family inet6 link",
        "-c link",
        "-c=never link",
        "-color=auto link",
        "-st -stats -s link",
        "link -d -br -o",
        "-p -j link",
    ] {
        assert_eq!(refusal(line), plain, "{line}");
    }
}

fn info(name: &str) -> TunnelInfo {
    let tunnel = Tunnel::new(name, Mode::Gre, [192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let (ikey, okey) = (Some(42), Some(42));
    let (icsum, ocsum, iseq, oseq) = (true, true, true, true);
    let tunnel = Tunnel { ttl: 64, ikey, okey, icsum, ocsum, iseq, oseq, ..tunnel };
    TunnelInfo {
        ifindex: Some(8),
        up: true,
        mtu: Some(1464),
        underlay: Some("u0".into()),
        via: Some("192.0.2.2".into()),
        fast: true,
        ..TunnelInfo::configured(&tunnel)
    }
}

/// A veth that is up, as ours are.
fn link(name: &str) -> LinkInfo {
    LinkInfo {
        name: name.into(),
        ifindex: 8,
        flags: 0x1_10c3,
        mtu: 1464,
        qdisc: Some("noqueue".into()),
        operstate: "UP".into(),
        linkmode: "DEFAULT".into(),
        txqlen: 1000,
        address: Some("ea:00:9c:73:8c:4e".into()),
        broadcast: Some("ff:ff:ff:ff:ff:ff".into()),
        promiscuity: Some(0),
        allmulti: Some(0),
        min_mtu: Some(68),
        max_mtu: Some(65_499),
        addrgenmode: Some("eui64".into()),
        num_tx_queues: Some(1),
        num_rx_queues: Some(1),
        gso_max_size: Some(65_536),
        gso_max_segs: Some(65_535),
        tso_max_size: Some(65_536),
        tso_max_segs: Some(65_535),
        gro_max_size: Some(65_536),
        carrier_changes: Some(2),
        ..LinkInfo::default()
    }
}

fn tap() -> (TunnelInfo, LinkInfo) {
    let tunnel = TunnelInfo {
        mode: "gretap".into(),
        tos: 1,
        key: Some(0x0102_0304),
        ikey: Some(0x0102_0304),
        okey: Some(0x0102_0304),
        icsum: false,
        ocsum: false,
        iseq: false,
        oseq: false,
        ..info("tap1")
    };
    let link = LinkInfo {
        ifindex: 9,
        flags: 0x1_1043,
        mtu: 1458,
        master: Some("br0".into()),
        max_mtu: Some(0),
        ..link("tap1")
    };
    (tunnel, link)
}

const CLOCK: Clock = Clock { now: 0, offset: 0 };
const OWN: &str = "    state UP mtu 1464 via 192.0.2.2 dev u0\n    accelerated by XDP\n";

fn shown(device: &Device<'_>, stats: Option<&Stats>, output: Output) -> String {
    cli::links_text(std::slice::from_ref(device), stats, output, CLOCK, Paint(false))
}

/// (ip): the captured lines of a gre and a gretap device, and ours below.
#[test]
fn devices_are_shown_as_iproute2_does() {
    let details = Output { details: 1, ..Output::default() };
    let (tunnel, link8) = (info("gre1"), link("gre1"));
    let gre = Device { tunnel: &tunnel, link: &link8 };
    assert_eq!(
        shown(&gre, None, details),
        format!(
            "\
8: gre1@NONE: <POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1464 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000
    link/gre 192.0.2.1 peer 192.0.2.2 promiscuity 0  allmulti 0 minmtu 68 maxmtu 65499 \n\
    \x20   gre remote 192.0.2.2 local 192.0.2.1 ttl 64 ikey 0.0.0.42 okey 0.0.0.42 iseq oseq icsum ocsum addrgenmode eui64 numtxqueues 1 numrxqueues 1 gso_max_size 65536 gso_max_segs 65535 tso_max_size 65536 tso_max_segs 65535 gro_max_size 65536 \n\
{OWN}"
        )
    );
    let (tunnel, link9) = tap();
    let tap = Device { tunnel: &tunnel, link: &link9 };
    let text = shown(&tap, None, details);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "9: tap1@NONE: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1458 qdisc noqueue master br0 state UNKNOWN mode DEFAULT group default qlen 1000",
            "    link/ether ea:00:9c:73:8c:4e brd ff:ff:ff:ff:ff:ff promiscuity 0  allmulti 0 minmtu 68 maxmtu 0 ",
        ]
    );
    assert!(
        lines[2].starts_with(
            "    gretap remote 192.0.2.2 local 192.0.2.1 ttl 64 tos inherit ikey 1.2.3.4 okey 1.2.3.4 addrgenmode eui64 "
        ),
        "{text}"
    );
    let oneline = Output { oneline: true, ..Output::default() };
    let own = OWN.trim_end().replace('\n', "\\");
    assert_eq!(
        shown(&tap, None, oneline),
        format!("{}\\    link/ether ea:00:9c:73:8c:4e brd ff:ff:ff:ff:ff:ff\\{own}\n", lines[0])
    );
    let brief = Output { brief: true, ..Output::default() };
    // (ip)
    assert_eq!(
        shown(&gre, None, brief),
        "gre1@NONE        UNKNOWN        192.0.2.1 <POINTOPOINT,NOARP,UP,LOWER_UP> \n"
    );
}

/// As the kernel's devices of these addresses, up and down, bound to an interface and not.
#[test]
fn flags_names_and_addresses_are_those_of_the_kernels_devices() {
    let line = |tunnel: &TunnelInfo, link: &LinkInfo| {
        let text = shown(&Device { tunnel, link }, None, Output::default());
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        let flags = &first[..first.find(" mtu").unwrap()];
        (flags.to_owned(), lines.next().unwrap().trim_start().to_owned())
    };
    let open = TunnelInfo { remote: "0.0.0.0".into(), ..info("g") };
    assert_eq!(
        line(&open, &link("g")),
        ("8: g@NONE: <NOARP,UP,LOWER_UP>".into(), "link/gre 192.0.2.1 brd 0.0.0.0".into())
    );
    let bound = TunnelInfo { dev: Some("u0".into()), local: "0.0.0.0".into(), ..info("g") };
    let below = LinkInfo { underlay_down: true, ..link("g") };
    assert_eq!(
        line(&bound, &below),
        (
            "8: g@u0: <POINTOPOINT,NOARP,UP,LOWER_UP,M-DOWN>".into(),
            "link/gre 0.0.0.0 peer 192.0.2.2".into()
        )
    );
    let no_carrier = LinkInfo { flags: 0x1083, operstate: "LOWERLAYERDOWN".into(), ..link("g") };
    assert_eq!(line(&info("g"), &no_carrier).0, "8: g@NONE: <NO-CARRIER,POINTOPOINT,NOARP,UP>");
    let six = TunnelInfo {
        mode: "ip6gre".into(),
        local: "::".into(),
        remote: "2001:db8::2".into(),
        ..info("g")
    };
    let down = LinkInfo { flags: 0x1082, ..link("g") };
    assert_eq!(
        line(&six, &down),
        ("8: g@NONE: <NOARP>".into(), "link/gre6 :: brd 2001:db8::2".into())
    );
}

fn counted() -> Stats {
    let direction = |bytes, drops: &[(&str, u64)]| Direction {
        xdp: Traffic { packets: 11, bytes },
        drops: drops
            .iter()
            .map(|(reason, packets)| Count {
                reason: (*reason).into(),
                help: String::new(),
                packets: *packets,
            })
            .collect(),
        ..Direction::default()
    };
    let tunnel = |name: &str, rx, tx| TunnelStats { name: name.into(), rx, tx, mismatch: None };
    Stats {
        tunnels: vec![
            tunnel("tap1", direction(922, &[]), direction(768, &[])),
            tunnel(
                "gre1",
                direction(12_345_678_901, &[("checksum-wrong", 2), ("sequence-old", 3)]),
                direction(1, &[("no-route", 4), ("tunnel-loop", 5)]),
            ),
        ],
        tiers: vec![],
    }
}

/// (ip): the captured block of a gretap device; the counters are the tunnel's.
#[test]
fn counters_are_in_iproute2s_columns() {
    let (tunnel, link9) = tap();
    let device = Device { tunnel: &tunnel, link: &link9 };
    let output = Output { statistics: 2, ..Output::default() };
    let text = shown(&device, Some(&counted()), output);
    assert_eq!(
        text.lines().skip(2).take(8).collect::<Vec<_>>(),
        [
            "    RX:  bytes packets errors dropped  missed   mcast           ",
            "           922      11      0       0       0       0 ",
            "    RX errors:  length    crc   frame    fifo overrun",
            "                     0      0       0       0       0 ",
            "    TX:  bytes packets errors dropped carrier collsns           ",
            "           768      11      0       0       0       0 ",
            "    TX errors: aborted   fifo  window heartbt transns",
            "                     0      0       0       0       2 ",
        ]
    );
    let (tunnel, link8) = (info("gre1"), link("gre1"));
    let device = Device { tunnel: &tunnel, link: &link8 };
    let text = shown(&device, Some(&counted()), Output { statistics: 1, ..Output::default() });
    assert_eq!(
        text.lines().skip(2).take(4).collect::<Vec<_>>(),
        [
            "    RX:   bytes packets errors dropped  missed   mcast           ",
            "    12345678901      11      5       0       0       0 ",
            "    TX:   bytes packets errors dropped carrier collsns           ",
            "              1      11      9       0       4       5 ",
        ]
    );
}

/// (ip): the keys of `ip -j -s -d link show`, in its order; ours in one object behind them.
#[test]
fn json_has_the_keys_of_ip_link() {
    let (tunnel, link8) = (info("gre1"), link("gre1"));
    let devices = [Device { tunnel: &tunnel, link: &link8 }];
    let output = Output { json: true, details: 1, statistics: 1, ..Output::default() };
    let text = output.json(&cli::links_json(&devices, Some(&counted()), output)).unwrap();
    let expected = concat!(
        r#"[{"ifindex":8,"link":null,"ifname":"gre1","#,
        r#""flags":["POINTOPOINT","NOARP","UP","LOWER_UP"],"mtu":1464,"qdisc":"noqueue","#,
        r#""operstate":"UNKNOWN","linkmode":"DEFAULT","group":"default","txqlen":1000,"#,
        r#""link_type":"gre","address":"192.0.2.1","link_pointtopoint":true,"#,
        r#""broadcast":"192.0.2.2","promiscuity":0,"allmulti":0,"min_mtu":68,"max_mtu":65499,"#,
        r#""linkinfo":{"info_kind":"gre","info_data":{"remote":"192.0.2.2","local":"192.0.2.1","#,
        r#""ttl":64,"pmtudisc":true,"ikey":"0.0.0.42","okey":"0.0.0.42","iseq":true,"oseq":true,"#,
        r#""icsum":true,"ocsum":true}},"inet6_addr_gen_mode":"eui64","num_tx_queues":1,"#,
        r#""num_rx_queues":1,"gso_max_size":65536,"gso_max_segs":65535,"tso_max_size":65536,"#,
        r#""tso_max_segs":65535,"gro_max_size":65536,"stats64":{"rx":{"bytes":12345678901,"#,
        r#""packets":11,"errors":5,"dropped":0,"over_errors":0,"multicast":0},"#,
        r#""tx":{"bytes":1,"packets":11,"errors":9,"dropped":0,"carrier_errors":4,"#,
        r#""collisions":5}},"xgre":{"ifindex":8,"up":true,"#,
    );
    assert!(text.starts_with(expected), "{text}");
    serde_json::from_str::<Value>(&text).unwrap();

    let six = TunnelInfo {
        mode: "ip6gre".into(),
        local: "2001:db8::1".into(),
        remote: "::".into(),
        ttl: 0,
        tos: 1,
        encap_limit: Some(4),
        flow_label: "inherit".into(),
        ..info("six")
    };
    let devices = [Device { tunnel: &six, link: &link8 }];
    let text = output.json(&cli::links_json(&devices, None, output)).unwrap();
    let data = concat!(
        r#""info_data":{"remote":"any","local":"2001:db8::1","ttl":0,"encap_limit":4,"#,
        r#""ip6_tnl_f_use_orig_tclass":true,"ip6_tnl_f_use_orig_flowlabel":true,"ikey""#,
    );
    assert!(text.contains(data), "{text}");
    let brief = Output { brief: true, ..output };
    let text = brief.json(&cli::links_json(&devices, None, brief)).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"[{"link":null,"ifname":"six","operstate":"UNKNOWN","address":"2001:db8::1","#,
            r#""flags":["NOARP","UP","LOWER_UP"]}]"#,
            "\n"
        )
    );
}

#[test]
fn tunnel_show_chooses_by_any_option() {
    let info = info("gre1");
    let tunnel = Tunnel::try_from(TunnelSpec::from(&info)).unwrap();
    for (line, chosen) in [
        ("", true),
        ("gre1", true),
        ("gre2", false),
        ("mode gre", true),
        ("mode ip6gre", false),
        ("remote 192.0.2.2 key 42", true),
        ("remote 192.0.2.3", false),
        ("remote any local any", true),
        ("key 43", false),
        ("gre1 ttl 64 csum", true),
        ("nocsum", false),
        ("ttl 65", false),
        ("dev u0", false),
        ("remote 2001:db8::1", false),
    ] {
        let filter = Filter::parse(&words(line)).unwrap();
        assert_eq!(filter.chooses(&info, &tunnel), chosen, "{line}");
    }
}
