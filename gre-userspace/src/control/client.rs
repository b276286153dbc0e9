//! The command line's end of the control socket.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use zlink::tokio::unix::{self, Connection};

use super::api::{
    self, AdoptSpec, Applied, LinkSettings, Links, Ports, Running, TunnelSpec, Tunnels,
};
use crate::{
    model::{Adopt, Adoption, DeviceSettings, Tunnel},
    report::{LinkInfo, PlanStep, PortInfo, Stats, TunnelInfo},
};

/// Adding a tunnel takes the daemon some netlink round trips; longer than this it is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// A config file may have tunnels by the thousand.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(300);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    socket: PathBuf,
}

#[derive(Debug, Error)]
pub enum ClientError {
    #[error(
        "the xgre daemon is not running: nothing answers on {0}\n\
         start it with `systemctl start xgre`, or in the foreground with `xgre run`"
    )]
    NotRunning(PathBuf),
    #[error("root is needed to talk to the xgre daemon on {0}: run this with `sudo`")]
    NotPermitted(PathBuf),
    #[error("cannot connect to the xgre daemon on {socket}: {source}")]
    Connect { socket: PathBuf, source: zlink::Error },
    #[error(
        "the xgre daemon on {0} has not answered for {seconds} seconds; `journalctl -u xgre` may \
         say why",
        seconds = .1.as_secs()
    )]
    Silent(PathBuf, Duration),
    #[error("talking to the xgre daemon on {socket}: {source}")]
    Broken { socket: PathBuf, source: zlink::Error },
    #[error(transparent)]
    Refused(api::Error),
}

impl Client {
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let path = socket.to_owned();
        match unix::connect(socket).await {
            Ok(connection) => Ok(Self { connection, socket: path }),
            Err(zlink::Error::Io(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ClientError::NotRunning(path))
            }
            Err(zlink::Error::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(ClientError::NotPermitted(path))
            }
            Err(source) => Err(ClientError::Connect { socket: path, source }),
        }
    }

    pub async fn add_tunnel(&mut self, tunnel: &Tunnel) -> Result<(), ClientError> {
        answer(&self.socket, self.connection.add_tunnel(&TunnelSpec::from(tunnel))).await
    }

    /// Gives the tunnel `name` the options of `tunnel`.
    pub async fn change_tunnel(&mut self, name: &str, tunnel: &Tunnel) -> Result<(), ClientError> {
        let spec = TunnelSpec::from(tunnel);
        answer(&self.socket, self.connection.change_tunnel(name, &spec)).await
    }

    pub async fn reset_sequence(&mut self, name: &str) -> Result<(), ClientError> {
        answer(&self.socket, self.connection.reset_sequence(name)).await
    }

    pub async fn delete_tunnel(&mut self, name: &str) -> Result<(), ClientError> {
        answer(&self.socket, self.connection.delete_tunnel(name)).await
    }

    /// Makes tunnels and ports as the text of the config file `name` says, or only says what would
    /// be done.
    pub async fn apply(
        &mut self,
        name: &str,
        config: &str,
        dry_run: bool,
    ) -> Result<Vec<PlanStep>, ClientError> {
        let call = self.connection.apply(name, config, dry_run);
        answer_within(PATIENCE_FOR_ALL, &self.socket, call).await.map(|reply| reply.steps)
    }

    /// The tunnels as a config would have to name them, and those of the kernel's own that it adopts.
    pub async fn running(&mut self) -> Result<(Vec<Tunnel>, Adopt), ClientError> {
        let reply = answer(&self.socket, self.connection.running()).await?;
        let tunnels = reply.tunnels.into_iter().map(Tunnel::try_from);
        let configured = tunnels.map(|tunnel| tunnel.map(|tunnel| Tunnel { up: true, ..tunnel }));
        let tunnels = configured.collect::<Result<_, _>>().map_err(ClientError::Refused)?;
        let told = reply.adopt.into_iter().map(Adoption::try_from);
        let told: Vec<_> = told.collect::<Result<_, _>>().map_err(ClientError::Refused)?;
        Ok((tunnels, told.iter().fold(Adopt::default(), Adopt::then)))
    }

    /// Accelerates a tunnel of the kernel's own, or all, or leaves it alone.
    pub async fn adopt(&mut self, adoption: &Adoption) -> Result<(), ClientError> {
        answer(&self.socket, self.connection.adopt(&AdoptSpec::from(adoption))).await
    }

    /// Sets the device of a tunnel up or down, and its MTU and address.
    pub async fn set_link(
        &mut self,
        name: &str,
        settings: DeviceSettings,
    ) -> Result<(), ClientError> {
        let settings = LinkSettings::from(settings);
        answer(&self.socket, self.connection.set_link(name, &settings)).await
    }

    pub async fn links(&mut self) -> Result<Vec<LinkInfo>, ClientError> {
        answer(&self.socket, self.connection.links()).await.map(|reply| reply.links)
    }

    pub async fn tunnels(&mut self) -> Result<Vec<TunnelInfo>, ClientError> {
        answer(&self.socket, self.connection.tunnels()).await.map(|reply| reply.tunnels)
    }

    pub async fn ports(&mut self) -> Result<Vec<PortInfo>, ClientError> {
        answer(&self.socket, self.connection.ports()).await.map(|reply| reply.ports)
    }

    pub async fn stats(&mut self) -> Result<Stats, ClientError> {
        answer(&self.socket, self.connection.stats()).await
    }
}

async fn answer<T>(
    socket: &Path,
    call: impl Future<Output = zlink::Result<Result<T, api::Error>>>,
) -> Result<T, ClientError> {
    answer_within(PATIENCE, socket, call).await
}

async fn answer_within<T>(
    patience: Duration,
    socket: &Path,
    call: impl Future<Output = zlink::Result<Result<T, api::Error>>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(patience, call).await {
        Ok(Ok(answer)) => answer.map_err(ClientError::Refused),
        Ok(Err(source)) => Err(ClientError::Broken { socket: socket.to_owned(), source }),
        Err(_) => Err(ClientError::Silent(socket.to_owned(), patience)),
    }
}

#[zlink::proxy("io.xgre.Control")]
trait Proxy {
    async fn add_tunnel(&mut self, tunnel: &TunnelSpec) -> zlink::Result<Result<(), api::Error>>;
    async fn change_tunnel(
        &mut self,
        name: &str,
        tunnel: &TunnelSpec,
    ) -> zlink::Result<Result<(), api::Error>>;
    async fn reset_sequence(&mut self, name: &str) -> zlink::Result<Result<(), api::Error>>;
    async fn adopt(&mut self, adopt: &AdoptSpec) -> zlink::Result<Result<(), api::Error>>;
    async fn delete_tunnel(&mut self, name: &str) -> zlink::Result<Result<(), api::Error>>;
    async fn apply(
        &mut self,
        name: &str,
        config: &str,
        dry_run: bool,
    ) -> zlink::Result<Result<Applied, api::Error>>;
    async fn running(&mut self) -> zlink::Result<Result<Running, api::Error>>;
    async fn tunnels(&mut self) -> zlink::Result<Result<Tunnels, api::Error>>;
    async fn set_link(
        &mut self,
        name: &str,
        settings: &LinkSettings,
    ) -> zlink::Result<Result<(), api::Error>>;
    async fn links(&mut self) -> zlink::Result<Result<Links, api::Error>>;
    async fn ports(&mut self) -> zlink::Result<Result<Ports, api::Error>>;
    async fn stats(&mut self) -> zlink::Result<Result<Stats, api::Error>>;
}
