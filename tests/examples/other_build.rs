//! xgre as another build of it would be, for tests of upgrades: its programs are others, which do the same, and
//! its maps count as laid out otherwise.
//!
//! `other_build run --config FILE --teardown`

use std::{env, path::PathBuf, slice};

use anyhow::{Context as _, Result, anyhow, ensure};
use gre_userspace::{
    config,
    daemon::{self, Options},
    instance::Instance,
    loader::Build,
};
use object::{Endianness, Object as _, ObjectSection as _, SectionKind, read::elf::ElfFile64};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let ["run", "--config", file, "--teardown"] = words[..] else {
        return Err(anyhow!("this is `other_build run --config FILE --teardown`, not {words:?}"));
    };
    let file = PathBuf::from(file);
    let desired = config::load(&file).map_err(|error| anyhow!("{error:?}"))?;
    let (instance, build) = (Instance::current()?, other(Build::THIS)?);
    daemon::run(Options { desired, config: file, instance, teardown: true, build }).await
}

fn other(build: Build) -> Result<Build> {
    let mut object = Vec::from(build.object);
    let elf = ElfFile64::<Endianness>::parse(build.object).context("the BPF object")?;
    let sections = elf.sections().filter(|section| section.kind() == SectionKind::Text);
    for (start, size) in sections.filter_map(|section| section.file_range()) {
        let code = &mut object[start as usize..][..size as usize];
        let code = code.chunks_exact_mut(INSTRUCTION);
        let changed = code.filter_map(narrow).count();
        ensure!(size == 0 || changed > 0, "a section at {start} that cannot be changed");
    }
    Ok(Build { object: aligned(&object), layout: build.layout + 1 })
}

const INSTRUCTION: usize = 8;
/// RFC 9669, 4.1: a constant to a register of 64 bits, and to one of 32 bits, which zeroes the rest.
const MOVE: u8 = 0xb7;
const MOVE32: u8 = 0xb4;

/// Makes an instruction another one that does the same, if it is one of those.
fn narrow(instruction: &mut [u8]) -> Option<()> {
    let is_negative = instruction[7] & 0x80 != 0;
    if instruction[0] != MOVE || is_negative {
        return None;
    }
    instruction[0] = MOVE32;
    Some(())
}

/// For as long as the process runs, and where the headers of an ELF file may be read in place.
fn aligned(bytes: &[u8]) -> &'static [u8] {
    let words = vec![0_u64; bytes.len().div_ceil(8)].leak();
    // SAFETY: every byte of a word is initialised, and nobody else has the words.
    let room = unsafe { slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), bytes.len()) };
    room.copy_from_slice(bytes);
    room
}
