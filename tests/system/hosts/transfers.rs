//! Faults of the connection, of sshd or of libvirtd during a push or a pull: the job continues once the fault has ended.
//! If it does not end within `reconnect_secs` the job fails with exit code 5 and publishes nothing.

use std::process::Child;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::common::{
    Direction, Fault, State, World, same_disk, sha256, wait_for_exit, wait_for_exit_within,
    wait_until,
};
use crate::hosts::assert_no_temporary_files;

/// MiB of random data to transfer, and half of them in bytes.
const SIZE: u32 = 24;
const HALF: u64 = 12 << 20;
/// Limit for a job with `reconnect_secs = 3`: a frozen connection is noticed after 10 s, and calls have their own timeouts.
const FAILURE_DEADLINE: Duration = Duration::from_secs(100);
const FAULTS: [Fault; 2] = [Fault::Closed, Fault::Frozen];

/// A push or a pull, started by [`Job::start`].
struct Job {
    world: World,
    args: Vec<String>,
    direction: Direction,
    image: String,
}

impl Job {
    fn push() -> Self {
        let world = World::over_ssh(1);
        world.snapshot("base", SIZE);
        let id = world.sandbox("vm", "base", State::Off);
        let image = world.disk("vm");
        Self {
            world,
            args: vec!["push".into(), id, "app".into()],
            direction: Direction::FromHost,
            image,
        }
    }

    fn pull() -> Self {
        let world = World::over_ssh(1);
        let image = world.path("scratch/app.qcow2");
        world.image(&image, SIZE);
        world.put(&image, "app");
        Self {
            world,
            args: vec!["pull".into(), "app".into()],
            direction: Direction::ToHost,
            image,
        }
    }

    fn push_and_pull() -> [Self; 2] {
        [Self::push(), Self::pull()]
    }

    fn start(&self) -> Child {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.world.start(&args)
    }

    /// Starts the job and waits until the connection has failed half-way.
    fn start_and_cut(&self, fault: Fault) -> Child {
        let link = self.world.link();
        link.cut_after(fault, self.direction, HALF);
        let child = self.start();
        wait_until("the connection has failed", || link.is_cut());
        child
    }

    /// Starts the job with limited bandwidth and waits until half of the bytes have passed.
    fn start_to_half(&self) -> Child {
        let link = self.world.link();
        link.limit(Some(6 << 20));
        let child = self.start();
        wait_until("half of the bytes have passed", || {
            link.bytes_passed(self.direction) > HALF
        });
        link.limit(None);
        child
    }

    /// Asserts that the job succeeded and left no temporary files.
    #[track_caller]
    fn assert_succeeds(&self, child: Child) {
        wait_for_exit(child).ok();
        let result = match self.direction {
            Direction::FromHost => self.world.get("app"),
            Direction::ToHost => self.world.snapshot_path("app"),
        };
        assert!(same_disk(&result, &self.image), "{:?}", self.args);
        if self.direction == Direction::ToHost {
            assert_eq!(sha256(&result), sha256(&self.image));
            assert_eq!(self.world.names("snapshots"), ["app.qcow2"]);
        }
        assert_no_temporary_files(&self.world);
    }
}

#[test]
fn a_job_continues_after_a_closed_connection() {
    for job in Job::push_and_pull() {
        let child = job.start_and_cut(Fault::Closed);
        job.world.link().heal();
        job.assert_succeeds(child);
    }
}

#[test]
fn a_job_continues_after_a_frozen_connection_was_replaced() {
    for job in Job::push_and_pull() {
        let child = job.start_and_cut(Fault::Frozen);
        let link = job.world.link();
        let connections = link.connection_count();
        wait_until("snapdeck opens a new connection", || {
            link.connection_count() > connections
        });
        link.heal();
        job.assert_succeeds(child);
    }
}

#[test]
fn a_job_continues_after_a_short_freeze() {
    for job in Job::push_and_pull() {
        let child = job.start_and_cut(Fault::Frozen);
        job.world.link().heal();
        job.assert_succeeds(child);
    }
}

#[test]
fn a_job_fails_if_the_connection_stays_lost() {
    for fault in FAULTS {
        for job in Job::push_and_pull() {
            job.world.configure("reconnect_secs = 3");
            let child = job.start_and_cut(fault);
            wait_for_exit_within(child, FAILURE_DEADLINE).failed(5, &["host alpha"]);
            assert!(!crate::common::exists(&job.world.snapshot_path("app")));
            assert_eq!(
                job.world.is_in_bucket("app"),
                job.direction == Direction::ToHost
            );
            job.world.link().heal();
            assert_no_temporary_files(&job.world);
            // The lock on the host is held until the host notices the lost session.
            let id = job.world.id("vm");
            let probe: [&str; 3] = match job.direction {
                Direction::FromHost => ["sandbox", "stop", &id],
                Direction::ToHost => ["verify", "app", "--local"],
            };
            wait_until("the lock is free", || {
                let stderr = job.world.snapdeck(&probe).stderr;
                !stderr.contains("another snapdeck process is working on")
            });
            // The next attempt succeeds.
            job.assert_succeeds(job.start());
        }
    }
}

#[test]
fn a_job_continues_after_sshd_was_killed() {
    for job in Job::push_and_pull() {
        let child = job.start_to_half();
        job.world.link().kill_sshd();
        job.world.link().heal();
        job.assert_succeeds(child);
    }
}

#[test]
fn a_job_continues_after_sshd_stopped_responding() {
    for job in Job::push_and_pull() {
        let child = job.start_to_half();
        let link = job.world.link();
        let connections = link.connection_count();
        link.pause_sshd(true);
        wait_until("snapdeck opens a new connection", || {
            link.connection_count() > connections
        });
        link.pause_sshd(false);
        job.assert_succeeds(child);
    }
}

#[test]
fn a_push_continues_after_libvirtd_was_restarted() {
    let world = World::private();
    world.snapshot("base", 2);
    let off = world.sandbox("off", "base", State::Off);
    let (child, faults) = world.start_to_parts(&["push", &off, "app"]);
    world.kill_libvirtd();
    faults.hold_parts.store(false, SeqCst);
    world.start_libvirtd();
    wait_for_exit(child).ok();
    assert!(same_disk(&world.get("app"), &world.disk("off")));
    assert_no_temporary_files(&world);
}
