//! Addresses of hosts: libvirt URIs (libvirt, "Connection URIs", "Remote URIs").

use url::Url;

use super::quote::quote_words;

/// The address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// This machine: the URI has no host part.
    Local,
    /// Another machine, over SSH.
    Ssh(Box<SshAddress>),
}

/// The parts of a `qemu+ssh://` URI; `None` means the default of the user's SSH settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshAddress {
    pub user: Option<String>,
    /// A name, an address, or an alias of the user's SSH settings.
    pub host: String,
    pub port: Option<u16>,
    /// The only private key to use.
    pub keyfile: Option<String>,
    pub known_hosts: Option<String>,
    /// Whether the host key is not checked (libvirt's `no_verify`).
    pub no_verify: bool,
    /// libvirt's unix socket on the host; `None` for the default one.
    pub socket: Option<String>,
    /// The libvirt driver: `qemu`.
    pub driver: String,
    /// The connection of the driver: `/system`.
    pub path: String,
}

impl SshAddress {
    /// Returns the URI of this libvirt on the host itself.
    pub(crate) fn uri_on_host(&self) -> String {
        let Self { driver, path, .. } = self;
        match &self.socket {
            Some(socket) => format!("{driver}://{path}?socket={socket}"),
            None => format!("{driver}://{path}"),
        }
    }

    /// Returns the command line by which an operator reaches the host: with the user, port, key and known hosts of the
    /// URI. `program` is `ssh`, or one with the same options.
    pub(crate) fn command(&self, program: &str) -> String {
        let port = self.port.map(|port| port.to_string());
        let known_hosts = self.known_hosts.as_ref().map(|file| {
            // The option is a list, separated by spaces.
            match file.contains(char::is_whitespace) {
                true => format!("UserKnownHostsFile=\"{file}\""),
                false => format!("UserKnownHostsFile={file}"),
            }
        });
        let login = match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        };
        let options = [
            ("-p", port.as_deref()),
            ("-i", self.keyfile.as_deref()),
            ("-o", known_hosts.as_deref()),
        ];
        let options = options
            .into_iter()
            .filter_map(|(option, value)| Some([option, value?]));
        let words = [program].into_iter().chain(options.flatten());
        quote_words(words.chain([&*login]))
    }

    /// Returns the command line that removes the known host key of the host.
    pub(crate) fn command_to_forget_host_key(&self) -> String {
        // As in a file of known hosts (sshd(8)).
        let name = match self.port {
            Some(port) if port != 22 => format!("[{}]:{port}", self.host),
            _ => self.host.clone(),
        };
        let file = self.known_hosts.as_deref().map(|file| ["-f", file]);
        let words = ["ssh-keygen", "-R", &name].into_iter();
        quote_words(words.chain(file.into_iter().flatten()))
    }

    /// Returns the command line that adds the key to the agent.
    pub(crate) fn command_to_add_key(&self) -> String {
        quote_words(["ssh-add"].into_iter().chain(self.keyfile.as_deref()))
    }
}

/// Cause and hint.
pub(crate) type AddressError = (String, &'static str);

const URI_HINT: &str = "use qemu+ssh://USER@HOST/system, or qemu:///system on the host itself";

/// Parses a libvirt URI. Only one without a host part is local.
///
/// # Errors
/// The URI is invalid or not supported.
pub(crate) fn parse(uri: &str) -> Result<Address, AddressError> {
    let unsupported = |cause: String| Err((cause, URI_HINT));
    let url = match Url::parse(uri) {
        Ok(url) => url,
        Err(error) => return unsupported(error.to_string()),
    };
    let host = url.host_str().unwrap_or_default();
    let (driver, transport) = match url.scheme().split_once('+') {
        Some((driver, transport)) => (driver, Some(transport)),
        None => (url.scheme(), None),
    };
    // "qemu:system" has no host part either, but is not local.
    if !uri.contains("://") {
        return unsupported("it has no \"://\"".into());
    }
    match transport {
        None | Some("unix") if host.is_empty() => return Ok(Address::Local),
        Some("ssh") if host.is_empty() => return unsupported("it names no host".into()),
        Some("ssh") => {}
        _ => {
            return unsupported(
                "only qemu+ssh gives access to the files of another machine".into(),
            );
        }
    }
    let mut address = SshAddress {
        user: Some(percent_decode(url.username())).filter(|user| !user.is_empty()),
        host: percent_decode(host.trim_start_matches('[').trim_end_matches(']')),
        port: url.port(),
        keyfile: None,
        known_hosts: None,
        no_verify: false,
        socket: None,
        driver: driver.to_owned(),
        path: url.path().to_owned(),
    };
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "keyfile" => address.keyfile = Some(value),
            "known_hosts" => address.known_hosts = Some(value),
            "socket" => address.socket = Some(value),
            "no_verify" => address.no_verify = value != "0",
            // snapdeck never prompts on the terminal.
            "no_tty" => {}
            other => return unsupported(format!("unknown parameter {other:?}")),
        }
    }
    // ssh reads a word with a leading dash as an option.
    let words = [Some(&address.host), address.user.as_ref()];
    let is_invalid = |word: &&String| {
        word.starts_with('-') || word.chars().any(|c| c.is_control() || c.is_whitespace())
    };
    if let Some(word) = words.into_iter().flatten().find(is_invalid) {
        return unsupported(format!("{word:?} is not a valid host or user name"));
    }
    if url.password().is_some() {
        return Err((
            "it has a password".into(),
            "use a key: ssh-keygen, ssh-copy-id, ssh-agent",
        ));
    }
    Ok(Address::Ssh(Box::new(address)))
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn ssh(uri: &str) -> SshAddress {
        match parse(uri) {
            Ok(Address::Ssh(address)) => *address,
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn only_a_uri_without_a_host_is_local() {
        for uri in [
            "qemu:///system",
            "qemu+unix:///system",
            "qemu:///embed?root=/tmp/x",
            "qemu:///system?socket=/run/x",
            "test:///default",
        ] {
            assert_eq!(parse(uri), Ok(Address::Local), "{uri}");
        }
        for uri in [
            "qemu+ssh://root@localhost/system",
            "qemu+ssh://127.0.0.1/system",
        ] {
            ssh(uri);
        }
        for uri in [
            "qemu+ssh:///system",
            "qemu://alpha/system",
            "qemu+tls://localhost/system",
            "qemu+tcp:///system",
            "qemu:system",
            "",
            "qemu+ssh://-oProxyCommand=x/system",
            "qemu+ssh://-l@alpha/system",
            "qemu+ssh://a:secret@alpha/system",
            "qemu+ssh://alpha/system?command=/tmp/x",
        ] {
            assert!(parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn command_lines_for_operators_have_user_port_and_key() {
        let plain = ssh("qemu+ssh://root@alpha/system");
        assert_eq!(plain.command("ssh"), "ssh root@alpha");
        assert_eq!(plain.command_to_add_key(), "ssh-add");
        let forget = plain.command_to_forget_host_key();
        assert_eq!(forget, "ssh-keygen -R alpha");

        let uri = "qemu+ssh://op@10.0.0.7:2222/system?keyfile=/k%20y&known_hosts=/h";
        let address = ssh(uri);
        assert_eq!(
            address.command("ssh-copy-id"),
            "ssh-copy-id -p 2222 -i '/k y' -o 'UserKnownHostsFile=/h' op@10.0.0.7"
        );
        assert_eq!(address.command_to_add_key(), "ssh-add '/k y'");
        let forget = address.command_to_forget_host_key();
        assert_eq!(forget, "ssh-keygen -R '[10.0.0.7]:2222' -f /h");
    }

    #[test]
    fn reads_all_supported_parts() {
        let address = ssh(
            "qemu+ssh://op%40corp@10.0.0.7:2222/system?keyfile=/k%20y&known_hosts=/h&no_verify=1&socket=/s",
        );
        assert_eq!(
            address,
            SshAddress {
                user: Some("op@corp".into()),
                host: "10.0.0.7".into(),
                port: Some(2222),
                keyfile: Some("/k y".into()),
                known_hosts: Some("/h".into()),
                no_verify: true,
                socket: Some("/s".into()),
                driver: "qemu".into(),
                path: "/system".into(),
            }
        );
        assert_eq!(address.uri_on_host(), "qemu:///system?socket=/s");
        let plain = ssh("qemu+ssh://alpha/system?no_verify=0");
        assert_eq!(
            (plain.user, plain.port, plain.no_verify),
            (None, None, false)
        );
        assert_eq!(ssh("qemu+ssh://[::1]:22/system").host, "::1");
    }
}
