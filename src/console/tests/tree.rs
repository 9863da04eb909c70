//! The tree of snapshots.

use super::*;
use crate::fixture::lineage;
use snapdeck_engine::Parents;

/// The tree, opened from the snapshots, with what was made from what.
fn grown() -> App {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "T");
    let mark = app.pending_parents_query().unwrap();
    assert!(screen(&mut app, 120, 40).contains("reading manifests"));
    let pair = |of: &str, from: &str| (of.parse().unwrap(), from.parse().unwrap());
    let of = [
        pair("myapp-v1.0", "winserver-base"),
        pair("far-away", "myapp-v1.0"),
    ];
    let parents = Parents {
        parents: of.into(),
        unread_count: 0,
    };
    app.on_parents(mark, parents);
    assert!(app.pending_parents_query().is_none(), "it is asked once");
    app
}

#[test]
fn shows_what_was_made_from_what_and_who_stands_on_it() {
    let mut app = grown();
    let asked = app.pending_query().unwrap();
    let found = lineage(asked.name.as_str());
    app.on_lineage(asked, Ok(found));
    shot("tree", &mut app, Instant::now());
}

#[test]
fn what_is_selected_can_be_pulled_and_the_lists_come_back() {
    let mut app = grown();
    keys(&mut app, "G");
    keys(&mut app, "l");
    let pull = keys(&mut app, "y");
    assert_eq!(pull, [pulls(&[("far-away", "alpha")])]);
    // On a sandbox there is nothing to pull.
    keys(&mut app, "ggjjl");
    assert!(app.layers.is_empty());
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.list, Pane::Snapshots);
}

#[test]
fn the_selection_stays_when_another_snapshot_comes_and_the_parents_are_asked_again() {
    let mut app = grown();
    keys(&mut app, "G");
    update(&mut app, |view| {
        set_bucket(view, |bucket| {
            let mut objects = bucket.objects.to_vec();
            objects.insert(0, object("another", 7));
            bucket.objects = objects.into();
        });
    });
    assert!(app.pending_parents_query().is_some());
    let (name, _) = app.tree_snapshot().unwrap();
    assert_eq!(name.as_str(), "far-away");
    assert!(screen(&mut app, 120, 40).contains("another"));
}
