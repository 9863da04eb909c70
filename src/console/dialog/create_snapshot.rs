//! Create and push: upload a snapshot of a sandbox to the bucket.

use std::sync::Arc;

use crossterm::event::KeyEvent;

use super::control::Control;
use super::form::{Form, FormReply};
use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::format::size;
use crate::lookup;
use snapdeck_engine::{Link, View};
use snapdeck_model::{
    Consistency, HostName, Method, Operation, Sandbox, SandboxId, SandboxState, SnapshotName,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotVerb {
    /// Any state of the sandbox.
    Create,
    /// Only a stopped or paused sandbox.
    Push,
}

/// Estimates, in bytes per second.
const COPY_RATE: u64 = 400 << 20;
const CONVERT_RATE: u64 = 200 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CreateField {
    Name,
    Live,
    Overwrite,
}

#[derive(Debug)]
pub(crate) struct CreateSnapshotDialog {
    verb: SnapshotVerb,
    host: HostName,
    sandbox: SandboxId,
    form: Form<CreateField>,
    /// Size of the object that has the name.
    existing_bytes: Option<u64>,
    /// The view and the name of which the object is.
    inputs: Option<(Arc<View>, String)>,
}

impl CreateSnapshotDialog {
    /// Returns a form with a `proposed` name, which typing replaces.
    pub(crate) fn new(
        verb: SnapshotVerb,
        host: HostName,
        sandbox: SandboxId,
        proposed: Option<SnapshotName>,
    ) -> Self {
        let name = proposed.as_ref().map_or("", SnapshotName::as_str);
        Self {
            verb,
            host,
            sandbox,
            form: Form::new([
                (CreateField::Name, "Name: ", Control::text(name)),
                (CreateField::Overwrite, "", Control::CheckBox(false)),
                (
                    CreateField::Live,
                    "live: do not pause the guest",
                    Control::CheckBox(false),
                ),
            ]),
            existing_bytes: None,
            inputs: None,
        }
    }

    fn verb_name(&self) -> &'static str {
        match self.verb {
            SnapshotVerb::Create => "create",
            SnapshotVerb::Push => "push",
        }
    }

    fn name(&self) -> Result<SnapshotName, String> {
        let name = self.form.text(&CreateField::Name).parse::<SnapshotName>();
        name.map_err(|error| error.to_string())
    }

    fn can_be_live(&self, view: &View) -> bool {
        self.verb == SnapshotVerb::Create
            && lookup::sandbox(view, &self.host, &self.sandbox).is_some_and(|s| s.state.is_active())
    }

    /// Returns why no snapshot of this sandbox can be made now, whatever its name.
    fn refusal(&self, view: &View) -> Option<String> {
        if let Some(refusal) = super::bucket_refusal(view) {
            return Some(refusal);
        }
        if let Some(Link::Down(error)) = lookup::host(view, &self.host).map(|host| &host.link) {
            return Some(error.to_string());
        }
        match lookup::sandbox(view, &self.host, &self.sandbox) {
            None => Some(format!(
                "{} is no longer on host {}",
                self.sandbox, self.host
            )),
            Some(sandbox) if self.verb == SnapshotVerb::Push => push_refusal(sandbox),
            Some(_) => None,
        }
    }

    /// Returns the operation, or why the form is not complete.
    fn operation(&self, view: &View) -> Result<Operation, String> {
        if let Some(reason) = self.refusal(view) {
            return Err(reason);
        }
        let name = self.name()?;
        if self.existing_bytes.is_some() && !self.form.is_checked(&CreateField::Overwrite) {
            return Err(format!(
                "{name} already exists in the bucket: select overwrite or choose another name"
            ));
        }
        let (host, sandbox) = (self.host.clone(), self.sandbox.clone());
        let overwrite = self.existing_bytes.is_some();
        Ok(match self.verb {
            SnapshotVerb::Create => {
                let live = self.form.is_checked(&CreateField::Live) && self.can_be_live(view);
                Operation::Create {
                    host,
                    sandbox,
                    name,
                    live,
                    overwrite,
                    compact: false,
                }
            }
            SnapshotVerb::Push => Operation::Push {
                host,
                sandbox,
                name,
                overwrite,
                compact: false,
            },
        })
    }

    /// Returns how a running guest's disk is read: the pause of the guest, and the consistency of the snapshot.
    fn describe_effect(&self, view: &View) -> String {
        let sandbox = lookup::sandbox(view, &self.host, &self.sandbox);
        let chain = sandbox.map_or(&[][..], |sandbox| &sandbox.chain);
        let overlay = chain.first().and_then(|link| link.size_bytes);
        let chain_bytes: u64 = chain.iter().filter_map(|link| link.size_bytes).sum();
        if sandbox.is_some_and(|sandbox| sandbox.state.is_quiescent()) {
            return "Safe: the guest is not running; its disk is read as it is.".to_owned();
        }
        let (pause, consistency) = match lookup::host(view, &self.host).and_then(|host| host.running_method) {
            Some(Method::Backup) | None => (
                "Safe (backup): the guest is paused for milliseconds and runs while its disk is read.".to_owned(),
                "quiesced if the guest agent responds, else crash-consistent",
            ),
            Some(Method::Copy) => (
                format!(
                    "Safe (copy): the guest is paused while its overlay is copied, about {}.",
                    format_seconds(overlay.unwrap_or(0) / COPY_RATE)
                ),
                "crash-consistent",
            ),
            Some(_) => (
                format!(
                    "Safe (convert): the guest is paused while its disk is converted, about {}.",
                    format_seconds(chain_bytes / CONVERT_RATE)
                ),
                "crash-consistent",
            ),
        };
        format!("{pause} The snapshot is {consistency}.")
    }

    /// Adds what is free on the host, and a warning if that may not be enough for what a snapshot of a running guest writes
    /// there: the blocks that the guest overwrites, its overlay or the converted disk.
    fn push_free_space(&self, content: &mut Content<'_>, context: &Context<'_>) {
        let (view, theme) = (context.view, context.theme);
        let Some(free) = (context.free_bytes)(&self.host) else {
            return;
        };
        let free_text = format!("Free on {}: {}", self.host, size(free));
        content.push_wrapped(&free_text, 0, theme.dim);
        let sandbox = lookup::sandbox(view, &self.host, &self.sandbox);
        let Some(sandbox) = sandbox.filter(|sandbox| !sandbox.state.is_quiescent()) else {
            return;
        };
        let sizes = sandbox
            .chain
            .iter()
            .map(|link| link.size_bytes.unwrap_or(0));
        let method = lookup::host(view, &self.host).and_then(|host| host.running_method);
        let needed = match method {
            Some(Method::Backup | Method::Copy) | None => sizes.take(1).sum::<u64>(),
            Some(_) => sizes.sum(),
        };
        if needed > free {
            let text = format!(
                "! The host may run out of space: the snapshot writes up to {} there.",
                size(needed)
            );
            content.push_wrapped(&text, 0, theme.warn);
        }
    }

    fn describe_name(&self, content: &mut Content<'_>, view: &View) {
        let theme = content.theme;
        match (self.name(), self.existing_bytes) {
            _ if self.form.text(&CreateField::Name).is_empty() => {
                let rule =
                    "1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or digit";
                content.push_wrapped(rule, 6, theme.dim);
            }
            (Err(error), _) => content.push_wrapped(&format!("✗ {error}"), 6, theme.bad),
            (Ok(name), Some(bytes)) => {
                let text = format!("! {name} already exists in the bucket ({})", size(bytes));
                content.push_wrapped(&text, 6, theme.warn);
            }
            (Ok(name), None) => {
                let text = format!("✓ uploads to {}{}", view.bucket.location, name.file_name());
                content.push_wrapped(&text, 6, theme.good);
            }
        }
    }
}

impl Dialog for CreateSnapshotDialog {
    fn update(&mut self, view: &Arc<View>) {
        let name = self.form.text(&CreateField::Name);
        let is_current = |(known, of): &(Arc<View>, String)| Arc::ptr_eq(known, view) && of == name;
        if self.inputs.as_ref().is_some_and(is_current) {
            return;
        }
        let is_renamed = self.inputs.as_ref().is_some_and(|(_, of)| of != name);
        self.inputs = Some((view.clone(), name.to_owned()));
        if is_renamed {
            self.form.check(&CreateField::Overwrite, false);
        }
        let name = self.name().ok();
        let object = name.as_ref().and_then(|name| lookup::object(view, name));
        self.existing_bytes = object.map(|object| object.size_bytes);
        let label = name.map(|name| format!("overwrite: replace {name} in the bucket"));
        self.form
            .set_label(&CreateField::Overwrite, label.unwrap_or_default(), true);
        self.form
            .show(&CreateField::Overwrite, self.existing_bytes.is_some());
        let can_be_live = self.can_be_live(view);
        self.form.show(&CreateField::Live, can_be_live);
    }

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
        let title = format!(
            "{} a snapshot of {} on {}",
            self.verb_name(),
            self.sandbox,
            self.host
        );
        let mut content = Content::new(title, context, width);
        if let Some(sandbox) = lookup::sandbox(view, &self.host, &self.sandbox) {
            content.push_wrapped(&describe_upload(sandbox), 0, theme.text);
            if sandbox.state == SandboxState::Saved {
                content.push_wrapped(
                    "The saved memory is not on the disk: the snapshot has only the data on the \
                     disk, as after a power cut.",
                    0,
                    theme.warn,
                );
            }
            self.push_free_space(&mut content, context);
            content.push_blank();
        }
        self.form.push(&mut content, &CreateField::Name);
        self.describe_name(&mut content, view);
        self.form.push(&mut content, &CreateField::Overwrite);
        if self.can_be_live(view) {
            content.push_blank();
            self.form.push(&mut content, &CreateField::Live);
            if self.form.is_checked(&CreateField::Live) {
                let warning = "Live: the disk is read while the guest writes to it. The snapshot may \
                    be inconsistent (live-unsafe), its file system unclean and open files incomplete; check it \
                    before it becomes a base.";
                content.push_wrapped(warning, 4, theme.warn);
            } else {
                content.push_wrapped(&self.describe_effect(view), 4, theme.dim);
            }
        }
        if let Some(reason) = self.refusal(view) {
            content.push_blank();
            content.push_refusal(&reason);
        }
        let ready = self.operation(view).is_ok();
        self.form.push_keys(&mut content, self.verb_name(), ready);
        content
    }
}

/// Returns why the sandbox cannot be pushed in its present state.
pub(crate) fn push_refusal(sandbox: &Sandbox) -> Option<String> {
    (!sandbox.state.is_quiescent()).then(|| {
        format!(
            "{} is {}: push needs a stopped or paused sandbox; use create for a running one",
            sandbox.id,
            sandbox.state.label()
        )
    })
}

fn format_seconds(seconds: u64) -> String {
    format!("{} s", seconds.max(1))
}

fn describe_upload(sandbox: &Sandbox) -> String {
    let disk_bytes: Option<u64> = sandbox.chain.iter().map(|link| link.size_bytes).sum();
    let state = sandbox.state.label();
    let (clean, crash) = (Consistency::CleanShutdown, Consistency::CrashConsistent);
    let (clean, crash) = (clean.as_str(), crash.as_str());
    let consistency = match sandbox.state {
        SandboxState::ShutOff => {
            format!(" The snapshot is {clean} if its guest was shut down, else {crash}.")
        }
        state if state.is_quiescent() => format!(" The snapshot is {crash}."),
        _ => String::new(),
    };
    match disk_bytes.filter(|bytes| *bytes > 0) {
        Some(bytes) => format!(
            "It is {state}. Reads {0}, then uploads at most {0}.{consistency}",
            size(bytes)
        ),
        None => format!("It is {state}.{consistency}"),
    }
}
