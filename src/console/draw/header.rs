//! The first line: the host bar, the bucket, the number of jobs and their rate.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::hosts::{HostBar, HostDetail, sign_and_words};
use crate::app::{App, Areas};
use crate::format;
use crate::theme::Theme;
use snapdeck_engine::Link;

/// A first connection attempt shows its duration from this age on.
const MIN_SHOWN_AGE: Duration = Duration::from_secs(60);
const MIN_BUCKET_WIDTH: usize = 12;

/// Returns sign, words and style of a link. `since` is when it got into this state.
pub(super) fn format_link(
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

/// Draws the header. What does not fit is left out in this order: URIs, words, hosts other than the current one.
pub(super) fn draw(app: &App, frame: &mut Frame, area: Rect, now: Instant, areas: &mut Areas) {
    let right = job_count(app);
    let room = usize::from(area.width).saturating_sub(right.width() + 1);
    let title = self::title(app, " snapdeck ");
    let whole = |detail, words| {
        let (bar, bucket) = (
            HostBar::all_hosts(app, detail, now),
            bucket_line(app, now, words, usize::MAX),
        );
        (title.width() + bar.width() + bucket.width() <= room).then(|| (title.clone(), bar, bucket))
    };
    let (title, bar, bucket) = whole(HostDetail::Uris, true)
        .or_else(|| whole(HostDetail::Words, true))
        .or_else(|| whole(HostDetail::CurrentWords, false))
        .or_else(|| whole(HostDetail::Signs, false))
        .unwrap_or_else(|| {
            let bucket = bucket_line(app, now, false, (room / 3).max(MIN_BUCKET_WIDTH));
            let bar_room = room.saturating_sub(bucket.width());
            let title = self::title(app, "");
            let bar = HostBar::around_current(app, bar_room.saturating_sub(title.width()), now);
            (title, bar, bucket)
        });
    let mut rest = Rect {
        width: u16::try_from(room).unwrap_or(area.width).min(area.width),
        ..area
    };
    for (line, bar) in [(title, None), (Line::default(), Some(bar)), (bucket, None)] {
        let line = match bar {
            Some(bar) => bar.into_line(rest, areas),
            None => line,
        };
        let width = u16::try_from(line.width())
            .unwrap_or(u16::MAX)
            .min(rest.width);
        frame.render_widget(line, rest);
        rest.x += width;
        rest.width -= width;
    }
    let width = u16::try_from(right.width()).unwrap_or(0).min(area.width);
    let end = Rect {
        x: area.right() - width,
        width,
        ..area
    };
    frame.render_widget(right.style(app.theme.title), end);
}

fn title(app: &App, program: &'static str) -> Line<'static> {
    let mut spans = vec![Span::styled(program, app.theme.title)];
    if app.read_only {
        spans.push(Span::styled("[read-only] ", app.theme.warn));
    }
    if let Some(banner) = &app.banner {
        spans.push(Span::styled(format!("[{banner}] "), app.theme.warn));
    }
    Line::from(spans)
}

/// Returns the bucket's location and link in at most `room` columns.
fn bucket_line(app: &App, now: Instant, words: bool, room: usize) -> Line<'static> {
    let bucket = &app.view.bucket;
    let location = if bucket.location.is_empty() {
        "bucket"
    } else {
        &bucket.location
    };
    let (sign, text, style) = format_link(&bucket.link, bucket.last_listing, None, now, &app.theme);
    let location = format::clip(location, room.saturating_sub(4));
    let mut spans = vec![Span::styled(format!("  {location}"), app.theme.title)];
    spans.extend(sign_and_words(sign, if words { &text } else { "" }, style));
    Line::from(spans)
}

fn job_count(app: &App) -> Line<'static> {
    let active = app
        .view
        .jobs
        .iter()
        .filter(|job| !job.state.is_finished())
        .count();
    if active == 0 {
        return Line::default();
    }
    let rate = app.rates.total();
    let rate = if rate >= 1.0 {
        format!(" ▲ {}", format::rate(rate))
    } else {
        String::new()
    };
    Line::raw(format!(" {}{rate} ", format::count(active, "job")))
}
