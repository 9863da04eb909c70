//! The target of a job: what the names of its operation referred to when it was requested.
//!
//! A job that waited in the queue, or that an earlier process left, looks at its target again when it begins, under the
//! locks of the host, and fails if that was replaced.

use serde::{Deserialize, Serialize};

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{
    Danger, Error, ImageIdentity, Kind, Object, Operation, Result, SandboxId, SandboxIdentity,
    SandboxVerb, SnapshotName,
};

use super::wording::failure_summary;

/// The sandbox, snapshot and object of an operation; parts that it does not use are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct JobTarget {
    sandbox: Observed<SandboxIdentity>,
    /// The snapshot on the host.
    snapshot: Observed<ImageIdentity>,
    object: Observed<ImageIdentity>,
    /// The snapshot on the host that it is copied from.
    source: Observed<ImageIdentity>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Observed<T> {
    #[default]
    Unknown,
    Absent,
    Present(T),
}

impl<T> Observed<T> {
    fn from_option(found: Option<T>) -> Self {
        found.map_or(Self::Absent, Self::Present)
    }
}

impl JobTarget {
    /// Returns whether a restart may resume the operation without a confirmation: it only adds, and its source and its
    /// target are known.
    pub(crate) fn resumes_unattended(&self, operation: &Operation) -> bool {
        use Observed::{Absent, Present};
        match operation {
            Operation::Push {
                overwrite: false, ..
            } => matches!((&self.sandbox, &self.object), (Present(_), Absent)),
            Operation::Pull {
                overwrite: false, ..
            } => matches!((&self.snapshot, &self.object), (Absent, Present(_))),
            Operation::Adopt { host: Some(_), .. } => matches!(self.snapshot, Present(_)),
            Operation::Adopt { host: None, .. } => matches!(self.object, Present(_)),
            Operation::Copy {
                overwrite: false, ..
            } => matches!((&self.snapshot, &self.source), (Absent, Present(_))),
            Operation::Upload {
                overwrite: false, ..
            } => matches!((&self.snapshot, &self.object), (Present(_), Absent)),
            _ => false,
        }
    }
}

/// Reason for the time between the request and the begin of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobDelay {
    /// It began at once.
    None,
    /// It waited in the queue.
    Queued,
    /// An earlier process left it.
    Interrupted,
}

/// Whether a part of a target must be what it was when the operation was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Requirement {
    /// The operation does not depend on it.
    None,
    /// Nothing else may have its name now. The operation itself refuses one that is gone.
    NotReplaced,
    /// It must be unchanged: neither replaced, nor gone, nor new.
    Unchanged,
}

/// Requirements of an operation.
struct Requirements {
    sandbox: Requirement,
    snapshot: Requirement,
    object: Requirement,
}

/// Returns what must be unchanged when an operation begins that waited in the queue, or, if `is_resumed`, that an
/// earlier process left.
fn requirements(operation: &Operation, requested: &JobTarget, is_resumed: bool) -> Requirements {
    use Requirement::{None, NotReplaced, Unchanged};
    let if_resumed = |requirement| if is_resumed { requirement } else { None };
    let (sandbox, snapshot, object) = match operation {
        Operation::Create { overwrite, .. } | Operation::Push { overwrite, .. } => {
            match overwrite {
                true => (Unchanged, None, NotReplaced),
                false => (Unchanged, None, if_resumed(Unchanged)),
            }
        }
        Operation::Pull { overwrite, .. } => match overwrite {
            true => (None, NotReplaced, if_resumed(Unchanged)),
            false => (None, if_resumed(Unchanged), if_resumed(Unchanged)),
        },
        Operation::Copy { overwrite, .. } => match overwrite {
            true => (None, NotReplaced, None),
            false => (None, if_resumed(Unchanged), None),
        },
        Operation::Upload { overwrite, .. } => match overwrite {
            true => (None, Unchanged, NotReplaced),
            false => (None, Unchanged, if_resumed(Unchanged)),
        },
        Operation::Verify { host, repair, .. } => match (host, repair) {
            (Some(_), true) => (None, NotReplaced, None),
            _ => (None, None, None),
        },
        Operation::Adopt { host, .. } => match host {
            Some(_) => (None, if_resumed(Unchanged), None),
            _ => (None, None, if_resumed(Unchanged)),
        },
        Operation::Remove {
            host, from_bucket, ..
        } => (
            None,
            host.as_ref().map_or(None, |_| NotReplaced),
            if *from_bucket { NotReplaced } else { None },
        ),
        // The earlier job of its chain pulls the snapshot.
        Operation::CreateSandbox { .. } if requested.snapshot == Observed::Absent => {
            (None, None, None)
        }
        Operation::CreateSandbox { .. } => (None, if_resumed(NotReplaced), None),
        Operation::RenameSandbox { .. } | Operation::CloneSandbox { .. } => (Unchanged, None, None),
        Operation::Sandbox { verb, .. } => match verb {
            // Without the domain it would remove what has the name of its files.
            SandboxVerb::Destroy => (Unchanged, None, None),
            _ => (NotReplaced, None, None),
        },
    };
    Requirements {
        sandbox,
        snapshot,
        object,
    }
}

/// Returns whether an operation removes or replaces anything, or ends a guest: its target must be known.
fn is_destructive(operation: &Operation) -> bool {
    match operation {
        Operation::Create { overwrite, .. }
        | Operation::Push { overwrite, .. }
        | Operation::Pull { overwrite, .. }
        | Operation::Upload { overwrite, .. }
        | Operation::Copy { overwrite, .. } => *overwrite,
        Operation::Verify { repair, .. } => *repair,
        Operation::Remove { .. } => true,
        Operation::Adopt { .. }
        | Operation::CreateSandbox { .. }
        | Operation::RenameSandbox { .. }
        | Operation::CloneSandbox { .. } => false,
        Operation::Sandbox { verb, .. } => verb.danger() != Danger::Harmless,
    }
}

/// Finds the present target of an operation.
pub(super) struct TargetFinder<'a> {
    pub operation: &'a Operation,
    pub host: Option<&'a Host>,
    /// The host that it copies from.
    pub source: Option<&'a Host>,
    pub bucket: &'a Bucket,
}

impl TargetFinder<'_> {
    /// Returns the present target; a part that cannot be read is unknown.
    pub(crate) async fn observe(&self) -> JobTarget {
        let (sandbox, snapshot, object, source) = tokio::join!(
            self.sandbox(),
            self.snapshot(),
            self.object(),
            self.source()
        );
        JobTarget {
            source: source.unwrap_or_default(),
            sandbox: sandbox.unwrap_or_default(),
            snapshot: snapshot.unwrap_or_default(),
            object: object.unwrap_or_default(),
        }
    }

    /// Fails unless the target is what it was when the operation was requested.
    ///
    /// # Errors
    /// `Conflict` if it was replaced, or if that is unknown and a destructive operation was delayed; `Unreachable`.
    pub(crate) async fn verify(&self, requested: &JobTarget, delay: JobDelay) -> Result<()> {
        let is_resumed = delay == JobDelay::Interrupted;
        let must_know = delay != JobDelay::None && is_destructive(self.operation);
        let required = requirements(self.operation, requested, is_resumed);
        let is_unattended = is_resumed && requested.resumes_unattended(self.operation);
        let on_host = match self.host {
            Some(host) => format!(" on host {}", host.name()),
            None => String::new(),
        };
        let image = self.operation.snapshot().map_or("", SnapshotName::as_str);
        if required.sandbox != Requirement::None {
            let now = self.sandbox().await?;
            // Without a confirmation it must read the very bytes; else the guest may have written meanwhile.
            let is_same = |a: &SandboxIdentity, b: &SandboxIdentity| match is_unattended {
                true => a == b,
                false => a.is_same_sandbox(b),
            };
            let id = self.operation.sandbox().map_or("", SandboxId::as_str);
            let name = format!("sandbox {id}{on_host}");
            let cause = compare(
                required.sandbox,
                &requested.sandbox,
                &now,
                is_same,
                must_know,
            );
            self.refuse(&name, cause)?;
        }
        if required.snapshot != Requirement::None {
            let now = self.snapshot().await?;
            let name = format!("snapshot {image}{on_host}");
            let is_same = match self.operation {
                Operation::Upload { .. } => is_same_source,
                _ => ImageIdentity::eq,
            };
            let cause = compare(
                required.snapshot,
                &requested.snapshot,
                &now,
                is_same,
                must_know,
            );
            self.refuse(&name, cause)?;
        }
        if required.object != Requirement::None {
            let now = self.object().await?;
            let location = self.bucket.location();
            let name = format!("object {image} in {location}");
            let is_same = ImageIdentity::eq;
            let cause = compare(required.object, &requested.object, &now, is_same, must_know);
            self.refuse(&name, cause)?;
        }
        if let Some(source) = self.source {
            let now = self.source().await?;
            let name = format!("snapshot {image} on host {}", source.name());
            let required = Requirement::Unchanged;
            let cause = compare(required, &requested.source, &now, is_same_source, false);
            self.refuse(&name, cause)?;
        }
        Ok(())
    }

    fn refuse(&self, name: &str, difference: Option<&str>) -> Result<()> {
        let Some(difference) = difference else {
            return Ok(());
        };
        let summary = failure_summary(self.operation);
        Err(Error::new(Kind::Conflict, summary)
            .with_cause(format!("{name} {difference}"))
            .hint("check what has that name now, then request it again"))
    }

    async fn sandbox(&self) -> Result<Observed<SandboxIdentity>> {
        match (self.host, self.operation.sandbox()) {
            (Some(host), Some(id)) => {
                let found = host.sandboxes().identity(id).await?;
                Ok(Observed::from_option(found))
            }
            _ => Ok(Observed::Unknown),
        }
    }

    async fn snapshot(&self) -> Result<Observed<ImageIdentity>> {
        let is_used = matches!(
            self.operation,
            Operation::Pull { .. }
                | Operation::Upload { .. }
                | Operation::Copy { .. }
                | Operation::Verify { .. }
                | Operation::Adopt { .. }
                | Operation::Remove { .. }
                | Operation::CreateSandbox { .. }
        );
        match (self.host, self.operation.snapshot()) {
            (Some(host), Some(name)) if is_used => observe_snapshot(host, name).await,
            _ => Ok(Observed::Unknown),
        }
    }

    async fn source(&self) -> Result<Observed<ImageIdentity>> {
        match (self.source, self.operation.snapshot()) {
            (Some(host), Some(name)) => observe_snapshot(host, name).await,
            _ => Ok(Observed::Unknown),
        }
    }

    async fn object(&self) -> Result<Observed<ImageIdentity>> {
        let is_used = match self.operation {
            Operation::Create { .. }
            | Operation::Push { .. }
            | Operation::Pull { .. }
            | Operation::Upload { .. } => true,
            Operation::Remove { from_bucket, .. } => *from_bucket,
            Operation::Adopt { host, .. } => host.is_none(),
            _ => false,
        };
        match self.operation.snapshot() {
            Some(name) if is_used => {
                let object = self.bucket.head(name).await?;
                let identity = object.as_ref().map(Object::identity);
                Ok(Observed::from_option(identity))
            }
            _ => Ok(Observed::Unknown),
        }
    }
}

async fn observe_snapshot(host: &Host, name: &SnapshotName) -> Result<Observed<ImageIdentity>> {
    let file = host.fs().image_file(&host.snapshot_path(name)).await?;
    let identity = file.map(|file| ImageIdentity::File(file.stamp));
    Ok(Observed::from_option(identity))
}

/// Returns whether two snapshots that are only read are the same: libvirt changes the owner of a file when a sandbox that is
/// based on it starts.
fn is_same_source(a: &ImageIdentity, b: &ImageIdentity) -> bool {
    match (a, b) {
        (ImageIdentity::File(a), ImageIdentity::File(b)) => a.is_same_file(b),
        _ => a == b,
    }
}

/// Returns the difference between a part of the requested and the present target, if it matters.
fn compare<T>(
    required: Requirement,
    requested: &Observed<T>,
    now: &Observed<T>,
    is_same: impl Fn(&T, &T) -> bool,
    must_know: bool,
) -> Option<&'static str> {
    match (requested, now) {
        (Observed::Unknown, _) if must_know => {
            Some("may have been replaced since it was requested: it was not identified then")
        }
        (Observed::Present(requested), Observed::Present(now)) if !is_same(requested, now) => {
            Some("was replaced or changed since it was requested")
        }
        (Observed::Absent, Observed::Present(_)) => Some("did not exist when it was requested"),
        (Observed::Present(_), Observed::Absent) if required == Requirement::Unchanged => {
            Some("was removed since it was requested")
        }
        _ => None,
    }
}
