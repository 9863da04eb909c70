//! Rename, clone and set: verbs of one sandbox that need values.

use crossterm::event::KeyEvent;

use super::control::Control;
use super::form::{Form, FormReply};
use super::machine_size::{check_cpus, check_memory};
use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::format::short_size;
use crate::lookup;
use snapdeck_engine::{Link, View};
use snapdeck_model::{HostName, Operation, SandboxId, SandboxVerb, VerbKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SandboxField {
    NewId,
    Start,
    Cpus,
    Memory,
}

#[derive(Debug)]
pub(crate) struct SandboxForm {
    /// [`VerbKind::Rename`], [`VerbKind::Clone`] or [`VerbKind::Set`].
    kind: VerbKind,
    host: HostName,
    id: SandboxId,
    form: Form<SandboxField>,
}

impl SandboxForm {
    pub(crate) fn new(kind: VerbKind, host: HostName, id: SandboxId, view: &View) -> Self {
        let new_id = |id: &SandboxId| (SandboxField::NewId, "New id: ", Control::text(id.as_str()));
        let form = match kind {
            VerbKind::Set => {
                let sandbox = lookup::sandbox(view, &host, &id);
                let cpus = sandbox.map_or(String::new(), |sandbox| sandbox.cpus.to_string());
                let memory = sandbox.map_or(String::new(), |one| short_size(one.memory_bytes));
                Form::new([
                    (SandboxField::Cpus, "CPUs:   ", Control::number(&cpus)),
                    (SandboxField::Memory, "Memory: ", Control::text(&memory)),
                ])
            }
            VerbKind::Clone => Form::new([
                new_id(
                    &view
                        .propose_clone_id(&host, &id)
                        .unwrap_or_else(|| id.clone()),
                ),
                (
                    SandboxField::Start,
                    "start the clone",
                    Control::CheckBox(false),
                ),
            ]),
            _ => Form::new([new_id(&id)]),
        };
        Self {
            kind,
            host,
            id,
            form,
        }
    }

    fn new_id(&self, view: &View) -> Result<SandboxId, String> {
        let text = self.form.text(&SandboxField::NewId);
        let id: SandboxId = text
            .parse()
            .map_err(|error: snapdeck_model::Error| error.to_string())?;
        match lookup::sandbox(view, &self.host, &id) {
            Some(_) => Err(format!("{id} already exists on {}", self.host)),
            None => Ok(id),
        }
    }

    fn cpus(&self) -> Result<u32, String> {
        check_cpus(self.form.number(&SandboxField::Cpus).ok().flatten())
    }

    fn memory(&self) -> Result<u64, String> {
        check_memory(self.form.text(&SandboxField::Memory))
    }

    /// Returns why the verb is not possible now, whatever the values.
    fn refusal(&self, view: &View) -> Option<String> {
        if let Some(Link::Down(error)) = lookup::host(view, &self.host).map(|host| &host.link) {
            return Some(error.to_string());
        }
        match lookup::sandbox(view, &self.host, &self.id) {
            None => Some(format!("{} is no longer on {}", self.id, self.host)),
            Some(sandbox) => self.kind.obstacle(sandbox.state),
        }
    }

    /// Returns the operation, or why the form is not complete.
    fn operation(&self, view: &View) -> Result<Operation, String> {
        if let Some(reason) = self.refusal(view) {
            return Err(reason);
        }
        let (host, id) = (self.host.clone(), self.id.clone());
        Ok(match self.kind {
            VerbKind::Set => Operation::Sandbox {
                host,
                id,
                verb: SandboxVerb::Set {
                    cpus: Some(self.cpus()?),
                    memory_bytes: Some(self.memory()?),
                },
            },
            VerbKind::Clone => Operation::CloneSandbox {
                host,
                id,
                new_id: self.new_id(view)?,
                start: self.form.is_checked(&SandboxField::Start),
            },
            _ => Operation::RenameSandbox {
                host,
                id,
                new_id: self.new_id(view)?,
            },
        })
    }
}

impl Dialog for SandboxForm {
    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        match self.form.on_key(key) {
            FormReply::Submit => match self.operation(context.view) {
                Ok(operation) => DialogReply::Close(vec![Command::Submit(operation)]),
                Err(_) => DialogReply::Stay,
            },
            FormReply::Ignored => DialogReply::Ignored,
            FormReply::Handled | FormReply::Changed(_) => DialogReply::Stay,
        }
    }

    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        self.form.on_click(target);
        DialogReply::Stay
    }

    fn paste(&mut self, text: &str) {
        self.form.paste(text);
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let (view, theme) = (&**context.view, context.theme);
        let verb = self.kind.as_str();
        let title = format!("{verb} {} on {}", self.id, self.host);
        let mut content = Content::new(title, context, width);
        content.push_wrapped(self.kind.effect(), 0, theme.text);
        content.push_blank();
        // The proposed id is the present one, which is to be changed.
        let is_unchanged = self.form.text(&SandboxField::NewId) == self.id.as_str();
        for field in [
            SandboxField::NewId,
            SandboxField::Cpus,
            SandboxField::Memory,
            SandboxField::Start,
        ] {
            if !self.form.contains(&field) {
                continue;
            }
            self.form.push(&mut content, &field);
            let problem = match field {
                SandboxField::NewId if is_unchanged => None,
                SandboxField::NewId => self.new_id(view).err(),
                SandboxField::Cpus => self.cpus().err(),
                SandboxField::Memory => self.memory().err(),
                SandboxField::Start => None,
            };
            if let Some(problem) = problem {
                content.push_wrapped(&format!("✗ {problem}"), 8, theme.bad);
            }
        }
        content.push_blank();
        if let Some(reason) = self.refusal(view) {
            content.push_refusal(&reason);
        }
        let is_possible = self.operation(view).is_ok();
        self.form.push_keys(&mut content, verb, is_possible);
        content
    }
}
