//! The slow path's sockets and buffers against the kernel. Each test has a network namespace of its
//! own, made for a thread that ends with it:
//!
//! ```text
//!  veth0 10.9.0.1/24, fd09::1/64 ═══ veth1, on which the test reads and writes frames
//! ```

#[path = "slowpath/bpf.rs"]
mod bpf;
#[path = "slowpath/wire.rs"]
mod wire;

use std::{
    collections::BTreeMap, future::Future, io::ErrorKind, panic::resume_unwind, thread,
    time::Duration,
};

use etherparse::{Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use gre_ebpf_common::{
    event::Kind,
    tunnel::{Ends, Expected, Outer, Tunnel},
};
use gre_userspace::{
    maps::mapping::Mapping,
    slowpath::{
        answer::{self, Complaint},
        fragment,
        handle::{PathMtu, SlowPath},
        io::{Inputs, Outputs, errors::IcmpErrors, events::Events, send::Sender},
        oversize::Policy,
        packet,
        pipeline::{self, Stamp},
        tables::{Device, Sources, TunnelEntry},
        task::{self, Shared},
    },
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::Uid,
};
use tokio::{sync::mpsc, time::timeout};

use self::wire::{MAC0, MAC1, Wire, framed, ip};

const LOCAL: [u8; 4] = [10, 9, 0, 1];
const REMOTE: [u8; 4] = [10, 9, 0, 2];
const LOCAL6: [u8; 16] = [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const REMOTE6: [u8; 16] = [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn an_outer_packet_and_its_fragments_go_where_the_kernel_routes_them() {
    in_namespace(|| async {
        let wire = Wire::new();
        let packet = udp_v4(LOCAL, 1300);
        let fragments = fragment::ipv4(&udp_v4(LOCAL, 3000), 1500).unwrap();
        assert_eq!(fragments.len(), 3);

        let sender = Sender::open().unwrap();
        let sent: Vec<_> = [&[packet][..], &fragments].concat();
        for packet in &sent {
            sender.send(packet).unwrap();
        }

        let expected: Vec<_> = sent.iter().map(|packet| framed(MAC1, MAC0, packet)).collect();
        assert_eq!(wire.received_on("veth1", &REMOTE, expected.len()), expected);
    });
}

#[test]
fn an_outer_ipv6_packet_and_its_fragments_go_where_the_kernel_routes_them() {
    in_namespace(|| async {
        let wire = Wire::new();
        let packet = udp_v6(1300);
        let fragments = fragment::ipv6(&udp_v6(3000), 1500, 7).unwrap();
        assert_eq!(fragments.len(), 3);

        let sender = Sender::open().unwrap();
        let sent: Vec<_> = [&[packet][..], &fragments].concat();
        for packet in &sent {
            sender.send(packet).unwrap();
        }

        let expected: Vec<_> = sent.iter().map(|packet| framed(MAC1, MAC0, packet)).collect();
        assert_eq!(wire.received_on("veth1", &REMOTE6, expected.len()), expected);
    });
}

#[test]
fn the_kernel_fills_in_an_unspecified_source() {
    in_namespace(|| async {
        let wire = Wire::new();

        Sender::open().unwrap().send(&udp_v4([0; 4], 20)).unwrap();

        // The checksum of IPv4 is right; that of UDP was made for another source.
        let frame = wire.received_on("veth1", &REMOTE, 1).remove(0);
        assert_eq!(frame[26..30], LOCAL);
        assert_eq!(frame[24..26], udp_v4(LOCAL, 20)[10..12]);
    });
}

#[test]
fn what_cannot_be_sent_is_an_error() {
    in_namespace(|| async {
        let _wire = Wire::new();
        let sender = Sender::open().unwrap();
        let kind = |packet: &[u8]| sender.send(packet).unwrap_err().kind();
        assert_eq!(kind(&[0; 20]), ErrorKind::InvalidInput);
        assert_eq!(kind(&[]), ErrorKind::InvalidInput);
        let mut unroutable = udp_v4(LOCAL, 20);
        unroutable[16] = 99;
        assert_eq!(kind(&unroutable), ErrorKind::NetworkUnreachable);
        let too_long = sender.send(&udp_v4(LOCAL, 1473)).unwrap_err();
        assert_eq!(too_long.raw_os_error(), Some(nix::libc::EMSGSIZE));
        assert_eq!(
            sender.send_frame(9999, &[0; 60]).unwrap_err().raw_os_error(),
            Some(nix::libc::ENXIO)
        );
        assert_eq!(sender.send_frame(1, &[0; 13]).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_frame_sent_out_of_the_peer_arrives_on_the_device() {
    in_namespace(|| async {
        let wire = Wire::new();
        let frame = framed(MAC0, MAC1, &udp_v4(LOCAL, 1400));

        Sender::open().unwrap().send_frame(wire.ifindex("veth1"), &frame).unwrap();

        assert_eq!(wire.received_on("veth0", &REMOTE, 1), [frame]);
    });
}

#[test]
fn icmp_errors_are_read_and_nothing_else() {
    in_namespace(|| async {
        let wire = Wire::new();
        let mut errors = IcmpErrors::v4().unwrap();
        let mut echo = Vec::new();
        PacketBuilder::ipv4(REMOTE, LOCAL, 64)
            .icmpv4_echo_reply(1, 2)
            .write(&mut echo, &[])
            .unwrap();
        let mut error = Vec::new();
        let header = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
        PacketBuilder::ipv4(REMOTE, LOCAL, 64)
            .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(header))
            .write(&mut error, &udp_v4(LOCAL, 20))
            .unwrap();

        wire.send("veth1", &framed(MAC0, MAC1, &echo));
        wire.send("veth1", &framed(MAC0, MAC1, &error));

        let first = timeout(PATIENCE, errors.next()).await.unwrap().unwrap();
        assert_eq!(first, error);
    });
}

#[test]
fn icmpv6_errors_are_read_and_nothing_else() {
    in_namespace(|| async {
        let wire = Wire::new();
        let mut errors = IcmpErrors::v6().unwrap().expect("a kernel with IPv6");
        let builder = || PacketBuilder::ipv6(REMOTE6, LOCAL6, 64);
        let mut echo = Vec::new();
        builder().icmpv6_echo_reply(1, 2).write(&mut echo, &[]).unwrap();
        let mut port = Vec::new();
        let unreachable = icmpv6::DestUnreachableCode::Address;
        builder()
            .icmpv6(Icmpv6Type::DestinationUnreachable(unreachable))
            .write(&mut port, &udp_v6(20))
            .unwrap();

        wire.send("veth1", &framed(MAC0, MAC1, &echo));
        wire.send("veth1", &framed(MAC0, MAC1, &port));

        let first = timeout(PATIENCE, errors.next()).await.unwrap().unwrap();
        assert_eq!(first, port[40..]);
    });
}

#[test]
fn what_a_program_hands_up_arrives_whole() {
    in_namespace(|| async {
        let (array, program) = bpf::hand_up(Kind::Oversize, 7, 9);
        let mut events = Events::open(array).unwrap();

        // 61 bytes: the kernel pads to eight.
        for len in [61, 1514, 3000] {
            let frame: Vec<u8> = (0..len).map(|i| i as u8).collect();
            program.run(&frame);

            let batch = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
            assert_eq!((batch.packets.len(), batch.lost, batch.malformed), (1, 0, 0));
            let packet = &batch.packets[0];
            assert_eq!((packet.kind, packet.tunnel, packet.ifindex), (Kind::Oversize, 7, 9));
            assert_eq!(packet.frame, frame);
        }
    });
}

#[test]
fn what_does_not_fit_the_buffer_is_counted_as_lost() {
    in_namespace(|| async {
        // On one CPU, and so through one buffer.
        bpf::stay_on_this_cpu();
        let (array, program) = bpf::hand_up(Kind::OuterFragment, 7, 9);
        let mut events = Events::open(array).unwrap();
        let frame = [7; 1514];

        (0..400).for_each(|_| program.run(&frame));
        let first = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        // The kernel tells of losses in front of the next event that is not lost.
        program.run(&frame);
        let second = timeout(PATIENCE, events.next()).await.unwrap().unwrap();

        assert!(first.packets.len() > 100, "{}", first.packets.len());
        assert_eq!((first.lost, second.packets.len()), (0, 1));
        assert_eq!(first.packets.len() as u64 + second.lost, 400);
    });
}

#[test]
fn the_task_answers_a_packet_that_is_too_long_and_learns_path_mtus() {
    in_namespace(|| async {
        let wire = Wire::new();
        let (array, program) = bpf::hand_up(Kind::Oversize, 7, 9);
        let shared = Shared::new(SlowPath::new(0));
        shared.lock().set_tunnels(BTreeMap::from([(7, entry())]));
        let inputs = Inputs::open(Events::open(array).unwrap()).unwrap();
        let outputs = Outputs::open().unwrap();
        let sequences = Mapping::anonymous(4096).unwrap();
        let (sender, mut path_mtus) = mpsc::unbounded_channel();
        let task = tokio::spawn(task::run(shared.clone(), inputs, outputs, sequences, sender));

        // A router tells that the path takes no more than 1400 bytes.
        let quote = pipeline::encapsulate(&entry(), 0x0800, &udp_v4(LOCAL, 20), Stamp::default());
        let mut error = Vec::new();
        let header = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
        PacketBuilder::ipv4(REMOTE, LOCAL, 64)
            .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(header))
            .write(&mut error, &quote.unwrap())
            .unwrap();
        wire.send("veth1", &framed(MAC0, MAC1, &error));
        let learned = timeout(PATIENCE, path_mtus.recv()).await.unwrap().unwrap();
        let tunnel = "tunnel0".to_owned();
        assert_eq!(learned, PathMtu { tunnel, remote: REMOTE.into(), mtu: Some(1400) });

        // The inner packet's sender is behind veth1, and is told of the tunnel's payload MTU.
        let mut offender = udp_v4(REMOTE, 1376 - 28 + 1);
        offender[6] = 0x40;
        program.run(&framed(MAC0, MAC1, &offender));
        let answered = async {
            while shared.lock().counts.happened().all(|(label, ..)| label != "answered-too-big") {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, answered).await.unwrap();
        let frames = wire.received_on("veth1", &REMOTE, 1);
        let mut expected = answer::ipv4(Complaint::TooBig { mtu: 1376 }, &offender, LOCAL).unwrap();
        // The kernel gives it an identification, and the header a checksum to match.
        expected[4..6].copy_from_slice(&frames[0][18..20]);
        packet::seal_ipv4(&mut expected[..20]);
        assert_eq!(frames[0], framed(MAC1, MAC0, &expected));
        task.abort();
    });
}

/// From `LOCAL` to `REMOTE`, pmtudisc, over an underlay with an MTU of 1500 bytes.
fn entry() -> TunnelEntry {
    let ends = Ends::v4(u32::from_ne_bytes(LOCAL), u32::from_ne_bytes(REMOTE));
    TunnelEntry {
        record: Tunnel::new(Outer { ttl: 64, ..Outer::new(ends) }, Expected::default()),
        name: "tunnel0".to_owned(),
        local: LOCAL.into(),
        remote: REMOTE.into(),
        leg: false,
        received_key: None,
        sent_key: None,
        underlay_mtu: 1500,
        device: Device::default(),
        policy: Policy { pmtudisc: true, ignore_df: false },
        sources: Sources::default(),
    }
}

fn udp_v4(source: [u8; 4], payload: usize) -> Vec<u8> {
    let mut header = etherparse::Ipv4Header::new(0, 64, 17.into(), source, REMOTE).unwrap();
    header.identification = 0x1234;
    header.dont_fragment = false;
    let mut packet = Vec::new();
    let payload: Vec<_> = (0..payload).map(|i| i as u8).collect();
    PacketBuilder::ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        .udp(1, 2)
        .write(&mut packet, &payload)
        .unwrap();
    packet
}

fn udp_v6(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let payload: Vec<_> = (0..payload).map(|i| i as u8).collect();
    PacketBuilder::ipv6(LOCAL6, REMOTE6, 64).udp(1, 2).write(&mut packet, &payload).unwrap();
    packet
}

/// Runs `test` in a thread with a network namespace and a runtime of its own.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    assert!(
        Uid::effective().is_root(),
        "these tests make network namespaces: run them as root, e.g. with `sudo -E cargo test`"
    );
    let result = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test().await });
    })
    .join();
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}
