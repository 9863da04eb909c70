//! The sandbox menu: all verbs, chosen by a letter, or with the arrows and enter.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::confirm_verb::{ConfirmVerb, sandbox_names};
use super::sandbox_form::SandboxForm;
use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::format::fit;
use crate::lookup;
use snapdeck_engine::View;
use snapdeck_model::{Danger, HostName, SandboxId, SandboxState, SandboxVerb, VerbKind};

/// Why a verb with values is not possible for several sandboxes.
pub(crate) const ONE_SANDBOX: &str = "only possible for one sandbox";

/// An entry of the menu.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Verb(SandboxVerb),
    /// A verb of one sandbox that opens a form for its values.
    Form(VerbKind),
}

/// The letters, which are those of the list if it has a key for the verb.
const ENTRIES: &[(char, Entry)] = &[
    ('s', Entry::Verb(SandboxVerb::Start)),
    ('S', Entry::Verb(SandboxVerb::STOP)),
    ('b', Entry::Verb(SandboxVerb::RESTART)),
    ('f', Entry::Verb(SandboxVerb::ForceOff)),
    ('B', Entry::Verb(SandboxVerb::Reset)),
    ('z', Entry::Verb(SandboxVerb::Pause)),
    ('r', Entry::Verb(SandboxVerb::Resume)),
    ('w', Entry::Verb(SandboxVerb::Save)),
    ('t', Entry::Verb(SandboxVerb::Restore)),
    ('x', Entry::Verb(SandboxVerb::DropSaved)),
    ('c', Entry::Form(VerbKind::Clone)),
    ('n', Entry::Form(VerbKind::Rename)),
    ('m', Entry::Form(VerbKind::Set)),
    ('a', Entry::Verb(SandboxVerb::Autostart { enabled: true })),
    ('A', Entry::Verb(SandboxVerb::Autostart { enabled: false })),
    ('d', Entry::Verb(SandboxVerb::Destroy)),
];

impl Entry {
    fn kind(self) -> VerbKind {
        match self {
            Self::Verb(verb) => verb.kind(),
            Self::Form(kind) => kind,
        }
    }

    fn run(self, ids: Vec<(HostName, SandboxId)>, view: &Arc<View>) -> DialogReply {
        match (self, ids.as_slice()) {
            (Self::Verb(verb), _) => confirm_or_run(verb, ids, view),
            (Self::Form(kind), [(host, id)]) => {
                let form = SandboxForm::new(kind, host.clone(), id.clone(), view);
                DialogReply::Replace(Box::new(form))
            }
            (Self::Form(_), _) => DialogReply::Stay,
        }
    }
}

fn entry_of(kind: VerbKind) -> Option<Entry> {
    let mut entries = ENTRIES.iter().map(|(_, entry)| *entry);
    entries.find(|entry| entry.kind() == kind)
}

/// Returns whether a verb needs values, and so one sandbox.
pub(crate) fn is_form(kind: VerbKind) -> bool {
    matches!(entry_of(kind), Some(Entry::Form(_)))
}

/// Runs a verb of the menu without the menu: opens its form or confirmation, or returns the operations.
pub(crate) fn run_kind(
    kind: VerbKind,
    ids: Vec<(HostName, SandboxId)>,
    view: &Arc<View>,
) -> DialogReply {
    match entry_of(kind) {
        Some(entry) => entry.run(ids, view),
        None => DialogReply::Stay,
    }
}

#[derive(Debug)]
pub(crate) struct SandboxMenu {
    ids: Vec<(HostName, SandboxId)>,
    row: usize,
    /// For each verb, why it changes none of the sandboxes.
    obstacles: Vec<Option<String>>,
    /// The view of which the obstacles are.
    view: Option<Arc<View>>,
}

impl SandboxMenu {
    /// Returns the menu of these sandboxes, with the first possible verb selected.
    pub(crate) fn new(ids: Vec<(HostName, SandboxId)>, view: &Arc<View>) -> Self {
        let mut menu = Self {
            ids,
            row: 0,
            obstacles: Vec::new(),
            view: None,
        };
        menu.update(view);
        let first = menu.obstacles.iter().position(Option::is_none);
        menu.row = first.unwrap_or(0);
        menu
    }

    /// Returns the obstacle of the first sandbox for each verb, unless one of the sandboxes has none.
    fn find_obstacles(&self, view: &View) -> Vec<Option<String>> {
        let sandboxes = lookup::Sandboxes::new(view, &self.ids);
        // Of thousands of sandboxes, only the states differ.
        let mut states: Vec<Option<SandboxState>> = Vec::new();
        for (host, id) in &self.ids {
            let state = sandboxes.get(host, id).map(|sandbox| sandbox.state);
            if !states.contains(&state) {
                states.push(state);
            }
        }
        let obstacle = |entry: Entry| {
            if matches!(entry, Entry::Form(_)) && self.ids.len() > 1 {
                return Some(ONE_SANDBOX.to_owned());
            }
            let verb = entry.kind();
            let mut obstacles = states.iter().map(|state| match state {
                Some(state) => verb.obstacle(*state),
                None => Some("it no longer exists".to_owned()),
            });
            let first = obstacles.next()?;
            first.filter(|_| obstacles.all(|obstacle| obstacle.is_some()))
        };
        ENTRIES.iter().map(|(_, entry)| obstacle(*entry)).collect()
    }

    fn run(&self, row: usize, view: &Arc<View>) -> DialogReply {
        let is_possible = matches!(self.obstacles.get(row), Some(None));
        match ENTRIES.get(row).filter(|_| is_possible) {
            Some((_, entry)) => entry.run(self.ids.clone(), view),
            None => DialogReply::Stay,
        }
    }
}

impl Dialog for SandboxMenu {
    fn update(&mut self, view: &Arc<View>) {
        if !self
            .view
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, view))
        {
            self.view = Some(view.clone());
            self.obstacles = self.find_obstacles(view);
        }
    }

    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        let last = ENTRIES.len() - 1;
        match key.code {
            KeyCode::Up | KeyCode::BackTab | KeyCode::Char('k') => {
                self.row = self.row.checked_sub(1).unwrap_or(last);
            }
            KeyCode::Down | KeyCode::Tab | KeyCode::Char('j') => {
                self.row = (self.row + 1) % ENTRIES.len();
            }
            KeyCode::Home | KeyCode::Char('g') => self.row = 0,
            KeyCode::End | KeyCode::Char('G') => self.row = last,
            KeyCode::Enter => return self.run(self.row, context.view),
            KeyCode::Char('q') => return DialogReply::close(),
            KeyCode::Char(typed) => {
                return match ENTRIES.iter().position(|(letter, _)| *letter == typed) {
                    Some(row) => self.run(row, context.view),
                    None => DialogReply::Ignored,
                };
            }
            _ => return DialogReply::Ignored,
        }
        DialogReply::Stay
    }

    /// Selects a verb; a second click runs it.
    fn on_click(&mut self, target: usize, context: &Context<'_>) -> DialogReply {
        if self.row == target {
            return self.run(target, context.view);
        }
        self.row = target;
        DialogReply::Stay
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new(sandbox_names(&self.ids), context, width);
        for (row, ((letter, entry), obstacle)) in ENTRIES.iter().zip(&self.obstacles).enumerate() {
            let verb = entry.kind();
            let (key, style) = match (row == self.row, obstacle) {
                (true, _) => (theme.selected, theme.selected),
                (false, None) => (theme.key, theme.text),
                (false, Some(_)) => (theme.dim, theme.dim),
            };
            if row == self.row {
                content.focus = Some(content.length());
            }
            let text = format!(
                "{} {}",
                fit(verb.as_str(), 17),
                obstacle.as_deref().unwrap_or(verb.effect())
            );
            content.push_target(row);
            content.push_line(Line::from(vec![
                Span::styled(format!(" {letter} "), key),
                Span::styled(fit(&text, width.saturating_sub(3)), style),
            ]));
        }
        let is_possible = matches!(self.obstacles.get(self.row), Some(None));
        content.push_key("letter", "run", true);
        content.push_key("↑ ↓", "select", true);
        content.push_key("enter", "run selected", is_possible);
        content.push_key("esc", "close", true);
        content
    }
}

/// Returns the confirmation of `verb`; the operation itself if it is harmless and for one sandbox.
pub(crate) fn confirm_or_run(
    verb: SandboxVerb,
    ids: Vec<(HostName, SandboxId)>,
    view: &Arc<View>,
) -> DialogReply {
    let one = ids.len() == 1;
    let dialog = ConfirmVerb::new(verb, ids, view);
    let operations = dialog.operations();
    match one && verb.danger() == Danger::Harmless && !operations.is_empty() {
        true => DialogReply::Close(vec![Command::SubmitAll(operations)]),
        false => DialogReply::Replace(Box::new(dialog)),
    }
}
