//! The console's state. Data flows one way: input → action → state → draw. Requests to the engine are returned as
//! commands, so that the state can be tested without an engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind};
use ratatui::layout::{Rect, Size};

use super::actions::{Action, LISTS, Pane};
use super::all_hosts::AllHosts;
use super::cell::Place;
use super::dialog::{
    ConfirmVerb, Context, Dialog, DialogAnswer, DialogQuery, DialogReply, Layer, TextInput,
};
use super::jobs::JobsPage;
use super::keymap::{Keymap, Press};
use super::lineage::LineageState;
use super::list::{Change, List, Sort};
use super::log_view::LogView;
use super::lookup::{self, Index};
use super::matrix::Matrix;
use super::picture::{Canvas, EncodedImage};
use super::rates::JobRates;
use super::theme::Theme;
use super::tree::Tree;
use super::{filter, mouse, notifications, perform};
use snapdeck_engine::{
    HostView, InterruptedId, JobId, JobState, Link, PruneRequest, SandboxMetrics, View, WatchTarget,
};
use snapdeck_model::{
    AnnotationsPatch, HostName, Kind, Operation, Picture, PrunePlan, Sandbox, SandboxId,
    SandboxVerb, SnapshotName,
};

/// A request to the engine or to the event loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Submit(Operation),
    /// Run the operations one after the other.
    Chain(Vec<Operation>),
    /// Submit the operations together: pulls of one snapshot share one download.
    SubmitAll(Vec<Operation>),
    Cancel(JobId),
    Dismiss(JobId),
    /// Submit the operation; dismiss the job if it is accepted.
    Retry(JobId, Operation),
    /// Move the job by so many positions in the queue.
    Shift(JobId, isize),
    ResumeInterrupted(Vec<InterruptedId>),
    DiscardInterrupted(Vec<InterruptedId>),
    /// Copy the URL for a VNC viewer.
    Viewer {
        host: HostName,
        sandbox: SandboxId,
        /// Start a viewer, too.
        open: bool,
    },
    Annotate {
        host: Option<HostName>,
        bucket: bool,
        name: SnapshotName,
        change: AnnotationsPatch,
    },
    Prune(PruneRequest, PrunePlan),
    /// Copy to the clipboard.
    Copy(String),
    /// Stop this process until the shell continues it.
    Suspend,
    Refresh,
    RunChecks,
    /// Exit; running jobs are cancelled.
    Quit,
    /// Exit; running jobs stop and can be resumed at the next start.
    Leave,
}

/// The lists of one host.
#[derive(Debug, Default)]
pub(crate) struct HostLists {
    pub sandboxes: List<SandboxId>,
    pub snapshots: List<SnapshotName>,
    /// Positions and sizes of the snapshots.
    pub index: Index,
    /// The kind of link, and since when.
    pub link_since: Option<(LinkKind, Instant)>,
    /// Address of the sandboxes shown.
    source_list: Option<usize>,
}

impl HostLists {
    /// Returns empty lists with these sort orders.
    pub(crate) fn with_sorts(sorts: &HashMap<Pane, Sort>) -> Self {
        let sort = |pane| sorts.get(&pane).copied().unwrap_or_default();
        Self {
            sandboxes: List::with_sort(sort(Pane::Sandboxes)),
            snapshots: List::with_sort(sort(Pane::Snapshots)),
            ..Self::default()
        }
    }

    /// Updates the lists that have changed. The caller keeps the previous view alive: lists are compared by address.
    fn update(&mut self, host: &HostView) {
        // Marks of an earlier run are kept until the first scan.
        if host.last_scan.is_none() {
            return;
        }
        let sandboxes = lookup::address(&host.sandboxes);
        if self.source_list != Some(sandboxes) {
            self.source_list = Some(sandboxes);
            self.sandboxes.update(&host.sandboxes);
        }
        if self.index.update(&host.snapshots, |snapshot| {
            (&snapshot.name, snapshot.size_bytes)
        }) {
            self.snapshots.update(&host.snapshots);
        }
    }
}

/// A link without its error.
pub(crate) type LinkKind = std::mem::Discriminant<Link>;

/// A message in the footer, shown until the next key.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub text: String,
    pub is_error: bool,
}

/// Screen areas of the last frame, for the mouse and for paging.
#[derive(Debug, Default, Clone)]
pub(crate) struct Areas {
    /// Rows of each visible pane, with the number of the first row.
    pub panes: Vec<(Pane, Rect, usize)>,
    /// Titles of panes.
    pub tabs: Vec<(Pane, Rect)>,
    /// Hosts of the host bar; `None`: all hosts.
    pub hosts: Vec<(Option<HostName>, Rect)>,
    /// Columns of the matrix, and the first scrolling one.
    pub columns: (Vec<(Place, Rect)>, usize),
    /// Maximum scroll offset of the details.
    pub details_end: u16,
    /// Area of the guest's screen.
    pub picture: Option<Rect>,
    /// Visible lines and maximum scroll offset of the topmost dialog.
    pub layer: (usize, usize),
    /// Scroll offset of the topmost dialog.
    pub layer_top: usize,
    /// Lines of the topmost dialog.
    pub layer_body: Rect,
}

/// The console's state.
#[derive(Debug)]
pub(crate) struct App {
    pub view: Arc<View>,
    pub theme: Theme,
    pub keymap: Keymap,
    /// Keys of an incomplete chord.
    pub pending_keys: Vec<Press>,
    pub read_only: bool,
    /// No borders and no graphs.
    pub plain: bool,
    /// Only ASCII characters.
    pub ascii: bool,
    /// The end of jobs that ran at least so long is notified.
    pub notify_after: Duration,
    pub notifications: Vec<String>,
    /// Shown in the header: the environment, for instance `demo`.
    pub banner: Option<String>,
    pub focus: Pane,
    /// The list or page whose selected row the details show.
    pub list: Pane,
    pub host: Option<HostName>,
    pub hosts: HashMap<HostName, HostLists>,
    pub all_hosts: AllHosts,
    pub matrix: Matrix,
    pub tree: Tree,
    pub page: JobsPage,
    /// Jobs are written to a journal, so that the next start can resume them.
    pub has_journal: bool,
    pub objects: List<SnapshotName>,
    /// Positions and sizes of the objects.
    pub index: Index,
    /// The last view had a complete listing of the bucket.
    is_bucket_complete: bool,
    /// Sort orders that the operator chose.
    pub sorts: HashMap<Pane, Sort>,
    pub jobs: List<JobId>,
    /// Open dialogs, the topmost last.
    pub layers: Vec<Layer>,
    /// The filter while it is edited.
    pub filter: Option<TextInput>,
    pub log: LogView,
    pub rates: JobRates,
    pub metrics: Option<Arc<SandboxMetrics>>,
    pub lineage: Option<LineageState>,
    /// Number of annotations edited by this console.
    pub annotation_edits: u64,
    /// Virtual CPUs and bytes of memory of a new sandbox.
    pub defaults: (u32, u64),
    pub canvas: Canvas,
    /// The guest's screen, encoded for the terminal.
    pub picture: Option<EncodedImage>,
    /// Scroll offset of the details.
    pub details: u16,
    pub notice: Option<Notice>,
    /// Jobs are cleaning up before the console exits.
    pub is_shutting_down: bool,
    pub areas: Areas,
}

impl App {
    pub(crate) fn new(view: Arc<View>, banner: Option<String>, now: Instant) -> Self {
        let mut app = Self {
            view: Arc::default(),
            theme: Theme::named("dark").unwrap_or_default(),
            keymap: Keymap::default(),
            pending_keys: Vec::new(),
            read_only: false,
            plain: false,
            ascii: false,
            notify_after: Duration::MAX,
            notifications: Vec::new(),
            banner,
            focus: Pane::Sandboxes,
            list: Pane::Sandboxes,
            host: None,
            hosts: HashMap::new(),
            all_hosts: AllHosts::default(),
            matrix: Matrix::default(),
            tree: Tree::default(),
            page: JobsPage::default(),
            has_journal: false,
            objects: List::default(),
            index: Index::default(),
            is_bucket_complete: false,
            sorts: HashMap::new(),
            jobs: List::default(),
            layers: Vec::new(),
            filter: None,
            log: LogView::default(),
            rates: JobRates::default(),
            metrics: None,
            lineage: None,
            annotation_edits: 0,
            defaults: (2, 4 << 30),
            canvas: Canvas::default(),
            picture: None,
            details: 0,
            notice: None,
            is_shutting_down: false,
            areas: Areas::default(),
        };
        app.on_view(view, now);
        app
    }

    pub(crate) fn on_view(&mut self, view: Arc<View>, now: Instant) {
        // Keep the previous view until the end: an Index compares lists by address.
        let before = std::mem::replace(&mut self.view, view.clone());
        self.offer_force_off(&before);
        for layer in &mut self.layers {
            layer.dialog.update(&view);
        }
        self.notifications.extend(notifications::finished_long_jobs(
            &before,
            &view,
            self.notify_after,
        ));
        for host in &view.hosts {
            let lists = self.hosts.entry(host.name.clone());
            let lists = lists.or_insert_with(|| HostLists::with_sorts(&self.sorts));
            lists.update(host);
            let kind = std::mem::discriminant(&host.link);
            if lists.link_since.is_none_or(|(before, _)| before != kind) {
                lists.link_since = Some((kind, now));
            }
        }
        let exists = |name: &HostName| lookup::host(&view, name).is_some();
        if !self.host.as_ref().is_some_and(exists) {
            self.host = view.hosts.first().map(|host| host.name.clone());
        }
        let has_changed = self.index.update(&view.bucket.objects, |object| {
            (&object.name, object.size_bytes)
        });
        let is_complete = view.bucket.last_listing.is_some();
        match has_changed || is_complete != self.is_bucket_complete {
            true if is_complete => self.objects.update(&view.bucket.objects),
            true => self.objects.update_partial(&view.bucket.objects),
            false => {}
        }
        self.is_bucket_complete = is_complete;
        self.all_hosts.update(&view);
        match self.list {
            Pane::Matrix => self.matrix.update(&view),
            Pane::Tree => self.tree.update(&view),
            Pane::JobsPage => self.page.update(&view),
            _ => {}
        }
        self.jobs.update(&view.jobs);
        self.rates.sample(&view, now);
        if self.focus == Pane::Jobs && view.jobs.is_empty() {
            self.focus = self.list;
        }
    }

    /// Offers to force off each sandbox whose stop has just failed because the guest did not shut down.
    fn offer_force_off(&mut self, before: &View) {
        for job in &self.view.jobs {
            let (Operation::Sandbox { host, id, verb }, JobState::Failed(error)) =
                (&job.operation, &job.state)
            else {
                continue;
            };
            let was_active = before
                .job(job.id)
                .is_some_and(|job| !job.state.is_finished());
            let is_stop = matches!(verb, SandboxVerb::Stop { force: false, .. });
            let is_running = lookup::sandbox(&self.view, host, id)
                .is_some_and(|sandbox| verb.obstacle(sandbox.state).is_none());
            if !(was_active && is_stop && is_running && error.kind() == Kind::Conflict) {
                continue;
            }
            match self.layers.last_mut() {
                // Another dialog is not interrupted; the job shows the error.
                Some(layer) => layer.dialog.add_failed_stop(host, id),
                None => {
                    let (host, id, reason) = (host.clone(), id.clone(), error.to_string());
                    let dialog = ConfirmVerb::after_failed_stop(host, id, reason, &self.view);
                    self.layers.push(Layer::new(Box::new(dialog), &self.view));
                }
            }
        }
    }

    /// Replaces the metrics of the watched sandbox; drops the picture of another one.
    pub(crate) fn on_metrics(&mut self, metrics: Option<Arc<SandboxMetrics>>) {
        let id = |metrics: &Arc<SandboxMetrics>| {
            let target = &metrics.target;
            (target.host.clone(), target.sandbox.clone())
        };
        let is_same = self.metrics.as_ref().map(id) == metrics.as_ref().map(id);
        let has_screen = metrics
            .as_ref()
            .is_some_and(|metrics| metrics.screen.is_some());
        self.picture = self.picture.take().filter(|_| is_same && has_screen);
        self.metrics = metrics;
    }

    /// Returns the selected sandbox if it has a QEMU process and its host is reachable.
    pub(crate) fn watched_sandbox(&self) -> Option<(&HostView, &Sandbox)> {
        let (host, sandbox) = self.sandbox().filter(|_| self.list == Pane::Sandboxes)?;
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

    /// Replaces the picture unless the guest's screen has changed since it was encoded.
    pub(crate) fn on_picture(&mut self, picture: Option<EncodedImage>) {
        let screen = self
            .metrics
            .as_ref()
            .and_then(|metrics| metrics.screen.as_ref());
        let current = screen.map(|screen| screen.fingerprint);
        if let Some(picture) = picture.filter(|picture| current == Some(picture.fingerprint)) {
            self.picture = Some(picture);
        }
    }

    /// Returns the picture that is not encoded yet, with the size of its area in cells.
    pub(crate) fn pending_picture(&self) -> Option<(Arc<Picture>, Size)> {
        let picture = self.metrics.as_ref()?.screen.clone()?;
        let room = self.areas.picture?.as_size();
        let is_ready = self.picture.as_ref().is_some_and(|encoded| {
            encoded.fingerprint == picture.fingerprint && encoded.room == room
        });
        (!is_ready && self.canvas.is_enabled()).then_some((picture, room))
    }

    pub(crate) fn on_event(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.on_key(key),
            Event::Mouse(event) => mouse::on_mouse(self, event),
            Event::Paste(text) => {
                match (self.layers.last_mut(), &mut self.filter) {
                    (Some(layer), _) => layer.paste(&text, &self.view),
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
        if perform::is_interrupt(key) {
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

    /// Calls `call` with what dialogs read.
    pub(crate) fn with_context<T>(&self, call: impl FnOnce(&Context<'_>) -> T) -> T {
        call(&Context {
            view: &self.view,
            keymap: &self.keymap,
            theme: &self.theme,
            now: Instant::now(),
            refusal: &|entry| perform::refusal(self, entry),
        })
    }

    /// Handles the reply of `layer`, which was taken from the open ones.
    pub(crate) fn on_dialog_reply(&mut self, layer: Layer, reply: DialogReply) -> Vec<Command> {
        match reply {
            DialogReply::Stay | DialogReply::Ignored => {
                self.layers.push(layer);
                Vec::new()
            }
            DialogReply::Execute(commands) => {
                self.layers.push(layer);
                commands
            }
            DialogReply::Replace(dialog) => {
                self.layers.push(Layer::new(dialog, &self.view));
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

    pub(crate) fn focus_on(&mut self, pane: Pane) {
        self.filter = None;
        self.pending_keys.clear();
        self.focus = pane;
        if LISTS.contains(&pane) || pane.is_page() {
            if self.list != pane {
                self.details = 0;
            }
            self.list = pane;
        }
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

    pub(crate) fn host_view(&self) -> Option<&HostView> {
        lookup::host(&self.view, self.host.as_ref()?)
    }

    pub(crate) fn host_lists(&self) -> Option<&HostLists> {
        self.hosts.get(self.host.as_ref()?)
    }

    pub(crate) fn show_notice(&mut self, text: impl Into<String>, is_error: bool) {
        let text = text.into();
        self.notice = Some(Notice { text, is_error });
    }

    pub(crate) fn dialog(&self) -> Option<&dyn Dialog> {
        self.layers.last().map(|layer| &*layer.dialog)
    }

    /// Returns what the topmost dialog asks in the background.
    pub(crate) fn pending_dialog_query(&self) -> Option<DialogQuery> {
        self.dialog()?.pending_query()
    }

    pub(crate) fn on_dialog_answer(&mut self, answer: DialogAnswer) {
        if let Some(layer) = self.layers.last_mut() {
            layer.on_answer(answer, &self.view);
        }
    }

    /// Returns whether a job is active, so that its progress must be redrawn.
    pub(crate) fn has_active_jobs(&self) -> bool {
        let is_active =
            |state: &JobState| matches!(state, JobState::Running | JobState::Cancelling);
        self.view.jobs.iter().any(|job| is_active(&job.state))
    }

    pub(crate) fn is_log_visible(&self) -> bool {
        self.areas.panes.iter().any(|(pane, ..)| *pane == Pane::Log)
    }

    /// Stores the areas of the frame, and the scroll offsets as they were clamped.
    pub(crate) fn after_draw(&mut self, areas: Areas) {
        for (pane, _, first) in &areas.panes {
            self.after_pane_draw(*pane, *first);
        }
        self.matrix.first_column = areas.columns.1;
        self.details = self.details.min(areas.details_end);
        if let Some(layer) = self.layers.last_mut() {
            layer.scroll = areas.layer_top;
        }
        self.areas = areas;
    }
}
