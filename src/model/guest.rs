//! Live data of a sandbox: counters, screen, guest agent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::SandboxId;

/// Counters of a sandbox's QEMU process since its start. `None`: libvirt did not report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The sandbox.
    pub id: SandboxId,
    /// CPU time of the guest.
    pub cpu_time: Option<Duration>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Resident memory of QEMU in bytes.
    pub resident_bytes: Option<u64>,
    /// Current memory of the guest in bytes (balloon).
    pub memory_bytes: Option<u64>,
    /// Memory use in the guest; `None`: its balloon driver does not report it.
    pub guest_memory: Option<GuestMemory>,
    /// Bytes read from all disks.
    pub read_bytes: u64,
    /// Bytes written to all disks.
    pub written_bytes: u64,
    /// Bytes received by all network devices.
    pub received_bytes: u64,
    /// Bytes sent by all network devices.
    pub sent_bytes: u64,
    /// The disks.
    pub disks: Vec<DiskUse>,
}

/// Memory of a guest as its balloon driver reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestMemory {
    /// Memory that the guest's system has, in bytes.
    pub total_bytes: u64,
    /// Memory in use in bytes, without what the guest can free at once.
    pub used_bytes: u64,
    /// Time of the report by the host's clock, in seconds.
    pub reported_at: u64,
}

/// Space that a disk takes on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskUse {
    /// Path of the file.
    pub path: String,
    /// Bytes allocated to the file.
    pub used_bytes: Option<u64>,
}

/// Screenshot of a guest.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Red, green and blue of each pixel, row by row.
    pub rgb: Arc<[u8]>,
    /// Hash of the pixels, for a quick comparison.
    pub fingerprint: u64,
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

/// Data of the guest agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guest {
    /// Name of the operating system.
    pub os: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// IP addresses without loopback and link-local ones.
    pub addresses: Vec<String>,
}

/// Access to a guest, from its domain XML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestAccess {
    /// VNC server, if any.
    pub vnc: Option<Vnc>,
    /// Channel of the guest agent.
    pub agent: AgentChannel,
}

/// Address of a VNC server on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vnc {
    /// TCP.
    Tcp {
        /// An address that accepts connections.
        address: String,
        /// The port.
        port: u16,
    },
    /// Path of a Unix socket.
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

/// State of the channel to the guest agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AgentChannel {
    /// The domain has no channel.
    #[default]
    None,
    /// No agent is connected: the guest is booting, or has none.
    Disconnected,
    /// An agent is connected.
    Connected,
}
