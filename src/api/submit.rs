//! Submits operations as jobs and responds with their outcomes.

use std::sync::PoisonError;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;

use super::problem::{ApiResult, Problem};
use super::request::RequestOptions;
use super::runner::sandbox_response;
use super::{App, jobs, json_response};
use snapdeck_engine::JobId;
use snapdeck_model::{Error, Kind, Operation, Outcome};

const MAX_ACTIVE_JOBS: usize = 256;
/// Fewer than there are places for authorized connections: others are still served.
pub(crate) const MAX_WAITS: usize = 256;

impl App {
    /// Runs an operation as a job; waits for its outcome as long as `options` demand. The job continues if the caller
    /// disconnects.
    pub(crate) async fn run_operation(
        &self,
        options: RequestOptions,
        operation: Operation,
    ) -> ApiResult {
        self.run_chain(options, Vec::new(), operation).await
    }

    /// As [`App::run_operation`], after the jobs of `earlier`; the first failure ends the chain.
    pub(crate) async fn run_chain(
        &self,
        options: RequestOptions,
        earlier: Vec<Operation>,
        operation: Operation,
    ) -> ApiResult {
        // Before the job is submitted, so that a refused call changes nothing.
        let _wait = match options.wait {
            Some(Duration::ZERO) => None,
            _ => Some(self.begin_wait()?),
        };
        let id = self.submit_jobs(options.key, earlier, operation)?;
        let result = match options.wait {
            None => Some(self.engine.wait(id).await),
            Some(Duration::ZERO) => None,
            Some(wait) => tokio::time::timeout(wait, self.engine.wait(id)).await.ok(),
        };
        match result {
            Some(Ok(outcome)) => Ok(self.outcome_response(&outcome)),
            Some(Err(error))
                if error.kind() == Kind::NotFound && self.engine.view().job(id).is_none() =>
            {
                Err(Problem::key_expired())
            }
            Some(Err(error)) if error.kind() == Kind::Cancelled && self.shutdown.is_cancelled() => {
                Err(Problem::shutting_down(
                    match self.engine.resumes_unattended(id) {
                        true => "snapdeck is shutting down; the job is resumed at the next start",
                        false => "snapdeck is shutting down; the job was cancelled",
                    },
                ))
            }
            Some(Err(error)) => Err(error.into()),
            None => self.accepted_response(id),
        }
    }

    /// Returns a permit to wait for a job, to be held meanwhile.
    pub(crate) fn begin_wait(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let permit = self.waits.clone().try_acquire_owned();
        permit.map_err(|_| Problem::too_many_waits(MAX_WAITS))
    }

    /// Submits a chain of jobs; returns the id of the last one.
    fn submit_jobs(
        &self,
        key: Option<String>,
        earlier: Vec<Operation>,
        operation: Operation,
    ) -> Result<JobId, Problem> {
        // Locked during the submission, so that of two requests with one key only one is submitted.
        let mut keys = self
            .idempotency_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &key
            && let Some(job) = keys.find(key, &operation)?
        {
            return Ok(job);
        }
        if self.shutdown.is_cancelled() {
            return Err(Problem::shutting_down(
                "snapdeck is shutting down and accepts no jobs",
            ));
        }
        self.refuse_too_many_jobs()?;
        let id = match earlier.is_empty() {
            true => self.engine.submit(operation.clone())?,
            false => {
                let chain = earlier.into_iter().chain([operation.clone()]);
                let jobs = self.engine.submit_chain(chain.collect())?;
                *jobs.last().ok_or_else(Problem::key_expired)?
            }
        };
        if let Some(key) = key {
            keys.insert(key, operation, id);
        }
        Ok(id)
    }

    /// Fails if no more jobs are accepted now.
    pub(crate) fn refuse_too_many_jobs(&self) -> Result<(), Problem> {
        let view = self.engine.view();
        let jobs = view.jobs.iter();
        let active = jobs.filter(|job| !job.state.is_finished()).count();
        match active >= MAX_ACTIVE_JOBS {
            true => Err(Problem::busy(active)),
            false => Ok(()),
        }
    }

    /// Runs work that is not a job, and continues it if the caller disconnects.
    pub(crate) async fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let wait = self.begin_wait()?;
        let task = tokio::spawn(async move {
            let _wait = wait;
            work.await
        });
        task.await.map_err(|crash| {
            Error::new(Kind::Failed, "the call crashed inside snapdeck")
                .with_cause(crash)
                .into()
        })
    }

    fn outcome_response(&self, outcome: &Outcome) -> Response {
        let Some(mut response) = sandbox_response(outcome) else {
            return json_response(StatusCode::OK, outcome);
        };
        if let Outcome::SandboxCreated { sandbox, .. } = outcome {
            set_location(&mut response, &format!("/sandboxes/{}", sandbox.id));
        }
        response
    }

    fn accepted_response(&self, id: JobId) -> ApiResult {
        let view = self.engine.view();
        let job = view.job(id).ok_or_else(Problem::key_expired)?;
        let mut response = json_response(StatusCode::ACCEPTED, &jobs::Job::from_view(job));
        set_location(&mut response, &format!("/jobs/{}", id.0));
        let applied = HeaderValue::from_static("respond-async");
        response.headers_mut().insert("preference-applied", applied);
        Ok(response)
    }
}

fn set_location(response: &mut Response, path: &str) {
    // Ids and numbers are valid in a header.
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
}
