//! What is said of the selected snapshot, and its relatives.

use super::*;
use crate::dialog::Dialog;
use crate::fixture::lineage;
use crate::lineage::LineageQuery;

/// The bucket's list with `myapp-v1.0` selected, whose relatives are known.
fn with_lineage() -> App {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "j");
    assert_eq!(selected(&app), "myapp-v1.0");
    answer(&mut app, Ok(()));
    app
}

fn answer(app: &mut App, found: Result<(), &str>) -> LineageQuery {
    let asked = app.pending_query().unwrap();
    let found = found.map(|()| lineage(asked.name.as_str()));
    app.on_lineage(asked.clone(), found.map_err(str::to_owned));
    asked
}

#[test]
fn details_tell_the_pin_the_note_the_relatives_and_what_a_pull_would_fetch() {
    let mut app = with_lineage();
    insta::assert_snapshot!("kin", screen_at(&mut app, 120, 40, Instant::now()));
    assert_eq!(app.pending_query(), None, "it is asked once");
}

#[test]
fn a_selection_is_asked_about_and_an_answer_to_another_is_not_shown() {
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
    // Another length is another image.
    update(&mut app, |view| {
        set_bucket(view, |bucket| {
            bucket.objects = Arc::new([object("myapp-v1.0", 7)])
        });
    });
    assert!(app.pending_query().is_some());
    // Of a host that is away nothing is asked.
    update(&mut app, |view| {
        set_alpha(view, |host| {
            host.link = Link::Down(Error::new(Kind::Unreachable, "cannot reach host alpha"));
        });
    });
    assert_eq!(app.pending_query(), None);
}

#[test]
fn n_edits_the_note_and_p_takes_the_pin_away() {
    let mut app = with_lineage();
    let said = |note: Option<&str>, pin| Command::Annotate {
        host: Some("alpha".parse().unwrap()),
        bucket: true,
        name: "myapp-v1.0".parse().unwrap(),
        change: AnnotationsPatch {
            new_note: note.map(str::to_owned),
            set_pinned: pin,
            ..AnnotationsPatch::default()
        },
    };
    assert_eq!(keys(&mut app, "P"), [said(None, Some(false))]);
    keys(&mut app, "N!");
    let shown = screen(&mut app, 120, 40);
    assert!(shown.contains("note on myapp-v1.0"), "{shown}");
    assert!(
        shown.contains("Saved on alpha and in the bucket."),
        "{shown}"
    );
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "q");
    app.on_event(Event::Paste("s\rx\ty\u{1b}".to_owned()));
    let kept = press_ctrl(&mut app, 's');
    let note = "the one for the fair!\nqs\nx y";
    assert_eq!(kept, [said(Some(note), None)]);
    assert!(app.layers.is_empty());
}

#[test]
fn a_note_that_was_edited_is_not_lost_by_one_key() {
    let mut app = with_lineage();
    keys(&mut app, "N");
    press(&mut app, KeyCode::Esc);
    assert!(app.layers.is_empty(), "nothing was typed");
    keys(&mut app, "Nx");
    press(&mut app, KeyCode::Esc);
    assert!(screen(&mut app, 80, 24).contains("press esc again"));
    keys(&mut app, "y");
    assert!(!screen(&mut app, 80, 24).contains("press esc again"));
    press(&mut app, KeyCode::Esc);
    assert!(press(&mut app, KeyCode::Esc).is_empty());
    assert!(app.layers.is_empty());

    // ctrl-c leads out of it as esc does, and then out of the console.
    keys(&mut app, "Nx");
    assert!(press_ctrl(&mut app, 'c').is_empty());
    assert!(screen(&mut app, 80, 24).contains("press esc again"));
    assert!(press_ctrl(&mut app, 'c').is_empty());
    assert!(app.layers.is_empty());
    update(&mut app, |view| view.jobs.clear());
    assert_eq!(press_ctrl(&mut app, 'c'), [Command::Quit]);
}

#[test]
fn a_note_of_many_lines_is_seen_where_it_is_edited_and_one_too_long_is_not_kept() {
    let mut app = with_lineage();
    keys(&mut app, "N");
    for line in 1..30 {
        press(&mut app, KeyCode::Enter);
        keys(&mut app, &format!("line {line}"));
    }
    let shown = screen(&mut app, 80, 24);
    assert!(
        shown.contains("line 29") && !shown.contains("fair"),
        "{shown}"
    );
    keys(&mut app, &"x".repeat(5000));
    assert!(screen(&mut app, 80, 24).contains("may have at most 4096"));
    assert!(press_ctrl(&mut app, 's').is_empty());
    assert!(!app.layers.is_empty());
}

fn press_ctrl(app: &mut App, c: char) -> Vec<Command> {
    let key = KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    app.on_event(Event::Key(key))
}

#[test]
fn a_pull_tells_beforehand_what_is_fetched_and_what_is_copied() {
    let mut app = with_lineage();
    update(&mut app, |view| {
        let mut beta = (*view.hosts[1]).clone();
        beta.link = Link::Up;
        view.hosts[1] = Arc::new(beta);
    });
    keys(&mut app, "l");
    assert_eq!(
        app.pending_cost_query(),
        None,
        "alpha has it already: nothing moves"
    );
    keys(&mut app, "j ");
    let pair = app.pending_cost_query().unwrap();
    assert_eq!((pair.0.as_str(), pair.1.as_str()), ("beta", "myapp-v1.0"));
    let cost = lineage("myapp-v1.0").pull_cost.unwrap();
    let Some(Dialog::Pull(pull)) = app.dialog() else {
        panic!("no dialog");
    };
    pull.on_cost(pair, Ok(cost));
    assert_eq!(app.pending_cost_query(), None);
    insta::assert_snapshot!("pull_cost_two", screen(&mut app, 120, 40));
    // On beta alone.
    keys(&mut app, "k ");
    insta::assert_snapshot!("pull_cost", screen(&mut app, 120, 40));
}

#[test]
fn before_it_is_known_what_is_said_nothing_is_said_otherwise() {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    for key in ["P", "N"] {
        assert!(keys(&mut app, key).is_empty());
        assert!(app.layers.is_empty());
        assert!(screen(&mut app, 120, 40).contains("still loading"));
    }
}
