//! What the programs are made of: the kernel accepts them, they are no longer than they were, and
//! they call no function of their own, which a copy of bytes becomes if one does not look.

use aya::programs::ProgramInfo;
use gre_userspace::loader::OBJECT;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind,
    read::elf::ElfFile64,
};

use crate::bench::bench;

/// Sections that hold programs.
const SECTIONS: [&str; 2] = ["xdp", "classifier"];

/// Bytes of stack that a program may use (MAX_BPF_STACK).
const STACK: i32 = 512;

/// One eBPF instruction (RFC 9669, 3).
#[derive(Clone, Copy)]
struct Instruction {
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

/// The program of this name in the object, with the offset of each instruction.
struct Program {
    name: String,
    section: &'static str,
    code: Vec<(u64, Instruction)>,
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

fn object() -> ElfFile64<'static> {
    ElfFile64::parse(OBJECT).expect("the BPF object is an ELF file")
}

fn programs(object: &ElfFile64<'static>) -> Vec<Program> {
    let mut programs = Vec::new();
    for section in SECTIONS {
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
            programs.push(Program { name, section, code });
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
    let infos: [(&str, ProgramInfo); 5] = [
        ("xgre_tc_deliver", programs.tc_deliver().unwrap().info().unwrap()),
        ("xgre_tc_in", programs.tc_in().unwrap().info().unwrap()),
        ("xgre_tc_out", programs.tc_out().unwrap().info().unwrap()),
        ("xgre_xdp", programs.xdp().unwrap().info().unwrap()),
        ("xgre_xdp_any", programs.xdp_any().unwrap().info().unwrap()),
    ];
    let object = object();
    let built = self::programs(&object);
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

/// aya-ebpf brings `memcpy`, `memmove`, `memset` and `memcmp` along, loops over bytes that take a
/// microsecond where eight bytes at a time take none. Nothing else is a function either.
#[test]
fn no_program_calls_a_function_of_its_own() {
    let object = object();
    let mut calls = Vec::new();
    for program in programs(&object) {
        for (at, instruction) in &program.code {
            if instruction.opcode == CALL && instruction.source == PSEUDO_CALL {
                calls.push(format!(
                    "{} at {at:#x}: {}",
                    program.name,
                    callee(&object, program.section, *at)
                ));
            }
        }
    }
    assert!(calls.is_empty(), "BPF-to-BPF calls:\n{}", calls.join("\n"));
}

/// Whom the call at this offset is relocated to.
fn callee(object: &ElfFile64<'static>, section: &str, at: u64) -> String {
    let relocation = object
        .section_by_name(section)
        .and_then(|section| section.relocations().find(|(offset, _)| *offset == at));
    match relocation.map(|(_, relocation)| relocation.target()) {
        Some(RelocationTarget::Symbol(index)) => object
            .symbol_by_index(index)
            .ok()
            .and_then(|symbol| symbol.name().ok())
            .unwrap_or("an unnamed symbol")
            .to_owned(),
        _ => "a function of the same section".to_owned(),
    }
}
