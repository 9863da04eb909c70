//! Applies actions to the state.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::actions::{Action, Entry, LISTS, Pane};
use super::app::{App, Command};
use super::columns::Column;
use super::dialog::{
    CreateSnapshotDialog, Dialog, DoctorDialog, Help, JobDetails, Layer, NewSandboxDialog, Palette,
    PruneDialog, PullDialog, QuitDialog, RemoveDialog, SandboxMenu, ScreenView, SnapshotLocations,
    SnapshotVerb, propose_name, push_refusal,
};
use super::filter;
use super::jobs;
use super::keymap::{KeyMatch, Press};
use super::lineage;
use super::list::{Change, Sort};
use super::log_view::LogFilter;
use super::lookup;
use super::table::ACTIONS;
use super::verbs::{
    new_sandbox_defaults, pause_or_resume, reachable_sandboxes, run_verb, screen_target,
    verb_obstacle,
};
use snapdeck_engine::{JobId, JobState, Link};
use snapdeck_model::{HostName, SandboxId, SandboxVerb};

pub(crate) const READ_ONLY: &str = "disabled: the console was started with --read-only";

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
        false => Some(other_pane_message(entry)),
    }
}

/// Performs an action that was chosen in the palette or a menu.
pub(crate) fn perform_by_name(app: &mut App, action: Action) -> Vec<Command> {
    let entry = ACTIONS.iter().find(|entry| entry.action == action);
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
        ACTIONS
            .iter()
            .any(|entry| entry.action == action && entry.is_mutating)
    };
    // The health checks write and remove a test object and a test file.
    if app.read_only && (is_mutating() || action == Action::Doctor) {
        return Some(READ_ONLY.to_owned());
    }
    match action {
        Action::Create | Action::Push => one_sandbox(app)
            .and_then(|(host, id)| {
                match lookup::sandbox(&app.view, &host, &id)
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
                .and_then(|()| app.host.as_ref().map(|_| ()).ok_or_else(no_host))
                .err(),
        },
        Action::Remove if app.chosen_snapshots().is_empty() => {
            Some("no snapshot is selected".to_owned())
        }
        Action::Screen | Action::CopyVnc | Action::Viewer => screen_target(app).err(),
        Action::Note | Action::Pin => lineage::annotatable_lineage(app).err(),
        Action::New => app.host.is_none().then(no_host),
        Action::Start => verb_obstacle(app, SandboxVerb::Start),
        Action::Stop => verb_obstacle(app, SandboxVerb::STOP),
        Action::Pause => verb_obstacle(app, pause_or_resume(app)),
        Action::Destroy => verb_obstacle(app, SandboxVerb::Destroy),
        Action::Sandbox => reachable_sandboxes(app).err(),
        Action::Cancel => match selected_job(app) {
            Some((_, JobState::Queued | JobState::Running)) => None,
            Some((_, JobState::Cancelling)) => {
                Some("this job is already being cancelled".to_owned())
            }
            Some(_) => Some("this job is already finished".to_owned()),
            None if app.selected_interrupted().is_some() => {
                Some("this job was interrupted: t resumes it, X discards it".to_owned())
            }
            None => Some(jobs::NO_JOB.to_owned()),
        },
        Action::Retry => jobs::retry(app).err(),
        Action::MoveJobUp | Action::MoveJobDown => jobs::shift(app, 0).err(),
        Action::AllHosts if app.view.hosts.len() < 2 => Some("there is only one host".to_owned()),
        Action::Dismiss if app.selected_interrupted().is_some() => None,
        Action::Dismiss if finished_jobs(app).is_empty() => Some("no job is finished".to_owned()),
        Action::CopyName if app.chosen_names().is_empty() => Some("nothing is selected".to_owned()),
        Action::Sort(Column::Host) if !app.all_hosts.is_shown => {
            Some("only available with all hosts (a)".to_owned())
        }
        Action::Suspend if app.view.jobs.iter().any(|job| !job.state.is_finished()) => {
            Some("disabled while jobs run".to_owned())
        }
        _ => None,
    }
}

fn no_host() -> String {
    "no host is configured".to_owned()
}

fn require_bucket(app: &App) -> Result<(), String> {
    match app.view.bucket.link {
        Link::Unconfigured => Err(NO_BUCKET.to_owned()),
        _ => Ok(()),
    }
}

/// Returns the only marked sandbox, or the selected one.
fn one_sandbox(app: &App) -> Result<(HostName, SandboxId), String> {
    let host = app.host.as_ref().ok_or_else(no_host)?;
    match app.chosen_sandboxes().as_slice() {
        [sandbox] => Ok(sandbox.clone()),
        [] if app.all_hosts.is_shown => Err("no host has a sandbox".to_owned()),
        [] => Err(format!("host {host} has no sandbox")),
        marked => Err(format!(
            "{} sandboxes are marked: create and push need one (esc clears the marks)",
            marked.len()
        )),
    }
}

/// Returns the selected job; in the matrix, the last job about the current cell.
fn selected_job(app: &App) -> Option<(JobId, &JobState)> {
    let job = match app.focus {
        Pane::Matrix => {
            let (name, place) = app.matrix.current()?;
            app.cell(name, place).job?
        }
        Pane::JobsPage => app.page_job()?,
        _ => app.jobs.current(&app.view.jobs)?,
    };
    Some((job.id, &job.state))
}

/// Returns the jobs to dismiss: the selected one in a list of jobs, else all finished ones.
fn finished_jobs(app: &App) -> Vec<JobId> {
    let selected = selected_job(app).map(|(id, _)| id);
    let only_selected = matches!(app.focus, Pane::Jobs | Pane::JobsPage);
    let finished = app.view.jobs.iter().filter(|job| job.state.is_finished());
    finished
        .map(|job| job.id)
        .filter(|id| !only_selected || selected == Some(*id))
        .collect()
}

pub(crate) fn perform(app: &mut App, action: Action) -> Vec<Command> {
    // The dialog of push shows the obstacle, and follows the sandbox's state.
    let in_dialog = action == Action::Push && one_sandbox(app).is_ok() && !app.read_only;
    if let Some(reason) = obstacle(app, action).filter(|_| !in_dialog) {
        app.show_notice(reason, true);
        return Vec::new();
    }
    match action {
        Action::Create => open_create_snapshot(app, SnapshotVerb::Create),
        Action::Push => open_create_snapshot(app, SnapshotVerb::Push),
        Action::Pull => {
            let pull = PullDialog::new(
                &app.view,
                app.chosen_snapshots(),
                app.host.as_ref(),
                app.list,
            );
            open(app, Box::new(pull));
        }
        Action::Remove => {
            let remove = RemoveDialog::new(app.chosen_snapshots(), app.host.as_ref());
            open(app, Box::new(remove));
        }
        Action::Note => lineage::open_note(app),
        Action::Pin => return lineage::toggle_pin(app),
        Action::Prune => {
            let hosts = app.view.hosts.iter().map(|host| host.name.clone());
            let bucket = &app.view.bucket;
            let location = (bucket.link != Link::Unconfigured).then_some(&*bucket.location);
            let prune = PruneDialog::new(hosts.collect(), app.host.as_ref(), location);
            open(app, Box::new(prune));
        }
        Action::New => {
            if let (Some(host), base) = new_sandbox_defaults(app) {
                let (cpus, memory) = app.defaults;
                let new = NewSandboxDialog::new(host, base, cpus, memory);
                open(app, Box::new(new));
            }
        }
        Action::Start => return run_verb(app, SandboxVerb::Start),
        Action::Stop => return run_verb(app, SandboxVerb::STOP),
        Action::Pause => return run_verb(app, pause_or_resume(app)),
        Action::Destroy => return run_verb(app, SandboxVerb::Destroy),
        Action::Sandbox => {
            if reachable_sandboxes(app).is_ok() {
                let menu = SandboxMenu::new(app.chosen_sandboxes(), &app.view);
                open(app, Box::new(menu));
            }
        }
        Action::Screen => {
            if let Ok((host, sandbox)) = screen_target(app) {
                open(app, Box::new(ScreenView { host, sandbox }));
            }
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
            open(app, Box::new(DoctorDialog));
            return vec![Command::RunChecks];
        }
        Action::Help => open(app, Box::new(Help::default())),
        Action::Open => match app.focus {
            Pane::Jobs | Pane::JobsPage => match selected_job(app).map(|(id, _)| id) {
                Some(id) => open(app, Box::new(JobDetails(id))),
                None => app.focus_on(Pane::Details),
            },
            Pane::Matrix => {
                if let Some((name, place)) = app.matrix.current() {
                    let dialog = SnapshotLocations::new(name.clone(), place.clone());
                    open(app, Box::new(dialog));
                }
            }
            Pane::Details | Pane::Log => app.focus_on(app.list),
            _ => app.focus_on(Pane::Details),
        },
        Action::Mark => app.change(app.focus, Change::Mark),
        Action::MarkRange => app.change(app.focus, Change::MarkRange),
        Action::MarkAll => app.change(app.focus, Change::MarkAll),
        Action::Invert => app.change(app.focus, Change::Invert),
        Action::Sort(column) => app.sort(app.focus, Sort::by(column)),
        Action::Reverse => {
            let mut sort = app.current_sort(app.focus);
            sort.descending = !sort.descending;
            app.sort(app.focus, sort);
        }
        Action::CopyName => return vec![Command::Copy(app.chosen_names().join("\n"))],
        Action::Focus(pane) => focus_pane(app, pane),
        Action::Suspend => return vec![Command::Suspend],
        Action::Palette => open(app, Box::new(Palette::default())),
        Action::Filter => filter::start_filter(app),
        Action::Back => go_back(app),
        Action::Up => app.scroll(app.focus, -1),
        Action::Down => app.scroll(app.focus, 1),
        Action::PageUp => app.scroll(app.focus, -page(app)),
        Action::PageDown => app.scroll(app.focus, page(app)),
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
            let host = app.view.hosts.get(usize::from(number));
            if let Some(name) = host.map(|host| host.name.clone()) {
                app.show_host(Some(&name));
            }
        }
        Action::Left => move_sideways(app, -1),
        Action::Right => move_sideways(app, 1),
        Action::AllHosts if app.list == Pane::Matrix => {
            app.close_matrix();
            app.show_host(None);
        }
        Action::AllHosts => app.toggle_all_hosts(),
        Action::Matrix if app.list == Pane::Matrix => app.close_matrix(),
        Action::Matrix => app.open_matrix(),
        Action::Tree => app.toggle_tree(),
        Action::Jobs => app.toggle_jobs_page(),
        Action::Retry => {
            let commands = jobs::retry(app).unwrap_or_default();
            app.drop_interrupted_row();
            return commands;
        }
        Action::MoveJobUp => return jobs::shift(app, -1).unwrap_or_default(),
        Action::MoveJobDown => return jobs::shift(app, 1).unwrap_or_default(),
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
            let job = selected_job(app).map(|(id, _)| Command::Cancel(id));
            app.show_notice("cancelling: the job is cleaning up", false);
            return job.into_iter().collect();
        }
        Action::Dismiss if app.selected_interrupted().is_some() => {
            let ids = app.selected_interrupted().into_iter().collect();
            app.drop_interrupted_row();
            return vec![Command::DiscardInterrupted(ids)];
        }
        Action::Dismiss => {
            return finished_jobs(app)
                .into_iter()
                .map(Command::Dismiss)
                .collect();
        }
        Action::Quit => {
            if app.view.jobs.iter().all(|job| job.state.is_finished()) {
                return vec![Command::Quit];
            }
            if !app.dialog().is_some_and(Dialog::is_quit) {
                let quit = QuitDialog {
                    can_leave: app.has_journal,
                };
                open(app, Box::new(quit));
            }
        }
    }
    Vec::new()
}

fn focus_pane(app: &mut App, pane: Pane) {
    if app.list == Pane::Matrix && LISTS.contains(&pane) {
        app.close_matrix();
    }
    if pane == Pane::Log && !app.is_log_visible() {
        return app.show_notice("the log is hidden: press L", false);
    }
    app.focus_on(pane);
}

pub(crate) fn open(app: &mut App, dialog: Box<dyn Dialog>) {
    app.layers.push(Layer::new(dialog, &app.view));
}

fn open_create_snapshot(app: &mut App, verb: SnapshotVerb) {
    if let Ok((host, sandbox)) = one_sandbox(app) {
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let name = propose_name(&app.view, &host, &sandbox, today);
        let dialog = CreateSnapshotDialog::new(verb, host, sandbox, name);
        open(app, Box::new(dialog));
    }
}

fn go_back(app: &mut App) {
    if app.focus != app.list {
        return app.focus_on(app.list);
    }
    let numbers = app.numbers(app.list);
    if numbers.marked > 0 {
        app.change(app.list, Change::Unmark);
    } else if app.list.is_page() && numbers.filter.is_empty() {
        match app.list {
            Pane::Tree => app.toggle_tree(),
            Pane::JobsPage => app.toggle_jobs_page(),
            _ => app.close_matrix(),
        }
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
    if !app.view.jobs.is_empty() && app.list != Pane::JobsPage {
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
    if app.focus == Pane::Matrix {
        app.matrix.move_column(by);
        app.details = 0;
    } else {
        cycle_focus(app, by);
    }
}

/// Cycles through the hosts; the lists of all hosts follow the last one, if there are several.
fn cycle_host(app: &mut App, by: isize) {
    if app.focus == Pane::Matrix {
        return move_sideways(app, by);
    }
    let hosts = app.view.hosts.iter().map(|host| Some(host.name.clone()));
    let mut stops: Vec<Option<HostName>> = hosts.collect();
    if stops.len() > 1 {
        stops.push(None);
    }
    let current = app.host.clone().filter(|_| !app.all_hosts.is_shown);
    let Some(current) = stops.iter().position(|stop| *stop == current) else {
        return;
    };
    let next = (current as isize + by).rem_euclid(stops.len() as isize) as usize;
    app.show_host(stops[next].as_ref());
}
