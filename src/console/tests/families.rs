//! Versions of a snapshot grouped in one row.

use super::*;
use snapdeck_model::Object;

/// Returns a view whose bucket has versions of two snapshots, and another object.
fn versions() -> View {
    let mut view = populated();
    let names = [
        "app-v1",
        "app-v2",
        "app-v3",
        "lone-v1",
        "web-2026-01-31",
        "web",
    ];
    let mut objects: Vec<Object> = names.iter().map(|name| object(name, 1 << 30)).collect();
    objects.sort_by(|one, other| one.name.cmp(&other.name));
    let bucket = BucketView {
        objects: objects.into(),
        ..(*view.bucket).clone()
    };
    view.bucket = Arc::new(bucket);
    view
}

/// Returns the first two words of each row in the bucket's list.
fn rows(app: &App) -> Vec<String> {
    let (_, lines) = pane_rows(app, Pane::Bucket, 60, 30);
    let words = |line: &ratatui::text::Line<'_>| {
        let text = line.to_string();
        let words: Vec<&str> = text.split_whitespace().take(5).collect();
        words.join(" ")
    };
    lines.iter().map(words).collect()
}

#[test]
fn versions_are_grouped_with_count_and_sum() {
    let mut app = app(versions());
    keys(&mut app, "gbF");
    assert_eq!(
        rows(&app),
        [
            "+ app · 3 3G",
            "lone-v1 1G ↓ absent 2026-01-02",
            "+ web · 2 2G"
        ]
    );
    press(&mut app, KeyCode::Enter);
    assert_eq!(
        rows(&app)[..4],
        [
            "- app · 3 3G",
            "v1 1G ↓ absent 2026-01-02",
            "v2 1G ↓ absent 2026-01-02",
            "v3 1G ↓ absent 2026-01-02"
        ]
    );
    // From a version, too; the family's row is selected then.
    keys(&mut app, "jj-");
    assert_eq!(rows(&app).len(), 3);
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("app · 3 versions, 3 GiB"), "{output}");
    assert!(output.contains("app-v2"), "{output}");
    keys(&mut app, "F");
    assert_eq!(rows(&app).len(), 6);
}

#[test]
fn the_selected_family_stays_selected() {
    let mut app = app(versions());
    keys(&mut app, "gbFG");
    let mut view = versions();
    let objects = view.bucket.objects.iter();
    // Its first version goes, and a family is added before it.
    let kept = objects.filter(|object| object.name.as_str() != "web");
    let mut objects: Vec<Object> = kept.cloned().collect();
    objects.extend(["a-v1", "a-v2", "web-2026-02-28"].map(|name| object(name, 1)));
    objects.sort_by(|one, other| one.name.cmp(&other.name));
    let bucket = BucketView {
        objects: objects.into(),
        ..(*view.bucket).clone()
    };
    view.bucket = Arc::new(bucket);
    app.on_view(Arc::new(view), Instant::now());
    keys(&mut app, " ");
    assert_eq!(app.chosen_names(), ["web-2026-01-31", "web-2026-02-28"]);
}

#[test]
fn actions_apply_to_marked_families_only() {
    let mut app = app(versions());
    keys(&mut app, "gbF");
    assert!(app.chosen_names().is_empty());
    keys(&mut app, "d");
    assert!(app.layers().is_empty());
    keys(&mut app, " ");
    assert_eq!(app.chosen_names(), ["app-v1", "app-v2", "app-v3"]);
    assert!(rows(&app)[0].starts_with("▸+ app"), "{:?}", rows(&app));
    keys(&mut app, "k ");
    assert_eq!(app.chosen_names(), ["lone-v1"]);
}

#[test]
fn a_filter_shows_what_it_finds_in_families() {
    let mut app = app(versions());
    keys(&mut app, "gbF/v3");
    press(&mut app, KeyCode::Enter);
    assert_eq!(rows(&app), ["app-v3 1G ↓ absent 2026-01-02"]);
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("Bucket 1 of 6"), "{output}");
    press(&mut app, KeyCode::Esc);
    assert_eq!(rows(&app).len(), 3);
}

#[test]
fn families_are_sorted_by_their_first_version_and_restored() {
    let mut app = app(versions());
    keys(&mut app, "gbF,n,,");
    assert!(rows(&app)[0].starts_with("+ web"), "{:?}", rows(&app));
    let session = super::super::session::Session::from_app(&app);
    let mut again = super::app(empty());
    session.restore(&mut again);
    again.on_view(Arc::new(versions()), Instant::now());
    assert_eq!(rows(&again), rows(&app));
}
