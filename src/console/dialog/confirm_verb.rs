//! Confirmation of a verb on the marked or selected sandboxes. It lists the sandboxes that the verb changes, and the
//! skipped ones with the reason. Destructive verbs must be confirmed by typing.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::control::Control;
use super::form::{Form, FormReply};
use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::format::{clip, count, fit_middle, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{Link, View};
use snapdeck_model::{Danger, HostName, Operation, Sandbox, SandboxId, SandboxState, SandboxVerb};

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

/// A line about the sandboxes that the verb changes.
#[derive(Debug)]
enum TargetLine {
    Sandbox {
        host: HostName,
        id: SandboxId,
        state: SandboxState,
        overlay_bytes: Option<u64>,
    },
    /// Something that is removed with the sandbox above.
    Removed(String),
}

/// The sandboxes that the verb changes, and the skipped ones.
#[derive(Debug, Default)]
struct Targets {
    operations: Vec<Operation>,
    lines: Vec<TargetLine>,
    skipped: Vec<(SandboxId, String)>,
}

/// The field into which the phrase is typed.
const PHRASE: () = ();

#[derive(Debug)]
pub(crate) struct ConfirmVerb {
    verb: SandboxVerb,
    ids: Vec<(HostName, SandboxId)>,
    /// Why the dialog was opened, unless the operator opened it.
    reason: Option<String>,
    form: Form<()>,
    targets: Targets,
    /// The view and the number of ids of which the targets are.
    inputs: Option<(Arc<View>, usize)>,
}

impl ConfirmVerb {
    pub(crate) fn new(
        verb: SandboxVerb,
        ids: Vec<(HostName, SandboxId)>,
        view: &Arc<View>,
    ) -> Self {
        let mut dialog = Self {
            verb,
            ids,
            reason: None,
            form: Form::new([(PHRASE, "", Control::phrase())]),
            targets: Targets::default(),
            inputs: None,
        };
        dialog.update(view);
        dialog
    }

    /// Returns a dialog that offers to force `id` off because it has not stopped.
    pub(crate) fn after_failed_stop(
        host: HostName,
        id: SandboxId,
        reason: String,
        view: &Arc<View>,
    ) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(SandboxVerb::ForceOff, vec![(host, id)], view)
        }
    }

    fn is_destructive(&self) -> bool {
        self.verb.danger() == Danger::Destructive
    }

    fn find_targets(&self, view: &View) -> Targets {
        let mut targets = Targets::default();
        let sandboxes = lookup::Sandboxes::new(view, &self.ids);
        for (host, id) in &self.ids {
            let link = lookup::host(view, host).map(|host| &host.link);
            let obstacle = match (sandboxes.get(host, id), link) {
                (_, Some(Link::Down(_))) => Some(format!("host {host} is unreachable")),
                (None, _) => Some("it no longer exists".to_owned()),
                (Some(sandbox), _) => {
                    let obstacle = self.verb.obstacle(sandbox.state);
                    if obstacle.is_none() {
                        self.add_target(&mut targets, host, sandbox);
                    }
                    obstacle
                }
            };
            let skipped = obstacle.map(|obstacle| (id.clone(), obstacle));
            targets.skipped.extend(skipped);
        }
        targets
    }

    fn add_target(&self, targets: &mut Targets, host: &HostName, sandbox: &Sandbox) {
        targets.operations.push(Operation::Sandbox {
            host: host.clone(),
            id: sandbox.id.clone(),
            verb: self.verb,
        });
        targets.lines.push(TargetLine::Sandbox {
            host: host.clone(),
            id: sandbox.id.clone(),
            state: sandbox.state,
            overlay_bytes: sandbox.chain.first().and_then(|link| link.size_bytes),
        });
        if self.is_destructive() {
            let removed = removed_files(sandbox).into_iter();
            targets.lines.extend(removed.map(TargetLine::Removed));
        }
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.targets.operations.clone()
    }

    /// Returns what must be typed to confirm; `None` if a key is enough.
    fn phrase(&self) -> Option<String> {
        match self.targets.operations.as_slice() {
            _ if !self.is_destructive() => None,
            [] => None,
            [operation] => Some(operation.subject().to_owned()),
            many => Some(format!("destroy {}", many.len())),
        }
    }

    fn submit(&self) -> DialogReply {
        DialogReply::Close(vec![Command::SubmitAll(self.operations())])
    }
}

impl Dialog for ConfirmVerb {
    fn update(&mut self, view: &Arc<View>) {
        let is_current =
            |(known, ids): &(Arc<View>, usize)| Arc::ptr_eq(known, view) && *ids == self.ids.len();
        if !self.inputs.as_ref().is_some_and(is_current) {
            self.inputs = Some((view.clone(), self.ids.len()));
            self.targets = self.find_targets(view);
            let phrase = self.phrase();
            self.form.set_phrase(&PHRASE, phrase);
        }
    }

    /// One dialog is enough for all failed stops.
    fn add_failed_stop(&mut self, host: &HostName, id: &SandboxId) {
        let target = (host.clone(), id.clone());
        if self.reason.is_some() && !self.ids.contains(&target) {
            self.ids.push(target);
        }
    }

    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        match self.form.on_key(key) {
            FormReply::Submit if self.form.is_confirmed(&PHRASE) => return self.submit(),
            FormReply::Ignored => {}
            _ => return DialogReply::Stay,
        }
        match key.code {
            _ if self.phrase().is_some() => DialogReply::Ignored,
            KeyCode::Char('y') if !self.targets.operations.is_empty() => self.submit(),
            KeyCode::Char('n' | 'q') => DialogReply::close(),
            _ => DialogReply::Ignored,
        }
    }

    fn paste(&mut self, text: &str) {
        self.form.paste(text);
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let (theme, verb, targets) = (*context.theme, self.verb.as_str(), &self.targets);
        let title = format!("{verb} {}", sandbox_names(&self.ids));
        let mut content = Content::new(title, context, width);
        if let Some(reason) = &self.reason {
            content.push_wrapped(reason, 0, theme.warn);
        }
        let style = match self.verb.danger() {
            Danger::Harmless => theme.text,
            _ => theme.warn,
        };
        let is_possible = !targets.operations.is_empty();
        if is_possible {
            content.push_wrapped(&format!("{}:", self.verb.effect()), 0, style);
            content.push_blank();
            let lines = &targets.lines;
            content.push_rows(lines.len(), move |row| {
                target_line(&lines[row], &theme, width)
            });
        }
        if !targets.skipped.is_empty() {
            content.push_blank();
            content.push_wrapped("Skipped:", 0, theme.dim);
            let skipped = &targets.skipped;
            content.push_rows(skipped.len(), move |row| {
                let (id, reason) = &skipped[row];
                Line::styled(clip(&format!("  {id}: {reason}"), width), theme.dim)
            });
        }
        match self.phrase() {
            Some(_) => {
                content.push_blank();
                self.form.push(&mut content, &PHRASE);
                let is_confirmed = self.form.is_confirmed(&PHRASE);
                self.form.push_keys(&mut content, verb, is_confirmed);
            }
            None => {
                content.push_key("y", verb, is_possible);
                content.push_key("n", "cancel", true);
            }
        }
        content
    }
}

fn target_line(line: &TargetLine, theme: &Theme, width: usize) -> Line<'static> {
    match line {
        TargetLine::Sandbox {
            host,
            id,
            state,
            overlay_bytes,
        } => {
            let overlay =
                overlay_bytes.map_or(String::new(), |bytes| format!("overlay {}", size(bytes)));
            let name = fit_middle(id.as_str(), (width / 2).clamp(8, 40));
            Line::from(vec![
                Span::styled(format!("  {name} "), theme.title),
                Span::raw(format!("{:<9} {host} {overlay}", state.label())),
            ])
        }
        TargetLine::Removed(path) => {
            let path = fit_middle(path, width.saturating_sub(6));
            Line::styled(format!("    · {path}"), theme.text)
        }
    }
}

fn removed_files(sandbox: &Sandbox) -> Vec<String> {
    let saved = (sandbox.state == SandboxState::Saved).then(|| "its saved state".to_owned());
    let disk = sandbox.disk().map(str::to_owned);
    [disk, sandbox.variables.clone(), saved]
        .into_iter()
        .flatten()
        .collect()
}
