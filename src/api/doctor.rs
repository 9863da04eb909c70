//! Health checks of the host and the bucket.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{ApiResult, CommonErrors, JobErrors, Problem};
use super::request::{NoQuery, OptionalJsonBody, default_true};
use super::{App, json_response};
use snapdeck_engine::HealthCheckView;
use snapdeck_model::{Error, HealthReport, Kind, Result, Verdict};

/// The checks to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DoctorRequest {
    /// Check the host.
    #[serde(default = "default_true")]
    local: bool,
    /// Check the bucket.
    #[serde(default = "default_true")]
    bucket: bool,
}

impl Default for DoctorRequest {
    fn default() -> Self {
        Self {
            local: true,
            bucket: true,
        }
    }
}

/// Results of health checks.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DoctorReport {
    /// The worst verdict.
    verdict: Verdict,
    /// The checks of the host, and of the bucket.
    health_checks: Vec<HealthReport>,
}

/// Check the host and the bucket; each problem has a fix. Writes test files and objects, and removes them. Takes at most
/// three minutes.
#[utoipa::path(
    post, path = "/doctor", tag = "service", request_body = Option<DoctorRequest>,
    responses((status = 200, description = "The results; `verdict` is `failed` if a check failed", body = DoctorReport), CommonErrors, JobErrors),
)]
pub(crate) async fn run_doctor(
    State(app): State<App>,
    _: NoQuery,
    OptionalJsonBody(request): OptionalJsonBody<DoctorRequest>,
) -> ApiResult {
    if !(request.local || request.bucket) {
        return Err(Problem::invalid_input(
            "local and bucket are both false: there is nothing to check",
        ));
    }
    let _wait = app.begin_wait()?;
    Ok(json_response(StatusCode::OK, &app.check(&request).await?))
}

impl App {
    async fn check(&self, request: &DoctorRequest) -> Result<DoctorReport> {
        let hosts = match request.local {
            true => std::slice::from_ref(&self.host),
            false => &[],
        };
        self.engine.run_health_checks(hosts, request.bucket)?;
        let is_requested = |check: &HealthCheckView| match &check.host {
            Some(host) => hosts.contains(host),
            None => request.bucket,
        };
        let mut watch = self.engine.watch();
        let view = watch
            .wait_for(|view| {
                let mut checks = view.health_checks.iter();
                !checks.any(|check| is_requested(check) && check.is_running)
            })
            .await
            .map_err(|_| Error::new(Kind::Failed, "the engine has ended"))?
            .clone();
        let checks = view.health_checks.iter();
        let reports = checks.filter(|check| is_requested(check));
        let health_checks: Vec<HealthReport> = reports
            .filter_map(|check| check.report.as_deref().cloned())
            .collect();
        let verdicts = health_checks.iter().map(HealthReport::verdict);
        Ok(DoctorReport {
            verdict: verdicts.max().unwrap_or(Verdict::Passed),
            health_checks,
        })
    }
}
