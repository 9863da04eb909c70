//! Operations as jobs in the foreground: submit, show progress, heed signals, wait.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::exit;
use super::output::{CommandOutput, eprint_line, format_size};
use super::progress::ProgressDisplay;
use snapdeck_engine::{Engine, JobId, operation_title, pause_summary, transfer_summary};
use snapdeck_model::{Error, HostName, Kind, Operation, Outcome, Result};

/// How often progress is sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Jobs of one command that are shown at once.
const MAX_PARALLEL_JOBS: usize = 8;

/// The signals that ask for the end: SIGINT, SIGTERM, SIGHUP.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// From here on they no longer kill the process.
    ///
    /// # Errors
    /// `Failed` where they cannot be listened for.
    pub fn new() -> Result<Self> {
        let listen = || -> io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hangup: signal(SignalKind::hangup())?,
            })
        };
        listen().map_err(|error| {
            Error::new(Kind::Failed, "cannot listen for signals").with_cause(error)
        })
    }

    /// Waits for the next one.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Runs `operations`, at least one, to their ends, all at once. Ctrl-C, SIGTERM and SIGHUP cancel them, and their
/// clean-up is awaited. One fails as it fails; of several each has a result of its own, and the first failure gives
/// the exit code.
pub(crate) async fn run(
    engine: &Engine,
    operations: Vec<Operation>,
    verbose: bool,
) -> Result<CommandOutput> {
    // First, so that no signal can kill a job between its start and this.
    let stops = StopSignals::new()?;
    let jobs = engine.submit_all(operations.clone());
    let results = follow_jobs(engine, &operations, jobs, stops, verbose).await;
    match operations.len() {
        2.. => collect_results(operations.iter().zip(results)),
        _ => last_output(results),
    }
}

/// Runs any number of `operations`, a few at once, and returns what came of each that was begun. Once one was cancelled
/// no more are begun.
pub(crate) async fn run_all(
    engine: &Engine,
    operations: Vec<Operation>,
    verbose: bool,
) -> Result<Vec<(Operation, Result<Outcome>)>> {
    let mut all = Vec::new();
    for some in operations.chunks(MAX_PARALLEL_JOBS) {
        let stops = StopSignals::new()?;
        let jobs = engine.submit_all(some.to_vec());
        let results = follow_jobs(engine, some, jobs, stops, verbose).await;
        let is_cancelled =
            |result: &Result<Outcome>| matches!(result, Err(e) if e.kind() == Kind::Cancelled);
        let over = results.iter().any(is_cancelled);
        all.extend(some.iter().cloned().zip(results));
        if over {
            break;
        }
    }
    Ok(all)
}

/// Runs `operations`, at least one, to their ends, one after the other; as [`run`] else. The first failure ends it.
pub(crate) async fn run_chain(
    engine: &Engine,
    operations: Vec<Operation>,
    verbose: bool,
) -> Result<CommandOutput> {
    let stops = StopSignals::new()?;
    let jobs = engine.submit_chain(operations.clone())?;
    let jobs = jobs.into_iter().map(Ok).collect();
    last_output(follow_jobs(engine, &operations, jobs, stops, verbose).await)
}

/// The first failure, or what came of the last.
fn last_output(results: Vec<Result<Outcome>>) -> Result<CommandOutput> {
    let outcomes = results.into_iter().collect::<Result<Vec<Outcome>>>()?;
    let nothing = || Error::new(Kind::Failed, "there was nothing to do");
    let outcome = outcomes.last().ok_or_else(nothing)?;
    CommandOutput::new(outcome, describe_outcome(outcome))
}

/// Shows the jobs until they are over, and returns what came of each.
async fn follow_jobs(
    engine: &Engine,
    operations: &[Operation],
    jobs: Vec<Result<JobId>>,
    mut stops: StopSignals,
    verbose: bool,
) -> Vec<Result<Outcome>> {
    let labels = operations.iter().map(|operation| match operations {
        [_] => format!("{} {}", operation.verb(), operation.subject()),
        _ => operation_title(operation),
    });
    let mut meters = ProgressDisplay::new(labels, verbose);
    let ids: Vec<Option<JobId>> = jobs.iter().map(|job| job.as_ref().ok().copied()).collect();
    let wait = join_all(
        jobs.into_iter()
            .map(|job| async { engine.wait(job?).await }),
    );
    tokio::pin!(wait);
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = vec![0; ids.len()];
    let mut cancelling = false;
    let results = loop {
        tokio::select! {
            results = &mut wait => break results,
            _ = ticks.tick() => show_progress(engine, &ids, &mut meters, &mut told, verbose),
            () = stops.recv() => {
                if cancelling {
                    meters.print_line("still cleaning up");
                } else {
                    cancelling = true;
                    meters.print_line("cancelling and cleaning up");
                    ids.iter().flatten().for_each(|id| engine.cancel(*id));
                }
            }
        }
    };
    show_progress(engine, &ids, &mut meters, &mut told, verbose);
    meters.clear();
    results
}

/// Of several operations at once, what tells this one: its sandbox where it is done to one, else its host.
fn operation_label(operation: &Operation) -> Option<String> {
    match operation {
        Operation::Sandbox { id, .. } | Operation::CreateSandbox { id, .. } => Some(id.to_string()),
        _ => operation.host().map(HostName::to_string),
    }
}

/// What came of several operations: `{"results": [...]}` with an outcome, or an error with its host and sandbox, in
/// their order. For a person a line each; those of failures go to stderr.
fn collect_results<'a>(
    results: impl Iterator<Item = (&'a Operation, Result<Outcome>)>,
) -> Result<CommandOutput> {
    let (mut documents, mut text, mut code) = (Vec::new(), String::new(), 0);
    for (operation, result) in results {
        match result {
            Ok(outcome) => {
                let answer = CommandOutput::new(&outcome, describe_outcome(&outcome))?;
                documents.push(answer.json);
                text += &answer.text;
            }
            Err(error) => {
                let mut document = exit::json(&error);
                document["host"] = json!(operation.host());
                if let Operation::Sandbox { id, .. } = operation {
                    document["id"] = json!(id);
                }
                documents.push(document);
                match operation_label(operation) {
                    Some(whose) => eprint_line(format_args!("{whose}: {error}")),
                    None => eprint_line(&error),
                }
                if code == 0 {
                    code = exit::code(error.kind());
                }
            }
        }
    }
    let answer = CommandOutput::new(&json!({ "results": documents }), text)?;
    Ok(CommandOutput { code, ..answer })
}

/// Shows progress and what came to the jobs' logs since `told` lines of each: their warnings, or all of it.
fn show_progress(
    engine: &Engine,
    ids: &[Option<JobId>],
    meters: &mut ProgressDisplay,
    told: &mut [usize],
    all: bool,
) {
    let view = engine.view();
    for (index, (id, told)) in ids.iter().zip(told).enumerate() {
        let Some(job) = id.and_then(|id| view.job(id)) else {
            continue;
        };
        let whose = match (ids.len(), operation_label(&job.operation)) {
            (2.., Some(whose)) => format!("{whose}: "),
            _ => String::new(),
        };
        for line in job.log.iter().skip(*told) {
            match line.is_warning {
                true => meters.print_line(format_args!("{whose}warning: {}", line.text)),
                false if all => meters.print_line(format_args!("{whose}{}", line.text)),
                false => {}
            }
        }
        *told = job.log.len();
        meters.show(index, job.progress());
    }
}

/// What came of it, for a person.
pub(crate) fn describe_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Created {
            name,
            snapshot_path,
            size_bytes,
            sandbox_id,
            paused_ms,
            live_mode,
            transfer: moved,
            ..
        } => {
            let how = match (live_mode, pause_summary(moved, *paused_ms)) {
                (true, _) => ", live".to_owned(),
                (false, None) => String::new(),
                (false, Some(pause)) => format!(", {pause}"),
            };
            let (size, ways) = (
                format_size(*size_bytes),
                transfer_summary(moved, format_size),
            );
            format!("created {name} from {sandbox_id}: {snapshot_path}, {size}{how}{ways}\n")
        }
        Outcome::Pushed {
            snapshot_name,
            snapshot_path,
            size_bytes,
            sandbox_id,
            transfer: moved,
            ..
        } => {
            let (size, ways) = (
                format_size(*size_bytes),
                transfer_summary(moved, format_size),
            );
            format!("pushed {sandbox_id} as {snapshot_name}: {snapshot_path}, {size}{ways}\n")
        }
        Outcome::Pulled {
            snapshot_name,
            snapshot_path,
            size_bytes,
            host,
            skipped,
            repaired,
            fetched_bytes,
            copied_bytes,
            resumed_bytes,
        } => {
            let verb = match (skipped, repaired) {
                (true, _) => "already there:",
                (false, true) => "repaired",
                (false, false) => "pulled",
            };
            // Where all of it was fetched there is nothing more to say.
            let parts = [
                (*fetched_bytes, "fetched"),
                (*copied_bytes, "copied on the host"),
                (*resumed_bytes, "there from an earlier pull"),
            ];
            let told: Vec<String> = parts
                .iter()
                .filter(|(bytes, _)| *bytes > 0 && fetched_bytes < size_bytes)
                .map(|(bytes, how)| format!("{} {how}", format_size(*bytes)))
                .collect();
            let from = match told.is_empty() {
                true => String::new(),
                false => format!(" ({})", told.join(", ")),
            };
            let size = format_size(*size_bytes);
            format!("{verb} {snapshot_name} on {host}: {snapshot_path}, {size}{from}\n")
        }
        Outcome::Verified {
            snapshot_name,
            host,
            size_bytes,
            has_manifest: by_manifest,
            repaired_blocks,
            fetched_bytes,
        } => {
            let place = host.as_ref().map_or("the bucket", |host| host.as_str());
            let what = match (repaired_blocks.len(), by_manifest) {
                (0, true) => "all blocks match the manifest".to_owned(),
                (0, false) => "readable; no manifest to check its blocks against".to_owned(),
                (blocks, _) => format!(
                    "{blocks} bad blocks repaired, {} downloaded",
                    format_size(*fetched_bytes)
                ),
            };
            let size = format_size(*size_bytes);
            format!("verified {snapshot_name} in {place}: {size}, {what}\n")
        }
        Outcome::Removed {
            snapshot_name,
            host,
            from_bucket: bucket,
        } => {
            let places: Vec<&str> = host
                .iter()
                .map(|host| host.as_str())
                .chain(bucket.then_some("the bucket"))
                .collect();
            format!("removed {snapshot_name} from {}\n", places.join(" and "))
        }
        Outcome::SandboxCreated { host, sandbox } => {
            let state = sandbox.state.label();
            format!("created {} on {host}: {state}\n", sandbox.id)
        }
        Outcome::SandboxChanged {
            host,
            id,
            state,
            changed,
        } => match (state, changed) {
            (None, _) => format!("destroyed {id} on {host}\n"),
            (Some(state), true) => format!("{id} on {host} is {}\n", state.label()),
            (Some(state), false) => format!("{id} on {host} is already {}\n", state.label()),
        },
    }
}
