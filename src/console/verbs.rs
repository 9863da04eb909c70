//! Which sandboxes a verb is about, and whether it can be done to them.

use super::actions::Pane;
use super::app::{App, Command};
use super::cell::Place;
use super::dialog::{DialogReply, confirm_or_run};
use super::list::Change;
use super::lookup;
use super::perform::open;
use snapdeck_engine::Link;
use snapdeck_model::{HostName, Sandbox, SandboxId, SandboxVerb, SnapshotName};

/// The sandboxes a verb is about: all that are marked, else the selected one.
pub(crate) fn reachable_sandboxes(app: &App) -> Result<Vec<&Sandbox>, String> {
    if app.list != Pane::Sandboxes {
        return Err("no sandbox is selected".to_owned());
    }
    let mut found = Vec::new();
    for (host, id) in app.chosen_sandboxes() {
        let on = lookup::host(&app.view, &host).filter(|host| host.link == Link::Up);
        if on.is_none() {
            return Err(format!("{host} does not answer"));
        }
        found.extend(lookup::sandbox(&app.view, &host, &id));
    }
    match found.is_empty() {
        true => Err("no sandbox is selected".to_owned()),
        false => Ok(found),
    }
}

/// Why `verb` can be done to none of them.
pub(crate) fn verb_obstacle(app: &App, verb: SandboxVerb) -> Option<String> {
    let chosen = match reachable_sandboxes(app) {
        Ok(chosen) => chosen,
        Err(why) => return Some(why),
    };
    let mut refused = chosen
        .iter()
        .map(|sandbox| verb.obstacle(sandbox.state).map(|why| (&sandbox.id, why)));
    let (id, why) = refused.next()??;
    let all = refused.all(|refused| refused.is_some());
    all.then(|| format!("cannot {} {id}: {why}", verb.as_str()))
}

/// What the key for both means now.
pub(crate) fn pause_or_resume(app: &App) -> SandboxVerb {
    let can_pause = |sandbox: &&Sandbox| SandboxVerb::Pause.obstacle(sandbox.state).is_none();
    match reachable_sandboxes(app) {
        Ok(chosen) if !chosen.iter().any(can_pause) => SandboxVerb::Resume,
        _ => SandboxVerb::Pause,
    }
}

/// Does `verb` to them, or asks.
pub(crate) fn run_verb(app: &mut App, verb: SandboxVerb) -> Vec<Command> {
    match confirm_or_run(verb, app.chosen_sandboxes(), &app.view.clone()) {
        DialogReply::Close(commands) => {
            app.change(Pane::Sandboxes, Change::Unmark);
            commands
        }
        DialogReply::Replace(dialog) => {
            open(app, *dialog);
            Vec::new()
        }
        DialogReply::Stay | DialogReply::Execute(_) | DialogReply::Perform(_) => Vec::new(),
    }
}

/// Where a new sandbox is likely to be, and on which snapshot: the selected one, or what the selected sandbox stands
/// on.
pub(crate) fn base(app: &App) -> (Option<HostName>, Option<SnapshotName>) {
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

/// The sandbox whose screen is meant: the selected one.
pub(crate) fn screen_target(app: &App) -> Result<(HostName, SandboxId), String> {
    if let Some((host, sandbox)) = app.watched_sandbox() {
        return Ok((host.name.clone(), sandbox.id.clone()));
    }
    match app.sandbox().filter(|_| app.list == Pane::Sandboxes) {
        None => Err("no sandbox is selected".to_owned()),
        Some((host, _)) if host.link != Link::Up => Err(format!("{} does not answer", host.name)),
        Some((_, sandbox)) => Err(format!(
            "{} is {}: it has no screen",
            sandbox.id,
            sandbox.state.label()
        )),
    }
}
