//! What a sandbox is doing while somebody looks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::SandboxId;

/// Counters of a sandbox's QEMU process, all since it was started. What libvirt left out is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Whose.
    pub id: SandboxId,
    /// CPU time of the guest.
    pub cpu_time: Option<Duration>,
    /// Virtual CPUs that it is spread over.
    pub cpus: u32,
    /// Memory that QEMU holds of the host, in bytes.
    pub resident_bytes: Option<u64>,
    /// Memory that the guest has now, in bytes (its balloon).
    pub memory_bytes: Option<u64>,
    /// Bytes read from all disks.
    pub read_bytes: u64,
    /// Bytes written to all disks.
    pub written_bytes: u64,
    /// Bytes received by all network devices.
    pub received_bytes: u64,
    /// Bytes sent by them.
    pub sent_bytes: u64,
    /// Its disks.
    pub disks: Vec<DiskUse>,
}

/// How much a disk takes on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUse {
    /// Path of its file.
    pub path: String,
    /// Bytes the file takes.
    pub used_bytes: Option<u64>,
}

/// A picture of a guest's screen.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Columns of pixels.
    pub width: u32,
    /// Rows of pixels.
    pub height: u32,
    /// Red, green and blue of each pixel, row by row.
    pub rgb: Arc<[u8]>,
    /// Tells one picture from another without comparing all of them.
    pub fingerprint: u64,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

/// What the agent inside a guest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guest {
    /// Its operating system, in its own words.
    pub os: Option<String>,
    /// Its host name.
    pub hostname: Option<String>,
    /// Its IP addresses, those of the loopback device and link-local ones left out.
    pub addresses: Vec<String>,
}

/// How a guest can be reached, as its domain says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestAccess {
    /// Where its VNC server listens; `None` where it has none.
    pub vnc: Option<Vnc>,
    /// Its agent's channel.
    pub agent: AgentChannel,
}

/// Where a VNC server listens on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vnc {
    /// An address with a port.
    Tcp {
        /// The address, one that can be connected to.
        address: String,
        /// The port.
        port: u16,
    },
    /// A unix socket of that path.
    Socket(String),
}

impl fmt::Display for Vnc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, port } if address.contains(':') => write!(f, "[{address}]:{port}"),
            Self::Tcp { address, port } => write!(f, "{address}:{port}"),
            Self::Socket(path) => f.write_str(path),
        }
    }
}

/// The channel to a guest's agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AgentChannel {
    /// The sandbox has none: there is nobody to ask.
    #[default]
    None,
    /// Nobody listens in the guest: it boots still, or has no agent.
    Disconnected,
    /// An agent has opened it.
    Connected,
}
