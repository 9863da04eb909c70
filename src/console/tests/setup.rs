//! The setup: fields, checks while typing, and the file.

use super::*;
use crate::dialog::DialogQuery;
use snapdeck_model::settings::Settings;
use snapdeck_model::{Check, HealthReport};
use snapdeck_settings::{Discovery, Setup, SetupField};

fn setup() -> Setup {
    let loaded = snapdeck_settings::load(&Default::default(), &|_| None, None).unwrap();
    let path = "/home/op/.config/snapdeck/config.toml".into();
    let mut setup = Setup::search(path, &loaded, &|_| None);
    setup.discovery = Discovery {
        has_libvirt: true,
        ssh_hosts: vec!["rack1".into(), "rack2".into()],
        ..Discovery::default()
    };
    setup.proposed.set(SetupField::Hosts, "local");
    setup.proposed.set(SetupField::Owner, "libvirt-qemu:kvm");
    setup.proposed.set(SetupField::Profile, "");
    setup
}

fn app_with_setup() -> App {
    let options = AppOptions {
        setup: Some(Arc::new(setup())),
        ..AppOptions::default()
    };
    let mut app = app_with(empty(), options);
    app.open_setup();
    app
}

/// Returns the settings that are to be checked in the background.
fn pending(app: &App) -> Option<Arc<Settings>> {
    match app.pending_dialog_query()? {
        DialogQuery::Checks(settings) => Some(settings),
        other => panic!("{other:?}"),
    }
}

fn answer(app: &mut App, checks: &[Check]) {
    let settings = pending(app).unwrap();
    let report = HealthReport {
        host: settings.hosts.first().map(|host| host.name.clone()),
        reachable: true,
        checks: checks.to_vec(),
    };
    app.on_dialog_answer(DialogAnswer::Checks(settings, Ok(Arc::new(report))));
}

/// Goes to a field, and types a text in the place of the proposed one.
fn fill(app: &mut App, field: SetupField, text: &str) {
    press(app, KeyCode::Enter);
    while !screen(app, 120, 40).contains(field.help()) {
        press(app, KeyCode::Enter);
    }
    keys(app, text);
}

#[test]
fn each_host_and_the_bucket_are_checked_while_they_are_typed() {
    let mut app = app_with_setup();
    assert_eq!(pending(&app).unwrap().hosts[0].uri, "qemu:///system");
    let fix = "install -d -m 755 /var/lib/libvirt/snapshots";
    let finding = "/var/lib/libvirt/snapshots: No such file or directory";
    answer(
        &mut app,
        &[
            Check::passed("libvirt", "version 9.0.0"),
            Check::failed("snapshots directory", finding, fix),
        ],
    );
    assert_eq!(pending(&app), None);
    shot("setup", &mut app, Instant::now());

    keys(&mut app, "local rack");
    assert_eq!(pending(&app).unwrap().hosts[0].name.as_str(), "rack");
    keys(&mut app, "1");
    assert_eq!(
        pending(&app).unwrap().hosts[0].uri,
        "qemu+ssh://rack1/system"
    );
    answer(&mut app, &[Check::passed("libvirt", "version 9.0.0")]);
    fill(&mut app, SetupField::Bucket, "images");
    let bucket = pending(&app).unwrap();
    assert!(bucket.hosts.is_empty() && bucket.bucket.name.as_deref() == Some("images"));
    answer(&mut app, &[Check::passed("store", "responded")]);
    let text = screen(&mut app, 120, 40);
    for part in [
        fix,
        "rack1  all checks passed",
        "bucket  all checks passed",
        "Keys: none",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn enter_goes_through_the_fields_and_writes_the_file_at_the_end() {
    let mut app = app_with_setup();
    fill(&mut app, SetupField::Bucket, "images");
    let mut commands = Vec::new();
    for _ in 0..5 {
        assert_eq!(commands, []);
        commands = press(&mut app, KeyCode::Enter);
    }
    let [Command::WriteSettings { path, text }] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!(path, &setup().path);
    assert!(text.contains("\nname = \"images\"\n"), "{text}");
}

#[test]
fn an_invalid_answer_is_not_written() {
    let mut app = app_with_setup();
    fill(&mut app, SetupField::Owner, "root");
    assert!(screen(&mut app, 120, 40).contains("expected USER:GROUP"));
    // Nothing is checked with it.
    assert_eq!(pending(&app), None);
    press(&mut app, KeyCode::Enter);
    assert_eq!(press(&mut app, KeyCode::Enter), []);
    assert!(screen(&mut app, 120, 40).contains(SetupField::Owner.help()));
}

#[test]
fn without_a_settings_file_empty_lists_name_the_setup() {
    let mut app = app_with_setup();
    let mut view = empty();
    set_bucket(&mut view, |bucket| bucket.link = Link::Unconfigured);
    app.on_view(Arc::new(view.clone()), Instant::now());
    press(&mut app, KeyCode::Esc);
    app.focus_on(Pane::Bucket);
    assert!(screen(&mut app, 120, 40).contains("Press : and run setup"));
    keys(&mut app, ":setup");
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 120, 40).contains("There is no settings file yet"));

    let mut app = super::app(view);
    app.focus_on(Pane::Bucket);
    assert!(screen(&mut app, 120, 40).contains("Add [bucket] name"));
    keys(&mut app, ":setup");
    assert!(screen(&mut app, 120, 40).contains("only without a settings file"));
}

#[test]
fn the_setup_is_drawn_at_every_size() {
    let mut app = app_with_setup();
    for width in [0, 1, 9, 39, 40, 60, 80, 200] {
        for height in [0, 1, 9, 10, 20, 24, 60] {
            show(&mut app, width, height, Instant::now());
        }
    }
    let text = screen(&mut app, 60, 20);
    assert!(
        text.contains("Hosts") && text.contains("enter next"),
        "{text}"
    );
}
