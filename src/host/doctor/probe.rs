//! A shell script that collects data for the checks on a host.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::command::{CommandRunner, Input, read_text};
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Check, Error, Kind, Result};

const SCRIPT: &str = include_str!("probe.sh");
/// For the script, also with large directories on a slow disk.
const DEADLINE: Duration = Duration::from_secs(20);
/// For its exit after the end of its output.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bound of its output in bytes, enough for 100,000 files.
const MAX_PROBE_BYTES: usize = 8 << 20;
/// Bytes for the measurement of throughput, and its longest duration.
const SAMPLE_BYTES: usize = 8 << 20;
const SAMPLE_TIME: Duration = Duration::from_secs(2);

const MAX_SKEW: Duration = Duration::from_secs(60);

/// Output of the script: pairs of keys and values, some keys more than once.
#[derive(Debug)]
pub(super) struct Probe {
    pairs: Vec<(String, String)>,
    /// Start of the script and arrival of its first output: the host's clock was read in between.
    query_window: (Timestamp, Timestamp),
}

impl Probe {
    /// Runs the script and returns its output up to the deadline: a directory that hangs hides no other check.
    ///
    /// # Errors
    /// `Unreachable`; `Failed` if there is no output.
    pub(super) async fn run(runner: &CommandRunner, settings: &HostSettings) -> Result<Self> {
        let argv = [
            "sh",
            "-c",
            SCRIPT,
            "snapdeck",
            &settings.owner,
            &settings.temp_dir,
            &settings.nvram_dir,
            &settings.sandboxes_dir,
            &settings.snapshots_dir,
        ];
        let started_at = Timestamp::now();
        // With piped input it is not killed, and removes its test files.
        let mut running = runner.start(&argv, Input::Piped).await?;
        let (stdout, stderr) = (running.stdout(), running.stderr());
        let deadline = Instant::now() + DEADLINE;
        let (output, errors) = tokio::join!(read_until(stdout, MAX_PROBE_BYTES, deadline), async {
            timeout_at(deadline, read_text(stderr))
                .await
                .unwrap_or_default()
        });
        let exit = timeout_at(Instant::now() + EXIT_TIMEOUT, runner.wait(&mut running)).await;
        let answered_at = output.first_byte_at.unwrap_or(started_at);
        let probe = Self::parse(&output.bytes, (started_at, answered_at));
        match exit {
            Ok(Err(lost)) => Err(lost),
            _ if probe.pairs.is_empty() => Err(Error::new(
                Kind::Failed,
                format!("cannot run the checks on host {}", runner.host()),
            )
            .with_cause(errors)
            .hint("install a POSIX shell and GNU coreutils")),
            _ => Ok(probe),
        }
    }

    fn parse(output: &[u8], query_window: (Timestamp, Timestamp)) -> Self {
        let text = String::from_utf8_lossy(output);
        let mut fields = text.split_terminator('\0');
        let mut pairs = Vec::new();
        while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
            pairs.push((key.to_owned(), value.to_owned()));
        }
        Self {
            pairs,
            query_window,
        }
    }

    /// Returns the first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(name, _)| name == key);
        pair.map(|(_, value)| &**value)
    }

    /// Returns all values of a key.
    pub(super) fn get_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let has_key = move |(name, _): &&(String, String)| name == key;
        self.pairs.iter().filter(has_key).map(|(_, value)| &**value)
    }

    /// Returns the smallest possible difference of the host's clock to this machine's; `None` if unknown.
    pub(super) fn skew(&self) -> Option<SignedDuration> {
        let seconds: f64 = self.get("time")?.parse().ok()?;
        let host_time = Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()?;
        let (earliest, latest) = self.query_window;
        Some(host_time.duration_since(host_time.clamp(earliest, latest)))
    }

    #[cfg(test)]
    pub(super) fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let output: Vec<&str> = pairs
            .iter()
            .flat_map(|(key, value)| [*key, *value])
            .collect();
        let now = Timestamp::UNIX_EPOCH;
        Self::parse(output.join("\0").as_bytes(), (now, now))
    }
}

pub(super) fn check_clock(probe: &Probe) -> Option<Check> {
    let (what, skew) = ("clock", probe.skew()?);
    let amount = skew.unsigned_abs();
    if amount <= MAX_SKEW {
        return Some(Check::passed(what, "in sync with this machine"));
    }
    let direction = match skew.is_negative() {
        true => "behind",
        false => "ahead of",
    };
    Some(Check::warning(
        what,
        format!(
            "the host's clock is {} s {direction} this machine's",
            amount.as_secs()
        ),
        "timedatectl set-ntp true",
    ))
}

struct StreamOutput {
    bytes: Vec<u8>,
    first_byte_at: Option<Timestamp>,
}

/// Reads a stream up to its end, `limit` bytes or the deadline.
async fn read_until(
    stream: Option<impl AsyncRead + Unpin>,
    limit: usize,
    deadline: Instant,
) -> StreamOutput {
    let mut output = StreamOutput {
        bytes: Vec::new(),
        first_byte_at: None,
    };
    let Some(stream) = stream else { return output };
    let mut stream = stream.take(limit as u64);
    while let Ok(Ok(1..)) = timeout_at(deadline, stream.read_buf(&mut output.bytes)).await {
        output.first_byte_at.get_or_insert_with(Timestamp::now);
    }
    output
}

/// Measures the throughput from a host, in bytes per second.
///
/// # Errors
/// `Unreachable`.
pub(super) async fn measure_speed(runner: &CommandRunner) -> Result<f64> {
    let bytes = SAMPLE_BYTES.to_string();
    // Random bytes, because ssh may compress.
    let argv = ["head", "-c", &bytes, "/dev/urandom"];
    let mut running = runner.start(&argv, Input::None).await?;
    let output = read_until(running.stdout(), SAMPLE_BYTES, Instant::now() + SAMPLE_TIME).await;
    let ended_at = Timestamp::now();
    running.terminate().await;
    // Without the time that the command takes to start.
    let duration = ended_at.duration_since(output.first_byte_at.unwrap_or(ended_at));
    Ok(output.bytes.len() as f64 / duration.as_secs_f64().max(0.001))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_incomplete_pair_is_dropped() {
        let now = Timestamp::UNIX_EPOCH;
        let probe = Probe::parse(b"file\0a b\0file\0c\0user", (now, now));
        assert_eq!(probe.get_all("file").collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(probe.get("user"), None);
    }

    #[test]
    fn a_clock_within_the_query_window_has_no_skew() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let skew = |time: &str| {
            let output = format!("time\0{time}\0");
            let skew = Probe::parse(output.as_bytes(), (at(100), at(102))).skew();
            skew.map(|skew| skew.as_secs())
        };
        assert_eq!(skew("101.5"), Some(0));
        assert_eq!(skew("90.0"), Some(-10));
        assert_eq!(skew("162"), Some(60));
        assert_eq!(skew("%s"), None);
    }

    #[test]
    fn the_script_checks_a_directory_and_leaves_it_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("base.qcow2"), "").unwrap();
        let missing = format!("{path}/missing");
        let output = std::process::Command::new("sh")
            .args(["-c", SCRIPT, "snapdeck", "0:0", path, &missing, path, path])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let now = Timestamp::now();
        let probe = Probe::parse(&output.stdout, (now, now));
        assert_eq!(probe.get("owner"), Some("0:0"));
        assert_eq!(probe.get("temp.write"), Some(""));
        assert!(probe.get("nvram.missing").unwrap().contains("No such file"));
        assert!(probe.get("snapshots.free").unwrap().contains(' '));
        let files: Vec<&str> = probe.get_all("file").collect();
        assert!(
            files.len() == 1 && files[0].ends_with(" base.qcow2"),
            "{files:?}"
        );
        assert_eq!(probe.get_all("end").count(), 3);
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 1);
    }

    #[test]
    fn fuzz_probe_output() {
        snapdeck_fuzz::FuzzTarget::new("output of the doctor's script")
            .seed("time\x001700000000.5\0owner\0root:root\0snapshots.owner\x000 755\0snapshots.free\x0012 4096\0")
            .words(&["time\0", "1e308", "-1e308", "NaN"])
            .memory(1 << 20, 64)
            .run(|output| {
                let now = Timestamp::now();
                let probe = Probe::parse(output, (now, now));
                probe.skew();
                probe.get_all("owner").count();
            });
    }
}
