//! The Jobs page, quitting while jobs run, and interrupted jobs.

use super::*;
use crate::dialog::InterruptedJobsDialog;
use crate::fixture::{interrupted_job, queued_job};
use snapdeck_engine::InterruptedId;

/// Returns a console with one running, two queued, one failed and one interrupted job.
fn busy() -> App {
    let mut app = app(populated());
    update(&mut app, |view| {
        view.jobs.push(Arc::new(queued_job(3, "far-away")));
        view.jobs.push(Arc::new(queued_job(4, "myapp-v1.0")));
        view.interrupted_jobs = Arc::new([interrupted_job(1, "winserver-base")]);
    });
    app
}

/// Returns [`busy`] with the Jobs page open and this row selected.
fn at(row: usize) -> App {
    let mut app = busy();
    keys(&mut app, "Jgg");
    keys(&mut app, &"j".repeat(row));
    app
}

#[test]
fn the_page_shows_all_sections() {
    let mut app = at(1);
    shot("jobs_page", &mut app, Instant::now());
    // The details show the log of the selected job.
    assert!(screen(&mut app, 120, 40).contains("converting /var/lib"));
    keys(&mut app, "J");
    assert_eq!(app.list(), Pane::Sandboxes);
    assert!(screen(&mut app, 120, 40).contains("· on alpha"));
}

#[test]
fn keys_act_on_the_selected_job() {
    let interrupted = vec![InterruptedId(1)];
    assert_eq!(
        keys(&mut at(0), "t"),
        [Command::ResumeInterrupted(interrupted.clone())]
    );
    let discard = Command::DiscardInterrupted(interrupted);
    assert_eq!(keys(&mut at(0), "X"), [discard]);
    assert!(keys(&mut at(0), "x+-").is_empty());
    assert_eq!(keys(&mut at(1), "x"), [Command::Cancel(JobId(1))]);
    assert!(keys(&mut at(1), "t+-X").is_empty());
    assert_eq!(keys(&mut at(3), "+"), [Command::Shift(JobId(4), -1)]);
    assert_eq!(keys(&mut at(2), "-"), [Command::Shift(JobId(3), 1)]);
    assert_eq!(keys(&mut at(2), "x"), [Command::Cancel(JobId(3))]);
    let failed = busy().view().jobs[1].operation.clone();
    assert_eq!(keys(&mut at(4), "t"), [Command::Retry(JobId(2), failed)]);
    assert_eq!(keys(&mut at(4), "X"), [Command::Dismiss(JobId(2))]);
    assert!(keys(&mut at(4), "x+").is_empty());
    let mut app = at(4);
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 120, 40).contains("qemu-img check found 3 errors"));
}

#[test]
fn each_key_acts_on_the_next_interrupted_job() {
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
    // Both keys before the next view of the engine.
    let commands = keys(&mut app, "tX");
    let ids = |id| vec![InterruptedId(id)];
    assert_eq!(
        commands,
        [
            Command::ResumeInterrupted(ids(1)),
            Command::DiscardInterrupted(ids(2))
        ]
    );
    // Rows reappear with the next view if the commands had no effect.
    assert!(!screen(&mut app, 120, 40).contains("two"));
    update(&mut app, |_| {});
    assert!(screen(&mut app, 120, 40).contains("two"));
}

#[test]
fn the_selection_stays_on_its_job() {
    let mut app = at(3);
    let current = |app: &App| match app.selected().unwrap() {
        Subject::Job(id) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(current(&app), JobId(4));
    update(&mut app, |view| view.jobs.swap(2, 3));
    assert_eq!(current(&app), JobId(4));
    let output = screen(&mut app, 120, 40);
    let first = output
        .lines()
        .find(|line| line.contains("queued 1"))
        .unwrap();
    assert!(first.contains("myapp-v1.0"), "{output}");
    update(&mut app, |view| {
        let mut job = (*view.jobs[2]).clone();
        job.state = view.jobs[1].state.clone();
        job.ended_at = Some(Instant::now());
        view.jobs[2] = Arc::new(job);
    });
    assert_eq!(current(&app), JobId(4));
}

#[test]
fn quitting_offers_to_leave_jobs_only_with_a_journal() {
    let mut app = busy();
    assert!(keys(&mut app, "q").is_empty());
    assert!(screen(&mut app, 120, 40).contains("cannot be resumed"));
    assert!(keys(&mut app, "l").is_empty());
    press(&mut app, KeyCode::Esc);
    let options = AppOptions {
        has_journal: true,
        ..AppOptions::default()
    };
    let mut app = app_with((**app.view()).clone(), options);
    keys(&mut app, "q");
    insta::assert_snapshot!("quit_leave", screen(&mut app, 120, 40));
    assert_eq!(keys(&mut app, "l"), [Command::Leave]);
}

#[test]
fn interrupted_jobs_are_offered_at_the_start() {
    let mut app = busy();
    app.open(Box::new(InterruptedJobsDialog));
    insta::assert_snapshot!("interrupted_jobs", screen(&mut app, 120, 40));
    assert_eq!(
        keys(&mut app, "t"),
        [Command::ResumeInterrupted(vec![InterruptedId(1)])]
    );
    app.open(Box::new(InterruptedJobsDialog));
    assert_eq!(
        keys(&mut app, "X"),
        [Command::DiscardInterrupted(vec![InterruptedId(1)])]
    );
    app.open(Box::new(InterruptedJobsDialog));
    assert!(press(&mut app, KeyCode::Esc).is_empty());
    assert!(app.layers().is_empty());
}

#[test]
fn a_job_that_waits_for_its_host_says_until_when() {
    let mut app = busy();
    let job = app.view().job(JobId(1)).unwrap().clone();
    let until = "2026-01-02T03:04:05Z".parse().unwrap();
    let text = "lost".to_owned();
    let started = snapdeck_model::WaitChange::Started { text, until };
    let target = snapdeck_model::WaitTarget::Host;
    job.progress_cell.set_wait(target, &started);
    let output = screen(&mut app, 120, 40);
    let expected = "waiting for host alpha until 03:04:05, 61 % done";
    let line = output.lines().find(|line| line.contains(expected));
    assert!(line.is_some_and(|line| !line.contains("/s")), "{output}");
    let text = "the host is reachable again".to_owned();
    let ended = snapdeck_model::WaitChange::Ended { text };
    job.progress_cell.set_wait(target, &ended);
    assert!(screen(&mut app, 120, 40).contains("uploading"));
}

/// Returns a console whose running push has sent 50 MiB/s for 4 s.
fn transferring() -> App {
    let mut app = app(populated());
    let cell = app.view().jobs[0].progress_cell.clone();
    let start = Instant::now();
    for second in 1..=4u32 {
        cell.set_done(u64::from(303 + 50 * second) << 20);
        app.sample_rates(start + Duration::from_secs(1) * second);
    }
    keys(&mut app, "J");
    app
}

#[test]
fn the_chart_of_transfers_stays_when_they_end() {
    let mut app = transferring();
    let output = screen(&mut app, 120, 40);
    for text in [
        "Transfers  ↑ up 50 MiB/s, at most 50 MiB/s",
        "64 MiB/s│",
        "└ 15 s ago ─",
        " now ",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
    update(&mut app, |view| {
        let mut job = (*view.jobs[0]).clone();
        job.state = view.jobs[1].state.clone();
        view.jobs[0] = Arc::new(job);
    });
    let output = screen(&mut app, 120, 40);
    for text in [
        "Transfers  ↑ up, at most 50 MiB/s",
        "64 MiB/s│",
        " the last one ended ",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
}

#[test]
fn a_chart_is_drawn_in_ascii_and_left_out_without_graphs() {
    let mut app = transferring();
    let appearance = app.appearance().clone();
    let has_braille = |output: &str| output.contains(|c| ('⠁'..='⣿').contains(&c));
    assert!(has_braille(&screen(&mut app, 120, 40)));
    app.set_appearance(crate::theme::Appearance {
        ascii: true,
        ..appearance.clone()
    });
    let output = screen(&mut app, 120, 40);
    assert!(
        output.is_ascii() && output.contains("64 MiB/s|"),
        "{output}"
    );
    assert!(output.contains("||||"), "the curve is filled: {output}");
    app.set_appearance(crate::theme::Appearance {
        plain: true,
        ..appearance
    });
    let output = screen(&mut app, 120, 40);
    assert!(!output.contains("64 MiB/s"), "{output}");
    assert!(
        output.contains("50 MiB/s"),
        "the job has its rate: {output}"
    );
}

#[test]
fn details_list_the_last_jobs_about_the_selection() {
    let mut app = app(populated());
    keys(&mut app, "G");
    let output = screen(&mut app, 120, 40);
    assert!(
        output.contains("jobs     ● push sandbox-004 → myapp-v1.1"),
        "{output}"
    );
    let ended_at = jiff::Timestamp::now() - jiff::Span::new().hours(30);
    app.on_history(Arc::new([snapdeck_engine::HistoryEntry {
        title: "push sandbox-003 → myapp-v1.0".to_owned(),
        operation: "push".to_owned(),
        host: Some("alpha".to_owned()),
        started_at: None,
        ended_at,
        result: snapdeck_engine::JobResult::Finished,
        summary: "10 GiB".to_owned(),
        moved_bytes: None,
    }]));
    keys(&mut app, "ggjj");
    let output = screen(&mut app, 120, 40);
    let line = "jobs     ✓ push sandbox-003 → myapp-v1.0  30h ago: 10 GiB";
    assert!(output.contains(line), "{output}");
    keys(&mut app, "k");
    assert!(!screen(&mut app, 120, 40).contains("jobs     "));
}
