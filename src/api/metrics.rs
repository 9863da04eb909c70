//! Metrics for Prometheus.

use std::collections::HashSet;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::App;
use super::jobs::JobStatus;
use super::problem::CommonErrors;
use snapdeck_engine::{Engine, JobId, JobState, JobView, Link, error_code};
use snapdeck_model::{HostName, Outcome};

pub(crate) const METRICS: &str = "/metrics";
/// Prometheus, "Exposition formats", version 0.0.4.
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// In seconds.
const JOB_DURATION_BUCKETS: [f64; 9] = [
    0.1,
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    4.0 * 3600.0,
];
const PAUSE_DURATION_BUCKETS: [f64; 8] = [0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 600.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabels {
    operation: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

pub(crate) struct Metrics {
    registry: Registry,
    completed_jobs: Family<JobLabels, Counter>,
    transferred_bytes: Family<OperationLabels, Counter>,
    durations: Family<OperationLabels, Histogram, fn() -> Histogram>,
    pauses: Histogram,
    active_jobs: Family<StateLabels, Gauge>,
    host_up: Gauge,
    bucket_up: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("snapdeck");
        let metrics = Self {
            completed_jobs: Family::default(),
            transferred_bytes: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(JOB_DURATION_BUCKETS)),
            pauses: Histogram::new(PAUSE_DURATION_BUCKETS),
            active_jobs: Family::default(),
            host_up: Gauge::default(),
            bucket_up: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "jobs_completed",
            "Completed jobs by operation and result",
            metrics.completed_jobs.clone(),
        );
        registry.register_with_unit(
            "transferred",
            "Size of the snapshots uploaded to and downloaded from the bucket",
            Unit::Bytes,
            metrics.transferred_bytes.clone(),
        );
        registry.register_with_unit(
            "job_duration",
            "Run time of jobs",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register_with_unit(
            "guest_pause_duration",
            "Time for which create paused guests",
            Unit::Seconds,
            metrics.pauses.clone(),
        );
        registry.register(
            "jobs",
            "Jobs that have not completed, by state",
            metrics.active_jobs.clone(),
        );
        registry.register(
            "host_up",
            "Whether the host is reachable",
            metrics.host_up.clone(),
        );
        registry.register(
            "bucket_up",
            "Whether the bucket is reachable",
            metrics.bucket_up.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// Counts each job once, when it ends. Returns when the engine ends.
    pub(crate) async fn count_completed_jobs(&self, engine: &Engine) {
        let mut views = engine.watch();
        let mut counted: HashSet<JobId> = HashSet::new();
        loop {
            let view = views.borrow_and_update().clone();
            for job in view.jobs.iter().filter(|job| job.state.is_finished()) {
                if counted.insert(job.id) {
                    self.record_job(job);
                }
            }
            counted.retain(|id| view.job(*id).is_some());
            if views.changed().await.is_err() {
                return;
            }
        }
    }

    fn record_job(&self, job: &JobView) {
        let operation = job.operation.verb();
        let result = match &job.state {
            JobState::Failed(error) => error_code(error.kind()),
            _ => "finished",
        };
        self.completed_jobs
            .get_or_create(&JobLabels { operation, result })
            .inc();
        if let (Some(started), Some(ended)) = (job.started_at, job.ended_at) {
            let seconds = ended.duration_since(started).as_secs_f64();
            self.durations
                .get_or_create(&OperationLabels { operation })
                .observe(seconds);
        }
        let bytes = match &job.state {
            JobState::Finished(Outcome::Created {
                size_bytes,
                paused_ms,
                ..
            }) => {
                if *paused_ms > 0 {
                    self.pauses.observe(*paused_ms as f64 / 1000.0);
                }
                *size_bytes
            }
            JobState::Finished(
                Outcome::Pushed { size_bytes, .. } | Outcome::Uploaded { size_bytes, .. },
            ) => *size_bytes,
            JobState::Finished(
                Outcome::Pulled {
                    size_bytes,
                    skipped: false,
                    ..
                }
                | Outcome::Copied {
                    size_bytes,
                    skipped: false,
                    ..
                },
            ) => *size_bytes,
            _ => return,
        };
        self.transferred_bytes
            .get_or_create(&OperationLabels { operation })
            .inc_by(bytes);
    }

    fn encode(&self, engine: &Engine, host: &HostName) -> Result<String, std::fmt::Error> {
        let view = engine.view();
        for (state, status) in [
            ("queued", JobStatus::Queued),
            ("running", JobStatus::Running),
            ("cancelling", JobStatus::Cancelling),
        ] {
            let jobs = view.jobs.iter();
            let count = jobs.filter(|job| JobStatus::from_state(&job.state) == status);
            self.active_jobs
                .get_or_create(&StateLabels { state })
                .set(count.count() as i64);
        }
        let host = view.host(host).is_some_and(|host| host.link == Link::Up);
        self.host_up.set(host.into());
        self.bucket_up.set((view.bucket.link == Link::Up).into());
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Metrics for Prometheus: jobs, bytes transferred, run times, guest pauses.
#[utoipa::path(
    get, path = METRICS, tag = "service",
    responses((status = 200, description = "Prometheus text format", content_type = "text/plain", body = String), CommonErrors),
)]
pub(crate) async fn get_metrics(State(app): State<App>) -> Response {
    match app.metrics.encode(&app.engine, &app.host) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
