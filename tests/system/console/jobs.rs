//! Jobs in the console: the queue, quitting while they run, and resuming them at the next start.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::common::screen::Screen;
use crate::common::{Faults, State, World, exists, run, wait_until};

/// Creates an environment with three stopped sandboxes in which uploaded parts are held and one job runs at a time.
fn with_held_uploads() -> (World, Arc<Faults>) {
    let world = World::new();
    world.snapshot("base", 8);
    for short in ["a", "b", "c"] {
        world.sandbox(short, "base", State::Off);
    }
    let faults = world.use_proxy();
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), format!("{config}[jobs]\nparallel = 1\n")).unwrap();
    faults.hold_parts.store(true, SeqCst);
    (world, faults)
}

/// Starts two pushes; the second is queued.
fn push_two(screen: &mut Screen) {
    screen.wait(&["shut off", "base"]);
    screen.press("pone\r");
    screen.wait(&["one", "uploading"]);
    screen.press("jptwo\r");
    screen.wait(&["two", "queued"]);
}

#[test]
fn interrupted_jobs_are_offered_at_the_next_start() {
    let (world, faults) = with_held_uploads();
    let mut screen = Screen::open(&world.command(&[]));
    push_two(&mut screen);
    screen.press("q");
    screen.wait(&["2 jobs are not finished", "leave: resume at the next start"]);
    screen.press("l");
    assert_eq!(screen.wait_for_exit(), 0);
    assert_eq!(world.uploads(), "[]", "the parts are removed");

    // The offer is dismissed and the console is killed: the jobs are offered again.
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["2 jobs were not finished when", "→ one", "→ two"]);
    screen.press("\u{1b}");
    screen.wait_for("the offer is dismissed", |text| {
        !text.contains("last exited")
    });
    screen.press("J");
    screen.wait(&["┌ Jobs ", "interrupted", "t resumes"]);
    kill(&mut screen);

    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["2 jobs were not finished when"]);
    screen.press("t");
    screen.wait(&["one", "uploading"]);
    kill(&mut screen);

    faults.hold_parts.store(false, SeqCst);
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["2 jobs were not finished when"]);
    screen.press("tJ");
    screen.wait(&["┌ Jobs 2", "finished", "one.qcow2", "two.qcow2"]);
    assert!(world.is_in_bucket("one") && world.is_in_bucket("two"));
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
    // Finished jobs are not offered.
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["┌ Jobs 2", "earlier"]);
    assert!(!screen.text().contains("last exited"));
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

/// Starts a push of `a`, which is held, and a destroy of `b`, which is queued, in a console.
fn with_queued_destroy() -> (World, Arc<Faults>, Screen) {
    let (world, faults) = with_held_uploads();
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["shut off", "base"]);
    screen.press("pone\r");
    screen.wait(&["one", "uploading"]);
    let id = world.id("b");
    screen.press("jd");
    screen.wait(&[&format!("Type {id}")]);
    screen.press(&format!("{id}\r"));
    screen.wait(&[&format!("destroy {id}"), "queued"]);
    wait_until("the targets are recorded", || {
        let entries = world.journal_entries();
        let known = entries.iter().filter(|entry| entry["target"].is_object());
        known.count() == 2
    });
    (world, faults, screen)
}

#[test]
fn a_resumed_destroy_leaves_a_new_sandbox_of_that_name() {
    for is_replaced in [true, false] {
        let (world, faults, mut screen) = with_queued_destroy();
        kill(&mut screen);
        if is_replaced {
            world.replace_sandbox("b", "base", State::Off);
        }
        faults.hold_parts.store(false, SeqCst);
        let title = format!("destroy {}", world.id("b"));
        let mut screen = Screen::open(&world.command(&[]));
        let queued = format!("{title}, queued");
        screen.wait(&["2 jobs were not finished", ", running", &queued]);
        screen.press("t");
        if is_replaced {
            screen.wait(&[&format!("✗ {title}")]);
            screen.press("J");
            screen.wait(&["was replaced or changed since it was"]);
        } else {
            screen.wait(&[&format!("✓ {title}")]);
        }
        assert_eq!(exists(&world.disk("b")), is_replaced);
        wait_until("the push is finished", || {
            world.journal_entries().is_empty()
        });
        assert!(world.is_in_bucket("one"));
        screen.press("q");
        assert_eq!(screen.wait_for_exit(), 0);
    }
}

#[test]
fn sigterm_cancels_a_queued_destroy_and_keeps_a_push() {
    for signal in ["TERM", "HUP"] {
        let (world, _faults, mut screen) = with_queued_destroy();
        let pid = screen.child.process_id().unwrap().to_string();
        run("kill", &[&format!("-{signal}"), &pid]);
        screen.child.wait().unwrap();
        let entries = world.journal_entries();
        assert_eq!(entries.len(), 1, "{signal}: {entries:?}");
        assert!(entries[0]["operation"]["push"].is_object(), "{entries:?}");
        let mut screen = Screen::open(&world.command(&[]));
        let text = screen.wait(&["1 job was not finished", "→ one"]);
        assert!(!text.contains("destroy"), "{text}");
        kill(&mut screen);
        assert!(exists(&world.disk("b")));
    }
}

#[test]
fn queued_jobs_are_reordered_and_a_cancelled_job_is_retried() {
    let (world, faults) = with_held_uploads();
    let mut screen = Screen::open(&world.command(&[]));
    push_two(&mut screen);
    screen.press("jpthree\r");
    screen.wait(&["three", "2 queued"]);
    screen.press("J");
    screen.wait_for("the third job is the last of the queue", |text| {
        row(text, "queued 2").contains("three")
    });
    screen.press("G+");
    screen.wait_for("the third job is before the second", |text| {
        row(text, "queued 1").contains("three") && row(text, "queued 2").contains("two")
    });
    screen.press("x");
    screen.wait_for("the third job is cancelled", |text| {
        row(text, "finished").contains("three")
    });
    screen.press("t");
    screen.wait_for("the third job is queued behind the second", |text| {
        row(text, "queued 2").contains("three")
    });
    faults.hold_parts.store(false, SeqCst);
    screen.wait(&["one.qcow2", "two.qcow2", "three.qcow2"]);
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

/// Returns the row that begins with `part`.
fn row<'a>(text: &'a str, part: &str) -> &'a str {
    let mut rows = text.lines();
    rows.find(|row| row.starts_with(&format!("│ {part}")))
        .unwrap_or_default()
}

fn kill(screen: &mut Screen) {
    let pid = screen.child.process_id().unwrap().to_string();
    run("kill", &["-9", &pid]);
    screen.child.wait().unwrap();
}
