//! VLAN tags (IEEE 802.1Q): up to two between the source MAC address and the EtherType.

/// EtherTypes in memory order.
pub const ETHERTYPE_8021Q: u16 = 0x8100u16.to_be();
pub const ETHERTYPE_8021AD: u16 = 0x88a8u16.to_be();

/// Bytes.
pub const TAG_LEN: usize = 4;

/// VLAN id in the tag control information, host order; above it priority and drop eligibility.
const VLAN_ID: u16 = 0x0fff;

/// The TPID and the VLAN id of a tag, one word as they stand in a frame; zero is none.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tag(pub u32);

impl Tag {
    pub const NONE: Self = Self(0);

    /// Both in host order; priority 0.
    pub const fn new(tpid: u16, id: u16) -> Self {
        let (tpid, id) = (tpid.to_be_bytes(), (id & VLAN_ID).to_be_bytes());
        Self(u32::from_ne_bytes([tpid[0], tpid[1], id[0], id[1]]))
    }

    /// In memory order.
    #[inline(always)]
    pub const fn tpid(self) -> u16 {
        let [a, b, ..] = self.0.to_ne_bytes();
        u16::from_ne_bytes([a, b])
    }

    /// In host order.
    #[inline(always)]
    pub const fn id(self) -> u16 {
        let [.., a, b] = self.0.to_ne_bytes();
        u16::from_be_bytes([a, b])
    }

    /// From the two half words of a frame, priority left out.
    #[inline(always)]
    pub const fn from_frame(tpid: u16, control: u16) -> Self {
        let (tpid, id) = (tpid.to_ne_bytes(), (control & VLAN_ID.to_be()).to_ne_bytes());
        Self(u32::from_ne_bytes([tpid[0], tpid[1], id[0], id[1]]))
    }
}

#[inline(always)]
pub const fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_8021Q || ethertype == ETHERTYPE_8021AD
}

/// Map `VLANS`: a port and the tags of a frame on it, outer first, to a [`crate::port::Port`].
/// Aligned so that a copy of the tags on the stack is one access, which the verifier wants aligned.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VlanKey {
    tags: [Tag; 2],
    ifindex: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<VlanKey>() == 16);

impl VlanKey {
    #[inline(always)]
    pub const fn new(ifindex: u32, tags: [Tag; 2]) -> Self {
        Self { tags, ifindex, reserved: 0 }
    }

    /// As it is in the map.
    pub const fn words(&self) -> [u32; 4] {
        [self.tags[0].0, self.tags[1].0, self.ifindex, self.reserved]
    }

    pub const fn from_words([outer, inner, ifindex, reserved]: [u32; 4]) -> Self {
        Self { tags: [Tag(outer), Tag(inner)], ifindex, reserved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_in_network_order_and_without_priority() {
        assert_eq!(Tag::new(0x88a8, 0x123).0.to_ne_bytes(), [0x88, 0xa8, 0x01, 0x23]);
        let control = 0xf123u16.to_be();
        assert_eq!(Tag::from_frame(ETHERTYPE_8021AD, control), Tag::new(0x88a8, 0x123));
        assert!(is_tag(ETHERTYPE_8021Q) && !is_tag(0x0800u16.to_be()));
    }
}
