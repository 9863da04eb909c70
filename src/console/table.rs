//! The table of actions. Keymap, footer, help, palette, `docs/keys.md` and the man page are generated from it.

use super::actions::{Action, EVERYWHERE, Entry, LISTS, Pane};
use super::columns::Column;

const SNAPSHOTS: &[Pane] = &[Pane::Snapshots, Pane::Bucket, Pane::Matrix, Pane::Tree];
const MARKABLE: &[Pane] = &[Pane::Sandboxes, Pane::Snapshots, Pane::Bucket, Pane::Matrix];
const SCREEN_PANES: &[Pane] = &[Pane::Sandboxes, Pane::Details];
const ANNOTATABLE: &[Pane] = &[Pane::Snapshots, Pane::Bucket, Pane::Tree, Pane::Details];
const FILTERABLE: &[Pane] = &[
    Pane::Sandboxes,
    Pane::Snapshots,
    Pane::Bucket,
    Pane::Matrix,
    Pane::Tree,
    Pane::JobsPage,
];
const JOBS: &[Pane] = &[Pane::JobsPage, Pane::Jobs];
const HOST_LISTS: &[Pane] = &[Pane::Sandboxes, Pane::Snapshots];

const fn entry(
    action: Action,
    name: &'static str,
    keys: &'static [&'static str],
    panes: &'static [Pane],
    sentence: &'static str,
) -> Entry {
    Entry {
        action,
        name,
        keys,
        sentence,
        panes,
        destructive: false,
        is_mutating: false,
        in_footer: true,
    }
}

const fn hide_in_footer(mut entry: Entry) -> Entry {
    entry.in_footer = false;
    entry
}

const fn mark_destructive(mut entry: Entry) -> Entry {
    entry.destructive = true;
    entry
}

const fn mark_mutating(mut entry: Entry) -> Entry {
    entry.is_mutating = true;
    entry
}

/// All actions, in the order of the help. The ids in `keymap.toml` are the names with dashes.
pub(crate) static ACTIONS: &[Entry] = &[
    mark_mutating(entry(
        Action::Create,
        "create",
        &["c"],
        &[Pane::Sandboxes],
        "Create a snapshot of the selected sandbox in any state and upload it.",
    )),
    mark_mutating(entry(
        Action::Push,
        "push",
        &["p"],
        &[Pane::Sandboxes],
        "Push the disk of the selected sandbox (stopped or paused) as a snapshot.",
    )),
    mark_mutating(entry(
        Action::New,
        "new",
        &["n"],
        MARKABLE,
        "Create a sandbox from the selected snapshot; pulls it first if needed.",
    )),
    mark_mutating(entry(
        Action::Start,
        "start",
        &["s"],
        &[Pane::Sandboxes],
        "Start the marked or selected sandboxes; saved ones resume from their saved state.",
    )),
    mark_mutating(entry(
        Action::Stop,
        "stop",
        &["S"],
        &[Pane::Sandboxes],
        "Shut down the marked or selected sandboxes.",
    )),
    mark_mutating(entry(
        Action::Sandbox,
        "more",
        &["o"],
        SCREEN_PANES,
        "Open the sandbox menu: pause, save, restore, force off, destroy, ...",
    )),
    mark_mutating(hide_in_footer(entry(
        Action::Pause,
        "pause",
        &["z"],
        &[Pane::Sandboxes],
        "Pause the marked or selected sandboxes, or resume them if none is running.",
    ))),
    mark_mutating(hide_in_footer(mark_destructive(entry(
        Action::Destroy,
        "destroy",
        &["d", "delete"],
        &[Pane::Sandboxes],
        "Destroy the marked or selected sandboxes with their disks.",
    )))),
    mark_mutating(entry(
        Action::Pull,
        "pull",
        &["l"],
        SNAPSHOTS,
        "Pull the marked or selected snapshots from the bucket to one or more hosts.",
    )),
    mark_mutating(mark_destructive(entry(
        Action::Remove,
        "remove",
        &["d", "delete"],
        SNAPSHOTS,
        "Remove the marked or selected snapshots from the host, the bucket, or both.",
    ))),
    mark_mutating(hide_in_footer(entry(
        Action::Note,
        "note",
        &["N"],
        ANNOTATABLE,
        "Edit the note on the selected snapshot, on the host and in the bucket.",
    ))),
    mark_mutating(hide_in_footer(entry(
        Action::Pin,
        "pin",
        &["P"],
        ANNOTATABLE,
        "Pin or unpin the selected snapshot.",
    ))),
    mark_mutating(hide_in_footer(mark_destructive(entry(
        Action::Prune,
        "prune",
        &["U"],
        EVERYWHERE,
        "Prune old or unused snapshots and leftovers of interrupted jobs.",
    )))),
    entry(
        Action::Open,
        "details",
        &["enter"],
        EVERYWHERE,
        "Open the details of the selected row, job or location.",
    ),
    entry(
        Action::Mark,
        "mark",
        &["space"],
        MARKABLE,
        "Mark or unmark the selected row or cell; actions apply to all marked ones.",
    ),
    hide_in_footer(entry(
        Action::MarkRange,
        "mark range",
        &["M"],
        MARKABLE,
        "Mark all rows from the last marked one to the selected one.",
    )),
    hide_in_footer(entry(
        Action::MarkAll,
        "mark all",
        &["ctrl-a"],
        MARKABLE,
        "Mark all rows that match the filter.",
    )),
    hide_in_footer(entry(
        Action::Invert,
        "invert marks",
        &["ctrl-r"],
        MARKABLE,
        "Invert the marks of all rows that match the filter.",
    )),
    entry(
        Action::Filter,
        "filter",
        &["/"],
        FILTERABLE,
        "Filter rows: words of a name, state:running, size>10G, !word.",
    ),
    hide_in_footer(entry(
        Action::Sort(Column::Name),
        "sort by name",
        &[", n"],
        LISTS,
        "Sort by name.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Host),
        "sort by host",
        &[", h"],
        HOST_LISTS,
        "Sort the rows of all hosts by host.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::State),
        "sort by state",
        &[", s"],
        &[Pane::Sandboxes],
        "Sort sandboxes by state.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Cpus),
        "sort by CPUs",
        &[", c"],
        &[Pane::Sandboxes],
        "Sort sandboxes by virtual CPUs.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Memory),
        "sort by memory",
        &[", m"],
        &[Pane::Sandboxes],
        "Sort sandboxes by memory.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Size),
        "sort by size",
        &[", z"],
        LISTS,
        "Sort by size; sandboxes by the size of the overlay.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Dependents),
        "sort by users",
        &[", u"],
        &[Pane::Snapshots],
        "Sort snapshots by the number of sandboxes based on them.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Modified),
        "sort by date",
        &[", d"],
        &[Pane::Snapshots, Pane::Bucket],
        "Sort snapshots and objects by modification time.",
    )),
    hide_in_footer(entry(
        Action::Reverse,
        "reverse",
        &[", ,"],
        LISTS,
        "Reverse the sort order.",
    )),
    hide_in_footer(entry(
        Action::CopyName,
        "copy name",
        &["y"],
        MARKABLE,
        "Copy the names of the marked or selected rows.",
    )),
    entry(
        Action::Screen,
        "screen",
        &["i"],
        SCREEN_PANES,
        "Show the selected sandbox's screen full size.",
    ),
    entry(
        Action::CopyVnc,
        "copy VNC",
        &["v"],
        SCREEN_PANES,
        "Copy the sandbox's vnc:// URL; opens a tunnel to a remote host.",
    ),
    hide_in_footer(entry(
        Action::Viewer,
        "viewer",
        &["V"],
        SCREEN_PANES,
        "Copy the vnc:// URL and open the installed VNC viewer.",
    )),
    mark_mutating(mark_destructive(entry(
        Action::Cancel,
        "cancel",
        &["x"],
        &[Pane::JobsPage, Pane::Jobs, Pane::Matrix],
        "Cancel the selected job.",
    ))),
    mark_mutating(entry(
        Action::Retry,
        "retry",
        &["t"],
        JOBS,
        "Retry the failed or cancelled job; resume the interrupted one.",
    )),
    mark_mutating(entry(
        Action::MoveJobUp,
        "move up",
        &["+"],
        JOBS,
        "Move the queued job up.",
    )),
    mark_mutating(entry(
        Action::MoveJobDown,
        "move down",
        &["-"],
        JOBS,
        "Move the queued job down.",
    )),
    entry(
        Action::AllHosts,
        "all hosts",
        &["a"],
        EVERYWHERE,
        "Toggle between one host and all hosts.",
    ),
    entry(
        Action::Matrix,
        "locations",
        &["m", "g m"],
        EVERYWHERE,
        "Toggle the Locations page: which host has which snapshot.",
    ),
    entry(
        Action::Tree,
        "tree",
        &["T", "g t"],
        EVERYWHERE,
        "Toggle the Tree page: the lineage of snapshots and sandboxes.",
    ),
    entry(
        Action::Jobs,
        "jobs",
        &["J", "g j"],
        EVERYWHERE,
        "Toggle the Jobs page: running, queued, finished and interrupted jobs.",
    ),
    entry(
        Action::Dismiss,
        "dismiss",
        &["X"],
        EVERYWHERE,
        "Dismiss the finished job or discard the interrupted one; elsewhere, dismiss all finished.",
    ),
    hide_in_footer(entry(
        Action::Refresh,
        "refresh",
        &["r", "ctrl-l"],
        EVERYWHERE,
        "Refresh all hosts and the bucket.",
    )),
    hide_in_footer(entry(
        Action::NextPane,
        "next pane",
        &["tab"],
        EVERYWHERE,
        "Go to the next pane.",
    )),
    hide_in_footer(entry(
        Action::PreviousPane,
        "previous pane",
        &["shift-tab"],
        EVERYWHERE,
        "Go to the previous pane.",
    )),
    hide_in_footer(entry(
        Action::Left,
        "left",
        &["left"],
        EVERYWHERE,
        "Go to the previous column on the Locations page, else the previous pane.",
    )),
    hide_in_footer(entry(
        Action::Right,
        "right",
        &["right"],
        EVERYWHERE,
        "Go to the next column on the Locations page, else the next pane.",
    )),
    hide_in_footer(entry(
        Action::Up,
        "up",
        &["k", "up"],
        EVERYWHERE,
        "Go one row up.",
    )),
    hide_in_footer(entry(
        Action::Down,
        "down",
        &["j", "down"],
        EVERYWHERE,
        "Go one row down.",
    )),
    hide_in_footer(entry(
        Action::PageUp,
        "page up",
        &["page-up", "ctrl-b"],
        EVERYWHERE,
        "Go one page up.",
    )),
    hide_in_footer(entry(
        Action::PageDown,
        "page down",
        &["page-down", "ctrl-f"],
        EVERYWHERE,
        "Go one page down.",
    )),
    hide_in_footer(entry(
        Action::First,
        "first",
        &["g g", "home"],
        EVERYWHERE,
        "Go to the first row.",
    )),
    hide_in_footer(entry(
        Action::Last,
        "last",
        &["G", "end"],
        EVERYWHERE,
        "Go to the last row.",
    )),
    hide_in_footer(entry(
        Action::Focus(Pane::Sandboxes),
        "go to sandboxes",
        &["g s"],
        EVERYWHERE,
        "Go to the sandboxes.",
    )),
    hide_in_footer(entry(
        Action::Focus(Pane::Snapshots),
        "go to snapshots",
        &["g n"],
        EVERYWHERE,
        "Go to the snapshots.",
    )),
    hide_in_footer(entry(
        Action::Focus(Pane::Bucket),
        "go to bucket",
        &["g b"],
        EVERYWHERE,
        "Go to the bucket.",
    )),
    hide_in_footer(entry(
        Action::Focus(Pane::Details),
        "go to details",
        &["g d"],
        EVERYWHERE,
        "Go to the details.",
    )),
    hide_in_footer(entry(
        Action::Focus(Pane::Log),
        "go to log",
        &["g l"],
        EVERYWHERE,
        "Go to the log.",
    )),
    hide_in_footer(entry(
        Action::NextHost,
        "next host",
        &["]"],
        EVERYWHERE,
        "Show the next host; after the last one, all hosts.",
    )),
    hide_in_footer(entry(
        Action::PreviousHost,
        "previous host",
        &["["],
        EVERYWHERE,
        "Show the previous host.",
    )),
    hide_in_footer(entry(
        Action::Host(0),
        "host",
        &["1-9"],
        EVERYWHERE,
        "Show the host with that number.",
    )),
    hide_in_footer(entry(
        Action::Log,
        "log",
        &["L"],
        EVERYWHERE,
        "Cycle the log pane: info, warnings, debug, hidden.",
    )),
    hide_in_footer(entry(
        Action::Back,
        "back",
        &["esc"],
        EVERYWHERE,
        "Go back to the lists; there, clear the marks, then the filter.",
    )),
    hide_in_footer(entry(
        Action::Doctor,
        "doctor",
        &["D"],
        EVERYWHERE,
        "Run the health checks of all hosts and the bucket.",
    )),
    entry(
        Action::Palette,
        "palette",
        &[":"],
        EVERYWHERE,
        "Find and run an action by a few letters of its name.",
    ),
    entry(
        Action::Help,
        "help",
        &["?", "f1"],
        EVERYWHERE,
        "Show all keys; type to search.",
    ),
    hide_in_footer(entry(
        Action::Suspend,
        "suspend",
        &["ctrl-z"],
        EVERYWHERE,
        "Suspend to the shell (disabled while jobs run).",
    )),
    entry(
        Action::Quit,
        "quit",
        &["q", "ctrl-c"],
        EVERYWHERE,
        "Quit; asks first while jobs run. In a dialog or filter ctrl-c closes it.",
    ),
];
