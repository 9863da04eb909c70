//! The matrix of snapshots and hosts, and pulls to several of them.

use super::*;
use crate::cell::Place;
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
fn a_cell_says_what_is_there_and_what_goes_on() {
    let now = Instant::now();
    let mut app = open(fleet(now));
    press(&mut app, KeyCode::Right);
    press(&mut app, KeyCode::Right);
    press(&mut app, KeyCode::Right);
    shot("matrix", &mut app, now);
    let shown = screen_at(&mut app, 120, 40, now);
    for (row, words) in [
        ("far-away", "66 %"),
        ("far-away", "✗ unreachable"),
        ("local-only", "● present"),
        ("myapp-v1.0", "! damaged"),
        ("winserver-base", "● present ⌂4"),
        ("winserver-base", "≠ differs ⌂1"),
    ] {
        let line = shown.lines().find(|line| line.contains(row)).unwrap();
        assert!(line.contains(words), "{row} {words}: {shown}");
    }
    // The current cell's own error, with what to do.
    assert!(
        shown.contains("check the network and sshd on gamma"),
        "{shown}"
    );
    let line = shown.lines().find(|line| line.contains("winserver-base"));
    assert!(
        line.unwrap().contains("? present ⌂1"),
        "what was seen last: {shown}"
    );
    press(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("matrix_whereabouts", screen_at(&mut app, 120, 40, now));
}

#[test]
fn an_error_stands_in_its_cell_until_it_is_put_right() {
    let now = Instant::now();
    let mut app = open(fleet(now));
    update(&mut app, |view| {
        let gamma = Arc::make_mut(&mut view.hosts[2]);
        let mut snapshots = vec![snapshot("far-away", 3 << 30, &[])];
        snapshots.extend(gamma.snapshots.iter().cloned());
        gamma.snapshots = snapshots.into();
        gamma.link = Link::Up;
    });
    let shown = screen_at(&mut app, 120, 40, now);
    assert!(!shown.contains("✗ unreachable"), "{shown}");
}

#[test]
fn marked_cells_are_pulled_together_each_to_its_host() {
    let mut app = open(fleet(Instant::now()));
    press(&mut app, KeyCode::Right);
    keys(&mut app, " ");
    press(&mut app, KeyCode::Right);
    keys(&mut app, "j");
    let (name, place) = app.matrix.current().unwrap();
    assert_eq!((name.as_str(), place.name()), ("myapp-v1.0", "beta"));
    keys(&mut app, " l");
    let shown = screen(&mut app, 120, 40);
    insta::assert_snapshot!("matrix_pull", shown);
    let both = [("far-away", "alpha"), ("myapp-v1.0", "beta")];
    assert_eq!(keys(&mut app, "y"), [pulls(&both)]);
    assert_eq!(app.matrix.marked_count(), 0);
}

#[test]
fn a_row_is_marked_at_the_bucket_and_goes_to_every_host() {
    let mut app = open(fleet(Instant::now()));
    keys(&mut app, " l");
    let all = [
        ("far-away", "alpha"),
        ("far-away", "beta"),
        ("far-away", "gamma"),
    ];
    assert_eq!(keys(&mut app, "y"), [pulls(&all)]);
    keys(&mut app, "gg  ");
    assert_eq!(app.matrix.marked_count(), 6);
    press(&mut app, KeyCode::Esc);
    assert_eq!((app.matrix.marked_count(), app.list), (0, Pane::Matrix));
    press(&mut app, KeyCode::Esc);
    assert_eq!((app.focus, app.list), (Pane::Bucket, Pane::Bucket));
}

#[test]
fn hosts_are_ticked_in_the_pull_dialog() {
    let mut app = app(fleet(Instant::now()));
    app.focus_on(Pane::Bucket);
    keys(&mut app, "l");
    let shown = screen(&mut app, 80, 24);
    assert!(
        shown.contains("[x] alpha") && shown.contains("[ ] beta"),
        "{shown}"
    );
    keys(&mut app, "a");
    let shown = screen(&mut app, 80, 24);
    assert!(
        shown.contains("3 GiB, from s3://daytona/snapshots/, once"),
        "{shown}"
    );
    assert!(
        shown.contains("[ ] gamma"),
        "the one that is away is left out: {shown}"
    );
    assert_eq!(
        keys(&mut app, "y"),
        [pulls(&[("far-away", "alpha"), ("far-away", "beta")])]
    );
    keys(&mut app, "l ");
    let shown = screen(&mut app, 80, 24);
    assert!(shown.contains("no host is selected"), "{shown}");
    assert!(keys(&mut app, "y").is_empty());
    // One that is away alone is refused with its error.
    keys(&mut app, "jj ");
    assert!(keys(&mut app, "y").is_empty());
    assert!(screen(&mut app, 80, 24).contains("cannot reach host gamma"));
    keys(&mut app, "m");
    assert!(app.layers.is_empty());
    assert_eq!(app.focus, Pane::Matrix);
}

#[test]
fn the_current_cell_is_removed_on_its_host() {
    let mut app = open(fleet(Instant::now()));
    keys(&mut app, "/myapp");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "2d");
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
fn the_job_of_a_cell_is_cancelled_there() {
    let mut app = open(fleet(Instant::now()));
    keys(&mut app, "2");
    assert_eq!(keys(&mut app, "x"), [Command::Cancel(JobId(1))]);
    keys(&mut app, "1x");
    assert!(app.notice.as_ref().unwrap().text.contains("no job"));
}

#[test]
fn a_snapshot_that_is_on_its_way_has_a_row() {
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
fn twenty_hosts_and_ten_thousand_names_scroll_both_ways() {
    let mut app = open(many(20, 10_000));
    assert_eq!(app.matrix.names.len(), 10_003);
    press(&mut app, KeyCode::End);
    for _ in 0..30 {
        press(&mut app, KeyCode::Right);
    }
    assert_eq!(app.matrix.place, Place::Host("host-19".parse().unwrap()));
    insta::assert_snapshot!("matrix_many", screen(&mut app, 120, 16));
    // A step back moves no column as long as the cell is in sight.
    let first = app.matrix.first_column;
    press(&mut app, KeyCode::Left);
    screen(&mut app, 120, 16);
    assert_eq!(app.matrix.first_column, first);
    keys(&mut app, "/00042");
    let shown = screen(&mut app, 120, 16);
    assert!(shown.contains("(1 of 10003)"), "{shown}");
}

#[test]
fn a_click_goes_to_a_cell() {
    let mut app = open(fleet(Instant::now()));
    let shown = screen(&mut app, 120, 40);
    let (x, y) = position_of(&shown, "! damaged");
    click(&mut app, x, y);
    let (name, place) = app.matrix.current().unwrap();
    assert_eq!((name.as_str(), place.name()), ("myapp-v1.0", "beta"));
}

#[test]
fn what_came_to_a_host_after_it_went_away_is_told() {
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
            repaired: false,
            fetched_bytes: 0,
            copied_bytes: 0,
            resumed_bytes: 0,
        });
    });
    let shown = screen_at(&mut app, 120, 40, now);
    let line = shown.lines().find(|line| line.contains("│ far-away"));
    assert!(line.unwrap().contains("✓ pulled"), "{shown}");
}

#[test]
fn a_long_pull_dialog_follows_the_host_and_can_be_read_from_its_start() {
    let mut app = app(many(20, 3));
    app.focus_on(Pane::Bucket);
    keys(&mut app, "l");
    assert!(screen(&mut app, 80, 24).contains("Downloads 1 snapshot"));
    keys(&mut app, &"j".repeat(19));
    let shown = screen(&mut app, 80, 24);
    assert!(shown.contains("[ ] host-19"), "{shown}");
    press(&mut app, KeyCode::PageUp);
    press(&mut app, KeyCode::PageUp);
    assert!(screen(&mut app, 80, 24).contains("Downloads 1 snapshot"));
}
