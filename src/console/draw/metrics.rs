//! Metrics of the selected sandbox: CPU, memory, disk and network use, VNC and guest addresses, and its screen.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Rect, Size};
use ratatui::text::{Line, Span};
use ratatui::widgets::Clear;
use ratatui_image::Image;

use super::dialogs::key_line;
use crate::app::App;
use crate::areas::Areas;
use crate::dialog::{Content, ScreenView};
use crate::format::{age, clip, clock, graph, rate, size, wrap};
use crate::pages::DrawContext;
use crate::theme::Theme;
use crate::widgets::chart::{Chart, Curve, Scale, window};
use crate::widgets::gauge::gauge;
use crate::widgets::text;
use snapdeck_engine::{HostView, Sample};
use snapdeck_model::{AgentChannel, Guest, GuestAccess, HostName, Sandbox, SandboxId, Vnc};

/// Smaller pictures are not shown.
const MIN_PICTURE: Size = Size::new(10, 3);
/// Up to this age a picture is as new as the samples, which are taken every 2 s.
const LIVE_PICTURE: Duration = Duration::from_secs(5);
/// Step of the seconds in an age.
const AGE_STEP: u64 = 5;
/// Minimum height of details with long graphs.
const LONG_GRAPH_HEIGHT: u16 = 9;
/// Minimum width for that: a long graph with two rates.
const LONG_GRAPH_WIDTH: usize = 60;
/// Columns of the graphs.
const LONG_GRAPH: usize = 24;
const SHORT_GRAPH: usize = 8;
/// Width of the bar of the overlay, in columns.
const OVERLAY_BAR: usize = 12;
/// Columns of the label before a graph.
const GRAPH_LABEL_WIDTH: usize = 4;
/// Columns of `123.4 MiB/s`.
const RATE_WIDTH: usize = 11;

/// Returns the size of the screen's picture beside the details, which have `area`; `None` if it is not shown.
pub(super) fn picture_size(app: &App, area: Rect) -> Option<Size> {
    let hidden = !app.layers().is_empty() && !app.canvas().is_text();
    if !app.canvas().is_enabled() || hidden {
        return None;
    }
    app.watched_sandbox()?;
    // Wide enough for a 16:9 screen, so that the text beside it does not move.
    let limit = Size::new(area.width * 2 / 5, area.height);
    let size = app.canvas().fit((16, 9), limit);
    let fits = size.width >= MIN_PICTURE.width && size.height >= MIN_PICTURE.height;
    fits.then_some(size)
}

/// Returns how old the picture is: `live`, `15 s ago`, `3m ago`; `None` if there is none.
fn picture_age(context: &DrawContext<'_>) -> Option<String> {
    let metrics = context.world.metrics()?;
    metrics.screen.as_ref()?;
    let taken = metrics.samples.back()?.time;
    let age = context.now.saturating_duration_since(taken);
    Some(match age.as_secs() {
        _ if age < LIVE_PICTURE => "live".to_owned(),
        seconds @ ..60 => format!("{} s ago", seconds / AGE_STEP * AGE_STEP),
        _ => format!("{} ago", self::age(age)),
    })
}

/// Returns the title of the picture, with its age.
pub(super) fn picture_title(context: &DrawContext<'_>) -> String {
    match picture_age(context) {
        Some(age) => format!(" Screen · {age} "),
        None => " Screen ".to_owned(),
    }
}

/// Draws the screen's picture into `room`, or a text if there is none.
pub(super) fn draw_picture(app: &App, frame: &mut Frame, room: Rect) {
    let fits = |size: Size| size.width <= room.width && size.height <= room.height;
    match app.picture().filter(|picture| fits(picture.size)) {
        Some(picture) => {
            let place = Rect {
                x: room.x + (room.width - picture.size.width) / 2,
                y: room.y + (room.height - picture.size.height) / 2,
                width: picture.size.width,
                height: picture.size.height,
            };
            frame.render_widget(Image::new(&picture.protocol), place);
        }
        None => {
            let metrics = app.world().metrics();
            let error = metrics.and_then(|metrics| metrics.screen_error.as_ref());
            let text = if error.is_some() {
                "no picture"
            } else {
                "screen…"
            };
            let line = Line::styled(clip(text, room.width.into()), app.appearance().theme.dim);
            let middle = Rect {
                y: room.y + room.height / 2,
                height: room.height.min(1),
                ..room
            };
            frame.render_widget(line.centered(), middle);
        }
    }
}

/// Draws the screen full size.
pub(super) fn draw_full_screen(
    app: &App,
    frame: &mut Frame,
    area: Rect,
    (view, content): (&ScreenView, Content<'_>),
    now: Instant,
    areas: &mut Areas,
) {
    let theme = &app.appearance().theme;
    let metrics = app.world().metrics_of(&view.host, &view.sandbox);
    let age = metrics.and_then(|_| picture_age(&app.draw_context(now)));
    let age = age.map_or(String::new(), |age| format!("· {age} "));
    let block = app.appearance().border(theme.focus).title(Line::styled(
        format!(" {} {age}", content.title),
        theme.focus,
    ));
    frame.render_widget(Clear, area);
    let inner = block.draw(frame, area);
    let room = Rect {
        height: inner.height.saturating_sub(1),
        ..inner
    };
    let last = Rect {
        y: room.bottom(),
        height: inner.height.min(1),
        ..inner
    };
    frame.render_widget(key_line(content.keys, theme), last);
    areas.picture = Some(room);
    let fits = |size: Size| size.width <= room.width && size.height <= room.height;
    let shown = app.picture().filter(|picture| fits(picture.size));
    if let (Some(picture), true) = (shown, metrics.is_some()) {
        let Size { width, height } = picture.size;
        let place = Rect {
            x: room.x + (room.width - width) / 2,
            y: room.y + (room.height - height) / 2,
            width,
            height,
        };
        return frame.render_widget(Image::new(&picture.protocol), place);
    }
    let text = match metrics.and_then(|metrics| metrics.screen_error.as_ref()) {
        _ if !app.canvas().is_enabled() => {
            "no screen: [console] picture is off or NO_COLOR is set".to_owned()
        }
        Some(error) => error.to_string(),
        None if app.watch_target().is_none() => "the sandbox is not running".to_owned(),
        None => "loading the screen…".to_owned(),
    };
    let lines = wrap(&text, room.width.into()).into_iter();
    let lines: Vec<Line> = lines.map(|line| Line::styled(line, theme.dim)).collect();
    text::draw_lines(frame, room, &lines);
}

/// Returns the uptime with a comma before it; empty if unknown.
pub(super) fn format_uptime(
    context: &DrawContext<'_>,
    sandbox: &Sandbox,
    host: &HostView,
) -> String {
    let metrics = context.world.metrics_of(&host.name, &sandbox.id);
    let started = metrics.and_then(|metrics| metrics.started_at);
    started.map_or(String::new(), |started| {
        let uptime = context.now.saturating_duration_since(started);
        format!(", up {}", clock(uptime))
    })
}

/// Adds the metrics of a sandbox that is active.
pub(super) fn push_metrics(
    lines: &mut Vec<Line<'static>>,
    context: &DrawContext<'_>,
    (host, sandbox): (&HostView, &Sandbox),
    (width, height): (usize, u16),
    has_charts: bool,
) {
    let metrics = context.world.metrics_of(&host.name, &sandbox.id);
    let Some(metrics) = metrics.filter(|_| sandbox.state.is_active()) else {
        return;
    };
    let (theme, now) = (&context.appearance.theme, context.now);
    if let Some(error) = &metrics.error {
        let text = format!(" ✗ {error}");
        lines.push(Line::styled(clip(&text, width), theme.warn));
    }
    let columns = match height >= LONG_GRAPH_HEIGHT && width >= LONG_GRAPH_WIDTH {
        true => LONG_GRAPH,
        false => SHORT_GRAPH,
    };
    match metrics.samples.back() {
        Some(last) => {
            let mut parts = Vec::new();
            if !has_charts {
                let graphs = !context.appearance.plain;
                parts = usage_spans(&metrics.samples, last, columns, graphs, theme);
            }
            let has_bar = width >= LONG_GRAPH_WIDTH && !context.appearance.plain;
            parts.extend(overlay_spans(&metrics.samples, sandbox, has_bar, theme));
            if !parts.is_empty() {
                push_flowed(lines, parts, width);
            }
        }
        None if metrics.error.is_none() => lines.push(Line::styled(" measuring…", theme.dim)),
        None => {}
    }
    if let Some(age) = metrics
        .samples
        .back()
        .map(|last| now.saturating_duration_since(last.time))
        && metrics.error.is_some()
    {
        lines.push(Line::styled(
            format!(" measured {} ago", self::age(age)),
            theme.dim,
        ));
    }
    if let Some(access) = &metrics.guest_access {
        lines.push(vnc_line(access, host, theme));
        if let Some(line) = guest_line(access, metrics.guest.as_ref(), theme) {
            lines.push(line);
        }
    }
}

type UsageColumn = Vec<Span<'static>>;

fn usage_spans(
    samples: &VecDeque<Sample>,
    last: &Sample,
    columns: usize,
    graphs: bool,
    theme: &Theme,
) -> Vec<UsageColumn> {
    let series = |value: &dyn Fn(&Sample) -> f64| -> Vec<f64> {
        let first = samples.len().saturating_sub(columns);
        samples.iter().skip(first).map(value).collect()
    };
    let part = |label: &'static str, values: Option<(Vec<f64>, f64)>, text: String| {
        let width = if values.is_some() {
            GRAPH_LABEL_WIDTH
        } else {
            0
        };
        let mut spans = vec![Span::styled(format!("{label:<width$} "), theme.label)];
        if let Some((values, scale)) = values.filter(|_| graphs) {
            // The newest value is at the right edge: while the graph fills, the parts behind it stay where they are.
            let missing = columns.saturating_sub(values.len());
            let graph = graph(&values, scale);
            let text = format!("{}{graph} ", " ".repeat(missing));
            spans.push(Span::styled(text, theme.curves[0]));
        }
        spans.push(Span::raw(text));
        spans
    };
    // For the same reason, rates have one width if there is room.
    let rate_width = if columns > SHORT_GRAPH { RATE_WIDTH } else { 0 };
    let rate = |bytes: f64| format!("{:<rate_width$}", rate(bytes));
    // In bytes per second: keeps the graph of a nearly idle device flat.
    const MIN_GRAPH_SCALE: f64 = 64.0 * 1024.0;
    let mut parts = Vec::new();
    if let Some(cpu) = last.cpu {
        let values = series(&|sample| sample.cpu.unwrap_or(0.0));
        let text = format!("{:>3.0} %", cpu * 100.0);
        parts.push(part("CPU", Some((values, 1.0)), text));
    }
    match (last.guest_memory, last.resident_bytes) {
        (Some(guest), _) => {
            let text = format!("{} of {}", size(guest.used_bytes), size(guest.total_bytes));
            parts.push(part("memory", None, text));
        }
        // The guest may use less: QEMU gives back nothing.
        (None, Some(bytes)) => parts.push(part("QEMU memory", None, size(bytes))),
        (None, None) => {}
    }
    let disk = series(&|sample| sample.read_rate + sample.write_rate);
    let text = format!("r {} w {}", rate(last.read_rate), rate(last.write_rate));
    parts.push(part("disk", Some((disk, MIN_GRAPH_SCALE)), text));
    let net = series(&|sample| sample.receive_rate + sample.send_rate);
    let text = format!(
        "in {} out {}",
        rate(last.receive_rate),
        rate(last.send_rate)
    );
    parts.push(part("net", Some((net, MIN_GRAPH_SCALE)), text));
    parts
}

/// Returns the size of the overlay, and of the disk with a bar.
fn overlay_spans(
    samples: &VecDeque<Sample>,
    sandbox: &Sandbox,
    has_bar: bool,
    theme: &Theme,
) -> Option<UsageColumn> {
    let mut text = growth_text(samples)?;
    let mut spans = vec![Span::styled("overlay ", theme.label)];
    let bytes = samples.iter().rev().find_map(|sample| sample.overlay_bytes);
    let facts = sandbox.chain.first().and_then(|link| link.facts.as_ref());
    if let Some((bytes, facts)) = bytes.zip(facts).filter(|_| has_bar) {
        let share = bytes as f64 / facts.virtual_size.max(1) as f64;
        let bar = gauge(share, OVERLAY_BAR) + " ";
        spans.push(Span::styled(bar, theme.meter));
        text = format!("{text} of {}", size(facts.virtual_size));
    }
    spans.push(Span::raw(text));
    Some(spans)
}

/// Returns the charts of CPU, memory, disk and network of a sandbox; none if it was not measured.
pub(super) fn charts(context: &DrawContext<'_>, host: &HostName, id: &SandboxId) -> Vec<Chart> {
    let (theme, world) = (&context.appearance.theme, context.world);
    let sandbox = world
        .sandbox(host, id)
        .filter(|sandbox| sandbox.state.is_active());
    let metrics = world.metrics_of(host, id);
    let Some((metrics, sandbox)) = metrics.zip(sandbox) else {
        return Vec::new();
    };
    let Some(last) = metrics.samples.back() else {
        return Vec::new();
    };
    let curve = |at: usize, legend: String, value: &dyn Fn(&Sample) -> Option<f64>| {
        let age = |sample: &Sample| {
            last.time
                .saturating_duration_since(sample.time)
                .as_secs_f64()
        };
        let samples = metrics.samples.iter();
        Curve {
            points: samples
                .filter_map(|sample| Some((age(sample), value(sample)?)))
                .collect(),
            legend,
            style: theme.curves[at],
        }
    };
    let first = metrics.samples.front().unwrap_or(last);
    let span = last.time.saturating_duration_since(first.time);
    let chart = |title: &str, scale, curves| Chart {
        title: title.to_owned(),
        curves,
        scale,
        window: window(span.as_secs_f64()),
        end: if metrics.error.is_some() {
            "last"
        } else {
            "now"
        },
    };
    let mut charts = Vec::new();
    if let Some(cpu) = last.cpu {
        let legend = format!("{:.0} %", cpu * 100.0);
        let curves = vec![curve(0, legend, &|sample| sample.cpu)];
        charts.push(chart("CPU", Scale::Percent, curves));
    }
    match (last.guest_memory, last.resident_bytes) {
        (Some(guest), _) => {
            let legend = format!("{} of {}", size(guest.used_bytes), size(guest.total_bytes));
            let used = |sample: &Sample| Some(sample.guest_memory?.used_bytes as f64);
            let curves = vec![curve(0, legend, &used)];
            charts.push(chart("memory", Scale::Bytes(guest.total_bytes), curves));
        }
        // The guest may use less: QEMU gives back nothing.
        (None, Some(bytes)) => {
            let resident = |sample: &Sample| Some(sample.resident_bytes? as f64);
            let curves = vec![curve(0, size(bytes), &resident)];
            let total = sandbox.memory_bytes.max(bytes);
            charts.push(chart("QEMU memory", Scale::Bytes(total), curves));
        }
        (None, None) => {}
    }
    let disk = vec![
        curve(
            1,
            format!("w {:<RATE_WIDTH$}", rate(last.write_rate)),
            &|sample| Some(sample.write_rate),
        ),
        curve(0, format!("r {}", rate(last.read_rate)), &|sample| {
            Some(sample.read_rate)
        }),
    ];
    charts.push(chart("disk", Scale::Rate, disk));
    let net = vec![
        curve(
            1,
            format!("out {:<RATE_WIDTH$}", rate(last.send_rate)),
            &|sample| Some(sample.send_rate),
        ),
        curve(0, format!("in {}", rate(last.receive_rate)), &|sample| {
            Some(sample.receive_rate)
        }),
    ];
    charts.push(chart("net", Scale::Rate, net));
    charts
}

/// Returns the size of the overlay, and its growth over the samples.
fn growth_text(samples: &VecDeque<Sample>) -> Option<String> {
    let overlay = |sample: &Sample| Some((sample.time, sample.overlay_bytes?));
    let (first_at, first) = samples.iter().find_map(overlay)?;
    let (last_at, last) = samples.iter().rev().find_map(overlay)?;
    let span = last_at.saturating_duration_since(first_at);
    let grown = last.saturating_sub(first);
    Some(match grown > 0 && span > Duration::ZERO {
        true => format!("{} (+{} in {})", size(last), size(grown), clock(span)),
        false => size(last),
    })
}

/// Adds the parts in lines, as many in each as fit.
fn push_flowed(lines: &mut Vec<Line<'static>>, parts: Vec<UsageColumn>, width: usize) {
    let mut line = Line::raw(" ");
    for part in parts {
        let part = Line::from(part);
        if line.width() > 1 && line.width() + part.width() > width {
            lines.push(std::mem::replace(&mut line, Line::raw(" ")));
        }
        line.spans.extend(part.spans);
        line.push_span(Span::raw("  "));
    }
    lines.push(line);
}

fn vnc_line(access: &GuestAccess, host: &HostView, theme: &Theme) -> Line<'static> {
    let text = match &access.vnc {
        None => "none".to_owned(),
        Some(vnc @ Vnc::Tcp { .. }) => {
            format!(
                "{vnc} on {} (v copies the URL, V opens a viewer)",
                host.name
            )
        }
        Some(vnc) => format!("{vnc} on {}", host.name),
    };
    Line::from(vec![Span::styled(" VNC ", theme.label), Span::raw(text)])
}

fn guest_line(access: &GuestAccess, guest: Option<&Guest>, theme: &Theme) -> Option<Line<'static>> {
    let describe = |guest: &Guest| {
        let names = [guest.os.clone(), guest.hostname.clone()];
        let parts: Vec<String> = names
            .into_iter()
            .flatten()
            .chain(guest.addresses.iter().cloned())
            .collect();
        if parts.is_empty() {
            return "not reported by the guest agent".to_owned();
        }
        parts.join(", ")
    };
    let text = match (access.agent, guest) {
        (AgentChannel::None, _) => return None,
        (AgentChannel::Connected, Some(guest)) => describe(guest),
        (AgentChannel::Connected, None) => "the guest agent does not respond".to_owned(),
        (AgentChannel::Disconnected, _) => {
            "no guest agent (still booting, or not installed)".to_owned()
        }
    };
    Some(Line::from(vec![
        Span::styled(" guest ", theme.label),
        Span::raw(text),
    ]))
}
