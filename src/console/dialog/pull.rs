//! Pull: downloads objects to one or more hosts; each byte is fetched once for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::control::Control;
use super::form::{Form, FormReply};
use super::pull_plan::{PullChoices, PullPlan};
use super::{Content, Context, Dialog, DialogAnswer, DialogQuery, DialogReply};
use crate::actions::{Action, Pane};
use crate::cell::Place;
use crate::command::Command;
use crate::format::{self, count, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{HostView, Link, View};
use snapdeck_model::{HostName, PullCost, SnapshotName};

#[derive(Debug, Clone, PartialEq, Eq)]
enum PullField {
    Host(HostName),
    Overwrite,
}

#[derive(Debug)]
pub(crate) struct PullDialog {
    names: Vec<SnapshotName>,
    /// Columns of the longest name.
    longest_name: usize,
    /// The names selected for a host on the Locations page. A host without an entry gets all names.
    names_by_host: HashMap<HostName, HashSet<SnapshotName>>,
    /// The hosts that are selected when their check boxes are added.
    initial_hosts: HashSet<HostName>,
    form: Form<PullField>,
    /// The cost of each pull that was queried, or why it is unknown.
    costs: HashMap<PullTarget, Result<PullCost, String>>,
    opened_from: Pane,
    plan: PullPlan,
    /// The view and the choices of which the plan is.
    inputs: Option<(Arc<View>, Choices)>,
}

/// Overwrite, the target hosts, and the number of known costs.
type Choices = (bool, Vec<HostName>, usize);

/// A host and the snapshot to pull to it.
pub(crate) type PullTarget = (HostName, SnapshotName);

const OVERWRITE: &str = "overwrite: download again even where a valid copy exists";

/// Limit of cost queries per dialog.
pub(super) const MAX_COST_QUERIES: usize = 64;

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
        let initial_hosts: HashSet<HostName> = match names_by_host.is_empty() {
            true => current.cloned().into_iter().collect(),
            false => names_by_host.keys().cloned().collect(),
        };
        let mut dialog = Self {
            longest_name: names
                .iter()
                .map(|name| name.as_str().len())
                .max()
                .unwrap_or(0),
            names,
            names_by_host,
            initial_hosts,
            form: Form::new([(PullField::Overwrite, OVERWRITE, Control::CheckBox(false))]),
            costs: HashMap::new(),
            opened_from,
            plan: PullPlan::default(),
            inputs: None,
        };
        dialog.update_hosts(view);
        let mut hosts = view.hosts.iter();
        let selected = hosts.find(|host| dialog.initial_hosts.contains(&host.name));
        if let Some(first) = selected.or(view.hosts.first()) {
            dialog.form.focus_on(&PullField::Host(first.name.clone()));
        }
        dialog
    }

    /// Adds check boxes for new hosts.
    fn update_hosts(&mut self, view: &View) {
        let several = view.hosts.len() > 1;
        for host in &view.hosts {
            let field = PullField::Host(host.name.clone());
            if !self.form.contains(&field) {
                let is_selected = self.initial_hosts.contains(&host.name);
                self.form
                    .insert_before_last(field.clone(), Control::CheckBox(is_selected));
            }
            self.form.show(&field, several);
        }
    }

    fn is_target(&self, host: &HostName) -> bool {
        self.form.is_checked(&PullField::Host(host.clone()))
    }

    fn is_overwriting(&self) -> bool {
        self.form.is_checked(&PullField::Overwrite)
    }

    fn targets<'a>(&self, view: &'a View) -> Vec<&'a HostView> {
        let hosts = view.hosts.iter().map(AsRef::as_ref);
        hosts.filter(|host| self.is_target(&host.name)).collect()
    }

    fn choices<'a>(&'a self, view: &'a View) -> PullChoices<'a> {
        PullChoices {
            view,
            names: &self.names,
            names_by_host: &self.names_by_host,
            targets: self.targets(view),
            overwrite: self.is_overwriting(),
            costs: &self.costs,
        }
    }

    /// Selects all hosts that are not unreachable, or none if they are selected already.
    fn toggle_all(&mut self, view: &View) {
        let hosts = view.hosts.iter();
        let reachable: Vec<&HostName> = hosts
            .filter(|host| !lookup::is_unreachable(&host.link))
            .map(|host| &host.name)
            .collect();
        if reachable.iter().all(|host| self.is_target(host)) {
            for host in &view.hosts {
                self.form.check(&PullField::Host(host.name.clone()), false);
            }
        } else {
            for host in reachable {
                self.form.check(&PullField::Host(host.clone()), true);
            }
        }
    }

    /// Returns the note on a host, with the bytes to write and to download there.
    fn host_note(&self, host: &HostView) -> String {
        let bytes = self.plan.bytes_by_host.get(&host.name);
        let (needed, fetched) = bytes.copied().unwrap_or_default();
        match (&host.link, self.is_target(&host.name)) {
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
        }
    }

    /// Adds what is free on the target hosts, and a warning for each on which the pulls may not fit.
    fn push_free_space(&self, content: &mut Content<'_>, context: &Context<'_>) {
        let theme = context.theme;
        let mut known = Vec::new();
        let mut warnings = Vec::new();
        for host in self.targets(context.view) {
            let Some(free) = (context.free_bytes)(&host.name) else {
                continue;
            };
            let needed = self.plan.bytes_by_host.get(&host.name);
            let needed = needed.map_or(0, |(needed, _)| *needed);
            known.push(format!("{} on {}", size(free), host.name));
            if needed > free {
                warnings.push(format!(
                    "! {} has {} free, the pull needs up to {}",
                    host.name,
                    size(free),
                    size(needed)
                ));
            }
        }
        if !known.is_empty() {
            content.push_blank();
            content.push_wrapped(&format!("Free: {}", known.join(", ")), 0, theme.dim);
        }
        for warning in &warnings {
            content.push_wrapped(warning, 0, theme.warn);
        }
    }

    fn row_line(&self, row: usize, theme: &Theme, width: usize) -> Line<'static> {
        let (name, row) = (&self.names[row], &self.plan.rows[row]);
        let object_size = row.object_bytes.map(size).unwrap_or_default();
        let room = width.saturating_sub(14);
        let columns = self.longest_name.clamp(room / 4, room / 2);
        let name = format::fit_middle(name.as_str(), columns);
        Line::from(vec![
            Span::raw(format!("  {name} {object_size:>9}  ")),
            Span::styled(
                format::clip(&row.note, room - columns),
                row.tone.style(theme),
            ),
        ])
    }

    /// Returns the sum of the downloads.
    fn summary(&self, location: &str, hosts: usize) -> String {
        let once = match hosts {
            0 | 1 => String::new(),
            several => format!(", once for {several} hosts"),
        };
        let limit = if self.costs.is_empty() {
            ""
        } else {
            "at most "
        };
        match self.plan.download_count {
            0 => format!("Nothing to download from {location}"),
            some => format!(
                "Downloads {}, {limit}{}, from {location}{once}",
                count(some, "snapshot"),
                size(self.plan.download_bytes)
            ),
        }
    }
}

impl Dialog for PullDialog {
    fn update(&mut self, view: &Arc<View>) {
        let known = self.inputs.as_ref().map(|(known, _)| known);
        if !known.is_some_and(|known| Arc::ptr_eq(known, view)) {
            self.update_hosts(view);
            self.inputs = None;
        }
        let hosts = self.targets(view).into_iter();
        let choices: Choices = (
            self.is_overwriting(),
            hosts.map(|host| host.name.clone()).collect(),
            self.costs.len(),
        );
        if self.inputs.as_ref().is_some_and(|(_, of)| *of == choices) {
            return;
        }
        self.inputs = Some((view.clone(), choices));
        self.plan = self.choices(view).plan();
        self.form
            .show(&PullField::Overwrite, self.plan.is_any_present);
        for host in &view.hosts {
            let name = format::fit_middle(host.name.as_str(), 16);
            let label = format!("{name} {}", self.host_note(host));
            self.form.set_label(
                &PullField::Host(host.name.clone()),
                label,
                !lookup::is_unreachable(&host.link),
            );
        }
    }

    fn pending_query(&self) -> Option<DialogQuery> {
        if self.costs.len() >= MAX_COST_QUERIES {
            return None;
        }
        let mut queries = self.plan.cost_queries.iter();
        let pending = queries.find(|target| !self.costs.contains_key(*target));
        pending.cloned().map(DialogQuery::PullCost)
    }

    fn on_answer(&mut self, answer: DialogAnswer) {
        if let DialogAnswer::PullCost(target, cost) = answer {
            self.costs
                .insert(target, cost.map_err(|error| error.to_string()));
        }
    }

    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let view = context.view;
        let several = view.hosts.len() > 1;
        let is_submit = match self.form.on_key(key) {
            FormReply::Submit => true,
            FormReply::Ignored => key.code == KeyCode::Char('y'),
            FormReply::Handled | FormReply::Changed(_) => return DialogReply::Stay,
        };
        match key.code {
            _ if is_submit && self.plan.refusal.is_none() => {
                return DialogReply::Close(vec![Command::SubmitAll(
                    self.choices(view).operations(),
                )]);
            }
            KeyCode::Char('n' | 'q') => return DialogReply::close(),
            KeyCode::Char('a') if several => self.toggle_all(view),
            KeyCode::Char('o') if self.plan.is_any_present => {
                let is_overwriting = self.is_overwriting();
                self.form.check(&PullField::Overwrite, !is_overwriting);
            }
            _ if several
                && self.opened_from != Pane::Matrix
                && context.is_key(key, Action::Matrix) =>
            {
                return DialogReply::Perform(Action::Matrix);
            }
            _ if is_submit => {}
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        self.form.on_click(target);
        DialogReply::Stay
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let (view, theme) = (&**context.view, *context.theme);
        let several = view.hosts.len() > 1;
        let targets = self.targets(view);
        let to = match targets.as_slice() {
            [] => "no host".to_owned(),
            [one] => one.name.to_string(),
            many => count(many.len(), "host"),
        };
        let mut content = Content::new(format!("pull to {to}"), context, width);
        let summary = self.summary(&view.bucket.location, targets.len());
        content.push_wrapped(&summary, 0, theme.text);
        content.push_blank();
        content.push_rows(self.plan.rows.len(), move |row| {
            self.row_line(row, &theme, width)
        });
        if let ([name], [host]) = (self.names.as_slice(), targets.as_slice()) {
            // A single snapshot has room for its cost on a line of its own.
            let cost = self.choices(view).cost_text(host, name).unwrap_or_default();
            content.push_wrapped(&cost, 4, theme.good);
        }
        if several {
            content.push_blank();
            for host in &view.hosts {
                self.form
                    .push(&mut content, &PullField::Host(host.name.clone()));
            }
        }
        self.push_free_space(&mut content, context);
        if self.plan.is_any_present {
            content.push_blank();
            self.form.push(&mut content, &PullField::Overwrite);
        }
        if let Some(reason) = &self.plan.refusal {
            content.push_blank();
            content.push_refusal(reason);
        }
        content.push_key("y", "pull", self.plan.refusal.is_none());
        if self.plan.is_any_present {
            content.push_key("o", "overwrite", true);
        }
        if several {
            content.push_key("space", "toggle host", true);
            content.push_key("a", "all", true);
            if self.opened_from != Pane::Matrix {
                content.push_key(context.key(Action::Matrix), "locations", true);
            }
        }
        content.push_key("n", "cancel", true);
        content
    }
}
