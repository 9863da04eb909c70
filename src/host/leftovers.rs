//! What operations that broke off have left on a host, where nobody has touched it for a day.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Host;
use super::command::Output;
use super::fs::system_error;
use snapdeck_model::{Error, Kind, Leftover, LeftoverKind, Result, SnapshotName};

const SCRIPT: &str = include_str!("leftovers.sh");
/// For looking through two directories and all open files, or for removing one directory.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes that the list may have: some ten thousand leftovers.
const MAX_OUTPUT_BYTES: usize = 2 << 20;

/// The snapshot that a part of a pull was to become.
fn parse_partial_name(path: &str) -> Option<SnapshotName> {
    let name = path.rsplit('/').next()?.strip_prefix('.')?;
    name.strip_suffix(".qcow2.partial")?.parse().ok()
}

/// What interrupted operations have left on a host.
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
    /// Parts of pulls in the snapshots directory and directories of ours under `temp_dir` that nobody has touched for
    /// a day, has open, or has locked.
    ///
    /// # Errors
    /// The system's; `Unreachable`.
    pub async fn list(self) -> Result<Vec<Leftover>> {
        let dirs = [
            &*self.host.settings.snapshots_dir,
            &*self.host.settings.temp_dir,
        ];
        let said = self.run_script("list", &dirs).await?;
        let mut fields = said.stdout.split(|byte| *byte == 0);
        let mut found = Vec::new();
        while let [Some(kind), Some(bytes), Some(at), Some(path)] =
            std::array::from_fn(|_| fields.next())
        {
            let text = |field: &[u8]| String::from_utf8(field.to_vec()).ok();
            let number = |field| text(field).and_then(|text| text.parse::<u64>().ok());
            let kind = match kind {
                b"partial" => LeftoverKind::Partial,
                _ => LeftoverKind::Directory,
            };
            // A name that is no text is none that we gave.
            let Some(path) = text(path) else { continue };
            if path.chars().any(char::is_control) {
                continue;
            }
            let at = number(at).and_then(|seconds| i64::try_from(seconds).ok());
            found.push(Leftover {
                kind,
                host: Some(self.host.name().clone()),
                name: parse_partial_name(&path),
                path,
                upload_id: None,
                size_bytes: number(bytes).unwrap_or(0),
                modified: at.and_then(|seconds| Timestamp::from_second(seconds).ok()),
            });
        }
        Ok(found)
    }

    /// Removes one that [`Leftovers::list`] has listed; tells whether it went: what somebody has taken up meanwhile
    /// stays.
    ///
    /// # Errors
    /// `Unsupported` while somebody works on that snapshot; the system's; `Unreachable`.
    pub async fn remove(self, leftover: &Leftover) -> Result<bool> {
        let (dir, verb) = match leftover.kind {
            LeftoverKind::Partial => (&self.host.settings.snapshots_dir, "partial"),
            LeftoverKind::Directory => (&self.host.settings.temp_dir, "directory"),
            LeftoverKind::Upload => return Ok(false),
        };
        let name = leftover.path.strip_prefix(dir.as_str());
        let name = name.and_then(|name| name.strip_prefix('/'));
        let Some(name) = name.filter(|name| !name.contains('/')) else {
            let what = format!(
                "cannot remove {} on host {}",
                leftover.path,
                self.host.name()
            );
            return Err(Error::new(Kind::Failed, what).with_cause(format!("it is not in {dir}")));
        };
        let lock = match &parse_partial_name(name) {
            Some(snapshot) => {
                let wants = vec![self.host.locks().snapshot(snapshot, true)];
                let work = format!("remove {}", leftover.path);
                // It goes within one call: there is nothing to stop when the lock is lost.
                Some(
                    self.host
                        .locks()
                        .acquire(wants, &work, CancellationToken::new())
                        .await?,
                )
            }
            None => None,
        };
        let said = self.run_script(verb, &[dir, name]).await;
        if let Some(lock) = lock {
            lock.release().await;
        }
        Ok(said?.stdout.starts_with(b"removed"))
    }

    async fn run_script(self, verb: &str, args: &[&str]) -> Result<Output> {
        let argv = [&["sh", "-c", SCRIPT, "snapdeck", verb], args].concat();
        let never = CancellationToken::new();
        let said = self
            .host
            .runner
            .run_raw(&argv, MAX_OUTPUT_BYTES, SCRIPT_TIMEOUT, &never)
            .await?;
        match said.status.success() {
            true => Ok(said),
            false => {
                let what = format!("cannot search for leftovers on host {}", self.host.name());
                Err(system_error(what, &said.stderr))
            }
        }
    }
}
