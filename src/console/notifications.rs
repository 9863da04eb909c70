//! Notifications about finished jobs.

use std::time::Duration;

use snapdeck_engine::{JobState, JobView, View};
use snapdeck_model::Kind;

/// Returns a message for each job that finished between the views after running for at least `min_duration`.
///
/// Cancelled jobs are left out.
pub(crate) fn finished_long_jobs(
    before: &View,
    after: &View,
    min_duration: Duration,
) -> Vec<String> {
    let was_active = |job: &JobView| {
        let job = before.job(job.id);
        job.is_some_and(|job| !job.state.is_finished())
    };
    let jobs = after.jobs.iter();
    jobs.filter(|job| job.state.is_finished() && was_active(job))
        .filter_map(|job| {
            let duration = job.ended_at?.saturating_duration_since(job.started_at?);
            let result = match &job.state {
                JobState::Failed(error) if error.kind() == Kind::Cancelled => return None,
                JobState::Failed(_) => "failed",
                _ => "finished",
            };
            (duration >= min_duration).then(|| format!("{} {result}", job.title()))
        })
        .collect()
}
