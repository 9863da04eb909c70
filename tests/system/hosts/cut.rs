//! A line that fails in the middle of a push or a pull: the job waits, goes on and ends well; or it gives up after
//! the set time with exit code 5, and nothing stands under a final name.

use std::process::Child;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::common::{
    Direction, Fault, State, World, same_disk, sha256, wait_for_exit, wait_for_exit_within,
    wait_until,
};
use crate::hosts::assert_nothing_stays;

/// MiB of random bytes that travel, and the bytes of half of them.
const SIZE: u32 = 24;
const HALF: u64 = 12 << 20;
/// For a job that gives up after 3 s, a dead line that shows after 10, and calls that have deadlines of their own.
const GIVEN_UP: Duration = Duration::from_secs(100);
const FAULTS: [Fault; 2] = [Fault::Closed, Fault::Frozen];

/// A world with a job that moves the bytes one way, begun by [`Job::start`].
struct Job {
    world: World,
    args: Vec<String>,
    way: Direction,
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
            way: Direction::FromHost,
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
            way: Direction::ToHost,
            image,
        }
    }

    fn both() -> [Self; 2] {
        [Self::push(), Self::pull()]
    }

    fn start(&self) -> Child {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.world.start(&args)
    }

    /// Begins it and waits until the line has failed half way.
    fn start_and_cut(&self, fault: Fault) -> Child {
        let link = self.world.link();
        link.cut_after(fault, self.way, HALF);
        let child = self.start();
        wait_until("the line is cut", || link.is_cut());
        child
    }

    /// Begins it slowly and waits until half of the bytes have passed.
    fn start_to_half(&self) -> Child {
        let link = self.world.link();
        link.limit(Some(6 << 20));
        let child = self.start();
        wait_until("half of it has passed", || {
            link.bytes_passed(self.way) > HALF
        });
        link.limit(None);
        child
    }

    /// It ended well and left nothing.
    #[track_caller]
    fn assert_done(&self, child: Child) {
        wait_for_exit(child).ok();
        let result = match self.way {
            Direction::FromHost => self.world.get("app"),
            Direction::ToHost => self.world.snapshot_path("app"),
        };
        assert!(same_disk(&result, &self.image), "{:?}", self.args);
        if self.way == Direction::ToHost {
            assert_eq!(sha256(&result), sha256(&self.image));
            assert_eq!(self.world.names("snapshots"), ["app.qcow2"]);
        }
        assert_nothing_stays(&self.world);
    }
}

#[test]
fn cut_half_way_and_healed_a_job_goes_on() {
    for job in Job::both() {
        let child = job.start_and_cut(Fault::Closed);
        job.world.link().heal();
        job.assert_done(child);
    }
}

#[test]
fn frozen_half_way_until_it_is_noticed_and_healed_a_job_goes_on() {
    for job in Job::both() {
        let child = job.start_and_cut(Fault::Frozen);
        let link = job.world.link();
        let came = link.connection_count();
        wait_until("it is given up for a new one", || {
            link.connection_count() > came
        });
        link.heal();
        job.assert_done(child);
    }
}

#[test]
fn frozen_for_a_moment_nothing_is_lost() {
    for job in Job::both() {
        let child = job.start_and_cut(Fault::Frozen);
        job.world.link().heal();
        job.assert_done(child);
    }
}

#[test]
fn cut_half_way_for_good_a_job_gives_up_after_its_time() {
    for fault in FAULTS {
        for job in Job::both() {
            job.world.configure("reconnect_secs = 3");
            let child = job.start_and_cut(fault);
            wait_for_exit_within(child, GIVEN_UP).failed(5, &["host alpha"]);
            assert!(!job.world.snapshot_path("app").is_empty());
            assert!(!crate::common::exists(&job.world.snapshot_path("app")));
            assert_eq!(job.world.is_in_bucket("app"), job.way == Direction::ToHost);
            job.world.link().heal();
            assert_nothing_stays(&job.world);
            // Who was cut off holds its lock there until the host has noticed.
            let id = job.world.id("vm");
            let probe: [&str; 3] = match job.way {
                Direction::FromHost => ["sandbox", "stop", &id],
                Direction::ToHost => ["verify", "app", "--local"],
            };
            wait_until("its lock is free", || {
                let said = job.world.snapdeck(&probe).stderr;
                !said.contains("another snapdeck process is working on")
            });
            // The next one makes it good.
            job.assert_done(job.start());
        }
    }
}

#[test]
fn with_sshd_killed_half_way_and_started_again_a_job_goes_on() {
    for job in Job::both() {
        let child = job.start_to_half();
        job.world.link().kill_sshd();
        job.world.link().heal();
        job.assert_done(child);
    }
}

#[test]
fn with_sshd_stopped_half_way_until_it_is_noticed_a_job_goes_on() {
    for job in Job::both() {
        let child = job.start_to_half();
        let link = job.world.link();
        let came = link.connection_count();
        link.pause_sshd(true);
        wait_until("it is given up for a new one", || {
            link.connection_count() > came
        });
        link.pause_sshd(false);
        job.assert_done(child);
    }
}

#[test]
fn with_libvirtd_killed_half_way_and_started_again_a_job_goes_on() {
    let world = World::private();
    world.snapshot("base", 2);
    let off = world.sandbox("off", "base", State::Off);
    let (child, line) = world.start_to_parts(&["push", &off, "app"]);
    world.kill_libvirtd();
    line.hold_parts.store(false, SeqCst);
    world.start_libvirtd();
    wait_for_exit(child).ok();
    assert!(same_disk(&world.get("app"), &world.disk("off")));
    assert_nothing_stays(&world);
}
