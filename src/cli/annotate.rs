//! `snapdeck note`, `pin` and `unpin`: what is said of a snapshot, wherever it is.

use std::fmt::Write as _;
use std::io::Read as _;

use clap::Args;
use serde_json::{Value, json};

use super::output::{CommandOutput, eprint_line};
use super::{CommandPlan, exit};
use snapdeck_engine::Engine;
use snapdeck_model::{
    Annotations, AnnotationsPatch, Error, HostName, Kind, MAX_NOTE_BYTES, Result, SnapshotName,
    parse_label,
};

/// Where to apply a change: on the hosts, in the bucket, or both.
#[derive(Debug, Clone, Copy, Args)]
pub struct LocationFlags {
    /// Only on the hosts
    #[arg(long)]
    local: bool,
    /// Only in the bucket
    #[arg(long, conflicts_with = "local")]
    bucket: bool,
}

/// `snapdeck note`.
#[derive(Debug, Clone, Args)]
pub struct NoteArgs {
    /// The snapshot
    name: SnapshotName,
    /// The new note; "" removes it, - reads it from stdin
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    remove_label: Vec<String>,
    #[command(flatten)]
    locations: LocationFlags,
}

/// `snapdeck pin` and `snapdeck unpin`.
#[derive(Debug, Clone, Args)]
pub struct PinArgs {
    /// The snapshot
    name: SnapshotName,
    #[command(flatten)]
    locations: LocationFlags,
}

/// A change of annotations, and where to apply it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationRequest {
    name: SnapshotName,
    hosts: Vec<HostName>,
    includes_bucket: bool,
    change: AnnotationsPatch,
    /// The note comes from stdin.
    is_note_from_stdin: bool,
}

impl NoteArgs {
    /// What it means on `hosts`.
    pub(super) fn plan(self, hosts: Vec<HostName>) -> CommandPlan {
        let from_stdin = self.text.as_deref() == Some("-");
        let change = AnnotationsPatch {
            new_note: self.text.filter(|_| !from_stdin),
            set_labels: self.label,
            remove_labels: self.remove_label,
            set_pinned: None,
        };
        let saying = self.locations.into_request(self.name, hosts, change);
        CommandPlan::Annotate(AnnotationRequest {
            is_note_from_stdin: from_stdin,
            ..saying
        })
    }
}

impl PinArgs {
    /// What it means on `hosts`.
    pub(super) fn plan(self, pinned: bool, hosts: Vec<HostName>) -> CommandPlan {
        let change = AnnotationsPatch::with_pinned(pinned);
        CommandPlan::Annotate(self.locations.into_request(self.name, hosts, change))
    }
}

impl LocationFlags {
    fn into_request(
        self,
        name: SnapshotName,
        hosts: Vec<HostName>,
        change: AnnotationsPatch,
    ) -> AnnotationRequest {
        AnnotationRequest {
            name,
            hosts: if self.bucket { Vec::new() } else { hosts },
            includes_bucket: !self.local,
            change,
            is_note_from_stdin: false,
        }
    }
}

/// Applies the change in every location that has the snapshot, or shows the annotations there. A location that does not
/// answer is reported on stderr and gives the exit code; the others are done.
pub(super) async fn run(engine: &Engine, saying: AnnotationRequest) -> Result<CommandOutput> {
    let AnnotationRequest {
        name,
        hosts,
        includes_bucket: bucket,
        mut change,
        is_note_from_stdin: from_stdin,
    } = saying;
    if from_stdin {
        change.new_note = Some(read_note_from_stdin()?);
    }
    let bucket = bucket && (engine.settings().bucket.name.is_some() || hosts.is_empty());
    let (mut told, mut failures) = (Vec::new(), Vec::new());
    let places = hosts.into_iter().map(Some).chain(bucket.then_some(None));
    for host in places {
        let said = match &host {
            Some(host) => annotate_on_host(engine, host, &name, &change).await,
            None => annotate_in_bucket(engine, &name, &change).await,
        };
        match said {
            Ok(Some(said)) => told.push((host, said)),
            Ok(None) => {}
            Err(error) => failures.push(error),
        }
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    // Where nothing can be told, the caller tells of the first.
    first
        .iter()
        .filter(|_| !told.is_empty())
        .for_each(eprint_line);
    failures.for_each(|error| eprint_line(&error));
    match (told.is_empty(), first) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(Error::new(
            Kind::NotFound,
            format!("snapshot {name} not found in the searched locations"),
        )
        .hint("list snapshots with snapdeck snapshots and snapdeck objects")),
        (false, failure) => {
            let answer = build_output(&name, &told)?;
            let code = failure.map_or(0, |error| exit::code(error.kind()));
            Ok(CommandOutput { code, ..answer })
        }
    }
}

async fn annotate_on_host(
    engine: &Engine,
    host: &HostName,
    name: &SnapshotName,
    change: &AnnotationsPatch,
) -> Result<Option<Annotations>> {
    if !change.is_empty() {
        return match engine.annotate_snapshot(host, name, change).await {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            said => said.map(Some),
        };
    }
    if engine.snapshot(host, name).await?.is_none() {
        return Ok(None);
    }
    let (said, _) = engine.annotations(Some(host), false, name).await?;
    Ok(Some(said.unwrap_or_default()))
}

async fn annotate_in_bucket(
    engine: &Engine,
    name: &SnapshotName,
    change: &AnnotationsPatch,
) -> Result<Option<Annotations>> {
    let Some(object) = engine.object(name).await? else {
        return Ok(None);
    };
    if !change.is_empty() {
        return engine.annotate_object(&object, change).await.map(Some);
    }
    let (_, said) = engine.annotations(None, true, name).await?;
    Ok(Some(said.unwrap_or_default()))
}

fn read_note_from_stdin() -> Result<String> {
    let mut text = String::new();
    // One byte more tells that it is longer.
    let most = MAX_NOTE_BYTES as u64 + 1;
    let read = std::io::stdin().lock().take(most).read_to_string(&mut text);
    read.map_err(|error| {
        Error::new(Kind::InvalidInput, "cannot read the note from stdin").with_cause(error)
    })?;
    Ok(text)
}

fn build_output(
    name: &SnapshotName,
    told: &[(Option<HostName>, Annotations)],
) -> Result<CommandOutput> {
    let mut text = String::new();
    let mut places: Vec<Value> = Vec::new();
    for (host, said) in told {
        let place = host
            .as_ref()
            .map_or("in the bucket".to_owned(), |host| format!("on {host}"));
        let pinned = if said.pinned { "pinned" } else { "not pinned" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name} {place}: {pinned}");
        for line in format_annotations(said) {
            let _ = writeln!(text, "  {line}");
        }
        places.push(json!({"host": host, "bucket": host.is_none(), "remarks": said}));
    }
    CommandOutput::new(&json!({"name": name, "places": places}), text)
}

/// Returns the note and the labels as lines.
pub(super) fn format_annotations(said: &Annotations) -> Vec<String> {
    let note = said.notes.iter().flat_map(|note| note.lines());
    let labels = said.labels.iter();
    note.map(str::to_owned)
        .chain(labels.map(|(key, value)| format!("{key}={value}")))
        .collect()
}
