//! Details of the selected row.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::draw_section;
use super::jobs_page;
use super::lineage;
use super::metrics;
use super::panes::state_sign;
use super::text;
use crate::actions::Pane;
use crate::app::{App, Areas};
use crate::dialog::describe_location;
use crate::format::{count, size, timestamp, wrap};
use crate::lookup;
use crate::theme::Theme;
use crate::tree::TreeRowKey;
use snapdeck_engine::{HostView, Link};
use snapdeck_model::{ChainLink, Compression, ImageFacts, Object, Sandbox, Snapshot};

pub(super) fn draw(app: &App, frame: &mut Frame, area: Rect, now: Instant, areas: &mut Areas) {
    let inner = draw_section(app, frame, area, Pane::Details, " Details ".to_owned());
    let picture = metrics::picture_area(app, inner);
    areas.picture = picture;
    let text_area = Rect {
        width: inner.width - picture.map_or(0, |picture| picture.width + 1),
        ..inner
    };
    let lines = build_lines(app, (text_area.width.into(), inner.height), now);
    let height = usize::from(inner.height);
    areas.details_end = u16::try_from(lines.len().saturating_sub(height)).unwrap_or(u16::MAX);
    areas.panes.push((Pane::Details, inner, 0));
    let first = usize::from(app.details.min(areas.details_end));
    let shown: Vec<Line> = lines.into_iter().skip(first).take(height).collect();
    text::draw_lines(frame, text_area, &shown);
    if let Some(picture) = picture {
        metrics::draw_picture(app, frame, picture);
    }
}

fn build_lines(app: &App, (width, height): (usize, u16), now: Instant) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let mut lines = Vec::new();
    if app.list == Pane::Matrix {
        if let Some((name, place)) = app.matrix.current() {
            let cell = app.cell(name, place);
            lines.push(Line::styled(format!(" {name}"), theme.title));
            lines.extend(describe_location(
                &app.view, place, &cell, theme, width, now,
            ));
        }
        return lines;
    }
    match app.list {
        Pane::JobsPage => {
            jobs_page::push_details(&mut lines, app, width);
            return lines;
        }
        Pane::Tree => {
            push_row_details(&mut lines, app);
            return lines;
        }
        _ => {}
    }
    let (sandbox, snapshot) = (app.sandbox(), app.snapshot());
    let selected = match app.list {
        Pane::Sandboxes => sandbox.map(|(host, _)| host),
        _ => snapshot.map(|(host, _)| host),
    };
    let link = match app.list {
        Pane::Bucket => Some((&app.view.bucket.link, app.view.bucket.last_listing)),
        _ => selected
            .or_else(|| app.host_view().filter(|_| !app.all_hosts.is_shown))
            .map(|host| (&host.link, host.last_scan)),
    };
    if let Some((Link::Down(error), Some(last_seen))) = link {
        let age = crate::format::age(now.saturating_duration_since(last_seen));
        for line in wrap(
            &format!("✗ {error} · last seen {age} ago"),
            width.saturating_sub(1),
        ) {
            lines.push(Line::styled(format!(" {line}"), theme.bad));
        }
    }
    match app.list {
        Pane::Sandboxes => {
            if let Some((host, sandbox)) = sandbox {
                let uptime = metrics::format_uptime(app, sandbox, host, now);
                push_sandbox(&mut lines, sandbox, host, &uptime, theme);
                metrics::push_metrics(&mut lines, app, (host, sandbox), (width, height), now);
                push_chain(&mut lines, sandbox, host, theme);
            }
        }
        Pane::Snapshots => {
            if let Some((host, snapshot)) = snapshot {
                push_snapshot(&mut lines, snapshot, host, app);
            }
        }
        Pane::Bucket => {
            if let Some(object) = app.objects.current(&app.view.bucket.objects) {
                push_object(&mut lines, object, app);
            }
        }
        _ => {}
    }
    lines
}

/// Adds the details of the selected row of the tree.
fn push_row_details(lines: &mut Vec<Line<'static>>, app: &App) {
    match app.tree.current() {
        Some(TreeRowKey::Sandbox(host, id)) => {
            let host = lookup::host(&app.view, host);
            let sandbox =
                host.and_then(|host| Some((host, lookup::sandbox(&app.view, &host.name, id)?)));
            if let Some((host, sandbox)) = sandbox {
                push_sandbox(lines, sandbox, host, "", &app.theme);
                push_chain(lines, sandbox, host, &app.theme);
            }
        }
        Some(TreeRowKey::Snapshot(name)) => {
            lines.push(Line::styled(format!(" {name}"), app.theme.title));
            lineage::push_annotations(lines, app);
            lineage::push_relatives(lines, app);
        }
        None => {}
    }
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
        Span::raw(format!(
            "  {} {}, {} vCPU, {}, on {}{uptime}",
            state_sign(sandbox.state),
            sandbox.state.label(),
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
    facts.extend(link.facts.as_ref().map(image_info));
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

fn image_info(facts: &ImageFacts) -> String {
    let mut text = format!(
        "virtual size {}, qcow2 v{}, {} clusters",
        size(facts.virtual_size),
        facts.version,
        size(facts.cluster_size)
    );
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
    text
}

/// Adds a line with a label.
pub(super) fn push_field(lines: &mut Vec<Line<'static>>, label: &str, text: String, theme: &Theme) {
    lines.push(Line::from(vec![
        Span::styled(format!("   {label:<9}"), theme.dim),
        Span::raw(text),
    ]));
}

fn push_snapshot(lines: &mut Vec<Line<'static>>, snapshot: &Snapshot, host: &HostView, app: &App) {
    let theme = &app.theme;
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
    lineage::push_annotations(lines, app);
    if let Some(problem) = &snapshot.problem {
        lines.push(Line::styled(format!("   ! {problem}"), theme.warn));
    }
    let dependents = if snapshot.dependents.is_empty() {
        "no sandbox".to_owned()
    } else {
        snapshot.dependents.join(", ")
    };
    push_field(lines, "used by", dependents, theme);
    let object = match app.index.size(&snapshot.name) {
        Some(bytes) if bytes == snapshot.size_bytes => "in the bucket, same size".to_owned(),
        Some(bytes) => format!("in the bucket, other size: {}", size(bytes)),
        None if lookup::is_bucket_known(&app.view) => "↑ not in the bucket".to_owned(),
        None => "? unknown".to_owned(),
    };
    push_field(lines, "bucket", object, theme);
    if let Some(facts) = &snapshot.facts {
        push_field(lines, "image", image_info(facts), theme);
        if let Some(backing) = &facts.backing_file {
            push_field(lines, "backing", backing.clone(), theme);
        }
    }
    lineage::push_relatives(lines, app);
    push_field(lines, "path", snapshot.path.clone(), theme);
}

fn push_object(lines: &mut Vec<Line<'static>>, object: &Object, app: &App) {
    let theme = &app.theme;
    let mut text = format!("  {}", size(object.size_bytes));
    if let Some(at) = object.modified {
        text.push_str(&format!(", uploaded {}", timestamp(at)));
    }
    lines.push(Line::from(vec![
        Span::styled(format!(" {}", object.name), theme.title),
        Span::raw(text),
    ]));
    lineage::push_annotations(lines, app);
    let places = app.view.hosts.iter().map(|host| {
        let local_bytes = app
            .hosts
            .get(&host.name)
            .and_then(|lists| lists.index.size(&object.name));
        let sign = match local_bytes {
            _ if host.last_scan.is_none() => "?",
            Some(bytes) if bytes == object.size_bytes => "=",
            Some(_) => "≠",
            None => "↓ absent",
        };
        format!("{} {sign}", host.name)
    });
    push_field(
        lines,
        "hosts",
        places.collect::<Vec<_>>().join("   "),
        theme,
    );
    lineage::push_relatives(lines, app);
    if let Some(problem) = &object.problem {
        push_field(lines, "problem", problem.clone(), theme);
    }
    push_field(lines, "key", object.key.clone(), theme);
    if let Some(etag) = &object.etag {
        push_field(lines, "etag", etag.clone(), theme);
    }
}
