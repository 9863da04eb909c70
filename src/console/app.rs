//! The console's state. Data goes one way: input → action → state → draw; what the engine shall do
//! comes back as commands, so that nothing here needs an engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind};
use ratatui::layout::{Rect, Size};

use super::actions::{Action, LISTS, Pane};
use super::all_hosts::AllHosts;
use super::cell::Place;
use super::dialog::{ConfirmVerb, Dialog, DialogReply, Layer, PullTarget, TextInput};
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
    SandboxState, SandboxVerb, SnapshotName,
};

/// What the engine, or the loop, shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Take this on.
    Submit(Operation),
    /// Take these on, one after the other.
    Chain(Vec<Operation>),
    /// Take these on together: pulls of one snapshot share one fetch.
    SubmitAll(Vec<Operation>),
    /// Cancel this job.
    Cancel(JobId),
    /// Forget this job.
    Dismiss(JobId),
    /// Forget this job, and take this on in its place.
    Retry(JobId, Operation),
    /// Move this job in the queue by so many places.
    Shift(JobId, isize),
    /// Go on with what was left.
    ResumeInterrupted(Vec<InterruptedId>),
    /// Forget what was left.
    DiscardInterrupted(Vec<InterruptedId>),
    /// Put a URL for a VNC viewer onto the clipboard.
    Viewer {
        /// Where the sandbox is.
        host: HostName,
        /// Whose screen.
        sandbox: SandboxId,
        /// Open a viewer, too.
        open: bool,
    },
    /// Change what is said of a snapshot.
    Annotate {
        /// On this host.
        host: Option<HostName>,
        /// In the bucket.
        bucket: bool,
        /// The snapshot.
        name: SnapshotName,
        /// What is said otherwise.
        change: AnnotationsPatch,
    },
    /// Find what a rule lets go.
    FindPrunable(PruneRequest),
    /// Remove what it lets go, where it still does.
    Prune(PruneRequest, PrunePlan),
    /// Put this onto the clipboard.
    Copy(String),
    /// Stop this process until the shell continues it.
    Suspend,
    /// Ask everything again.
    Refresh,
    /// Examine all hosts and the bucket.
    RunChecks,
    /// End; what runs is cancelled.
    Quit,
    /// End; what runs is left to the next start.
    Leave,
}

/// What is selected on one host.
#[derive(Debug, Default)]
pub(crate) struct HostLists {
    /// Its sandboxes.
    pub sandboxes: List<SandboxId>,
    /// Its snapshots.
    pub snapshots: List<SnapshotName>,
    /// Sizes of its snapshots.
    pub index: Index,
    /// How it answered last, and since when it is that way.
    pub link_since: Option<(LinkKind, Instant)>,
    /// Which list its sandboxes were taken from.
    source_list: Option<usize>,
}

impl HostLists {
    /// Empty ones, in these orders.
    pub(crate) fn with_sorts(sorts: &HashMap<Pane, Sort>) -> Self {
        let of = |pane| sorts.get(&pane).copied().unwrap_or_default();
        Self {
            sandboxes: List::with_sort(of(Pane::Sandboxes)),
            snapshots: List::with_sort(of(Pane::Snapshots)),
            ..Self::default()
        }
    }

    /// Takes up what the host has, where that is another than before. The caller keeps the view before alive.
    fn update(&mut self, host: &HostView) {
        // Marks of an earlier run wait for what they are on.
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

/// How a host answers, without why.
pub(crate) type LinkKind = std::mem::Discriminant<Link>;

/// A sentence for the operator; it stands in the footer until the next key.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    /// The sentence.
    pub text: String,
    /// Is it about something that failed or was refused?
    pub is_error: bool,
}

/// Where things were drawn, for the mouse and for paging.
#[derive(Debug, Default, Clone)]
pub(crate) struct Areas {
    /// The rows of each pane on screen, and the first row's number.
    pub panes: Vec<(Pane, Rect, usize)>,
    /// Titles of panes that can be clicked.
    pub tabs: Vec<(Pane, Rect)>,
    /// Hosts of the host bar; `None` is all of them together.
    pub hosts: Vec<(Option<HostName>, Rect)>,
    /// Columns of the matrix, and the first of those that move.
    pub columns: (Vec<(Place, Rect)>, usize),
    /// How far the details can be scrolled.
    pub details_end: u16,
    /// The place for a guest's screen.
    pub picture: Option<Rect>,
    /// Lines of the topmost layer on screen, and how far it can be scrolled.
    pub layer: (u16, u16),
    /// How far it is scrolled.
    pub layer_top: u16,
}

/// The state.
#[derive(Debug)]
pub(crate) struct App {
    /// What there is, as last told by the engine.
    pub view: Arc<View>,
    /// Roles to styles.
    pub theme: Theme,
    /// Keys to actions.
    pub keymap: Keymap,
    /// Keys of a chord that is not whole yet.
    pub pending_keys: Vec<Press>,
    /// Nothing outside the console may be changed.
    pub read_only: bool,
    /// Lines of plain text.
    pub plain: bool,
    /// ASCII characters alone.
    pub ascii: bool,
    /// Jobs that took at least so long are news when they are over.
    pub notify_after: Duration,
    /// What to ring the bell for.
    pub notifications: Vec<String>,
    /// Shown in the header: the kind of world this is ("demo").
    pub banner: Option<String>,
    /// What has the focus.
    pub focus: Pane,
    /// The list whose selection the details are about.
    pub list: Pane,
    /// The current host.
    pub host: Option<HostName>,
    /// Lists of each host.
    pub hosts: HashMap<HostName, HostLists>,
    /// All hosts together.
    pub all_hosts: AllHosts,
    /// The matrix; it is open where `list` says so.
    pub matrix: Matrix,
    /// The tree; it is open where `list` says so.
    pub tree: Tree,
    /// The jobs page; it is open where `list` says so.
    pub page: JobsPage,
    /// Is what is taken on noted, so that the next start can go on with it?
    pub has_journal: bool,
    /// The bucket's list.
    pub objects: List<SnapshotName>,
    /// Sizes of the objects.
    pub index: Index,
    /// Was the bucket seen whole?
    is_bucket_complete: bool,
    /// The orders of rows, where one was chosen.
    pub sorts: HashMap<Pane, Sort>,
    /// The jobs' list.
    pub jobs: List<JobId>,
    /// Dialogs, the topmost last.
    pub layers: Vec<Layer>,
    /// The filter that is being typed.
    pub filter: Option<TextInput>,
    /// The log pane.
    pub log: LogView,
    /// How fast the jobs move.
    pub rates: JobRates,
    /// What the sandbox that is looked at does.
    pub metrics: Option<Arc<SandboxMetrics>>,
    /// What was found of the selected snapshot.
    pub lineage: Option<LineageState>,
    /// How often something was said of snapshots here.
    pub annotation_edits: u64,
    /// Virtual CPUs and bytes of memory that a new sandbox gets, unless told otherwise.
    pub defaults: (u32, u64),
    /// How pictures are drawn here.
    pub canvas: Canvas,
    /// Its screen, ready to be drawn.
    pub picture: Option<EncodedImage>,
    /// How far the details are scrolled.
    pub details: u16,
    /// What to tell.
    pub notice: Option<Notice>,
    /// The end has begun: jobs clean up.
    pub is_shutting_down: bool,
    /// Where things were drawn last.
    pub areas: Areas,
}

impl App {
    /// The state at the start.
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

    /// Takes up a newer view.
    pub(crate) fn on_view(&mut self, view: Arc<View>, now: Instant) {
        // The view before stays alive until all is taken up: an Index knows lists by their address.
        let before = std::mem::replace(&mut self.view, view.clone());
        self.ask_about_stops(&before);
        self.notifications.extend(notifications::finished_long_jobs(
            &before,
            &view,
            self.notify_after,
        ));
        for host in &view.hosts {
            let lists = self.hosts.entry(host.name.clone());
            let lists = lists.or_insert_with(|| HostLists::with_sorts(&self.sorts));
            lists.update(host);
            let answer = std::mem::discriminant(&host.link);
            if lists.link_since.is_none_or(|(before, _)| before != answer) {
                lists.link_since = Some((answer, now));
            }
        }
        let known = |name: &HostName| lookup::host(&view, name).is_some();
        if !self.host.as_ref().is_some_and(known) {
            self.host = view.hosts.first().map(|host| host.name.clone());
        }
        let is_other = self.index.update(&view.bucket.objects, |object| {
            (&object.name, object.size_bytes)
        });
        let is_whole = view.bucket.last_listing.is_some();
        match is_other || is_whole != self.is_bucket_complete {
            true if is_whole => self.objects.update(&view.bucket.objects),
            true => self.objects.update_partial(&view.bucket.objects),
            false => {}
        }
        self.is_bucket_complete = is_whole;
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

    /// A guest that was told to stop and did not: shall its power be cut?
    fn ask_about_stops(&mut self, before: &View) {
        for job in &self.view.jobs {
            let (Operation::Sandbox { host, id, verb }, JobState::Failed(error)) =
                (&job.operation, &job.state)
            else {
                continue;
            };
            let waited = before
                .job(job.id)
                .is_some_and(|job| !job.state.is_finished());
            let stop = matches!(verb, SandboxVerb::Stop { force: false, .. });
            let runs = lookup::sandbox(&self.view, host, id)
                .is_some_and(|sandbox| sandbox.state == SandboxState::Running);
            if !(waited && stop && runs && error.kind() == Kind::Conflict) {
                continue;
            }
            match self.layers.last_mut().map(|layer| &mut layer.dialog) {
                // It is one of several.
                Some(Dialog::ConfirmVerb(turn)) => drop(turn.add_failed_stop(host, id)),
                // Whoever types there did not wait for this; the job tells of it.
                Some(_) => {}
                None => {
                    let why = error.to_string();
                    let turn = ConfirmVerb::after_failed_stop(host.clone(), id.clone(), why);
                    self.layers.push(Dialog::ConfirmVerb(turn).into());
                }
            }
        }
    }

    /// Takes up what the sandbox that is looked at does.
    pub(crate) fn on_metrics(&mut self, live: Option<Arc<SandboxMetrics>>) {
        let who =
            |live: &Arc<SandboxMetrics>| (live.target.host.clone(), live.target.sandbox.clone());
        let same = self.metrics.as_ref().map(who) == live.as_ref().map(who);
        let has_screen = live.as_ref().is_some_and(|live| live.screen.is_some());
        self.picture = self.picture.take().filter(|_| same && has_screen);
        self.metrics = live;
    }

    /// The sandbox whose details are shown, where it has a QEMU process and its host answers.
    pub(crate) fn watched_sandbox(&self) -> Option<(&HostView, &Sandbox)> {
        let (host, sandbox) = self.sandbox().filter(|_| self.list == Pane::Sandboxes)?;
        (host.link == Link::Up && sandbox.state.is_active()).then_some((host, sandbox))
    }

    /// What is looked at.
    pub(crate) fn watch_target(&self) -> Option<WatchTarget> {
        let (host, sandbox) = self.watched_sandbox()?;
        Some(WatchTarget {
            host: host.name.clone(),
            sandbox: sandbox.id.clone(),
            include_screen: self.areas.picture.is_some() && self.canvas.is_enabled(),
        })
    }

    /// Takes up a picture that was made ready, where it is still the one to show.
    pub(crate) fn on_picture(&mut self, picture: Option<EncodedImage>) {
        let screen = self.metrics.as_ref().and_then(|live| live.screen.as_ref());
        let wanted = screen.map(|screen| screen.fingerprint);
        if let Some(picture) = picture.filter(|picture| wanted == Some(picture.mark)) {
            self.picture = Some(picture);
        }
    }

    /// A picture that is yet to be made ready, and for which place.
    pub(crate) fn pending_picture(&self) -> Option<(Arc<Picture>, Size)> {
        let picture = self.metrics.as_ref()?.screen.clone()?;
        let room = self.areas.picture?.as_size();
        let ready = self.picture.as_ref();
        let is_ready = ready.is_some_and(|one| one.mark == picture.fingerprint && one.room == room);
        (!is_ready && self.canvas.is_enabled()).then_some((picture, room))
    }

    /// Takes an event of the terminal.
    pub(crate) fn on_event(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.on_key(key),
            Event::Mouse(event) => mouse::on_mouse(self, event),
            Event::Paste(text) => {
                match (self.layers.last_mut(), &mut self.filter) {
                    (Some(layer), _) => layer.paste(&text),
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

    /// Takes a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent) -> Vec<Command> {
        self.notice = None;
        if self.is_shutting_down {
            return Vec::new();
        }
        if perform::is_interrupt(key) {
            let dialog = self.layers.last().map(|layer| &layer.dialog);
            if self.filter.is_none() && matches!(dialog, None | Some(Dialog::Quit(_))) {
                return perform::perform(self, Action::Quit);
            }
            // Out of one thing at a time, as esc: nobody leaves the console by a key that was meant for a dialog.
            return self.on_key(KeyCode::Esc.into());
        }
        if let Some(layer) = self.layers.last_mut() {
            layer.scroll = layer.scroll.min(self.areas.layer.1);
            let view = self.view.clone();
            return match layer.on_key(key, &view, self.areas.layer.0) {
                DialogReply::Stay => Vec::new(),
                DialogReply::Execute(commands) => commands,
                DialogReply::Replace(dialog) => {
                    *layer = (*dialog).into();
                    Vec::new()
                }
                DialogReply::Perform(action) => {
                    self.layers.pop();
                    perform::perform_by_name(self, action)
                }
                DialogReply::Close(commands) => {
                    self.layers.pop();
                    let submits = |command: &Command| {
                        matches!(command, Command::Submit(_) | Command::SubmitAll(_))
                    };
                    if commands.iter().any(submits) {
                        self.change(self.list, Change::Unmark);
                    }
                    commands
                }
            };
        }
        if self.filter.is_some() {
            filter::on_key(self, key);
            return Vec::new();
        }
        perform::on_key(self, key)
    }

    /// Gives `pane` the focus.
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

    /// Moves in `pane` by so many rows or lines.
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

    /// The current host.
    pub(crate) fn host_view(&self) -> Option<&HostView> {
        lookup::host(&self.view, self.host.as_ref()?)
    }

    /// The current host's lists.
    pub(crate) fn host_lists(&self) -> Option<&HostLists> {
        self.hosts.get(self.host.as_ref()?)
    }

    /// Tells the operator something until the next key.
    pub(crate) fn show_notice(&mut self, text: impl Into<String>, bad: bool) {
        self.notice = Some(Notice {
            text: text.into(),
            is_error: bad,
        });
    }

    /// The topmost dialog.
    pub(crate) fn dialog(&mut self) -> Option<&mut Dialog> {
        self.layers.last_mut().map(|layer| &mut layer.dialog)
    }

    /// A pull that is asked about, and of which it is not known what it would bring.
    pub(crate) fn pending_cost_query(&self) -> Option<PullTarget> {
        match &self.layers.last()?.dialog {
            Dialog::Pull(pull) => pull.next_cost_query(&self.view),
            _ => None,
        }
    }

    /// Does anything move by itself, so that gauges have to be drawn?
    pub(crate) fn has_active_jobs(&self) -> bool {
        let moves = |state: &JobState| matches!(state, JobState::Running | JobState::Cancelling);
        self.view.jobs.iter().any(|job| moves(&job.state))
    }

    /// Is the log on screen?
    pub(crate) fn is_log_visible(&self) -> bool {
        self.areas.panes.iter().any(|(pane, ..)| *pane == Pane::Log)
    }

    /// Remembers where things were drawn.
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
