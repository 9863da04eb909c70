//! Jobs in the API.

use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{self, ApiResult, CommonErrors, ErrorBody, Problem};
use super::request::{NoFields, NoQuery, OptionalJsonBody};
use super::{App, json_response};
use snapdeck_engine::{JobId, JobState, JobView, error_code};
use snapdeck_model::{Error, HostName, Kind, Outcome, SandboxId, SnapshotName};

/// A job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    /// Number, unique until snapdeck ends.
    id: u64,
    /// Name of the operation: `create`, `push`, `pull`, `remove`, `new`, or a verb such as `start`.
    operation: String,
    /// Operation and subject in one line.
    title: String,
    /// The host.
    host: Option<HostName>,
    /// The sandbox.
    sandbox: Option<SandboxId>,
    /// The snapshot.
    snapshot: Option<SnapshotName>,
    #[serde(flatten)]
    progress: JobProgress,
    /// Start time.
    started_at: Option<Timestamp>,
    /// End time.
    ended_at: Option<Timestamp>,
    /// The result of a finished job.
    result: Option<Outcome>,
    /// The error of a failed or cancelled job.
    error: Option<JobError>,
    /// Log, oldest line first.
    log: Vec<JobLogLine>,
}

/// State and progress of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobProgress {
    /// State.
    pub state: JobStatus,
    /// Current phase: `queued`, `checking`, `pausing`, `converting`, `uploading`, `downloading`, ...
    pub phase: String,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// All bytes of this phase; 0 if unknown.
    pub total_bytes: u64,
    /// Percentage of this phase, below 100 until the job ends; null if unknown.
    pub percent: Option<u8>,
    /// Until when the job waits for its host or the store, which does not answer; null if it does not wait.
    pub waiting_until: Option<Timestamp>,
    /// Bytes of `doneBytes` that went straight between the host and the store, not through this machine.
    pub direct_bytes: u64,
    /// Bytes of `done_bytes` that were not transferred.
    #[serde(skip)]
    pub reused_bytes: u64,
}

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum JobStatus {
    /// In the queue.
    Queued,
    /// Running.
    Running,
    /// Cancelled, cleaning up.
    Cancelling,
    /// Finished successfully.
    Finished,
    /// Cancelled.
    Cancelled,
    /// Failed.
    Failed,
}

impl JobStatus {
    pub(crate) fn from_state(state: &JobState) -> Self {
        match state {
            JobState::Queued => Self::Queued,
            JobState::Running => Self::Running,
            JobState::Cancelling => Self::Cancelling,
            JobState::Finished(_) => Self::Finished,
            JobState::Failed(error) if error.kind() == Kind::Cancelled => Self::Cancelled,
            JobState::Failed(_) => Self::Failed,
        }
    }
}

/// The error of a job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobError {
    /// The status of a call that waited for the job.
    status_code: u16,
    /// Error code, as in ErrorBody.
    code: String,
    /// Description with the cause.
    message: String,
    /// Advice, if known.
    hint: Option<String>,
}

/// A line of a job's log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobLogLine {
    /// Time.
    at: Timestamp,
    /// Text.
    text: String,
    /// Whether it is a warning.
    warning: bool,
}

impl JobProgress {
    pub(crate) fn from_view(job: &JobView) -> Self {
        let progress = job.progress();
        Self {
            state: JobStatus::from_state(&job.state),
            phase: progress.phase.as_str().to_owned(),
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
            percent: progress.percent(),
            waiting_until: progress.wait.map(|wait| wait.until),
            direct_bytes: progress.direct_bytes,
            reused_bytes: progress.reused_bytes,
        }
    }
}

impl JobError {
    pub(crate) fn from_error(error: &Error) -> Self {
        Self {
            status_code: problem::status(error.kind()).as_u16(),
            code: error_code(error.kind()).to_owned(),
            message: error.message(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

impl Job {
    pub(crate) fn from_view(job: &JobView) -> Self {
        let (result, error) = match &job.state {
            JobState::Finished(outcome) => (Some(outcome.clone()), None),
            JobState::Failed(error) => (None, Some(JobError::from_error(error))),
            _ => (None, None),
        };
        Self {
            id: job.id.0,
            operation: job.operation.verb().to_owned(),
            title: job.title(),
            host: job.operation.host().cloned(),
            sandbox: job.operation.sandbox().cloned(),
            snapshot: job.operation.snapshot().cloned(),
            progress: JobProgress::from_view(job),
            started_at: job.started_at.and_then(to_timestamp),
            ended_at: job.ended_at.and_then(to_timestamp),
            result,
            error,
            log: job
                .log
                .iter()
                .map(|line| JobLogLine {
                    at: line.time,
                    text: line.text.clone(),
                    warning: line.is_warning,
                })
                .collect(),
        }
    }
}

fn to_timestamp(time: Instant) -> Option<Timestamp> {
    let age = SignedDuration::try_from(time.elapsed()).ok()?;
    Timestamp::now().checked_sub(age).ok()
}

pub(crate) fn parse_job_id(text: &str) -> Result<JobId, Problem> {
    let not_found = |_| Problem::not_found(format!("there is no job {text}"));
    text.parse().map(JobId).map_err(not_found)
}

pub(crate) fn job_not_found(id: JobId) -> Problem {
    Problem::not_found(format!("there is no job {}", id.0))
}

/// List all jobs, oldest first. The last 200 finished ones are kept.
#[utoipa::path(get, path = "/jobs", tag = "jobs", responses((status = 200, description = "The jobs", body = Vec<Job>), CommonErrors))]
pub(crate) async fn list_jobs(State(app): State<App>, _: NoQuery) -> Response {
    let jobs: Vec<Job> = app
        .engine
        .view()
        .jobs
        .iter()
        .map(|job| Job::from_view(job))
        .collect();
    json_response(StatusCode::OK, &jobs)
}

/// Show a job.
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs",
    params(("id" = u64, Path, description = "Job number")),
    responses((status = 200, description = "The job", body = Job), (status = 404, description = "Unknown job", body = ErrorBody), CommonErrors),
)]
pub(crate) async fn get_job(
    State(app): State<App>,
    Path(id): Path<String>,
    _: NoQuery,
) -> ApiResult {
    let id = parse_job_id(&id)?;
    let view = app.engine.view();
    let job = view.job(id).ok_or_else(|| job_not_found(id))?;
    Ok(json_response(StatusCode::OK, &Job::from_view(job)))
}

/// Cancel a job. Answers at once; the job ends after its cleanup. A job that has ended is unchanged.
#[utoipa::path(
    delete, path = "/jobs/{id}", tag = "jobs",
    params(("id" = u64, Path, description = "Job number")),
    responses(
        (status = 200, description = "The job had ended already", body = Job),
        (status = 202, description = "The job is being cancelled", body = Job),
        (status = 404, description = "Unknown job", body = ErrorBody),
        CommonErrors,
    ),
)]
pub(crate) async fn cancel_job(
    State(app): State<App>,
    Path(id): Path<String>,
    _: NoQuery,
    _: OptionalJsonBody<NoFields>,
) -> ApiResult {
    let id = parse_job_id(&id)?;
    let had_ended = match app.engine.view().job(id) {
        Some(job) => job.state.is_finished(),
        None => return Err(job_not_found(id)),
    };
    app.engine.cancel(id);
    let view = app.engine.view();
    let job = view.job(id).ok_or_else(|| job_not_found(id))?;
    let status = match had_ended {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    Ok(json_response(status, &Job::from_view(job)))
}
