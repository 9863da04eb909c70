//! The sandbox menu: all verbs, a letter each.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::confirm_verb::{ConfirmVerb, sandbox_names};
use super::{Content, Dialog, DialogReply};
use crate::app::Command;
use crate::format::fit;
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::View;
use snapdeck_model::{Danger, HostName, SandboxId, SandboxVerb};

/// The letters, which are those of the list if it has a key for the verb.
const VERBS: &[(char, SandboxVerb)] = &[
    ('s', SandboxVerb::Start),
    ('S', SandboxVerb::STOP),
    ('f', SandboxVerb::ForceOff),
    ('z', SandboxVerb::Pause),
    ('r', SandboxVerb::Resume),
    ('w', SandboxVerb::Save),
    ('t', SandboxVerb::Restore),
    ('x', SandboxVerb::DropSaved),
    ('d', SandboxVerb::Destroy),
];

#[derive(Debug)]
pub(crate) struct SandboxMenu {
    ids: Vec<(HostName, SandboxId)>,
}

impl SandboxMenu {
    pub(crate) fn new(ids: Vec<(HostName, SandboxId)>) -> Self {
        Self { ids }
    }

    /// Returns why `verb` changes none of the sandboxes.
    fn obstacle(&self, view: &View, verb: SandboxVerb) -> Option<String> {
        let mut first = None;
        for (host, id) in &self.ids {
            let sandbox = lookup::sandbox(view, host, id);
            let missing = || Some("it no longer exists".to_owned());
            match sandbox.map_or_else(missing, |sandbox| verb.obstacle(sandbox.state)) {
                None => return None,
                Some(obstacle) => first = first.or(Some(obstacle)),
            }
        }
        first
    }

    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        let KeyCode::Char(typed) = key.code else {
            return DialogReply::Stay;
        };
        if typed == 'q' {
            return DialogReply::close();
        }
        let found = VERBS.iter().find(|(letter, _)| *letter == typed);
        match found {
            Some((_, verb)) if self.obstacle(view, *verb).is_none() => {
                confirm_or_run(*verb, self.ids.clone(), view)
            }
            _ => DialogReply::Stay,
        }
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: sandbox_names(&self.ids),
            ..Content::default()
        };
        for (letter, verb) in VERBS {
            let obstacle = self.obstacle(view, *verb);
            let (key, style) = match &obstacle {
                None => (theme.key, theme.text),
                Some(_) => (theme.dim, theme.dim),
            };
            let text = format!(
                "{} {}",
                fit(verb.as_str(), 11),
                obstacle.as_deref().unwrap_or(verb.effect())
            );
            content.lines.push(Line::from(vec![
                Span::styled(format!(" {letter} "), key),
                Span::styled(fit(&text, width.saturating_sub(3)), style),
            ]));
        }
        content.keys = vec![("letter", "run", true), ("esc", "close", true)];
        content
    }
}

/// Returns the confirmation of `verb`; the operation itself if it is harmless and for one sandbox.
pub(crate) fn confirm_or_run(
    verb: SandboxVerb,
    ids: Vec<(HostName, SandboxId)>,
    view: &View,
) -> DialogReply {
    let one = ids.len() == 1;
    let dialog = ConfirmVerb::new(verb, ids);
    let operations = dialog.operations(view);
    match one && verb.danger() == Danger::Harmless && !operations.is_empty() {
        true => DialogReply::Close(vec![Command::SubmitAll(operations)]),
        false => DialogReply::Replace(Box::new(Dialog::ConfirmVerb(dialog))),
    }
}
