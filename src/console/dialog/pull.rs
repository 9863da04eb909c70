//! Pull: objects are downloaded to one host or several; each byte is fetched once for all of them.

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

/// The dialog.
#[derive(Debug)]
pub(crate) struct PullDialog {
    names: Vec<SnapshotName>,
    target_hosts: HashSet<HostName>,
    /// Where cells are chosen: which names are meant for a host. A host that has none here gets all.
    names_by_host: HashMap<HostName, HashSet<SnapshotName>>,
    overwrite: bool,
    /// What each pull would bring, as far as it was asked, or why that is not known.
    costs: HashMap<PullTarget, Result<PullCost, String>>,
    /// The host that a key is about.
    cursor: usize,
    opened_from: Pane,
}

/// A snapshot, and a host it is to go to.
pub(crate) type PullTarget = (HostName, SnapshotName);

/// Pulls whose costs are asked for: more are not looked at one by one.
const MAX_COST_QUERIES: usize = 64;

/// What a pull would find on the host.
enum LocalState<'a> {
    Absent,
    Damaged(&'a str),
    Present,
}

fn local_state<'a>(view: &'a View, host: &HostName, name: &SnapshotName) -> LocalState<'a> {
    match lookup::snapshot(view, host, name) {
        None => LocalState::Absent,
        Some(found) => match &found.problem {
            Some(problem) => LocalState::Damaged(problem),
            None => LocalState::Present,
        },
    }
}

impl PullDialog {
    /// Asks whether what is `chosen` in pane `from` shall be pulled: objects to the `current` host at first,
    /// what was chosen on a host to that one.
    pub(crate) fn new(
        view: &View,
        chosen: Vec<(SnapshotName, Place)>,
        current: Option<&HostName>,
        from: Pane,
    ) -> Self {
        let mut names: Vec<SnapshotName> = Vec::new();
        let mut seen = HashSet::new();
        let mut only: HashMap<HostName, HashSet<SnapshotName>> = HashMap::new();
        for (name, place) in chosen {
            if seen.insert(name.clone()) {
                names.push(name.clone());
            }
            if let Place::Host(host) = place {
                only.entry(host).or_default().insert(name);
            }
        }
        let ticked: HashSet<HostName> = match only.is_empty() {
            true => current.cloned().into_iter().collect(),
            false => only.keys().cloned().collect(),
        };
        let first = view
            .hosts
            .iter()
            .position(|host| ticked.contains(&host.name));
        Self {
            names,
            target_hosts: ticked,
            names_by_host: only,
            overwrite: false,
            costs: HashMap::new(),
            cursor: first.unwrap_or(0),
            opened_from: from,
        }
    }

    /// The hosts it goes to.
    fn targets<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a HostView> {
        let hosts = view.hosts.iter().map(AsRef::as_ref);
        hosts.filter(|host| self.target_hosts.contains(&host.name))
    }

    fn is_selected(&self, host: &HostName, name: &SnapshotName) -> bool {
        self.names_by_host
            .get(host)
            .is_none_or(|names| names.contains(name))
    }

    /// A pull that would move bytes, and of which it is not known how many.
    pub(crate) fn next_cost_query(&self, view: &View) -> Option<PullTarget> {
        if self.costs.len() >= MAX_COST_QUERIES || view.bucket.link == Link::Unconfigured {
            return None;
        }
        let hosts = self.targets(view).filter(|host| host.link == Link::Up);
        let mut pairs = hosts.flat_map(|host| {
            let names = self.names.iter();
            let names = names.filter(|name| {
                self.is_selected(&host.name, name)
                    && self.is_transferred(&local_state(view, &host.name, name))
                    && lookup::object(view, name).is_some()
            });
            names.map(|name| (host.name.clone(), name.clone()))
        });
        pairs.find(|pair| !self.costs.contains_key(pair))
    }

    /// Takes up what a pull would bring.
    pub(crate) fn on_cost(&mut self, pair: PullTarget, cost: Result<PullCost, String>) {
        self.costs.insert(pair, cost);
    }

    fn cost(&self, host: &HostName, name: &SnapshotName) -> Option<&PullCost> {
        self.costs.get(&(host.clone(), name.clone()))?.as_ref().ok()
    }

    /// What is fetched and what is copied, where not all is fetched.
    fn cost_text(&self, host: &HostView, name: &SnapshotName) -> Option<String> {
        let cost = self.cost(&host.name, name)?;
        let from = format::parts(&cost.copies, "from");
        let fetch = size(cost.fetch_bytes);
        (!from.is_empty()).then(|| format!("fetch {fetch}, {from} already here"))
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
        match &view.bucket.link {
            Link::Unconfigured => {
                return Some("no bucket configured: set [bucket] name in config.toml".to_owned());
            }
            Link::Down(error) => return Some(error.to_string()),
            Link::Connecting | Link::Up => {}
        }
        // One that is away does not stop the others: its own job waits for it.
        let mut away = None;
        for host in self.targets(view) {
            match &host.link {
                Link::Down(error) => away = Some(error.to_string()),
                _ => return None,
            }
        }
        Some(away.unwrap_or_else(|| "no host is ticked".to_owned()))
    }

    fn operations(&self, view: &View) -> Vec<Operation> {
        let mut operations = Vec::new();
        for name in &self.names {
            for host in self
                .targets(view)
                .filter(|host| self.is_selected(&host.name, name))
            {
                let is_here = matches!(local_state(view, &host.name, name), LocalState::Present);
                operations.push(Operation::Pull {
                    host: host.name.clone(),
                    name: name.clone(),
                    overwrite: self.overwrite && is_here,
                });
            }
        }
        operations
    }

    /// Takes a key.
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

    /// Ticks all hosts that are not known to be away; where they are ticked, none.
    fn toggle_all(&mut self, view: &View) {
        let up = view
            .hosts
            .iter()
            .filter(|host| !lookup::is_unreachable(&host.link));
        let up: HashSet<HostName> = up.map(|host| host.name.clone()).collect();
        if up.is_subset(&self.target_hosts) {
            self.target_hosts.clear();
        } else {
            self.target_hosts.extend(up);
        }
    }

    /// What it shows.
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
            let wanted: HashSet<&SnapshotName> = self.names.iter().collect();
            let objects = view.bucket.objects.iter();
            let found = objects.filter(|object| wanted.contains(&object.name));
            found
                .map(|object| (&object.name, object.size_bytes))
                .collect()
        };
        let mut fetched = (0, 0);
        let mut written: HashMap<&HostName, (u64, u64)> = HashMap::new();
        let mut lines = Vec::new();
        for name in &self.names {
            let known = objects.get(name).copied();
            // Blocks that several hosts want are fetched once: their sum is the most there can be.
            let mut most = None;
            for host in targets
                .iter()
                .filter(|host| self.is_selected(&host.name, name))
            {
                if known.is_some() && self.is_transferred(&local_state(view, &host.name, name)) {
                    let all = known.unwrap_or(0);
                    let cost = self.cost(&host.name, name);
                    let ours = cost.map_or(all, |cost| cost.fetch_bytes);
                    let (space, from_bucket) = written.entry(&host.name).or_default();
                    *space += all;
                    *from_bucket += ours;
                    most = Some(most.unwrap_or(0_u64).saturating_add(ours).min(all));
                }
            }
            if let Some(most) = most {
                fetched = (fetched.0 + 1, fetched.1 + most);
            }
            lines.push(self.snapshot_line(view, &targets, name, known, theme, width));
        }
        let once = match targets.len() {
            0 | 1 => String::new(),
            several => format!(", once for {several} hosts"),
        };
        let sum = format!(
            "Downloads {}, {}{}, from {}{once}",
            count(fetched.0, "snapshot"),
            if self.costs.is_empty() {
                ""
            } else {
                "at most "
            },
            size(fetched.1),
            view.bucket.location
        );
        content.push_wrapped(&sum, 0, theme.text, width);
        content.push_blank();
        content.lines.extend(lines);
        if let ([name], [host]) = (self.names.as_slice(), targets.as_slice()) {
            // Alone it has room.
            let told = self.cost_text(host, name).unwrap_or_default();
            content.push_wrapped(&told, 4, theme.good, width);
        }
        if several {
            content.push_blank();
            for (at, host) in view.hosts.iter().enumerate() {
                let bytes = written.get(&host.name).copied().unwrap_or_default();
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
            content.keys.push(("space", "tick host", true));
            content.keys.push(("a", "all", true));
            if self.opened_from != Pane::Matrix {
                content.keys.push(("m", "matrix", true));
            }
        }
        content.keys.push(("n", "close", true));
        content
    }

    /// A host with its check box, and what is written there.
    fn push_host(
        &self,
        content: &mut Content,
        at: usize,
        host: &HostView,
        (bytes, fetched): (u64, u64),
        theme: &Theme,
        width: usize,
    ) {
        let ticked = self.target_hosts.contains(&host.name);
        let note = match (&host.link, ticked) {
            (Link::Down(_), true) => "✗ unreachable: its pulls wait".to_owned(),
            (Link::Down(_), false) => "✗ away".to_owned(),
            (Link::Connecting, _) if host.last_scan.is_none() => {
                "◌ connecting: its snapshots are unknown".to_owned()
            }
            (_, true) if bytes == 0 => "nothing to fetch".to_owned(),
            (_, true) if fetched < bytes => {
                format!("needs {}, downloads {}", size(bytes), size(fetched))
            }
            (_, true) => format!("needs {}", size(bytes)),
            _ => String::new(),
        };
        let label = format!("{} {note}", format::fit(host.name.as_str(), 16));
        let label = format::clip(&label, width.saturating_sub(4));
        content.push_check_box(
            &label,
            ticked,
            at == self.cursor,
            !lookup::is_unreachable(&host.link),
            theme,
        );
    }

    /// A snapshot, and what is to be known of it.
    fn snapshot_line(
        &self,
        view: &View,
        targets: &[&HostView],
        name: &SnapshotName,
        known: Option<u64>,
        theme: &Theme,
        width: usize,
    ) -> Line<'static> {
        let (mut here, mut broken, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        let mut why = "";
        for host in targets
            .iter()
            .filter(|host| self.is_selected(&host.name, name))
        {
            wanted.push(host.name.as_str());
            match local_state(view, &host.name, name) {
                LocalState::Absent => {}
                LocalState::Present => here.push(host.name.as_str()),
                LocalState::Damaged(problem) => {
                    broken.push(host.name.as_str());
                    why = problem;
                }
            }
        }
        let on = |hosts: &[&str]| match targets {
            [_] => "here".to_owned(),
            _ => format!("on {}", hosts.join(", ")),
        };
        let (note, style) = if known.is_none() {
            ("not in the bucket".to_owned(), theme.warn)
        } else if !broken.is_empty() {
            (
                format!("{} but damaged: will be repaired ({why})", on(&broken)),
                theme.warn,
            )
        } else if !here.is_empty() && self.overwrite {
            (format!("{}: is replaced", on(&here)), theme.warn)
        } else if !here.is_empty() {
            (
                format!("{}: skipped where a valid copy exists", on(&here)),
                theme.dim,
            )
        } else if wanted.len() < targets.len() {
            (format!("to {}", wanted.join(", ")), Style::new())
        } else {
            let only = targets.first().filter(|_| targets.len() == 1);
            let told = only.filter(|_| self.names.len() > 1);
            let told = told.and_then(|host| self.cost_text(host, name));
            (told.unwrap_or_default(), theme.good)
        };
        let known = known.map(size).unwrap_or_default();
        let room = width.saturating_sub(14);
        let longest = self.names.iter().map(|name| name.as_str().len()).max();
        let columns = longest.unwrap_or(0).clamp(room / 4, room / 2);
        let name = format::fit(name.as_str(), columns);
        Line::from(vec![
            Span::raw(format!("  {name} {known:>9}  ")),
            Span::styled(format::clip(&note, room - columns), style),
        ])
    }
}
