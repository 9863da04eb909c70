//! Destroy: a sandbox is removed with its process, its definition, saved state and UEFI variables, and its overlay.

use snapdeck_host::{Host, Sandboxes};
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxId};

use crate::context::Context;
use crate::dependents::{file_users, refuse_if_overlay_in_use};

/// Destroys the sandbox `id`, or the leftovers of one whose creation or destruction was interrupted.
///
/// # Errors
/// `Conflict` for a domain that is not a sandbox, or whose overlay is in use, which names its users; `NotFound` if only
/// files have that id that may be another program's.
pub(crate) async fn destroy(host: &Host, id: &SandboxId, ctx: &Context) -> Result<Outcome> {
    let inventory = ctx.sharing.scan(host).await?;
    let mut foreign_domains = inventory.foreign_domains.iter();
    if foreign_domains.any(|domain| domain.id == id.as_str()) {
        return Err(host.sandboxes().foreign_domain_error(id));
    }
    let mut sandboxes = inventory.sandboxes.iter();
    let sandbox = sandboxes.find(|sandbox| sandbox.id == *id);
    let disk = match sandbox {
        Some(sandbox) => sandbox.disk().map(str::to_owned).unwrap_or_default(),
        None => host.disk_path(id),
    };
    let variables = host.variables_path(id);
    refuse_if_overlay_in_use(host, &inventory, id, &disk)?;
    let has_foreign_variables =
        sandbox.is_some_and(|sandbox| sandbox.variables.as_ref() != Some(&variables));
    let mut leaves_variables = has_foreign_variables;
    if sandbox.is_none() {
        match find_leftovers(host, id, &disk, &variables, ctx).await? {
            Leftovers::Nothing => {
                return Ok(Outcome::SandboxChanged {
                    host: host.name().clone(),
                    id: id.clone(),
                    state: None,
                    changed: false,
                });
            }
            leftovers => leaves_variables = leftovers == Leftovers::Disk,
        }
    }
    ctx.enter_phase(Phase::Removing)?;
    let facts = match sandbox {
        Some(_) => Some(host.sandboxes().facts(id).await?),
        None => None,
    };
    let owner = facts
        .as_ref()
        .filter(|facts| facts.state.is_active())
        .map(|facts| facts.uuid.as_str());
    let files = match leaves_variables {
        true => vec![&disk],
        false => vec![&variables, &disk],
    };
    for file in &files {
        host.images().refuse_if_open(file, "remove", owner).await?;
    }
    let refuse_other = async |file: &str, cause: &str| -> Result<()> {
        if !host.fs().has_file(file).await? || host.created_files().is_own(file).await? {
            return Ok(());
        }
        let summary = format!("cannot remove {file} on host {}", host.name());
        Err(Error::new(Kind::Conflict, summary).with_cause(cause))
    };
    if facts.is_some() {
        // Without the domain nothing else proves that they are its files, should this be interrupted.
        for file in &files {
            host.created_files().record(file).await?;
            refuse_other(file, "it is not a regular file").await?;
        }
    }
    match &facts {
        Some(facts) => {
            let domain = host.sandboxes().with_uuid(&facts.uuid);
            let others = facts.disks.iter().filter(|other| other.path != disk);
            let others: Vec<&str> = others.map(|other| other.path.as_str()).collect();
            if !others.is_empty() {
                let (count, others) = (others.len() + 1, others.join(", "));
                ctx.warn(format!(
                    "{id} has {count} disks: removing {disk}, keeping {others}"
                ));
            }
            if facts.state.is_active() {
                domain.force_off(id).await?;
            }
            match facts.is_persistent {
                true => {
                    let firmware = domain.firmware(id).await?;
                    undefine(host, domain, id, firmware.variables.as_deref(), ctx).await?;
                }
                false => ctx.warn(format!(
                    "{id} was transient: it had no definition, only {disk}"
                )),
            }
        }
        None => ctx.info(format!("no sandbox {id}, only its leftovers")),
    }
    // libvirt no longer lists it: if this is interrupted, the next destroy removes the remaining files.
    for file in files {
        if file == &variables && !are_unused(host, id, file, ctx).await? {
            continue;
        }
        host.images().refuse_if_open(file, "remove", None).await?;
        if file == &disk {
            // Another domain may have been defined on it since.
            let inventory = ctx.sharing.scan(host).await?;
            refuse_if_overlay_in_use(host, &inventory, id, file)?;
        }
        refuse_other(file, "another file was put in its place meanwhile").await?;
        if host.fs().remove_file(file).await? {
            ctx.info(format!("removed {file}"));
        }
        host.created_files().forget(file);
    }
    if let Some(facts) = &facts {
        ctx.push_cache.remove(host.name(), &facts.uuid).await;
    }
    Ok(Outcome::SandboxChanged {
        host: host.name().clone(),
        id: id.clone(),
        state: None,
        changed: true,
    })
}

/// Files of this snapdeck that remain of a sandbox without a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    Nothing,
    /// The disk; the variables, if there are any, may be another program's.
    Disk,
    /// The variables, and the disk if it exists.
    All,
}

/// Fails unless the files of a sandbox without a domain are leftovers of this snapdeck: whatever has those names may be
/// another program's.
///
/// # Errors
/// `NotFound`.
async fn find_leftovers(
    host: &Host,
    id: &SandboxId,
    disk: &str,
    variables: &str,
    ctx: &Context,
) -> Result<Leftovers> {
    let not_found = || host.sandboxes().not_found_error(id);
    let unknown = |path: &str| {
        not_found()
            .with_cause(format!("{path} exists, but snapdeck has no record of it"))
            .hint("remove that file yourself if nothing needs it")
    };
    let created = host.created_files();
    let has_disk = host.fs().has_file(disk).await?;
    if has_disk && !created.is_own(disk).await? {
        return Err(unknown(disk));
    }
    if !host.fs().has_file(variables).await? {
        return match has_disk {
            true => Ok(Leftovers::Disk),
            false => Ok(Leftovers::Nothing),
        };
    }
    let is_own = created.is_own(variables).await?;
    if has_disk {
        if !is_own {
            ctx.warn(format!("keeping {variables}: snapdeck has no record of it"));
        }
        return Ok(match is_own {
            true => Leftovers::All,
            false => Leftovers::Disk,
        });
    }
    let users = file_users(host, variables, None, ctx).await?;
    match (users.is_empty(), is_own) {
        (false, _) => Err(not_found().with_cause(format!(
            "{variables} are the UEFI variables of {}",
            users.join(", ")
        ))),
        (true, false) => Err(unknown(variables)),
        (true, true) => Ok(Leftovers::All),
    }
}

/// Undefines the sandbox. libvirt removes its UEFI variables, unless another domain refers to them, too.
async fn undefine(
    host: &Host,
    domain: Sandboxes<'_>,
    id: &SandboxId,
    variables: Option<&str>,
    ctx: &Context,
) -> Result<()> {
    let users = match variables {
        Some(variables) => file_users(host, variables, Some(id), ctx).await?,
        None => Vec::new(),
    };
    match variables {
        Some(variables) if !users.is_empty() => {
            warn_of_kept_variables(variables, &users, ctx);
            domain.undefine_without_variables(id).await
        }
        Some(variables) if !host.has_variables_directory(variables) => {
            ctx.warn(format!(
                "keeping {variables}, which is in no directory for the UEFI variables of sandboxes"
            ));
            domain.undefine_without_variables(id).await
        }
        _ => domain.undefine(id).await,
    }
}

/// Returns whether no domain refers to the UEFI variables: one that was renamed keeps those under its former name.
async fn are_unused(host: &Host, id: &SandboxId, variables: &str, ctx: &Context) -> Result<bool> {
    if !host.fs().has_file(variables).await? {
        return Ok(false);
    }
    let users = file_users(host, variables, Some(id), ctx).await?;
    if !users.is_empty() {
        warn_of_kept_variables(variables, &users, ctx);
    }
    Ok(users.is_empty())
}

fn warn_of_kept_variables(variables: &str, users: &[String], ctx: &Context) {
    let users = users.join(", ");
    ctx.warn(format!(
        "keeping {variables}, the UEFI variables of {users}"
    ));
}
