//! Tier 2: into a tunnel on the egress of its device, out of it on the ingress of a port.

use gre_ebpf_common::{
    outcome::Outcome::{self, *},
    port::Port,
    tunnel::Flags,
};

use crate::{
    bench::{Context, Hook},
    case::{Case, check},
    decapsulate::{delivers, to_the_gateway},
    encapsulate::fixtures,
    frame::{Packet, encapsulated, frame, inbound, outbound, through, to_device},
    world::{FREE, LAN, PLAIN, Spec, TO_GATEWAY, TUNNELS, WAN, add, change},
};

/// What the kernel writes on a device without ARP does not matter.
const FROM: [u8; 6] = [2, 9, 9, 9, 9, 9];
const TO: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// As the kernel sends it out of the tunnel's device.
fn routed(tunnel: Spec, what: impl Into<String>, packet: &[u8]) -> Case {
    Case::new(what, Hook::TcOut(tunnel.device()), frame(TO, FROM, packet))
}

fn encapsulates(what: impl Into<String>, tunnel: Spec, packet: Packet) -> Case {
    sends(what, tunnel, packet, 1)
}

fn sends(what: impl Into<String>, tunnel: Spec, packet: Packet, segments: u64) -> Case {
    let bytes = packet.bytes();
    routed(tunnel, what, &bytes)
        .sends(Encapsulated, WAN, move |identification| {
            // bpf_redirect_neigh writes the addresses later.
            frame([0; 6], FROM, &encapsulated(tunnel, &packet, identification).bytes())
        })
        .sent(tunnel, segments, bytes.len())
}

#[test]
fn what_the_kernel_routes_into_a_tunnel_is_encapsulated() {
    check(fixtures().into_iter().map(|(what, tunnel, packet)| encapsulates(what, tunnel, packet)));
    let to = |destination| Packet::new([10, 1, 0, 1], destination);
    check([
        encapsulates("TTL 1, from this host", PLAIN, outbound(PLAIN).with(|h| h.time_to_live = 1)),
        encapsulates("options", PLAIN, outbound(PLAIN).with(|h| h.options = [1; 12].into())),
        encapsulates("multicast", PLAIN, to([224, 0, 0, 5])),
        encapsulates("broadcast", PLAIN, to([255; 4])),
        encapsulates("next hop not resolved: the kernel does that", PLAIN, outbound(PLAIN))
            .given(|plane| change::unresolved(plane, TO_GATEWAY)),
        encapsulates("no device map needed", PLAIN, outbound(PLAIN))
            .given(|plane| plane.tx_ports.clear()),
        encapsulates("the device's state is the kernel's to judge", PLAIN, outbound(PLAIN))
            .given(|plane| change::tunnel_flag(plane, PLAIN, Flags::UP, false)),
    ]);
}

#[test]
fn what_cannot_be_sent_is_dropped_and_counted_on_the_tunnel() {
    let packet = outbound(PLAIN);
    let drops =
        |what: &str, outcome: Outcome| routed(PLAIN, what, &packet.bytes()).drops(outcome, PLAIN);
    check([
        drops("no route to the remote", NoRoute)
            .given(|plane| change::tunnel(plane, PLAIN).next_hop = 0),
        drops("a next hop beyond the map", NoRoute)
            .given(|plane| change::tunnel(plane, PLAIN).next_hop = 64),
        drops("no interface", NoRoute)
            .given(|plane| change::next_hop(plane, TO_GATEWAY).ifindex = 0),
        drops("no record", NoRoute).given(|plane| plane.tunnels.retain(|&id, _| id != PLAIN.id)),
        drops("the remote lies in the tunnel", TunnelLoop)
            .given(|plane| change::next_hop(plane, TO_GATEWAY).ifindex = PLAIN.device()),
    ]);
}

#[test]
fn what_is_not_ip_is_for_the_daemon_and_dropped_without_one() {
    let packet = outbound(PLAIN).bytes();
    let mut cases = Vec::new();
    for ethertype in [0x0806u16, 0x8847, 0x8848, 0x88cc] {
        let mut bytes = frame(TO, FROM, &packet);
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        cases.push(
            Case::new(format!("{ethertype:#06x}"), Hook::TcOut(PLAIN.device()), bytes)
                .drops(TunnelProtocol, PLAIN),
        );
    }
    check(cases);
}

#[test]
fn longer_than_the_underlay_takes_is_dropped_and_counted() {
    let narrow = |plane: &mut _| change::next_hop(plane, TO_GATEWAY).mtu = 1400;
    let mut cases = Vec::new();
    for tunnel in TUNNELS {
        let fits = 1400 - tunnel.overhead();
        for len in [fits - 1, fits] {
            let packet = outbound(tunnel).long(len);
            cases.push(encapsulates(format!("{len}"), tunnel, packet).given(narrow));
        }
        let packet = outbound(tunnel).long(fits + 1).bytes();
        cases.push(
            routed(tunnel, "a byte more", &packet).drops(TooBigForUnderlay, tunnel).given(narrow),
        );
    }
    check(cases);
}

#[test]
fn a_super_packet_goes_whole_and_counts_as_its_segments() {
    let context = Context { segments: 3, ..Context::default() };
    let packet = || outbound(PLAIN).long(3000);
    let wide = |plane: &mut _| change::next_hop(plane, TO_GATEWAY).mtu = 9000;
    check([
        sends("three segments", PLAIN, packet(), 3).context(context).given(wide),
        routed(PLAIN, "without a segment size it is one packet", &packet().bytes())
            .drops(TooBigForUnderlay, PLAIN)
            .context(context),
    ]);
}

/// What fits is refused by the kernel, which cannot tell the protocol of the segments here, and only
/// then.
#[test]
fn of_a_super_packet_the_longest_segment_must_fit() {
    let udp = || outbound(PLAIN).long(3000);
    // Data offset: words of TCP header.
    let tcp = |words: u8| {
        let mut packet = udp().with(|header| header.protocol = 6.into());
        packet.payload[12] = words << 4;
        packet
    };
    let fits = |what: &str, packet: Packet, segment_size: u32| {
        let context = Context { segments: 3, segment_size, ..Context::default() };
        let case = |what: String| routed(PLAIN, what, &packet.bytes());
        let longer = Context { segment_size: segment_size + 1, ..context };
        [
            case(format!("{what}, fits")).context(context).aborts(PLAIN),
            case(format!("{what}, a byte more")).context(longer).drops(TooBigForUnderlay, PLAIN),
        ]
    };
    check(fits("UDP", udp(), 1476 - 28));
    check(fits("TCP", tcp(5), 1476 - 40));
    check(fits("TCP with timestamps", tcp(8), 1476 - 52));
    check(fits("TCP with all options", tcp(15), 1476 - 80));
}

#[test]
fn a_merged_packet_comes_out_whole_and_counts_as_its_segments() {
    let inner = inbound(PLAIN).long(3000).bytes();
    let out = to_device(PLAIN, &inner);
    check([Case::new("three segments", Hook::TcIn(WAN), through(PLAIN, &inner))
        .sends(ToDevice, PLAIN.peer(), move |_| out.clone())
        .received(PLAIN, 3, 3000)
        .context(Context { segments: 3, ..Context::default() })]);
}

#[test]
fn d15_a_tunnel_inside_itself_sends_nothing() {
    let packet = outbound(PLAIN);
    check([Hook::TcOut(PLAIN.device()), Hook::TcOut(PLAIN.peer())].map(|hook| {
        Case::new("nested", hook, frame(TO, FROM, &packet.bytes()))
            .drops(Nested, PLAIN)
            .given(|plane| change::tunnel_flag(plane, PLAIN, Flags::NESTED, true))
    }));
}

/// Each segment would have the same number, and the whole packet's checksum: the device cuts it first.
#[test]
fn offload1_a_super_packet_with_numbers_or_checksums_is_for_the_device_to_cut() {
    let packet = outbound(PLAIN).long(3000).bytes();
    let context = Context { segments: 3, segment_size: 1000, ..Context::default() };
    check([Spec::new(FREE).with_sequence(), Spec::new(FREE).with_checksums()].map(|tunnel| {
        routed(tunnel, "three segments", &packet)
            .passes(DeviceFinishes)
            .context(context)
            .given(move |plane| add(plane, tunnel))
    }));
}

#[test]
fn pmtu1_what_the_path_takes_is_all_that_is_sent_in_one_piece() {
    let known =
        |path_mtu: u16| move |plane: &mut _| change::tunnel(plane, PLAIN).path_mtu = path_mtu;
    let long = |len: u16| outbound(PLAIN).long(len);
    let drops = |what: &str, len: u16| {
        routed(PLAIN, what, &long(len).bytes()).drops(TooBigForUnderlay, PLAIN)
    };
    check([
        encapsulates("the path's", PLAIN, long(1300 - 24)).given(known(1300)),
        drops("a byte more", 1300 - 24 + 1).given(known(1300)),
        encapsulates("the underlay's, where the path takes more", PLAIN, long(1476))
            .given(known(9000)),
        drops("a byte more than the underlay's", 1477).given(known(9000)),
    ]);
}

/// Of a protocol that the kernel can neither segment behind GRE nor tell from one that it can.
#[test]
fn a_super_packet_that_the_kernel_refuses_to_change_is_aborted() {
    let context = Context { segments: 2, segment_size: 1000, ..Context::default() };
    check([routed(PLAIN, "no protocol", &outbound(PLAIN).long(2000).bytes())
        .context(context)
        .aborts(PLAIN)]);
}

#[test]
fn a_device_that_is_no_tunnels_passes_everything_on() {
    let packet = frame(TO, FROM, &outbound(PLAIN).bytes());
    check([
        Case::new("not in the map", Hook::TcOut(LAN + 1), packet.clone()).passes(UnknownPort),
        Case::new("a port", Hook::TcOut(LAN), packet.clone()).passes(TunnelDown),
        Case::new("a tunnel beyond the map", Hook::TcOut(PLAIN.device()), packet)
            .passes(TunnelDown)
            .given(|plane| {
                plane.ports.insert(PLAIN.device(), Port::device_of(8, PLAIN.device()));
            }),
    ]);
}

#[test]
fn out_of_a_tunnel_everything_goes_to_the_device_unchanged() {
    let hook = Hook::TcIn(WAN);
    let local = to_the_gateway();
    check(local.iter().map(|(what, tunnel, inner)| delivers(what.clone(), hook, *tunnel, inner)));
    let inner = inbound(PLAIN);
    let case = |what: &str| Case::new(what, hook, through(PLAIN, &inner.bytes()));
    check([
        delivers("whatever the route says", hook, PLAIN, &inner),
        delivers("longer than the device's MTU", hook, PLAIN, &inner.clone().long(1480)),
        delivers("no device map needed", hook, PLAIN, &inner).given(|plane| plane.tx_ports.clear()),
        delivers("forwarding off: the kernel's to judge", hook, PLAIN, &inner)
            .given(|plane| change::tunnel_flag(plane, PLAIN, Flags::FORWARDING, false)),
        delivers(
            "rp_filter: the kernel's to judge",
            hook,
            PLAIN,
            &Packet::new([8, 8, 8, 8], [10, 1, 0, 2]),
        )
        .given(|plane| change::tunnel_flag(plane, PLAIN, Flags::REVERSE_PATH_STRICT, true)),
        case("down")
            .passes(TunnelDown)
            .given(|plane| change::tunnel_flag(plane, PLAIN, Flags::UP, false)),
        case("a device beyond the map")
            .passes(TunnelDown)
            .given(|plane| change::tunnel(plane, PLAIN).device = 64),
    ]);
}
