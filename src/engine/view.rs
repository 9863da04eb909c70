//! The view that the engine publishes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::wording::operation_title;
use snapdeck_model::{
    Error, Guest, GuestAccess, GuestMemory, HealthReport, HostLock, HostName, Method, Object,
    Operation, Outcome, PartialPull, Picture, Progress, ProgressCell, Sandbox, SandboxId, Snapshot,
    SnapshotName,
};

/// An immutable snapshot of the inventory and the jobs. Unchanged parts are shared with the previous view.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The hosts, in the order of the settings.
    pub hosts: Vec<Arc<HostView>>,
    /// The bucket.
    pub bucket: Arc<BucketView>,
    /// Jobs, oldest first; queued ones in queue order.
    pub jobs: Vec<Arc<JobView>>,
    /// Jobs that earlier processes did not finish, oldest first; see [`super::Engine::load_interrupted`].
    pub interrupted_jobs: Arc<[InterruptedJob]>,
    /// Health checks of the hosts, in the order of the settings, then of the bucket.
    pub health_checks: Vec<Arc<HealthCheckView>>,
}

/// The health check of a host or the bucket; see [`super::Engine::run_health_checks`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheckView {
    /// The host; `None`: the bucket.
    pub host: Option<HostName>,
    /// Whether it is running.
    pub is_running: bool,
    /// The last report; `None` until the first one.
    pub report: Option<Arc<HealthReport>>,
}

/// State of the connection to a host or the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Link {
    /// No answer yet.
    #[default]
    Connecting,
    /// The last request was answered.
    Up,
    /// The last request failed; the data shown is older.
    Down(Error),
    /// No bucket is configured.
    Unconfigured,
}

/// A host as of its last scan.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Name.
    pub name: HostName,
    /// libvirt URI.
    pub uri: String,
    /// State of the connection.
    pub link: Link,
    /// Time of the scan of `sandboxes` and `snapshots`. Files were read then; libvirt's data may be a little older, for
    /// it is cached until an event or a refresh.
    pub last_scan: Option<Instant>,
    /// Sandboxes by id.
    pub sandboxes: Arc<[Sandbox]>,
    /// Snapshots by name.
    pub snapshots: Arc<[Snapshot]>,
    /// Locks of the jobs of other snapdeck processes at the last scan.
    pub locks: Arc<[HostLock]>,
    /// Partial files of pulls at the last scan, by name.
    pub partials: Arc<[PartialPull]>,
    /// Method to read the disk of a running sandbox, as far as known.
    pub running_method: Option<Method>,
}

/// The bucket as of its last listing.
#[derive(Debug, Clone, Default)]
pub struct BucketView {
    /// `s3://NAME/PREFIX`.
    pub location: String,
    /// State of the connection.
    pub link: Link,
    /// Time of the last complete listing of `objects`.
    pub last_listing: Option<Instant>,
    /// Whether the first listing is running; `objects` grows page by page then.
    pub is_listing: bool,
    /// Objects by key.
    pub objects: Arc<[Object]>,
}

/// Number of a job, from 1, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Number of an interrupted job, from 1, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterruptedId(pub u64);

/// A job, or a chain of jobs, that an earlier process did not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterruptedJob {
    /// Number.
    pub id: InterruptedId,
    /// Title in one line.
    pub title: String,
    /// One operation, or the operations of a chain in order.
    pub operations: Vec<Operation>,
    /// Time of the request.
    pub requested_at: Timestamp,
    /// Whether it had begun to run.
    pub has_begun: bool,
}

impl InterruptedJob {
    /// Returns what it did when snapdeck exited: `running` or `queued`.
    pub fn progress_label(&self) -> &'static str {
        match self.has_begun {
            true => "running",
            false => "queued",
        }
    }
}

/// State of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// In the queue.
    Queued,
    /// Running.
    Running,
    /// Cancelled, cleaning up.
    Cancelling,
    /// Finished successfully.
    Finished(Outcome),
    /// Failed; with `Kind::Cancelled` it was cancelled.
    Failed(Error),
}

impl JobState {
    /// Returns whether it finished, failed or was cancelled.
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::Finished(_) | Self::Failed(_))
    }
}

/// A line of a job's log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// Time.
    pub time: Timestamp,
    /// Text.
    pub text: String,
    /// Whether it is a warning.
    pub is_warning: bool,
}

/// A job.
#[derive(Debug, Clone)]
pub struct JobView {
    /// Number.
    pub id: JobId,
    /// The operation.
    pub operation: Operation,
    /// State.
    pub state: JobState,
    /// Start time.
    pub started_at: Option<Instant>,
    /// End time.
    pub ended_at: Option<Instant>,
    /// Log, oldest line first; at most 500 lines.
    pub log: Arc<[LogLine]>,
    /// Progress, written by its worker.
    pub progress_cell: Arc<ProgressCell>,
}

impl JobView {
    /// Returns its title: `push config-vm → myapp-v1.1`.
    pub fn title(&self) -> String {
        operation_title(&self.operation)
    }

    /// Returns its current progress.
    pub fn progress(&self) -> Progress {
        self.progress_cell.sample()
    }
}

/// A sandbox whose metrics are collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchTarget {
    /// The host.
    pub host: HostName,
    /// The sandbox, which has a QEMU process.
    pub sandbox: SandboxId,
    /// Whether to take screenshots.
    pub include_screen: bool,
}

/// Resource use of a sandbox at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Time.
    pub time: Instant,
    /// Load of its virtual CPUs; 1.0 is all of them.
    pub cpu: Option<f64>,
    /// Resident memory of its QEMU process, in bytes.
    pub resident_bytes: Option<u64>,
    /// Memory use in the guest; `None`: only that of the process is known.
    pub guest_memory: Option<GuestMemory>,
    /// Disk reads, in bytes per second.
    pub read_rate: f64,
    /// Disk writes, in bytes per second.
    pub write_rate: f64,
    /// Network input, in bytes per second.
    pub receive_rate: f64,
    /// Network output, in bytes per second.
    pub send_rate: f64,
    /// Allocated size of its overlay, in bytes.
    pub overlay_bytes: Option<u64>,
}

/// Metrics of the watched sandbox.
#[derive(Debug, Clone)]
pub struct SandboxMetrics {
    /// The sandbox.
    pub target: WatchTarget,
    /// Recent samples, oldest first, about one every 2 s.
    pub samples: VecDeque<Sample>,
    /// Start time of its QEMU process, if known.
    pub started_at: Option<Instant>,
    /// VNC server and agent channel, once known.
    pub guest_access: Option<GuestAccess>,
    /// Data of the guest agent.
    pub guest: Option<Guest>,
    /// The last screenshot.
    pub screen: Option<Arc<Picture>>,
    /// Why the last screenshot failed.
    pub screen_error: Option<Error>,
    /// Why the last sample failed.
    pub error: Option<Error>,
}

impl SandboxMetrics {
    pub(super) fn new(target: WatchTarget, samples: VecDeque<Sample>) -> Self {
        Self {
            target,
            samples,
            started_at: None,
            guest_access: None,
            guest: None,
            screen: None,
            screen_error: None,
            error: None,
        }
    }
}

/// Parents of the snapshots in the view, by their manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parents {
    /// Parent by snapshot, if known.
    pub parents: BTreeMap<SnapshotName, SnapshotName>,
    /// Number of snapshots whose manifests were not read: too many, or an error.
    pub unread_count: usize,
}

impl View {
    /// Returns the job, unless it was dismissed.
    pub fn job(&self, id: JobId) -> Option<&Arc<JobView>> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// Returns the host of that name.
    pub fn host(&self, name: &HostName) -> Option<&Arc<HostView>> {
        self.hosts.iter().find(|host| host.name == *name)
    }
}
