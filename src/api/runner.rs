//! Words and routes of the runner whose API this one follows (docs/api-compat.md).

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::problem::{ApiResult, CommonErrors, Problem, QueryErrors};
use super::request::NoQuery;
use super::{App, json_response};
use snapdeck_engine::{HostView, Link};
use snapdeck_model::{HostLoad, HostName, Kind, Outcome, SandboxState};

/// A path that never needs a token.
pub(crate) const ROOT: &str = "/";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Time for the two samples of the CPU use.
const LOAD_TIMEOUT: Duration = Duration::from_secs(4);
/// The load of the host is sampled for that long after a request.
const LOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const GIB: u64 = 1 << 30;

/// State of a sandbox in the runner's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunnerState {
    /// Running.
    Started,
    /// Shut off, saved, paused or suspended.
    Stopped,
    /// Crashed.
    Error,
    /// It does not exist any more.
    Destroyed,
}

impl RunnerState {
    fn from_state(state: Option<SandboxState>) -> Self {
        match state {
            Some(SandboxState::Running) => Self::Started,
            Some(
                SandboxState::ShutOff
                | SandboxState::Saved
                | SandboxState::Paused
                | SandboxState::Suspended,
            ) => Self::Stopped,
            Some(SandboxState::Crashed) => Self::Error,
            None => Self::Destroyed,
        }
    }
}

/// Fields of a sandbox in the API of the runner.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunnerFields {
    /// State in the runner's words.
    runner_state: RunnerState,
    /// Version of snapdeck: there is no daemon in the guest.
    daemon_version: String,
}

impl RunnerFields {
    /// Returns the fields of a sandbox in `state`; `None`: it was destroyed.
    pub(crate) fn new(state: Option<SandboxState>) -> Self {
        Self {
            runner_state: RunnerState::from_state(state),
            daemon_version: VERSION.to_owned(),
        }
    }
}

/// The outcome of a call that creates or changes a sandbox, with the fields of the runner.
#[derive(Debug, Serialize)]
struct SandboxOutcome<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    #[serde(flatten)]
    fields: RunnerFields,
}

/// Returns the response to a call that creates or changes a sandbox; `None` for other outcomes.
pub(crate) fn sandbox_response(outcome: &Outcome) -> Option<Response> {
    let (status, state) = match outcome {
        Outcome::SandboxCreated {
            sandbox, changed, ..
        } => match changed {
            true => (StatusCode::CREATED, Some(sandbox.state)),
            false => (StatusCode::OK, Some(sandbox.state)),
        },
        Outcome::SandboxChanged { state, .. } => (StatusCode::OK, *state),
        _ => return None,
    };
    let fields = RunnerFields::new(state);
    Some(json_response(status, &SandboxOutcome { outcome, fields }))
}

/// A field of the runner's requests that has no meaning here: only an empty value is accepted.
#[derive(Debug, Default)]
pub(crate) struct Unsupported;

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let is_empty = match Value::deserialize(from)? {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) => false,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
        };
        match is_empty {
            true => Ok(Self),
            false => Err(D::Error::custom("it is not supported: leave it out")),
        }
    }
}

/// The server is running.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServerStatus {
    /// `ok`.
    status: String,
    /// Version of snapdeck.
    version: String,
}

/// Check that the server is running. Needs no token.
#[utoipa::path(
    get, path = ROOT, tag = "service", security(()),
    responses((status = 200, description = "It is running", body = ServerStatus)),
)]
pub(crate) async fn get_status() -> Response {
    let body = ServerStatus {
        status: "ok".to_owned(),
        version: VERSION.to_owned(),
    };
    json_response(StatusCode::OK, &body)
}

/// The host and its load.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostInfo {
    /// The host of this API.
    host: HostName,
    /// Version of snapdeck.
    version: String,
    /// Same as `version`.
    app_version: String,
    /// The load.
    metrics: HostMetrics,
}

/// Load of the host. Percentages are of the whole host; null: unknown.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostMetrics {
    /// CPUs in use, in percent.
    current_cpu_usage_percentage: Option<f64>,
    /// Memory in use, in percent.
    current_memory_usage_percentage: Option<f64>,
    /// Use of the file system of the snapshots directory, in percent.
    current_disk_usage_percentage: Option<f64>,
    /// Virtual CPUs of the sandboxes that have a process.
    current_allocated_cpu: u64,
    /// Memory of the sandboxes that have a process, in GiB.
    #[serde(rename = "currentAllocatedMemoryGiB")]
    current_allocated_memory_gib: u64,
    /// Disk sizes of all sandboxes, in GiB.
    #[serde(rename = "currentAllocatedDiskGiB")]
    current_allocated_disk_gib: u64,
    /// Snapshots on the host.
    current_snapshot_count: u64,
    /// Logical CPUs.
    cpus: Option<u32>,
    /// Installed memory in bytes.
    memory_total_bytes: Option<u64>,
    /// Memory in use in bytes, without the page cache.
    memory_used_bytes: Option<u64>,
    /// Size of the file system of the snapshots directory in bytes.
    disk_total_bytes: Option<u64>,
    /// Free bytes of that file system.
    disk_free_bytes: Option<u64>,
}

impl HostMetrics {
    fn new(host: &HostView, load: Option<HostLoad>) -> Self {
        let percentage =
            |used: u64, total: u64| (total > 0).then(|| used as f64 * 100.0 / total as f64);
        let sandboxes = || host.sandboxes.iter();
        let active = || sandboxes().filter(|sandbox| sandbox.state.is_active());
        let disk_bytes = sandboxes().filter_map(|sandbox| {
            let overlay = sandbox.chain.first()?;
            Some(overlay.facts.as_ref()?.virtual_size)
        });
        let disk =
            load.and_then(|load| Some((load.snapshots_free_bytes?, load.snapshots_total_bytes?)));
        Self {
            current_cpu_usage_percentage: load
                .and_then(|load| load.cpu_permille)
                .map(|permille| f64::from(permille) / 10.0),
            current_memory_usage_percentage: load
                .and_then(|load| percentage(load.memory_used_bytes, load.memory_total_bytes)),
            current_disk_usage_percentage: disk
                .and_then(|(free, total)| percentage(total.saturating_sub(free), total)),
            current_allocated_cpu: active().map(|sandbox| u64::from(sandbox.cpus)).sum(),
            current_allocated_memory_gib: active()
                .map(|sandbox| sandbox.memory_bytes)
                .fold(0, u64::saturating_add)
                / GIB,
            current_allocated_disk_gib: disk_bytes.fold(0, u64::saturating_add) / GIB,
            current_snapshot_count: host.snapshots.len() as u64,
            cpus: load.map(|load| load.cpus),
            memory_total_bytes: load.map(|load| load.memory_total_bytes),
            memory_used_bytes: load.map(|load| load.memory_used_bytes),
            disk_total_bytes: disk.map(|(_, total)| total),
            disk_free_bytes: disk.map(|(free, _)| free),
        }
    }
}

/// Show version and load of the host, and how much of it the sandboxes have.
#[utoipa::path(
    get, path = "/info", tag = "service",
    responses((status = 200, description = "The host and its load", body = HostInfo), CommonErrors, QueryErrors),
)]
pub(crate) async fn get_host_info(State(app): State<App>, _: NoQuery) -> ApiResult {
    let _wait = app.begin_wait()?;
    let load = app.sample_load().await;
    let view = app.engine.view();
    let host = view.host(&app.host).filter(|host| host.link == Link::Up);
    let host = host.ok_or_else(|| {
        let message = format!("host {} does not answer", app.host);
        Problem::from(snapdeck_model::Error::new(Kind::Unreachable, message))
    })?;
    let body = HostInfo {
        host: app.host.clone(),
        version: VERSION.to_owned(),
        app_version: VERSION.to_owned(),
        metrics: HostMetrics::new(host, load),
    };
    Ok(json_response(StatusCode::OK, &body))
}

impl App {
    /// Returns the load of the host, with the CPU use if it is known in time.
    async fn sample_load(&self) -> Option<HostLoad> {
        self.load_requests.notify_one();
        let mut loads = self.engine.host_loads();
        let is_complete = |load: &HostLoad| load.cpu_permille.is_some();
        let complete = loads.wait_for(|loads| loads.get(&self.host).is_some_and(is_complete));
        // Without it, the rest is shown.
        let _ = timeout(LOAD_TIMEOUT, complete).await;
        loads.borrow().get(&self.host).copied()
    }

    /// Samples the load of the host while it is requested.
    pub(crate) async fn watch_load(&self) {
        loop {
            self.load_requests.notified().await;
            self.engine.watch_host_load(true);
            let request = || timeout(LOAD_IDLE_TIMEOUT, self.load_requests.notified());
            while request().await.is_ok() {}
            self.engine.watch_host_load(false);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn states_have_the_words_of_the_runner() {
        use SandboxState::{Crashed, Paused, Running, Saved, ShutOff, Suspended};
        for (states, word) in [
            (&[Running][..], "started"),
            (&[ShutOff, Saved, Paused, Suspended], "stopped"),
            (&[Crashed], "error"),
        ] {
            for state in states {
                let json = serde_json::to_value(RunnerFields::new(Some(*state))).unwrap();
                assert_eq!(json["runnerState"], word, "{state:?}");
                assert_eq!(json["daemonVersion"], VERSION);
            }
        }
        let gone = RunnerFields::new(None);
        assert_eq!(gone.runner_state, RunnerState::Destroyed);
    }

    #[test]
    fn only_empty_values_are_accepted_of_what_is_not_supported() {
        let parse = |json: &str| serde_json::from_str::<Unsupported>(json);
        for json in ["null", "false", "0", "0.0", "\"\"", "[]", "{}"] {
            assert!(parse(json).is_ok(), "{json}");
        }
        for json in ["true", "1", "-0.5", "\"a\"", "[null]", "{\"a\": null}"] {
            assert!(parse(json).is_err(), "{json}");
        }
    }
}
