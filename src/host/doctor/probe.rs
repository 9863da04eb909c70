//! One shell script that looks at a host from inside.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use crate::command::{CommandRunner, Input, read_text};
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Check, Error, Kind, Result};

const SCRIPT: &str = include_str!("probe.sh");
/// For all of the script, a first pass through directories on a slow disk included.
const DEADLINE: Duration = Duration::from_secs(20);
/// For its end, once its output has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of what it says: 100,000 files.
const MAX_PROBE_BYTES: usize = 8 << 20;
/// Bytes that measure how fast the line is, and how long it is measured at most.
const SAMPLE_BYTES: usize = 8 << 20;
const SAMPLE_TIME: Duration = Duration::from_secs(2);

/// A clock further off than this is told of.
const MAX_SKEW: Duration = Duration::from_secs(60);

/// What the script said: pairs of keys and values, some keys more than once.
#[derive(Debug)]
pub(super) struct Probe {
    pairs: Vec<(String, String)>,
    /// When it was asked, and when its first answer was here: its clock was read in between.
    query_window: (Timestamp, Timestamp),
}

impl Probe {
    /// Looks. What was said until the deadline is what there is: a directory that hangs hides no other check.
    ///
    /// # Errors
    /// `Unreachable`; `Failed` where nothing at all was said.
    pub(super) async fn run(place: &CommandRunner, settings: &HostSettings) -> Result<Self> {
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
        let begun = Timestamp::now();
        // It removes what it makes by itself, and would leave it if it were ended in between.
        let mut running = place.start(&argv, Input::Piped).await?;
        let (stdout, stderr) = (running.stdout(), running.stderr());
        let deadline = Instant::now() + DEADLINE;
        let (said, words) = tokio::join!(read_until(stdout, MAX_PROBE_BYTES, deadline), async {
            timeout_at(deadline, read_text(stderr))
                .await
                .unwrap_or_default()
        });
        let ended = timeout_at(Instant::now() + EXIT_TIMEOUT, place.wait(&mut running)).await;
        let probe = Self::parse(&said.bytes, (begun, said.first_byte_at.unwrap_or(begun)));
        match ended {
            Ok(Err(lost)) => Err(lost),
            _ if probe.pairs.is_empty() => Err(Error::new(
                Kind::Failed,
                format!("cannot run the checks on host {}", place.host()),
            )
            .with_cause(words)
            .hint("it needs a POSIX shell and GNU coreutils")),
            _ => Ok(probe),
        }
    }

    fn parse(said: &[u8], asked: (Timestamp, Timestamp)) -> Self {
        let text = String::from_utf8_lossy(said);
        let mut fields = text.split_terminator('\0');
        let mut pairs = Vec::new();
        while let (Some(key), Some(value)) = (fields.next(), fields.next()) {
            pairs.push((key.to_owned(), value.to_owned()));
        }
        Self {
            pairs,
            query_window: asked,
        }
    }

    /// The first value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(own, _)| own == key);
        pair.map(|(_, value)| &**value)
    }

    /// All values of a key.
    pub(super) fn get_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let of_key = move |(own, _): &&(String, String)| own == key;
        self.pairs.iter().filter(of_key).map(|(_, value)| &**value)
    }

    /// How far the host's clock is from ours at least; `None` where it did not say.
    pub(super) fn skew(&self) -> Option<SignedDuration> {
        let seconds: f64 = self.get("time")?.parse().ok()?;
        let there = Timestamp::from_millisecond((seconds * 1000.0) as i64).ok()?;
        let (begun, answered) = self.query_window;
        Some(match there {
            there if there < begun => there.duration_since(begun),
            there if there > answered => there.duration_since(answered),
            _ => SignedDuration::ZERO,
        })
    }

    #[cfg(test)]
    pub(super) fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let said: Vec<&str> = pairs
            .iter()
            .flat_map(|(key, value)| [*key, *value])
            .collect();
        let now = Timestamp::UNIX_EPOCH;
        Self::parse(said.join("\0").as_bytes(), (now, now))
    }
}

/// Is the host's clock ours?
pub(super) fn check_clock(probe: &Probe) -> Option<Check> {
    let (what, skew) = ("clock", probe.skew()?);
    let off = skew.unsigned_abs();
    if off <= MAX_SKEW {
        return Some(Check::passed(what, "as here"));
    }
    let way = if skew.is_negative() {
        "behind"
    } else {
        "ahead"
    };
    Some(Check::warning(
        what,
        format!("it is {} s {way} of this machine's", off.as_secs()),
        "timedatectl set-ntp true",
    ))
}

struct StreamOutput {
    bytes: Vec<u8>,
    first_byte_at: Option<Timestamp>,
}

/// What a stream says until it ends, has said `limit` bytes, or the deadline passes.
async fn read_until(
    stream: Option<impl AsyncRead + Unpin>,
    limit: usize,
    deadline: Instant,
) -> StreamOutput {
    let mut heard = StreamOutput {
        bytes: Vec::new(),
        first_byte_at: None,
    };
    let Some(stream) = stream else { return heard };
    let mut stream = stream.take(limit as u64);
    while let Ok(Ok(1..)) = timeout_at(deadline, stream.read_buf(&mut heard.bytes)).await {
        heard.first_byte_at.get_or_insert_with(Timestamp::now);
    }
    heard
}

/// Bytes a second from a host.
///
/// # Errors
/// `Unreachable`.
pub(super) async fn measure_speed(place: &CommandRunner) -> Result<f64> {
    let bytes = SAMPLE_BYTES.to_string();
    // Not zeros: the line may compress.
    let argv = ["head", "-c", &bytes, "/dev/urandom"];
    let mut running = place.start(&argv, Input::None).await?;
    let heard = read_until(running.stdout(), SAMPLE_BYTES, Instant::now() + SAMPLE_TIME).await;
    let ended = Timestamp::now();
    running.terminate().await;
    // The command's start is not the line's.
    let took = ended.duration_since(heard.first_byte_at.unwrap_or(ended));
    Ok(heard.bytes.len() as f64 / took.as_secs_f64().max(0.001))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn half_a_pair_is_none() {
        let now = Timestamp::UNIX_EPOCH;
        let probe = Probe::parse(b"file\0a b\0file\0c\0user", (now, now));
        assert_eq!(probe.get_all("file").collect::<Vec<_>>(), ["a b", "c"]);
        assert_eq!(probe.get("user"), None);
    }

    #[test]
    fn a_clock_within_the_time_of_asking_is_right() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let skew = |time: &str| {
            let said = format!("time\0{time}\0");
            let skew = Probe::parse(said.as_bytes(), (at(100), at(102))).skew();
            skew.map(|skew| skew.as_secs())
        };
        assert_eq!(skew("101.5"), Some(0));
        assert_eq!(skew("90.0"), Some(-10));
        assert_eq!(skew("162"), Some(60));
        assert_eq!(skew("%s"), None);
    }

    #[test]
    fn the_script_sees_a_directory_and_leaves_it_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("base.qcow2"), "").unwrap();
        let gone = format!("{path}/gone");
        let said = std::process::Command::new("sh")
            .args(["-c", SCRIPT, "snapdeck", "0:0", path, &gone, path, path])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stderr), "");
        let now = Timestamp::now();
        let probe = Probe::parse(&said.stdout, (now, now));
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
}
