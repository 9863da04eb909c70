//! Pull: downloads objects to one or more hosts; each byte is fetched once for all of them.

use std::collections::{HashMap, HashSet};

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::{Content, DialogReply};
use crate::actions::{Action, Pane};
use crate::app::Command;
use crate::cell::Place;
use crate::format::{self, count, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{HostView, Link, View};
use snapdeck_model::{HostName, Operation, PullCost, SnapshotName};

#[derive(Debug)]
pub(crate) struct PullDialog {
    names: Vec<SnapshotName>,
    target_hosts: HashSet<HostName>,
    /// The names selected for a host on the Locations page. A host without an entry gets all names.
    names_by_host: HashMap<HostName, HashSet<SnapshotName>>,
    overwrite: bool,
    /// The cost of each pull that was queried, or why it is unknown.
    costs: HashMap<PullTarget, Result<PullCost, String>>,
    /// Index of the focused host.
    cursor: usize,
    opened_from: Pane,
}

/// A host and the snapshot to pull to it.
pub(crate) type PullTarget = (HostName, SnapshotName);

/// Limit of cost queries per dialog.
const MAX_COST_QUERIES: usize = 64;

/// State of a snapshot on the host of a pull.
enum LocalState<'a> {
    Absent,
    Damaged(&'a str),
    Present,
}

fn local_state<'a>(view: &'a View, host: &HostName, name: &SnapshotName) -> LocalState<'a> {
    match lookup::snapshot(view, host, name) {
        None => LocalState::Absent,
        Some(snapshot) => match &snapshot.problem {
            Some(problem) => LocalState::Damaged(problem),
            None => LocalState::Present,
        },
    }
}

impl PullDialog {
    /// Returns a dialog for the `chosen` snapshots of pane `opened_from`. Objects go to the `current` host unless
    /// others are selected, snapshots chosen on a host to that host.
    pub(crate) fn new(
        view: &View,
        chosen: Vec<(SnapshotName, Place)>,
        current: Option<&HostName>,
        opened_from: Pane,
    ) -> Self {
        let mut names: Vec<SnapshotName> = Vec::new();
        let mut unique = HashSet::new();
        let mut names_by_host: HashMap<HostName, HashSet<SnapshotName>> = HashMap::new();
        for (name, place) in chosen {
            if unique.insert(name.clone()) {
                names.push(name.clone());
            }
            if let Place::Host(host) = place {
                names_by_host.entry(host).or_default().insert(name);
            }
        }
        let target_hosts: HashSet<HostName> = match names_by_host.is_empty() {
            true => current.cloned().into_iter().collect(),
            false => names_by_host.keys().cloned().collect(),
        };
        let first = view
            .hosts
            .iter()
            .position(|host| target_hosts.contains(&host.name));
        Self {
            names,
            target_hosts,
            names_by_host,
            overwrite: false,
            costs: HashMap::new(),
            cursor: first.unwrap_or(0),
            opened_from,
        }
    }

    fn targets<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a HostView> {
        let hosts = view.hosts.iter().map(AsRef::as_ref);
        hosts.filter(|host| self.target_hosts.contains(&host.name))
    }

    fn is_selected(&self, host: &HostName, name: &SnapshotName) -> bool {
        self.names_by_host
            .get(host)
            .is_none_or(|names| names.contains(name))
    }

    /// Returns the next pull whose cost is to be queried: one that transfers data.
    pub(crate) fn next_cost_query(&self, view: &View) -> Option<PullTarget> {
        if self.costs.len() >= MAX_COST_QUERIES || view.bucket.link == Link::Unconfigured {
            return None;
        }
        let hosts = self.targets(view).filter(|host| host.link == Link::Up);
        let mut targets = hosts.flat_map(|host| {
            let names = self.names.iter();
            let names = names.filter(|name| {
                self.is_selected(&host.name, name)
                    && self.is_transferred(&local_state(view, &host.name, name))
                    && lookup::object(view, name).is_some()
            });
            names.map(|name| (host.name.clone(), name.clone()))
        });
        targets.find(|target| !self.costs.contains_key(target))
    }

    pub(crate) fn on_cost(&mut self, target: PullTarget, cost: Result<PullCost, String>) {
        self.costs.insert(target, cost);
    }

    fn cost(&self, host: &HostName, name: &SnapshotName) -> Option<&PullCost> {
        self.costs.get(&(host.clone(), name.clone()))?.as_ref().ok()
    }

    /// Returns the downloaded and the copied bytes, if blocks are copied on the host.
    fn cost_text(&self, host: &HostView, name: &SnapshotName) -> Option<String> {
        let cost = self.cost(&host.name, name)?;
        let copies = format::parts(&cost.copies, "from");
        let download = size(cost.fetch_bytes);
        (!copies.is_empty()).then(|| format!("downloads {download}, copies {copies}"))
    }

    fn is_any_present(&self, view: &View) -> bool {
        self.targets(view).any(|host| {
            let mut names = self.names.iter();
            names.any(|name| {
                self.is_selected(&host.name, name)
                    && matches!(local_state(view, &host.name, name), LocalState::Present)
            })
        })
    }

    fn is_transferred(&self, local: &LocalState<'_>) -> bool {
        self.overwrite || !matches!(local, LocalState::Present)
    }

    fn refusal(&self, view: &View) -> Option<String> {
        if let Some(refusal) = super::bucket_refusal(view) {
            return Some(refusal);
        }
        // An unreachable host does not stop the others: only its own job waits.
        let mut unreachable = None;
        for host in self.targets(view) {
            match &host.link {
                Link::Down(error) => unreachable = Some(error.to_string()),
                _ => return None,
            }
        }
        Some(unreachable.unwrap_or_else(|| "no host is selected".to_owned()))
    }

    fn operations(&self, view: &View) -> Vec<Operation> {
        let mut operations = Vec::new();
        for name in &self.names {
            for host in self
                .targets(view)
                .filter(|host| self.is_selected(&host.name, name))
            {
                let is_present = matches!(local_state(view, &host.name, name), LocalState::Present);
                operations.push(Operation::Pull {
                    host: host.name.clone(),
                    name: name.clone(),
                    overwrite: self.overwrite && is_present,
                });
            }
        }
        operations
    }

    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        let several = view.hosts.len() > 1;
        let last = view.hosts.len().saturating_sub(1);
        self.cursor = self.cursor.min(last);
        match key.code {
            KeyCode::Char('y') | KeyCode::Enter if self.refusal(view).is_none() => {
                return DialogReply::Close(vec![Command::SubmitAll(self.operations(view))]);
            }
            KeyCode::Char('n' | 'q') => return DialogReply::close(),
            KeyCode::Char('m') if several && self.opened_from != Pane::Matrix => {
                return DialogReply::Perform(Action::Matrix);
            }
            KeyCode::Down | KeyCode::Tab | KeyCode::Char('j') => {
                self.cursor = (self.cursor + 1).min(last)
            }
            KeyCode::Up | KeyCode::BackTab | KeyCode::Char('k') => {
                self.cursor = self.cursor.saturating_sub(1);
            }
            KeyCode::Char(' ') if several => {
                if let Some(host) = view.hosts.get(self.cursor)
                    && !self.target_hosts.remove(&host.name)
                {
                    self.target_hosts.insert(host.name.clone());
                }
            }
            KeyCode::Char('a') if several => self.toggle_all(view),
            KeyCode::Char('o' | ' ') if self.is_any_present(view) => {
                self.overwrite = !self.overwrite
            }
            _ => {}
        }
        DialogReply::Stay
    }

    /// Selects all hosts that are not unreachable, or none if they are selected already.
    fn toggle_all(&mut self, view: &View) {
        let reachable = view
            .hosts
            .iter()
            .filter(|host| !lookup::is_unreachable(&host.link));
        let reachable: HashSet<HostName> = reachable.map(|host| host.name.clone()).collect();
        if reachable.is_subset(&self.target_hosts) {
            self.target_hosts.clear();
        } else {
            self.target_hosts.extend(reachable);
        }
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let several = view.hosts.len() > 1;
        let targets: Vec<&HostView> = self.targets(view).collect();
        let to = match targets.as_slice() {
            [] => "no host".to_owned(),
            [one] => one.name.to_string(),
            many => count(many.len(), "host"),
        };
        let mut content = Content {
            title: format!("pull to {to}"),
            ..Content::default()
        };
        let objects: HashMap<&SnapshotName, u64> = {
            let names: HashSet<&SnapshotName> = self.names.iter().collect();
            let objects = view.bucket.objects.iter();
            objects
                .filter(|object| names.contains(&object.name))
                .map(|object| (&object.name, object.size_bytes))
                .collect()
        };
        let (mut download_count, mut download_bytes) = (0, 0);
        let mut bytes_by_host: HashMap<&HostName, (u64, u64)> = HashMap::new();
        let mut lines = Vec::new();
        for name in &self.names {
            let object_bytes = objects.get(name).copied();
            // Blocks that several hosts need are fetched once: the sum over the hosts is an upper limit.
            let mut limit = None;
            for host in targets
                .iter()
                .filter(|host| self.is_selected(&host.name, name))
            {
                if let Some(size_bytes) = object_bytes
                    && self.is_transferred(&local_state(view, &host.name, name))
                {
                    let cost = self.cost(&host.name, name);
                    let fetch_bytes = cost.map_or(size_bytes, |cost| cost.fetch_bytes);
                    let (needed, fetched) = bytes_by_host.entry(&host.name).or_default();
                    *needed += size_bytes;
                    *fetched += fetch_bytes;
                    let sum = limit.unwrap_or(0_u64).saturating_add(fetch_bytes);
                    limit = Some(sum.min(size_bytes));
                }
            }
            if let Some(limit) = limit {
                download_count += 1;
                download_bytes += limit;
            }
            lines.push(self.snapshot_line(view, &targets, name, object_bytes, theme, width));
        }
        let once = match targets.len() {
            0 | 1 => String::new(),
            several => format!(", once for {several} hosts"),
        };
        let location = &view.bucket.location;
        let limit = if self.costs.is_empty() {
            ""
        } else {
            "at most "
        };
        let sum = match download_count {
            0 => format!("Nothing to download from {location}"),
            some => format!(
                "Downloads {}, {limit}{}, from {location}{once}",
                count(some, "snapshot"),
                size(download_bytes)
            ),
        };
        content.push_wrapped(&sum, 0, theme.text, width);
        content.push_blank();
        content.lines.extend(lines);
        if let ([name], [host]) = (self.names.as_slice(), targets.as_slice()) {
            // A single snapshot has room for its cost on a line of its own.
            let cost = self.cost_text(host, name).unwrap_or_default();
            content.push_wrapped(&cost, 4, theme.good, width);
        }
        if several {
            content.push_blank();
            for (at, host) in view.hosts.iter().enumerate() {
                let bytes = bytes_by_host.get(&host.name).copied().unwrap_or_default();
                self.push_host(&mut content, at, host, bytes, theme, width);
            }
        }
        if self.is_any_present(view) {
            content.push_blank();
            let label = "overwrite: download again even where a valid copy exists";
            content.push_check_box(label, self.overwrite, false, true, theme);
            content.keys.push(("o", "overwrite", true));
        }
        let refusal = self.refusal(view);
        if let Some(reason) = &refusal {
            content.push_blank();
            content.push_wrapped(&format!("✗ {reason}"), 0, theme.bad, width);
        }
        content.keys.insert(0, ("y", "pull", refusal.is_none()));
        if several {
            content.keys.push(("space", "toggle host", true));
            content.keys.push(("a", "all", true));
            if self.opened_from != Pane::Matrix {
                content.keys.push(("m", "locations", true));
            }
        }
        content.keys.push(("n", "cancel", true));
        content
    }

    /// Adds the check box of a host, with the bytes to write and to download there.
    fn push_host(
        &self,
        content: &mut Content,
        at: usize,
        host: &HostView,
        (needed, fetched): (u64, u64),
        theme: &Theme,
        width: usize,
    ) {
        let selected = self.target_hosts.contains(&host.name);
        let note = match (&host.link, selected) {
            (Link::Down(_), true) => "✗ unreachable: pulls wait for it".to_owned(),
            (Link::Down(_), false) => "✗ unreachable".to_owned(),
            (Link::Connecting, _) if host.last_scan.is_none() => {
                "◌ connecting: its snapshots are unknown".to_owned()
            }
            (_, true) if needed == 0 => "nothing to download".to_owned(),
            (_, true) if fetched < needed => {
                format!("needs {}, downloads {}", size(needed), size(fetched))
            }
            (_, true) => format!("needs {}", size(needed)),
            _ => String::new(),
        };
        let label = format!("{} {note}", format::fit(host.name.as_str(), 16));
        let label = format::clip(&label, width.saturating_sub(4));
        content.push_check_box(
            &label,
            selected,
            at == self.cursor,
            !lookup::is_unreachable(&host.link),
            theme,
        );
    }

    /// Returns the line of a snapshot: name, size, and its state on the target hosts.
    fn snapshot_line(
        &self,
        view: &View,
        targets: &[&HostView],
        name: &SnapshotName,
        object_bytes: Option<u64>,
        theme: &Theme,
        width: usize,
    ) -> Line<'static> {
        let (mut present, mut damaged, mut selected) = (Vec::new(), Vec::new(), Vec::new());
        let mut damage = "";
        for host in targets
            .iter()
            .filter(|host| self.is_selected(&host.name, name))
        {
            selected.push(host.name.as_str());
            match local_state(view, &host.name, name) {
                LocalState::Absent => {}
                LocalState::Present => present.push(host.name.as_str()),
                LocalState::Damaged(problem) => {
                    damaged.push(host.name.as_str());
                    damage = problem;
                }
            }
        }
        let on = |hosts: &[&str]| match targets {
            [_] => "on the host".to_owned(),
            _ => format!("on {}", hosts.join(", ")),
        };
        let (note, style) = if object_bytes.is_none() {
            ("not in the bucket".to_owned(), theme.warn)
        } else if !damaged.is_empty() {
            (
                format!("{} but damaged: will be repaired ({damage})", on(&damaged)),
                theme.warn,
            )
        } else if !present.is_empty() && self.overwrite {
            (format!("{}: will be replaced", on(&present)), theme.warn)
        } else if !present.is_empty() {
            (
                format!("{}: skipped if the copy is valid", on(&present)),
                theme.dim,
            )
        } else if selected.len() < targets.len() {
            (format!("to {}", selected.join(", ")), Style::new())
        } else {
            let cost = match targets {
                [host] if self.names.len() > 1 => self.cost_text(host, name),
                _ => None,
            };
            (cost.unwrap_or_default(), theme.good)
        };
        let object_size = object_bytes.map(size).unwrap_or_default();
        let room = width.saturating_sub(14);
        let longest = self.names.iter().map(|name| name.as_str().len()).max();
        let columns = longest.unwrap_or(0).clamp(room / 4, room / 2);
        let name = format::fit(name.as_str(), columns);
        Line::from(vec![
            Span::raw(format!("  {name} {object_size:>9}  ")),
            Span::styled(format::clip(&note, room - columns), style),
        ])
    }
}
