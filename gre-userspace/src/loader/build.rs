//! What a build of xgre brings along, and where its maps are pinned beside those of other builds.
//!
//! Below [`Instance::pins`](crate::instance::Instance) each layout has a directory, `maps-LAYOUT`. A daemon
//! of the layout that is there takes its maps over. One of another layout makes maps of its own, takes over those
//! that the programs write where their values mean the same, fills the rest, puts its programs in the place
//! of the old ones, and then removes the other directory: no packet is lost at any step, and a daemon
//! that is killed at any step leaves what the next one goes on with.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapData;
use gre_ebpf_common::tunnel::Tunnel;
use tracing::{info, warn};

use super::{FRAMES, HELD, LoadError, Size};
use crate::maps::mapping::Mapping;

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("XGRE_BPF_OBJECT"));

/// Raised when a map comes or goes, when its kind changes, and when its values change their size or their
/// meaning.
const LAYOUT: u32 = 1;

/// The programs, and how their maps are laid out.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    pub object: &'static [u8],
    pub layout: u32,
}

impl Build {
    /// That of this binary.
    pub const THIS: Self = Self { object: OBJECT, layout: LAYOUT };

    /// The directory of its maps.
    pub fn maps(&self, pins: &Path) -> PathBuf {
        pins.join(format!("{DIRECTORY}{}", self.layout))
    }
}

/// Maps that the programs write, and the layout since which their values are as they are now.
const CARRIED: [(&str, u32); 8] = [
    (HELD, 1),
    (FRAMES, 1),
    ("IDENTIFICATIONS", 1),
    ("SEQUENCES", 1),
    ("MISMATCHES", 1),
    ("TUNNEL_COUNTERS", 1),
    ("TUNNEL_DROPS", 1),
    ("OUTCOMES", 1),
];

/// The same of the map whose indices those by tunnel have.
const TUNNELS: (&str, u32) = ("TUNNELS", 1);

/// Where the maps of a build are, and those of others that forwarded here before.
#[derive(Debug)]
pub(super) struct Pins {
    pub maps: PathBuf,
    /// Whether there were maps of this layout.
    pub taken_over: bool,
    /// By layout, the highest first.
    others: Vec<(u32, PathBuf)>,
}

impl Pins {
    pub fn find(pins: &Path, build: &Build) -> io::Result<Self> {
        let mut others = directories(pins)?;
        others.sort_by_key(|(layout, _)| std::cmp::Reverse(*layout));
        let own = others.iter().position(|(layout, _)| *layout == build.layout);
        let taken_over = own.map(|own| others.remove(own)).is_some();
        Ok(Self { maps: build.maps(pins), taken_over, others })
    }

    /// The maps of another layout that packets may still be forwarded by.
    fn earlier(&self, build: &Build) -> Option<(u32, &Path)> {
        // What a newer build's values mean nobody knows here.
        let known = self.others.iter().find(|(layout, _)| *layout < build.layout);
        known.map(|(layout, path)| (*layout, path.as_path()))
    }

    pub fn are_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// Pins what the programs of the earlier layout have written for those of this one.
    pub fn carry(&self, build: &Build, sizes: &[Size]) -> Result<(), LoadError> {
        if !self.are_others() {
            return Ok(());
        }
        info!(layout = build.layout, "taking over from a build whose maps are laid out otherwise");
        let Some((layout, earlier)) = self.earlier(build) else {
            warn!("that build is a newer one: counters and sequence numbers start anew");
            return Ok(());
        };
        let tunnels = size(sizes, TUNNELS.0)?;
        if layout < TUNNELS.1 || open(earlier, tunnels)?.is_none() {
            warn!(
                "that build numbered tunnels otherwise: counters and sequence numbers start anew"
            );
            return Ok(());
        }
        for (name, since) in CARRIED {
            let map = if layout < since { None } else { open(earlier, size(sizes, name)?)? };
            match map {
                Some(map) => pin(map, &self.maps.join(name))?,
                None => warn!(map = name, "starts anew: that build laid it out otherwise"),
            }
        }
        Ok(())
    }

    /// The tunnels in the maps of the earlier layout, with their ids, where what is counted for them
    /// was carried over.
    pub fn tunnels(&self, build: &Build, sizes: &[Size]) -> Result<Vec<(u32, Tunnel)>, LoadError> {
        let Some((layout, earlier)) = self.earlier(build) else { return Ok(Vec::new()) };
        let tunnels = size(sizes, TUNNELS.0)?;
        if layout < TUNNELS.1 {
            return Ok(Vec::new());
        }
        let Some(map) = open(earlier, tunnels)? else { return Ok(Vec::new()) };
        let memory = Mapping::of_map(&map, tunnels.entries as usize * tunnels.bytes)
            .map_err(|source| LoadError::Mapping { name: TUNNELS.0, source })?;
        let values = (0..tunnels.entries).map(|id| (id, memory.load::<Tunnel>(id)));
        Ok(values.filter(|(_, tunnel)| *tunnel != Tunnel::default()).collect())
    }

    /// Removes the maps of this layout, if there were none before.
    pub fn abandon(&self) {
        if !self.taken_over {
            let _ = fs::remove_dir_all(&self.maps);
        }
    }
}

/// Removes the maps of all layouts but this one, once no program uses them any more.
pub(super) fn remove_others(pins: &Path, own: &Path) -> io::Result<()> {
    for (_, directory) in directories(pins)?.into_iter().filter(|(_, directory)| directory != own) {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
}

/// What the directory of each layout's maps is called, before its number.
const DIRECTORY: &str = "maps-";

/// Of each layout, with its number. Builds before there were numbers have the number 0.
pub(super) fn directories(pins: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(pins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut directories = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let layout = match name.strip_prefix(DIRECTORY) {
            Some(number) => number.parse().ok(),
            None => (name == "maps").then_some(0),
        };
        directories.extend(layout.map(|layout| (layout, path)));
    }
    Ok(directories)
}

fn size<'a>(sizes: &'a [Size], name: &'static str) -> Result<&'a Size, LoadError> {
    sizes.iter().find(|size| size.name == name).ok_or(LoadError::Missing(name))
}

/// The map of another layout, if there is one whose values have this size. It is an error if it has another
/// number of entries: then the limits in the config have changed, too.
fn open(directory: &Path, size: &Size) -> Result<Option<MapData>, LoadError> {
    let path = directory.join(size.name);
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| LoadError::Map { name: size.name, source };
    let map = MapData::from_pin(&path).map_err(failed)?;
    let info = map.info().map_err(failed)?;
    if info.value_size() as usize != size.bytes {
        return Ok(None);
    }
    super::check_layout(&map, size)?;
    Ok(Some(map))
}

fn pin(map: MapData, path: &Path) -> Result<(), LoadError> {
    if path.exists() {
        // By a daemon that was killed on its way here.
        return Ok(());
    }
    let failed = |source| LoadError::Pin(path.to_owned(), source);
    map.pin(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{loader::sizes, model::Limits};

    /// Fails where a value changes its size: raise [`LAYOUT`] then, and here. The programs of an earlier build
    /// would read the new values as their own.
    #[test]
    fn layout_1_has_values_of_these_sizes() {
        let sizes = sizes(&Limits::default(), 1).map(|size| (size.name, size.bytes));
        assert_eq!(LAYOUT, 1);
        let of_layout_1 = [
            ("PORTS", 16),
            ("TX_PORTS", 8),
            ("TUNNELS", 64),
            ("TUNNELS6", 32),
            ("VLANS", 16),
            ("DEMUX", 64),
            ("NEXT_HOPS", 32),
            ("GROUPS", 256),
            ("ROUTES", 1024),
            ("ROUTES6", 1024),
            ("HOSTS6", 4),
            ("HELD", 192),
            ("FRAMES", 2112),
            ("IDENTIFICATIONS", 8),
            ("BRIDGE_MEMBERS", 16),
            ("FDB", 24),
            ("BRIDGES_UNTIL", 8),
            ("SEQUENCES", 64),
            ("MISMATCHES", 32),
            ("TUNNEL_COUNTERS", 64),
            ("TUNNEL_DROPS", 512),
            ("DETOURS", 4),
            ("OUTCOMES", 1024),
        ];
        assert_eq!(sizes, of_layout_1);
    }

    #[test]
    fn what_is_carried_over_are_maps() {
        let sizes = sizes(&Limits::default(), 1);
        for (name, since) in CARRIED.into_iter().chain([TUNNELS]) {
            assert!(size(&sizes, name).is_ok() && since <= LAYOUT, "{name}");
        }
    }

    #[test]
    fn maps_of_other_layouts_are_found_and_removed() -> io::Result<()> {
        let pins = tempfile::tempdir()?;
        let pins = pins.path();
        let build = Build { layout: 7, ..Build::THIS };
        assert!(!Pins::find(pins, &build)?.taken_over);
        assert!(directories(&pins.join("missing"))?.is_empty());

        for name in ["maps", "maps-7", "maps-3", "maps-x", "links", "netns-1"] {
            fs::create_dir(pins.join(name))?;
        }
        let found = Pins::find(pins, &build)?;
        assert!(found.taken_over && found.are_others());
        assert_eq!(found.maps, pins.join("maps-7"));
        assert_eq!(found.earlier(&build), Some((3, pins.join("maps-3").as_path())));
        // Of a newer one nothing is taken.
        let old = Build { layout: 0, ..Build::THIS };
        assert_eq!(Pins::find(pins, &old)?.earlier(&old), None);

        remove_others(pins, &found.maps)?;
        let mut left: Vec<_> = fs::read_dir(pins)?
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<Result<_, _>>()?;
        left.sort();
        assert_eq!(left, ["links", "maps-7", "maps-x", "netns-1"]);
        Ok(())
    }

    #[test]
    fn a_failed_start_leaves_no_maps_behind_that_were_not_there() -> io::Result<()> {
        let pins = tempfile::tempdir()?;
        let build = Build::THIS;
        let found = Pins::find(pins.path(), &build)?;
        fs::create_dir(&found.maps)?;
        found.abandon();
        assert!(!found.maps.exists());

        fs::create_dir(&found.maps)?;
        let found = Pins::find(pins.path(), &build)?;
        found.abandon();
        assert!(found.maps.exists());
        Ok(())
    }
}
