//! Images that are based on a snapshot, which must not be removed, replaced or repaired under them.

use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{Error, Kind, Result, SandboxState, SnapshotName};

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
    let state_of = |id: &str| {
        let mut sandboxes = inventory.sandboxes.iter();
        sandboxes
            .find(|sandbox| sandbox.id.as_str() == id)
            .map(|sandbox| sandbox.state)
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
    refuse_unresolved_chains(inventory, error)
}

/// Fails with `error` if the backing files of an image on the host are unknown: it may need the file in question.
pub(crate) fn refuse_unresolved_chains(
    inventory: &HostInventory,
    error: impl Fn() -> Error,
) -> Result<()> {
    if inventory.unresolved_chains.is_empty() {
        return Ok(());
    }
    Err(error()
        .with_cause(format!(
            "cannot determine the bases of these: {}",
            inventory.unresolved_chains.join(", ")
        ))
        .hint("make those files readable"))
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
