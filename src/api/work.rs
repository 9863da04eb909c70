//! Operations as jobs: taken on, waited for or not, and answered.

use std::sync::PoisonError;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::problem::{Answer, Problem};
use super::request::Wishes;
use super::{App, jobs, json};
use snapdeck_engine::JobId;
use snapdeck_model::{Kind, Operation, Outcome};

/// Jobs that are not over, at most.
const JOBS: usize = 256;

impl App {
    /// Does `operation` as a job, and answers as the caller wishes. The job goes on when the caller goes away.
    pub(crate) async fn work(&self, wishes: Wishes, operation: Operation) -> Answer {
        let id = self.take_on(wishes.key, operation)?;
        let over = match wishes.wait {
            None => Some(self.engine.wait(id).await),
            Some(Duration::ZERO) => None,
            Some(wait) => tokio::time::timeout(wait, self.engine.wait(id)).await.ok(),
        };
        match over {
            Some(Ok(outcome)) => Ok(self.done(&outcome)),
            Some(Err(error))
                if error.kind() == Kind::NotFound && self.engine.view().job(id).is_none() =>
            {
                Err(Problem::key_forgotten())
            }
            Some(Err(error)) if error.kind() == Kind::Cancelled && self.ending.is_cancelled() => {
                Err(Problem::shutting_down(
                    "snapdeck is ending; the job goes on when it is started again",
                ))
            }
            Some(Err(error)) => Err(error.into()),
            None => self.accepted(id),
        }
    }

    fn take_on(&self, key: Option<String>, operation: Operation) -> Result<JobId, Problem> {
        // Held over the submission: of two requests with one key only one is taken on.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &key
            && let Some(job) = keys.find(key, &operation)?
        {
            return Ok(job);
        }
        if self.ending.is_cancelled() {
            return Err(Problem::shutting_down(
                "snapdeck is ending and takes on no jobs",
            ));
        }
        let view = self.engine.view();
        let live = view.jobs.iter().filter(|job| !job.state.is_over()).count();
        if live >= JOBS {
            return Err(Problem::busy(live));
        }
        let id = self.engine.submit(operation.clone())?;
        if let Some(key) = key {
            keys.remember(key, operation, id);
        }
        Ok(id)
    }

    fn done(&self, outcome: &Outcome) -> Response {
        let Outcome::Made { sandbox, .. } = outcome else {
            return json(StatusCode::OK, outcome);
        };
        let mut response = json(StatusCode::CREATED, outcome);
        place(&mut response, &format!("/sandboxes/{}", sandbox.id));
        response
    }

    fn accepted(&self, id: JobId) -> Answer {
        let view = self.engine.view();
        let job = view.job(id).ok_or_else(Problem::key_forgotten)?;
        let mut response = json(StatusCode::ACCEPTED, &jobs::Job::of(job));
        place(&mut response, &format!("/jobs/{}", id.0));
        let applied = HeaderValue::from_static("respond-async");
        response.headers_mut().insert("preference-applied", applied);
        Ok(response)
    }
}

fn place(response: &mut Response, path: &str) {
    // Ids and numbers fit in a header.
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
}
