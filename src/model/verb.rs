//! The table of sandbox verbs: name, states in which each is possible, danger, wording. The operation, the command
//! line, the HTTP API and the console use it; no other place decides which verb is possible when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SandboxState;

/// A verb of a sandbox, with its parameters. Rename and clone, which have the id of another sandbox, are operations of
/// their own; their rows of the table are [`VerbKind::Rename`] and [`VerbKind::Clone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxVerb {
    /// Start from the saved state if there is one, else from the disk.
    Start,
    /// Ask the guest to shut down, through the guest agent if it answers, else with the power button (ACPI). A suspended
    /// guest is woken first.
    Stop {
        /// Limit of the wait; `None`: `stop_timeout_secs` of the settings.
        timeout: Option<Duration>,
        /// Force the sandbox off when the limit has passed.
        force: bool,
    },
    /// Stop as [`SandboxVerb::Stop`], then start.
    Restart {
        /// Limit of the wait; `None`: `stop_timeout_secs` of the settings.
        timeout: Option<Duration>,
        /// Force the sandbox off when the limit has passed.
        force: bool,
    },
    /// Reset the machine, as its reset button: unwritten data of the guest is lost.
    Reset,
    /// End the process at once: unwritten data of the guest is lost.
    ForceOff,
    /// Stop the CPUs; the memory stays in the host's RAM.
    Pause,
    /// Continue a paused or suspended guest.
    Resume,
    /// Write the memory to the host's disk and end the process (managed save).
    Save,
    /// Start from the saved state.
    Restore,
    /// Discard the saved state, as after a power cut.
    DropSaved,
    /// Choose whether the sandbox starts with its host.
    Autostart {
        /// Whether it starts.
        enabled: bool,
    },
    /// Change CPUs and memory, from the next start on. `None` keeps the value.
    Set {
        /// Virtual CPUs.
        cpus: Option<u32>,
        /// Memory in bytes.
        memory_bytes: Option<u64>,
    },
    /// Remove domain, overlay, UEFI variables and saved state.
    Destroy,
}

/// A row of the table: a verb without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerbKind {
    /// [`SandboxVerb::Start`].
    Start,
    /// [`SandboxVerb::Stop`].
    Stop,
    /// [`SandboxVerb::Restart`].
    Restart,
    /// [`SandboxVerb::Reset`].
    Reset,
    /// [`SandboxVerb::ForceOff`].
    ForceOff,
    /// [`SandboxVerb::Pause`].
    Pause,
    /// [`SandboxVerb::Resume`].
    Resume,
    /// [`SandboxVerb::Save`].
    Save,
    /// [`SandboxVerb::Restore`].
    Restore,
    /// [`SandboxVerb::DropSaved`].
    DropSaved,
    /// [`SandboxVerb::Autostart`] with `enabled`.
    EnableAutostart,
    /// [`SandboxVerb::Autostart`] without `enabled`.
    DisableAutostart,
    /// [`SandboxVerb::Set`].
    Set,
    /// Give the sandbox another id.
    Rename,
    /// Create a sandbox with a copy of its overlay.
    Clone,
    /// [`SandboxVerb::Destroy`].
    Destroy,
}

/// Whether a verb is possible in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applicability {
    /// It is possible and changes the sandbox.
    Possible,
    /// It succeeds without a change, for this reason.
    Unneeded(&'static str),
    /// It is refused, with this hint.
    Impossible(&'static str),
}

/// Possible damage of a verb, which decides how a front end asks for confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Danger {
    /// Nothing is lost.
    Harmless,
    /// The guest ends; unwritten data may be lost.
    Disruptive,
    /// Files are removed permanently.
    Destructive,
}

/// Static part of a row of the table.
struct Wording {
    name: &'static str,
    help: &'static str,
    effect: &'static str,
    danger: Danger,
}

impl SandboxVerb {
    /// A stop with the limit of the settings, without force.
    pub const STOP: Self = Self::Stop {
        timeout: None,
        force: false,
    };
    /// A restart with the limit of the settings, without force.
    pub const RESTART: Self = Self::Restart {
        timeout: None,
        force: false,
    };

    /// Returns its row of the table.
    pub fn kind(self) -> VerbKind {
        match self {
            Self::Start => VerbKind::Start,
            Self::Stop { .. } => VerbKind::Stop,
            Self::Restart { .. } => VerbKind::Restart,
            Self::Reset => VerbKind::Reset,
            Self::ForceOff => VerbKind::ForceOff,
            Self::Pause => VerbKind::Pause,
            Self::Resume => VerbKind::Resume,
            Self::Save => VerbKind::Save,
            Self::Restore => VerbKind::Restore,
            Self::DropSaved => VerbKind::DropSaved,
            Self::Autostart { enabled: true } => VerbKind::EnableAutostart,
            Self::Autostart { enabled: false } => VerbKind::DisableAutostart,
            Self::Set { .. } => VerbKind::Set,
            Self::Destroy => VerbKind::Destroy,
        }
    }

    /// As [`VerbKind::as_str`].
    pub fn as_str(self) -> &'static str {
        self.kind().as_str()
    }

    /// As [`VerbKind::help`].
    pub fn help(self) -> &'static str {
        self.kind().help()
    }

    /// As [`VerbKind::effect`].
    pub fn effect(self) -> &'static str {
        self.kind().effect()
    }

    /// As [`VerbKind::danger`].
    pub fn danger(self) -> Danger {
        self.kind().danger()
    }

    /// As [`VerbKind::applicability`].
    pub fn applicability(self, state: SandboxState) -> Applicability {
        self.kind().applicability(state)
    }

    /// As [`VerbKind::obstacle`].
    pub fn obstacle(self, state: SandboxState) -> Option<String> {
        self.kind().obstacle(state)
    }
}

impl VerbKind {
    fn wording(self) -> Wording {
        use Danger::{Destructive, Disruptive, Harmless};
        let (name, danger, help, effect) = match self {
            Self::Start => (
                "start",
                Harmless,
                "Start sandboxes; saved ones resume from their saved state",
                "Starts the sandbox, from its saved state if it has one",
            ),
            Self::Stop => (
                "stop",
                Disruptive,
                "Ask guests to shut down (guest agent or power button) and wait",
                "Asks the guest to shut down; you can force it off later",
            ),
            Self::Restart => (
                "restart",
                Disruptive,
                "Ask guests to shut down and wait, then start the sandboxes again",
                "Asks the guest to shut down, waits, and starts it again",
            ),
            Self::Reset => (
                "reset",
                Disruptive,
                "Reset sandboxes at once, as by a reset button: unwritten data is lost",
                "Resets it at once: unwritten data of the guest is lost",
            ),
            Self::ForceOff => (
                "force off",
                Disruptive,
                "Force sandboxes off: unwritten data is lost",
                "Forces it off: unwritten data of the guest is lost",
            ),
            Self::Pause => (
                "pause",
                Harmless,
                "Pause running sandboxes; their memory stays in host RAM",
                "Pauses the guest; its memory stays in host RAM",
            ),
            Self::Resume => (
                "resume",
                Harmless,
                "Resume paused or suspended sandboxes",
                "Resumes the guest",
            ),
            Self::Save => (
                "save",
                Harmless,
                "Save sandboxes: write their memory to the host's disk and stop them",
                "Writes its memory to the host's disk and turns it off",
            ),
            Self::Restore => (
                "restore",
                Harmless,
                "Restore saved sandboxes from their saved state",
                "Restores the guest from its saved state",
            ),
            Self::DropSaved => (
                "drop saved",
                Disruptive,
                "Discard the saved state of sandboxes, as after a power cut",
                "Discards its saved state, as after a power cut",
            ),
            Self::EnableAutostart => (
                "enable autostart",
                Harmless,
                "Start sandboxes whenever their host starts",
                "Starts it whenever its host starts",
            ),
            Self::DisableAutostart => (
                "disable autostart",
                Harmless,
                "Do not start sandboxes when their host starts",
                "Does not start it when its host starts",
            ),
            Self::Set => (
                "set",
                Harmless,
                "Change virtual CPUs and memory of sandboxes that are shut off",
                "Changes its virtual CPUs and its memory",
            ),
            Self::Rename => (
                "rename",
                Harmless,
                "Rename a sandbox that is shut off; its files keep their names",
                "Gives it another id; its files keep their names",
            ),
            Self::Clone => (
                "clone",
                Harmless,
                "Create a sandbox with the settings and a copy of the disk of another",
                "Creates a sandbox with its settings and a copy of its disk",
            ),
            Self::Destroy => (
                "destroy",
                Destructive,
                "Destroy sandboxes with disk, UEFI variables and saved state",
                "Destroys it and its disk, even if running; keeps its base",
            ),
        };
        Wording {
            name,
            help,
            effect,
            danger,
        }
    }

    /// Returns the verb's name: `start`, `force off`.
    pub fn as_str(self) -> &'static str {
        self.wording().name
    }

    /// Returns one imperative line for help and reference.
    pub fn help(self) -> &'static str {
        self.wording().help
    }

    /// Returns what the verb does to one sandbox, for menus, confirmations and the API.
    pub fn effect(self) -> &'static str {
        self.wording().effect
    }

    /// Returns the possible damage.
    pub fn danger(self) -> Danger {
        self.wording().danger
    }

    /// Returns whether the verb is possible for a sandbox in `state`.
    pub fn applicability(self, state: SandboxState) -> Applicability {
        use Applicability::{Impossible, Possible, Unneeded};
        use SandboxState::{Crashed, Paused, Running, Saved, ShutOff, Suspended};
        match (self, state) {
            (Self::Start, ShutOff | Saved) | (Self::Restore, Saved) => Possible,
            (Self::Start | Self::Restore, Running) => Unneeded("it is already running"),
            (Self::Start | Self::Restore, Paused | Suspended) => Impossible("resume it first"),
            (Self::Start | Self::Restore, Crashed) => Impossible("force it off first"),
            (Self::Restore, ShutOff) => Impossible("start it: it has no saved state"),

            (Self::Stop, Running | Suspended) => Possible,
            (Self::Stop, Paused) => Impossible("resume it first, or force it off"),
            (Self::Stop, Crashed) => Impossible("force it off"),
            (Self::ForceOff, Running | Paused | Suspended | Crashed) => Possible,

            (Self::Restart | Self::Reset, Running) | (Self::Restart, Suspended) => Possible,
            (Self::Restart | Self::Reset, Paused | Suspended) => {
                Impossible("resume it first, or force it off")
            }
            (Self::Restart | Self::Reset, Crashed) => Impossible("force it off, then start it"),
            (Self::Restart | Self::Reset, ShutOff) => Impossible("start it"),
            (Self::Restart | Self::Reset, Saved) => Impossible("restore it first"),

            (Self::Stop | Self::ForceOff, ShutOff | Saved) => Unneeded("it is not running"),

            (Self::Pause, Running) => Possible,
            (Self::Pause, Paused) => Unneeded("it is already paused"),
            (Self::Pause, _) => Impossible("pause is only possible while it is running"),

            (Self::Resume, Paused | Suspended) => Possible,
            (Self::Resume, Running) => Unneeded("it is already running"),
            (Self::Resume, Saved) => Impossible("restore it"),
            (Self::Resume, ShutOff) => Impossible("start it"),
            (Self::Resume, Crashed) => Impossible("force it off, then start it"),

            (Self::Save, Running | Paused) => Possible,
            (Self::Save, Saved) => Unneeded("it is already saved"),
            (Self::Save, _) => Impossible("save is only possible while it is running or paused"),

            (Self::DropSaved, Saved) => Possible,
            (Self::DropSaved, _) => Unneeded("it has no saved state"),

            (Self::EnableAutostart | Self::DisableAutostart, _) => Possible,

            (Self::Set | Self::Rename | Self::Clone, ShutOff) => Possible,
            (Self::Set | Self::Rename | Self::Clone, Running | Paused | Suspended) => {
                Impossible("stop it first")
            }
            (Self::Set | Self::Rename | Self::Clone, Crashed) => Impossible("force it off first"),
            (Self::Set | Self::Rename | Self::Clone, Saved) => {
                Impossible("restore and stop it, or discard its saved state with drop-saved")
            }

            (Self::Destroy, _) => Possible,
        }
    }

    /// Returns why the verb does nothing to a sandbox in `state`; `None` if it is possible.
    pub fn obstacle(self, state: SandboxState) -> Option<String> {
        match self.applicability(state) {
            Applicability::Possible => None,
            Applicability::Unneeded(reason) => Some(reason.to_owned()),
            Applicability::Impossible(advice) => Some(format!("it is {}: {advice}", state.label())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspended_guest_counts_as_running() {
        use Applicability::{Impossible, Possible, Unneeded};
        use VerbKind::{
            Clone, Destroy, DropSaved, ForceOff, Pause, Rename, Reset, Restart, Restore, Resume,
            Save, Set, Start, Stop,
        };
        let state = SandboxState::Suspended;
        assert!(state.is_active() && !state.is_quiescent());
        for verb in [Stop, Restart, ForceOff, Resume, Destroy] {
            assert_eq!(verb.applicability(state), Possible, "{verb:?}");
        }
        for verb in [Start, Restore, Reset, Pause, Save, Set, Rename, Clone] {
            let applicability = verb.applicability(state);
            assert!(matches!(applicability, Impossible(_)), "{verb:?}");
        }
        assert!(matches!(DropSaved.applicability(state), Unneeded(_)));
        let obstacle = Start.obstacle(state);
        assert_eq!(
            obstacle.as_deref(),
            Some("it is suspended (S3): resume it first")
        );
    }
}
