//! Tunnels to the VNC servers of guests. They are open to one user, and close by themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Sandboxes;
use crate::peer_uid::peer_uid;
use crate::ssh::{Master, SocketForward};
use snapdeck_model::{Error, Kind, Result, SandboxId, Vnc};

/// For the first connection: the URL may be copied to a viewer by hand.
const FIRST_CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// After the last connection has ended: a viewer connects again after an error.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// After the viewer has ended: it may have passed the URL on to another process.
const VIEWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections at once.
const MAX_CONNECTIONS: usize = 16;
/// After a failed accept, such as one without file descriptors.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Address of a guest's VNC server for a viewer on this machine. A VNC server on this machine is used directly; one on
/// another host, or on a socket, through a tunnel, which ends when this is dropped.
pub struct VncTunnel {
    vnc: Vnc,
    address: String,
    port: u16,
    relay: Option<Relay>,
}

/// A running tunnel.
struct Relay {
    /// The SSH connection; `None` for a socket on this machine.
    master: Option<Arc<Master>>,
    viewer_ended: CancellationToken,
    /// Fires when the tunnel is to close or has closed.
    closed: CancellationToken,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl VncTunnel {
    /// Returns the URL for a viewer.
    pub fn url(&self) -> String {
        let (address, port) = (&self.address, self.port);
        match address.contains(':') {
            true => format!("vnc://[{address}]:{port}"),
            false => format!("vnc://{address}:{port}"),
        }
    }

    /// Returns whether it is a tunnel, which closes by itself.
    pub fn is_tunnel(&self) -> bool {
        self.relay.is_some()
    }

    /// Closes a tunnel as soon as it has no connection: its viewer has ended.
    pub fn close_after_viewer(&self) {
        if let Some(relay) = &self.relay {
            relay.viewer_ended.cancel();
        }
    }

    fn is_open_to(&self, vnc: &Vnc) -> bool {
        let is_open = |relay: &Relay| {
            !relay.closed.is_cancelled()
                && !relay.viewer_ended.is_cancelled()
                && relay.master.as_ref().is_none_or(|master| master.is_up())
        };
        self.vnc == *vnc && self.relay.as_ref().is_none_or(is_open)
    }
}

impl Sandboxes<'_> {
    /// Returns the address of the sandbox's VNC server. On a remote host, or if it listens on a socket, that is a loopback
    /// port which serves processes of this user only. Returns `existing` if it is still valid. After `sudo` the user is also
    /// the one who ran it, given as `sudo_uid`.
    ///
    /// # Errors
    /// `Conflict` if it has no VNC server; `NotFound`; `Unreachable`.
    pub async fn open_tunnel(
        self,
        id: &SandboxId,
        existing: Option<Arc<VncTunnel>>,
        sudo_uid: Option<u32>,
    ) -> Result<Arc<VncTunnel>> {
        let summary = format!(
            "cannot reach the screen of sandbox {id} on host {}",
            self.host.name()
        );
        let unavailable = || Error::new(Kind::Conflict, &*summary);
        let vnc = self.guest_access(id).await?.vnc;
        let vnc =
            vnc.ok_or_else(|| unavailable().with_cause("it has no VNC server or is not running"))?;
        if let Some(tunnel) = existing.filter(|tunnel| tunnel.is_open_to(&vnc)) {
            return Ok(tunnel);
        }
        let target = match (self.host.runner.ssh(), &vnc) {
            (None, Vnc::Tcp { address, port }) => {
                return Ok(Arc::new(VncTunnel {
                    address: address.clone(),
                    port: *port,
                    vnc,
                    relay: None,
                }));
            }
            (None, Vnc::Socket(path)) => Target::Local(path.into()),
            (Some(ssh), vnc) => {
                let master = ssh.acquire_master().await?;
                let forward = master.forward_vnc(vnc).await?;
                Target::Forwarded(master, forward)
            }
        };
        let cannot_listen = |error| Error::new(Kind::Failed, &*summary).with_cause(error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let relay = Relay {
            master: target.master().cloned(),
            viewer_ended: CancellationToken::new(),
            closed: CancellationToken::new(),
        };
        let (viewer_ended, closed) = (relay.viewer_ended.clone(), relay.closed.clone());
        let users = allowed_users(geteuid().as_raw(), sudo_uid);
        tokio::spawn(async move {
            let socket = target.socket();
            tokio::select! {
                () = relay_connections(&listener, socket, &users, &viewer_ended) => {}
                () = closed.cancelled() => {}
            }
            drop(listener);
            closed.cancel();
            target.close().await;
        });
        Ok(Arc::new(VncTunnel {
            vnc,
            address: address.ip().to_string(),
            port: address.port(),
            relay: Some(relay),
        }))
    }
}

/// The socket that a tunnel leads to.
enum Target {
    Local(PathBuf),
    Forwarded(Arc<Master>, SocketForward),
}

impl Target {
    fn socket(&self) -> PathBuf {
        match self {
            Self::Local(path) => path.clone(),
            Self::Forwarded(_, forward) => forward.local_path.clone(),
        }
    }

    fn master(&self) -> Option<&Arc<Master>> {
        match self {
            Self::Local(_) => None,
            Self::Forwarded(master, _) => Some(master),
        }
    }

    async fn close(&self) {
        if let Self::Forwarded(master, forward) = self {
            master.close_forward(forward).await;
        }
    }
}

/// Returns the users whose viewers may connect: that of this process, and if that is root, the one who ran `sudo`.
fn allowed_users(user: u32, sudo_uid: Option<u32>) -> Vec<u32> {
    let sudo_uid = sudo_uid.filter(|_| user == 0);
    [user].into_iter().chain(sudo_uid).collect()
}

/// Connects the users' processes to `socket` until no connection is open for some time.
async fn relay_connections(
    listener: &TcpListener,
    socket: PathBuf,
    users: &[u32],
    viewer_ended: &CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut has_viewer_ended = false;
    let mut close_at = Instant::now() + FIRST_CONNECTION_TIMEOUT;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if connections.len() < MAX_CONNECTIONS && is_allowed(&stream, peer, users).await {
                        connections.spawn(relay(stream, socket.clone()));
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection of a VNC viewer: {error}");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            },
            Some(_) = connections.join_next() => {
                let timeout = match has_viewer_ended {
                    true => VIEWER_TIMEOUT,
                    false => IDLE_TIMEOUT,
                };
                close_at = Instant::now() + timeout;
            }
            () = viewer_ended.cancelled(), if !has_viewer_ended => {
                has_viewer_ended = true;
                close_at = close_at.min(Instant::now() + VIEWER_TIMEOUT);
            }
            () = sleep_until(close_at), if connections.is_empty() => return,
        }
    }
}

/// Returns whether a process of one of the users has connected. An unknown user is refused.
async fn is_allowed(stream: &TcpStream, peer: SocketAddr, users: &[u32]) -> bool {
    let Ok(local) = stream.local_addr() else {
        return false;
    };
    let uid = tokio::task::spawn_blocking(move || peer_uid(local, peer)).await;
    match uid {
        Ok(Ok(Some(uid))) if users.contains(&uid) => return true,
        Ok(Ok(Some(uid))) => {
            tracing::warn!("refused a connection of user {uid} to a VNC tunnel");
        }
        Ok(Ok(None)) => tracing::debug!("a connection to a VNC tunnel has ended at once"),
        Ok(Err(error)) => {
            tracing::warn!("cannot read the user of a connection to a VNC tunnel: {error}");
        }
        Err(error) => tracing::warn!("{error}"),
    }
    false
}

async fn relay(mut viewer: TcpStream, socket: PathBuf) {
    let copied = async {
        let mut server = UnixStream::connect(&socket).await?;
        tokio::io::copy_bidirectional(&mut viewer, &mut server).await
    };
    if let Err(error) = copied.await {
        tracing::debug!("a connection of a VNC viewer has ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_serves_the_user_who_ran_sudo() {
        assert_eq!(allowed_users(0, Some(1000)), [0, 1000]);
        assert_eq!(allowed_users(0, None), [0]);
        assert_eq!(allowed_users(1000, Some(1001)), [1000]);
    }
}
