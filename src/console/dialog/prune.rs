//! Prune: a rule is told, what it lets go is shown with what that frees and what holds the rest, and only then removed.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Field, Reply};
use crate::app::Command;
use crate::format::{self, count, size, timestamp};
use crate::theme::Theme;
use snapdeck_engine::{PruneRequest, View};
use snapdeck_model::{Error, HostName, PrunePlan, PruneRule, Result};

/// Columns of a place's name.
const PLACE: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Hosts,
    Bucket,
    Keep,
    Days,
    Unused,
    Leftovers,
}

/// How far it has come.
#[derive(Debug)]
enum Stage {
    /// The rule is being told.
    Rule,
    /// What it lets go is being looked for.
    Asked(PruneRequest),
    /// It was found.
    Found(PruneRequest, Box<PrunePlan>),
    /// Why it was not.
    Failed(Error),
}

/// The dialog.
#[derive(Debug)]
pub(crate) struct Prune {
    /// All hosts.
    hosts: Vec<HostName>,
    current: Option<HostName>,
    /// How many hosts: none, the current one, all.
    reach: usize,
    has_bucket: bool,
    bucket: bool,
    keep: Field,
    days: Field,
    unused: bool,
    leftovers: bool,
    focus: Part,
    stage: Stage,
    /// Is the confirmation being typed?
    confirms: bool,
    typed: Field,
}

impl Prune {
    /// Asks what may go on the `current` host, and on others and in the bucket if that is wished.
    pub(crate) fn new(hosts: Vec<HostName>, current: Option<&HostName>, has_bucket: bool) -> Self {
        Self {
            reach: usize::from(current.is_some()),
            hosts,
            current: current.cloned(),
            has_bucket,
            bucket: false,
            keep: Field::default(),
            days: Field::default(),
            unused: false,
            leftovers: true,
            focus: Part::Keep,
            stage: Stage::Rule,
            confirms: false,
            typed: Field::default(),
        }
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = vec![
            Part::Keep,
            Part::Days,
            Part::Unused,
            Part::Leftovers,
            Part::Hosts,
        ];
        if self.has_bucket {
            parts.push(Part::Bucket);
        }
        parts
    }

    fn reached(&self) -> Vec<HostName> {
        match self.reach {
            0 => Vec::new(),
            1 => self.current.iter().cloned().collect(),
            _ => self.hosts.clone(),
        }
    }

    /// What is asked, or why nothing is.
    fn pruning(&self) -> std::result::Result<PruneRequest, String> {
        let number = |field: &Field, what: &str| match field.text().trim() {
            "" => Ok(None),
            text => match text.parse::<u32>() {
                Ok(number) if number > 0 => Ok(Some(number)),
                _ => Err(format!("{what} is a number from 1 on")),
            },
        };
        let keep = number(&self.keep, "how many are kept")?;
        let days = number(&self.days, "an age")?;
        let day = Duration::from_secs(24 * 60 * 60);
        let pruning = PruneRequest {
            rule: PruneRule {
                keep_newest: keep.map(|keep| keep as usize),
                older_than: days.map(|days| day.saturating_mul(days)),
                unused: self.unused,
            },
            hosts: self.reached(),
            include_bucket: self.bucket,
            include_leftovers: self.leftovers,
        };
        if pruning.hosts.is_empty() && !pruning.include_bucket {
            return Err("no place is ticked".to_owned());
        }
        if pruning.rule == PruneRule::default() && !pruning.include_leftovers {
            return Err("nothing may go yet: name a condition".to_owned());
        }
        Ok(pruning)
    }

    /// Takes up what was found, where that is what is still asked.
    pub(crate) fn take(&mut self, pruning: &PruneRequest, found: Result<PrunePlan>) {
        if !matches!(&self.stage, Stage::Asked(asked) if asked == pruning) {
            return;
        }
        self.stage = match found {
            Ok(plan) => Stage::Found(pruning.clone(), Box::new(plan)),
            Err(error) => Stage::Failed(error),
        };
    }

    /// Takes a key.
    pub(crate) fn key(&mut self, key: KeyEvent, _: &View) -> Reply {
        match &self.stage {
            Stage::Rule => return self.key_of_rule(key),
            Stage::Found(pruning, plan) => match phrase(plan) {
                Some(phrase) if self.confirms => {
                    if key.code != KeyCode::Enter {
                        self.typed.key(key);
                    } else if self.typed.text().trim() == phrase {
                        return submit(pruning, plan);
                    }
                    return Reply::Stay;
                }
                Some(_) if key.code == KeyCode::Char('y') => self.confirms = true,
                None if key.code == KeyCode::Char('y') && !plan.is_empty() => {
                    return submit(pruning, plan);
                }
                _ => {}
            },
            Stage::Asked(_) | Stage::Failed(_) => {}
        }
        match key.code {
            KeyCode::Char('b') => {
                self.stage = Stage::Rule;
                self.confirms = false;
                self.typed = Field::default();
            }
            KeyCode::Char('n' | 'q') => return Reply::close(),
            _ => {}
        }
        Reply::Stay
    }

    fn key_of_rule(&mut self, key: KeyEvent) -> Reply {
        let parts = self.parts();
        let at = parts.iter().position(|part| *part == self.focus);
        let at = at.unwrap_or(0);
        match key.code {
            KeyCode::Enter => {
                if let Ok(pruning) = self.pruning() {
                    self.stage = Stage::Asked(pruning.clone());
                    return Reply::Do(vec![Command::FindPrunable(pruning)]);
                }
            }
            KeyCode::Tab | KeyCode::Down => self.focus = parts[(at + 1) % parts.len()],
            KeyCode::BackTab | KeyCode::Up => {
                self.focus = parts[(at + parts.len() - 1) % parts.len()];
            }
            _ if self.focus == Part::Keep => drop(self.keep.key(key)),
            _ if self.focus == Part::Days => drop(self.days.key(key)),
            KeyCode::Char(' ') => match self.focus {
                Part::Hosts => {
                    let most = 1 + usize::from(self.hosts.len() > 1);
                    self.reach = (self.reach + 1) % (most + 1);
                }
                Part::Bucket => self.bucket = !self.bucket,
                Part::Unused => self.unused = !self.unused,
                _ => self.leftovers = !self.leftovers,
            },
            _ => {}
        }
        Reply::Stay
    }

    /// Takes pasted text.
    pub(crate) fn paste(&mut self, text: &str) {
        match (&self.stage, self.focus) {
            (Stage::Rule, Part::Keep) => self.keep.paste(text.trim()),
            (Stage::Rule, Part::Days) => self.days.paste(text.trim()),
            (Stage::Found(..), _) if self.confirms => self.typed.paste(text.trim()),
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
            Stage::Rule => self.rule(&mut content, view, theme, width),
            Stage::Asked(_) => {
                content.say("◌ Looking for what may go…", 0, theme.text, width);
                content.keys = vec![("b", "back", true)];
            }
            Stage::Failed(error) => {
                content.say(&format!("✗ {error}"), 0, theme.bad, width);
                content.keys = vec![("b", "back", true)];
            }
            Stage::Found(_, plan) => self.found(&mut content, plan, theme, width),
        }
        content.keys.push(("esc", "close", true));
        content
    }

    fn rule(&self, content: &mut Content, view: &View, theme: &Theme, width: usize) {
        let text = "What meets all conditions goes. What a sandbox stands on stays, what is pinned, and the \
            last sound copy of what is in use.";
        content.say(text, 0, theme.dim, width);
        content.gap();
        let on = |part| self.focus == part;
        let label = "keep the newest of each family of versions: ";
        content.field(label, &self.keep, on(Part::Keep), width, theme);
        content.field(
            "written more days ago than: ",
            &self.days,
            on(Part::Days),
            width,
            theme,
        );
        let label = "unused: no sandbox on any host stands on it";
        content.tick(label, self.unused, on(Part::Unused), true, theme);
        content.gap();
        let label = "and what broke off and was not touched for a day";
        content.tick(label, self.leftovers, on(Part::Leftovers), true, theme);
        content.gap();
        let hosts = match (self.reach, &self.current) {
            (0, _) | (1, None) => "on no host".to_owned(),
            (1, Some(host)) => format!("on {host}"),
            (_, _) => format!("on {}", count(self.hosts.len(), "host")),
        };
        content.tick(&hosts, self.reach > 0, on(Part::Hosts), true, theme);
        if self.has_bucket {
            let label = format!("in {}", view.bucket.location);
            content.tick(&label, self.bucket, on(Part::Bucket), true, theme);
        }
        let asked = self.pruning();
        if let Err(why) = &asked {
            content.gap();
            content.say(&format!("✗ {why}"), 0, theme.warn, width);
        }
        content.keys = vec![("enter", "look", asked.is_ok()), ("tab", "next", true)];
        if !matches!(self.focus, Part::Keep | Part::Days) {
            content.keys.push(("space", "tick", true));
        }
    }

    fn found(&self, content: &mut Content, plan: &PrunePlan, theme: &Theme, width: usize) {
        for warning in &plan.warnings {
            content.say(&format!("! {warning}"), 0, theme.warn, width);
        }
        let phrase = phrase(plan);
        if plan.is_empty() {
            content.say("Nothing goes.", 0, theme.text, width);
        } else {
            let text = format!("Goes for good, and frees {}:", size(plan.reclaimed_bytes()));
            content.say(&text, 0, theme.text, width);
        }
        let row = |place: &str, what: &str, bytes: u64, note: &str| {
            let room = width.saturating_sub(PLACE + 14);
            let name = room / 2;
            let (what, note) = (
                format::fit(what, name),
                format::clip(note, room.saturating_sub(name)),
            );
            Line::from(vec![
                Span::styled(format!("  {}", format::fit(place, PLACE)), theme.title),
                Span::raw(format!("{what} {:>9}  ", size(bytes))),
                Span::styled(note, theme.dim),
            ])
        };
        let written = |at: Option<jiff::Timestamp>| at.map(timestamp).unwrap_or_default();
        for one in &plan.to_remove {
            let note = match one.is_last_copy {
                true => "no other copy is known".to_owned(),
                false => written(one.modified),
            };
            content.lines.push(row(
                place(&one.host),
                one.name.as_str(),
                one.size_bytes,
                &note,
            ));
        }
        for one in &plan.leftovers {
            let file = one.path.rsplit('/').next().unwrap_or(&one.path);
            let at = one.modified.map(|at| format!(", {}", timestamp(at)));
            let note = format!("{}{}", one.kind.as_str(), at.unwrap_or_default());
            content
                .lines
                .push(row(place(&one.host), file, one.size_bytes, &note));
        }
        if !plan.kept.is_empty() {
            content.gap();
            content.say("Stays, though it meets the rule:", 0, theme.text, width);
            for one in &plan.kept {
                let why = one.keep_reasons.join("; ");
                content.lines.push(row(
                    place(&one.host),
                    one.name.as_str(),
                    one.size_bytes,
                    &why,
                ));
            }
        }
        match phrase {
            Some(phrase) if self.confirms => {
                content.gap();
                content.say(&format!("Type {phrase} to confirm:"), 0, theme.text, width);
                content.field("> ", &self.typed, true, width, theme);
                let same = self.typed.text().trim() == phrase;
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

fn place(host: &Option<HostName>) -> &str {
    host.as_ref().map_or("bucket", HostName::as_str)
}

/// What must be typed to confirm, where snapshots go and not leftovers alone.
fn phrase(plan: &PrunePlan) -> Option<String> {
    (!plan.to_remove.is_empty()).then(|| format!("remove {}", plan.to_remove.len()))
}

fn submit(pruning: &PruneRequest, plan: &PrunePlan) -> Reply {
    Reply::Close(vec![Command::Prune(pruning.clone(), plan.clone())])
}
