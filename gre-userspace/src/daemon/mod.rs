//! The daemon: one task owns the desired state, the maps and the programs. It does one thing at a
//! time: a command, or the next state of the kernel.

pub mod handle;
pub mod mismatch;

mod alias;
mod change;
mod describe;
mod slow;
mod takeover;
mod tunnels;
mod world;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    control::server::Server,
    dataplane::is_device,
    instance::Instance,
    loader::{self, Programs},
    model::{Desired, XdpMode},
    monitor,
    netlink::Kernel,
    observed::Snapshot,
    reconcile,
    slowpath::handle::PathMtu,
};

use self::{
    handle::{Command, Handle},
    world::World,
};

pub struct Options {
    pub desired: Desired,
    pub instance: Instance,
    /// Remove everything at the end: programs, devices, maps, pins.
    pub teardown: bool,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When anything that the configuration asks for cannot be had; then nothing is left behind that
/// was not there before.
pub async fn run(options: Options) -> Result<()> {
    let Options { desired, instance, teardown } = options;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let kernel = Kernel::connect()?;
    let snapshots = monitor::watch(&kernel).await?;
    check(&desired, &instance, &snapshots.borrow())?;

    instance.prepare()?;
    let (handle, commands) = Handle::new();
    // Before anything else is touched: it is what a second daemon stumbles on.
    let server = Server::start(&instance.socket, handle)?;
    let takeover = loader::is_running(&instance.pins);
    let (programs, maps, for_daemon) = loader::load(&desired.limits, &instance.pins)?;
    let (slow_path, path_mtus) = slow::start(for_daemon)?;
    let mut world = World::new(kernel, programs, maps, snapshots.clone(), slow_path);
    if let Err(error) = world.start(desired).await {
        // What an earlier daemon left forwarding goes on as it can.
        if takeover {
            world.leave();
        } else {
            world.teardown().await;
        }
        return Err(error);
    }
    info!(tunnels = world.tunnel_count(), "forwarding");
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let result = tokio::select! {
        result = serve(&mut world, snapshots, commands, path_mtus) => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    drop(server);
    if teardown {
        info!("taking everything down");
        world.teardown().await;
        instance.remove();
    } else {
        info!("leaving; packets are still forwarded, `xgre run` takes over");
        world.leave();
    }
    result
}

/// How often the daemon vouches for the mirror of bridges.
const VOUCH_INTERVAL: Duration = Duration::from_secs(1);

/// Answers commands and follows the kernel.
async fn serve(
    world: &mut World,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    mut commands: mpsc::Receiver<Command>,
    mut path_mtus: mpsc::UnboundedReceiver<PathMtu>,
) -> Result<()> {
    let mut vouch = interval(VOUCH_INTERVAL);
    vouch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = vouch.tick() => world.vouch(),
            changed = snapshots.changed() => {
                changed.context("the task that follows the kernel has ended")?;
                snapshots.mark_unchanged();
                world.follow().await;
            }
            Some(learned) = path_mtus.recv() => world.learn(learned).await,
            command = commands.recv() => {
                match command.context("the control socket has ended")? {
                    Command::AddTunnel(tunnel, reply) => {
                        let _ = reply.send(world.add_tunnel(*tunnel).await);
                    }
                    Command::ChangeTunnel(name, tunnel, reply) => {
                        let _ = reply.send(world.change_tunnel(&name, *tunnel).await);
                    }
                    Command::ResetSequence(name, reply) => {
                        let _ = reply.send(world.reset_sequence(&name));
                    }
                    Command::DeleteTunnel(name, reply) => {
                        let _ = reply.send(world.delete_tunnel(&name).await);
                    }
                    Command::Tunnels(reply) => {
                        let _ = reply.send(describe::tunnels(world));
                    }
                    Command::Ports(reply) => {
                        let _ = reply.send(describe::ports(world));
                    }
                    Command::Stats(reply) => {
                        let _ = reply.send(describe::stats(world));
                    }
                }
            }
        }
    }
}

/// Refuses a configuration that the machine cannot satisfy, before anything is changed.
fn check(desired: &Desired, instance: &Instance, snapshot: &Snapshot) -> Result<()> {
    let named = |name: &str| snapshot.links.values().find(|link| link.name == name);
    for name in desired.ports.keys() {
        if named(name).is_none() {
            let links: Vec<_> = snapshot.links.values().map(|link| link.name.as_str()).collect();
            bail!(
                "[[port]] \"{name}\": no such interface; this network namespace has {}",
                links.join(", ")
            );
        }
    }
    for tunnel in desired.tunnels.values() {
        if let Some(link) = named(&tunnel.name)
            && !is_device(link)
        {
            bail!(
                "tunnel \"{0}\": an interface of that name exists and is not a tunnel of xgre: \
                 `ip link del {0}`, or choose another name",
                tunnel.name
            );
        }
    }
    for (ifindex, (name, mode)) in reconcile::ports(desired, snapshot) {
        let link = &snapshot.links[&ifindex];
        if let Some(xdp) = link.xdp
            && mode != XdpMode::Off
            && !Programs::is_pinned(&instance.pins, ifindex)
        {
            bail!(
                "port {name}: it already has an XDP program (id {}): take it off with \
                 `ip link set dev {name} {} off`, or leave the port to TC with [[port]] name = \
                 \"{name}\", xdp = \"off\"",
                xdp.program_id,
                if xdp.generic { "xdpgeneric" } else { "xdp" },
            );
        }
        if mode == XdpMode::Off && link.xdp.is_some() {
            warn!(port = name, "its XDP program sees packets before xgre does");
        }
    }
    Ok(())
}
