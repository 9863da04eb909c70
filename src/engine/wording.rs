//! Texts about operations and their results that the engine's log and all front ends share. The model has no wording,
//! and the engine is the lowest crate that they have in common.

use snapdeck_model::{HostName, Kind, LeftoverKind, Method, Operation, TransferStats};

/// Returns the line of a job: `push config-vm → myapp-v1.1`.
pub fn operation_title(operation: &Operation) -> String {
    match operation {
        Operation::Create {
            sandbox,
            name,
            live,
            ..
        } => {
            let mode = if *live { " (live)" } else { "" };
            format!("create {sandbox} → {name}{mode}")
        }
        Operation::Push { sandbox, name, .. } => format!("push {sandbox} → {name}"),
        Operation::Pull { host, name, .. } => format!("pull {name} → {host}"),
        Operation::Upload { host, name, .. } => format!("upload {name} from {host}"),
        Operation::Copy {
            from, host, name, ..
        } => format!("copy {name} from {from} → {host}"),
        Operation::Verify { host, name, repair } => {
            let location = host.as_ref().map_or("bucket", HostName::as_str);
            let verb = if *repair {
                "verify and repair"
            } else {
                "verify"
            };
            format!("{verb} {name} in {location}")
        }
        Operation::Adopt { host, name } => {
            let location = host.as_ref().map_or("bucket", HostName::as_str);
            format!("adopt {name} in {location}")
        }
        Operation::Remove {
            host,
            name,
            from_bucket,
            ..
        } => {
            let locations: Vec<&str> = host
                .iter()
                .map(HostName::as_str)
                .chain(from_bucket.then_some("bucket"))
                .collect();
            format!("remove {name} from {}", locations.join(" and "))
        }
        Operation::CreateSandbox { id, spec, .. } => format!("new {id} on {}", spec.snapshot),
        Operation::RenameSandbox { id, new_id, .. } => format!("rename {id} → {new_id}"),
        Operation::CloneSandbox { id, new_id, .. } => format!("clone {id} → {new_id}"),
        Operation::Sandbox { id, verb, .. } => format!("{} {id}", verb.as_str()),
    }
}

/// Returns the summary of the error of a job: `cannot push config-vm → myapp-v1.1`.
pub(crate) fn failure_summary(operation: &Operation) -> String {
    match operation {
        Operation::CreateSandbox { id, spec, .. } => {
            format!("cannot create {id} on {}", spec.snapshot)
        }
        operation => format!("cannot {}", operation_title(operation)),
    }
}

/// Returns how long a guest was paused and by which method: `paused for 27 ms (backup)`; `None` for 0 ms.
pub fn pause_summary(stats: &TransferStats, paused_ms: u64) -> Option<String> {
    let method = stats.method.as_str();
    match paused_ms {
        0 => None,
        1..1000 => Some(format!("paused for {paused_ms} ms ({method})")),
        _ => {
            let (seconds, tenths) = (paused_ms / 1000, paused_ms % 1000 / 100);
            Some(format!("paused for {seconds}.{tenths} s ({method})"))
        }
    }
}

/// Returns a suffix for an object's size, with sizes formatted by `size`: ` (9 MiB sent, 2 GiB copied by the store)`;
/// empty for an image that was uploaded whole.
pub fn transfer_summary(stats: &TransferStats, size: impl Fn(u64) -> String) -> String {
    let sent = size(stats.uploaded_bytes);
    match (stats.method, stats.copied_bytes) {
        (Method::Convert, _) => String::new(),
        (_, 0) => format!(" ({sent} sent)"),
        (_, copied) => format!(" ({sent} sent, {} copied by the store)", size(copied)),
    }
}

/// Returns the code of a failure in JSON and metrics.
pub fn error_code(kind: Kind) -> &'static str {
    match kind {
        Kind::InvalidInput => "invalidInput",
        Kind::NotFound => "notFound",
        Kind::Conflict => "conflict",
        Kind::Unreachable => "unreachable",
        Kind::Cancelled => "cancelled",
        Kind::NoSpace => "noSpace",
        Kind::Damaged => "damaged",
        Kind::Failed => "failed",
    }
}

/// Returns the kind of a leftover in words.
pub fn leftover_label(kind: LeftoverKind) -> &'static str {
    match kind {
        LeftoverKind::Partial => "partial pull",
        LeftoverKind::Directory => "temporary directory",
        LeftoverKind::Backup => "backup directory",
        LeftoverKind::Upload => "unfinished upload",
    }
}
