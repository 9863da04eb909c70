//! Leftovers of interrupted operations on a host: files and directories not modified for a day.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Host;
use super::command::Output;
use super::fs::system_error;
use snapdeck_model::{Error, Kind, Leftover, LeftoverKind, Result, SnapshotName};

const SCRIPT: &str = include_str!("leftovers.sh");
/// For searching two directories and all open files, or for removing one directory.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);
/// Most output of the script: some ten thousand leftovers.
const MAX_OUTPUT_BYTES: usize = 2 << 20;

/// Returns the snapshot of a partial file.
fn parse_partial_name(path: &str) -> Option<SnapshotName> {
    let name = path.rsplit('/').next()?.strip_prefix('.')?;
    name.strip_suffix(".qcow2.partial")?.parse().ok()
}

/// The leftovers of interrupted jobs on a host.
#[derive(Clone, Copy)]
pub struct Leftovers<'a> {
    host: &'a Host,
}

impl<'a> Leftovers<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl Leftovers<'_> {
    /// Returns the partial files of pulls in the snapshots directory and snapdeck's directories in `temp_dir` that are
    /// neither open nor locked and were not modified for a day.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn list(self) -> Result<Vec<Leftover>> {
        let dirs = [
            &*self.host.settings.snapshots_dir,
            &*self.host.settings.temp_dir,
        ];
        let output = self.run_script("list", &dirs).await?;
        let mut fields = output.stdout.split(|byte| *byte == 0);
        let mut leftovers = Vec::new();
        while let [Some(kind), Some(bytes), Some(modified), Some(path)] =
            std::array::from_fn(|_| fields.next())
        {
            let text = |field: &[u8]| String::from_utf8(field.to_vec()).ok();
            let number = |field| text(field).and_then(|text| text.parse::<u64>().ok());
            let kind = match kind {
                b"partial" => LeftoverKind::Partial,
                _ => LeftoverKind::Directory,
            };
            // snapdeck does not create names that are not valid text.
            let Some(path) = text(path) else { continue };
            if path.chars().any(char::is_control) {
                continue;
            }
            let modified = number(modified).and_then(|seconds| i64::try_from(seconds).ok());
            leftovers.push(Leftover {
                kind,
                host: Some(self.host.name().clone()),
                name: parse_partial_name(&path),
                path,
                upload_id: None,
                size_bytes: number(bytes).unwrap_or(0),
                modified: modified.and_then(|seconds| Timestamp::from_second(seconds).ok()),
            });
        }
        Ok(leftovers)
    }

    /// Removes a leftover and returns whether it did: one that is in use again stays.
    ///
    /// # Errors
    /// `Conflict` if another process has locked the snapshot; an I/O error; `Unreachable`.
    pub async fn remove(self, leftover: &Leftover) -> Result<bool> {
        let (dir, verb) = match leftover.kind {
            LeftoverKind::Partial => (&self.host.settings.snapshots_dir, "remove_partial"),
            LeftoverKind::Directory => (&self.host.settings.temp_dir, "remove_directory"),
            LeftoverKind::Upload => return Ok(false),
        };
        let name = leftover.path.strip_prefix(dir.as_str());
        let name = name.and_then(|name| name.strip_prefix('/'));
        let Some(name) = name.filter(|name| !name.contains('/')) else {
            let summary = format!(
                "cannot remove {} on host {}",
                leftover.path,
                self.host.name()
            );
            return Err(Error::new(Kind::Failed, summary).with_cause(format!("it is not in {dir}")));
        };
        let lock = match &parse_partial_name(name) {
            Some(snapshot) => {
                let locks = self.host.locks();
                let requests = vec![locks.snapshot(snapshot, true)];
                let work = format!("remove {}", leftover.path);
                // One command removes it: nothing can be stopped when the lock is lost.
                let lost = CancellationToken::new();
                Some(locks.acquire(requests, &work, lost).await?)
            }
            None => None,
        };
        let output = self.run_script(verb, &[dir, name]).await;
        if let Some(lock) = lock {
            lock.release().await;
        }
        Ok(output?.stdout.starts_with(b"removed"))
    }

    async fn run_script(self, verb: &str, args: &[&str]) -> Result<Output> {
        let argv = [&["sh", "-c", SCRIPT, "snapdeck", verb], args].concat();
        let never = CancellationToken::new();
        let output = self
            .host
            .runner
            .run_raw(&argv, MAX_OUTPUT_BYTES, SCRIPT_TIMEOUT, &never)
            .await?;
        match output.status.success() {
            true => Ok(output),
            false => {
                let summary = format!("cannot search for leftovers on host {}", self.host.name());
                Err(system_error(summary, &output.stderr))
            }
        }
    }
}
