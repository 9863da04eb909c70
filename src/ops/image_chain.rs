//! The files that a sandbox's disk is read from: only images in the host's two directories.
//!
//! The overlay's header is what QEMU's user has written: a backing or data file in it could be any file of the host, or a
//! server (CVE-2024-32498), and its content would be uploaded.

use std::ffi::OsStr;
use std::path::Path;

use snapdeck_host::{Host, ImageChain, ImageFormat};
use snapdeck_model::{BackingFormat, ChainLink, Error, Kind, Result, SandboxId};

/// Returns the chain of a sandbox's disk for QEMU's programs, with the formats that the images declare.
///
/// # Errors
/// `Conflict` if it needs a file that is not an image in the snapshots or sandboxes directory, a server, or a data file;
/// `Unreachable`.
pub(crate) async fn image_chain(
    host: &Host,
    id: &SandboxId,
    chain: &[ChainLink],
) -> Result<ImageChain> {
    let refused = |cause: String| {
        Error::new(
            Kind::Conflict,
            format!("cannot read the disk of {id} on host {}", host.name()),
        )
        .with_cause(cause)
        .hint("look at its header with `qemu-img info`: the guest, or QEMU, may have changed it")
    };
    let files = declared_files(chain).map_err(refused)?;
    let settings = host.settings();
    let dirs = [&*settings.snapshots_dir, &*settings.sandboxes_dir];
    let paths: Vec<&str> = dirs
        .into_iter()
        .chain(files.iter().map(|(path, _)| *path))
        .collect();
    let canonical = host.fs().canonicalize(&paths).await?;
    let (dirs, canonical) = canonical.split_at_checked(dirs.len()).unwrap_or_default();
    let mut images = Vec::new();
    for ((path, format), file) in files.iter().zip(canonical) {
        let is_in_dir = dirs.iter().any(|dir| file.parent() == Some(dir.as_path()))
            || dirs
                .first()
                .is_some_and(|dir| is_of_organization(host, dir, file));
        if !is_in_dir || file.file_name() != Path::new(path).file_name() {
            return Err(refused(format!(
                "it needs {path}, which is not a file in {} or {}",
                settings.snapshots_dir, settings.sandboxes_dir
            )));
        }
        // Links on the given path may lead elsewhere later.
        images.push((file.to_str().unwrap_or(path), *format));
    }
    ImageChain::new(&images).ok_or_else(|| refused("it has no file".to_owned()))
}

/// Returns whether it is a file in the directory of an organization in the snapshots directory.
fn is_of_organization(host: &Host, snapshots_dir: &Path, file: &Path) -> bool {
    let path = file.strip_prefix(snapshots_dir).ok();
    let mut parts = path.into_iter().flat_map(Path::iter);
    let organization = parts.next().and_then(OsStr::to_str);
    let is_organization = |name| host.settings().is_organization(name);
    organization.is_some_and(is_organization) && parts.count() == 1
}

/// Returns path and format of each file, or why one is not to be opened. The disk itself is qcow2, as its domain says.
fn declared_files(chain: &[ChainLink]) -> Result<Vec<(&str, ImageFormat)>, String> {
    let mut files = Vec::new();
    let mut format = ImageFormat::Qcow2;
    for (index, link) in chain.iter().enumerate() {
        let path = &*link.path;
        files.push((path, format));
        // What a raw file begins with is data of the guest.
        let Some(facts) = link.facts.as_ref().filter(|_| format != ImageFormat::Raw) else {
            break;
        };
        if facts.has_external_data_file {
            return Err(format!("{path} has its data in another file"));
        }
        let Some(backing) = &facts.backing_file else {
            break;
        };
        if has_protocol(backing) {
            return Err(format!(
                "the backing file of {path} is not a file name: {backing:?}"
            ));
        }
        let is_snapshot = chain
            .get(index + 1)
            .is_some_and(|next| next.snapshot.is_some());
        format = match facts.backing_format {
            BackingFormat::Qcow2 => ImageFormat::Qcow2,
            BackingFormat::Raw => ImageFormat::Raw,
            // Snapshots are qcow2. The format of another file is not guessed from what a guest may have written.
            BackingFormat::Undeclared if is_snapshot => ImageFormat::Qcow2,
            BackingFormat::Undeclared | BackingFormat::Other => {
                return Err(format!(
                    "{path} does not declare its backing file as qcow2 or raw"
                ));
            }
        };
    }
    Ok(files)
}

/// Returns whether QEMU takes the name for that of a protocol: with a colon before the first slash.
fn has_protocol(name: &str) -> bool {
    let end = name.find([':', '/']);
    end.is_some_and(|end| name.as_bytes().get(end) == Some(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapdeck_model::{Compression, ImageFacts};

    fn link(path: &str, backing: Option<(&str, BackingFormat)>) -> ChainLink {
        let facts = ImageFacts {
            version: 3,
            virtual_size: 1 << 30,
            cluster_size: 65536,
            backing_file: backing.map(|(name, _)| name.to_owned()),
            backing_format: backing.map_or(BackingFormat::Undeclared, |(_, format)| format),
            has_external_data_file: false,
            dirty: false,
            corrupt: false,
            encrypted: false,
            extended_l2: false,
            internal_snapshots: 0,
            refcount_bits: 16,
            compression: Compression::Zlib,
        };
        ChainLink {
            path: path.to_owned(),
            snapshot: path.strip_prefix("/s/").and_then(|name| name.parse().ok()),
            size_bytes: Some(1),
            facts: Some(facts),
        }
    }

    #[test]
    fn formats_are_those_that_are_declared() {
        use BackingFormat as Format;
        use ImageFormat::{Qcow2, Raw};
        let base = link("/s/base", None);
        for (format, expected) in [
            (Format::Qcow2, Qcow2),
            (Format::Raw, Raw),
            (Format::Undeclared, Qcow2),
        ] {
            let chain = [link("/b/o", Some(("/s/base", format))), base.clone()];
            assert_eq!(
                declared_files(&chain),
                Ok(vec![("/b/o", Qcow2), ("/s/base", expected)])
            );
        }
        // A header in a raw file is data.
        let inner = link("/b/raw", Some(("/etc/shadow", BackingFormat::Raw)));
        let chain = [
            link("/b/o", Some(("/b/raw", BackingFormat::Raw))),
            inner,
            base,
        ];
        assert_eq!(
            declared_files(&chain),
            Ok(vec![("/b/o", Qcow2), ("/b/raw", Raw)])
        );
    }

    #[test]
    fn other_formats_names_of_servers_and_data_files_are_refused() {
        for backing in [
            ("nbd://host/x", BackingFormat::Raw),
            ("json:{}", BackingFormat::Qcow2),
            ("file:/s/base", BackingFormat::Qcow2),
            ("/s/base", BackingFormat::Other),
            ("/b/other", BackingFormat::Undeclared),
        ] {
            let chain = [link("/b/o", Some(backing)), link(backing.0, None)];
            assert!(declared_files(&chain).is_err(), "{backing:?}");
        }
        let mut disk = link("/b/o", None);
        if let Some(facts) = &mut disk.facts {
            facts.has_external_data_file = true;
        }
        assert!(declared_files(&[disk]).is_err());
    }
}
