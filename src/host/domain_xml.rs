//! Domain XML of new sandboxes, rendered from a template.

use std::fmt::Write;

use roxmltree::Document;

use snapdeck_model::settings::{Firmware, Network};
use snapdeck_model::{Error, Kind, Result, SandboxId};

/// Values for the placeholders of the template.
#[derive(Debug, Clone)]
pub struct DomainTemplate<'a> {
    /// Id and domain name.
    pub id: &'a SandboxId,
    /// Path of the overlay.
    pub disk: &'a str,
    /// Path of the snapshot that it is based on.
    pub base: &'a str,
    /// Path of the UEFI variables; the file need not exist.
    pub variables: &'a str,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Whether it runs under KVM instead of in emulation.
    pub is_kvm: bool,
    /// Firmware it boots with.
    pub firmware: Firmware,
    /// Network it is connected to.
    pub network: &'a Network,
    /// Whether it has a TPM.
    pub has_tpm: bool,
}

/// Enlightenments for Windows guests (libvirt, "Hypervisor features").
pub(super) const HYPERV: &str = "<hyperv mode='custom'><relaxed state='on'/><vapic state='on'/>\
    <spinlocks state='on' retries='8191'/><vpindex state='on'/><runtime state='on'/><synic state='on'/>\
    <stimer state='on'/><frequencies state='on'/></hyperv>";

impl DomainTemplate<'_> {
    /// Renders the template.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown placeholder, or if the result is not the domain XML of this sandbox.
    pub fn fill(&self, template: &str) -> Result<String> {
        let mut xml = String::with_capacity(template.len() + 1024);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, remaining) = after
                .split_once("}}")
                .ok_or_else(|| template_error("a {{ has no }}".to_owned()))?;
            xml.push_str(before);
            xml.push_str(&self.resolve_placeholder(name)?);
            rest = remaining;
        }
        xml.push_str(rest);
        self.validate(&xml)?;
        Ok(xml)
    }

    fn resolve_placeholder(&self, name: &str) -> Result<String> {
        let if_enabled = |is_enabled: bool, element: &str| match is_enabled {
            true => element.to_owned(),
            false => String::new(),
        };
        Ok(match name {
            "id" => escape_xml(self.id.as_str()),
            "disk" => escape_xml(self.disk),
            "backing" => self.render_backing(),
            "variables" => escape_xml(self.variables),
            "cpus" => self.cpus.to_string(),
            "memory_bytes" => self.memory_bytes.to_string(),
            "accel" => if self.is_kvm { "kvm" } else { "qemu" }.to_owned(),
            "os" => self.render_os(),
            "cpu" => match self.is_kvm {
                true => "<cpu mode='host-passthrough' check='none' migratable='on'/>",
                false => "<cpu mode='maximum'/>",
            }
            .to_owned(),
            "hyperv" => if_enabled(self.is_kvm, HYPERV),
            "hypervclock" => if_enabled(self.is_kvm, "<timer name='hypervclock' present='yes'/>"),
            "network" => self.render_interface(),
            "tpm" => if_enabled(
                self.has_tpm,
                "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>",
            ),
            _ => {
                return Err(
                    template_error(format!("{{{{{name}}}}} is not a placeholder"))
                        .hint("see config/sandbox.xml for the placeholders"),
                );
            }
        })
    }

    fn render_os(&self) -> String {
        let kind = "<type arch='x86_64' machine='q35'>hvm</type>";
        let secure = match self.firmware {
            Firmware::Bios => return format!("<os>{kind}<boot dev='hd'/></os>"),
            Firmware::SecureUefi => "yes",
            Firmware::Uefi => "no",
        };
        format!(
            "<os firmware='efi'>{kind}<firmware><feature enabled='{secure}' name='secure-boot'/>\
             <feature enabled='{secure}' name='enrolled-keys'/></firmware><nvram>{}</nvram><boot dev='hd'/></os>",
            escape_xml(self.variables)
        )
    }

    /// Names the base, so that libvirt does not change its owner when the guest starts: other sandboxes and the manifest
    /// rely on the file.
    fn render_backing(&self) -> String {
        format!(
            "<backingStore type='file'><format type='qcow2'/><source file='{}'>\
             <seclabel model='dac' relabel='no'/></source><backingStore/></backingStore>",
            escape_xml(self.base)
        )
    }

    fn render_interface(&self) -> String {
        let (kind, name) = match self.network {
            Network::None => return String::new(),
            Network::Libvirt(name) => ("network", name),
            Network::Bridge(name) => ("bridge", name),
        };
        format!(
            "<interface type='{kind}'><source {kind}='{}'/><model type='virtio'/></interface>",
            escape_xml(name)
        )
    }

    fn validate(&self, xml: &str) -> Result<()> {
        let document = Document::parse(xml)
            .map_err(|error| template_error(format!("it is not XML: {error}")))?;
        let root = document.root_element();
        let child = |name: &str| root.children().find(|node| node.has_tag_name(name));
        if !root.has_tag_name("domain") {
            return Err(template_error(
                "its root element is not <domain>".to_owned(),
            ));
        }
        if child("uuid").is_some() {
            // libvirt would redefine the domain with that uuid.
            return Err(template_error(
                "it has a <uuid>, which must be unique to each sandbox".to_owned(),
            ));
        }
        if child("name").and_then(|name| name.text()) != Some(self.id.as_str()) {
            return Err(template_error("its <name> must be {{id}}".to_owned()));
        }
        let is_overlay = |disk: roxmltree::Node<'_, '_>| {
            disk.children()
                .any(|source| source.attribute("file") == Some(self.disk))
        };
        let mut disks = root.descendants().filter(|node| node.has_tag_name("disk"));
        match disks.any(is_overlay) {
            true => Ok(()),
            false => Err(template_error("none of its disks is {{disk}}".to_owned())),
        }
    }
}

/// Returns the first element of a domain's XML with which its guest may reach a network; `None` if there is none.
///
/// A device of the host may be a network card, and QEMU's own arguments anything.
///
/// # Errors
/// `Failed` if it is not XML.
pub fn find_network_device(xml: &str) -> Result<Option<String>> {
    let document = Document::parse(xml).map_err(|error| {
        Error::new(Kind::Failed, "cannot read the domain XML").with_cause(error)
    })?;
    let is_network = |name: &str| matches!(name, "interface" | "hostdev" | "commandline");
    let mut names = document
        .descendants()
        .filter(|node| node.is_element())
        .map(|node| node.tag_name().name());
    Ok(names.find(|name| is_network(name)).map(str::to_owned))
}

fn template_error(reason: String) -> Error {
    Error::new(
        Kind::InvalidInput,
        "cannot use the template of new sandboxes",
    )
    .with_cause(reason)
    .hint("check template in [sandbox] of the settings")
}

/// Escapes `text` for an element or an attribute (XML 1.0, section 2.4).
pub(crate) fn escape_xml(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            // In an attribute these would be read as blanks.
            '\t' | '\n' | '\r' => {
                let _ = write!(escaped, "&#{};", u32::from(c));
            }
            c => escaped.push(c),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEMPLATE: &str = include_str!("../../config/sandbox.xml");

    fn render(template: &str, change: impl FnOnce(&mut DomainTemplate<'_>)) -> Result<String> {
        let id = "a".parse().unwrap();
        let mut domain = DomainTemplate {
            id: &id,
            disk: "/s/<&'\">/a.qcow2",
            base: "/b/<&'\">/b.qcow2",
            variables: "/n/a_VARS.fd",
            cpus: 2,
            memory_bytes: 4 << 30,
            is_kvm: true,
            firmware: Firmware::SecureUefi,
            network: &Network::None,
            has_tpm: true,
        };
        change(&mut domain);
        domain.fill(template)
    }

    #[test]
    fn values_are_escaped() {
        let xml = render(TEMPLATE, |_| {}).unwrap();
        let document = Document::parse(&xml).unwrap();
        let mut sources = document.descendants();
        let disk = sources.find_map(|node| node.attribute("file"));
        assert_eq!(disk, Some("/s/<&'\">/a.qcow2"));
    }

    #[test]
    fn elements_follow_accelerator_firmware_network_and_tpm() {
        let bridge: &Network = Box::leak(Box::new(Network::Bridge("br0".into())));
        type TemplateChange = Box<dyn FnOnce(&mut DomainTemplate<'_>)>;
        let cases: Vec<(TemplateChange, &[&str], &[&str])> = vec![
            (
                Box::new(|_| {}),
                &[
                    "type='kvm'",
                    "<hyperv",
                    "hypervclock",
                    "host-passthrough",
                    "<tpm",
                    "'yes' name='secure-boot'",
                ],
                &["<interface"],
            ),
            (
                Box::new(|domain| {
                    domain.is_kvm = false;
                    domain.has_tpm = false;
                    domain.firmware = Firmware::Bios;
                }),
                &["type='qemu'", "mode='maximum'"],
                &["<hyperv", "'hypervclock'", "<tpm", "<nvram", "firmware="],
            ),
            (
                Box::new(|domain| domain.network = bridge),
                &["<source bridge='br0'/>"],
                &[],
            ),
            (
                Box::new(|domain| domain.firmware = Firmware::Uefi),
                &["<nvram>/n/a_VARS.fd</nvram>", "'no' name='secure-boot'"],
                &["'yes' name='secure-boot'"],
            ),
        ];
        for (change, present, absent) in cases {
            let xml = render(TEMPLATE, change).unwrap();
            assert!(present.iter().all(|part| xml.contains(part)), "{xml}");
            assert!(!absent.iter().any(|part| xml.contains(part)), "{xml}");
        }
    }

    #[test]
    fn devices_that_reach_a_network_are_found() {
        let found = |xml: &str| find_network_device(xml).unwrap();
        assert_eq!(found(&render(TEMPLATE, |_| {}).unwrap()), None);
        let bridge: &Network = Box::leak(Box::new(Network::Bridge("br0".into())));
        let xml = render(TEMPLATE, |domain| domain.network = bridge).unwrap();
        assert_eq!(found(&xml).as_deref(), Some("interface"));
        for device in [
            "<devices><interface type='user'/></devices>",
            "<devices><hostdev mode='subsystem' type='pci'/></devices>",
            "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'/>",
        ] {
            assert!(
                found(&format!("<domain>{device}</domain>")).is_some(),
                "{device}"
            );
        }
        assert!(find_network_device("<domain").is_err());
    }

    #[test]
    fn an_unclosed_placeholder_is_invalid() {
        let error = render("<domain>{{id</domain>", |_| {}).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
    }
}
