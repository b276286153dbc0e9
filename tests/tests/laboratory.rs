//! The laboratory by itself, with the kernel's own routing and no xgre: what the other suites take
//! for granted. The topology is drawn in `tests::topology`.

use std::{fs, path::Path};

use anyhow::Result;
use etherparse::PacketBuilder;
use tests::{
    capture::{Capture, Judged, Kept, Unjudged, file_header, judge_kept, record},
    namespace::Namespace,
    topology::{Lab, PC1, PC2, R1_WAN, R2_WAN, wire},
    traffic::{Flow, Load, ping_all, ping_exact, ping_none, tcp},
};

#[test]
fn gateways_reach_each_other_and_hosts_do_not() -> Result<()> {
    let lab = Lab::new()?;
    ping_all(&lab.r1, R2_WAN, 3)?;
    ping_all(&lab.r2, R1_WAN, 3)?;
    ping_none(&lab.pc1, PC2)
}

#[test]
fn hosts_reach_each_other_over_the_bare_underlay_once_it_has_routes() -> Result<()> {
    let lab = Lab::new()?;
    lab.route_without_tunnel()?;
    ping_all(&lab.pc1, PC2, 20)?;
    ping_all(&lab.pc2, PC1, 20)?;
    tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, Flow::ToServer)?;
    tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, Flow::ToClient)?;
    Ok(())
}

#[test]
fn frames_are_wire_sized_and_their_checksums_are_right() -> Result<()> {
    let lab = Lab::new()?;
    lab.route_without_tunnel()?;
    // Where they leave: on arrival the router's GRO has merged some before tcpdump sees them.
    let capture = Capture::start(&lab.router, "to-r2", &format!("dst host {PC2}"))?;
    ping_all(&lab.pc1, PC2, 2)?;
    tcp(&lab.pc1, &lab.pc2, PC2, Load::OneMegabyte, Flow::ToServer)?;
    let frames = capture.finish(500)?;
    frames.no_complaints()?;
    let lengths = frames.fields(&["ip.len"])?;
    let lengths = lengths.iter().map(|row| Ok(row[0].parse()?)).collect::<Result<Vec<u32>>>()?;
    assert_eq!(lengths.iter().max(), Some(&1500));
    Ok(())
}

#[test]
fn a_wrong_checksum_is_complained_about() -> Result<()> {
    let [a, b] = [Namespace::new("a")?, Namespace::new("b")?];
    wire((&a, "eth0"), (&b, "eth0"))?;
    a.ip("addr add 192.0.2.1/24 dev eth0")?;
    b.ip("addr add 192.0.2.2/24 dev eth0")?;
    // Without `like_wire` nobody computes the checksum of a TCP segment: tshark must see that.
    let capture = Capture::start(&b, "eth0", "tcp")?;
    tcp(&a, &b, "192.0.2.2", Load::OneMegabyte, Flow::ToServer)?;
    let frames = capture.finish_unjudged(Unjudged::WrongOnPurpose, 10, |_| true)?;
    let error = frames.no_complaints().unwrap_err();
    assert!(error.to_string().contains("complains"), "{error}");
    Ok(())
}

/// GRE with a checksum and eight bytes of a protocol for experiments, between two hosts.
fn gre(checksum: u16) -> Vec<u8> {
    let mut packet =
        vec![0x45, 0, 0, 36, 0, 1, 0, 0, 64, 47, 0xf6, 0xa6, 192, 0, 2, 1, 192, 0, 2, 2];
    packet.extend([0x80, 0, 0x88, 0xb5]);
    packet.extend(checksum.to_be_bytes());
    packet.extend([0; 10]);
    [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &packet].concat()
}

/// A segment whose checksum is zero, and one that is Linux's way to write that; another one is wrong.
#[test]
fn a_tcp_checksum_of_all_ones_is_one_of_zero() -> Result<()> {
    let at = 14 + 20 + 16;
    let segment = |payload: [u8; 2]| -> Result<Vec<u8>> {
        let mut segment = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(1024, 1025, 1, 512)
            .write(&mut segment, &payload)?;
        Ok(segment)
    };
    // What the sum lacks to be zero.
    let payload = segment([0; 2])?[at..at + 2].try_into()?;
    let zero = segment(payload)?;
    assert_eq!(zero[at..at + 2], [0; 2]);
    let mut ones = zero.clone();
    ones[at..at + 2].fill(0xff);
    let mut wrong = segment([0; 2])?;
    wrong[at..at + 2].fill(0xff);

    let scratch = Namespace::new("sums")?;
    let judged = |name: &str, frame: &[u8]| {
        let directory = scratch.scratch().join(name);
        fs::create_dir(&directory)?;
        let mut kept = Kept::new(&directory)?;
        fs::write(&kept.file, [&file_header()[..], &record(frame)].concat())?;
        kept.cell(name, 1);
        kept.finish()?;
        judge_kept(&directory)
    };
    judged("zero", &zero)?;
    judged("ones", &ones)?;
    let error = format!("{:#}", judged("wrong", &wrong).unwrap_err());
    assert!(error.contains("tshark complains"), "{error}");
    Ok(())
}

/// What guests keep is judged as what is captured here.
#[test]
fn of_kept_captures_exactly_the_known_frames_are_wrong() -> Result<()> {
    // The sum of 0x8000 and 0x88b5, inverted.
    let (right, wrong) = (gre(!0x08b6), gre(0x1234));
    let scratch = Namespace::new("kept")?;
    let judged = |name: &str, cells: &[(&str, usize)], wrong_sums: &[u64], frames: &[&Vec<u8>]| {
        let directory = scratch.scratch().join(name);
        fs::create_dir(&directory)?;
        let mut kept = Kept::new(&directory)?;
        let records = frames.iter().flat_map(|frame| record(frame));
        fs::write(&kept.file, file_header().into_iter().chain(records).collect::<Vec<_>>())?;
        cells.iter().for_each(|(name, count)| kept.cell(name, *count));
        wrong_sums.iter().for_each(|number| kept.wrong_sum(*number));
        kept.finish()?;
        judge_kept(&directory)
    };
    let all = judged("all", &[("a", 1), ("b", 2)], &[2], &[&right, &wrong, &right])?;
    assert_eq!(all, Judged { captures: 1, cells: 2, frames: 3, wrong_sums: 1 });
    for (name, cells, wrong_sums, frames, said) in [
        ("unknown", &[("a", 2)][..], &[][..], &[&right, &wrong][..], "tshark complains"),
        ("other", &[("a", 2)], &[1], &[&right, &wrong], "tshark complains"),
        ("more", &[("a", 2)], &[1, 2], &[&right, &wrong], "tshark complains"),
        ("cell", &[("a", 1), ("b", 0)], &[], &[&right], "nothing of b is in it"),
        ("count", &[("a", 2)], &[], &[&right], "there are 1 frames"),
        ("none", &[], &[], &[], "there is nothing in it"),
    ] {
        let error = format!("{:#}", judged(name, cells, wrong_sums, frames).unwrap_err());
        assert!(error.contains(said), "{name}: {error}");
    }
    let empty = scratch.scratch().join("empty");
    fs::create_dir(&empty)?;
    assert!(judge_kept(&empty).unwrap_err().to_string().contains("no capture"));
    Ok(())
}

#[test]
fn a_packet_larger_than_a_link_is_answered_with_its_mtu() -> Result<()> {
    let lab = Lab::new()?;
    lab.route_without_tunnel()?;
    lab.r1.ip("link set wan mtu 1400")?;
    assert!(ping_exact(&lab.pc1, PC2, 1372)?.contains("1 received"));
    let refused = ping_exact(&lab.pc1, PC2, 1373)?;
    assert!(refused.contains("mtu = 1400") || refused.contains("mtu=1400"), "{refused}");
    Ok(())
}

#[test]
fn a_namespace_disappears_with_its_last_handle_and_so_does_what_it_ran() -> Result<()> {
    let namespace = Namespace::new("short-lived")?;
    let file = Path::new("/run/netns").join(namespace.name());
    let scratch = namespace.scratch().to_owned();
    let sleeper = namespace.spawn("sleep", &["600"])?;
    let process = Path::new("/proc").join(sleeper.process.id().to_string());

    drop(namespace);
    assert!(file.exists() && process.exists(), "the process still needs its namespace");
    drop(sleeper);
    assert!(!file.exists() && !process.exists() && !scratch.exists());
    Ok(())
}

#[test]
fn namespaces_of_a_run_that_was_killed_are_removed_and_others_are_not() -> Result<()> {
    let own = Namespace::new("own")?;
    // The highest process id there can be is below 2^22.
    let stale = "xgre-4194304-0-stale";
    let foreign = format!("other-{}", own.name());
    own.run(&format!("ip netns add {stale}"))?;
    own.run(&format!("ip netns add {foreign}"))?;

    tests::namespace::remove_stale();
    let netns = Path::new("/run/netns");
    let left = [stale, &foreign, own.name()].map(|name| netns.join(name).exists());
    own.run(&format!("ip netns del {foreign}"))?;
    assert_eq!(left, [false, true, true]);
    Ok(())
}
