//! New: creates a sandbox on a snapshot.

use crossterm::event::{KeyCode, KeyEvent};

use super::{Content, DialogReply, TextInput};
use crate::app::Command;
use crate::format::{parse_size, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{HostView, Link, View};
use snapdeck_model::{HostName, Operation, SandboxId, SandboxSpec, SnapshotName};

/// Highest number of virtual CPUs; the host may allow fewer.
const MAX_CPUS: u32 = 512;
/// Minimum memory, in bytes.
const MIN_MEMORY: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewSandboxField {
    Id,
    Snapshot,
    Cpus,
    Memory,
    Storage,
    Start,
}

const FORM_FIELDS: [NewSandboxField; 6] = [
    NewSandboxField::Id,
    NewSandboxField::Snapshot,
    NewSandboxField::Cpus,
    NewSandboxField::Memory,
    NewSandboxField::Storage,
    NewSandboxField::Start,
];

#[derive(Debug)]
pub(crate) struct NewSandboxDialog {
    host: HostName,
    id: TextInput,
    /// Part of the snapshot's name.
    snapshot_filter: TextInput,
    /// Index of the chosen match.
    choice: usize,
    cpus: TextInput,
    memory: TextInput,
    storage: TextInput,
    start: bool,
    focus: NewSandboxField,
}

/// The chosen snapshot.
struct BaseImage {
    name: SnapshotName,
    /// Size of its virtual disk; `None` if it is not on the host.
    disk_bytes: Option<u64>,
    /// Bytes to pull first; `None` if it is on the host.
    fetch_bytes: Option<u64>,
}

impl NewSandboxDialog {
    /// Returns a form for a sandbox on `snapshot`; `cpus` and `memory_bytes` are the settings' defaults.
    pub(crate) fn new(
        host: HostName,
        snapshot: Option<SnapshotName>,
        cpus: u32,
        memory_bytes: u64,
    ) -> Self {
        let memory = crate::format::short_size(memory_bytes);
        Self {
            host,
            id: TextInput::default(),
            snapshot_filter: TextInput::with_text(
                snapshot.as_ref().map_or("", |name| name.as_str()),
            ),
            choice: 0,
            cpus: TextInput::with_text(&cpus.to_string()),
            memory: TextInput::with_text(&memory),
            storage: TextInput::default(),
            start: true,
            focus: NewSandboxField::Id,
        }
    }

    fn host<'a>(&self, view: &'a View) -> Result<&'a HostView, String> {
        match lookup::host(view, &self.host) {
            None => Err(format!("no host {}", self.host)),
            Some(host) => match &host.link {
                Link::Down(error) => Err(error.to_string()),
                _ => Ok(host),
            },
        }
    }

    fn id(&self, view: &View) -> Result<SandboxId, String> {
        let id: SandboxId = self
            .id
            .text()
            .parse()
            .map_err(|error: snapdeck_model::Error| error.to_string())?;
        match lookup::sandbox(view, &self.host, &id) {
            Some(_) => Err(format!("{id} already exists on {}", self.host)),
            None => Ok(id),
        }
    }

    /// Returns the names that contain the typed text: an exact match first, then those on the host.
    fn matching_snapshots(&self, view: &View) -> Vec<SnapshotName> {
        let filter = self.snapshot_filter.text().to_ascii_lowercase();
        let host = lookup::host(view, &self.host);
        let local = host
            .iter()
            .flat_map(|host| host.snapshots.iter().map(|snapshot| &snapshot.name));
        let remote = view.bucket.objects.iter().map(|object| &object.name);
        let mut names: Vec<SnapshotName> = Vec::new();
        let matches = |name: &&SnapshotName| name.as_str().to_ascii_lowercase().contains(&filter);
        for name in local.chain(remote).filter(matches) {
            let is_exact = name.as_str() == self.snapshot_filter.text();
            match names.contains(name) {
                true => {}
                false if is_exact => names.insert(0, name.clone()),
                false => names.push(name.clone()),
            }
        }
        names
    }

    fn base(&self, view: &View) -> Result<BaseImage, String> {
        let matches = self.matching_snapshots(view);
        let Some(name) = matches.get(self.choice % matches.len().max(1)) else {
            return Err("no snapshot on this host or in the bucket matches".to_owned());
        };
        let name = name.clone();
        match lookup::snapshot(view, &self.host, &name) {
            Some(found) => match &found.problem {
                Some(problem) => Err(format!("{name} cannot be a base: {problem}")),
                None => Ok(BaseImage {
                    name,
                    disk_bytes: found.virtual_size(),
                    fetch_bytes: None,
                }),
            },
            None => Ok(BaseImage {
                fetch_bytes: lookup::object(view, &name).map(|object| object.size_bytes),
                name,
                disk_bytes: None,
            }),
        }
    }

    fn cpus(&self) -> Result<u32, String> {
        let cpus = self.cpus.text().trim().parse().ok();
        cpus.filter(|cpus| (1..=MAX_CPUS).contains(cpus))
            .ok_or_else(|| format!("a number from 1 to {MAX_CPUS}"))
    }

    fn memory(&self) -> Result<u64, String> {
        parse_size(self.memory.text())
            .filter(|bytes| *bytes >= MIN_MEMORY)
            .ok_or_else(|| format!("a size such as 4G or 512M, at least {}", size(MIN_MEMORY)))
    }

    fn storage(&self, view: &View) -> Result<Option<u64>, String> {
        if self.storage.text().trim().is_empty() {
            return Ok(None);
        }
        let bytes = parse_size(self.storage.text()).ok_or("a size such as 60G, or empty")?;
        match self.base(view).ok().and_then(|base| base.disk_bytes) {
            Some(disk_bytes) if bytes < disk_bytes => Err(format!(
                "smaller than the snapshot's disk of {}",
                size(disk_bytes)
            )),
            _ => Ok(Some(bytes)),
        }
    }

    /// Returns the operations, or why the form is not complete.
    fn operations(&self, view: &View) -> Result<Vec<Operation>, String> {
        self.host(view)?;
        let id = self.id(view)?;
        let base = self.base(view)?;
        let new = Operation::CreateSandbox {
            host: self.host.clone(),
            id,
            spec: SandboxSpec {
                snapshot: base.name.clone(),
                cpus: Some(self.cpus()?),
                memory_bytes: Some(self.memory()?),
                storage_bytes: self.storage(view)?,
                start: self.start,
            },
        };
        let pull = base.fetch_bytes.map(|_| Operation::Pull {
            host: self.host.clone(),
            name: base.name,
            overwrite: false,
        });
        Ok(pull.into_iter().chain([new]).collect())
    }

    fn focused_input(&mut self) -> Option<&mut TextInput> {
        match self.focus {
            NewSandboxField::Id => Some(&mut self.id),
            NewSandboxField::Snapshot => Some(&mut self.snapshot_filter),
            NewSandboxField::Cpus => Some(&mut self.cpus),
            NewSandboxField::Memory => Some(&mut self.memory),
            NewSandboxField::Storage => Some(&mut self.storage),
            NewSandboxField::Start => None,
        }
    }

    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View) -> DialogReply {
        if let Some(focus) = super::moved_focus(&FORM_FIELDS, self.focus, key.code) {
            self.focus = focus;
            return DialogReply::Stay;
        }
        match (key.code, self.focus) {
            (KeyCode::Enter, _) => {
                if let Ok(operations) = self.operations(view) {
                    return DialogReply::Close(vec![Command::Chain(operations)]);
                }
            }
            (KeyCode::Left | KeyCode::Right, NewSandboxField::Snapshot) => {
                let count = self.matching_snapshots(view).len().max(1);
                let step = if key.code == KeyCode::Right {
                    1
                } else {
                    count - 1
                };
                self.choice = (self.choice + step) % count;
            }
            (KeyCode::Char(' '), NewSandboxField::Start) => self.start = !self.start,
            (_, focus) => {
                if self.focused_input().is_some_and(|field| field.on_key(key))
                    && focus == NewSandboxField::Snapshot
                {
                    self.choice = 0;
                }
            }
        }
        DialogReply::Stay
    }

    pub(crate) fn paste(&mut self, text: &str) {
        self.choice = 0;
        if let Some(field) = self.focused_input() {
            field.paste(text.trim());
        }
    }

    pub(crate) fn content(&self, view: &View, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: format!("new sandbox on {}", self.host),
            ..Content::default()
        };
        let mut row = |label: &str,
                       input: &TextInput,
                       field: NewSandboxField,
                       comment: Result<String, String>| {
            content.push_text_input(label, input, self.focus == field, width, theme);
            let (text, style) = match comment {
                Ok(text) => (text, theme.dim),
                Err(error) => (format!("✗ {error}"), theme.bad),
            };
            if !text.is_empty() {
                content.push_wrapped(&text, 10, style, width);
            }
        };
        let id = match self.id.text() {
            "" => Ok(
                "letters, digits, '.', '_' and '-', beginning with a letter or digit".to_owned(),
            ),
            _ => self.id(view).map(|_| String::new()),
        };
        row("Id:       ", &self.id, NewSandboxField::Id, id);
        let base = self.base(view).map(|base| self.describe_base(&base, view));
        row(
            "Snapshot: ",
            &self.snapshot_filter,
            NewSandboxField::Snapshot,
            base,
        );
        let cpus = self.cpus().map(|_| String::new());
        row("CPUs:     ", &self.cpus, NewSandboxField::Cpus, cpus);
        let memory = self.memory().map(|_| String::new());
        row("Memory:   ", &self.memory, NewSandboxField::Memory, memory);
        let storage = self.storage(view).map(|bytes| match bytes {
            None => "same size as the snapshot's disk".to_owned(),
            Some(_) => String::new(),
        });
        row(
            "Storage:  ",
            &self.storage,
            NewSandboxField::Storage,
            storage,
        );
        let focused = self.focus == NewSandboxField::Start;
        content.push_check_box("start after creation", self.start, focused, true, theme);
        content.push_blank();
        if let Err(reason) = self.host(view) {
            content.push_wrapped(&format!("✗ {reason}"), 0, theme.bad, width);
        }
        let operations = self.operations(view);
        if let Ok(operations) = &operations {
            let titles: Vec<String> = operations
                .iter()
                .map(snapdeck_engine::operation_title)
                .collect();
            let start = if self.start { ", then starts it" } else { "" };
            let text = format!(
                "✓ {}: creates an overlay for the guest's writes{start}",
                titles.join(", then ")
            );
            content.push_wrapped(&text, 0, theme.good, width);
        }
        content.keys = vec![
            ("enter", "create", operations.is_ok()),
            ("tab", "next", true),
        ];
        match self.focus {
            NewSandboxField::Snapshot => content.keys.push(("← →", "next match", true)),
            NewSandboxField::Start => content.keys.push(("space", "toggle", true)),
            _ => {}
        }
        content.keys.push(("esc", "cancel", true));
        content
    }

    fn describe_base(&self, base: &BaseImage, view: &View) -> String {
        let matches = self.matching_snapshots(view).len();
        let mut text = format!("→ {}", base.name);
        if let Some(bytes) = base.disk_bytes {
            text.push_str(&format!(", virtual size {}", size(bytes)));
        }
        if let Some(bytes) = base.fetch_bytes {
            text.push_str(&format!(
                ", only in the bucket: it is pulled first ({})",
                size(bytes)
            ));
        }
        if matches > 1 {
            text.push_str(&format!(" ({} of {matches})", self.choice % matches + 1));
        }
        text
    }
}
