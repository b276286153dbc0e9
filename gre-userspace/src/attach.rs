//! Attaches the programs to interfaces, with links that outlive the daemon where the kernel has such.

use std::{
    fs, io, mem,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::{
    programs::{
        ProgramError, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{self, SchedClassifierLink, TcError},
        xdp::XdpMode as AyaMode,
    },
    util::KernelVersion,
};
use nix::libc::EEXIST;
use thiserror::Error;

use crate::{
    dataplane::Attachment,
    loader::{self, LoadError, Programs, TC_DELIVER, TC_IN, TC_OUT, XdpModes},
    model::XdpMode,
};

/// Why a program could not be attached to an interface.
#[derive(Debug, Error)]
pub enum AttachError {
    #[error("attaching {hook} to {interface}: {source}")]
    Program { hook: &'static str, interface: String, source: ProgramError },
    #[error("attaching {hook} to {interface}: {source}")]
    Link { hook: &'static str, interface: String, source: LinkError },
    #[error("pinning {path}: {source}")]
    Pin { path: PathBuf, source: aya::pin::PinError },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("adding the clsact queueing discipline to {interface}: {source}")]
    Clsact { interface: String, source: TcError },
}

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Hook {
    Xdp,
    XdpGeneric,
    Ingress,
    Egress,
    /// Of the other end of a tunnel's device.
    PeerIngress,
    PeerEgress,
}

impl Hook {
    const ALL: [Self; 6] = [
        Self::Xdp,
        Self::XdpGeneric,
        Self::Ingress,
        Self::Egress,
        Self::PeerIngress,
        Self::PeerEgress,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Ingress => "tc-ingress",
            Self::Egress => "tc-egress",
            Self::PeerIngress => "tc-peer-ingress",
            Self::PeerEgress => "tc-peer-egress",
        }
    }
}

/// A place to attach a program to.
#[derive(Clone, Copy)]
struct Place<'a> {
    ifindex: u32,
    interface: &'a str,
    hook: Hook,
}

impl Place<'_> {
    fn refused(self) -> impl Fn(ProgramError) -> AttachError + Copy {
        move |source| AttachError::Program {
            hook: self.hook.name(),
            interface: self.interface.to_owned(),
            source,
        }
    }

    fn unlinked(self) -> impl Fn(LinkError) -> AttachError + Copy {
        move |source| AttachError::Link {
            hook: self.hook.name(),
            interface: self.interface.to_owned(),
            source,
        }
    }
}

impl Programs {
    /// Attaches to a port: XDP as asked, and TC behind it. Says how XDP runs, and in words why no
    /// better.
    pub fn attach_port(
        &mut self,
        ifindex: u32,
        interface: &str,
        mode: XdpMode,
    ) -> Result<(Attachment, Option<String>), AttachError> {
        self.attach_tc(ifindex, interface, Hook::Ingress)?;
        let native = |programs: &mut Self| programs.attach_xdp(ifindex, interface, Hook::Xdp);
        let generic =
            |programs: &mut Self| programs.attach_xdp(ifindex, interface, Hook::XdpGeneric);
        match mode {
            XdpMode::Off => {
                self.unpin(ifindex, Hook::Xdp);
                self.unpin(ifindex, Hook::XdpGeneric);
                Ok((Attachment::Off, Some("XDP is off for this port in the config".into())))
            }
            XdpMode::Native => native(self).map(|()| (Attachment::Native, None)),
            XdpMode::Generic => generic(self)
                .map(|()| (Attachment::Generic, Some("generic XDP was asked for".into()))),
            XdpMode::Auto => match native(self) {
                Ok(()) => Ok((Attachment::Native, None)),
                Err(error) => {
                    generic(self)?;
                    Ok((Attachment::Generic, Some(format!("no native XDP: {error}"))))
                }
            },
        }
    }

    /// Attaches to the device of a tunnel and to its other end, each an interface index and a name.
    pub fn attach_device(
        &mut self,
        device: (u32, &str),
        peer: (u32, &str),
    ) -> Result<(), AttachError> {
        self.attach_tc(device.0, device.1, Hook::Egress)?;
        self.attach_tc(peer.0, peer.1, Hook::PeerIngress)?;
        self.attach_tc(peer.0, peer.1, Hook::PeerEgress)
    }

    /// Takes the programs off an interface, which may be gone already.
    pub fn detach(&mut self, ifindex: u32) {
        for hook in Hook::ALL {
            self.unpin(ifindex, hook);
            self.filters.remove(&(ifindex, hook));
        }
    }

    /// How XDP runs on an interface where an earlier daemon left it running.
    pub fn left(&self, ifindex: u32) -> Attachment {
        let is_there = |hook| pin(&self.pins, ifindex, hook).exists();
        match (is_there(Hook::Xdp), is_there(Hook::XdpGeneric)) {
            (true, _) => Attachment::Native,
            (false, true) => Attachment::Generic,
            (false, false) => Attachment::Off,
        }
    }

    /// Whether the XDP program on an interface is one that an earlier daemon left there.
    pub fn is_pinned(pins: &Path, ifindex: u32) -> bool {
        [Hook::Xdp, Hook::XdpGeneric].iter().any(|&hook| pin(pins, ifindex, hook).exists())
    }

    /// In native mode, or in generic mode: an interface runs XDP in one of them, and a link stays in its own.
    fn attach_xdp(&mut self, ifindex: u32, interface: &str, hook: Hook) -> Result<(), AttachError> {
        let (mode, other, programs) = match hook {
            Hook::XdpGeneric => (AyaMode::Skb, Hook::Xdp, XdpModes::GENERIC),
            _ => (AyaMode::Driver, Hook::XdpGeneric, XdpModes::NATIVE),
        };
        // Before anything goes that runs.
        self.load_xdp(programs)?;
        let is_freed = self.unpin(ifindex, other);
        let place = Place { ifindex, interface, hook };
        let earlier = self.pinned(place);
        let path = pin(&self.pins, ifindex, hook);
        let program = match hook {
            Hook::XdpGeneric => self.generic_xdp()?,
            _ => self.xdp()?,
        };
        if let Some(link) = earlier {
            let link = link.try_into().map_err(place.unlinked())?;
            if let Ok(id) = program.attach_to_link(link) {
                // The pin holds the link.
                return program.take_link(id).map(drop).map_err(place.refused());
            }
            let _ = fs::remove_file(&path);
        }
        let patience = if is_freed { FREED } else { Duration::ZERO };
        let id = once_free(patience, || program.attach_to_if_index(ifindex, mode))
            .map_err(place.refused())?;
        let link = program.take_link(id).map_err(place.refused())?;
        keep(link.try_into().map_err(place.unlinked())?, path)
    }

    fn attach_tc(&mut self, ifindex: u32, interface: &str, hook: Hook) -> Result<(), AttachError> {
        let (name, at) = match hook {
            Hook::Egress => (TC_OUT, TcAttachType::Egress),
            Hook::PeerIngress => (TC_OUT, TcAttachType::Ingress),
            Hook::PeerEgress => (TC_DELIVER, TcAttachType::Egress),
            Hook::Ingress | Hook::Xdp | Hook::XdpGeneric => (TC_IN, TcAttachType::Ingress),
        };
        let place = Place { ifindex, interface, hook };
        let earlier = self.pinned(place);
        let path = pin(&self.pins, ifindex, hook);
        // One of this daemon's would take what comes now for itself when it is dropped.
        self.filters.remove(&(ifindex, hook));
        let program = self.tc(name)?;
        if let Some(link) = earlier {
            let link = SchedClassifierLink::try_from(link).map_err(place.unlinked())?;
            if let Ok(id) = program.attach_to_link(link) {
                // The pin holds the link.
                return program.take_link(id).map(drop).map_err(place.refused());
            }
            let _ = fs::remove_file(&path);
        }
        if !has_tcx() {
            add_clsact(interface).map_err(|source| AttachError::Clsact {
                interface: interface.to_owned(),
                source,
            })?;
            // One that an earlier daemon left stays without a pin, and two would see each packet.
            let _ = tc::qdisc_detach_program(interface, at, name);
        }
        let id = program.attach(interface, at).map_err(place.refused())?;
        let link = program.take_link(id).map_err(place.refused())?;
        if !has_tcx() {
            self.filters.insert((ifindex, hook), link);
            return Ok(());
        }
        keep(link.try_into().map_err(place.unlinked())?, path)
    }

    fn pinned(&self, place: Place<'_>) -> Option<FdLink> {
        PinnedLink::from_pin(pin(&self.pins, place.ifindex, place.hook)).ok().map(FdLink::from)
    }

    /// Removing the pin of a link detaches it, in a moment. Says whether there was one.
    fn unpin(&self, ifindex: u32, hook: Hook) -> bool {
        fs::remove_file(pin(&self.pins, ifindex, hook)).is_ok()
    }

    /// Leaves everything attached when the daemon ends.
    pub fn leave(mut self) {
        // Dropping a filter of an old kernel would detach it.
        mem::take(&mut self.filters).into_values().for_each(mem::forget);
    }

    /// Takes all programs off and removes all pins.
    pub fn teardown(self) -> io::Result<()> {
        let pins = self.pins.clone();
        drop(self);
        remove_pins(&pins)
    }
}

/// Removes all pins of a data plane that no daemon holds, and with them what is attached by links.
pub(crate) fn remove_pins(pins: &Path) -> io::Result<()> {
    for directory in loader::map_directories(pins)?.into_iter().chain([pins.join("links")]) {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // In the initial namespace the directory may hold those of other namespaces.
    match fs::remove_dir(pins) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

/// Takes off a port what no pin holds: filters of kernels before 6.6. Those of a tunnel's device go with it.
pub(crate) fn remove_filters(interface: &str) {
    if !has_tcx() {
        // Fails where there is none, as on interfaces that are no ports.
        let _ = tc::qdisc_detach_program(interface, TcAttachType::Ingress, TC_IN);
    }
}

/// In which the kernel frees a link whose pin has gone.
const FREED: Duration = Duration::from_secs(1);

/// Attaches as soon as the kernel has freed the link of the program before: until then it says that there is one.
fn once_free<T>(
    patience: Duration,
    mut attach: impl FnMut() -> Result<T, ProgramError>,
) -> Result<T, ProgramError> {
    let started = Instant::now();
    loop {
        match attach() {
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(EEXIST)
                    && started.elapsed() < patience =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Pins a link, which then holds without the daemon.
fn keep(link: FdLink, path: PathBuf) -> Result<(), AttachError> {
    link.pin(&path).map(drop).map_err(|source| AttachError::Pin { path, source })
}

/// What TC programs hang from before kernel 6.6. It stays, since others may use it as well, and so
/// may be there.
fn add_clsact(interface: &str) -> Result<(), TcError> {
    match tc::qdisc_add_clsact(interface) {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        result => result,
    }
}

/// Whether TC programs are attached by links, which can be pinned: since kernel 6.6.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn pin(pins: &Path, ifindex: u32, hook: Hook) -> PathBuf {
    pins.join("links").join(format!("{ifindex}-{}", hook.name()))
}
