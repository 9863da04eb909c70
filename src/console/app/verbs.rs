//! Runs sandbox verbs on the marked or selected sandboxes.

use super::{App, Command};
use crate::actions::Pane;
use crate::cell::Place;
use crate::dialog::{DialogReply, ONE_SANDBOX, confirm_or_run, is_form, run_kind};
use crate::list::Change;
use crate::lookup;
use crate::pages::Subject;
use snapdeck_engine::Link;
use snapdeck_model::{
    HostName, Sandbox, SandboxId, SandboxState, SandboxVerb, SnapshotName, VerbKind,
};

const NO_SANDBOX: &str = "no sandbox is selected";

fn unreachable_host(host: &HostName) -> String {
    format!("host {host} is unreachable")
}

/// Returns the marked sandboxes, or the selected one; an error if a host is unreachable.
pub(crate) fn reachable_sandboxes(app: &App) -> Result<Vec<&Sandbox>, String> {
    if !matches!(app.list, Pane::Sandboxes | Pane::Wall) {
        return Err(NO_SANDBOX.to_owned());
    }
    let chosen = app.chosen_sandboxes();
    let by_id = lookup::Sandboxes::new(app.view(), &chosen);
    let mut sandboxes = Vec::new();
    for (host, id) in &chosen {
        if app
            .world
            .host(host)
            .is_none_or(|host| host.link != Link::Up)
        {
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
pub(crate) fn verb_obstacle(app: &App, verb: VerbKind) -> Option<String> {
    let sandboxes = match reachable_sandboxes(app) {
        Ok(sandboxes) => sandboxes,
        Err(error) => return Some(error),
    };
    if is_form(verb) && sandboxes.len() > 1 {
        return Some(format!("cannot {}: {ONE_SANDBOX}", verb.as_str()));
    }
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
    let reply = confirm_or_run(verb, app.chosen_sandboxes(), &app.view().clone());
    finish(app, reply)
}

/// Runs a verb of the sandbox menu, or opens its form or confirmation.
pub(crate) fn run_menu_verb(app: &mut App, kind: VerbKind) -> Vec<Command> {
    let reply = run_kind(kind, app.chosen_sandboxes(), &app.view().clone());
    finish(app, reply)
}

fn finish(app: &mut App, reply: DialogReply) -> Vec<Command> {
    match reply {
        DialogReply::Close(commands) => {
            app.change(app.list, Change::Unmark);
            commands
        }
        DialogReply::Replace(dialog) => {
            app.open(dialog);
            Vec::new()
        }
        DialogReply::Stay
        | DialogReply::Ignored
        | DialogReply::Execute(_)
        | DialogReply::Perform(_)
        | DialogReply::Filter(_)
        | DialogReply::ChooseColumns(..) => Vec::new(),
    }
}

/// Returns the default host and snapshot of a new sandbox: the selected snapshot, or the base of the selected sandbox.
pub(crate) fn new_sandbox_defaults(app: &App) -> (Option<HostName>, Option<SnapshotName>) {
    let current = app.world.current_host().cloned();
    match app.selected() {
        Some(Subject::Snapshot(name, Place::Host(host))) => (Some(host), Some(name)),
        Some(Subject::Snapshot(name, Place::Bucket)) => (current, Some(name)),
        Some(Subject::Sandbox(host, id)) => {
            let sandbox = app.world.sandbox(&host, &id);
            (
                Some(host),
                sandbox.and_then(|sandbox| sandbox.base().cloned()),
            )
        }
        Some(Subject::Host(host) | Subject::Partial(host, _)) => (Some(host), None),
        Some(Subject::Job(_) | Subject::Interrupted(_) | Subject::Past(_)) | None => {
            (current, None)
        }
    }
}

/// Returns the selected sandbox, or why it has no screen.
pub(crate) fn screen_target(app: &App) -> Result<(HostName, SandboxId), String> {
    if let Some((host, sandbox)) = app.watched_sandbox() {
        return Ok((host.name.clone(), sandbox.id.clone()));
    }
    match app.sandbox() {
        None => Err(NO_SANDBOX.to_owned()),
        Some((host, _)) if host.link != Link::Up => Err(unreachable_host(&host.name)),
        Some((_, sandbox)) => Err(format!(
            "{} is {}: it has no screen",
            sandbox.id,
            sandbox.state.label()
        )),
    }
}

/// Returns the selected sandbox, or why its serial console cannot be opened.
pub(crate) fn serial_target(app: &App) -> Result<(HostName, SandboxId), String> {
    match app.sandbox() {
        None => Err(NO_SANDBOX.to_owned()),
        Some((host, _)) if host.link != Link::Up => Err(unreachable_host(&host.name)),
        Some((host, sandbox)) => match sandbox.state {
            SandboxState::Running | SandboxState::Paused => {
                Ok((host.name.clone(), sandbox.id.clone()))
            }
            state => Err(format!(
                "{} is {}: it has no serial console",
                sandbox.id,
                state.label()
            )),
        },
    }
}
