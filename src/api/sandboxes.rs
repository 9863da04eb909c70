//! Sandboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::jobs::Job;
use super::problem::{ApiResult, CommonErrors, JobErrors, Problem, QueryErrors};
use super::request::{
    JsonBody, NoFields, NoQuery, OptionalJsonBody, RequestOptions, default_true,
    deserialize_whole_number,
};
use super::runner::{RunnerFields, Unsupported};
use super::{App, json_response};
use snapdeck_model::{
    Kind, Operation, Result, Sandbox, SandboxId, SandboxSpec, SandboxVerb, SnapshotName, VerbKind,
};

/// Sanity limits.
const MAX_CPUS: u32 = 512;
/// Less is a number in GiB.
const MIN_MEMORY_MIB: u32 = 64;
const MAX_MEMORY_MIB: u32 = 16 << 20;
const MAX_STORAGE_GIB: u32 = 64 << 10;
const MAX_STOP_TIMEOUT_SECS: u32 = 24 * 3600;

/// The sandbox to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateSandboxRequest {
    /// Id of the sandbox.
    id: SandboxId,
    /// The snapshot it is based on; pulled first if the host has none of that name and the bucket has.
    snapshot: SnapshotName,
    /// Virtual CPUs; default: `cpus` of the settings.
    #[serde(default, deserialize_with = "deserialize_whole_number")]
    #[schema(minimum = 1, maximum = 512)]
    cpu_quota: Option<u32>,
    /// Memory in MiB; default: `memory_mib` of the settings.
    #[serde(default, deserialize_with = "deserialize_whole_number")]
    #[schema(minimum = 64, maximum = 16777216)]
    memory_quota: Option<u32>,
    /// Disk size in GiB; default: that of the snapshot.
    #[serde(default, deserialize_with = "deserialize_whole_number")]
    #[schema(minimum = 1, maximum = 65536)]
    storage_quota: Option<u32>,
    /// Start it; if that fails, the sandbox is removed.
    #[serde(default = "default_true")]
    start: bool,
    /// Give it no network, whatever the settings say.
    #[serde(default)]
    network_block_all: Option<bool>,
    // Clients of the runner send these; they have no effect there either.
    #[schema(ignore)]
    #[serde(rename = "userId", default)]
    _user_id: Option<String>,
    #[schema(ignore)]
    #[serde(rename = "osUser", default)]
    _os_user: Option<String>,
    #[schema(ignore)]
    #[serde(rename = "metadata", default)]
    _metadata: Option<BTreeMap<String, String>>,
    // And these, which would have one.
    #[schema(ignore)]
    #[serde(rename = "gpuQuota", default)]
    _gpu_quota: Unsupported,
    #[schema(ignore)]
    #[serde(rename = "env", default)]
    _env: Unsupported,
    #[schema(ignore)]
    #[serde(rename = "entrypoint", default)]
    _entrypoint: Unsupported,
    #[schema(ignore)]
    #[serde(rename = "registry", default)]
    _registry: Unsupported,
    #[schema(ignore)]
    #[serde(rename = "volumes", default)]
    _volumes: Unsupported,
    #[schema(ignore)]
    #[serde(rename = "fromVolumeId", default)]
    _from_volume_id: Unsupported,
    #[schema(ignore)]
    #[serde(rename = "networkAllowList", default)]
    _network_allow_list: Unsupported,
}

/// Options of a stop.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct StopSandboxRequest {
    /// Seconds to wait for the guest; default: `stop_timeout_secs` of the settings.
    #[serde(default, deserialize_with = "deserialize_whole_number")]
    #[schema(minimum = 0, maximum = 86400)]
    timeout: Option<u32>,
    /// Force it off: after `timeout`, or at once without one.
    #[serde(default)]
    force: bool,
}

/// Options of a restart.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RestartSandboxRequest {
    /// Seconds to wait for the guest; default: `stop_timeout_secs` of the settings.
    #[serde(default, deserialize_with = "deserialize_whole_number")]
    #[schema(minimum = 0, maximum = 86400)]
    timeout: Option<u32>,
    /// Force it off after that time.
    #[serde(default)]
    force: bool,
}

/// Whether a sandbox starts with its host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AutostartRequest {
    /// Whether it starts.
    enabled: bool,
}

/// The new id of a sandbox.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RenameSandboxRequest {
    /// The new id.
    new_id: SandboxId,
}

/// The clone of a sandbox.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CloneSandboxRequest {
    /// Id of the clone.
    new_id: SandboxId,
    /// Start it; if that fails, it is removed.
    #[serde(default)]
    start: bool,
}

/// CPUs and memory of a sandbox, at least one of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SetSandboxRequest {
    /// Virtual CPUs; default: unchanged.
    #[serde(default, deserialize_with = "deserialize_whole_number")]
    #[schema(minimum = 1, maximum = 512)]
    cpu_quota: Option<u32>,
    /// Memory in MiB; default: unchanged.
    #[serde(default, deserialize_with = "deserialize_whole_number")]
    #[schema(minimum = 64, maximum = 16777216)]
    memory_quota: Option<u32>,
}

impl SetSandboxRequest {
    fn into_verb(self) -> Result<SandboxVerb, Problem> {
        let (cpus, memory_bytes) = check_size(self.cpu_quota, self.memory_quota)?;
        Ok(SandboxVerb::Set { cpus, memory_bytes })
    }
}

/// Returns CPUs, and memory in bytes, if both are within the limits.
fn check_size(
    cpu_quota: Option<u32>,
    memory_quota: Option<u32>,
) -> Result<(Option<u32>, Option<u64>), Problem> {
    let cpus = check_range("cpuQuota", cpu_quota, 1, MAX_CPUS)?;
    let memory_mib = check_range("memoryQuota", memory_quota, MIN_MEMORY_MIB, MAX_MEMORY_MIB)
        .map_err(|problem| problem.hint("its unit is MiB: 4096 are 4 GiB"))?;
    Ok((cpus, memory_mib.map(|mib| u64::from(mib) << 20)))
}

impl CreateSandboxRequest {
    fn into_spec(self) -> Result<(SandboxId, SandboxSpec), Problem> {
        let (cpus, memory_bytes) = check_size(self.cpu_quota, self.memory_quota)?;
        Ok((
            self.id,
            SandboxSpec {
                snapshot: self.snapshot,
                cpus,
                memory_bytes,
                storage_bytes: check_range("storageQuota", self.storage_quota, 1, MAX_STORAGE_GIB)?
                    .map(|gib| u64::from(gib) << 30),
                start: self.start,
                block_network: self.network_block_all == Some(true),
                accept_existing: true,
            },
        ))
    }
}

impl StopSandboxRequest {
    fn into_verb(self) -> Result<SandboxVerb, Problem> {
        let force = self.force;
        Ok(match check_timeout(self.timeout)? {
            None if force => SandboxVerb::ForceOff,
            timeout => SandboxVerb::Stop { timeout, force },
        })
    }
}

fn check_timeout(secs: Option<u32>) -> Result<Option<Duration>, Problem> {
    let secs = check_range("timeout", secs, 0, MAX_STOP_TIMEOUT_SECS)?;
    Ok(secs.map(|secs| Duration::from_secs(secs.into())))
}

fn check_range(
    field: &str,
    value: Option<u32>,
    min: u32,
    max: u32,
) -> Result<Option<u32>, Problem> {
    match value {
        Some(value) if !(min..=max).contains(&value) => Err(Problem::invalid_input(format!(
            "{field}: {value} is not between {min} and {max}"
        ))),
        value => Ok(value),
    }
}

/// A sandbox, with the fields of the runner.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SandboxInfo {
    #[serde(flatten)]
    sandbox: Sandbox,
    #[serde(flatten)]
    fields: RunnerFields,
}

impl SandboxInfo {
    fn new(sandbox: Sandbox) -> Self {
        let fields = RunnerFields::new(Some(sandbox.state));
        Self { sandbox, fields }
    }
}

/// List the sandboxes of the host.
#[utoipa::path(
    get, path = "/sandboxes", tag = "sandboxes",
    responses((status = 200, description = "The sandboxes", body = Vec<SandboxInfo>), CommonErrors, QueryErrors),
)]
pub(crate) async fn list_sandboxes(State(app): State<App>, _: NoQuery) -> ApiResult {
    let sandboxes = app.engine.sandboxes(&app.host).await?.into_iter();
    let sandboxes: Vec<SandboxInfo> = sandboxes.map(SandboxInfo::new).collect();
    Ok(json_response(StatusCode::OK, &sandboxes))
}

/// Show a sandbox.
#[utoipa::path(
    get, path = "/sandboxes/{id}", tag = "sandboxes",
    params(("id" = SandboxId, Path, description = "Sandbox id")),
    responses(
        (status = 200, description = "The sandbox", body = SandboxInfo),
        (status = 409, description = "A domain of that name is not a sandbox", body = super::problem::ErrorBody),
        CommonErrors, QueryErrors,
    ),
)]
pub(crate) async fn get_sandbox(
    State(app): State<App>,
    Path(id): Path<String>,
    _: NoQuery,
) -> ApiResult {
    let sandbox = app.engine.sandbox(&app.host, &id.parse()?).await?;
    Ok(json_response(StatusCode::OK, &SandboxInfo::new(sandbox)))
}

/// The domain XML of a sandbox.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DomainXml {
    /// The sandbox.
    id: SandboxId,
    /// The XML as libvirt has it, without passwords.
    xml: String,
}

/// Show the domain XML of a sandbox.
#[utoipa::path(
    get, path = "/sandboxes/{id}/xml", tag = "sandboxes",
    params(("id" = SandboxId, Path, description = "Sandbox id")),
    responses(
        (status = 200, description = "The domain XML", body = DomainXml),
        (status = 409, description = "A domain of that name is not a sandbox", body = super::problem::ErrorBody),
        CommonErrors, QueryErrors,
    ),
)]
pub(crate) async fn get_domain_xml(
    State(app): State<App>,
    Path(id): Path<String>,
    _: NoQuery,
) -> ApiResult {
    let id = id.parse()?;
    let xml = app.engine.domain_xml(&app.host, &id).await?;
    Ok(json_response(StatusCode::OK, &DomainXml { id, xml }))
}

/// Create a sandbox from a snapshot, and start it. One of that id with the same properties is left as it is.
#[utoipa::path(
    post, path = "/sandboxes", tag = "sandboxes", request_body = CreateSandboxRequest, params(RequestOptions),
    responses(
        (status = 200, description = "It exists with the same properties", body = ref("#/components/schemas/CreatedSandbox"),
         headers(("Location" = String, description = "Path of the sandbox"))),
        (status = 201, description = "Created", body = ref("#/components/schemas/CreatedSandbox"),
         headers(("Location" = String, description = "Path of the sandbox"))),
        (status = 202, description = "Accepted: the job runs in the background", body = Job),
        CommonErrors, JobErrors,
    ),
)]
pub(crate) async fn create_sandbox(
    State(app): State<App>,
    options: RequestOptions,
    JsonBody(request): JsonBody<CreateSandboxRequest>,
) -> ApiResult {
    let (id, spec) = request.into_spec()?;
    let host = app.host.clone();
    // A sandbox that exists needs no image.
    let pull = match app.engine.sandbox(&host, &id).await {
        Err(error) if error.kind() == Kind::NotFound => app.pull_if_missing(&spec.snapshot).await?,
        _ => None,
    };
    let create = Operation::CreateSandbox { host, id, spec };
    app.run_chain(options, pull.into_iter().collect(), create)
        .await
}

impl App {
    /// Returns the pull of a snapshot that only the bucket has.
    async fn pull_if_missing(&self, name: &SnapshotName) -> Result<Option<Operation>> {
        if self.engine.settings().bucket.name.is_none()
            || self.engine.snapshot(&self.host, name).await?.is_some()
            || self.engine.object(name).await?.is_none()
        {
            return Ok(None);
        }
        Ok(Some(Operation::Pull {
            host: self.host.clone(),
            name: name.clone(),
            overwrite: false,
        }))
    }
}

#[utoipa::path(
    post, path = "/sandboxes/{id}/stop", tag = "sandboxes", summary = SandboxVerb::STOP.effect(), request_body = Option<StopSandboxRequest>,
    params(("id" = SandboxId, Path, description = "Sandbox id"), RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/ChangedSandbox")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn stop_sandbox(
    State(app): State<App>,
    Path(id): Path<String>,
    options: RequestOptions,
    OptionalJsonBody(request): OptionalJsonBody<StopSandboxRequest>,
) -> ApiResult {
    run_verb(app, id, options, request.into_verb()?).await
}

#[utoipa::path(
    post, path = "/sandboxes/{id}/restart", tag = "sandboxes", summary = SandboxVerb::RESTART.effect(), request_body = Option<RestartSandboxRequest>,
    params(("id" = SandboxId, Path, description = "Sandbox id"), RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/ChangedSandbox")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn restart_sandbox(
    State(app): State<App>,
    Path(id): Path<String>,
    options: RequestOptions,
    OptionalJsonBody(request): OptionalJsonBody<RestartSandboxRequest>,
) -> ApiResult {
    let (timeout, force) = (check_timeout(request.timeout)?, request.force);
    run_verb(app, id, options, SandboxVerb::Restart { timeout, force }).await
}

/// Choose whether a sandbox starts with its host.
#[utoipa::path(
    post, path = "/sandboxes/{id}/autostart", tag = "sandboxes", request_body = AutostartRequest,
    params(("id" = SandboxId, Path, description = "Sandbox id"), RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SandboxConfigured")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn set_autostart(
    State(app): State<App>,
    Path(id): Path<String>,
    options: RequestOptions,
    JsonBody(AutostartRequest { enabled }): JsonBody<AutostartRequest>,
) -> ApiResult {
    run_verb(app, id, options, SandboxVerb::Autostart { enabled }).await
}

#[utoipa::path(
    post, path = "/sandboxes/{id}/set", tag = "sandboxes", summary = VerbKind::Set.effect(), request_body = SetSandboxRequest,
    params(("id" = SandboxId, Path, description = "Sandbox id"), RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SandboxConfigured")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn set_sandbox(
    State(app): State<App>,
    Path(id): Path<String>,
    options: RequestOptions,
    JsonBody(request): JsonBody<SetSandboxRequest>,
) -> ApiResult {
    run_verb(app, id, options, request.into_verb()?).await
}

#[utoipa::path(
    post, path = "/sandboxes/{id}/rename", tag = "sandboxes", summary = VerbKind::Rename.effect(), request_body = RenameSandboxRequest,
    params(("id" = SandboxId, Path, description = "Sandbox id"), RequestOptions),
    responses((status = 200, description = "The result", body = ref("#/components/schemas/SandboxRenamed")), (status = 202, description = "Accepted: the job runs in the background", body = Job), CommonErrors, JobErrors),
)]
pub(crate) async fn rename_sandbox(
    State(app): State<App>,
    Path(id): Path<String>,
    options: RequestOptions,
    JsonBody(RenameSandboxRequest { new_id }): JsonBody<RenameSandboxRequest>,
) -> ApiResult {
    let (id, host) = (id.parse()?, app.host.clone());
    app.run_operation(options, Operation::RenameSandbox { host, id, new_id })
        .await
}

#[utoipa::path(
    post, path = "/sandboxes/{id}/clone", tag = "sandboxes", summary = VerbKind::Clone.effect(), request_body = CloneSandboxRequest,
    params(("id" = SandboxId, Path, description = "Sandbox id"), RequestOptions),
    responses(
        (status = 201, description = "Created", body = ref("#/components/schemas/CreatedSandbox"),
         headers(("Location" = String, description = "Path of the sandbox"))),
        (status = 202, description = "Accepted: the job runs in the background", body = Job),
        CommonErrors, JobErrors,
    ),
)]
pub(crate) async fn clone_sandbox(
    State(app): State<App>,
    Path(id): Path<String>,
    options: RequestOptions,
    JsonBody(CloneSandboxRequest { new_id, start }): JsonBody<CloneSandboxRequest>,
) -> ApiResult {
    let clone = Operation::CloneSandbox {
        host: app.host.clone(),
        id: id.parse()?,
        new_id,
        start,
    };
    app.run_operation(options, clone).await
}

async fn run_verb(app: App, id: String, options: RequestOptions, verb: SandboxVerb) -> ApiResult {
    let id = id.parse()?;
    let host = app.host.clone();
    app.run_operation(options, Operation::Sandbox { host, id, verb })
        .await
}

/// Defines the handler of a verb without parameters.
macro_rules! verb {
    ($name:ident, $method:ident, $path:literal, $verb:expr) => {
        #[utoipa::path(
            $method, path = $path, tag = "sandboxes", summary = $verb.effect(),
            params(("id" = SandboxId, Path, description = "Sandbox id"), RequestOptions),
            responses(
                (status = 200, description = "The result", body = ref("#/components/schemas/ChangedSandbox")),
                (status = 202, description = "Accepted: the job runs in the background", body = Job),
                CommonErrors, JobErrors,
            ),
        )]
        pub(super) async fn $name(
            State(app): State<App>,
            Path(id): Path<String>,
            options: RequestOptions,
            _: OptionalJsonBody<NoFields>,
        ) -> ApiResult {
            run_verb(app, id, options, $verb).await
        }
    };
}

verb!(
    start_sandbox,
    post,
    "/sandboxes/{id}/start",
    SandboxVerb::Start
);
verb!(
    reset_sandbox,
    post,
    "/sandboxes/{id}/reset",
    SandboxVerb::Reset
);
verb!(
    pause_sandbox,
    post,
    "/sandboxes/{id}/pause",
    SandboxVerb::Pause
);
verb!(
    resume_sandbox,
    post,
    "/sandboxes/{id}/resume",
    SandboxVerb::Resume
);
verb!(
    save_sandbox,
    post,
    "/sandboxes/{id}/save",
    SandboxVerb::Save
);
verb!(
    restore_sandbox,
    post,
    "/sandboxes/{id}/restore",
    SandboxVerb::Restore
);
verb!(
    destroy_sandbox,
    post,
    "/sandboxes/{id}/destroy",
    SandboxVerb::Destroy
);
verb!(
    delete_sandbox,
    delete,
    "/sandboxes/{id}",
    SandboxVerb::Destroy
);
