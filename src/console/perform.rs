//! What each action does to the state.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::actions::{Action, Entry, LISTS, Pane};
use super::app::{App, Command};
use super::dialog::{
    Cut, Dialog, Doctor, Help, JobDetails, Layer, Menu, New, Palette, Prune, Pull, Quit, Remove,
    STOP, ScreenView, Verb, Whereabouts, push_refusal,
};
use super::fields::Field;
use super::filter;
use super::jobspage;
use super::keymap::{Press, Pressed};
use super::kin;
use super::list::{Change, Sort};
use super::logpane::Shown;
use super::table::ACTIONS;
use super::verbs::{base, pause_or_resume, sandboxes, seen, turn_chosen, verb_obstacle};
use super::world;
use snapdeck_engine::{JobId, JobState, Link};
use snapdeck_model::{HostName, SandboxId, SandboxVerb};

/// What is told of what `--read-only` refuses.
pub(crate) const READ_ONLY: &str = "this console is read-only: it was started with --read-only";

/// Is it ctrl-c, which asks to leave: the dialog or filter one is in, else the console?
pub(crate) fn is_interrupt(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

/// Takes a key that no layer consumed.
pub(crate) fn key(app: &mut App, key: KeyEvent) -> Vec<Command> {
    let began = !app.pending.is_empty();
    match key.code {
        KeyCode::Esc if began => {
            app.pending.clear();
            return Vec::new();
        }
        KeyCode::Backspace if began => {
            app.pending.pop();
            return Vec::new();
        }
        _ => app.pending.push(Press::new(key)),
    }
    let pressed = match app.keymap.look_up(&app.pending, app.focus) {
        Pressed::More => return Vec::new(),
        pressed => pressed,
    };
    let keys = std::mem::take(&mut app.pending);
    match pressed {
        Pressed::Do(action) => return perform(app, action),
        Pressed::Elsewhere(entry) => app.tell(elsewhere(entry), false),
        Pressed::Nothing if began => {
            let names: Vec<String> = keys.iter().map(|press| press.name()).collect();
            app.tell(format!("{} means nothing here", names.join(" ")), false);
        }
        Pressed::Nothing | Pressed::More => {}
    }
    Vec::new()
}

fn elsewhere(entry: &Entry) -> String {
    format!(
        "{} works in {} (tab goes there)",
        entry.name,
        entry.places()
    )
}

/// Why an action of the table cannot be done now, where one is.
pub(crate) fn refusal(app: &App, entry: &Entry) -> Option<String> {
    match entry.panes.contains(&app.focus) {
        true => obstacle(app, entry.action),
        false => Some(elsewhere(entry)),
    }
}

/// Does an action that was chosen by its name.
pub(crate) fn chosen(app: &mut App, action: Action) -> Vec<Command> {
    let entry = ACTIONS.iter().find(|entry| entry.action == action);
    match entry.filter(|entry| !entry.panes.contains(&app.focus)) {
        Some(entry) => {
            app.tell(elsewhere(entry), false);
            Vec::new()
        }
        None => perform(app, action),
    }
}

/// Why `action` cannot be done to what is selected now; the footer shows it dimmed then.
pub(crate) fn obstacle(app: &App, action: Action) -> Option<String> {
    let changes = || {
        ACTIONS
            .iter()
            .any(|entry| entry.action == action && entry.changes)
    };
    if app.read_only && (changes() || action == Action::Doctor) {
        // The doctor writes and removes an object and a file to see that it can.
        return Some(READ_ONLY.to_owned());
    }
    match action {
        Action::Create | Action::Push => one_sandbox(app)
            .and_then(|(host, id)| {
                match world::sandbox(&app.view, &host, &id)
                    .filter(|_| action == Action::Push)
                    .and_then(push_refusal)
                {
                    Some(reason) => Err(reason),
                    None => bucket_works(app),
                }
            })
            .err(),
        Action::Pull => match app.chosen_snapshots().is_empty() {
            true => Some("there is nothing to pull here".to_owned()),
            false => bucket_works(app)
                .and_then(|()| app.host.as_ref().map(|_| ()).ok_or_else(no_host))
                .err(),
        },
        Action::Remove if app.chosen_snapshots().is_empty() => {
            Some("there is nothing to remove here".to_owned())
        }
        Action::Screen | Action::CopyVnc | Action::Viewer => seen(app).err(),
        Action::Note | Action::Pin => kin::sayable(app).err(),
        Action::New => app.host.is_none().then(no_host),
        Action::Start => verb_obstacle(app, SandboxVerb::Start),
        Action::Stop => verb_obstacle(app, STOP),
        Action::Pause => verb_obstacle(app, pause_or_resume(app)),
        Action::Destroy => verb_obstacle(app, SandboxVerb::Destroy),
        Action::Sandbox => sandboxes(app).err(),
        Action::Cancel => match selected_job(app) {
            Some((_, JobState::Queued | JobState::Running)) => None,
            Some((_, JobState::Cancelling)) => Some("this job is being cancelled".to_owned()),
            Some(_) => Some("this job is over".to_owned()),
            None if app.selected_left().is_some() => {
                Some("an earlier run left this job: X forgets it, t goes on with it".to_owned())
            }
            None => Some("there is no job".to_owned()),
        },
        Action::Retry => jobspage::retry(app).err(),
        Action::Sooner | Action::Later => jobspage::shift(app, 0).err(),
        Action::Together if app.view.hosts.len() < 2 => Some("there is only one host".to_owned()),
        Action::Dismiss if app.selected_left().is_some() => None,
        Action::Dismiss if over(app).is_empty() => Some("no job is over".to_owned()),
        Action::CopyName if app.chosen_names().is_empty() => Some("nothing is selected".to_owned()),
        Action::Sort(Field::Host) if !app.together.shown => {
            Some("only the rows of all hosts together have a host".to_owned())
        }
        Action::Suspend if app.view.jobs.iter().any(|job| !job.state.is_over()) => {
            Some("jobs are under way, and would stand still".to_owned())
        }
        _ => None,
    }
}

/// What to say where there is none.
pub(crate) fn no_host() -> String {
    "there is no host".to_owned()
}

fn bucket_works(app: &App) -> Result<(), String> {
    match &app.view.bucket.link {
        Link::Off => Err("no bucket is configured: name one in config.toml".to_owned()),
        _ => Ok(()),
    }
}

/// The sandbox an operation is about: the selected one, or the only marked one.
fn one_sandbox(app: &App) -> Result<(HostName, SandboxId), String> {
    let host = app.host.as_ref().ok_or_else(no_host)?;
    match app.chosen_sandboxes().as_slice() {
        [one] => Ok(one.clone()),
        [] if app.together.shown => Err("there is no sandbox on any host".to_owned()),
        [] => Err(format!("there is no sandbox on {host}")),
        many => Err(format!(
            "{} sandboxes are marked: create and push take one (esc drops the marks)",
            many.len()
        )),
    }
}

/// The job that is selected; in the matrix, the one that is about the current cell now.
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

/// The jobs that dismissing is about.
fn over(app: &App) -> Vec<JobId> {
    let selected = selected_job(app).map(|(id, _)| id);
    let jobs = app
        .view
        .jobs
        .iter()
        .filter(|job| job.state.is_over())
        .map(|job| job.id);
    let one = matches!(app.focus, Pane::Jobs | Pane::JobsPage);
    jobs.filter(|id| !one || selected == Some(*id)).collect()
}

/// Does `action`.
pub(crate) fn perform(app: &mut App, action: Action) -> Vec<Command> {
    // What push and create are refused for is told by their dialog, which follows the sandbox's state.
    let explains_itself = action == Action::Push && one_sandbox(app).is_ok() && !app.read_only;
    if let Some(reason) = obstacle(app, action).filter(|_| !explains_itself) {
        app.tell(reason, true);
        return Vec::new();
    }
    match action {
        Action::Create => open_cut(app, Verb::Create),
        Action::Push => open_cut(app, Verb::Push),
        Action::Pull => {
            let pull = Pull::new(
                &app.view,
                app.chosen_snapshots(),
                app.host.as_ref(),
                app.list,
            );
            open(app, Dialog::Pull(pull));
        }
        Action::Remove => {
            let remove = Remove::new(app.chosen_snapshots(), app.host.as_ref());
            open(app, Dialog::Remove(remove));
        }
        Action::Note => kin::open_note(app),
        Action::Pin => return kin::turn_pin(app),
        Action::Prune => {
            let hosts = app.view.hosts.iter().map(|host| host.name.clone());
            let has_bucket = app.view.bucket.link != Link::Off;
            let prune = Prune::new(hosts.collect(), app.host.as_ref(), has_bucket);
            open(app, Dialog::Prune(Box::new(prune)));
        }
        Action::New => {
            if let (Some(host), base) = base(app) {
                let (cpus, memory) = app.defaults;
                let new = New::on(host, base, cpus, memory);
                open(app, Dialog::New(Box::new(new)));
            }
        }
        Action::Start => return turn_chosen(app, SandboxVerb::Start),
        Action::Stop => return turn_chosen(app, STOP),
        Action::Pause => return turn_chosen(app, pause_or_resume(app)),
        Action::Destroy => return turn_chosen(app, SandboxVerb::Destroy),
        Action::Sandbox => {
            if sandboxes(app).is_ok() {
                let menu = Menu::new(app.chosen_sandboxes());
                open(app, Dialog::Menu(menu));
            }
        }
        Action::Screen => {
            if let Ok((host, sandbox)) = seen(app) {
                open(app, Dialog::Screen(ScreenView { host, sandbox }));
            }
        }
        Action::CopyVnc | Action::Viewer => {
            let open = action == Action::Viewer;
            let of = |(host, sandbox)| Command::Viewer {
                host,
                sandbox,
                open,
            };
            return seen(app).ok().map(of).into_iter().collect();
        }
        Action::Doctor => {
            open(app, Dialog::Doctor(Doctor));
            return vec![Command::Examine];
        }
        Action::Help => open(app, Dialog::Help(Help::default())),
        Action::Open => match app.focus {
            Pane::Jobs | Pane::JobsPage => match selected_job(app).map(|(id, _)| id) {
                Some(id) => open(app, Dialog::Job(JobDetails(id))),
                None => app.focus_on(Pane::Details),
            },
            Pane::Matrix => {
                if let Some((name, place)) = app.matrix.current() {
                    let dialog = Whereabouts::new(name.clone(), place.clone());
                    open(app, Dialog::Whereabouts(dialog));
                }
            }
            Pane::Details | Pane::Log => app.focus_on(app.list),
            _ => app.focus_on(Pane::Details),
        },
        Action::Mark => app.change(app.focus, Change::Mark),
        Action::MarkRange => app.change(app.focus, Change::MarkRange),
        Action::MarkAll => app.change(app.focus, Change::MarkAll),
        Action::Invert => app.change(app.focus, Change::Invert),
        Action::Sort(field) => app.sort(app.focus, Sort::by(field)),
        Action::Reverse => {
            let sort = app.sorted(app.focus);
            let falling = !sort.falling;
            app.sort(app.focus, Sort { falling, ..sort });
        }
        Action::CopyName => return vec![Command::Copy(app.chosen_names().join("\n"))],
        Action::Go(pane) => go(app, pane),
        Action::Suspend => return vec![Command::Suspend],
        Action::Palette => open(app, Dialog::Palette(Palette::default())),
        Action::Filter => filter::begin(app),
        Action::Back => back(app),
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
        Action::NextPane => turn(app, 1),
        Action::PreviousPane => turn(app, -1),
        Action::NextHost => turn_host(app, 1),
        Action::PreviousHost => turn_host(app, -1),
        Action::Host(number) => {
            let host = app.view.hosts.get(usize::from(number));
            if let Some(name) = host.map(|host| host.name.clone()) {
                app.show(Some(&name));
            }
        }
        Action::Left => sideways(app, -1),
        Action::Right => sideways(app, 1),
        Action::Together if app.list == Pane::Matrix => {
            app.close_matrix();
            app.show(None);
        }
        Action::Together => app.turn_together(),
        Action::Matrix if app.list == Pane::Matrix => app.close_matrix(),
        Action::Matrix => app.open_matrix(),
        Action::Tree => app.turn_tree(),
        Action::Jobs => app.turn_jobs_page(),
        Action::Retry => {
            let commands = jobspage::retry(app).unwrap_or_default();
            app.drop_left_row();
            return commands;
        }
        Action::Sooner => return jobspage::shift(app, -1).unwrap_or_default(),
        Action::Later => return jobspage::shift(app, 1).unwrap_or_default(),
        Action::Log => {
            let visible = app.shows_log();
            app.log.next(visible);
            if app.focus == Pane::Log && app.log.shown == Shown::Hidden {
                app.focus_on(app.list);
            }
        }
        Action::Refresh => {
            app.tell("asking all hosts and the bucket again", false);
            return vec![Command::Refresh];
        }
        Action::Cancel => {
            let job = selected_job(app).map(|(id, _)| Command::Cancel(id));
            app.tell("cancelling: the job cleans up after itself", false);
            return job.into_iter().collect();
        }
        Action::Dismiss if app.selected_left().is_some() => {
            let left = app.selected_left().into_iter().collect();
            app.drop_left_row();
            return vec![Command::ForgetLeft(left)];
        }
        Action::Dismiss => return over(app).into_iter().map(Command::Dismiss).collect(),
        Action::Quit => {
            let asked = matches!(
                app.layers.last(),
                Some(Layer {
                    dialog: Dialog::Quit(_),
                    ..
                })
            );
            if app.view.jobs.iter().all(|job| job.state.is_over()) {
                return vec![Command::Quit];
            }
            if !asked {
                let quit = Quit {
                    can_leave: app.has_journal,
                };
                open(app, Dialog::Quit(quit));
            }
        }
    }
    Vec::new()
}

/// Goes to a pane, from the matrix and with the log hidden, too.
fn go(app: &mut App, pane: Pane) {
    if app.list == Pane::Matrix && LISTS.contains(&pane) {
        app.close_matrix();
    }
    if pane == Pane::Log && !app.shows_log() {
        return app.tell("the log is not on screen: L shows it", false);
    }
    app.focus_on(pane);
}

/// Puts a dialog on top.
pub(crate) fn open(app: &mut App, dialog: Dialog) {
    app.layers.push(dialog.into());
}

fn open_cut(app: &mut App, verb: Verb) {
    if let Ok((host, sandbox)) = one_sandbox(app) {
        open(app, Dialog::Cut(Cut::new(verb, host, sandbox)));
    }
}

fn back(app: &mut App) {
    if app.focus != app.list {
        return app.focus_on(app.list);
    }
    let numbers = app.numbers(app.list);
    if numbers.marked > 0 {
        app.change(app.list, Change::Unmark);
    } else if app.list.is_page() && numbers.filter.is_empty() {
        match app.list {
            Pane::Tree => app.turn_tree(),
            Pane::JobsPage => app.turn_jobs_page(),
            _ => app.close_matrix(),
        }
    } else {
        app.change(app.list, Change::Filter(String::new()));
    }
}

/// Rows of a page in the focused pane.
fn page(app: &App) -> isize {
    let area = app.areas.panes.iter().find(|(pane, ..)| *pane == app.focus);
    area.map_or(1, |(_, area, _)| isize::try_from(area.height).unwrap_or(1))
        .max(2)
        - 1
}

fn turn(app: &mut App, by: isize) {
    let mut panes = match app.list {
        page if page.is_page() => vec![page],
        _ => LISTS.to_vec(),
    };
    panes.push(Pane::Details);
    if !app.view.jobs.is_empty() && app.list != Pane::JobsPage {
        panes.push(Pane::Jobs);
    }
    if app.shows_log() {
        panes.push(Pane::Log);
    }
    let at = panes
        .iter()
        .position(|pane| *pane == app.focus)
        .unwrap_or(0);
    let next = (at as isize + by).rem_euclid(panes.len() as isize) as usize;
    app.focus_on(panes[next]);
}

fn sideways(app: &mut App, by: isize) {
    if app.focus == Pane::Matrix {
        app.matrix.turn(by);
        app.details = 0;
    } else {
        turn(app, by);
    }
}

/// Goes round the hosts; where there are several, all of them together are one more stop.
fn turn_host(app: &mut App, by: isize) {
    if app.focus == Pane::Matrix {
        return sideways(app, by);
    }
    let hosts = app.view.hosts.iter().map(|host| Some(host.name.clone()));
    let mut stops: Vec<Option<HostName>> = hosts.collect();
    if stops.len() > 1 {
        stops.push(None);
    }
    let current = app.host.clone().filter(|_| !app.together.shown);
    let Some(at) = stops.iter().position(|stop| *stop == current) else {
        return;
    };
    let next = (at as isize + by).rem_euclid(stops.len() as isize) as usize;
    app.show(stops[next].as_ref());
}
