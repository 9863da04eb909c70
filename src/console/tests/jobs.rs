//! The jobs page, leaving while jobs run, and what an earlier run left.

use super::*;
use crate::dialog::{Dialog, InterruptedJobsDialog};
use crate::fixture::{interrupted_job, queued_job};
use snapdeck_engine::InterruptedId;

/// One job runs, two wait, one has failed, and one was left.
fn busy() -> App {
    let mut app = app(populated());
    update(&mut app, |view| {
        view.jobs.push(Arc::new(queued_job(3, "far-away")));
        view.jobs.push(Arc::new(queued_job(4, "myapp-v1.0")));
        view.interrupted_jobs = Arc::new([interrupted_job(1, "winserver-base")]);
    });
    app
}

/// As [`busy`], with the page open at the row of that number.
fn at(row: usize) -> App {
    let mut app = busy();
    keys(&mut app, "Jgg");
    keys(&mut app, &"j".repeat(row));
    app
}

#[test]
fn the_page_shows_what_was_left_what_runs_the_queue_and_what_is_over() {
    let mut app = at(1);
    shot("jobs_page", &mut app, Instant::now());
    // The selected job's own log stands below.
    assert!(screen(&mut app, 120, 40).contains("converting /var/lib"));
    keys(&mut app, "J");
    assert_eq!(app.list, Pane::Sandboxes);
    assert!(screen(&mut app, 120, 40).contains("Sandboxes · alpha"));
}

#[test]
fn each_row_has_what_can_be_done_to_it() {
    let left = vec![InterruptedId(1)];
    assert_eq!(
        keys(&mut at(0), "t"),
        [Command::ResumeInterrupted(left.clone())]
    );
    assert_eq!(keys(&mut at(0), "X"), [Command::DiscardInterrupted(left)]);
    assert!(keys(&mut at(0), "x+-").is_empty());
    assert_eq!(keys(&mut at(1), "x"), [Command::Cancel(JobId(1))]);
    assert!(keys(&mut at(1), "t+-X").is_empty());
    assert_eq!(keys(&mut at(3), "+"), [Command::Shift(JobId(4), -1)]);
    assert_eq!(keys(&mut at(2), "-"), [Command::Shift(JobId(3), 1)]);
    assert_eq!(keys(&mut at(2), "x"), [Command::Cancel(JobId(3))]);
    let failed = busy().view.jobs[1].operation.clone();
    assert_eq!(keys(&mut at(4), "t"), [Command::Retry(JobId(2), failed)]);
    assert_eq!(keys(&mut at(4), "X"), [Command::Dismiss(JobId(2))]);
    assert!(keys(&mut at(4), "x+").is_empty());
    let mut app = at(4);
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 120, 40).contains("qemu-img check found 3 errors"));
}

#[test]
fn of_what_was_left_each_key_is_for_the_next_one() {
    let mut app = at(0);
    update(&mut app, |view| {
        let names = ["one", "two", "three"];
        view.interrupted_jobs = (1..)
            .zip(names)
            .map(|(id, name)| interrupted_job(id, name))
            .collect();
    });
    keys(&mut app, "gg");
    keys(&mut app, "x");
    assert!(screen(&mut app, 120, 40).contains("this job was interrupted"));
    // Both before the engine has said anything.
    let commands = keys(&mut app, "tX");
    let of = |id| vec![InterruptedId(id)];
    assert_eq!(
        commands,
        [
            Command::ResumeInterrupted(of(1)),
            Command::DiscardInterrupted(of(2))
        ]
    );
    // What came to nothing is there again.
    assert!(!screen(&mut app, 120, 40).contains("two"));
    update(&mut app, |_| {});
    assert!(screen(&mut app, 120, 40).contains("two"));
}

#[test]
fn the_selection_stays_on_its_job_when_that_moves_in_the_queue_or_ends() {
    let mut app = at(3);
    let current = |app: &App| app.page_job().unwrap().id;
    assert_eq!(current(&app), JobId(4));
    update(&mut app, |view| view.jobs.swap(2, 3));
    assert_eq!(current(&app), JobId(4));
    let shown = screen(&mut app, 120, 40);
    let first = shown
        .lines()
        .find(|line| line.contains("queued 1"))
        .unwrap();
    assert!(first.contains("myapp-v1.0"), "{shown}");
    update(&mut app, |view| {
        let mut job = (*view.jobs[2]).clone();
        job.state = view.jobs[1].state.clone();
        job.ended_at = Some(Instant::now());
        view.jobs[2] = Arc::new(job);
    });
    assert_eq!(current(&app), JobId(4));
}

#[test]
fn quitting_offers_to_leave_the_jobs_where_they_are_noted() {
    let mut app = busy();
    assert!(keys(&mut app, "q").is_empty());
    assert!(screen(&mut app, 120, 40).contains("cannot be resumed"));
    assert!(keys(&mut app, "l").is_empty());
    press(&mut app, KeyCode::Esc);
    app.has_journal = true;
    keys(&mut app, "q");
    insta::assert_snapshot!("quit_leave", screen(&mut app, 120, 40));
    assert_eq!(keys(&mut app, "l"), [Command::Leave]);
}

#[test]
fn what_was_left_is_offered_at_the_start() {
    let mut app = busy();
    app.layers
        .push(Dialog::InterruptedJobs(InterruptedJobsDialog).into());
    insta::assert_snapshot!("left", screen(&mut app, 120, 40));
    assert_eq!(
        keys(&mut app, "t"),
        [Command::ResumeInterrupted(vec![InterruptedId(1)])]
    );
    app.layers
        .push(Dialog::InterruptedJobs(InterruptedJobsDialog).into());
    assert_eq!(
        keys(&mut app, "X"),
        [Command::DiscardInterrupted(vec![InterruptedId(1)])]
    );
    app.layers
        .push(Dialog::InterruptedJobs(InterruptedJobsDialog).into());
    assert!(press(&mut app, KeyCode::Esc).is_empty());
    assert!(app.layers.is_empty());
}
