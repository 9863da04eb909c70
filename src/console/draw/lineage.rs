//! What manifests tell of the selected snapshot: what is said of it, and its relatives.

use ratatui::text::Line;

use super::details::push_field;
use crate::app::App;
use crate::format::{parts, size};
use snapdeck_model::RelatedSnapshot;

/// The pin, the note and the labels.
pub(super) fn push_annotations(lines: &mut Vec<Line<'static>>, app: &App) {
    let Some(Ok(kin)) = app.lineage() else { return };
    let theme = &app.theme;
    let pinned =
        |said: &Option<snapdeck_model::Annotations>| said.as_ref().is_some_and(|said| said.pinned);
    let host = app.lineage_query().and_then(|asked| asked.host);
    let host = host.map_or("the host".to_owned(), |host| host.to_string());
    let pin = match (pinned(&kin.local), pinned(&kin.bucket)) {
        (true, true) => Some(format!("on {host} and in the bucket")),
        (true, false) => Some(format!("on {host}")),
        (false, true) => Some("in the bucket".to_owned()),
        (false, false) => None,
    };
    if let Some(pin) = pin {
        push_field(lines, "⚑ pinned", pin, theme);
    }
    for line in kin.note().into_iter().flat_map(str::lines) {
        push_field(lines, "note", line.to_owned(), theme);
    }
    if let Some(said) = kin.annotations().find(|said| !said.labels.is_empty()) {
        let labels = said.labels.iter();
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        push_field(lines, "labels", labels.join("  "), theme);
    }
}

/// Where it comes from, what it shares, and what a pull would bring.
pub(super) fn push_relatives(lines: &mut Vec<Line<'static>>, app: &App) {
    let theme = &app.theme;
    let kin = match app.lineage() {
        None => return,
        Some(Ok(kin)) => kin,
        Some(Err(why)) => return push_field(lines, "from", format!("not known: {why}"), theme),
    };
    if !kin.parents.is_empty() {
        let parents: Vec<String> = kin.parents.iter().map(parent_line).collect();
        push_field(lines, "from", parents.join(" ← "), theme);
    }
    if !kin.children.is_empty() {
        let children: Vec<&str> = kin.children.iter().map(|name| name.as_str()).collect();
        push_field(lines, "children", children.join(", "), theme);
    }
    if !kin.shares.is_empty() {
        push_field(lines, "shares", parts(&kin.shares, "with"), theme);
    }
    let host = app.lineage_query().and_then(|asked| asked.host);
    let cost = kin.pull_cost.as_ref().filter(|cost| cost.fetch_bytes > 0);
    if let Some((cost, host)) = cost.zip(host) {
        let mut text = format!("to {host}: {}", size(cost.fetch_bytes));
        if !cost.copies.is_empty() {
            text.push_str(&format!(", {} there", parts(&cost.copies, "from")));
        }
        push_field(lines, "a pull", text, theme);
    }
}

fn parent_line(parent: &RelatedSnapshot) -> String {
    let sign = match (parent.is_on_host, parent.is_in_bucket) {
        (true, true) => "=",
        (true, false) => "↑",
        (false, true) => "↓",
        (false, false) => "? not seen",
    };
    format!("{} {sign}", parent.name)
}
