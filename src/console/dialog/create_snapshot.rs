//! Create and push: upload a snapshot of a sandbox to the bucket.

use crossterm::event::{KeyCode, KeyEvent};

use super::{Content, DialogReply, TextInput};
use crate::app::Command;
use crate::format::size;
use crate::lookup;
use crate::theme::Theme;
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
    name: TextInput,
    live: bool,
    overwrite: bool,
    focus: CreateField,
}

impl CreateSnapshotDialog {
    pub(crate) fn new(verb: SnapshotVerb, host: HostName, sandbox: SandboxId) -> Self {
        Self {
            verb,
            host,
            sandbox,
            name: TextInput::default(),
            live: false,
            overwrite: false,
            focus: CreateField::Name,
        }
    }

    fn verb_name(&self) -> &'static str {
        match self.verb {
            SnapshotVerb::Create => "create",
            SnapshotVerb::Push => "push",
        }
    }

    fn name(&self) -> Result<SnapshotName, String> {
        let name = self.name.text().parse::<SnapshotName>();
        name.map_err(|error| error.to_string())
    }

    fn exists(&self, view: &View) -> bool {
        self.name()
            .is_ok_and(|name| lookup::object(view, &name).is_some())
    }

    fn visible_fields(&self, view: &View) -> Vec<CreateField> {
        let mut fields = vec![CreateField::Name];
        if self.can_be_live(view) {
            fields.push(CreateField::Live);
        }
        if self.exists(view) {
            fields.push(CreateField::Overwrite);
        }
        fields
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
        if self.exists(view) && !self.overwrite {
            return Err(format!(
                "{name} already exists in the bucket: select overwrite or choose another name"
            ));
        }
        let (host, sandbox) = (self.host.clone(), self.sandbox.clone());
        let overwrite = self.overwrite && self.exists(view);
        Ok(match self.verb {
            SnapshotVerb::Create => {
                let live = self.live && self.can_be_live(view);
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

    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        if let Some(focus) = super::moved_focus(&self.visible_fields(view), self.focus, key.code) {
            self.focus = focus;
            return DialogReply::Stay;
        }
        match key.code {
            KeyCode::Enter => {
                if let Ok(operation) = self.operation(view) {
                    return DialogReply::Close(vec![Command::Submit(operation)]);
                }
            }
            KeyCode::Char(' ') if self.focus == CreateField::Live => self.live = !self.live,
            KeyCode::Char(' ') if self.focus == CreateField::Overwrite => {
                self.overwrite = !self.overwrite
            }
            _ if self.focus == CreateField::Name => {
                let before = self.name.text().to_owned();
                self.name.on_key(key);
                if before != self.name.text() {
                    self.overwrite = false;
                }
            }
            _ => {}
        }
        DialogReply::Stay
    }

    pub(crate) fn paste(&mut self, text: &str) {
        if self.focus == CreateField::Name {
            self.name.paste(text.trim());
            self.overwrite = false;
        }
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: format!(
                "{} a snapshot of {} on {}",
                self.verb_name(),
                self.sandbox,
                self.host
            ),
            ..Content::default()
        };
        let refusal = self.refusal(view);
        if let Some(sandbox) = lookup::sandbox(view, &self.host, &self.sandbox) {
            content.push_wrapped(&describe_upload(sandbox), 0, theme.text, width);
            if sandbox.state == SandboxState::Saved {
                content.push_wrapped(
                    "The saved memory is not on the disk: the snapshot has only the data on the \
                     disk, as after a power cut.",
                    0,
                    theme.warn,
                    width,
                );
            }
            content.push_blank();
        }
        content.push_text_input(
            "Name: ",
            &self.name,
            self.focus == CreateField::Name,
            width,
            theme,
        );
        self.describe_name(&mut content, view, theme, width);
        if self.can_be_live(view) {
            content.push_blank();
            let focused = self.focus == CreateField::Live;
            content.push_check_box(
                "live: do not pause the guest",
                self.live,
                focused,
                true,
                theme,
            );
            if self.live {
                let warning = "Live: the disk is read while the guest writes to it. The snapshot may \
                    be inconsistent (live-unsafe), its file system unclean and open files incomplete; check it \
                    before it becomes a base.";
                content.push_wrapped(warning, 4, theme.warn, width);
            } else {
                let effect = self.describe_effect(view);
                content.push_wrapped(&effect, 4, theme.dim, width);
            }
        }
        if let Some(reason) = &refusal {
            content.push_blank();
            content.push_wrapped(&format!("✗ {reason}"), 0, theme.bad, width);
        }
        let ready = self.operation(view).is_ok();
        content.keys = vec![("enter", self.verb_name(), ready), ("tab", "next", true)];
        if self.focus != CreateField::Name {
            content.keys.push(("space", "toggle", true));
        }
        content.keys.push(("esc", "cancel", true));
        content
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

    fn describe_name(&self, content: &mut Content, view: &View, theme: &Theme, width: usize) {
        match self.name() {
            _ if self.name.text().is_empty() => {
                let rule =
                    "1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or digit";
                content.push_wrapped(rule, 6, theme.dim, width);
            }
            Err(error) => content.push_wrapped(&format!("✗ {error}"), 6, theme.bad, width),
            Ok(name) if self.exists(view) => {
                let bytes = lookup::object(view, &name).map_or(0, |object| object.size_bytes);
                let text = format!("! {name} already exists in the bucket ({})", size(bytes));
                content.push_wrapped(&text, 6, theme.warn, width);
                let label = format!("overwrite: replace {name} in the bucket");
                let focused = self.focus == CreateField::Overwrite;
                content.push_check_box(&label, self.overwrite, focused, true, theme);
            }
            Ok(name) => {
                let text = format!("✓ uploads to {}{}", view.bucket.location, name.file_name());
                content.push_wrapped(&text, 6, theme.good, width);
            }
        }
    }
}

/// Returns why the sandbox cannot be pushed in its present state.
pub(crate) fn push_refusal(sandbox: &Sandbox) -> Option<String> {
    (!sandbox.state.is_quiescent()).then(|| {
        format!(
            "{} is {}: push needs a stopped or paused sandbox; use create (c) for a running one",
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
