//! Commands that an operator's terminal runs: a log-in to a host, and the serial console of a domain.

use super::Host;
use super::address::SshAddress;
use super::quote::quote_words;

impl Host {
    /// Returns the command that logs in to the host over SSH, with the address of its URI and the user's own settings;
    /// `None` for this machine.
    pub fn login_argv(&self) -> Option<Vec<String>> {
        let ssh = self.runner.ssh()?;
        Some(ssh_argv(ssh.address(), &["-t"], None))
    }

    /// Returns the command that attaches a terminal to the serial console of a domain, with virsh on the host. It asks
    /// for no password and ends with its terminal.
    pub fn console_argv(&self, uuid: &str) -> Vec<String> {
        let uri = self.uri_on_host();
        let virsh = ["virsh", "-q", "-c", &uri, "console", "--domain", uuid];
        match self.runner.ssh() {
            None => virsh.map(str::to_owned).to_vec(),
            Some(ssh) => {
                // Without -e none a tilde after a newline is a command to ssh. Settings of the user would exclude this command, or
                // the terminal; ssh before 8.7 does not know some.
                let options = [
                    "-q",
                    "-tt",
                    "-e",
                    "none",
                    "-o",
                    "IgnoreUnknown=SessionType,StdinNull,ForkAfterAuthentication",
                    "-o",
                    "BatchMode=yes",
                    "-o",
                    "RemoteCommand=none",
                    "-o",
                    "SessionType=default",
                    "-o",
                    "StdinNull=no",
                    "-o",
                    "ForkAfterAuthentication=no",
                ];
                ssh_argv(ssh.address(), &options, Some(quote_words(virsh)))
            }
        }
    }
}

fn ssh_argv(address: &SshAddress, options: &[&str], command: Option<String>) -> Vec<String> {
    let mut argv = vec!["ssh".to_owned()];
    let mut push = |words: &[&str]| argv.extend(words.iter().map(|word| (*word).to_owned()));
    push(options);
    if address.no_verify {
        push(&["-o", "StrictHostKeyChecking=no"]);
    }
    if let Some(file) = &address.known_hosts {
        // The option is a list, separated by spaces.
        push(&["-o", &format!("UserKnownHostsFile=\"{file}\"")]);
    }
    if let Some(port) = address.port {
        push(&["-p", &port.to_string()]);
    }
    if let Some(user) = &address.user {
        push(&["-l", user]);
    }
    if let Some(keyfile) = &address.keyfile {
        push(&["-o", "IdentitiesOnly=yes", "-i", keyfile]);
    }
    push(&["--", &address.host]);
    argv.extend(command);
    argv
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::address::{Address, parse};

    fn address(uri: &str) -> SshAddress {
        match parse(uri) {
            Ok(Address::Ssh(address)) => *address,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_login_uses_the_address_of_the_uri() {
        let all = address(
            "qemu+ssh://op@rack2:2222/system?keyfile=/k%20y&known_hosts=/hosts&no_verify=1",
        );
        assert_eq!(
            ssh_argv(&all, &["-t"], None),
            [
                "ssh",
                "-t",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=\"/hosts\"",
                "-p",
                "2222",
                "-l",
                "op",
                "-o",
                "IdentitiesOnly=yes",
                "-i",
                "/k y",
                "--",
                "rack2"
            ]
        );
        let alias = address("qemu+ssh://rack2/system");
        let command = Some(quote_words(["virsh", "a b"]));
        assert_eq!(
            ssh_argv(&alias, &[], command),
            ["ssh", "--", "rack2", "virsh 'a b'"]
        );
    }
}
