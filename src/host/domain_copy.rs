//! The definition of a clone: that of its source with a name, a disk and UEFI variables of its own.

use std::ops::Range;

use roxmltree::Node;

use crate::domain::child;
use crate::domain_xml::escape_xml;
use crate::xml::parse_xml;
use snapdeck_model::SandboxId;

/// A sandbox and the one that is to have its settings.
#[derive(Debug, Clone, Copy)]
pub struct DomainCopy<'a> {
    /// Id of the source.
    pub source: &'a SandboxId,
    /// Path of the disk of the source.
    pub source_disk: &'a str,
    /// Id of the clone.
    pub id: &'a SandboxId,
    /// Path of its disk.
    pub disk: &'a str,
    /// Path of its UEFI variables; `None` without UEFI.
    pub variables: Option<&'a str>,
}

/// Replacements of parts of a document.
struct Edits<'a> {
    xml: &'a str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    fn replace(&mut self, range: Range<usize>, text: impl Into<String>) {
        self.edits.push((range, text.into()));
    }

    fn remove(&mut self, node: Node<'_, '_>) {
        self.replace(node.range(), "");
    }

    fn set_attribute(&mut self, node: Node<'_, '_>, name: &str, value: &str) {
        if let Some(attribute) = node.attribute_node(name) {
            self.replace(attribute.range_value(), escape_xml(value));
        }
    }

    /// Replaces the text of an element that has no child elements.
    fn set_text(&mut self, node: Node<'_, '_>, text: &str) -> Result<(), String> {
        let name = node.tag_name().name();
        let range = node.range();
        let element = self.xml.get(range.clone()).unwrap_or_default();
        let text = format!("{}</{name}>", escape_xml(text));
        let replaced = match (element.strip_suffix("/>"), element.split_once('>')) {
            (Some(start), _) if !start.contains('>') => format!("{start}>{text}"),
            (_, Some((start, _))) => format!("{start}>{text}"),
            _ => return Err(format!("its <{name}> has an unexpected form")),
        };
        self.replace(range, replaced);
        Ok(())
    }

    /// Returns the document with all replacements; of two that overlap only the first one.
    fn apply(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| range.start);
        let (mut edited, mut position) = (String::with_capacity(self.xml.len()), 0);
        for (range, text) in self.edits {
            if let Some(between) = self.xml.get(position..range.start) {
                edited.push_str(between);
                edited.push_str(&text);
                position = range.end;
            }
        }
        edited.push_str(self.xml.get(position..).unwrap_or_default());
        edited
    }
}

impl DomainCopy<'_> {
    /// Returns the definition of the clone from that of its source, `xml`. UUID, MAC addresses and generation id are left
    /// to libvirt, which creates new ones.
    ///
    /// # Errors
    /// Why it cannot be cloned: a second disk or memory in a file would be written by both guests.
    pub fn definition(&self, xml: &str) -> Result<String, String> {
        let document = parse_xml(xml)?;
        let root = document.root_element();
        if !root.has_tag_name("domain") {
            return Err("its definition is not that of a domain".to_owned());
        }
        let mut edits = Edits {
            xml,
            edits: Vec::new(),
        };
        let name = child(root, "name").ok_or("its definition has no name")?;
        edits.set_text(name, self.id.as_str())?;
        for node in root.children() {
            match node.tag_name().name() {
                "uuid" => edits.remove(node),
                "genid" => edits.replace(node.range(), "<genid/>"),
                // libvirt demands that it is the UUID of the domain.
                "sysinfo" => node
                    .descendants()
                    .filter(|entry| entry.has_tag_name("entry"))
                    .filter(|entry| entry.attribute("name") == Some("uuid"))
                    .for_each(|entry| edits.remove(entry)),
                "os" => self.edit_os(node, &mut edits)?,
                "devices" => self.edit_devices(node, &mut edits)?,
                _ => {}
            }
        }
        let copied = edits.apply();
        self.check(&copied)?;
        Ok(copied)
    }

    /// Fails unless `xml` is the definition of the clone: with a UUID, libvirt would redefine the source.
    fn check(&self, xml: &str) -> Result<(), String> {
        let document = parse_xml(xml)?;
        let root = document.root_element();
        let has_name = child(root, "name").and_then(|name| name.text()) == Some(self.id.as_str());
        match has_name && child(root, "uuid").is_none() {
            true => Ok(()),
            false => Err("its definition has an unexpected form".to_owned()),
        }
    }

    fn edit_os(&self, os: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<(), String> {
        let Some(variables) = self.variables else {
            return Ok(());
        };
        let Some(nvram) = child(os, "nvram") else {
            let element = format!("<nvram>{}</nvram>", escape_xml(variables));
            let end = os.range().end;
            let is_end = edits
                .xml
                .get(..end)
                .is_some_and(|xml| xml.ends_with("</os>"));
            if !is_end {
                return Err("its <os> has an unexpected form".to_owned());
            }
            let end = end - "</os>".len();
            edits.replace(end..end, element);
            return Ok(());
        };
        match child(nvram, "source") {
            Some(source) if source.has_attribute("file") => {
                edits.set_attribute(source, "file", variables);
                Ok(())
            }
            Some(_) => Err("its UEFI variables are not in a file".to_owned()),
            None => edits.set_text(nvram, variables),
        }
    }

    fn edit_devices(&self, devices: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<(), String> {
        let is_disk = |node: &Node<'_, '_>| {
            node.has_tag_name("disk")
                && matches!(node.attribute("device"), None | Some("disk" | "lun"))
        };
        let disks: Vec<Node<'_, '_>> = devices.children().filter(is_disk).collect();
        let [disk] = &*disks else {
            return Err(format!(
                "it has {} disks, and a clone has a copy of the overlay only",
                disks.len()
            ));
        };
        match child(*disk, "source") {
            Some(source) if source.attribute("file") == Some(self.source_disk) => {
                edits.set_attribute(source, "file", self.disk);
            }
            _ => return Err("its disk is not a file with a path in its definition".to_owned()),
        }
        for device in devices.children() {
            match device.tag_name().name() {
                "interface" => {
                    let own = device.children();
                    let own =
                        own.filter(|node| node.has_tag_name("mac") || node.has_tag_name("target"));
                    own.for_each(|node| edits.remove(node));
                }
                "memory" if child(device, "source").is_some_and(has_path) => {
                    return Err("it has a memory device in a file".to_owned());
                }
                "serial" | "parallel" | "console" | "channel" => {
                    self.edit_character_device(device, edits);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the files and sockets of a device that have the source's id in their name that of the clone.
    fn edit_character_device(&self, device: Node<'_, '_>, edits: &mut Edits<'_>) {
        for (tag, attribute) in [("source", "path"), ("log", "file")] {
            let Some(node) = child(device, tag) else {
                continue;
            };
            let path = node.attribute(attribute).unwrap_or_default();
            let Some((dir, name)) = path.rsplit_once('/') else {
                continue;
            };
            let rest = name.strip_prefix(self.source.as_str());
            let is_whole = |rest: &&str| !rest.starts_with(|c: char| c.is_alphanumeric());
            if let Some(rest) = rest.filter(is_whole) {
                edits.set_attribute(node, attribute, &format!("{dir}/{}{rest}", self.id));
            }
        }
    }
}

fn has_path(source: Node<'_, '_>) -> bool {
    child(source, "path").is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn copy(xml: &str, variables: Option<&str>) -> Result<String, String> {
        let (source, id) = ("box".parse().unwrap(), "twin".parse().unwrap());
        let copy = DomainCopy {
            source: &source,
            source_disk: "/s/box.qcow2",
            id: &id,
            disk: "/s/<twin>.qcow2",
            variables,
        };
        copy.definition(xml)
    }

    const DISK: &str = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
        <source file='/s/box.qcow2'/><backingStore type='file'><source file='/b/base.qcow2'/></backingStore>\
        <target dev='vda' bus='virtio'/></disk>";

    fn domain(os: &str, devices: &str) -> String {
        format!(
            "<domain type='kvm'>\n  <name>box</name>\n  <uuid>0c0a</uuid>\n  <genid>1a</genid>\n\
             <sysinfo type='smbios'><system><entry name='uuid'>0c0a</entry><entry name='sku'>x</entry></system></sysinfo>\n\
             <os>{os}</os><devices>{devices}</devices></domain>"
        )
    }

    #[test]
    fn a_clone_has_a_name_and_files_of_its_own_and_the_rest_of_its_source() {
        let devices = format!(
            "{DISK}<disk device='cdrom'><source file='/iso/a.iso'/></disk>\
             <interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/><target dev='tap0'/>\
             <model type='virtio'/></interface>\
             <serial type='file'><source path='/log/box.log' append='on'/></serial>\
             <serial type='file'><source path='/log/boxes.log'/></serial>\
             <tpm model='tpm-crb'><backend type='emulator'/></tpm>"
        );
        let xml = domain(
            "<type>hvm</type><nvram template='/t'>/n/box_VARS.fd</nvram>",
            &devices,
        );
        let copied = copy(&xml, Some("/n/twin_VARS.fd")).unwrap();
        for part in [
            "<name>twin</name>",
            "<genid/>",
            "<entry name='sku'>",
            "<nvram template='/t'>/n/twin_VARS.fd</nvram>",
            "<source file='/s/&lt;twin&gt;.qcow2'/>",
            "<source file='/b/base.qcow2'/>",
            "<source file='/iso/a.iso'/>",
            "<interface type='network'><source network='default'/><model type='virtio'/></interface>",
            "path='/log/twin.log' append='on'",
            "path='/log/boxes.log'",
            "<tpm model='tpm-crb'>",
        ] {
            assert!(copied.contains(part), "{part} is not in {copied}");
        }
        for part in ["uuid", "0c0a", "52:54", "tap0", "/s/box.qcow2", "/n/box"] {
            assert!(!copied.contains(part), "{part} is in {copied}");
        }
    }

    #[test]
    fn variables_get_a_path_in_every_form_of_the_definition() {
        for (os, expected) in [
            ("<type>hvm</type>", "<nvram>/n/v</nvram></os>"),
            (
                "<nvram template='/t'/>",
                "<nvram template='/t'>/n/v</nvram>",
            ),
            ("<nvram> /n/old </nvram>", "<nvram>/n/v</nvram>"),
            (
                "<nvram type='file'><source file='/n/old'/></nvram>",
                "<nvram type='file'><source file='/n/v'/></nvram>",
            ),
        ] {
            let copied = copy(&domain(os, DISK), Some("/n/v")).unwrap();
            assert!(copied.contains(expected), "{expected} is not in {copied}");
        }
        let os = "<nvram type='block'><source dev='/dev/x'/></nvram>";
        assert!(copy(&domain(os, DISK), Some("/n/v")).is_err());
        assert!(!copy(&domain("", DISK), None).unwrap().contains("nvram"));
    }

    #[test]
    fn what_both_guests_would_write_is_refused() {
        let volume = "<disk type='volume'><source pool='p' volume='v'/></disk>";
        let network =
            "<disk type='network' device='disk'><source protocol='rbd' name='p/i'/></disk>";
        let memory = "<memory model='nvdimm'><source><path>/m</path></source></memory>";
        for devices in [
            String::new(),
            volume.to_owned(),
            format!("{DISK}{network}"),
            format!("{DISK}{DISK}"),
            format!("{DISK}{memory}"),
        ] {
            assert!(copy(&domain("", &devices), None).is_err(), "{devices}");
        }
        for xml in ["", "<pool/>", "<domain/>", "no xml"] {
            assert!(copy(xml, None).is_err(), "{xml}");
        }
    }

    #[test]
    fn fuzz_copy() {
        crate::fuzz_samples::target("domain XML: clone")
            .seed(crate::fuzz_samples::DOMAIN)
            .seed(domain("<nvram/>", DISK))
            .run(|xml| {
                if let Ok(copied) = copy(&snapdeck_fuzz::text(xml), Some("/n/v")) {
                    let document = parse_xml(&copied).unwrap();
                    let root = document.root_element();
                    assert_eq!(child(root, "name").unwrap().text(), Some("twin"));
                    assert!(child(root, "uuid").is_none());
                }
            });
    }
}
