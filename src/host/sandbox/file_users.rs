//! Domains that refer to a file, by device and inode: under whatever path, in their live or persistent definition.

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Document;
use tokio_util::sync::CancellationToken;
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};

use super::Sandboxes;
use crate::fs::system_error;
use crate::{CALL_TIMEOUT, SCAN_TIMEOUT};
use snapdeck_model::{Error, Kind, Result, SandboxId};

/// Domains that are read at most.
const MAX_DOMAINS: usize = 10_000;
/// Bytes of paths in one command (Linux, execve(2): 128 KiB for one argument, which the whole command line is over SSH).
const MAX_PATH_BYTES: usize = 48 * 1024;
/// Most output of the script.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// sh -c SCRIPT snapdeck FILE PATH...: prints each PATH that is FILE, or will be if neither exists; each ended by a NUL.
const SCRIPT: &str = r#"
file=$1
shift
identity=$(stat -L -c %d:%i -- "$file" 2>/dev/null) || identity=
real=$(realpath -m -- "$file") || exit 1
for path do
  if [ -n "$identity" ] && [ "$(stat -L -c %d:%i -- "$path" 2>/dev/null)" = "$identity" ] ||
    [ "$(realpath -m -- "$path")" = "$real" ]; then
    printf '%s\0' "$path"
  fi
done
"#;

/// Names of domains by the absolute paths in their definitions.
type PathUsers = BTreeMap<String, BTreeSet<String>>;

impl Sandboxes<'_> {
    /// Returns the names of the domains that refer to a file, except `own`. The file need not exist.
    ///
    /// # Errors
    /// `Failed` if a definition cannot be read: it may refer to the file; `Unreachable`.
    pub async fn file_users(self, file: &str, own: Option<&SandboxId>) -> Result<Vec<String>> {
        let list = |connect: &Connect| list_paths(connect);
        let libvirt = &self.host.libvirt;
        let mut paths = libvirt
            .call("list all domains", SCAN_TIMEOUT, list)
            .await?
            .map_err(|domain| {
                let host = self.host.name();
                let summary = format!("cannot determine what uses {file} on host {host}");
                Error::new(Kind::Failed, summary)
                    .with_cause(format!("the definition of {domain} is not valid XML"))
            })?;
        for users in paths.values_mut() {
            users.retain(|user| own.is_none_or(|own| own.as_str() != user));
        }
        paths.retain(|_, users| !users.is_empty());
        let mut found = BTreeSet::new();
        let mut rest: Vec<&String> = paths.keys().collect();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|path| {
                bytes += path.len() + 3;
                bytes <= MAX_PATH_BYTES
            });
            // A single longer path is not one that the kernel accepts.
            let count = fitting.count().max(1);
            let chunk: Vec<&str> = rest.drain(..count).map(String::as_str).collect();
            for path in self.same_files(file, &chunk).await? {
                found.extend(paths.get(&path).into_iter().flatten().cloned());
            }
        }
        Ok(found.into_iter().collect())
    }

    async fn same_files(self, file: &str, paths: &[&str]) -> Result<Vec<String>> {
        let argv = [&["sh", "-c", SCRIPT, "snapdeck", file], paths].concat();
        let never = CancellationToken::new();
        let runner = &self.host.runner;
        let run = || runner.run_raw(&argv, MAX_OUTPUT_BYTES, CALL_TIMEOUT, &never);
        let output = self.host.retry_policy.call(run).await?;
        if !output.status.success() {
            let summary = format!("cannot read {file} on host {}", self.host.name());
            return Err(system_error(summary, &output.stderr));
        }
        let fields = output.stdout.split(|byte| *byte == 0);
        Ok(fields
            .filter_map(|field| String::from_utf8(field.to_vec()).ok())
            .collect())
    }
}

/// Returns the paths in all definitions, or the name of a domain whose definition is not valid XML.
fn list_paths(connect: &Connect) -> Result<Result<PathUsers, String>, VirtError> {
    let mut paths = PathUsers::new();
    let domains = connect.list_all_domains(0)?;
    for domain in domains.iter().take(MAX_DOMAINS) {
        for flags in [0, virt_sys::VIR_DOMAIN_XML_INACTIVE] {
            let (name, xml) = match (domain.name(), domain.xml_desc(flags)) {
                (Ok(name), Ok(xml)) => (name, xml),
                (Err(error), _) | (_, Err(error)) if error.code().is(ErrorNumber::NoDomain) => {
                    continue;
                }
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            let Some(found) = absolute_paths(&xml) else {
                return Ok(Err(name));
            };
            for path in found {
                paths.entry(path).or_default().insert(name.clone());
            }
        }
    }
    Ok(Ok(paths))
}

/// Returns all texts and attributes that are absolute paths, whatever they mean; `None` for invalid XML.
fn absolute_paths(xml: &str) -> Option<Vec<String>> {
    let document = Document::parse(xml).ok()?;
    let nodes = document.descendants();
    let values = nodes.flat_map(|node| {
        let attributes = node.attributes().map(|attribute| attribute.value());
        attributes.chain(node.text().filter(|_| node.is_text()))
    });
    Some(
        values
            .map(str::trim)
            .filter(|value| value.starts_with('/') && !value.contains(['\0', '\n']))
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_absolute_path_counts() {
        let paths = absolute_paths(
            "<domain><name>a/b</name><os><nvram template='/t'> /n/a_VARS.fd </nvram>\
             <nvram type='file'><source file='/n/b&amp;c.fd'/></nvram></os></domain>",
        );
        let expected = ["/t", "/n/a_VARS.fd", "/n/b&c.fd"];
        assert_eq!(paths.as_deref(), Some(&expected.map(str::to_owned)[..]));
        assert_eq!(absolute_paths("no xml"), None);
    }
}
