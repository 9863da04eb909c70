//! What a job holds while it runs, so that two jobs never work on one sandbox, file or object.

use snapdeck_host::{Host, LockRequest};
use snapdeck_model::Operation;

/// One thing a job needs: shared with readers, or for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceLock {
    /// Names the thing, in words the operator reads.
    pub resource: String,
    exclusive: bool,
}

/// What `operation` needs.
pub(super) fn locks_for(operation: &Operation) -> Vec<ResourceLock> {
    let mut claims = Vec::new();
    let mut claim = |what: String, exclusive| {
        claims.push(ResourceLock {
            resource: what,
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
            claim(format!("sandbox {sandbox} on host {host}"), true);
            claim(format!("object {name}"), true);
        }
        Operation::Pull { host, name, .. } => {
            claim(format!("snapshot {name} on host {host}"), true);
            claim(format!("object {name}"), false);
        }
        Operation::Verify { host, name, repair } => match host {
            Some(host) => {
                claim(format!("snapshot {name} on host {host}"), *repair);
                claim(format!("object {name}"), false);
            }
            None => claim(format!("object {name}"), false),
        },
        Operation::Remove {
            host,
            name,
            from_bucket: bucket,
            ..
        } => {
            if let Some(host) = host {
                claim(format!("snapshot {name} on host {host}"), true);
            }
            if *bucket {
                claim(format!("object {name}"), true);
            }
        }
        Operation::CreateSandbox {
            host,
            id,
            spec: form,
        } => {
            claim(format!("sandbox {id} on host {host}"), true);
            // Nobody pulls the snapshot from under it while its overlay is being made.
            claim(format!("snapshot {} on host {host}", form.snapshot), false);
        }
        Operation::Sandbox { host, id, .. } => {
            claim(format!("sandbox {id} on host {host}"), true);
        }
    }
    claims
}

/// The locks on its host that `operation` needs beside its claims: these keep it apart from other processes' jobs.
pub(super) fn host_locks(operation: &Operation, host: &Host) -> Vec<LockRequest> {
    match operation {
        Operation::Create { sandbox, .. } | Operation::Push { sandbox, .. } => {
            vec![host.locks().sandbox(sandbox)]
        }
        Operation::Pull { name, .. } | Operation::Remove { name, .. } => {
            vec![host.locks().snapshot(name, true)]
        }
        Operation::Verify { name, repair, .. } => vec![host.locks().snapshot(name, *repair)],
        Operation::CreateSandbox { id, spec: form, .. } => vec![
            host.locks().sandbox(id),
            host.locks().snapshot(&form.snapshot, false),
        ],
        Operation::Sandbox { id, .. } => vec![host.locks().sandbox(id)],
    }
}

/// The first thing both want where one of them wants it for itself.
pub(super) fn conflict<'a>(
    wanted: &'a [ResourceLock],
    held: &[ResourceLock],
) -> Option<&'a ResourceLock> {
    wanted.iter().find(|want| {
        held.iter()
            .any(|have| have.resource == want.resource && (have.exclusive || want.exclusive))
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
    fn two_hosts_may_pull_one_object_and_nobody_removes_it_meanwhile() {
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
        let clash = locks_for(&remove);
        assert_eq!(
            conflict(&clash, &locks_for(&pull("a"))).unwrap().resource,
            "object base"
        );
    }
}
