//! Ends backups, also those of a snapdeck that was killed together with its watchdog.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use virt::domain::Domain;

use super::Backups;
use crate::scratch::MarkedDir;
use crate::{CALL_TIMEOUT, domain};
use snapdeck_model::{Error, Kind, Result, SandboxId, SandboxState};

/// Prints "same" if the guest has not run since.
const HAS_RUN_SCRIPT: &str = concat!(
    include_str!("../instance.sh"),
    r#"has_run "$1" "$2" || echo same"#
);
/// CPU time of a guest in nanoseconds that shows that it has run since its pause. Virtual CPUs may be woken up for a moment.
const RUN_SINCE_PAUSE: u64 = 200_000;
/// The same since right before its pause, until which it runs: if it was paused later, another client has done that.
const RUN_SINCE_NOTE: u64 = 200_000_000;
/// Maximum length of a watchdog's note of a pause.
const MAX_NOTE_BYTES: u64 = 500;
const END_TIMEOUT: Duration = Duration::from_secs(20);
pub(super) const END_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A backup without a running snapdeck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleBackup {
    /// The sandbox.
    pub id: SandboxId,
    /// The directory of its files.
    pub dir: String,
    /// Id in the mark of the directory, or in the record of a directory without one.
    pub(crate) mark_id: String,
}

impl StaleBackup {
    /// Returns the backup in the directory `dir` with this mark; `None` if it does not have a backup's name.
    pub(crate) fn from_dir(dir: &str, mark_id: &str) -> Option<Self> {
        let (id, _) = dir_name(dir)
            .strip_prefix('.')?
            .strip_suffix(".backup")?
            .rsplit_once('.')?;
        Some(Self {
            id: id.parse().ok()?,
            dir: dir.to_owned(),
            mark_id: mark_id.to_owned(),
        })
    }
}

pub(super) fn dir_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

impl Backups<'_> {
    /// Returns the backups that this snapdeck, or an earlier process of it, has begun: those with a recorded mark, and recorded
    /// directories without one, whose creation was interrupted. One may
    /// belong to a running process: take the sandbox's lock before you change it.
    ///
    /// # Errors
    /// `Unreachable` if the directory cannot be listed.
    pub async fn stale(self) -> Result<Vec<StaleBackup>> {
        let parent = &self.host.settings.sandboxes_dir;
        let (location, records) = (self.host.location(), &self.host.records);
        let dirs = self.host.scratch_dirs().backups().await?.into_iter();
        let stale = |dir: MarkedDir| {
            let path = format!("{parent}/{}", dir.name);
            // The path is recorded before the directory is created.
            let id = match dir.mark {
                Some(mark) => mark.id,
                None => records.find_id(location, &path)?,
            };
            let is_ours = records.contains(location, &path, &id);
            StaleBackup::from_dir(&path, &id).filter(|_| is_ours)
        };
        Ok(dirs.filter_map(stale).collect())
    }

    /// Ends a backup, resumes its sandbox if it is still paused by snapdeck, removes the directory, and returns a log line.
    ///
    /// # Errors
    /// `Failed` if the job does not end; `Unreachable`.
    pub async fn remove_stale(self, backup: &StaleBackup) -> Result<String> {
        let pause = self.resume_if_paused(backup).await?;
        let ended = self.end_backup(&backup.id, dir_name(&backup.dir)).await?;
        let StaleBackup { dir, mark_id, .. } = backup;
        self.host.scratch_dirs().remove_marked(dir, mark_id).await?;
        let location = self.host.location();
        self.host.records.remove(location, dir, mark_id);
        let job = if ended { "the backup job and " } else { "" };
        Ok(format!(
            "removed leftovers of an earlier backup of sandbox {}: {job}{}{pause}",
            backup.id, backup.dir
        ))
    }

    /// Resumes the sandbox if it has been paused since the watchdog of this backup noted that. Returns what the log line
    /// says of it.
    async fn resume_if_paused(self, backup: &StaleBackup) -> Result<String> {
        let sandboxes = self.host.sandboxes();
        let path = format!("{}/paused", backup.dir);
        let Some(note) = self.host.fs().read_file(&path, MAX_NOTE_BYTES).await? else {
            return Ok(String::new());
        };
        let facts = match sandboxes.facts(&backup.id).await {
            Ok(facts) if facts.state == SandboxState::Paused => facts,
            Err(error) if error.kind() == Kind::Unreachable => return Err(error),
            _ => return Ok(String::new()),
        };
        let note = String::from_utf8_lossy(&note).trim().to_owned();
        let (note, limit) = match note.strip_suffix(" pausing") {
            Some(note) => (note, RUN_SINCE_NOTE),
            None => (&*note, RUN_SINCE_PAUSE),
        };
        let is_same = match note.split_once(' ') {
            Some((uuid, instance)) if uuid == facts.uuid && is_instance(instance) => {
                !self.has_run(instance, limit).await?
            }
            _ => false,
        };
        if is_same {
            sandboxes.resume(&backup.id).await?;
            return Ok("; it was paused by snapdeck and is resumed".to_owned());
        }
        Ok(format!(
            "; it is still paused, as another client may have paused it: `virsh resume {}` resumes it",
            facts.uuid
        ))
    }

    /// Returns whether the guest of a domain has used more than `limit` nanoseconds of CPU time since its `instance` was noted.
    async fn has_run(self, instance: &str, limit: u64) -> Result<bool> {
        let limit = limit.to_string();
        let script = ["sh", "-c", HAS_RUN_SCRIPT, "snapdeck"];
        let argv = [&script[..], &[instance, &limit]].concat();
        let never = CancellationToken::new();
        let output = self.host.runner.run(&argv, CALL_TIMEOUT, &never).await?;
        Ok(output.stdout.trim() != "same")
    }

    /// Ends the backup job whose files are in the directory `dir_name`. Returns whether there was one.
    pub(super) async fn end_backup(self, id: &SandboxId, dir_name: &str) -> Result<bool> {
        let sandboxes = self.host.sandboxes();
        let started_at = Instant::now();
        let mut existed = false;
        loop {
            let name = format!("/{dir_name}/");
            let end = move |domain: &Domain| {
                if !domain::state(domain)?.is_active() {
                    return Ok(false);
                }
                let is_ours =
                    snapdeck_libvirt::backup_xml(domain)?.is_some_and(|xml| xml.contains(&name));
                if is_ours && let Err(error) = snapdeck_libvirt::abort_job(domain) {
                    // It may be ending already, which the next poll shows.
                    tracing::debug!("cannot abort the backup job: {}", error.message());
                }
                Ok(is_ours)
            };
            let ended = self
                .host
                .retry_policy
                .call(|| sandboxes.call_domain(id, "end the backup of", CALL_TIMEOUT, end.clone()))
                .await;
            match ended {
                Ok(true) => existed = true,
                Ok(false) => break,
                Err(error) if error.kind() == Kind::NotFound => break,
                Err(error)
                    if error.kind() == Kind::Unreachable || started_at.elapsed() > END_TIMEOUT =>
                {
                    return Err(error);
                }
                // The job may have ended during the call.
                Err(_) => {}
            }
            if started_at.elapsed() > END_TIMEOUT {
                return Err(Error::new(
                    Kind::Failed,
                    format!(
                        "cannot end the backup job of sandbox {id} on host {}",
                        self.host.name()
                    ),
                )
                .with_cause(format!(
                    "it is still running after {} s",
                    END_TIMEOUT.as_secs()
                ))
                .hint(format!(
                    "run `virsh domjobabort {}` on host {}",
                    sandboxes.facts(id).await?.uuid,
                    self.host.name()
                )));
            }
            sleep(END_POLL_INTERVAL).await;
        }
        // QEMU pauses a guest when there is no space for the scratch file.
        let resume = |domain: &Domain| match domain::is_paused_on_io_error(domain)? {
            true => domain.resume(),
            false => Ok(()),
        };
        match sandboxes
            .call_domain(id, "resume", CALL_TIMEOUT, resume)
            .await
        {
            Err(error) if error.kind() == Kind::Unreachable => Err(error),
            _ => Ok(existed),
        }
    }
}

/// Returns whether `text` is a process ID, a start time and a CPU time.
fn is_instance(text: &str) -> bool {
    let numbers = text.split(' ').map(str::parse::<u64>);
    let numbers: Result<Vec<u64>, _> = numbers.collect();
    numbers.is_ok_and(|numbers| numbers.len() == 3)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_incomplete_note_of_a_pause_is_no_instance() {
        assert!(is_instance("12 34 56"));
        for other in [
            "",
            "12 34",
            "12 34 ",
            "12 34 5x",
            "1 2 3 4",
            "$(reboot) 1 2",
        ] {
            assert!(!is_instance(other), "{other}");
        }
    }

    #[test]
    fn reads_the_sandbox_from_a_directory_name() {
        let parse = |name| {
            let backup = StaleBackup::from_dir(&format!("/s/{name}"), "0a");
            backup.map(|backup| (backup.id.to_string(), backup.dir))
        };
        assert_eq!(
            parse(".a.b-c.Xy12.backup"),
            Some(("a.b-c".into(), "/s/.a.b-c.Xy12.backup".into()))
        );
        for other in [
            "a.Xy12.backup",
            ".a.backup",
            ".a.sandbox.lock",
            ".a;b.Xy12.backup",
            ".backup",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
