//! The one table of actions: keymap, footer and help are made from it.

use crossterm::event::KeyCode;

/// A part of the screen that can have the focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pane {
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
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandboxes => "Sandboxes",
            Self::Snapshots => "Snapshots",
            Self::Bucket => "Bucket",
            Self::Matrix => "Matrix",
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
    pub fn is_page(self) -> bool {
        matches!(self, Self::Matrix | Self::Tree | Self::JobsPage)
    }
}

/// The three lists side by side.
pub const LISTS: &[Pane] = &[Pane::Sandboxes, Pane::Snapshots, Pane::Bucket];
const SNAPSHOTS: &[Pane] = &[Pane::Snapshots, Pane::Bucket, Pane::Matrix, Pane::Tree];
const MARKABLE: &[Pane] = &[Pane::Sandboxes, Pane::Snapshots, Pane::Bucket, Pane::Matrix];
const SEEN: &[Pane] = &[Pane::Sandboxes, Pane::Details];
const SAID: &[Pane] = &[Pane::Snapshots, Pane::Bucket, Pane::Tree, Pane::Details];
const FILTERED: &[Pane] = &[
    Pane::Sandboxes,
    Pane::Snapshots,
    Pane::Bucket,
    Pane::Matrix,
    Pane::Tree,
    Pane::JobsPage,
];
const JOBS: &[Pane] = &[Pane::JobsPage, Pane::Jobs];
const EVERYWHERE: &[Pane] = &[
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
pub enum Action {
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
    Together,
    /// Open the matrix, or leave it.
    Matrix,
    /// Open the tree of snapshots, or leave it.
    Tree,
    /// Open the jobs page, or leave it.
    Jobs,
    /// Do a job again, or go on with what was left.
    Retry,
    /// Move a job towards the front of the queue.
    Sooner,
    /// Move a job towards its end.
    Later,
    /// Cancel the selected job.
    Cancel,
    /// Forget jobs that are over.
    Dismiss,
    /// The log pane's next form.
    Log,
    /// The doctor's page.
    Doctor,
    /// Help.
    Help,
    /// Leave.
    Quit,
}

/// A key of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character, as typed.
    Char(char),
    /// A character with Ctrl.
    Ctrl(char),
    /// A key with a name.
    Code(KeyCode),
    /// Any of 1 to 9.
    Digit,
}

/// One row of the table.
#[derive(Debug)]
pub struct Entry {
    /// What it means.
    pub action: Action,
    /// One or two words, for the footer.
    pub name: &'static str,
    /// Its keys; the first is the one to show.
    pub keys: &'static [Key],
    /// One sentence, for the help.
    pub sentence: &'static str,
    /// Where it applies.
    pub panes: &'static [Pane],
    /// Does something go for good?
    pub destructive: bool,
    /// Is it worth a place in the footer?
    pub footer: bool,
}

const fn entry(
    action: Action,
    name: &'static str,
    keys: &'static [Key],
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
        footer: true,
    }
}

const fn quiet(mut entry: Entry) -> Entry {
    entry.footer = false;
    entry
}

const fn destructive(mut entry: Entry) -> Entry {
    entry.destructive = true;
    entry
}

use Key::{Char, Code, Ctrl, Digit};

/// All actions, in the order of the help.
pub static ACTIONS: &[Entry] = &[
    entry(
        Action::Create,
        "create",
        &[Char('c')],
        &[Pane::Sandboxes],
        "Cut a snapshot of the selected sandbox, running or not, and upload it.",
    ),
    entry(
        Action::Push,
        "push",
        &[Char('p')],
        &[Pane::Sandboxes],
        "Upload the disk of the selected sandbox, which is stopped or paused, as a snapshot.",
    ),
    entry(
        Action::New,
        "new",
        &[Char('n')],
        MARKABLE,
        "Make a sandbox on the selected snapshot, which is pulled first where it is only in the bucket.",
    ),
    entry(
        Action::Start,
        "start",
        &[Char('s')],
        &[Pane::Sandboxes],
        "Start the marked or selected sandboxes; a saved one goes on where it was.",
    ),
    entry(
        Action::Stop,
        "stop",
        &[Char('S')],
        &[Pane::Sandboxes],
        "Ask the guests of the marked or selected sandboxes to shut down.",
    ),
    entry(
        Action::Sandbox,
        "more",
        &[Char('o')],
        SEEN,
        "Show all that can be done to a sandbox: pause, save, restore, force off, destroy, ...",
    ),
    quiet(entry(
        Action::Pause,
        "pause",
        &[Char('z')],
        &[Pane::Sandboxes],
        "Pause the marked or selected sandboxes; where none of them runs, resume them.",
    )),
    quiet(destructive(entry(
        Action::Destroy,
        "destroy",
        &[Char('d'), Code(KeyCode::Delete)],
        &[Pane::Sandboxes],
        "Destroy the marked or selected sandboxes with their disks.",
    ))),
    entry(
        Action::Pull,
        "pull",
        &[Char('l')],
        SNAPSHOTS,
        "Download the marked or selected snapshots from the bucket to one host or several.",
    ),
    destructive(entry(
        Action::Remove,
        "remove",
        &[Char('d'), Code(KeyCode::Delete)],
        SNAPSHOTS,
        "Remove the marked or selected snapshots from the host, the bucket, or both.",
    )),
    quiet(entry(
        Action::Note,
        "note",
        &[Char('N')],
        SAID,
        "Edit the note on the selected snapshot, on the host and in the bucket.",
    )),
    quiet(entry(
        Action::Pin,
        "pin",
        &[Char('P')],
        SAID,
        "Pin the selected snapshot, which is then not removed, or take its pin away.",
    )),
    quiet(destructive(entry(
        Action::Prune,
        "prune",
        &[Char('U')],
        EVERYWHERE,
        "Find old and unused snapshots and what broke off on hosts and in the bucket, and remove them together.",
    ))),
    entry(
        Action::Open,
        "details",
        &[Code(KeyCode::Enter)],
        EVERYWHERE,
        "Go to the details of the selected row; open the selected job with its log, or a snapshot of the matrix.",
    ),
    entry(
        Action::Mark,
        "mark",
        &[Char(' ')],
        MARKABLE,
        "Mark the selected row or cell or unmark it; pull, remove and the sandbox verbs act on all that is marked.",
    ),
    entry(
        Action::Filter,
        "filter",
        &[Char('/')],
        FILTERED,
        "Show only rows whose name contains what is typed; enter keeps it, esc drops it.",
    ),
    entry(
        Action::Screen,
        "screen",
        &[Char('i')],
        SEEN,
        "Show the selected sandbox's screen, large.",
    ),
    entry(
        Action::CopyVnc,
        "copy VNC",
        &[Char('v')],
        SEEN,
        "Copy a vnc:// URL of the selected sandbox; to a remote host a tunnel is opened.",
    ),
    quiet(entry(
        Action::Viewer,
        "viewer",
        &[Char('V')],
        SEEN,
        "Copy it and open a VNC viewer that is installed here.",
    )),
    destructive(entry(
        Action::Cancel,
        "cancel",
        &[Char('x')],
        &[Pane::Jobs, Pane::JobsPage, Pane::Matrix],
        "Cancel the selected job, or the one of the current cell; it cleans up after itself.",
    )),
    entry(
        Action::Together,
        "all hosts",
        &[Char('a')],
        EVERYWHERE,
        "Show the rows of all hosts together, or of one host again.",
    ),
    entry(
        Action::Matrix,
        "matrix",
        &[Char('m')],
        EVERYWHERE,
        "Show what each host and the bucket have of every snapshot, or the lists again.",
    ),
    entry(
        Action::Tree,
        "tree",
        &[Char('T')],
        EVERYWHERE,
        "Show which snapshot was made from which, with the sandboxes on them, or the lists again.",
    ),
    entry(
        Action::Jobs,
        "jobs",
        &[Char('J')],
        EVERYWHERE,
        "Show the jobs: what runs, the queue, what is over and what an earlier run left; or the lists again.",
    ),
    entry(
        Action::Retry,
        "again",
        &[Char('t')],
        JOBS,
        "Do again what failed or was cancelled; go on with what an earlier run left.",
    ),
    entry(
        Action::Sooner,
        "sooner",
        &[Char('+')],
        JOBS,
        "Let the selected job, which waits, have its turn before the one above it.",
    ),
    entry(
        Action::Later,
        "later",
        &[Char('-')],
        JOBS,
        "Let the selected job, which waits, have its turn after the one below it.",
    ),
    entry(
        Action::Dismiss,
        "dismiss",
        &[Char('X')],
        EVERYWHERE,
        "Forget the selected job if it is over, or was left by an earlier run; outside the jobs, all that are over.",
    ),
    quiet(entry(
        Action::Refresh,
        "refresh",
        &[Char('r'), Ctrl('l')],
        EVERYWHERE,
        "Ask all hosts and the bucket again, now.",
    )),
    quiet(entry(
        Action::NextPane,
        "next pane",
        &[Code(KeyCode::Tab)],
        EVERYWHERE,
        "Go to the next pane.",
    )),
    quiet(entry(
        Action::PreviousPane,
        "pane before",
        &[Code(KeyCode::BackTab)],
        EVERYWHERE,
        "Go to the pane before.",
    )),
    quiet(entry(
        Action::Left,
        "left",
        &[Code(KeyCode::Left)],
        EVERYWHERE,
        "Go to the column before, in the matrix; elsewhere to the pane before.",
    )),
    quiet(entry(
        Action::Right,
        "right",
        &[Code(KeyCode::Right)],
        EVERYWHERE,
        "Go to the next column, in the matrix; elsewhere to the next pane.",
    )),
    quiet(entry(
        Action::Up,
        "up",
        &[Char('k'), Code(KeyCode::Up)],
        EVERYWHERE,
        "Go one row up.",
    )),
    quiet(entry(
        Action::Down,
        "down",
        &[Char('j'), Code(KeyCode::Down)],
        EVERYWHERE,
        "Go one row down.",
    )),
    quiet(entry(
        Action::PageUp,
        "page up",
        &[Code(KeyCode::PageUp), Ctrl('b')],
        EVERYWHERE,
        "Go one page up.",
    )),
    quiet(entry(
        Action::PageDown,
        "page down",
        &[Code(KeyCode::PageDown), Ctrl('f')],
        EVERYWHERE,
        "Go one page down.",
    )),
    quiet(entry(
        Action::First,
        "first",
        &[Char('g'), Code(KeyCode::Home)],
        EVERYWHERE,
        "Go to the first row.",
    )),
    quiet(entry(
        Action::Last,
        "last",
        &[Char('G'), Code(KeyCode::End)],
        EVERYWHERE,
        "Go to the last row.",
    )),
    quiet(entry(
        Action::NextHost,
        "next host",
        &[Char(']')],
        EVERYWHERE,
        "Show the next host; behind the last one are all together.",
    )),
    quiet(entry(
        Action::PreviousHost,
        "host before",
        &[Char('[')],
        EVERYWHERE,
        "Show the host before.",
    )),
    quiet(entry(
        Action::Host(0),
        "host",
        &[Digit],
        EVERYWHERE,
        "Show the host of that number.",
    )),
    quiet(entry(
        Action::Log,
        "log",
        &[Char('L')],
        EVERYWHERE,
        "Show the log from information on, warnings only, everything, or not at all.",
    )),
    quiet(entry(
        Action::Back,
        "back",
        &[Code(KeyCode::Esc)],
        EVERYWHERE,
        "Go back to the lists; there, drop the marks, then the filter.",
    )),
    quiet(entry(
        Action::Doctor,
        "doctor",
        &[Char('D')],
        EVERYWHERE,
        "Examine all hosts and the bucket: what works, what does not, and what mends it.",
    )),
    entry(
        Action::Help,
        "help",
        &[Char('?'), Code(KeyCode::F(1))],
        EVERYWHERE,
        "Show all keys.",
    ),
    entry(
        Action::Quit,
        "quit",
        &[Char('q'), Ctrl('c')],
        EVERYWHERE,
        "Leave; jobs that still run are named first.",
    ),
];
