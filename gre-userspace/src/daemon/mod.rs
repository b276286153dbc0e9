//! The daemon: one task owns the desired state, the maps and the programs. It does one thing at a
//! time: a command, or the next state of the kernel.

pub mod handle;
pub mod mismatch;

mod adopt;
mod alias;
mod apply;
mod change;
mod check;
mod describe;
mod links;
mod ports;
mod reload;
mod service;
mod slow;
mod takeover;
mod tunnels;
mod world;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tracing::info;

use crate::{
    control::{access::Access, server::Server},
    instance::Instance,
    loader::{self, Build, Loaded},
    model::Desired,
    monitor,
    netlink::Kernel,
    observed::Snapshot,
    slowpath::handle::PathMtu,
};

use self::{
    handle::{Command, Handle},
    world::World,
};

pub struct Options {
    pub desired: Desired,
    /// Where `desired` is from, to be read again on SIGHUP.
    pub config: PathBuf,
    pub instance: Instance,
    /// Remove everything at the end: programs, devices, maps, pins.
    pub teardown: bool,
    pub build: Build,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When anything that the configuration asks for cannot be had; then nothing is left behind that
/// was not there before.
pub async fn run(options: Options) -> Result<()> {
    let Options { mut desired, config, instance, teardown, build } = options;
    let hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let kernel = Kernel::connect()?;
    let snapshots = monitor::watch(&kernel).await?;
    check::can_be(&desired, &instance, &snapshots.borrow())?;

    instance.prepare()?;
    desired.told = adopt::read(&instance.adopted);
    let (handle, commands) = Handle::new();
    let access = Access::default();
    // Before anything else is touched: it is what a second daemon stumbles on.
    let server = Server::start(&instance.socket, handle, access.clone())?;
    let takeover = loader::is_running(&instance.pins);
    let modes = ports::modes(&desired, &snapshots.borrow());
    let Loaded { programs, maps, for_daemon, migrated } =
        loader::load(&build, &desired.limits, &instance.pins, modes)?;
    let (slow_path, path_mtus) = slow::start(for_daemon)?;
    let mut world = World::new(kernel, programs, maps, snapshots.clone(), slow_path, access);
    if let Err(error) = world.start(desired, migrated).await {
        // What an earlier daemon left forwarding goes on as it can.
        if takeover {
            world.leave();
        } else {
            world.teardown().await;
        }
        return Err(error);
    }
    info!(tunnels = world.tunnel_count(), "forwarding");
    world.service.ready(&describe::in_brief(&world));

    let result = tokio::select! {
        result = serve(&mut world, Told { snapshots, commands, path_mtus, hangup }, &config, &instance) => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    world.service.stopping();
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

/// How often the daemon vouches for the mirror of bridges, and tells the service manager of itself.
const PULSE: Duration = Duration::from_secs(1);

/// What the daemon listens to.
struct Told {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    commands: mpsc::Receiver<Command>,
    path_mtus: mpsc::UnboundedReceiver<PathMtu>,
    hangup: Signal,
}

/// Answers commands and follows the kernel.
async fn serve(world: &mut World, told: Told, config: &Path, instance: &Instance) -> Result<()> {
    let Told { mut snapshots, mut commands, mut path_mtus, mut hangup } = told;
    let mut pulse = interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = pulse.tick() => {
                world.vouch();
                world.service.alive();
                world.service.status(&describe::in_brief(world));
            }
            changed = snapshots.changed() => {
                changed.context("the task that follows the kernel has ended")?;
                snapshots.mark_unchanged();
                world.follow().await;
            }
            Some(learned) = path_mtus.recv() => world.learn(learned).await,
            Some(()) = hangup.recv() => world.reload(config, instance).await,
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
                    Command::SetLink(name, settings, reply) => {
                        let _ = reply.send(world.set_link(&name, settings).await);
                    }
                    Command::Adopt(adoption, reply) => {
                        let _ = reply.send(world.adopt(adoption, &instance.adopted).await);
                    }
                    Command::Adopted(reply) => {
                        let _ = reply.send(world.desired.adoption());
                    }
                    Command::Apply(wanted, when, reply) => {
                        let _ = reply.send(world.apply(*wanted, instance, when).await);
                    }
                    Command::Running(reply) => {
                        let _ = reply.send(world.running());
                    }
                    Command::Tunnels(reply) => {
                        let _ = reply.send(describe::tunnels(world));
                    }
                    Command::Links(reply) => {
                        let _ = reply.send(links::read(world).await);
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
