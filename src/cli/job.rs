//! One operation as a job in the foreground: submit, show progress, heed signals, wait.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::meter::Meter;
use super::output::{Answer, size};
use crate::engine::{Engine, JobId};
use crate::model::{Error, Kind, Operation, Outcome, Result};

/// How often progress is sampled.
const SAMPLE: Duration = Duration::from_millis(100);

/// The signals that ask a job to stop.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stops {
    fn new() -> Result<Self> {
        let listen = || -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
            })
        };
        listen()
            .map_err(|error| Error::new(Kind::Failed, "cannot listen for signals").because(error))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Runs `operation` to its end. Ctrl-C, SIGTERM and SIGHUP cancel it and its clean-up is awaited.
pub async fn run(engine: &Engine, operation: Operation, verbose: bool) -> Result<Answer> {
    // First, so that no signal can kill a job between its start and this.
    let mut stops = Stops::new()?;
    let label = format!("{} {}", operation.verb(), operation.snapshot());
    let mut meter = Meter::new(label, verbose);
    let id = engine.submit(operation)?;
    let wait = engine.wait(id);
    tokio::pin!(wait);
    let mut ticks = tokio::time::interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = 0;
    let mut cancelling = false;
    let result = loop {
        tokio::select! {
            result = &mut wait => break result,
            _ = ticks.tick() => told = show(engine, id, &mut meter, told, verbose),
            () = stops.next() => {
                if cancelling {
                    meter.say("still cleaning up, so that nothing is left behind");
                } else {
                    cancelling = true;
                    meter.say("cancelling and cleaning up");
                    engine.cancel(id);
                }
            }
        }
    };
    show(engine, id, &mut meter, told, verbose);
    meter.end();
    let outcome = result?;
    Answer::new(&outcome, sentence(&outcome))
}

/// Shows progress and what came to the job's log since `told` lines: its warnings, or all of it;
/// returns how many lines it has now.
fn show(engine: &Engine, id: JobId, meter: &mut Meter, told: usize, all: bool) -> usize {
    let view = engine.view();
    let Some(job) = view.job(id) else {
        return told;
    };
    for line in job.log.iter().skip(told) {
        match line.warning {
            true => meter.say(format_args!("warning: {}", line.text)),
            false if all => meter.say(&line.text),
            false => {}
        }
    }
    meter.show(job.progress());
    job.log.len()
}

/// What came of it, for a person.
fn sentence(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Created {
            name,
            snapshot_path,
            size_bytes,
            sandbox_id,
            paused_ms,
            live_mode,
            ..
        } => {
            let how = match (live_mode, paused_ms) {
                (true, _) => ", live".to_owned(),
                (false, 0) => String::new(),
                (false, ms) => format!(", paused for {}.{} s", ms / 1000, ms % 1000 / 100),
            };
            let size = size(*size_bytes);
            format!("created {name} from {sandbox_id}: {snapshot_path}, {size}{how}\n")
        }
        Outcome::Pushed {
            snapshot_name,
            snapshot_path,
            size_bytes,
            sandbox_id,
            ..
        } => {
            let size = size(*size_bytes);
            format!("pushed {sandbox_id} as {snapshot_name}: {snapshot_path}, {size}\n")
        }
        Outcome::Pulled {
            snapshot_name,
            snapshot_path,
            size_bytes,
            host,
            skipped,
            repaired,
        } => {
            let verb = match (skipped, repaired) {
                (true, _) => "already there:",
                (false, true) => "repaired",
                (false, false) => "pulled",
            };
            let size = size(*size_bytes);
            format!("{verb} {snapshot_name} on {host}: {snapshot_path}, {size}\n")
        }
        Outcome::Removed {
            snapshot_name,
            host,
            bucket,
        } => {
            let places: Vec<&str> = host
                .iter()
                .map(|host| host.as_str())
                .chain(bucket.then_some("the bucket"))
                .collect();
            format!("removed {snapshot_name} from {}\n", places.join(" and "))
        }
    }
}
