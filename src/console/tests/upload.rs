//! Uploads of snapshots that a host has.

use super::*;
use crate::fixture::fleet;

fn upload(name: &str, overwrite: bool) -> Operation {
    Operation::Upload {
        host: "alpha".parse().unwrap(),
        name: name.parse().unwrap(),
        overwrite,
    }
}

/// Returns a console with the snapshots of `alpha` focused.
fn on_snapshots() -> App {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    assert_eq!(selected(&app), "local-only");
    app
}

#[test]
fn a_snapshot_that_only_a_host_has_is_uploaded() {
    let mut app = on_snapshots();
    keys(&mut app, "u");
    insta::assert_snapshot!("upload", screen(&mut app, 100, 30));
    let expected = Command::SubmitAll(vec![upload("local-only", false)]);
    assert_eq!(keys(&mut app, "y"), [expected]);
    assert!(app.layers().is_empty());
}

#[test]
fn an_object_is_replaced_only_if_that_is_chosen() {
    let mut app = on_snapshots();
    keys(&mut app, "  u");
    let output = screen(&mut app, 100, 30);
    assert!(
        output.contains("skipped: already in the bucket"),
        "{output}"
    );
    keys(&mut app, "o");
    assert!(screen(&mut app, 100, 30).contains("replaces the object"));
    let both = vec![upload("local-only", false), upload("myapp-v1.0", true)];
    assert_eq!(keys(&mut app, "y"), [Command::SubmitAll(both)]);

    let mut app = on_snapshots();
    keys(&mut app, "ju");
    assert!(keys(&mut app, "y").is_empty());
    assert!(screen(&mut app, 100, 30).contains("choose overwrite to replace it"));
}

#[test]
fn what_cannot_be_uploaded_says_why() {
    let mut app = on_snapshots();
    update(&mut app, |view| {
        set_alpha(view, |host| {
            let mut snapshots = host.snapshots.to_vec();
            snapshots[0].problem = Some("it is marked corrupt".to_owned());
            host.snapshots = snapshots.into();
        });
    });
    keys(&mut app, "u");
    let output = screen(&mut app, 100, 30);
    assert!(
        output.contains("skipped: damaged: it is marked corrupt"),
        "{output}"
    );
    assert!(keys(&mut app, "y").is_empty());

    let mut app = on_snapshots();
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "u");
    let output = screen(&mut app, 100, 30);
    assert!(output.contains("upload works in"), "{output}");

    let mut app = on_snapshots();
    update(&mut app, |view| {
        set_bucket(view, |bucket| bucket.link = Link::Unconfigured);
    });
    keys(&mut app, "u");
    assert!(screen(&mut app, 100, 30).contains("no bucket configured"));
}

#[test]
fn a_snapshot_is_copied_to_other_hosts() {
    let mut app = app(fleet(Instant::now()));
    app.focus_on(Pane::Snapshots);
    let name = selected(&app);
    keys(&mut app, "R");
    insta::assert_snapshot!("copy_to", screen(&mut app, 100, 30));
    assert!(keys(&mut app, "y").is_empty(), "no host is selected");
    press(&mut app, KeyCode::Char(' '));
    let commands = keys(&mut app, "y");
    let [Command::SubmitAll(operations)] = &commands[..] else {
        panic!("{commands:?}")
    };
    let [
        Operation::Copy {
            from,
            host,
            name: copied,
            overwrite: false,
        },
    ] = &operations[..]
    else {
        panic!("{operations:?}")
    };
    assert_eq!(copied.as_str(), name);
    assert_ne!(from, host);
}

#[test]
fn a_snapshot_of_the_only_host_is_not_copied() {
    let mut app = on_snapshots();
    update(&mut app, |view| view.hosts.truncate(1));
    keys(&mut app, "R");
    assert!(screen(&mut app, 100, 30).contains("there is only one host"));
}
