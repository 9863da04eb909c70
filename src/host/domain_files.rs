//! The files that a definition of a domain refers to.

use roxmltree::Node;

use crate::domain::child;
use crate::sandbox::boot_rank;
use crate::xml::parse_xml;

/// Files of a domain that are looked at.
const MAX_FILES: usize = 4_000;

/// The files of all definitions of a domain: the live and the persistent one, its saved state and its snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct DomainFiles {
    /// Disks of the first definition in boot order, so that the first one has the system.
    pub disks: Vec<DomainFile>,
    /// Other images: drives with removable media, backing files, targets of block jobs, and all of further definitions.
    pub images: Vec<DomainFile>,
    /// Files that are not disks, for example UEFI variables, kernels and arguments of QEMU.
    pub others: Vec<DomainFile>,
    /// Disks whose file is unknown.
    pub unresolved: Vec<UnresolvedVolume>,
    /// File of the UEFI variables in the first definition.
    pub nvram_path: Option<String>,
    /// Whether a definition has UEFI firmware but leaves the file of its variables to libvirt.
    pub has_default_nvram: bool,
}

/// A file of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainFile {
    pub path: String,
    /// `qcow2`, `raw`, ...; `None` if the definition names none.
    pub format: Option<String>,
}

/// A disk whose file cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnresolvedVolume {
    /// Name of the volume, which is the file's name in a directory pool; empty if unknown.
    pub volume: String,
    pub reason: String,
    /// Whether the definition, which is live then, names all backing files.
    pub has_known_base: bool,
}

impl UnresolvedVolume {
    /// Returns the entry for a definition whose files are unknown.
    pub(crate) fn any_file(reason: impl Into<String>) -> Self {
        Self {
            volume: String::new(),
            reason: reason.into(),
            has_known_base: false,
        }
    }
}

/// Resolves a pool and a volume to a path; `None` for a volume that is not a file of the host.
pub(crate) type ResolveVolume<'a> = dyn FnMut(&str, &str) -> Result<Option<String>, String> + 'a;

impl DomainFiles {
    /// Adds the files of a definition of a domain, or of the metadata of one of its snapshots. Disks are separated from other
    /// images in the first definition only.
    pub(crate) fn add_definition(
        &mut self,
        xml: &str,
        is_first: bool,
        resolve_volume: &mut ResolveVolume<'_>,
    ) {
        let document = match parse_xml(xml) {
            Ok(document) => document,
            Err(cause) => {
                let reason = format!("its definition cannot be parsed: {cause}");
                return self.unresolved.push(UnresolvedVolume::any_file(reason));
            }
        };
        let root = document.root_element();
        if is_first {
            self.nvram_path = child(root, "os")
                .and_then(|os| child(os, "nvram"))
                .and_then(nvram_file);
        }
        let mut nodes: Vec<Node<'_, '_>> = root.descendants().filter(Node::is_element).collect();
        nodes.sort_by_cached_key(|node| {
            let disk = node.ancestors().find(|parent| parent.has_tag_name("disk"));
            disk.map(boot_rank)
        });
        for node in nodes {
            if self.is_full() {
                break;
            }
            match node.tag_name().name() {
                "os" => self.has_default_nvram |= leaves_nvram_to_libvirt(node),
                "source" if is_in_disk(node) => self.add_source(node, is_first, resolve_volume),
                "arg" => self.add_argument(node.attribute("value").unwrap_or_default()),
                // QEMU itself.
                "emulator" => continue,
                _ => {}
            }
            self.add_paths(node);
        }
        if self.is_full() {
            let reason = format!("its definitions name more than {MAX_FILES} files");
            self.unresolved.push(UnresolvedVolume::any_file(reason));
        }
    }

    fn is_full(&self) -> bool {
        let lists = [&self.disks, &self.images, &self.others];
        lists.iter().map(|files| files.len()).sum::<usize>() + self.unresolved.len() > MAX_FILES
    }

    /// Adds the `<source>` of a disk, of a backing file, or of the target of a block job.
    fn add_source(
        &mut self,
        source: Node<'_, '_>,
        is_first: bool,
        resolve_volume: &mut ResolveVolume<'_>,
    ) {
        let path = match (source.attribute("pool"), source.attribute("volume")) {
            // libvirt may add the path to the definition of a running domain.
            _ if source.attribute("file").is_some() => source.attribute("file").map(str::to_owned),
            _ if source.attribute("dev").is_some() => source.attribute("dev").map(str::to_owned),
            (Some(pool), Some(volume)) => match resolve_volume(pool, volume) {
                Ok(path) => path,
                Err(cause) => {
                    let reason = format!("volume {volume} of the storage pool {pool}: {cause}");
                    // The live definition comes first: it may name the base, and the persistent one has the same volume.
                    if !self.unresolved.iter().any(|known| known.reason == reason) {
                        self.unresolved.push(UnresolvedVolume {
                            volume: volume.to_owned(),
                            has_known_base: source.parent().is_some_and(names_all_backing_files),
                            reason,
                        });
                    }
                    return;
                }
            },
            _ => None,
        };
        let (Some(path), Some(parent)) = (path, source.parent()) else {
            return;
        };
        let format = child(parent, "driver").or_else(|| child(parent, "format"));
        let file = DomainFile {
            path,
            format: format
                .and_then(|format| format.attribute("type"))
                .map(str::to_owned),
        };
        let is_disk = is_first
            && parent.has_tag_name("disk")
            && matches!(parent.attribute("device"), None | Some("disk" | "lun"));
        match is_disk {
            true => self.disks.push(file),
            false => push_new(&mut self.images, file),
        }
    }

    /// Adds the paths in an argument of QEMU: they may be images.
    fn add_argument(&mut self, value: &str) {
        let is_separator = |c: char| matches!(c, ',' | '=' | ':' | '"' | '\'' | ' ');
        for path in value.split(is_separator).filter(|part| is_path(part)) {
            if self.is_full() {
                return;
            }
            let (path, format) = (path.to_owned(), None);
            push_new(&mut self.others, DomainFile { path, format });
        }
    }

    /// Adds every attribute and text of an element that is a path, whatever it is for.
    fn add_paths(&mut self, node: Node<'_, '_>) {
        let attributes = node.attributes().map(|attribute| attribute.value());
        let texts = attributes.chain(node.text().map(str::trim));
        for path in texts.filter(|text| is_path(text)) {
            if self.is_full() {
                return;
            }
            let file = DomainFile {
                path: path.to_owned(),
                format: Some("raw".to_owned()),
            };
            let has_path = |known: &DomainFile| known.path == path;
            let is_known = self.disks.iter().chain(&self.images).any(has_path);
            if !is_known {
                push_new(&mut self.others, file);
            }
        }
    }
}

/// Returns whether the backing chain of an element with a source ends in an empty `<backingStore>`, as libvirt writes it for a
/// running domain; all its files are added by their own elements.
fn names_all_backing_files(mut node: Node<'_, '_>) -> bool {
    while let Some(backing) = child(node, "backingStore") {
        match child(backing, "source") {
            Some(source)
                if source
                    .attribute("file")
                    .or(source.attribute("dev"))
                    .is_some() =>
            {
                node = backing;
            }
            Some(_) => return false,
            None => return !backing.children().any(|child| child.is_element()),
        }
    }
    false
}

fn push_new(files: &mut Vec<DomainFile>, file: DomainFile) {
    if !files.contains(&file) {
        files.push(file);
    }
}

fn is_path(text: &str) -> bool {
    text.len() > 1 && text.starts_with('/')
}

fn is_in_disk(node: Node<'_, '_>) -> bool {
    node.ancestors()
        .any(|ancestor| ancestor.has_tag_name("disk"))
}

/// Returns the path of `<nvram>`, as its text or in a `<source>`.
fn nvram_file(nvram: Node<'_, '_>) -> Option<String> {
    let source = || child(nvram, "source")?.attribute("file");
    let path = nvram.text().map(str::trim).filter(|path| !path.is_empty());
    path.or_else(source).map(str::to_owned)
}

/// Returns whether the guest has UEFI firmware, and libvirt selects the file of its variables at the start.
fn leaves_nvram_to_libvirt(os: Node<'_, '_>) -> bool {
    let has_flash =
        |os| child(os, "loader").is_some_and(|loader| loader.attribute("type") == Some("pflash"));
    let is_uefi = os.attribute("firmware") == Some("efi") || has_flash(os);
    is_uefi && child(os, "nvram").and_then(nvram_file).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_samples;

    fn parse(xml: &str) -> DomainFiles {
        let mut files = DomainFiles::default();
        let mut resolve = |pool: &str, volume: &str| match pool {
            "dir" => Ok(Some(format!("/pool/{volume}"))),
            "rbd" => Ok(None),
            _ => Err("no such pool".to_owned()),
        };
        files.add_definition(xml, true, &mut resolve);
        files
    }

    fn paths(files: &[DomainFile]) -> Vec<(&str, Option<&str>)> {
        let pairs = files
            .iter()
            .map(|file| (file.path.as_str(), file.format.as_deref()));
        pairs.collect()
    }

    #[test]
    fn finds_disks_removable_media_backing_files_and_targets_of_block_jobs() {
        let files = parse(
            "<domain><os firmware='efi'><loader>/code.fd</loader><nvram template='/t'> /n/a_VARS.fd </nvram>
               <kernel>/boot/k</kernel></os><devices><emulator>/usr/bin/qemu</emulator>
               <disk type='file' device='cdrom'><source file='/iso'/></disk>
               <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
                 <source file='/s/a&amp;b.qcow2' index='1'/>
                 <backingStore type='file'><format type='qcow2'/><source file='/base.qcow2'/></backingStore>
                 <mirror type='file'><format type='raw'/><source file='/mirror'/></mirror></disk>
               <disk type='block'><source dev='/dev/vg/lv'/></disk>
               <disk type='network'><source protocol='nbd' name='x'/></disk>
             </devices></domain>",
        );
        let disks = paths(&files.disks);
        assert_eq!(
            disks,
            [("/s/a&b.qcow2", Some("qcow2")), ("/dev/vg/lv", None)]
        );
        let (qcow2, raw) = (Some("qcow2"), Some("raw"));
        assert_eq!(
            paths(&files.images),
            [("/iso", None), ("/base.qcow2", qcow2), ("/mirror", raw)]
        );
        let others = ["/code.fd", "/t", "/n/a_VARS.fd", "/boot/k"].map(|path| (path, raw));
        assert_eq!(paths(&files.others), others);
        assert_eq!(files.nvram_path.as_deref(), Some("/n/a_VARS.fd"));
        assert!(files.unresolved.is_empty() && !files.has_default_nvram);
    }

    #[test]
    fn resolves_volumes_and_reports_those_it_cannot() {
        let disk =
            |pool| format!("<disk type='volume'><source pool='{pool}' volume='v.qcow2'/></disk>");
        let disks: String = ["dir", "rbd", "gone"].map(disk).concat();
        let files = parse(&format!("<domain><devices>{disks}</devices></domain>"));
        assert_eq!(paths(&files.disks), [("/pool/v.qcow2", None)]);
        let unresolved = &files.unresolved[0];
        assert_eq!(unresolved.volume, "v.qcow2");
        assert!(
            unresolved
                .reason
                .contains("storage pool gone: no such pool")
        );
        assert_eq!(files.unresolved.len(), 1);
    }

    #[test]
    fn finds_files_in_metadata_of_snapshots_and_in_arguments_of_qemu() {
        let files = parse(
            "<domainsnapshot xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>
               <memory snapshot='external' file='/memory'/>
               <disks><disk name='vda' snapshot='external' type='file'><source file='/top'/></disk></disks>
               <domain><os><loader type='pflash'>/code.fd</loader></os>
               <devices><disk type='file'><source file='/old'/></disk></devices>
               <q:commandline><q:arg value='-drive'/><q:arg value='file=/argument,if=none'/></q:commandline>
               </domain></domainsnapshot>",
        );
        let all = [files.disks, files.images, files.others].concat();
        for path in ["/top", "/old", "/memory", "/argument"] {
            assert!(all.iter().any(|file| file.path == path), "{path}: {all:?}");
        }
        assert!(files.has_default_nvram);
    }

    #[test]
    fn an_invalid_definition_may_use_any_file() {
        assert_eq!(parse("no xml").unresolved.len(), 1);
        assert_eq!(parse(&" ".repeat(5 << 20)).unresolved.len(), 1);
    }

    #[test]
    fn fuzz_domain_files() {
        fuzz_samples::target("domain XML: files")
            .seed(fuzz_samples::DOMAIN)
            .seed(fuzz_samples::SNAPSHOT)
            .memory(4 << 20, 256)
            .run(|xml| {
                let xml = snapdeck_fuzz::text(xml);
                let mut files = DomainFiles::default();
                for is_first in [true, false] {
                    files.add_definition(&xml, is_first, &mut |_, volume| match volume {
                        "b.img" => Ok(Some("/images/b.img".into())),
                        other => Err(other.to_owned()),
                    });
                }
            });
    }

    #[test]
    fn a_domain_with_too_many_files_keeps_all_files() {
        let paths: String = (0..10_000)
            .map(|index| format!("<a>/x/{index}</a>"))
            .collect();
        let files = parse(&format!("<domain>{paths}</domain>"));
        assert!(files.others.len() <= MAX_FILES + 1);
        let reason = &files.unresolved[0].reason;
        assert!(reason.contains("more than 4000 files"), "{reason}");
    }
}
