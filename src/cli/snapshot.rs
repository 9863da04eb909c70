//! `snapdeck exists`, `info`, `manifest` and `push --plan`.

use serde_json::{Value, json};

use super::annotate;
use super::output::{
    CommandOutput, eprint_line, format_error, format_field, format_size, format_time_with_offset,
};
use snapdeck_engine::Engine;
use snapdeck_model::{
    Error, HostName, Kind, KnownDigests, Lineage, Object, PullCost, Result, SandboxId, Snapshot,
    SnapshotName,
};

/// Result of a lookup in the bucket. An unreachable bucket is not an error if the host is queried, too.
enum BucketLookup {
    Present(Box<Object>),
    Absent,
    /// No bucket is configured, or it does not answer (with a warning on stderr).
    Unknown,
}

async fn look_up_object(engine: &Engine, name: &SnapshotName) -> BucketLookup {
    if engine.settings().bucket.name.is_none() {
        return BucketLookup::Unknown;
    }
    match engine.object(name).await {
        Ok(Some(object)) => BucketLookup::Present(Box::new(object)),
        Ok(None) => BucketLookup::Absent,
        Err(error) => {
            eprint_line(format_args!("warning: {}", format_error(&error)));
            BucketLookup::Unknown
        }
    }
}

/// `snapdeck manifest`.
pub(crate) async fn manifest(
    engine: &Engine,
    host: Option<&HostName>,
    name: &SnapshotName,
) -> Result<CommandOutput> {
    let text = engine.manifest_text(host, name).await?;
    let document: Value = serde_json::from_str(&text).map_err(|error| {
        let summary = format!("cannot show the manifest of {name}");
        Error::new(Kind::Failed, summary).with_cause(error)
    })?;
    CommandOutput::new(&document, text + "\n")
}

/// `snapdeck exists`, as `GET /snapshots/exists`. The exit code depends on the host alone.
pub(crate) async fn exists(
    engine: &Engine,
    host: &HostName,
    name: &SnapshotName,
) -> Result<CommandOutput> {
    let (snapshot, object) =
        tokio::join!(engine.snapshot(host, name), look_up_object(engine, name));
    let exists = snapshot?.is_some();
    let (bucket, in_bucket) = match object {
        BucketLookup::Present(_) => (Some(true), "in the bucket"),
        BucketLookup::Absent => (Some(false), "not in the bucket"),
        BucketLookup::Unknown => (None, "the bucket cannot be read"),
    };
    let on_host = if exists { "on" } else { "not on" };
    let output = CommandOutput::new(
        &json!({"name": name, "host": host, "local": exists, "bucket": bucket, "exists": exists}),
        format!("{name}: {on_host} {host}, {in_bucket}\n"),
    )?;
    let code = if exists {
        0
    } else {
        super::exit::code(Kind::NotFound)
    };
    Ok(CommandOutput { code, ..output })
}

/// `snapdeck push --plan`.
pub(crate) async fn show_push_plan(
    engine: &Engine,
    host: &HostName,
    sandbox: &SandboxId,
    name: &SnapshotName,
    compact: bool,
) -> Result<CommandOutput> {
    let plan = engine.plan_push(host, sandbox, name, compact).await?;
    let mut text = format!("{name} from {sandbox} on {host}\n");
    let mut line = |key: &str, value: String| text += &format_field(key, 11, &value);
    let (method, reason) = (plan.method.as_str(), &plan.reason);
    line("method", format!("{method}: {reason}"));
    let base = plan
        .base
        .as_ref()
        .map_or("none".to_owned(), ToString::to_string);
    line("base", format!("{base}: {}", plan.base_reason));
    let at_most = |bytes: u64| format!("{} at most", format_size(bytes));
    line("upload", at_most(plan.upload_bytes));
    line("store copies", format_size(plan.copy_bytes));
    line("object", at_most(plan.size_bytes));
    if plan.dead_bytes > 0 {
        let dead = format_size(plan.dead_bytes);
        line(
            "deleted",
            format!("{dead} of deleted data stay in the image; --compact removes it"),
        );
    }
    if plan.object_exists {
        line(
            "exists",
            "already in the bucket: pass --overwrite to replace it".to_owned(),
        );
    }
    CommandOutput::new(&plan, text)
}

/// `snapdeck info`.
pub(crate) async fn info(
    engine: &Engine,
    host: &HostName,
    name: &SnapshotName,
) -> Result<CommandOutput> {
    let (snapshot, object) =
        tokio::join!(engine.snapshot(host, name), look_up_object(engine, name));
    let object = match object {
        BucketLookup::Present(object) => Some(*object),
        BucketLookup::Absent | BucketLookup::Unknown => None,
    };
    let host_answers = snapshot.is_ok();
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        // The bucket's details are useful without the host's.
        Err(error) if object.is_some() => {
            eprint_line(format_args!("warning: {}", format_error(&error)));
            None
        }
        Err(error) => return Err(error),
    };
    if snapshot.is_none() && object.is_none() {
        let message = format!("snapshot {name} not found on host {host} or in the bucket");
        return Err(Error::new(Kind::NotFound, message)
            .hint("list snapshots with snapdeck snapshots and snapdeck objects"));
    }
    let mut text = describe_snapshot(host, name, snapshot.as_ref(), object.as_ref());
    let lineage_host = host_answers.then_some(host);
    let lineage = match engine.lineage(lineage_host, name).await {
        Ok(lineage) => Some(lineage),
        Err(error) => {
            eprint_line(format_args!("warning: {}", format_error(&error)));
            None
        }
    };
    if let Some(lineage) = &lineage {
        text += &describe_lineage(lineage, host);
    }
    let cost = lineage
        .as_ref()
        .and_then(|lineage| lineage.pull_cost.as_ref());
    CommandOutput::new(
        &json!({
            "name": name,
            "host": host,
            "snapshot": snapshot,
            "object": object,
            "lineage": lineage,
            "pullWouldFetchBytes": cost.map(|cost| cost.fetch_bytes),
            "pullWouldCopyBytes": cost.map(PullCost::copy_bytes),
        }),
        text,
    )
}

const MAX_SHARES: usize = 5;

/// Describes parents and children, shared data, the cost of a pull, and annotations.
fn describe_lineage(lineage: &Lineage, host: &HostName) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| text += &format_field(key, 13, value);
    if !lineage.parents.is_empty() {
        let parents: Vec<String> = lineage
            .parents
            .iter()
            .map(|parent| match (parent.is_on_host, parent.is_in_bucket) {
                (true, true) => format!("{} (on {host}, in the bucket)", parent.name),
                (true, false) => format!("{} (on {host})", parent.name),
                (false, true) => format!("{} (in the bucket)", parent.name),
                (false, false) => format!("{} (not found)", parent.name),
            })
            .collect();
        line("parents", &parents.join(" ← "));
    }
    if !lineage.children.is_empty() {
        let children: Vec<&str> = lineage.children.iter().map(SnapshotName::as_str).collect();
        line("children", &children.join(", "));
    }
    let in_bucket = "the bucket".to_owned();
    for (digests, place) in [
        (lineage.local_digests, host.to_string()),
        (lineage.bucket_digests, in_bucket),
    ] {
        match digests {
            None => {}
            Some(KnownDigests::None) => line("digests", &format!("unknown in {place}")),
            Some(KnownDigests::Recorded) => line("digests", &format!("recorded in {place}")),
            Some(KnownDigests::Adopted(proof)) => line(
                "digests",
                &format!("adopted in {place}: {}", proof.as_str()),
            ),
        }
    }
    for unread in &lineage.unread {
        line("incomplete", &format!("relatives may be missing: {unread}"));
    }
    for part in lineage.shares.iter().take(MAX_SHARES) {
        line(
            "shares",
            &format!("{} with {}", format_size(part.bytes), part.name),
        );
    }
    if let Some(more) = lineage.shares.len().checked_sub(MAX_SHARES + 1) {
        line("", &format!("less with {} more", more + 1));
    }
    if let Some(cost) = &lineage.pull_cost {
        let fetch = match (cost.fetch_bytes, cost.copies.is_empty()) {
            (0, true) => format!("nothing to download: {host} has it"),
            (fetch, _) => format!("downloads {}", format_size(fetch)),
        };
        let copies = cost.copies.iter();
        let copies = copies.take(MAX_SHARES).map(|part| {
            format!(
                "copies {} from {} on {host}",
                format_size(part.bytes),
                part.name
            )
        });
        let all: Vec<String> = std::iter::once(fetch).chain(copies).collect();
        line("pull", &all.join(", "));
    }
    for (location, annotations) in [
        ("on the host", &lineage.local),
        ("in the bucket", &lineage.bucket),
    ] {
        let Some(annotations) = annotations else {
            continue;
        };
        if annotations.pinned {
            line("pinned", location);
        }
        for annotation in annotate::format_annotations(annotations) {
            line("note", &format!("{annotation} ({location})"));
        }
    }
    text
}

fn describe_snapshot(
    host: &HostName,
    name: &SnapshotName,
    snapshot: Option<&Snapshot>,
    object: Option<&Object>,
) -> String {
    let mut text = format!("{name}\n");
    let mut line = |key: &str, value: &str| text += &format_field(key, 13, value);
    match snapshot {
        None => line("host", &format!("not on {host}")),
        Some(snapshot) => {
            line("host", host.as_str());
            line("path", &snapshot.path);
            line("size", &format_size(snapshot.size_bytes));
            line("on disk", &format_size(snapshot.allocated_bytes));
            line("modified", &format_time_with_offset(snapshot.modified));
            if let Some(facts) = &snapshot.facts {
                line("virtual size", &format_size(facts.virtual_size));
                line(
                    "format",
                    &format!(
                        "qcow2 version {}, clusters of {}",
                        facts.version,
                        format_size(facts.cluster_size)
                    ),
                );
                if let Some(backing) = &facts.backing_file {
                    line("backing file", backing);
                }
            }
            if let Some(problem) = &snapshot.problem {
                line("problem", problem);
            }
            if !snapshot.dependents.is_empty() {
                line("used by", &snapshot.dependents.join(", "));
            }
        }
    }
    match object {
        None => line("bucket", "not found"),
        Some(object) => {
            line("key", &object.key);
            line("object size", &format_size(object.size_bytes));
            line("uploaded", &format_time_with_offset(object.modified));
            if let Some(problem) = &object.problem {
                line("problem", problem);
            }
        }
    }
    text
}
