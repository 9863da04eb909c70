//! Tunnels to the VNC servers of guests.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use super::Sandboxes;
use crate::ssh::Master;
use snapdeck_model::{Error, Kind, Result, SandboxId, Vnc};

/// A free port may be taken by another process before ssh listens on it.
const MAX_TRIES: usize = 5;

/// Address of a guest's VNC server for a viewer on this machine. Over SSH it is valid as long as the connection to the host.
pub struct VncTunnel {
    vnc: Vnc,
    address: String,
    port: u16,
    master: Option<Arc<Master>>,
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

    /// Returns whether it is forwarded over SSH.
    pub fn is_forwarded(&self) -> bool {
        self.master.is_some()
    }

    fn is_open_to(&self, vnc: &Vnc) -> bool {
        self.vnc == *vnc && self.master.as_ref().is_none_or(|master| master.is_up())
    }
}

impl Sandboxes<'_> {
    /// Returns the address of the sandbox's VNC server; on a remote host a loopback port that SSH forwards. Returns `existing`
    /// if it is still valid.
    ///
    /// # Errors
    /// `Conflict` if it has no VNC server, or no viewer on this machine can reach it; `NotFound`; `Unreachable`.
    pub async fn open_tunnel(
        self,
        id: &SandboxId,
        existing: Option<Arc<VncTunnel>>,
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
        let Some(ssh) = self.host.runner.ssh() else {
            return match vnc.clone() {
                Vnc::Tcp { address, port } => Ok(Arc::new(VncTunnel {
                    vnc,
                    address,
                    port,
                    master: None,
                })),
                Vnc::Socket(path) => Err(unavailable()
                    .with_cause(format!("its VNC server listens on the socket {path}"))),
            };
        };
        let master = ssh.acquire_master().await?;
        let mut last_error = None;
        for _ in 0..MAX_TRIES {
            let port = find_free_port()
                .map_err(|error| Error::new(Kind::Failed, &*summary).with_cause(error))?;
            match master.forward_port(port, &vnc).await {
                Ok(()) => {
                    return Ok(Arc::new(VncTunnel {
                        vnc,
                        address: Ipv4Addr::LOCALHOST.to_string(),
                        port,
                        master: Some(master),
                    }));
                }
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(unavailable))
    }
}

fn find_free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
