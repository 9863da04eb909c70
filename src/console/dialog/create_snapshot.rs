//! Create and push: a snapshot is cut from a sandbox and goes to the bucket.

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

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotVerb {
    /// Of a sandbox in any state.
    Create,
    /// Of one that is stopped or paused.
    Push,
}

/// Bytes that are copied or converted in a second, roughly.
const COPY_RATE: u64 = 400 << 20;
const CONVERT_RATE: u64 = 200 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CreateField {
    Name,
    Live,
    Overwrite,
}

/// The dialog.
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
    /// Asks for the name of a snapshot of `sandbox`.
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
        let mut parts = vec![CreateField::Name];
        if self.can_be_live(view) {
            parts.push(CreateField::Live);
        }
        if self.exists(view) {
            parts.push(CreateField::Overwrite);
        }
        parts
    }

    fn can_be_live(&self, view: &View) -> bool {
        self.verb == SnapshotVerb::Create
            && lookup::sandbox(view, &self.host, &self.sandbox).is_some_and(|s| s.state.is_active())
    }

    /// Why it cannot be done to this sandbox at all.
    fn refusal(&self, view: &View) -> Option<String> {
        match &view.bucket.link {
            Link::Unconfigured => {
                return Some("no bucket configured: set [bucket] name in config.toml".to_owned());
            }
            Link::Down(error) => return Some(error.to_string()),
            Link::Connecting | Link::Up => {}
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

    /// The operation as it is filled in, or why it is none yet.
    fn operation(&self, view: &View) -> Result<Operation, String> {
        if let Some(reason) = self.refusal(view) {
            return Err(reason);
        }
        let name = self.name()?;
        if self.exists(view) && !self.overwrite {
            return Err(format!(
                "{name} already exists in the bucket: tick overwrite or choose another name"
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

    /// Takes a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        let parts = self.visible_fields(view);
        let at = parts
            .iter()
            .position(|part| *part == self.focus)
            .unwrap_or(0);
        match key.code {
            KeyCode::Enter => {
                if let Ok(operation) = self.operation(view) {
                    return DialogReply::Close(vec![Command::Submit(operation)]);
                }
            }
            KeyCode::Tab | KeyCode::Down => self.focus = parts[(at + 1) % parts.len()],
            KeyCode::BackTab | KeyCode::Up => {
                self.focus = parts[(at + parts.len() - 1) % parts.len()];
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

    /// Takes pasted text.
    pub(crate) fn paste(&mut self, text: &str) {
        if self.focus == CreateField::Name {
            self.name.paste(text.trim());
            self.overwrite = false;
        }
    }

    /// What it shows.
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
                    "Its saved memory is not on the disk: the snapshot has what the disk \
                     holds, as after a power cut.",
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
                let promise = self.describe_effect(view);
                content.push_wrapped(&promise, 4, theme.dim, width);
            }
        }
        if let Some(reason) = &refusal {
            content.push_blank();
            content.push_wrapped(&format!("✗ {reason}"), 0, theme.bad, width);
        }
        let ready = self.operation(view).is_ok();
        content.keys = vec![("enter", self.verb_name(), ready), ("tab", "next", true)];
        if self.focus != CreateField::Name {
            content.keys.push(("space", "tick", true));
        }
        content.keys.push(("esc", "close", true));
        content
    }

    /// How a running guest's disk is read, and what that means for the guest and for the snapshot.
    fn describe_effect(&self, view: &View) -> String {
        let sandbox = lookup::sandbox(view, &self.host, &self.sandbox);
        let chain = sandbox.map_or(&[][..], |sandbox| &sandbox.chain);
        let overlay = chain.first().and_then(|link| link.size_bytes);
        let all: u64 = chain.iter().filter_map(|link| link.size_bytes).sum();
        if sandbox.is_some_and(|sandbox| sandbox.state.is_quiescent()) {
            return "Safe: the guest is not running; its disk is read as it is.".to_owned();
        }
        let (pause, quiet) = match lookup::host(view, &self.host).and_then(|host| host.running_method) {
            Some(Method::Backup) | None => (
                "Safe (backup): the guest is paused for milliseconds and runs while its disk is read.".to_owned(),
                "quiesced where its guest agent answers, else crash-consistent",
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
                    format_seconds(all / CONVERT_RATE)
                ),
                "crash-consistent",
            ),
        };
        format!("{pause} The snapshot is {quiet}.")
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
                let found = lookup::object(view, &name).map_or(0, |object| object.size_bytes);
                let text = format!("! {name} already exists in the bucket ({})", size(found));
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

/// Why the sandbox cannot be pushed in its present state.
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
    let known: Option<u64> = sandbox.chain.iter().map(|link| link.size_bytes).sum();
    let state = sandbox.state.label();
    let quiet = match sandbox.state {
        SandboxState::ShutOff => {
            format!(" The snapshot is {}.", Consistency::CleanShutdown.as_str())
        }
        state if state.is_quiescent() => format!(
            " The snapshot is {}.",
            Consistency::CrashConsistent.as_str()
        ),
        _ => String::new(),
    };
    match known.filter(|bytes| *bytes > 0) {
        Some(bytes) => format!(
            "It is {state}. Reads {0}, then uploads at most {0}.{quiet}",
            size(bytes)
        ),
        None => format!("It is {state}.{quiet}"),
    }
}
