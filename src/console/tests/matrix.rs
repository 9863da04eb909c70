//! The Locations page, and pulls to several hosts.

use super::*;
use crate::fixture::{fleet, many};
use snapdeck_engine::JobState;
use snapdeck_model::Outcome;

fn open(view: View) -> App {
    let mut app = app(view);
    app.focus_on(Pane::Bucket);
    keys(&mut app, "m");
    app
}

#[test]
fn cells_show_states_and_jobs() {
    let now = Instant::now();
    let mut app = open(fleet(now));
    press(&mut app, KeyCode::Right);
    press(&mut app, KeyCode::Right);
    press(&mut app, KeyCode::Right);
    shot("matrix", &mut app, now);
    let output = screen_at(&mut app, 120, 40, now);
    for (row, words) in [
        ("far-away", "66 %"),
        ("far-away", "✗ unreachable"),
        ("local-only", "● present"),
        ("myapp-v1.0", "! damaged"),
        ("winserver-base", "● present ⌂4"),
        ("winserver-base", "≠ differs ⌂1"),
    ] {
        let line = output.lines().find(|line| line.contains(row)).unwrap();
        assert!(line.contains(words), "{row} {words}: {output}");
    }
    // The error of the current cell, with its hint.
    assert!(
        output.contains("check the network and sshd on gamma"),
        "{output}"
    );
    let line = output.lines().find(|line| line.contains("winserver-base"));
    assert!(
        line.unwrap().contains("? present ⌂1"),
        "the last known state: {output}"
    );
    press(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("snapshot_locations", screen_at(&mut app, 120, 40, now));
}

#[test]
fn a_cell_shows_its_error_until_the_snapshot_is_present() {
    let now = Instant::now();
    let mut app = open(fleet(now));
    update(&mut app, |view| {
        let gamma = Arc::make_mut(&mut view.hosts[2]);
        let mut snapshots = vec![snapshot("far-away", 3 << 30, &[])];
        snapshots.extend(gamma.snapshots.iter().cloned());
        gamma.snapshots = snapshots.into();
        gamma.link = Link::Up;
    });
    let output = screen_at(&mut app, 120, 40, now);
    assert!(!output.contains("✗ unreachable"), "{output}");
}

#[test]
fn marked_cells_are_pulled_to_their_hosts() {
    let mut app = open(fleet(Instant::now()));
    press(&mut app, KeyCode::Right);
    keys(&mut app, " ");
    press(&mut app, KeyCode::Right);
    keys(&mut app, "j");
    let (name, place) = app.pages().locations.current().unwrap();
    assert_eq!((name.as_str(), place.name()), ("myapp-v1.0", "beta"));
    keys(&mut app, " f");
    let output = screen(&mut app, 120, 40);
    insta::assert_snapshot!("matrix_pull", output);
    let both = [("far-away", "alpha"), ("myapp-v1.0", "beta")];
    assert_eq!(keys(&mut app, "y"), [pulls(&both)]);
    assert_eq!(app.summary(Pane::Matrix).marked, 0);
}

#[test]
fn a_row_marked_in_the_bucket_column_is_pulled_to_all_hosts() {
    let mut app = open(fleet(Instant::now()));
    keys(&mut app, " f");
    let all = [
        ("far-away", "alpha"),
        ("far-away", "beta"),
        ("far-away", "gamma"),
    ];
    assert_eq!(keys(&mut app, "y"), [pulls(&all)]);
    keys(&mut app, "gg  ");
    assert_eq!(app.summary(Pane::Matrix).marked, 6);
    press(&mut app, KeyCode::Esc);
    assert_eq!(
        (app.summary(Pane::Matrix).marked, app.list()),
        (0, Pane::Matrix)
    );
    press(&mut app, KeyCode::Esc);
    assert_eq!((app.focus(), app.list()), (Pane::Bucket, Pane::Bucket));
}

#[test]
fn hosts_are_selected_in_the_pull_dialog() {
    let mut app = app(fleet(Instant::now()));
    app.focus_on(Pane::Bucket);
    keys(&mut app, "f");
    let output = screen(&mut app, 80, 24);
    assert!(
        output.contains("[x] alpha") && output.contains("[ ] beta"),
        "{output}"
    );
    keys(&mut app, "a");
    let output = screen(&mut app, 80, 24);
    assert!(
        output.contains("3 GiB, from s3://daytona/snapshots/, once"),
        "{output}"
    );
    assert!(
        output.contains("[ ] gamma"),
        "an unreachable host is not selected: {output}"
    );
    assert_eq!(
        keys(&mut app, "y"),
        [pulls(&[("far-away", "alpha"), ("far-away", "beta")])]
    );
    keys(&mut app, "f ");
    let output = screen(&mut app, 80, 24);
    assert!(output.contains("no host is selected"), "{output}");
    assert!(keys(&mut app, "y").is_empty());
    // A pull to an unreachable host alone is refused with its error.
    keys(&mut app, "jj ");
    assert!(keys(&mut app, "y").is_empty());
    assert!(screen(&mut app, 80, 24).contains("cannot reach host gamma"));
    keys(&mut app, "m");
    assert!(app.layers().is_empty());
    assert_eq!(app.focus(), Pane::Matrix);
}

#[test]
fn remove_applies_to_the_current_cell() {
    let mut app = open(fleet(Instant::now()));
    keys(&mut app, "/myapp");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "2d");
    give_copies(&mut app);
    let commands = keys(&mut app, "y");
    let [
        Command::Submit(Operation::Remove {
            host: Some(host),
            name,
            from_bucket: false,
            ..
        }),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!((host.as_str(), name.as_str()), ("beta", "myapp-v1.0"));
    press(&mut app, KeyCode::Left);
    press(&mut app, KeyCode::Left);
    keys(&mut app, "d");
    give_copies(&mut app);
    let commands = keys(&mut app, "y");
    let [
        Command::Submit(Operation::Remove {
            host: None,
            from_bucket: true,
            ..
        }),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
}

#[test]
fn cancel_applies_to_the_job_of_the_current_cell() {
    let mut app = open(fleet(Instant::now()));
    keys(&mut app, "2");
    assert_eq!(keys(&mut app, "x"), [Command::Cancel(JobId(1))]);
    keys(&mut app, "1x");
    assert!(app.notice().unwrap().text.contains("no job"));
}

#[test]
fn a_snapshot_being_pushed_has_a_row() {
    let mut app = open(populated());
    assert!(screen(&mut app, 120, 40).contains("myapp-v1.1"));
    let line = screen(&mut app, 120, 40);
    let line = line
        .lines()
        .find(|line| line.contains(" myapp-v1.1"))
        .unwrap();
    assert!(line.contains("61 %"), "{line}");
    update(&mut app, |view| view.jobs.clear());
    assert!(!screen(&mut app, 120, 40).contains("myapp-v1.1"));
}

#[test]
fn many_hosts_and_snapshots_scroll_both_ways() {
    let mut app = open(many(20, 10_000));
    assert_eq!(app.summary(Pane::Matrix).total, 10_003);
    press(&mut app, KeyCode::End);
    for _ in 0..30 {
        press(&mut app, KeyCode::Right);
    }
    assert_eq!(app.pages().locations.current().unwrap().1.name(), "host-19");
    insta::assert_snapshot!("matrix_many", screen(&mut app, 120, 16));
    // The columns do not scroll as long as the current one is visible.
    let first = app.areas().columns.1;
    press(&mut app, KeyCode::Left);
    screen(&mut app, 120, 16);
    assert_eq!(app.areas().columns.1, first);
    keys(&mut app, "/00042");
    let output = screen(&mut app, 120, 16);
    assert!(output.contains("1 of 10,003"), "{output}");
}

#[test]
fn a_click_selects_a_cell() {
    let mut app = open(fleet(Instant::now()));
    let output = screen(&mut app, 120, 40);
    let (x, y) = position_of(&output, "! damaged");
    click(&mut app, x, y);
    let (name, place) = app.pages().locations.current().unwrap();
    assert_eq!((name.as_str(), place.name()), ("myapp-v1.0", "beta"));
}

#[test]
fn a_pull_to_an_unreachable_host_is_shown_as_pulled() {
    let now = Instant::now();
    let mut app = open(fleet(now));
    update(&mut app, |view| {
        let job = Arc::make_mut(&mut view.jobs[1]);
        job.ended_at = Some(Instant::now());
        job.state = JobState::Finished(Outcome::Pulled {
            snapshot_name: "far-away".parse().unwrap(),
            snapshot_path: "/far-away.qcow2".to_owned(),
            size_bytes: 3 << 30,
            host: "gamma".parse().unwrap(),
            skipped: false,
            differs: false,
            repaired: false,
            fetched_bytes: 0,
            copied_bytes: 0,
            resumed_bytes: 0,
        });
    });
    let output = screen_at(&mut app, 120, 40, now);
    let line = output.lines().find(|line| line.contains("│ far-away"));
    assert!(line.unwrap().contains("✓ pulled"), "{output}");
}

#[test]
fn a_long_pull_dialog_follows_the_selected_host() {
    let mut app = app(many(20, 3));
    app.focus_on(Pane::Bucket);
    keys(&mut app, "f");
    assert!(screen(&mut app, 80, 24).contains("Downloads 1 snapshot"));
    keys(&mut app, &"j".repeat(19));
    let output = screen(&mut app, 80, 24);
    assert!(output.contains("[ ] host-19"), "{output}");
    press(&mut app, KeyCode::PageUp);
    press(&mut app, KeyCode::PageUp);
    assert!(screen(&mut app, 80, 24).contains("Downloads 1 snapshot"));
}

#[test]
fn names_are_not_cut_while_there_is_room() {
    let mut app = app(populated());
    let name = "winserver-2022-datacenter-base-v2026-11-28";
    update(&mut app, |view| {
        set_bucket(view, |bucket| {
            bucket.objects = [object(name, 9)].into();
        });
    });
    keys(&mut app, "m");
    assert!(screen(&mut app, 120, 40).contains(name));
    assert!(!screen(&mut app, 80, 24).contains(name));
}
