//! The load of each host over the last minutes, as far as it was sampled for the screen.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use snapdeck_model::{HostLoad, HostName};

/// The time for which samples are kept.
const LOAD_WINDOW: Duration = Duration::from_mins(10);
/// Samples are published only if a value changes: until shortly before the next one the last value is valid.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct LoadHistory {
    hosts: HashMap<HostName, VecDeque<HostLoad>>,
}

impl LoadHistory {
    pub(crate) fn add(&mut self, loads: &BTreeMap<HostName, HostLoad>) {
        for (host, load) in loads {
            let samples = self.hosts.entry(host.clone()).or_default();
            let last = samples.back().copied();
            if last.is_some_and(|last| last.sampled_at >= load.sampled_at) {
                continue;
            }
            if let Some(last) = last
                && load.sampled_at.duration_since(last.sampled_at) > SAMPLE_INTERVAL * 2
                && let Some(sampled_at) = load.sampled_at.checked_sub(SAMPLE_INTERVAL)
            {
                samples.push_back(HostLoad { sampled_at, ..last });
            }
            samples.push_back(*load);
            let is_old = |one: &HostLoad| {
                load.sampled_at.saturating_duration_since(one.sampled_at) > LOAD_WINDOW
            };
            while samples.front().is_some_and(is_old) {
                samples.pop_front();
            }
        }
    }

    /// Returns the samples of a host, oldest first, with their age at the last one in seconds.
    pub(crate) fn of_host(&self, host: &HostName) -> Vec<(f64, HostLoad)> {
        let samples = self.hosts.get(host).into_iter().flatten();
        let last = samples.clone().last().map(|load| load.sampled_at);
        samples
            .filter_map(|load| {
                let age = last?.saturating_duration_since(load.sampled_at);
                Some((age.as_secs_f64(), *load))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn an_unchanged_load_is_a_level_line_and_old_samples_are_dropped() {
        let host: HostName = "alpha".parse().unwrap_or_else(|_| unreachable!());
        let start = Instant::now();
        let load = |seconds: u64, percent: u32| HostLoad {
            cpus: 4,
            cpu_permille: Some(percent * 10),
            memory_total_bytes: 1 << 30,
            memory_used_bytes: 1 << 29,
            snapshots_free_bytes: None,
            snapshots_total_bytes: None,
            sampled_at: start + Duration::from_secs(seconds),
        };
        let mut history = LoadHistory::default();
        let values = |history: &LoadHistory| -> Vec<(f64, Option<u32>)> {
            let samples = history.of_host(&host).into_iter();
            samples
                .map(|(age, load)| (age, load.cpu_permille))
                .collect()
        };
        assert_eq!(values(&history), []);
        for sample in [load(0, 10), load(0, 10), load(60, 90)] {
            history.add(&BTreeMap::from([(host.clone(), sample)]));
        }
        let expected = [(60.0, Some(100)), (5.0, Some(100)), (0.0, Some(900))];
        assert_eq!(values(&history), expected);
        history.add(&BTreeMap::from([(host.clone(), load(700, 10))]));
        assert_eq!(values(&history), [(5.0, Some(900)), (0.0, Some(100))]);
    }
}
