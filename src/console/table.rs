//! The one table of actions: keymap, footer, help, palette, the README's keys and the man page are made from it.

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

/// All actions, in the order of the help.
pub(crate) static ACTIONS: &[Entry] = &[
    mark_mutating(entry(
        Action::Create,
        "create",
        &["c"],
        &[Pane::Sandboxes],
        "Cut a snapshot of the selected sandbox, running or not, and upload it.",
    )),
    mark_mutating(entry(
        Action::Push,
        "push",
        &["p"],
        &[Pane::Sandboxes],
        "Upload the disk of the selected sandbox, which is stopped or paused, as a snapshot.",
    )),
    mark_mutating(entry(
        Action::New,
        "new",
        &["n"],
        MARKABLE,
        "Make a sandbox on the selected snapshot, which is pulled first where it is only in the bucket.",
    )),
    mark_mutating(entry(
        Action::Start,
        "start",
        &["s"],
        &[Pane::Sandboxes],
        "Start the marked or selected sandboxes; a saved one goes on where it was.",
    )),
    mark_mutating(entry(
        Action::Stop,
        "stop",
        &["S"],
        &[Pane::Sandboxes],
        "Ask the guests of the marked or selected sandboxes to shut down.",
    )),
    mark_mutating(entry(
        Action::Sandbox,
        "more",
        &["o"],
        SCREEN_PANES,
        "Show all that can be done to a sandbox: pause, save, restore, force off, destroy, ...",
    )),
    mark_mutating(hide_in_footer(entry(
        Action::Pause,
        "pause",
        &["z"],
        &[Pane::Sandboxes],
        "Pause the marked or selected sandboxes; where none of them runs, resume them.",
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
        "Download the marked or selected snapshots from the bucket to one host or several.",
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
        "Pin the selected snapshot, which is then not removed, or take its pin away.",
    ))),
    mark_mutating(hide_in_footer(mark_destructive(entry(
        Action::Prune,
        "prune",
        &["U"],
        EVERYWHERE,
        "Find old and unused snapshots and what broke off on hosts and in the bucket, and remove them together.",
    )))),
    entry(
        Action::Open,
        "details",
        &["enter"],
        EVERYWHERE,
        "Go to the details of the selected row; open the selected job with its log, or a snapshot of the matrix.",
    ),
    entry(
        Action::Mark,
        "mark",
        &["space"],
        MARKABLE,
        "Mark the selected row or cell or unmark it; pull, remove and the sandbox verbs act on all that is marked.",
    ),
    hide_in_footer(entry(
        Action::MarkRange,
        "mark range",
        &["M"],
        MARKABLE,
        "Mark all rows from the one that was marked last to the selected one.",
    )),
    hide_in_footer(entry(
        Action::MarkAll,
        "mark all",
        &["ctrl-a"],
        MARKABLE,
        "Mark all rows that the filter leaves.",
    )),
    hide_in_footer(entry(
        Action::Invert,
        "invert marks",
        &["ctrl-r"],
        MARKABLE,
        "Mark the rows that are not marked and unmark the others, of those the filter leaves.",
    )),
    entry(
        Action::Filter,
        "filter",
        &["/"],
        FILTERABLE,
        "Show only rows that match: words of a name, state:running, size>10G, !word; enter keeps it, esc drops it.",
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
        "Sort by size: of snapshots and objects, or of the sandboxes' overlays.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Dependents),
        "sort by users",
        &[", u"],
        &[Pane::Snapshots],
        "Sort snapshots by how many sandboxes stand on them.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Modified),
        "sort by date",
        &[", d"],
        &[Pane::Snapshots, Pane::Bucket],
        "Sort snapshots and objects by when they were written.",
    )),
    hide_in_footer(entry(
        Action::Reverse,
        "reverse",
        &[", ,"],
        LISTS,
        "Sort the other way.",
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
        "Show the selected sandbox's screen, large.",
    ),
    entry(
        Action::CopyVnc,
        "copy VNC",
        &["v"],
        SCREEN_PANES,
        "Copy a vnc:// URL of the selected sandbox; to a remote host a tunnel is opened.",
    ),
    hide_in_footer(entry(
        Action::Viewer,
        "viewer",
        &["V"],
        SCREEN_PANES,
        "Copy it and open a VNC viewer that is installed here.",
    )),
    mark_mutating(mark_destructive(entry(
        Action::Cancel,
        "cancel",
        &["x"],
        &[Pane::Jobs, Pane::JobsPage, Pane::Matrix],
        "Cancel the selected job, or the one of the current cell; it cleans up after itself.",
    ))),
    entry(
        Action::AllHosts,
        "all hosts",
        &["a"],
        EVERYWHERE,
        "Show the rows of all hosts together, or of one host again.",
    ),
    entry(
        Action::Matrix,
        "matrix",
        &["m", "g m"],
        EVERYWHERE,
        "Show what each host and the bucket have of every snapshot, or the lists again.",
    ),
    entry(
        Action::Tree,
        "tree",
        &["T", "g t"],
        EVERYWHERE,
        "Show which snapshot was made from which, with the sandboxes on them, or the lists again.",
    ),
    entry(
        Action::Jobs,
        "jobs",
        &["J", "g j"],
        EVERYWHERE,
        "Show the jobs: what runs, the queue, what is over and what an earlier run left; or the lists again.",
    ),
    mark_mutating(entry(
        Action::Retry,
        "again",
        &["t"],
        JOBS,
        "Do again what failed or was cancelled; go on with what an earlier run left.",
    )),
    mark_mutating(entry(
        Action::MoveJobUp,
        "sooner",
        &["+"],
        JOBS,
        "Let the selected job, which waits, have its turn before the one above it.",
    )),
    mark_mutating(entry(
        Action::MoveJobDown,
        "later",
        &["-"],
        JOBS,
        "Let the selected job, which waits, have its turn after the one below it.",
    )),
    entry(
        Action::Dismiss,
        "dismiss",
        &["X"],
        EVERYWHERE,
        "Forget the selected job if it is over, or was left by an earlier run; outside the jobs, all that are over.",
    ),
    hide_in_footer(entry(
        Action::Refresh,
        "refresh",
        &["r", "ctrl-l"],
        EVERYWHERE,
        "Ask all hosts and the bucket again, now.",
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
        "pane before",
        &["shift-tab"],
        EVERYWHERE,
        "Go to the pane before.",
    )),
    hide_in_footer(entry(
        Action::Left,
        "left",
        &["left"],
        EVERYWHERE,
        "Go to the column before, in the matrix; elsewhere to the pane before.",
    )),
    hide_in_footer(entry(
        Action::Right,
        "right",
        &["right"],
        EVERYWHERE,
        "Go to the next column, in the matrix; elsewhere to the next pane.",
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
        "Show the next host; behind the last one are all together.",
    )),
    hide_in_footer(entry(
        Action::PreviousHost,
        "host before",
        &["["],
        EVERYWHERE,
        "Show the host before.",
    )),
    hide_in_footer(entry(
        Action::Host(0),
        "host",
        &["1-9"],
        EVERYWHERE,
        "Show the host of that number.",
    )),
    hide_in_footer(entry(
        Action::Log,
        "log",
        &["L"],
        EVERYWHERE,
        "Show the log from information on, warnings only, everything, or not at all.",
    )),
    hide_in_footer(entry(
        Action::Back,
        "back",
        &["esc"],
        EVERYWHERE,
        "Go back to the lists; there, drop the marks, then the filter.",
    )),
    hide_in_footer(entry(
        Action::Doctor,
        "doctor",
        &["D"],
        EVERYWHERE,
        "Examine all hosts and the bucket: what works, what does not, and what mends it.",
    )),
    entry(
        Action::Palette,
        "palette",
        &[":"],
        EVERYWHERE,
        "Find an action by a few letters of its name, and do it.",
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
        "Go to the shell; fg comes back. Not while jobs run: they would stand still.",
    )),
    entry(
        Action::Quit,
        "quit",
        &["q", "ctrl-c"],
        EVERYWHERE,
        "Leave; jobs that still run are named first. In a dialog or filter, ctrl-c leaves that.",
    ),
];
