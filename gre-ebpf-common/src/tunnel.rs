//! A tunnel as the data plane sees it: one cache line, ready to be written in front of a packet.

use crate::{
    demux::Key,
    wire::{
        gre::{self, GreBase},
        ipv4::{self, DONT_FRAGMENT, PROTOCOL_GRE},
        ipv6,
    },
};

/// Map `TUNNELS`: tunnel id to this. All zero is no tunnel.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tunnel {
    pub flags: Flags,
    /// Index into `NEXT_HOPS`: the underlay's next hop towards the remote.
    pub next_hop: u32,
    /// Index into `NEXT_HOPS`: the way to the tunnel's own device.
    pub device: u32,
    /// Interface index of the tunnel's device.
    pub ifindex: u32,
    /// Key that received packets must carry, in memory order; zero without [`Flags::KEY`].
    pub key: u32,
    /// MTU of the tunnel's device: the longest inner IP packet, in bytes; a frame is longer by its
    /// Ethernet header.
    pub mtu: u16,
    /// Bytes that encapsulation puts in front: outer IP header, its options, GRE header.
    pub overhead: u16,
    /// Start of the outer header, in memory order. IPv4: all of it (length, identification and
    /// checksum zero). IPv6: its first two words (length zero), then the Destination Options header
    /// where there is an encapsulation limit; the addresses are in `TUNNELS6`.
    pub outer: [u32; OUTER_WORDS],
    /// Start of the GRE header that is sent, protocol type zero.
    pub gre: GreBase,
    /// Key that is sent, in memory order.
    pub sent_key: u32,
    /// What TCP's maximum segment size is lowered to, for IPv4 and for IPv6 inside; 0 leaves it.
    pub mss: [u16; 2],
    /// The longest outer packet that the path is known to take, in bytes; 0 where nothing is known.
    pub path_mtu: u16,
    reserved: u16,
    /// The underlay interface that the tunnel is bound to; 0 is any.
    pub link: u32,
}

/// Words of [`Tunnel::outer`].
pub const OUTER_WORDS: usize = 5;

const _: () = assert!(size_of::<Tunnel>() == 64);

/// Map `TUNNELS6`: tunnel id to the addresses of a tunnel over IPv6, in memory order.
#[repr(C, align(32))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addresses6 {
    pub local: [u32; 4],
    pub remote: [u32; 4],
}

const _: () = assert!(size_of::<Addresses6>() == 32);

#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// The record is in use and its device is administratively up.
    pub const UP: Self = Self(1);
    /// Received packets carry a key.
    pub const KEY: Self = Self(1 << 1);
    /// `ttl inherit`.
    pub const TTL_INHERIT: Self = Self(1 << 2);
    /// `tos inherit`.
    pub const TOS_INHERIT: Self = Self(1 << 3);
    /// Packets from the tunnel may be forwarded: net.ipv4.conf.TUNNEL.forwarding.
    pub const FORWARDING: Self = Self(1 << 4);
    /// rp_filter is strict on the device: sources must be routed to the tunnel.
    pub const REVERSE_PATH_STRICT: Self = Self(1 << 5);
    /// rp_filter is loose on the device: sources must be routed somewhere.
    pub const REVERSE_PATH_LOOSE: Self = Self(1 << 6);
    /// Received packets carry a checksum (`icsum`).
    pub const CHECKSUM: Self = Self(1 << 7);
    /// Received packets carry sequence numbers (`iseq`).
    pub const SEQUENCE: Self = Self(1 << 8);
    /// Sequence numbers as RFC 2890 has them, packets without one included (`seq-mode rfc2890`).
    pub const RFC2890: Self = Self(1 << 9);
    /// Packets are sent with a checksum (`ocsum`).
    pub const CHECKSUM_SENT: Self = Self(1 << 10);
    /// Packets are sent with sequence numbers (`oseq`).
    pub const SEQUENCE_SENT: Self = Self(1 << 11);
    /// The outer packet is IPv6.
    pub const IPV6: Self = Self(1 << 12);
    /// An encapsulation limit is sent (RFC 2473, 4.1).
    pub const ENCAPSULATION_LIMIT: Self = Self(1 << 13);
    /// `flowlabel inherit`.
    pub const FLOW_LABEL_INHERIT: Self = Self(1 << 14);
    /// The inner packet's Don't Fragment is not copied (`ignore-df`).
    pub const IGNORE_DF: Self = Self(1 << 15);
    /// net.ipv6.conf.TUNNEL.forwarding
    pub const FORWARDING6: Self = Self(1 << 16);
    /// `local any`.
    pub const LOCAL_ANY: Self = Self(1 << 17);
    /// `remote any`.
    pub const REMOTE_ANY: Self = Self(1 << 18);
    /// It runs inside itself, or inside too many other tunnels.
    pub const NESTED: Self = Self(1 << 19);

    /// Ethernet frames go inside (protocol type 0x6558).
    pub const ETHERNET: Self = Self(1 << 20);
    /// Its device is the kernel's own (`ip tunnel`): XDP leaves to it what it does not forward.
    pub const ADOPTED: Self = Self(1 << 21);

    #[inline(always)]
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub const fn with(self, flag: Self, on: bool) -> Self {
        if on { Self(self.0 | flag.0) } else { self }
    }

    /// Of these flags only those in `mask`.
    #[inline(always)]
    pub const fn only(self, mask: Self) -> Self {
        Self(self.0 & mask.0)
    }

    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The addresses of a tunnel or of an outer packet, in memory order; all zero is any. Of IPv4 only
/// the first words are used. No enum, and no padding: what IPv4 leaves out would be undefined, and
/// the compiler moves such about where the verifier sees it. Aligned so that copies on the stack are
/// accesses that the verifier takes.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    pub local: [u32; 4],
    pub remote: [u32; 4],
    /// 0 of IPv4, 1 of IPv6.
    version: u64,
}

impl Ends {
    #[inline(always)]
    pub const fn v4(local: u32, remote: u32) -> Self {
        Self { local: [local, 0, 0, 0], remote: [remote, 0, 0, 0], version: 0 }
    }

    #[inline(always)]
    pub const fn v6(local: [u32; 4], remote: [u32; 4]) -> Self {
        Self { local, remote, version: 1 }
    }

    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.version != 0
    }

    #[inline(always)]
    pub const fn any_local(&self) -> bool {
        is_zero(&self.local)
    }

    #[inline(always)]
    pub const fn any_remote(&self) -> bool {
        is_zero(&self.remote)
    }

    /// Whether the remote address may be the source of a packet: it is neither multicast nor loopback
    /// (RFC 1812, 5.3.7; RFC 4291, 2.5.3 and 2.7) nor any.
    #[inline(always)]
    pub const fn remote_is_unicast(&self) -> bool {
        let [r @ .., last] = self.remote;
        let first = r[0].to_ne_bytes()[0];
        if self.is_v6() {
            first != 0xff && (r[0] | r[1] | r[2] != 0 || last & !1u32.to_be() != 0)
        } else {
            first != 0 && first != 127 && first & 0xf0 != 224
        }
    }
}

#[inline(always)]
const fn is_zero(words: &[u32; 4]) -> bool {
    words[0] | words[1] | words[2] | words[3] == 0
}

/// What the outer header is made of. The key is in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    pub ends: Ends,
    /// What goes inside is Ethernet.
    pub ethernet: bool,
    /// 0 inherits.
    pub ttl: u8,
    /// Bit 0 inherits.
    pub tos: u8,
    pub dont_fragment: bool,
    pub ignore_df: bool,
    pub key: Option<u32>,
    pub checksum: bool,
    pub sequence: bool,
    /// Over IPv6 only.
    pub encapsulation_limit: Option<u8>,
    /// Over IPv6 only; none inherits.
    pub flow_label: Option<u32>,
}

impl Outer {
    /// Without options; of IPv4 Don't Fragment is set.
    pub const fn new(ends: Ends) -> Self {
        Self {
            ends,
            ethernet: false,
            ttl: 0,
            tos: 0,
            dont_fragment: true,
            ignore_df: false,
            key: None,
            checksum: false,
            sequence: false,
            encapsulation_limit: None,
            flow_label: Some(0),
        }
    }
}

/// What received packets must look like. The key is in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    pub key: Option<u32>,
    pub checksum: bool,
    pub sequence: bool,
    pub rfc2890: bool,
}

impl Tunnel {
    /// A record with the outer header filled in; next hops and state are the caller's, as are the
    /// addresses of a tunnel over IPv6.
    pub const fn new(outer: Outer, expected: Expected) -> Self {
        let gre_flags = (if outer.checksum { gre::CHECKSUM } else { 0 })
            | (if outer.key.is_some() { gre::KEY } else { 0 })
            | (if outer.sequence { gre::SEQUENCE } else { 0 });
        let gre = GreBase::new(gre_flags, 0);
        let is_v6 = outer.ends.is_v6();
        let (words, len) = if is_v6 {
            (outer.ipv6(), outer.ipv6_len())
        } else {
            (outer.ipv4(outer.ends.local[0], outer.ends.remote[0]), ipv4::HEADER_LEN)
        };
        Self {
            flags: Flags(0)
                .with(Flags::TTL_INHERIT, outer.ttl == 0)
                .with(Flags::TOS_INHERIT, outer.tos & 1 == 1)
                .with(Flags::IGNORE_DF, outer.ignore_df)
                .with(Flags::CHECKSUM_SENT, outer.checksum)
                .with(Flags::SEQUENCE_SENT, outer.sequence)
                .with(Flags::IPV6, is_v6)
                .with(Flags::ETHERNET, outer.ethernet)
                .with(Flags::ENCAPSULATION_LIMIT, is_v6 && outer.encapsulation_limit.is_some())
                .with(Flags::FLOW_LABEL_INHERIT, is_v6 && outer.flow_label.is_none())
                .with(Flags::KEY, expected.key.is_some())
                .with(Flags::CHECKSUM, expected.checksum)
                .with(Flags::SEQUENCE, expected.sequence)
                .with(Flags::RFC2890, expected.rfc2890),
            next_hop: 0,
            device: 0,
            ifindex: 0,
            key: match expected.key {
                Some(key) => key.to_be(),
                None => 0,
            },
            mtu: 0,
            overhead: (len + gre.header_len()) as u16,
            outer: words,
            gre,
            sent_key: match outer.key {
                Some(key) => key.to_be(),
                None => 0,
            },
            mss: [0; 2],
            path_mtu: 0,
            reserved: 0,
            link: 0,
        }
    }

    /// Whether it is one that a search looks for, its addresses apart.
    #[inline(always)]
    pub const fn is(&self, sought: &Sought) -> bool {
        self.flags.only(sought.mask).0 == sought.flags.0
            && (sought.any_key || self.key == sought.key)
    }

    /// Whether it is the one for packets over IPv4 between the addresses of this key, both given, with
    /// this key and without other options.
    #[inline(always)]
    pub const fn is_plain_and_found_by(&self, key: &Key) -> bool {
        let options = Flags::CHECKSUM.and(Flags::SEQUENCE).and(Flags::ETHERNET);
        let ends = Flags::IPV6.and(Flags::LOCAL_ANY).and(Flags::REMOTE_ANY);
        let wanted = Flags::UP.with(Flags::KEY, key.kind.has_key());
        let (local, remote) = self.addresses4();
        self.flags.only(Flags::UP.and(Flags::KEY).and(options).and(ends)).0 == wanted.0
            && self.key == key.kind.key()
            && local == key.ends.local[0]
            && remote == key.ends.remote[0]
    }

    /// Whether what is too long for the path is sent in outer fragments, whatever it is: Don't Fragment
    /// is neither the tunnel's nor the inner packet's to ask for. Stations of one LAN expect it to carry
    /// what every Ethernet does.
    #[inline(always)]
    pub const fn cuts_outer(&self) -> bool {
        let [.., flags, _] = self.outer[1].to_ne_bytes();
        !self.flags.has(Flags::IPV6)
            && self.flags.only(Flags::IGNORE_DF.and(Flags::ETHERNET)).0 != 0
            && flags & (DONT_FRAGMENT >> 8) as u8 == 0
    }

    /// The addresses in the outer IPv4 header, in memory order: local, remote.
    #[inline(always)]
    pub const fn addresses4(&self) -> (u32, u32) {
        (self.outer[3], self.outer[4])
    }
}

/// What a search for a key looks for: tunnels that are up, with the key, and with addresses that are
/// any where the key's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sought {
    flags: Flags,
    mask: Flags,
    key: u32,
    any_key: bool,
}

impl Sought {
    #[inline(always)]
    pub const fn by(key: &Key) -> Self {
        let (is_v6, local_any, remote_any) =
            (key.ends.is_v6(), key.ends.any_local(), key.ends.any_remote());
        let ends = Flags(0)
            .with(Flags::IPV6, is_v6)
            .with(Flags::ETHERNET, key.kind.is_of_ethernet())
            .with(Flags::LOCAL_ANY, local_any)
            .with(Flags::REMOTE_ANY, remote_any);
        let mask = Flags::IPV6.and(Flags::ETHERNET).and(Flags::LOCAL_ANY).and(Flags::REMOTE_ANY);
        if key.kind.is_pair() {
            return Self { flags: ends, mask, key: 0, any_key: true };
        }
        // Only IPv4 with both addresses given tells a key of zero from none.
        let numbers_alone = is_v6 || local_any && remote_any;
        let wanted = ends.and(Flags::UP).with(Flags::KEY, key.kind.has_key());
        let mask = mask.and(Flags::UP).with(Flags::KEY, !numbers_alone);
        Self { flags: wanted.only(mask), mask, key: key.kind.key(), any_key: false }
    }
}

impl Outer {
    const fn tos(&self) -> u8 {
        self.tos & !1
    }

    const fn ipv4(&self, local: u32, remote: u32) -> [u32; OUTER_WORDS] {
        let fragment = (if self.dont_fragment { DONT_FRAGMENT } else { 0 }).to_be_bytes();
        [
            u32::from_ne_bytes([0x45, self.tos(), 0, 0]),
            u32::from_ne_bytes([0, 0, fragment[0], fragment[1]]),
            u32::from_ne_bytes([self.ttl, PROTOCOL_GRE, 0, 0]),
            local,
            remote,
        ]
    }

    const fn ipv6_len(&self) -> usize {
        ipv6::HEADER_LEN
            + match self.encapsulation_limit {
                Some(_) => ipv6::ENCAPSULATION_LIMIT_LEN,
                None => 0,
            }
    }

    const fn ipv6(&self) -> [u32; OUTER_WORDS] {
        let flow_label = match self.flow_label {
            Some(label) => label & ipv6::FLOW_LABEL,
            None => 0,
        };
        let first = (6 << 28 | (self.tos() as u32) << 20 | flow_label).to_be();
        let (next_header, options) = match self.encapsulation_limit {
            Some(limit) => (
                ipv6::NEXT_HEADER_DESTINATION_OPTIONS,
                ipv6::encapsulation_limit(PROTOCOL_GRE, limit),
            ),
            None => (PROTOCOL_GRE, [0; 2]),
        };
        [first, u32::from_ne_bytes([0, 0, next_header, self.ttl]), options[0], options[1], 0]
    }
}
