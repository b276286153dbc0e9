//! The programs: those of TC, which always run, and for each mode of XDP a set of its own, which is loaded when
//! a port is to run in that mode. To load a set takes the verifier a third of a second.

use std::{
    collections::HashMap,
    ops::BitOr,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{Program, ProgramError, SchedClassifier, Xdp, tc::SchedClassifierLink},
};

use super::{Build, DETOURS, GENERIC, LoadError, build, cpus, prepare};
use crate::{attach::Hook, model::Limits};

const XDP: &str = "xgre_xdp";
/// Where XDP goes on, by their places in [`DETOURS`].
const XDP_ANY: &str = "xgre_xdp_any";
const XDP_FRAMES: &str = "xgre_xdp_frames";
pub(super) const XDP_DETOURS: [&str; 2] = [XDP_ANY, XDP_FRAMES];
const OF_XDP: [&str; 3] = [XDP, XDP_ANY, XDP_FRAMES];

pub(crate) const TC_IN: &str = "xgre_tc_in";
pub(crate) const TC_OUT: &str = "xgre_tc_out";
pub(crate) const TC_DELIVER: &str = "xgre_tc_deliver";
const OF_TC: [&str; 3] = [TC_IN, TC_OUT, TC_DELIVER];

/// Modes that XDP runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpModes {
    pub native: bool,
    pub generic: bool,
}

impl XdpModes {
    pub const NONE: Self = Self { native: false, generic: false };
    pub const NATIVE: Self = Self { native: true, ..Self::NONE };
    pub const GENERIC: Self = Self { generic: true, ..Self::NONE };
}

impl BitOr for XdpModes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { native: self.native || other.native, generic: self.generic || other.generic }
    }
}

pub struct Programs {
    /// TC's, and XDP's for ports in native mode.
    ebpf: Ebpf,
    /// XDP's for ports in generic mode, once there is one.
    generic: Option<Ebpf>,
    pub(crate) pins: PathBuf,
    /// Where the maps are pinned.
    maps: PathBuf,
    build: Build,
    limits: Limits,
    /// TC attachments of kernels before 6.6, which cannot be pinned.
    pub(crate) filters: HashMap<(u32, Hook), SchedClassifierLink>,
}

impl Programs {
    /// Loads those of TC, and those of XDP for these modes.
    pub(super) fn load(
        ebpf: Ebpf,
        build: &Build,
        limits: &Limits,
        pins: &Path,
        modes: XdpModes,
    ) -> Result<Self, LoadError> {
        let mut programs = Self {
            ebpf,
            generic: None,
            pins: pins.to_owned(),
            maps: build.maps(pins),
            build: *build,
            limits: *limits,
            filters: HashMap::new(),
        };
        programs.load_with(&OF_TC, modes)?;
        Ok(programs)
    }

    /// Loads the XDP programs for these modes, but for what is loaded.
    pub(crate) fn load_xdp(&mut self, modes: XdpModes) -> Result<(), LoadError> {
        self.load_with(&[], modes)
    }

    fn load_with(&mut self, of_tc: &[&'static str], modes: XdpModes) -> Result<(), LoadError> {
        let XdpModes { native, generic } = modes;
        if generic && self.generic.is_none() {
            let object = for_generic_mode(self.build.object);
            self.generic = Some(prepare(&object, &self.limits, cpus()?, &self.maps, GENERIC)?);
        }
        let of = |is_wanted| if is_wanted { &OF_XDP[..] } else { &[] };
        let mut todo = not_loaded(&mut self.ebpf, &[of_tc, of(native)].concat());
        let of_native = todo.iter().any(|(name, _)| OF_XDP.contains(name));
        let generic = self.generic.as_mut().map(|ebpf| not_loaded(ebpf, of(generic)));
        let generic = generic.unwrap_or_default();
        let of_generic = !generic.is_empty();
        todo.extend(generic);
        load_all(todo)?;
        if of_native {
            lay_detours(&mut self.ebpf)?;
        }
        match &mut self.generic {
            Some(ebpf) if of_generic => lay_detours(ebpf),
            _ => Ok(()),
        }
    }

    /// Removes what only programs of another layout used, once all of them have been replaced.
    pub fn settle(&self) -> Result<(), LoadError> {
        build::remove_others(&self.pins, &self.maps)
            .map_err(|error| LoadError::Files(self.pins.clone(), error))
    }

    /// The XDP program for ports in generic mode.
    pub(crate) fn generic_xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        self.load_xdp(XdpModes::GENERIC)?;
        program(self.generic.as_mut().ok_or(LoadError::Missing(XDP))?, XDP)
    }

    /// The XDP program for ports in native mode.
    pub fn xdp(&mut self) -> Result<&mut Xdp, LoadError> {
        self.native(XDP)
    }

    /// That for all but the plainest packets.
    pub fn xdp_any(&mut self) -> Result<&mut Xdp, LoadError> {
        self.native(XDP_ANY)
    }

    /// That for Ethernet frames.
    pub fn xdp_frames(&mut self) -> Result<&mut Xdp, LoadError> {
        self.native(XDP_FRAMES)
    }

    fn native(&mut self, name: &'static str) -> Result<&mut Xdp, LoadError> {
        self.load_xdp(XdpModes::NATIVE)?;
        program(&mut self.ebpf, name)
    }

    /// The TC program for the ingress of ports.
    pub fn tc_in(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        self.tc(TC_IN)
    }

    /// The TC program for the egress of tunnel devices.
    pub fn tc_out(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        self.tc(TC_OUT)
    }

    /// The TC program for the egress of their other ends.
    pub fn tc_deliver(&mut self) -> Result<&mut SchedClassifier, LoadError> {
        self.tc(TC_DELIVER)
    }

    pub(crate) fn tc(&mut self, name: &'static str) -> Result<&mut SchedClassifier, LoadError> {
        program(&mut self.ebpf, name)
    }
}

fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, LoadError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(LoadError::Missing(name))?
        .try_into()
        .map_err(|source| LoadError::Program { name, source })
}

/// Those of these programs that are not loaded yet.
fn not_loaded<'a>(
    ebpf: &'a mut Ebpf,
    names: &[&'static str],
) -> Vec<(&'static str, &'a mut Program)> {
    let named = |(name, program): (&str, &'a mut Program)| {
        let name = names.iter().find(|wanted| **wanted == name)?;
        program.fd().is_err().then_some((*name, program))
    };
    ebpf.programs_mut().filter_map(named).collect()
}

/// Several at once, since the verifier looks at each on the CPU that loads it.
fn load_all(programs: Vec<(&'static str, &mut Program)>) -> Result<(), LoadError> {
    let load = |name, program: &mut Program| {
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => return Err(LoadError::Missing(name)),
        };
        loaded.map_err(|source| LoadError::Program { name, source })
    };
    let queue = Mutex::new(programs.into_iter());
    let next = || queue.lock().expect("taking the next one does not panic").next();
    let load_all = || -> Result<(), LoadError> {
        while let Some((name, program)) = next() {
            load(name, program)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..verifiers()).map(|_| scope.spawn(load_all)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("loading a program does not panic"))
            .fold(Ok(()), Result::and)
    })
}

/// How many programs are verified at once: half of the processors go on forwarding.
fn verifiers() -> usize {
    thread::available_parallelism().map_or(1, |processors| processors.get() / 2).max(1)
}

/// Tells the XDP program where to go on. The map outlives the daemon as the others do, since an array
/// of programs is emptied when nobody holds it.
fn lay_detours(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    for (index, name) in (0..).zip(XDP_DETOURS) {
        let program: &mut Xdp = program(ebpf, name)?;
        let program = program.fd().map_err(|source| LoadError::Program { name, source })?;
        let program = program.try_clone().map_err(|e| LoadError::Files(name.into(), e))?;
        let failed = |source| LoadError::Map { name: DETOURS, source };
        let map = ebpf.map_mut(DETOURS).ok_or(LoadError::Missing(DETOURS))?;
        ProgramArray::try_from(map).map_err(failed)?.set(index, &program, 0).map_err(failed)?;
    }
    Ok(())
}

/// The same programs for generic mode, where they must not declare that they take frames in several
/// buffers: Linux then copies each packet, and forgets how long its Ethernet header is
/// (skb_pp_cow_data, since 6.9), so that TC behind XDP finds no frame. The declaration is the name of
/// their section.
fn for_generic_mode(object: &[u8]) -> Vec<u8> {
    const DECLARED: &[u8] = b"xdp.frags\0";
    let mut object = object.to_vec();
    let mut at = 0;
    while let Some(found) = object[at..].windows(DECLARED.len()).position(|name| name == DECLARED) {
        at += found + b"xdp".len();
        object[at] = 0;
    }
    object
}
