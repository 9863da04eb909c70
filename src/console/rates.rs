//! Transfer rates of running jobs, sampled when the screen is drawn.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::format::graph;
use snapdeck_engine::{JobId, JobState, View};
use snapdeck_model::{Phase, Progress};

/// Samples at shorter intervals are skipped as too noisy.
const MIN_SAMPLE_INTERVAL: Duration = Duration::from_millis(80);
/// Time constant of the exponential moving average, in seconds.
const SMOOTHING: f64 = 1.5;
/// Number of rates in the graph.
const HISTORY: usize = 8;
const HISTORY_STEP: Duration = Duration::from_secs(1);
/// A transfer without a byte for this time has no rate and no remaining time.
const STALL_TIME: Duration = Duration::from_secs(5);
/// Number of sums that are kept.
const TOTAL_HISTORY: usize = 240;

#[derive(Debug)]
struct JobRate {
    phase: Phase,
    sampled_at: Instant,
    done_bytes: u64,
    reused_bytes: u64,
    /// When `done_bytes` last grew.
    grown_at: Instant,
    rate: Option<f64>,
    history: VecDeque<f64>,
    history_updated: Instant,
}

/// Rates of running jobs, and the sum of all over the last minutes.
#[derive(Debug, Default)]
pub(crate) struct JobRates {
    jobs: HashMap<JobId, JobRate>,
    total: VecDeque<f64>,
    total_updated: Option<Instant>,
}

impl JobRates {
    /// Samples all running jobs.
    pub(crate) fn sample(&mut self, view: &View, now: Instant) {
        self.jobs.retain(|id, _| {
            view.jobs
                .iter()
                .any(|job| job.id == *id && job.state == JobState::Running)
        });
        for job in view
            .jobs
            .iter()
            .filter(|job| job.state == JobState::Running)
        {
            let progress = job.progress();
            let fresh = || JobRate {
                phase: progress.phase,
                sampled_at: now,
                done_bytes: progress.done_bytes,
                reused_bytes: progress.reused_bytes,
                grown_at: now,
                rate: None,
                history: VecDeque::new(),
                history_updated: now,
            };
            let rate = self.jobs.entry(job.id).or_insert_with(fresh);
            if rate.phase != progress.phase
                || progress.done_bytes < rate.done_bytes
                || progress.reused_bytes != rate.reused_bytes
                || progress.wait.is_some()
            {
                *rate = fresh();
            }
            rate.add_sample(progress, now);
        }
        self.sample_total(now);
    }

    fn sample_total(&mut self, now: Instant) {
        let is_due = self
            .total_updated
            .is_none_or(|at| now.saturating_duration_since(at) >= HISTORY_STEP);
        if !is_due {
            return;
        }
        if self.jobs.is_empty() {
            self.total.clear();
            self.total_updated = None;
            return;
        }
        self.total_updated = Some(now);
        self.total.push_back(self.total());
        if self.total.len() > TOTAL_HISTORY {
            self.total.pop_front();
        }
    }

    /// Returns the sums of the last seconds, oldest first, at most `columns`; empty while no job runs.
    pub(crate) fn totals(&self, columns: usize) -> Vec<f64> {
        let skipped = self.total.len().saturating_sub(columns);
        self.total.iter().skip(skipped).copied().collect()
    }

    /// Returns a graph of the sums of the last seconds.
    pub(crate) fn total_graph(&self) -> String {
        graph(&self.totals(HISTORY), 1.0)
    }

    /// Returns the rate of the current phase, in bytes per second; `None` while nothing is transferred.
    pub(crate) fn rate(&self, id: JobId) -> Option<f64> {
        let job = self.jobs.get(&id)?;
        job.rate.filter(|_| job.stall().is_none())
    }

    /// Returns for how long a transfer has moved no byte; `None` for one that moves.
    pub(crate) fn stall(&self, id: JobId) -> Option<Duration> {
        self.jobs.get(&id)?.stall()
    }

    /// Returns the sum of all rates, in bytes per second.
    pub(crate) fn total(&self) -> f64 {
        self.jobs.values().filter_map(|job| job.rate).sum()
    }

    /// Returns the remaining time of the phase at the current rate.
    pub(crate) fn time_remaining(&self, id: JobId, progress: Progress) -> Option<Duration> {
        let rate = self.rate(id).filter(|rate| *rate >= 1.0)?;
        let bytes = progress.total_bytes.checked_sub(progress.done_bytes)?;
        let seconds = bytes as f64 / rate;
        (progress.total_bytes > 0 && seconds < 360_000.0).then(|| Duration::from_secs_f64(seconds))
    }

    /// Returns a graph of the last rates.
    pub(crate) fn graph(&self, id: JobId) -> String {
        let job = self.jobs.get(&id);
        job.map_or(String::new(), |job| graph(&job.history, 1.0))
    }
}

impl JobRate {
    fn stall(&self) -> Option<Duration> {
        let time = self.sampled_at.saturating_duration_since(self.grown_at);
        Some(time).filter(|time| *time >= STALL_TIME)
    }

    fn add_sample(&mut self, progress: Progress, now: Instant) {
        let span = now.saturating_duration_since(self.sampled_at);
        if span < MIN_SAMPLE_INTERVAL {
            return;
        }
        let seconds = span.as_secs_f64();
        let latest = progress.done_bytes.saturating_sub(self.done_bytes) as f64 / seconds;
        let weight = 1.0 - (-seconds / SMOOTHING).exp();
        let rate = self
            .rate
            .map_or(latest, |rate| rate + (latest - rate) * weight);
        self.rate = Some(rate);
        if progress.done_bytes > self.done_bytes {
            self.grown_at = now;
        }
        self.sampled_at = now;
        self.done_bytes = progress.done_bytes;
        if now.saturating_duration_since(self.history_updated) >= HISTORY_STEP {
            self.history_updated = now;
            self.history.push_back(rate);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture;

    #[test]
    fn rate_and_remaining_time_restart_with_each_phase() {
        let view = fixture::populated();
        let job = &view.jobs[0];
        let mut rates = JobRates::default();
        let start = Instant::now();
        job.progress_cell.enter(Phase::Uploading, 1000 << 20);
        for tenths in 0..=50u32 {
            job.progress_cell.set_done(u64::from(tenths) * (10 << 20));
            rates.sample(&view, start + Duration::from_millis(100) * tenths);
        }
        let rate = rates.rate(job.id).unwrap();
        assert!((rate / f64::from(100 << 20) - 1.0).abs() < 0.01, "{rate}");
        assert_eq!(
            rates
                .time_remaining(job.id, job.progress())
                .unwrap()
                .as_secs(),
            5
        );
        assert_eq!(rates.graph(job.id), "█████");
        job.progress_cell.enter(Phase::CleaningUp, 0);
        rates.sample(&view, start + Duration::from_secs(6));
        assert_eq!(rates.rate(job.id), None);
    }

    #[test]
    fn reused_bytes_have_no_rate_and_a_stalled_or_waiting_job_none() {
        let view = fixture::populated();
        let job = &view.jobs[0];
        let mut rates = JobRates::default();
        let start = Instant::now();
        job.progress_cell.enter(Phase::Downloading, 1000 << 20);
        rates.sample(&view, start);
        job.progress_cell
            .resume(Phase::Downloading, 1000 << 20, 900 << 20);
        for tenths in 1..=20u32 {
            rates.sample(&view, start + Duration::from_millis(100) * tenths);
            job.progress_cell.add(1 << 20);
        }
        let rate = rates.rate(job.id).unwrap();
        assert!((rate / f64::from(10 << 20) - 1.0).abs() < 0.01, "{rate}");
        for tenths in 21..=100u32 {
            rates.sample(&view, start + Duration::from_millis(100) * tenths);
        }
        assert_eq!(rates.rate(job.id), None);
        assert!(rates.stall(job.id).unwrap() > Duration::from_secs(7));
        let progress = job.progress();
        assert_eq!(rates.time_remaining(job.id, progress), None);

        job.progress_cell.add(1 << 20);
        rates.sample(&view, start + Duration::from_secs(11));
        assert_eq!(rates.stall(job.id), None);
        let started = snapdeck_model::WaitChange::Started {
            text: String::new(),
            until: jiff::Timestamp::now(),
        };
        job.progress_cell
            .set_wait(snapdeck_model::WaitTarget::Host, &started);
        rates.sample(&view, start + Duration::from_secs(12));
        assert_eq!(rates.rate(job.id), None);
        assert_eq!(rates.total(), 0.0);
    }
}
