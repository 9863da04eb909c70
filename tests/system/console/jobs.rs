//! Jobs by keys: the queue, leaving, and what is offered at the next start.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::common::screen::Screen;
use crate::common::{Faults, State, World, run};

/// A world in which parts of uploads are held, and one job runs at a time; with three stopped sandboxes.
fn held() -> (World, Arc<Faults>) {
    let world = World::new();
    world.snapshot("base", 8);
    for short in ["a", "b", "c"] {
        world.sandbox(short, "base", State::Off);
    }
    let trouble = world.use_proxy();
    let config = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), format!("{config}[jobs]\nparallel = 1\n")).unwrap();
    trouble.hold_parts.store(true, SeqCst);
    (world, trouble)
}

/// Begins a push of each sandbox; the second one waits.
fn push_both(screen: &mut Screen) {
    screen.wait(&["shut off", "base"]);
    screen.press("pone\r");
    screen.wait(&["one", "uploading"]);
    screen.press("jptwo\r");
    screen.wait(&["two", "queued"]);
}

#[test]
fn jobs_left_by_keys_or_by_a_kill_are_offered_at_the_next_start() {
    let (world, trouble) = held();
    let mut screen = Screen::open(&world.command(&[]));
    push_both(&mut screen);
    screen.press("q");
    screen.wait(&["2 jobs are not finished", "leave: resume at the next start"]);
    screen.press("l");
    assert_eq!(screen.wait_for_exit(), 0);
    assert_eq!(world.uploads(), "[]", "its parts are gone");

    // Offered, put off, and killed: nothing is lost.
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["2 jobs were running when", "→ one", "→ two"]);
    screen.press("\u{1b}");
    screen.wait_for("the offer is put off", |text| !text.contains("last exited"));
    screen.press("J");
    screen.wait(&["Jobs page", "interrupted", "t resumes"]);
    kill(&mut screen);

    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["2 jobs were running when"]);
    screen.press("t");
    screen.wait(&["one", "uploading"]);
    kill(&mut screen);

    trouble.hold_parts.store(false, SeqCst);
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["2 jobs were running when"]);
    screen.press("tJ");
    screen.wait(&["Jobs page (2)", "finished", "one.qcow2", "two.qcow2"]);
    assert!(world.is_in_bucket("one") && world.is_in_bucket("two"));
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
    // What is over is over.
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["shut off"]);
    assert!(!screen.text().contains("last exited"));
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn the_queue_is_put_in_order_and_what_was_cancelled_is_done_again() {
    let (world, trouble) = held();
    let mut screen = Screen::open(&world.command(&[]));
    push_both(&mut screen);
    screen.press("jpthree\r");
    screen.wait(&["three", "(3)"]);
    screen.press("J");
    screen.wait_for("the last of the queue is the third", |text| {
        row(text, "queued 2").contains("three")
    });
    screen.press("G+");
    screen.wait_for("it has its turn before the other", |text| {
        row(text, "queued 1").contains("three") && row(text, "queued 2").contains("two")
    });
    screen.press("x");
    screen.wait_for("it has finished", |text| {
        row(text, "finished").contains("three")
    });
    screen.press("t");
    screen.wait_for("it waits again, behind the other", |text| {
        row(text, "queued 2").contains("three")
    });
    trouble.hold_parts.store(false, SeqCst);
    screen.wait(&["one.qcow2", "two.qcow2", "three.qcow2"]);
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

/// The row of the page that begins so.
fn row<'a>(text: &'a str, part: &str) -> &'a str {
    let mut rows = text.lines();
    rows.find(|row| row.starts_with(&format!("│ {part}")))
        .unwrap_or_default()
}

/// As `kill -9`.
fn kill(screen: &mut Screen) {
    let pid = screen.child.process_id().unwrap().to_string();
    run("kill", &["-9", &pid]);
    screen.child.wait().unwrap();
}
