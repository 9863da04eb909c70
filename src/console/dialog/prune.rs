//! Prune: takes a rule, shows what it removes, what that reclaims and what is kept and why, then removes it.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, DialogReply, TextInput};
use crate::app::Command;
use crate::format::{self, count, size, timestamp};
use crate::theme::Theme;
use snapdeck_engine::{PruneRequest, View, leftover_label};
use snapdeck_model::{Error, HostName, PrunePlan, PruneRule, Result};

const PLACE_WIDTH: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PruneField {
    Hosts,
    Bucket,
    Keep,
    Days,
    Unused,
    Leftovers,
}

#[derive(Debug)]
enum PruneStage {
    /// The rule is being edited.
    Rule,
    /// The plan is being computed.
    Planning(PruneRequest),
    /// The plan is shown for confirmation.
    Review(PruneRequest, Box<PrunePlan>),
    Failed(Error),
}

#[derive(Debug)]
pub(crate) struct PruneDialog {
    hosts: Vec<HostName>,
    current: Option<HostName>,
    /// 0: no host; 1: the current one; 2: all hosts.
    host_scope: usize,
    has_bucket: bool,
    include_bucket: bool,
    keep_newest: TextInput,
    older_than_days: TextInput,
    unused: bool,
    include_leftovers: bool,
    focus: PruneField,
    stage: PruneStage,
    /// Whether the confirmation is being typed.
    is_confirming: bool,
    confirmation: TextInput,
}

impl PruneDialog {
    /// Returns a form for a rule on the `current` host; other hosts and the bucket can be added.
    pub(crate) fn new(hosts: Vec<HostName>, current: Option<&HostName>, has_bucket: bool) -> Self {
        Self {
            host_scope: usize::from(current.is_some()),
            hosts,
            current: current.cloned(),
            has_bucket,
            include_bucket: false,
            keep_newest: TextInput::default(),
            older_than_days: TextInput::default(),
            unused: false,
            include_leftovers: true,
            focus: PruneField::Keep,
            stage: PruneStage::Rule,
            is_confirming: false,
            confirmation: TextInput::default(),
        }
    }

    fn visible_fields(&self) -> Vec<PruneField> {
        let mut fields = vec![
            PruneField::Keep,
            PruneField::Days,
            PruneField::Unused,
            PruneField::Leftovers,
            PruneField::Hosts,
        ];
        if self.has_bucket {
            fields.push(PruneField::Bucket);
        }
        fields
    }

    fn target_hosts(&self) -> Vec<HostName> {
        match self.host_scope {
            0 => Vec::new(),
            1 => self.current.iter().cloned().collect(),
            _ => self.hosts.clone(),
        }
    }

    /// Returns the request, or why the form is not complete.
    fn request(&self) -> std::result::Result<PruneRequest, String> {
        let number = |input: &TextInput, label: &str| match input.text().trim() {
            "" => Ok(None),
            text => match text.parse::<u32>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(format!("{label} must be a number from 1")),
            },
        };
        let keep = number(&self.keep_newest, "the number of versions to keep")?;
        let days = number(&self.older_than_days, "the age")?;
        let day = Duration::from_secs(24 * 60 * 60);
        let request = PruneRequest {
            rule: PruneRule {
                keep_newest: keep.map(|keep| keep as usize),
                older_than: days.map(|days| day.saturating_mul(days)),
                unused: self.unused,
            },
            hosts: self.target_hosts(),
            include_bucket: self.include_bucket,
            include_leftovers: self.include_leftovers,
            include_foreign: false,
        };
        if request.hosts.is_empty() && !request.include_bucket {
            return Err("no location is selected".to_owned());
        }
        if request.rule == PruneRule::default() && !request.include_leftovers {
            return Err("nothing to remove yet: set a condition".to_owned());
        }
        Ok(request)
    }

    /// Shows the plan of `request`, unless another request was made since.
    pub(crate) fn on_plan(&mut self, request: &PruneRequest, plan: Result<PrunePlan>) {
        if !matches!(&self.stage, PruneStage::Planning(current) if current == request) {
            return;
        }
        self.stage = match plan {
            Ok(plan) => PruneStage::Review(request.clone(), Box::new(plan)),
            Err(error) => PruneStage::Failed(error),
        };
    }

    pub(crate) fn on_key(&mut self, key: KeyEvent, _: &View) -> DialogReply {
        match &self.stage {
            PruneStage::Rule => return self.rule_key(key),
            PruneStage::Review(request, plan) => match phrase(plan) {
                Some(phrase) if self.is_confirming => {
                    if key.code != KeyCode::Enter {
                        self.confirmation.on_key(key);
                    } else if self.confirmation.text().trim() == phrase {
                        return submit(request, plan);
                    }
                    return DialogReply::Stay;
                }
                Some(_) if key.code == KeyCode::Char('y') => self.is_confirming = true,
                None if key.code == KeyCode::Char('y') && !plan.is_empty() => {
                    return submit(request, plan);
                }
                _ => {}
            },
            PruneStage::Planning(_) | PruneStage::Failed(_) => {}
        }
        match key.code {
            KeyCode::Char('b') => {
                self.stage = PruneStage::Rule;
                self.is_confirming = false;
                self.confirmation = TextInput::default();
            }
            KeyCode::Char('n' | 'q') => return DialogReply::close(),
            _ => {}
        }
        DialogReply::Stay
    }

    fn rule_key(&mut self, key: KeyEvent) -> DialogReply {
        if let Some(focus) = super::moved_focus(&self.visible_fields(), self.focus, key.code) {
            self.focus = focus;
            return DialogReply::Stay;
        }
        match key.code {
            KeyCode::Enter => {
                if let Ok(request) = self.request() {
                    self.stage = PruneStage::Planning(request.clone());
                    return DialogReply::Execute(vec![Command::FindPrunable(request)]);
                }
            }
            _ if self.focus == PruneField::Keep => drop(self.keep_newest.on_key(key)),
            _ if self.focus == PruneField::Days => drop(self.older_than_days.on_key(key)),
            KeyCode::Char(' ') => match self.focus {
                PruneField::Hosts => {
                    let widest_scope = 1 + usize::from(self.hosts.len() > 1);
                    self.host_scope = (self.host_scope + 1) % (widest_scope + 1);
                }
                PruneField::Bucket => self.include_bucket = !self.include_bucket,
                PruneField::Unused => self.unused = !self.unused,
                _ => self.include_leftovers = !self.include_leftovers,
            },
            _ => {}
        }
        DialogReply::Stay
    }

    pub(crate) fn paste(&mut self, text: &str) {
        match (&self.stage, self.focus) {
            (PruneStage::Rule, PruneField::Keep) => self.keep_newest.paste(text.trim()),
            (PruneStage::Rule, PruneField::Days) => self.older_than_days.paste(text.trim()),
            (PruneStage::Review(..), _) if self.is_confirming => {
                self.confirmation.paste(text.trim())
            }
            _ => {}
        }
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: "prune".to_owned(),
            ..Content::default()
        };
        match &self.stage {
            PruneStage::Rule => self.push_rule_form(&mut content, view, theme, width),
            PruneStage::Planning(_) => {
                content.push_wrapped("◌ Searching…", 0, theme.text, width);
                content.keys = vec![("b", "back", true)];
            }
            PruneStage::Failed(error) => {
                content.push_wrapped(&format!("✗ {error}"), 0, theme.bad, width);
                content.keys = vec![("b", "back", true)];
            }
            PruneStage::Review(_, plan) => self.push_plan(&mut content, plan, theme, width),
        }
        content.keys.push(("esc", "cancel", true));
        content
    }

    fn push_rule_form(&self, content: &mut Content, view: &View, theme: &Theme, width: usize) {
        let text = "Removes snapshots that match all conditions. Never removes one that is in use, pinned, or the \
            last good copy of one in use.";
        content.push_wrapped(text, 0, theme.dim, width);
        content.push_blank();
        let focused = |field| self.focus == field;
        let label = "Keep newest N versions of each name: ";
        content.push_text_input(
            label,
            &self.keep_newest,
            focused(PruneField::Keep),
            width,
            theme,
        );
        content.push_text_input(
            "Older than (days): ",
            &self.older_than_days,
            focused(PruneField::Days),
            width,
            theme,
        );
        let label = "unused: no sandbox on any host is based on it";
        content.push_check_box(label, self.unused, focused(PruneField::Unused), true, theme);
        content.push_blank();
        let label = "also leftovers of interrupted jobs, older than a day";
        content.push_check_box(
            label,
            self.include_leftovers,
            focused(PruneField::Leftovers),
            true,
            theme,
        );
        content.push_blank();
        let hosts = match (self.host_scope, &self.current) {
            (0, _) | (1, None) => "on no host".to_owned(),
            (1, Some(host)) => format!("on {host}"),
            (_, _) => format!("on {}", count(self.hosts.len(), "host")),
        };
        content.push_check_box(
            &hosts,
            self.host_scope > 0,
            focused(PruneField::Hosts),
            true,
            theme,
        );
        if self.has_bucket {
            let label = format!("in {}", view.bucket.location);
            content.push_check_box(
                &label,
                self.include_bucket,
                focused(PruneField::Bucket),
                true,
                theme,
            );
        }
        let request = self.request();
        if let Err(error) = &request {
            content.push_blank();
            content.push_wrapped(&format!("✗ {error}"), 0, theme.warn, width);
        }
        content.keys = vec![("enter", "search", request.is_ok()), ("tab", "next", true)];
        if !matches!(self.focus, PruneField::Keep | PruneField::Days) {
            content.keys.push(("space", "toggle", true));
        }
    }

    fn push_plan(&self, content: &mut Content, plan: &PrunePlan, theme: &Theme, width: usize) {
        for warning in &plan.warnings {
            content.push_wrapped(&format!("! {warning}"), 0, theme.warn, width);
        }
        if plan.is_empty() {
            content.push_wrapped("Nothing to remove.", 0, theme.text, width);
        } else {
            let text = format!("To remove, reclaims {}:", size(plan.reclaimed_bytes()));
            content.push_wrapped(&text, 0, theme.text, width);
        }
        let row = |host: &Option<HostName>, name: &str, bytes: u64, note: &str| {
            let place = host.as_ref().map_or("bucket", HostName::as_str);
            let room = width.saturating_sub(PLACE_WIDTH + 14);
            let name_width = room / 2;
            let name = format::fit(name, name_width);
            let note = format::clip(note, room.saturating_sub(name_width));
            Line::from(vec![
                Span::styled(
                    format!("  {}", format::fit(place, PLACE_WIDTH)),
                    theme.title,
                ),
                Span::raw(format!("{name} {:>9}  ", size(bytes))),
                Span::styled(note, theme.dim),
            ])
        };
        for snapshot in &plan.to_remove {
            let note = match snapshot.is_last_copy {
                true => "no other copy known".to_owned(),
                false => snapshot.created.map(timestamp).unwrap_or_default(),
            };
            content.lines.push(row(
                &snapshot.host,
                snapshot.name.as_str(),
                snapshot.size_bytes,
                &note,
            ));
        }
        for leftover in &plan.leftovers {
            let file = leftover.path.rsplit('/').next().unwrap_or(&leftover.path);
            let modified = leftover.modified.map(|at| format!(", {}", timestamp(at)));
            let label = leftover_label(leftover.kind);
            let note = format!("{label}{}", modified.unwrap_or_default());
            content
                .lines
                .push(row(&leftover.host, file, leftover.size_bytes, &note));
        }
        if !plan.foreign_leftovers.is_empty() {
            content.push_blank();
            let text =
                "Of other installations, kept (snapdeck prune --leftovers --foreign removes them):";
            content.push_wrapped(text, 0, theme.text, width);
            for leftover in &plan.foreign_leftovers {
                let file = leftover.path.rsplit('/').next().unwrap_or(&leftover.path);
                let creator = leftover.creator.as_deref().unwrap_or("unknown");
                let modified = leftover.modified.map(timestamp).unwrap_or_default();
                let note = format!("{modified}, by {creator}");
                content
                    .lines
                    .push(row(&leftover.host, file, leftover.size_bytes, &note));
            }
        }
        if !plan.kept.is_empty() {
            content.push_blank();
            content.push_wrapped("Kept although it matches:", 0, theme.text, width);
            for snapshot in &plan.kept {
                content.lines.push(row(
                    &snapshot.host,
                    snapshot.name.as_str(),
                    snapshot.size_bytes,
                    &snapshot.keep_reasons.join("; "),
                ));
            }
        }
        match phrase(plan) {
            Some(phrase) if self.is_confirming => {
                content.push_blank();
                content.push_confirmation(&phrase, &self.confirmation, true, width, theme);
                let matches = self.confirmation.text().trim() == phrase;
                content.keys = vec![("enter", "remove", matches)];
            }
            phrase => {
                let label = match phrase {
                    Some(_) => "continue (type to confirm)",
                    None => "remove",
                };
                content.keys = vec![("y", label, !plan.is_empty()), ("b", "back", true)];
            }
        }
    }
}

/// Returns what must be typed to confirm; `None` if only leftovers are removed.
fn phrase(plan: &PrunePlan) -> Option<String> {
    (!plan.to_remove.is_empty()).then(|| format!("remove {}", plan.to_remove.len()))
}

fn submit(request: &PruneRequest, plan: &PrunePlan) -> DialogReply {
    DialogReply::Close(vec![Command::Prune(request.clone(), plan.clone())])
}
