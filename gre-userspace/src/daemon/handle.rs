//! How the control socket talks to the daemon's one task, which owns all state.

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::{Adopt, Adoption, Desired, DeviceSettings, Tunnel},
    plan::Step,
    report::{LinkInfo, PortInfo, Stats, TunnelInfo},
};

pub use super::apply::When;

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A tunnel with this name, or with the same local, remote and key, exists.
    #[error("File exists: {0}")]
    Exists(String),
    #[error("No such device: no tunnel is called \"{0}\"; `xgre tunnel show` lists them")]
    NoSuchTunnel(String),
    #[error("{0}")]
    Invalid(String),
    /// The kernel refused a step; what had been done is undone.
    #[error("{0}")]
    Kernel(String),
}

/// One request to the daemon's task, with the way back.
pub enum Command {
    AddTunnel(Box<Tunnel>, oneshot::Sender<Result<(), Refusal>>),
    /// The tunnel of this name gets the options of that one.
    ChangeTunnel(String, Box<Tunnel>, oneshot::Sender<Result<(), Refusal>>),
    ResetSequence(String, oneshot::Sender<Result<(), Refusal>>),
    DeleteTunnel(String, oneshot::Sender<Result<(), Refusal>>),
    /// Of the device of the tunnel of this name.
    SetLink(String, DeviceSettings, oneshot::Sender<Result<(), Refusal>>),
    Adopt(Adoption, oneshot::Sender<Result<(), Refusal>>),
    /// Which tunnels of the kernel's own are accelerated, by config and commands.
    Adopted(oneshot::Sender<Adopt>),
    /// Tunnels and ports become these.
    Apply(Box<Desired>, When, oneshot::Sender<Result<Vec<Step>, Refusal>>),
    Running(oneshot::Sender<Vec<Tunnel>>),
    Tunnels(oneshot::Sender<Vec<TunnelInfo>>),
    Links(oneshot::Sender<Result<Vec<LinkInfo>, Refusal>>),
    Ports(oneshot::Sender<Vec<PortInfo>>),
    Stats(oneshot::Sender<Stats>),
}

/// Sends commands to the daemon's task; cheap to clone.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Command>);

/// The daemon's task has ended.
#[derive(Debug, Clone, Copy, Error)]
#[error("the daemon is stopping")]
pub struct Stopping;

impl Handle {
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(16);
        (Self(sender), receiver)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.0.send(command(reply)).await.map_err(|_| Stopping)?;
        answer.await.map_err(|_| Stopping)
    }

    pub async fn add_tunnel(&self, tunnel: Tunnel) -> Result<Result<(), Refusal>, Stopping> {
        self.ask(|reply| Command::AddTunnel(Box::new(tunnel), reply)).await
    }

    pub async fn change_tunnel(
        &self,
        name: String,
        tunnel: Tunnel,
    ) -> Result<Result<(), Refusal>, Stopping> {
        self.ask(|reply| Command::ChangeTunnel(name, Box::new(tunnel), reply)).await
    }

    pub async fn reset_sequence(&self, name: String) -> Result<Result<(), Refusal>, Stopping> {
        self.ask(|reply| Command::ResetSequence(name, reply)).await
    }

    pub async fn delete_tunnel(&self, name: String) -> Result<Result<(), Refusal>, Stopping> {
        self.ask(|reply| Command::DeleteTunnel(name, reply)).await
    }

    pub async fn set_link(
        &self,
        name: String,
        settings: DeviceSettings,
    ) -> Result<Result<(), Refusal>, Stopping> {
        self.ask(|reply| Command::SetLink(name, settings, reply)).await
    }

    pub async fn adopt(&self, adoption: Adoption) -> Result<Result<(), Refusal>, Stopping> {
        self.ask(|reply| Command::Adopt(adoption, reply)).await
    }

    pub async fn adopted(&self) -> Result<Adopt, Stopping> {
        self.ask(Command::Adopted).await
    }

    pub async fn links(&self) -> Result<Result<Vec<LinkInfo>, Refusal>, Stopping> {
        self.ask(Command::Links).await
    }

    pub async fn apply(
        &self,
        wanted: Desired,
        when: When,
    ) -> Result<Result<Vec<Step>, Refusal>, Stopping> {
        self.ask(|reply| Command::Apply(Box::new(wanted), when, reply)).await
    }

    pub async fn running(&self) -> Result<Vec<Tunnel>, Stopping> {
        self.ask(Command::Running).await
    }

    pub async fn tunnels(&self) -> Result<Vec<TunnelInfo>, Stopping> {
        self.ask(Command::Tunnels).await
    }

    pub async fn ports(&self) -> Result<Vec<PortInfo>, Stopping> {
        self.ask(Command::Ports).await
    }

    pub async fn stats(&self) -> Result<Stats, Stopping> {
        self.ask(Command::Stats).await
    }
}
