//! Programs that snapdeck starts. All of them are started through here: they get an environment without the token of the
//! API, the keys of the bucket, and other secrets. `ssh` could send variables to hosts (`SendEnv`), and the environment of
//! a process outlives what it was read for.
//!
//! The AWS SDK starts `credential_process` by itself; that program needs the variables of AWS.

use std::ffi::OsStr;
use std::process::Command;

/// Variables of tools: where programs, files, temporary files and the agents of ssh are, and how to reach a person.
const TOOL_VARIABLES: &[&str] = &[
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "HOME",
    "KRB5CCNAME",
    "KRB5_CONFIG",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOGNAME",
    "PATH",
    "SHELL",
    "SSH_AGENT_PID",
    "SSH_ASKPASS",
    "SSH_ASKPASS_REQUIRE",
    "SSH_AUTH_SOCK",
    "SSH_SK_PROVIDER",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    // locale(7).
    "LC_ADDRESS",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
];

/// Programs whose variables never reach another program, by the beginning of the name.
const SECRET_PREFIXES: &[&str] = &["AWS_", "SNAPDECK_"];

/// Words in the name of a variable with a secret. Words are separated by `_`.
const SECRET_WORDS: &[&str] = &[
    "APIKEY",
    "AUTH",
    "CREDENTIAL",
    "CREDENTIALS",
    "CREDS",
    "KEY",
    "KEYS",
    "PASS",
    "PASSPHRASE",
    "PASSWD",
    "PASSWORD",
    "PAT",
    "PWD",
    "SECRET",
    "SECRETS",
    "TOKEN",
    "TOKENS",
];

/// Names that have such a word, and no secret.
const HARMLESS: &[&str] = &["PWD", "SSH_AUTH_SOCK"];

/// Returns a command for a tool (`qemu-img`, `ssh`, a shell): only variables that tools need are passed on.
pub fn tool_command(program: impl AsRef<OsStr>) -> Command {
    command(program, |name, _| is_for_tools(name))
}

/// Returns a command for a program with a window: it depends on more variables than can be listed, so that all are passed
/// on whose names do not look like secrets.
pub fn desktop_command(program: impl AsRef<OsStr>) -> Command {
    command(program, |name, value| {
        !is_secret(name) && !has_url_password(value)
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "what children inherit is decided here"
)]
fn command(program: impl AsRef<OsStr>, is_passed_on: impl Fn(&str, &OsStr) -> bool) -> Command {
    let mut command = Command::new(program);
    let variables = std::env::vars_os().filter(|(name, value)| {
        // A name that is not Unicode is no variable of a known program.
        name.to_str().is_some_and(|name| is_passed_on(name, value))
    });
    command.env_clear().envs(variables);
    command
}

fn is_for_tools(name: &str) -> bool {
    TOOL_VARIABLES.contains(&name)
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let has_word = || name.split('_').any(|word| SECRET_WORDS.contains(&word));
    let has_suffix = || {
        ["TOKEN", "SECRET", "PASSWORD", "APIKEY"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    !HARMLESS.contains(&&*name)
        && (SECRET_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || has_word()
            || has_suffix())
}

/// Returns whether a value has a URL with a password: `https://USER:PASSWORD@HOST`.
fn has_url_password(value: &OsStr) -> bool {
    let value = value.to_string_lossy();
    let mut authorities = value.split("://").skip(1);
    authorities.any(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let login = authority.rsplit_once('@').map(|(login, _)| login);
        login.is_some_and(|login| login.contains(':'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_child_gets_a_variable_with_a_secret() {
        for name in [
            "SNAPDECK_API_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_PROFILE",
            "GITHUB_TOKEN",
            "GITHUBTOKEN",
            "RESTIC_PASSWORD",
            "PGPASSWORD",
            "MYSQL_PWD",
            "db_password",
            "OPENAI_API_KEY",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "LC_SECRET",
        ] {
            assert!(!is_for_tools(name), "{name}");
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn children_get_what_they_need() {
        for name in ["PATH", "HOME", "LC_ALL", "SSH_AUTH_SOCK", "TMPDIR"] {
            assert!(is_for_tools(name) && !is_secret(name), "{name}");
        }
        for name in [
            "DISPLAY",
            "WAYLAND_DISPLAY",
            "XAUTHORITY",
            "XDG_RUNTIME_DIR",
            "DBUS_SESSION_BUS_ADDRESS",
            "QT_QPA_PLATFORM",
            "GTK_IM_MODULE",
            "GNOME_KEYRING_CONTROL",
            "XKB_DEFAULT_LAYOUT",
        ] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn urls_with_passwords_are_secrets() {
        let has = |value: &str| has_url_password(OsStr::new(value));
        assert!(has("postgres://user:word@db/x") && has("a http://:p@proxy:3128"));
        for value in [
            "http://proxy:3128",
            "unix:path=/run/user/0/bus",
            "https://host/a:b@c",
            "x",
        ] {
            assert!(!has(value), "{value}");
        }
    }
}
