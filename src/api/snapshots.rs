//! Snapshots (spec, "API Reference").

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::jobs::Job;
use super::problem::{ApiResult, CommonErrors, JobErrors, Problem, QueryErrors};
use super::request::{JsonBody, RequestOptions, SnapshotQuery};
use super::{App, json_response};
use snapdeck_model::{HostName, Object, Operation, Result, SandboxId, Snapshot, SnapshotName};

/// What to create (spec, "Create Snapshot", request).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateSnapshotRequest {
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
pub(crate) struct PushSnapshotRequest {
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
pub(crate) struct PullSnapshotRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Fetch it again even where a valid copy is there.
    #[serde(default)]
    overwrite: bool,
}

/// What to remove from the host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RemoveSnapshotRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Remove it from the bucket, too.
    #[serde(default)]
    bucket: bool,
}

/// Where a snapshot is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotPresence {
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
pub(crate) struct SnapshotInfo {
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
    post, path = "/snapshots/create", tag = "snapshots", request_body = CreateSnapshotRequest, params(RequestOptions),
    responses((status = 200, body = ref("#/components/schemas/SnapshotCreated")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn create_snapshot(
    State(app): State<App>,
    wishes: RequestOptions,
    JsonBody(form): JsonBody<CreateSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Create {
        host: app.host.clone(),
        sandbox: form.sandbox_id,
        name: form.name,
        live: form.live,
        overwrite: form.overwrite,
        compact: form.compact,
    };
    app.run_operation(wishes, operation).await
}

/// Upload the disk of a stopped or paused sandbox as a snapshot.
#[utoipa::path(
    post, path = "/snapshots/push", tag = "snapshots", request_body = PushSnapshotRequest, params(RequestOptions),
    responses((status = 200, body = ref("#/components/schemas/SnapshotPushed")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn push_snapshot(
    State(app): State<App>,
    wishes: RequestOptions,
    JsonBody(form): JsonBody<PushSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Push {
        host: app.host.clone(),
        sandbox: form.sandbox_id,
        name: form.snapshot_name,
        overwrite: form.overwrite,
        compact: form.compact,
    };
    app.run_operation(wishes, operation).await
}

/// Download a snapshot from the bucket to the host. A valid copy that is there is left as it is.
#[utoipa::path(
    post, path = "/snapshots/pull", tag = "snapshots", request_body = PullSnapshotRequest, params(RequestOptions),
    responses((status = 200, body = ref("#/components/schemas/SnapshotPulled")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn pull_snapshot(
    State(app): State<App>,
    wishes: RequestOptions,
    JsonBody(form): JsonBody<PullSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Pull {
        host: app.host.clone(),
        name: form.snapshot,
        overwrite: form.overwrite,
    };
    app.run_operation(wishes, operation).await
}

/// Remove a snapshot from the host. One that sandboxes stand on is not removed.
#[utoipa::path(
    post, path = "/snapshots/remove", tag = "snapshots", request_body = RemoveSnapshotRequest, params(RequestOptions),
    responses((status = 200, body = ref("#/components/schemas/SnapshotRemoved")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn remove_snapshot(
    State(app): State<App>,
    wishes: RequestOptions,
    JsonBody(form): JsonBody<RemoveSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Remove {
        host: Some(app.host.clone()),
        name: form.snapshot,
        from_bucket: form.bucket,
        expected_identity: None,
    };
    app.run_operation(wishes, operation).await
}

/// Is a snapshot on the host? The bucket is told beside it.
#[utoipa::path(
    get, path = "/snapshots/exists", tag = "snapshots",
    params(("snapshot" = SnapshotName, Query, description = "The snapshot")),
    responses((status = 200, body = SnapshotPresence), CommonErrors, QueryErrors),
)]
pub(crate) async fn snapshot_exists(
    State(app): State<App>,
    SnapshotQuery(name): SnapshotQuery,
) -> ApiResult {
    let (here, object) = app.look_up_snapshot(&name).await;
    let here = here?.is_some();
    let body = SnapshotPresence {
        name,
        host: app.host.clone(),
        exists: here,
        local: here,
        bucket: object.ok().flatten().map(|object| object.is_some()),
    };
    Ok(json_response(StatusCode::OK, &body))
}

/// What is known of a snapshot, on the host and in the bucket.
#[utoipa::path(
    get, path = "/snapshots/info", tag = "snapshots",
    params(("snapshot" = SnapshotName, Query, description = "The snapshot")),
    responses((status = 200, body = SnapshotInfo), CommonErrors, QueryErrors),
)]
pub(crate) async fn get_snapshot_info(
    State(app): State<App>,
    SnapshotQuery(name): SnapshotQuery,
) -> ApiResult {
    let (snapshot, object) = app.look_up_snapshot(&name).await;
    let snapshot = snapshot?;
    let object = match object {
        Ok(object) => object.flatten(),
        // What the host has is worth telling also while the bucket is away.
        Err(_) if snapshot.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    if snapshot.is_none() && object.is_none() {
        let host = &app.host;
        let what = format!("snapshot {name} not found on host {host} or in the bucket");
        return Err(Problem::not_found(what));
    }
    let host = app.host.clone();
    let body = SnapshotInfo {
        name,
        host,
        snapshot,
        object,
    };
    Ok(json_response(StatusCode::OK, &body))
}

impl App {
    /// What the host and the bucket have of a snapshot; the bucket's is `None` where none is configured.
    async fn look_up_snapshot(
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
