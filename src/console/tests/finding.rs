//! Finding: help, palette, chords, filters, sorts and marks; what of them outlives a run.

use super::super::columns::Column;
use super::super::dialog::Dialog;
use super::super::keymap::Keymap;
use super::super::list::Sort;
use super::super::session::Session;
use super::*;

fn ctrl(app: &mut App, c: char) -> Vec<Command> {
    app.on_key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
}

/// The names of the rows in `pane`, as they stand on the screen.
fn rows(app: &App, pane: Pane) -> Vec<String> {
    let (_, lines) = pane_rows(app, pane, 40, 30);
    let name = |line: &ratatui::text::Line<'_>| {
        let text = line.to_string();
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default().trim_start_matches('▸');
        match first.len() < 4 {
            true => words.next().unwrap_or_default().to_owned(),
            false => first.to_owned(),
        }
    };
    lines.iter().map(name).collect()
}

#[test]
fn the_help_is_searched_by_typing() {
    let mut app = app(populated());
    keys(&mut app, "?vnc");
    let shown = screen(&mut app, 100, 30);
    assert!(shown.contains("help: vnc"), "{shown}");
    assert!(shown.contains("Copy the sandbox's vnc:// URL"), "{shown}");
    assert!(!shown.contains("Refresh all hosts"), "{shown}");
    keys(&mut app, "qqq");
    assert!(screen(&mut app, 100, 30).contains("No action matches"));
    press(&mut app, KeyCode::Esc);
    assert!(app.layers.is_empty());
    // Opened and closed with one key.
    keys(&mut app, "??");
    assert!(app.layers.is_empty());
}

#[test]
fn the_palette_does_an_action_by_a_few_letters() {
    let mut app = app(populated());
    keys(&mut app, ":creat");
    insta::assert_snapshot!("palette", screen(&mut app, 80, 24));
    press(&mut app, KeyCode::Enter);
    assert!(matches!(
        app.layers.last().unwrap().dialog,
        Dialog::CreateSnapshot(_)
    ));
}

#[test]
fn the_palette_says_why_not() {
    let mut app = app(populated());
    keys(&mut app, ":pull");
    let shown = screen(&mut app, 100, 30);
    assert!(
        shown.contains("works in Snapshots, Bucket, Locations and Tree"),
        "{shown}"
    );
    press(&mut app, KeyCode::Enter);
    assert!(app.layers.is_empty());
    assert!(screen(&mut app, 100, 30).contains("pull works in Snapshots"));
}

#[test]
fn a_chord_shows_what_may_follow_and_esc_drops_it() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Down);
    keys(&mut app, ",");
    insta::assert_snapshot!("chord", screen(&mut app, 80, 24));
    press(&mut app, KeyCode::Esc);
    assert!(app.pending_keys.is_empty());
    keys(&mut app, "gg");
    assert_eq!(selected(&app), "config-vm");
    keys(&mut app, "gj");
    assert_eq!(app.focus, Pane::JobsPage);
    keys(&mut app, "gw");
    assert!(screen(&mut app, 80, 24).contains("g w means nothing here"));
}

#[test]
fn keys_of_the_users_stand_in_the_footer() {
    let mut app = app(populated());
    let (keymap, _) =
        Keymap::read("create = [\"N c\"]", std::path::Path::new("keymap.toml")).unwrap();
    app.keymap = keymap;
    assert!(screen(&mut app, 120, 40).contains("N c create"));
    keys(&mut app, "c");
    assert!(app.layers.is_empty());
    keys(&mut app, "Nc");
    assert_eq!(app.layers.len(), 1);
}

#[test]
fn filters_know_fields_and_tell_what_they_do_not_know() {
    let mut app = app(populated());
    keys(&mut app, "/state:s !002");
    assert_eq!(rows(&app, Pane::Sandboxes), ["sandbox-003", "sandbox-004"]);
    press(&mut app, KeyCode::Enter);
    app.focus_on(Pane::Snapshots);
    keys(&mut app, "/size>8G users>0");
    assert_eq!(rows(&app, Pane::Snapshots), ["winserver-base"]);
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/seize>8G");
    assert!(screen(&mut app, 120, 40).contains("no field \"seize\""));
}

#[test]
fn rows_are_sorted_by_a_column_on_all_hosts_and_the_other_way() {
    let mut app = app(populated());
    app.focus_on(Pane::Snapshots);
    keys(&mut app, ",z");
    assert_eq!(
        rows(&app, Pane::Snapshots),
        ["myapp-v1.0", "winserver-base", "local-only"]
    );
    assert!(screen(&mut app, 120, 40).contains("Snapshots · alpha (3) ↓size"));
    assert_eq!(selected(&app), "local-only");
    keys(&mut app, ",,");
    assert_eq!(
        rows(&app, Pane::Snapshots),
        ["local-only", "winserver-base", "myapp-v1.0"]
    );
    keys(&mut app, "a");
    assert_eq!(
        app.all_hosts.snapshots.sort(),
        app.current_sort(Pane::Snapshots)
    );
    keys(&mut app, ",c");
    assert!(screen(&mut app, 120, 40).contains("sort by CPUs works in Sandboxes"));
}

#[test]
fn ranges_and_all_that_is_shown_are_marked_and_verbs_take_them() {
    let mut app = app(populated());
    keys(&mut app, "/sandbox");
    press(&mut app, KeyCode::Enter);
    ctrl(&mut app, 'a');
    assert_eq!(app.chosen_sandboxes().len(), 3);
    ctrl(&mut app, 'r');
    assert_eq!(app.numbers(Pane::Sandboxes).marked, 0);
    keys(&mut app, "gg jM");
    assert_eq!(app.chosen_sandboxes().len(), 3);
    let [Command::Copy(names)] = &keys(&mut app, "y")[..] else {
        panic!("nothing is copied")
    };
    assert_eq!(names, "sandbox-002\nsandbox-003\nsandbox-004");
}

#[test]
fn a_read_only_console_refuses_what_changes_something() {
    let mut app = app(populated());
    app.read_only = true;
    assert!(screen(&mut app, 120, 40).contains("[read-only]"));
    for changing in ["c", "p", "s", "S", "o", "d", "z", "n", "D", "Jx"] {
        assert!(keys(&mut app, changing).is_empty(), "{changing}");
        assert!(app.layers.is_empty(), "{changing}");
        assert!(
            app.notice.as_ref().unwrap().text.contains("read-only"),
            "{changing}"
        );
    }
}

#[test]
fn what_was_chosen_sorted_and_filtered_comes_back_before_any_host_answers() {
    let mut app = app(populated());
    keys(&mut app, "j /sandbox");
    press(&mut app, KeyCode::Enter);
    app.focus_on(Pane::Bucket);
    keys(&mut app, "jj ,z/w");
    press(&mut app, KeyCode::Enter);
    let text = serde_json::to_string(&Session::from_app(&app)).unwrap();

    let mut next = super::app(empty());
    let session: Session = serde_json::from_str(&text).unwrap();
    session.restore(&mut next);
    assert_eq!(next.list, Pane::Bucket);
    assert_eq!(next.current_sort(Pane::Bucket), Sort::by(Column::Size));
    // First the bucket answers in parts, then the host.
    update(&mut next, |view| {
        set_bucket(view, |bucket| {
            bucket.objects = Arc::new([object("far-away", 3 << 30)])
        });
    });
    next.on_view(Arc::new(populated()), Instant::now());
    assert_eq!(next.numbers(Pane::Bucket).filter, "w");
    assert_eq!(next.chosen_names(), ["winserver-base"]);
    next.focus_on(Pane::Sandboxes);
    assert_eq!(next.numbers(Pane::Sandboxes).filter, "sandbox");
    assert_eq!(next.chosen_names(), ["sandbox-002"]);
    assert_eq!(selected(&next), "sandbox-003");
}

#[test]
fn rows_of_an_earlier_run_are_shown_with_their_age() {
    let now = Instant::now() + Duration::from_secs(7200);
    let mut view = unreachable_host_view(now, Duration::from_secs(7200));
    set_alpha(&mut view, |host| host.link = Link::Connecting);
    let mut app = app(view);
    let shown = screen_at(&mut app, 120, 40, now);
    assert!(
        shown.contains("Sandboxes · alpha (4) · seen 2h ago"),
        "{shown}"
    );
    assert!(shown.contains("alpha ◌ connecting, seen 2h ago"), "{shown}");
}

#[test]
fn the_end_of_a_long_job_is_news() {
    let mut app = app(populated());
    app.notify_after = Duration::from_secs(10);
    let mut end = |after: u64| {
        let mut job = super::super::fixture::failed_job(1);
        job.operation = app.view.jobs[0].operation.clone();
        job.ended_at = job
            .started_at
            .map(|started| started + Duration::from_secs(after));
        let running = app.view.clone();
        update(&mut app, |view| view.jobs[0] = Arc::new(job));
        app.on_view(running, Instant::now());
        std::mem::take(&mut app.notifications)
    };
    assert!(end(9).is_empty());
    assert_eq!(end(10), ["push sandbox-004 → myapp-v1.1 failed"]);
}

#[test]
fn a_filter_longer_than_its_pane_shows_where_one_types() {
    let mut app = app(populated());
    keys(&mut app, "/");
    keys(&mut app, &"a".repeat(60));
    keys(&mut app, "end");
    let shown = screen(&mut app, 120, 40);
    assert!(shown.contains("aaend▏"), "{shown}");
    press(&mut app, KeyCode::Left);
    let shown = screen(&mut app, 120, 40);
    assert!(shown.contains("aaen▏d"), "{shown}");
    // ctrl-c leaves the filter, not the console.
    assert!(ctrl(&mut app, 'c').is_empty());
    assert!(app.filter.is_none());
}

#[test]
fn the_log_keeps_the_focus_while_it_is_on_screen() {
    let mut app = app(populated());
    screen(&mut app, 120, 40);
    keys(&mut app, "gl");
    assert_eq!(app.focus, Pane::Log);
    for _ in 0..2 {
        keys(&mut app, "L");
        assert_eq!(app.focus, Pane::Log);
    }
    keys(&mut app, "L");
    assert_eq!(app.focus, Pane::Sandboxes, "it is hidden now");
}
