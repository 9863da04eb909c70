//! Applies actions to the state.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::annotations;
use super::filter;
use super::verbs::{
    new_sandbox_defaults, pause_or_resume, reachable_sandboxes, run_menu_verb, run_verb,
    screen_target, serial_target, verb_obstacle,
};
use super::{App, Command};
use super::{copy, custom};
use crate::actions::{Action, Entry, LISTS, Pane};
use crate::cell::Place;
use crate::columns::Column;
use crate::dialog::{
    BookmarksDialog, ColumnsDialog, CopyToDialog, CreateSnapshotDialog, Dialog, DoctorDialog,
    FreePartial, Help, JobDetails, NewSandboxDialog, Palette, PruneDialog, PullDialog, QuitDialog,
    RemoveDialog, SandboxMenu, ScreenView, SnapshotLocations, SnapshotVerb, TextSource, TextView,
    UploadDialog, push_refusal,
};
use crate::keymap::{KeyMatch, Press};
use crate::list::{Change, Sort};
use crate::log_view::LogFilter;
use crate::pages::{Page, Subject};
use snapdeck_engine::{InterruptedId, JobId, JobState, JobView, Link};
use snapdeck_model::{HostName, Operation, SandboxId, SandboxVerb, SnapshotName, VerbKind};

pub(crate) const READ_ONLY: &str = "disabled: the console was started with --read-only";

const NO_JOB: &str = "no job is selected";

pub(crate) const NO_BUCKET: &str = "no bucket configured: set [bucket] name in config.toml";

/// Returns whether the key is ctrl-c, which closes a dialog or filter, else quits.
pub(crate) fn is_interrupt(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

/// Handles a key that no dialog or filter has consumed.
pub(crate) fn on_key(app: &mut App, key: KeyEvent) -> Vec<Command> {
    let in_chord = !app.pending_keys.is_empty();
    match key.code {
        KeyCode::Esc if in_chord => {
            app.pending_keys.clear();
            return Vec::new();
        }
        KeyCode::Backspace if in_chord => {
            app.pending_keys.pop();
            return Vec::new();
        }
        _ => app.pending_keys.push(Press::new(key)),
    }
    let key_match = app.keymap.look_up(&app.pending_keys, app.focus);
    if matches!(key_match, KeyMatch::Incomplete) {
        return Vec::new();
    }
    let keys = std::mem::take(&mut app.pending_keys);
    match key_match {
        KeyMatch::Perform(action) => return perform(app, action),
        KeyMatch::OtherPane(entry) => app.show_notice(other_pane_message(entry), false),
        KeyMatch::Unbound if in_chord => {
            let names: Vec<String> = keys.iter().map(|press| press.name()).collect();
            app.show_notice(format!("no action has the keys {}", names.join(" ")), false);
        }
        KeyMatch::Unbound | KeyMatch::Incomplete => {}
    }
    Vec::new()
}

fn other_pane_message(entry: &Entry) -> String {
    format!(
        "{} works in {} (tab changes the pane)",
        entry.name,
        entry.places()
    )
}

/// Returns why an action is not possible now, in the focused pane.
pub(crate) fn refusal(app: &App, entry: &Entry) -> Option<String> {
    match entry.panes.contains(&app.focus) {
        true => obstacle(app, entry.action),
        false => Some(format!("works in {}", entry.places())),
    }
}

/// Performs an action that was chosen in the palette or a menu.
pub(crate) fn perform_by_name(app: &mut App, action: Action) -> Vec<Command> {
    let entry = app.keymap.entries().find(|entry| entry.action == action);
    match entry.filter(|entry| !entry.panes.contains(&app.focus)) {
        Some(entry) => {
            app.show_notice(other_pane_message(entry), false);
            Vec::new()
        }
        None => perform(app, action),
    }
}

/// Returns why `action` is not possible for the current selection.
pub(crate) fn obstacle(app: &App, action: Action) -> Option<String> {
    let is_mutating = || {
        app.keymap
            .entries()
            .any(|entry| entry.action == action && entry.is_mutating)
    };
    // The health checks write and remove a test object and a test file.
    if app.options.read_only && (is_mutating() || action == Action::Doctor) {
        return Some(READ_ONLY.to_owned());
    }
    match action {
        Action::Create | Action::Push => one_sandbox(app)
            .and_then(|(host, id)| {
                match app
                    .world
                    .sandbox(&host, &id)
                    .filter(|_| action == Action::Push)
                    .and_then(push_refusal)
                {
                    Some(reason) => Err(reason),
                    None => require_bucket(app),
                }
            })
            .err(),
        Action::Pull => match app.chosen_snapshots().is_empty() {
            true => Some("no snapshot is selected".to_owned()),
            false => require_bucket(app)
                .and_then(|()| app.world.current_host().map(|_| ()).ok_or_else(no_host))
                .err(),
        },
        Action::Adopt => adoptions(app).err(),
        Action::Upload | Action::CopyTo if host_snapshots(app).is_empty() => {
            Some("no snapshot of a host is selected".to_owned())
        }
        Action::Upload => require_bucket(app).err(),
        Action::CopyTo if app.view().hosts.len() < 2 => Some("there is only one host".to_owned()),
        Action::Remove if app.chosen_snapshots().is_empty() => {
            Some("no snapshot is selected".to_owned())
        }
        Action::Screen | Action::CopyVnc | Action::Viewer => screen_target(app).err(),
        Action::Serial => serial_target(app).err(),
        Action::Custom(number) => custom::obstacle(app, number),
        Action::Note | Action::Pin => annotations::annotatable_lineage(app).err(),
        Action::New => app.world.current_host().is_none().then(no_host),
        Action::Start => verb_obstacle(app, VerbKind::Start),
        Action::Stop => verb_obstacle(app, VerbKind::Stop),
        Action::Pause => verb_obstacle(app, pause_or_resume(app).kind()),
        Action::Destroy => verb_obstacle(app, VerbKind::Destroy),
        Action::Verb(kind) => verb_obstacle(app, kind),
        Action::Sandbox => reachable_sandboxes(app).err(),
        Action::Cancel => match selected_job(app).map(|job| &job.state) {
            Some(JobState::Queued | JobState::Running) => None,
            Some(JobState::Cancelling) => Some("this job is already being cancelled".to_owned()),
            Some(_) => Some("this job is already finished".to_owned()),
            None if selected_interrupted(app).is_some() => {
                Some("this job was interrupted: t resumes it, X discards it".to_owned())
            }
            None if selected_partial(app).is_some() => {
                Some("this pull does not run: t resumes it, X frees its space".to_owned())
            }
            None => Some(NO_JOB.to_owned()),
        },
        Action::Retry => retry(app).err(),
        Action::MoveJobUp | Action::MoveJobDown => shift(app, 0).err(),
        Action::AllHosts if app.view().hosts.len() < 2 => Some("there is only one host".to_owned()),
        Action::Dismiss
            if selected_interrupted(app).is_some() || selected_partial(app).is_some() =>
        {
            None
        }
        Action::Dismiss if finished_jobs(app).is_empty() => Some("no job is finished".to_owned()),
        Action::Copy if app.chosen_names().is_empty() => Some("nothing is selected".to_owned()),
        Action::Shell => selected_host(app).is_none().then(no_host),
        Action::Definition => definition(app).err(),
        Action::Sort(Column::Host) if !app.world.shows_all_hosts() => {
            Some("only available with all hosts (a)".to_owned())
        }
        Action::Setup if app.options.setup.is_none() => {
            Some("only without a settings file: edit config.toml instead".to_owned())
        }
        Action::Suspend | Action::Setup
            if app.view().jobs.iter().any(|job| !job.state.is_finished()) =>
        {
            Some("disabled while jobs run".to_owned())
        }
        _ => None,
    }
}

/// Returns the jobs that adopt the marked or selected snapshots and objects that exist.
fn adoptions(app: &App) -> Result<Vec<Operation>, String> {
    let chosen = app.chosen_snapshots();
    if chosen.is_empty() {
        return Err("no snapshot is selected".to_owned());
    }
    let exists = |(name, place): &(SnapshotName, Place)| match place {
        Place::Host(host) => app.world.snapshot(host, name).is_some(),
        Place::Bucket => app.world.object(name).is_some(),
    };
    let adopt = |(name, place): (SnapshotName, Place)| Operation::Adopt {
        host: match place {
            Place::Host(host) => Some(host),
            Place::Bucket => None,
        },
        name,
    };
    let operations: Vec<Operation> = chosen.into_iter().filter(exists).map(adopt).collect();
    match operations.is_empty() {
        true => Err("it is not there".to_owned()),
        false => Ok(operations),
    }
}

fn no_host() -> String {
    "no host is configured".to_owned()
}

/// Returns the host of the selected row; the current one if the row is of no host.
fn selected_host(app: &App) -> Option<HostName> {
    match app.selected() {
        Some(
            Subject::Sandbox(host, _)
            | Subject::Snapshot(_, Place::Host(host))
            | Subject::Host(host),
        ) => Some(host),
        _ => app.world.current_host().cloned(),
    }
}

/// Returns the text that defines what is selected.
fn definition(app: &App) -> Result<TextSource, String> {
    match app.selected() {
        Some(Subject::Sandbox(host, id)) => Ok(TextSource::DomainXml(host, id)),
        Some(Subject::Snapshot(name, Place::Host(host))) => {
            Ok(TextSource::Manifest(Some(host), name))
        }
        Some(Subject::Snapshot(name, Place::Bucket)) => Ok(TextSource::Manifest(None, name)),
        _ => Err("select a sandbox, a snapshot or an object first".to_owned()),
    }
}

/// Returns the chosen snapshots that are on hosts.
fn host_snapshots(app: &App) -> Vec<(SnapshotName, Place)> {
    let mut chosen = app.chosen_snapshots();
    chosen.retain(|(_, place)| *place != Place::Bucket);
    chosen
}

fn require_bucket(app: &App) -> Result<(), String> {
    match app.view().bucket.link {
        Link::Unconfigured => Err(NO_BUCKET.to_owned()),
        _ => Ok(()),
    }
}

/// Returns the only marked sandbox, or the selected one.
fn one_sandbox(app: &App) -> Result<(HostName, SandboxId), String> {
    let host = app.world.current_host().ok_or_else(no_host)?;
    match app.chosen_sandboxes().as_slice() {
        [sandbox] => Ok(sandbox.clone()),
        [] if app.world.shows_all_hosts() => Err("no host has a sandbox".to_owned()),
        [] => Err(format!("host {host} has no sandbox")),
        marked => Err(format!(
            "{} sandboxes are marked: create and push need one (esc clears the marks)",
            marked.len()
        )),
    }
}

/// Returns the selected job; in the matrix, the last job about the current cell.
fn selected_job(app: &App) -> Option<&JobView> {
    let id = match app.focus {
        Pane::Matrix => {
            let (name, place) = app.pages.locations.current()?;
            app.pages.locations.cell(&app.world, name, place).job?.id
        }
        Pane::JobsPage | Pane::Jobs => match app.pages.jobs.selected(app.focus, &app.world)? {
            Subject::Job(id) => id,
            _ => return None,
        },
        _ => app.view().jobs.last()?.id,
    };
    app.view().job(id).map(AsRef::as_ref)
}

/// Returns the interrupted job that is selected on the open Jobs page.
fn selected_interrupted(app: &App) -> Option<InterruptedId> {
    match app.selected().filter(|_| app.list == Pane::JobsPage)? {
        Subject::Interrupted(id) => Some(id),
        _ => None,
    }
}

/// Returns the partial pull that is selected on the open Jobs page.
fn selected_partial(app: &App) -> Option<(HostName, SnapshotName)> {
    match app.selected().filter(|_| app.list == Pane::JobsPage)? {
        Subject::Partial(host, name) => Some((host, name)),
        _ => None,
    }
}

/// Returns the commands that retry the selected failed or cancelled job, or resume the interrupted one.
fn retry(app: &App) -> Result<Vec<Command>, String> {
    if let Some((host, name)) = selected_partial(app) {
        require_bucket(app)?;
        let pull = Operation::Pull {
            host,
            name,
            overwrite: false,
        };
        return Ok(vec![Command::Submit(pull)]);
    }
    if let Some(id) = selected_interrupted(app) {
        return Ok(vec![Command::ResumeInterrupted(vec![id])]);
    }
    let job = selected_job(app).ok_or(NO_JOB)?;
    match &job.state {
        JobState::Failed(_) => Ok(vec![Command::Retry(job.id, job.operation.clone())]),
        JobState::Finished(_) => Err("this job has finished".to_owned()),
        _ => Err("this job is not finished".to_owned()),
    }
}

/// Returns the command that moves the selected job by `by` positions in the queue.
fn shift(app: &App, by: isize) -> Result<Vec<Command>, String> {
    let job = selected_job(app).ok_or(NO_JOB)?;
    match job.state {
        JobState::Queued => Ok(vec![Command::Shift(job.id, by)]),
        _ => Err("only a queued job can be moved".to_owned()),
    }
}

/// Returns the jobs to dismiss: the selected one in a list of jobs, else all finished ones.
fn finished_jobs(app: &App) -> Vec<JobId> {
    let selected = selected_job(app).map(|job| job.id);
    let only_selected = matches!(app.focus, Pane::Jobs | Pane::JobsPage);
    let finished = app.view().jobs.iter().filter(|job| job.state.is_finished());
    finished
        .map(|job| job.id)
        .filter(|id| !only_selected || selected == Some(*id))
        .collect()
}

pub(crate) fn perform(app: &mut App, action: Action) -> Vec<Command> {
    // The dialog of push shows the obstacle, and follows the sandbox's state.
    let in_dialog = action == Action::Push && one_sandbox(app).is_ok() && !app.options.read_only;
    if let Some(reason) = obstacle(app, action).filter(|_| !in_dialog) {
        app.show_notice(reason, true);
        return Vec::new();
    }
    match action {
        Action::Create => open_create_snapshot(app, SnapshotVerb::Create),
        Action::Push => open_create_snapshot(app, SnapshotVerb::Push),
        Action::Pull => {
            let pull = PullDialog::new(
                app.view(),
                app.chosen_snapshots(),
                app.world.current_host(),
                app.list,
            );
            app.open(Box::new(pull));
        }
        Action::Upload => app.open(Box::new(UploadDialog::new(host_snapshots(app)))),
        Action::CopyTo => {
            let copy = CopyToDialog::new(app.view(), host_snapshots(app));
            app.open(Box::new(copy));
        }
        Action::Remove => {
            let remove = RemoveDialog::new(app.chosen_snapshots(), app.world.current_host());
            app.open(Box::new(remove));
        }
        Action::Note => annotations::open_note(app),
        Action::Pin => return annotations::toggle_pin(app),
        Action::Adopt => return adoptions(app).map(Command::SubmitAll).into_iter().collect(),
        Action::Prune => {
            let hosts = app.view().hosts.iter().map(|host| host.name.clone());
            let bucket = &app.view().bucket;
            let location = (bucket.link != Link::Unconfigured).then_some(&*bucket.location);
            let prune = PruneDialog::new(hosts.collect(), app.world.current_host(), location);
            app.open(Box::new(prune));
        }
        Action::New => {
            if let (Some(host), base) = new_sandbox_defaults(app) {
                let (cpus, memory) = app.options.defaults;
                let new = NewSandboxDialog::new(host, base, cpus, memory);
                app.open(Box::new(new));
            }
        }
        Action::Start => return run_verb(app, SandboxVerb::Start),
        Action::Stop => return run_verb(app, SandboxVerb::STOP),
        Action::Pause => return run_verb(app, pause_or_resume(app)),
        Action::Destroy => return run_verb(app, SandboxVerb::Destroy),
        Action::Verb(kind) => return run_menu_verb(app, kind),
        Action::Sandbox => {
            if reachable_sandboxes(app).is_ok() {
                let menu = SandboxMenu::new(app.chosen_sandboxes(), app.view());
                app.open(Box::new(menu));
            }
        }
        Action::Screen => {
            if let Ok((host, sandbox)) = screen_target(app) {
                app.open(Box::new(ScreenView { host, sandbox }));
            }
        }
        Action::Serial => {
            app.show_notice("opening the serial console…", false);
            let command = |(host, sandbox)| Command::SerialOpen(host, sandbox);
            return serial_target(app).ok().map(command).into_iter().collect();
        }
        Action::CopyVnc | Action::Viewer => {
            let open = action == Action::Viewer;
            let command = |(host, sandbox)| Command::Viewer {
                host,
                sandbox,
                open,
            };
            return screen_target(app).ok().map(command).into_iter().collect();
        }
        Action::Doctor => {
            app.open(Box::new(DoctorDialog));
            return vec![Command::RunChecks];
        }
        Action::Help => app.open(Box::new(Help::default())),
        Action::Open => match app.focus {
            Pane::Wall => {
                if let Some(Subject::Sandbox(host, sandbox)) = app.selected() {
                    app.open(Box::new(ScreenView { host, sandbox }));
                }
            }
            Pane::Hosts => {
                if let Some(Subject::Host(host)) = app.selected() {
                    app.focus_on(app.last_list);
                    app.set_scope(Some(host));
                }
            }
            Pane::Jobs | Pane::JobsPage => match selected_job(app).map(|job| job.id) {
                Some(id) => app.open(Box::new(JobDetails(id))),
                None => app.focus_on(Pane::Details),
            },
            Pane::Matrix => {
                if let Some((name, place)) = app.pages.locations.current() {
                    let dialog = SnapshotLocations::new(name.clone(), place.clone());
                    app.open(Box::new(dialog));
                }
            }
            Pane::Details | Pane::Log => app.focus_on(app.list),
            pane if app.page().is_family_selected(pane) => app.change(pane, Change::Fold),
            _ => app.focus_on(Pane::Details),
        },
        Action::Mark => app.change(app.focus, Change::Mark),
        Action::MarkRange => app.change(app.focus, Change::MarkRange),
        Action::MarkAll => app.change(app.focus, Change::MarkAll),
        Action::Invert => app.change(app.focus, Change::Invert),
        Action::Sort(column) => app.change(app.focus, Change::Sort(Sort::by(column))),
        Action::Reverse => {
            if let Some(mut sort) = app.sort(app.focus) {
                sort.descending = !sort.descending;
                app.change(app.focus, Change::Sort(sort));
            }
        }
        Action::Columns => {
            let columns = app.pages.lists.columns(app.focus);
            app.open(Box::new(ColumnsDialog::new(app.focus, columns)));
        }
        Action::Group => app.change(app.focus, Change::Group),
        Action::Fold => app.change(app.focus, Change::Fold),
        Action::Copy => return copy::copy(app),
        Action::Bookmarks => {
            let filter = app.summary(app.list).filter.to_owned();
            let dialog = BookmarksDialog::new(app.bookmarks.clone(), filter);
            app.open(Box::new(dialog));
        }
        Action::Shell => return selected_host(app).map(Command::Shell).into_iter().collect(),
        Action::Definition => {
            if let Ok(source) = definition(app) {
                app.open(Box::new(TextView::new(source)));
            }
        }
        Action::Focus(pane) => focus_pane(app, pane),
        Action::Custom(number) => return custom::run(app, number),
        Action::Theme => {
            let name = app.next_theme();
            app.show_notice(
                format!("theme {name}; set it with [console] theme in config.toml"),
                false,
            );
        }
        Action::Zoom => app.is_zoomed = !app.is_zoomed,
        Action::Setup => app.open_setup(),
        Action::Suspend => return vec![Command::Suspend],
        Action::Palette => app.open(Box::new(Palette::default())),
        Action::Filter => filter::start_filter(app),
        Action::Back => go_back(app),
        Action::Up => app.scroll(app.focus, -1),
        Action::Down => app.scroll(app.focus, 1),
        Action::PageUp => app.scroll(app.focus, -page(app)),
        Action::PageDown => app.scroll(app.focus, page(app)),
        Action::HalfPageUp => app.scroll(app.focus, -(page(app) / 2).max(1)),
        Action::HalfPageDown => app.scroll(app.focus, (page(app) / 2).max(1)),
        Action::First => match app.focus {
            Pane::Details | Pane::Log => app.scroll(app.focus, -isize::MAX),
            pane => app.change(pane, Change::First),
        },
        Action::Last => match app.focus {
            Pane::Details | Pane::Log => app.scroll(app.focus, isize::MAX),
            pane => app.change(pane, Change::Last),
        },
        Action::NextPane => cycle_focus(app, 1),
        Action::PreviousPane => cycle_focus(app, -1),
        Action::NextHost => cycle_host(app, 1),
        Action::PreviousHost => cycle_host(app, -1),
        Action::Host(number) => {
            let host = app.view().hosts.get(usize::from(number));
            if let Some(name) = host.map(|host| host.name.clone()) {
                app.set_scope(Some(name));
            }
        }
        Action::Left => move_sideways(app, -1),
        Action::Right => move_sideways(app, 1),
        Action::AllHosts if app.list == Pane::Matrix => {
            app.focus_on(app.last_list);
            app.set_scope(None);
        }
        Action::AllHosts => app.toggle_all_hosts(),
        Action::Matrix => app.toggle_page(Pane::Matrix),
        Action::Tree => app.toggle_page(Pane::Tree),
        Action::Jobs => app.toggle_page(Pane::JobsPage),
        Action::Hosts => app.toggle_page(Pane::Hosts),
        Action::Wall => app.toggle_page(Pane::Wall),
        Action::Retry => {
            let commands = retry(app).unwrap_or_default();
            drop_interrupted(app);
            return commands;
        }
        Action::MoveJobUp => return shift(app, -1).unwrap_or_default(),
        Action::MoveJobDown => return shift(app, 1).unwrap_or_default(),
        Action::Log => {
            let visible = app.is_log_visible();
            app.log.cycle_filter(visible);
            if app.focus == Pane::Log && app.log.filter == LogFilter::Hidden {
                app.focus_on(app.list);
            }
        }
        Action::Refresh => {
            app.show_notice("refreshing all hosts and the bucket", false);
            return vec![Command::Refresh];
        }
        Action::Cancel => {
            let job = selected_job(app).map(|job| Command::Cancel(job.id));
            app.show_notice("cancelling: the job is cleaning up", false);
            return job.into_iter().collect();
        }
        Action::Dismiss if selected_interrupted(app).is_some() => {
            let ids = selected_interrupted(app).into_iter().collect();
            drop_interrupted(app);
            return vec![Command::DiscardInterrupted(ids)];
        }
        Action::Dismiss if selected_partial(app).is_some() => {
            if let Some((host, name)) = selected_partial(app) {
                app.open(Box::new(FreePartial { host, name }));
            }
        }
        Action::Dismiss => {
            return finished_jobs(app)
                .into_iter()
                .map(Command::Dismiss)
                .collect();
        }
        Action::Quit => {
            if app.view().jobs.iter().all(|job| job.state.is_finished()) {
                return vec![Command::Quit];
            }
            if !app.dialog().is_some_and(Dialog::is_quit) {
                let quit = QuitDialog {
                    can_leave: app.options.has_journal,
                };
                app.open(Box::new(quit));
            }
        }
    }
    Vec::new()
}

fn drop_interrupted(app: &mut App) {
    if let Some(id) = selected_interrupted(app) {
        app.pages.jobs.drop_interrupted(id);
    }
}

fn focus_pane(app: &mut App, pane: Pane) {
    if pane == Pane::Log && !app.is_log_visible() {
        return app.show_notice("the log is hidden: press L", false);
    }
    app.focus_on(pane);
}

fn open_create_snapshot(app: &mut App, verb: SnapshotVerb) {
    if let Ok((host, sandbox)) = one_sandbox(app) {
        let name = app.view().propose_snapshot_name(&host, &sandbox);
        let dialog = CreateSnapshotDialog::new(verb, host, sandbox, name);
        app.open(Box::new(dialog));
    }
}

fn go_back(app: &mut App) {
    if app.is_zoomed {
        app.is_zoomed = false;
        return;
    }
    if app.focus != app.list {
        return app.focus_on(app.list);
    }
    let summary = app.summary(app.list);
    let (marked, is_filtered) = (summary.marked, !summary.filter.is_empty());
    if marked > 0 {
        app.change(app.list, Change::Unmark);
    } else if app.list.is_page() && !is_filtered {
        app.focus_on(app.last_list);
    } else {
        app.change(app.list, Change::Filter(String::new()));
    }
}

/// Returns the number of rows to scroll by a page in the focused pane.
fn page(app: &App) -> isize {
    let area = app.areas.panes.iter().find(|(pane, ..)| *pane == app.focus);
    area.map_or(1, |(_, area, _)| isize::try_from(area.height).unwrap_or(1))
        .max(2)
        - 1
}

fn cycle_focus(app: &mut App, by: isize) {
    let mut panes = match app.list {
        page if page.is_page() => vec![page],
        _ => LISTS.to_vec(),
    };
    panes.push(Pane::Details);
    if !app.view().jobs.is_empty() && app.list != Pane::JobsPage {
        panes.push(Pane::Jobs);
    }
    if app.is_log_visible() {
        panes.push(Pane::Log);
    }
    let current = panes
        .iter()
        .position(|pane| *pane == app.focus)
        .unwrap_or(0);
    let next = (current as isize + by).rem_euclid(panes.len() as isize) as usize;
    app.focus_on(panes[next]);
}

fn move_sideways(app: &mut App, by: isize) {
    let has_columns =
        app.focus == app.list && app.pages.with_mut(app.list).move_column(by, &mut app.world);
    match has_columns {
        true => app.details = 0,
        false => cycle_focus(app, by),
    }
}

/// Cycles through the hosts; the lists of all hosts follow the last one, if there are several.
fn cycle_host(app: &mut App, by: isize) {
    if app.focus == Pane::Matrix {
        return move_sideways(app, by);
    }
    let hosts = app.view().hosts.iter().map(|host| Some(host.name.clone()));
    let mut stops: Vec<Option<HostName>> = hosts.collect();
    if stops.len() > 1 {
        stops.push(None);
    }
    let current = app.world.scope();
    let Some(current) = stops.iter().position(|stop| *stop == current) else {
        return;
    };
    let next = (current as isize + by).rem_euclid(stops.len() as isize) as usize;
    app.set_scope(stops[next].clone());
}
