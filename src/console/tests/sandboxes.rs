//! Sandboxes: metrics, screen and verbs.

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

/// Encodes the picture for the area of the last frame; returns its size.
fn prepare(app: &mut App) -> Size {
    let (picture, room) = app.pending_picture().unwrap();
    app.on_picture(app.canvas().encode(&picture, room));
    room
}

#[test]
fn details_show_metrics_and_screen() {
    let now = Instant::now();
    let mut app = app(populated());
    app.on_metrics(Some(Arc::new(metrics(now))));
    show(&mut app, 120, 40, now);
    prepare(&mut app);
    shot("live", &mut app, now);
    press(&mut app, KeyCode::Enter);
    insta::assert_snapshot!("live_tall", screen_at(&mut app, 120, 40, now));
}

#[test]
fn the_title_of_the_screen_shows_its_age() {
    let mut app = app(populated());
    let now = Instant::now();
    app.on_metrics(Some(Arc::new(metrics(now))));
    let mut after = |seconds| screen_at(&mut app, 120, 40, now + Duration::from_secs(seconds));
    for (seconds, title) in [
        (2, "Screen · live"),
        (18, "Screen · 15 s ago"),
        (200, "Screen · 3m ago"),
    ] {
        let output = after(seconds);
        assert!(output.contains(title), "{output}");
    }
    keys(&mut app, "i");
    let output = screen_at(&mut app, 120, 40, now + Duration::from_secs(70));
    assert!(
        output.contains("screen of config-vm on alpha · 1m ago"),
        "{output}"
    );
}

#[test]
fn values_stay_in_their_places_while_the_graphs_fill() {
    let mut app = app(populated());
    let now = Instant::now();
    let mut positions = |count: usize, height: u16| {
        let mut metrics = metrics(now);
        metrics.samples.truncate(count);
        app.on_metrics(Some(Arc::new(metrics)));
        let output = screen_at(&mut app, 120, height, now);
        // Charts, or graphs in a line.
        assert_eq!(output.contains("100 %│"), height == 40, "{output}");
        ["QEMU memory", "disk ", "net ", "overlay "].map(|text| position_of(&output, text))
    };
    for height in [36, 40] {
        assert_eq!(positions(1, height), positions(10, height));
    }
}

#[test]
fn the_screen_is_shown_full_size() {
    let now = Instant::now();
    let mut app = app(populated());
    app.on_metrics(Some(Arc::new(metrics(now))));
    keys(&mut app, "i");
    show(&mut app, 100, 30, now);
    let room = prepare(&mut app);
    assert_eq!(room, Size::new(98, 27));
    let output = show(&mut app, 100, 30, now);
    let cells = output.buffer();
    // Red above, blue below.
    assert_eq!(cells[(50, 3)].bg, Color::Rgb(255, 0, 0));
    assert_eq!(cells[(50, 26)].bg, Color::Rgb(0, 0, 255));
    assert!(output.to_string().contains("screen of config-vm on alpha"));
    assert!(app.pending_picture().is_none());
    let copy = Command::Viewer {
        host: "alpha".parse().unwrap(),
        sandbox: "config-vm".parse().unwrap(),
        open: false,
    };
    assert_eq!(keys(&mut app, "v"), [copy]);
    press(&mut app, KeyCode::Esc);
    assert!(app.layers().is_empty());
}

#[test]
fn only_a_selected_active_sandbox_is_watched() {
    let mut app = app(populated());
    screen(&mut app, 120, 40);
    let target = app.watch_target().unwrap();
    assert_eq!(target.sandbox.as_str(), "config-vm");
    assert!(target.include_screen);
    press(&mut app, KeyCode::End);
    assert_eq!(app.watch_target(), None, "sandbox-004 is off");
    press(&mut app, KeyCode::Home);
    app.focus_on(Pane::Snapshots);
    assert_eq!(app.watch_target(), None);
    app.focus_on(Pane::Sandboxes);
    app.set_canvas(Canvas::detect(PictureStyle::Off, |_| None, None));
    screen(&mut app, 120, 40);
    assert!(!app.watch_target().unwrap().include_screen);
    update(&mut app, |view| {
        set_alpha(view, |host| {
            host.link = Link::Down(Error::new(Kind::Unreachable, "timed out"));
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
    let late = app.canvas().encode(&picture, room);
    let mut other = metrics(now);
    other.target.sandbox = "sandbox-002".parse().unwrap();
    other.screen = None;
    app.on_metrics(Some(Arc::new(other)));
    app.on_picture(late);
    assert!(app.picture().is_none());
}

#[test]
fn a_stopped_sandbox_has_no_screen() {
    let mut app = app(populated());
    press(&mut app, KeyCode::End);
    for key in ["i", "v", "V"] {
        assert!(keys(&mut app, key).is_empty());
        let output = screen(&mut app, 120, 40);
        assert!(
            output.contains("sandbox-004 is shut off: it has no screen"),
            "{output}"
        );
    }
}

#[test]
fn harmless_verbs_run_without_confirmation() {
    let mut app = app(populated());
    // config-vm is running, sandbox-002 paused, sandbox-003 saved, sandbox-004 shut off.
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
    assert!(app.layers().is_empty());
}

#[test]
fn stop_is_confirmed_and_a_failed_stop_offers_force_off() {
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
    assert!(app.layers().is_empty());
    let failed = Error::new(Kind::Conflict, "config-vm has not stopped for 60 s");
    update(&mut app, |view| {
        view.jobs.pop();
        view.jobs.push(stop(JobState::Failed(failed)));
    });
    let output = screen(&mut app, 100, 30);
    assert!(output.contains("force off config-vm on alpha"), "{output}");
    assert!(output.contains("has not stopped for 60 s"), "{output}");
    assert_eq!(
        keys(&mut app, "y"),
        [verb("config-vm", SandboxVerb::ForceOff)]
    );
    // The offer is made once.
    update(&mut app, |view| drop(view.jobs.remove(0)));
    assert!(app.layers().is_empty());
}

#[test]
fn destroy_must_be_confirmed_by_typing() {
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
fn a_verb_on_marked_sandboxes_lists_targets_and_skipped_ones() {
    let mut app = app(populated());
    keys(&mut app, "    s");
    insta::assert_snapshot!("batch", screen(&mut app, 80, 24));
    let commands = keys(&mut app, "y");
    let start = |id| sandbox_operation(id, SandboxVerb::Start);
    let all = vec![start("sandbox-003"), start("sandbox-004")];
    assert_eq!(commands, [Command::SubmitAll(all)]);
    assert_eq!(app.summary(Pane::Sandboxes).marked, 0);
}

#[test]
fn the_menu_lists_all_verbs_and_dims_impossible_ones() {
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

#[test]
fn verbs_with_values_open_a_form_from_the_menu() {
    let mut app = app(populated());
    press(&mut app, KeyCode::End);
    keys(&mut app, "on");
    // The present id is proposed, which is not a new one.
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    keys(&mut app, "sandbox-002");
    assert!(screen(&mut app, 80, 24).contains("sandbox-002 already exists on alpha"));
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    keys(&mut app, "b");
    let (host, id) = ("alpha".parse().unwrap(), "sandbox-004".parse().unwrap());
    let rename = Operation::RenameSandbox {
        host,
        id,
        new_id: "sandbox-002b".parse().unwrap(),
    };
    assert_eq!(press(&mut app, KeyCode::Enter), [Command::Submit(rename)]);
    keys(&mut app, "om");
    assert!(screen(&mut app, 80, 24).contains("Memory: 4G"));
    keys(&mut app, "6");
    let set = SandboxVerb::Set {
        cpus: Some(6),
        memory_bytes: Some(4 << 30),
    };
    let set = Command::Submit(sandbox_operation("sandbox-004", set));
    assert_eq!(press(&mut app, KeyCode::Enter), [set]);
    // A running sandbox cannot be cloned, and several cannot be renamed.
    press(&mut app, KeyCode::Home);
    assert!(keys(&mut app, "oc").is_empty());
    assert!(!screen(&mut app, 80, 24).contains("New id:"));
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::End);
    press(&mut app, KeyCode::Up);
    keys(&mut app, "  o");
    assert!(screen(&mut app, 120, 40).contains("only possible for one sandbox"));
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
            block_network: false,
            accept_existing: false,
        },
    }
}

#[test]
fn new_uses_the_selected_base_and_validates_the_form() {
    let mut app = app(populated());
    keys(&mut app, "n");
    // Typing replaces the proposed id.
    assert!(screen(&mut app, 100, 30).contains("Id:       winserver-base-1"));
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
fn a_snapshot_only_in_the_bucket_is_pulled_first() {
    let mut app = app(populated());
    keys(&mut app, "nmine");
    press(&mut app, KeyCode::Tab);
    let ctrl_u = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
    app.on_key(ctrl_u);
    keys(&mut app, "far");
    assert!(screen(&mut app, 100, 30).contains("Id:       mine"));
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
