//! Locks that keep two jobs from working on one sandbox, snapshot or object at the same time.

use snapdeck_host::{Host, LockRequest};
use snapdeck_model::Operation;

/// A shared or exclusive lock of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceLock {
    /// Shown to the operator: `object base`.
    pub resource: String,
    exclusive: bool,
}

/// Returns the locks between the jobs of this process.
pub(super) fn locks_for(operation: &Operation) -> Vec<ResourceLock> {
    let mut locks = Vec::new();
    let mut lock = |resource: String, exclusive| {
        locks.push(ResourceLock {
            resource,
            exclusive,
        })
    };
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
            lock(format!("sandbox {sandbox} on host {host}"), true);
            lock(format!("object {name}"), true);
        }
        Operation::Pull { host, name, .. } => {
            lock(format!("snapshot {name} on host {host}"), true);
            lock(format!("object {name}"), false);
        }
        Operation::Upload { host, name, .. } => {
            lock(format!("snapshot {name} on host {host}"), false);
            lock(format!("object {name}"), true);
        }
        Operation::Copy {
            from, host, name, ..
        } => {
            lock(format!("snapshot {name} on host {from}"), false);
            lock(format!("snapshot {name} on host {host}"), true);
        }
        Operation::Verify { host, name, repair } => match host {
            Some(host) => {
                lock(format!("snapshot {name} on host {host}"), *repair);
                lock(format!("object {name}"), false);
            }
            None => lock(format!("object {name}"), false),
        },
        Operation::Adopt { host, name } => match host {
            Some(host) => lock(format!("snapshot {name} on host {host}"), false),
            None => lock(format!("object {name}"), false),
        },
        Operation::Remove {
            host,
            name,
            from_bucket,
            ..
        } => {
            if let Some(host) = host {
                lock(format!("snapshot {name} on host {host}"), true);
            }
            if *from_bucket {
                lock(format!("object {name}"), true);
            }
        }
        Operation::CreateSandbox { host, id, spec } => {
            lock(format!("sandbox {id} on host {host}"), true);
            // The snapshot must not be replaced or removed while its overlay is being made.
            lock(format!("snapshot {} on host {host}", spec.snapshot), false);
        }
        Operation::RenameSandbox { host, id, new_id }
        | Operation::CloneSandbox {
            host, id, new_id, ..
        } => {
            lock(format!("sandbox {id} on host {host}"), true);
            lock(format!("sandbox {new_id} on host {host}"), true);
        }
        Operation::Sandbox { host, id, .. } => {
            lock(format!("sandbox {id} on host {host}"), true);
        }
    }
    locks
}

/// Returns the locks on the host, which other processes respect, too.
pub(super) fn host_locks(operation: &Operation, host: &Host) -> Vec<LockRequest> {
    match operation {
        Operation::Create { sandbox, .. } | Operation::Push { sandbox, .. } => {
            vec![host.locks().sandbox(sandbox)]
        }
        Operation::Pull { name, .. }
        | Operation::Copy { name, .. }
        | Operation::Remove { name, .. } => {
            vec![host.locks().snapshot(name, true)]
        }
        Operation::Upload { name, .. } => vec![host.locks().snapshot(name, false)],
        Operation::Verify { name, repair, .. } => vec![host.locks().snapshot(name, *repair)],
        Operation::Adopt { name, .. } => vec![host.locks().snapshot(name, false)],
        Operation::CreateSandbox { id, spec, .. } => vec![
            host.locks().sandbox(id),
            host.locks().snapshot(&spec.snapshot, false),
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

/// Returns the first of `requested` that cannot be taken beside `held`.
pub(super) fn conflict<'a>(
    requested: &'a [ResourceLock],
    held: &[ResourceLock],
) -> Option<&'a ResourceLock> {
    requested.iter().find(|request| {
        held.iter()
            .any(|lock| lock.resource == request.resource && (lock.exclusive || request.exclusive))
    })
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

    #[test]
    fn pulls_share_an_object_and_block_its_removal() {
        let remove = Operation::Remove {
            host: None,
            name: "base".parse().unwrap(),
            from_bucket: true,
            expected_identity: None,
        };
        assert_eq!(
            conflict(&locks_for(&pull("a")), &locks_for(&pull("b"))),
            None
        );
        assert!(conflict(&locks_for(&pull("a")), &locks_for(&pull("a"))).is_some());
        let locks = locks_for(&remove);
        assert_eq!(
            conflict(&locks, &locks_for(&pull("a"))).unwrap().resource,
            "object base"
        );
    }
}
