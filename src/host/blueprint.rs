//! From a template of libvirt's XML to a sandbox's own.

use std::fmt::Write;

use roxmltree::Document;

use snapdeck_model::settings::{Firmware, Network};
use snapdeck_model::{Error, Kind, Result, SandboxId};

/// What a new sandbox is made of.
#[derive(Debug, Clone)]
pub struct Blueprint<'a> {
    /// Its id.
    pub id: &'a SandboxId,
    /// Path of its overlay.
    pub disk: &'a str,
    /// Path of its UEFI variables, whether they are there already or not.
    pub variables: &'a str,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Does it run under KVM, or by emulation?
    pub kvm: bool,
    /// What it boots with.
    pub firmware: Firmware,
    /// What it is connected to.
    pub network: &'a Network,
    /// Has it a TPM?
    pub tpm: bool,
}

/// What Windows gains by knowing its hypervisor (libvirt, "Hypervisor features").
pub(super) const HYPERV: &str = "<hyperv mode='custom'><relaxed state='on'/><vapic state='on'/>\
    <spinlocks state='on' retries='8191'/><vpindex state='on'/><runtime state='on'/><synic state='on'/>\
    <stimer state='on'/><frequencies state='on'/></hyperv>";

impl Blueprint<'_> {
    /// Fills `template` in.
    ///
    /// # Errors
    /// `InvalidInput` for a placeholder that is not known, for what is then no XML, or another sandbox than this one.
    pub fn fill(&self, template: &str) -> Result<String> {
        let mut xml = String::with_capacity(template.len() + 1024);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, behind) = after
                .split_once("}}")
                .ok_or_else(|| unfit("a {{ has no }}".to_owned()))?;
            xml.push_str(before);
            xml.push_str(&self.value(name)?);
            rest = behind;
        }
        xml.push_str(rest);
        self.proofread(&xml)?;
        Ok(xml)
    }

    /// What stands for a placeholder.
    fn value(&self, name: &str) -> Result<String> {
        let or_nothing = |there: bool, element: &str| match there {
            true => element.to_owned(),
            false => String::new(),
        };
        Ok(match name {
            "id" => escaped(self.id.as_str()),
            "disk" => escaped(self.disk),
            "variables" => escaped(self.variables),
            "cpus" => self.cpus.to_string(),
            "memory_bytes" => self.memory_bytes.to_string(),
            "accel" => if self.kvm { "kvm" } else { "qemu" }.to_owned(),
            "os" => self.os(),
            "cpu" => match self.kvm {
                true => "<cpu mode='host-passthrough' check='none' migratable='on'/>",
                false => "<cpu mode='maximum'/>",
            }
            .to_owned(),
            "hyperv" => or_nothing(self.kvm, HYPERV),
            "hypervclock" => or_nothing(self.kvm, "<timer name='hypervclock' present='yes'/>"),
            "network" => self.interface(),
            "tpm" => or_nothing(
                self.tpm,
                "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>",
            ),
            _ => {
                return Err(unfit(format!("{{{{{name}}}}} is no placeholder"))
                    .hint("config/sandbox.xml in snapdeck's sources tells which there are"));
            }
        })
    }

    fn os(&self) -> String {
        let kind = "<type arch='x86_64' machine='q35'>hvm</type>";
        let secure = match self.firmware {
            Firmware::Bios => return format!("<os>{kind}<boot dev='hd'/></os>"),
            Firmware::SecureUefi => "yes",
            Firmware::Uefi => "no",
        };
        format!(
            "<os firmware='efi'>{kind}<firmware><feature enabled='{secure}' name='secure-boot'/>\
             <feature enabled='{secure}' name='enrolled-keys'/></firmware><nvram>{}</nvram><boot dev='hd'/></os>",
            escaped(self.variables)
        )
    }

    fn interface(&self) -> String {
        let (kind, name) = match self.network {
            Network::None => return String::new(),
            Network::Libvirt(name) => ("network", name),
            Network::Bridge(name) => ("bridge", name),
        };
        format!(
            "<interface type='{kind}'><source {kind}='{}'/><model type='virtio'/></interface>",
            escaped(name)
        )
    }

    /// What came of the template must be this sandbox and no other.
    fn proofread(&self, xml: &str) -> Result<()> {
        let document =
            Document::parse(xml).map_err(|error| unfit(format!("it is no XML: {error}")))?;
        let root = document.root_element();
        let child = |name: &str| root.children().find(|node| node.has_tag_name(name));
        if !root.has_tag_name("domain") {
            return Err(unfit("its root is no <domain>".to_owned()));
        }
        if child("uuid").is_some() {
            // With the uuid of another domain, that one would be redefined.
            return Err(unfit(
                "it has a <uuid>, and every sandbox needs its own".to_owned(),
            ));
        }
        if child("name").and_then(|name| name.text()) != Some(self.id.as_str()) {
            return Err(unfit("its <name> must be {{id}}".to_owned()));
        }
        let is_overlay = |disk: roxmltree::Node<'_, '_>| {
            disk.children()
                .any(|source| source.attribute("file") == Some(self.disk))
        };
        let mut disks = root.descendants().filter(|node| node.has_tag_name("disk"));
        match disks.any(is_overlay) {
            true => Ok(()),
            false => Err(unfit("none of its disks is {{disk}}".to_owned())),
        }
    }
}

fn unfit(why: String) -> Error {
    Error::new(
        Kind::InvalidInput,
        "the template of new sandboxes cannot be used",
    )
    .with_cause(why)
    .hint("see template in [sandbox] of the settings")
}

/// `text` inside an element or an attribute (XML 1.0, section 2.4).
pub(crate) fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            // As they are they would become blanks in an attribute.
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

    fn filled(template: &str, change: impl FnOnce(&mut Blueprint<'_>)) -> Result<String> {
        let id = "a".parse().unwrap();
        let mut plan = Blueprint {
            id: &id,
            disk: "/s/<&'\">/a.qcow2",
            variables: "/n/a_VARS.fd",
            cpus: 2,
            memory_bytes: 4 << 30,
            kvm: true,
            firmware: Firmware::SecureUefi,
            network: &Network::None,
            tpm: true,
        };
        change(&mut plan);
        plan.fill(template)
    }

    #[test]
    fn a_value_stays_a_value() {
        let xml = filled(TEMPLATE, |_| {}).unwrap();
        let document = Document::parse(&xml).unwrap();
        let mut sources = document.descendants();
        let disk = sources.find_map(|node| node.attribute("file"));
        assert_eq!(disk, Some("/s/<&'\">/a.qcow2"));
    }

    #[test]
    fn what_the_host_has_decides_what_is_in_it() {
        let bridge = Network::Bridge("br0".into());
        type Change<'a> = Box<dyn FnOnce(&mut Blueprint<'_>) + 'a>;
        let cases: Vec<(Change<'_>, &[&str], &[&str])> = vec![
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
                Box::new(|plan| {
                    plan.kvm = false;
                    plan.tpm = false;
                    plan.firmware = Firmware::Bios;
                }),
                &["type='qemu'", "mode='maximum'"],
                &["<hyperv", "'hypervclock'", "<tpm", "<nvram", "firmware="],
            ),
            (
                Box::new(|plan| plan.firmware = Firmware::Uefi),
                &["<nvram>/n/a_VARS.fd</nvram>", "'no' name='secure-boot'"],
                &["'yes' name='secure-boot'"],
            ),
        ];
        for (change, there, absent) in cases {
            let xml = filled(TEMPLATE, change).unwrap();
            assert!(there.iter().all(|part| xml.contains(part)), "{xml}");
            assert!(!absent.iter().any(|part| xml.contains(part)), "{xml}");
        }
        let id = "a".parse().unwrap();
        let plan = Blueprint {
            id: &id,
            disk: "/d",
            variables: "/v",
            cpus: 1,
            memory_bytes: 1,
            kvm: false,
            firmware: Firmware::Bios,
            network: &bridge,
            tpm: false,
        };
        assert!(
            plan.fill(TEMPLATE)
                .unwrap()
                .contains("<source bridge='br0'/>")
        );
    }

    #[test]
    fn a_brace_that_stays_open_is_no_template() {
        let error = filled("<domain>{{id</domain>", |_| {}).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
    }
}
