//! The supervisor of a command: a small script on the host, which limits the command and ends it with snapdeck.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Address space of a command with [`Limits`] in KiB: the refcounts that `qemu-img check` counts of 64 TiB in clusters of
/// 64 KiB, and its caches and threads. An image can claim any number of clusters. The resident set cannot be limited.
const MAX_ADDRESS_SPACE_KIB: u64 = 4 << 20;

/// Runs a command under its limits (CPU time in seconds, address space in KiB; `-`: none) and kills it, with all processes
/// that it has started, at the end of stdin: snapdeck has closed it, was killed, or the connection is lost.
///
/// Unlike a parent death signal this works over SSH, too, and does not depend on the thread that has started the command.
pub(super) const SUPERVISE: &str = r#"
exec 3<&0 </dev/null
new_session=$(command -v setsid)
(
  if [ "$1" != - ]; then
    # Exceeding the soft limit shows in the exit status.
    ulimit -S -t "$1"; ulimit -v "$2"
    # Each arena of malloc takes address space.
    export MALLOC_ARENA_MAX=2
  fi
  shift 2
  exec $new_session "$@" 3<&-
) & command=$!
{ cat <&3; kill -9 "-$command" || kill -9 "$command"; } >/dev/null 2>&1 & killer=$!
exec 3<&-
wait "$command"; code=$?
kill "$killer" 2>/dev/null
exit "$code"
"#;

/// Limits of a command that reads what guests or stores have made. Its memory is limited, too.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// CPU time of each process.
    pub cpu_time: Duration,
}

impl Limits {
    /// Returns the arguments of [`SUPERVISE`].
    pub(super) fn args(limits: Option<Self>) -> [String; 2] {
        match limits {
            Some(limits) => [
                limits.cpu_time.as_secs().max(1).to_string(),
                MAX_ADDRESS_SPACE_KIB.to_string(),
            ],
            None => ["-", "-"].map(str::to_owned),
        }
    }
}

/// Returns the signal that has killed the command of a supervisor; shells report it as 128 + its number.
pub(crate) fn killed_by(status: ExitStatus) -> Option<i32> {
    let in_shell = status.code().and_then(|code| code.checked_sub(128));
    status.signal().or(in_shell.filter(|signal| *signal > 0))
}
