//! Pulls that continue on the host when snapdeck is gone.

use std::sync::atomic::Ordering::SeqCst;

use super::direct::{assert_no_signature, passed, processes_with_a_signature, with_unattended};
use super::{BLOCK, MIB, ProxiedWorld, bytes};
use crate::common::{
    CommandOutput, Fault, exists, find_program, is_root, output, signal, wait_for_exit, wait_until,
};
use snapdeck_engine::View;
use snapdeck_model::LockedResource;

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

/// Starts a pull, which is killed, and waits until the host continues it.
fn leave_unattended(world: &ProxiedWorld) {
    let child = world.start_held(2 * BLOCK);
    wait_until("a process waits there", || has_process(world));
    signal(&child, "KILL");
    wait_for_exit(child);
    wait_until("the host continues", || has_unattended(world));
    wait_until("it has the lock", || {
        lock_text(world).contains("unattended")
    });
}

fn lock_text(world: &ProxiedWorld) -> String {
    world.read_on_host("snapshots/.app.qcow2.lock")
}

/// Runs snapdeck as another installation on this machine.
fn other_installation(world: &ProxiedWorld, args: &[&str]) -> CommandOutput {
    let mut command = world.command(args);
    command.env("HOME", &world.dir);
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    wait_for_exit(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn others_see_whose_download_runs_unattended() {
    let (world, image) = with_unattended("direct");
    leave_unattended(&world);
    let engine = world.engine().await;
    engine.follow();
    let mut views = engine.watch();
    let locked = views.wait_for(|view: &std::sync::Arc<View>| !view.hosts[0].locks.is_empty());
    let view = tokio::time::timeout(std::time::Duration::from_secs(60), locked);
    let locks = view.await.expect("a lock").unwrap().hosts[0].locks.clone();
    assert_eq!(
        locks[0].resource,
        LockedResource::Snapshot("app".parse().unwrap())
    );
    assert!(
        locks[0]
            .job
            .starts_with("pull app → alpha, unattended until 2"),
        "{locks:?}"
    );
    assert!(locks[0].job.ends_with(" UTC, 33 % done"), "{locks:?}");
    assert!(locks[0].holder.contains(" on "), "{locks:?}");
    engine.shutdown().await;
    // Others may use the snapshot of that name, if there is one, and not replace it.
    let ran = world.snapdeck(&["remove", "app", "--local"]);
    ran.failed(4, &["unattended until", ", by "]);
    if !is_root() {
        return;
    }
    // The user of the host is another one.
    let dir = world.path_on_host("snapshots/.app.qcow2.pull");
    std::os::unix::fs::chown(&dir, Some(1), None).unwrap();
    let words = [
        "snapshot app on host alpha: pull app → alpha, unattended until 2",
        " UTC, 33 % done, by ",
        "hint: wait until then, or end it as the user of the host",
        "snapdeck prune --partial app --foreign",
    ];
    other_installation(&world, &["pull", "app"]).failed(4, &words);
    let prune = ["prune", "--partial", "app", "--local", "--foreign", "--yes"];
    assert_ne!(other_installation(&world, &prune).code, Some(0));
    assert!(has_unattended(&world));
    std::os::unix::fs::chown(&dir, Some(0), None).unwrap();
    world.release();
    wait_until_complete(&world, std::fs::metadata(&image).unwrap().len());
    assert_eq!(lock_text(&world), "");
    let result = other_installation(&world, &["pull", "app", "--json"]).ok();
    assert!(bytes(&result.json(), "resumedBytes") > 2 * BLOCK);
    world.assert_pulled(&world, "app", &image);
}

#[test]
fn another_installation_of_the_same_user_takes_over_or_ends_what_a_host_downloads() {
    let (world, image) = with_unattended("direct");
    leave_unattended(&world);
    let prune = ["prune", "--partial", "app", "--local", "--yes"];
    other_installation(&world, &prune).failed(4, &["another installation created it", "--foreign"]);
    assert!(has_unattended(&world));
    let prune = [&prune[..], &["--foreign"]].concat();
    other_installation(&world, &prune).ok();
    wait_until("no process is left", || !has_process(&world));
    world.assert_nothing_hidden(&world);
    leave_unattended(&world);
    world.release();
    let result = other_installation(&world, &["pull", "app", "--json"]).ok();
    assert!(bytes(&result.json(), "resumedBytes") >= 2 * BLOCK);
    world.assert_pulled(&world, "app", &image);
    wait_until("no process is left", || !has_process(&world));
}

#[test]
fn the_own_installation_ends_what_a_host_downloads() {
    let (world, _) = with_unattended("direct");
    leave_unattended(&world);
    world
        .snapdeck(&["prune", "--partial", "app", "--local", "--yes"])
        .ok();
    wait_until("no process is left", || !has_process(&world));
    world.assert_nothing_hidden(&world);
    world.release();
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
fn a_pull_whose_host_reboots_in_the_middle_is_resumed_with_what_is_right() {
    let (world, image) = with_unattended("direct");
    let child = world.start_held(2 * BLOCK);
    wait_until("a process waits there", || has_process(&world));
    world.reboot();
    assert_eq!(world.curl_count(), 0);
    assert!(!has_process(&world));
    // The kernel had not written it.
    let partial = world.path_on_host("snapshots/.app.qcow2.pull/partial");
    super::damage(partial.to_str().unwrap(), 5_000_000);
    world.release();
    world.link().heal();
    wait_for_exit(child).failed(1, &["or the host rebooted, while the connection was lost"]);
    let result = world.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(bytes(&result, "resumedBytes"), BLOCK);
    world.assert_pulled(&world, "app", &image);
    assert!(!has_process(&world));
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
