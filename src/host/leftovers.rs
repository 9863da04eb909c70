//! Leftovers of interrupted operations on a host: files and directories with a mark of snapdeck that were not modified for
//! a day. Those that this installation has recorded are its own; others are shown, and removed only on request.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Host;
use super::backup::StaleBackup;
use super::command::Output;
use super::fs::{ResumeLog, system_error};
use super::scratch::{ORGANIZATION_SUFFIX, SCRIPT};
use snapdeck_model::{Error, Kind, Leftover, LeftoverKind, Result, SnapshotName};
use snapdeck_ownership::OwnerMark;

/// For searching three directories and all open files, or for removing one directory.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);
/// Most output of the script: some ten thousand leftovers.
const MAX_OUTPUT_BYTES: usize = 8 << 20;

/// End of the name of a partial file of an earlier version, which has its mark in the resume log.
const PARTIAL_FILE_SUFFIX: &str = ".partial";

/// Returns the snapshot of a pull, of an image or of UEFI variables.
fn parse_pull_name(path: &str) -> Option<SnapshotName> {
    let name = path.rsplit('/').next()?.strip_prefix('.')?;
    let name = name
        .strip_suffix(".pull")
        .or_else(|| name.strip_suffix(PARTIAL_FILE_SUFFIX))?;
    let name = name
        .strip_suffix(".qcow2")
        .or_else(|| name.strip_suffix("_VARS.fd"))?;
    SnapshotName::from_flat(name)
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
    /// Returns the directories and partial files of pulls in the snapshots directory, those in which directories of organizations
    /// are created, snapdeck's directories in `temp_dir`, and those of backups in the sandboxes directory that are neither open nor locked and were not
    /// modified for a day.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn list(self) -> Result<Vec<Leftover>> {
        let settings = &self.host.settings;
        let dirs = [
            &*settings.snapshots_dir,
            &*settings.temp_dir,
            &*settings.sandboxes_dir,
            &*settings.owner,
        ];
        let output = self.run_script("list_leftovers", &dirs).await?;
        Ok(self.parse(&output, false))
    }

    /// Returns the directories of all pulls of a snapshot, or of all snapshots, those in use and of any age included.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn list_partials(self, snapshot: Option<&SnapshotName>) -> Result<Vec<Leftover>> {
        let dir = &*self.host.settings.snapshots_dir;
        let output = self.run_script("list_partials", &[dir]).await?;
        let mut partials = self.parse(&output, true);
        partials.retain(|partial| snapshot.is_none() || partial.name.as_ref() == snapshot);
        Ok(partials)
    }

    fn parse(self, output: &Output, is_recent: bool) -> Vec<Leftover> {
        let mut fields = output.stdout.split(|byte| *byte == 0);
        let mut leftovers = Vec::new();
        while let [
            Some(kind),
            Some(bytes),
            Some(modified),
            Some(file_id),
            Some(mark),
            Some(path),
        ] = std::array::from_fn(|_| fields.next())
        {
            let text = |field: &[u8]| String::from_utf8(field.to_vec()).ok();
            let number = |field| text(field).and_then(|text| text.parse::<u64>().ok());
            let mark = match kind {
                b"partial" => match ResumeLog::last_header(mark) {
                    Some(header) => header.owner,
                    None => continue,
                },
                _ => match OwnerMark::parse(mark) {
                    Some(mark) => Some(mark),
                    None => continue,
                },
            };
            let kind = match kind {
                b"partial" | b"pull" => LeftoverKind::Partial,
                b"backup" => LeftoverKind::Backup,
                _ => LeftoverKind::Directory,
            };
            // snapdeck does not create names that are not valid text.
            let Some(path) = text(path) else { continue };
            if path.chars().any(char::is_control) {
                continue;
            }
            let modified = number(modified).and_then(|seconds| i64::try_from(seconds).ok());
            let (mark_id, creator) = match mark {
                Some(mark) => (mark.id, Some(mark.creator)),
                None => (String::new(), None),
            };
            let records = &self.host.records;
            leftovers.push(Leftover {
                kind,
                host: Some(self.host.name().clone()),
                name: parse_pull_name(&path),
                upload_id: None,
                continuable_until: None,
                size_bytes: number(bytes).unwrap_or(0),
                modified: modified.and_then(|seconds| Timestamp::from_second(seconds).ok()),
                is_own: records.contains(self.host.location(), &path, &mark_id),
                is_recent,
                creator,
                mark_id,
                file_id: text(file_id).unwrap_or_default(),
                path,
            });
        }
        leftovers
    }

    /// Removes a leftover and returns whether it did: one that is in use again, or is another one now, stays.
    ///
    /// # Errors
    /// `Conflict` if another process has locked the snapshot or the sandbox, or uses a recent leftover; an I/O error;
    /// `Unreachable`.
    pub async fn remove(self, leftover: &Leftover) -> Result<bool> {
        let settings = &self.host.settings;
        let (dir, verb) = match leftover.kind {
            LeftoverKind::Partial if leftover.path.ends_with(PARTIAL_FILE_SUFFIX) => {
                (&settings.snapshots_dir, "remove_leftover_partial")
            }
            LeftoverKind::Partial if leftover.is_recent => {
                (&settings.snapshots_dir, "remove_partial")
            }
            LeftoverKind::Partial => (&settings.snapshots_dir, "remove_leftover_directory"),
            LeftoverKind::Directory if leftover.path.ends_with(ORGANIZATION_SUFFIX) => {
                (&settings.snapshots_dir, "remove_leftover_directory")
            }
            LeftoverKind::Directory => (&settings.temp_dir, "remove_leftover_directory"),
            LeftoverKind::Backup => (&settings.sandboxes_dir, "remove_leftover_directory"),
            LeftoverKind::Upload => return Ok(false),
        };
        let name = leftover.path.strip_prefix(dir.as_str());
        let name = name.and_then(|name| name.strip_prefix('/'));
        if name.is_none_or(|name| name.contains('/')) {
            let summary = format!(
                "cannot remove {} on host {}",
                leftover.path,
                self.host.name()
            );
            return Err(Error::new(Kind::Failed, summary).with_cause(format!("it is not in {dir}")));
        }
        let backup = match leftover.kind {
            LeftoverKind::Backup => StaleBackup::from_dir(&leftover.path, &leftover.mark_id),
            _ => None,
        };
        let locks = self.host.locks();
        let request = match (&backup, parse_pull_name(&leftover.path)) {
            (Some(backup), _) => Some(locks.sandbox(&backup.id)),
            (None, Some(snapshot)) => {
                let lock = locks.snapshot(&snapshot, true);
                // The download of another leftover of that name is not this one's.
                let pull_dir = self.host.pull_dir(&snapshot);
                Some(match leftover.is_recent && leftover.path == pull_dir {
                    true => lock.taking_over(),
                    false => lock,
                })
            }
            (None, None) => None,
        };
        let lock = match request {
            Some(request) => {
                let work = format!("remove {}", leftover.path);
                // One command removes it: nothing can be stopped when the lock is lost.
                let lost = CancellationToken::new();
                Some(locks.acquire(vec![request], &work, lost).await?)
            }
            None => None,
        };
        // The files of an active backup job are open.
        let args = [
            &*leftover.path,
            &leftover.mark_id,
            &leftover.file_id,
            &settings.owner,
        ];
        let removed = self.run_script(verb, &args).await;
        if let Some(lock) = lock {
            lock.release().await;
        }
        let was_removed = removed?.stdout.starts_with(b"removed");
        if was_removed {
            let location = self.host.location();
            let records = &self.host.records;
            records.remove(location, &leftover.path, &leftover.mark_id);
        } else if leftover.is_recent {
            let summary = format!(
                "cannot remove {} on host {}",
                leftover.path,
                self.host.name()
            );
            return Err(Error::new(Kind::Conflict, summary)
                .with_cause("it is in use, or was replaced since it was listed")
                .hint("wait for the pull, or cancel it"));
        }
        Ok(was_removed)
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
                let what = match args {
                    [path, ..] if verb.starts_with("remove") => format!("remove {path}"),
                    _ => "search for leftovers".to_owned(),
                };
                let summary = format!("cannot {what} on host {}", self.host.name());
                Err(system_error(summary, &output.stderr))
            }
        }
    }
}
