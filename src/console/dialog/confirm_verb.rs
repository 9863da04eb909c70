//! A verb on one sandbox or on all that are marked: who it is done to, who is left out and why. Confirmation grows
//! with the harm.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, DialogReply, TextInput};
use crate::app::Command;
use crate::format::{count, fit, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{Link, View};
use snapdeck_model::{Danger, HostName, Operation, Sandbox, SandboxId, SandboxState, SandboxVerb};

/// A sandbox with its host.
type SelectedSandbox<'a> = (&'a HostName, &'a Sandbox);

/// Names what a verb is about.
pub(super) fn sandbox_names(ids: &[(HostName, SandboxId)]) -> String {
    match ids {
        [(host, one)] => format!("{one} on {host}"),
        [(first, _), ..] if ids.iter().all(|(host, _)| host == first) => {
            format!("{} on {first}", count(ids.len(), "sandbox"))
        }
        _ => format!("{} on several hosts", count(ids.len(), "sandbox")),
    }
}

/// The dialog.
#[derive(Debug)]
pub(crate) struct ConfirmVerb {
    verb: SandboxVerb,
    ids: Vec<(HostName, SandboxId)>,
    /// Why it is asked, where the operator did not ask for it.
    reason: Option<String>,
    confirmation: TextInput,
}

impl ConfirmVerb {
    /// Asks whether `verb` shall be done to `ids`.
    pub(crate) fn new(verb: SandboxVerb, ids: Vec<(HostName, SandboxId)>) -> Self {
        Self {
            verb,
            ids,
            reason: None,
            confirmation: TextInput::default(),
        }
    }

    /// Asks whether the power of `id` shall be cut, which has not stopped.
    pub(crate) fn after_failed_stop(host: HostName, id: SandboxId, because: String) -> Self {
        Self {
            reason: Some(because),
            ..Self::new(SandboxVerb::ForceOff, vec![(host, id)])
        }
    }

    /// Takes up one more that has not stopped, where this is that question; tells whether it is.
    pub(crate) fn add_failed_stop(&mut self, host: &HostName, id: &SandboxId) -> bool {
        let one = (host.clone(), id.clone());
        if self.reason.is_some() && !self.ids.contains(&one) {
            self.ids.push(one);
        }
        self.reason.is_some()
    }

    /// Those it is done to, and those that are left out with the reason.
    fn partition_targets<'a>(
        &'a self,
        view: &'a View,
    ) -> (Vec<SelectedSandbox<'a>>, Vec<(&'a SandboxId, String)>) {
        let mut goes = Vec::new();
        let mut skipped = Vec::new();
        for (host, id) in &self.ids {
            let link = lookup::host(view, host).map(|host| &host.link);
            let why = match (lookup::sandbox(view, host, id), link) {
                (_, Some(Link::Down(_))) => Some(format!("{host} does not answer")),
                (None, _) => Some("it no longer exists".to_owned()),
                (Some(sandbox), _) => {
                    let why = self.verb.obstacle(sandbox.state);
                    if why.is_none() {
                        goes.push((host, sandbox));
                    }
                    why
                }
            };
            skipped.extend(why.map(|why| (id, why)));
        }
        (goes, skipped)
    }

    /// What is left to do.
    pub(crate) fn operations(&self, view: &View) -> Vec<Operation> {
        let (goes, _) = self.partition_targets(view);
        let operation = |(host, sandbox): SelectedSandbox| Operation::Sandbox {
            host: host.clone(),
            id: sandbox.id.clone(),
            verb: self.verb,
        };
        goes.into_iter().map(operation).collect()
    }

    /// What must be typed, where it cannot be undone.
    fn phrase(&self, view: &View) -> Option<String> {
        if self.verb.danger() != Danger::Destructive {
            return None;
        }
        match self.partition_targets(view).0.as_slice() {
            [] => None,
            [(_, one)] => Some(one.id.to_string()),
            many => Some(format!("destroy {}", many.len())),
        }
    }

    /// Takes a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        let operations = self.operations(view);
        let possible = !operations.is_empty();
        let submit = || DialogReply::Close(vec![Command::SubmitAll(operations)]);
        match (self.phrase(view), key.code) {
            (Some(phrase), KeyCode::Enter) => {
                let confirmed = possible && phrase == self.confirmation.text();
                return if confirmed {
                    submit()
                } else {
                    DialogReply::Stay
                };
            }
            (Some(_), _) => drop(self.confirmation.on_key(key)),
            (None, KeyCode::Char('y')) if possible => return submit(),
            (None, KeyCode::Char('n' | 'q')) => return DialogReply::close(),
            _ => {}
        }
        DialogReply::Stay
    }

    /// Takes pasted text.
    pub(crate) fn paste(&mut self, text: &str) {
        self.confirmation.paste(text.trim());
    }

    /// What it shows.
    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let word = self.verb.as_str();
        let (goes, skipped) = self.partition_targets(view);
        let mut content = Content {
            title: format!("{word} {}", sandbox_names(&self.ids)),
            ..Content::default()
        };
        if let Some(because) = &self.reason {
            content.push_wrapped(because, 0, theme.warn, width);
        }
        let style = if self.verb.danger() == Danger::Harmless {
            theme.text
        } else {
            theme.warn
        };
        if !goes.is_empty() {
            content.push_wrapped(&format!("{}:", self.verb.effect()), 0, style, width);
            content.push_blank();
            for (host, sandbox) in &goes {
                content
                    .lines
                    .push(sandbox_line(host, sandbox, width, theme));
                if self.verb.danger() == Danger::Destructive {
                    for path in removed_files(sandbox) {
                        content.push_wrapped(&format!("· {path}"), 4, theme.text, width);
                    }
                }
            }
        }
        if !skipped.is_empty() {
            content.push_blank();
            content.push_wrapped("Left out:", 0, theme.dim, width);
            for (id, why) in skipped {
                content.push_wrapped(&format!("{id}: {why}"), 2, theme.dim, width);
            }
        }
        let ready = !self.operations(view).is_empty();
        match self.phrase(view) {
            Some(phrase) => {
                content.push_blank();
                content.push_wrapped(&format!("Type {phrase} to confirm:"), 0, theme.text, width);
                content.push_text_input("> ", &self.confirmation, true, width, theme);
                let same = phrase == self.confirmation.text();
                content.keys = vec![("enter", word, ready && same)];
            }
            None => content.keys = vec![("y", word, ready), ("n", "leave it", true)],
        }
        content.keys.push(("esc", "close", true));
        content
    }
}

fn sandbox_line(host: &HostName, sandbox: &Sandbox, width: usize, theme: &Theme) -> Line<'static> {
    let overlay = sandbox.chain.first().and_then(|link| link.size_bytes);
    let overlay = overlay.map_or(String::new(), |bytes| format!("overlay {}", size(bytes)));
    let name = fit(sandbox.id.as_str(), (width / 2).clamp(8, 40));
    Line::from(vec![
        Span::styled(format!("  {name} "), theme.title),
        Span::raw(format!("{:<9} {host} {overlay}", sandbox.state.label())),
    ])
}

/// What is removed with a sandbox.
fn removed_files(sandbox: &Sandbox) -> Vec<String> {
    let saved = (sandbox.state == SandboxState::Saved).then(|| "its saved state".to_owned());
    let disk = sandbox.disk().map(str::to_owned);
    [disk, sandbox.variables.clone(), saved]
        .into_iter()
        .flatten()
        .collect()
}
