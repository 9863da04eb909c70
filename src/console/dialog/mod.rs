//! Dialogs: layers above the screen. The topmost one consumes every key, so that a letter typed into
//! a field never acts.

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
use snapdeck_engine::View;

/// What a dialog answers to a key.
#[derive(Debug)]
pub(crate) enum DialogReply {
    /// It stays.
    Stay,
    /// It closes, and these are to be done.
    Close(Vec<Command>),
    /// It stays, and these are to be done.
    Execute(Vec<Command>),
    /// Another takes its place.
    Replace(Box<Dialog>),
    /// It closes, and this is done instead.
    Perform(Action),
}

impl DialogReply {
    /// It closes and nothing is done.
    pub(crate) fn close() -> Self {
        Self::Close(Vec::new())
    }
}

/// What a dialog shows, already broken to the width it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// In its border.
    pub title: String,
    /// Its lines.
    pub lines: Vec<Line<'static>>,
    /// Column and line of the text cursor.
    pub cursor: Option<(u16, u16)>,
    /// The line that must be seen.
    pub focus: Option<u16>,
    /// Its keys and what they do; where the last is false it is not possible now.
    pub keys: Vec<(&'static str, &'static str, bool)>,
}

impl Content {
    /// Adds `text` as paragraph lines in `style`, each behind `indent` spaces.
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

    /// Adds a check box.
    fn push_check_box(
        &mut self,
        label: &str,
        ticked: bool,
        focused: bool,
        possible: bool,
        theme: &Theme,
    ) {
        let sign = if ticked { "[x]" } else { "[ ]" };
        let style = match (focused, possible) {
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

    /// Adds a text field with its label and puts the cursor into it where it has the focus.
    fn push_text_input(
        &mut self,
        label: &str,
        field: &TextInput,
        focused: bool,
        width: usize,
        theme: &Theme,
    ) {
        let room = width.saturating_sub(label.len() + 1).max(1);
        let (text, column) = field.visible(room);
        if focused {
            self.cursor = Some(((label.len() + column) as u16, self.lines.len() as u16));
        }
        let label_style = if focused { theme.focus } else { theme.text };
        self.lines.push(Line::from(vec![
            Span::styled(label.to_owned(), label_style),
            Span::styled(format::fit(&text, room), theme.title.underlined()),
        ]));
    }
}

/// What a layer is.
#[derive(Debug)]
pub(crate) enum Dialog {
    /// Create or push.
    CreateSnapshot(CreateSnapshotDialog),
    /// Pull.
    Pull(PullDialog),
    /// Remove.
    Remove(RemoveDialog),
    /// Leave with jobs running.
    Quit(QuitDialog),
    /// What an earlier run left.
    InterruptedJobs(InterruptedJobsDialog),
    /// A job with its log.
    Job(JobDetails),
    /// Where a snapshot is.
    SnapshotLocations(SnapshotLocations),
    /// The doctor's page.
    Doctor(DoctorDialog),
    /// All keys.
    Help(Help),
    /// Any action by its name.
    Palette(Palette),
    /// A guest's screen.
    Screen(ScreenView),
    /// The verbs of a sandbox.
    Menu(SandboxMenu),
    /// One of them, with a question.
    ConfirmVerb(ConfirmVerb),
    /// A new sandbox.
    NewSandbox(Box<NewSandboxDialog>),
    /// The note on a snapshot.
    Note(Box<NoteDialog>),
    /// What a rule lets go.
    Prune(Box<PruneDialog>),
}

/// One layer: a dialog, and how far it is scrolled.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The dialog.
    pub dialog: Dialog,
    /// Lines that are scrolled out at its top.
    pub scroll: u16,
    /// Does it follow the line a key is about? Not once it was scrolled by hand.
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
    /// Takes a key. `lines` is how many lines of it were on screen.
    pub(crate) fn on_key(&mut self, key: KeyEvent, view: &View, lines: u16) -> DialogReply {
        let by = |lines: i32| lines.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        let mut scroll = |lines: i32| self.scroll = self.scroll.saturating_add_signed(by(lines));
        let reads_only = matches!(
            self.dialog,
            Dialog::Job(_) | Dialog::SnapshotLocations(_) | Dialog::Doctor(_)
        );
        // Its field takes every letter.
        let is_help = matches!(self.dialog, Dialog::Help(_));
        let is_scroll = matches!(key.code, KeyCode::PageUp | KeyCode::PageDown);
        self.is_following = !is_scroll && !is_help;
        match key.code {
            KeyCode::PageUp => scroll(-i32::from(lines)),
            KeyCode::PageDown => scroll(i32::from(lines)),
            KeyCode::Up if reads_only || is_help => scroll(-1),
            KeyCode::Down if reads_only || is_help => scroll(1),
            KeyCode::Home if reads_only || is_help => scroll(i32::MIN),
            KeyCode::End if reads_only || is_help => scroll(i32::MAX),
            KeyCode::Char('k') if reads_only => scroll(-1),
            KeyCode::Char('j') if reads_only => scroll(1),
            KeyCode::Char('g') if reads_only => scroll(i32::MIN),
            KeyCode::Char('G') if reads_only => scroll(i32::MAX),
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

    /// Takes pasted text, where there is a field.
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

    /// What it shows, in `width` columns.
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
