//! Questions about one snapshot: exists, info.

use std::fmt::Write;

use serde_json::json;

use super::note;
use super::output::{Answer, say, size, time};
use snapdeck_engine::Engine;
use snapdeck_model::{
    Error, HostName, Kind, Lineage, Object, PullCost, Result, SandboxId, Snapshot, SnapshotName,
};

/// What the bucket says of a snapshot. A bucket that does not answer is no failure of a question about
/// a host.
enum InBucket {
    Found(Box<Object>),
    Absent,
    /// None is configured, or it does not answer (which was told on stderr).
    Unknown,
}

async fn in_bucket(engine: &Engine, name: &SnapshotName) -> InBucket {
    if engine.settings().bucket.name.is_none() {
        return InBucket::Unknown;
    }
    match engine.object(name).await {
        Ok(Some(object)) => InBucket::Found(Box::new(object)),
        Ok(None) => InBucket::Absent,
        Err(error) => {
            say(format_args!("warning: {error}"));
            InBucket::Unknown
        }
    }
}

/// `snapdeck exists`: is it on the host (spec, API reference, `/snapshots/exists`)? The bucket is told beside it.
pub(crate) async fn exists(
    engine: &Engine,
    host: &HostName,
    name: &SnapshotName,
) -> Result<Answer> {
    let (here, object) = tokio::join!(engine.snapshot(host, name), in_bucket(engine, name));
    let here = here?.is_some();
    let (bucket, in_words) = match object {
        InBucket::Found(_) => (Some(true), "in the bucket"),
        InBucket::Absent => (Some(false), "not in the bucket"),
        InBucket::Unknown => (None, "the bucket is unknown"),
    };
    let on_host = if here { "on" } else { "not on" };
    let answer = Answer::new(
        &json!({"name": name, "host": host, "local": here, "bucket": bucket, "exists": here}),
        format!("{name}: {on_host} {host}, {in_words}\n"),
    )?;
    let code = if here {
        0
    } else {
        super::exit::code(Kind::NotFound)
    };
    Ok(Answer { code, ..answer })
}

/// `snapdeck push --plan`.
pub(crate) async fn forecast(
    engine: &Engine,
    host: &HostName,
    sandbox: &SandboxId,
    name: &SnapshotName,
    compact: bool,
) -> Result<Answer> {
    let forecast = engine.forecast(host, sandbox, name, compact).await?;
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
    let most = |bytes: u64| format!("{} at most", size(bytes));
    line("upload", most(forecast.upload_bytes));
    line("store copies", size(forecast.copy_bytes));
    line("object", most(forecast.size_bytes));
    if forecast.dead_bytes > 0 {
        let dead = size(forecast.dead_bytes);
        line(
            "deleted",
            format!("{dead} stay readable in it; --compact leaves them out"),
        );
    }
    if forecast.exists {
        line(
            "exists",
            "the bucket has it already: the push needs --overwrite".to_owned(),
        );
    }
    Answer::new(&forecast, text)
}

/// `snapdeck info`.
pub(crate) async fn info(engine: &Engine, host: &HostName, name: &SnapshotName) -> Result<Answer> {
    let (snapshot, object) = tokio::join!(engine.snapshot(host, name), in_bucket(engine, name));
    let object = match object {
        InBucket::Found(object) => Some(*object),
        InBucket::Absent | InBucket::Unknown => None,
    };
    let snapshot_known = snapshot.is_ok();
    let snapshot = match snapshot {
        Ok(snapshot) => snapshot,
        // What the bucket knows is worth telling also while the host is away.
        Err(error) if object.is_some() => {
            say(format_args!("warning: {error}"));
            None
        }
        Err(error) => return Err(error),
    };
    if snapshot.is_none() && object.is_none() {
        let what = format!("there is no snapshot {name} on host {host} or in the bucket");
        return Err(Error::new(Kind::NotFound, what)
            .hint("list what there is with snapdeck snapshots and snapdeck objects"));
    }
    let mut text = describe(host, name, snapshot.as_ref(), object.as_ref());
    // Without the host, what the bucket knows.
    let near = snapshot_known.then_some(host);
    let lineage = match engine.lineage(near, name).await {
        Ok(lineage) => Some(lineage),
        Err(error) => {
            say(format_args!("warning: {error}"));
            None
        }
    };
    if let Some(lineage) = &lineage {
        text += &relatives(lineage, host);
    }
    let cost = lineage.as_ref().and_then(|lineage| lineage.pull.as_ref());
    Answer::new(
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
const SHARES: usize = 5;

/// Where it comes from, what it shares, what a pull would bring, and what is said of it.
fn relatives(lineage: &Lineage, host: &HostName) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {key:<13} {value}");
    };
    if !lineage.parents.is_empty() {
        let parents: Vec<String> = lineage
            .parents
            .iter()
            .map(|parent| match (parent.on_host, parent.in_bucket) {
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
    for part in lineage.shares.iter().take(SHARES) {
        line(
            "shares",
            &format!("{} with {}", size(part.bytes), part.name),
        );
    }
    if let Some(more) = lineage.shares.len().checked_sub(SHARES + 1) {
        line("", &format!("and less with {} more", more + 1));
    }
    if let Some(cost) = &lineage.pull {
        let fetch = match (cost.fetch_bytes, cost.copies.is_empty()) {
            (0, true) => format!("would fetch nothing: {host} has it"),
            (fetch, _) => format!("would fetch {}", size(fetch)),
        };
        let copies = cost.copies.iter();
        let copies = copies
            .take(SHARES)
            .map(|part| format!("{} from {} on {host}", size(part.bytes), part.name));
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
        for remark in note::lines(said) {
            line("note", &format!("{remark} ({place})"));
        }
    }
    text
}

fn describe(
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
                &format!("{} ({size_bytes} bytes)", size(size_bytes)),
            );
            line("on disk", &size(snapshot.allocated_bytes));
            line("modified", &time(snapshot.modified));
            if let Some(facts) = &snapshot.facts {
                line("virtual size", &size(facts.virtual_size));
                line(
                    "format",
                    &format!(
                        "qcow2 version {}, clusters of {}",
                        facts.version,
                        size(facts.cluster_size)
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
                &format!("{} ({size_bytes} bytes)", size(size_bytes)),
            );
            line("uploaded", &time(object.modified));
        }
    }
    text
}
