//! The supervisor of a command: a small script on the host, which limits the command and ends it with snapdeck.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use super::fs::PullDir;

/// Address space of a command with [`Limits`] in KiB: the refcounts that `qemu-img check` counts of 64 TiB in clusters of
/// 64 KiB, and its caches and threads. An image can claim any number of clusters. The resident set cannot be limited.
const MAX_ADDRESS_SPACE_KIB: u64 = 4 << 20;

/// Runs a command under its limits and kills it, with all processes that it has started, at the end of stdin.
///
/// Unlike a parent death signal this works over SSH, too, and does not depend on the thread that has started the command.
const SCRIPT: &str = concat!(
    include_str!("least_rights.sh"),
    include_str!("supervisor.sh")
);
/// The same for the file of a pull.
const PULL_SCRIPT: &str = concat!(
    include_str!("open_file.sh"),
    include_str!("private_dir.sh"),
    include_str!("least_rights.sh"),
    include_str!("supervisor.sh")
);

/// Limits of a command that reads what guests or stores have made. Its memory is limited, too.
#[derive(Clone, Copy)]
pub(crate) struct Limits<'a> {
    /// CPU time of each process.
    pub cpu_time: Duration,
    /// The images that it opens; without any, it keeps the rights of this user.
    pub images: Option<ImageAccess<'a>>,
}

/// Images that a command opens. It runs with the fewest rights that suffice for them (`least_rights.sh`).
#[derive(Clone, Copy)]
pub(crate) struct ImageAccess<'a> {
    /// Owner of the host's files, USER:GROUP: QEMU's user.
    pub owner: &'a str,
    /// Files that it reads.
    pub files: &'a [&'a str],
    /// New image that it writes, in a private directory. Its name for the command is [`TARGET`].
    pub target: Option<&'a str>,
    /// The private directory of a pull, whose file it reads. Its name for the command is [`PULL_FILE`].
    pub pull_dir: Option<&'a PullDir>,
}

/// Name of the file in [`ImageAccess::pull_dir`] for the command.
pub(crate) const PULL_FILE: &str = "/proc/self/fd/8";

/// Name of [`ImageAccess::target`] for the command.
pub(crate) const TARGET: &str = "/proc/self/fd/9";

/// Returns the words before those of a command that is supervised.
pub(super) fn supervisor_argv(limits: Option<Limits<'_>>) -> Vec<String> {
    let images = limits.and_then(|limits| limits.images);
    let files = images.map_or(&[][..], |images| images.files);
    let cpu_time = limits.map_or("-".to_owned(), |limits| {
        limits.cpu_time.as_secs().max(1).to_string()
    });
    let pull_dir = images.and_then(|images| images.pull_dir);
    let script = if pull_dir.is_some() {
        PULL_SCRIPT
    } else {
        SCRIPT
    };
    let words = ["sh", "-c", script, "snapdeck"].map(str::to_owned);
    let [dir, id, identity] = pull_dir.map_or([""; 3], PullDir::words).map(str::to_owned);
    let options = [
        cpu_time,
        MAX_ADDRESS_SPACE_KIB.to_string(),
        images.map_or("", |images| images.owner).to_owned(),
        images
            .and_then(|images| images.target)
            .unwrap_or_default()
            .to_owned(),
        dir,
        id,
        identity,
        files.len().to_string(),
    ];
    let files = files.iter().map(|file| (*file).to_owned());
    words.into_iter().chain(options).chain(files).collect()
}

/// Returns the signal that has killed the command of a supervisor; shells report it as 128 + its number.
pub(crate) fn killed_by(status: ExitStatus) -> Option<i32> {
    let in_shell = status.code().and_then(|code| code.checked_sub(128));
    status.signal().or(in_shell.filter(|signal| *signal > 0))
}
