//! The SSH server of a host. Its configuration is in the test's directory and is read for each connection, so a
//! change takes effect with the next one.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};

use super::host::Host;
use super::link::Link;
use super::process::{is_root, run, wait_until};

const SSHD: &str = "/usr/sbin/sshd";
/// Without these capabilities file permissions apply to root too.
const RIGHTS: &str = "--bounding-set=-dac_override,-dac_read_search";

/// Creates keys and configuration, and opens the port.
pub(super) fn open(host: &Host) -> Link {
    make_key(&host.tool("host_key"));
    make_key(&host.tool("key"));
    write_config(host, "");
    write_authorized(host);
    let mut words = enter(host);
    words.extend(["setpriv", "--pdeathsig=KILL"].map(str::to_owned));
    let sshd = [SSHD, "-i", "-f", &host.tool("sshd_config"), "-E"].map(str::to_owned);
    let log = host.tool("log");
    let limited = host.tool("limited");
    let link = Link::open(ip(host), move || {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if Path::new(&limited).exists() {
            command.arg(RIGHTS);
        }
        command.args(&sshd).arg(&log);
        command
    });
    let key = std::fs::read_to_string(host.tool("host_key.pub")).unwrap();
    let line = format!("[{}]:{} {key}", link.address.ip(), link.address.port());
    std::fs::write(host.tool("known_hosts"), line).unwrap();
    link
}

fn ip(host: &Host) -> Ipv4Addr {
    let last = match host.name.as_str() {
        "alpha" => 2,
        "beta" => 3,
        "gamma" => 4,
        _ => 5,
    };
    Ipv4Addr::new(127, 0, 0, last)
}

/// Returns the words before a command that runs in the host's mount namespace as the current user.
fn enter(host: &Host) -> Vec<String> {
    let namespace = format!("--mount=/proc/{}/ns/mnt", host.holder());
    if is_root() {
        return vec!["nsenter".into(), namespace, "--".into()];
    }
    let id = |what| run("id", &[what]).trim().to_owned();
    let (uid, gid) = (
        format!("--reuid={}", id("-u")),
        format!("--regid={}", id("-g")),
    );
    [
        "sudo",
        "nsenter",
        &namespace,
        "--",
        "setpriv",
        &uid,
        &gid,
        "--init-groups",
    ]
    .map(str::to_owned)
    .into()
}

/// Returns the URI of a host over SSH.
pub(super) fn uri(host: &Host, link: &Link) -> String {
    let user = run("id", &["-un"]);
    let (key, known_hosts) = (host.tool("key"), host.tool("known_hosts"));
    format!(
        "qemu+ssh://{}@{}/system?keyfile={key}&known_hosts={known_hosts}",
        user.trim(),
        link.address,
    )
}

fn make_key(path: &str) {
    let _ = std::fs::remove_file(path);
    run(
        "ssh-keygen",
        &[
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "snapdeck-test",
            "-f",
            path,
        ],
    );
}

/// `more` precedes the defaults: sshd uses the first value of a setting.
fn write_config(host: &Host, more: &str) {
    let (key, keys) = (host.tool("host_key"), host.tool("authorized_keys"));
    // An empty home directory, without the shell configuration of the developer.
    let home = host.tool("home");
    std::fs::create_dir_all(&home).unwrap();
    let sftp = match more.contains("Subsystem") {
        true => "",
        false => "Subsystem sftp internal-sftp",
    };
    let text = format!(
        "{more}\nSetEnv HOME={home}\nHostKey {key}\nAuthorizedKeysFile {keys}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitUserEnvironment yes\n\
         MaxStartups 100\nUseDNS no\nPrintMotd no\n{sftp}\nLogLevel VERBOSE\n"
    );
    std::fs::write(host.tool("sshd_config"), text).unwrap();
}

/// Accepts the test's key, with the host's PATH.
pub(super) fn write_authorized(host: &Host) {
    let key = std::fs::read_to_string(host.tool("key.pub")).unwrap();
    let line = format!("environment=\"PATH={}\" {key}", host.programs());
    let keys = host.tool("authorized_keys");
    // Renamed, since sshd may read the file at any time.
    std::fs::write(format!("{keys}.new"), line).unwrap();
    std::fs::rename(format!("{keys}.new"), keys).unwrap();
}

/// An sshd that accepts connections itself, so that its limits apply; killed on drop.
pub(crate) struct SshServer {
    child: Child,
    pub address: SocketAddrV4,
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Host {
    /// Starts another sshd with these lines of sshd_config(5), and makes its key known.
    pub(crate) fn start_sshd(&self, settings: &str) -> SshServer {
        write_config(self, settings);
        // Free after this statement; nothing else takes ports of this address.
        let free = TcpListener::bind((ip(self), 0)).unwrap().local_addr();
        let address = SocketAddrV4::new(ip(self), free.unwrap().port());
        let words = enter(self);
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(["setpriv", "--pdeathsig=KILL", SSHD, "-D", "-f"])
            .arg(self.tool("sshd_config"))
            .args(["-o", &format!("ListenAddress={address}"), "-E"])
            .arg(self.tool("log"))
            .spawn()
            .unwrap();
        wait_until("sshd listens", || TcpStream::connect(address).is_ok());
        let known = std::fs::read_to_string(self.known_hosts()).unwrap();
        let key = known.split_once(' ').unwrap().1;
        let line = format!("[{}]:{} {key}", address.ip(), address.port());
        std::fs::write(self.known_hosts(), line).unwrap();
        SshServer { child, address }
    }

    /// Sets lines of its sshd_config(5).
    pub(crate) fn set_sshd(&self, setting: &str) {
        write_config(self, setting);
    }

    /// Sets the home directory of its SSH sessions, which is created.
    pub(crate) fn set_home(&self, dir: &str) {
        std::fs::create_dir_all(dir).unwrap();
        self.set_sshd(&format!("SetEnv HOME={dir}"));
    }

    /// Makes `shell` the login shell of its user.
    pub(crate) fn set_login_shell(&self, shell: &str) {
        // The user's own one only starts it, also for the SFTP server, which is not within sshd then.
        self.set_sshd(&format!(
            "Subsystem sftp /usr/lib/openssh/sftp-server\nForceCommand exec {shell} -c \"$SSH_ORIGINAL_COMMAND\""
        ));
    }

    /// Makes its sshd accept passwords only.
    pub(crate) fn accept_passwords_only(&self) {
        self.set_sshd(
            "PubkeyAuthentication no\nPasswordAuthentication yes\nKbdInteractiveAuthentication yes",
        );
    }

    /// Replaces its host key, as a reinstallation does.
    pub(crate) fn replace_host_key(&self) {
        make_key(&self.tool("host_key"));
    }

    /// Returns the known_hosts file that its URI names.
    pub(crate) fn known_hosts(&self) -> String {
        self.tool("known_hosts")
    }

    /// Empties the known_hosts file.
    pub(crate) fn clear_known_hosts(&self) {
        std::fs::write(self.known_hosts(), "").unwrap();
    }

    /// Replaces the test's key by one that the host does not accept.
    pub(crate) fn replace_client_key(&self) {
        make_key(&self.tool("key"));
    }

    /// Makes file permissions apply to SSH sessions of root too.
    pub(crate) fn enforce_permissions(&self) {
        std::fs::write(self.tool("limited"), "").unwrap();
    }
}
