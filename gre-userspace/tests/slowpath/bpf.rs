//! A program that hands up every packet, as the tunnels' programs do, written as instructions so
//! that it needs none of them.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::maps::{Map, MapData, PerfEventArray};
use gre_ebpf_common::event::Kind;
use nix::{
    libc,
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};

// linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const MAP_TYPE_PERF_EVENT_ARRAY: u32 = 4;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const FUNC_PERF_EVENT_OUTPUT: u32 = 25;
const PSEUDO_MAP_FD: u8 = 1;
const F_CURRENT_CPU: u32 = u32::MAX;

pub struct Program(OwnedFd);

/// The array, and a program that hands each packet it runs on up to it, with this header.
pub fn hand_up(kind: Kind, tunnel: u32, ifindex: u32) -> (PerfEventArray<MapData>, Program) {
    let cpus = std::thread::available_parallelism().unwrap().get().max(64) as u32;
    let map = create(MAP_CREATE, &[MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, cpus, 0]);
    let fd = map.as_raw_fd() as u32;
    let instructions = [
        instruction(0xbf, 6, 1, 0, 0),              // r6 = r1
        instruction(0x62, 10, 0, -24, kind as u32), // [r10 - 24] = kind
        instruction(0x62, 10, 0, -20, tunnel),      // [r10 - 20] = tunnel
        instruction(0x62, 10, 0, -16, ifindex),     // [r10 - 16] = ifindex
        instruction(0x7a, 10, 0, -8, 0),            // [r10 - 8] = 0: no tags
        instruction(0x61, 3, 6, 0, 0),              // r3 = skb->len
        instruction(0x63, 10, 3, -12, 0),           // [r10 - 12] = r3
        instruction(0x67, 3, 0, 0, 32),             // r3 <<= 32
        instruction(0x18, 4, 0, 0, F_CURRENT_CPU),  // r4 = F_CURRENT_CPU
        0,
        instruction(0x4f, 3, 4, 0, 0),              // r3 |= r4
        instruction(0xbf, 1, 6, 0, 0),              // r1 = r6
        instruction(0x18, 2, PSEUDO_MAP_FD, 0, fd), // r2 = map
        0,
        instruction(0xbf, 4, 10, 0, 0),                     // r4 = r10
        instruction(0x07, 4, 0, 0, -24i32 as u32),          // r4 -= 24
        instruction(0xb7, 5, 0, 0, 24),                     // r5 = 24
        instruction(0x85, 0, 0, 0, FUNC_PERF_EVENT_OUTPUT), // call
        instruction(0xb7, 0, 0, 0, 0),                      // r0 = 0
        instruction(0x95, 0, 0, 0, 0),                      // exit
    ];
    let [text_low, text_high] = halves(instructions.as_ptr() as u64);
    let [license_low, license_high] = halves(c"GPL".as_ptr() as u64);
    let program = create(
        PROG_LOAD,
        &[
            PROG_TYPE_SCHED_CLS,
            instructions.len() as u32,
            text_low,
            text_high,
            license_low,
            license_high,
        ],
    );
    let map = Map::from_map_data(MapData::from_fd(map).unwrap()).unwrap();
    (PerfEventArray::try_from(map).unwrap(), Program(program))
}

impl Program {
    pub fn run(&self, frame: &[u8]) {
        let [low, high] = halves(frame.as_ptr() as u64);
        bpf(PROG_TEST_RUN, &[self.0.as_raw_fd() as u32, 0, frame.len() as u32, 0, low, high]);
    }
}

/// Keeps this thread on the CPU that it is on.
pub fn stay_on_this_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
}

fn create(command: libc::c_int, attributes: &[u32]) -> OwnedFd {
    let fd = bpf(command, attributes);
    // SAFETY: these commands return a new file descriptor, which nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn bpf(command: libc::c_int, attributes: &[u32]) -> libc::c_int {
    // What is not given is zero, and a union of pointers aligned to eight bytes.
    let mut words = [0u64; 16];
    for (i, attribute) in attributes.iter().enumerate() {
        words[i / 2] |= u64::from(*attribute) << (i % 2 * 32);
    }
    // SAFETY: `words` is as long as the call is told, and what it points to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, words.as_ptr(), size_of_val(&words)) };
    assert!(result >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    result as libc::c_int
}

/// Of a little-endian machine, as the attributes above.
fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> u64 {
    let [a, b] = offset.to_ne_bytes();
    let [c, d, e, f] = immediate.to_ne_bytes();
    u64::from_ne_bytes([code, destination | source << 4, a, b, c, d, e, f])
}
