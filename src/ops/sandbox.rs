//! The verbs of a sandbox; [`SandboxVerb::applicability`] has the states in which each is possible.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use snapdeck_host::Host;
use snapdeck_model::{
    Applicability, Error, Kind, Outcome, Phase, Result, SandboxId, SandboxState, SandboxVerb,
    VerbKind,
};

use crate::configure::configure;
use crate::context::Context;
use crate::destroy;

const STATE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Limit of a start by another client, after which its sandbox counts as paused.
const STARTING_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of shutdown requests: a guest whose screen is off may use the first one only to turn it on.
const SHUTDOWN_REQUEST_INTERVAL: Duration = Duration::from_secs(15);

/// Applies `verb` to the sandbox `id`.
///
/// `stop_timeout` is the limit of a stop that sets none.
///
/// # Errors
/// `Conflict` if its state does not allow it, or the guest does not stop in time; `NotFound`; `Cancelled`.
pub async fn sandbox(
    host: &Host,
    id: &SandboxId,
    verb: SandboxVerb,
    stop_timeout: Duration,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    if verb == SandboxVerb::Destroy {
        return destroy::destroy(host, id, ctx).await;
    }
    let mut state = host.sandboxes().owned_state(id).await?;
    if state == SandboxState::Paused && wait_until_started(host, id, ctx).await? {
        state = host.sandboxes().owned_state(id).await?;
    }
    let is_transient = !host.sandboxes().facts(id).await?.is_persistent;
    if is_transient {
        // Its domain ends with its process: then nothing else shows that the disk is a sandbox's.
        let sandbox = host.sandboxes().get(id).await?;
        if let Some(disk) = sandbox.disk() {
            host.created_files().record(disk).await?;
        }
    }
    refuse_if_impossible(host, id, verb.kind(), state)?;
    if let SandboxVerb::Autostart { .. } | SandboxVerb::Set { .. } = verb {
        return configure(host, id, verb, ctx).await;
    }
    let changed = verb.applicability(state) == Applicability::Possible;
    if changed {
        apply(host, id, verb, state, stop_timeout, ctx)
            .await
            .map_err(|error| explain(error, id))?;
    }
    Ok(Outcome::SandboxChanged {
        host: host.name().clone(),
        id: id.clone(),
        state: Some(match changed {
            true => match find_state(host, id).await? {
                Some(state) => state,
                None if is_transient => {
                    ctx.warn(format!(
                        "{id} was transient: libvirt has no definition of it any more; its disk is kept"
                    ));
                    SandboxState::ShutOff
                }
                None => return Err(host.sandboxes().not_found_error(id)),
            },
            false => state,
        }),
        changed,
    })
}

/// Fails if the verb is not possible in `state`.
pub(crate) fn refuse_if_impossible(
    host: &Host,
    id: &SandboxId,
    verb: VerbKind,
    state: SandboxState,
) -> Result<()> {
    let Applicability::Impossible(advice) = verb.applicability(state) else {
        return Ok(());
    };
    let summary = format!("cannot {} {id} on host {}", verb.as_str(), host.name());
    Err(Error::new(Kind::Conflict, summary)
        .with_cause(format!("it is {}", state.label()))
        .hint(advice))
}

/// Waits while libvirt starts the sandbox for another client, which may have been killed; returns whether it did.
async fn wait_until_started(host: &Host, id: &SandboxId, ctx: &Context) -> Result<bool> {
    let deadline = Instant::now() + STARTING_TIMEOUT;
    let mut has_waited = false;
    while Instant::now() < deadline && host.sandboxes().is_starting_up(id).await? {
        has_waited = true;
        ctx.check_cancelled()?;
        sleep(STATE_POLL_INTERVAL).await;
    }
    Ok(has_waited)
}

/// Returns the state of the sandbox; `None` if it does not exist, as a transient one that has stopped.
async fn find_state(host: &Host, id: &SandboxId) -> Result<Option<SandboxState>> {
    match host.sandboxes().state(id).await {
        Ok(state) => Ok(Some(state)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds to a failed verb what keeps the disk from being opened, if it is that.
fn explain(error: Error, id: &SandboxId) -> Error {
    let message = error.message();
    // QEMU, "Failed to get \"write\" lock".
    match message.contains("Failed to get") && message.contains("lock") {
        true => error.hint(format!(
            "another process has the disk of {id} open; a push or create keeps it unchanged: wait for it"
        )),
        false => error,
    }
}

/// Applies a verb that is possible in `state`.
async fn apply(
    host: &Host,
    id: &SandboxId,
    verb: SandboxVerb,
    state: SandboxState,
    stop_timeout: Duration,
    ctx: &Context,
) -> Result<()> {
    match verb {
        SandboxVerb::Start | SandboxVerb::Restore => {
            if state == SandboxState::Saved {
                ctx.info(format!("{id} resumes from its saved state"));
            }
            ctx.enter_phase(Phase::Starting)?;
            host.sandboxes().start(id).await
        }
        SandboxVerb::Stop { timeout, force } => {
            stop(host, id, timeout.unwrap_or(stop_timeout), force, ctx).await
        }
        SandboxVerb::Restart { timeout, force } => {
            restart(host, id, timeout.unwrap_or(stop_timeout), force, ctx).await
        }
        SandboxVerb::Reset => {
            ctx.enter_phase(Phase::Stopping)?;
            host.sandboxes().reset(id).await
        }
        SandboxVerb::ForceOff => {
            ctx.enter_phase(Phase::Stopping)?;
            host.sandboxes().force_off(id).await
        }
        SandboxVerb::Pause => {
            ctx.enter_phase(Phase::Pausing)?;
            host.sandboxes().suspend(id).await
        }
        SandboxVerb::Resume => {
            ctx.enter_phase(Phase::Starting)?;
            match state {
                SandboxState::Suspended => host.sandboxes().wake(id).await,
                _ => host.sandboxes().resume(id).await,
            }
        }
        SandboxVerb::Save => {
            ctx.enter_phase(Phase::Saving)?;
            host.sandboxes().save(id, &ctx.progress, &ctx.cancel).await
        }
        SandboxVerb::DropSaved => {
            ctx.enter_phase(Phase::Removing)?;
            host.sandboxes().discard_saved_state(id).await
        }
        SandboxVerb::Autostart { .. } | SandboxVerb::Set { .. } => {
            configure(host, id, verb, ctx).await.map(drop)
        }
        SandboxVerb::Destroy => destroy::destroy(host, id, ctx).await.map(drop),
    }
}

/// Stops the sandbox and starts it again.
///
/// libvirt's own reboot (virDomainReboot) returns before the guest shuts down, and never shows whether it did; Windows may
/// ignore it. A new QEMU process also has the definition as it is now.
async fn restart(
    host: &Host,
    id: &SandboxId,
    timeout: Duration,
    force: bool,
    ctx: &Context,
) -> Result<()> {
    let facts = host.sandboxes().facts(id).await?;
    if !facts.is_persistent {
        let summary = format!("cannot restart {id} on host {}", host.name());
        return Err(Error::new(Kind::Conflict, summary)
            .with_cause(
                "it is transient: when it stops, libvirt has no definition to start it from",
            )
            .hint("define it with `virsh define`, or reset it"));
    }
    stop(host, id, timeout, force, ctx)
        .await
        .map_err(|error| match error.kind() {
            Kind::Cancelled => error.hint(
                "the guest has received the request and may still shut down; it is not started then",
            ),
            Kind::Conflict => error.hint(format!(
                "check its screen, or reset it: `snapdeck sandbox reset {id}`"
            )),
            _ => error,
        })?;
    // Not cancelled any more: it was running, and is to run again.
    ctx.progress.enter(Phase::Starting, 0);
    let domain = host.sandboxes().with_uuid(&facts.uuid);
    match domain.start(id).await {
        // Another client was faster.
        Err(error) if error.kind() == Kind::Conflict && domain.state(id).await?.is_active() => {
            ctx.info(error.to_string());
            Ok(())
        }
        result => result.map_err(|error| {
            error.hint(format!(
                "it is shut off; start it with `snapdeck sandbox start {id}`"
            ))
        }),
    }
}

/// Requests a shutdown of the guest and waits for it.
async fn stop(
    host: &Host,
    id: &SandboxId,
    timeout: Duration,
    force: bool,
    ctx: &Context,
) -> Result<()> {
    ctx.enter_phase(Phase::Stopping)?;
    let started_at = Instant::now();
    let mut requested_at: Option<Instant> = None;
    loop {
        if requested_at.is_none_or(|at| at.elapsed() >= SHUTDOWN_REQUEST_INTERVAL) {
            requested_at = Some(Instant::now());
            match request_shutdown(host, id, ctx).await {
                Ok(()) => {}
                // It has just stopped, as the state below shows.
                Err(error) if matches!(error.kind(), Kind::Conflict | Kind::NotFound) => {
                    ctx.info(error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let state = find_state(host, id).await?;
        if state.is_none_or(|state| !state.is_active()) {
            return Ok(());
        }
        if started_at.elapsed() >= timeout {
            break;
        }
        tokio::select! {
            () = sleep(STATE_POLL_INTERVAL) => {}
            () = ctx.cancel.cancelled() => return Err(Error::cancelled(format!(
                "waiting for {id} to stop"
            ))
            .hint("the guest has received the request and may still shut down")),
        }
    }
    if force {
        ctx.warn(format!(
            "{id} has not stopped within {} s: forcing it off",
            timeout.as_secs()
        ));
        return host.sandboxes().force_off(id).await;
    }
    Err(Error::new(
        Kind::Conflict,
        format!(
            "{id} on host {} has not stopped within {} s",
            host.name(),
            timeout.as_secs()
        ),
    )
    .hint(format!(
        "check its screen, or force it off: `snapdeck sandbox stop {id} --force`"
    )))
}

/// Requests a shutdown; wakes a suspended guest first, which would not notice it.
async fn request_shutdown(host: &Host, id: &SandboxId, ctx: &Context) -> Result<()> {
    if find_state(host, id).await? == Some(SandboxState::Suspended) {
        ctx.info(format!("waking {id}, which is suspended"));
        host.sandboxes().wake(id).await?;
    }
    host.sandboxes().shut_down(id).await
}
