//! Jobs' progress on stderr: a bar each on a terminal, elsewhere a line at each phase and every 100 MB.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::eprint_line;
use snapdeck_model::{Phase, Progress};

/// Bytes between two lines (spec, "Pull Snapshot", features).
const LINE_STEP_BYTES: u64 = 100_000_000;

/// Shows the progress of jobs that run side by side.
pub(crate) struct ProgressDisplay {
    jobs: Vec<JobDisplay>,
    /// Where there are bars: what keeps them under each other.
    multi_progress: Option<MultiProgress>,
}

struct JobDisplay {
    label: String,
    style: DisplayStyle,
}

enum DisplayStyle {
    Bar(ProgressBar),
    Lines(LineSampler),
}

impl ProgressDisplay {
    /// A meter for each job, told as its label (`pull myapp-v1.0`). `plain` asks for lines on a terminal too: other
    /// lines (`--verbose`) would tear a bar.
    pub(crate) fn new(labels: impl Iterator<Item = String>, plain: bool) -> Self {
        let bars = (io::stderr().is_terminal() && !plain)
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        let meters = labels.map(|label| JobDisplay {
            style: match &bars {
                Some(bars) => DisplayStyle::Bar(add_bar(bars, &label)),
                None => DisplayStyle::Lines(LineSampler::default()),
            },
            label,
        });
        Self {
            jobs: meters.collect(),
            multi_progress: bars,
        }
    }

    /// Shows a sample of the job with that number, from 0.
    pub(crate) fn show(&mut self, index: usize, progress: Progress) {
        if let Some(meter) = self.jobs.get_mut(index) {
            meter.show(progress);
        }
    }

    /// Says something above the bars.
    pub(crate) fn print_line(&self, line: impl std::fmt::Display) {
        match &self.multi_progress {
            Some(bars) => bars.suspend(|| eprint_line(line)),
            None => eprint_line(line),
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(self) {
        for meter in self.jobs {
            if let DisplayStyle::Bar(bar) = meter.style {
                bar.finish_and_clear();
            }
        }
    }
}

impl JobDisplay {
    fn show(&mut self, progress: Progress) {
        match &mut self.style {
            // The others' go on.
            DisplayStyle::Bar(bar) if progress.phase == Phase::Finished => bar.finish_and_clear(),
            DisplayStyle::Bar(bar) => {
                // The rate of another phase, or of what was there before, is not this one's.
                if bar.message() != progress.phase.as_str() || progress.done_bytes < bar.position()
                {
                    bar.set_message(progress.phase.as_str());
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
            DisplayStyle::Lines(lines) => {
                if let Some(line) = lines.next_line(progress) {
                    eprint_line(format_args!("{}: {line}", self.label));
                }
            }
        }
    }
}

fn add_bar(bars: &MultiProgress, label: &str) -> ProgressBar {
    let bar = bars.add(ProgressBar::no_length());
    let form = "{prefix}: {msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(form) {
        bar.set_style(style);
    }
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Decides which samples become lines.
#[derive(Default)]
struct LineSampler {
    phase: Option<Phase>,
    steps: u64,
}

impl LineSampler {
    /// The line for `progress`, where it is a new phase or another 100 MB:
    /// `downloading 45.2% (4831838208 / 10685726720 bytes)`.
    fn next_line(&mut self, progress: Progress) -> Option<String> {
        let Progress {
            phase,
            done_bytes,
            total_bytes,
        } = progress;
        let steps = done_bytes / LINE_STEP_BYTES;
        let entered = self.phase != Some(phase);
        if !entered && steps <= self.steps {
            return None;
        }
        self.phase = Some(phase);
        self.steps = steps;
        // Over is told by the answer, waiting is worth no line.
        if matches!(phase, Phase::Queued | Phase::Finished) {
            return None;
        }
        if total_bytes == 0 {
            return Some(match done_bytes {
                0 => phase.as_str().to_owned(),
                done => format!("{} ({done} bytes)", phase.as_str()),
            });
        }
        // Tenths of a percent, under 100 until the job is over.
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
        }
    }

    #[test]
    fn a_line_at_each_phase_and_every_100_mb() {
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
    fn a_new_phase_counts_its_own_bytes() {
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
