//! Prune: shows what matches a rule, and removes it if that is asked for.

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::jobs::JobError;
use super::problem::{ApiResult, CommonErrors, JobErrors, Problem};
use super::request::{JsonBody, NoQuery, default_true, deserialize_whole_number};
use super::{App, json_response};
use snapdeck_engine::{Partials, PruneRequest};
use snapdeck_model::{
    Error, HostName, Leftover, Operation, Outcome, PrunePlan, PruneRule, Result, SnapshotName,
    parse_age,
};

/// More than any host has, and one.
const MAX_KEEP: u32 = 1_000_001;
/// Jobs that remove snapshots at the same time.
const MAX_PARALLEL_JOBS: usize = 8;

/// The rule of a prune. A snapshot must meet all conditions of `keep`, `olderThan` and `unused`; at least one of these, or
/// `leftovers` or `partial`, is required.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PruneRequest)]
pub(crate) struct PruneBody {
    /// Keep the newest N versions of each snapshot, on the host and in the bucket. app-v1.0, app-v1.1 and app-2026-01-31
    /// are versions of app.
    #[serde(default, deserialize_with = "deserialize_whole_number")]
    #[schema(minimum = 1, maximum = 1000000)]
    keep: Option<u32>,
    /// Only snapshots created longer ago than this: 12h, 30d, 8w.
    #[serde(default)]
    #[schema(pattern = "^[0-9]+[hdw]$")]
    older_than: Option<String>,
    /// Only snapshots that no sandbox on any configured host is based on.
    #[serde(default)]
    unused: bool,
    /// Leftovers of interrupted jobs older than a day. Those of other installations of snapdeck are only listed.
    #[serde(default)]
    leftovers: bool,
    /// The partial pull of this snapshot on the host, whatever its age.
    #[serde(default)]
    partial: Option<SnapshotName>,
    /// Also leftovers that another installation created, or one whose state directory was lost.
    #[serde(default)]
    foreign: bool,
    /// Prune the host.
    #[serde(default = "default_true")]
    local: bool,
    /// Prune the bucket.
    #[serde(default)]
    bucket: bool,
    /// Only show what would be removed. To remove it, send `false`.
    #[serde(default = "default_true")]
    dry_run: bool,
}

/// The removals of a prune, done or planned.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PruneReport {
    /// Whether nothing was removed on request.
    dry_run: bool,
    #[serde(flatten)]
    plan: PrunePlan,
    /// Bytes that the removal frees.
    reclaimed_bytes: u64,
    /// The removals; empty for a dry run.
    results: Vec<PruneResult>,
}

/// A removal.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PruneResult {
    /// The host it was on; null: the bucket.
    host: Option<HostName>,
    /// The snapshot; null for a leftover without a name.
    snapshot_name: Option<SnapshotName>,
    /// Path or key of a leftover; null for a snapshot.
    leftover_path: Option<String>,
    /// Whether it was removed; `false` without an error: it is in use again.
    removed: bool,
    /// Why it could not be removed.
    error: Option<JobError>,
}

impl PruneBody {
    fn into_request(self, host: &HostName) -> Result<(PruneRequest, bool), Problem> {
        let has_rule = self.keep.is_some() || self.older_than.is_some() || self.unused;
        let has_files = self.leftovers || self.partial.is_some();
        let problem = match &self {
            _ if !has_rule && !has_files => {
                "there is no condition: set keep, olderThan, unused, leftovers or partial"
            }
            Self {
                keep: Some(0 | MAX_KEEP..),
                ..
            } => "keep: it is not between 1 and 1000000",
            Self { foreign: true, .. } if !has_files => "foreign: set leftovers or partial, too",
            Self {
                local: false,
                bucket: false,
                ..
            } => "local and bucket are both false: there is nothing to prune",
            Self {
                partial: Some(_),
                local: false,
                ..
            } => "partial: partial files are on the host: do not set local to false",
            _ => "",
        };
        if !problem.is_empty() {
            return Err(Problem::invalid_input(problem));
        }
        let request = PruneRequest {
            rule: PruneRule {
                keep_newest: self.keep.map(|keep| keep as usize),
                older_than: self.older_than.as_deref().map(parse_age).transpose()?,
                unused: self.unused,
            },
            hosts: self.local.then(|| host.clone()).into_iter().collect(),
            include_bucket: self.bucket,
            include_leftovers: self.leftovers,
            include_foreign: self.foreign,
            partials: self.partial.map_or(Partials::None, Partials::Of),
        };
        Ok((request, self.dry_run))
    }
}

/// Show old or unused snapshots and leftovers of interrupted jobs, and with `dryRun: false` remove them. Keeps what is in
/// use, pinned, or the last good copy of what is in use.
#[utoipa::path(
    post, path = "/snapshots/prune", tag = "snapshots", request_body = PruneBody,
    responses((status = 200, description = "The plan, and what became of it; an item that failed has its error", body = PruneReport), CommonErrors, JobErrors),
)]
pub(crate) async fn prune_snapshots(
    State(app): State<App>,
    _: NoQuery,
    JsonBody(body): JsonBody<PruneBody>,
) -> ApiResult {
    let (request, dry_run) = body.into_request(&app.host)?;
    if !dry_run {
        app.refuse_too_many_jobs()?;
    }
    let pruning = app.clone();
    let prune = async move { pruning.prune(&request, dry_run).await };
    let report = app.run_to_end(prune).await??;
    Ok(json_response(StatusCode::OK, &report))
}

impl App {
    async fn prune(&self, request: &PruneRequest, dry_run: bool) -> Result<PruneReport> {
        let mut plan = self.engine.prune_plan(request).await?;
        if let (Partials::Of(name), true) = (&request.partials, plan.is_empty())
            && let Some(error) = Box::pin(self.engine.kept_partial(request, name, &plan)).await?
        {
            // It was asked for by its name: that it stays is not what was wanted.
            if !dry_run {
                return Err(error);
            }
            plan.warnings.push(error.to_string());
        }
        let mut results = Vec::new();
        if !dry_run && !plan.is_empty() {
            plan = self.engine.recheck_prune(request, plan).await?;
            self.remove_snapshots(&plan, &mut results).await;
            self.remove_leftovers(&plan, &mut results).await;
        }
        Ok(PruneReport {
            dry_run,
            reclaimed_bytes: plan.reclaimed_bytes(),
            plan,
            results,
        })
    }

    async fn remove_snapshots(&self, plan: &PrunePlan, results: &mut Vec<PruneResult>) {
        for chunk in plan.operations().chunks(MAX_PARALLEL_JOBS) {
            let jobs = match self.shutdown.is_cancelled() {
                true => {
                    let stopped = || Err(Error::cancelled("the removal"));
                    chunk.iter().map(|_| stopped()).collect()
                }
                false => self.engine.submit_all(chunk.to_vec()),
            };
            for (operation, job) in chunk.iter().zip(jobs) {
                let result = match job {
                    Ok(id) => self.engine.wait(id).await,
                    Err(error) => Err(error),
                };
                results.push(PruneResult::of_snapshot(operation, result));
            }
        }
    }

    async fn remove_leftovers(&self, plan: &PrunePlan, results: &mut Vec<PruneResult>) {
        for leftover in &plan.leftovers {
            let result = match self.shutdown.is_cancelled() {
                true => Err(Error::cancelled("the removal")),
                false => self.engine.remove_leftover(leftover).await,
            };
            results.push(PruneResult::of_leftover(leftover, result));
        }
    }
}

impl PruneResult {
    fn of_snapshot(operation: &Operation, result: Result<Outcome>) -> Self {
        Self {
            host: operation.host().cloned(),
            snapshot_name: operation.snapshot().cloned(),
            leftover_path: None,
            removed: result.is_ok(),
            error: result.err().as_ref().map(JobError::from_error),
        }
    }

    fn of_leftover(leftover: &Leftover, result: Result<bool>) -> Self {
        Self {
            host: leftover.host.clone(),
            snapshot_name: leftover.name.clone(),
            leftover_path: Some(leftover.path.clone()),
            removed: matches!(result, Ok(true)),
            error: result.err().as_ref().map(JobError::from_error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(json: &str) -> Result<(PruneRequest, bool), Problem> {
        let body: PruneBody = serde_json::from_str(json).unwrap();
        body.into_request(&"alpha".parse().unwrap())
    }

    #[test]
    fn nothing_is_removed_unless_it_is_asked_for() {
        let (rule, dry_run) = request(r#"{"keep": 2}"#).unwrap();
        assert!(dry_run && !rule.include_bucket && !rule.include_leftovers);
        assert_eq!(rule.hosts.len(), 1);
        let (rule, dry_run) =
            request(r#"{"leftovers": true, "local": false, "bucket": true, "dryRun": false}"#)
                .unwrap();
        assert!(!dry_run && rule.include_bucket && rule.hosts.is_empty());
    }

    #[test]
    fn a_prune_needs_a_condition_and_a_place() {
        for json in [
            "{}",
            r#"{"bucket": true}"#,
            r#"{"foreign": true}"#,
            r#"{"unused": true, "foreign": true}"#,
            r#"{"keep": 0}"#,
            r#"{"keep": 1000001}"#,
            r#"{"olderThan": "3"}"#,
            r#"{"unused": true, "local": false}"#,
        ] {
            assert!(request(json).is_err(), "{json}");
        }
    }
}
