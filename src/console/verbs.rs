//! Runs sandbox verbs on the marked or selected sandboxes.

use super::actions::Pane;
use super::app::{App, Command};
use super::cell::Place;
use super::dialog::{DialogReply, confirm_or_run};
use super::list::Change;
use super::lookup;
use super::perform::open;
use snapdeck_engine::Link;
use snapdeck_model::{HostName, Sandbox, SandboxId, SandboxState, SandboxVerb, SnapshotName};

const NO_SANDBOX: &str = "no sandbox is selected";

fn unreachable_host(host: &HostName) -> String {
    format!("host {host} is unreachable")
}

/// Returns the marked sandboxes, or the selected one; an error if a host is unreachable.
pub(crate) fn reachable_sandboxes(app: &App) -> Result<Vec<&Sandbox>, String> {
    if app.list != Pane::Sandboxes {
        return Err(NO_SANDBOX.to_owned());
    }
    let chosen = app.chosen_sandboxes();
    let by_id = lookup::Sandboxes::new(&app.view, &chosen);
    let mut sandboxes = Vec::new();
    for (host, id) in &chosen {
        if lookup::host(&app.view, host).is_none_or(|host| host.link != Link::Up) {
            return Err(unreachable_host(host));
        }
        sandboxes.extend(by_id.get(host, id));
    }
    match sandboxes.is_empty() {
        true => Err(NO_SANDBOX.to_owned()),
        false => Ok(sandboxes),
    }
}

/// Returns why `verb` is possible for none of the sandboxes.
pub(crate) fn verb_obstacle(app: &App, verb: SandboxVerb) -> Option<String> {
    let sandboxes = match reachable_sandboxes(app) {
        Ok(sandboxes) => sandboxes,
        Err(error) => return Some(error),
    };
    let first = sandboxes.first()?;
    let obstacle = verb.obstacle(first.state)?;
    // Of thousands of sandboxes, only the states differ.
    let mut states: Vec<SandboxState> = Vec::new();
    for sandbox in &sandboxes {
        if !states.contains(&sandbox.state) {
            states.push(sandbox.state);
        }
    }
    let none_possible = states.iter().all(|state| verb.obstacle(*state).is_some());
    none_possible.then(|| format!("cannot {} {}: {obstacle}", verb.as_str(), first.id))
}

/// Returns the verb of the pause key: resume if no sandbox can be paused.
pub(crate) fn pause_or_resume(app: &App) -> SandboxVerb {
    let can_pause = |sandbox: &&Sandbox| SandboxVerb::Pause.obstacle(sandbox.state).is_none();
    match reachable_sandboxes(app) {
        Ok(sandboxes) if !sandboxes.iter().any(can_pause) => SandboxVerb::Resume,
        _ => SandboxVerb::Pause,
    }
}

/// Runs `verb`, or opens its confirmation.
pub(crate) fn run_verb(app: &mut App, verb: SandboxVerb) -> Vec<Command> {
    match confirm_or_run(verb, app.chosen_sandboxes(), &app.view.clone()) {
        DialogReply::Close(commands) => {
            app.change(Pane::Sandboxes, Change::Unmark);
            commands
        }
        DialogReply::Replace(dialog) => {
            open(app, dialog);
            Vec::new()
        }
        DialogReply::Stay
        | DialogReply::Ignored
        | DialogReply::Execute(_)
        | DialogReply::Perform(_) => Vec::new(),
    }
}

/// Returns the default host and snapshot of a new sandbox: the selected snapshot, or the base of the selected sandbox.
pub(crate) fn new_sandbox_defaults(app: &App) -> (Option<HostName>, Option<SnapshotName>) {
    let current = app.host.clone();
    match app.list {
        Pane::Bucket => {
            let object = app.objects.current(&app.view.bucket.objects);
            (current, object.map(|object| object.name.clone()))
        }
        Pane::Snapshots => match app.snapshot() {
            Some((host, snapshot)) => (Some(host.name.clone()), Some(snapshot.name.clone())),
            None => (current, None),
        },
        Pane::Matrix => match app.matrix.current() {
            Some((name, Place::Host(host))) => (Some(host.clone()), Some(name.clone())),
            Some((name, Place::Bucket)) => (current, Some(name.clone())),
            None => (current, None),
        },
        _ => match app.sandbox() {
            Some((host, sandbox)) => (Some(host.name.clone()), sandbox.base().cloned()),
            None => (current, None),
        },
    }
}

/// Returns the selected sandbox, or why it has no screen.
pub(crate) fn screen_target(app: &App) -> Result<(HostName, SandboxId), String> {
    if let Some((host, sandbox)) = app.watched_sandbox() {
        return Ok((host.name.clone(), sandbox.id.clone()));
    }
    match app.sandbox().filter(|_| app.list == Pane::Sandboxes) {
        None => Err(NO_SANDBOX.to_owned()),
        Some((host, _)) if host.link != Link::Up => Err(unreachable_host(&host.name)),
        Some((_, sandbox)) => Err(format!(
            "{} is {}: it has no screen",
            sandbox.id,
            sandbox.state.label()
        )),
    }
}
