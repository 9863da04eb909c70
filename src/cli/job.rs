//! Jobs in the foreground: submits operations, shows progress, cancels on signals, and waits.

use std::io;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::exit;
use super::output::{CommandOutput, eprint_error, eprint_line, format_error, format_size};
use super::progress::ProgressDisplay;
use snapdeck_engine::{Engine, JobId, operation_title, pause_summary, transfer_summary};
use snapdeck_model::{Error, HostName, Kind, Operation, Outcome, Result};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
const MAX_PARALLEL_JOBS: usize = 8;

/// The signals SIGINT, SIGTERM and SIGHUP.
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Installs the handlers: the signals no longer end the process.
    ///
    /// # Errors
    /// `Failed` if a handler cannot be installed.
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

    /// Waits for a signal; returns whether it is SIGINT, by which an operator cancels.
    pub async fn recv(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
            _ = self.hangup.recv() => false,
        }
    }
}

/// Runs one or more operations at the same time. A signal cancels them and waits for their cleanup. A single operation
/// returns its error; several return a result each, and the first failure gives the exit code.
pub(crate) async fn run(
    engine: &Engine,
    operations: Vec<Operation>,
    verbose: bool,
) -> Result<CommandOutput> {
    // First, so that no signal can end the process between the start of a job and this.
    let stops = StopSignals::new()?;
    let jobs = engine.submit_all(operations.clone());
    let results = follow_jobs(engine, &operations, jobs, stops, verbose).await;
    match operations.len() {
        2.. => collect_results(operations.iter().zip(results)),
        _ => last_output(results),
    }
}

/// Runs any number of operations, [`MAX_PARALLEL_JOBS`] at a time; returns the results of those that started. No more
/// are started after one was cancelled.
pub(crate) async fn run_all(
    engine: &Engine,
    operations: Vec<Operation>,
    verbose: bool,
) -> Result<Vec<(Operation, Result<Outcome>)>> {
    let mut all = Vec::new();
    for chunk in operations.chunks(MAX_PARALLEL_JOBS) {
        let stops = StopSignals::new()?;
        let jobs = engine.submit_all(chunk.to_vec());
        let results = follow_jobs(engine, chunk, jobs, stops, verbose).await;
        let is_cancelled =
            |result: &Result<Outcome>| matches!(result, Err(e) if e.kind() == Kind::Cancelled);
        let is_stopped = results.iter().any(is_cancelled);
        all.extend(chunk.iter().cloned().zip(results));
        if is_stopped {
            break;
        }
    }
    Ok(all)
}

/// As [`run`], but one operation after the other; the first failure ends the chain.
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

/// Returns the first failure, or the output of the last operation.
fn last_output(results: Vec<Result<Outcome>>) -> Result<CommandOutput> {
    let outcomes = results.into_iter().collect::<Result<Vec<Outcome>>>()?;
    let nothing = || Error::new(Kind::Failed, "there was nothing to do");
    let outcome = outcomes.last().ok_or_else(nothing)?;
    CommandOutput::new(outcome, describe_outcome(outcome))
}

/// Shows the progress of jobs until they end; returns their results.
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
    let mut display = ProgressDisplay::new(labels, verbose);
    let ids: Vec<Option<JobId>> = jobs.iter().map(|job| job.as_ref().ok().copied()).collect();
    let wait = join_all(
        jobs.into_iter()
            .map(|job| async { engine.wait(job?).await }),
    );
    tokio::pin!(wait);
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut log_lengths = vec![0; ids.len()];
    let mut is_cancelling = false;
    let results = loop {
        tokio::select! {
            results = &mut wait => break results,
            _ = ticks.tick() => show_progress(engine, &ids, &mut display, &mut log_lengths, verbose),
            is_cancel = stops.recv() => {
                if is_cancelling {
                    display.print_line("still cleaning up");
                } else {
                    is_cancelling = true;
                    display.print_line("cancelling and cleaning up");
                    ids.iter().flatten().for_each(|id| match is_cancel {
                        true => engine.cancel(*id),
                        false => engine.stop(*id),
                    });
                }
            }
        }
    };
    show_progress(engine, &ids, &mut display, &mut log_lengths, verbose);
    display.clear();
    results
        .into_iter()
        .map(|result| result.and_then(refuse_missing))
        .collect()
}

/// Fails if there was nothing to destroy: a person may have mistyped the id.
fn refuse_missing(outcome: Outcome) -> Result<Outcome> {
    match &outcome {
        Outcome::SandboxChanged {
            host,
            id,
            state: None,
            changed: false,
        } => {
            let summary = format!("sandbox {id} not found on host {host}");
            let error = Error::new(Kind::NotFound, summary);
            Err(error.hint("list sandboxes with `snapdeck sandboxes`"))
        }
        _ => Ok(outcome),
    }
}

/// Returns what identifies an operation among several: its sandbox or its host.
fn operation_label(operation: &Operation) -> Option<String> {
    match operation {
        Operation::Sandbox { id, .. }
        | Operation::CreateSandbox { id, .. }
        | Operation::RenameSandbox { id, .. }
        | Operation::CloneSandbox { id, .. } => Some(id.to_string()),
        _ => operation.host().map(HostName::to_string),
    }
}

/// Returns the output of several operations: `{"results": [...]}` with an outcome or an error (with host and sandbox) each,
/// in order. As text a line each; failures go to stderr.
fn collect_results<'a>(
    results: impl Iterator<Item = (&'a Operation, Result<Outcome>)>,
) -> Result<CommandOutput> {
    let (mut documents, mut text, mut code) = (Vec::new(), String::new(), 0);
    for (operation, result) in results {
        match result {
            Ok(outcome) => {
                let output = CommandOutput::new(&outcome, describe_outcome(&outcome))?;
                documents.push(output.json);
                text += &output.text;
            }
            Err(error) => {
                let mut document = exit::json(&error);
                document["host"] = json!(operation.host());
                if let Operation::Sandbox { id, .. } = operation {
                    document["id"] = json!(id);
                }
                documents.push(document);
                match operation_label(operation) {
                    Some(label) => eprint_line(format_args!("{label}: {}", format_error(&error))),
                    None => eprint_error(&error),
                }
                if code == 0 {
                    code = exit::code(error.kind());
                }
            }
        }
    }
    let output = CommandOutput::new(&json!({ "results": documents }), text)?;
    Ok(CommandOutput { code, ..output })
}

/// Shows progress and new lines of the jobs' logs: warnings, or all lines. `log_lengths` is the number of lines shown per
/// job.
fn show_progress(
    engine: &Engine,
    ids: &[Option<JobId>],
    display: &mut ProgressDisplay,
    log_lengths: &mut [usize],
    shows_all: bool,
) {
    let view = engine.view();
    for (index, (id, log_length)) in ids.iter().zip(log_lengths).enumerate() {
        let Some(job) = id.and_then(|id| view.job(id)) else {
            continue;
        };
        let prefix = match (ids.len(), operation_label(&job.operation)) {
            (2.., Some(label)) => format!("{label}: "),
            _ => String::new(),
        };
        for line in job.log.iter().skip(*log_length) {
            match line.is_warning {
                true => display.print_line(format_args!("{prefix}warning: {}", line.text)),
                false if shows_all => display.print_line(format_args!("{prefix}{}", line.text)),
                false => {}
            }
        }
        *log_length = job.log.len();
        display.show(index, job.progress(), job.operation.host());
    }
}

fn received_verb(
    is_skipped: bool,
    differs: bool,
    is_repaired: bool,
    done: &'static str,
) -> &'static str {
    match (is_skipped, differs, is_repaired) {
        (true, true, _) => "kept another image:",
        (true, false, _) => "already present:",
        (false, _, true) => "repaired",
        (false, _, false) => done,
    }
}

/// Returns where the bytes of an image came from; empty if all came from the first of the `sources`, or none.
fn source_summary(size_bytes: u64, sources: [(u64, &str); 3]) -> String {
    let is_mixed = sources[0].0 < size_bytes;
    let sources = sources.iter().filter(|(bytes, _)| *bytes > 0 && is_mixed);
    let sources: Vec<String> = sources
        .map(|(bytes, source)| format!("{} {source}", format_size(*bytes)))
        .collect();
    match sources.is_empty() {
        true => String::new(),
        false => format!(" ({})", sources.join(", ")),
    }
}

/// Returns an outcome as a line of text.
pub(crate) fn describe_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Created {
            name,
            snapshot_path,
            size_bytes,
            sandbox_id,
            paused_ms,
            live_mode,
            transfer,
            ..
        } => {
            let consistency = match (live_mode, pause_summary(transfer, *paused_ms)) {
                (true, _) => ", live".to_owned(),
                (false, None) => String::new(),
                (false, Some(pause)) => format!(", {pause}"),
            };
            let size = format_size(*size_bytes);
            let summary = transfer_summary(transfer, format_size);
            format!(
                "created {name} from {sandbox_id}: {snapshot_path}, {size}{consistency}{summary}\n"
            )
        }
        Outcome::Pushed {
            snapshot_name,
            snapshot_path,
            size_bytes,
            sandbox_id,
            transfer,
            ..
        } => {
            let size = format_size(*size_bytes);
            let summary = transfer_summary(transfer, format_size);
            format!("pushed {sandbox_id} as {snapshot_name}: {snapshot_path}, {size}{summary}\n")
        }
        Outcome::Pulled {
            snapshot_name,
            snapshot_path,
            size_bytes,
            host,
            skipped,
            differs,
            repaired,
            fetched_bytes,
            copied_bytes,
            resumed_bytes,
        } => {
            let verb = received_verb(*skipped, *differs, *repaired, "pulled");
            let sources = [
                (*fetched_bytes, "downloaded"),
                (*copied_bytes, "copied on the host"),
                (*resumed_bytes, "from an earlier pull"),
            ];
            let sources = source_summary(*size_bytes, sources);
            let size = format_size(*size_bytes);
            format!("{verb} {snapshot_name} on {host}: {snapshot_path}, {size}{sources}\n")
        }
        Outcome::Copied {
            snapshot_name,
            snapshot_path,
            size_bytes,
            from,
            host,
            skipped,
            differs,
            repaired,
            fetched_bytes,
            copied_bytes,
            resumed_bytes,
        } => {
            let verb = received_verb(*skipped, *differs, *repaired, "copied");
            let read = format!("read on {from}");
            let sources = [
                (*fetched_bytes, &*read),
                (*copied_bytes, "copied on the host"),
                (*resumed_bytes, "from an earlier copy"),
            ];
            let sources = source_summary(*size_bytes, sources);
            let size = format_size(*size_bytes);
            format!("{verb} {snapshot_name} on {host}: {snapshot_path}, {size}{sources}\n")
        }
        Outcome::Uploaded {
            snapshot_name,
            snapshot_path,
            size_bytes,
            host,
            uploaded_bytes,
            copied_bytes,
        } => {
            let size = format_size(*size_bytes);
            // Omitted if all bytes were sent.
            let summary = match copied_bytes {
                0 => String::new(),
                copied => format!(
                    " ({} sent, {} copied by the store)",
                    format_size(*uploaded_bytes),
                    format_size(*copied)
                ),
            };
            format!("uploaded {snapshot_name} from {host}: {snapshot_path}, {size}{summary}\n")
        }
        Outcome::Verified {
            snapshot_name,
            host,
            size_bytes,
            has_manifest,
            repaired_blocks,
            fetched_bytes,
        } => {
            let location = host.as_ref().map_or("the bucket", |host| host.as_str());
            let result = match (repaired_blocks.len(), has_manifest) {
                (0, true) => "all blocks match the manifest".to_owned(),
                (0, false) => "readable; no manifest to check its blocks against".to_owned(),
                (blocks, _) => format!(
                    "{blocks} bad blocks repaired, {} downloaded",
                    format_size(*fetched_bytes)
                ),
            };
            let size = format_size(*size_bytes);
            format!("verified {snapshot_name} in {location}: {size}, {result}\n")
        }
        Outcome::Adopted {
            snapshot_name,
            host,
            size_bytes,
            hashed_bytes,
            changed,
        } => {
            let location = host.as_ref().map_or("the bucket", |host| host.as_str());
            match changed {
                true => format!(
                    "adopted {snapshot_name} in {location}: {}, {} read\n",
                    format_size(*size_bytes),
                    format_size(*hashed_bytes)
                ),
                false => format!("{snapshot_name} in {location} already has a manifest\n"),
            }
        }
        Outcome::Removed {
            snapshot_name,
            host,
            from_bucket,
        } => {
            let locations: Vec<&str> = host
                .iter()
                .map(|host| host.as_str())
                .chain(from_bucket.then_some("the bucket"))
                .collect();
            format!("removed {snapshot_name} from {}\n", locations.join(" and "))
        }
        Outcome::SandboxCreated { host, sandbox, .. } => {
            let state = sandbox.state.label();
            format!("created {} on {host}: {state}\n", sandbox.id)
        }
        Outcome::SandboxConfigured {
            host,
            sandbox_id,
            cpus,
            memory_bytes,
            autostart,
            changed,
        } => {
            let already = if *changed { "" } else { "already " };
            let memory = format_size(*memory_bytes);
            let autostart = if *autostart { "on" } else { "off" };
            format!(
                "{sandbox_id} on {host} {already}has {cpus} CPUs, {memory} of memory, autostart {autostart}\n"
            )
        }
        Outcome::SandboxRenamed {
            host,
            sandbox_id,
            former_id,
            disk_path,
        } => format!(
            "renamed {former_id} to {sandbox_id} on {host}; its disk is still {disk_path}\n"
        ),
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
