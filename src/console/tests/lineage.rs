//! Annotations and lineage of the selected snapshot.

use super::*;
use crate::app::LineageQuery;
use crate::dialog::{DialogAnswer, DialogQuery};
use crate::fixture::lineage;
use snapdeck_model::{ContentProof, KnownDigests};

/// Returns a console with the object `myapp-v1.0` selected and its lineage loaded.
fn with_lineage() -> App {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "j");
    assert_eq!(selected(&app), "myapp-v1.0");
    answer(&mut app, Ok(()));
    app
}

fn answer(app: &mut App, result: Result<(), &str>) -> LineageQuery {
    let query = app.pending_query().unwrap();
    let result = result.map(|()| lineage(query.name.as_str()));
    app.on_lineage(query.clone(), result.map_err(str::to_owned));
    query
}

#[test]
fn details_show_annotations_lineage_and_pull_cost() {
    let mut app = with_lineage();
    insta::assert_snapshot!("lineage", screen_at(&mut app, 120, 40, Instant::now()));
    assert_eq!(app.pending_query(), None, "there is one query");
}

#[test]
fn a_lineage_is_shown_only_for_its_snapshot() {
    let mut app = app(populated());
    assert_eq!(app.pending_query(), None, "a sandbox has no manifest");
    press(&mut app, KeyCode::Tab);
    let local = answer(&mut app, Ok(()));
    assert_eq!(local.host.as_ref().unwrap().as_str(), "alpha");
    assert!(screen(&mut app, 120, 40).contains("the one for the fair"));
    keys(&mut app, "j");
    assert!(!screen(&mut app, 120, 40).contains("the one for the fair"));
    answer(&mut app, Err("cannot reach host alpha"));
    assert!(screen(&mut app, 120, 40).contains("unknown: cannot reach host alpha"));
    // A changed size means another image.
    update(&mut app, |view| {
        set_bucket(view, |bucket| {
            bucket.objects = Arc::new([object("myapp-v1.0", 7)])
        });
    });
    assert!(app.pending_query().is_some());
    // There is no query to an unreachable host.
    update(&mut app, |view| {
        set_alpha(view, |host| {
            host.link = Link::Down(Error::new(Kind::Unreachable, "cannot reach host alpha"));
        });
    });
    assert_eq!(app.pending_query(), None);
}

#[test]
fn n_edits_the_note_and_p_toggles_the_pin() {
    let mut app = with_lineage();
    let annotate = |note: Option<&str>, pin| Command::Annotate {
        host: Some("alpha".parse().unwrap()),
        bucket: true,
        name: "myapp-v1.0".parse().unwrap(),
        change: AnnotationsPatch {
            new_note: note.map(str::to_owned),
            set_pinned: pin,
            ..AnnotationsPatch::default()
        },
    };
    assert_eq!(keys(&mut app, "P"), [annotate(None, Some(false))]);
    keys(&mut app, "N!");
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("note on myapp-v1.0"), "{output}");
    assert!(
        output.contains("Saved on alpha and in the bucket."),
        "{output}"
    );
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "q");
    app.on_event(Event::Paste("s\rx\ty\u{1b}".to_owned()));
    let commands = press_ctrl(&mut app, 's');
    let note = "the one for the fair!\nqs\nx y";
    assert_eq!(commands, [annotate(Some(note), None)]);
    assert!(app.layers().is_empty());
}

#[test]
fn a_adopts_the_selected_snapshot_where_it_is() {
    let adopt = |host: Option<&str>, name: &str| {
        Command::SubmitAll(vec![Operation::Adopt {
            host: host.map(|host| host.parse().unwrap()),
            name: name.parse().unwrap(),
        }])
    };
    let mut app = with_lineage();
    assert_eq!(keys(&mut app, "A"), [adopt(None, "myapp-v1.0")]);
    let query = app.lineage_query().unwrap();
    let mut adopted = lineage("myapp-v1.0");
    adopted.local_digests = Some(KnownDigests::None);
    adopted.bucket_digests = Some(KnownDigests::Adopted(ContentProof::Md5));
    app.on_lineage(query, Ok(adopted));
    let output = screen(&mut app, 120, 40);
    assert!(
        output.contains("unknown on alpha, adopted in the bucket (md5)"),
        "{output}"
    );
}

#[test]
fn an_edited_note_is_not_discarded_by_one_key() {
    let mut app = with_lineage();
    keys(&mut app, "N");
    press(&mut app, KeyCode::Esc);
    assert!(app.layers().is_empty(), "nothing was typed");
    keys(&mut app, "Nx");
    press(&mut app, KeyCode::Esc);
    assert!(screen(&mut app, 80, 24).contains("press esc again"));
    keys(&mut app, "y");
    assert!(!screen(&mut app, 80, 24).contains("press esc again"));
    press(&mut app, KeyCode::Esc);
    assert!(press(&mut app, KeyCode::Esc).is_empty());
    assert!(app.layers().is_empty());

    // ctrl-c closes the dialog as esc does, and then the console.
    keys(&mut app, "Nx");
    assert!(press_ctrl(&mut app, 'c').is_empty());
    assert!(screen(&mut app, 80, 24).contains("press esc again"));
    assert!(press_ctrl(&mut app, 'c').is_empty());
    assert!(app.layers().is_empty());
    update(&mut app, |view| view.jobs.clear());
    assert_eq!(press_ctrl(&mut app, 'c'), [Command::Quit]);
}

#[test]
fn a_long_note_scrolls_to_the_cursor_and_too_long_a_note_is_refused() {
    let mut app = with_lineage();
    keys(&mut app, "N");
    for line in 1..30 {
        press(&mut app, KeyCode::Enter);
        keys(&mut app, &format!("line {line}"));
    }
    let output = screen(&mut app, 80, 24);
    assert!(
        output.contains("line 29") && !output.contains("fair"),
        "{output}"
    );
    keys(&mut app, &"x".repeat(5000));
    assert!(screen(&mut app, 80, 24).contains("may have at most 4096"));
    assert!(press_ctrl(&mut app, 's').is_empty());
    assert!(!app.layers().is_empty());
}

fn press_ctrl(app: &mut App, c: char) -> Vec<Command> {
    let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    app.on_event(Event::Key(key))
}

#[test]
fn a_pull_shows_its_cost_beforehand() {
    let mut app = with_lineage();
    update(&mut app, |view| {
        let mut beta = (*view.hosts[1]).clone();
        beta.link = Link::Up;
        view.hosts[1] = Arc::new(beta);
    });
    keys(&mut app, "f");
    assert_eq!(
        app.pending_dialog_query(),
        None,
        "alpha already has the snapshot"
    );
    keys(&mut app, "j ");
    let Some(DialogQuery::PullCost(target)) = app.pending_dialog_query() else {
        panic!("no query");
    };
    let (host, name) = (target.0.as_str(), target.1.as_str());
    assert_eq!((host, name), ("beta", "myapp-v1.0"));
    let cost = lineage("myapp-v1.0").pull_cost.unwrap();
    app.on_dialog_answer(DialogAnswer::PullCost(target, Ok(cost)));
    assert_eq!(app.pending_dialog_query(), None);
    insta::assert_snapshot!("pull_cost_two", screen(&mut app, 120, 40));
    // To beta only.
    keys(&mut app, "k ");
    insta::assert_snapshot!("pull_cost", screen(&mut app, 120, 40));
}

#[test]
fn annotations_cannot_be_edited_before_they_are_loaded() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    for key in ["P", "N"] {
        assert!(keys(&mut app, key).is_empty());
        assert!(app.layers().is_empty());
        assert!(screen(&mut app, 120, 40).contains("still loading"));
    }
}

#[test]
fn what_a_lineage_lacks_is_said() {
    let mut app = with_lineage();
    let query = app.lineage_query().unwrap();
    let mut incomplete = lineage(query.name.as_str());
    incomplete.unread = vec!["cannot reach the bucket".to_owned()];
    app.on_lineage(query, Ok(incomplete));
    let output = screen(&mut app, 120, 40);
    assert!(
        output.contains("relatives may be missing: cannot reach the bucket"),
        "{output}"
    );
}

#[test]
fn dialogs_say_what_is_free_and_warn_if_it_is_not_enough() {
    let load = |free| snapdeck_model::HostLoad {
        cpus: 8,
        cpu_permille: None,
        memory_total_bytes: 64 << 30,
        memory_used_bytes: 8 << 30,
        snapshots_free_bytes: Some(free),
        snapshots_total_bytes: Some(1 << 40),
        sampled_at: Instant::now(),
    };
    let mut app = with_lineage();
    let set_free = |app: &mut App, free| {
        app.on_loads(Arc::new(BTreeMap::from([(
            "alpha".parse().unwrap(),
            load(free),
        )])));
    };
    set_free(&mut app, 500 << 30);
    keys(&mut app, "f");
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("Free: 500 GiB on alpha"), "{output}");
    assert!(!output.contains("the pull needs"), "{output}");
    set_free(&mut app, 9 << 30);
    keys(&mut app, "o");
    let output = screen(&mut app, 120, 40);
    let warning = "! alpha has 9 GiB free, the pull needs up to 10 GiB";
    assert!(output.contains(warning), "{output}");
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "hhc");
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("Free on alpha: 9 GiB"), "{output}");
}
