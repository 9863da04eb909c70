//! `snapdeck sandbox`: creates, runs and destroys sandboxes.

use std::io::{IsTerminal, stderr, stdin};
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::json;

use super::CommandPlan;
use super::output::{CommandOutput, format_field, format_size, prompt};
use snapdeck_engine::Engine;
use snapdeck_model::{
    Error, HostName, Kind, Operation, Result, Sandbox, SandboxId, SandboxSpec, SandboxVerb,
    SnapshotName, VerbKind,
};

/// Commands on sandboxes.
#[derive(Debug, Clone, Subcommand)]
pub enum SandboxCommand {
    /// Create a sandbox from a snapshot
    New(NewSandboxArgs),
    /// [`SandboxVerb::Start`]
    #[command(about = SandboxVerb::Start.help())]
    Start {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
    },
    /// [`SandboxVerb::STOP`]
    #[command(about = SandboxVerb::STOP.help())]
    Stop {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
        /// Seconds to wait for the guest [default: stop_timeout_secs of the settings]
        #[arg(long, value_name = "SECS", conflicts_with_all = ["force", "force_after"])]
        timeout: Option<u32>,
        /// Force off at once: unwritten data is lost
        #[arg(long, conflicts_with = "force_after")]
        force: bool,
        /// Force off a guest that has not stopped after this many seconds
        #[arg(long, value_name = "SECS")]
        force_after: Option<u32>,
    },
    /// [`SandboxVerb::RESTART`]
    #[command(about = SandboxVerb::RESTART.help())]
    Restart {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
        /// Seconds to wait for the guest [default: stop_timeout_secs of the settings]
        #[arg(long, value_name = "SECS", conflicts_with = "force_after")]
        timeout: Option<u32>,
        /// Force off a guest that has not stopped after this many seconds
        #[arg(long, value_name = "SECS")]
        force_after: Option<u32>,
    },
    /// [`SandboxVerb::Reset`]
    #[command(about = SandboxVerb::Reset.help())]
    Reset {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
    },
    /// [`SandboxVerb::Pause`]
    #[command(about = SandboxVerb::Pause.help())]
    Pause {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
    },
    /// [`SandboxVerb::Resume`]
    #[command(about = SandboxVerb::Resume.help())]
    Resume {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
    },
    /// [`SandboxVerb::Save`]
    #[command(about = SandboxVerb::Save.help())]
    Save {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
    },
    /// [`SandboxVerb::Restore`]
    #[command(about = SandboxVerb::Restore.help())]
    Restore {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
    },
    /// [`SandboxVerb::DropSaved`]
    #[command(about = SandboxVerb::DropSaved.help())]
    DropSaved {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
    },
    /// Choose whether sandboxes start when their host starts
    Autostart {
        /// Whether they start
        state: Switch,
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
    },
    /// [`VerbKind::Set`]
    #[command(about = VerbKind::Set.help(), group = ArgGroup::new("size").required(true).multiple(true).args(["cpus", "memory"]))]
    Set {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
        /// Virtual CPUs
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=512))]
        cpus: Option<u32>,
        /// Memory, such as 4G or 512M
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        memory: Option<u64>,
    },
    /// [`VerbKind::Rename`]
    #[command(about = VerbKind::Rename.help())]
    Rename {
        /// The sandbox
        id: SandboxId,
        /// The new id
        new_id: SandboxId,
    },
    /// [`VerbKind::Clone`]
    #[command(about = VerbKind::Clone.help())]
    Clone {
        /// The sandbox, which is shut off
        id: SandboxId,
        /// The new sandbox's id
        new_id: SandboxId,
        /// Start it after creation
        #[arg(long)]
        start: bool,
    },
    /// [`SandboxVerb::Destroy`]
    #[command(about = SandboxVerb::Destroy.help())]
    Destroy {
        /// The sandboxes
        #[arg(required = true, value_name = "ID")]
        ids: Vec<SandboxId>,
        /// Do not ask for confirmation; required without a terminal
        #[arg(long)]
        yes: bool,
    },
    /// Print the domain XML of a sandbox as libvirt has it
    Xml {
        /// The sandbox
        id: SandboxId,
    },
    /// Show details of a sandbox and its disk chain
    Show {
        /// The sandbox
        id: SandboxId,
    },
}

/// A setting that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// `snapdeck sandbox new`.
#[derive(Debug, Clone, Args)]
pub struct NewSandboxArgs {
    /// The new sandbox's id
    id: SandboxId,
    /// The snapshot it is based on
    snapshot: SnapshotName,
    /// Virtual CPUs [default: cpus of the settings]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=512))]
    cpus: Option<u32>,
    /// Memory, such as 4G or 512M [default: memory_mib of the settings]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Size of its disk, such as 50G [default: the snapshot's]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    storage: Option<u64>,
    /// Pull the snapshot first if the host has no valid copy
    #[arg(long)]
    pull: bool,
    /// Start it after creation
    #[arg(long)]
    start: bool,
}

/// Parses a size with its unit: `512M`, `4G`, `4GiB`, in powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_uppercase();
    let shift = match unit.strip_suffix("IB").unwrap_or(&unit) {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("use a number with a unit: K, M, G or T".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "the number is missing, 0 or too large".to_owned())
}

pub(super) fn plan(command: SandboxCommand, host: HostName) -> CommandPlan {
    let operations = |ids: Vec<SandboxId>, verb: SandboxVerb| {
        let mut operations: Vec<Operation> = Vec::new();
        for id in ids {
            let host = host.clone();
            let operation = Operation::Sandbox { host, id, verb };
            // An id that is given twice counts once.
            if !operations.contains(&operation) {
                operations.push(operation);
            }
        }
        operations
    };
    let secs = |secs: u32| Duration::from_secs(secs.into());
    let (ids, verb) = match command {
        SandboxCommand::New(NewSandboxArgs {
            id,
            snapshot,
            cpus,
            memory,
            storage,
            pull,
            start,
        }) => {
            let pull = pull.then(|| Operation::Pull {
                host: host.clone(),
                name: snapshot.clone(),
                overwrite: false,
            });
            let spec = SandboxSpec {
                snapshot,
                cpus,
                memory_bytes: memory,
                storage_bytes: storage,
                start,
                block_network: false,
                accept_existing: false,
            };
            let create = Operation::CreateSandbox { host, id, spec };
            return CommandPlan::RunInOrder(pull.into_iter().chain([create]).collect());
        }
        SandboxCommand::Rename { id, new_id } => {
            let rename = Operation::RenameSandbox { host, id, new_id };
            return CommandPlan::Run(vec![rename]);
        }
        SandboxCommand::Clone { id, new_id, start } => {
            let clone = Operation::CloneSandbox {
                host,
                id,
                new_id,
                start,
            };
            return CommandPlan::Run(vec![clone]);
        }
        SandboxCommand::Xml { id } => return CommandPlan::DomainXml(host, id),
        SandboxCommand::Show { id } => return CommandPlan::ShowSandbox(host, id),
        SandboxCommand::Destroy { ids, yes } => {
            let operations = operations(ids, SandboxVerb::Destroy);
            return match yes {
                true => CommandPlan::Run(operations),
                false => CommandPlan::ConfirmAndRun(operations),
            };
        }
        SandboxCommand::Start { ids } => (ids, SandboxVerb::Start),
        SandboxCommand::Stop {
            ids, force: true, ..
        } => (ids, SandboxVerb::ForceOff),
        SandboxCommand::Stop {
            ids,
            timeout,
            force_after,
            ..
        } => {
            let verb = SandboxVerb::Stop {
                timeout: force_after.or(timeout).map(secs),
                force: force_after.is_some(),
            };
            (ids, verb)
        }
        SandboxCommand::Restart {
            ids,
            timeout,
            force_after,
        } => {
            let verb = SandboxVerb::Restart {
                timeout: force_after.or(timeout).map(secs),
                force: force_after.is_some(),
            };
            (ids, verb)
        }
        SandboxCommand::Reset { ids } => (ids, SandboxVerb::Reset),
        SandboxCommand::Pause { ids } => (ids, SandboxVerb::Pause),
        SandboxCommand::Resume { ids } => (ids, SandboxVerb::Resume),
        SandboxCommand::Save { ids } => (ids, SandboxVerb::Save),
        SandboxCommand::Restore { ids } => (ids, SandboxVerb::Restore),
        SandboxCommand::DropSaved { ids } => (ids, SandboxVerb::DropSaved),
        SandboxCommand::Autostart { state, ids } => {
            let enabled = state == Switch::On;
            (ids, SandboxVerb::Autostart { enabled })
        }
        SandboxCommand::Set { ids, cpus, memory } => {
            let memory_bytes = memory;
            (ids, SandboxVerb::Set { cpus, memory_bytes })
        }
    };
    CommandPlan::Run(operations(ids, verb))
}

/// Asks the operator to type the ids of the sandboxes to destroy.
///
/// # Errors
/// `InvalidInput` without a terminal; `Cancelled` without the ids.
pub(super) fn confirm_destroy(operations: &[Operation]) -> Result<()> {
    let ids: Vec<&str> = operations.iter().map(Operation::subject).collect();
    let ids = ids.join(" ");
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("cannot ask for confirmation to destroy {ids} without a terminal"),
        )
        .hint("pass --yes to destroy without asking"));
    }
    let host = operations.iter().find_map(Operation::host);
    let on_host = host.map(|host| format!(" on {host}")).unwrap_or_default();
    let answer = prompt(&format!(
        "This destroys {ids}{on_host} with disk, UEFI variables and saved state.\nType {ids} to confirm: "
    ))?;
    match answer.split_whitespace().eq(ids.split(' ')) {
        true => Ok(()),
        false => Err(Error::cancelled(format!("destroying {ids}"))
            .with_cause("not confirmed; nothing was destroyed")),
    }
}

/// `snapdeck sandbox show`.
pub(super) async fn show(
    engine: &Engine,
    host: &HostName,
    id: &SandboxId,
) -> Result<CommandOutput> {
    let sandbox = engine.sandbox(host, id).await?;
    let mut document = serde_json::to_value(&sandbox).unwrap_or_default();
    document["host"] = json!(host);
    CommandOutput::new(&document, describe_sandbox(host, &sandbox))
}

/// `snapdeck sandbox xml`.
pub(super) async fn domain_xml(
    engine: &Engine,
    host: &HostName,
    id: &SandboxId,
) -> Result<CommandOutput> {
    let xml = engine.domain_xml(host, id).await?;
    let document = json!({"host": host, "id": id, "xml": xml});
    CommandOutput::new(&document, format!("{}\n", xml.trim_end()))
}

fn describe_sandbox(host: &HostName, sandbox: &Sandbox) -> String {
    let mut text = format!("{}\n", sandbox.id);
    let mut line = |key: &str, value: &str| text += &format_field(key, 13, value);
    line("host", host.as_str());
    line("state", sandbox.state.label());
    line("cpus", &sandbox.cpus.to_string());
    line("memory", &format_size(sandbox.memory_bytes));
    line("autostart", if sandbox.autostart { "on" } else { "off" });
    if let Some(facts) = sandbox.chain.first().and_then(|link| link.facts.as_ref()) {
        line("disk", &format_size(facts.virtual_size));
    }
    for (depth, link) in sandbox.chain.iter().enumerate() {
        let size = link.size_bytes.map_or_else(
            || "missing".to_owned(),
            |bytes| format!("{} on disk", format_size(bytes)),
        );
        let key = if depth == 0 { "overlay" } else { "base" };
        line(key, &format!("{} ({size})", link.path));
    }
    if let Some(variables) = &sandbox.variables {
        line("variables", variables);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_need_a_unit() {
        for (text, expected) in [
            ("512M", 512 << 20),
            ("4G", 4 << 30),
            ("4gib", 4 << 30),
            ("1T", 1 << 40),
            ("64K", 64 << 10),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for text in ["", "4", "4 G", "G", "0G", "-1G", "4.5G", "4GB", "99999999T"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }
}
