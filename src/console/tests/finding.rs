//! Help, palette, chords, filters, sort orders and marks, and the saved session.

use super::super::columns::Column;
use super::super::keymap::Keymap;
use super::super::list::Sort;
use super::super::session::Session;
use super::*;

fn ctrl(app: &mut App, c: char) -> Vec<Command> {
    app.on_key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
}

/// Returns the names of the rows in `pane`, in their order on the screen.
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
fn the_help_has_a_search() {
    let mut app = app(populated());
    keys(&mut app, "?");
    let top = screen(&mut app, 100, 30);
    // As in less, letters scroll.
    keys(&mut app, "jjG");
    assert_ne!(screen(&mut app, 100, 30), top);
    keys(&mut app, "g/vnc");
    let output = screen(&mut app, 100, 30);
    assert!(output.contains("help /vnc"), "{output}");
    assert!(output.contains("Copy the sandbox's vnc:// URL"), "{output}");
    assert!(!output.contains("Refresh all hosts"), "{output}");
    keys(&mut app, "qqq");
    assert!(screen(&mut app, 100, 30).contains("No action matches"));
    // The first esc ends the search.
    press(&mut app, KeyCode::Esc);
    assert!(screen(&mut app, 100, 30).contains("Create a snapshot"));
    keys(&mut app, "/kill");
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 100, 30).contains(": force off"));
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Esc);
    assert!(app.layers().is_empty());
    // The same key opens and closes the help.
    keys(&mut app, "??");
    assert!(app.layers().is_empty());
}

#[test]
fn the_palette_runs_an_action() {
    let mut app = app(populated());
    keys(&mut app, ":creat");
    insta::assert_snapshot!("palette", screen(&mut app, 80, 24));
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 80, 24).contains("create a snapshot of config-vm"));
}

#[test]
fn the_palette_shows_why_an_action_is_impossible() {
    let mut app = app(populated());
    keys(&mut app, ":pull");
    let output = screen(&mut app, 100, 30);
    assert!(
        output.contains("works in Snapshots, Bucket, Locations and Tree"),
        "{output}"
    );
    press(&mut app, KeyCode::Enter);
    assert!(app.layers().is_empty());
    assert!(screen(&mut app, 100, 30).contains("pull works in Snapshots"));
}

#[test]
fn the_palette_runs_each_verb_by_its_usual_words() {
    let mut app = app(populated());
    for (words, title) in [
        ("reboot", "restart config-vm on alpha"),
        ("kill", "force off config-vm on alpha"),
        ("shutdown", "stop config-vm on alpha"),
        ("delete", "destroy config-vm on alpha"),
    ] {
        keys(&mut app, &format!(":{words}"));
        assert!(press(&mut app, KeyCode::Enter).is_empty());
        let output = screen(&mut app, 120, 40);
        assert!(output.contains(title), "{words}: {output}");
        press(&mut app, KeyCode::Esc);
    }
    // Harmless verbs run at once, as from their menu.
    for (words, verb) in [
        ("suspend", snapdeck_model::SandboxVerb::Pause),
        ("hibernate", snapdeck_model::SandboxVerb::Save),
    ] {
        keys(&mut app, &format!(":{words}"));
        let operation = Operation::Sandbox {
            host: "alpha".parse().unwrap(),
            id: "config-vm".parse().unwrap(),
            verb,
        };
        let commands = press(&mut app, KeyCode::Enter);
        assert_eq!(commands, [Command::SubmitAll(vec![operation])], "{words}");
    }
    keys(&mut app, ":rename");
    assert!(screen(&mut app, 120, 40).contains("cannot rename config-vm: it is running"));
    press(&mut app, KeyCode::Esc);
    // Of actions with the same word, those of the focused pane come first.
    app.focus_on(Pane::Bucket);
    keys(&mut app, ":delete");
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 120, 40).contains("remove far-away"));
    press(&mut app, KeyCode::Esc);
    keys(&mut app, ":ctx");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.focus(), Pane::Hosts);
}

#[test]
fn the_settings_name_columns_and_their_order() {
    let mut app = app(populated());
    let columns = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let settings = snapdeck_model::settings::ListColumns {
        sandboxes: columns(&["mem", "state"]),
        snapshots: columns(&[]),
        bucket: None,
    };
    app.set_columns(&settings);
    let header = |app: &mut App, pane| {
        app.focus_on(pane);
        let output = screen(app, 220, 40);
        let line = output.lines().find(|line| line.contains("NAME")).unwrap();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        words.join(" ")
    };
    let sandboxes = header(&mut app, Pane::Sandboxes);
    assert!(sandboxes.contains("NAME ▲ MEM STATE"), "{sandboxes}");
    assert!(!sandboxes.contains("BASE"), "{sandboxes}");
    let snapshots = header(&mut app, Pane::Snapshots);
    assert!(!snapshots.contains("USED"), "{snapshots}");
    let bucket = header(&mut app, Pane::Bucket);
    assert!(bucket.contains("SIZE ON HOST UPLOADED"), "{bucket}");
    // The default of the dialog is that of the settings.
    app.focus_on(Pane::Sandboxes);
    keys(&mut app, "| ");
    press(&mut app, KeyCode::Enter);
    assert!(!header(&mut app, Pane::Sandboxes).contains("MEM"));
    keys(&mut app, "|r");
    press(&mut app, KeyCode::Enter);
    assert!(header(&mut app, Pane::Sandboxes).contains("NAME ▲ MEM STATE"));
    // The settings know the names of all columns.
    for (pane, known) in [
        (Pane::Sandboxes, snapdeck_model::settings::SANDBOX_COLUMNS),
        (Pane::Snapshots, snapdeck_model::settings::SNAPSHOT_COLUMNS),
        (Pane::Bucket, snapdeck_model::settings::BUCKET_COLUMNS),
    ] {
        let all = super::super::columns::ChosenColumns::new(pane);
        let ids: Vec<String> = all.choices().iter().map(|(spec, _)| spec.id()).collect();
        assert_eq!(ids, known);
    }
}

#[test]
fn a_chord_shows_its_continuations_until_esc() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Down);
    keys(&mut app, ",");
    insta::assert_snapshot!("chord", screen(&mut app, 80, 24));
    press(&mut app, KeyCode::Esc);
    assert!(app.pending_keys().is_empty());
    keys(&mut app, "gg");
    assert_eq!(selected(&app), "config-vm");
    keys(&mut app, "gj");
    assert_eq!(app.focus(), Pane::JobsPage);
    keys(&mut app, "gx");
    assert!(screen(&mut app, 80, 24).contains("no action has the keys g x"));
}

#[test]
fn the_footer_shows_user_keys() {
    let mut app = app(populated());
    let (keymap, _) =
        Keymap::read("create = [\"N c\"]", std::path::Path::new("keymap.toml")).unwrap();
    app.set_keymap(keymap);
    assert!(screen(&mut app, 120, 40).contains("N c create"));
    keys(&mut app, "c");
    assert!(app.layers().is_empty());
    keys(&mut app, "Nc");
    assert_eq!(app.layers().len(), 1);
}

#[test]
fn typing_replaces_the_filter_of_before_and_a_cursor_key_edits_it() {
    let mut app = app(populated());
    keys(&mut app, "/state:s");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "/");
    assert!(screen(&mut app, 120, 40).contains("typing replaces the filter"));
    keys(&mut app, "config");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.summary(Pane::Sandboxes).filter, "config");
    keys(&mut app, "/");
    press(&mut app, KeyCode::End);
    keys(&mut app, "-vm");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.summary(Pane::Sandboxes).filter, "config-vm");
    keys(&mut app, "/");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.summary(Pane::Sandboxes).filter, "config-vm");
}

#[test]
fn filters_match_fields_and_report_unknown_ones() {
    let mut app = app(populated());
    keys(&mut app, "/state:s !002");
    assert_eq!(rows(&app, Pane::Sandboxes), ["sandbox-003", "sandbox-004"]);
    press(&mut app, KeyCode::Enter);
    app.focus_on(Pane::Snapshots);
    keys(&mut app, "/size>8G users>0");
    assert_eq!(rows(&app, Pane::Snapshots), ["winserver-base"]);
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/place=both");
    assert_eq!(
        rows(&app, Pane::Snapshots),
        ["myapp-v1.0", "winserver-base"]
    );
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/!place:bucket");
    assert_eq!(rows(&app, Pane::Snapshots), ["local-only"]);
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/seize>8G");
    assert!(screen(&mut app, 120, 40).contains("unknown field \"seize\""));
}

#[test]
fn rows_are_sorted_by_a_column_on_all_hosts() {
    let mut app = app(populated());
    app.focus_on(Pane::Snapshots);
    keys(&mut app, ",z");
    assert_eq!(
        rows(&app, Pane::Snapshots),
        ["myapp-v1.0", "winserver-base", "local-only"]
    );
    assert!(screen(&mut app, 120, 40).contains("▼ size"));
    assert_eq!(selected(&app), "local-only");
    keys(&mut app, ",,");
    assert_eq!(
        rows(&app, Pane::Snapshots),
        ["local-only", "winserver-base", "myapp-v1.0"]
    );
    keys(&mut app, "a");
    assert_eq!(
        app.sort(Pane::Snapshots),
        Some(Sort {
            column: Column::Size,
            descending: false
        })
    );
    keys(&mut app, ",c");
    assert!(screen(&mut app, 120, 40).contains("sort by CPUs works in Sandboxes"));
}

#[test]
fn marks_by_range_and_of_all_rows_apply_to_operations() {
    let mut app = app(populated());
    keys(&mut app, "/sandbox");
    press(&mut app, KeyCode::Enter);
    ctrl(&mut app, 'a');
    assert_eq!(app.chosen_sandboxes().len(), 3);
    ctrl(&mut app, 'r');
    assert_eq!(app.summary(Pane::Sandboxes).marked, 0);
    keys(&mut app, "gg jM");
    assert_eq!(app.chosen_sandboxes().len(), 3);
    let [Command::Copy(names)] = &keys(&mut app, "yy")[..] else {
        panic!("nothing was copied")
    };
    assert_eq!(names, "sandbox-002\nsandbox-003\nsandbox-004");
}

#[test]
fn a_read_only_console_disables_mutating_actions() {
    let options = AppOptions {
        read_only: true,
        ..AppOptions::default()
    };
    let mut app = app_with(populated(), options);
    assert!(screen(&mut app, 120, 40).contains("[read-only]"));
    for typed in ["c", "p", "s", "S", "o", "d", "z", "n", "D", "Jx"] {
        assert!(keys(&mut app, typed).is_empty(), "{typed}");
        assert!(app.layers().is_empty(), "{typed}");
        let notice = app.notice().unwrap();
        assert!(notice.text.contains("read-only"), "{typed}");
    }
}

#[test]
fn a_session_is_restored_before_any_host_responds() {
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
    assert_eq!(next.list(), Pane::Bucket);
    assert_eq!(next.sort(Pane::Bucket), Some(Sort::by(Column::Size)));
    // The bucket's list is incomplete at first; then the host responds.
    update(&mut next, |view| {
        set_bucket(view, |bucket| {
            bucket.objects = Arc::new([object("far-away", 3 << 30)])
        });
    });
    next.on_view(Arc::new(populated()), Instant::now());
    assert_eq!(next.summary(Pane::Bucket).filter, "w");
    assert_eq!(next.chosen_names(), ["winserver-base"]);
    next.focus_on(Pane::Sandboxes);
    assert_eq!(next.summary(Pane::Sandboxes).filter, "sandbox");
    assert_eq!(next.chosen_names(), ["sandbox-002"]);
    assert_eq!(selected(&next), "sandbox-003");
}

#[test]
fn rows_of_an_earlier_run_show_their_age() {
    let now = Instant::now() + Duration::from_secs(7200);
    let mut view = unreachable_host_view(now, Duration::from_secs(7200));
    set_alpha(&mut view, |host| host.link = Link::Connecting);
    let mut app = app(view);
    let output = screen_at(&mut app, 120, 40, now);
    assert!(output.contains("· on alpha · seen 2h ago"), "{output}");
    assert!(
        output.contains("alpha ◌ connecting, seen 2h ago"),
        "{output}"
    );
}

#[test]
fn the_end_of_a_long_job_is_notified() {
    let options = AppOptions {
        notify_after: Duration::from_secs(10),
        ..AppOptions::default()
    };
    let mut app = app_with(populated(), options);
    let mut end = |after: u64| {
        let mut job = super::super::fixture::failed_job(1);
        job.operation = app.view().jobs[0].operation.clone();
        job.ended_at = job
            .started_at
            .map(|started| started + Duration::from_secs(after));
        let running = app.view().clone();
        update(&mut app, |view| view.jobs[0] = Arc::new(job));
        app.on_view(running, Instant::now());
        app.take_notifications()
    };
    assert!(end(9).is_empty());
    assert_eq!(end(10), ["push sandbox-004 → myapp-v1.1 failed"]);
}

#[test]
fn a_long_filter_scrolls_to_the_cursor() {
    let mut app = app(populated());
    keys(&mut app, "/");
    keys(&mut app, &"a".repeat(60));
    keys(&mut app, "end");
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("aaend▏"), "{output}");
    press(&mut app, KeyCode::Left);
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("aaen▏d"), "{output}");
    // ctrl-c closes the filter, not the console.
    assert!(ctrl(&mut app, 'c').is_empty());
    assert!(app.filter_input().is_none());
}

#[test]
fn the_log_keeps_the_focus_until_it_is_hidden() {
    let mut app = app(populated());
    screen(&mut app, 120, 40);
    keys(&mut app, "gl");
    assert_eq!(app.focus(), Pane::Log);
    for _ in 0..2 {
        keys(&mut app, "L");
        assert_eq!(app.focus(), Pane::Log);
    }
    keys(&mut app, "L");
    assert_eq!(app.focus(), Pane::Sandboxes, "it is hidden now");
}

#[test]
fn columns_are_chosen_and_ordered_and_restored() {
    let mut app = app(populated());
    let header = |app: &mut App| {
        let output = screen(app, 160, 40);
        let line = output.lines().find(|line| line.contains("NAME"));
        line.unwrap_or_default().to_owned()
    };
    assert!(header(&mut app).contains("STATE     BASE"));
    // Hides the state, and moves the base behind the overlay.
    keys(&mut app, "| jJ");
    insta::assert_snapshot!("columns", screen(&mut app, 80, 24));
    press(&mut app, KeyCode::Enter);
    let changed = header(&mut app);
    let sandboxes = changed.split("││").next().unwrap_or_default();
    let words: Vec<&str> = sandboxes.split_whitespace().skip(1).collect();
    assert_eq!(words, ["NAME", "▲", "OVERLAY", "BASE", "CPU", "MEM"]);
    let text = serde_json::to_string(&Session::from_app(&app)).unwrap();

    let mut next = super::app(populated());
    let session: Session = serde_json::from_str(&text).unwrap();
    session.restore(&mut next);
    assert_eq!(header(&mut next), changed);
    keys(&mut next, "|r");
    press(&mut next, KeyCode::Enter);
    assert!(header(&mut next).contains("STATE     BASE"));
}
