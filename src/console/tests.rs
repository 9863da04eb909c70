//! Tests of the console without an engine: from keys to screens and commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dialogs;
mod families;
mod finding;
mod habits;
mod hosts;
mod jobs;
mod keys;
mod lineage;
mod matrix;
mod prune;
mod sandboxes;
mod setup;
mod sizes;
mod tree;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::actions::Pane;
use super::app::{App, AppOptions};
use super::command::Command;
use super::dialog::{DialogAnswer, DialogQuery, Layer};
use super::draw::draw;
use super::fixture::{
    empty, object, populated, sandbox, snapshot, unreachable_host_view, with_health_checks,
};
use super::pages::Subject;
use snapdeck_engine::{BucketView, HostView, JobId, Link, View};
use snapdeck_model::{AnnotationsPatch, Error, Kind, Operation, SandboxState};

fn app(view: View) -> App {
    app_with(view, AppOptions::default())
}

fn app_with(view: View, options: AppOptions) -> App {
    App::new(Arc::new(view), options, Instant::now())
}

/// Returns the number of the first visible row of a list, and the visible rows.
fn pane_rows(
    app: &App,
    pane: Pane,
    width: u16,
    height: u16,
) -> (usize, Vec<ratatui::text::Line<'static>>) {
    let context = app.draw_context(Instant::now());
    super::pages::lists::visible_rows(&app.pages().lists, &context, pane, width, height)
}

fn show(app: &mut App, width: u16, height: u16, now: Instant) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut areas = None;
    terminal
        .draw(|frame| areas = Some(draw(app, frame, now)))
        .unwrap();
    app.after_draw(areas.unwrap());
    terminal.backend().clone()
}

fn screen_at(app: &mut App, width: u16, height: u16, now: Instant) -> String {
    show(app, width, height, now).to_string()
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    screen_at(app, width, height, Instant::now())
}

fn press(app: &mut App, code: KeyCode) -> Vec<Command> {
    app.on_event(Event::Key(KeyEvent::from(code)))
}

/// Types characters, one key each; returns all commands.
fn keys(app: &mut App, text: &str) -> Vec<Command> {
    text.chars()
        .flat_map(|c| press(app, KeyCode::Char(c)))
        .collect()
}

fn pulls(pairs: &[(&str, &str)]) -> Command {
    let pull = |(name, host): &(&str, &str)| Operation::Pull {
        host: host.parse().unwrap(),
        name: name.parse().unwrap(),
        overwrite: false,
    };
    Command::SubmitAll(pairs.iter().map(pull).collect())
}

fn click(app: &mut App, column: u16, row: u16) -> Vec<Command> {
    app.on_event(Event::Mouse(MouseEvent {
        kind: MouseEventKind::Down(MouseButton::Left),
        column,
        row,
        modifiers: KeyModifiers::NONE,
    }))
}

/// Returns column and row of `text` on a screen.
fn position_of(output: &str, text: &str) -> (u16, u16) {
    let (row, line) = output
        .lines()
        .enumerate()
        .find(|(_, line)| line.contains(text))
        .unwrap_or_else(|| panic!("no {text:?} in\n{output}"));
    let before = line.split(text).next().unwrap().trim_start_matches('"');
    (before.chars().count() as u16, row as u16)
}

fn update(app: &mut App, change: impl FnOnce(&mut View)) {
    let mut view = (**app.view()).clone();
    change(&mut view);
    app.on_view(Arc::new(view), Instant::now());
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
    match app.selected().unwrap() {
        Subject::Sandbox(_, id) => id.to_string(),
        Subject::Snapshot(name, _) => name.to_string(),
        other => panic!("{other:?}"),
    }
}

fn shot(name: &str, app: &mut App, now: Instant) {
    insta::assert_snapshot!(format!("{name}_120x40"), screen_at(app, 120, 40, now));
    insta::assert_snapshot!(format!("{name}_80x24"), screen_at(app, 80, 24, now));
}

#[test]
fn the_first_frame_shows_connecting_hosts() {
    let options = AppOptions {
        banner: Some("demo".to_owned()),
        ..AppOptions::default()
    };
    let mut app = app_with(empty(), options);
    shot("start", &mut app, Instant::now());
    insta::assert_snapshot!("too_small", screen(&mut app, 39, 9));
}

#[test]
fn running_and_failed_jobs_are_shown() {
    let mut app = app(populated());
    let start = Instant::now();
    let cell = app.view().jobs[0].progress_cell.clone();
    for second in 1..=4u32 {
        cell.set_done(u64::from(303 + 50 * second) << 20);
        app.sample_rates(start + Duration::from_secs(1) * second);
    }
    shot("populated", &mut app, start + Duration::from_secs(4));
    keys(&mut app, "J");
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("job_failed", screen(&mut app, 120, 40));
}

#[test]
fn create_reports_an_invalid_name_while_typing() {
    let mut app = app(populated());
    keys(&mut app, "c");
    keys(&mut app, "my app;v1");
    shot("create_bad_name", &mut app, Instant::now());
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert_eq!(app.layers().len(), 1);
}

#[test]
fn pull_applies_to_marked_rows_and_clears_the_marks() {
    let mut app = app(populated());
    press(&mut app, KeyCode::BackTab);
    app.focus_on(Pane::Bucket);
    keys(&mut app, "  ");
    keys(&mut app, "f");
    insta::assert_snapshot!("pull", screen(&mut app, 80, 24));
    let both = [("far-away", "alpha"), ("myapp-v1.0", "alpha")];
    assert_eq!(keys(&mut app, "y"), [pulls(&both)]);
    assert_eq!(app.summary(Pane::Bucket).marked, 0);
}

/// Tells the remove dialog that all images of one name have the same bytes.
fn give_copies(app: &mut App) {
    let hosts = app.view().hosts.iter().map(|host| Some(host.name.clone()));
    let places: Vec<Option<snapdeck_model::HostName>> = hosts.chain([None]).collect();
    let locations = pending_copies(app);
    let copies = locations.iter().map(|location| {
        let others = places.iter().filter(|place| **place != location.host);
        let others = others.map(|place| snapdeck_engine::ImageLocation {
            host: place.clone(),
            name: location.name.clone(),
        });
        (location.clone(), others.collect())
    });
    let copies = copies.collect();
    app.on_dialog_answer(DialogAnswer::Copies(locations, copies));
}

/// Returns the locations whose copies the remove dialog asks for.
fn pending_copies(app: &App) -> Arc<[snapdeck_engine::ImageLocation]> {
    match app.pending_dialog_query() {
        Some(DialogQuery::Copies(locations)) => locations,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_of_the_same_name_with_other_bytes_is_not_a_copy() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Down);
    assert!(keys(&mut app, "d").is_empty());
    let locations = pending_copies(&app);
    let output = screen(&mut app, 80, 24);
    assert!(output.contains("Looking for other copies"), "{output}");
    assert!(keys(&mut app, "y").is_empty());
    app.on_dialog_answer(DialogAnswer::Copies(locations, BTreeMap::new()));
    assert_eq!(app.pending_dialog_query(), None);
    let output = screen(&mut app, 80, 24);
    assert!(
        output.contains("No other copy with the same bytes"),
        "{output}"
    );
    assert!(output.contains("Type myapp-v1.0 to confirm"), "{output}");
    keys(&mut app, "myapp-v1.0");
    assert_eq!(press(&mut app, KeyCode::Enter).len(), 1);
}

#[test]
fn a_snapshot_in_use_cannot_be_removed() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "Gd");
    give_copies(&mut app);
    shot("remove_refused", &mut app, Instant::now());
    assert!(keys(&mut app, "y").is_empty());
    // No sandbox depends on the object in the bucket.
    keys(&mut app, " ");
    press(&mut app, KeyCode::Down);
    keys(&mut app, " ");
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
fn removing_the_last_copy_must_be_confirmed_by_typing() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Down);
    keys(&mut app, "d");
    give_copies(&mut app);
    let commands = keys(&mut app, "y");
    let [
        Command::Submit(Operation::Remove {
            host: Some(_),
            from_bucket: false,
            ..
        }),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    keys(&mut app, "d");
    give_copies(&mut app);
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
            from_bucket: false,
            name: local,
            ..
        }),
        Command::Submit(Operation::Remove {
            host: None,
            from_bucket: true,
            name: object,
            ..
        }),
    ] = &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!([local.as_str(), object.as_str()], ["myapp-v1.0"; 2]);
}

#[test]
fn the_help_lists_all_actions() {
    let mut app = app(populated());
    keys(&mut app, "?");
    shot("help", &mut app, Instant::now());
    let lines = app.with_context(|context| {
        let content = app.layers()[0].dialog.content(context, 84);
        content.lines(0, content.length())
    });
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    for entry in super::table::ACTIONS {
        assert!(
            text.contains(entry.sentence.split_once(' ').unwrap().0),
            "{}",
            entry.name
        );
    }
    press(&mut app, KeyCode::Esc);
    assert!(app.layers().is_empty());
}

#[test]
fn finished_and_running_health_checks_are_shown() {
    let mut app = app(with_health_checks());
    assert_eq!(keys(&mut app, "D"), [Command::RunChecks]);
    insta::assert_snapshot!("doctor", screen(&mut app, 80, 24));
    assert_eq!(keys(&mut app, "r"), [Command::RunChecks]);
    keys(&mut app, "jjjj");
    assert!(screen(&mut app, 80, 24).contains("bucket  ◌ checking"));
    press(&mut app, KeyCode::Esc);
    assert!(app.layers().is_empty());
}

#[test]
fn an_unreachable_host_keeps_its_rows_with_their_age() {
    let now = Instant::now() + Duration::from_secs(3600);
    let mut app = app(unreachable_host_view(now, Duration::from_secs(200)));
    shot("host_unreachable", &mut app, now);
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
    terminal.draw(|frame| drop(draw(&app, frame, now))).unwrap();
    let cell = &terminal.backend().buffer()[(5, 3)];
    assert!(cell.modifier.contains(ratatui::style::Modifier::DIM));
}

#[test]
fn quitting_lists_the_unfinished_jobs() {
    let mut app = app(populated());
    assert!(keys(&mut app, "q").is_empty());
    insta::assert_snapshot!("quit", screen(&mut app, 80, 24));
    assert!(keys(&mut app, "s").is_empty() && app.layers().is_empty());
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(app.on_key(interrupt).is_empty() && app.on_key(interrupt).is_empty());
    assert_eq!(app.layers().len(), 1);
    assert_eq!(keys(&mut app, "c"), [Command::Quit]);
    update(&mut app, |view| view.jobs.clear());
    assert_eq!(keys(&mut app, "q"), [Command::Quit]);
}

#[test]
fn every_size_is_drawn() {
    let mut views = vec![
        empty(),
        populated(),
        unreachable_host_view(Instant::now(), Duration::ZERO),
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
    views.push(with_health_checks());
    let openers = ["", "c", "p", "d", "?", "q", "J\r", "T", "LL", "/x", "D"];
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
fn only_visible_rows_of_many_objects_are_built() {
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
fn a_dialog_longer_than_the_screen_scrolls() {
    let mut app = app(populated());
    keys(&mut app, "?");
    let mut output = screen(&mut app, 80, 12);
    for _ in 0..40 {
        press(&mut app, KeyCode::PageDown);
        output.push_str(&screen(&mut app, 80, 12));
    }
    assert!(
        output.contains("Quit; asks first while jobs run"),
        "{output}"
    );
    assert!(
        matches!(app.layers().last(), Some(Layer { scroll, .. }) if *scroll == app.areas().layer.1)
    );
}

#[test]
fn help_and_doctor_scroll_to_both_ends() {
    for key in ['?', 'D'] {
        let mut app = app(populated());
        app.on_view(
            Arc::new(super::fixture::with_health_checks()),
            Instant::now(),
        );
        keys(&mut app, &key.to_string());
        let first = screen(&mut app, 80, 14);
        press(&mut app, KeyCode::End);
        let last = screen(&mut app, 80, 14);
        assert_ne!(first, last);
        press(&mut app, KeyCode::Down);
        assert_eq!(screen(&mut app, 80, 14), last);
        press(&mut app, KeyCode::Home);
        assert_eq!(screen(&mut app, 80, 14), first);
    }
}

#[test]
fn the_smallest_screen_shows_keys() {
    let mut app = app(populated());
    let output = screen(&mut app, 40, 10);
    assert!(
        output.contains("config-vm") && output.contains("push sandbox"),
        "{output}"
    );
    assert!(output.contains("? help  q quit"), "{output}");
}
