//! The console's state. Data flows one way: event → action → state → draw. Requests to the engine are returned as
//! commands, so that the state can be tested without an engine.

mod annotations;
mod copy;
mod custom;
mod filter;
mod mouse;
mod perform;
mod verbs;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind};
use ratatui::layout::{Position, Size};

use super::actions::{Action, LISTS, Pane};
use super::areas::Areas;
use super::bookmarks::Bookmarks;
use super::cell::Place;
use super::columns::ChosenColumns;
use super::command::Command;
use super::custom::CustomCommand;
use super::dialog::{
    ConfirmVerb, Context, Dialog, DialogAnswer, DialogQuery, DialogReply, Layer, SetupDialog,
    TextInput,
};
use super::facts::AnnotationsQuery;
use super::keymap::{Keymap, Press};
use super::list::{Change, Sort, Summary};
use super::log_view::LogView;
use super::notifications;
use super::pages::{DrawContext, Page, Pages, Subject};
use super::picture::{Canvas, EncodedImage};
use super::theme::{Appearance, THEMES, Theme};
use super::world::{Scope, World};
use snapdeck_engine::{
    HistoryEntry, HostView, JobState, Link, SandboxMetrics, ScreenKey, Screens, View, WatchTarget,
};
use snapdeck_model::settings::ListColumns;
use snapdeck_model::{
    HostName, Kind, Operation, Picture, Sandbox, SandboxId, SandboxVerb, SnapshotName,
};
use snapdeck_settings::Setup;

pub(crate) use self::annotations::LineageQuery;
use self::annotations::LineageState;
use self::filter::FilterHistory;
pub(crate) use self::perform::{NO_BUCKET, READ_ONLY, obstacle};

/// Shown while annotations are read for a filter.
pub(crate) const READING_ANNOTATIONS: &str = "reading the annotations…";

/// A message above the footer, shown until the next key.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub text: String,
    pub is_error: bool,
}

/// Options that are set once, at the start.
#[derive(Debug)]
pub(crate) struct AppOptions {
    pub read_only: bool,
    /// Shown in the header: the environment, for instance `demo`.
    pub banner: Option<String>,
    /// The end of jobs that ran at least so long is notified.
    pub notify_after: Duration,
    /// Jobs are written to a journal, so that the next start can resume them.
    pub has_journal: bool,
    /// Virtual CPUs and bytes of memory of a new sandbox.
    pub defaults: (u32, u64),
    /// The setup, which is possible while there is no settings file.
    pub setup: Option<Arc<Setup>>,
}

impl Default for AppOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            banner: None,
            notify_after: Duration::MAX,
            has_journal: false,
            defaults: (2, 4 << 30),
            setup: None,
        }
    }
}

/// The console's state.
#[derive(Debug)]
pub(crate) struct App {
    world: World,
    options: AppOptions,
    appearance: Appearance,
    keymap: Keymap,
    /// Keys of an incomplete chord.
    pending_keys: Vec<Press>,
    pages: Pages,
    focus: Pane,
    /// The list or page whose selected row the details show.
    list: Pane,
    /// The list to return to from a page.
    last_list: Pane,
    /// The focused pane has the whole screen.
    is_zoomed: bool,
    /// Open dialogs, the topmost last.
    layers: Vec<Layer>,
    /// The filter while it is edited.
    filter: Option<TextInput>,
    filter_history: FilterHistory,
    bookmarks: Bookmarks,
    /// Commands of the operator, in the order of their actions.
    custom_commands: Vec<CustomCommand>,
    log: LogView,
    lineage: Option<LineageState>,
    /// Number of annotations edited by this console.
    annotation_edits: u64,
    canvas: Canvas,
    /// The guest's screen, encoded for the terminal.
    picture: Option<EncodedImage>,
    /// Scroll offset of the details.
    details: u16,
    notice: Option<Notice>,
    /// Time and position of the last click.
    last_click: Option<(Instant, Position)>,
    notifications: Vec<String>,
    /// Jobs are cleaning up before the console exits.
    is_shutting_down: bool,
    areas: Areas,
}

impl App {
    pub(crate) fn new(view: Arc<View>, options: AppOptions, now: Instant) -> Self {
        let theme = Theme::named("dark").unwrap_or_default();
        let mut app = Self {
            world: World::default(),
            options,
            appearance: Appearance {
                theme,
                ..Appearance::default()
            },
            keymap: Keymap::default(),
            pending_keys: Vec::new(),
            pages: Pages::default(),
            focus: Pane::Sandboxes,
            list: Pane::Sandboxes,
            last_list: Pane::Sandboxes,
            is_zoomed: false,
            layers: Vec::new(),
            filter: None,
            filter_history: FilterHistory::default(),
            bookmarks: Bookmarks::default(),
            custom_commands: Vec::new(),
            log: LogView::default(),
            lineage: None,
            annotation_edits: 0,
            canvas: Canvas::default(),
            picture: None,
            details: 0,
            notice: None,
            last_click: None,
            notifications: Vec::new(),
            is_shutting_down: false,
            areas: Areas::default(),
        };
        app.on_view(view, now);
        app
    }

    pub(crate) fn options(&self) -> &AppOptions {
        &self.options
    }

    pub(crate) fn appearance(&self) -> &Appearance {
        &self.appearance
    }

    pub(crate) fn set_appearance(&mut self, appearance: Appearance) {
        self.appearance = appearance;
    }

    pub(crate) fn set_theme(&mut self, theme: Theme) {
        self.appearance.theme = theme;
    }

    /// Switches to the next compiled-in theme; returns its name.
    fn next_theme(&mut self) -> &'static str {
        let current = THEMES
            .iter()
            .position(|(name, _)| Theme::named(name) == Some(self.appearance.theme));
        let next = current.map_or(0, |at| (at + 1) % THEMES.len());
        let (name, _) = THEMES[next];
        self.appearance.theme = Theme::named(name).unwrap_or_default();
        name
    }

    pub(crate) fn set_bookmarks(&mut self, bookmarks: Bookmarks) {
        self.bookmarks = bookmarks;
    }

    /// Sets the commands of the operator, whose keys are in the keymap.
    pub(crate) fn set_custom_commands(&mut self, commands: Vec<CustomCommand>) {
        self.custom_commands = commands;
    }

    pub(crate) fn keymap(&self) -> &Keymap {
        &self.keymap
    }

    pub(crate) fn set_keymap(&mut self, keymap: Keymap) {
        self.keymap = keymap;
    }

    pub(crate) fn canvas(&self) -> Canvas {
        self.canvas
    }

    pub(crate) fn set_canvas(&mut self, canvas: Canvas) {
        self.canvas = canvas;
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn view(&self) -> &Arc<View> {
        self.world.view()
    }

    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Returns the open page: the lists, or what replaces them.
    pub(crate) fn page(&self) -> &dyn Page {
        self.pages.with(self.list)
    }

    pub(crate) fn focus(&self) -> Pane {
        self.focus
    }

    /// Returns the list or page whose selected row the details show.
    pub(crate) fn list(&self) -> Pane {
        self.list
    }

    pub(crate) fn is_zoomed(&self) -> bool {
        self.is_zoomed
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub(crate) fn filter_input(&self) -> Option<&TextInput> {
        self.filter.as_ref()
    }

    pub(crate) fn log(&self) -> &LogView {
        &self.log
    }

    pub(crate) fn details_scroll(&self) -> u16 {
        self.details
    }

    pub(crate) fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref()
    }

    pub(crate) fn pending_keys(&self) -> &[Press] {
        &self.pending_keys
    }

    pub(crate) fn picture(&self) -> Option<&EncodedImage> {
        self.picture.as_ref()
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.is_shutting_down
    }

    pub(crate) fn draw_context(&self, now: Instant) -> DrawContext<'_> {
        DrawContext {
            world: &self.world,
            appearance: &self.appearance,
            focus: self.focus,
            list: self.list,
            filter_input: self.filter.as_ref(),
            is_zoomed: self.is_zoomed,
            can_set_up: self.options.setup.is_some(),
            now,
        }
    }

    pub(crate) fn summary(&self, pane: Pane) -> Summary<'_> {
        self.pages.with(pane).summary(pane)
    }

    /// Returns what the selected row of the open page is about.
    pub(crate) fn selected(&self) -> Option<Subject> {
        self.page().selected(self.list, &self.world)
    }

    /// Returns what the marked rows of the open page are about; the selected row if none is marked.
    fn chosen(&self) -> Vec<Subject> {
        self.page().chosen(self.list, &self.world)
    }

    /// Returns the selected sandbox with its host.
    pub(crate) fn sandbox(&self) -> Option<(&HostView, &Sandbox)> {
        let Subject::Sandbox(host, id) = self.selected()? else {
            return None;
        };
        Some((self.world.host(&host)?, self.world.sandbox(&host, &id)?))
    }

    /// Returns the marked sandboxes; the selected one if none is marked.
    pub(crate) fn chosen_sandboxes(&self) -> Vec<(HostName, SandboxId)> {
        let sandbox = |subject| match subject {
            Subject::Sandbox(host, id) => Some((host, id)),
            _ => None,
        };
        self.chosen().into_iter().filter_map(sandbox).collect()
    }

    /// Returns the marked snapshots, or the selected one, each with the place in which it is selected.
    pub(crate) fn chosen_snapshots(&self) -> Vec<(SnapshotName, Place)> {
        let snapshot = |subject| match subject {
            Subject::Snapshot(name, place) => Some((name, place)),
            _ => None,
        };
        self.chosen().into_iter().filter_map(snapshot).collect()
    }

    /// Returns the names of the marked rows, or of the selected one.
    pub(crate) fn chosen_names(&self) -> Vec<String> {
        let name = |subject| match subject {
            Subject::Sandbox(_, id) => Some(id.to_string()),
            Subject::Snapshot(name, _) | Subject::Partial(_, name) => Some(name.to_string()),
            Subject::Host(host) => Some(host.to_string()),
            Subject::Job(_) | Subject::Interrupted(_) | Subject::Past(_) => None,
        };
        let mut names: Vec<String> = self.chosen().into_iter().filter_map(name).collect();
        names.dedup();
        names
    }

    /// Returns the selected sandbox if it has a QEMU process and its host is reachable.
    pub(crate) fn watched_sandbox(&self) -> Option<(&HostView, &Sandbox)> {
        let is_shown = matches!(self.list, Pane::Sandboxes | Pane::Wall);
        let (host, sandbox) = self.sandbox().filter(|_| is_shown)?;
        (host.link == Link::Up && sandbox.state.is_active()).then_some((host, sandbox))
    }

    /// Returns the sandbox whose metrics the engine is to sample.
    pub(crate) fn watch_target(&self) -> Option<WatchTarget> {
        let (host, sandbox) = self.watched_sandbox()?;
        Some(WatchTarget {
            host: host.name.clone(),
            sandbox: sandbox.id.clone(),
            include_screen: self.areas.picture.is_some() && self.canvas.is_enabled(),
        })
    }

    /// Returns whether a picture of the guest's screen is shown, with its age.
    pub(crate) fn shows_picture(&self) -> bool {
        let metrics = self.world.metrics();
        self.areas.picture.is_some() && metrics.is_some_and(|metrics| metrics.screen.is_some())
    }

    /// Returns the picture that is not encoded yet, with the size of its area in cells.
    pub(crate) fn pending_picture(&self) -> Option<(Arc<Picture>, Size)> {
        let picture = self.world.metrics()?.screen.clone()?;
        let room = self.areas.picture?.as_size();
        let is_ready = self.picture.as_ref().is_some_and(|encoded| {
            encoded.fingerprint == picture.fingerprint && encoded.room == room
        });
        (!is_ready && self.canvas.is_enabled()).then_some((picture, room))
    }

    /// Returns the inputs of the query of parents that is due while the tree is open.
    pub(crate) fn pending_parents_query(&self) -> Option<super::pages::tree::TreeInputs> {
        match self.list {
            Pane::Tree => self.pages.tree.pending_parents_query(&self.world),
            _ => None,
        }
    }

    /// Returns the annotations that the filter of the open list needs and that are not known yet.
    pub(crate) fn pending_annotations_query(&self) -> Option<AnnotationsQuery> {
        let query = self.page().annotations_query(self.list, &self.world)?;
        let edits = self.annotation_edits;
        let query = AnnotationsQuery { edits, ..query };
        (!self.world.has_annotations(&query)).then_some(query)
    }

    pub(crate) fn on_annotations(
        &mut self,
        query: AnnotationsQuery,
        list: snapdeck_engine::AnnotationList,
    ) {
        if list.unread_count > 0 {
            let count = crate::format::count(list.unread_count, "snapshot");
            self.show_notice(format!("the annotations of {count} were not read"), false);
        } else if self
            .notice
            .as_ref()
            .is_some_and(|notice| notice.text == READING_ANNOTATIONS)
        {
            self.notice = None;
        }
        self.world.set_annotations(query, list);
        self.update_page();
    }

    /// Returns what the topmost dialog asks in the background.
    pub(crate) fn pending_dialog_query(&self) -> Option<DialogQuery> {
        self.dialog()?.pending_query()
    }

    /// Returns the topmost dialog.
    fn dialog(&self) -> Option<&dyn Dialog> {
        self.layers.last().map(|layer| &*layer.dialog)
    }

    /// Calls `call` with what dialogs read.
    pub(crate) fn with_context<T>(&self, call: impl FnOnce(&Context<'_>) -> T) -> T {
        call(&Context {
            view: self.world.view(),
            keymap: &self.keymap,
            theme: &self.appearance.theme,
            now: Instant::now(),
            focus: self.focus,
            refusal: &|entry| perform::refusal(self, entry),
            free_bytes: &|host| self.world.load(host)?.snapshots_free_bytes,
        })
    }

    /// Returns whether a job is active, so that its progress must be redrawn.
    pub(crate) fn has_active_jobs(&self) -> bool {
        let is_active =
            |state: &JobState| matches!(state, JobState::Running | JobState::Cancelling);
        self.view().jobs.iter().any(|job| is_active(&job.state))
    }

    #[cfg(test)]
    pub(crate) fn areas(&self) -> &Areas {
        &self.areas
    }

    pub(crate) fn is_log_visible(&self) -> bool {
        self.areas.panes.iter().any(|(pane, ..)| *pane == Pane::Log)
    }

    pub(crate) fn on_view(&mut self, view: Arc<View>, now: Instant) {
        let before = self.world.set_view(view, now);
        self.offer_force_off(&before);
        for layer in &mut self.layers {
            layer.dialog.update(self.world.view());
        }
        self.notifications.extend(notifications::finished_long_jobs(
            &before,
            self.world.view(),
            self.options.notify_after,
        ));
        self.update_page();
        if self.focus == Pane::Jobs && self.view().jobs.is_empty() {
            self.focus = self.list;
        }
    }

    /// Updates the rows of the open page and the jobs.
    fn update_page(&mut self) {
        self.pages.jobs.update_pane(&self.world);
        self.pages.with_mut(self.list).update(&self.world);
    }

    pub(crate) fn on_loads(
        &mut self,
        loads: Arc<std::collections::BTreeMap<HostName, snapdeck_model::HostLoad>>,
    ) {
        self.world.set_loads(loads);
        if self.list == Pane::Hosts {
            self.update_page();
        }
    }

    pub(crate) fn on_history(&mut self, history: Arc<[HistoryEntry]>) {
        self.world.set_history(history);
        if self.list == Pane::JobsPage {
            self.update_page();
        }
    }

    /// Returns the guests whose thumbnails the engine is to take.
    pub(crate) fn visible_screens(&self) -> Vec<ScreenKey> {
        match self.list {
            Pane::Wall if self.canvas.is_enabled() => self.pages.wall.visible(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn on_screens(&mut self, screens: Arc<Screens>) {
        self.world.set_screens(screens);
    }

    /// Returns the thumbnails that are not encoded yet, with the size of their areas in cells.
    pub(crate) fn pending_thumbnails(&self) -> Vec<(ScreenKey, Arc<Picture>, Size)> {
        let size = self.pages.wall.picture_size();
        let keys = self.visible_screens().into_iter();
        let pending = keys.filter_map(|key| {
            let picture = self.world.screens().get(&key)?.picture.clone()?;
            let encoded = self.world.thumbnail(&key);
            let is_ready = encoded.is_some_and(|encoded| {
                encoded.fingerprint == picture.fingerprint && encoded.room == size
            });
            (!is_ready).then_some((key, picture, size))
        });
        pending.collect()
    }

    pub(crate) fn on_thumbnails(&mut self, thumbnails: Vec<(ScreenKey, EncodedImage)>) {
        self.world.set_thumbnails(thumbnails);
    }

    pub(crate) fn sample_rates(&mut self, now: Instant) {
        self.world.sample_rates(now);
    }

    /// Replaces the metrics of the watched sandbox; drops the picture of another one.
    pub(crate) fn on_metrics(&mut self, metrics: Option<Arc<SandboxMetrics>>) {
        let id = |metrics: &Arc<SandboxMetrics>| {
            let target = &metrics.target;
            (target.host.clone(), target.sandbox.clone())
        };
        let is_same = self.world.metrics().map(id) == metrics.as_ref().map(id);
        let has_screen = metrics
            .as_ref()
            .is_some_and(|metrics| metrics.screen.is_some());
        self.picture = self.picture.take().filter(|_| is_same && has_screen);
        self.world.set_metrics(metrics);
    }

    /// Replaces the picture unless the guest's screen has changed since it was encoded.
    pub(crate) fn on_picture(&mut self, picture: Option<EncodedImage>) {
        let screen = self
            .world
            .metrics()
            .and_then(|metrics| metrics.screen.as_ref());
        let current = screen.map(|screen| screen.fingerprint);
        if let Some(picture) = picture.filter(|picture| current == Some(picture.fingerprint)) {
            self.picture = Some(picture);
        }
    }

    pub(crate) fn on_parents(
        &mut self,
        inputs: super::pages::tree::TreeInputs,
        parents: snapdeck_engine::Parents,
    ) {
        self.pages.tree.on_parents(inputs, parents, &self.world);
    }

    /// Takes the notifications that were not sent yet.
    pub(crate) fn take_notifications(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notifications)
    }

    /// Shows that jobs clean up before the console exits.
    pub(crate) fn start_shutdown(&mut self) {
        self.is_shutting_down = true;
        self.layers.clear();
    }

    pub(crate) fn show_notice(&mut self, text: impl Into<String>, is_error: bool) {
        let text = text.into();
        self.notice = Some(Notice { text, is_error });
    }

    pub(crate) fn clear_notice(&mut self) {
        self.notice = None;
    }

    pub(crate) fn open(&mut self, dialog: Box<dyn Dialog>) {
        self.layers.push(Layer::new(dialog, self.world.view()));
    }

    /// Returns columns and rows of a serial console on the whole screen.
    pub(crate) fn serial_size(&self) -> (u16, u16) {
        let (columns, rows) = self.areas.screen;
        // The frame, and the line of keys.
        (columns.saturating_sub(2), rows.saturating_sub(3))
    }

    /// Opens the setup if there is no settings file.
    pub(crate) fn open_setup(&mut self) {
        if let Some(setup) = self.options.setup.clone() {
            self.open(Box::new(SetupDialog::new(setup)));
        }
    }

    pub(crate) fn on_dialog_answer(&mut self, answer: DialogAnswer) {
        if let Some(layer) = self.layers.last_mut() {
            layer.on_answer(answer, self.world.view());
        }
    }

    /// Offers to force off each sandbox whose stop has just failed because the guest did not shut down.
    fn offer_force_off(&mut self, before: &View) {
        for job in &self.world.view().jobs {
            let (Operation::Sandbox { host, id, verb }, JobState::Failed(error)) =
                (&job.operation, &job.state)
            else {
                continue;
            };
            let was_active = before
                .job(job.id)
                .is_some_and(|job| !job.state.is_finished());
            let is_stop = matches!(verb, SandboxVerb::Stop { force: false, .. });
            let is_running = self
                .world
                .sandbox(host, id)
                .is_some_and(|sandbox| verb.obstacle(sandbox.state).is_none());
            if !(was_active && is_stop && is_running && error.kind() == Kind::Conflict) {
                continue;
            }
            match self.layers.last_mut() {
                // Another dialog is not interrupted; the job shows the error.
                Some(layer) => layer.dialog.add_failed_stop(host, id),
                None => {
                    let (host, id, reason) = (host.clone(), id.clone(), error.to_string());
                    let view = self.world.view();
                    let dialog = ConfirmVerb::after_failed_stop(host, id, reason, view);
                    self.layers.push(Layer::new(Box::new(dialog), view));
                }
            }
        }
    }

    pub(crate) fn on_event(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.on_key(key),
            Event::Mouse(event) => mouse::on_mouse(self, event),
            Event::Paste(text) => {
                if let Some(console) = self.dialog().and_then(Dialog::serial) {
                    return vec![console.paste_command(&text)];
                }
                match (self.layers.last_mut(), &mut self.filter) {
                    (Some(layer), _) => layer.paste(&text, self.world.view()),
                    (None, Some(field)) => {
                        field.paste(&text);
                        filter::refilter(self);
                    }
                    (None, None) => {}
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn on_key(&mut self, key: KeyEvent) -> Vec<Command> {
        self.notice = None;
        if self.is_shutting_down {
            return Vec::new();
        }
        let is_serial = self
            .dialog()
            .is_some_and(|dialog| dialog.serial().is_some());
        if perform::is_interrupt(key) && !is_serial {
            let is_quit = |layer: &Layer| layer.dialog.is_quit();
            if self.filter.is_none() && self.layers.last().is_none_or(is_quit) {
                return perform::perform(self, Action::Quit);
            }
            // Close only the dialog or filter, as esc does: the key may not have been meant for the console.
            return self.on_key(KeyCode::Esc.into());
        }
        if let Some(mut layer) = self.layers.pop() {
            let (lines, end) = self.areas.layer;
            layer.scroll = layer.scroll.min(end);
            let reply = self.with_context(|context| layer.on_key(key, context, lines));
            return self.on_dialog_reply(layer, reply);
        }
        if self.filter.is_some() {
            filter::on_key(self, key);
            return Vec::new();
        }
        perform::on_key(self, key)
    }

    /// Handles the reply of `layer`, which was taken from the open ones.
    fn on_dialog_reply(&mut self, layer: Layer, reply: DialogReply) -> Vec<Command> {
        match reply {
            DialogReply::Stay | DialogReply::Ignored => {
                self.layers.push(layer);
                Vec::new()
            }
            DialogReply::Execute(commands) => {
                self.layers.push(layer);
                for command in &commands {
                    if let Command::SaveBookmarks(bookmarks) = command {
                        self.bookmarks = bookmarks.clone();
                    }
                }
                commands
            }
            DialogReply::Filter(text) => {
                self.change(self.list, Change::Filter(text));
                Vec::new()
            }
            DialogReply::Replace(dialog) => {
                self.open(dialog);
                Vec::new()
            }
            DialogReply::ChooseColumns(pane, columns) => {
                self.pages.lists.set_columns(pane, columns);
                Vec::new()
            }
            DialogReply::Perform(action) => perform::perform_by_name(self, action),
            DialogReply::Close(commands) => {
                let submits = |command: &Command| {
                    matches!(command, Command::Submit(_) | Command::SubmitAll(_))
                };
                if commands.iter().any(submits) {
                    self.change(self.list, Change::Unmark);
                }
                commands
            }
        }
    }

    /// Focuses a pane; opens its page, or closes the page that hides it.
    pub(crate) fn focus_on(&mut self, pane: Pane) {
        self.filter = None;
        self.pending_keys.clear();
        self.focus = pane;
        if !LISTS.contains(&pane) && !pane.is_page() || self.list == pane {
            return;
        }
        self.details = 0;
        let selected = self.selected();
        let before = std::mem::replace(&mut self.list, pane);
        if LISTS.contains(&before) {
            self.last_list = before;
        }
        if before.is_page() {
            self.pages.with_mut(before).close();
        }
        if before.is_page() || pane.is_page() {
            self.update_page();
        }
        if let Some(subject) = selected.filter(|_| pane.is_page()) {
            self.pages.with_mut(pane).select(&subject, &self.world);
        }
    }

    /// Opens a page at what is selected, or returns from it to the lists.
    pub(crate) fn toggle_page(&mut self, page: Pane) {
        match self.list == page {
            true => self.focus_on(self.last_list),
            false => self.focus_on(page),
        }
    }

    /// Applies `change` to the list in `pane`.
    pub(crate) fn change(&mut self, pane: Pane, change: Change) {
        self.pages.with_mut(pane).apply(pane, change, &self.world);
        if pane == self.list {
            self.details = 0;
        }
    }

    pub(crate) fn sort(&self, pane: Pane) -> Option<Sort> {
        self.pages.with(pane).sort(pane)
    }

    /// Moves the selection or scrolls `pane` by so many rows or lines.
    pub(crate) fn scroll(&mut self, pane: Pane, by: isize) {
        match pane {
            Pane::Details => {
                let line = (self.details as isize).saturating_add(by).max(0);
                self.details = u16::try_from(line)
                    .unwrap_or(u16::MAX)
                    .min(self.areas.details_end);
            }
            Pane::Log => self.log.scroll(by),
            _ => self.change(pane, Change::MoveBy(by)),
        }
    }

    /// Shows the rows of one host; `None`: of all hosts. The rows that were selected before stay selected if they are shown.
    pub(crate) fn set_scope(&mut self, scope: Scope) {
        if scope == self.world.scope() {
            return;
        }
        self.details = 0;
        let lists = &self.pages.lists;
        let selected = LISTS.map(|pane| lists.selected(pane, &self.world));
        let is_all = scope.is_none();
        let was_all = self.world.shows_all_hosts();
        self.world.set_scope(scope);
        self.pages.lists.update(&self.world);
        self.update_page();
        // Between hosts, each has its own selection.
        if is_all || was_all {
            for subject in selected.iter().flatten() {
                self.pages.lists.select(subject, &self.world);
            }
        }
        if let Some(host) = self.world.scope().filter(|_| self.list == Pane::Matrix) {
            self.pages.locations.set_place(Place::Host(host));
        }
    }

    /// Sets the columns of the lists, as in the settings.
    pub(crate) fn set_columns(&mut self, settings: &ListColumns) {
        for pane in LISTS {
            let columns = ChosenColumns::configured(pane, settings);
            self.pages.lists.set_columns(pane, columns);
        }
    }

    /// Restores the lists of an earlier run.
    pub(crate) fn restore_lists(&mut self, restore: impl FnOnce(&mut super::pages::lists::Lists)) {
        restore(&mut self.pages.lists);
        self.update_page();
    }

    /// Switches from all hosts to the host of the selected row, or to all hosts.
    fn toggle_all_hosts(&mut self) {
        if !self.world.shows_all_hosts() {
            return self.set_scope(None);
        }
        let selected = match self.selected() {
            Some(Subject::Sandbox(host, _) | Subject::Snapshot(_, Place::Host(host))) => Some(host),
            _ => None,
        };
        let host = selected.or_else(|| self.world.current_host().cloned());
        self.set_scope(host);
    }

    /// Stores the areas of the frame, and the scroll offsets as they were clamped. Returns whether the frame must be drawn
    /// again: the terminal of a serial console has another size.
    pub(crate) fn after_draw(&mut self, areas: Areas) -> bool {
        for (pane, _, first) in &areas.panes {
            self.pages.with_mut(*pane).set_offset(*pane, *first);
        }
        self.pages.locations.set_first_column(areas.columns.1);
        self.details = self.details.min(areas.details_end);
        if let Some(layer) = self.layers.last_mut() {
            layer.scroll = areas.layer_top;
        }
        self.areas = areas;
        let size = self.serial_size();
        let console = self.dialog().and_then(Dialog::serial);
        console.is_some_and(|console| console.resize(size))
    }
}
