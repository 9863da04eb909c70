//! Errors, cancels, kills and lost connections during a snapshot: the guest runs, and no files or parts remain.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::common::{
    Fault, Faults, State, World, consistent_records, exists, kill_with_watchdogs, only_local, run,
    signal, wait_for_exit, wait_for_exit_within, wait_until,
};
use crate::running::{BusyGuest, backups, has_backup};

impl BusyGuest {
    /// Starts a create that is held at its first part while the guest runs and its backup job is active.
    fn start_to_parts(&self) -> (Child, Arc<Faults>) {
        let started = self.world.start_to_parts(&["create", &self.id, "app"]);
        assert!(has_backup(&self.world, &self.id));
        assert_eq!(self.world.state(&self.id), "running");
        started
    }
}

#[test]
fn an_error_ends_the_backup() {
    let busy = BusyGuest::new();
    let (child, faults) = busy.start_to_parts();
    run("touch", &[&busy.world.snapshot_path("base")]);
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(4, &[&busy.id, "changed while its disk was read"]);
    assert_eq!(busy.world.uploads(), "[]");
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_intact();
}

#[test]
fn a_cancelled_create_ends_the_backup() {
    let busy = BusyGuest::new();
    let (child, _line) = busy.start_to_parts();
    signal(&child, "INT");
    wait_for_exit(child).failed(130, &["was cancelled"]);
    assert_eq!(busy.world.uploads(), "[]");
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_intact();
}

#[test]
fn the_watchdog_ends_the_backup_of_a_killed_snapdeck() {
    let busy = BusyGuest::new();
    let (child, faults) = busy.start_to_parts();
    signal(&child, "KILL");
    wait_for_exit(child);
    faults.hold_parts.store(false, SeqCst);
    let now = busy.guest.heartbeats().pop().unwrap();
    busy.guest.wait_for_heartbeat_after(&now);
    wait_until("the watchdog has ended the backup", || {
        !has_backup(&busy.world, &busy.id)
    });
    wait_until("the watchdog has removed the files", || {
        backups(&busy.world).is_empty()
    });
    busy.world.snapdeck(&["create", &busy.id, "app"]).ok();
    consistent_records(&busy.world.get("app"));
}

#[test]
fn a_kill_at_any_step_around_the_pause_is_cleaned_up() {
    if only_local("files on a host over SSH are seen too late") {
        return;
    }
    let busy = BusyGuest::new();
    // Files in the backup directory, in order: the watchdog's note, libvirt's scratch file, QEMU's socket; at last the note
    // is removed.
    for (file, is_present) in [
        ("paused", true),
        ("scratch", true),
        ("run/nbd", true),
        ("paused", false),
    ] {
        let child = busy.world.start(&["create", &busy.id, "app"]);
        let dir = || backups(&busy.world).pop();
        while dir().is_none() {
            std::hint::spin_loop();
        }
        let dir = busy.world.path(&format!("sandboxes/{}", dir().unwrap()));
        let has_file = |file: &str| exists(&format!("{dir}/{file}"));
        while !has_file("paused") {
            std::hint::spin_loop();
        }
        while has_file(file) != is_present {
            std::hint::spin_loop();
        }
        signal(&child, "KILL");
        wait_for_exit(child);
        wait_until("the guest runs", || busy.world.state(&busy.id) == "running");
        wait_until("the backup has ended", || backups(&busy.world).is_empty());
        assert!(!has_backup(&busy.world, &busy.id), "{file} {is_present}");
    }
    busy.assert_intact();
}

#[test]
fn the_next_command_ends_a_backup_without_watchdog() {
    if only_local("the watchdog runs on the host, not as a child") {
        return;
    }
    let busy = BusyGuest::new();
    let (child, _line) = busy.start_to_parts();
    kill_with_watchdogs(child);
    let backup = backups(&busy.world).pop().unwrap();
    assert!(has_backup(&busy.world, &busy.id), "the backup has ended");
    let ran = busy.world.snapdeck(&["sandbox", "pause", &busy.id]).ok();
    for word in [
        "leftovers of an earlier backup",
        &busy.id,
        "backup job",
        &backup,
    ] {
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
    }
    assert_eq!(busy.world.state(&busy.id), "paused");
    busy.world.snapdeck(&["sandbox", "resume", &busy.id]).ok();
    assert!(backups(&busy.world).is_empty());
    assert!(!has_backup(&busy.world, &busy.id));
}

#[test]
fn the_next_command_resumes_a_guest_without_watchdog() {
    if only_local("the watchdog runs on the host, not as a child") {
        return;
    }
    let busy = BusyGuest::new();
    let world = &busy.world;
    world.reconfigure("owner = ", "running = \"copy\"\nowner = ");
    world.fake("cp", "sleep 1000");
    let child = world.start(&["create", &busy.id, "app"]);
    wait_until("the guest is paused", || world.state(&busy.id) == "paused");
    kill_with_watchdogs(child);
    assert_eq!(world.state(&busy.id), "paused", "the guest was resumed");
    world.fake("cp", "exec /bin/cp \"$@\"");
    let ran = world.snapdeck(&["create", &busy.id, "app"]).ok();
    assert!(
        ran.stderr.contains("leftovers of an earlier backup"),
        "{ran:?}"
    );
    busy.assert_intact();
}

#[test]
fn a_guest_paused_by_a_killed_snapdeck_is_resumed_within_5_seconds() {
    let busy = BusyGuest::new();
    let world = &busy.world;
    world.reconfigure("owner = ", "running = \"copy\"\nowner = ");
    world.fake("cp", "sleep 1000");
    let child = world.start(&["create", &busy.id, "app"]);
    wait_until("the guest is paused", || world.state(&busy.id) == "paused");
    signal(&child, "KILL");
    let killed = std::time::Instant::now();
    wait_for_exit(child);
    wait_until("the guest runs", || world.state(&busy.id) == "running");
    assert!(killed.elapsed() < Duration::from_secs(5));
    busy.assert_intact();
}

#[test]
fn a_guest_paused_by_a_stopped_snapdeck_is_resumed() {
    let busy = BusyGuest::new();
    let world = &busy.world;
    world.reconfigure("owner = ", "running = \"copy\"\nowner = ");
    let release = world.path("scratch/release");
    let wait = format!("while [ ! -e {release} ]; do sleep 0.1; done");
    world.fake("cp", &format!("{wait}; exec /bin/cp \"$@\""));
    let child = world.start(&["create", &busy.id, "app"]);
    wait_until("the guest is paused", || world.state(&busy.id) == "paused");
    signal(&child, "STOP");
    wait_until("the guest runs", || world.state(&busy.id) == "running");
    std::fs::write(&release, "").unwrap();
    signal(&child, "CONT");
    // What it has read may be torn: it begins again.
    let ran = wait_for_exit(child).ok();
    assert!(ran.stderr.contains("reading the disk again"), "{ran:?}");
    busy.assert_intact();
}

#[test]
fn a_connection_lost_during_the_pause_resumes_the_guest() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let busy = BusyGuest::in_world(World::over_ssh(1));
        let world = &busy.world;
        world.reconfigure("owner = ", "running = \"copy\"\nowner = ");
        world.reconfigure("reconnect_secs = 20", "reconnect_secs = 3");
        world.fake("cp", "sleep 1000");
        let child = world.start(&["create", &busy.id, "app"]);
        wait_until("the guest is paused", || world.state(&busy.id) == "paused");
        world.link().cut(fault);
        let cut = std::time::Instant::now();
        wait_until("the guest runs while the connection is still cut", || {
            world.state(&busy.id) == "running"
        });
        // The watchdog waits for 4 s; the rest is for a slow machine.
        assert!(
            cut.elapsed() < Duration::from_secs(8),
            "{:?}",
            cut.elapsed()
        );
        wait_for_exit_within(child, Duration::from_secs(100)).failed(5, &["host alpha"]);
        world.link().heal();
        busy.assert_intact();
    }
}

#[test]
fn a_connection_that_stays_lost_ends_the_backup() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let busy = BusyGuest::in_world(World::over_ssh(1));
        busy.world
            .reconfigure("reconnect_secs = 20", "reconnect_secs = 3");
        let (child, faults) = busy.start_to_parts();
        busy.world.link().cut(fault);
        wait_until("the host has ended the backup", || {
            !has_backup(&busy.world, &busy.id)
        });
        faults.hold_parts.store(false, SeqCst);
        wait_for_exit_within(child, Duration::from_secs(100)).failed(5, &["host alpha"]);
        busy.world.link().heal();
        assert!(!busy.world.is_in_bucket("app"));
        busy.assert_intact();
    }
}

#[test]
fn a_snapshot_survives_a_short_fault_of_the_connection() {
    let busy = BusyGuest::in_world(World::over_ssh(1));
    let (child, faults) = busy.start_to_parts();
    busy.world.link().cut(Fault::Closed);
    wait_until("the host has ended the backup", || {
        !has_backup(&busy.world, &busy.id)
    });
    busy.world.link().heal();
    faults.hold_parts.store(false, SeqCst);
    // The data read so far is of one point in time, or the disk is read again from the start.
    wait_for_exit(child).ok();
    consistent_records(&busy.world.get("app"));
    busy.assert_intact();
}

#[test]
fn a_snapshot_survives_a_restart_of_libvirtd() {
    let busy = BusyGuest::in_world(World::private());
    let (child, faults) = busy.start_to_parts();
    busy.world.kill_libvirtd();
    busy.world.start_libvirtd();
    faults.hold_parts.store(false, SeqCst);
    wait_for_exit(child).ok();
    consistent_records(&busy.world.get("app"));
    busy.assert_intact();
}

#[test]
fn a_guest_that_shuts_down_meanwhile_is_an_error() {
    let busy = BusyGuest::new();
    let (child, faults) = busy.start_to_parts();
    busy.world.virsh(&["shutdown", "--mode", "acpi", &busy.id]);
    wait_until("the guest is off", || {
        busy.world.state(&busy.id) == "shut off"
    });
    let words = [
        &*busy.id,
        "shut down while its disk was read",
        "create the snapshot again",
    ];
    // The parts are held until snapdeck has ended: the whole disk may have been read already.
    wait_for_exit(child).failed(4, &words);
    faults.hold_parts.store(false, SeqCst);
    assert!(busy.guest.was_power_button_pressed());
    assert!(!busy.world.is_in_bucket("app"));
    assert_eq!(busy.world.state(&busy.id), "shut off");
    busy.assert_cleaned_up();
    busy.world.snapdeck(&["create", &busy.id, "app"]).ok();
    consistent_records(&busy.world.get("app"));
}

#[test]
fn a_full_scratch_disk_is_an_error() {
    // The mount must be in the namespace of the host's QEMU.
    let world = World::over_ssh(1);
    let Some(disk) = world.small_disk("sandboxes", "100m") else {
        return;
    };
    let busy = BusyGuest::with_allocated_overlay(world);
    let (child, _line) = busy.start_to_parts();
    disk.run_on_host(&[
        "sh",
        "-c",
        "cat /dev/zero >\"$1\"",
        "sh",
        &busy.world.path("sandboxes/full"),
    ]);
    let words = [
        "no space left for data that its guest overwrites",
        "free space",
    ];
    wait_for_exit(child).failed(1, &words);
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_intact();
}

#[test]
fn a_sandbox_paused_by_the_operator_stays_paused() {
    let busy = BusyGuest::new();
    let (world, id) = (&busy.world, &busy.id);
    for killed in [false, true] {
        let (child, faults) = busy.start_to_parts();
        world.virsh(&["suspend", id]);
        match killed {
            true => signal(&child, "KILL"),
            false => faults.hold_parts.store(false, SeqCst),
        }
        let ran = wait_for_exit(child);
        assert_eq!(ran.code, (!killed).then_some(0), "{ran:?}");
        wait_until("the backup has ended", || backups(world).is_empty());
        assert_eq!(world.state(id), "paused");
        world.virsh(&["resume", id]);
        if !killed {
            consistent_records(&world.get("app"));
            world.snapdeck(&["remove", "app", "--bucket"]).ok();
        }
        world.configure("");
    }
    let paused = world.sandbox("b", "base", State::Paused);
    world.snapdeck(&["create", &paused, "other"]).ok();
    assert_eq!(world.state(&paused), "paused");
}

#[test]
fn a_sandbox_named_like_the_id_of_another_domain_is_resumed() {
    let world = World::private_local();
    world.snapshot("base", 1);
    let other = world.sandbox("other", "base", State::Running);
    // To virsh, this name is the ID of the other domain.
    let id = world.virsh(&["domid", &other]).trim().to_owned();
    let disk = world.path(&format!("sandboxes/{id}.qcow2"));
    std::fs::copy(world.disk("other"), &disk).unwrap();
    world.define(&id, &disk);
    let list = world.virsh(&["list", "--all", "--uuid", "--name"]);
    let line = list.lines().find(|line| line.ends_with(&format!(" {id}")));
    let uuid = line.unwrap().split_whitespace().next().unwrap().to_owned();
    world.virsh(&["start", &uuid]);
    world.reconfigure("owner = ", "running = \"copy\"\nowner = ");
    world.fake("cp", "sleep 1000");
    let child = world.start(&["create", &id, "app"]);
    wait_until("the guest is paused", || world.state(&uuid) == "paused");
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("the guest runs", || world.state(&uuid) == "running");
    assert_eq!(world.state(&other), "running");
}
