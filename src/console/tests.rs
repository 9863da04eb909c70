//! The console without an engine: keys go in, commands and screens come out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::actions::Pane;
use super::app::{App, Command};
use super::dialog::Layer;
use super::draw::{draw, pane_rows};
use super::fixture::{away, empty, object, populated, sandbox, snapshot};
use crate::engine::{BucketView, HostView, JobId, Link, View};
use crate::model::{Error, Kind, Operation, SandboxState};

fn app(view: View) -> App {
    App::new(Arc::new(view), None, Instant::now())
}

fn show(app: &mut App, width: u16, height: u16, now: Instant) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut areas = None;
    terminal
        .draw(|frame| areas = Some(draw(app, frame, now)))
        .unwrap();
    app.settle(areas.unwrap());
    terminal.backend().clone()
}

fn screen_at(app: &mut App, width: u16, height: u16, now: Instant) -> String {
    show(app, width, height, now).to_string()
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    screen_at(app, width, height, Instant::now())
}

fn press(app: &mut App, code: KeyCode) -> Vec<Command> {
    app.event(Event::Key(KeyEvent::from(code)))
}

/// Types characters, one key each; gives back all commands.
fn keys(app: &mut App, text: &str) -> Vec<Command> {
    text.chars()
        .flat_map(|c| press(app, KeyCode::Char(c)))
        .collect()
}

fn update(app: &mut App, change: impl FnOnce(&mut View)) {
    let mut view = (*app.view).clone();
    change(&mut view);
    app.take_view(Arc::new(view), Instant::now());
}

fn set_alpha(view: &mut View, change: impl FnOnce(&mut HostView)) {
    let mut host = (*view.hosts[0]).clone();
    change(&mut host);
    view.hosts[0] = Arc::new(host);
}

fn set_bucket(view: &mut View, change: impl FnOnce(&mut BucketView)) {
    let mut bucket = (*view.bucket).clone();
    change(&mut bucket);
    view.bucket = Arc::new(bucket);
}

fn selected(app: &App) -> String {
    let lists = app.host_lists().unwrap();
    let host = app.host_view().unwrap();
    match app.list {
        Pane::Sandboxes => lists
            .sandboxes
            .current(&host.sandboxes)
            .unwrap()
            .id
            .to_string(),
        Pane::Snapshots => lists
            .snapshots
            .current(&host.snapshots)
            .unwrap()
            .name
            .to_string(),
        _ => app
            .objects
            .current(&app.view.bucket.objects)
            .unwrap()
            .name
            .to_string(),
    }
}

fn shot(name: &str, app: &mut App, now: Instant) {
    insta::assert_snapshot!(format!("{name}_120x40"), screen_at(app, 120, 40, now));
    insta::assert_snapshot!(format!("{name}_80x24"), screen_at(app, 80, 24, now));
}

#[test]
fn the_first_frame_says_what_is_awaited() {
    let mut app = app(empty());
    app.banner = Some("demo".to_owned());
    shot("start", &mut app, Instant::now());
    insta::assert_snapshot!("too_small", screen(&mut app, 39, 9));
}

#[test]
fn a_view_with_a_running_job() {
    let mut app = app(populated());
    let start = Instant::now();
    let cell = app.view.jobs[0].cell.clone();
    let view = app.view.clone();
    for second in 1..=4u32 {
        cell.set_done(u64::from(303 + 50 * second) << 20);
        app.meters
            .sample(&view, start + Duration::from_secs(1) * second);
    }
    shot("populated", &mut app, start + Duration::from_secs(4));
    keys(&mut app, "J");
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("job_failed", screen(&mut app, 120, 40));
}

#[test]
fn details_follow_the_focused_list() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::End);
    let shown = screen(&mut app, 120, 40);
    assert!(
        shown.contains("used by  config-vm, sandbox-002, sandbox-003, sandbox-004"),
        "{shown}"
    );
    press(&mut app, KeyCode::Tab);
    let shown = screen(&mut app, 120, 40);
    assert!(
        shown.contains("hosts    alpha ↓ absent   beta ?"),
        "{shown}"
    );
}

#[test]
fn create_tells_what_is_wrong_with_a_name_as_it_is_typed() {
    let mut app = app(populated());
    keys(&mut app, "c");
    keys(&mut app, "my app;v1");
    shot("create_bad_name", &mut app, Instant::now());
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert_eq!(app.layers.len(), 1);
}

#[test]
fn create_safe_by_default_and_live_when_ticked() {
    let mut app = app(populated());
    keys(&mut app, "cnew-one");
    press(&mut app, KeyCode::Tab);
    keys(&mut app, " ");
    assert!(screen(&mut app, 120, 40).contains("Live: the disk is read while the guest writes"));
    let create = |live| {
        Command::Submit(Operation::Create {
            host: "alpha".parse().unwrap(),
            sandbox: "config-vm".parse().unwrap(),
            name: "new-one".parse().unwrap(),
            live,
            overwrite: false,
        })
    };
    assert_eq!(press(&mut app, KeyCode::Enter), [create(true)]);
    assert!(app.layers.is_empty());
    keys(&mut app, "cnew-one.qcow2");
    assert_eq!(press(&mut app, KeyCode::Enter), [create(false)]);
}

#[test]
fn a_taken_name_needs_overwrite() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Down);
    keys(&mut app, "pmyapp-v1.0");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert!(screen(&mut app, 80, 24).contains("myapp-v1.0 is in the bucket already"));
    press(&mut app, KeyCode::Tab);
    keys(&mut app, " ");
    let commands = press(&mut app, KeyCode::Enter);
    let [
        Command::Submit(Operation::Push {
            overwrite: true,
            sandbox,
            ..
        }),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!(sandbox.as_str(), "sandbox-002");
}

#[test]
fn push_of_a_running_sandbox_says_why_not_and_follows_its_state() {
    let mut app = app(populated());
    keys(&mut app, "pnew");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert!(screen(&mut app, 80, 24).contains("config-vm is running: push needs"));
    update(&mut app, |view| {
        set_alpha(view, |host| {
            host.sandboxes = Arc::new([sandbox("config-vm", SandboxState::Saved)]);
        });
    });
    assert!(screen(&mut app, 80, 24).contains("memory was saved and is not in the disk"));
    assert_eq!(press(&mut app, KeyCode::Enter).len(), 1);
}

#[test]
fn letters_in_a_field_never_act() {
    let mut app = app(populated());
    let all = "cpldrxXqJL?/[]123 hjklgGyn";
    keys(&mut app, "c");
    assert!(keys(&mut app, all).is_empty());
    assert_eq!(app.layers.len(), 1);
    let shown = screen(&mut app, 120, 40);
    assert!(shown.contains(all), "{shown}");
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/");
    assert!(keys(&mut app, all).is_empty());
    assert!(app.layers.is_empty());
    assert!(screen(&mut app, 120, 40).contains(&format!("/{all}")));
    press(&mut app, KeyCode::Esc);
    app.event(Event::Paste("qqq".to_owned()));
    keys(&mut app, "c");
    app.event(Event::Paste("pasted\n".to_owned()));
    assert!(screen(&mut app, 120, 40).contains("goes to s3://daytona/snapshots/pasted.qcow2"));
}

#[test]
fn pull_acts_on_all_that_is_marked_and_drops_the_marks() {
    let mut app = app(populated());
    press(&mut app, KeyCode::BackTab);
    app.focus_on(Pane::Bucket);
    keys(&mut app, "  ");
    keys(&mut app, "l");
    insta::assert_snapshot!("pull", screen(&mut app, 80, 24));
    let pull = |name: &str| {
        Command::Submit(Operation::Pull {
            host: "alpha".parse().unwrap(),
            name: name.parse().unwrap(),
            overwrite: false,
        })
    };
    assert_eq!(keys(&mut app, "y"), [pull("far-away"), pull("myapp-v1.0")]);
    assert_eq!(app.objects.marked(), 0);
}

#[test]
fn create_takes_one_sandbox_and_says_so() {
    let mut app = app(populated());
    keys(&mut app, "  c");
    assert!(app.layers.is_empty());
    assert!(screen(&mut app, 80, 24).contains("2 sandboxes are marked"));
}

#[test]
fn remove_is_refused_while_sandboxes_need_the_file() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "Gd");
    shot("remove_refused", &mut app, Instant::now());
    assert!(keys(&mut app, "y").is_empty());
    // In the bucket alone nothing depends on it.
    keys(&mut app, " ");
    press(&mut app, KeyCode::Down);
    keys(&mut app, " ");
    let commands = keys(&mut app, "y");
    let [
        Command::Submit(Operation::Remove {
            host: None,
            bucket: true,
            ..
        }),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
}

#[test]
fn remove_of_one_of_two_copies_takes_a_y_and_of_both_the_name() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Down);
    keys(&mut app, "d");
    let commands = keys(&mut app, "y");
    let [
        Command::Submit(Operation::Remove {
            host: Some(_),
            bucket: false,
            ..
        }),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    keys(&mut app, "d");
    press(&mut app, KeyCode::Down);
    keys(&mut app, " ");
    assert!(keys(&mut app, "y").is_empty());
    insta::assert_snapshot!("remove_last_copy", screen(&mut app, 80, 24));
    keys(&mut app, "myapp-v1");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    keys(&mut app, ".0");
    let commands = press(&mut app, KeyCode::Enter);
    let [
        Command::Submit(Operation::Remove {
            host: Some(_),
            bucket: true,
            name,
        }),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!(name.as_str(), "myapp-v1.0");
}

#[test]
fn the_only_copy_on_a_host_takes_its_name() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "d");
    assert!(keys(&mut app, "y").is_empty());
    keys(&mut app, "local-only");
    assert_eq!(press(&mut app, KeyCode::Enter).len(), 1);
}

#[test]
fn help_names_every_key() {
    let mut app = app(populated());
    keys(&mut app, "?");
    shot("help", &mut app, Instant::now());
    let content = app.layers[0].content(&app.view, &app.theme, 84);
    let text: String = content
        .lines
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    for entry in super::actions::ACTIONS {
        assert!(
            text.contains(entry.sentence.split_once(' ').unwrap().0),
            "{}",
            entry.name
        );
    }
    press(&mut app, KeyCode::Esc);
    assert!(app.layers.is_empty());
}

#[test]
fn a_host_that_went_away_keeps_its_rows_with_their_age() {
    let now = Instant::now() + Duration::from_secs(3600);
    let mut app = app(away(now, Duration::from_secs(200)));
    shot("host_away", &mut app, now);
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
    terminal.draw(|frame| drop(draw(&app, frame, now))).unwrap();
    let cell = &terminal.backend().buffer()[(5, 3)];
    assert!(cell.modifier.contains(ratatui::style::Modifier::DIM));
}

#[test]
fn the_selection_outlives_a_refresh() {
    let mut app = app(populated());
    app.focus_on(Pane::Snapshots);
    press(&mut app, KeyCode::Down);
    assert_eq!(selected(&app), "myapp-v1.0");
    update(&mut app, |view| {
        set_alpha(view, |host| {
            let mut snapshots = host.snapshots.to_vec();
            snapshots.insert(0, snapshot("aaa", 1, &[]));
            host.snapshots = snapshots.into();
        });
    });
    assert_eq!(selected(&app), "myapp-v1.0");
    update(&mut app, |view| {
        set_alpha(view, |host| {
            let left = host
                .snapshots
                .iter()
                .filter(|s| s.name.as_str() != "myapp-v1.0");
            host.snapshots = left.cloned().collect();
        });
    });
    assert_eq!(selected(&app), "winserver-base");
}

#[test]
fn each_host_has_its_own_lists() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Down);
    keys(&mut app, "]");
    assert!(screen(&mut app, 120, 40).contains("Sandboxes · beta (0)"));
    assert!(keys(&mut app, "c").is_empty() && app.layers.is_empty());
    keys(&mut app, "1");
    assert_eq!(selected(&app), "sandbox-002");
}

#[test]
fn without_a_bucket_it_says_what_to_configure() {
    let mut app = app(populated());
    update(&mut app, |view| {
        view.bucket = Arc::new(BucketView {
            link: Link::Off,
            ..Default::default()
        })
    });
    assert!(screen(&mut app, 120, 40).contains("no bucket is configured"));
    keys(&mut app, "c");
    assert!(app.layers.is_empty());
    assert!(app.notice.as_ref().unwrap().text.contains("config.toml"));
}

#[test]
fn jobs_are_cancelled_and_dismissed_one_by_one_or_together() {
    let mut app = app(populated());
    assert_eq!(keys(&mut app, "X"), [Command::Dismiss(JobId(2))]);
    keys(&mut app, "J");
    assert_eq!(keys(&mut app, "x"), [Command::Cancel(JobId(1))]);
    assert!(keys(&mut app, "X").is_empty());
    press(&mut app, KeyCode::Down);
    assert_eq!(keys(&mut app, "X"), [Command::Dismiss(JobId(2))]);
    assert!(keys(&mut app, "x").is_empty());
}

#[test]
fn leaving_names_the_jobs_that_are_not_over() {
    let mut app = app(populated());
    assert!(keys(&mut app, "q").is_empty());
    insta::assert_snapshot!("quit", screen(&mut app, 80, 24));
    assert!(keys(&mut app, "s").is_empty() && app.layers.is_empty());
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(app.key(interrupt).is_empty() && app.key(interrupt).is_empty());
    assert_eq!(app.layers.len(), 1);
    assert_eq!(keys(&mut app, "c"), [Command::Quit]);
    update(&mut app, |view| view.jobs.clear());
    assert_eq!(keys(&mut app, "q"), [Command::Quit]);
}

#[test]
fn a_click_selects_and_the_wheel_moves() {
    let mut app = app(populated());
    screen(&mut app, 120, 40);
    let mut mouse = |kind, column, row| {
        app.event(Event::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        }));
        (app.focus, selected(&app))
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    assert_eq!(
        mouse(click, 50, 3),
        (Pane::Snapshots, "myapp-v1.0".to_owned())
    );
    assert_eq!(mouse(MouseEventKind::ScrollUp, 50, 3).1, "local-only");
    assert_eq!(mouse(click, 90, 20).0, Pane::Bucket);
}

#[test]
fn every_size_can_be_drawn() {
    let mut views = vec![
        empty(),
        populated(),
        away(Instant::now(), Duration::ZERO),
        View::default(),
    ];
    let long = "x".repeat(128);
    let mut wide = populated();
    set_alpha(&mut wide, |host| {
        host.sandboxes = Arc::new([sandbox(&long, SandboxState::Crashed)]);
        host.snapshots = Arc::new([snapshot(&long, u64::MAX, &[&long, &long])]);
        host.link = Link::Down(Error::new(Kind::Failed, "日本語の長い文".repeat(20)));
    });
    set_bucket(&mut wide, |bucket| {
        bucket.objects = Arc::new([object(&long, u64::MAX)])
    });
    views.push(wide);
    let openers = ["", "c", "p", "d", "?", "q", "J\r", "LL", "/x"];
    for view in views {
        for opener in openers {
            let mut app = app(view.clone());
            if opener == "d" {
                app.focus_on(Pane::Snapshots);
            }
            for c in opener.chars() {
                let code = if c == '\r' {
                    KeyCode::Enter
                } else {
                    KeyCode::Char(c)
                };
                press(&mut app, code);
            }
            for width in [0, 1, 9, 39, 40, 41, 60, 80, 99, 100, 133, 200] {
                for height in [0, 1, 2, 9, 10, 11, 12, 15, 19, 20, 24, 30, 60] {
                    show(&mut app, width, height, Instant::now());
                    press(&mut app, KeyCode::PageDown);
                }
            }
        }
    }
}

#[test]
fn of_a_hundred_thousand_objects_only_those_on_screen_are_built() {
    let mut view = populated();
    let objects = (0..100_000).map(|i| object(&format!("o{i:06}"), i));
    set_bucket(&mut view, |bucket| bucket.objects = objects.collect());
    let mut app = app(view);
    app.focus_on(Pane::Bucket);
    press(&mut app, KeyCode::End);
    let (first, rows) = pane_rows(&app, Pane::Bucket, 40, 30);
    assert_eq!((first, rows.len()), (99_970, 30));
    keys(&mut app, "/99999");
    assert_eq!(pane_rows(&app, Pane::Bucket, 40, 30).1.len(), 1);
}

#[test]
fn a_dialog_longer_than_the_screen_can_be_read_to_its_end() {
    let mut app = app(populated());
    keys(&mut app, "?");
    let mut seen = screen(&mut app, 80, 12);
    for _ in 0..20 {
        press(&mut app, KeyCode::PageDown);
        seen.push_str(&screen(&mut app, 80, 12));
    }
    assert!(seen.contains("Leave; jobs that still run"), "{seen}");
    assert!(
        matches!(app.layers.last(), Some(Layer { scroll, .. }) if *scroll == app.areas.layer.1)
    );
}
