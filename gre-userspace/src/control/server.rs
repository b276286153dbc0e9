//! The daemon's end of the control socket.
//!
//! It has a thread of its own, so that neither a busy data plane nor a busy client holds up the
//! other, and a task for every client: zlink serves all connections of one `Server` from a single
//! task, which would wait for the slowest.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;
use tokio::{
    runtime,
    sync::{Semaphore, oneshot},
    task::{LocalSet, spawn_local},
};
use tracing::{debug, warn};
use zlink::ReadyListener;

use super::{
    access::{Access, Caller},
    api::{AdoptSpec, Applied, Error, LinkSettings, Links, Ports, Running, TunnelSpec, Tunnels},
};
use crate::{
    config,
    daemon::handle::{Handle, Stopping, When},
    model::{Adoption, DeviceSettings, Tunnel},
    plan::Step,
    report::{
        Count, Direction, LinkInfo, Mismatch, PathMtu, PlanStep, PortInfo, Sequence, Stats,
        TierOutcomes, Traffic, TunnelInfo, TunnelStats,
    },
};

/// A control socket being served, until this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Error)]
pub enum ServerError {
    #[error("another xgre daemon answers on {0}; stop it first: `systemctl stop xgre`")]
    Taken(PathBuf),
    #[error("cannot listen on the control socket {path}: {source}")]
    Listen { path: PathBuf, source: io::Error },
}

impl Server {
    /// Serves `handle` on a socket at `path`, whose directory exists, to whom `access` lets. A socket
    /// that nobody answers on, left by a daemon that was killed, is replaced.
    pub fn start(path: &Path, handle: Handle, access: Access) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen { path: path.to_owned(), source };
        let listener = listen(path)?;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::UnixListener::from_std(listener).map_err(failed)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                LocalSet::new().block_on(&runtime, async {
                    tokio::select! {
                        () = accept(listener, handle, access) => {}
                        _ = stopped => {}
                    }
                });
            })
            .map_err(failed)?;
        Ok(Self { path: path.to_owned(), stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A client that came after this would wait for an answer in vain.
        if let Err(error) = fs::remove_file(&self.path) {
            warn!("removing {}: {error}", self.path.display());
        }
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the control socket's thread had panicked");
        }
    }
}

/// Whether a daemon listens on the socket at `path`, which one that was killed may have left.
pub fn answers(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// Binds the socket, which everybody may connect to: who may do what is looked at in each call.
fn listen(path: &Path) -> Result<UnixListener, ServerError> {
    let failed = |source| ServerError::Listen { path: path.to_owned(), source };
    // Two daemons that start at once must not each take the other's new socket for a dead one.
    let directory = File::open(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    let _lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, error)| failed(error.into()))?;

    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if answers(path) {
                return Err(ServerError::Taken(path.to_owned()));
            }
            fs::remove_file(path).and_then(|()| UnixListener::bind(path))
        }
        bound => bound,
    }
    .map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// How many callers other than root are served at a time: they must not use up the daemon's file
/// descriptors.
const OTHERS: usize = 64;

async fn accept(listener: tokio::net::UnixListener, handle: Handle, access: Access) {
    let others = Arc::new(Semaphore::new(OTHERS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                spawn_local(serve(stream, handle.clone(), access.clone(), others.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: give the clients time to go.
                warn!("accepting a client of the control socket: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: tokio::net::UnixStream,
    handle: Handle,
    access: Access,
    others: Arc<Semaphore>,
) {
    let caller = match Caller::of(&stream) {
        Ok(caller) => caller,
        Err(error) => return warn!("who a client of the control socket is: {error}"),
    };
    let _place = match others.try_acquire() {
        _ if caller.is_root() => None,
        Ok(place) => Some(place),
        Err(_) => return debug!(?caller, "{OTHERS} callers other than root already, hanging up"),
    };
    let connection = match zlink::tokio::unix::Stream::try_from(stream) {
        Ok(stream) => ReadyListener::new(stream),
        Err(error) => return warn!("a client of the control socket: {error}"),
    };
    let control = Control { handle, access, caller };
    if let Err(error) = zlink::Server::new(connection, control).run().await {
        debug!("a client of the control socket: {error}");
    }
}

/// What one client may call.
struct Control {
    handle: Handle,
    access: Access,
    caller: Caller,
}

#[zlink::service(
    interface = "io.xgre.Control",
    types = [
        TunnelSpec, AdoptSpec, TunnelInfo, LinkInfo, LinkSettings, PortInfo, TunnelStats, Direction, Traffic, Count, TierOutcomes,
        Mismatch, PathMtu, Sequence, PlanStep
    ],
    vendor = "xgre",
    product = "xgre",
    version = env!("CARGO_PKG_VERSION"),
    url = env!("CARGO_PKG_REPOSITORY")
)]
impl Control {
    /// Creates a tunnel and its device, which `ip link set NAME up` then brings up.
    async fn add_tunnel(&self, tunnel: TunnelSpec) -> Result<(), Error> {
        self.authorise()?;
        let tunnel = Tunnel::try_from(tunnel)?;
        Ok(self.handle.add_tunnel(tunnel).await??)
    }

    /// Gives a tunnel other options, all at once; its device stays. Name and mode are not changed
    /// here, nor what is the device's: its MTU, addresses and routes.
    async fn change_tunnel(&self, name: String, tunnel: TunnelSpec) -> Result<(), Error> {
        self.authorise()?;
        let tunnel = Tunnel::try_from(tunnel)?;
        Ok(self.handle.change_tunnel(name, tunnel).await??)
    }

    /// Starts a tunnel's sequence numbers anew in both directions.
    async fn reset_sequence(&self, name: String) -> Result<(), Error> {
        self.authorise()?;
        Ok(self.handle.reset_sequence(name).await??)
    }

    /// Removes a tunnel and its device.
    async fn delete_tunnel(&self, name: String) -> Result<(), Error> {
        self.authorise()?;
        Ok(self.handle.delete_tunnel(name).await??)
    }

    /// Sets the device of a tunnel up or down, and its MTU and address, as `ip link set` does.
    async fn set_link(&self, name: String, settings: LinkSettings) -> Result<(), Error> {
        self.authorise()?;
        let settings = DeviceSettings::try_from(settings)?;
        Ok(self.handle.set_link(name, settings).await??)
    }

    /// Accelerates a tunnel of the kernel's own, or all of them, or leaves it alone. It counts more than the
    /// config, until a teardown.
    async fn adopt(&self, adopt: AdoptSpec) -> Result<(), Error> {
        self.authorise()?;
        let adoption = Adoption::try_from(adopt)?;
        Ok(self.handle.adopt(adoption).await??)
    }

    /// Makes tunnels and ports as the text of a config file says: all of it, or nothing. Tunnels that
    /// calls of `AddTunnel` made and the file does not name stay. `name` stands for the file in errors;
    /// with `dry_run` it is only said what would be done.
    async fn apply(&self, name: String, config: String, dry_run: bool) -> Result<Applied, Error> {
        if !dry_run {
            self.authorise()?;
        }
        let wanted = config::parse(&name, &config).map_err(|error| Error::InvalidConfig {
            reason: format!("{:?}", miette::Report::new(error)),
        })?;
        let when = if dry_run { When::Never } else { When::Now };
        let steps = self.handle.apply(wanted, when).await??;
        Ok(Applied { steps: steps.iter().flat_map(Step::told).collect() })
    }

    /// The tunnels as a config would have to name them to bring them back as they are.
    async fn running(&self) -> Result<Running, Error> {
        let tunnels = self.handle.running().await?;
        let adopted = self.handle.adopted().await?.told();
        Ok(Running {
            tunnels: tunnels.iter().map(TunnelSpec::from).collect(),
            adopt: adopted.iter().map(AdoptSpec::from).collect(),
        })
    }

    /// All tunnels, as configured and as they stand.
    async fn tunnels(&self) -> Result<Tunnels, Error> {
        Ok(Tunnels { tunnels: self.handle.tunnels().await? })
    }

    /// The devices of all tunnels, as the kernel has them.
    async fn links(&self) -> Result<Links, Error> {
        Ok(Links { links: self.handle.links().await?? })
    }

    /// The interfaces that packets are forwarded between.
    async fn ports(&self) -> Result<Ports, Error> {
        Ok(Ports { ports: self.handle.ports().await? })
    }

    /// Counters of every tunnel and tier, since the maps were created.
    async fn stats(&self) -> Result<Stats, Error> {
        Ok(self.handle.stats().await?)
    }
}

impl Control {
    fn authorise(&self) -> Result<(), Error> {
        let may_change = self.access.may_change(&self.caller);
        may_change.map_err(|reason| Error::PermissionDenied { reason })
    }
}

impl From<Stopping> for Error {
    fn from(Stopping: Stopping) -> Self {
        Self::Stopping
    }
}
