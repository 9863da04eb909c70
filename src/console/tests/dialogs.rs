//! Dialogs: long lists, names that are cut, keys that work in all of them, and clicks.

use super::*;
use crate::fixture::lineage;
use crate::keymap::Keymap;
use crate::lookup::take_search_count;
use snapdeck_model::{Candidate, PrunePlan, SnapshotName};

fn ctrl(app: &mut App, c: char) -> Vec<Command> {
    app.on_key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
}

fn create(name: &str) -> Command {
    Command::Submit(Operation::Create {
        host: "alpha".parse().unwrap(),
        sandbox: "config-vm".parse().unwrap(),
        name: name.parse().unwrap(),
        live: false,
        overwrite: false,
        compact: false,
    })
}

/// Returns a console with `count` snapshots on alpha and as many objects, all of them marked in `pane`.
fn with_marked(count: usize, pane: Pane) -> App {
    let mut view = populated();
    let name = |number: usize| format!("image-{number:05}");
    set_alpha(&mut view, |host| {
        let snapshots = (0..count).map(|number| snapshot(&name(number), 1 << 30, &[]));
        host.snapshots = snapshots.collect();
        let sandboxes = (0..count).map(|number| sandbox(&name(number), SandboxState::ShutOff));
        host.sandboxes = sandboxes.collect();
    });
    set_bucket(&mut view, |bucket| {
        // None of them is on the host.
        let objects = (0..count).map(|number| object(&format!("far-{number:05}"), 1 << 30));
        bucket.objects = objects.collect();
    });
    view.jobs.clear();
    let mut app = app(view);
    app.focus_on(pane);
    ctrl(&mut app, 'a');
    app
}

/// Runs `act` and draws; returns how often lists were searched for each.
fn searches(app: &mut App, act: impl FnOnce(&mut App)) -> (usize, usize) {
    take_search_count();
    act(app);
    let count = take_search_count();
    screen(app, 120, 40);
    (count, take_search_count())
}

#[test]
fn many_marked_rows_are_looked_up_once() {
    let mut few = with_marked(10, Pane::Snapshots);
    let mut many = with_marked(10_000, Pane::Snapshots);
    let steps: [fn(&mut App); 4] = [
        |app| drop(keys(app, "d")),
        give_copies,
        |app| drop(press(app, KeyCode::Tab)),
        |app| drop(keys(app, " ")),
    ];
    for step in steps {
        let (expected, actual) = (searches(&mut few, step), searches(&mut many, step));
        assert_eq!(actual, expected, "independent of the number of rows");
        assert!(actual.0 < 10, "{actual:?}");
        assert_eq!(actual.1, 0, "a frame with a dialog searches no list");
    }
    assert!(screen(&mut many, 120, 40).contains("on alpha (10000 files)"));
    // Only the visible lines are built.
    press(&mut many, KeyCode::End);
    assert!(screen(&mut many, 120, 40).contains("image-09999.qcow2"));
    let end = many.areas().layer.1;
    assert!(end > 9_900, "{end}");
    keys(&mut many, "yremove 10000");
    assert_eq!(press(&mut many, KeyCode::Enter).len(), 10_000);
}

#[test]
fn many_marked_sandboxes_and_pulls_are_looked_up_once() {
    for (pane, key, text) in [
        (Pane::Sandboxes, "d", "destroy 10000 sandboxes on alpha"),
        (Pane::Sandboxes, "o", "10000 sandboxes on alpha"),
    ] {
        let (mut few, mut many) = (with_marked(10, pane), with_marked(10_000, pane));
        let open = |app: &mut App| drop(keys(app, key));
        assert_eq!(searches(&mut many, open), searches(&mut few, open));
        assert!(screen(&mut many, 120, 40).contains(text), "{text}");
        let down = |app: &mut App| drop(press(app, KeyCode::Down));
        assert_eq!(searches(&mut many, down), (0, 0));
    }
    let (mut few, mut many) = (
        with_marked(10, Pane::Bucket),
        with_marked(10_000, Pane::Bucket),
    );
    let open = |app: &mut App| drop(keys(app, "f"));
    assert_eq!(searches(&mut many, open), searches(&mut few, open));
    assert!(screen(&mut many, 120, 40).contains("Downloads 10000 snapshots"));
    let mut costs = 0;
    while let Some(DialogQuery::PullCost(target)) = many.pending_dialog_query() {
        costs += 1;
        let cost = lineage("myapp-v1.0").pull_cost.unwrap();
        many.on_dialog_answer(DialogAnswer::PullCost(target, Ok(cost)));
    }
    assert_eq!(costs, 64);
}

#[test]
fn different_paths_never_read_the_same() {
    let mut view = populated();
    let names: Vec<SnapshotName> = ["app-one", "app-two", "base-one", "base-two-v1"]
        .iter()
        .map(|name| {
            let name = format!("snapshot-of-the-accounting-{name}-with-a-long-end-for-all");
            name.parse().unwrap()
        })
        .collect();
    set_alpha(&mut view, |host| {
        let snapshots = names.iter().map(|name| snapshot(name.as_str(), 1, &[]));
        host.snapshots = snapshots.collect();
    });
    let mut app = app(view);
    app.focus_on(Pane::Snapshots);
    ctrl(&mut app, 'a');
    keys(&mut app, "d");
    for (width, height) in [(60, 20), (80, 24), (120, 40)] {
        let output = screen(&mut app, width, height);
        let paths: Vec<&str> = output
            .lines()
            .filter_map(|line| Some(line.split_once("  alpha ")?.1.split_once(" 1 B")?.0))
            .collect();
        assert_eq!(paths.len(), names.len(), "{output}");
        for (index, path) in paths.iter().enumerate() {
            assert!(!paths[..index].contains(path), "{output}");
            assert!(path.trim_end().ends_with(".qcow2"), "{output}");
        }
    }
}

#[test]
fn a_name_is_proposed() {
    let mut app = app(populated());
    let mut base = sandbox("config-vm", SandboxState::ShutOff);
    base.chain[1].snapshot = Some("myapp-v1.0".parse().unwrap());
    update(&mut app, |view| {
        view.jobs.clear();
        set_alpha(view, |host| host.sandboxes = Arc::new([base]));
    });
    keys(&mut app, "c");
    let output = screen(&mut app, 100, 30);
    assert!(
        output.contains("uploads to s3://daytona/snapshots/myapp-v1.1.qcow2"),
        "{output}"
    );
    assert_eq!(press(&mut app, KeyCode::Enter), [create("myapp-v1.1")]);
    // Typing replaces it; a cursor key accepts it.
    keys(&mut app, "cother");
    assert_eq!(press(&mut app, KeyCode::Enter), [create("other")]);
    keys(&mut app, "c");
    press(&mut app, KeyCode::Right);
    keys(&mut app, "-rc");
    assert_eq!(press(&mut app, KeyCode::Enter), [create("myapp-v1.1-rc")]);
}

#[test]
fn overwrite_is_only_for_the_name_it_was_selected_for() {
    let mut app = app(populated());
    keys(&mut app, "cmyapp-v1.0");
    press(&mut app, KeyCode::Tab);
    keys(&mut app, " ");
    assert!(screen(&mut app, 100, 30).contains("[x] overwrite: replace myapp-v1.0"));
    press(&mut app, KeyCode::BackTab);
    press(&mut app, KeyCode::Backspace);
    keys(&mut app, "0");
    assert!(screen(&mut app, 100, 30).contains("[ ] overwrite: replace myapp-v1.0"));
    assert!(press(&mut app, KeyCode::Enter).is_empty());
}

#[test]
fn the_menu_is_used_with_arrows_and_enter() {
    let mut app = app(populated());
    keys(&mut app, "o");
    // config-vm is running: the first possible verb is stop.
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 80, 24).contains("stop config-vm on alpha"));
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "ojjjj");
    let commands = press(&mut app, KeyCode::Enter);
    let [Command::SubmitAll(operations)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(
        snapdeck_engine::operation_title(&operations[0]),
        "pause config-vm"
    );
    keys(&mut app, "o");
    press(&mut app, KeyCode::End);
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 80, 24).contains("destroy config-vm on alpha"));
    press(&mut app, KeyCode::Esc);
    // Restore, which is not possible.
    keys(&mut app, "ojjjjjjj");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert_eq!(app.layers().len(), 1);
}

#[test]
fn a_plan_scrolls_to_both_ends() {
    let mut app = app(populated());
    keys(&mut app, "U");
    press(&mut app, KeyCode::Enter);
    let Some(DialogQuery::PrunePlan(request)) = app.pending_dialog_query() else {
        panic!("no query");
    };
    let candidate = |number: usize| Candidate {
        name: format!("app-{number:05}").parse().unwrap(),
        host: Some("alpha".parse().unwrap()),
        size_bytes: 1,
        created: None,
        in_use: false,
        is_last_copy: false,
        identity: None,
        keep_reasons: Vec::new(),
    };
    let plan = PrunePlan {
        to_remove: (0..10_000).map(candidate).collect(),
        ..PrunePlan::default()
    };
    app.on_dialog_answer(DialogAnswer::PrunePlan(request, Ok(plan)));
    for (typed, first, last) in [('G', false, true), ('g', true, false)] {
        keys(&mut app, &typed.to_string());
        let output = screen(&mut app, 80, 24);
        assert_eq!(output.contains("app-00000"), first, "{output}");
        assert_eq!(output.contains("app-09999"), last, "{output}");
    }
    press(&mut app, KeyCode::End);
    assert!(screen(&mut app, 80, 24).contains("app-09999"));
    press(&mut app, KeyCode::Home);
    ctrl(&mut app, 'd');
    let output = screen(&mut app, 80, 24);
    assert!(
        !output.contains("app-00000") && output.contains("app-00010"),
        "{output}"
    );
    ctrl(&mut app, 'u');
    assert!(screen(&mut app, 80, 24).contains("app-00000"));
    // While the confirmation is typed, the list can still be read.
    keys(&mut app, "yremove");
    assert!(screen(&mut app, 80, 24).contains("> remove"));
    for key in [KeyCode::PageUp, KeyCode::PageUp] {
        press(&mut app, key);
    }
    assert!(screen(&mut app, 80, 24).contains("app-09960"));
    keys(&mut app, " 10000");
    assert!(screen(&mut app, 80, 24).contains("> remove 10000"));
    assert_eq!(press(&mut app, KeyCode::Enter).len(), 1);
}

#[test]
fn dialogs_use_the_keys_of_the_keymap() {
    let text = "pull = [\"F5\"]\nremove = [\"g x\"]\nhelp = [\"H\"]\nlog = [\"f12\"]";
    let path = std::path::Path::new("keymap.toml");
    let (keymap, _) = Keymap::read(&text.to_lowercase().replace("\"h\"", "\"H\""), path).unwrap();
    let mut app = app(populated());
    app.set_keymap(keymap);
    app.focus_on(Pane::Bucket);
    keys(&mut app, "m");
    press(&mut app, KeyCode::Enter);
    let output = screen(&mut app, 120, 40);
    // A dialog takes no chords: the default key removes.
    assert!(output.contains("f5 pull  d remove"), "{output}");
    press(&mut app, KeyCode::F(5));
    assert!(screen(&mut app, 120, 40).contains("pull to"));
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "HH");
    assert!(app.layers().is_empty());
}

#[test]
fn a_click_toggles_a_check_box_and_selects_in_a_menu() {
    let mut app = app(populated());
    app.focus_on(Pane::Snapshots);
    keys(&mut app, "d");
    let output = screen(&mut app, 80, 24);
    let (column, row) = position_of(&output, "[ ] in the bucket");
    click(&mut app, column, row);
    assert!(screen(&mut app, 80, 24).contains("[x] in the bucket"));
    press(&mut app, KeyCode::Esc);
    app.focus_on(Pane::Sandboxes);
    keys(&mut app, "o");
    let output = screen(&mut app, 80, 24);
    let (column, row) = position_of(&output, "pause ");
    assert!(click(&mut app, column, row).is_empty());
    assert_eq!(click(&mut app, column, row).len(), 1);
    assert!(app.layers().is_empty());
}

#[test]
fn a_letter_of_a_typed_confirmation_never_removes() {
    let mut app = app(populated());
    app.focus_on(Pane::Snapshots);
    press(&mut app, KeyCode::Down);
    // The copies are not known yet.
    keys(&mut app, "dym");
    assert!(screen(&mut app, 80, 24).contains("> m"));
    give_copies(&mut app);
    assert!(keys(&mut app, "yapp-v1").is_empty());
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    keys(&mut app, ".0");
    assert_eq!(press(&mut app, KeyCode::Enter).len(), 1);
}
