//! Details of the selected row.

use ratatui::text::{Line, Span};

use super::annotations;
use super::metrics;
use crate::actions::Pane;
use crate::app::App;
use crate::format::{count, size, timestamp, wrap};
use crate::lookup;
use crate::pages::lists::{state_sign, state_style};
use crate::pages::locations::describe_places;
use crate::pages::{DrawContext, Subject, jobs};
use crate::theme::Theme;
use snapdeck_engine::{HostView, Link};
use snapdeck_model::{
    ChainLink, Compression, ImageFacts, LockedResource, Object, Sandbox, Snapshot,
};

use crate::cell::Place;

/// Returns the details of the selected row, in lines of `width` columns.
pub(super) fn lines(
    app: &App,
    context: &DrawContext<'_>,
    (width, height): (usize, u16),
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
                metrics::push_metrics(&mut lines, context, (host, sandbox), (width, height));
                push_chain(&mut lines, sandbox, host, theme);
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
            }
        }
        Subject::Job(_) | Subject::Interrupted(_) | Subject::Past(_) | Subject::Partial(..) => {
            jobs::push_details(&mut lines, context, &subject, width);
        }
        Subject::Host(_) => {}
    }
    lines
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
    let dependents = if snapshot.dependents.is_empty() {
        "no sandbox".to_owned()
    } else {
        snapshot.dependents.join(", ")
    };
    push_field(lines, "used by", dependents, theme);
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

fn push_object(lines: &mut Vec<Line<'static>>, object: &Object, app: &App) {
    let (world, theme) = (app.world(), &app.appearance().theme);
    let mut text = format!("  {}", size(object.size_bytes));
    if let Some(at) = object.modified {
        text.push_str(&format!(", uploaded {}", timestamp(at)));
    }
    lines.push(Line::from(vec![
        Span::styled(format!(" {}", object.name), theme.title),
        Span::raw(text),
    ]));
    annotations::push_annotations(lines, app);
    let places = world.hosts().map(|host| {
        let sign = match world.snapshot_size(&host.name, &object.name) {
            _ if host.last_scan.is_none() => "?",
            Some(bytes) if bytes == object.size_bytes => "✓",
            Some(_) => "≠",
            None => "↓ absent",
        };
        let mut partials = host.partials.iter();
        match partials.find(|partial| partial.name == object.name) {
            Some(partial) => {
                let bytes = size(partial.allocated_bytes);
                format!("{} ↓ partial, {bytes} on disk", host.name)
            }
            None => format!("{} {sign}", host.name),
        }
    });
    push_field(
        lines,
        "hosts",
        places.collect::<Vec<_>>().join("   "),
        theme,
    );
    annotations::push_relatives(lines, app);
    if let Some(problem) = &object.problem {
        push_field(lines, "problem", problem.clone(), theme);
    }
    push_field(lines, "key", object.key.clone(), theme);
    if let Some(etag) = &object.etag {
        push_field(lines, "etag", etag.clone(), theme);
    }
}
