//! The first line: the host bar, the bucket, the number of jobs and their rate.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::host_strip::{HostBar, HostDetail};
use crate::app::App;
use crate::areas::Areas;
use crate::format;
use crate::widgets::link::{format_link, sign_and_words};

const MIN_BUCKET_WIDTH: usize = 12;

/// Draws the header. What does not fit is left out in this order: bars, load, URIs, words, hosts other than the current one.
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
    let (title, bar, bucket) = whole(HostDetail::Bars, true)
        .or_else(|| whole(HostDetail::Load, true))
        .or_else(|| whole(HostDetail::Brief, true))
        .or_else(|| whole(HostDetail::CurrentLoad, true))
        .or_else(|| whole(HostDetail::Uris, true))
        .or_else(|| whole(HostDetail::Words, true))
        .or_else(|| whole(HostDetail::CurrentWords, false))
        .or_else(|| whole(HostDetail::Signs, false))
        .unwrap_or_else(|| {
            let bucket = bucket_line(app, now, false, (room / 3).max(MIN_BUCKET_WIDTH));
            let bar_room = room.saturating_sub(bucket.width());
            let title = self::title(app, "");
            let bar = HostBar::worst_first(app, bar_room.saturating_sub(title.width()), now);
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
    frame.render_widget(right.style(app.appearance().theme.title), end);
}

fn title(app: &App, program: &'static str) -> Line<'static> {
    let mut spans = vec![Span::styled(program, app.appearance().theme.title)];
    if app.options().read_only {
        spans.push(Span::styled("[read-only] ", app.appearance().theme.warn));
    }
    if let Some(banner) = &app.options().banner {
        spans.push(Span::styled(
            format!("[{banner}] "),
            app.appearance().theme.warn,
        ));
    }
    Line::from(spans)
}

/// Returns the bucket's location and link in at most `room` columns.
fn bucket_line(app: &App, now: Instant, words: bool, room: usize) -> Line<'static> {
    let bucket = &app.view().bucket;
    let location = if bucket.location.is_empty() {
        "bucket"
    } else {
        &bucket.location
    };
    let (sign, text, style) = format_link(
        &bucket.link,
        bucket.last_listing,
        None,
        now,
        &app.appearance().theme,
    );
    let location = format::clip(location, room.saturating_sub(4));
    let mut spans = vec![Span::styled(
        format!("  {location}"),
        app.appearance().theme.title,
    )];
    spans.extend(sign_and_words(sign, if words { &text } else { "" }, style));
    Line::from(spans)
}

fn job_count(app: &App) -> Line<'static> {
    let active = app
        .view()
        .jobs
        .iter()
        .filter(|job| !job.state.is_finished())
        .count();
    if active == 0 {
        return Line::default();
    }
    let rates = app.world().rates();
    let mut text = format!(" {}", format::count(active, "job"));
    let (rate, direct) = (rates.total(), rates.direct_total());
    if rate >= 1.0 {
        let graph = rates.total_graph();
        text.push_str(&format!(" {graph} {}", format::rate(rate)));
        if direct >= 1.0 {
            // Both are smoothed, from different samples.
            let percent = (direct / rate * 100.0).round().min(100.0);
            text.push_str(&format!(", {percent} % direct"));
        }
    }
    text.push(' ');
    Line::raw(text)
}
