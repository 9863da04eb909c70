//! Check of the id of a new, cloned or renamed sandbox.

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Result, SandboxId};

use crate::context::Context;
use crate::dependents::file_users;

/// Fails with an error of `refused` if a domain has the id, a file has the path of its disk or its variables, or a domain
/// refers to such a path. `own_files` may have those paths.
///
/// # Errors
/// `Conflict`; `Unreachable`.
pub(crate) async fn refuse_used_id(
    host: &Host,
    id: &SandboxId,
    own_files: &[&str],
    refused: impl Fn(Kind) -> Error,
    ctx: &Context,
) -> Result<()> {
    let conflict = |cause: String| refused(Kind::Conflict).with_cause(cause);
    match host.sandboxes().state(id).await {
        Ok(state) => {
            let state = state.label();
            return Err(
                conflict(format!("a sandbox with this id exists and is {state}"))
                    .hint("choose another id"),
            );
        }
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    for path in [host.disk_path(id), host.variables_path(id)] {
        if own_files.contains(&&*path) {
            continue;
        }
        // A domain that was renamed, or has not been started yet, may refer to the file, also to one still to be created.
        let users = file_users(host, &path, Some(id), ctx).await?;
        let users = users.join(", ");
        if host.fs().has_file(&path).await? {
            let hint = match (&*users, host.created_files().is_own(&path).await?) {
                ("", true) => format!(
                    "remove the leftover with `snapdeck sandbox destroy {id}`, or choose another id"
                ),
                ("", false) => "choose another id: snapdeck does not know that file".to_owned(),
                _ => format!("choose another id: {users} refers to that file"),
            };
            return Err(conflict(format!("{path} exists, but sandbox {id} does not")).hint(hint));
        }
        if !users.is_empty() {
            return Err(conflict(format!("{users} refers to {path}")).hint("choose another id"));
        }
    }
    Ok(())
}
