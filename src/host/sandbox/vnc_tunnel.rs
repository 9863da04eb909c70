//! A way to a guest's VNC server from this machine.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use super::Sandboxes;
use crate::ssh::Master;
use snapdeck_model::{Error, Kind, Result, SandboxId, Vnc};

/// A port that was free may be taken by another before ssh has it.
const MAX_TRIES: usize = 5;

/// A way to a VNC server. Through SSH it stands as long as the connection to the host.
pub struct VncTunnel {
    /// Where it leads to.
    vnc: Vnc,
    /// An address of this machine, or one that can be reached from it.
    address: String,
    port: u16,
    master: Option<Arc<Master>>,
}

impl VncTunnel {
    /// The URL for a viewer here.
    pub fn url(&self) -> String {
        let (address, port) = (&self.address, self.port);
        match address.contains(':') {
            true => format!("vnc://[{address}]:{port}"),
            false => format!("vnc://{address}:{port}"),
        }
    }

    /// Does it go through SSH?
    pub fn is_forwarded(&self) -> bool {
        self.master.is_some()
    }

    fn is_open_to(&self, vnc: &Vnc) -> bool {
        self.vnc == *vnc && self.master.as_ref().is_none_or(|master| master.is_up())
    }
}

impl Sandboxes<'_> {
    /// A way to the sandbox's VNC server: its address on this machine, a port of this machine's loopback that SSH
    /// forwards for another. `before` itself where it still leads there.
    ///
    /// # Errors
    /// `Unsupported` where it has no VNC server, or one that no viewer here can reach; `NotFound`; `Unreachable`.
    pub async fn open_tunnel(
        self,
        id: &SandboxId,
        before: Option<Arc<VncTunnel>>,
    ) -> Result<Arc<VncTunnel>> {
        let what = format!(
            "cannot reach the screen of sandbox {id} on host {}",
            self.host.name()
        );
        let refused = || Error::new(Kind::Conflict, &*what);
        let vnc = self.guest_access(id).await?.vnc;
        let vnc =
            vnc.ok_or_else(|| refused().with_cause("it has no VNC server or is not running"))?;
        if let Some(tunnel) = before.filter(|tunnel| tunnel.is_open_to(&vnc)) {
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
                Vnc::Socket(path) => {
                    Err(refused()
                        .with_cause(format!("its VNC server listens on the socket {path}")))
                }
            };
        };
        let master = ssh.acquire_master().await?;
        let mut failed = None;
        for _ in 0..MAX_TRIES {
            let port = find_free_port()
                .map_err(|error| Error::new(Kind::Failed, &*what).with_cause(error))?;
            match master.forward_port(port, &vnc).await {
                Ok(()) => {
                    return Ok(Arc::new(VncTunnel {
                        vnc,
                        address: Ipv4Addr::LOCALHOST.to_string(),
                        port,
                        master: Some(master),
                    }));
                }
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(refused))
    }
}

fn find_free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}
