//! Locks that keep two jobs from working on one sandbox, snapshot or object at the same time.

use snapdeck_host::{Host, LockRequest};
use snapdeck_model::Operation;

/// A lock of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceLock {
    /// Shown to the operator: `object base`.
    pub resource: String,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Shared,
    Exclusive,
    /// Exclusive, to install a snapshot on a host.
    Install,
    /// Shared, to use a snapshot of a host as soon as it is installed there.
    UseInstalled,
}

/// Relation of a new job to an active one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Relation {
    Independent,
    /// The new job starts when the active one has ended, and fails with it if `needs_success`.
    Follows {
        needs_success: bool,
    },
    /// The active job does what the new one would do.
    Same,
    /// The new job is refused, because of this lock.
    Conflict(ResourceLock),
}

/// Returns the locks between the jobs of this process.
pub(super) fn locks_for(operation: &Operation) -> Vec<ResourceLock> {
    use Access::{Exclusive, Install, Shared, UseInstalled};
    let mut locks = Vec::new();
    let mut lock = |resource: String, access| locks.push(ResourceLock { resource, access });
    match operation {
        Operation::Create {
            host,
            sandbox,
            name,
            ..
        }
        | Operation::Push {
            host,
            sandbox,
            name,
            ..
        } => {
            lock(format!("sandbox {sandbox} on host {host}"), Exclusive);
            lock(format!("object {name}"), Exclusive);
        }
        Operation::Pull { host, name, .. } => {
            lock(format!("snapshot {name} on host {host}"), Install);
            lock(format!("object {name}"), Shared);
        }
        Operation::Upload { host, name, .. } => {
            lock(format!("snapshot {name} on host {host}"), Shared);
            lock(format!("object {name}"), Exclusive);
        }
        Operation::Copy {
            from, host, name, ..
        } => {
            lock(format!("snapshot {name} on host {from}"), Shared);
            lock(format!("snapshot {name} on host {host}"), Install);
        }
        Operation::Verify { host, name, repair } => match host {
            Some(host) => {
                let access = if *repair { Exclusive } else { Shared };
                lock(format!("snapshot {name} on host {host}"), access);
                lock(format!("object {name}"), Shared);
            }
            None => lock(format!("object {name}"), Shared),
        },
        Operation::Adopt { host, name } => match host {
            Some(host) => lock(format!("snapshot {name} on host {host}"), Shared),
            None => lock(format!("object {name}"), Shared),
        },
        Operation::Remove {
            host,
            name,
            from_bucket,
            ..
        } => {
            if let Some(host) = host {
                lock(format!("snapshot {name} on host {host}"), Exclusive);
            }
            if *from_bucket {
                lock(format!("object {name}"), Exclusive);
            }
        }
        Operation::CreateSandbox { host, id, spec } => {
            lock(format!("sandbox {id} on host {host}"), Exclusive);
            // The snapshot must not be replaced or removed while its overlay is being made.
            let snapshot = format!("snapshot {} on host {host}", spec.snapshot);
            lock(snapshot, UseInstalled);
        }
        Operation::RenameSandbox { host, id, new_id }
        | Operation::CloneSandbox {
            host, id, new_id, ..
        } => {
            lock(format!("sandbox {id} on host {host}"), Exclusive);
            lock(format!("sandbox {new_id} on host {host}"), Exclusive);
        }
        Operation::Sandbox { host, id, .. } => {
            lock(format!("sandbox {id} on host {host}"), Exclusive);
        }
    }
    locks
}

/// Returns the locks on the host, which other processes respect, too.
///
/// A new sandbox waits while another process installs its snapshot; so does the pull of it, if it is a prerequisite of
/// the sandbox.
pub(super) fn host_locks(
    operation: &Operation,
    host: &Host,
    is_prerequisite: bool,
) -> Vec<LockRequest> {
    match operation {
        Operation::Create { sandbox, .. } | Operation::Push { sandbox, .. } => {
            vec![host.locks().sandbox(sandbox)]
        }
        Operation::Pull { name, .. } if is_prerequisite => {
            vec![host.locks().snapshot(name, true).taking_over().waiting()]
        }
        Operation::Pull { name, .. } => vec![host.locks().snapshot(name, true).taking_over()],
        Operation::Copy { name, .. } | Operation::Remove { name, .. } => {
            vec![host.locks().snapshot(name, true)]
        }
        Operation::Upload { name, .. } => vec![host.locks().snapshot(name, false)],
        Operation::Verify { name, repair, .. } => vec![host.locks().snapshot(name, *repair)],
        Operation::Adopt { name, .. } => vec![host.locks().snapshot(name, false)],
        Operation::CreateSandbox { id, spec, .. } => vec![
            host.locks().sandbox(id),
            host.locks().snapshot(&spec.snapshot, false).waiting(),
        ],
        Operation::RenameSandbox { id, new_id, .. }
        | Operation::CloneSandbox { id, new_id, .. } => {
            let mut locks = vec![host.locks().sandbox(id)];
            if id != new_id {
                locks.push(host.locks().sandbox(new_id));
            }
            locks
        }
        Operation::Sandbox { id, .. } => vec![host.locks().sandbox(id)],
    }
}

/// Returns the locks on the host that it copies from.
pub(super) fn source_locks(operation: &Operation, host: &Host) -> Vec<LockRequest> {
    match operation {
        Operation::Copy { name, .. } => vec![host.locks().snapshot(name, false)],
        _ => Vec::new(),
    }
}

/// Returns how a new job with the locks `requested` relates to an active job with the locks `held`.
///
/// `is_prerequisite`: the new job is done only for a later one of its chain. `is_ending`: the active job was cancelled.
pub(super) fn relation(
    requested: &[ResourceLock],
    is_prerequisite: bool,
    held: &[ResourceLock],
    is_ending: bool,
) -> Relation {
    use Access::{Install, Shared, UseInstalled};
    let mut relation = Relation::Independent;
    for request in requested {
        let mut of_resource = held.iter();
        let Some(lock) = of_resource.find(|lock| lock.resource == request.resource) else {
            continue;
        };
        relation = match (request.access, lock.access) {
            (Shared | UseInstalled, Shared | UseInstalled) => continue,
            (UseInstalled, Install) => Relation::Follows {
                needs_success: !is_ending,
            },
            (Install, Install) if is_prerequisite && !is_ending => return Relation::Same,
            // Then it is installed, or not used.
            (Install, Install | UseInstalled) if is_prerequisite => Relation::Follows {
                needs_success: false,
            },
            _ => return Relation::Conflict(request.clone()),
        };
    }
    relation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(host: &str) -> Operation {
        Operation::Pull {
            host: host.parse().unwrap(),
            name: "base".parse().unwrap(),
            overwrite: false,
        }
    }

    fn relate(new: &Operation, is_prerequisite: bool, active: &Operation) -> Relation {
        relation(&locks_for(new), is_prerequisite, &locks_for(active), false)
    }

    #[test]
    fn pulls_share_an_object_and_block_its_removal() {
        let remove = Operation::Remove {
            host: None,
            name: "base".parse().unwrap(),
            from_bucket: true,
            expected_identity: None,
        };
        assert_eq!(relate(&pull("a"), false, &pull("b")), Relation::Independent);
        let conflict = |relation: Relation| match relation {
            Relation::Conflict(lock) => lock.resource,
            relation => panic!("{relation:?}"),
        };
        let same_host = relate(&pull("a"), false, &pull("a"));
        assert_eq!(conflict(same_host), "snapshot base on host a");
        let removal = relate(&remove, false, &pull("a"));
        assert_eq!(conflict(removal), "object base");
    }

    #[test]
    fn a_new_sandbox_follows_the_pull_of_its_snapshot() {
        let new = |id: &str| Operation::CreateSandbox {
            host: "a".parse().unwrap(),
            id: id.parse().unwrap(),
            spec: snapdeck_model::SandboxSpec {
                snapshot: "base".parse().unwrap(),
                cpus: None,
                memory_bytes: None,
                storage_bytes: None,
                start: false,
                block_network: false,
                accept_existing: false,
            },
        };
        let follows = |needs_success| Relation::Follows { needs_success };
        assert_eq!(relate(&new("x"), false, &pull("a")), follows(true));
        assert_eq!(relate(&new("x"), false, &pull("b")), Relation::Independent);
        assert_eq!(relate(&new("x"), false, &new("y")), Relation::Independent);
        let same_id = relate(&new("x"), false, &new("x"));
        assert!(matches!(same_id, Relation::Conflict(_)));
        assert_eq!(relate(&pull("a"), true, &pull("a")), Relation::Same);
        assert_eq!(relate(&pull("a"), true, &new("y")), follows(false));
        let explicit = relate(&pull("a"), false, &new("y"));
        assert!(matches!(explicit, Relation::Conflict(_)));
        let cancelled = |operation: &Operation, is_prerequisite| {
            let locks = locks_for(operation);
            relation(&locks, is_prerequisite, &locks_for(&pull("a")), true)
        };
        assert_eq!(cancelled(&new("x"), false), follows(false));
        assert_eq!(cancelled(&pull("a"), true), follows(false));
    }
}
