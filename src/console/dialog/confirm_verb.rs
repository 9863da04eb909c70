//! Confirmation of a verb on the marked or selected sandboxes. It lists the sandboxes that the verb changes, and the
//! skipped ones with the reason. Destructive verbs must be confirmed by typing.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, DialogReply, TextInput};
use crate::app::Command;
use crate::format::{count, fit, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{Link, View};
use snapdeck_model::{Danger, HostName, Operation, Sandbox, SandboxId, SandboxState, SandboxVerb};

type SelectedSandbox<'a> = (&'a HostName, &'a Sandbox);

/// Returns a title for `ids`: `web-01 on alpha`, `3 sandboxes on several hosts`.
pub(super) fn sandbox_names(ids: &[(HostName, SandboxId)]) -> String {
    match ids {
        [(host, one)] => format!("{one} on {host}"),
        [(first, _), ..] if ids.iter().all(|(host, _)| host == first) => {
            format!("{} on {first}", count(ids.len(), "sandbox"))
        }
        _ => format!("{} on several hosts", count(ids.len(), "sandbox")),
    }
}

#[derive(Debug)]
pub(crate) struct ConfirmVerb {
    verb: SandboxVerb,
    ids: Vec<(HostName, SandboxId)>,
    /// Why the dialog was opened, unless the operator opened it.
    reason: Option<String>,
    confirmation: TextInput,
}

impl ConfirmVerb {
    pub(crate) fn new(verb: SandboxVerb, ids: Vec<(HostName, SandboxId)>) -> Self {
        Self {
            verb,
            ids,
            reason: None,
            confirmation: TextInput::default(),
        }
    }

    /// Returns a dialog that offers to force `id` off because it has not stopped.
    pub(crate) fn after_failed_stop(host: HostName, id: SandboxId, reason: String) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(SandboxVerb::ForceOff, vec![(host, id)])
        }
    }

    /// Adds a sandbox that has not stopped, if this dialog is about failed stops; returns whether it is.
    pub(crate) fn add_failed_stop(&mut self, host: &HostName, id: &SandboxId) -> bool {
        let target = (host.clone(), id.clone());
        if self.reason.is_some() && !self.ids.contains(&target) {
            self.ids.push(target);
        }
        self.reason.is_some()
    }

    /// Returns the sandboxes that the verb changes, and the skipped ones with the reason.
    fn partition_targets<'a>(
        &'a self,
        view: &'a View,
    ) -> (Vec<SelectedSandbox<'a>>, Vec<(&'a SandboxId, String)>) {
        let mut targets = Vec::new();
        let mut skipped = Vec::new();
        for (host, id) in &self.ids {
            let link = lookup::host(view, host).map(|host| &host.link);
            let obstacle = match (lookup::sandbox(view, host, id), link) {
                (_, Some(Link::Down(_))) => Some(format!("host {host} is unreachable")),
                (None, _) => Some("it no longer exists".to_owned()),
                (Some(sandbox), _) => {
                    let obstacle = self.verb.obstacle(sandbox.state);
                    if obstacle.is_none() {
                        targets.push((host, sandbox));
                    }
                    obstacle
                }
            };
            skipped.extend(obstacle.map(|obstacle| (id, obstacle)));
        }
        (targets, skipped)
    }

    pub(crate) fn operations(&self, view: &View) -> Vec<Operation> {
        let (targets, _) = self.partition_targets(view);
        let operation = |(host, sandbox): SelectedSandbox| Operation::Sandbox {
            host: host.clone(),
            id: sandbox.id.clone(),
            verb: self.verb,
        };
        targets.into_iter().map(operation).collect()
    }

    /// Returns what must be typed to confirm; `None` if a key is enough.
    fn phrase(&self, view: &View) -> Option<String> {
        if self.verb.danger() != Danger::Destructive {
            return None;
        }
        match self.partition_targets(view).0.as_slice() {
            [] => None,
            [(_, sandbox)] => Some(sandbox.id.to_string()),
            many => Some(format!("destroy {}", many.len())),
        }
    }

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

    pub(crate) fn paste(&mut self, text: &str) {
        self.confirmation.paste(text.trim());
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let verb = self.verb.as_str();
        let (targets, skipped) = self.partition_targets(view);
        let mut content = Content {
            title: format!("{verb} {}", sandbox_names(&self.ids)),
            ..Content::default()
        };
        if let Some(reason) = &self.reason {
            content.push_wrapped(reason, 0, theme.warn, width);
        }
        let style = if self.verb.danger() == Danger::Harmless {
            theme.text
        } else {
            theme.warn
        };
        if !targets.is_empty() {
            content.push_wrapped(&format!("{}:", self.verb.effect()), 0, style, width);
            content.push_blank();
            for (host, sandbox) in &targets {
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
            content.push_wrapped("Skipped:", 0, theme.dim, width);
            for (id, reason) in skipped {
                content.push_wrapped(&format!("{id}: {reason}"), 2, theme.dim, width);
            }
        }
        let possible = !targets.is_empty();
        match self.phrase(view) {
            Some(phrase) => {
                content.push_blank();
                content.push_confirmation(&phrase, &self.confirmation, true, width, theme);
                let matches = phrase == self.confirmation.text();
                content.keys = vec![
                    ("enter", verb, possible && matches),
                    ("esc", "cancel", true),
                ];
            }
            None => content.keys = vec![("y", verb, possible), ("n", "cancel", true)],
        }
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

fn removed_files(sandbox: &Sandbox) -> Vec<String> {
    let saved = (sandbox.state == SandboxState::Saved).then(|| "its saved state".to_owned());
    let disk = sandbox.disk().map(str::to_owned);
    [disk, sandbox.variables.clone(), saved]
        .into_iter()
        .flatten()
        .collect()
}
