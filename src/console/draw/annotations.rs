//! Annotations and lineage of the selected snapshot, from its manifests.

use ratatui::text::Line;

use super::details::push_field;
use crate::app::App;
use crate::format::{parts, size};
use snapdeck_model::{Annotations, KnownDigests, Lineage, RelatedSnapshot};

/// Adds the pin, the note and the labels.
pub(super) fn push_annotations(lines: &mut Vec<Line<'static>>, app: &App) {
    let Some(Ok(lineage)) = app.lineage() else {
        return;
    };
    let theme = &app.appearance().theme;
    let pinned = |annotations: &Option<Annotations>| {
        let annotations = annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.pinned)
    };
    let host = app.lineage_query().and_then(|query| query.host);
    let host = host.map_or("the host".to_owned(), |host| host.to_string());
    let pin = match (pinned(&lineage.local), pinned(&lineage.bucket)) {
        (true, true) => Some(format!("on {host} and in the bucket")),
        (true, false) => Some(format!("on {host}")),
        (false, true) => Some("in the bucket".to_owned()),
        (false, false) => None,
    };
    if let Some(pin) = pin {
        push_field(lines, "⚑ pinned", pin, theme);
    }
    for line in lineage.note().into_iter().flat_map(str::lines) {
        push_field(lines, "note", line.to_owned(), theme);
    }
    let labelled = lineage
        .annotations()
        .find(|annotations| !annotations.labels.is_empty());
    if let Some(annotations) = labelled {
        let labels = annotations.labels.iter();
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        push_field(lines, "labels", labels.join("  "), theme);
    }
}

/// Adds where the digests are unknown, or were not recorded by a push or a pull.
fn push_digests(lines: &mut Vec<Line<'static>>, app: &App, lineage: &Lineage) {
    let host = app.lineage_query().and_then(|query| query.host);
    let host = host.map_or("the host".to_owned(), |host| host.to_string());
    let places = [
        (lineage.local_digests, format!("on {host}")),
        (lineage.bucket_digests, "in the bucket".to_owned()),
    ];
    let text = |(digests, place): (Option<KnownDigests>, String)| match digests? {
        KnownDigests::Recorded => None,
        KnownDigests::None => Some(format!("unknown {place}")),
        KnownDigests::Adopted(proof) => Some(format!("adopted {place} ({})", proof.as_str())),
    };
    let texts: Vec<String> = places.into_iter().filter_map(text).collect();
    if !texts.is_empty() {
        push_field(lines, "digests", texts.join(", "), &app.appearance().theme);
    }
}

/// Adds the parents and children, the shared blocks, and the cost of a pull.
pub(super) fn push_relatives(lines: &mut Vec<Line<'static>>, app: &App) {
    let theme = &app.appearance().theme;
    let lineage = match app.lineage() {
        None => return,
        Some(Ok(lineage)) => lineage,
        Some(Err(error)) => {
            return push_field(lines, "from", format!("unknown: {error}"), theme);
        }
    };
    push_digests(lines, app, lineage);
    if !lineage.parents.is_empty() {
        let parents: Vec<String> = lineage.parents.iter().map(parent_line).collect();
        push_field(lines, "from", parents.join(" ← "), theme);
    }
    if !lineage.children.is_empty() {
        let children: Vec<&str> = lineage.children.iter().map(|name| name.as_str()).collect();
        push_field(lines, "children", children.join(", "), theme);
    }
    if !lineage.shares.is_empty() {
        push_field(lines, "shares", parts(&lineage.shares, "with"), theme);
    }
    if !lineage.unread.is_empty() {
        let text = format!("relatives may be missing: {}", lineage.unread.join("; "));
        push_field(lines, "! lineage", text, theme);
    }
    let host = app.lineage_query().and_then(|query| query.host);
    let cost = lineage
        .pull_cost
        .as_ref()
        .filter(|cost| cost.fetch_bytes > 0);
    if let Some((cost, host)) = cost.zip(host) {
        let mut text = format!("to {host}: {}", size(cost.fetch_bytes));
        if !cost.copies.is_empty() {
            text.push_str(&format!(", {} on the host", parts(&cost.copies, "from")));
        }
        push_field(lines, "pull", text, theme);
    }
}

fn parent_line(parent: &RelatedSnapshot) -> String {
    let sign = match (parent.is_on_host, parent.is_in_bucket) {
        (true, true) => "=",
        (true, false) => "↑",
        (false, true) => "↓",
        (false, false) => "? not found",
    };
    format!("{} {sign}", parent.name)
}
