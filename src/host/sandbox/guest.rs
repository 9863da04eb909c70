//! Guests: data from the guest agent, addresses of VNC servers, uptime.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use virt::domain::Domain;
use virt::error::{Error as VirtError, ErrorNumber};

use super::Sandboxes;
use crate::CALL_TIMEOUT;
use crate::domain::child;
use crate::xml::parse_xml;
use snapdeck_libvirt::{TypedParams, Value};
use snapdeck_model::{AgentChannel, Guest, GuestAccess, Result, SandboxId, Vnc, printable_within};

/// For three agent commands, each with libvirt's timeout of 5 s.
const AGENT_TIMEOUT: Duration = Duration::from_secs(16);
/// Name of the agent's channel (QEMU, "QEMU Guest Agent").
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";
/// Devices and addresses that are read at most: guest data is not trusted.
const MAX_ADDRESSES: u64 = 32;
/// Maximum length of a text from a guest, in characters.
const MAX_TEXT: usize = 100;
/// Prints the seconds since a file was written, by the host's own clock.
const FILE_AGE_SCRIPT: &str = r#"echo "$(($(date +%s) - $(stat -c %Y -- "$1")))""#;

impl Sandboxes<'_> {
    /// Returns VNC server and agent channel of a guest with a QEMU process.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn guest_access(self, id: &SandboxId) -> Result<GuestAccess> {
        let read = |domain: &Domain| Ok(parse_guest_access(&domain.xml_desc(0)?));
        self.call_domain(id, "inspect", CALL_TIMEOUT, read).await
    }

    /// Queries the guest agent, whose channel must be connected.
    ///
    /// # Errors
    /// `Failed` if it does not answer.
    pub async fn query_agent(self, id: &SandboxId) -> Result<Guest> {
        self.call_domain(
            id,
            "query the guest agent of",
            AGENT_TIMEOUT,
            query_guest_info,
        )
        .await
    }

    /// Returns the age of the sandbox's QEMU process; `None` if unknown.
    ///
    /// libvirt does not report it; its PID file is as old as the process.
    pub async fn uptime(self, id: &SandboxId) -> Option<Duration> {
        let pid_file = format!("{}/{id}.pid", self.run_dir()?);
        if self.host.runner.ssh().is_none() {
            let written = tokio::fs::metadata(pid_file).await.ok()?.modified().ok()?;
            return SystemTime::now().duration_since(written).ok();
        }
        let argv = ["sh", "-c", FILE_AGE_SCRIPT, "snapdeck", &pid_file];
        let output = self
            .host
            .runner
            .run(&argv, CALL_TIMEOUT, &CancellationToken::new())
            .await;
        let output = output.ok().filter(|output| output.status.success())?;
        Some(Duration::from_secs(output.stdout.trim().parse().ok()?))
    }

    /// Returns the state directory of libvirt's QEMU driver.
    fn run_dir(self) -> Option<String> {
        if let Some(ssh) = self.host.runner.ssh() {
            let address = ssh.address();
            return default_run_dir(&address.path, address.socket.as_deref());
        }
        let uri = url::Url::parse(&self.host.settings.uri).ok()?;
        let value = |name| uri.query_pairs().find(|(key, _)| key == name);
        if let Some((_, root)) = value("root") {
            return Some(format!("{root}/run/qemu"));
        }
        default_run_dir(uri.path(), value("socket").map(|(_, path)| path).as_deref())
    }
}

fn default_run_dir(path: &str, socket: Option<&str>) -> Option<String> {
    match (path, socket) {
        ("/system", None) => Some("/run/libvirt/qemu".to_owned()),
        ("/system", Some(socket)) => Some(format!("{}/qemu", socket.rsplit_once('/')?.0)),
        // That of a session is in its user's runtime directory.
        _ => None,
    }
}

fn parse_guest_access(xml: &str) -> GuestAccess {
    let Ok(document) = parse_xml(xml) else {
        return GuestAccess::default();
    };
    let Some(devices) = child(document.root_element(), "devices") else {
        return GuestAccess::default();
    };
    let vnc = devices
        .children()
        .filter(|node| node.has_tag_name("graphics") && node.attribute("type") == Some("vnc"))
        .find_map(|graphics| {
            let listen = child(graphics, "listen");
            let attribute = |name| graphics.attribute(name).or_else(|| listen?.attribute(name));
            if let Some(path) = attribute("socket") {
                return Some(Vnc::Socket(path.to_owned()));
            }
            // A server on all addresses also listens on loopback.
            let address = match attribute("listen").or(attribute("address")) {
                None | Some("0.0.0.0") => "127.0.0.1",
                Some("::") => "::1",
                Some(address) => address,
            };
            Some(Vnc::Tcp {
                address: address.to_owned(),
                port: attribute("port")?.parse().ok()?,
            })
        });
    let channel = devices
        .children()
        .filter(|node| node.has_tag_name("channel"))
        .filter_map(|channel| child(channel, "target"))
        .find(|target| target.attribute("name") == Some(AGENT_CHANNEL));
    let agent = match channel.map(|target| target.attribute("state")) {
        None => AgentChannel::None,
        Some(Some("connected")) => AgentChannel::Connected,
        Some(_) => AgentChannel::Disconnected,
    };
    GuestAccess { vnc, agent }
}

/// Queries each kind by itself: an older agent does not support all of them.
fn query_guest_info(domain: &Domain) -> Result<Guest, VirtError> {
    let mut info = TypedParams::new();
    for kinds in [
        virt_sys::VIR_DOMAIN_GUEST_INFO_OS,
        virt_sys::VIR_DOMAIN_GUEST_INFO_HOSTNAME,
        virt_sys::VIR_DOMAIN_GUEST_INFO_INTERFACES,
    ] {
        match snapdeck_libvirt::guest_info(domain, kinds) {
            Ok(fields) => info.extend(fields),
            Err(error) if error.code().is(ErrorNumber::AgentUnresponsive) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(parse_guest_info(&info))
}

fn parse_guest_info(fields: &TypedParams) -> Guest {
    let text = |name: &str| match fields.get(name) {
        Some(Value::Text(text)) => {
            Some(printable_within(text, MAX_TEXT)).filter(|text| !text.is_empty())
        }
        _ => None,
    };
    let count = |name: &str| match fields.get(name) {
        Some(Value::Number(count)) => (*count).min(MAX_ADDRESSES),
        _ => 0,
    };
    let addresses = (0..count("if.count")).flat_map(|device| {
        let addresses = 0..count(&format!("if.{device}.addr.count"));
        addresses.filter_map(move |index| text(&format!("if.{device}.addr.{index}.addr")))
    });
    let is_reachable = |address: &String| match address.parse() {
        Ok(IpAddr::V4(address)) => !address.is_loopback() && !address.is_link_local(),
        Ok(IpAddr::V6(address)) => !address.is_loopback() && !address.is_unicast_link_local(),
        Err(_) => false,
    };
    Guest {
        os: text("os.pretty-name").or(text("os.name")),
        hostname: text("hostname"),
        addresses: addresses.filter(is_reachable).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_samples;

    fn vnc(graphics: &str) -> Option<String> {
        let xml = format!("<domain><devices>{graphics}</devices></domain>");
        parse_guest_access(&xml).vnc.map(|vnc| vnc.to_string())
    }

    #[test]
    fn reads_the_address_of_a_vnc_server() {
        for (graphics, address) in [
            (
                "<graphics type='vnc' port='5901' listen='127.0.0.1'/>",
                Some("127.0.0.1:5901"),
            ),
            (
                "<graphics type='spice' port='5900'/><graphics type='vnc' port='5902'>\
                 <listen type='address' address='0.0.0.0'/></graphics>",
                Some("127.0.0.1:5902"),
            ),
            (
                "<graphics type='vnc' port='5901' listen='::'/>",
                Some("[::1]:5901"),
            ),
            (
                "<graphics type='vnc'><listen type='socket' socket='/r/v'/></graphics>",
                Some("/r/v"),
            ),
            // A guest that is shut off has no port.
            ("<graphics type='vnc' port='-1' autoport='yes'/>", None),
            ("<graphics type='spice' port='5900'/>", None),
        ] {
            assert_eq!(vnc(graphics).as_deref(), address, "{graphics}");
        }
    }

    #[test]
    fn reads_the_state_of_the_agent_channel() {
        for (target, agent) in [
            (
                "name='org.qemu.guest_agent.0' state='connected'",
                AgentChannel::Connected,
            ),
            (
                "name='org.qemu.guest_agent.0' state='disconnected'",
                AgentChannel::Disconnected,
            ),
            (
                "name='com.redhat.spice.0' state='connected'",
                AgentChannel::None,
            ),
        ] {
            let xml = format!(
                "<domain><devices><channel type='unix'><target type='virtio' {target}/></channel>\
                 </devices></domain>"
            );
            assert_eq!(parse_guest_access(&xml).agent, agent);
        }
        assert_eq!(parse_guest_access("no xml"), GuestAccess::default());
    }

    #[test]
    fn invalid_agent_data_is_dropped() {
        let text = |text: &str| Value::Text(text.to_owned());
        let info = TypedParams::from([
            ("os.pretty-name".into(), text("Windows\u{1b}[2J Server")),
            ("hostname".into(), text("")),
            ("if.count".into(), Value::Number(u64::MAX)),
            ("if.0.addr.count".into(), Value::Number(4)),
            ("if.0.addr.0.addr".into(), text("127.0.0.1")),
            ("if.0.addr.1.addr".into(), text("192.168.122.7")),
            ("if.0.addr.2.addr".into(), text("fe80::1")),
            ("if.0.addr.3.addr".into(), text("no address")),
        ]);
        let guest = parse_guest_info(&info);
        assert_eq!(guest.os.as_deref(), Some("Windows\\u{1b}[2J Server"));
        assert_eq!(guest.hostname, None);
        assert_eq!(guest.addresses, ["192.168.122.7"]);
    }

    #[test]
    fn finds_the_directory_of_pid_files() {
        let dir = |path, socket| default_run_dir(path, socket);
        assert_eq!(dir("/system", None).as_deref(), Some("/run/libvirt/qemu"));
        let socket = Some("/l/run/libvirt/libvirt-sock");
        assert_eq!(
            dir("/system", socket).as_deref(),
            Some("/l/run/libvirt/qemu")
        );
        assert_eq!(dir("/session", None), None);
    }

    #[test]
    fn fuzz_guest_access() {
        fuzz_samples::target("domain XML: VNC and agent")
            .seed(fuzz_samples::DOMAIN)
            .run(|xml| {
                parse_guest_access(&snapdeck_fuzz::text(xml));
            });
    }

    #[test]
    fn fuzz_guest_info() {
        snapdeck_fuzz::FuzzTarget::new("answers of the guest agent")
            .seed("if.count=3\nif.0.addr.count=2\nif.0.addr.0.addr=:10.0.0.5\nos.name=:Windows\nhostname=:a")
            .words(&["if.count=", "if.0.addr.count=", "if.0.addr.0.addr=:", "os.pretty-name=:", "hostname=:"])
            .run(|fields| {
                let guest = parse_guest_info(&fuzz_samples::typed_params(fields));
                let texts = guest.addresses.iter().chain(&guest.os).chain(&guest.hostname);
                let is_short = |text: &String| {
                    text.chars().count() <= MAX_TEXT && !text.contains(char::is_control)
                };
                assert!(texts.into_iter().all(is_short));
            });
    }
}
