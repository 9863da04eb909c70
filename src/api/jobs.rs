//! Jobs as the API tells them.

use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{self, ApiResult, CommonErrors, ErrorBody, Problem};
use super::{App, json_response};
use snapdeck_engine::{JobId, JobState, JobView, error_code};
use snapdeck_model::{HostName, Kind, Outcome, SandboxId, SnapshotName};

/// A job: one operation, waiting, running or over.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Job {
    /// Its number, unique until snapdeck ends.
    id: u64,
    /// The operation's word: `create`, `push`, `pull`, `remove`, `new`, or that of the sandbox's verb.
    operation: String,
    /// The same in one line.
    title: String,
    /// The host it works on.
    host: Option<HostName>,
    /// The sandbox it is about.
    sandbox: Option<SandboxId>,
    /// The snapshot it is about.
    snapshot: Option<SnapshotName>,
    /// Where it stands, and how far it is.
    #[serde(flatten)]
    progress: JobProgress,
    /// When it began to run.
    started_at: Option<Timestamp>,
    /// When it was over.
    ended_at: Option<Timestamp>,
    /// What came of it, once it is done.
    result: Option<Outcome>,
    /// Why it ended otherwise.
    error: Option<JobError>,
    /// Its own log, oldest line first.
    log: Vec<JobLogLine>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobProgress {
    /// Where it stands.
    pub state: JobStatus,
    /// What it is doing: `queued`, `checking`, `pausing`, `converting`, `uploading`, `downloading`, ...
    pub phase: String,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// Bytes of this phase in all; 0 where not known.
    pub total_bytes: u64,
    /// Hundredths done of this phase, under 100 until the job is over; null where not known.
    pub percent: Option<u8>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum JobStatus {
    /// Waits for its turn.
    Queued,
    /// Runs.
    Running,
    /// Was told to stop and cleans up.
    Cancelling,
    /// Ended well.
    Finished,
    /// Was cancelled.
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

/// Why a job ended otherwise than well.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobError {
    /// The status that a call which waited for it got.
    status_code: u16,
    /// What sort of failure it is, as in Error.
    code: String,
    /// What failed, on what, and why.
    message: String,
    /// What to do about it, if that is known.
    hint: Option<String>,
}

/// One line of a job's log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobLogLine {
    /// When.
    at: Timestamp,
    /// What.
    text: String,
    /// Is it something to heed?
    warning: bool,
}

impl JobProgress {
    /// Of a job, now.
    pub(crate) fn from_view(job: &JobView) -> Self {
        let progress = job.progress();
        Self {
            state: JobStatus::from_state(&job.state),
            phase: progress.phase.as_str().to_owned(),
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
            percent: progress.percent(),
        }
    }
}

impl Job {
    /// Of a job, now.
    pub(crate) fn from_view(job: &JobView) -> Self {
        let (result, error) = match &job.state {
            JobState::Finished(outcome) => (Some(outcome.clone()), None),
            JobState::Failed(error) => {
                let error = JobError {
                    status_code: problem::status(error.kind()).as_u16(),
                    code: error_code(error.kind()).to_owned(),
                    message: error.message(),
                    hint: error.hint_text().map(str::to_owned),
                };
                (None, Some(error))
            }
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

/// The time of a moment of this process.
fn to_timestamp(at: Instant) -> Option<Timestamp> {
    let ago = SignedDuration::try_from(at.elapsed()).ok()?;
    Timestamp::now().checked_sub(ago).ok()
}

/// The number in a path; what is none is no job's.
pub(crate) fn parse_job_id(text: &str) -> Result<JobId, Problem> {
    let unknown = || Problem::not_found(format!("there is no job {text}"));
    text.parse().map(JobId).map_err(|_| unknown())
}

pub(crate) fn job_not_found(id: JobId) -> Problem {
    Problem::not_found(format!("there is no job {}", id.0))
}

/// All jobs, oldest first. Of those that are over the last 200 are kept.
#[utoipa::path(get, path = "/jobs", tag = "jobs", responses((status = 200, body = Vec<Job>), CommonErrors))]
pub(crate) async fn list_jobs(State(app): State<App>) -> Response {
    let jobs: Vec<Job> = app
        .engine
        .view()
        .jobs
        .iter()
        .map(|job| Job::from_view(job))
        .collect();
    json_response(StatusCode::OK, &jobs)
}

/// One job.
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs",
    params(("id" = u64, Path, description = "Its number")),
    responses((status = 200, body = Job), (status = 404, description = "There is no such job", body = ErrorBody), CommonErrors),
)]
pub(crate) async fn get_job(State(app): State<App>, Path(id): Path<String>) -> ApiResult {
    let id = parse_job_id(&id)?;
    let view = app.engine.view();
    let job = view.job(id).ok_or_else(|| job_not_found(id))?;
    Ok(json_response(StatusCode::OK, &Job::from_view(job)))
}

/// Cancel a job. Its clean-up is a part of it: the answer tells how it stands now. One that is over stays as it is.
#[utoipa::path(
    delete, path = "/jobs/{id}", tag = "jobs",
    params(("id" = u64, Path, description = "Its number")),
    responses(
        (status = 200, description = "It was over already", body = Job),
        (status = 202, description = "It was told to stop", body = Job),
        (status = 404, description = "There is no such job", body = ErrorBody),
        CommonErrors,
    ),
)]
pub(crate) async fn cancel_job(State(app): State<App>, Path(id): Path<String>) -> ApiResult {
    let id = parse_job_id(&id)?;
    let was_over = match app.engine.view().job(id) {
        Some(job) => job.state.is_finished(),
        None => return Err(job_not_found(id)),
    };
    app.engine.cancel(id);
    let view = app.engine.view();
    let job = view.job(id).ok_or_else(|| job_not_found(id))?;
    let status = match was_over {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    Ok(json_response(status, &Job::from_view(job)))
}
