//! The first line: hosts with their links, the bucket, jobs and their rate.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::console::app::App;
use crate::console::format;
use crate::console::theme::Theme;
use crate::engine::Link;

/// How a link is shown: sign, words, style.
pub fn link(
    link: &Link,
    seen: Option<Instant>,
    now: Instant,
    theme: &Theme,
) -> (&'static str, String, Style) {
    match link {
        Link::Opening => ("◌", "opening".to_owned(), theme.warn),
        Link::Up => ("●", String::new(), theme.good),
        Link::Down(_) => {
            let age = seen.map(|seen| format::age(now.saturating_duration_since(seen)));
            let words = age.map_or("away".to_owned(), |age| format!("away, seen {age} ago"));
            ("✗", words, theme.bad)
        }
        Link::Off => ("–", "not configured".to_owned(), theme.dim),
    }
}

/// Draws it.
pub fn draw(app: &App, frame: &mut Frame, area: Rect, now: Instant) {
    let theme = &app.theme;
    let right = work(app);
    let room = usize::from(area.width).saturating_sub(right.width() + 1);
    // What does not fit is left out from the least important on: URIs, then words.
    let line = [(true, true), (false, true), (false, false)]
        .into_iter()
        .map(|(uris, words)| left(app, now, uris, words))
        .reduce(|best, next| if best.width() <= room { best } else { next })
        .unwrap_or_default();
    frame.render_widget(
        line,
        Rect {
            width: u16::try_from(room).unwrap_or(area.width),
            ..area
        },
    );
    let width = u16::try_from(right.width()).unwrap_or(0).min(area.width);
    let place = Rect {
        x: area.right() - width,
        width,
        ..area
    };
    frame.render_widget(right.style(theme.title), place);
}

fn left(app: &App, now: Instant, uris: bool, words: bool) -> Line<'static> {
    let theme = &app.theme;
    let mut spans = vec![Span::styled(" snapdeck ", theme.title)];
    if let Some(banner) = &app.banner {
        spans.push(Span::styled(format!("[{banner}] "), theme.warn));
    }
    let link_spans = |state: &Link, seen: Option<Instant>| {
        let (sign, text, style) = link(state, seen, now, theme);
        spans_of(sign, if words { &text } else { "" }, style)
    };
    for host in &app.view.hosts {
        let current = app.host.as_ref() == Some(&host.name);
        let several = app.view.hosts.len() > 1;
        let style = if current && several {
            theme.resting
        } else {
            theme.title
        };
        spans.push(Span::raw(" "));
        spans.push(Span::styled(host.name.to_string(), style));
        spans.extend(link_spans(&host.link, host.seen));
        if uris && current {
            spans.push(Span::styled(format!(" {}", host.uri), theme.dim));
        }
        spans.push(Span::raw(" "));
    }
    let bucket = &app.view.bucket;
    let location = if bucket.location.is_empty() {
        "bucket"
    } else {
        &bucket.location
    };
    spans.push(Span::styled(format!("  {location}"), theme.title));
    spans.extend(link_spans(&bucket.link, bucket.seen));
    Line::from(spans)
}

fn spans_of(sign: &'static str, text: &str, style: Style) -> Vec<Span<'static>> {
    let gap = if text.is_empty() { "" } else { " " };
    vec![
        Span::raw(" "),
        Span::styled(format!("{sign}{gap}{text}"), style),
    ]
}

fn work(app: &App) -> Line<'static> {
    let running = app
        .view
        .jobs
        .iter()
        .filter(|job| !job.state.is_over())
        .count();
    if running == 0 {
        return Line::default();
    }
    let rate = app.meters.total();
    let rate = if rate >= 1.0 {
        format!(" ▲ {}", format::rate(rate))
    } else {
        String::new()
    };
    Line::raw(format!(" {}{rate} ", format::count(running, "job")))
}
