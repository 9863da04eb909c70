//! Details of the selected row.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::annotations;
use super::metrics;
use crate::actions::Pane;
use crate::app::App;
use crate::format::{count, fit, share_short, short_size, size, timestamp, wrap};
use crate::lookup;
use crate::pages::lists::{state_sign, state_style};
use crate::pages::locations::describe_places;
use crate::pages::{DrawContext, Subject, hosts, jobs};
use crate::theme::Theme;
use crate::widgets::chart::Chart;
use crate::widgets::gauge::gauge;
use snapdeck_engine::{HostView, Link};
use snapdeck_model::{
    ChainLink, Compression, HostName, ImageFacts, LockedResource, Object, Sandbox, Snapshot,
};

use crate::cell::Place;

/// Returns the charts of the selected sandbox if it is measured, else of the host; none with `--plain`.
pub(super) fn charts(app: &App, context: &DrawContext<'_>) -> Vec<Chart> {
    let world = context.world;
    if context.appearance.plain {
        return Vec::new();
    }
    let host = match app.selected() {
        Some(Subject::Sandbox(host, id)) if world.metrics_of(&host, &id).is_some() => {
            return metrics::charts(context, &host, &id);
        }
        Some(
            Subject::Sandbox(host, _)
            | Subject::Snapshot(_, Place::Host(host))
            | Subject::Partial(host, _)
            | Subject::Host(host),
        ) => Some(host),
        Some(Subject::Job(id)) => {
            let job = world.view().job(id);
            job.and_then(|job| job.operation.host().cloned())
        }
        Some(Subject::Snapshot(_, Place::Bucket) | Subject::Interrupted(_) | Subject::Past(_))
        | None => None,
    };
    let host = host.as_ref().or_else(|| world.current_host());
    host.map_or(Vec::new(), |host| hosts::charts(context, host))
}

/// Returns the details of the selected row, in lines of `width` columns. `has_charts`: [`charts`] are drawn below.
pub(super) fn lines(
    app: &App,
    context: &DrawContext<'_>,
    (width, height): (usize, u16),
    has_charts: bool,
) -> Vec<Line<'static>> {
    if let Some(lines) = app.page().details(context, width) {
        return lines;
    }
    let mut lines = Vec::new();
    let Some(subject) = app.selected() else {
        return lines;
    };
    let world = context.world;
    let theme = &context.appearance.theme;
    let bucket = &world.view().bucket;
    let link = match &subject {
        Subject::Sandbox(host, _) | Subject::Snapshot(_, Place::Host(host)) => {
            world.host(host).map(|host| (&host.link, host.last_scan))
        }
        Subject::Snapshot(_, Place::Bucket) => Some((&bucket.link, bucket.last_listing)),
        Subject::Partial(host, _) => world.host(host).map(|host| (&host.link, host.last_scan)),
        Subject::Job(_) | Subject::Interrupted(_) | Subject::Past(_) | Subject::Host(_) => None,
    };
    if let Some((Link::Down(error), Some(last_seen))) = link {
        let age = crate::format::age(context.now.saturating_duration_since(last_seen));
        let text = format!("✗ {error} · last seen {age} ago");
        for line in wrap(&text, width.saturating_sub(1)) {
            lines.push(Line::styled(format!(" {line}"), theme.bad));
        }
    }
    match &subject {
        Subject::Sandbox(host, id) => {
            let host = world.host(host);
            let found = host.and_then(|host| Some((host, world.sandbox(&host.name, id)?)));
            if let Some((host, sandbox)) = found {
                let uptime = metrics::format_uptime(context, sandbox, host);
                push_sandbox(&mut lines, sandbox, host, &uptime, theme);
                push_lock(
                    &mut lines,
                    context,
                    host,
                    &LockedResource::Sandbox(id.clone()),
                );
                let room = (width, height);
                metrics::push_metrics(&mut lines, context, (host, sandbox), room, has_charts);
                push_chain(&mut lines, sandbox, host, theme);
                push_capacity(&mut lines, context, host, (SANDBOX_INDENT, width));
                push_recent_jobs(
                    &mut lines,
                    context,
                    (id.as_str(), Some(&host.name)),
                    (SANDBOX_INDENT, width),
                );
            }
        }
        // The tree is about the name, wherever it is.
        Subject::Snapshot(name, _) if app.list() == Pane::Tree => {
            lines.push(Line::styled(format!(" {name}"), theme.title));
            lines.extend(describe_places(context, name, None, width));
            annotations::push_annotations(&mut lines, app);
            annotations::push_relatives(&mut lines, app);
        }
        Subject::Snapshot(name, Place::Host(host)) => {
            let host = world.host(host);
            let found = host.and_then(|host| Some((host, world.snapshot(&host.name, name)?)));
            if let Some((host, snapshot)) = found {
                push_snapshot(&mut lines, snapshot, host, app);
                push_capacity(&mut lines, context, host, (INDENT, width));
                push_recent_jobs(&mut lines, context, (name.as_str(), None), (INDENT, width));
                push_lock(
                    &mut lines,
                    context,
                    host,
                    &LockedResource::Snapshot(name.clone()),
                );
            }
        }
        Subject::Snapshot(name, Place::Bucket) => {
            if let Some(object) = world.object(name) {
                push_object(&mut lines, object, app);
                push_recent_jobs(&mut lines, context, (name.as_str(), None), (INDENT, width));
            }
        }
        Subject::Job(_) | Subject::Interrupted(_) | Subject::Past(_) | Subject::Partial(..) => {
            jobs::push_details(&mut lines, context, &subject, width);
        }
        Subject::Host(_) => {}
    }
    lines
}

/// Jobs listed below the facts of a sandbox or snapshot.
const MAX_JOBS: usize = 5;
/// Width of a bar, in columns.
const BAR: usize = 12;
const SHORT_BAR: usize = 4;
/// The width from which on bars have the whole length.
const WIDE: usize = 90;
/// Sandboxes or hosts that have a line each.
const MAX_LISTED: usize = 12;

/// Adds the load of the host, with bars.
fn push_capacity(
    lines: &mut Vec<Line<'static>>,
    context: &DrawContext<'_>,
    host: &HostView,
    (indent, width): (usize, usize),
) {
    let Some(load) = context.world.load(&host.name) else {
        return;
    };
    let theme = &context.appearance.theme;
    let mut spans = vec![Span::styled(field_label(indent, "host"), theme.label)];
    let bar_width = match width {
        ..WIDE => SHORT_BAR,
        _ => BAR,
    };
    let mut gap = "";
    let mut push = |label: &str, share: f64, text: String| {
        let bar = match context.appearance.plain {
            true => String::new(),
            false => gauge(share, bar_width) + " ",
        };
        let gap = std::mem::replace(&mut gap, "  ");
        spans.push(Span::styled(format!("{gap}{label} "), theme.dim));
        spans.push(Span::styled(bar, hosts::bar_style(share, theme)));
        spans.push(Span::raw(text));
    };
    if let Some(permille) = load.cpu_permille {
        push(
            "CPU",
            f64::from(permille) / 1000.0,
            format!("{} %", permille / 10),
        );
    }
    let (used, total) = (load.memory_used_bytes, load.memory_total_bytes);
    push(
        "mem",
        used as f64 / total.max(1) as f64,
        share_short(used, total),
    );
    if let (Some(free), Some(total)) = (load.snapshots_free_bytes, load.snapshots_total_bytes) {
        let used = 1.0 - free as f64 / total.max(1) as f64;
        push("disk", used, format!("{} free", short_size(free)));
    }
    lines.push(Line::from(spans));
}

/// Adds the last jobs about a sandbox or snapshot, newest first.
fn push_recent_jobs(
    lines: &mut Vec<Line<'static>>,
    context: &DrawContext<'_>,
    subject: (&str, Option<&HostName>),
    (indent, width): (usize, usize),
) {
    let recent = jobs::recent_lines(context, subject, MAX_JOBS, width.saturating_sub(12));
    for (at, line) in recent.into_iter().enumerate() {
        let label = if at == 0 { "jobs" } else { "" };
        let mut spans = vec![Span::styled(
            field_label(indent, label),
            context.appearance.theme.label,
        )];
        spans.extend(line.spans);
        lines.push(Line::from(spans));
    }
}

/// Adds the job of another process that holds a lock.
fn push_lock(
    lines: &mut Vec<Line<'static>>,
    context: &DrawContext<'_>,
    host: &HostView,
    resource: &LockedResource,
) {
    let Some(lock) = context.world.lock(&host.name, resource) else {
        return;
    };
    let mut text = format!(" ◌ busy: {}", lock.job);
    if !lock.holder.is_empty() {
        text.push_str(&format!(", by {}", lock.holder));
    }
    if let Some(since) = lock.since {
        text.push_str(&format!(", since {}", timestamp(since)));
    }
    lines.push(Line::styled(text, context.appearance.theme.warn));
}

fn push_sandbox(
    lines: &mut Vec<Line<'static>>,
    sandbox: &Sandbox,
    host: &HostView,
    uptime: &str,
    theme: &Theme,
) {
    lines.push(Line::from(vec![
        Span::styled(format!(" {}", sandbox.id), theme.title),
        Span::styled(
            format!("  {} {}", state_sign(sandbox.state), sandbox.state.label()),
            state_style(sandbox.state, theme),
        ),
        Span::raw(format!(
            ", {} vCPU, {}, on {}{uptime}",
            sandbox.cpus,
            size(sandbox.memory_bytes),
            host.name,
        )),
    ]));
}

fn push_chain(lines: &mut Vec<Line<'static>>, sandbox: &Sandbox, host: &HostView, theme: &Theme) {
    for (depth, link) in sandbox.chain.iter().enumerate() {
        lines.push(chain_link_line(link, depth, host, theme));
    }
}

/// Returns the line of one image of the chain, indented by its depth; the overlay has depth 0.
fn chain_link_line(
    link: &ChainLink,
    depth: usize,
    host: &HostView,
    theme: &Theme,
) -> Line<'static> {
    let snapshot = link.snapshot.as_ref();
    let name = match (snapshot, depth) {
        (Some(name), _) => name.to_string(),
        (None, 0) => "overlay".to_owned(),
        (None, _) => "base".to_owned(),
    };
    let mut facts = vec![link.size_bytes.map_or("not found".to_owned(), size)];
    let base = snapshot.and_then(|name| host.snapshots.iter().find(|base| base.name == *name));
    if let Some(base) = base {
        facts.push(format!(
            "base of {}",
            count(base.dependents.len(), "sandbox")
        ));
    }
    // Those of the whole image are in the details of the snapshot.
    facts.extend(link.facts.as_ref().map(unusual_image_info));
    let text = format!("  {}  {}", facts.join(", "), link.path);
    let style = if link.size_bytes.is_none() {
        theme.warn
    } else {
        theme.text
    };
    Line::from(vec![
        Span::styled(format!(" {}└ ", "  ".repeat(depth)), theme.dim),
        Span::styled(name, theme.title),
        Span::styled(text, style),
    ])
}

/// Cluster size that qemu-img chooses.
const USUAL_CLUSTER: u64 = 64 << 10;

/// Returns the virtual size and what is unusual about an image.
fn unusual_image_info(facts: &ImageFacts) -> String {
    let mut text = format!("virtual size {}", size(facts.virtual_size));
    if (facts.version, facts.cluster_size) != (3, USUAL_CLUSTER) {
        text.push_str(&format!(
            ", qcow2 v{}, {} clusters",
            facts.version,
            size(facts.cluster_size)
        ));
    }
    push_flags(&mut text, facts);
    text
}

fn image_info(facts: &ImageFacts) -> String {
    let mut text = format!(
        "virtual size {}, qcow2 v{}, {} clusters",
        size(facts.virtual_size),
        facts.version,
        size(facts.cluster_size)
    );
    push_flags(&mut text, facts);
    text
}

fn push_flags(text: &mut String, facts: &ImageFacts) {
    let compression = match facts.compression {
        Compression::Zlib => None,
        Compression::Zstd => Some("zstd"),
        Compression::Unknown => Some("unknown compression"),
    };
    let flags = [
        (facts.dirty, "not closed cleanly"),
        (facts.corrupt, "marked corrupt"),
        (facts.encrypted, "encrypted"),
        (facts.extended_l2, "subclusters"),
        (facts.has_external_data_file, "external data file"),
        (facts.internal_snapshots > 0, "internal snapshots"),
    ];
    let flags = flags
        .into_iter()
        .filter_map(|(set, word)| set.then_some(word));
    for word in compression.into_iter().chain(flags) {
        text.push_str(", ");
        text.push_str(word);
    }
}

/// Indent of the label of a field, and of one about a sandbox.
const INDENT: usize = 3;
const SANDBOX_INDENT: usize = 1;

fn field_label(indent: usize, label: &str) -> String {
    format!("{:indent$}{label:<9}", "")
}

/// Adds a line with a label.
pub(super) fn push_field(lines: &mut Vec<Line<'static>>, label: &str, text: String, theme: &Theme) {
    lines.push(Line::from(vec![
        Span::styled(field_label(INDENT, label), theme.label),
        Span::raw(text),
    ]));
}

fn push_snapshot(lines: &mut Vec<Line<'static>>, snapshot: &Snapshot, host: &HostView, app: &App) {
    let (world, theme) = (app.world(), &app.appearance().theme);
    let mut text = format!(
        "  {}, {} on disk",
        size(snapshot.size_bytes),
        size(snapshot.allocated_bytes)
    );
    if let Some(at) = snapshot.modified {
        text.push_str(&format!(", modified {}", timestamp(at)));
    }
    text.push_str(&format!(", on {}", host.name));
    lines.push(Line::from(vec![
        Span::styled(format!(" {}", snapshot.name), theme.title),
        Span::raw(text),
    ]));
    annotations::push_annotations(lines, app);
    if let Some(problem) = &snapshot.problem {
        lines.push(Line::styled(format!("   ! {problem}"), theme.warn));
    }
    push_dependents(lines, snapshot, host, theme);
    let object = match world.object_size(&snapshot.name) {
        Some(bytes) if bytes == snapshot.size_bytes => "in the bucket, same size".to_owned(),
        Some(bytes) => format!("in the bucket, other size: {}", size(bytes)),
        None if lookup::is_bucket_known(world.view()) => "↑ not in the bucket".to_owned(),
        None => "? unknown".to_owned(),
    };
    push_field(lines, "bucket", object, theme);
    if let Some(facts) = &snapshot.facts {
        push_field(lines, "image", image_info(facts), theme);
        if let Some(backing) = &facts.backing_file {
            push_field(lines, "backing", backing.clone(), theme);
        }
    }
    annotations::push_relatives(lines, app);
    push_field(lines, "path", snapshot.path.clone(), theme);
}

/// Adds the sandboxes that are based on a snapshot, with their states.
fn push_dependents(
    lines: &mut Vec<Line<'static>>,
    snapshot: &Snapshot,
    host: &HostView,
    theme: &Theme,
) {
    let dependents = &snapshot.dependents;
    if dependents.is_empty() {
        return push_field(lines, "used by", "no sandbox".to_owned(), theme);
    }
    if dependents.len() > MAX_LISTED {
        return push_field(lines, "used by", dependents.join(", "), theme);
    }
    let widest = dependents.iter().map(|name| name.width()).max();
    for (at, name) in dependents.iter().enumerate() {
        let label = if at == 0 { "used by" } else { "" };
        let mut spans = vec![Span::styled(field_label(INDENT, label), theme.label)];
        let sandboxes = &host.sandboxes;
        match sandboxes.iter().find(|sandbox| sandbox.id.as_str() == name) {
            Some(sandbox) => {
                let style = state_style(sandbox.state, theme);
                let overlay = sandbox.chain.first().and_then(|link| link.size_bytes);
                let overlay =
                    overlay.map_or(String::new(), |bytes| format!("overlay {}", size(bytes)));
                spans.push(Span::styled(
                    format!("{} ", state_sign(sandbox.state)),
                    style,
                ));
                spans.push(Span::raw(fit(name, widest.unwrap_or(0) + 2)));
                spans.push(Span::styled(fit(sandbox.state.as_str(), 11), style));
                spans.push(Span::raw(overlay));
            }
            None => spans.push(Span::raw(name.clone())),
        }
        lines.push(Line::from(spans));
    }
}

/// Adds on which hosts an object is, with the free space of each.
fn push_places(lines: &mut Vec<Line<'static>>, object: &Object, app: &App) {
    let (world, theme) = (app.world(), &app.appearance().theme);
    let places: Vec<(&HostView, String, Style)> = world
        .hosts()
        .map(|host| {
            let mut partials = host.partials.iter();
            let partial = partials.find(|partial| partial.name == object.name);
            let (text, style) = match world.snapshot_size(&host.name, &object.name) {
                _ if host.last_scan.is_none() => ("? unknown".to_owned(), theme.dim),
                Some(bytes) if bytes == object.size_bytes => ("✓ same".to_owned(), theme.same),
                Some(_) => ("≠ differs".to_owned(), theme.differs),
                None => match partial {
                    Some(partial) => {
                        let bytes = size(partial.allocated_bytes);
                        (format!("↓ partial, {bytes} on disk"), theme.warn)
                    }
                    None => ("↓ absent".to_owned(), theme.only_there),
                },
            };
            // The state of an unreachable host is only the last known one.
            let is_stale = lookup::is_stale(&host.link, host.last_scan);
            let stale = if is_stale { theme.dim } else { Style::new() };
            (host, text, style.patch(stale))
        })
        .collect();
    if places.len() > MAX_LISTED {
        let places = places
            .iter()
            .map(|(host, text, _)| format!("{} {text}", host.name));
        let text = places.collect::<Vec<_>>().join("   ");
        return push_field(lines, "hosts", text, theme);
    }
    let names = places.iter().map(|(host, ..)| host.name.as_str().width());
    let widest = names.max().unwrap_or(0);
    for (at, (host, text, style)) in places.into_iter().enumerate() {
        let label = if at == 0 { "hosts" } else { "" };
        let mut spans = vec![
            Span::styled(field_label(INDENT, label), theme.label),
            Span::raw(fit(host.name.as_str(), widest + 2)),
            Span::styled(fit(&text, text.width().max(11)), style),
        ];
        let load = world.load(&host.name);
        if let Some(free) = load.and_then(|load| load.snapshots_free_bytes) {
            spans.push(Span::styled(format!("{} free", size(free)), theme.number));
        }
        lines.push(Line::from(spans));
    }
}

fn push_object(lines: &mut Vec<Line<'static>>, object: &Object, app: &App) {
    let theme = &app.appearance().theme;
    let mut text = format!("  {}", size(object.size_bytes));
    if let Some(at) = object.modified {
        text.push_str(&format!(", uploaded {}", timestamp(at)));
    }
    lines.push(Line::from(vec![
        Span::styled(format!(" {}", object.name), theme.title),
        Span::raw(text),
    ]));
    annotations::push_annotations(lines, app);
    push_places(lines, object, app);
    annotations::push_relatives(lines, app);
    if let Some(problem) = &object.problem {
        push_field(lines, "problem", problem.clone(), theme);
    }
    push_field(lines, "key", object.key.clone(), theme);
    if let Some(etag) = &object.etag {
        push_field(lines, "etag", etag.clone(), theme);
    }
}
