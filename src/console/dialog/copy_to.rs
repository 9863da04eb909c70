//! Copy to hosts: snapshots of hosts are copied to others, without the bucket.

use std::collections::HashSet;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::control::Control;
use super::form::{Form, FormReply};
use super::{Content, Context, Dialog, DialogReply};
use crate::cell::Place;
use crate::command::Command;
use crate::format::{clip, count, fit_middle, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{HostView, Link, View};
use snapdeck_model::{HostName, Operation, SnapshotName};

#[derive(Debug, Clone, PartialEq, Eq)]
enum CopyField {
    Host(HostName),
    Overwrite,
}

#[derive(Debug)]
pub(crate) struct CopyToDialog {
    sources: Vec<(HostName, SnapshotName)>,
    form: Form<CopyField>,
    plan: CopyPlan,
    /// The view and the choices of which the plan is.
    inputs: Option<(Arc<View>, bool, Vec<HostName>)>,
}

/// The effects of the choices in a view.
#[derive(Debug, Default)]
struct CopyPlan {
    rows: Vec<CopyRow>,
    operations: Vec<Operation>,
    /// Bytes to copy, at most.
    bytes: u64,
    is_any_present: bool,
    refusal: Option<String>,
}

#[derive(Debug, Default)]
struct CopyRow {
    bytes: Option<u64>,
    note: String,
    is_warning: bool,
}

const OVERWRITE: &str = "overwrite: copy again even where a valid copy exists";

impl CopyToDialog {
    /// Returns a dialog for those of the `chosen` snapshots that are on hosts.
    pub(crate) fn new(view: &View, chosen: Vec<(SnapshotName, Place)>) -> Self {
        let on_host = |(name, place)| match place {
            Place::Host(host) => Some((host, name)),
            Place::Bucket => None,
        };
        let mut dialog = Self {
            sources: chosen.into_iter().filter_map(on_host).collect(),
            form: Form::new([(CopyField::Overwrite, OVERWRITE, Control::CheckBox(false))]),
            plan: CopyPlan::default(),
            inputs: None,
        };
        dialog.update_hosts(view);
        let first = dialog.possible_targets(view).next();
        if let Some(first) = first.map(|host| host.name.clone()) {
            dialog.form.focus_on(&CopyField::Host(first));
        }
        dialog
    }

    /// Returns the hosts that may receive one of the snapshots.
    fn possible_targets<'a>(&self, view: &'a View) -> impl Iterator<Item = &'a HostView> {
        let sources: HashSet<&HostName> = self.sources.iter().map(|(host, _)| host).collect();
        let only_source = match sources.len() {
            1 => sources.into_iter().next().cloned(),
            _ => None,
        };
        let hosts = view.hosts.iter().map(AsRef::as_ref);
        hosts.filter(move |host: &&HostView| Some(&host.name) != only_source.as_ref())
    }

    /// Adds check boxes for new hosts; the only possible target is selected.
    fn update_hosts(&mut self, view: &View) {
        let targets: Vec<HostName> = self
            .possible_targets(view)
            .map(|host| host.name.clone())
            .collect();
        let is_only = targets.len() == 1;
        for host in targets {
            let field = CopyField::Host(host);
            if !self.form.contains(&field) {
                self.form
                    .insert_before_last(field, Control::CheckBox(is_only));
            }
        }
    }

    fn is_target(&self, host: &HostName) -> bool {
        self.form.is_checked(&CopyField::Host(host.clone()))
    }

    fn is_overwriting(&self) -> bool {
        self.form.is_checked(&CopyField::Overwrite)
    }

    fn targets(&self, view: &View) -> Vec<HostName> {
        let targets = self.possible_targets(view).map(|host| host.name.clone());
        targets.filter(|host| self.is_target(host)).collect()
    }

    fn plan(&self, view: &View) -> CopyPlan {
        let targets = self.targets(view);
        let mut plan = CopyPlan::default();
        let mut copied = HashSet::new();
        for (from, name) in &self.sources {
            let snapshot = lookup::snapshot(view, from, name);
            let mut row = CopyRow {
                bytes: snapshot.map(|snapshot| snapshot.size_bytes),
                ..CopyRow::default()
            };
            let link = lookup::host(view, from).map(|host| &host.link);
            let obstacle = match (snapshot, link) {
                (_, Some(Link::Down(_))) => Some(format!("host {from} is unreachable")),
                (None, _) => Some("it no longer exists".to_owned()),
                (Some(snapshot), _) => {
                    let problem = snapshot.problem.as_ref();
                    problem.map(|problem| format!("damaged: {problem}"))
                }
            };
            if let Some(obstacle) = obstacle {
                row.note = format!("skipped: {obstacle}");
                row.is_warning = true;
                plan.rows.push(row);
                continue;
            }
            let mut present = Vec::new();
            for host in targets.iter().filter(|host| *host != from) {
                if !copied.insert((host, name)) {
                    continue;
                }
                let existing = lookup::snapshot(view, host, name);
                let is_present = existing.is_some_and(|existing| existing.problem.is_none());
                if is_present {
                    present.push(host.as_str());
                }
                if !is_present || self.is_overwriting() {
                    plan.bytes += row.bytes.unwrap_or(0);
                }
                plan.operations.push(Operation::Copy {
                    from: from.clone(),
                    host: host.clone(),
                    name: name.clone(),
                    overwrite: is_present && self.is_overwriting(),
                });
            }
            plan.is_any_present |= !present.is_empty();
            if !present.is_empty() {
                let becomes = match self.is_overwriting() {
                    true => "will be replaced",
                    false => "skipped if the copy is valid",
                };
                row.note = format!("on {}: {becomes}", present.join(", "));
                row.is_warning = self.is_overwriting();
            }
            plan.rows.push(row);
        }
        plan.refusal = match (plan.operations.is_empty(), targets.is_empty()) {
            (false, _) => None,
            (true, true) => Some("no host is selected".to_owned()),
            (true, false) => Some("nothing can be copied".to_owned()),
        };
        plan
    }

    fn host_note(host: &HostView) -> &'static str {
        match host.link {
            Link::Down(_) => "✗ unreachable: copies wait for it",
            Link::Connecting if host.last_scan.is_none() => {
                "◌ connecting: its snapshots are unknown"
            }
            _ => "",
        }
    }

    /// Adds what is free on the target hosts.
    fn push_free_space(&self, content: &mut Content<'_>, context: &Context<'_>) {
        let mut known = Vec::new();
        for host in self.targets(context.view) {
            if let Some(free) = (context.free_bytes)(&host) {
                known.push(format!("{} on {host}", size(free)));
            }
        }
        if !known.is_empty() {
            content.push_blank();
            content.push_wrapped(&format!("Free: {}", known.join(", ")), 0, context.theme.dim);
        }
    }

    fn row_line(&self, row: usize, theme: &Theme, width: usize) -> Line<'static> {
        let ((host, name), row) = (&self.sources[row], &self.plan.rows[row]);
        let bytes = row.bytes.map(size).unwrap_or_default();
        let room = width.saturating_sub(14);
        let columns = (name.as_str().len() + host.as_str().len() + 4).clamp(room / 4, room / 2);
        let name = fit_middle(&format!("{name} on {host}"), columns);
        let style = if row.is_warning {
            theme.warn
        } else {
            theme.dim
        };
        Line::from(vec![
            Span::styled(format!("  {name} {bytes:>9}  "), Style::new()),
            Span::styled(clip(&row.note, room - columns), style),
        ])
    }
}

impl Dialog for CopyToDialog {
    fn update(&mut self, view: &Arc<View>) {
        let known = self.inputs.as_ref().map(|(known, _, _)| known);
        if !known.is_some_and(|known| Arc::ptr_eq(known, view)) {
            self.update_hosts(view);
            self.inputs = None;
        }
        let (overwrite, targets) = (self.is_overwriting(), self.targets(view));
        let is_current = |(_, choice, hosts): &(Arc<View>, bool, Vec<HostName>)| {
            *choice == overwrite && *hosts == targets
        };
        if self.inputs.as_ref().is_some_and(is_current) {
            return;
        }
        self.inputs = Some((view.clone(), overwrite, targets));
        self.plan = self.plan(view);
        self.form
            .show(&CopyField::Overwrite, self.plan.is_any_present);
        let labels: Vec<(HostName, String, bool)> = self
            .possible_targets(view)
            .map(|host| {
                let name = fit_middle(host.name.as_str(), 16);
                let is_reachable = !lookup::is_unreachable(&host.link);
                let label = format!("{name} {}", Self::host_note(host));
                (host.name.clone(), label, is_reachable)
            })
            .collect();
        for (host, label, is_reachable) in labels {
            self.form
                .set_label(&CopyField::Host(host), label, is_reachable);
        }
    }

    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        let is_submit = match self.form.on_key(key) {
            FormReply::Submit => true,
            FormReply::Ignored => key.code == KeyCode::Char('y'),
            FormReply::Handled | FormReply::Changed(_) => return DialogReply::Stay,
        };
        match key.code {
            _ if is_submit && self.plan.refusal.is_none() => {
                let operations = self.plan.operations.clone();
                DialogReply::Close(vec![Command::SubmitAll(operations)])
            }
            KeyCode::Char('n' | 'q') => DialogReply::close(),
            KeyCode::Char('o') if self.plan.is_any_present => {
                let is_overwriting = self.is_overwriting();
                self.form.check(&CopyField::Overwrite, !is_overwriting);
                DialogReply::Stay
            }
            _ if is_submit => DialogReply::Stay,
            _ => DialogReply::Ignored,
        }
    }

    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        self.form.on_click(target);
        DialogReply::Stay
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let (view, theme) = (&**context.view, *context.theme);
        let title = match self.sources.as_slice() {
            [(host, name)] => format!("copy {name} from {host}"),
            many => format!("copy {}", count(many.len(), "snapshot")),
        };
        let mut content = Content::new(title, context, width);
        let summary = match self.plan.operations.len() {
            0 => "Nothing to copy".to_owned(),
            _ => format!(
                "Copies at most {} to {}, without the bucket",
                size(self.plan.bytes),
                count(self.targets(view).len(), "host")
            ),
        };
        content.push_wrapped(&summary, 0, theme.text);
        content.push_wrapped(
            "With UEFI variables, note, labels and lineage. Blocks that a host has already are taken there.",
            0,
            theme.dim,
        );
        content.push_blank();
        content.push_rows(self.plan.rows.len(), move |row| {
            self.row_line(row, &theme, width)
        });
        content.push_blank();
        for host in self.possible_targets(view) {
            self.form
                .push(&mut content, &CopyField::Host(host.name.clone()));
        }
        self.push_free_space(&mut content, context);
        if self.plan.is_any_present {
            content.push_blank();
            self.form.push(&mut content, &CopyField::Overwrite);
        }
        if let Some(reason) = &self.plan.refusal {
            content.push_blank();
            content.push_refusal(reason);
        }
        content.push_key("y", "copy", self.plan.refusal.is_none());
        if self.plan.is_any_present {
            content.push_key("o", "overwrite", true);
        }
        content.push_key("space", "toggle host", true);
        content.push_key("n", "cancel", true);
        content
    }
}
