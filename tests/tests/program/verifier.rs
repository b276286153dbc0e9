//! What the programs are made of: the kernel accepts them, and they call no function of their own but
//! those that are meant to be, which a copy of bytes becomes if one does not look.

use std::collections::{BTreeMap, BTreeSet};

use aya::programs::ProgramInfo;
use gre_userspace::loader::Build;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex,
    SectionKind, SymbolKind, read::elf::ElfFile64,
};

use crate::bench::bench;

/// Sections that hold programs, and the one that holds the functions they call.
pub const SECTIONS: [&str; 2] = ["xdp.frags", "classifier"];
pub const CALLED: &str = ".text";

/// Bytes of stack that a program may use, with all that it calls (MAX_BPF_STACK).
const STACK: i32 = 512;
/// What Linux 6.1 rounds the stack of each function up to (check_max_stack_depth).
const STACK_STEP: i32 = 32;

/// One eBPF instruction (RFC 9669, 3).
#[derive(Clone, Copy)]
pub struct Instruction {
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

const CALL: u8 = 0x85;
/// In `source` of a call: to a function of the object.
const PSEUDO_CALL: u8 = 1;
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
/// Frame pointer.
const R10: u8 = 10;

/// The program or function of this name in the object, with the offset of each instruction.
pub struct Program {
    pub name: String,
    pub code: Vec<(u64, Instruction)>,
}

fn decode(bytes: &[u8]) -> Instruction {
    Instruction {
        opcode: bytes[0],
        destination: bytes[1] & 0xf,
        source: bytes[1] >> 4,
        offset: i16::from_le_bytes([bytes[2], bytes[3]]),
        immediate: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

pub fn object() -> ElfFile64<'static> {
    ElfFile64::parse(Build::THIS.object).expect("the BPF object is an ELF file")
}

pub fn programs(object: &ElfFile64<'static>, sections: &[&str]) -> Vec<Program> {
    let mut programs = Vec::new();
    for section in sections {
        let found =
            object.section_by_name(section).unwrap_or_else(|| panic!("no section {section}"));
        let data = found.data().expect("sections have contents");
        let functions = object.symbols().filter(|symbol| {
            symbol.kind() == SymbolKind::Text && symbol.section_index() == Some(found.index())
        });
        for function in functions.filter(|function| function.size() > 0) {
            let (start, size) = (function.address(), function.size());
            let code = (start..start + size)
                .step_by(8)
                .map(|at| (at, decode(&data[at as usize..][..8])))
                .collect();
            let name = function.name().expect("programs have names").to_owned();
            programs.push(Program { name, code });
        }
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    programs
}

/// Bytes below the frame pointer that the program touches.
fn stack(code: &[(u64, Instruction)]) -> i32 {
    let mut deepest = 0;
    for (i, (_, instruction)) in code.iter().enumerate() {
        let Instruction { opcode, destination, source, offset, .. } = *instruction;
        let touched = match opcode & 7 {
            1 if source == R10 => offset.into(),
            2 | 3 if destination == R10 => offset.into(),
            // An address of the stack, to be passed on.
            _ if opcode == MOVE && source == R10 => match code.get(i + 1) {
                Some((_, next)) if next.opcode == ADD && next.destination == destination => {
                    next.immediate
                }
                _ => 0,
            },
            _ => 0,
        };
        deepest = deepest.min(touched);
    }
    -deepest
}

#[test]
fn the_kernel_accepts_the_programs_and_their_sizes_are_told() {
    let mut bench = bench();
    let programs = &mut bench.programs;
    let infos: [(&str, ProgramInfo); 6] = [
        ("xgre_tc_deliver", programs.tc_deliver().unwrap().info().unwrap()),
        ("xgre_tc_in", programs.tc_in().unwrap().info().unwrap()),
        ("xgre_tc_out", programs.tc_out().unwrap().info().unwrap()),
        ("xgre_xdp", programs.xdp().unwrap().info().unwrap()),
        ("xgre_xdp_any", programs.xdp_any().unwrap().info().unwrap()),
        ("xgre_xdp_frames", programs.xdp_frames().unwrap().info().unwrap()),
    ];
    let object = object();
    let built = self::programs(&object, &SECTIONS);
    assert_eq!(built.len(), infos.len());
    println!("program      instructions  verified  stack");
    for ((name, info), program) in infos.iter().zip(&built) {
        assert_eq!(program.name, *name);
        let instructions = info.size_translated().expect("root sees a program's size") / 8;
        let verified = info.verified_instruction_count().expect("kernels tell since 5.16");
        let stack = stack(&program.code);
        println!("{name:<12} {instructions:>12}  {verified:>8}  {stack:>5}");
        assert!(verified >= instructions / 2, "{name}: {verified} instructions are too few");
        assert!(0 < stack && stack <= STACK, "{name}: a stack of {stack} bytes");
    }
}

/// What the kernel of this machine takes an older one may refuse, which only a guest would tell.
#[test]
fn programs_and_all_that_they_call_fit_the_stack_of_linux_6_1() {
    for (name, bytes) in stacks(&object()) {
        assert!(bytes <= STACK, "{name}: a stack of {bytes} bytes");
    }
}

/// Bytes of stack of each program and all that it calls, as Linux 6.1 adds them up.
pub fn stacks(object: &ElfFile64<'static>) -> BTreeMap<String, i32> {
    let calls = calls(object);
    let own: BTreeMap<String, i32> = programs(object, &[&SECTIONS[..], &[CALLED]].concat())
        .into_iter()
        .map(|Program { name, code }| (path(&name).unwrap_or(name), stack(&code)))
        .collect();
    let programs = programs(object, &SECTIONS).into_iter();
    programs.map(|Program { name, .. }| (name.clone(), deepest(&name, &own, &calls))).collect()
}

/// Bytes of stack of a function and the deepest of those that it calls.
fn deepest(name: &str, stacks: &BTreeMap<String, i32>, calls: &[(String, String)]) -> i32 {
    let own = (stacks[name].max(1) + STACK_STEP - 1) / STACK_STEP * STACK_STEP;
    let callees = calls.iter().filter(|(caller, _)| caller == name);
    let below = callees.map(|(_, callee)| deepest(callee, stacks, calls)).max();
    own + below.unwrap_or(0)
}

/// Functions that are called, and why they are: for the plainest packets none is.
const FUNCTIONS: [(&str, &str); 26] = [
    ("encap::options", "few tunnels have more than a key"),
    ("encap::outer6", "shared by all ways into a tunnel over IPv6"),
    ("mismatch::note", "for what is refused"),
    ("sequence::take", "few tunnels number their packets"),
    ("sequence::weigh", "few tunnels number their packets"),
    ("tunnels::came_from", "for tunnels with many remotes"),
    ("xgre_amend_tc", "few frames have anything to change in them"),
    ("xgre_amend_xdp", "few frames have anything to change in them"),
    ("xgre_bridge", "the verifier looks at its many ways once"),
    ("xgre_candidates", "called for each level"),
    ("xgre_clamp_tc", "the verifier looks at its loop once; SYNs are few"),
    ("xgre_clamp_xdp", "the verifier looks at its loop once; SYNs are few"),
    ("xgre_has_more_tags", "its tests are not to be taken for later ones"),
    ("xgre_hash6", "called for each level"),
    ("xgre_is6", "called for each level"),
    ("xgre_is_own4", "called for levels with any local address"),
    ("xgre_is_own6", "called for levels with any local address"),
    ("xgre_levels4", "the verifier looks at its levels once"),
    ("xgre_levels6", "the verifier looks at its levels once"),
    ("xgre_limit_tc", "the verifier looks at its loop once; few packets have options"),
    ("xgre_look_up4", "called for each level"),
    ("xgre_reassemble", "the verifier looks at it once; most packets are no fragments"),
    ("xgre_send_first", "the verifier looks at it once; few packets are too long"),
    ("xgre_sum_tc", "the verifier looks at its loop once; few packets have a checksum"),
    ("xgre_sum_xdp", "the verifier looks at its loop once; few packets have a checksum"),
    ("xgre_walk6", "the verifier looks at its loop once"),
];

/// aya-ebpf brings `memcpy`, `memmove`, `memset` and `memcmp` along, loops over bytes that take a
/// microsecond where eight bytes at a time take none: nothing calls them.
#[test]
fn programs_call_no_functions_but_those_with_a_reason() {
    let object = object();
    let called: BTreeSet<String> = calls(&object).into_iter().map(|(_, callee)| callee).collect();
    let allowed = FUNCTIONS.map(|(name, _)| name.to_owned());
    assert_eq!(called, BTreeSet::from(allowed));
}

#[test]
fn the_program_for_plain_packets_calls_no_function() {
    let object = object();
    let all = calls(&object);
    assert!(all.iter().any(|(caller, _)| caller == "xgre_xdp_any"));
    let plain: Vec<_> = all.iter().filter(|(caller, _)| caller == "xgre_xdp").collect();
    assert!(plain.is_empty(), "{plain:?}");
}

/// All calls of functions of the object, caller and callee.
pub fn calls(object: &ElfFile64<'static>) -> Vec<(String, String)> {
    let mut calls = Vec::new();
    for section in object.sections().filter(|section| section.kind() == SectionKind::Text) {
        let data = section.data().expect("sections have contents");
        for (at, bytes) in (0u64..).step_by(8).zip(data.chunks_exact(8)) {
            let instruction = decode(bytes);
            if instruction.opcode != CALL || instruction.source != PSEUDO_CALL {
                continue;
            }
            // Relative to the next instruction, or to the symbol that it is relocated by.
            let offset = (i64::from(instruction.immediate) + 1) * 8;
            let relocation = section.relocations().find(|(offset, _)| *offset == at);
            let (target, start) = match relocation.map(|(_, relocation)| relocation.target()) {
                Some(RelocationTarget::Symbol(index)) => {
                    let symbol = object.symbol_by_index(index).expect("relocations name symbols");
                    (symbol.section_index().expect("it is defined"), symbol.address())
                }
                _ => (section.index(), at),
            };
            let caller = function_at(object, section.index(), at);
            let callee = function_at(object, target, start.wrapping_add_signed(offset));
            calls.push((caller, callee));
        }
    }
    calls
}

/// The function that this instruction belongs to, with its module if it is one of Rust's.
fn function_at(object: &ElfFile64<'static>, section: SectionIndex, address: u64) -> String {
    let function = object.symbols().find(|symbol| {
        let end = symbol.address() + symbol.size();
        symbol.kind() == SymbolKind::Text
            && symbol.section_index() == Some(section)
            && (symbol.address()..end).contains(&address)
    });
    let name = function.expect("code lies in functions").name().expect("functions have names");
    path(name).unwrap_or_else(|| name.to_owned())
}

/// The path below the crate in a mangled name: each part with its length before it.
pub fn path(mangled: &str) -> Option<String> {
    let (_, mut rest) = mangled.split_once("gre_ebpf")?;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let len: usize = rest[..digits].parse().ok()?;
        let (part, after) = rest[digits..].split_at_checked(len)?;
        parts.push(part);
        rest = after;
    }
    Some(parts.join("::"))
}
