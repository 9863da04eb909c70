//! Snapshots.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::jobs::Job;
use super::problem::{ApiResult, CommonErrors, JobErrors, Problem, QueryErrors};
use super::request::{
    BodyOrSnapshot, HeaderOptions, JsonBody, RequestOptions, SnapshotQuery, default_true,
};
use super::runner::Unsupported;
use super::{App, json_response};
use snapdeck_model::{
    Error, HostName, Kind, Object, Operation, Result, SandboxId, Snapshot, SnapshotName,
};

/// The snapshot to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
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
    /// Rewrite the whole image without deleted data.
    #[serde(default)]
    compact: bool,
}

/// The snapshot to push.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PushSnapshotRequest {
    /// The sandbox.
    sandbox_id: SandboxId,
    /// Name of the new snapshot.
    snapshot_name: SnapshotName,
    /// Replace an object of that name.
    #[serde(default)]
    overwrite: bool,
    /// Rewrite the whole image without deleted data.
    #[serde(default)]
    compact: bool,
}

/// The snapshot to pull.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PullSnapshotRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Download it again even if the host has a valid copy.
    #[serde(default)]
    overwrite: bool,
    // Clients of the runner may send these.
    #[schema(ignore)]
    #[serde(rename = "registry", default)]
    _registry: Unsupported,
    #[schema(ignore)]
    #[serde(rename = "destinationRegistry", default)]
    _destination_registry: Unsupported,
    #[schema(ignore)]
    #[serde(rename = "destinationRef", default)]
    _destination_ref: Unsupported,
}

/// The snapshot to upload.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct UploadSnapshotRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Replace an object of that name.
    #[serde(default)]
    overwrite: bool,
}

/// The snapshot to copy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CopySnapshotRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Name of the host that has it.
    from: HostName,
    /// Copy it again even if the host has a valid copy.
    #[serde(default)]
    overwrite: bool,
}

/// The snapshot to remove.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RemoveSnapshotRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Remove it from the host.
    #[serde(default = "default_true")]
    local: bool,
    /// Remove it from the bucket.
    #[serde(default)]
    bucket: bool,
}

/// The snapshot to adopt.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AdoptSnapshotRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Adopt the object in the bucket, which is downloaded once, instead of the host's snapshot.
    #[serde(default)]
    bucket: bool,
}

/// The snapshot to verify.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct VerifySnapshotRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Verify the object in the bucket instead of the host's snapshot.
    #[serde(default)]
    bucket: bool,
    /// Download bad blocks of the host's snapshot from the bucket.
    #[serde(default)]
    repair: bool,
}

/// Locations of a snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotPresence {
    /// Name of the snapshot.
    name: SnapshotName,
    /// The host of this API.
    host: HostName,
    /// Whether the host has it.
    exists: bool,
    /// Same as `exists`.
    local: bool,
    /// Whether the bucket has it; null if unknown.
    bucket: Option<bool>,
}

/// Details of a snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotInfo {
    /// Name of the snapshot.
    name: SnapshotName,
    /// The host of this API.
    host: HostName,
    /// The snapshot on the host; null if it has none.
    snapshot: Option<Snapshot>,
    /// The object in the bucket; null if there is none or the bucket is unreachable.
    object: Option<Object>,
}

/// Create a snapshot of a sandbox in any state. Pauses a running guest briefly, unless `live`.
#[utoipa::path(
    post, path = "/snapshots/create", tag = "snapshots", request_body = CreateSnapshotRequest, params(RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SnapshotCreated")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn create_snapshot(
    State(app): State<App>,
    options: RequestOptions,
    JsonBody(request): JsonBody<CreateSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Create {
        host: app.host.clone(),
        sandbox: request.sandbox_id,
        name: request.name,
        live: request.live,
        overwrite: request.overwrite,
        compact: request.compact,
    };
    app.run_operation(options, operation).await
}

/// Upload the disk of a stopped or paused sandbox as a snapshot.
#[utoipa::path(
    post, path = "/snapshots/push", tag = "snapshots", request_body = PushSnapshotRequest, params(RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SnapshotPushed")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn push_snapshot(
    State(app): State<App>,
    options: RequestOptions,
    JsonBody(request): JsonBody<PushSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Push {
        host: app.host.clone(),
        sandbox: request.sandbox_id,
        name: request.snapshot_name,
        overwrite: request.overwrite,
        compact: request.compact,
    };
    app.run_operation(options, operation).await
}

/// Download a snapshot from the bucket to the host. An existing valid copy is kept.
#[utoipa::path(
    post, path = "/snapshots/pull", tag = "snapshots", request_body = PullSnapshotRequest, params(RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SnapshotPulled")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn pull_snapshot(
    State(app): State<App>,
    options: RequestOptions,
    JsonBody(request): JsonBody<PullSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Pull {
        host: app.host.clone(),
        name: request.snapshot,
        overwrite: request.overwrite,
    };
    app.run_operation(options, operation).await
}

/// Record the digests of a snapshot that has no manifest.
#[utoipa::path(
    post, path = "/snapshots/adopt", tag = "snapshots", request_body = AdoptSnapshotRequest, params(RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SnapshotAdopted")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn adopt_snapshot(
    State(app): State<App>,
    options: RequestOptions,
    JsonBody(request): JsonBody<AdoptSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Adopt {
        host: (!request.bucket).then(|| app.host.clone()),
        name: request.snapshot,
    };
    app.run_operation(options, operation).await
}

/// Read a snapshot and check every block. A bad one is an error (`damaged`).
#[utoipa::path(
    post, path = "/snapshots/verify", tag = "snapshots", request_body = VerifySnapshotRequest, params(RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SnapshotVerified")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn verify_snapshot(
    State(app): State<App>,
    options: RequestOptions,
    JsonBody(request): JsonBody<VerifySnapshotRequest>,
) -> ApiResult {
    if request.bucket && request.repair {
        return Err(Problem::invalid_input(
            "repair: only a snapshot of the host can be repaired, without bucket",
        ));
    }
    let operation = Operation::Verify {
        host: (!request.bucket).then(|| app.host.clone()),
        name: request.snapshot,
        repair: request.repair,
    };
    app.run_operation(options, operation).await
}

/// Upload a snapshot of the host to the bucket under its own name.
#[utoipa::path(
    post, path = "/snapshots/upload", tag = "snapshots", request_body = UploadSnapshotRequest, params(RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SnapshotUploaded")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn upload_snapshot(
    State(app): State<App>,
    options: RequestOptions,
    JsonBody(request): JsonBody<UploadSnapshotRequest>,
) -> ApiResult {
    let operation = Operation::Upload {
        host: app.host.clone(),
        name: request.snapshot,
        overwrite: request.overwrite,
    };
    app.run_operation(options, operation).await
}

/// Copy a snapshot of another host of the settings to the host. An existing valid copy is kept.
#[utoipa::path(
    post, path = "/snapshots/copy", tag = "snapshots", request_body = CopySnapshotRequest, params(RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SnapshotCopied")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn copy_snapshot(
    State(app): State<App>,
    options: RequestOptions,
    JsonBody(request): JsonBody<CopySnapshotRequest>,
) -> ApiResult {
    if !app.engine.is_configured_host(&request.from) {
        let summary = format!("host {} is not configured", request.from);
        return Err(Error::new(Kind::NotFound, summary).into());
    }
    if request.from == app.host {
        let summary = format!("host {} cannot copy from itself", request.from);
        return Err(Error::new(Kind::Conflict, summary).into());
    }
    let operation = Operation::Copy {
        from: request.from,
        host: app.host.clone(),
        name: request.snapshot,
        overwrite: request.overwrite,
    };
    app.run_operation(options, operation).await
}

/// Remove a snapshot from the host, from the bucket, or both. One that is in use is not removed.
#[utoipa::path(
    post, path = "/snapshots/remove", tag = "snapshots", request_body = RemoveSnapshotRequest, params(RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SnapshotRemoved")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn remove_snapshot(
    State(app): State<App>,
    HeaderOptions(options): HeaderOptions,
    request: BodyOrSnapshot<RemoveSnapshotRequest>,
) -> ApiResult {
    let request = match request {
        BodyOrSnapshot::Body(request) => request,
        BodyOrSnapshot::Snapshot(snapshot) => RemoveSnapshotRequest {
            snapshot,
            local: true,
            bucket: false,
        },
    };
    if !(request.local || request.bucket) {
        return Err(Problem::invalid_input(
            "local and bucket are both false: there is nothing to remove",
        ));
    }
    let operation = Operation::Remove {
        host: request.local.then(|| app.host.clone()),
        name: request.snapshot,
        from_bucket: request.bucket,
        expected_identity: None,
    };
    app.run_operation(options, operation).await
}

/// Check whether the host, and the bucket, has a snapshot.
#[utoipa::path(
    get, path = "/snapshots/exists", tag = "snapshots",
    params(("snapshot" = SnapshotName, Query, description = "The snapshot")),
    responses((status = 200, description = "Where the snapshot is", body = SnapshotPresence), CommonErrors, QueryErrors),
)]
pub(crate) async fn snapshot_exists(
    State(app): State<App>,
    SnapshotQuery(name): SnapshotQuery,
) -> ApiResult {
    let (snapshot, object) = app.look_up_snapshot(&name).await;
    let exists = snapshot?.is_some();
    let body = SnapshotPresence {
        name,
        host: app.host.clone(),
        exists,
        local: exists,
        bucket: object.ok().flatten().map(|object| object.is_some()),
    };
    Ok(json_response(StatusCode::OK, &body))
}

/// Show details of a snapshot on the host and in the bucket.
#[utoipa::path(
    get, path = "/snapshots/info", tag = "snapshots",
    params(("snapshot" = SnapshotName, Query, description = "The snapshot")),
    responses((status = 200, description = "The details", body = SnapshotInfo), CommonErrors, QueryErrors),
)]
pub(crate) async fn get_snapshot_info(
    State(app): State<App>,
    SnapshotQuery(name): SnapshotQuery,
) -> ApiResult {
    let (snapshot, object) = app.look_up_snapshot(&name).await;
    let snapshot = snapshot?;
    let object = match object {
        Ok(object) => object.flatten(),
        // The host's details are useful without the bucket's.
        Err(_) if snapshot.is_some() => None,
        Err(error) => return Err(error.into()),
    };
    if snapshot.is_none() && object.is_none() {
        let host = &app.host;
        let message = format!("snapshot {name} not found on host {host} or in the bucket");
        return Err(Problem::not_found(message));
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
    /// Looks a snapshot up on the host and in the bucket; the latter is `None` without a bucket.
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
