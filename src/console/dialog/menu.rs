//! All verbs of a sandbox, a letter each.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::confirm_verb::{ConfirmVerb, STOP, is_harmless, refusal, sandbox_names};
use super::{Content, Dialog, DialogReply};
use crate::app::Command;
use crate::format::fit;
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::View;
use snapdeck_model::{HostName, SandboxId, SandboxVerb};

/// The letters; those that are also keys of the list are the same there.
const VERBS: &[(char, SandboxVerb, &str)] = &[
    ('s', SandboxVerb::Start, "start; resumes saved state"),
    ('S', STOP, "ask the guest to shut down"),
    (
        'f',
        SandboxVerb::ForceOff,
        "force off: unwritten data is lost",
    ),
    ('z', SandboxVerb::Pause, "pause the guest"),
    ('r', SandboxVerb::Resume, "resume the guest"),
    (
        'w',
        SandboxVerb::Save,
        "hibernate: memory to disk, then off",
    ),
    ('t', SandboxVerb::Restore, "restore from the saved state"),
    ('x', SandboxVerb::DropSaved, "discard the saved state"),
    ('d', SandboxVerb::Destroy, "destroy it with its disk"),
];

/// The dialog.
#[derive(Debug)]
pub(crate) struct SandboxMenu {
    ids: Vec<(HostName, SandboxId)>,
}

impl SandboxMenu {
    /// What can be done to `ids`.
    pub(crate) fn new(ids: Vec<(HostName, SandboxId)>) -> Self {
        Self { ids }
    }

    /// Why `verb` can be done to none of them.
    fn obstacle(&self, view: &View, verb: SandboxVerb) -> Option<&'static str> {
        let mut first = None;
        for (host, id) in &self.ids {
            let sandbox = lookup::sandbox(view, host, id);
            match sandbox.map_or(Some("it no longer exists"), |sandbox| {
                refusal(verb, sandbox.state)
            }) {
                None => return None,
                Some(why) => first = first.or(Some(why)),
            }
        }
        first
    }

    /// Takes a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        let KeyCode::Char(typed) = key.code else {
            return DialogReply::Stay;
        };
        if typed == 'q' {
            return DialogReply::close();
        }
        let found = VERBS.iter().find(|(letter, ..)| *letter == typed);
        match found {
            Some((_, verb, _)) if self.obstacle(view, *verb).is_none() => {
                confirm_or_run(*verb, self.ids.clone(), view)
            }
            _ => DialogReply::Stay,
        }
    }

    /// What it shows.
    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: sandbox_names(&self.ids),
            ..Content::default()
        };
        for (letter, verb, sentence) in VERBS {
            let why = self.obstacle(view, *verb);
            let (key, style) = match why {
                None => (theme.key, theme.text),
                Some(_) => (theme.dim, theme.dim),
            };
            let text = format!("{} {}", fit(verb.as_str(), 11), why.unwrap_or(sentence));
            content.lines.push(Line::from(vec![
                Span::styled(format!(" {letter} "), key),
                Span::styled(fit(&text, width.saturating_sub(3)), style),
            ]));
        }
        content.keys = vec![("letter", "do it", true), ("esc", "close", true)];
        content
    }
}

/// What asks for `verb` on `ids`: nothing where it is harmless and done to one.
pub(crate) fn confirm_or_run(
    verb: SandboxVerb,
    ids: Vec<(HostName, SandboxId)>,
    view: &View,
) -> DialogReply {
    let one = ids.len() == 1;
    let turn = ConfirmVerb::new(verb, ids);
    let operations = turn.operations(view);
    match one && is_harmless(verb) && !operations.is_empty() {
        true => DialogReply::Close(vec![Command::SubmitAll(operations)]),
        false => DialogReply::Replace(Box::new(Dialog::ConfirmVerb(turn))),
    }
}
