//! The SSH server of a host. Its files are the test's own and read anew for each connection: what a test changes
//! holds from the next one on.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use super::host::Host;
use super::link::Link;
use super::process::{am_root, run};

const SSHD: &str = "/usr/sbin/sshd";
/// Without these root may do no more with files than others do.
const RIGHTS: &str = "--bounding-set=-dac_override,-dac_read_search";

/// Makes keys and settings, and opens the line.
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
    let known = format!("[{}]:{} {key}", link.address.ip(), link.address.port());
    std::fs::write(host.tool("known_hosts"), known).unwrap();
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

/// The words before a command that is to run on the host, as us.
fn enter(host: &Host) -> Vec<String> {
    let namespace = format!("--mount=/proc/{}/ns/mnt", host.holder());
    if am_root() {
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

/// The URI of a host over SSH.
pub(super) fn uri(host: &Host, link: &Link) -> String {
    let user = run("id", &["-un"]);
    let (key, known) = (host.tool("key"), host.tool("known_hosts"));
    format!(
        "qemu+ssh://{}@{}/system?keyfile={key}&known_hosts={known}",
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

/// The first value of a setting is the one that holds.
fn write_config(host: &Host, more: &str) {
    let (key, keys) = (host.tool("host_key"), host.tool("authorized_keys"));
    // A home without files of settings: what the tester's own shell does at each login is not what is tested.
    let home = host.tool("home");
    std::fs::create_dir_all(&home).unwrap();
    let text = format!(
        "{more}\nSetEnv HOME={home}\nHostKey {key}\nAuthorizedKeysFile {keys}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitUserEnvironment yes\n\
         MaxStartups 100\nUseDNS no\nPrintMotd no\nSubsystem sftp internal-sftp\nLogLevel VERBOSE\n"
    );
    std::fs::write(host.tool("sshd_config"), text).unwrap();
}

/// Lets our key in, to the host's programs and no others.
pub(super) fn write_authorized(host: &Host) {
    let key = std::fs::read_to_string(host.tool("key.pub")).unwrap();
    let line = format!("environment=\"PATH={}\" {key}", host.programs());
    let keys = host.tool("authorized_keys");
    // Never half a file under that name: sshd may read it just now.
    std::fs::write(format!("{keys}.new"), line).unwrap();
    std::fs::rename(format!("{keys}.new"), keys).unwrap();
}

impl Host {
    /// Gives its sshd a setting (sshd_config(5)).
    pub(crate) fn set_sshd(&self, setting: &str) {
        write_config(self, setting);
    }

    /// Its sshd takes no keys, only passwords.
    pub(crate) fn takes_passwords_only(&self) {
        self.set_sshd(
            "PubkeyAuthentication no\nPasswordAuthentication yes\nKbdInteractiveAuthentication yes",
        );
    }

    /// It was set up anew: its key is not the one that is known.
    pub(crate) fn change_host_key(&self) {
        make_key(&self.tool("host_key"));
    }

    /// The file of known host keys that its URI names.
    pub(crate) fn known_hosts(&self) -> String {
        self.tool("known_hosts")
    }

    /// Nobody has ever logged in there.
    pub(crate) fn forget_host_key(&self) {
        std::fs::write(self.known_hosts(), "").unwrap();
    }

    /// Our key is not one that it knows.
    pub(crate) fn change_our_key(&self) {
        make_key(&self.tool("key"));
    }

    /// Whoever logs in has no more rights to files than their modes give, even as root.
    pub(crate) fn limit_rights(&self) {
        std::fs::write(self.tool("limited"), "").unwrap();
    }
}
