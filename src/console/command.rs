//! Requests of the state to the engine and to the event loop.

use std::path::PathBuf;

use super::bookmarks::Bookmarks;
use super::custom::CommandRun;
use snapdeck_engine::{InterruptedId, JobId, PruneRequest};
use snapdeck_model::{AnnotationsPatch, HostName, Operation, PrunePlan, SandboxId, SnapshotName};

/// A request to the engine or to the event loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Submit(Operation),
    /// Run the operations one after the other.
    Chain(Vec<Operation>),
    /// Submit the operations together: pulls of one snapshot share one download.
    SubmitAll(Vec<Operation>),
    Cancel(JobId),
    Dismiss(JobId),
    /// Submit the operation; dismiss the job if it is accepted.
    Retry(JobId, Operation),
    /// Move the job by so many positions in the queue.
    Shift(JobId, isize),
    ResumeInterrupted(Vec<InterruptedId>),
    DiscardInterrupted(Vec<InterruptedId>),
    /// Copy the URL for a VNC viewer.
    Viewer {
        host: HostName,
        sandbox: SandboxId,
        /// Start a viewer, too.
        open: bool,
    },
    Annotate {
        host: Option<HostName>,
        bucket: bool,
        name: SnapshotName,
        change: AnnotationsPatch,
    },
    Prune(PruneRequest, PrunePlan),
    /// Remove the partial pulls of these snapshots on these hosts.
    RemovePartials(Vec<(HostName, SnapshotName)>),
    /// Copy to the clipboard.
    Copy(String),
    /// Open a shell on the host, in the foreground.
    Shell(HostName),
    SaveBookmarks(Bookmarks),
    /// Run a command of the operator, for one row after the other.
    Run(Vec<CommandRun>),
    /// Attach to the serial console of a sandbox.
    SerialOpen(HostName, SandboxId),
    /// Send bytes to the guest.
    SerialInput(Vec<u8>),
    SerialClose,
    /// Stop this process until the shell continues it.
    Suspend,
    Refresh,
    RunChecks,
    /// Write a new settings file.
    WriteSettings {
        path: PathBuf,
        text: String,
    },
    /// Exit, and start again with the new settings.
    Restart,
    /// Exit; running jobs are cancelled.
    Quit,
    /// Exit; running jobs stop and can be resumed at the next start.
    Leave,
}
