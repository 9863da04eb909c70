//! Dialogs: layers above the screen. The topmost one consumes every key, so that a letter typed into a field never
//! runs an action.

mod confirm_verb;
mod create_snapshot;
mod doctor;
mod help;
mod interrupted_jobs;
mod job;
mod menu;
mod new_sandbox;
mod note;
mod palette;
mod prune;
mod pull;
mod quit;
mod remove;
mod screen;
mod snapshot_locations;
mod text_input;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

pub(crate) use confirm_verb::ConfirmVerb;
pub(crate) use create_snapshot::{CreateSnapshotDialog, SnapshotVerb, push_refusal};
pub(crate) use doctor::DoctorDialog;
pub(crate) use help::Help;
pub(crate) use interrupted_jobs::InterruptedJobsDialog;
pub(crate) use job::{JobDetails, log_lines, outcome_text};
pub(crate) use menu::{SandboxMenu, confirm_or_run};
pub(crate) use new_sandbox::NewSandboxDialog;
pub(crate) use note::NoteDialog;
pub(crate) use palette::Palette;
pub(crate) use prune::PruneDialog;
pub(crate) use pull::{PullDialog, PullTarget};
pub(crate) use quit::QuitDialog;
pub(crate) use remove::RemoveDialog;
pub(crate) use screen::ScreenView;
pub(crate) use snapshot_locations::{SnapshotLocations, describe_location};
pub(crate) use text_input::TextInput;

use super::actions::Action;
use super::app::{App, Command};
use super::format;
use super::theme::Theme;
use snapdeck_engine::{Link, View};

/// A dialog's reply to a key.
#[derive(Debug)]
pub(crate) enum DialogReply {
    /// The dialog stays open.
    Stay,
    /// The dialog closes; the commands are run.
    Close(Vec<Command>),
    /// The dialog stays open; the commands are run.
    Execute(Vec<Command>),
    /// Another dialog replaces this one.
    Replace(Box<Dialog>),
    /// The dialog closes; the action is performed.
    Perform(Action),
}

impl DialogReply {
    /// Closes the dialog without a command.
    pub(crate) fn close() -> Self {
        Self::Close(Vec::new())
    }
}

/// The content of a dialog, wrapped to the requested width.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub title: String,
    pub lines: Vec<Line<'static>>,
    /// Column and line of the text cursor.
    pub cursor: Option<(u16, u16)>,
    /// The line to keep in view.
    pub focus: Option<u16>,
    /// Keys, their labels, and whether each is possible now.
    pub keys: Vec<(&'static str, &'static str, bool)>,
}

impl Content {
    /// Adds `text` as wrapped lines in `style`, indented by `indent` columns.
    fn push_wrapped(&mut self, text: &str, indent: usize, style: Style, width: usize) {
        for line in format::wrap(text, width.saturating_sub(indent)) {
            self.lines.push(Line::from(vec![
                Span::raw(" ".repeat(indent)),
                Span::styled(line, style),
            ]));
        }
    }

    fn push_blank(&mut self) {
        self.lines.push(Line::default());
    }

    fn push_check_box(
        &mut self,
        label: &str,
        checked: bool,
        focused: bool,
        enabled: bool,
        theme: &Theme,
    ) {
        let sign = if checked { "[x]" } else { "[ ]" };
        let style = match (focused, enabled) {
            (true, _) => theme.selected,
            (false, true) => theme.text,
            (false, false) => theme.dim,
        };
        if focused {
            self.focus = u16::try_from(self.lines.len()).ok();
        }
        self.lines
            .push(Line::styled(format!("{sign} {label}"), style));
    }

    /// Adds a labelled text field, with the cursor in it if it has the focus.
    fn push_text_input(
        &mut self,
        label: &str,
        input: &TextInput,
        focused: bool,
        width: usize,
        theme: &Theme,
    ) {
        let room = width.saturating_sub(label.len() + 1).max(1);
        let (text, column) = input.visible(room);
        if focused {
            self.cursor = Some(((label.len() + column) as u16, self.lines.len() as u16));
        }
        let label_style = if focused { theme.focus } else { theme.text };
        self.lines.push(Line::from(vec![
            Span::styled(label.to_owned(), label_style),
            Span::styled(format::fit(&text, room), theme.title.underlined()),
        ]));
    }

    /// Adds the field into which `phrase` must be typed.
    fn push_confirmation(
        &mut self,
        phrase: &str,
        input: &TextInput,
        focused: bool,
        width: usize,
        theme: &Theme,
    ) {
        self.push_wrapped(&format!("Type {phrase} to confirm:"), 0, theme.text, width);
        self.push_text_input("> ", input, focused, width, theme);
    }
}

/// Returns the field of a form that `key` moves the focus to; `None` if the key does not move it.
fn moved_focus<F: Copy + PartialEq>(fields: &[F], focus: F, key: KeyCode) -> Option<F> {
    let at = fields.iter().position(|field| *field == focus).unwrap_or(0);
    let step = match key {
        KeyCode::Tab | KeyCode::Down => 1,
        KeyCode::BackTab | KeyCode::Up => fields.len().saturating_sub(1),
        _ => return None,
    };
    fields.get((at + step) % fields.len().max(1)).copied()
}

/// Returns why nothing can be uploaded to or downloaded from the bucket now.
fn bucket_refusal(view: &View) -> Option<String> {
    match &view.bucket.link {
        Link::Unconfigured => Some(crate::perform::NO_BUCKET.to_owned()),
        Link::Down(error) => Some(error.to_string()),
        Link::Connecting | Link::Up => None,
    }
}

#[derive(Debug)]
pub(crate) enum Dialog {
    CreateSnapshot(CreateSnapshotDialog),
    Pull(PullDialog),
    Remove(RemoveDialog),
    Quit(QuitDialog),
    InterruptedJobs(InterruptedJobsDialog),
    Job(JobDetails),
    SnapshotLocations(SnapshotLocations),
    Doctor(DoctorDialog),
    Help(Help),
    Palette(Palette),
    Screen(ScreenView),
    Menu(SandboxMenu),
    ConfirmVerb(ConfirmVerb),
    NewSandbox(Box<NewSandboxDialog>),
    Note(Box<NoteDialog>),
    Prune(Box<PruneDialog>),
}

/// An open dialog and its scroll position.
#[derive(Debug)]
pub(crate) struct Layer {
    pub dialog: Dialog,
    /// Lines above the visible part.
    pub scroll: u16,
    /// Whether the focused line is kept in view; false after scrolling by hand.
    pub is_following: bool,
}

impl From<Dialog> for Layer {
    fn from(dialog: Dialog) -> Self {
        Self {
            dialog,
            scroll: 0,
            is_following: false,
        }
    }
}

impl Layer {
    /// Handles a key; `lines` is the number of visible lines.
    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View, lines: u16) -> DialogReply {
        let by = |lines: i32| lines.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        let mut scroll = |lines: i32| self.scroll = self.scroll.saturating_add_signed(by(lines));
        let is_read_only = matches!(
            self.dialog,
            Dialog::Job(_) | Dialog::SnapshotLocations(_) | Dialog::Doctor(_)
        );
        // The search field of the help takes every letter.
        let is_help = matches!(self.dialog, Dialog::Help(_));
        let is_scroll = matches!(key.code, KeyCode::PageUp | KeyCode::PageDown);
        self.is_following = !is_scroll && !is_help;
        match key.code {
            KeyCode::PageUp => scroll(-i32::from(lines)),
            KeyCode::PageDown => scroll(i32::from(lines)),
            KeyCode::Up if is_read_only || is_help => scroll(-1),
            KeyCode::Down if is_read_only || is_help => scroll(1),
            KeyCode::Home if is_read_only || is_help => scroll(i32::MIN),
            KeyCode::End if is_read_only || is_help => scroll(i32::MAX),
            KeyCode::Char('k') if is_read_only => scroll(-1),
            KeyCode::Char('j') if is_read_only => scroll(1),
            KeyCode::Char('g') if is_read_only => scroll(i32::MIN),
            KeyCode::Char('G') if is_read_only => scroll(i32::MAX),
            KeyCode::Esc => {
                return match &mut self.dialog {
                    Dialog::Note(note) => note.cancel(),
                    _ => DialogReply::close(),
                };
            }
            _ => {
                return match &mut self.dialog {
                    Dialog::CreateSnapshot(dialog) => dialog.on_key(key, view),
                    Dialog::Pull(dialog) => dialog.on_key(key, view),
                    Dialog::Remove(dialog) => dialog.on_key(key, view),
                    Dialog::Quit(dialog) => dialog.on_key(key, view),
                    Dialog::InterruptedJobs(dialog) => dialog.on_key(key, view),
                    Dialog::Job(dialog) => dialog.on_key(key, view),
                    Dialog::SnapshotLocations(dialog) => dialog.on_key(key, view),
                    Dialog::Doctor(dialog) => dialog.on_key(key),
                    Dialog::Help(dialog) => dialog.on_key(key),
                    Dialog::Palette(dialog) => dialog.on_key(key),
                    Dialog::Screen(dialog) => dialog.on_key(key),
                    Dialog::Menu(dialog) => dialog.on_key(key, view),
                    Dialog::ConfirmVerb(dialog) => dialog.on_key(key, view),
                    Dialog::NewSandbox(dialog) => dialog.on_key(key, view),
                    Dialog::Note(dialog) => dialog.on_key(key),
                    Dialog::Prune(dialog) => dialog.on_key(key, view),
                };
            }
        }
        DialogReply::Stay
    }

    pub(crate) fn paste(&mut self, text: &str) {
        match &mut self.dialog {
            Dialog::CreateSnapshot(dialog) => dialog.paste(text),
            Dialog::Help(dialog) => dialog.paste(text),
            Dialog::Palette(dialog) => dialog.paste(text),
            Dialog::Remove(dialog) => dialog.paste(text),
            Dialog::ConfirmVerb(dialog) => dialog.paste(text),
            Dialog::NewSandbox(dialog) => dialog.paste(text),
            Dialog::Note(dialog) => dialog.paste(text),
            Dialog::Prune(dialog) => dialog.paste(text),
            _ => {}
        }
    }

    pub(crate) fn content(&self, app: &App, width: usize) -> Content {
        let (view, theme) = (&*app.view, &app.theme);
        match &self.dialog {
            Dialog::CreateSnapshot(dialog) => dialog.content(view, theme, width),
            Dialog::Pull(dialog) => dialog.content(view, theme, width),
            Dialog::Remove(dialog) => dialog.content(view, theme, width),
            Dialog::Quit(dialog) => dialog.content(view, theme, width),
            Dialog::InterruptedJobs(dialog) => dialog.content(view, theme, width),
            Dialog::Job(dialog) => dialog.content(view, theme, width),
            Dialog::SnapshotLocations(dialog) => dialog.content(view, theme, width),
            Dialog::Doctor(dialog) => dialog.content(view, theme, width),
            Dialog::Help(dialog) => dialog.content(&app.keymap, theme, width),
            Dialog::Palette(dialog) => dialog.content(app, width),
            Dialog::Screen(dialog) => dialog.content(),
            Dialog::Menu(dialog) => dialog.content(view, theme, width),
            Dialog::ConfirmVerb(dialog) => dialog.content(view, theme, width),
            Dialog::NewSandbox(dialog) => dialog.content(view, theme, width),
            Dialog::Note(dialog) => dialog.content(theme, width),
            Dialog::Prune(dialog) => dialog.content(view, theme, width),
        }
    }
}
