//! What has come about while the operator may have looked elsewhere.

use std::time::Duration;

use snapdeck_engine::{JobState, JobView, View};
use snapdeck_model::Kind;

/// A sentence for each job that ran at least `long` and is over in `after`, but was not in `before`. What the operator
/// cancelled is no news.
pub(crate) fn finished_long_jobs(before: &View, after: &View, long: Duration) -> Vec<String> {
    let is_over = |job: &JobView| job.state.is_finished();
    let new = after
        .jobs
        .iter()
        .filter(|job| is_over(job) && before.job(job.id).is_some_and(|before| !is_over(before)));
    new.filter_map(|job| {
        let took = job.ended_at?.saturating_duration_since(job.started_at?);
        let how = match &job.state {
            JobState::Failed(error) if error.kind() == Kind::Cancelled => return None,
            JobState::Failed(_) => "failed",
            _ => "is done",
        };
        (took >= long).then(|| format!("{} {how}", job.title()))
    })
    .collect()
}
