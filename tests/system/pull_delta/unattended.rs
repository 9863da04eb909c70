//! Pulls that continue on the host when snapdeck is gone.

use std::sync::atomic::Ordering::SeqCst;

use super::direct::{assert_no_signature, passed, processes_with_a_signature, with_unattended};
use super::{BLOCK, MIB, ProxiedWorld, bytes};
use crate::common::{Fault, exists, find_program, output, signal, wait_for_exit, wait_until};

fn has_unattended(world: &ProxiedWorld) -> bool {
    world
        .path_on_host("snapshots/.app.qcow2.pull/unattended")
        .exists()
}

/// Returns whether a process of the host waits for the end of heartbeats, or downloads unattended.
fn has_process(world: &ProxiedWorld) -> bool {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -q \"$0\" && exit 0; done; exit 1";
    let dir = world.path("snapshots/.app.qcow2.pull");
    let found = output(std::process::Command::new("sh").args([
        "-c",
        script,
        &format!("{dir} .* stand_b[y] "),
    ]));
    found.status.success()
}

fn wait_until_complete(world: &ProxiedWorld, size: u64) {
    wait_until("the host has all blocks", || {
        world.logged_bytes() == size.div_ceil(BLOCK) * BLOCK
    });
    wait_until("the host is done", || {
        !has_unattended(world) && !has_process(world)
    });
}

#[test]
fn a_pull_that_is_killed_continues_on_the_host() {
    let (world, image) = with_unattended("direct");
    let size = std::fs::metadata(&image).unwrap().len();
    let child = world.start_held(2 * BLOCK);
    wait_until("a process waits there", || has_process(&world));
    assert_eq!(processes_with_a_signature(), "");
    signal(&child, "KILL");
    let ran = wait_for_exit(child);
    wait_until("the host continues", || has_unattended(&world));
    assert_eq!(processes_with_a_signature(), "");
    world.release();
    wait_until_complete(&world, size);
    assert_no_signature(&world, &ran);
    let before = passed(&world);
    world.received();
    let ran = world.snapdeck(&["pull", "app", "--json"]).ok();
    assert_eq!(bytes(&ran.json(), "resumedBytes"), size);
    world.assert_pulled(&world, "app", &image);
    world.assert_fetched(0);
    assert!(passed(&world) - before < 2 * MIB);
    world.snapdeck(&["verify", "app"]).ok();
}

#[test]
fn the_next_pull_takes_over_what_a_host_downloads() {
    let (world, image) = with_unattended("direct");
    let child = world.start_held(2 * BLOCK);
    wait_until("a process waits there", || has_process(&world));
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("the host continues", || has_unattended(&world));
    let next = world.start(&["pull", "app", "--json"]);
    wait_until("the download is stopped", || !has_unattended(&world));
    world.release();
    let result = wait_for_exit(next).ok().json();
    assert!(bytes(&result, "resumedBytes") >= 2 * BLOCK, "{result}");
    world.assert_pulled(&world, "app", &image);
    wait_until("no process is left", || !has_process(&world));
}

#[test]
fn neither_a_cancelled_nor_a_finished_pull_continues() {
    let (world, image) = with_unattended("direct");
    let child = world.start_held(2 * BLOCK);
    wait_until("a process waits there", || has_process(&world));
    signal(&child, "INT");
    assert_ne!(wait_for_exit(child).code, Some(0));
    wait_until("no process is left", || !has_process(&world));
    assert!(!has_unattended(&world));
    assert_eq!(world.logged_bytes(), 2 * BLOCK);
    world.release();
    world.snapdeck(&["pull", "app"]).ok();
    assert!(!has_process(&world));
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_host_continues_for_the_set_time_only() {
    let (world, _) = with_unattended("direct");
    let line = "transfer = \"direct\"\n";
    world.reconfigure(line, &format!("{line}unattended_secs = 3\n"));
    let child = world.start_held(2 * BLOCK);
    wait_until("a process waits there", || has_process(&world));
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("the host continues", || has_unattended(&world));
    wait_until("its time is over", || !has_process(&world));
    assert!(!has_unattended(&world));
    assert_eq!(world.logged_bytes(), 2 * BLOCK);
}

#[test]
fn a_pull_whose_host_was_out_of_reach_uses_what_came_meanwhile() {
    let (world, image) = with_unattended("direct");
    let size = std::fs::metadata(&image).unwrap().len();
    let child = world.start_held(2 * BLOCK);
    wait_until("a process waits there", || has_process(&world));
    world.link().cut(Fault::Closed);
    wait_until("the loss is noticed", || world.link().is_cut());
    wait_until("the host continues", || has_unattended(&world));
    world.release();
    wait_until_complete(&world, size);
    world.received();
    world.link().heal();
    wait_for_exit(child).ok();
    world.assert_pulled(&world, "app", &image);
    world.assert_fetched(0);
}

#[test]
fn blocks_that_a_reboot_has_damaged_are_downloaded_again() {
    let (world, image) = with_unattended("direct");
    let line = "transfer = \"direct\"\n";
    world.reconfigure(line, &format!("{line}unattended_secs = 0\n"));
    let child = world.start_held(2 * BLOCK);
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("curl has ended", || world.curl_count() == 0);
    world.release();
    let dir = world.path_on_host("snapshots/.app.qcow2.pull");
    let log = dir.join("partial.mark");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replacen("\"bootId\":\"", "\"bootId\":\"0", 1)).unwrap();
    super::damage(dir.join("partial").to_str().unwrap(), BLOCK + 5_000_000);
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(bytes(&result, "resumedBytes"), BLOCK);
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_pull_that_is_cancelled_while_the_process_starts_does_not_continue() {
    let (world, image) = with_unattended("direct");
    let (setsid, gate) = (find_program("setsid"), world.path("scratch/gate"));
    let wait = format!(
        "case \"$*\" in *' stand_by /proc/'*) touch {gate}.reached; while [ -e {gate} ]; do sleep 0.02; done ;; esac\n\
         exec {setsid} \"$@\""
    );
    std::fs::write(&gate, "").unwrap();
    world.fake("setsid", &wait);
    world.faults.hold_from.store(1, SeqCst);
    let child = world.start(&["pull", "app", "--json"]);
    wait_until("it starts", || exists(&format!("{gate}.reached")));
    signal(&child, "INT");
    assert_ne!(wait_for_exit(child).code, Some(0));
    std::fs::remove_file(&gate).unwrap();
    wait_until("no process is left", || !has_process(&world));
    assert!(!has_unattended(&world));
    assert_eq!(world.logged_bytes(), 0);
    world.release();
    world.snapdeck(&["pull", "app"]).ok();
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn a_connection_that_freezes_leads_to_one_writer_at_a_time() {
    let (world, image) = with_unattended("direct");
    let child = world.start_held(2 * BLOCK);
    wait_until("a process waits there", || has_process(&world));
    world.link().cut(Fault::Frozen);
    wait_until("the host continues", || has_unattended(&world));
    world.link().heal();
    world.release();
    wait_for_exit(child).ok();
    world.assert_pulled(&world, "app", &image);
    wait_until("no process is left", || !has_process(&world));
    world.snapdeck(&["verify", "app"]).ok();
}
