//! The table of actions. Keymap, footer, help, palette, `docs/keys.md` and the man page are generated from it.

use super::actions::{Action, EVERYWHERE, Entry, Pane};
use super::columns::Column;
use snapdeck_model::VerbKind;

const SNAPSHOTS: &[Pane] = &[Pane::Snapshots, Pane::Bucket, Pane::Matrix, Pane::Tree];
const HOST_SNAPSHOTS: &[Pane] = &[Pane::Snapshots, Pane::Matrix, Pane::Tree];
const MARKABLE: &[Pane] = &[Pane::Sandboxes, Pane::Snapshots, Pane::Bucket, Pane::Matrix];
const SCREEN_PANES: &[Pane] = &[Pane::Sandboxes, Pane::Wall, Pane::Details];
const SANDBOX_PANES: &[Pane] = &[Pane::Sandboxes, Pane::Wall];
const ANNOTATABLE: &[Pane] = &[Pane::Snapshots, Pane::Bucket, Pane::Tree, Pane::Details];
const COPYABLE: &[Pane] = &[
    Pane::Sandboxes,
    Pane::Snapshots,
    Pane::Bucket,
    Pane::Matrix,
    Pane::Tree,
    Pane::Hosts,
    Pane::Wall,
    Pane::Details,
];
const DEFINED: &[Pane] = &[
    Pane::Sandboxes,
    Pane::Snapshots,
    Pane::Bucket,
    Pane::Matrix,
    Pane::Tree,
    Pane::Wall,
    Pane::Details,
];
const SHELL_PANES: &[Pane] = &[
    Pane::Sandboxes,
    Pane::Snapshots,
    Pane::Matrix,
    Pane::Hosts,
    Pane::Wall,
    Pane::Details,
];
const FILTERABLE: &[Pane] = &[
    Pane::Sandboxes,
    Pane::Snapshots,
    Pane::Bucket,
    Pane::Matrix,
    Pane::Tree,
    Pane::JobsPage,
    Pane::Hosts,
    Pane::Wall,
];
const JOBS: &[Pane] = &[Pane::JobsPage, Pane::Jobs];
const SORTABLE: &[Pane] = &[Pane::Sandboxes, Pane::Snapshots, Pane::Bucket, Pane::Hosts];
const FAMILY_LISTS: &[Pane] = &[Pane::Snapshots, Pane::Bucket];
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
        words: "",
        keys,
        sentence,
        panes,
        destructive: false,
        is_mutating: false,
        in_footer: true,
    }
}

const fn with_words(mut entry: Entry, words: &'static str) -> Entry {
    entry.words = words;
    entry
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

/// Returns the row of a verb of the sandbox menu, whose letter it has there.
const fn menu_verb(
    kind: VerbKind,
    name: &'static str,
    words: &'static str,
    sentence: &'static str,
) -> Entry {
    let entry = entry(Action::Verb(kind), name, &[], SCREEN_PANES, sentence);
    mark_mutating(hide_in_footer(with_words(entry, words)))
}

/// All actions, in the order of the help. The ids in `keymap.toml` are the names with dashes.
pub(crate) static ACTIONS: &[Entry] = &[
    mark_mutating(with_words(
        entry(
            Action::Create,
            "create",
            &["c"],
            SANDBOX_PANES,
            "Create a snapshot of the selected sandbox in any state and upload it.",
        ),
        "snapshot backup capture",
    )),
    mark_mutating(with_words(
        entry(
            Action::Push,
            "push",
            &["p"],
            SANDBOX_PANES,
            "Push the disk of the selected sandbox (stopped or paused) as a snapshot.",
        ),
        "upload publish",
    )),
    mark_mutating(with_words(
        entry(
            Action::New,
            "new",
            &["n"],
            MARKABLE,
            "Create a sandbox from the selected snapshot; pulls it first if needed.",
        ),
        "launch instantiate create vm",
    )),
    mark_mutating(with_words(
        entry(
            Action::Start,
            "start",
            &["s"],
            SANDBOX_PANES,
            "Start the marked or selected sandboxes; saved ones resume from their saved state.",
        ),
        "boot run power on",
    )),
    mark_mutating(with_words(
        entry(
            Action::Stop,
            "stop",
            &["S"],
            SANDBOX_PANES,
            "Shut down the marked or selected sandboxes.",
        ),
        "shutdown shut down power off halt",
    )),
    mark_mutating(with_words(
        entry(
            Action::Sandbox,
            "more",
            &["o"],
            SCREEN_PANES,
            "Open the sandbox menu: restart, pause, save, clone, rename, force off, ...",
        ),
        "menu actions verbs",
    )),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::Pause,
            "pause",
            &["z"],
            SANDBOX_PANES,
            "Pause the marked or selected sandboxes, or resume them if none is running.",
        ),
        "suspend freeze resume unpause",
    ))),
    menu_verb(
        VerbKind::Restart,
        "restart",
        "reboot",
        "Shut down the marked or selected sandboxes, then start them again.",
    ),
    menu_verb(
        VerbKind::Reset,
        "reset",
        "hard power cycle",
        "Reset the marked or selected sandboxes at once; unwritten data is lost.",
    ),
    menu_verb(
        VerbKind::ForceOff,
        "force off",
        "kill power off plug",
        "Force the marked or selected sandboxes off; unwritten data is lost.",
    ),
    menu_verb(
        VerbKind::Resume,
        "resume",
        "unpause continue thaw",
        "Resume the marked or selected sandboxes that are paused or suspended.",
    ),
    menu_verb(
        VerbKind::Save,
        "save",
        "hibernate managed save suspend to disk",
        "Write the memory of the marked or selected sandboxes to disk; turn them off.",
    ),
    menu_verb(
        VerbKind::Restore,
        "restore",
        "wake",
        "Start the marked or selected sandboxes from their saved state.",
    ),
    menu_verb(
        VerbKind::DropSaved,
        "drop saved",
        "discard forget saved state",
        "Discard the saved state of the marked or selected sandboxes.",
    ),
    menu_verb(
        VerbKind::Clone,
        "clone",
        "copy duplicate",
        "Create a sandbox with the settings and a copy of the disk of the selected one.",
    ),
    menu_verb(
        VerbKind::Rename,
        "rename",
        "mv id",
        "Rename the selected sandbox, which must be shut off.",
    ),
    menu_verb(
        VerbKind::Set,
        "set",
        "edit cpus memory ram vcpus resize",
        "Change virtual CPUs and memory of the selected sandbox, which must be shut off.",
    ),
    menu_verb(
        VerbKind::EnableAutostart,
        "enable autostart",
        "boot start with host",
        "Start the marked or selected sandboxes whenever their host starts.",
    ),
    menu_verb(
        VerbKind::DisableAutostart,
        "disable autostart",
        "boot start with host",
        "Do not start the marked or selected sandboxes when their host starts.",
    ),
    mark_mutating(hide_in_footer(mark_destructive(with_words(
        entry(
            Action::Destroy,
            "destroy",
            &["d", "delete"],
            SANDBOX_PANES,
            "Destroy the marked or selected sandboxes with their disks.",
        ),
        "delete remove erase undefine",
    )))),
    mark_mutating(with_words(
        entry(
            Action::Pull,
            "pull",
            &["f"],
            SNAPSHOTS,
            "Pull the marked or selected snapshots from the bucket to one or more hosts.",
        ),
        "download fetch get",
    )),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::Upload,
            "upload",
            &["u"],
            HOST_SNAPSHOTS,
            "Upload the marked or selected snapshots of hosts to the bucket.",
        ),
        "push publish send put",
    ))),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::CopyTo,
            "copy to host",
            &["R"],
            HOST_SNAPSHOTS,
            "Copy the marked or selected snapshots to other hosts, without the bucket.",
        ),
        "replicate transfer send move clone",
    ))),
    mark_mutating(mark_destructive(with_words(
        entry(
            Action::Remove,
            "remove",
            &["d", "delete"],
            SNAPSHOTS,
            "Remove the marked or selected snapshots from the host, the bucket, or both.",
        ),
        "delete erase rm",
    ))),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::Note,
            "note",
            &["N"],
            ANNOTATABLE,
            "Edit the note on the selected snapshot, on the host and in the bucket.",
        ),
        "comment description edit",
    ))),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::Pin,
            "pin",
            &["P"],
            ANNOTATABLE,
            "Pin or unpin the selected snapshot.",
        ),
        "protect keep lock unpin",
    ))),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::Adopt,
            "adopt",
            &["A"],
            SNAPSHOTS,
            "Record the digests of the marked or selected snapshots that have no manifest.",
        ),
        "hash digests manifest checksum",
    ))),
    mark_mutating(hide_in_footer(mark_destructive(with_words(
        entry(
            Action::Prune,
            "prune",
            &["U"],
            EVERYWHERE,
            "Prune old or unused snapshots and leftovers of interrupted jobs.",
        ),
        "clean up garbage collect delete old leftovers",
    )))),
    with_words(
        entry(
            Action::Open,
            "details",
            &["enter"],
            EVERYWHERE,
            "Open the details of the selected row, job or location.",
        ),
        "open inspect describe",
    ),
    with_words(
        entry(
            Action::Mark,
            "mark",
            &["space"],
            MARKABLE,
            "Mark or unmark the selected row or cell; actions apply to all marked ones.",
        ),
        "select tag",
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
    with_words(
        entry(
            Action::Filter,
            "filter",
            &["/"],
            FILTERABLE,
            "Filter rows: words, ~fuzzy, /regex/, state:running, place:bucket, size>10G, !word.",
        ),
        "search find grep",
    ),
    hide_in_footer(entry(
        Action::Sort(Column::Name),
        "sort by name",
        &[", n"],
        SORTABLE,
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
        &[Pane::Sandboxes, Pane::Hosts],
        "Sort sandboxes or hosts by state.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Cpus),
        "sort by CPUs",
        &[", c"],
        &[Pane::Sandboxes, Pane::Hosts],
        "Sort sandboxes by virtual CPUs, hosts by CPU use.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Memory),
        "sort by memory",
        &[", m"],
        &[Pane::Sandboxes, Pane::Hosts],
        "Sort sandboxes by memory, hosts by memory in use.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Size),
        "sort by size",
        &[", z"],
        SORTABLE,
        "Sort by size; sandboxes by the size of the overlay, hosts by free space.",
    )),
    hide_in_footer(entry(
        Action::Sort(Column::Dependents),
        "sort by users",
        &[", u"],
        &[Pane::Snapshots, Pane::Hosts],
        "Sort snapshots by the number of sandboxes based on them, hosts by sandboxes.",
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
        SORTABLE,
        "Reverse the sort order.",
    )),
    hide_in_footer(with_words(
        entry(
            Action::Columns,
            "columns",
            &["|"],
            &[Pane::Sandboxes, Pane::Snapshots, Pane::Bucket],
            "Choose the columns of the list and their order.",
        ),
        "fields show hide order",
    )),
    hide_in_footer(with_words(
        entry(
            Action::Group,
            "families",
            &["F"],
            FAMILY_LISTS,
            "Group the versions of a snapshot in one folded row with count and sum, or no longer.",
        ),
        "group versions tree collapse",
    )),
    hide_in_footer(with_words(
        entry(
            Action::Fold,
            "fold",
            &["-"],
            FAMILY_LISTS,
            "Fold or unfold the family of the selected row; enter on its row does the same.",
        ),
        "unfold expand collapse",
    )),
    hide_in_footer(with_words(
        entry(
            Action::Bookmarks,
            "bookmarks",
            &["b"],
            FILTERABLE,
            "Apply a named filter, or name the current one.",
        ),
        "saved filters favourites favorites recall",
    )),
    hide_in_footer(with_words(
        entry(
            Action::Copy,
            "copy",
            &["y"],
            COPYABLE,
            "Copy the name, path or URL of the marked or selected rows.",
        ),
        "yank clipboard name path url",
    )),
    hide_in_footer(with_words(
        entry(
            Action::Definition,
            "definition",
            &["Y"],
            DEFINED,
            "Show the sandbox's domain XML, or the snapshot's manifest.",
        ),
        "xml dumpxml json yaml manifest view source",
    )),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::Shell,
            "shell",
            &["!"],
            SHELL_PANES,
            "Open a shell on the host of the selected row, over SSH.",
        ),
        "ssh terminal login command line",
    ))),
    with_words(
        entry(
            Action::Screen,
            "screen",
            &["i"],
            SCREEN_PANES,
            "Show the selected sandbox's screen full size.",
        ),
        "console display vnc picture",
    ),
    entry(
        Action::CopyVnc,
        "copy VNC",
        &["v"],
        SCREEN_PANES,
        "Copy the sandbox's vnc:// URL; opens a tunnel to a remote host.",
    ),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::Serial,
            "serial console",
            &["C"],
            SCREEN_PANES,
            "Attach to the sandbox's serial console; ctrl-] leaves it.",
        ),
        "terminal tty virsh console text",
    ))),
    hide_in_footer(with_words(
        entry(
            Action::Viewer,
            "viewer",
            &["V"],
            SCREEN_PANES,
            "Copy the vnc:// URL and open the installed VNC viewer.",
        ),
        "vnc remote desktop",
    )),
    mark_mutating(mark_destructive(with_words(
        entry(
            Action::Cancel,
            "cancel",
            &["x"],
            &[Pane::JobsPage, Pane::Jobs, Pane::Matrix],
            "Cancel the selected job.",
        ),
        "abort kill stop job",
    ))),
    mark_mutating(with_words(
        entry(
            Action::Retry,
            "retry",
            &["t"],
            JOBS,
            "Retry the failed or cancelled job; resume the interrupted one.",
        ),
        "again resume repeat",
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
    with_words(
        entry(
            Action::AllHosts,
            "all hosts",
            &["a"],
            EVERYWHERE,
            "Toggle between one host and all hosts.",
        ),
        "everything fleet",
    ),
    with_words(
        entry(
            Action::Matrix,
            "locations",
            &["m", "g m"],
            EVERYWHERE,
            "Toggle the Locations page: which host has which snapshot.",
        ),
        "matrix where",
    ),
    with_words(
        entry(
            Action::Tree,
            "tree",
            &["T", "g t"],
            EVERYWHERE,
            "Toggle the Tree page: the lineage of snapshots and sandboxes.",
        ),
        "lineage graph parents",
    ),
    with_words(
        entry(
            Action::Jobs,
            "jobs",
            &["J", "g j"],
            EVERYWHERE,
            "Toggle the Jobs page: running, queued, finished and interrupted jobs.",
        ),
        "tasks transfers history",
    ),
    with_words(
        entry(
            Action::Hosts,
            "hosts",
            &["H", "g h"],
            EVERYWHERE,
            "Toggle the Hosts page: state, load and free space of all hosts.",
        ),
        "nodes servers load top ctx context",
    ),
    with_words(
        entry(
            Action::Wall,
            "wall",
            &["W", "g w"],
            EVERYWHERE,
            "Toggle the Wall page: the screens of all running guests.",
        ),
        "screens thumbnails monitors consoles",
    ),
    hide_in_footer(with_words(
        entry(
            Action::Zoom,
            "zoom",
            &["Z"],
            EVERYWHERE,
            "Show the focused pane on the whole screen, or all panes again.",
        ),
        "full screen maximize",
    )),
    with_words(
        entry(
            Action::Dismiss,
            "dismiss",
            &["X"],
            EVERYWHERE,
            "Dismiss the finished job or discard the interrupted one; elsewhere, dismiss all finished.",
        ),
        "clear discard forget",
    ),
    hide_in_footer(with_words(
        entry(
            Action::Refresh,
            "refresh",
            &["r", "ctrl-l"],
            EVERYWHERE,
            "Refresh all hosts and the bucket.",
        ),
        "reload update rescan",
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
        &["h", "left"],
        EVERYWHERE,
        "Go to the previous column on the Locations page, else the previous pane.",
    )),
    hide_in_footer(entry(
        Action::Right,
        "right",
        &["l", "right"],
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
        Action::HalfPageUp,
        "half page up",
        &["ctrl-u"],
        EVERYWHERE,
        "Go half a page up.",
    )),
    hide_in_footer(entry(
        Action::HalfPageDown,
        "half page down",
        &["ctrl-d"],
        EVERYWHERE,
        "Go half a page down.",
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
    hide_in_footer(with_words(
        entry(
            Action::Log,
            "log",
            &["L"],
            EVERYWHERE,
            "Cycle the log pane: info, warnings, debug, hidden.",
        ),
        "messages logs events",
    )),
    hide_in_footer(entry(
        Action::Back,
        "back",
        &["esc"],
        EVERYWHERE,
        "Go back to the lists; there, clear the marks, then the filter.",
    )),
    hide_in_footer(with_words(
        entry(
            Action::Doctor,
            "doctor",
            &["D"],
            EVERYWHERE,
            "Run the health checks of all hosts and the bucket.",
        ),
        "health check diagnose",
    )),
    mark_mutating(hide_in_footer(with_words(
        entry(
            Action::Setup,
            "setup",
            &[],
            EVERYWHERE,
            "Ask for hosts and bucket, check them, and write a settings file.",
        ),
        "init configure configuration first run wizard",
    ))),
    entry(
        Action::Palette,
        "palette",
        &[":"],
        EVERYWHERE,
        "Find and run an action by a few letters of its name.",
    ),
    with_words(
        entry(
            Action::Help,
            "help",
            &["?", "f1"],
            EVERYWHERE,
            "Show all keys; / searches.",
        ),
        "keys shortcuts",
    ),
    hide_in_footer(with_words(
        entry(
            Action::Theme,
            "theme",
            &["ctrl-t"],
            EVERYWHERE,
            "Switch to the next theme: dark, light, high-contrast, mono.",
        ),
        "colours colors appearance skin",
    )),
    hide_in_footer(with_words(
        entry(
            Action::Suspend,
            "background",
            &["ctrl-z"],
            EVERYWHERE,
            "Suspend snapdeck to the shell (disabled while jobs run).",
        ),
        "suspend shell job control",
    )),
    with_words(
        entry(
            Action::Quit,
            "quit",
            &["q", "ctrl-c"],
            EVERYWHERE,
            "Quit; asks first while jobs run. In a dialog or filter ctrl-c closes it.",
        ),
        "exit close",
    ),
];
