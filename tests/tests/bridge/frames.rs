//! Frames of stations.

use etherparse::PacketBuilder;

use crate::random::Random;

pub type Mac = [u8; 6];

/// How the addresses of all stations start, as `bridge` writes them.
pub const STATIONS: &str = "02:00:00:00:01:";

pub const fn station(last: u8) -> Mac {
    [2, 0, 0, 0, 1, last]
}

pub const EVERYONE: Mac = [0xff; 6];
/// For experiments (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Shorter frames the kernel pads where XDP does not, in tunnels.
const SHORTEST: usize = 60;
/// With the tunnels' MTU of 1462 bytes.
const LONGEST: usize = 1476;

/// A plain frame that a number tells from others.
pub fn frame(source: Mac, destination: Mac, number: u32) -> Vec<u8> {
    let mut frame = [&destination[..], &source, &EXPERIMENTAL].concat();
    frame.resize(SHORTEST - 4, 0);
    frame.extend(number.to_be_bytes());
    frame
}

/// The same in a VLAN (IEEE 802.1Q).
pub fn tagged(vlan: u16, frame: &[u8]) -> Vec<u8> {
    let [high, low] = vlan.to_be_bytes();
    [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
}

/// A configuration BPDU (IEEE 802.1D, 9.3.1) of the root of the spanning tree, out of one of its ports.
pub fn bpdu(port: u8) -> Vec<u8> {
    let root = [0, 0, 2, 0, 0, 0, 7, 1];
    let header = [&[1, 0x80, 0xc2, 0, 0, 0][..], &station(0xfe), &[0, 38, 0x42, 0x42, 3]].concat();
    let times = [0, 0, 20, 0, 2, 0, 15, 0];
    let parts = [&header[..], &[0; 5], &root, &[0; 4], &root, &[0x80, port], &times];
    let mut frame = parts.concat();
    frame.resize(SHORTEST, 0);
    frame
}

impl Random {
    pub fn pick<T: Copy>(&mut self, things: &[T]) -> T {
        things[self.below(things.len() as u32) as usize]
    }

    /// Once in so many times.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// To one of these stations, or to whom else there is; of any length and kind, with tags or none.
    pub fn frame(&mut self, source: Mac, stations: &[Mac], number: u32) -> Vec<u8> {
        let destination = match self.below(16) {
            0 => EVERYONE,
            1 => [1, 0, 0x5e, 1, 2, 3],
            // Spanning tree, and pauses, which no bridge forwards.
            2 => [1, 0x80, 0xc2, 0, 0, self.below(2) as u8],
            3 => station(0xee),
            _ => self.pick(stations),
        };
        let source = if self.once_in(40) { [1, 0, 0, 0, 1, 1] } else { source };
        let mut frame = [&destination[..], &source].concat();
        for _ in 0..self.pick(&[0, 0, 0, 0, 0, 0, 1, 1, 2]) {
            let tpid = self.pick(&[0x8100_u16, 0x8100, 0x8100, 0x88a8]);
            let control = self.pick(&[0_u16, 1, 5, 6, 0x6000, 0xe005]);
            frame.extend(tpid.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        let len = match self.below(4) {
            0 => SHORTEST,
            1 => LONGEST,
            _ => SHORTEST + self.below((LONGEST - SHORTEST) as u32) as usize,
        };
        if self.once_in(2) {
            self.ip(&mut frame, len - 4);
        } else {
            frame.extend(EXPERIMENTAL);
        }
        frame.resize(len - 4, 0);
        frame.extend(number.to_be_bytes());
        frame
    }

    /// The EtherType and a packet, so that the frame has `len` bytes.
    fn ip(&mut self, frame: &mut Vec<u8>, len: usize) {
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], self.below(64) as u8 + 1);
        let builder = builder.udp(7, 7);
        let room = len - frame.len() - 2 - builder.size(0);
        builder.write(&mut packet, &vec![0; room]).expect("a vector takes all");
        // DSCP and ECN, which the outer header takes over or not, and whether it may be cut; with a
        // checksum that is right again.
        packet[1] = self.next() as u8;
        packet[6] = self.pick(&[0, 0x40]);
        let mut ip =
            etherparse::Ipv4HeaderSlice::from_slice(&packet).expect("made here").to_header();
        ip.header_checksum = ip.calc_header_checksum();
        packet[10..12].copy_from_slice(&ip.header_checksum.to_be_bytes());
        frame.extend([8, 0]);
        frame.extend(packet);
    }
}
