//! Every way in which it can end in the middle: the guest runs, nothing stays, nothing is half there.

use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::common::{
    Fault, Faults, State, World, consistent_records, exists, only_local, process_tree, run, signal,
    wait_for_exit, wait_for_exit_within, wait_until,
};
use crate::running::{Busy, backups, has_backup};

impl Busy {
    /// A create that reads the disk through its backup, the guest running, and is held at its first part.
    fn start_to_parts(&self) -> (Child, Arc<Faults>) {
        let started = self.world.start_to_parts(&["create", &self.id, "app"]);
        assert!(has_backup(&self.world, &self.id));
        assert_eq!(self.world.state(&self.id), "running");
        started
    }
}

/// Kills snapdeck and its guards, these first: they would act at its end.
fn kill_with_guards(child: Child) {
    let tree = process_tree(child.id());
    let all = tree.iter().rev().map(u32::to_string);
    // One of them may have ended by itself just now.
    let _ = Command::new("kill").arg("-9").args(all).status();
    wait_for_exit(child);
}

#[test]
fn an_error() {
    let busy = Busy::new();
    let (child, line) = busy.start_to_parts();
    run("touch", &[&busy.world.snapshot_path("base")]);
    line.hold_parts.store(false, SeqCst);
    wait_for_exit(child).failed(4, &[&busy.id, "changed while its disk was read"]);
    assert_eq!(busy.world.uploads(), "[]");
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_intact();
}

#[test]
fn cancelled() {
    let busy = Busy::new();
    let (child, _line) = busy.start_to_parts();
    signal(&child, "INT");
    wait_for_exit(child).failed(130, &["was cancelled"]);
    assert_eq!(busy.world.uploads(), "[]");
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_intact();
}

#[test]
fn killed_while_the_guest_runs() {
    let busy = Busy::new();
    let (child, line) = busy.start_to_parts();
    signal(&child, "KILL");
    wait_for_exit(child);
    line.hold_parts.store(false, SeqCst);
    let now = busy.guest.heartbeats().pop().unwrap();
    busy.guest.wait_for_heartbeat_after(&now);
    wait_until("the guard has ended the backup", || {
        !has_backup(&busy.world, &busy.id)
    });
    wait_until("and removed its files", || backups(&busy.world).is_empty());
    busy.world.snapdeck(&["create", &busy.id, "app"]).ok();
    consistent_records(&busy.world.get("app"));
}

#[test]
fn killed_at_any_moment_around_the_pause() {
    if only_local("files there are seen too late") {
        return;
    }
    let busy = Busy::new();
    // What comes up in the backup's directory, in that order: the guard's note, libvirt's file, QEMU's socket; and
    // the note's end.
    for (file, there) in [
        ("paused", true),
        ("scratch", true),
        ("nbd", true),
        ("paused", false),
    ] {
        let child = busy.world.start(&["create", &busy.id, "app"]);
        let dir = || backups(&busy.world).pop();
        while dir().is_none() {
            std::hint::spin_loop();
        }
        let dir = busy.world.path(&format!("sandboxes/{}", dir().unwrap()));
        let look = |file: &str| exists(&format!("{dir}/{file}"));
        while !look("paused") {
            std::hint::spin_loop();
        }
        while look(file) != there {
            std::hint::spin_loop();
        }
        signal(&child, "KILL");
        wait_for_exit(child);
        wait_until("the guest runs", || busy.world.state(&busy.id) == "running");
        wait_until("the backup is over", || backups(&busy.world).is_empty());
        assert!(!has_backup(&busy.world, &busy.id), "{file} {there}");
    }
    busy.assert_intact();
}

#[test]
fn killed_together_with_its_guard_the_next_start_finds_what_was_left() {
    if only_local("the guard there is no child of ours") {
        return;
    }
    let busy = Busy::new();
    let (child, _line) = busy.start_to_parts();
    kill_with_guards(child);
    let left = backups(&busy.world).pop().unwrap();
    assert!(
        has_backup(&busy.world, &busy.id),
        "nobody is left to end it"
    );
    let ran = busy.world.snapdeck(&["sandbox", "pause", &busy.id]).ok();
    for word in [
        "leftovers of an earlier backup",
        &busy.id,
        "backup job",
        &left,
    ] {
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
    }
    assert_eq!(busy.world.state(&busy.id), "paused");
    busy.world.snapdeck(&["sandbox", "resume", &busy.id]).ok();
    assert!(backups(&busy.world).is_empty());
    assert!(!has_backup(&busy.world, &busy.id));
}

#[test]
fn killed_together_with_its_guard_in_the_pause_the_next_start_lets_the_guest_go_on() {
    if only_local("the guard there is no child of ours") {
        return;
    }
    let busy = Busy::new();
    let world = &busy.world;
    world.reconfigure("owner = ", "running = \"copy\"\nowner = ");
    world.fake("cp", "sleep 1000");
    let child = world.start(&["create", &busy.id, "app"]);
    wait_until("the guest is paused", || world.state(&busy.id) == "paused");
    kill_with_guards(child);
    assert_eq!(
        world.state(&busy.id),
        "paused",
        "nobody is left to resume it"
    );
    world.fake("cp", "exec /bin/cp \"$@\"");
    let ran = world.snapdeck(&["create", &busy.id, "app"]).ok();
    assert!(
        ran.stderr.contains("leftovers of an earlier backup"),
        "{ran:?}"
    );
    busy.assert_intact();
}

#[test]
fn killed_in_the_pause_the_guest_goes_on_within_5_seconds() {
    let busy = Busy::new();
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
fn the_line_is_cut_in_the_pause() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let busy = Busy::in_world(World::over_ssh(1));
        let world = &busy.world;
        world.reconfigure("owner = ", "running = \"copy\"\nowner = ");
        world.reconfigure("reconnect_secs = 20", "reconnect_secs = 3");
        world.fake("cp", "sleep 1000");
        let child = world.start(&["create", &busy.id, "app"]);
        wait_until("the guest is paused", || world.state(&busy.id) == "paused");
        world.link().cut(fault);
        let cut = std::time::Instant::now();
        wait_until("the guest runs, with the line still cut", || {
            world.state(&busy.id) == "running"
        });
        // The guard counts 4 s of silence, and a slow machine takes its time.
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
fn the_line_is_cut_for_good_while_the_guest_runs() {
    for fault in [Fault::Closed, Fault::Frozen] {
        let busy = Busy::in_world(World::over_ssh(1));
        busy.world
            .reconfigure("reconnect_secs = 20", "reconnect_secs = 3");
        let (child, line) = busy.start_to_parts();
        busy.world.link().cut(fault);
        wait_until("the host ends the backup by itself", || {
            !has_backup(&busy.world, &busy.id)
        });
        line.hold_parts.store(false, SeqCst);
        wait_for_exit_within(child, Duration::from_secs(100)).failed(5, &["host alpha"]);
        busy.world.link().heal();
        assert!(!busy.world.is_in_bucket("app"));
        busy.assert_intact();
    }
}

#[test]
fn the_line_is_cut_for_a_moment() {
    let busy = Busy::in_world(World::over_ssh(1));
    let (child, line) = busy.start_to_parts();
    busy.world.link().cut(Fault::Closed);
    wait_until("the host ends the backup by itself", || {
        !has_backup(&busy.world, &busy.id)
    });
    busy.world.link().heal();
    line.hold_parts.store(false, SeqCst);
    // What was read by then is of one moment, else it is read from the start.
    wait_for_exit(child).ok();
    consistent_records(&busy.world.get("app"));
    busy.assert_intact();
}

#[test]
fn libvirtd_is_restarted() {
    let busy = Busy::in_world(World::private());
    let (child, line) = busy.start_to_parts();
    busy.world.kill_libvirtd();
    busy.world.start_libvirtd();
    line.hold_parts.store(false, SeqCst);
    wait_for_exit(child).ok();
    consistent_records(&busy.world.get("app"));
    busy.assert_intact();
}

#[test]
fn the_guest_shuts_down_by_itself() {
    let busy = Busy::new();
    let (child, line) = busy.start_to_parts();
    busy.world.virsh(&["shutdown", "--mode", "acpi", &busy.id]);
    wait_until("it is off", || busy.world.state(&busy.id) == "shut off");
    let told = [&*busy.id, "shut down while its disk was read", "retry"];
    // Before its parts are taken: all of them may have been read.
    wait_for_exit(child).failed(4, &told);
    line.hold_parts.store(false, SeqCst);
    assert!(busy.guest.was_power_button_pressed());
    assert!(!busy.world.is_in_bucket("app"));
    assert_eq!(busy.world.state(&busy.id), "shut off");
    busy.assert_cleaned_up();
    busy.world.snapdeck(&["create", &busy.id, "app"]).ok();
    consistent_records(&busy.world.get("app"));
}

#[test]
fn there_is_no_room_for_what_the_guest_overwrites() {
    // In the host's own namespace the disk is QEMU's, too.
    let world = World::over_ssh(1);
    let Some(disk) = world.small_disk("sandboxes", "100m") else {
        return;
    };
    let busy = Busy::with_allocated_overlay(world);
    let (child, _line) = busy.start_to_parts();
    disk.run_on_host(&[
        "sh",
        "-c",
        "cat /dev/zero >\"$1\"",
        "sh",
        &busy.world.path("sandboxes/full"),
    ]);
    let told = [
        "no space left for data that its guest overwrites",
        "free space",
    ];
    wait_for_exit(child).failed(1, &told);
    assert!(!busy.world.is_in_bucket("app"));
    busy.assert_intact();
}

#[test]
fn what_the_operator_paused_stays_paused() {
    let busy = Busy::new();
    let (world, id) = (&busy.world, &busy.id);
    for killed in [false, true] {
        let (child, line) = busy.start_to_parts();
        world.virsh(&["suspend", id]);
        match killed {
            true => signal(&child, "KILL"),
            false => line.hold_parts.store(false, SeqCst),
        }
        let ran = wait_for_exit(child);
        assert_eq!(ran.code, (!killed).then_some(0), "{ran:?}");
        wait_until("the backup is over", || backups(world).is_empty());
        assert_eq!(world.state(id), "paused");
        world.virsh(&["resume", id]);
        if !killed {
            consistent_records(&world.get("app"));
            world.snapdeck(&["remove", "app", "--bucket"]).ok();
        }
        world.configure("");
    }
    let still = world.sandbox("b", "base", State::Paused);
    world.snapdeck(&["create", &still, "other"]).ok();
    assert_eq!(world.state(&still), "paused");
}
