//! The programs that are measured, on one set of maps.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
#[cfg(test)]
use aya::maps::{Map, MapData, ProgramArray};
use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramInfo, Xdp},
};
use gre_userspace::{
    loader::{self, Build, Loaded, XdpModes},
    maps::{Maps, demux},
    model::Limits,
};
use serde::{Deserialize, Serialize};

use crate::table::Table;

macro_rules! object {
    ($name:literal) => {
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", $name))
    };
}
pub static GENERATOR: &[u8] = object!("generator");
pub static METER: &[u8] = object!("meter");
pub static NULL: &[u8] = object!("null");
pub static RESTORE: &[u8] = object!("restore");
pub static SINK: &[u8] = object!("sink");
static GATEWAY: &[u8] = object!("gateway");

/// A program that is measured.
struct Source {
    name: &'static str,
    object: Vec<u8>,
    program: &'static str,
}

/// This build, the comparator and, where there is one, an earlier build.
pub struct Subjects {
    sources: Vec<Source>,
    loaded: Vec<Ebpf>,
    limits: Limits,
    pins: PathBuf,
}

/// What a program is to the kernel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Size {
    pub program: String,
    /// Instructions as the kernel runs them, look-ups inlined.
    pub instructions: u32,
    /// Instructions that the verifier walked through, over all paths.
    pub verified: u32,
    /// Bytes of machine code.
    pub machine_code: u32,
}

impl Subjects {
    /// Loads all of them with the same maps, pinned below `pins`.
    pub fn load(pins: &Path, limits: Limits, earlier: Option<Vec<u8>>) -> Result<(Self, Maps)> {
        let Loaded { maps, .. } = loader::load(&Build::THIS, &limits, pins, XdpModes::NATIVE)?;
        let source = |name, object, program| Source { name, object, program };
        let mut sources = vec![
            source("rust", Build::THIS.object.to_vec(), "xgre_xdp"),
            source("c", GATEWAY.to_vec(), "gateway"),
        ];
        sources.extend(earlier.map(|object| source("earlier", object, "xgre_xdp")));
        let mut subjects = Self { sources, loaded: Vec::new(), limits, pins: pins.to_owned() };
        subjects.reload()?;
        Ok((subjects, maps))
    }

    /// Loads them anew beside the old ones, which go, so that their machine code comes to lie
    /// elsewhere: where it lies decides several percent, and is luck.
    pub fn reload(&mut self) -> Result<()> {
        let load = |source: &Source| {
            let Source { name, object, program } = source;
            load(object, program, &self.limits, &self.pins).with_context(|| (*name).to_owned())
        };
        self.loaded = self.sources.iter().map(load).collect::<Result<_>>()?;
        Ok(())
    }

    /// All of them by name: this build, then the comparator.
    pub fn all(&mut self) -> Result<Vec<(&'static str, &mut Xdp)>> {
        self.sources
            .iter()
            .zip(&mut self.loaded)
            .map(|(source, ebpf)| Ok((source.name, program(ebpf, source.program)?)))
            .collect()
    }

    /// Where packets that take a detour then end.
    #[cfg(test)]
    pub fn remove_detours(&self) -> Result<()> {
        let map = MapData::from_pin(Build::THIS.maps(&self.pins).join("DETOURS"))?;
        let mut detours = ProgramArray::try_from(Map::ProgramArray(map))?;
        for program in 0..2 {
            detours.clear_index(&program)?;
        }
        Ok(())
    }

    pub fn sizes(&mut self) -> Result<Vec<Size>> {
        self.all()?.into_iter().map(|(name, program)| Ok(size(name, &program.info()?))).collect()
    }
}

fn load(object: &[u8], name: &str, limits: &Limits, pins: &Path) -> Result<Ebpf> {
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    let mask = demux::buckets(limits.tunnels) - 1;
    // All that the daemon's loader has made; an object names what it needs.
    let maps = fs::read_dir(Build::THIS.maps(pins))?
        .map(|entry| Ok(entry.map(|entry| (entry.file_name(), entry.path()))?))
        .collect::<Result<Vec<_>>>()?;
    let cpus = cpus as u32;
    let mut loader = EbpfLoader::new();
    loader.override_global("CPUS", &cpus, true).override_global("DEMUX_MASK", &mask, true);
    for (name, path) in &maps {
        loader.map_pin_path(name.to_str().context("a map's name")?, path);
    }
    let mut ebpf = loader.load(object)?;
    program(&mut ebpf, name)?.load().with_context(|| format!("loading {name}"))?;
    Ok(ebpf)
}

/// A program of an object, loaded or not.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("there is no program {name}"))?.try_into()?)
}

fn size(program: &str, info: &ProgramInfo) -> Size {
    Size {
        program: program.to_owned(),
        instructions: info.size_translated().unwrap_or(0) / 8,
        verified: info.verified_instruction_count().unwrap_or(0),
        machine_code: info.size_jitted(),
    }
}

pub fn table(sizes: &[Size]) -> Table {
    let mut table = Table::new(&["program", "instructions", "verified", "bytes of machine code"]);
    for size in sizes {
        table.row(vec![
            size.program.clone(),
            size.instructions.to_string(),
            size.verified.to_string(),
            size.machine_code.to_string(),
        ]);
    }
    table
}

/// Fails where what is measured is not what was meant.
pub fn ensure_equal(what: &str, name: &str, found: u32, wanted: u32) -> Result<()> {
    ensure!(found == wanted, "{what}: {name} answered with action {found}, not {wanted}");
    Ok(())
}
