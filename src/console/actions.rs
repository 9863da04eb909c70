//! What a key can mean, and where; the table of it all is in [`super::table`].

use super::columns::Column;

/// A part of the screen that can have the focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pane {
    /// The current host's sandboxes.
    Sandboxes,
    /// The current host's snapshots.
    Snapshots,
    /// The bucket's objects.
    Bucket,
    /// All snapshots and what each host and the bucket have of them, in the place of the lists.
    Matrix,
    /// What was made from what, in the place of the lists.
    Tree,
    /// All jobs, and what was left by an earlier run, in the place of the lists.
    JobsPage,
    /// Details of what is selected.
    Details,
    /// Jobs.
    Jobs,
    /// The log.
    Log,
}

impl Pane {
    /// Its title.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sandboxes => "Sandboxes",
            Self::Snapshots => "Snapshots",
            Self::Bucket => "Bucket",
            Self::Matrix => "Locations",
            Self::Tree => "Tree",
            Self::JobsPage => "Jobs page",
            Self::Details => "Details",
            Self::Jobs => "Jobs",
            Self::Log => "Log",
        }
    }
}

impl Pane {
    /// Does it stand in the place of the lists?
    pub(crate) fn is_page(self) -> bool {
        matches!(self, Self::Matrix | Self::Tree | Self::JobsPage)
    }
}

/// The three lists side by side.
pub(crate) const LISTS: &[Pane] = &[Pane::Sandboxes, Pane::Snapshots, Pane::Bucket];
/// All panes.
pub(crate) const EVERYWHERE: &[Pane] = &[
    Pane::Sandboxes,
    Pane::Snapshots,
    Pane::Bucket,
    Pane::Matrix,
    Pane::Tree,
    Pane::JobsPage,
    Pane::Details,
    Pane::Jobs,
    Pane::Log,
];

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Cut a snapshot of a sandbox in any state.
    Create,
    /// Upload the disk of a stopped or paused sandbox.
    Push,
    /// Download.
    Pull,
    /// Remove snapshots, objects or both.
    Remove,
    /// Edit the note on a snapshot.
    Note,
    /// Pin a snapshot or unpin it.
    Pin,
    /// Find what may go by a rule, and remove it.
    Prune,
    /// Ask hosts and bucket again.
    Refresh,
    /// Make a sandbox.
    New,
    /// Run sandboxes.
    Start,
    /// Ask guests to shut down.
    Stop,
    /// Pause what runs, else resume.
    Pause,
    /// All verbs of a sandbox.
    Sandbox,
    /// Remove sandboxes.
    Destroy,
    /// A guest's screen, large.
    Screen,
    /// Copy a URL for a VNC viewer.
    CopyVnc,
    /// Open a VNC viewer.
    Viewer,
    /// Open what is selected.
    Open,
    /// Mark.
    Mark,
    /// Mark all from the last one that was marked to the selected one.
    MarkRange,
    /// Mark all rows that are shown.
    MarkAll,
    /// Mark what is not marked of the rows that are shown, and the other way.
    Invert,
    /// Sort by a column.
    Sort(Column),
    /// Sort the other way.
    Reverse,
    /// Put names onto the clipboard.
    CopyName,
    /// Edit the filter.
    Filter,
    /// Leave what was opened; drop marks and filter.
    Back,
    /// Selection one up.
    Up,
    /// Selection one down.
    Down,
    /// Selection one page up.
    PageUp,
    /// Selection one page down.
    PageDown,
    /// First row.
    First,
    /// Last row.
    Last,
    /// Focus the next pane.
    NextPane,
    /// Focus the pane before.
    PreviousPane,
    /// The next column of the matrix, or the next pane.
    Right,
    /// The column before, or the pane before.
    Left,
    /// The next host.
    NextHost,
    /// The host before.
    PreviousHost,
    /// The host of this number, from 0.
    Host(u8),
    /// All hosts together, or one again.
    AllHosts,
    /// Open the matrix, or leave it.
    Matrix,
    /// Open the tree of snapshots, or leave it.
    Tree,
    /// Focus a pane.
    Focus(Pane),
    /// Open the jobs page, or leave it.
    Jobs,
    /// Do a job again, or go on with what was left.
    Retry,
    /// Move a job towards the front of the queue.
    MoveJobUp,
    /// Move a job towards its end.
    MoveJobDown,
    /// Cancel the selected job.
    Cancel,
    /// Forget jobs that are over.
    Dismiss,
    /// The log pane's next form.
    Log,
    /// The doctor's page.
    Doctor,
    /// Any action by its name.
    Palette,
    /// Help.
    Help,
    /// Stop this process, to be continued from the shell.
    Suspend,
    /// Leave.
    Quit,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What it means.
    pub action: Action,
    /// One or two words, for the footer.
    pub name: &'static str,
    /// Its keys unless `keymap.toml` says otherwise, chords with a space between (`g g`); the first is the one to show.
    pub keys: &'static [&'static str],
    /// One sentence, for the help.
    pub sentence: &'static str,
    /// Where it applies.
    pub panes: &'static [Pane],
    /// Does something go for good?
    pub destructive: bool,
    /// Does it change anything outside the console? `--read-only` refuses it then.
    pub is_mutating: bool,
    /// Is it worth a place in the footer?
    pub in_footer: bool,
}

impl Entry {
    /// What it is called in `keymap.toml`: its name with dashes.
    pub(crate) fn id(&self) -> String {
        self.name.to_lowercase().replace(' ', "-")
    }

    /// Does it apply wherever one is?
    pub(crate) fn is_everywhere(&self) -> bool {
        self.panes.len() == EVERYWHERE.len()
    }

    /// The panes it applies in, in words: `Snapshots, Bucket and Matrix`.
    pub(crate) fn places(&self) -> String {
        let names: Vec<&str> = self.panes.iter().map(|pane| pane.name()).collect();
        match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => String::new(),
        }
    }
}
