//! What can become of a packet: every packet that enters a program leaves through exactly one of
//! these, and each has a counter. Codes are append-only: pinned counters outlive the program.

/// What a program does with a packet that met this outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It went on its way.
    Forward,
    /// It ends here, as it should: the daemon has a copy, or it was for xgre itself.
    Consume,
    /// Handed on untouched to the next tier, and so to the kernel.
    Pass,
    /// Dropped for this reason.
    Drop,
    /// Dropped because a step failed after the first write: tracepoints of the kernel tell.
    Abort,
}

/// The direction of the tunnel on which an outcome is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards this host: decapsulation.
    Receive,
    /// Out of this host: encapsulation.
    Transmit,
}

macro_rules! outcomes {
    ($($name:ident = $code:literal, $label:literal, $disposition:ident, $direction:ident, $help:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Outcome {
            $(#[doc = $help] $name = $code,)*
        }

        impl Outcome {
            /// All of them, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in output and metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// What it means and what to look at, in one sentence.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$name => $help,)*
                }
            }

            #[inline(always)]
            pub const fn disposition(self) -> Disposition {
                match self {
                    $(Self::$name => Disposition::$disposition,)*
                }
            }

            pub const fn direction(self) -> Direction {
                match self {
                    $(Self::$name => Direction::$direction,)*
                }
            }
        }
    };
}

outcomes! {
    Encapsulated = 0, "encapsulated", Forward, Transmit,
        "Encapsulated and sent to the tunnel's remote.";
    Decapsulated = 1, "decapsulated", Forward, Receive,
        "Decapsulated and sent to the inner packet's next hop.";
    Transit = 2, "transit", Forward, Receive,
        "Decapsulated from one tunnel and encapsulated into another.";
    ToDevice = 3, "to-device", Forward, Receive,
        "Decapsulated and handed to the tunnel's device: for this host, or for the kernel to route.";
    Keepalive = 4, "keepalive", Consume, Receive,
        "An empty packet of protocol type 0, with which a peer answers a keepalive.";
    Reassembling = 5, "reassembling", Consume, Receive,
        "A fragment of a tunnel's packet, given to the daemon, which puts it together.";
    Unwrapping = 6, "unwrapping", Consume, Receive,
        "A tunnel's packet that only the daemon can decapsulate: it has IP options, or is very short.";
    Oversize = 7, "oversize", Consume, Transmit,
        "Longer than the path takes: the daemon fragments it, or answers with ICMP.";

    UnknownPort = 8, "unknown-port", Pass, Transmit,
        "The interface is not a port of xgre.";
    OtherHost = 9, "other-host", Pass, Transmit,
        "The frame is not addressed to the port's MAC address (broadcast, multicast, another host).";
    NotIp = 10, "not-ip", Pass, Transmit,
        "The frame carries neither IPv4 nor IPv6.";
    Ipv4Options = 11, "ipv4-options", Pass, Transmit,
        "The IPv4 header has options: the kernel handles it.";
    Ipv4Malformed = 12, "ipv4-malformed", Pass, Transmit,
        "The IPv4 header's version, length or checksum is wrong: the kernel drops and counts it.";
    NoTunnelRoute = 13, "no-tunnel-route", Pass, Transmit,
        "No route into a tunnel leads to the destination: the kernel routes it.";
    ForwardingOff = 14, "forwarding-off", Pass, Transmit,
        "Forwarding is off on the receiving interface: see net.ipv4.ip_forward and net.ipv4.conf.IF.forwarding.";
    TtlExpiring = 15, "ttl-expiring", Pass, Transmit,
        "The TTL would reach zero: the kernel answers with ICMP time exceeded.";
    TooBig = 16, "too-big", Pass, Transmit,
        "Larger than the next device's MTU: TC delivers it, or the kernel fragments it or answers with ICMP.";
    NextHopUnresolved = 17, "next-hop-unresolved", Pass, Transmit,
        "The next hop's MAC address is not known yet, and the kernel resolves it; or the tunnel respects rules of netfilter.";
    TunnelDown = 18, "tunnel-down", Pass, Receive,
        "The tunnel's device is down: `ip link set NAME up`.";
    OuterFragment = 19, "outer-fragment", Pass, Receive,
        "A fragment of a GRE packet: it must be reassembled before it can be decapsulated.";
    NoTunnel = 20, "no-tunnel", Pass, Receive,
        "GRE to this host from an address that no tunnel has as its remote: see `xgre tunnel show`.";
    ReversePath = 21, "reverse-path", Pass, Transmit,
        "rp_filter is on and the source is not routed back to this interface: the kernel decides.";
    EgressWithoutXdp = 22, "egress-without-xdp", Pass, Transmit,
        "Packets cannot be redirected out of the next hop's interface: see `xgre port show`.";
    NoHeadroom = 23, "no-headroom", Pass, Transmit,
        "The driver left too little room before the frame for the outer header: TC encapsulates it.";
    NotUnicast = 24, "not-unicast", Pass, Transmit,
        "The source or destination is multicast, broadcast or loopback: the kernel handles it.";
    Pptp = 25, "pptp", Pass, Receive,
        "Version 1 of GRE (PPTP) between a tunnel's addresses: not a tunnel of ours, the host gets it.";
    ForeignProtocol = 26, "foreign-protocol", Pass, Receive,
        "WCCP or ERSPAN between a tunnel's addresses: not a tunnel of ours, the host gets it.";
    Ipv6Malformed = 27, "ipv6-malformed", Pass, Transmit,
        "The IPv6 header's version or length is wrong: the kernel drops and counts it.";
    Ipv6Extension = 28, "ipv6-extension", Pass, Transmit,
        "An IPv6 extension header that the fast path does not skip: the kernel handles it.";
    VlanUnknown = 29, "vlan-unknown", Pass, Transmit,
        "The frame has VLAN tags of which no VLAN device on this port is a port of xgre.";
    DeviceFinishes = 30, "device-finishes", Pass, Transmit,
        "The tunnel's device first cuts it and does its checksums; then it comes again and is encapsulated.";
    Detour = 31, "detour", Pass, Transmit,
        "The program for all but the plainest packets is missing: the kernel handles this one.";

    GreTruncated = 32, "gre-truncated", Drop, Receive,
        "The packet ends inside the GRE header: the sender or something on the path cut it short.";
    GreVersion = 33, "gre-version", Drop, Receive,
        "The version is neither 0 nor 1: the sender does not speak GRE.";
    GreRouting = 34, "gre-routing", Drop, Receive,
        "The routing bit of RFC 1701 is set: source routes are never followed.";
    GreReserved = 35, "gre-reserved-bits", Drop, Receive,
        "Reserved bit 4 or 5 is set, which RFC 2784 says to discard.";
    KeyMissing = 36, "key-missing", Drop, Receive,
        "The peer sends no key but the tunnel has one: set the same `key` at both ends.";
    KeyUnexpected = 37, "key-unexpected", Drop, Receive,
        "The peer sends a key but the tunnel has none: set the same `key` at both ends.";
    KeyMismatch = 38, "key-mismatch", Drop, Receive,
        "The peer sends another key than the tunnel's: set the same `key` at both ends.";
    ChecksumUnexpected = 39, "checksum-unexpected", Drop, Receive,
        "The peer sends checksums but the tunnel expects none: turn `csum` off at the peer.";
    ProtocolUnsupported = 40, "protocol-unsupported", Drop, Receive,
        "The packet's protocol type is no EtherType, so that no device can receive it.";
    InnerTruncated = 41, "inner-truncated", Drop, Receive,
        "The packet ends inside the inner header, or before the inner packet's own length.";
    InnerMalformed = 42, "inner-malformed", Drop, Receive,
        "The inner packet's version or header length is wrong.";
    InnerChecksum = 43, "inner-checksum", Drop, Receive,
        "The inner IPv4 header's checksum is wrong.";
    InnerMartian = 44, "inner-martian", Drop, Receive,
        "The inner source address is one that must not be forwarded: loopback, multicast, 0/8, 240/4.";
    Loop = 45, "loop", Drop, Receive,
        "The inner destination is routed back into the tunnel it came from: check the routes at both ends.";
    TooBigForUnderlay = 46, "too-big-for-underlay", Drop, Transmit,
        "Encapsulated it exceeds the underlay's MTU: lower the tunnel's, `ip link set NAME mtu N`.";
    NoRoute = 47, "no-route", Drop, Transmit,
        "No route leads to the tunnel's remote: `ip route get REMOTE`.";
    TunnelProtocol = 48, "tunnel-protocol", Drop, Transmit,
        "The kernel sent something other than IP into the tunnel, and the daemon was not there to take it.";
    TunnelLoop = 49, "tunnel-loop", Drop, Transmit,
        "The route to the tunnel's remote leads into the tunnel itself: `ip route get REMOTE`.";
    Aborted = 50, "aborted", Abort, Transmit,
        "A step failed after the packet had been changed: a fault of xgre, please report it.";
    ChecksumMissing = 51, "checksum-missing", Drop, Receive,
        "The peer sends no checksums but the tunnel expects them: turn `csum` on at the peer.";
    ChecksumWrong = 52, "checksum-wrong", Drop, Receive,
        "The GRE checksum is wrong: something on the path damages packets.";
    SequenceMissing = 53, "sequence-missing", Drop, Receive,
        "The peer sends no sequence numbers but the tunnel expects them: turn `seq` on at the peer, or `seq-mode rfc2890` on here.";
    SequenceOld = 54, "sequence-old", Drop, Receive,
        "The sequence number is older than one already received: the path reorders, or the peer restarted.";
    SequenceDuplicate = 55, "sequence-duplicate", Drop, Receive,
        "The sequence number is that of the packet before it.";
    EcnInvalid = 56, "ecn-invalid", Drop, Receive,
        "The path marked congestion on a packet whose transport does not know ECN (RFC 6040).";
    EthernetFrame = 57, "ethernet-frame", Drop, Receive,
        "The peer sends Ethernet frames (gretap) but this is a tunnel for IP.";
    Nested = 58, "nested", Drop, Transmit,
        "The tunnel runs inside itself or inside too many others: `ip route get REMOTE`.";
    EncapsulationLimit = 59, "encapsulation-limit", Drop, Transmit,
        "The packet's own encapsulation limit allows no further tunnel (RFC 2473).";
    InnerSource = 60, "inner-source", Drop, Transmit,
        "The packet's source is the tunnel's own remote, and so it goes in a circle: check the routes at both ends.";
    FragmentAlone = 61, "fragment-alone", Drop, Receive,
        "A fragment waited for the packet's other one in vain: fragments get lost on the underlay.";
    NotEthernet = 66, "not-ethernet", Drop, Receive,
        "The peer sends something other than Ethernet frames but this is a gretap tunnel.";
    FrameSource = 67, "frame-source", Drop, Receive,
        "The inner frame's source address is a group's or zero, which no station has.";

    Bridged = 96, "bridged", Forward, Transmit,
        "A frame that went from one port of a bridge to another.";
    BridgeUnknown = 97, "bridge-unknown", Pass, Transmit,
        "A frame of addresses that the kernel's bridge has not learned here, or that only it can forward; to an unknown station it floods.";
    BridgeRefresh = 98, "bridge-refresh", Pass, Transmit,
        "A frame that the kernel's bridge must see now and then, or it would forget where its source is.";
    BridgeDoubt = 99, "bridge-doubt", Pass, Transmit,
        "The daemon does not run, or does not know yet what the kernel's bridge has learned.";
    DetourOfFrames = 100, "detour-of-frames", Pass, Transmit,
        "The program for Ethernet frames is missing: the kernel handles this one.";
    FragmentWaiting = 101, "fragment-waiting", Consume, Receive,
        "A fragment of a tunnel's packet, kept until the other one comes.";
    Fragmented = 102, "fragmented", Forward, Transmit,
        "Encapsulated and, being too long for the path, sent in two outer fragments, as ignore-df or, of frames, nopmtudisc asks.";
    InPieces = 103, "in-pieces", Pass, Transmit,
        "A jumbo frame in several buffers, which has a checksum, or whose next device takes one buffer only: TC handles it.";
    BridgeBroadcast = 104, "bridge-broadcast", Pass, Transmit,
        "A broadcast frame from a bridge's port, which the kernel's bridge floods: many are a storm, or a loop.";
    BridgeMulticast = 105, "bridge-multicast", Pass, Transmit,
        "A multicast frame from a bridge's port, which the kernel's bridge floods or snoops.";
    BroadcastToDevice = 106, "broadcast-to-device", Forward, Receive,
        "A broadcast frame out of a tunnel, handed to the tunnel's device: many are a storm from the far side, or a loop.";
    MulticastToDevice = 107, "multicast-to-device", Forward, Receive,
        "A multicast frame out of a tunnel, handed to the tunnel's device.";
    Adopted = 108, "adopted", Pass, Receive,
        "Of a tunnel of the kernel's own, which does with it what it always did: it is for this host, or not for XDP.";
}

/// Counters there are room for: a power of two, by which a code is bounded.
pub const MAX_OUTCOMES: usize = 128;

/// The first code of a drop, and the room from there on.
pub const FIRST_DROP: usize = 32;
pub const MAX_DROPS: usize = 64;

/// Why a program stopped working on a packet, and the tunnel it is counted on. Without padding, which
/// would be undefined, and aligned so that a copy of it on the stack is one access, which the verifier
/// wants aligned. Without a tunnel all of it is a small number, as the programs load one.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    pub outcome: Outcome,
    /// A tunnel id plus one; 0 is none.
    tunnel: u32,
}

impl Stop {
    #[inline(always)]
    pub const fn on(tunnel: u32, outcome: Outcome) -> Self {
        Self { outcome, tunnel: tunnel + 1 }
    }

    #[inline(always)]
    pub const fn tunnel(&self) -> Option<u32> {
        self.tunnel.checked_sub(1)
    }
}

impl From<Outcome> for Stop {
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        Self { outcome, tunnel: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_fit_the_counters() {
        for pair in Outcome::ALL.windows(2) {
            assert!((pair[0] as u8) < pair[1] as u8, "{pair:?}");
        }
        assert!(Outcome::ALL.iter().all(|&outcome| (outcome as usize) < MAX_OUTCOMES));
        assert!(MAX_OUTCOMES.is_power_of_two() && MAX_DROPS.is_power_of_two());
        let drops = Outcome::ALL.iter().filter(|outcome| {
            matches!(outcome.disposition(), Disposition::Drop | Disposition::Abort)
        });
        let room = FIRST_DROP..FIRST_DROP + MAX_DROPS;
        assert!(drops.into_iter().all(|&outcome| room.contains(&(outcome as usize))));
    }

    /// Released codes and labels: rows are added, never changed.
    #[test]
    fn released_codes_keep_their_meaning() {
        for (code, label) in [
            (0, "encapsulated"),
            (1, "decapsulated"),
            (2, "transit"),
            (3, "to-device"),
            (13, "no-tunnel-route"),
            (32, "gre-truncated"),
            (38, "key-mismatch"),
            (50, "aborted"),
        ] {
            let outcome = Outcome::ALL.iter().find(|&&outcome| outcome as u8 == code).unwrap();
            assert_eq!(outcome.label(), label);
        }
    }

    #[test]
    fn labels_are_unique_and_help_is_a_sentence() {
        for (i, outcome) in Outcome::ALL.iter().enumerate() {
            assert!(outcome.help().ends_with('.') || outcome.help().ends_with("up`."));
            assert!(Outcome::ALL[..i].iter().all(|other| other.label() != outcome.label()));
        }
    }
}
