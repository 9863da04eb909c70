//! The lineage tree.

use super::*;
use crate::fixture::lineage;
use snapdeck_engine::Parents;

/// Returns a console with the tree open and the parents loaded.
fn with_tree() -> App {
    let mut app = app(populated());
    press(&mut app, KeyCode::Tab);
    keys(&mut app, "T");
    let inputs = app.pending_parents_query().unwrap();
    assert!(screen(&mut app, 120, 40).contains("reading manifests"));
    let pair = |name: &str, parent: &str| (name.parse().unwrap(), parent.parse().unwrap());
    let parents = [
        pair("myapp-v1.0", "winserver-base"),
        pair("far-away", "myapp-v1.0"),
    ];
    let parents = Parents {
        parents: parents.into(),
        unread_count: 0,
    };
    app.on_parents(inputs, parents);
    assert!(app.pending_parents_query().is_none(), "there is one query");
    app
}

#[test]
fn the_tree_shows_parents_children_and_sandboxes() {
    let mut app = with_tree();
    let query = app.pending_query().unwrap();
    let result = lineage(query.name.as_str());
    app.on_lineage(query, Ok(result));
    shot("tree", &mut app, Instant::now());
}

#[test]
fn the_selected_snapshot_can_be_pulled_and_esc_closes_the_tree() {
    let mut app = with_tree();
    keys(&mut app, "G");
    keys(&mut app, "f");
    let pull = keys(&mut app, "y");
    assert_eq!(pull, [pulls(&[("far-away", "alpha")])]);
    // A sandbox cannot be pulled.
    keys(&mut app, "ggjjf");
    assert!(app.layers().is_empty());
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.list(), Pane::Snapshots);
}

#[test]
fn a_new_snapshot_keeps_the_selection_and_queries_the_parents_again() {
    let mut app = with_tree();
    keys(&mut app, "G");
    update(&mut app, |view| {
        set_bucket(view, |bucket| {
            let mut objects = bucket.objects.to_vec();
            objects.insert(0, object("another", 7));
            bucket.objects = objects.into();
        });
    });
    assert!(app.pending_parents_query().is_some());
    assert_eq!(selected(&app), "far-away");
    assert!(screen(&mut app, 120, 40).contains("another"));
}
