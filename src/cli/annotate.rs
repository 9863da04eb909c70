//! `snapdeck note`, `pin` and `unpin`: annotations of a snapshot on hosts and in the bucket.

use std::fmt::Write as _;
use std::io::Read as _;

use clap::Args;
use serde_json::{Value, json};

use super::output::{CommandOutput, eprint_error};
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
    patch: AnnotationsPatch,
    is_note_from_stdin: bool,
}

impl NoteArgs {
    pub(super) fn plan(self, hosts: Vec<HostName>) -> CommandPlan {
        let from_stdin = self.text.as_deref() == Some("-");
        let patch = AnnotationsPatch {
            new_note: self.text.filter(|_| !from_stdin),
            set_labels: self.label,
            remove_labels: self.remove_label,
            set_pinned: None,
        };
        let request = self.locations.into_request(self.name, hosts, patch);
        CommandPlan::Annotate(AnnotationRequest {
            is_note_from_stdin: from_stdin,
            ..request
        })
    }
}

impl PinArgs {
    pub(super) fn plan(self, pinned: bool, hosts: Vec<HostName>) -> CommandPlan {
        let patch = AnnotationsPatch::with_pinned(pinned);
        CommandPlan::Annotate(self.locations.into_request(self.name, hosts, patch))
    }
}

impl LocationFlags {
    fn into_request(
        self,
        name: SnapshotName,
        hosts: Vec<HostName>,
        patch: AnnotationsPatch,
    ) -> AnnotationRequest {
        AnnotationRequest {
            name,
            hosts: if self.bucket { Vec::new() } else { hosts },
            includes_bucket: !self.local,
            patch,
            is_note_from_stdin: false,
        }
    }
}

/// Applies the patch in every location that has the snapshot; an empty one shows the annotations there. A location that
/// fails is reported on stderr and gives the exit code; the others are done.
pub(super) async fn run(engine: &Engine, request: AnnotationRequest) -> Result<CommandOutput> {
    let AnnotationRequest {
        name,
        hosts,
        includes_bucket,
        mut patch,
        is_note_from_stdin,
    } = request;
    if is_note_from_stdin {
        patch.new_note = Some(read_note_from_stdin()?);
    }
    let includes_bucket =
        includes_bucket && (engine.settings().bucket.name.is_some() || hosts.is_empty());
    let (mut results, mut failures) = (Vec::new(), Vec::new());
    let locations = hosts
        .into_iter()
        .map(Some)
        .chain(includes_bucket.then_some(None));
    for host in locations {
        let annotations = engine.annotate_if_present(host.as_ref(), &name, &patch);
        match annotations.await {
            Ok(Some(annotations)) => results.push((host, annotations)),
            Ok(None) => {}
            Err(error) => failures.push(error),
        }
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    // Without results, the first failure is returned.
    first
        .iter()
        .filter(|_| !results.is_empty())
        .for_each(eprint_error);
    failures.for_each(|error| eprint_error(&error));
    match (results.is_empty(), first) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(Error::new(
            Kind::NotFound,
            format!("snapshot {name} not found in the searched locations"),
        )
        .hint("list snapshots with snapdeck snapshots and snapdeck objects")),
        (false, failure) => {
            let output = build_output(&name, &results)?;
            let code = failure.map_or(0, |error| exit::code(error.kind()));
            Ok(CommandOutput { code, ..output })
        }
    }
}

fn read_note_from_stdin() -> Result<String> {
    let mut text = String::new();
    // One byte more, so that a longer note is refused and not cut.
    let limit = MAX_NOTE_BYTES as u64 + 1;
    let mut input = std::io::stdin().lock().take(limit);
    input.read_to_string(&mut text).map_err(|error| {
        Error::new(Kind::InvalidInput, "cannot read the note from stdin").with_cause(error)
    })?;
    Ok(text)
}

fn build_output(
    name: &SnapshotName,
    results: &[(Option<HostName>, Annotations)],
) -> Result<CommandOutput> {
    let mut text = String::new();
    let mut locations: Vec<Value> = Vec::new();
    for (host, annotations) in results {
        let location = host
            .as_ref()
            .map_or("in the bucket".to_owned(), |host| format!("on {host}"));
        let pinned = if annotations.pinned {
            "pinned"
        } else {
            "not pinned"
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name} {location}: {pinned}");
        for line in format_annotations(annotations) {
            let _ = writeln!(text, "  {line}");
        }
        locations.push(json!({"host": host, "bucket": host.is_none(), "annotations": annotations}));
    }
    CommandOutput::new(&json!({"name": name, "locations": locations}), text)
}

/// Returns the note and the labels as lines.
pub(super) fn format_annotations(annotations: &Annotations) -> Vec<String> {
    let note = annotations.notes.iter().flat_map(|note| note.lines());
    let labels = annotations.labels.iter();
    note.map(str::to_owned)
        .chain(labels.map(|(key, value)| format!("{key}={value}")))
        .collect()
}
