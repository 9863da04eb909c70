//! Pauses, freezes, backups and external snapshots of other clients are respected.

use std::process::{Child, Command};
use std::sync::atomic::Ordering::SeqCst;

use crate::common::{
    State, World, consistent_records, kill_with_watchdogs, only_local, output, process_tree, run,
    signal, wait_for_exit, wait_until,
};
use crate::running::{BusyGuest, backups, has_backup};

/// A guest whose disk is copied while it is paused, for as long as `cp` sleeps.
fn start_to_copy(busy: &BusyGuest) -> Child {
    let world = &busy.world;
    world.reconfigure("owner = ", "running = \"copy\"\nowner = ");
    let release = world.path("scratch/release");
    world.fake(
        "cp",
        &format!("until [ -e '{release}' ]; do sleep 0.05; done\nexec /bin/cp \"$@\""),
    );
    let child = world.start(&["create", &busy.id, "app"]);
    wait_until("the guest is paused", || world.state(&busy.id) == "paused");
    wait_until("the watchdog knows it", || {
        let notes = backups(world).into_iter();
        let notes = notes.map(|dir| world.path(&format!("sandboxes/{dir}/paused")));
        notes
            .filter_map(|note| std::fs::read_to_string(note).ok())
            .any(|note| !note.is_empty() && !note.contains("pausing"))
    });
    child
}

/// Resumes the guest as another client, waits until it has run, and pauses it again.
fn resume_and_pause(busy: &BusyGuest) {
    let before = busy.guest.heartbeats().pop().unwrap();
    busy.world.virsh(&["resume", &busy.id]);
    busy.guest.wait_for_heartbeat_after(&before);
    busy.world.virsh(&["suspend", &busy.id]);
}

#[test]
fn a_pause_before_snapdecks_own_stands() {
    for (verb, killed) in [
        ("measure", false),
        ("measure", true),
        ("create", false),
        ("create", true),
    ] {
        let (world, id) = World::with_sandbox(State::Running);
        if verb == "measure" {
            world.force_convert();
        }
        let (child, gate) = world.start_to_gate(verb, &["create", &id, "app"]);
        world.virsh(&["suspend", &id]);
        if killed {
            signal(&child, "KILL");
            wait_for_exit(child);
            gate.open();
        } else {
            gate.open();
            wait_for_exit(child).failed(4, &[&id, "no longer running"]);
        }
        wait_until("the files are removed", || {
            backups(&world).is_empty() && world.names("temp").is_empty()
        });
        assert_eq!(world.state(&id), "paused", "{verb} {killed}");
        assert!(!world.is_in_bucket("app"));
    }
}

#[test]
fn a_pause_after_a_resume_during_snapdecks_own_stands() {
    for killed in [false, true] {
        let busy = BusyGuest::new();
        let world = &busy.world;
        let child = start_to_copy(&busy);
        resume_and_pause(&busy);
        let release = || std::fs::write(world.path("scratch/release"), "").unwrap();
        if killed {
            signal(&child, "KILL");
            wait_for_exit(child);
            release();
        } else {
            release();
            wait_for_exit(child).failed(4, &[&busy.id, "another client has resumed it"]);
        }
        busy.assert_cleaned_up();
        assert_eq!(world.state(&busy.id), "paused", "killed: {killed}");
        assert!(!world.is_in_bucket("app"));
    }
}

#[test]
fn a_resume_during_a_conversion_is_an_error() {
    let busy = BusyGuest::new();
    let (child, gate) = busy
        .world
        .start_to_gate("convert", &["create", &busy.id, "app"]);
    wait_until("the guest is paused", || {
        busy.world.state(&busy.id) == "paused"
    });
    resume_and_pause(&busy);
    gate.open();
    wait_for_exit(child).failed(4, &[&busy.id]);
    assert_eq!(busy.world.state(&busy.id), "paused");
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_cleaned_up();
}

#[test]
fn a_stale_note_of_a_pause_resumes_nothing() {
    if only_local("the watchdog runs on the host, not as a child") {
        return;
    }
    let busy = BusyGuest::new();
    let world = &busy.world;
    let child = start_to_copy(&busy);
    kill_with_watchdogs(child);
    assert_eq!(world.state(&busy.id), "paused", "the guest was resumed");
    resume_and_pause(&busy);
    std::fs::write(world.path("scratch/release"), "").unwrap();
    let ran = world.snapdeck(&["create", &busy.id, "app"]).ok();
    assert!(
        ran.stderr.contains("leftovers of an earlier backup"),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains("another client may have paused it"),
        "{ran:?}"
    );
    assert_eq!(world.state(&busy.id), "paused");
    busy.assert_cleaned_up();
}

#[test]
fn a_guest_is_resumed_if_all_was_killed_right_after_its_pause() {
    if only_local("the watchdog runs on the host, not as a child") {
        return;
    }
    // The CPU time of the guest between the note and the pause in nanoseconds: more of it shows that another client has
    // paused the guest, later.
    for (used, state) in [(10_000_000, "running"), (10_000_000_000, "paused")] {
        let busy = BusyGuest::new();
        let world = &busy.world;
        kill_with_watchdogs(start_to_copy(&busy));
        // The note as it was until snapdeck knew that the guest is paused.
        let dirs = backups(world);
        let note = world.path(&format!("sandboxes/{}/paused", dirs[0]));
        let text = std::fs::read_to_string(&note).unwrap();
        let (start, cpu) = text.trim().rsplit_once(' ').unwrap();
        let before = cpu.parse::<u64>().unwrap().saturating_sub(used);
        std::fs::write(&note, format!("{start} {before} pausing\n")).unwrap();
        std::fs::write(world.path("scratch/release"), "").unwrap();
        world.snapdeck(&["create", &busy.id, "app"]).ok();
        assert_eq!(world.state(&busy.id), state, "{used}");
        busy.assert_cleaned_up();
    }
}

#[test]
fn a_note_of_another_process_of_the_guest_resumes_nothing() {
    if only_local("the watchdog runs on the host, not as a child") {
        return;
    }
    let busy = BusyGuest::new();
    let world = &busy.world;
    let child = start_to_copy(&busy);
    kill_with_watchdogs(child);
    world.virsh(&["destroy", &busy.id]);
    world.virsh(&["start", "--paused", &busy.id]);
    std::fs::write(world.path("scratch/release"), "").unwrap();
    world.snapdeck(&["create", &busy.id, "app"]).ok();
    assert_eq!(world.state(&busy.id), "paused");
    busy.assert_cleaned_up();
}

#[test]
fn a_freeze_by_another_client_stands() {
    let busy = BusyGuest::with_arguments(World::new(), "scatter agent");
    let (world, id) = (&busy.world, &busy.id);
    world.virsh(&["domfsfreeze", id]);
    wait_until("the file systems are frozen", || {
        busy.guest.freezes().len() == 1
    });
    let ran = world.snapdeck(&["create", id, "app", "--json"]).ok();
    assert!(ran.stderr.contains("another client has frozen"), "{ran:?}");
    assert_eq!(ran.json()["consistency"], "crash-consistent");

    let (child, faults) = world.start_to_parts(&["create", id, "other"]);
    signal(&child, "KILL");
    wait_for_exit(child);
    faults.hold_parts.store(false, SeqCst);
    busy.assert_cleaned_up();
    assert_eq!(busy.guest.thaw_count(), 0);
    world.virsh(&["domfsthaw", id]);
    wait_until("the operator's thaw has an effect", || {
        busy.guest.thaw_count() == 1
    });
    busy.assert_intact();
}

#[test]
fn an_external_snapshot_before_the_backup_is_an_error() {
    for verb in ["create", "measure"] {
        let busy = BusyGuest::new();
        let (world, id) = (&busy.world, &busy.id);
        if verb == "measure" {
            world.force_convert();
        }
        let (child, gate) = world.start_to_gate(verb, &["create", id, "app"]);
        let disk = format!("vda,file={}", world.path("sandboxes/snap.overlay"));
        world.virsh(&[
            "snapshot-create-as",
            id,
            "--disk-only",
            "--no-metadata",
            "--diskspec",
            &disk,
        ]);
        gate.open();
        wait_for_exit(child).failed(4, &[id, "no longer uses", &world.disk("a")]);
        assert!(!world.is_in_bucket("app"));
        busy.assert_intact();
    }
}

#[test]
fn the_watchdog_ends_only_the_backup_job_of_its_snapdeck() {
    if only_local("the watchdog runs on the host, not as a child") {
        return;
    }
    let busy = BusyGuest::new();
    let (world, id) = (&busy.world, &busy.id);
    let (child, faults) = world.start_to_parts(&["create", id, "app"]);
    let watchdogs: Vec<String> = process_tree(child.id())
        .iter()
        .skip(1)
        .map(u32::to_string)
        .collect();
    let signal_all = |name: &str| {
        let _ = Command::new("kill").arg(name).args(&watchdogs).status();
    };
    signal_all("-STOP");
    signal(&child, "KILL");
    wait_for_exit(child);
    faults.hold_parts.store(false, SeqCst);
    world.virsh(&["domjobabort", id]);
    wait_until("the job has ended", || !has_backup(world, id));
    let (xml, target) = (
        world.path("scratch/backup.xml"),
        world.path("scratch/backup.qcow2"),
    );
    let own = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{}'/><disks><disk name='vda' backup='yes' \
         type='file'><scratch file='{target}'/></disk></disks></domainbackup>",
        world.path("scratch/nbd")
    );
    std::fs::write(&xml, own).unwrap();
    world.virsh(&["backup-begin", id, &xml]);
    signal_all("-CONT");
    wait_until("the watchdog has removed the files", || {
        backups(world).is_empty()
    });
    assert!(
        has_backup(world, id),
        "the job of another client was aborted"
    );
    world.virsh(&["domjobabort", id]);
    busy.assert_intact();
}

#[test]
fn the_backup_of_a_sandbox_named_like_the_id_of_another_domain_is_ended() {
    let world = World::private_local();
    world.snapshot("base", 1);
    let other = world.sandbox("other", "base", State::Running);
    // To virsh, this name is the ID of the other domain.
    let id = world.virsh(&["domid", &other]).trim().to_owned();
    let disk = world.path(&format!("sandboxes/{id}.qcow2"));
    run("cp", &[&world.disk("other"), &disk]);
    world.define(&id, &disk);
    let list = world.virsh(&["list", "--all", "--uuid", "--name"]);
    let line = list.lines().find(|line| line.ends_with(&format!(" {id}")));
    let uuid = line.unwrap().split_whitespace().next().unwrap().to_owned();
    world.virsh(&["start", &uuid]);
    let (child, faults) = world.start_to_parts(&["create", &id, "app"]);
    assert!(has_backup(&world, &uuid));
    signal(&child, "KILL");
    wait_for_exit(child);
    faults.hold_parts.store(false, SeqCst);
    wait_until("the files are removed", || backups(&world).is_empty());
    assert!(!has_backup(&world, &uuid));
    let saved = output(&mut world.virsh_command(&["managedsave", &uuid]));
    assert!(saved.status.success(), "{saved:?}");
    assert_eq!(world.state(&other), "running");
}

#[test]
fn a_snapshot_is_clean_only_after_a_shutdown_of_its_guest() {
    let busy = BusyGuest::new();
    let (world, id) = (&busy.world, &busy.id);
    let consistency = |name: &str| {
        let result = world.snapdeck(&["create", id, name, "--json"]).ok().json();
        assert_eq!(world.manifest(name)["consistency"], result["consistency"]);
        result["consistency"].as_str().unwrap().to_owned()
    };
    world.virsh(&["destroy", id]);
    assert_eq!(consistency("destroyed"), "crash-consistent");
    world.snapdeck(&["sandbox", "start", id]).ok();
    busy.guest.wait_for_heartbeat(1);
    world.snapdeck(&["sandbox", "stop", id]).ok();
    assert_eq!(consistency("stopped"), "clean-shutdown");
    consistent_records(&world.get("stopped"));
    // A sandbox that was never started has no known end of its guest.
    world
        .snapdeck(&["sandbox", "new", &world.id("b"), "base"])
        .ok();
    let ran = world.snapdeck(&["create", &world.id("b"), "new", "--json"]);
    assert_eq!(ran.ok().json()["consistency"], "crash-consistent");
}
