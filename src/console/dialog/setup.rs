//! Setup: asks for hosts, directories and bucket, checks them while they are typed, and writes a settings file.

use std::path::PathBuf;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::control::Control;
use super::doctor::{push_check, summarize};
use super::form::{Form, FormReply};
use super::{Content, Context, Dialog, DialogAnswer, DialogQuery, DialogReply};
use crate::command::Command;
use crate::format;
use snapdeck_model::settings::{BucketSettings, ObjectStorage, Settings, TrustedChecksums};
use snapdeck_model::{HealthReport, Verdict};
use snapdeck_settings::{Setup, SetupAnswers, SetupField};

/// Reports that are kept, so that an answer that is typed again is not checked again.
const MAX_REPORTS: usize = 32;
const LABEL_COLUMNS: usize = 21;

#[derive(Debug)]
pub(crate) struct SetupDialog {
    setup: Arc<Setup>,
    form: Form<SetupField>,
    answers: SetupAnswers,
    /// The settings of each host and of the bucket alone; empty while an answer is invalid.
    targets: Vec<Arc<Settings>>,
    reports: Vec<(Arc<Settings>, Report)>,
}

/// The health checks of a target, or why they could not be run.
type Report = Result<Arc<HealthReport>, String>;

impl SetupDialog {
    pub(crate) fn new(setup: Arc<Setup>) -> Self {
        let fields = SetupField::ALL.map(|field| {
            let proposed = setup.proposed.get(field);
            (field, "", Control::text(proposed))
        });
        let mut form = Form::new(fields);
        for field in SetupField::ALL {
            let label = format!("{:<LABEL_COLUMNS$}", field.label());
            form.set_label(&field, label, true);
        }
        let mut dialog = Self {
            answers: setup.proposed.clone(),
            setup,
            form,
            targets: Vec::new(),
            reports: Vec::new(),
        };
        dialog.update_answers();
        dialog
    }

    fn update_answers(&mut self) {
        for field in SetupField::ALL {
            self.answers.set(field, self.form.text(&field));
        }
        for field in SetupField::ALL {
            self.form.show(&field, self.answers.asks(field));
        }
        let settings = self.setup.settings(&self.answers);
        self.targets = settings.map(split_targets).unwrap_or_default();
    }

    /// Returns whether the last shown field has the focus.
    fn is_at_end(&self) -> bool {
        let mut fields = SetupField::ALL.iter().rev();
        let last = fields.find(|field| self.answers.asks(**field));
        self.form.focused() == last
    }

    fn invalid_field(&self) -> Option<SetupField> {
        let mut fields = SetupField::ALL.into_iter();
        fields.find(|field| self.answers.check(*field).is_err())
    }

    /// Writes the file, or goes to the field that is invalid.
    fn submit(&mut self) -> DialogReply {
        match (self.invalid_field(), self.answers.to_toml()) {
            (None, Ok(text)) => DialogReply::Execute(vec![Command::WriteSettings {
                path: self.setup.path.clone(),
                text,
            }]),
            (field, _) => {
                if let Some(field) = field {
                    self.form.focus_on(&field);
                }
                DialogReply::Stay
            }
        }
    }

    fn report(&self, target: &Settings) -> Option<&Report> {
        let found = self.reports.iter().find(|(other, _)| **other == *target);
        found.map(|(_, report)| report)
    }

    fn push_field(&self, content: &mut Content<'_>, field: SetupField) {
        let theme = content.theme;
        self.form.push(content, &field);
        if let Some(problem) = self.setup.problem(&self.answers, field) {
            content.push_wrapped(&format!("✗ {problem}"), 2, theme.bad);
        }
        if self.form.focused() == Some(&field) {
            content.push_wrapped(field.help(), 2, theme.dim);
            if let Some(found) = self.setup.found(field) {
                content.push_wrapped(&found, 2, theme.dim);
            }
        }
    }

    fn push_target(&self, content: &mut Content<'_>, target: &Settings) {
        let theme = content.theme;
        let name = target.hosts.first();
        let name = name.map_or("bucket", |host| host.name.as_str());
        let (state, style) = match self.report(target) {
            None => ("◌ checking".to_owned(), theme.dim),
            Some(Err(error)) => (error.clone(), theme.bad),
            Some(Ok(report)) => summarize(report, &theme),
        };
        content.push_line(Line::from(vec![
            Span::styled(format!("{name}  "), theme.title),
            Span::styled(format::clip(&state, content.width), style),
        ]));
        let checks = self.report(target).and_then(|report| report.as_ref().ok());
        let checks = checks.iter().flat_map(|report| &report.checks);
        for check in checks.filter(|check| check.verdict != Verdict::Passed) {
            push_check(content, check);
        }
    }
}

/// Returns the settings of each host alone and of the bucket alone.
fn split_targets(settings: Settings) -> Vec<Arc<Settings>> {
    let no_bucket = BucketSettings {
        name: None,
        prefix: String::new(),
        organizations: Vec::new(),
        endpoint: None,
        region: None,
        profile: None,
        credentials: None,
        trusted_checksums: TrustedChecksums::Any,
        storage: ObjectStorage::default(),
    };
    let hosts = settings.hosts.iter().map(|host| Settings {
        hosts: vec![host.clone()],
        bucket: no_bucket.clone(),
        ..settings.clone()
    });
    let bucket = settings.bucket.name.is_some().then(|| Settings {
        hosts: Vec::new(),
        ..settings.clone()
    });
    hosts.chain(bucket).map(Arc::new).collect()
}

impl Dialog for SetupDialog {
    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        match self.form.on_key(key) {
            FormReply::Submit if self.is_at_end() => return self.submit(),
            FormReply::Submit => {
                self.form.on_key(KeyCode::Tab.into());
            }
            FormReply::Ignored => return DialogReply::Ignored,
            FormReply::Changed(_) => self.update_answers(),
            FormReply::Handled => {}
        }
        DialogReply::Stay
    }

    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        self.form.on_click(target);
        DialogReply::Stay
    }

    fn paste(&mut self, text: &str) {
        self.form.paste(text);
        self.update_answers();
    }

    fn pending_query(&self) -> Option<DialogQuery> {
        let mut targets = self.targets.iter();
        let target = targets.find(|target| self.report(target).is_none())?;
        Some(DialogQuery::Checks(target.clone()))
    }

    fn on_answer(&mut self, answer: DialogAnswer) {
        if let DialogAnswer::Checks(target, report) = answer {
            if self.reports.len() >= MAX_REPORTS {
                drop(self.reports.remove(0));
            }
            let report = report.map_err(|error| error.to_string());
            self.reports.push((target, report));
        }
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let theme = context.theme;
        let mut content = Content::new("setup", context, width);
        let path = self.setup.path.display();
        let introduction = format!("There is no settings file yet; this writes {path}.");
        content.push_wrapped(&introduction, 0, theme.text);
        content.push_blank();
        for field in SetupField::ALL {
            self.push_field(&mut content, field);
        }
        content.push_blank();
        if self.answers.asks(SetupField::Profile) {
            let keys = self.setup.discovery.describe_keys();
            content.push_wrapped(&keys, 0, theme.dim);
        }
        // The checks of what is being typed come first.
        let is_at_bucket =
            |field: &SetupField| *field == SetupField::Bucket || field.needs_bucket();
        let is_at_bucket = self.form.focused().is_some_and(is_at_bucket);
        let (first, others): (Vec<_>, Vec<_>) = self
            .targets
            .iter()
            .partition(|target| target.hosts.is_empty() == is_at_bucket);
        for target in first.into_iter().chain(others) {
            self.push_target(&mut content, target);
        }
        match self.is_at_end() {
            true => content.push_key("enter", "write the file", self.invalid_field().is_none()),
            false => content.push_key("enter", "next", true),
        }
        content.push_key("↑ ↓", "move", true);
        content.push_key("esc", "later", true);
        content
    }
}

/// Shows where the settings were written, before the console restarts with them.
#[derive(Debug)]
pub(crate) struct SettingsWritten {
    path: PathBuf,
}

impl SettingsWritten {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

impl Dialog for SettingsWritten {
    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        match key.code {
            KeyCode::Enter => self.cancel(),
            _ => DialogReply::Ignored,
        }
    }

    fn cancel(&mut self) -> DialogReply {
        DialogReply::Close(vec![Command::Restart])
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let mut content = Content::new("setup", context, width);
        let text = format!("wrote {}", self.path.display());
        content.push_wrapped(&text, 0, context.theme.good);
        content.push_blank();
        let next = "The console restarts with these settings. Edit the file to change them.";
        content.push_wrapped(next, 0, context.theme.text);
        content.push_key("enter", "restart", true);
        content
    }
}
