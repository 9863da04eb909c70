//! What the engine shows: immutable, owned, shared where nothing changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::wording::operation_title;
use snapdeck_model::{
    Error, Guest, GuestAccess, HealthReport, HostName, Method, Object, Operation, Outcome, Picture,
    Progress, ProgressCell, Sandbox, SandboxId, Snapshot, SnapshotName,
};

/// Everything there is to show, immutable. Parts that did not change are shared with the view before.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The hosts, in the order of the settings.
    pub hosts: Vec<Arc<HostView>>,
    /// The bucket.
    pub bucket: Arc<BucketView>,
    /// Jobs, oldest first; those that wait for their turn are in the order in which they get it.
    pub jobs: Vec<Arc<JobView>>,
    /// What earlier runs have left, oldest first; see [`super::Engine::load_interrupted`].
    pub interrupted_jobs: Arc<[InterruptedJob]>,
    /// The examinations of the hosts, in the order of the settings, and then of the bucket.
    pub health_checks: Vec<Arc<HealthCheckView>>,
}

/// What [`super::Engine::examine`] has found, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheckView {
    /// The host; `None`: the bucket.
    pub host: Option<HostName>,
    /// Is it being examined now?
    pub is_running: bool,
    /// What was found the last time; `None` until then.
    pub report: Option<Arc<HealthReport>>,
}

/// How a host or the bucket answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Link {
    /// Not asked yet, or the answer is awaited for the first time.
    #[default]
    Connecting,
    /// It answered last time.
    Up,
    /// It did not: what is shown is as old as `seen`.
    Down(Error),
    /// Nothing is configured (bucket without a name).
    Unconfigured,
}

/// A host as last seen.
#[derive(Debug, Clone)]
pub struct HostView {
    /// Name.
    pub name: HostName,
    /// libvirt URI.
    pub uri: String,
    /// Does it answer?
    pub link: Link,
    /// When `sandboxes` and `snapshots` were seen: their files looked at, and libvirt, which tells of changes, asked not
    /// long before.
    pub last_scan: Option<Instant>,
    /// Sandboxes by id.
    pub sandboxes: Arc<[Sandbox]>,
    /// Snapshots by name.
    pub snapshots: Arc<[Snapshot]>,
    /// How the disk of a running sandbox is read, as far as is known before it is tried.
    pub running_method: Option<Method>,
}

/// The bucket as last seen.
#[derive(Debug, Clone, Default)]
pub struct BucketView {
    /// `s3://NAME/PREFIX`.
    pub location: String,
    /// Does it answer?
    pub link: Link,
    /// When `objects` was seen whole.
    pub last_listing: Option<Instant>,
    /// Is a listing under way? (`objects` grows page by page the first time.)
    pub is_listing: bool,
    /// Objects by key.
    pub objects: Arc<[Object]>,
}

/// Number of a job, from 1, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Number of something that was left, from 1, unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterruptedId(pub u64);

/// What a process that is gone had taken on and did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterruptedJob {
    /// Number.
    pub id: InterruptedId,
    /// In one line.
    pub title: String,
    /// What was asked: one operation, or several of which each begins when the one before has ended well.
    pub operations: Vec<Operation>,
    /// When that was.
    pub requested_at: Timestamp,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    /// Waits for its turn.
    Queued,
    /// Runs.
    Running,
    /// Was told to stop and cleans up.
    Cancelling,
    /// Ended well.
    Finished(Outcome),
    /// Ended with an error (`Kind::Cancelled` where the operator stopped it).
    Failed(Error),
}

impl JobState {
    /// Is it over?
    pub fn is_finished(&self) -> bool {
        matches!(self, Self::Finished(_) | Self::Failed(_))
    }
}

/// One line of a job's own log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// When.
    pub time: Timestamp,
    /// What.
    pub text: String,
    /// Is it something the operator should heed?
    pub is_warning: bool,
}

/// A job. Its progress is sampled when it is drawn.
#[derive(Debug, Clone)]
pub struct JobView {
    /// Number.
    pub id: JobId,
    /// What was asked.
    pub operation: Operation,
    /// Where it stands.
    pub state: JobState,
    /// When it began to run.
    pub started_at: Option<Instant>,
    /// When it was over.
    pub ended_at: Option<Instant>,
    /// Its log so far, oldest first (bounded).
    pub log: Arc<[LogLine]>,
    /// Where its worker writes progress.
    pub progress_cell: Arc<ProgressCell>,
}

impl JobView {
    /// Returns its line for people: `push config-vm → myapp-v1.1`.
    pub fn title(&self) -> String {
        operation_title(&self.operation)
    }

    /// Progress now.
    pub fn progress(&self) -> Progress {
        self.progress_cell.sample()
    }
}

/// What somebody looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchTarget {
    /// The host.
    pub host: HostName,
    /// The sandbox; one with a QEMU process.
    pub sandbox: SandboxId,
    /// Its screen, too?
    pub include_screen: bool,
}

/// What it uses, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When.
    pub time: Instant,
    /// How busy its virtual CPUs are: 1.0 is all of them.
    pub cpu: Option<f64>,
    /// Bytes of the host's memory that it holds.
    pub resident_bytes: Option<u64>,
    /// Bytes a second read from its disks.
    pub read_rate: f64,
    /// Bytes a second written to them.
    pub write_rate: f64,
    /// Bytes a second received.
    pub receive_rate: f64,
    /// Bytes a second sent.
    pub send_rate: f64,
    /// Bytes that its overlay takes.
    pub overlay_bytes: Option<u64>,
}

/// What the sandbox that is looked at does.
#[derive(Debug, Clone)]
pub struct SandboxMetrics {
    /// Who.
    pub target: WatchTarget,
    /// What it used of late, oldest first, a sample about every two seconds.
    pub samples: VecDeque<Sample>,
    /// When its QEMU process was started, where that is known.
    pub started_at: Option<Instant>,
    /// How it is reached, once that is known.
    pub guest_access: Option<GuestAccess>,
    /// What its agent says.
    pub guest: Option<Guest>,
    /// Its screen.
    pub screen: Option<Arc<Picture>>,
    /// Why there is no (newer) picture of it.
    pub screen_error: Option<Error>,
    /// Why there are no newer samples.
    pub error: Option<Error>,
}

impl SandboxMetrics {
    pub(super) fn new(look: WatchTarget, samples: VecDeque<Sample>) -> Self {
        Self {
            target: look,
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

/// What was made from what, by the manifests of all that the view shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parents {
    /// The snapshot that each was made from, where that is known.
    pub parents: BTreeMap<SnapshotName, SnapshotName>,
    /// Snapshots whose manifests were not read, because they are too many or did not come.
    pub unread_count: usize,
}

impl View {
    /// The job, unless it was dismissed.
    pub fn job(&self, id: JobId) -> Option<&Arc<JobView>> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// The host, by name.
    pub fn host(&self, name: &HostName) -> Option<&Arc<HostView>> {
        self.hosts.iter().find(|host| host.name == *name)
    }
}
