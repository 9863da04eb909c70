//! A sandbox that is to be created, and exists: a request that is sent twice creates it once.

use humansize::{BINARY, format_size};

use snapdeck_host::{Host, find_network_device};
use snapdeck_model::settings::SandboxSettings;
use snapdeck_model::{Error, Kind, Result, Sandbox, SandboxId, SandboxSpec};

/// Returns the sandbox `id` if it exists with the properties that `spec` and `defaults` give a new one; `xml` is the domain of that.
///
/// # Errors
/// `Conflict` if it has others, or the domain of that name is not a sandbox.
pub(crate) async fn find_existing(
    host: &Host,
    id: &SandboxId,
    spec: &SandboxSpec,
    defaults: &SandboxSettings,
    xml: &str,
) -> Result<Option<Sandbox>> {
    let sandbox = match host.sandboxes().get(id).await {
        Ok(sandbox) => sandbox,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let cpus = spec.cpus.unwrap_or(defaults.cpus);
    let memory_bytes = spec.memory_bytes.unwrap_or(defaults.memory_bytes);
    let mut difference = find_difference(&sandbox, spec, cpus, memory_bytes);
    if difference.is_none() {
        // What it has now, and what it has after its next start.
        let live = host.sandboxes().domain_xml(id).await?;
        let inactive = host.sandboxes().inactive_xml(id).await?;
        let found = [find_network_device(&live)?, find_network_device(&inactive)?];
        let expected = find_network_device(xml)?;
        difference = match (found, expected) {
            ([None, None], None) | ([Some(_), Some(_)], Some(_)) => None,
            ([Some(device), _] | [_, Some(device)], None) => {
                Some(format!("it has a network (<{device}>)"))
            }
            _ => Some("it has no network".to_owned()),
        };
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

/// Returns the first property of the sandbox that differs from those of a new one.
fn find_difference(
    sandbox: &Sandbox,
    spec: &SandboxSpec,
    cpus: u32,
    memory_bytes: u64,
) -> Option<String> {
    let size = |bytes: u64| format_size(bytes, BINARY);
    let disk_bytes = |link: usize| {
        let facts = sandbox.chain.get(link)?.facts.as_ref()?;
        Some(facts.virtual_size)
    };
    let base = sandbox.base();
    if base != Some(&spec.snapshot) {
        let base = base.map_or("another image", |base| base.as_str());
        return Some(format!("it is based on {base}, not on {}", spec.snapshot));
    }
    if cpus != sandbox.cpus {
        return Some(format!("it has {} CPUs, not {cpus}", sandbox.cpus));
    }
    if memory_bytes != sandbox.memory_bytes {
        let (old, new) = (size(sandbox.memory_bytes), size(memory_bytes));
        return Some(format!("it has {old} of memory, not {new}"));
    }
    // Without a size it is that of the base.
    match (spec.storage_bytes.or(disk_bytes(1)), disk_bytes(0)) {
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
    fn what_a_new_sandbox_would_have_must_be_equal() {
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
            let cpus = spec.cpus.unwrap_or(2);
            let memory_bytes = spec.memory_bytes.unwrap_or(1 << 30);
            find_difference(&sandbox, &spec, cpus, memory_bytes)
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
