//! Users of a file, on all hosts that share its directory: it must not be removed, replaced or repaired under them.

use crate::context::Context;
use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{Error, Kind, Result, SandboxId, SandboxState, SnapshotName};

/// Returns whether other images are based on the snapshot.
pub(crate) fn has_dependent_images(inventory: &HostInventory, name: &SnapshotName) -> bool {
    dependents(inventory, name).next().is_some()
}

/// Fails if a sandbox whose state `counts` is based on the snapshot that is to be `verb`ed.
///
/// Dependents that are not sandboxes have no known state and always count.
///
/// # Errors
/// `Conflict`, which names the dependents.
pub(crate) fn refuse_if_in_use(
    host: &Host,
    inventory: &HostInventory,
    name: &SnapshotName,
    verb: &str,
    counts: impl Fn(SandboxState) -> bool,
) -> Result<()> {
    let error = || {
        Error::new(
            Kind::Conflict,
            format!("cannot {verb} {name} on host {}", host.name()),
        )
    };
    let state_of = |user: &str| {
        let mut sandboxes = inventory.sandboxes.iter();
        let own = sandboxes.find(|sandbox| sandbox.id.as_str() == user);
        own.map(|sandbox| sandbox.state)
            .or_else(|| inventory.user_states.get(user).copied())
    };
    let in_use_by: Vec<&str> = dependents(inventory, name)
        .filter(|dependent| state_of(dependent).is_none_or(&counts))
        .collect();
    if !in_use_by.is_empty() {
        return Err(error()
            .with_cause(format!("in use by {}", in_use_by.join(", ")))
            .hint(match verb {
                "repair" => "stop those sandboxes first",
                _ => "their disks are based on this file; destroy those sandboxes first",
            }));
    }
    // The file itself may be damaged: what it would need itself is not one of its users.
    let itself = format!("{} (", host.snapshot_path(name));
    let unresolved = inventory.unresolved_chains.iter();
    let unresolved: Vec<&str> = unresolved
        .map(String::as_str)
        .filter(|chain| !chain.starts_with(&itself))
        .collect();
    if unresolved.is_empty() {
        return Ok(());
    }
    Err(error()
        .with_cause(format!(
            "cannot determine the bases of these: {}",
            unresolved.join(", ")
        ))
        .hint("make those files readable; define the storage pool of a volume, or undefine the domain"))
}

/// Fails if the overlay of a sandbox has other users, or may have.
///
/// Only an image that snapdeck may not read can have an unknown overlay as its base: a base of any other is a snapshot or
/// known.
///
/// # Errors
/// `Conflict`, which names the users.
pub(crate) fn refuse_if_overlay_in_use(
    host: &Host,
    inventory: &HostInventory,
    id: &SandboxId,
    disk: &str,
) -> Result<()> {
    let error = || {
        Error::new(
            Kind::Conflict,
            format!("cannot destroy {id} on host {}", host.name()),
        )
    };
    if let Some(users) = inventory.overlay_users.get(id) {
        return Err(error()
            .with_cause(format!("its disk {disk} is in use by {}", users.join(", ")))
            .hint("destroy those first"));
    }
    let mut unreadable = inventory.unreadable_images.iter();
    match unreadable.find(|image| *image != disk) {
        None => Ok(()),
        Some(image) => Err(error()
            .with_cause(format!("cannot determine the base of {image}"))
            .hint("make that file readable")),
    }
}

/// Returns the users of a file, which need not exist, on all hosts that answer, except the domain `own`.
///
/// # Errors
/// Those of a scan of the host.
pub(crate) async fn file_users(
    host: &Host,
    path: &str,
    own: Option<&SandboxId>,
    ctx: &Context,
) -> Result<Vec<String>> {
    let inventory = ctx.sharing.scan_reachable(host).await?;
    let users = host.inventory().users_of(&inventory, path).await?;
    let is_other = |user: &String| user != path && own.is_none_or(|own| own.as_str() != user);
    Ok(users.into_iter().filter(is_other).collect())
}

fn dependents<'a>(
    inventory: &'a HostInventory,
    name: &SnapshotName,
) -> impl Iterator<Item = &'a str> {
    let snapshots = inventory.snapshots.iter();
    snapshots
        .filter(move |snapshot| snapshot.name == *name)
        .flat_map(|snapshot| &snapshot.dependents)
        .map(String::as_str)
}
