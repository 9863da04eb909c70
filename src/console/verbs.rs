//! Which sandboxes a verb is about, and whether it can be done to them.

use super::actions::Pane;
use super::app::{App, Command};
use super::dialog::{Reply, ask, refusal};
use super::list::Change;
use super::perform::{no_host, open};
use crate::engine::Link;
use crate::model::{HostName, Sandbox, SandboxId, SandboxState, SandboxVerb, SnapshotName};

/// The sandboxes a verb is about: all that are marked, else the selected one.
pub fn sandboxes(app: &App) -> Result<(HostName, Vec<Sandbox>), String> {
    let host = app.host_view().ok_or_else(no_host)?;
    let lists = app.host_lists().filter(|_| app.list == Pane::Sandboxes);
    let ids = lists.map(|lists| lists.sandboxes.chosen(&host.sandboxes));
    let ids = ids.unwrap_or_default();
    let chosen = host
        .sandboxes
        .iter()
        .filter(|sandbox| ids.contains(&sandbox.id));
    match chosen.cloned().collect::<Vec<_>>() {
        none if none.is_empty() => Err("no sandbox is selected".to_owned()),
        _ if host.link != Link::Up => Err(format!("{} does not answer", host.name)),
        chosen => Ok((host.name.clone(), chosen)),
    }
}

/// Why `verb` can be done to none of them.
pub fn verb_obstacle(app: &App, verb: SandboxVerb) -> Option<String> {
    let chosen = match sandboxes(app) {
        Ok((_, chosen)) => chosen,
        Err(why) => return Some(why),
    };
    let refused = |sandbox: &Sandbox| refusal(verb, sandbox.state);
    let first = chosen.first().zip(chosen.first().and_then(refused));
    let all = chosen.iter().all(|sandbox| refused(sandbox).is_some());
    let (sandbox, why) = first.filter(|_| all)?;
    Some(format!("cannot {} {}: {why}", verb.as_str(), sandbox.id))
}

/// What the key for both means now.
pub fn pause_or_resume(app: &App) -> SandboxVerb {
    let runs = |sandbox: &Sandbox| sandbox.state == SandboxState::Running;
    match sandboxes(app) {
        Ok((_, chosen)) if !chosen.iter().any(runs) => SandboxVerb::Resume,
        _ => SandboxVerb::Pause,
    }
}

/// Does `verb` to them, or asks.
pub fn turn_chosen(app: &mut App, verb: SandboxVerb) -> Vec<Command> {
    let Ok((host, chosen)) = sandboxes(app) else {
        return Vec::new();
    };
    let ids = chosen.into_iter().map(|sandbox| sandbox.id).collect();
    match ask(verb, host, ids, &app.view.clone()) {
        Reply::Close(commands) => {
            app.change(Pane::Sandboxes, Change::Unmark);
            commands
        }
        Reply::Open(dialog) => {
            open(app, *dialog);
            Vec::new()
        }
        Reply::Stay | Reply::Do(_) => Vec::new(),
    }
}

/// The snapshot a new sandbox is likely to stand on: the selected one, or what the selected sandbox stands on.
pub fn base(app: &App) -> Option<SnapshotName> {
    let (host, lists) = (app.host_view()?, app.host_lists()?);
    match app.list {
        Pane::Bucket => app
            .objects
            .current(&app.view.bucket.objects)
            .map(|one| one.name.clone()),
        Pane::Snapshots => lists
            .snapshots
            .current(&host.snapshots)
            .map(|one| one.name.clone()),
        _ => lists.sandboxes.current(&host.sandboxes)?.base().cloned(),
    }
}

/// The sandbox whose screen is meant: the selected one.
pub fn seen(app: &App) -> Result<(HostName, SandboxId), String> {
    if let Some((host, sandbox)) = app.watched() {
        return Ok((host.name.clone(), sandbox.id.clone()));
    }
    let host = app.host_view().ok_or_else(no_host)?;
    let lists = app.host_lists().filter(|_| app.list == Pane::Sandboxes);
    match lists.and_then(|lists| lists.sandboxes.current(&host.sandboxes)) {
        None => Err("no sandbox is selected".to_owned()),
        Some(_) if host.link != Link::Up => Err(format!("{} does not answer", host.name)),
        Some(sandbox) => Err(format!(
            "{} is {}: it has no screen",
            sandbox.id,
            sandbox.state.as_str()
        )),
    }
}
