//! New: creates a sandbox on a snapshot.

use std::collections::HashSet;
use std::sync::Arc;

use crossterm::event::KeyEvent;

use super::control::Control;
use super::form::{Form, FormReply};
use super::machine_size::{check_cpus, check_memory};
use super::{Content, Context, Dialog, DialogReply};
use crate::command::Command;
use crate::format::{parse_size, short_size, size};
use crate::lookup;
use snapdeck_engine::{HostView, Link, View};
use snapdeck_model::{HostName, Operation, SandboxId, SandboxSpec, SnapshotName};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewSandboxField {
    Id,
    Snapshot,
    Cpus,
    Memory,
    Storage,
    Start,
}

#[derive(Debug)]
pub(crate) struct NewSandboxDialog {
    host: HostName,
    form: Form<NewSandboxField>,
    /// The base for which an id was proposed.
    proposed_for: Option<SnapshotName>,
    /// The snapshots whose names match.
    matches: Vec<SnapshotName>,
    /// The view and the text of which the matches are.
    inputs: Option<(Arc<View>, String)>,
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
        let snapshot = snapshot.as_ref().map_or("", SnapshotName::as_str);
        let (cpus, memory) = (cpus.to_string(), short_size(memory_bytes));
        Self {
            host,
            form: Form::new([
                (NewSandboxField::Id, "Id:       ", Control::text("")),
                (
                    NewSandboxField::Snapshot,
                    "Snapshot: ",
                    Control::search(snapshot),
                ),
                (NewSandboxField::Cpus, "CPUs:     ", Control::number(&cpus)),
                (
                    NewSandboxField::Memory,
                    "Memory:   ",
                    Control::text(&memory),
                ),
                (NewSandboxField::Storage, "Storage:  ", Control::text("")),
                (
                    NewSandboxField::Start,
                    "start after creation",
                    Control::CheckBox(true),
                ),
            ]),
            proposed_for: None,
            matches: Vec::new(),
            inputs: None,
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
            .form
            .text(&NewSandboxField::Id)
            .parse()
            .map_err(|error: snapdeck_model::Error| error.to_string())?;
        match lookup::sandbox(view, &self.host, &id) {
            Some(_) => Err(format!("{id} already exists on {}", self.host)),
            None => Ok(id),
        }
    }

    /// Proposes an id once for each base that is chosen.
    fn propose_id(&mut self, view: &View) {
        let typed = self.form.text(&NewSandboxField::Snapshot);
        let chosen = self.form.chosen(&NewSandboxField::Snapshot);
        let base = self.matches.get(chosen).filter(|_| !typed.is_empty());
        if base.is_some() && base != self.proposed_for.as_ref() {
            self.proposed_for = base.cloned();
            let id = base.and_then(|base| view.propose_sandbox_id(&self.host, base));
            let id = id.as_ref().map_or("", SandboxId::as_str);
            self.form.propose(&NewSandboxField::Id, id);
        }
    }

    /// Returns the names that contain the typed text: an exact match first, then those on the host.
    fn find_matches(&self, view: &View) -> Vec<SnapshotName> {
        let typed = self.form.text(&NewSandboxField::Snapshot);
        let filter = typed.to_ascii_lowercase();
        let host = lookup::host(view, &self.host);
        let local = host
            .iter()
            .flat_map(|host| host.snapshots.iter().map(|snapshot| &snapshot.name));
        let remote = view.bucket.objects.iter().map(|object| &object.name);
        let matches = |name: &&SnapshotName| name.as_str().to_ascii_lowercase().contains(&filter);
        let mut unique = HashSet::new();
        let mut names: Vec<SnapshotName> = local
            .chain(remote)
            .filter(matches)
            .filter(|name| unique.insert(*name))
            .cloned()
            .collect();
        // A stable sort.
        names.sort_by_key(|name| name.as_str() != typed);
        names
    }

    fn base(&self, view: &View) -> Result<BaseImage, String> {
        let chosen = self.form.chosen(&NewSandboxField::Snapshot);
        let Some(name) = self.matches.get(chosen) else {
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
        check_cpus(self.form.number(&NewSandboxField::Cpus).ok().flatten())
    }

    fn memory(&self) -> Result<u64, String> {
        check_memory(self.form.text(&NewSandboxField::Memory))
    }

    fn storage(&self, view: &View) -> Result<Option<u64>, String> {
        let text = self.form.text(&NewSandboxField::Storage);
        if text.trim().is_empty() {
            return Ok(None);
        }
        let bytes = parse_size(text).ok_or("a size such as 60G, or empty")?;
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
                start: self.form.is_checked(&NewSandboxField::Start),
                block_network: false,
                accept_existing: false,
            },
        };
        let pull = base.fetch_bytes.map(|_| Operation::Pull {
            host: self.host.clone(),
            name: base.name,
            overwrite: false,
        });
        Ok(pull.into_iter().chain([new]).collect())
    }

    fn describe_base(&self, base: &BaseImage) -> String {
        let matches = self.matches.len();
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
            text.push_str(&format!(
                " ({} of {matches})",
                self.form.chosen(&NewSandboxField::Snapshot) + 1
            ));
        }
        text
    }
}

impl Dialog for NewSandboxDialog {
    fn update(&mut self, view: &Arc<View>) {
        let typed = self.form.text(&NewSandboxField::Snapshot);
        let is_current =
            |(known, of): &(Arc<View>, String)| Arc::ptr_eq(known, view) && of == typed;
        if !self.inputs.as_ref().is_some_and(is_current) {
            self.inputs = Some((view.clone(), typed.to_owned()));
            self.matches = self.find_matches(view);
            self.form
                .set_match_count(&NewSandboxField::Snapshot, self.matches.len());
        }
        self.propose_id(view);
    }

    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply {
        match self.form.on_key(key) {
            FormReply::Submit => match self.operations(context.view) {
                Ok(operations) => DialogReply::Close(vec![Command::Chain(operations)]),
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
        let title = format!("new sandbox on {}", self.host);
        let mut content = Content::new(title, context, width);
        let id = match self.form.text(&NewSandboxField::Id) {
            "" => Ok(
                "letters, digits, '.', '_' and '-', beginning with a letter or digit".to_owned(),
            ),
            _ => self.id(view).map(|_| String::new()),
        };
        let base = self.base(view).map(|base| self.describe_base(&base));
        let storage = self.storage(view).map(|bytes| match bytes {
            None => "same size as the snapshot's disk".to_owned(),
            Some(_) => String::new(),
        });
        for (field, comment) in [
            (NewSandboxField::Id, id),
            (NewSandboxField::Snapshot, base),
            (NewSandboxField::Cpus, self.cpus().map(|_| String::new())),
            (
                NewSandboxField::Memory,
                self.memory().map(|_| String::new()),
            ),
            (NewSandboxField::Storage, storage),
            (NewSandboxField::Start, Ok(String::new())),
        ] {
            self.form.push(&mut content, &field);
            match comment {
                Ok(text) => content.push_wrapped(&text, 10, theme.dim),
                Err(error) => content.push_wrapped(&format!("✗ {error}"), 10, theme.bad),
            }
        }
        content.push_blank();
        if let Err(reason) = self.host(view) {
            content.push_refusal(&reason);
        }
        if let Some(free) = (context.free_bytes)(&self.host) {
            let text = format!("Free on {}: {}", self.host, size(free));
            content.push_wrapped(&text, 0, theme.dim);
            let fetched = self.base(view).ok().and_then(|base| base.fetch_bytes);
            if let Some(needed) = fetched.filter(|needed| *needed > free) {
                let text = format!("! The pull needs {}.", size(needed));
                content.push_wrapped(&text, 0, theme.warn);
            }
        }
        let operations = self.operations(view);
        if let Ok(operations) = &operations {
            let titles: Vec<String> = operations
                .iter()
                .map(snapdeck_engine::operation_title)
                .collect();
            let start = match self.form.is_checked(&NewSandboxField::Start) {
                true => ", then starts it",
                false => "",
            };
            let text = format!(
                "✓ {}: creates an overlay for the guest's writes{start}",
                titles.join(", then ")
            );
            content.push_wrapped(&text, 0, theme.good);
        }
        self.form
            .push_keys(&mut content, "create", operations.is_ok());
        content
    }
}
