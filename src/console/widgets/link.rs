//! The state of a connection in a sign and words.

use std::time::{Duration, Instant};

use ratatui::style::Style;
use ratatui::text::Span;

use crate::format;
use crate::theme::Theme;
use snapdeck_engine::Link;

/// A first connection attempt shows its duration from this age on.
const MIN_SHOWN_AGE: Duration = Duration::from_secs(60);

/// Returns sign, words and style of a link. `since` is when it got into this state.
pub(crate) fn format_link(
    link: &Link,
    last_seen: Option<Instant>,
    since: Option<Instant>,
    now: Instant,
    theme: &Theme,
) -> (&'static str, String, Style) {
    let age = |at: Instant| format::age(now.saturating_duration_since(at));
    match link {
        Link::Connecting => {
            let long = since.filter(|since| now.saturating_duration_since(*since) >= MIN_SHOWN_AGE);
            let words = match (last_seen, long) {
                (Some(seen), _) => format!("connecting, seen {} ago", age(seen)),
                (None, Some(since)) => format!("connecting {}", age(since)),
                (None, None) => "connecting".to_owned(),
            };
            ("◌", words, theme.warn)
        }
        Link::Up => ("●", String::new(), theme.good),
        Link::Down(_) => {
            let words = match (last_seen, since) {
                (Some(seen), _) => format!("unreachable, seen {} ago", age(seen)),
                (None, Some(since)) => format!("unreachable {}", age(since)),
                (None, None) => "unreachable".to_owned(),
            };
            ("✗", words, theme.bad)
        }
        Link::Unconfigured => ("–", "not configured".to_owned(), theme.dim),
    }
}

pub(crate) fn sign_and_words(sign: &'static str, words: &str, style: Style) -> [Span<'static>; 2] {
    let gap = if words.is_empty() { "" } else { " " };
    [
        Span::raw(" "),
        Span::styled(format!("{sign}{gap}{words}"), style),
    ]
}
