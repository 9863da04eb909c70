//! Dialogs: layers above the screen. The topmost one gets every key first, so that a letter typed into a field never
//! runs an action.

mod bookmarks;
mod columns;
mod confirm_command;
mod confirm_verb;
mod content;
mod control;
mod copy_menu;
mod copy_to;
mod create_snapshot;
mod doctor;
mod form;
mod free_partial;
mod help;
mod interrupted_jobs;
mod job;
mod layer;
mod machine_size;
mod menu;
mod new_sandbox;
mod note;
mod palette;
mod prune;
mod pull;
mod pull_plan;
mod quit;
mod remove;
mod sandbox_form;
mod screen;
mod serial_console;
mod setup;
mod snapshot_locations;
mod text_input;
mod text_view;
mod upload;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crossterm::event::KeyEvent;

pub(crate) use bookmarks::BookmarksDialog;
pub(crate) use columns::ColumnsDialog;
pub(crate) use confirm_command::ConfirmCommand;
pub(crate) use confirm_verb::ConfirmVerb;
pub(crate) use content::Content;
pub(crate) use copy_menu::{CopyMenu, CopyValue};
pub(crate) use copy_to::CopyToDialog;
pub(crate) use create_snapshot::{CreateSnapshotDialog, SnapshotVerb, push_refusal};
pub(crate) use doctor::DoctorDialog;
pub(crate) use free_partial::FreePartial;
pub(crate) use help::Help;
pub(crate) use interrupted_jobs::InterruptedJobsDialog;
pub(crate) use job::{JobDetails, log_lines, outcome_text};
pub(crate) use layer::Layer;
pub(crate) use menu::{ONE_SANDBOX, SandboxMenu, confirm_or_run, is_form, run_kind};
pub(crate) use new_sandbox::NewSandboxDialog;
pub(crate) use note::NoteDialog;
pub(crate) use palette::Palette;
pub(crate) use prune::PruneDialog;
pub(crate) use pull::{PullDialog, PullTarget};
pub(crate) use quit::QuitDialog;
pub(crate) use remove::RemoveDialog;
pub(crate) use screen::ScreenView;
pub(crate) use serial_console::SerialConsole;
pub(crate) use setup::{SettingsWritten, SetupDialog};
pub(crate) use snapshot_locations::{SnapshotLocations, describe_location};
pub(crate) use text_input::TextInput;
pub(crate) use text_view::{TextSource, TextView};
pub(crate) use upload::UploadDialog;

use super::actions::{Action, Entry, Pane};
use super::columns::ChosenColumns;
use super::command::Command;
use super::keymap::Keymap;
use super::theme::Theme;
use snapdeck_engine::{ImageLocation, Link, PruneRequest, View};
use snapdeck_model::settings::Settings;
use snapdeck_model::{HealthReport, HostName, PrunePlan, PullCost, Result, SandboxId};

/// Columns of text in a dialog, if the screen is wide enough: longer lines are hard to read.
const MAX_DIALOG_WIDTH: u16 = 84;

/// The state of the console that dialogs read.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub view: &'a Arc<View>,
    pub keymap: &'a Keymap,
    pub theme: &'a Theme,
    pub now: Instant,
    /// The focused pane below the dialogs.
    pub focus: Pane,
    /// Returns why an action is not possible now.
    pub refusal: &'a dyn Fn(&Entry) -> Option<String>,
    /// Returns the free bytes of the file system of the snapshots on a host, if known.
    pub free_bytes: &'a dyn Fn(&HostName) -> Option<u64>,
}

impl Context<'_> {
    /// Returns whether `key` is a key of `action`.
    fn is_key(&self, key: KeyEvent, action: Action) -> bool {
        self.keymap.is_key_of(key, action)
    }

    /// Returns the name of the key of `action`.
    fn key(&self, action: Action) -> Cow<'static, str> {
        self.keymap.single_key(action).unwrap_or_default().into()
    }
}

/// A dialog.
///
/// [`Layer`] scrolls its content with the keys that it ignores, and closes it with esc.
pub(crate) trait Dialog: fmt::Debug + Send {
    fn content<'a>(&'a self, context: &Context<'_>, width: usize) -> Content<'a>;

    fn on_key(&mut self, key: KeyEvent, context: &Context<'_>) -> DialogReply;

    fn paste(&mut self, _text: &str) {}

    /// Handles a click on a line with [`Content::push_target`].
    fn on_click(&mut self, _target: usize, _context: &Context<'_>) -> DialogReply {
        DialogReply::Stay
    }

    /// Recomputes what depends on the view or on the choices, if they have changed.
    ///
    /// [`Layer`] calls it when the dialog is opened, after each event, and for each new view.
    fn update(&mut self, _view: &Arc<View>) {}

    /// Returns how many columns the content may have.
    fn max_width(&self) -> u16 {
        MAX_DIALOG_WIDTH
    }

    /// Handles esc.
    fn cancel(&mut self) -> DialogReply {
        DialogReply::close()
    }

    /// Returns what is to be asked in the background.
    fn pending_query(&self) -> Option<DialogQuery> {
        None
    }

    fn on_answer(&mut self, _answer: DialogAnswer) {}

    /// Adds a sandbox that has not stopped, if this dialog is about failed stops.
    fn add_failed_stop(&mut self, _host: &HostName, _id: &SandboxId) {}

    /// Returns the guest whose screen is shown instead of the content.
    fn screen(&self) -> Option<&ScreenView> {
        None
    }

    /// Returns the serial console that is shown instead of the content. It gets all keys, also esc and ctrl-c.
    fn serial(&self) -> Option<&SerialConsole> {
        None
    }

    /// Returns whether this dialog asks about quitting.
    fn is_quit(&self) -> bool {
        false
    }
}

/// A question of a dialog to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DialogQuery {
    PullCost(PullTarget),
    PrunePlan(PruneRequest),
    /// Which copies of these have the same bytes.
    Copies(Arc<[ImageLocation]>),
    Text(TextSource),
    /// The health checks of the host or the bucket of these settings.
    Checks(Arc<Settings>),
}

/// The answer to the [`DialogQuery`] of the same name.
#[derive(Debug)]
pub(crate) enum DialogAnswer {
    PullCost(PullTarget, Result<PullCost>),
    PrunePlan(PruneRequest, Result<PrunePlan>),
    Copies(
        Arc<[ImageLocation]>,
        BTreeMap<ImageLocation, Vec<ImageLocation>>,
    ),
    /// The text, without unprintable characters except newlines.
    Text(TextSource, Result<String>),
    Checks(Arc<Settings>, Result<Arc<HealthReport>>),
}

/// A dialog's reply to an event.
#[derive(Debug)]
pub(crate) enum DialogReply {
    /// The dialog stays open.
    Stay,
    /// The dialog stays open and has no use for the key.
    Ignored,
    /// The dialog closes; the commands are run.
    Close(Vec<Command>),
    /// The dialog stays open; the commands are run.
    Execute(Vec<Command>),
    /// Another dialog replaces this one.
    Replace(Box<dyn Dialog>),
    /// The dialog closes; the action is performed.
    Perform(Action),
    /// The dialog closes; the list has these columns then.
    ChooseColumns(Pane, ChosenColumns),
    /// The dialog closes; the open list is filtered.
    Filter(String),
}

impl DialogReply {
    /// Closes the dialog without a command.
    pub(crate) fn close() -> Self {
        Self::Close(Vec::new())
    }
}

/// Returns why nothing can be uploaded to or downloaded from the bucket now.
fn bucket_refusal(view: &View) -> Option<String> {
    match &view.bucket.link {
        Link::Unconfigured => Some(crate::app::NO_BUCKET.to_owned()),
        Link::Down(error) => Some(error.to_string()),
        Link::Connecting | Link::Up => None,
    }
}
