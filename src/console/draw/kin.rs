//! What manifests tell of the selected snapshot: what is said of it, and its relatives.

use ratatui::text::Line;

use super::details::fact;
use crate::console::app::App;
use crate::console::format::size;
use crate::model::{Lineage, Relative};

/// The pin, the note and the labels.
pub fn said(lines: &mut Vec<Line<'static>>, app: &App) {
    let Some(Ok(kin)) = app.kin() else { return };
    let theme = &app.theme;
    let pinned =
        |said: &Option<crate::model::Remarks>| said.as_ref().is_some_and(|said| said.pinned);
    let host = app.asked().and_then(|asked| asked.host);
    let host = host.map_or("the host".to_owned(), |host| host.to_string());
    let pin = match (pinned(&kin.local), pinned(&kin.bucket)) {
        (true, true) => Some(format!("on {host} and in the bucket")),
        (true, false) => Some(format!("on {host}")),
        (false, true) => Some("in the bucket".to_owned()),
        (false, false) => None,
    };
    if let Some(pin) = pin {
        fact(lines, "⚑ pinned", pin, theme);
    }
    for line in kin.note().into_iter().flat_map(str::lines) {
        fact(lines, "note", line.to_owned(), theme);
    }
    if let Some(said) = kin.said().find(|said| !said.labels.is_empty()) {
        let labels = said.labels.iter();
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        fact(lines, "labels", labels.join("  "), theme);
    }
}

/// Where it comes from, what it shares, and what a pull would bring.
pub fn relatives(lines: &mut Vec<Line<'static>>, app: &App) {
    let theme = &app.theme;
    let kin = match app.kin() {
        None => return,
        Some(Ok(kin)) => kin,
        Some(Err(why)) => return fact(lines, "from", format!("not known: {why}"), theme),
    };
    if !kin.parents.is_empty() {
        let parents: Vec<String> = kin.parents.iter().map(of_parent).collect();
        fact(lines, "from", parents.join(" ← "), theme);
    }
    if !kin.children.is_empty() {
        let children: Vec<&str> = kin.children.iter().map(|name| name.as_str()).collect();
        fact(lines, "children", children.join(", "), theme);
    }
    let host = app.asked().and_then(|asked| asked.host);
    if let Some(shared) = shares(kin, host.as_ref().map(|host| host.as_str())) {
        fact(lines, "shares", shared, theme);
    }
    if let Some((cost, host)) = kin.pull.zip(host).filter(|(cost, _)| cost.fetch_bytes > 0) {
        let mut text = format!("to {host} would fetch {}", size(cost.fetch_bytes));
        if cost.copy_bytes > 0 {
            text.push_str(&format!(" and copy {} there", size(cost.copy_bytes)));
        }
        fact(lines, "a pull", text, theme);
    }
}

fn of_parent(parent: &Relative) -> String {
    let sign = match (parent.on_host, parent.in_bucket) {
        (true, true) => "=",
        (true, false) => "↑",
        (false, true) => "↓",
        (false, false) => "? not seen",
    };
    format!("{} {sign}", parent.name)
}

fn shares(kin: &Lineage, host: Option<&str>) -> Option<String> {
    let parent = kin.parents.first().zip(kin.shared_with_parent_bytes);
    let parent = parent.map(|(parent, bytes)| format!("{} with {}", size(bytes), parent.name));
    let others = host.zip(kin.shared_with_host_bytes);
    let others = others.map(|(host, bytes)| format!("{} with others on {host}", size(bytes)));
    let both: Vec<String> = parent.into_iter().chain(others).collect();
    (!both.is_empty()).then(|| both.join(", "))
}
