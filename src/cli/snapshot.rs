//! Questions about one snapshot: exists, info.

use std::fmt::Write;

use serde_json::json;

use super::annotate;
use super::output::{CommandOutput, eprint_line, format_size, format_time};
use snapdeck_engine::Engine;
use snapdeck_model::{
    Error, HostName, Kind, Lineage, Object, PullCost, Result, SandboxId, Snapshot, SnapshotName,
};

/// What the bucket says of a snapshot. A bucket that does not answer is no failure of a question about
/// a host.
enum BucketLookup {
    Present(Box<Object>),
    Absent,
    /// None is configured, or it does not answer (which was told on stderr).
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
            eprint_line(format_args!("warning: {error}"));
            BucketLookup::Unknown
        }
    }
}

/// `snapdeck exists`: is it on the host (spec, API reference, `/snapshots/exists`)? The bucket is told beside it.
pub(crate) async fn exists(
    engine: &Engine,
    host: &HostName,
    name: &SnapshotName,
) -> Result<CommandOutput> {
    let (here, object) = tokio::join!(engine.snapshot(host, name), look_up_object(engine, name));
    let here = here?.is_some();
    let (bucket, in_words) = match object {
        BucketLookup::Present(_) => (Some(true), "in the bucket"),
        BucketLookup::Absent => (Some(false), "not in the bucket"),
        BucketLookup::Unknown => (None, "the bucket is unknown"),
    };
    let on_host = if here { "on" } else { "not on" };
    let answer = CommandOutput::new(
        &json!({"name": name, "host": host, "local": here, "bucket": bucket, "exists": here}),
        format!("{name}: {on_host} {host}, {in_words}\n"),
    )?;
    let code = if here {
        0
    } else {
        super::exit::code(Kind::NotFound)
    };
    Ok(CommandOutput { code, ..answer })
}

/// `snapdeck push --plan`.
pub(crate) async fn show_push_plan(
    engine: &Engine,
    host: &HostName,
    sandbox: &SandboxId,
    name: &SnapshotName,
    compact: bool,
) -> Result<CommandOutput> {
    let forecast = engine.plan_push(host, sandbox, name, compact).await?;
    let mut text = format!("{name} from {sandbox} on {host}\n");
    let mut line = |key: &str, value: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {key:<11} {value}");
    };
    let (method, reason) = (forecast.method.as_str(), &forecast.reason);
    line("method", format!("{method}: {reason}"));
    let base = forecast
        .base
        .as_ref()
        .map_or("none".to_owned(), ToString::to_string);
    line("base", format!("{base}: {}", forecast.base_reason));
    let most = |bytes: u64| format!("{} at most", format_size(bytes));
    line("upload", most(forecast.upload_bytes));
    line("store copies", format_size(forecast.copy_bytes));
    line("object", most(forecast.size_bytes));
    if forecast.dead_bytes > 0 {
        let dead = format_size(forecast.dead_bytes);
        line(
            "deleted",
            format!("{dead} of deleted data stay in the image; --compact removes them"),
        );
    }
    if forecast.object_exists {
        line(
            "exists",
            "already in the bucket: pass --overwrite to replace it".to_owned(),
        );
    }
    CommandOutput::new(&forecast, text)
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
    let snapshot_known = snapshot.is_ok();
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        // What the bucket knows is worth telling also while the host is away.
        Err(error) if object.is_some() => {
            eprint_line(format_args!("warning: {error}"));
            None
        }
        Err(error) => return Err(error),
    };
    if snapshot.is_none() && object.is_none() {
        let what = format!("snapshot {name} not found on host {host} or in the bucket");
        return Err(Error::new(Kind::NotFound, what)
            .hint("list snapshots with snapdeck snapshots and snapdeck objects"));
    }
    let mut text = describe_snapshot(host, name, snapshot.as_ref(), object.as_ref());
    // Without the host, what the bucket knows.
    let near = snapshot_known.then_some(host);
    let lineage = match engine.lineage(near, name).await {
        Ok(lineage) => Some(lineage),
        Err(error) => {
            eprint_line(format_args!("warning: {error}"));
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

/// Snapshots that are named of those it has most in common with.
const MAX_SHARES: usize = 5;

/// Where it comes from, what it shares, what a pull would bring, and what is said of it.
fn describe_lineage(lineage: &Lineage, host: &HostName) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {key:<13} {value}");
    };
    if !lineage.parents.is_empty() {
        let parents: Vec<String> = lineage
            .parents
            .iter()
            .map(|parent| match (parent.is_on_host, parent.is_in_bucket) {
                (true, true) => format!("{} (on {host}, in the bucket)", parent.name),
                (true, false) => format!("{} (on {host})", parent.name),
                (false, true) => format!("{} (in the bucket)", parent.name),
                (false, false) => format!("{} (not seen)", parent.name),
            })
            .collect();
        line("made from", &parents.join(" ← "));
    }
    if !lineage.children.is_empty() {
        let children: Vec<&str> = lineage.children.iter().map(SnapshotName::as_str).collect();
        line("made from it", &children.join(", "));
    }
    for part in lineage.shares.iter().take(MAX_SHARES) {
        line(
            "shares",
            &format!("{} with {}", format_size(part.bytes), part.name),
        );
    }
    if let Some(more) = lineage.shares.len().checked_sub(MAX_SHARES + 1) {
        line("", &format!("and less with {} more", more + 1));
    }
    if let Some(cost) = &lineage.pull_cost {
        let fetch = match (cost.fetch_bytes, cost.copies.is_empty()) {
            (0, true) => format!("nothing: {host} has it"),
            (fetch, _) => format!("would fetch {}", format_size(fetch)),
        };
        let copies = cost.copies.iter();
        let copies = copies
            .take(MAX_SHARES)
            .map(|part| format!("{} from {} on {host}", format_size(part.bytes), part.name));
        let all: Vec<String> = std::iter::once(fetch).chain(copies).collect();
        line("a pull", &all.join(", "));
    }
    for (place, said) in [
        ("on the host", &lineage.local),
        ("in the bucket", &lineage.bucket),
    ] {
        let Some(said) = said else { continue };
        if said.pinned {
            line("pinned", place);
        }
        for remark in annotate::format_annotations(said) {
            line("note", &format!("{remark} ({place})"));
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
    // Writing to a String does not fail.
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "  {key:<13} {value}");
    };
    match snapshot {
        None => line("host", &format!("not on {host}")),
        Some(snapshot) => {
            line("host", host.as_str());
            line("path", &snapshot.path);
            let size_bytes = snapshot.size_bytes;
            line(
                "size",
                &format!("{} ({size_bytes} bytes)", format_size(size_bytes)),
            );
            line("on disk", &format_size(snapshot.allocated_bytes));
            line("modified", &format_time(snapshot.modified));
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
        None => line("bucket", "not seen there"),
        Some(object) => {
            line("key", &object.key);
            let size_bytes = object.size_bytes;
            line(
                "object size",
                &format!("{} ({size_bytes} bytes)", format_size(size_bytes)),
            );
            line("uploaded", &format_time(object.modified));
        }
    }
    text
}
