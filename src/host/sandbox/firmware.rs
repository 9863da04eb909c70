//! The state of a sandbox outside its disks: UEFI variables and a TPM.

use roxmltree::Node;
use virt::domain::Domain;

use super::Sandboxes;
use crate::CALL_TIMEOUT;
use crate::domain::child;
use crate::xml::parse_xml;
use snapdeck_model::{Result, SandboxId};

/// Directory in which libvirt creates the variables of a domain whose XML does not name a file.
pub(crate) const LIBVIRT_NVRAM_DIR: &str = "/var/lib/libvirt/qemu/nvram";

/// The firmware of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFirmware {
    /// Whether it is UEFI.
    pub is_uefi: bool,
    /// Path of its UEFI variables; libvirt creates the file at the first start.
    pub variables: Option<String>,
    /// Format of that file, such as `raw` or `qcow2`.
    pub variables_format: String,
    /// Whether it has an emulated TPM, whose state is not part of a snapshot.
    pub has_tpm: bool,
}

impl Sandboxes<'_> {
    /// Returns the firmware of a sandbox.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn firmware(self, id: &SandboxId) -> Result<SandboxFirmware> {
        let read = |domain: &Domain| Ok(parse(&domain.xml_desc(0)?));
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, read))
            .await
    }
}

/// Parses domain XML; the default for invalid XML.
fn parse(xml: &str) -> SandboxFirmware {
    let Ok(document) = parse_xml(xml) else {
        return SandboxFirmware::default();
    };
    let root = document.root_element();
    let os = child(root, "os");
    let is_flash = |loader: Node<'_, '_>| loader.attribute("type") == Some("pflash");
    let nvram = os.and_then(|os| child(os, "nvram"));
    let is_uefi = os.is_some_and(|os| {
        os.attribute("firmware") == Some("efi") || child(os, "loader").is_some_and(is_flash)
    }) || nvram.is_some();
    let text = |node: Node<'_, '_>| {
        let text = node.text().map(str::trim).unwrap_or_default();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let named = nvram.and_then(|nvram| {
        let source = child(nvram, "source").and_then(|source| source.attribute("file"));
        source.map(str::to_owned).or_else(|| text(nvram))
    });
    // One on a block device or on the network is not a file that libvirt names by itself.
    let is_elsewhere = nvram.is_some_and(|nvram| child(nvram, "source").is_some());
    let default = || {
        let name = text(child(root, "name")?)?;
        Some(format!("{LIBVIRT_NVRAM_DIR}/{name}_VARS.fd"))
    };
    let format = nvram.and_then(|nvram| nvram.attribute("format"));
    let devices = child(root, "devices");
    let has_tpm = devices.and_then(|devices| child(devices, "tpm"));
    SandboxFirmware {
        is_uefi,
        variables: named.or_else(|| (is_uefi && !is_elsewhere).then(default)?),
        variables_format: format.unwrap_or("raw").to_owned(),
        has_tpm: has_tpm
            .and_then(|tpm| child(tpm, "backend"))
            .is_some_and(|backend| backend.attribute("type") == Some("emulator")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(os: &str) -> (bool, Option<String>, String) {
        let firmware = parse(&format!("<domain><name>w</name>{os}</domain>"));
        (
            firmware.is_uefi,
            firmware.variables,
            firmware.variables_format,
        )
    }

    #[test]
    fn variables_are_where_libvirt_keeps_them() {
        let default = || Some("/var/lib/libvirt/qemu/nvram/w_VARS.fd".to_owned());
        for (os, expected) in [
            ("<os><boot dev='hd'/></os>", (false, None, "raw")),
            ("<os firmware='bios'/>", (false, None, "raw")),
            (
                "<os><loader type='rom'>/seabios</loader></os>",
                (false, None, "raw"),
            ),
            ("<os firmware='efi'/>", (true, default(), "raw")),
            (
                "<os firmware='efi'><nvram template='/t'/></os>",
                (true, default(), "raw"),
            ),
            (
                "<os><loader type='pflash'>/code</loader></os>",
                (true, default(), "raw"),
            ),
            (
                "<os firmware='efi'><nvram format='qcow2'> /n/a </nvram></os>",
                (true, Some("/n/a".to_owned()), "qcow2"),
            ),
            (
                "<os firmware='efi'><nvram type='file'><source file='/n/b'/></nvram></os>",
                (true, Some("/n/b".to_owned()), "raw"),
            ),
            (
                "<os firmware='efi'><nvram type='block'><source dev='/dev/x'/></nvram></os>",
                (true, None, "raw"),
            ),
        ] {
            let (is_uefi, path, format) = expected;
            assert_eq!(variables(os), (is_uefi, path, format.to_owned()), "{os}");
        }
    }

    #[test]
    fn an_emulated_tpm_has_state() {
        let has_tpm =
            |tpm: &str| parse(&format!("<domain><devices>{tpm}</devices></domain>")).has_tpm;
        assert!(has_tpm(
            "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
        ));
        assert!(!has_tpm("<tpm><backend type='passthrough'/></tpm>"));
        assert!(!has_tpm(""));
    }

    #[test]
    fn fuzz_firmware() {
        crate::fuzz_samples::target("domain XML: firmware")
            .seed(crate::fuzz_samples::DOMAIN)
            .run(|xml| {
                parse(&snapdeck_fuzz::text(xml));
            });
    }
}
