//! Every page and every dialog, at any size, in every form.

use proptest::prelude::*;

use super::super::fixture::{fleet, many, metrics};
use super::*;

/// Keys that lead to each page and dialog, and the list they begin in.
const PAGES: &[(Pane, &str)] = &[
    (Pane::Sandboxes, ""),
    (Pane::Sandboxes, "c"),
    (Pane::Sandboxes, "cmy app;v1"),
    (Pane::Sandboxes, "p"),
    (Pane::Sandboxes, "o"),
    (Pane::Sandboxes, "d"),
    (Pane::Sandboxes, "n"),
    (Pane::Sandboxes, "i"),
    (Pane::Sandboxes, "\r"),
    (Pane::Sandboxes, "a/x"),
    (Pane::Sandboxes, ","),
    (Pane::Sandboxes, "g"),
    (Pane::Sandboxes, "/size>1G !web"),
    (Pane::Snapshots, "d"),
    (Pane::Snapshots, "  ,z"),
    (Pane::Bucket, "l"),
    (Pane::Bucket, "d"),
    (Pane::Bucket, "?"),
    (Pane::Bucket, "?vnc"),
    (Pane::Bucket, ":"),
    (Pane::Bucket, ":sort"),
    (Pane::Snapshots, "m"),
    (Pane::Snapshots, "m\r"),
    (Pane::Snapshots, "m  l"),
    (Pane::Bucket, "J"),
    (Pane::Bucket, "J\r"),
    (Pane::Bucket, "LL"),
    (Pane::Bucket, "D"),
    (Pane::Bucket, "q"),
];

fn views() -> Vec<View> {
    let now = Instant::now();
    vec![
        View::default(),
        empty(),
        populated(),
        with_health_checks(),
        fleet(now),
        many(30, 40),
        unreachable_host_view(now, Duration::from_secs(90)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn nothing_panics_at_any_size(
        page in 0..PAGES.len(), world in 0..7usize, sizes in prop::collection::vec((0u16..=500, 0u16..=200), 1..4),
        small in (0u16..=60, 0u16..=20), form in 0..3u8, scrolled in any::<bool>(),
    ) {
        let (pane, opener) = PAGES[page];
        let mut app = app(views().swap_remove(world));
        app.on_metrics(Some(Arc::new(metrics(Instant::now()))));
        (app.plain, app.ascii) = (form == 1, form == 2);
        app.focus_on(pane);
        for c in opener.chars() {
            press(&mut app, if c == '\r' { KeyCode::Enter } else { KeyCode::Char(c) });
        }
        for (width, height) in sizes.into_iter().chain([small]) {
            let shown = show(&mut app, width, height, Instant::now());
            if app.ascii {
                let signs = shown.buffer().content.iter().map(|cell| cell.symbol());
                prop_assert!(signs.clone().all(str::is_ascii), "{shown}");
            }
            if scrolled {
                press(&mut app, KeyCode::PageDown);
                press(&mut app, KeyCode::Down);
            }
        }
    }
}
