//! Progress of a job as server-sent events (HTML, section 9.2).

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::ToSchema;

use super::App;
use super::jobs::{self, Job, JobProgress};
use super::problem::{CommonErrors, ErrorBody, Problem};
use super::request::NoQuery;
use snapdeck_engine::JobId;
use snapdeck_model::escape_json;

/// Nothing is sent while nothing changes.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
const RATE_WINDOW: Duration = Duration::from_secs(2);
/// Interval of comments while nothing is sent, so that proxies do not close the connection.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Data of an event `progress`.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobEvent {
    #[serde(flatten)]
    progress: JobProgress,
    /// Current bytes per second of this phase.
    bytes_per_second: u64,
}

/// One event of the stream.
#[derive(ToSchema)]
#[allow(dead_code)]
pub(crate) struct JobMessage {
    /// `progress`, `result` or `ending`.
    event: String,
    /// JSON: JobEvent for `progress`, Job for the others.
    data: String,
}

/// Follow a job: `progress` events with a JobEvent, at most ten per second, and at the end a `result` event with the
/// Job. An `ending` event means that snapdeck shuts down; the job is resumed at its next start.
#[utoipa::path(
    get, path = "/jobs/{id}/events", tag = "jobs",
    params(("id" = u64, Path, description = "Job number")),
    responses(
        (status = 200, description = "The events", content_type = "text/event-stream", body = JobMessage),
        (status = 404, description = "Unknown job", body = ErrorBody),
        (status = 503, description = "Too many calls wait for jobs", body = ErrorBody),
        CommonErrors,
    ),
)]
pub(crate) async fn follow_job(
    State(app): State<App>,
    Path(id): Path<String>,
    _: NoQuery,
) -> Result<Response, Problem> {
    let id = jobs::parse_job_id(&id)?;
    if app.engine.view().job(id).is_none() {
        return Err(jobs::job_not_found(id));
    }
    let wait = app.begin_wait()?;
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_INTERVAL);
    Ok(Sse::new(event_stream(app, id, wait))
        .keep_alive(keep_alive)
        .into_response())
}

struct JobFollower {
    app: App,
    _wait: OwnedSemaphorePermit,
    id: JobId,
    ticks: Interval,
    last_sent: Option<JobEvent>,
    rate: RateMeter,
}

fn event_stream(
    app: App,
    id: JobId,
    wait: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follower = JobFollower {
        app,
        _wait: wait,
        id,
        ticks,
        last_sent: None,
        rate: RateMeter::default(),
    };
    stream::unfold(Some(follower), async |follower| {
        let (event, next) = follower?.next_event().await?;
        Some((Ok(event), next))
    })
}

impl JobFollower {
    /// Returns the next event, and the follower unless it was the last; `None` if the job was dismissed.
    async fn next_event(mut self) -> Option<(Event, Option<Self>)> {
        loop {
            self.ticks.tick().await;
            let view = self.app.engine.view();
            let job = view.job(self.id)?;
            if job.state.is_finished() {
                let last = match self.app.shutdown.is_cancelled() {
                    true => sse_event("ending", &Job::from_view(job)),
                    false => sse_event("result", &Job::from_view(job)),
                };
                return Some((last, None));
            }
            let progress = JobProgress::from_view(job);
            let bytes_per_second = self.rate.add_sample(Instant::now(), &progress);
            let event = JobEvent {
                progress,
                bytes_per_second,
            };
            if self.last_sent.as_ref() == Some(&event) {
                continue;
            }
            let sse = sse_event("progress", &event);
            self.last_sent = Some(event);
            return Some((sse, Some(self)));
        }
    }
}

fn sse_event(name: &str, data: &impl Serialize) -> Event {
    // Serializing these types cannot fail, and compact JSON has no line breaks.
    let text = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).data(escape_json(&text))
}

/// The byte counts of the last [`RATE_WINDOW`].
#[derive(Default)]
struct RateMeter {
    phase: String,
    reused_bytes: u64,
    samples: Vec<(Instant, u64)>,
}

impl RateMeter {
    fn add_sample(&mut self, now: Instant, progress: &JobProgress) -> u64 {
        if self.phase != progress.phase || self.reused_bytes != progress.reused_bytes {
            self.phase.clone_from(&progress.phase);
            self.reused_bytes = progress.reused_bytes;
            self.samples.clear();
        }
        self.samples.push((now, progress.done_bytes));
        self.samples
            .retain(|(time, _)| now.duration_since(*time) <= RATE_WINDOW);
        let Some((time, bytes)) = self.samples.first() else {
            return 0;
        };
        let millis = now.duration_since(*time).as_millis();
        let delta = u128::from(progress.done_bytes.saturating_sub(*bytes));
        (delta * 1000)
            .checked_div(millis)
            .map_or(0, |rate| rate.try_into().unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs::JobStatus;
    use super::*;

    #[test]
    fn a_rate_covers_the_window_and_one_phase() {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let done = |phase: &str, done_bytes| JobProgress {
            state: JobStatus::Running,
            phase: phase.into(),
            done_bytes,
            total_bytes: 0,
            percent: None,
            waiting_until: None,
            direct_bytes: 0,
            reused_bytes: 0,
        };
        let mut rate = RateMeter::default();
        assert_eq!(rate.add_sample(at(0), &done("a", 0)), 0);
        assert_eq!(rate.add_sample(at(1000), &done("a", 500)), 500);
        assert_eq!(rate.add_sample(at(2000), &done("a", 1500)), 750);
        assert_eq!(rate.add_sample(at(3000), &done("a", 1500)), 500);
        assert_eq!(rate.add_sample(at(4500), &done("a", 1500)), 0);
        assert_eq!(rate.add_sample(at(4600), &done("b", 9000)), 0);
        let resumed = JobProgress {
            reused_bytes: 40_000,
            ..done("b", 49_000)
        };
        assert_eq!(rate.add_sample(at(4700), &resumed), 0);
    }
}
