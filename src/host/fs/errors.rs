//! Errors of files: the kind and the hint behind an I/O error, or behind the message of a program.

use std::io;

use super::pinned::OTHER_USER;
use snapdeck_model::{Error, Kind};

/// Cause of the error for an open file that does not have the stamp of its name; also in `remote.sh`.
pub(super) const CHANGED_WHILE_READ: &str = "it was changed while it was read";
/// Cause of the error for a directory of the settings that is another one, too; also in `owned.sh`.
const SAME_DIRECTORY: &str = "is the same directory as";
pub(crate) const TEMP_DIR_HINT: &str = "check temp_dir of the host in the settings";

/// Returns the error behind `stderr`, the message of a program that ran with `LC_ALL=C`.
pub(crate) fn system_error(summary: String, stderr: &str) -> Error {
    explain(summary, &parse_system_error(stderr))
}

pub(super) fn explain(summary: String, error: &io::Error) -> Error {
    use io::ErrorKind::*;
    let (kind, hint) = match error.kind() {
        StorageFull | QuotaExceeded => (Kind::NoSpace, Some("free space there")),
        PermissionDenied => (
            Kind::Unreachable,
            Some("run snapdeck as root or as a user with access to it"),
        ),
        AlreadyExists => (
            Kind::Conflict,
            Some("choose another name, or pass --overwrite to replace it"),
        ),
        WouldBlock => (
            Kind::Conflict,
            Some("wait until the other pull has finished, then retry"),
        ),
        ResourceBusy if error.to_string().contains(CHANGED_WHILE_READ) => {
            (Kind::Conflict, Some("retry while nothing writes to it"))
        }
        ResourceBusy if error.to_string().contains(SAME_DIRECTORY) => (
            Kind::Conflict,
            Some("use different directories in the settings of the host"),
        ),
        ResourceBusy => (
            Kind::Conflict,
            Some(
                "check which program has created or changed it; `snapdeck prune --leftovers --dry-run` shows what snapdeck left",
            ),
        ),
        _ if is_disk_error(error) => (
            Kind::Failed,
            Some("check the disk of the host: its kernel log (`dmesg`) names the error"),
        ),
        _ => (Kind::Failed, None),
    };
    let other_owner = other_owner_hint(&error.to_string());
    let error = Error::new(kind, summary).with_cause(error);
    match other_owner.as_deref().or(hint) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Returns the hint for the directory of an organization that belongs to another user.
fn other_owner_hint(message: &str) -> Option<String> {
    let (before, _) = message.split_once(OTHER_USER)?;
    let dir = before.rsplit(": ").next()?.trim_end();
    // No command that changes it: a link to another directory may have its name by then.
    dir.starts_with('/')
        .then(|| format!("move {dir} away: snapdeck creates it with the owner and mode of the snapshots directory"))
}

/// Returns whether it is an error of the disk (EIO), which says nothing of the content of a file.
fn is_disk_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::EIO) || error.to_string().contains("Input/output error")
}

/// Replaces the hint if the file of a new sandbox exists already.
pub(crate) fn suggest_other_id(error: Error) -> Error {
    match error.kind() {
        Kind::Conflict => error.hint("choose another id"),
        _ => error,
    }
}

/// Parses the message of a program that ran with `LC_ALL=C`.
pub(super) fn parse_system_error(stderr: &str) -> io::Error {
    use io::ErrorKind::*;
    let line = stderr.trim().lines().next().unwrap_or("no error message");
    let messages = [
        ("No space left on device", StorageFull),
        ("Disk quota exceeded", QuotaExceeded),
        ("Permission denied", PermissionDenied),
        ("Operation not permitted", PermissionDenied),
        ("File exists", AlreadyExists),
        ("No such file or directory", NotFound),
        ("Resource temporarily unavailable", WouldBlock),
        ("Device or resource busy", ResourceBusy),
        ("invalid user", InvalidInput),
        ("invalid group", InvalidInput),
    ];
    let kind = messages
        .iter()
        .find(|(message, _)| stderr.contains(message))
        .map_or(Other, |(_, kind)| *kind);
    // Drops program name and line number of "sh: 3: cannot create /x: ..." and "stat: cannot ...".
    let line = match line.split_once(": ") {
        Some((program, rest)) if !program.contains(['/', ' ']) => rest,
        _ => line,
    };
    let line = match line.split_once(": ") {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line,
    };
    io::Error::new(kind, line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_message_are_parsed() {
        let error = parse_system_error(
            "mktemp: failed to create directory via template '/x': No space left on device\n",
        );
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().starts_with("failed to create"));
        let error = parse_system_error("sh: 100: cannot create /x: Permission denied\n");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(error.to_string(), "cannot create /x: Permission denied");
    }

    #[test]
    fn fuzz_error_messages() {
        snapdeck_fuzz::FuzzTarget::new("messages of programs on a host")
            .seed("sh: 3: cannot create /x: No space left on device\n")
            .seed("stat: cannot statx '/a': Permission denied")
            .run(|message| {
                let error = parse_system_error(&snapdeck_fuzz::text(message));
                assert!(!error.to_string().contains('\n'));
            });
    }
}
