//! Uploads that are interrupted, and continued by the next one.

use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::{assert_not_in_bucket, number, set_byte, size};
use crate::common::{
    CommandOutput, Fault, Faults, World, sha256, signal, wait_for_exit, wait_for_exit_within,
    wait_until,
};
use crate::pull_delta::direct::set_route;
use serde_json::Value;
use snapdeck_model::BLOCK_BYTES;

/// Size of the images in MiB: more parts than are sent at a time.
const IMAGE: u32 = 160;
const UPLOAD: [&str; 4] = ["-v", "upload", "golden", "--json"];

/// A host with a snapshot, and a store behind a proxy.
struct Job {
    world: World,
    faults: Arc<Faults>,
    image: String,
}

impl Job {
    fn new(world: World) -> Self {
        let faults = world.use_proxy();
        let image = world.snapshot("golden", IMAGE);
        Self {
            world,
            faults,
            image,
        }
    }

    fn relayed() -> Self {
        Self::new(World::new())
    }

    fn direct() -> Self {
        let job = Self::new(World::over_ssh(1));
        set_route(&job.world, "relay", "direct");
        job
    }

    /// Starts an upload; returns when the store has some of its parts, and gets no more.
    fn start(&self) -> Child {
        let before = self.recorded_parts();
        self.faults.slow.store(4, SeqCst);
        let child = self.world.start(&UPLOAD);
        wait_until("parts are recorded", || self.recorded_parts() > before + 1);
        self.faults.hold_parts.store(true, SeqCst);
        self.faults.slow.store(0, SeqCst);
        child
    }

    fn interrupt(&self, name: &str) -> CommandOutput {
        let child = self.start();
        signal(&child, name);
        let ran = wait_for_exit(child);
        wait_until("curl has ended", || self.world.curl_count() == 0);
        self.release();
        ran
    }

    fn release(&self) {
        self.faults.hold_parts.store(false, SeqCst);
        self.faults.requests.lock().unwrap().clear();
    }

    fn records(&self) -> Vec<PathBuf> {
        let records = self.world.dir.join("home/.local/state/snapdeck/uploads");
        let entries = std::fs::read_dir(records).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn recorded_parts(&self) -> u64 {
        let texts = self.records().into_iter().map(std::fs::read_to_string);
        let lines = texts.map(|text| text.unwrap_or_default().lines().count());
        lines.sum::<usize>().saturating_sub(1) as u64
    }

    fn parts(&self) -> u64 {
        size(&self.image).div_ceil(BLOCK_BYTES)
    }

    /// Returns how many parts were sent since the interruption.
    fn sent_parts(&self) -> u64 {
        let requests = self.faults.requests.lock().unwrap();
        let is_part =
            |request: &&String| request.starts_with("PUT ") && request.contains("partNumber=");
        requests.iter().filter(is_part).count() as u64
    }

    /// Uploads again, and asserts that this continues after `kept` parts.
    #[track_caller]
    fn assert_continues(&self, kept: u64) -> Value {
        let ran = self.world.snapdeck(&UPLOAD).ok();
        let (key, all) = (format!("{}/golden.qcow2", self.world.tag), self.parts());
        let line = format!("continuing an upload of {key}: {kept} of {all} parts are there");
        assert!(ran.stderr.contains(&line), "{line}: {ran:?}");
        let rest = size(&self.image) - kept * BLOCK_BYTES;
        assert_eq!(number(&ran.json(), "uploadedBytes"), rest);
        assert_eq!(self.sent_parts(), all - kept);
        self.assert_uploaded();
        self.world.manifest("golden")
    }

    /// Uploads again, and asserts that all parts are sent, for `reason`.
    #[track_caller]
    fn assert_restarts(&self, reason: &str) {
        let ran = self.world.snapdeck(&UPLOAD).ok();
        let line = format!("golden.qcow2: {reason}; uploading all parts");
        assert!(ran.stderr.contains(&line), "{line}: {ran:?}");
        assert_eq!(number(&ran.json(), "uploadedBytes"), size(&self.image));
        self.assert_uploaded();
    }

    #[track_caller]
    fn assert_uploaded(&self) {
        let world = &self.world;
        assert_eq!(sha256(&world.get("golden")), sha256(&self.image));
        world.snapdeck(&["verify", "golden", "--bucket"]).ok();
        assert_eq!(world.uploads(), "[]");
        assert_eq!(self.records(), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_killed_upload_is_continued() {
    for name in ["KILL", "TERM", "HUP"] {
        let job = Job::relayed();
        job.interrupt(name);
        assert!(!job.world.is_in_bucket("golden"));
        let manifest = job.assert_continues(job.recorded_parts());
        assert!(manifest["claimed"].is_null(), "{manifest}");
    }
}

#[test]
fn a_killed_direct_upload_is_continued() {
    let job = Job::direct();
    job.interrupt("KILL");
    let manifest = job.assert_continues(job.recorded_parts());
    assert!(!manifest["claimed"].is_null(), "{manifest}");
}

#[test]
fn parts_that_a_host_has_sent_stay_its_word() {
    let job = Job::direct();
    job.interrupt("TERM");
    set_route(&job.world, "direct", "relay");
    let manifest = job.assert_continues(job.recorded_parts());
    assert!(!manifest["claimed"].is_null(), "{manifest}");
}

#[test]
fn an_upload_that_fails_since_the_host_is_lost_is_continued() {
    for job in [Job::new(World::over_ssh(1)), Job::direct()] {
        let world = &job.world;
        world.reconfigure("reconnect_secs = 20", "reconnect_secs = 2");
        let child = job.start();
        world.link().cut(Fault::Closed);
        let ran = wait_for_exit_within(child, std::time::Duration::from_secs(100));
        let kept = "upload it again within 7 days to continue";
        assert!(ran.stderr.contains(kept), "{ran:?}");
        ran.failed(5, &["cannot reach host alpha"]);
        world.link().heal();
        wait_until("curl has ended", || world.curl_count() == 0);
        job.release();
        job.assert_continues(job.recorded_parts());
    }
}

#[test]
fn an_upload_is_continued_more_than_once_and_its_cancel_leaves_nothing() {
    let job = Job::relayed();
    job.interrupt("KILL");
    job.interrupt("KILL");
    // The end of a line is missing.
    let record = &job.records()[0];
    let length = std::fs::metadata(record).unwrap().len();
    let file = std::fs::File::options().write(true).open(record).unwrap();
    file.set_len(length - 2).unwrap();
    job.faults.hold_parts.store(true, SeqCst);
    job.faults.held.store(0, SeqCst);
    let child = job.world.start(&UPLOAD);
    wait_until("a part is held", || job.faults.held.load(SeqCst) > 0);
    signal(&child, "INT");
    job.release();
    let ran = wait_for_exit(child);
    assert!(ran.stderr.contains("continuing an upload"), "{ran:?}");
    assert_eq!(ran.code, Some(130));
    assert_not_in_bucket(&job.world, "golden");
    assert_eq!(job.records(), [] as [PathBuf; 0]);
}

#[test]
fn a_changed_file_is_uploaded_from_the_start() {
    let job = Job::relayed();
    job.interrupt("KILL");
    let manifest = job.world.path("snapshots/golden.json");
    let _ = std::fs::remove_file(manifest);
    set_byte(&job.image, 20 << 20, |byte| !byte);
    job.assert_restarts("the file was changed");
}

#[test]
fn an_upload_that_was_aborted_begins_again() {
    let job = Job::relayed();
    job.interrupt("KILL");
    job.world.abort_uploads();
    job.assert_restarts("the store does not have it any more");
}

#[test]
fn a_part_that_another_client_has_replaced_is_sent_again() {
    let job = Job::relayed();
    job.interrupt("KILL");
    let record = std::fs::read_to_string(&job.records()[0]).unwrap();
    let line: Value = serde_json::from_str(record.lines().nth(1).unwrap()).unwrap();
    let number = i32::try_from(line["index"].as_u64().unwrap() + 1).unwrap();
    let kept = job.recorded_parts() - 1;
    job.world
        .replace_part(number, vec![7; BLOCK_BYTES as usize]);
    job.assert_continues(kept);
}

#[test]
fn a_record_of_another_user_is_not_used() {
    let job = Job::relayed();
    job.interrupt("KILL");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&job.records()[0], mode).unwrap();
    let ran = job.world.snapdeck(&UPLOAD).ok();
    assert_eq!(number(&ran.json(), "uploadedBytes"), size(&job.image));
    assert_eq!(sha256(&job.world.get("golden")), sha256(&job.image));
}
