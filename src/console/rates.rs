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
/// That of the rate by which the remaining time is estimated: one that jumps is of no use.
const ESTIMATE_SMOOTHING: f64 = 8.0;
/// A remaining time is shown when bytes have moved for this long: the first ones come in bursts.
const MIN_ESTIMATE_TIME: Duration = Duration::from_secs(3);
/// Number of rates in the graph.
const HISTORY: usize = 8;
const HISTORY_STEP: Duration = Duration::from_secs(1);
/// A transfer without a byte for this time has no rate and no remaining time.
const STALL_TIME: Duration = Duration::from_secs(5);
/// The time for which the rates of all jobs together are kept.
const TOTAL_HISTORY: Duration = Duration::from_mins(10);
#[derive(Debug)]
struct JobRate {
    phase: Phase,
    sampled_at: Instant,
    done_bytes: u64,
    reused_bytes: u64,
    direct_bytes: u64,
    /// When `done_bytes` last grew.
    grown_at: Instant,
    /// When it first grew.
    moves_since: Option<Instant>,
    rate: Option<f64>,
    /// Rate of the bytes that do not pass this machine.
    direct_rate: f64,
    estimate: WeightedMean,
    history: VecDeque<f64>,
    history_updated: Instant,
}

/// Mean of samples whose weights decrease with their age.
#[derive(Debug, Default)]
struct WeightedMean {
    sum: f64,
    weight: f64,
}

/// Rates of all jobs together, in bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TransferRates {
    /// To the bucket or another host.
    pub up: f64,
    /// From the bucket.
    pub down: f64,
    /// Read and written on hosts, such as to compute digests.
    pub on_hosts: f64,
}

/// Rates of running jobs, and of all together over the last minutes in which any ran.
#[derive(Debug, Default)]
pub(crate) struct JobRates {
    jobs: HashMap<JobId, JobRate>,
    totals: VecDeque<(Instant, TransferRates)>,
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
                direct_bytes: progress.direct_bytes,
                grown_at: now,
                moves_since: None,
                rate: None,
                direct_rate: 0.0,
                estimate: WeightedMean::default(),
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
        self.sample_totals(now);
    }

    fn sample_totals(&mut self, now: Instant) {
        let last = self.totals.back();
        let now = last.map_or(now, |(at, _)| now.max(*at));
        let is_idle = last.is_none_or(|(_, rates)| *rates == TransferRates::default());
        let is_due = last.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= HISTORY_STEP);
        // With the last job the curve ends, at zero.
        let is_wanted = match self.jobs.is_empty() {
            true => !is_idle,
            false => is_due,
        };
        if !is_wanted {
            return;
        }
        let mut rates = TransferRates::default();
        for job in self.jobs.values() {
            let sum = match job.phase {
                Phase::Uploading => &mut rates.up,
                Phase::Downloading => &mut rates.down,
                _ => &mut rates.on_hosts,
            };
            *sum += job.rate.unwrap_or(0.0);
        }
        if let Some((at, _)) = last.filter(|_| is_idle)
            && now.saturating_duration_since(*at) > HISTORY_STEP * 2
        {
            self.totals
                .push_back((now - HISTORY_STEP, TransferRates::default()));
        }
        self.totals.push_back((now, rates));
        let is_old =
            |(at, _): &(Instant, TransferRates)| now.saturating_duration_since(*at) > TOTAL_HISTORY;
        while self.totals.front().is_some_and(is_old) {
            self.totals.pop_front();
        }
    }

    /// Returns the rates of all jobs together, oldest first: seconds before the last sample, and rates. Empty until a job
    /// runs.
    pub(crate) fn history(&self) -> Vec<(f64, TransferRates)> {
        let Some((end, _)) = self.totals.back() else {
            return Vec::new();
        };
        let age = |at: &Instant| end.saturating_duration_since(*at).as_secs_f64();
        self.totals
            .iter()
            .map(|(at, rates)| (age(at), *rates))
            .collect()
    }

    /// Returns whether a job runs.
    pub(crate) fn is_active(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Returns whether there is a [`JobRates::history`].
    pub(crate) fn has_history(&self) -> bool {
        self.totals.len() > 1
    }

    /// Returns a graph of the sums of the last seconds.
    pub(crate) fn total_graph(&self) -> String {
        let skipped = self.totals.len().saturating_sub(HISTORY);
        let sums = self.totals.iter().skip(skipped);
        let sums: Vec<f64> = sums
            .map(|(_, rates)| rates.up + rates.down + rates.on_hosts)
            .collect();
        graph(&sums, 1.0)
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

    /// Returns the sum of the rates of the bytes that do not pass this machine, in bytes per second.
    pub(crate) fn direct_total(&self) -> f64 {
        self.jobs.values().map(|job| job.direct_rate).sum()
    }

    /// Returns the remaining time of the phase at the rate of its last seconds; `None` in the first ones, and while nothing is
    /// transferred.
    pub(crate) fn time_remaining(&self, id: JobId, progress: Progress) -> Option<Duration> {
        self.rate(id)?;
        let rate = self.jobs.get(&id)?.estimate()?;
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

    /// Returns the rate by which the remaining time is estimated, in bytes per second.
    fn estimate(&self) -> Option<f64> {
        let time = self.sampled_at.saturating_duration_since(self.moves_since?);
        let is_certain = time >= MIN_ESTIMATE_TIME;
        let mean = self.estimate.sum / self.estimate.weight;
        Some(mean).filter(|mean| is_certain && *mean >= 1.0)
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
        let direct = progress.direct_bytes.saturating_sub(self.direct_bytes) as f64 / seconds;
        self.direct_rate += (direct - self.direct_rate) * weight;
        if progress.done_bytes > self.done_bytes {
            self.grown_at = now;
            self.moves_since.get_or_insert(self.sampled_at);
        }
        if self.moves_since.is_some() {
            self.estimate.add(latest, seconds);
        }
        self.sampled_at = now;
        self.done_bytes = progress.done_bytes;
        self.direct_bytes = progress.direct_bytes;
        if now.saturating_duration_since(self.history_updated) >= HISTORY_STEP {
            self.history_updated = now;
            self.history.push_back(rate);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
    }
}

impl WeightedMean {
    fn add(&mut self, value: f64, seconds: f64) {
        let kept = (-seconds / ESTIMATE_SMOOTHING).exp();
        self.sum = self.sum * kept + value * (1.0 - kept);
        self.weight = self.weight * kept + 1.0 - kept;
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
    fn the_remaining_time_is_shown_after_the_first_seconds_and_does_not_jump() {
        let view = fixture::populated();
        let job = &view.jobs[0];
        let mut rates = JobRates::default();
        let start = Instant::now();
        let mut estimates = Vec::new();
        job.progress_cell.enter(Phase::Uploading, 1000 << 20);
        // Nothing for two seconds; then a burst of 40 MiB every two seconds.
        for tenths in 0..=120u32 {
            let bursts = u64::from(tenths / 20);
            job.progress_cell.set_done(bursts * (40 << 20));
            rates.sample(&view, start + Duration::from_millis(100) * tenths);
            estimates.push(rates.time_remaining(job.id, job.progress()));
        }
        assert_eq!(estimates[..49], [None; 49]);
        // At 20 MiB/s.
        for (tenths, estimate) in estimates.iter().enumerate().skip(60) {
            let left = (1000 - 40 * (tenths / 20)) as f64 / 20.0;
            let ratio = estimate.unwrap().as_secs_f64() / left;
            assert!((0.6..1.6).contains(&ratio), "{tenths} {ratio}");
        }
    }

    #[test]
    fn direct_bytes_have_a_rate_of_their_own() {
        let view = fixture::populated();
        let job = &view.jobs[0];
        let mut rates = JobRates::default();
        let start = Instant::now();
        job.progress_cell.enter(Phase::Downloading, 1000 << 20);
        for tenths in 0..=50u32 {
            rates.sample(&view, start + Duration::from_millis(100) * tenths);
            job.progress_cell.add(4 << 20);
            job.progress_cell.add_direct(3 << 20);
        }
        let share = rates.direct_total() / rates.total();
        assert!((share - 0.75).abs() < 0.1, "{share}");
        job.progress_cell.enter(Phase::Verifying, 1000 << 20);
        rates.sample(&view, start + Duration::from_secs(6));
        assert_eq!(rates.direct_total(), 0.0);
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

    #[test]
    fn the_history_has_each_direction_and_ends_at_zero_while_nothing_runs() {
        let mut view = fixture::populated();
        let job = view.jobs[0].clone();
        let mut rates = JobRates::default();
        let start = Instant::now();
        let at = |seconds: u32| start + HISTORY_STEP * seconds;
        assert!(!rates.has_history());
        job.progress_cell.enter(Phase::Uploading, 1000 << 20);
        for second in 0..=4 {
            job.progress_cell.set_done(u64::from(second) * (10 << 20));
            rates.sample(&view, at(second));
        }
        let history = rates.history();
        assert_eq!(history.len(), 5);
        let (age, last) = *history.last().unwrap();
        assert_eq!((age, last.down, last.on_hosts), (0.0, 0.0, 0.0));
        assert!(
            (last.up / f64::from(10 << 20) - 1.0).abs() < 0.01,
            "{last:?}"
        );

        view.jobs.clear();
        for second in 5..=100 {
            rates.sample(&view, at(second));
        }
        let history = rates.history();
        assert_eq!(history.len(), 6);
        assert_eq!(history.last(), Some(&(0.0, TransferRates::default())));

        // The curve of the next job begins at zero, and does not rise during the pause.
        view.jobs.push(job.clone());
        job.progress_cell.enter(Phase::Downloading, 1000 << 20);
        for second in 200..=203 {
            job.progress_cell.add(1 << 20);
            rates.sample(&view, at(second));
        }
        let zeros = rates.history();
        let zero = |(_, rates): &&(f64, TransferRates)| *rates == TransferRates::default();
        assert_eq!(
            zeros.iter().filter(|entry| zero(entry)).count(),
            4,
            "{zeros:?}"
        );
        assert!(zeros.last().unwrap().1.down > 0.0);
    }
}
