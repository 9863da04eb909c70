//! Keys and clicks.

use super::*;

#[test]
fn details_follow_the_focused_list() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::End);
    let output = screen(&mut app, 120, 40);
    assert!(
        output.contains("used by  ● config-vm    running    overlay 812 MiB"),
        "{output}"
    );
    assert!(output.contains("◌ sandbox-003  saved"), "{output}");
    press(&mut app, KeyCode::Tab);
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("hosts    alpha  ↓ absent"), "{output}");
}

#[test]
fn create_is_live_only_if_selected() {
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
            compact: false,
        })
    };
    assert_eq!(press(&mut app, KeyCode::Enter), [create(true)]);
    assert!(app.layers().is_empty());
    keys(&mut app, "cnew-one.qcow2");
    assert_eq!(press(&mut app, KeyCode::Enter), [create(false)]);
}

#[test]
fn an_existing_name_needs_overwrite() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Down);
    keys(&mut app, "pmyapp-v1.0");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert!(screen(&mut app, 80, 24).contains("myapp-v1.0 already exists in the bucket"));
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
fn push_is_refused_until_the_sandbox_is_stopped() {
    let mut app = app(populated());
    keys(&mut app, "pnew");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert!(screen(&mut app, 80, 24).contains("config-vm is running: push needs"));
    update(&mut app, |view| {
        set_alpha(view, |host| {
            host.sandboxes = Arc::new([sandbox("config-vm", SandboxState::Saved)]);
        });
    });
    assert!(screen(&mut app, 80, 24).contains("saved memory is not on the disk"));
    assert_eq!(press(&mut app, KeyCode::Enter).len(), 1);
}

#[test]
fn letters_in_a_text_input_are_not_actions() {
    let mut app = app(populated());
    let all = "cpldrxXqJL?/[]123 hjklgGyn";
    keys(&mut app, "c");
    assert!(keys(&mut app, all).is_empty());
    assert_eq!(app.layers().len(), 1);
    let output = screen(&mut app, 120, 40);
    assert!(output.contains(all), "{output}");
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/");
    assert!(keys(&mut app, all).is_empty());
    assert!(app.layers().is_empty());
    assert!(screen(&mut app, 120, 40).contains(&format!("/{all}")));
    press(&mut app, KeyCode::Esc);
    app.on_event(Event::Paste("qqq".to_owned()));
    keys(&mut app, "c");
    app.on_event(Event::Paste("pasted\n".to_owned()));
    assert!(screen(&mut app, 120, 40).contains("uploads to s3://daytona/snapshots/pasted.qcow2"));
}

#[test]
fn create_refuses_several_sandboxes() {
    let mut app = app(populated());
    keys(&mut app, "  c");
    assert!(app.layers().is_empty());
    assert!(screen(&mut app, 80, 24).contains("2 sandboxes are marked"));
}

#[test]
fn removing_the_only_copy_must_be_confirmed_by_typing() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "d");
    assert!(keys(&mut app, "y").is_empty());
    keys(&mut app, "local-only");
    assert_eq!(press(&mut app, KeyCode::Enter).len(), 1);
}

#[test]
fn the_selection_survives_a_refresh() {
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
            let remaining = host
                .snapshots
                .iter()
                .filter(|s| s.name.as_str() != "myapp-v1.0");
            host.snapshots = remaining.cloned().collect();
        });
    });
    assert_eq!(selected(&app), "winserver-base");
}

#[test]
fn each_host_has_its_own_lists() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Down);
    keys(&mut app, "]");
    assert!(screen(&mut app, 120, 40).contains("Sandboxes 0 · on beta"));
    assert!(keys(&mut app, "c").is_empty() && app.layers().is_empty());
    keys(&mut app, "1");
    assert_eq!(selected(&app), "sandbox-002");
}

#[test]
fn a_missing_bucket_is_reported_with_its_setting() {
    let mut app = app(populated());
    update(&mut app, |view| {
        view.bucket = Arc::new(BucketView {
            link: Link::Unconfigured,
            ..Default::default()
        })
    });
    assert!(screen(&mut app, 120, 40).contains("No bucket configured"));
    keys(&mut app, "c");
    assert!(app.layers().is_empty());
    assert!(app.notice().unwrap().text.contains("config.toml"));
}

#[test]
fn jobs_are_cancelled_and_dismissed() {
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
fn clicks_select_and_the_wheel_scrolls() {
    let mut app = app(populated());
    screen(&mut app, 120, 40);
    let mut mouse = |kind, column, row| {
        app.on_event(Event::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        }));
        (app.focus(), selected(&app))
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    assert_eq!(
        mouse(click, 65, 4),
        (Pane::Snapshots, "myapp-v1.0".to_owned())
    );
    assert_eq!(mouse(MouseEventKind::ScrollUp, 65, 4).1, "local-only");
    assert_eq!(mouse(click, 95, 1).0, Pane::Bucket);
}

#[test]
fn headers_and_keys_are_clicked_and_a_double_click_opens_the_details() {
    use crate::columns::Column;
    use crate::list::Sort;
    let mut app = app(populated());
    let (x, y) = position_of(&screen(&mut app, 120, 40), "OVERLAY");
    click(&mut app, x + 1, y);
    let by_size = Sort::by(Column::Size);
    assert_eq!(app.sort(Pane::Sandboxes), Some(by_size));
    assert!(screen(&mut app, 120, 40).contains("OVERLA▼"));
    click(&mut app, x + 1, y);
    assert!(!app.sort(Pane::Sandboxes).unwrap().descending);

    let (x, y) = position_of(&screen(&mut app, 120, 40), "c create");
    click(&mut app, x, y);
    assert!(screen(&mut app, 120, 40).contains("create a snapshot of config-vm"));
    press(&mut app, KeyCode::Esc);

    let (x, y) = position_of(&screen(&mut app, 120, 40), "sandbox-002");
    click(&mut app, x, y);
    assert_eq!(app.focus(), Pane::Sandboxes);
    click(&mut app, x, y);
    assert_eq!(app.focus(), Pane::Details);
}
