//! What `xgre` answers to iproute2's words is what `ip` answers of a kernel's tunnel: the same names in
//! two namespaces, each with one interface below.
//!
//! ```text
//!        ip                                    xgre
//!  +-------------+                       +-------------+
//!  | gre1 tap1 ..|                       | gre1 tap1 ..|
//!  |     u0      |                       |     u0      |
//!  +-------------+                       +-------------+
//!   192.0.2.1, 2001:db8::1                the same
//! ```

mod compare;

use anyhow::{Context as _, Result, ensure};
use tests::{
    config::{Gateway, Xdp},
    namespace::Namespace,
    topology::wire,
    xgre::{Daemon, attempt, xgre},
};

use self::compare::{device_text, first_line, json, tunnel_text};

/// By `tunnel add`: the name, `-6` or not, and the options.
const TUNNELS: &[(&str, bool, &str)] = &[
    ("gre1", false, "mode gre remote 192.0.2.2 local 192.0.2.1 ttl 64"),
    ("gre2", false, "mode gre remote 192.0.2.3 local 192.0.2.1 key 42 csum seq"),
    ("gre3", false, "mode gre remote 192.0.2.4 local 192.0.2.1 ikey 1 okey 2 tos inherit dev u0"),
    ("gre4", false, "mode gre remote any local 192.0.2.1 key 0.0.1.4 icsum oseq tos EF"),
    ("gre5", false, "mode gre remote 192.0.2.5 local any ocsum iseq tos 10 nopmtudisc"),
    ("gre7", false, "mode gre remote 192.0.2.7 local 192.0.2.1 ttl inherit tos inherit/AF11"),
    ("gre8", false, "remote 192.0.2.8 local 192.0.2.1 hlim 9 d 0xb8"),
    ("six1", true, "mode ip6gre remote 2001:db8::2 local 2001:db8::1 encaplimit 4"),
    (
        "six2",
        true,
        "mode ip6gre remote 2001:db8::3 local 2001:db8::1 encaplimit none hoplimit 9 tclass 0xb8 \
         flowlabel 0x12345 key 7 csum",
    ),
    (
        "six3",
        true,
        "mode gre/ipv6 remote 2001:db8::4 local 2001:db8::1 encaplimit none tclass inherit \
         fl inherit dev u0 seq",
    ),
    ("six4", true, "mode ip6gre remote any local 2001:db8::1 encaplimit none ikey 3"),
];

/// By `link add`: the name, and all words.
const LINKS: &[(&str, &str)] = &[
    ("l1", "name l1 type gre remote 192.0.2.11 local 192.0.2.1 ttl 64 key 1 csum seq"),
    ("l2", "l2 type gre r 192.0.2.12 l 192.0.2.1 nop ignore-df to 0xb8 i 3 noc"),
    ("l3", "dev l3 mtu 1400 type gre l 192.0.2.1 k 9 tos inherit noencap fwmark 0 d u0"),
    ("tap1", "tap1 addr 02:00:00:00:00:01 ty gretap remote 192.0.2.2 local 192.0.2.1 key 1.2.3.4"),
    (
        "tap2",
        "tap2 mtu 1400 address 02:00:00:00:00:02 type gretap remote 192.0.2.3 local 192.0.2.1 \
         nopmtudisc ignore-df tos inherit",
    ),
    (
        "l6",
        "l6 type ip6gre remote 2001:db8::6 local 2001:db8::1 encaplimit none tc inherit h inherit",
    ),
    (
        "tap6",
        "tap6 address 02:00:00:00:00:06 type ip6gretap remote 2001:db8::7 local 2001:db8::1 \
         encaplimit 4 key 5 dev u0 oseq",
    ),
];

/// Devices that are up, one of each type.
const UP: [&str; 4] = ["gre2", "six2", "tap1", "tap6"];

/// What both refuse, in the same words up to the end of a line.
const REFUSED: &[&str] = &[
    "tunnel add x mode gre remote 192.0.2.999 local 192.0.2.1",
    "tunnel add x mode gre remote 2001:db8::1",
    "tunnel add x mode gre remote 192.0.2.9 ttl 264",
    "tunnel add x mode gre ttl abc",
    "tunnel add x mode gre remote 192.0.2.9 ttl 64 nopmtudisc",
    "tunnel add x mode gre tos 999",
    "tunnel add x mode gre key abc",
    "tunnel add x mode gre key 4294967296",
    "tunnel add x mode gre key 1.2.3.999",
    "tunnel add x mode gre ikey abc",
    "tunnel add x mode foo",
    "tunnel add x mode gre mode sit",
    "tunnel add x remote",
    "tunnel add x y z",
    "tunnel add averyveryverylongname mode gre",
    "tunnel add x remote 192.0.2.9 local 192.0.2.1",
    "tunnel add x mode gre remote 192.0.2.9 dev nosuch",
    "tunnel del nosuch",
    "tunnel change nosuch ttl 5",
    "tunnel foo",
    "-6 tunnel add x mode gre",
    "-6 tunnel add x mode ip6gre remote 192.0.2.1",
    "-6 tunnel add x mode ip6gre hoplimit 256",
    "-6 tunnel add x mode ip6gre flowlabel 100000",
    "-6 tunnel add x mode ip6gre tclass 100",
    "-6 tunnel add x mode ip6gre dscp foo",
    "link add x",
    "link add x mtu abc type gre",
    "link add x mtu 1400 mtu 1500 type gre",
    "link add x address zz type gretap",
    "link add x y type gre",
    "link add x type foo",
    "link add x type gre remote 2001:db8::1",
    "link add x type gre ttl 264",
    "link add x type gre dev nosuch",
    "link add x type gre fwmark abc",
    "link add x type gre encap foo",
    "link add x type ip6gre remote 192.0.2.1",
    "link add x type ip6gre ttl 264",
    "link add gre1 type gre remote 192.0.2.88 local 192.0.2.1",
    "link add x type gre remote 192.0.2.2 local 192.0.2.1 ttl 9",
    "link show nosuch",
    "link show gre1 gre2",
    "link del nosuch",
    "link set nosuch up",
    "link set up",
    "link s",
    "link foo",
    "foo",
    "-foo tunnel show",
];

/// What both refuse with the same code, in other words: iproute2 names another tunnel, or prints all
/// that it knows.
const REFUSED_OTHERWISE: &[&str] = &[
    "tunnel add gre1 mode gre remote 192.0.2.88 local 192.0.2.1",
    "link add x type gre garbage",
    "link add x type gre help",
    "tunnel help",
    "link h",
];

#[test]
#[ignore = "for a kernel with ip_gre: cargo xtask test --vm"]
fn words_are_answered_as_by_ip() -> Result<()> {
    let [kernel, ours] = [namespace("kernel")?, namespace("ours")?];
    let daemon = Daemon::start(&ours, &Gateway::without_tunnels().ports(&["u0"]).xdp(Xdp::Off))?;
    for (name, over_ipv6, words) in TUNNELS {
        let six = if *over_ipv6 { "-6 " } else { "" };
        kernel.ip(&format!("{six}tunnel add {name} {words}"))?;
        xgre(&ours, &format!("{six}tunnel add {name} {words}"))?;
    }
    for (_, words) in LINKS {
        kernel.ip(&format!("link add {words}"))?;
        xgre(&ours, &format!("link add {words}"))?;
    }
    for name in UP {
        kernel.ip(&format!("link set {name} up"))?;
        xgre(&ours, &format!("link set {name} up"))?;
    }
    let mut differences = Vec::new();
    tunnels(&kernel, &ours, &mut differences)?;
    devices(&kernel, &ours, &mut differences)?;
    for (words, in_words) in REFUSED
        .iter()
        .map(|words| (words, true))
        .chain(REFUSED_OTHERWISE.iter().map(|w| (w, false)))
    {
        let (theirs, own) = (kernel.attempt(&format!("ip {words}"))?, attempt(&ours, words)?);
        let mut answers =
            [theirs, own].map(|end| (end.status.code(), first_line(&end.output.stderr)));
        if !in_words {
            answers.iter_mut().for_each(|(_, line)| line.clear());
        }
        note(&mut differences, words, &answers[0], &answers[1]);
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    daemon.stop().map(drop)
}

fn namespace(label: &str) -> Result<Namespace> {
    let namespace = Namespace::new(label)?;
    namespace.sysctl("net.ipv6.conf.all.disable_ipv6", 0)?;
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", 0)?;
    wire((&namespace, "u0"), (&namespace, "u1"))?;
    namespace.ip("addr add 192.0.2.1/24 dev u0")?;
    namespace.ip("addr add 2001:db8::1/64 dev u0 nodad")?;
    // The kernel would send router solicitations through its tunnels, and count them.
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", 1)?;
    Ok(namespace)
}

fn note<T: PartialEq + std::fmt::Debug>(
    differences: &mut Vec<String>,
    words: &str,
    kernel: &T,
    ours: &T,
) {
    if kernel != ours {
        differences.push(format!("{words}\n  ip   {kernel:?}\n  xgre {ours:?}"));
    }
}

/// `tunnel show`, plainly, with counters and as JSON. Tunnels of Ethernet `ip tunnel` does not show.
/// All are listed at once: a guest starts few processes a second.
fn tunnels(kernel: &Namespace, ours: &Namespace, differences: &mut Vec<String>) -> Result<()> {
    let of_links = [("l1", false), ("l2", false), ("l3", false), ("l6", true)];
    let all = TUNNELS.iter().map(|(name, over_ipv6, _)| (*name, *over_ipv6)).chain(of_links);
    for (family, of_ipv6) in [("", false), ("-6 ", true)] {
        let names: Vec<_> = all
            .clone()
            .filter(|(_, over_ipv6)| *over_ipv6 == of_ipv6)
            .map(|(name, _)| name)
            .collect();
        for form in ["", "-s ", "-o ", "-d "] {
            let words = format!("{family}{form}tunnel show");
            let texts = [kernel.ip(&words)?, xgre(ours, &words)?];
            for name in &names {
                let [theirs, own] = texts.each_ref().map(|text| tunnel_text(text, name));
                ensure!(!theirs.is_empty(), "ip {words} shows no {name}: {}", texts[0]);
                note(differences, &format!("{words}: {name}"), &theirs, &own);
            }
        }
        let words = format!("{family}-j tunnel show");
        json_of_all(&words, &names, kernel, ours, differences)?;
    }
    Ok(())
}

/// `link show`, in every form.
fn devices(kernel: &Namespace, ours: &Namespace, differences: &mut Vec<String>) -> Result<()> {
    let names = TUNNELS.iter().map(|(name, ..)| *name).chain(LINKS.iter().map(|(name, _)| *name));
    let names: Vec<_> = names.collect();
    for form in ["", "-d ", "-s ", "-d -s -s ", "-br ", "-o -d "] {
        let words = format!("{form}link show");
        let texts = [kernel.ip(&words)?, xgre(ours, &words)?];
        for name in &names {
            let [theirs, own] = texts.each_ref().map(|text| device_text(text, name));
            ensure!(!theirs.is_empty(), "ip {words} shows no {name}: {}", texts[0]);
            note(differences, &format!("{words}: {name}"), &theirs, &own);
        }
    }
    for form in ["-j ", "-j -d ", "-j -s -s ", "-j -br "] {
        json_of_all(&format!("{form}link show"), &names, kernel, ours, differences)?;
    }
    // One by its name, and those of a type.
    for words in ["-d link show dev tap1", "-br link show type ip6gre"] {
        let texts = [kernel.ip(words)?, xgre(ours, words)?];
        for name in ["tap1", "six1", "l6", "gre1"] {
            let [theirs, own] = texts.each_ref().map(|text| device_text(text, name));
            note(differences, &format!("{words}: {name}"), &theirs, &own);
        }
    }
    Ok(())
}

fn json_of_all(
    words: &str,
    names: &[&str],
    kernel: &Namespace,
    ours: &Namespace,
    differences: &mut Vec<String>,
) -> Result<()> {
    let [theirs, own] = [kernel.ip(words)?, xgre(ours, words)?];
    for name in names {
        let found = json(&theirs, &own, name).with_context(|| format!("{words}: {name}"))?;
        differences.extend(found.map(|difference| format!("{words}: {name}: {difference}")));
    }
    Ok(())
}
