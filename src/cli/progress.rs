//! Progress of jobs on stderr: bars on a terminal, else a line per phase and per 100 MB.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{eprint_line, format_time_of_day};
use snapdeck_model::{HostName, Phase, Progress, printable};

/// Spec, "Pull Snapshot", features.
const LINE_STEP_BYTES: u64 = 100_000_000;
const BAR_TEMPLATE: &str =
    "{prefix}: {msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
/// Of a job that transfers nothing, as it waits for its host or the store.
const WAITING_TEMPLATE: &str = "{prefix}: {msg} {wide_bar} {binary_bytes}/{binary_total_bytes}";

/// Shows the progress of jobs that run at the same time.
pub(crate) struct ProgressDisplay {
    jobs: Vec<JobDisplay>,
    /// `None` without bars.
    multi_progress: Option<MultiProgress>,
}

struct JobDisplay {
    label: String,
    style: DisplayStyle,
}

enum DisplayStyle {
    Bar(TransferBar),
    Lines(LineSampler),
}

impl ProgressDisplay {
    /// Returns a display of jobs with these labels, such as `pull myapp-v1.0`. With `plain`, it prints lines on a terminal,
    /// too: other lines (`--verbose`) would break the bars.
    pub(crate) fn new(labels: impl Iterator<Item = String>, plain: bool) -> Self {
        let bars = (io::stderr().is_terminal() && !plain)
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        let jobs = labels.map(|label| JobDisplay {
            style: match &bars {
                Some(bars) => DisplayStyle::Bar(TransferBar::new(bars, &label)),
                None => DisplayStyle::Lines(LineSampler::default()),
            },
            label,
        });
        Self {
            jobs: jobs.collect(),
            multi_progress: bars,
        }
    }

    /// Shows the progress of a job of `host`.
    pub(crate) fn show(&mut self, index: usize, progress: Progress, host: Option<&HostName>) {
        if let Some(job) = self.jobs.get_mut(index) {
            job.show(progress, host);
        }
    }

    /// Prints a line above the bars.
    pub(crate) fn print_line(&self, line: impl std::fmt::Display) {
        match &self.multi_progress {
            Some(bars) => bars.suspend(|| eprint_line(line)),
            None => eprint_line(line),
        }
    }

    /// Removes the bars.
    pub(crate) fn clear(self) {
        for job in self.jobs {
            if let DisplayStyle::Bar(bar) = job.style {
                bar.bar.finish_and_clear();
            }
        }
    }
}

impl JobDisplay {
    fn show(&mut self, progress: Progress, host: Option<&HostName>) {
        match &mut self.style {
            DisplayStyle::Bar(bar) => bar.show(progress, host),
            DisplayStyle::Lines(lines) => {
                if let Some(line) = lines.next_line(progress) {
                    eprint_line(format_args!("{}: {line}", self.label));
                }
            }
        }
    }
}

/// A bar, and what it shows of the progress of its job.
struct TransferBar {
    bar: ProgressBar,
    reused_bytes: u64,
    is_waiting: bool,
}

impl TransferBar {
    fn new(bars: &MultiProgress, label: &str) -> Self {
        let bar = bars.add(ProgressBar::no_length());
        set_template(&bar, BAR_TEMPLATE);
        bar.set_prefix(printable(label));
        bar.enable_steady_tick(Duration::from_millis(250));
        Self {
            bar,
            reused_bytes: 0,
            is_waiting: false,
        }
    }

    fn show(&mut self, progress: Progress, host: Option<&HostName>) {
        let bar = &self.bar;
        if progress.phase == Phase::Finished {
            bar.finish_and_clear();
            return;
        }
        let message = match progress.wait {
            Some(wait) => {
                let time = format_time_of_day(wait.until);
                format!("{} until {time}", wait.label(host))
            }
            None => progress.phase.as_str().to_owned(),
        };
        if progress.wait.is_some() != self.is_waiting {
            self.is_waiting = progress.wait.is_some();
            set_template(
                bar,
                match self.is_waiting {
                    true => WAITING_TEMPLATE,
                    false => BAR_TEMPLATE,
                },
            );
        }
        // The rate is that of this phase, without bytes that were not transferred.
        if bar.message() != message
            || progress.done_bytes < bar.position()
            || progress.reused_bytes != self.reused_bytes
        {
            self.reused_bytes = progress.reused_bytes;
            bar.set_message(message);
            bar.set_position(progress.done_bytes);
            bar.reset_eta();
        }
        if progress.total_bytes == 0 {
            bar.unset_length();
        } else {
            bar.set_length(progress.total_bytes);
        }
        bar.set_position(progress.done_bytes);
    }
}

fn set_template(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// Decides which samples become lines.
#[derive(Default)]
struct LineSampler {
    phase: Option<Phase>,
    steps: u64,
}

impl LineSampler {
    /// Returns the line for a new phase or another 100 MB:
    /// `downloading 45.2% (4831838208 / 10685726720 bytes)`.
    fn next_line(&mut self, progress: Progress) -> Option<String> {
        let Progress {
            phase,
            done_bytes,
            total_bytes,
            ..
        } = progress;
        let steps = done_bytes / LINE_STEP_BYTES;
        let is_new_phase = self.phase != Some(phase);
        if !is_new_phase && steps <= self.steps {
            return None;
        }
        self.phase = Some(phase);
        self.steps = steps;
        // The output follows a finished job; a queued one needs no line.
        if matches!(phase, Phase::Queued | Phase::Finished) {
            return None;
        }
        if total_bytes == 0 {
            return Some(match done_bytes {
                0 => phase.as_str().to_owned(),
                done => format!("{} ({done} bytes)", phase.as_str()),
            });
        }
        // Tenths of a percent, below 100 until the job ends.
        let tenths = (u128::from(done_bytes) * 1000 / u128::from(total_bytes)).min(999);
        Some(format!(
            "{} {}.{}% ({done_bytes} / {total_bytes} bytes)",
            phase.as_str(),
            tenths / 10,
            tenths % 10
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase, done_bytes: u64, total_bytes: u64) -> Progress {
        Progress {
            phase,
            done_bytes,
            total_bytes,
            reused_bytes: 0,
            direct_bytes: 0,
            wait: None,
        }
    }

    #[test]
    fn there_is_a_line_per_phase_and_per_100_mb() {
        let mut lines = LineSampler::default();
        let total = 10_685_726_720;
        assert_eq!(lines.next_line(at(Phase::Queued, 0, 0)), None);
        assert_eq!(
            lines.next_line(at(Phase::Checking, 0, 0)).as_deref(),
            Some("checking")
        );
        assert_eq!(
            lines.next_line(at(Phase::Downloading, 0, total)).as_deref(),
            Some("downloading 0.0% (0 / 10685726720 bytes)")
        );
        assert_eq!(
            lines.next_line(at(Phase::Downloading, 99_999_999, total)),
            None
        );
        assert_eq!(
            lines
                .next_line(at(Phase::Downloading, 4_831_838_208, total))
                .as_deref(),
            Some("downloading 45.2% (4831838208 / 10685726720 bytes)")
        );
        assert_eq!(
            lines.next_line(at(Phase::Downloading, 4_831_838_209, total)),
            None
        );
        assert_eq!(
            lines
                .next_line(at(Phase::Downloading, total, total))
                .as_deref(),
            Some("downloading 99.9% (10685726720 / 10685726720 bytes)")
        );
        assert_eq!(lines.next_line(at(Phase::Finished, 0, 0)), None);
    }

    #[test]
    fn a_new_phase_starts_at_0_bytes() {
        let mut lines = LineSampler::default();
        lines.next_line(at(Phase::Converting, 500_000_000, 600_000_000));
        lines.next_line(at(Phase::Uploading, 0, 600_000_000));
        assert!(
            lines
                .next_line(at(Phase::Uploading, 100_000_000, 600_000_000))
                .is_some()
        );
    }
}
