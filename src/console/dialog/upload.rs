//! Upload: snapshots of hosts become objects of the same names.

use std::collections::HashSet;
use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::control::Control;
use super::form::{Form, FormReply};
use super::{Content, Context, Dialog, DialogReply, bucket_refusal};
use crate::cell::Place;
use crate::command::Command;
use crate::format::{clip, count, fit_middle, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{Link, View};
use snapdeck_model::{HostName, Operation, SnapshotName};

const OVERWRITE: &str = "overwrite: replace the objects of the same names";

/// The only field: whether to overwrite.
const FIELD: () = ();

#[derive(Debug)]
pub(crate) struct UploadDialog {
    sources: Vec<(HostName, SnapshotName)>,
    form: Form<()>,
    plan: UploadPlan,
    /// The view and the choice of which the plan is.
    inputs: Option<(Arc<View>, bool)>,
}

/// The effects of the choice in a view.
#[derive(Debug, Default)]
struct UploadPlan {
    rows: Vec<UploadRow>,
    operations: Vec<Operation>,
    /// Bytes to send, at most.
    bytes: u64,
    is_any_in_bucket: bool,
    refusal: Option<String>,
}

#[derive(Debug)]
struct UploadRow {
    bytes: Option<u64>,
    state: RowState,
}

/// The action for a snapshot of the list.
#[derive(Debug)]
enum RowState {
    New,
    Replaces,
    /// Not uploaded, for this reason.
    Skipped(String),
}

impl UploadDialog {
    /// Returns a dialog for those of the `chosen` snapshots that are on hosts.
    pub(crate) fn new(chosen: Vec<(SnapshotName, Place)>) -> Self {
        let on_host = |(name, place)| match place {
            Place::Host(host) => Some((host, name)),
            Place::Bucket => None,
        };
        Self {
            sources: chosen.into_iter().filter_map(on_host).collect(),
            form: Form::new([(FIELD, OVERWRITE, Control::CheckBox(false))]),
            plan: UploadPlan::default(),
            inputs: None,
        }
    }

    fn is_overwriting(&self) -> bool {
        self.form.is_checked(&FIELD)
    }

    fn plan(&self, view: &View) -> UploadPlan {
        let objects = lookup::objects_by_name(view);
        let mut plan = UploadPlan::default();
        let mut uploaded = HashSet::new();
        for (host, name) in &self.sources {
            let snapshot = lookup::snapshot(view, host, name);
            let is_in_bucket = objects.contains_key(name);
            plan.is_any_in_bucket |= is_in_bucket;
            let link = lookup::host(view, host).map(|host| &host.link);
            let state = match (snapshot, link) {
                (_, Some(Link::Down(_))) => RowState::Skipped("its host is unreachable".to_owned()),
                (None, _) => RowState::Skipped("it no longer exists".to_owned()),
                (Some(snapshot), _) => match &snapshot.problem {
                    Some(problem) => RowState::Skipped(format!("damaged: {problem}")),
                    None if uploaded.contains(name) => {
                        RowState::Skipped("uploaded from another host".to_owned())
                    }
                    None if !is_in_bucket => RowState::New,
                    None if self.is_overwriting() => RowState::Replaces,
                    None => RowState::Skipped("already in the bucket".to_owned()),
                },
            };
            let bytes = snapshot.map(|snapshot| snapshot.size_bytes);
            if !matches!(state, RowState::Skipped(_)) {
                uploaded.insert(name);
                plan.bytes += bytes.unwrap_or(0);
                plan.operations.push(Operation::Upload {
                    host: host.clone(),
                    name: name.clone(),
                    overwrite: matches!(state, RowState::Replaces),
                });
            }
            plan.rows.push(UploadRow { bytes, state });
        }
        plan.refusal = bucket_refusal(view).or_else(|| match plan.operations.is_empty() {
            true if plan.is_any_in_bucket && !self.is_overwriting() => {
                Some("already in the bucket: choose overwrite to replace it".to_owned())
            }
            true => Some("nothing can be uploaded".to_owned()),
            false => None,
        });
        plan
    }

    fn row_line(&self, row: usize, theme: &Theme, width: usize) -> Line<'static> {
        let ((host, name), row) = (&self.sources[row], &self.plan.rows[row]);
        let bytes = row.bytes.map(size).unwrap_or_default();
        let room = width.saturating_sub(14);
        let columns = (name.as_str().len() + host.as_str().len() + 4).clamp(room / 4, room / 2);
        let name = fit_middle(&format!("{name} on {host}"), columns);
        let (note, style) = match &row.state {
            RowState::New => ("new object".to_owned(), theme.good),
            RowState::Replaces => ("replaces the object".to_owned(), theme.warn),
            RowState::Skipped(reason) => (format!("skipped: {reason}"), theme.dim),
        };
        Line::from(vec![
            Span::styled(format!("  {name} {bytes:>9}  "), Style::new()),
            Span::styled(clip(&note, room - columns), style),
        ])
    }
}

impl Dialog for UploadDialog {
    fn update(&mut self, view: &Arc<View>) {
        let choice = self.is_overwriting();
        let is_current =
            |(known, of): &(Arc<View>, bool)| Arc::ptr_eq(known, view) && *of == choice;
        if self.inputs.as_ref().is_some_and(is_current) {
            return;
        }
        self.inputs = Some((view.clone(), choice));
        self.plan = self.plan(view);
        self.form.show(&FIELD, self.plan.is_any_in_bucket);
    }

    fn on_key(&mut self, key: KeyEvent, _: &Context<'_>) -> DialogReply {
        let is_submit = match self.form.on_key(key) {
            FormReply::Submit => true,
            FormReply::Ignored => key.code == KeyCode::Char('y'),
            FormReply::Handled | FormReply::Changed(_) => return DialogReply::Stay,
        };
        match key.code {
            _ if is_submit && self.plan.refusal.is_none() => {
                let operations = self.plan.operations.clone();
                DialogReply::Close(vec![Command::SubmitAll(operations)])
            }
            KeyCode::Char('n' | 'q') => DialogReply::close(),
            KeyCode::Char('o') if self.plan.is_any_in_bucket => {
                let is_overwriting = self.is_overwriting();
                self.form.check(&FIELD, !is_overwriting);
                DialogReply::Stay
            }
            _ if is_submit => DialogReply::Stay,
            _ => DialogReply::Ignored,
        }
    }

    fn on_click(&mut self, target: usize, _: &Context<'_>) -> DialogReply {
        self.form.on_click(target);
        DialogReply::Stay
    }

    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a> {
        let (view, theme) = (&**context.view, *context.theme);
        let title = match self.sources.as_slice() {
            [(host, name)] => format!("upload {name} from {host}"),
            many => format!("upload {}", count(many.len(), "snapshot")),
        };
        let mut content = Content::new(title, context, width);
        let location = &view.bucket.location;
        let summary = match self.plan.operations.len() {
            0 => format!("Nothing to upload to {location}"),
            some => format!(
                "Uploads {}, at most {}, to {location}",
                count(some, "snapshot"),
                size(self.plan.bytes)
            ),
        };
        content.push_wrapped(&summary, 0, theme.text);
        content.push_wrapped(
            "With UEFI variables, note, labels, pin and lineage. The store copies what it has already.",
            0,
            theme.dim,
        );
        content.push_blank();
        content.push_rows(self.plan.rows.len(), move |row| {
            self.row_line(row, &theme, width)
        });
        if self.plan.is_any_in_bucket {
            content.push_blank();
            self.form.push(&mut content, &FIELD);
        }
        if let Some(reason) = &self.plan.refusal {
            content.push_blank();
            content.push_refusal(reason);
        }
        content.push_key("y", "upload", self.plan.refusal.is_none());
        if self.plan.is_any_in_bucket {
            content.push_key("o", "overwrite", true);
        }
        content.push_key("n", "cancel", true);
        content
    }
}
