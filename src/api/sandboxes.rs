//! Sandboxes (spec, "Example: Create a Custom Base Image", "Using Custom Snapshots").

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::jobs::Job;
use super::problem::{Answer, Any, Asked, Problem, Worked};
use super::request::{Form, FormOrNone, Wishes};
use super::{App, json};
use snapdeck_model::{Operation, Sandbox, SandboxForm, SandboxId, SandboxVerb, SnapshotName};

/// Bounds of what a sandbox may be given: beyond them is a slip, not a wish.
const CPUS: u32 = 512;
const MEMORY_MIB: u32 = 16 << 20;
const STORAGE_GIB: u32 = 64 << 10;
/// Longest wait for a guest to stop, in seconds.
const STOP: u32 = 24 * 3600;

/// What to make (spec, "Using Custom Snapshots").
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewForm {
    /// Its id.
    id: SandboxId,
    /// The snapshot it stands on, which must be on the host.
    snapshot: SnapshotName,
    /// Virtual CPUs; absent: as the settings have it.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 512)]
    cpu_quota: Option<u32>,
    /// Memory, in MiB; absent: as the settings have it.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 16777216)]
    memory_quota: Option<u32>,
    /// Size of its disk, in GiB; absent: as large as the snapshot's.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 65536)]
    storage_quota: Option<u32>,
    /// Start it, too; where that fails there is no sandbox.
    #[serde(default = "yes")]
    start: bool,
}

/// A number without a fraction, however it is written: 2.0 is 2 (JSON Schema, "integer").
fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else {
        return Ok(None);
    };
    // Every u32 is a double, exactly.
    match number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        true => Ok(Some(number as u32)),
        false => Err(D::Error::custom(format!(
            "{number} is no whole number from 0 to {}",
            u32::MAX
        ))),
    }
}

fn yes() -> bool {
    true
}

/// How to stop it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StopForm {
    /// How long its guest may take, in seconds; absent: as the settings have it.
    #[serde(default, deserialize_with = "whole")]
    #[schema(minimum = 0, maximum = 86400)]
    timeout: Option<u32>,
    /// Cut its power when it has not obeyed by then.
    #[serde(default)]
    force: bool,
}

impl NewForm {
    fn read(self) -> Result<(SandboxId, SandboxForm), Problem> {
        Ok((
            self.id,
            SandboxForm {
                snapshot: self.snapshot,
                cpus: within("cpuQuota", self.cpu_quota, 1, CPUS)?,
                memory_bytes: within("memoryQuota", self.memory_quota, 1, MEMORY_MIB)?
                    .map(|mib| u64::from(mib) << 20),
                storage_bytes: within("storageQuota", self.storage_quota, 1, STORAGE_GIB)?
                    .map(|gib| u64::from(gib) << 30),
                start: self.start,
            },
        ))
    }
}

fn within(field: &str, value: Option<u32>, least: u32, most: u32) -> Result<Option<u32>, Problem> {
    match value {
        Some(value) if !(least..=most).contains(&value) => Err(Problem::bad(format!(
            "{field}: {value} is not between {least} and {most}"
        ))),
        value => Ok(value),
    }
}

/// All sandboxes of the host.
#[utoipa::path(get, path = "/sandboxes", tag = "sandboxes", responses((status = 200, body = Vec<Sandbox>), Any, Asked))]
pub(crate) async fn list(State(app): State<App>) -> Answer {
    let sandboxes = app.engine.sandboxes(&app.host).await?;
    Ok(json(StatusCode::OK, &sandboxes))
}

/// One sandbox.
#[utoipa::path(
    get, path = "/sandboxes/{id}", tag = "sandboxes",
    params(("id" = SandboxId, Path, description = "Its id")),
    responses(
        (status = 200, body = Sandbox),
        (status = 409, description = "A guest of that name is no sandbox", body = super::problem::ErrorBody),
        Any, Asked,
    ),
)]
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let sandbox = app.engine.sandbox(&app.host, &id.parse()?).await?;
    Ok(json(StatusCode::OK, &sandbox))
}

/// Make a sandbox on a snapshot, and start it.
#[utoipa::path(
    post, path = "/sandboxes", tag = "sandboxes", request_body = NewForm, params(Wishes),
    responses(
        (status = 201, description = "It was made", body = ref("#/components/schemas/Made"),
         headers(("Location" = String, description = "Its path"))),
        (status = 202, description = "Under way", body = Job),
        Any, Worked,
    ),
)]
pub(crate) async fn new(
    State(app): State<App>,
    wishes: Wishes,
    Form(form): Form<NewForm>,
) -> Answer {
    let (id, form) = form.read()?;
    let host = app.host.clone();
    app.work(wishes, Operation::New { host, id, form }).await
}

/// Stop a sandbox: its guest is asked to shut down.
#[utoipa::path(
    post, path = "/sandboxes/{id}/stop", tag = "sandboxes", request_body = Option<StopForm>,
    params(("id" = SandboxId, Path, description = "Its id"), Wishes),
    responses((status = 200, body = ref("#/components/schemas/Turned")), (status = 202, description = "Under way", body = Job), Any, Worked),
)]
pub(crate) async fn stop(
    State(app): State<App>,
    Path(id): Path<String>,
    wishes: Wishes,
    FormOrNone(form): FormOrNone<StopForm>,
) -> Answer {
    let timeout =
        within("timeout", form.timeout, 0, STOP)?.map(|secs| Duration::from_secs(secs.into()));
    let force = form.force;
    turn(app, id, wishes, SandboxVerb::Stop { timeout, force }).await
}

async fn turn(app: App, id: String, wishes: Wishes, verb: SandboxVerb) -> Answer {
    let id = id.parse()?;
    let host = app.host.clone();
    app.work(wishes, Operation::Sandbox { host, id, verb })
        .await
}

/// A verb that is told nothing but the sandbox.
macro_rules! verb {
    ($(#[$doc:meta])* $name:ident, $method:ident, $path:literal, $verb:expr) => {
        $(#[$doc])*
        #[utoipa::path(
            $method, path = $path, tag = "sandboxes",
            params(("id" = SandboxId, Path, description = "Its id"), Wishes),
            responses(
                (status = 200, body = ref("#/components/schemas/Turned")),
                (status = 202, description = "Under way", body = Job),
                Any, Worked,
            ),
        )]
        pub(super) async fn $name(State(app): State<App>, Path(id): Path<String>, wishes: Wishes) -> Answer {
            turn(app, id, wishes, $verb).await
        }
    };
}

verb!(
    /// Start a sandbox: from its saved state where there is one, else from its disk.
    start, post, "/sandboxes/{id}/start", SandboxVerb::Start
);
verb!(
    /// Stop its CPUs; its memory stays in the host's RAM.
    pause, post, "/sandboxes/{id}/pause", SandboxVerb::Pause
);
verb!(
    /// Let a paused or sleeping one go on.
    resume, post, "/sandboxes/{id}/resume", SandboxVerb::Resume
);
verb!(
    /// Write its memory to the host's disk and end its process (spec, "Memory Snapshots").
    save, post, "/sandboxes/{id}/save", SandboxVerb::Save
);
verb!(
    /// Start a saved one where it was.
    restore, post, "/sandboxes/{id}/restore", SandboxVerb::Restore
);
verb!(
    /// Remove it for good: domain, overlay, UEFI variables, saved state.
    destroy, post, "/sandboxes/{id}/destroy", SandboxVerb::Destroy
);
verb!(
    /// The same as destroy.
    delete, delete, "/sandboxes/{id}", SandboxVerb::Destroy
);
