//! Habits of users of other consoles: annotations in filters, bookmarks, copies of paths and URLs, the definition of a
//! row, a shell on the host, the serial console, commands of one's own.

use super::super::dialog::{SerialConsole, TextSource};
use super::super::serial::SerialTerminal;
use super::*;
use snapdeck_engine::AnnotationList;
use snapdeck_model::Annotations;

fn annotations(note: &str, pinned: bool, label: (&str, &str)) -> Annotations {
    Annotations {
        notes: (!note.is_empty()).then(|| note.to_owned()),
        labels: [(label.0.to_owned(), label.1.to_owned())].into(),
        pinned,
    }
}

fn names(app: &App, pane: Pane) -> Vec<String> {
    let (_, lines) = pane_rows(app, pane, 60, 30);
    let first = |line: &ratatui::text::Line<'_>| {
        let text = line.to_string();
        let mut words = text
            .split_whitespace()
            .map(|word| word.trim_start_matches('▸'));
        words
            .find(|word| word.len() > 3)
            .unwrap_or_default()
            .to_owned()
    };
    lines.iter().map(first).collect()
}

#[test]
fn filters_by_annotations_are_read_once_and_applied() {
    let mut app = app(populated());
    app.focus_on(Pane::Snapshots);
    assert_eq!(app.pending_annotations_query(), None);
    keys(&mut app, "/pin:");
    assert_eq!(app.pending_annotations_query(), None, "it has no value yet");
    keys(&mut app, "yes");
    let query = app.pending_annotations_query().unwrap();
    assert_eq!(query.hosts[0].0.as_str(), "alpha");
    assert!(
        query.objects.is_none(),
        "only the host's snapshots are shown"
    );
    assert!(
        names(&app, Pane::Snapshots).is_empty(),
        "they are not known yet"
    );
    let alpha = Some("alpha".parse().unwrap());
    let entry = |name: &str, annotations| ((alpha.clone(), name.parse().unwrap()), annotations);
    let entries = [
        entry(
            "local-only",
            annotations("For the fair", false, ("os", "2022")),
        ),
        entry("myapp-v1.0", annotations("", true, ("team", "web"))),
        entry("winserver-base", Annotations::default()),
    ];
    let list = AnnotationList {
        entries: entries.into(),
        unread_count: 2,
    };
    app.on_annotations(query, list);
    assert_eq!(app.pending_annotations_query(), None);
    assert_eq!(names(&app, Pane::Snapshots), ["myapp-v1.0"]);
    assert!(screen(&mut app, 120, 40).contains("the annotations of 2 snapshots were not read"));
    for (filter, found) in [
        ("note:FAIR", "local-only"),
        ("label:os", "local-only"),
        ("label:team=web", "myapp-v1.0"),
        ("label=team=web", "myapp-v1.0"),
        ("pin:no !label:os", "winserver-base"),
    ] {
        press(&mut app, KeyCode::Esc);
        keys(&mut app, &format!("/{filter}"));
        assert_eq!(names(&app, Pane::Snapshots), [found], "{filter}");
    }
    // Edited annotations are read again. The message about reading them goes when they are complete.
    app.on_annotations_edited();
    let query = app.pending_annotations_query().unwrap();
    app.show_notice(crate::app::READING_ANNOTATIONS, false);
    assert!(screen(&mut app, 120, 40).contains("reading the annotations"));
    app.on_annotations(query, AnnotationList::default());
    assert!(!screen(&mut app, 120, 40).contains("reading the annotations"));
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/pin:maybe");
    assert!(screen(&mut app, 120, 40).contains("pin must be yes or no"));
}

#[test]
fn places_are_found_on_the_pages_of_locations_and_lineage() {
    let mut app = app(populated());
    for (page, pane) in [("m", Pane::Matrix), ("T", Pane::Tree)] {
        keys(&mut app, page);
        keys(&mut app, "/place=both");
        assert_eq!(app.summary(pane).visible, 2, "{page}");
        press(&mut app, KeyCode::Esc);
        keys(&mut app, "/pin:yes");
        let query = app.pending_annotations_query().unwrap();
        assert!(query.objects.is_some() && query.hosts.len() == 2);
        press(&mut app, KeyCode::Esc);
        keys(&mut app, page);
    }
}

#[test]
fn tab_completes_the_name_of_a_field() {
    let mut app = app(populated());
    app.focus_on(Pane::Snapshots);
    keys(&mut app, "/win !pl");
    press(&mut app, KeyCode::Tab);
    assert_eq!(app.filter_input().unwrap().text(), "win !place:");
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/me");
    press(&mut app, KeyCode::Tab);
    assert_eq!(app.filter_input().unwrap().text(), "memory");
    press(&mut app, KeyCode::Esc);
    // name and note begin with the same letter: tab changes nothing.
    keys(&mut app, "/n");
    press(&mut app, KeyCode::Tab);
    assert_eq!(app.filter_input().unwrap().text(), "n");
}

#[test]
fn the_copy_menu_offers_name_path_and_url() {
    let mut app = app(populated());
    app.focus_on(Pane::Snapshots);
    press(&mut app, KeyCode::Down);
    assert!(keys(&mut app, "y").is_empty());
    let output = screen(&mut app, 100, 30);
    for text in [
        "myapp-v1.0",
        "/var/lib/libvirt/snapshots/myapp-v1.0.qcow2",
        "s3://daytona/snapshots/myapp-v1.0.qcow2",
    ] {
        assert!(output.contains(text), "{text}:\n{output}");
    }
    let copied = |text: &str| vec![Command::Copy(text.to_owned())];
    assert_eq!(
        keys(&mut app, "u"),
        copied("s3://daytona/snapshots/myapp-v1.0.qcow2")
    );
    assert!(app.layers().is_empty());
    keys(&mut app, "yj");
    assert_eq!(
        press(&mut app, KeyCode::Enter),
        copied("/var/lib/libvirt/snapshots/myapp-v1.0.qcow2")
    );
    // Of several rows, each is a line. Only what all of them have is offered: one is not in the bucket.
    keys(&mut app, "gg  y");
    assert!(!screen(&mut app, 100, 30).contains("URL"));
    assert_eq!(
        keys(&mut app, "p"),
        copied(
            "/var/lib/libvirt/snapshots/local-only.qcow2\n/var/lib/libvirt/snapshots/myapp-v1.0.qcow2"
        )
    );
    press(&mut app, KeyCode::Esc);
    app.focus_on(Pane::Sandboxes);
    assert_eq!(
        keys(&mut app, "yp"),
        copied("/var/lib/libvirt/sandboxes/config-vm.qcow2")
    );
}

#[test]
fn bookmarks_of_filters_are_added_applied_and_deleted() {
    let mut app = app(populated());
    keys(&mut app, "b");
    assert!(screen(&mut app, 100, 30).contains("There are no bookmarks"));
    assert!(keys(&mut app, "a").is_empty(), "there is no filter to name");
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/state:running");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "baup");
    let commands = press(&mut app, KeyCode::Enter);
    let [Command::SaveBookmarks(bookmarks)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(bookmarks.all().len(), 1);
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.summary(Pane::Sandboxes).filter, "");
    keys(&mut app, "b");
    let output = screen(&mut app, 100, 30);
    assert!(
        output.contains("up") && output.contains("state:running"),
        "{output}"
    );
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.summary(Pane::Sandboxes).filter, "state:running");
    assert_eq!(app.summary(Pane::Sandboxes).visible, 1);
    keys(&mut app, "b");
    let commands = keys(&mut app, "d");
    let [Command::SaveBookmarks(bookmarks)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert!(bookmarks.all().is_empty());
}

#[test]
fn the_definition_of_a_row_is_read_searched_and_copied() {
    let mut app = app(populated());
    keys(&mut app, "Y");
    let source = TextSource::DomainXml("alpha".parse().unwrap(), "config-vm".parse().unwrap());
    assert_eq!(
        app.pending_dialog_query(),
        Some(DialogQuery::Text(source.clone()))
    );
    assert!(screen(&mut app, 100, 30).contains("reading…"));
    let lines: Vec<String> = (0..200).map(|line| format!("  <device{line}/>")).collect();
    let xml = format!(
        "<domain>\n{}\n  <serial type='pty'/>\n</domain>",
        lines.join("\n")
    );
    app.on_dialog_answer(DialogAnswer::Text(source, Ok(xml.clone())));
    assert_eq!(app.pending_dialog_query(), None);
    let output = screen(&mut app, 100, 30);
    assert!(
        output.contains("domain XML of config-vm on alpha"),
        "{output}"
    );
    assert!(!output.contains("<serial"), "{output}");
    keys(&mut app, "/SERIAL");
    assert!(screen(&mut app, 100, 30).contains("<serial type='pty'/>"));
    press(&mut app, KeyCode::Enter);
    assert_eq!(keys(&mut app, "y"), [Command::Copy(xml)]);
    // The first esc ends the search, the second closes.
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Esc);
    assert!(app.layers().is_empty());
    app.focus_on(Pane::Bucket);
    keys(&mut app, "Y");
    let manifest = TextSource::Manifest(None, selected(&app).parse().unwrap());
    let error = Error::new(Kind::NotFound, "manifest of far-away not found");
    app.on_dialog_answer(DialogAnswer::Text(manifest, Err(error)));
    assert!(screen(&mut app, 100, 30).contains("✗ manifest of far-away not found"));
}

#[test]
fn a_shell_is_opened_on_the_host_of_the_row() {
    let mut app = app(populated());
    assert_eq!(
        keys(&mut app, "!"),
        [Command::Shell("alpha".parse().unwrap())]
    );
    keys(&mut app, "H");
    press(&mut app, KeyCode::Down);
    assert_eq!(
        keys(&mut app, "!"),
        [Command::Shell("beta".parse().unwrap())]
    );
    let options = AppOptions {
        read_only: true,
        ..AppOptions::default()
    };
    let mut app = app_with(populated(), options);
    assert!(keys(&mut app, "!").is_empty());
    assert!(screen(&mut app, 100, 30).contains("--read-only"));
}

#[test]
fn keys_of_the_serial_console_go_to_the_guest() {
    let mut app = app(populated());
    let (host, sandbox): (snapdeck_model::HostName, snapdeck_model::SandboxId) =
        ("alpha".parse().unwrap(), "config-vm".parse().unwrap());
    assert_eq!(
        keys(&mut app, "C"),
        [Command::SerialOpen(host.clone(), sandbox.clone())]
    );
    screen(&mut app, 80, 24);
    let (columns, rows) = app.serial_size();
    assert_eq!((columns, rows), (78, 21));
    let terminal = SerialTerminal::new(columns, rows);
    app.open(Box::new(SerialConsole {
        host,
        sandbox,
        terminal: terminal.clone(),
    }));
    // A guest can neither set the terminal's title nor its clipboard, nor move outside of its area.
    let output = b"\x1b]0;evil\x07\x1b]52;c;ZXZpbA==\x07\x1b[999;999H\x1b[1;1Hlogin: \x1b[31mroot\x1b[0m\xe2\x80\xae";
    terminal.lock().unwrap().emulator.process(output);
    insta::assert_snapshot!("serial_console", screen(&mut app, 80, 24));
    let input = |text: &str| vec![Command::SerialInput(text.as_bytes().to_vec())];
    assert_eq!(keys(&mut app, "q"), input("q"));
    assert_eq!(press(&mut app, KeyCode::Esc), input("\x1b"));
    let ctrl = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    assert_eq!(app.on_key(ctrl('c')), input("\x03"));
    assert_eq!(app.on_event(Event::Paste("a\nb".to_owned())), input("a\rb"));
    // The terminal follows the screen; a serial line does not tell the guest.
    screen(&mut app, 100, 30);
    let output = screen(&mut app, 100, 30);
    assert!(output.contains("stty cols 98 rows 27"), "{output}");
    assert_eq!(terminal.lock().unwrap().emulator.screen().size(), (27, 98));
    assert_eq!(app.on_key(ctrl(']')), [Command::SerialClose]);
    assert!(app.layers().is_empty());
    // A sandbox that is shut off has none.
    press(&mut app, KeyCode::End);
    assert!(keys(&mut app, "C").is_empty());
    assert!(screen(&mut app, 120, 40).contains("it has no serial console"));
}

#[test]
fn commands_of_the_operator_run_with_the_values_of_the_row() {
    use super::super::custom::{self, CommandRun, Part};
    use super::super::keymap::Keymap;
    let text = "[[command]]\nname = \"disk info\"\nkeys = [\"alt-i\"]\non = [\"sandbox\", \"snapshot\"]\n\
                argv = [\"info\", \"--at={host}:{path}\", \"{name}\"]\nread_only = true\n\
                [[command]]\nname = \"wipe\"\nkeys = [\"alt-w\"]\non = [\"object\"]\n\
                argv = [\"wipe\", \"{object}\"]\nconfirm = true\nbackground = true\n\
                [[command]]\nname = \"by uuid\"\nkeys = [\"alt-u\"]\non = [\"sandbox\"]\nargv = [\"x\", \"{uuid}\"]\n";
    let start = |read_only| {
        let mut app = app_with(
            populated(),
            AppOptions {
                read_only,
                ..AppOptions::default()
            },
        );
        let mut keymap = Keymap::default();
        let path = std::path::Path::new("commands.toml");
        let (commands, _) = custom::read(text, path, &mut keymap).unwrap();
        app.set_keymap(keymap);
        app.set_custom_commands(commands);
        app
    };
    let alt = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::ALT);
    let words = |commands: &[Command], uuid: &str| match commands {
        [Command::Run(runs)] => match &runs[..] {
            [run] => run.words(uuid),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let mut app = start(true);
    let info = app.on_key(alt('i'));
    assert_eq!(
        words(&info, ""),
        [
            "info",
            "--at=alpha:/var/lib/libvirt/sandboxes/config-vm.qcow2",
            "config-vm"
        ]
    );
    assert!(app.on_key(alt('u')).is_empty());
    assert!(screen(&mut app, 100, 30).contains("--read-only"));
    let mut app = start(false);
    let commands = app.on_key(alt('u'));
    assert_eq!(words(&commands, "0c0a"), ["x", "0c0a"]);
    let [Command::Run(runs)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert!(
        matches!(&runs[..], [CommandRun { uuid_of: Some(_), argv, .. }]
        if argv[0] == [Part::Text("x".to_owned())])
    );
    // It is for objects only.
    assert!(app.on_key(alt('w')).is_empty());
    assert!(screen(&mut app, 120, 40).contains("wipe works in Bucket"));
    app.focus_on(Pane::Bucket);
    assert!(screen(&mut app, 200, 40).contains("alt-w wipe"));
    assert!(app.on_key(alt('w')).is_empty());
    let output = screen(&mut app, 100, 30);
    assert!(
        output.contains("s3://daytona/snapshots/far-away.qcow2"),
        "{output}"
    );
    assert_eq!(
        words(&keys(&mut app, "y"), ""),
        ["wipe", "s3://daytona/snapshots/far-away.qcow2"]
    );
    keys(&mut app, "?/alt-w");
    assert!(screen(&mut app, 100, 30).contains("Run wipe {object}."));
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Esc);
    keys(&mut app, ":wipe");
    press(&mut app, KeyCode::Enter);
    assert!(screen(&mut app, 100, 30).contains("Run this command?"));
    press(&mut app, KeyCode::Esc);
    // For several marked rows it asks first, also a command that asks for nothing else.
    app.focus_on(Pane::Snapshots);
    keys(&mut app, "  ");
    assert!(app.on_key(alt('i')).is_empty());
    let output = screen(&mut app, 120, 30);
    assert!(output.contains("Run these 2 commands"), "{output}");
    assert!(
        output.contains("info --at=alpha:/var/lib/libvirt/snapshots/myapp-v1.0.qcow2 myapp-v1.0"),
        "{output}"
    );
    let commands = keys(&mut app, "y");
    let [Command::Run(runs)] = &commands[..] else {
        panic!("{commands:?}")
    };
    let names: Vec<String> = runs.iter().map(|run| run.words("")[2].clone()).collect();
    assert_eq!(names, ["local-only", "myapp-v1.0"]);
}
