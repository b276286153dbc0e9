//! What the daemon owns, and how it follows the kernel.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::{
    control::access::{Access, Members},
    dataplane::{
        self, Allocated, Attachment, DataPlane, HopKey, Kernels, Known, TunnelState, Underlays,
    },
    loader::{Programs, XdpModes},
    maps::Maps,
    model::{Desired, XdpMode},
    netlink::Kernel,
    observed::{Link, NeighbourState, Snapshot},
    reconcile::{self, Attached, AttachedPort, Change},
    slowpath::task::Shared,
};

use super::{ports, service::Service};

pub struct World {
    pub(super) kernel: Kernel,
    programs: Option<Programs>,
    pub(super) maps: Maps,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) desired: Desired,
    pub(super) attached: Attached,
    pub(super) states: BTreeMap<String, TunnelState>,
    /// The kernel's own tunnels, by name.
    pub(super) kernels: BTreeMap<String, Kernels>,
    pub(super) allocated: Allocated,
    /// Tunnel ids whose counters are their tunnel's, and not an earlier one's.
    pub(super) counted: BTreeMap<u32, String>,
    /// Tunnels whose device has been seen; it may then vanish only because somebody removed it.
    pub(super) seen: BTreeSet<String>,
    /// Tunnels that were up in the last snapshot.
    pub(super) up: BTreeSet<String>,
    /// MTU that the daemon gave a device; while it still has that, it follows the underlay's.
    pub(super) mtus: BTreeMap<String, u32>,
    /// Neighbours that the kernel has been asked to confirm since they were last known to be good.
    asked: HashSet<(u32, IpAddr)>,
    /// Learned from ICMP, and from asking.
    pub(super) known: Known,
    /// Tunnels whose path is too narrow for IPv6, which has been said.
    pub(super) narrow: BTreeSet<String>,
    /// Tier 3.
    pub(super) slow_path: Shared,
    /// Who may change what runs, by the control socket.
    access: Access,
    /// Ports that have been told to leave VLAN tags in frames.
    untagged: BTreeSet<u32>,
    /// Prefixes that the kernel routes for want of groups of next hops.
    groups_left_out: usize,
    /// The maps say what the kernel has, as far as we know.
    current: bool,
    pub(super) service: Service,
}

/// How long the programs go on forwarding by the mirror of bridges after the daemon has last vouched
/// for it. The kernel's bridges go on learning meanwhile, and nobody tells the programs.
const VOUCHED: Duration = Duration::from_secs(5);

impl World {
    pub fn new(
        kernel: Kernel,
        programs: Programs,
        maps: Maps,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        slow_path: Shared,
        access: Access,
    ) -> Self {
        Self {
            kernel,
            programs: Some(programs),
            maps,
            snapshots,
            desired: Desired::default(),
            attached: Attached::default(),
            states: BTreeMap::new(),
            kernels: BTreeMap::new(),
            allocated: Allocated::default(),
            counted: BTreeMap::new(),
            seen: BTreeSet::new(),
            up: BTreeSet::new(),
            mtus: BTreeMap::new(),
            asked: HashSet::new(),
            known: Known::default(),
            narrow: BTreeSet::new(),
            slow_path,
            access,
            untagged: BTreeSet::new(),
            groups_left_out: 0,
            current: false,
            service: Service::starting(),
        }
    }

    /// From now on the members of this group may change what runs, and of no other.
    ///
    /// # Errors
    /// When there is no such group.
    pub(super) fn let_group(&mut self, group: Option<String>) -> Result<(), String> {
        let members = group.as_deref().map(Members::named).transpose()?;
        self.access.set(members);
        self.desired.control_group = group;
        Ok(())
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    pub fn tunnel_count(&self) -> usize {
        self.desired.tunnels.len()
    }

    /// Brings everything in line with the kernel's newest state.
    pub async fn follow(&mut self) {
        let snapshot = self.snapshot();
        if snapshot.in_doubt {
            self.doubt();
        }
        self.forget_vanished(&snapshot);
        if let Err(error) = self.attach(&snapshot) {
            warn!("{error:#}");
        }
        self.ask_underlays(&snapshot).await;
        // Before frames are forwarded by their tags.
        self.leave_vlan_tags(&snapshot).await;
        self.refresh();
        self.tell_of_narrow_paths(&snapshot);
        self.follow_underlay(&snapshot).await;
        self.confirm_neighbours(&snapshot).await;
    }

    /// Somebody removed the device: that is how the tunnel was removed.
    fn forget_vanished(&mut self, snapshot: &Snapshot) {
        let devices = dataplane::devices(&self.desired, snapshot);
        let vanished: Vec<_> =
            self.seen.iter().filter(|name| !devices.contains_key(*name)).cloned().collect();
        for name in vanished {
            info!(tunnel = name, "its device was removed, and so the tunnel");
            self.forget(&name);
        }
        self.seen.extend(devices.into_keys());
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.desired.tunnels.remove(name);
        self.seen.remove(name);
        self.up.remove(name);
        self.mtus.remove(name);
        self.narrow.remove(name);
    }

    /// Fills the maps before any program uses them, as if the programs ran where an earlier daemon's do.
    pub(super) fn prepare(&mut self, snapshot: &Snapshot) -> Result<()> {
        let Some(programs) = &mut self.programs else { return Ok(()) };
        for change in reconcile::reconcile(&self.desired, snapshot, &self.attached) {
            if let Change::AttachPort { ifindex, mode, .. } = change {
                let attachment = programs.left(ifindex);
                let goes_on = matches!(mode, XdpMode::Auto | XdpMode::Generic);
                if attachment == Attachment::Generic && goes_on {
                    // It has maps of its own.
                    programs.load_xdp(XdpModes::GENERIC)?;
                }
                let port = AttachedPort { mode, attachment, note: None };
                self.attached.ports.insert(ifindex, port);
            }
        }
        let is_filled = self.refresh();
        // That was not so yet.
        self.attached = Attached::default();
        ensure!(
            is_filled,
            "the programs of the earlier build go on: see above why not those of this one"
        );
        Ok(())
    }

    /// No program uses the maps of an earlier build any more.
    pub(super) fn settle(&self) -> Result<()> {
        Ok(self.programs.as_ref().map_or(Ok(()), Programs::settle)?)
    }

    /// Attaches and detaches programs. Goes on after an error, and returns the first.
    pub(super) fn attach(&mut self, snapshot: &Snapshot) -> Result<()> {
        let mut first = Ok(());
        let Some(programs) = &mut self.programs else { return first };
        let changes = reconcile::reconcile(&self.desired, snapshot, &self.attached);
        if changes.is_empty() {
            return first;
        }
        let ports = reconcile::ports(&self.desired, snapshot);
        let asked = changes.iter().filter_map(|change| match change {
            Change::AttachPort { ifindex, mode, .. } => Some((*ifindex, *mode)),
            Change::AttachDevice { .. } | Change::Detach { .. } => None,
        });
        // It takes the verifier a while, in which all stays as it is.
        if let Err(error) = programs.load_xdp(ports::modes_of(asked, &ports, snapshot)) {
            first = Err(error.into());
        }
        for change in changes {
            debug!(?change, "reconciling");
            match change {
                Change::Detach { ifindex } => {
                    programs.detach(ifindex);
                    self.attached.ports.remove(&ifindex);
                    self.attached.devices.remove(&ifindex);
                }
                Change::AttachDevice { ifindex, name, peer, peer_name } => {
                    match programs.attach_device((ifindex, &name), (peer, &peer_name)) {
                        Ok(()) => {
                            self.attached.devices.insert(ifindex, peer);
                        }
                        Err(error) => first = first.and(Err(error.into())),
                    }
                }
                Change::AttachPort { ifindex, name, mode } => {
                    match ports::attach(programs, (ifindex, &name), mode, &ports, snapshot) {
                        Ok(port) => {
                            info!(port = name, xdp = ?port.attachment, "attached");
                            self.attached.ports.insert(ifindex, port);
                        }
                        Err(error) => {
                            let note = Some(error.to_string());
                            let port = AttachedPort { mode, attachment: Attachment::Off, note };
                            self.attached.ports.insert(ifindex, port);
                            first = first.and(Err(error));
                        }
                    }
                }
            }
        }
        first
    }

    /// Works the maps out anew and writes what changed, all of it or nothing; says which.
    pub(super) fn refresh(&mut self) -> bool {
        let snapshot = self.snapshot();
        self.kernels = dataplane::kernels(&self.desired, &snapshot);
        let (plane, states) = self.compile(&snapshot);
        for (name, state) in &states {
            if self.counted.get(&state.id) != Some(name) {
                self.maps.reset(state.id);
                self.counted.insert(state.id, name.clone());
            }
        }
        let starved = self.maps.routes.starved();
        let left_out = self.maps.bridges.left_out();
        let groups_left_out = plane.groups_left_out;
        let applied = self.maps.apply(plane);
        let is_written = applied.is_ok();
        match applied {
            Ok(()) => {
                self.states = states;
                self.inform_slow_path(&snapshot);
                self.current = !snapshot.in_doubt;
                self.vouch();
            }
            Err(error) => {
                error!("the maps could not be brought up to date: {error}");
                self.doubt();
            }
        }
        if left_out == 0 && self.maps.bridges.left_out() > 0 {
            warn!(
                addresses = self.maps.bridges.left_out(),
                "the kernel forwards to addresses behind bridges that are too many: raise limits.fdb"
            );
        }
        if groups_left_out > self.groups_left_out {
            warn!(
                prefixes = groups_left_out,
                "the kernel routes these prefixes: their next hops make more than {} different groups",
                dataplane::GROUPS
            );
        }
        self.groups_left_out = groups_left_out;
        if self.maps.routes.starved() > starved {
            warn!(
                prefixes = self.maps.routes.starved(),
                "the route table is full, the kernel routes these /24s: raise limits.route_blocks"
            );
        }
        is_written
    }

    /// Lets the programs forward by the mirror of bridges for a while, if it is true.
    pub(super) fn vouch(&self) {
        if self.current {
            let now =
                clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
            self.maps.bridges.vouch((now + VOUCHED).as_nanos() as u64);
        }
    }

    /// The mirror may be false: leaves bridged frames to the kernel.
    fn doubt(&mut self) {
        self.current = false;
        self.maps.bridges.doubt();
    }

    fn compile(&mut self, snapshot: &Snapshot) -> (DataPlane, BTreeMap<String, TunnelState>) {
        let ports =
            self.attached.ports.iter().map(|(&ifindex, port)| (ifindex, port.attachment)).collect();
        dataplane::compile(&self.desired, snapshot, &ports, &self.known, &mut self.allocated)
    }

    /// Asks the kernel where outer packets go that its tables alone do not tell of.
    async fn ask_underlays(&mut self, snapshot: &Snapshot) {
        let mut answers = Underlays::new();
        for question in dataplane::questions(&self.desired, snapshot) {
            let answer = self.kernel.way(question).await.unwrap_or_else(|error| {
                warn!("{error}");
                None
            });
            answers.insert(question, answer);
        }
        self.known.underlays = answers;
    }

    /// XDP sees only tags that are in the frame.
    async fn leave_vlan_tags(&mut self, snapshot: &Snapshot) {
        self.untagged.retain(|ifindex| snapshot.links.contains_key(ifindex));
        let vlans = snapshot.links.values().filter(|link| link.vlan.is_some());
        let bases = vlans.filter_map(|link| Some(dataplane::wire(snapshot, link.ifindex)?.0));
        let bridges = dataplane::bridges_of_tunnels(&self.desired, snapshot);
        let is_member = |link: &&Link| link.master.is_some_and(|master| bridges.contains(&master));
        let members = snapshot.links.values().filter(is_member);
        let tagged: BTreeSet<_> = bases
            .chain(members.map(|link| link.ifindex))
            .filter(|port| self.attached.ports.contains_key(port))
            .collect();
        for port in tagged {
            if self.untagged.insert(port)
                && let Err(error) = self.kernel.leave_vlan_tags(port).await
            {
                debug!(%error, "a device that cannot take tags out needs no telling");
            }
        }
    }

    /// Asks the kernel, once each time, to confirm neighbours that the data plane sends to: packets
    /// that XDP forwards do not tell the kernel that an entry is in use.
    async fn confirm_neighbours(&mut self, snapshot: &Snapshot) {
        let known: BTreeMap<_, _> = snapshot
            .neighbours
            .iter()
            .map(|neighbour| ((neighbour.ifindex, neighbour.ip), neighbour.state))
            .collect();
        let underlays: HashSet<_> = self.states.values().filter_map(|s| s.underlay).collect();
        let used: Vec<_> = self
            .allocated
            .next_hops
            .things()
            .filter_map(|key| match key {
                HopKey::Neighbour(hop) | HopKey::ByKernel(hop) => Some(*hop),
                HopKey::Device(_) | HopKey::Port(_) => None,
            })
            .collect();
        for hop in used {
            let at = (hop.ifindex, hop.ip);
            let doubtful = match known.get(&at) {
                Some(NeighbourState::Valid) => false,
                Some(NeighbourState::Stale) => true,
                // Only traffic should make the kernel look for the rest.
                Some(NeighbourState::Unresolved) | None => underlays.contains(&hop),
            };
            if !doubtful {
                self.asked.remove(&at);
            } else if self.asked.insert(at)
                && let Err(error) = self.kernel.confirm_neighbour(hop.ifindex, hop.ip).await
            {
                debug!(%error, "confirming a neighbour");
            }
        }
    }

    /// Leaves the data plane running, but for bridges, which somebody has to follow.
    pub fn leave(mut self) {
        self.doubt();
        if let Some(programs) = self.programs.take() {
            programs.leave();
        }
    }

    /// Removes everything, tunnels and their devices first.
    pub async fn teardown(mut self) {
        let names: Vec<_> = self.desired.tunnels.keys().cloned().collect();
        for name in names {
            if let Err(error) = self.delete_tunnel(&name).await {
                error!("removing tunnel {name}: {error}");
            }
        }
        self.doubt();
        if let Some(programs) = self.programs.take()
            && let Err(error) = programs.teardown()
        {
            error!("removing the pins: {error}");
        }
    }
}
