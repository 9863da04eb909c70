//! Snapshots (spec, "API Reference").

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::jobs::Job;
use super::problem::{Answer, Any, Asked, Problem, Worked};
use super::request::{Form, OfSnapshot, Wishes};
use super::{App, json};
use snapdeck_model::{HostName, Object, Operation, Result, SandboxId, Snapshot, SnapshotName};

/// What to create (spec, "Create Snapshot", request).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateForm {
    /// The sandbox.
    sandbox_id: SandboxId,
    /// Name of the new snapshot.
    name: SnapshotName,
    /// Do not pause the guest: the image may be inconsistent.
    #[serde(default)]
    live: bool,
    /// Replace an object of that name.
    #[serde(default)]
    overwrite: bool,
    /// Write the image anew, without what was deleted in the base.
    #[serde(default)]
    compact: bool,
}

/// What to push (spec, "Push Snapshot", request).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PushForm {
    /// The sandbox.
    sandbox_id: SandboxId,
    /// Name of the new snapshot.
    snapshot_name: SnapshotName,
    /// Replace an object of that name.
    #[serde(default)]
    overwrite: bool,
    /// Write the image anew, without what was deleted in the base.
    #[serde(default)]
    compact: bool,
}

/// What to pull (spec, "Pull Snapshot", request).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PullForm {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Fetch it again even where a valid copy is there.
    #[serde(default)]
    overwrite: bool,
}

/// What to remove from the host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RemoveForm {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Remove it from the bucket, too.
    #[serde(default)]
    bucket: bool,
}

/// Where a snapshot is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Exists {
    /// Its name.
    name: SnapshotName,
    /// The host that was asked.
    host: HostName,
    /// Is it on the host?
    exists: bool,
    /// The same.
    local: bool,
    /// Is it in the bucket? null where that is not known.
    bucket: Option<bool>,
}

/// What is known of a snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Info {
    /// Its name.
    name: SnapshotName,
    /// The host that was asked.
    host: HostName,
    /// What is on the host; null where there is none.
    snapshot: Option<Snapshot>,
    /// What is in the bucket; null where there is none, or that is not known.
    object: Option<Object>,
}

/// Create a snapshot from a sandbox in any state. A running guest is paused for a moment, unless `live`.
#[utoipa::path(
    post, path = "/snapshots/create", tag = "snapshots", request_body = CreateForm, params(Wishes),
    responses((status = 200, body = ref("#/components/schemas/Created")), (status = 202, description = "Under way", body = Job), Any, Worked),
)]
pub(crate) async fn create(
    State(app): State<App>,
    wishes: Wishes,
    Form(form): Form<CreateForm>,
) -> Answer {
    let operation = Operation::Create {
        host: app.host.clone(),
        sandbox: form.sandbox_id,
        name: form.name,
        live: form.live,
        overwrite: form.overwrite,
        compact: form.compact,
    };
    app.work(wishes, operation).await
}

/// Upload the disk of a stopped or paused sandbox as a snapshot.
#[utoipa::path(
    post, path = "/snapshots/push", tag = "snapshots", request_body = PushForm, params(Wishes),
    responses((status = 200, body = ref("#/components/schemas/Pushed")), (status = 202, description = "Under way", body = Job), Any, Worked),
)]
pub(crate) async fn push(
    State(app): State<App>,
    wishes: Wishes,
    Form(form): Form<PushForm>,
) -> Answer {
    let operation = Operation::Push {
        host: app.host.clone(),
        sandbox: form.sandbox_id,
        name: form.snapshot_name,
        overwrite: form.overwrite,
        compact: form.compact,
    };
    app.work(wishes, operation).await
}

/// Download a snapshot from the bucket to the host. A valid copy that is there is left as it is.
#[utoipa::path(
    post, path = "/snapshots/pull", tag = "snapshots", request_body = PullForm, params(Wishes),
    responses((status = 200, body = ref("#/components/schemas/Pulled")), (status = 202, description = "Under way", body = Job), Any, Worked),
)]
pub(crate) async fn pull(
    State(app): State<App>,
    wishes: Wishes,
    Form(form): Form<PullForm>,
) -> Answer {
    let operation = Operation::Pull {
        host: app.host.clone(),
        name: form.snapshot,
        overwrite: form.overwrite,
    };
    app.work(wishes, operation).await
}

/// Remove a snapshot from the host. One that sandboxes stand on is not removed.
#[utoipa::path(
    post, path = "/snapshots/remove", tag = "snapshots", request_body = RemoveForm, params(Wishes),
    responses((status = 200, body = ref("#/components/schemas/Removed")), (status = 202, description = "Under way", body = Job), Any, Worked),
)]
pub(crate) async fn remove(
    State(app): State<App>,
    wishes: Wishes,
    Form(form): Form<RemoveForm>,
) -> Answer {
    let operation = Operation::Remove {
        host: Some(app.host.clone()),
        name: form.snapshot,
        bucket: form.bucket,
        only: None,
    };
    app.work(wishes, operation).await
}

/// Is a snapshot on the host? The bucket is told beside it.
#[utoipa::path(
    get, path = "/snapshots/exists", tag = "snapshots",
    params(("snapshot" = SnapshotName, Query, description = "The snapshot")),
    responses((status = 200, body = Exists), Any, Asked),
)]
pub(crate) async fn exists(State(app): State<App>, OfSnapshot(name): OfSnapshot) -> Answer {
    let (here, object) = app.ask(&name).await;
    let here = here?.is_some();
    let body = Exists {
        name,
        host: app.host.clone(),
        exists: here,
        local: here,
        bucket: object.ok().flatten().map(|object| object.is_some()),
    };
    Ok(json(StatusCode::OK, &body))
}

/// What is known of a snapshot, on the host and in the bucket.
#[utoipa::path(
    get, path = "/snapshots/info", tag = "snapshots",
    params(("snapshot" = SnapshotName, Query, description = "The snapshot")),
    responses((status = 200, body = Info), Any, Asked),
)]
pub(crate) async fn info(State(app): State<App>, OfSnapshot(name): OfSnapshot) -> Answer {
    let (snapshot, object) = app.ask(&name).await;
    let snapshot = snapshot?;
    let object = match object {
        Ok(object) => object.flatten(),
        // What the host has is worth telling also while the bucket is away.
        Err(_) if snapshot.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    if snapshot.is_none() && object.is_none() {
        let host = &app.host;
        let what = format!("there is no snapshot {name} on host {host} or in the bucket");
        return Err(Problem::not_found(what));
    }
    let host = app.host.clone();
    let body = Info {
        name,
        host,
        snapshot,
        object,
    };
    Ok(json(StatusCode::OK, &body))
}

impl App {
    /// What the host and the bucket have of a snapshot; the bucket's is `None` where none is configured.
    async fn ask(
        &self,
        name: &SnapshotName,
    ) -> (Result<Option<Snapshot>>, Result<Option<Option<Object>>>) {
        let object = async {
            match self.engine.settings().bucket.name {
                Some(_) => self.engine.object(name).await.map(Some),
                None => Ok(None),
            }
        };
        tokio::join!(self.engine.snapshot(&self.host, name), object)
    }
}
