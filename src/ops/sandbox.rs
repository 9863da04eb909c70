//! The verbs of a sandbox's life but the first and the last. What is so already is done.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use snapdeck_host::Host;
use snapdeck_model::{Error, Kind, Outcome, Phase, Result, SandboxId, SandboxState, SandboxVerb};

use super::{Context, destroy};

/// How often a guest that is told to stop is looked at.
const STATE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is told: a guest whose screen is off takes the first press for a wish to see it.
const SHUTDOWN_REQUEST_INTERVAL: Duration = Duration::from_secs(15);

/// Does `verb` to the sandbox `id`; a stop that names no time has `stop_timeout`.
///
/// # Errors
/// `Unsupported` where its state does not allow it, or a guest did not stop in time; `NotFound`; `Cancelled`.
pub async fn sandbox(
    host: &Host,
    id: &SandboxId,
    verb: SandboxVerb,
    stop_timeout: Duration,
    ctx: &Context,
) -> Result<Outcome> {
    use SandboxState::*;
    ctx.enter_phase(Phase::Checking)?;
    if verb == SandboxVerb::Destroy {
        return destroy::destroy(host, id, ctx).await;
    }
    let state = host.owned_sandbox_state(id).await?;
    let refused = |hint: &str| {
        Err(Error::new(
            Kind::Conflict,
            format!("cannot {} {id} on host {}", verb.as_str(), host.name()),
        )
        .with_cause(format!("it is {}", state.as_str()))
        .hint(hint))
    };
    let changed = match (verb, state) {
        (SandboxVerb::Start | SandboxVerb::Restore, Running) => false,
        (SandboxVerb::Start, ShutOff) => resumes_saved_state(host, id, ctx).await?,
        (SandboxVerb::Start | SandboxVerb::Restore, Saved) => {
            ctx.info(format!("{id} resumes from its saved state"));
            resumes_saved_state(host, id, ctx).await?
        }
        (SandboxVerb::Restore, ShutOff) => {
            return refused("it has no saved state: start it");
        }
        (SandboxVerb::Start | SandboxVerb::Restore, Paused | Suspended) => {
            return refused("resume it");
        }
        (SandboxVerb::Start | SandboxVerb::Restore, Crashed) => {
            return refused("force it off first");
        }

        (SandboxVerb::Stop { .. } | SandboxVerb::ForceOff, ShutOff | Saved) => false,
        (SandboxVerb::Stop { timeout, force }, Running) => {
            stop(host, id, timeout.unwrap_or(stop_timeout), force, ctx).await?
        }
        (SandboxVerb::Stop { .. }, Paused | Suspended) => {
            return refused(
                "it is paused and cannot react to a shutdown request; resume it or force it off",
            );
        }
        (SandboxVerb::Stop { .. }, Crashed) => {
            return refused("it cannot react to a shutdown request; force it off");
        }
        (SandboxVerb::ForceOff, Running | Paused | Suspended | Crashed) => {
            ctx.enter_phase(Phase::Stopping)?;
            host.force_off(id).await?;
            true
        }

        (SandboxVerb::Pause, Paused) => false,
        (SandboxVerb::Pause, Running) => {
            ctx.enter_phase(Phase::Pausing)?;
            host.suspend(id).await?;
            true
        }
        (SandboxVerb::Pause, _) => return refused("only a running sandbox can be paused"),

        (SandboxVerb::Resume, Running) => false,
        (SandboxVerb::Resume, Paused) => {
            ctx.enter_phase(Phase::Starting)?;
            host.resume(id).await?;
            true
        }
        (SandboxVerb::Resume, Suspended) => {
            ctx.enter_phase(Phase::Starting)?;
            host.wake(id).await?;
            true
        }
        (SandboxVerb::Resume, Saved) => return refused("restore it"),
        (SandboxVerb::Resume, ShutOff) => return refused("start it"),
        (SandboxVerb::Resume, Crashed) => return refused("force it off, then start it"),

        (SandboxVerb::Save, Saved) => false,
        (SandboxVerb::Save, Running | Paused) => {
            ctx.enter_phase(Phase::Saving)?;
            host.save(id, &ctx.progress, &ctx.cancel).await?;
            true
        }
        (SandboxVerb::Save, _) => {
            return refused("only a running or paused sandbox can be saved");
        }

        (SandboxVerb::DropSaved, Saved) => {
            ctx.enter_phase(Phase::Removing)?;
            host.discard_saved_state(id).await?;
            true
        }
        (SandboxVerb::DropSaved, _) => false,

        // Its own story, told before.
        (SandboxVerb::Destroy, _) => false,
    };
    Ok(Outcome::SandboxChanged {
        host: host.name().clone(),
        id: id.clone(),
        state: Some(match changed {
            true => host.sandbox_state(id).await?,
            false => state,
        }),
        changed,
    })
}

async fn resumes_saved_state(host: &Host, id: &SandboxId, ctx: &Context) -> Result<bool> {
    ctx.enter_phase(Phase::Starting)?;
    host.start(id).await?;
    Ok(true)
}

/// Asks the guest to stop and waits until it has.
async fn stop(
    host: &Host,
    id: &SandboxId,
    timeout: Duration,
    force: bool,
    ctx: &Context,
) -> Result<bool> {
    ctx.enter_phase(Phase::Stopping)?;
    let since = Instant::now();
    let mut pressed = None;
    loop {
        if pressed.is_none_or(|at: Instant| at.elapsed() >= SHUTDOWN_REQUEST_INTERVAL) {
            pressed = Some(Instant::now());
            match host.shut_down(id).await {
                Ok(()) => {}
                // It has just stopped: the next look tells.
                Err(error) if error.kind() == Kind::Conflict => ctx.info(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let state = host.sandbox_state(id).await?;
        if !state.is_active() {
            return Ok(true);
        }
        if since.elapsed() >= timeout {
            break;
        }
        tokio::select! {
            () = sleep(STATE_POLL_INTERVAL) => {}
            () = ctx.cancel.cancelled() => return Err(Error::cancelled(format!(
                "waiting for {id} to stop"
            ))
            .hint("the guest was asked to shut down and may still do so")),
        }
    }
    if force {
        ctx.warn(format!(
            "{id} has not stopped within {} s: forcing it off",
            timeout.as_secs()
        ));
        host.force_off(id).await?;
        return Ok(true);
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
