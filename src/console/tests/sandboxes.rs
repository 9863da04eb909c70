//! Sandboxes: what is seen of one that runs, and what is done to them.

use ratatui::layout::Size;
use ratatui::style::Color;

use super::*;
use crate::fixture::metrics;
use crate::picture::Canvas;
use snapdeck_engine::JobState;
use snapdeck_model::settings::PictureStyle;
use snapdeck_model::{SandboxSpec, SandboxVerb};

fn sandbox_operation(id: &str, verb: SandboxVerb) -> Operation {
    Operation::Sandbox {
        host: "alpha".parse().unwrap(),
        id: id.parse().unwrap(),
        verb,
    }
}

fn verb(id: &str, verb: SandboxVerb) -> Command {
    Command::SubmitAll(vec![sandbox_operation(id, verb)])
}

/// Makes the picture ready that the last frame left a place for.
fn prepare(app: &mut App) -> Size {
    let (picture, room) = app.pending_picture().unwrap();
    app.on_picture(app.canvas.encode(&picture, room));
    room
}

#[test]
fn details_show_what_a_running_one_does_and_its_screen() {
    let now = Instant::now();
    let mut app = app(populated());
    app.on_metrics(Some(Arc::new(metrics(now))));
    show(&mut app, 120, 40, now);
    prepare(&mut app);
    shot("live", &mut app, now);
    press(&mut app, KeyCode::Enter);
    show(&mut app, 120, 40, now);
    prepare(&mut app);
    insta::assert_snapshot!("live_tall", screen_at(&mut app, 120, 40, now));
}

#[test]
fn its_screen_fills_ours_on_a_key() {
    let now = Instant::now();
    let mut app = app(populated());
    app.on_metrics(Some(Arc::new(metrics(now))));
    keys(&mut app, "i");
    show(&mut app, 100, 30, now);
    let room = prepare(&mut app);
    assert_eq!(room, Size::new(98, 27));
    let shown = show(&mut app, 100, 30, now);
    let cells = shown.buffer();
    // Red above, blue below.
    assert_eq!(cells[(50, 3)].bg, Color::Rgb(255, 0, 0));
    assert_eq!(cells[(50, 26)].bg, Color::Rgb(0, 0, 255));
    assert!(shown.to_string().contains("screen of config-vm on alpha"));
    assert!(app.pending_picture().is_none());
    let copy = Command::Viewer {
        host: "alpha".parse().unwrap(),
        sandbox: "config-vm".parse().unwrap(),
        open: false,
    };
    assert_eq!(keys(&mut app, "v"), [copy]);
    press(&mut app, KeyCode::Esc);
    assert!(app.layers.is_empty());
}

#[test]
fn only_what_runs_and_is_shown_is_looked_at() {
    let mut app = app(populated());
    screen(&mut app, 120, 40);
    let look = app.watch_target().unwrap();
    assert_eq!(
        (look.sandbox.as_str(), look.include_screen),
        ("config-vm", true)
    );
    press(&mut app, KeyCode::End);
    assert_eq!(app.watch_target(), None, "sandbox-004 is off");
    press(&mut app, KeyCode::Home);
    app.focus_on(Pane::Snapshots);
    assert_eq!(app.watch_target(), None);
    app.focus_on(Pane::Sandboxes);
    app.canvas = Canvas::detect(PictureStyle::Off, |_| None, None);
    screen(&mut app, 120, 40);
    assert!(!app.watch_target().unwrap().include_screen);
    update(&mut app, |view| {
        set_alpha(view, |host| {
            host.link = Link::Down(Error::new(Kind::Unreachable, "away"));
        });
    });
    assert_eq!(app.watch_target(), None);
}

#[test]
fn a_picture_of_another_sandbox_is_never_shown() {
    let now = Instant::now();
    let mut app = app(populated());
    app.on_metrics(Some(Arc::new(metrics(now))));
    show(&mut app, 120, 40, now);
    let (picture, room) = app.pending_picture().unwrap();
    let late = app.canvas.encode(&picture, room);
    let mut other = metrics(now);
    other.target.sandbox = "sandbox-002".parse().unwrap();
    other.screen = None;
    app.on_metrics(Some(Arc::new(other)));
    app.on_picture(late);
    assert!(app.picture.is_none());
}

#[test]
fn keys_of_the_screen_say_why_not() {
    let mut app = app(populated());
    press(&mut app, KeyCode::End);
    for key in ["i", "v", "V"] {
        assert!(keys(&mut app, key).is_empty());
        let shown = screen(&mut app, 120, 40);
        assert!(
            shown.contains("sandbox-004 is shut off: it has no screen"),
            "{shown}"
        );
    }
}

#[test]
fn harmless_verbs_act_at_once_on_one() {
    let mut app = app(populated());
    // config-vm runs, sandbox-002 is paused, -003 saved, -004 off.
    assert_eq!(keys(&mut app, "z"), [verb("config-vm", SandboxVerb::Pause)]);
    assert!(keys(&mut app, "s").is_empty());
    assert!(screen(&mut app, 120, 40).contains("cannot start config-vm: it is already running"));
    press(&mut app, KeyCode::Down);
    assert_eq!(
        keys(&mut app, "z"),
        [verb("sandbox-002", SandboxVerb::Resume)]
    );
    press(&mut app, KeyCode::Down);
    assert_eq!(
        keys(&mut app, "s"),
        [verb("sandbox-003", SandboxVerb::Start)]
    );
    press(&mut app, KeyCode::Down);
    assert_eq!(
        keys(&mut app, "s"),
        [verb("sandbox-004", SandboxVerb::Start)]
    );
    assert!(app.layers.is_empty());
}

#[test]
fn a_stop_is_asked_for_and_one_that_failed_asks_whether_to_cut_the_power() {
    let mut app = app(populated());
    assert!(keys(&mut app, "S").is_empty());
    assert!(screen(&mut app, 80, 24).contains("stop config-vm on alpha"));
    assert_eq!(keys(&mut app, "y"), [verb("config-vm", SandboxVerb::STOP)]);
    let stop = |state: JobState| {
        let mut job = crate::fixture::running_job(7);
        job.operation = Operation::Sandbox {
            host: "alpha".parse().unwrap(),
            id: "config-vm".parse().unwrap(),
            verb: SandboxVerb::STOP,
        };
        job.state = state;
        Arc::new(job)
    };
    update(&mut app, |view| view.jobs.push(stop(JobState::Running)));
    assert!(app.layers.is_empty());
    let failed = Error::new(Kind::Conflict, "config-vm has not stopped for 60 s");
    update(&mut app, |view| {
        view.jobs.pop();
        view.jobs.push(stop(JobState::Failed(failed)));
    });
    let shown = screen(&mut app, 100, 30);
    assert!(shown.contains("force off config-vm on alpha"), "{shown}");
    assert!(shown.contains("has not stopped for 60 s"), "{shown}");
    assert_eq!(
        keys(&mut app, "y"),
        [verb("config-vm", SandboxVerb::ForceOff)]
    );
    // It is asked once.
    update(&mut app, |view| drop(view.jobs.remove(0)));
    assert!(app.layers.is_empty());
}

#[test]
fn destroy_takes_the_name_and_lists_what_goes() {
    let mut app = app(populated());
    keys(&mut app, "d");
    insta::assert_snapshot!("destroy", screen(&mut app, 80, 24));
    assert!(keys(&mut app, "y").is_empty());
    press(&mut app, KeyCode::Backspace);
    keys(&mut app, "config-v");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    keys(&mut app, "m");
    assert_eq!(
        press(&mut app, KeyCode::Enter),
        [verb("config-vm", SandboxVerb::Destroy)]
    );
}

#[test]
fn a_verb_on_all_that_are_marked_lists_them_and_who_is_left_out() {
    let mut app = app(populated());
    keys(&mut app, "    s");
    insta::assert_snapshot!("batch", screen(&mut app, 80, 24));
    let started = keys(&mut app, "y");
    let start = |id| sandbox_operation(id, SandboxVerb::Start);
    let all = vec![start("sandbox-003"), start("sandbox-004")];
    assert_eq!(started, [Command::SubmitAll(all)]);
    assert_eq!(app.host_lists().unwrap().sandboxes.marked_count(), 0);
}

#[test]
fn the_menu_has_all_verbs_and_dims_those_that_cannot_be() {
    let mut app = app(populated());
    keys(&mut app, "o");
    insta::assert_snapshot!("menu", screen(&mut app, 80, 24));
    assert!(keys(&mut app, "t").is_empty(), "it has no saved state");
    assert_eq!(keys(&mut app, "w"), [verb("config-vm", SandboxVerb::Save)]);
    keys(&mut app, "of");
    assert!(screen(&mut app, 80, 24).contains("Forces it off"));
    assert_eq!(
        keys(&mut app, "y"),
        [verb("config-vm", SandboxVerb::ForceOff)]
    );
}

fn new(id: &str, snapshot: &str, storage_bytes: Option<u64>) -> Operation {
    Operation::CreateSandbox {
        host: "alpha".parse().unwrap(),
        id: id.parse().unwrap(),
        spec: SandboxSpec {
            snapshot: snapshot.parse().unwrap(),
            cpus: Some(2),
            memory_bytes: Some(4 << 30),
            storage_bytes,
            start: true,
        },
    }
}

#[test]
fn new_stands_on_what_is_selected_and_checks_what_is_typed() {
    let mut app = app(populated());
    keys(&mut app, "n");
    assert!(
        press(&mut app, KeyCode::Enter).is_empty(),
        "it has no id yet"
    );
    keys(&mut app, "config-vm");
    assert!(screen(&mut app, 100, 30).contains("config-vm already exists"));
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    keys(&mut app, "2");
    insta::assert_snapshot!("new", screen(&mut app, 80, 24));
    let plain = new("config-vm2", "winserver-base", None);
    for _ in 0..4 {
        press(&mut app, KeyCode::Tab);
    }
    keys(&mut app, "1G");
    assert!(screen(&mut app, 100, 30).contains("smaller than the snapshot's disk"));
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    press(&mut app, KeyCode::Backspace);
    press(&mut app, KeyCode::Backspace);
    assert_eq!(
        press(&mut app, KeyCode::Enter),
        [Command::Chain(vec![plain])]
    );
}

#[test]
fn a_snapshot_that_is_only_in_the_bucket_is_pulled_first() {
    let mut app = app(populated());
    keys(&mut app, "nmine");
    press(&mut app, KeyCode::Tab);
    let ctrl_u = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
    app.on_key(ctrl_u);
    keys(&mut app, "far");
    assert!(screen(&mut app, 100, 30).contains("only in the bucket: it is pulled first (3 GiB)"));
    let pull = Operation::Pull {
        host: "alpha".parse().unwrap(),
        name: "far-away".parse().unwrap(),
        overwrite: false,
    };
    assert_eq!(
        press(&mut app, KeyCode::Enter),
        [Command::Chain(vec![pull, new("mine", "far-away", None)])]
    );
}
