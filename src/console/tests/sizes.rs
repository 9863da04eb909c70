//! Every page and dialog at any size, plain and ASCII variants included.

use proptest::prelude::*;

use super::super::fixture::{fleet, many, metrics};
use super::*;
use crate::theme::Appearance;

/// The first list, and the keys that open a page or dialog from it.
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
    (Pane::Bucket, "f"),
    (Pane::Bucket, "d"),
    (Pane::Bucket, "?"),
    (Pane::Bucket, "?vnc"),
    (Pane::Bucket, ":"),
    (Pane::Bucket, ":sort"),
    (Pane::Snapshots, "m"),
    (Pane::Snapshots, "m\r"),
    (Pane::Snapshots, "m  f"),
    (Pane::Bucket, "J"),
    (Pane::Bucket, "J\r"),
    (Pane::Bucket, "LL"),
    (Pane::Bucket, "D"),
    (Pane::Bucket, "q"),
    (Pane::Sandboxes, "H"),
    (Pane::Sandboxes, "Z"),
    (Pane::Sandboxes, "gdZ"),
    (Pane::Bucket, "JZ"),
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
        page in 0..PAGES.len(), view in 0..7usize, sizes in prop::collection::vec((0u16..=500, 0u16..=200), 1..4),
        small in (0u16..=60, 0u16..=20), variant in 0..3u8, scroll in any::<bool>(),
    ) {
        let (pane, typed) = PAGES[page];
        let mut app = app(views().swap_remove(view));
        app.on_metrics(Some(Arc::new(metrics(Instant::now()))));
        let appearance = Appearance {
            plain: variant == 1,
            ascii: variant == 2,
            ..app.appearance().clone()
        };
        app.set_appearance(appearance);
        app.focus_on(pane);
        for c in typed.chars() {
            press(&mut app, if c == '\r' { KeyCode::Enter } else { KeyCode::Char(c) });
        }
        for (width, height) in sizes.into_iter().chain([small]) {
            let output = show(&mut app, width, height, Instant::now());
            if app.appearance().ascii {
                let mut symbols = output.buffer().content.iter().map(|cell| cell.symbol());
                prop_assert!(symbols.all(str::is_ascii), "{output}");
            }
            if scroll {
                press(&mut app, KeyCode::PageDown);
                press(&mut app, KeyCode::Down);
            }
        }
    }
}
