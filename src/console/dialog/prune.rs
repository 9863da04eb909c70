//! Prune: a rule is told, what it lets go is shown with what that frees and what holds the rest, and only then removed.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, DialogReply, TextInput};
use crate::app::Command;
use crate::format::{self, count, size, timestamp};
use crate::theme::Theme;
use snapdeck_engine::{PruneRequest, View, leftover_label};
use snapdeck_model::{Error, HostName, PrunePlan, PruneRule, Result};

/// Columns of a place's name.
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

/// How far it has come.
#[derive(Debug)]
enum PruneStage {
    /// The rule is being told.
    Rule,
    /// What it lets go is being looked for.
    Planning(PruneRequest),
    /// It was found.
    Review(PruneRequest, Box<PrunePlan>),
    /// Why it was not.
    Failed(Error),
}

/// The dialog.
#[derive(Debug)]
pub(crate) struct PruneDialog {
    /// All hosts.
    hosts: Vec<HostName>,
    current: Option<HostName>,
    /// How many hosts: none, the current one, all.
    host_scope: usize,
    has_bucket: bool,
    include_bucket: bool,
    keep_newest: TextInput,
    older_than_days: TextInput,
    unused: bool,
    include_leftovers: bool,
    focus: PruneField,
    stage: PruneStage,
    /// Is the confirmation being typed?
    is_confirming: bool,
    confirmation: TextInput,
}

impl PruneDialog {
    /// Asks what may go on the `current` host, and on others and in the bucket if that is wished.
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
        let mut parts = vec![
            PruneField::Keep,
            PruneField::Days,
            PruneField::Unused,
            PruneField::Leftovers,
            PruneField::Hosts,
        ];
        if self.has_bucket {
            parts.push(PruneField::Bucket);
        }
        parts
    }

    fn target_hosts(&self) -> Vec<HostName> {
        match self.host_scope {
            0 => Vec::new(),
            1 => self.current.iter().cloned().collect(),
            _ => self.hosts.clone(),
        }
    }

    /// What is asked, or why nothing is.
    fn request(&self) -> std::result::Result<PruneRequest, String> {
        let number = |field: &TextInput, what: &str| match field.text().trim() {
            "" => Ok(None),
            text => match text.parse::<u32>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(format!("{what} must be a number from 1")),
            },
        };
        let keep = number(&self.keep_newest, "the number of versions to keep")?;
        let days = number(&self.older_than_days, "an age")?;
        let day = Duration::from_secs(24 * 60 * 60);
        let pruning = PruneRequest {
            rule: PruneRule {
                keep_newest: keep.map(|keep| keep as usize),
                older_than: days.map(|days| day.saturating_mul(days)),
                unused: self.unused,
            },
            hosts: self.target_hosts(),
            include_bucket: self.include_bucket,
            include_leftovers: self.include_leftovers,
        };
        if pruning.hosts.is_empty() && !pruning.include_bucket {
            return Err("no location is ticked".to_owned());
        }
        if pruning.rule == PruneRule::default() && !pruning.include_leftovers {
            return Err("nothing to remove yet: set a condition".to_owned());
        }
        Ok(pruning)
    }

    /// Takes up what was found, where that is what is still asked.
    pub(crate) fn on_plan(&mut self, pruning: &PruneRequest, found: Result<PrunePlan>) {
        if !matches!(&self.stage, PruneStage::Planning(asked) if asked == pruning) {
            return;
        }
        self.stage = match found {
            Ok(plan) => PruneStage::Review(pruning.clone(), Box::new(plan)),
            Err(error) => PruneStage::Failed(error),
        };
    }

    /// Takes a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent, _: &View) -> DialogReply {
        match &self.stage {
            PruneStage::Rule => return self.rule_key(key),
            PruneStage::Review(pruning, plan) => match phrase(plan) {
                Some(phrase) if self.is_confirming => {
                    if key.code != KeyCode::Enter {
                        self.confirmation.on_key(key);
                    } else if self.confirmation.text().trim() == phrase {
                        return submit(pruning, plan);
                    }
                    return DialogReply::Stay;
                }
                Some(_) if key.code == KeyCode::Char('y') => self.is_confirming = true,
                None if key.code == KeyCode::Char('y') && !plan.is_empty() => {
                    return submit(pruning, plan);
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
        let parts = self.visible_fields();
        let at = parts.iter().position(|part| *part == self.focus);
        let at = at.unwrap_or(0);
        match key.code {
            KeyCode::Enter => {
                if let Ok(pruning) = self.request() {
                    self.stage = PruneStage::Planning(pruning.clone());
                    return DialogReply::Execute(vec![Command::FindPrunable(pruning)]);
                }
            }
            KeyCode::Tab | KeyCode::Down => self.focus = parts[(at + 1) % parts.len()],
            KeyCode::BackTab | KeyCode::Up => {
                self.focus = parts[(at + parts.len() - 1) % parts.len()];
            }
            _ if self.focus == PruneField::Keep => drop(self.keep_newest.on_key(key)),
            _ if self.focus == PruneField::Days => drop(self.older_than_days.on_key(key)),
            KeyCode::Char(' ') => match self.focus {
                PruneField::Hosts => {
                    let most = 1 + usize::from(self.hosts.len() > 1);
                    self.host_scope = (self.host_scope + 1) % (most + 1);
                }
                PruneField::Bucket => self.include_bucket = !self.include_bucket,
                PruneField::Unused => self.unused = !self.unused,
                _ => self.include_leftovers = !self.include_leftovers,
            },
            _ => {}
        }
        DialogReply::Stay
    }

    /// Takes pasted text.
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

    /// What it shows.
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
            PruneStage::Review(_, plan) => self.show_plan(&mut content, plan, theme, width),
        }
        content.keys.push(("esc", "close", true));
        content
    }

    fn push_rule_form(&self, content: &mut Content, view: &View, theme: &Theme, width: usize) {
        let text = "Removes snapshots that match all conditions. Never removes one that is in use, pinned, or the \
            last good copy of one in use.";
        content.push_wrapped(text, 0, theme.dim, width);
        content.push_blank();
        let on = |part| self.focus == part;
        let label = "Keep newest N versions of each name: ";
        content.push_text_input(label, &self.keep_newest, on(PruneField::Keep), width, theme);
        content.push_text_input(
            "Older than (days): ",
            &self.older_than_days,
            on(PruneField::Days),
            width,
            theme,
        );
        let label = "unused: no sandbox on any host is based on it";
        content.push_check_box(label, self.unused, on(PruneField::Unused), true, theme);
        content.push_blank();
        let label = "also leftovers of interrupted jobs, older than a day";
        content.push_check_box(
            label,
            self.include_leftovers,
            on(PruneField::Leftovers),
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
            on(PruneField::Hosts),
            true,
            theme,
        );
        if self.has_bucket {
            let label = format!("in {}", view.bucket.location);
            content.push_check_box(
                &label,
                self.include_bucket,
                on(PruneField::Bucket),
                true,
                theme,
            );
        }
        let asked = self.request();
        if let Err(why) = &asked {
            content.push_blank();
            content.push_wrapped(&format!("✗ {why}"), 0, theme.warn, width);
        }
        content.keys = vec![("enter", "look", asked.is_ok()), ("tab", "next", true)];
        if !matches!(self.focus, PruneField::Keep | PruneField::Days) {
            content.keys.push(("space", "tick", true));
        }
    }

    fn show_plan(&self, content: &mut Content, plan: &PrunePlan, theme: &Theme, width: usize) {
        for warning in &plan.warnings {
            content.push_wrapped(&format!("! {warning}"), 0, theme.warn, width);
        }
        let phrase = phrase(plan);
        if plan.is_empty() {
            content.push_wrapped("Nothing goes.", 0, theme.text, width);
        } else {
            let text = format!("To remove, reclaims {}:", size(plan.reclaimed_bytes()));
            content.push_wrapped(&text, 0, theme.text, width);
        }
        let row = |place: &str, what: &str, bytes: u64, note: &str| {
            let room = width.saturating_sub(PLACE_WIDTH + 14);
            let name = room / 2;
            let (what, note) = (
                format::fit(what, name),
                format::clip(note, room.saturating_sub(name)),
            );
            Line::from(vec![
                Span::styled(
                    format!("  {}", format::fit(place, PLACE_WIDTH)),
                    theme.title,
                ),
                Span::raw(format!("{what} {:>9}  ", size(bytes))),
                Span::styled(note, theme.dim),
            ])
        };
        let written = |at: Option<jiff::Timestamp>| at.map(timestamp).unwrap_or_default();
        for one in &plan.to_remove {
            let note = match one.is_last_copy {
                true => "no other copy known".to_owned(),
                false => written(one.modified),
            };
            content.lines.push(row(
                place_name(&one.host),
                one.name.as_str(),
                one.size_bytes,
                &note,
            ));
        }
        for one in &plan.leftovers {
            let file = one.path.rsplit('/').next().unwrap_or(&one.path);
            let at = one.modified.map(|at| format!(", {}", timestamp(at)));
            let note = format!("{}{}", leftover_label(one.kind), at.unwrap_or_default());
            content
                .lines
                .push(row(place_name(&one.host), file, one.size_bytes, &note));
        }
        if !plan.kept.is_empty() {
            content.push_blank();
            content.push_wrapped("Kept although it matches:", 0, theme.text, width);
            for one in &plan.kept {
                let why = one.keep_reasons.join("; ");
                content.lines.push(row(
                    place_name(&one.host),
                    one.name.as_str(),
                    one.size_bytes,
                    &why,
                ));
            }
        }
        match phrase {
            Some(phrase) if self.is_confirming => {
                content.push_blank();
                content.push_wrapped(&format!("Type {phrase} to confirm:"), 0, theme.text, width);
                content.push_text_input("> ", &self.confirmation, true, width, theme);
                let same = self.confirmation.text().trim() == phrase;
                content.keys = vec![("enter", "remove", same)];
            }
            phrase => {
                let word = match phrase {
                    Some(_) => "confirm",
                    None => "remove",
                };
                content.keys = vec![
                    ("y", word, !plan.is_empty()),
                    ("b", "back", true),
                    ("n", "keep", true),
                ];
            }
        }
    }
}

fn place_name(host: &Option<HostName>) -> &str {
    host.as_ref().map_or("bucket", HostName::as_str)
}

/// What must be typed to confirm, where snapshots go and not leftovers alone.
fn phrase(plan: &PrunePlan) -> Option<String> {
    (!plan.to_remove.is_empty()).then(|| format!("remove {}", plan.to_remove.len()))
}

fn submit(pruning: &PruneRequest, plan: &PrunePlan) -> DialogReply {
    DialogReply::Close(vec![Command::Prune(pruning.clone(), plan.clone())])
}
