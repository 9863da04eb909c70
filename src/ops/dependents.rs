//! Who stands on a snapshot: what a remove, a replacement or a repair must not pull from under.

use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{Error, Kind, Result, SandboxState, SnapshotName};

/// Refuses to `verb` the snapshot under sandboxes whose state `counts`, naming them. What is no sandbox
/// (another domain, an image without one) has no state we could rely on: it always counts.
///
/// # Errors
/// `Unsupported`, also where a chain on the host could not be followed: it may need the snapshot.
pub(crate) fn refuse_if_in_use(
    host: &Host,
    survey: &HostInventory,
    name: &SnapshotName,
    verb: &str,
    counts: impl Fn(SandboxState) -> bool,
) -> Result<()> {
    let refused = || {
        Error::new(
            Kind::Conflict,
            format!("cannot {verb} {name} on host {}", host.name()),
        )
    };
    let state_of = |user: &str| {
        let mut sandboxes = survey.sandboxes.iter();
        sandboxes
            .find(|sandbox| sandbox.id.as_str() == user)
            .map(|sandbox| sandbox.state)
    };
    let users: Vec<&str> = survey
        .snapshots
        .iter()
        .filter(|snapshot| snapshot.name == *name)
        .flat_map(|snapshot| &snapshot.dependents)
        .map(String::as_str)
        .filter(|user| state_of(user).is_none_or(&counts))
        .collect();
    if !users.is_empty() {
        return Err(refused()
            .with_cause(format!("in use by {}", users.join(", ")))
            .hint(match verb {
                "repair" => "stop those sandboxes first",
                _ => "their disks are based on this file; destroy those sandboxes first",
            }));
    }
    if !survey.unresolved_chains.is_empty() {
        return Err(refused()
            .with_cause(format!(
                "cannot determine the bases of these: {}",
                survey.unresolved_chains.join(", ")
            ))
            .hint("make those files readable"));
    }
    Ok(())
}
