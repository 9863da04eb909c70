//! A sandbox that is to be created, and exists: a request that is sent twice creates it once.

use humansize::{BINARY, format_size};

use snapdeck_host::{Host, find_network_device};
use snapdeck_model::{Error, Kind, Result, Sandbox, SandboxId, SandboxSpec};

/// Returns the sandbox `id` if it exists with the properties of `spec`. What `spec` leaves unset may be anything.
///
/// # Errors
/// `Conflict` if it has others, or the domain of that name is not a sandbox.
pub(crate) async fn find_existing(
    host: &Host,
    id: &SandboxId,
    spec: &SandboxSpec,
) -> Result<Option<Sandbox>> {
    let sandbox = match host.sandboxes().get(id).await {
        Ok(sandbox) => sandbox,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut difference = find_difference(&sandbox, spec);
    if difference.is_none() && spec.block_network {
        let xml = host.sandboxes().domain_xml(id).await?;
        let device = find_network_device(&xml)?;
        difference = device.map(|device| format!("it has a network (<{device}>)"));
    }
    match difference {
        None => Ok(Some(sandbox)),
        Some(difference) => {
            let summary = format!("cannot create sandbox {id} on host {}", host.name());
            Err(Error::new(Kind::Conflict, summary)
                .with_cause(format!(
                    "a sandbox with this id exists with other properties: {difference}"
                ))
                .hint("choose another id, or destroy that one first"))
        }
    }
}

/// Returns the first property of the sandbox that differs from what `spec` sets.
fn find_difference(sandbox: &Sandbox, spec: &SandboxSpec) -> Option<String> {
    let size = |bytes: u64| format_size(bytes, BINARY);
    let disk_bytes = sandbox
        .chain
        .first()
        .and_then(|link| link.facts.as_ref())
        .map(|facts| facts.virtual_size);
    let base = sandbox.base();
    if base != Some(&spec.snapshot) {
        let base = base.map_or("another image", |base| base.as_str());
        return Some(format!("it is based on {base}, not on {}", spec.snapshot));
    }
    if let Some(cpus) = spec.cpus.filter(|cpus| *cpus != sandbox.cpus) {
        return Some(format!("it has {} CPUs, not {cpus}", sandbox.cpus));
    }
    let differs = |bytes: &u64| *bytes != sandbox.memory_bytes;
    if let Some(bytes) = spec.memory_bytes.filter(differs) {
        let (old, new) = (size(sandbox.memory_bytes), size(bytes));
        return Some(format!("it has {old} of memory, not {new}"));
    }
    match (spec.storage_bytes, disk_bytes) {
        (Some(bytes), old) if old != Some(bytes) => {
            let old = old.map_or("another size".to_owned(), size);
            Some(format!("its disk has {old}, not {}", size(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::{ChainLink, SandboxState};

    #[test]
    fn only_what_is_set_must_be_equal() {
        let link = |name: Option<&str>| ChainLink {
            path: "/x".to_owned(),
            snapshot: name.map(|name| name.parse().unwrap()),
            size_bytes: None,
            facts: None,
        };
        let sandbox = Sandbox {
            id: "a".parse().unwrap(),
            state: SandboxState::ShutOff,
            cpus: 2,
            memory_bytes: 1 << 30,
            autostart: false,
            chain: vec![link(None), link(Some("base"))],
            variables: None,
        };
        let spec = SandboxSpec {
            snapshot: "base".parse().unwrap(),
            cpus: None,
            memory_bytes: None,
            storage_bytes: None,
            start: true,
            block_network: false,
            accept_existing: true,
        };
        let difference = |change: fn(&mut SandboxSpec)| {
            let mut spec = spec.clone();
            change(&mut spec);
            find_difference(&sandbox, &spec)
        };
        assert_eq!(difference(|_| {}), None);
        assert_eq!(difference(|spec| spec.cpus = Some(2)), None);
        assert_eq!(difference(|spec| spec.memory_bytes = Some(1 << 30)), None);
        type Change = fn(&mut SandboxSpec);
        let changes: [(Change, &str); 4] = [
            (|spec| spec.snapshot = "other".parse().unwrap(), "base"),
            (|spec| spec.cpus = Some(4), "CPUs"),
            (|spec| spec.memory_bytes = Some(2 << 30), "memory"),
            (|spec| spec.storage_bytes = Some(9 << 30), "disk"),
        ];
        for (change, word) in changes {
            let found = difference(change).unwrap();
            assert!(found.contains(word), "{found}");
        }
    }
}
