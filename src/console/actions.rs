//! Panes and actions. [`super::table`] assigns keys, texts and panes to the actions.

use super::columns::Column;
use snapdeck_model::VerbKind;

/// A part of the screen that can be focused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pane {
    Sandboxes,
    Snapshots,
    Bucket,
    /// Page: a row for each snapshot, a column for the bucket and each host.
    Matrix,
    /// Page: the lineage tree.
    Tree,
    /// Page: all jobs, with those that were interrupted in an earlier run.
    JobsPage,
    /// Page: the hosts with their load.
    Hosts,
    /// Page: the screens of the running guests.
    Wall,
    /// Details of the selected row.
    Details,
    /// The jobs of this run, below the lists.
    Jobs,
    Log,
}

impl Pane {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sandboxes => "Sandboxes",
            Self::Snapshots => "Snapshots",
            Self::Bucket => "Bucket",
            Self::Matrix => "Locations",
            Self::Tree => "Tree",
            Self::JobsPage => "Jobs page",
            Self::Hosts => "Hosts",
            Self::Wall => "Wall",
            Self::Details => "Details",
            Self::Jobs => "Jobs",
            Self::Log => "Log",
        }
    }

    /// Returns the title on the screen.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::JobsPage => "Jobs",
            pane => pane.name(),
        }
    }

    /// Returns whether the pane replaces the three lists.
    pub(crate) fn is_page(self) -> bool {
        matches!(
            self,
            Self::Matrix | Self::Tree | Self::JobsPage | Self::Hosts | Self::Wall
        )
    }
}

pub(crate) const LISTS: [Pane; 3] = [Pane::Sandboxes, Pane::Snapshots, Pane::Bucket];
pub(crate) const PAGES: [Pane; 5] = [
    Pane::Matrix,
    Pane::Tree,
    Pane::JobsPage,
    Pane::Hosts,
    Pane::Wall,
];
pub(crate) const EVERYWHERE: &[Pane] = &[
    Pane::Sandboxes,
    Pane::Snapshots,
    Pane::Bucket,
    Pane::Matrix,
    Pane::Tree,
    Pane::JobsPage,
    Pane::Hosts,
    Pane::Wall,
    Pane::Details,
    Pane::Jobs,
    Pane::Log,
];

/// Something the console does when a key is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Create,
    Push,
    Pull,
    /// Upload snapshots of hosts.
    Upload,
    /// Copy snapshots of hosts to other hosts.
    CopyTo,
    Remove,
    Note,
    Pin,
    /// Record the digests of the marked or selected snapshots.
    Adopt,
    Prune,
    Refresh,
    New,
    Start,
    Stop,
    /// Pause the running sandboxes; resume them if none is running.
    Pause,
    /// Open the menu of all sandbox verbs.
    Sandbox,
    /// Run a verb of the menu.
    Verb(VerbKind),
    Destroy,
    /// Show the guest's screen full size.
    Screen,
    CopyVnc,
    Viewer,
    /// Attach to the serial console.
    Serial,
    /// Open a shell on the host of the selected row.
    Shell,
    /// Show the domain XML of a sandbox, or the manifest of a snapshot.
    Definition,
    /// Show the details of the selected row.
    Open,
    Mark,
    MarkRange,
    MarkAll,
    Invert,
    Sort(Column),
    Reverse,
    /// Choose the columns of a list.
    Columns,
    /// Group the rows by family, or no longer.
    Group,
    /// Fold or unfold the family of the selected row.
    Fold,
    Copy,
    Bookmarks,
    Filter,
    Back,
    Up,
    Down,
    PageUp,
    PageDown,
    HalfPageUp,
    HalfPageDown,
    First,
    Last,
    NextPane,
    PreviousPane,
    /// Go to the next column of the matrix, else to the next pane.
    Right,
    /// Go to the previous column of the matrix, else to the previous pane.
    Left,
    NextHost,
    PreviousHost,
    /// Show the host of this number, from 0.
    Host(u8),
    AllHosts,
    Matrix,
    Tree,
    Focus(Pane),
    Jobs,
    Hosts,
    Wall,
    /// Show the focused pane on the whole screen, or all panes again.
    Zoom,
    /// Switch to the next theme.
    Theme,
    Retry,
    MoveJobUp,
    MoveJobDown,
    Cancel,
    Dismiss,
    /// Show the next level of the log, or hide it.
    Log,
    Doctor,
    Setup,
    Palette,
    Help,
    Suspend,
    /// Run the command of this number of `commands.toml`.
    Custom(u8),
    Quit,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub action: Action,
    /// One or two words, for the footer and the palette.
    pub name: &'static str,
    /// Other words for the action, which the palette finds.
    pub words: &'static str,
    /// Default keys, the keys of a chord separated by spaces (`g g`). The first one is shown.
    pub keys: &'static [&'static str],
    pub sentence: &'static str,
    pub panes: &'static [Pane],
    /// Removes something permanently.
    pub destructive: bool,
    /// Changes something outside the console; disabled by `--read-only`.
    pub is_mutating: bool,
    pub in_footer: bool,
}

impl Entry {
    /// Returns the action's id in `keymap.toml`: its name with dashes.
    pub(crate) fn id(&self) -> String {
        self.name.to_lowercase().replace(' ', "-")
    }

    /// Returns whether the action works in every pane.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.panes.len() == EVERYWHERE.len()
    }

    /// Returns the names of the panes in which the action works: `Snapshots, Bucket and Locations`.
    pub(crate) fn places(&self) -> String {
        let names: Vec<&str> = self.panes.iter().map(|pane| pane.name()).collect();
        match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => String::new(),
        }
    }
}
