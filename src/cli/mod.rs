//! The command line: the engine's operations and questions, one a run.

mod args;
mod ask;
pub mod exit;
mod job;
mod list;
mod meter;
pub mod output;

pub use args::{Cli, Command, Global};
pub use output::Answer;

use crate::engine::Engine;
use crate::model::settings::Settings;
use crate::model::{Error, HostName, Kind, Operation, Result, SnapshotName};

/// What a command means under the settings in force, before anything was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// List the sandboxes of these hosts.
    Sandboxes(Vec<HostName>),
    /// List the snapshots of these hosts.
    Snapshots(Vec<HostName>),
    /// List the bucket.
    Objects,
    /// Is it there?
    Exists(HostName, SnapshotName),
    /// What is it?
    Info(HostName, SnapshotName),
    /// Run a job.
    Run(Operation),
}

/// Finds the hosts and puts the operation together. `None` for the commands that need no engine.
///
/// # Errors
/// `BadInput` for a host that is not in the settings, or where one must be named.
pub fn plan(
    command: Command,
    host: Option<&HostName>,
    settings: &Settings,
) -> Result<Option<Plan>> {
    let known = || settings.hosts.iter().map(|host| &host.name);
    if let Some(name) = host.filter(|name| !known().any(|known| known == *name)) {
        return Err(Error::new(
            Kind::BadInput,
            format!("there is no host {name} in the settings"),
        )
        .hint(format!("known hosts: {}", names(settings))));
    }
    let several = || match host {
        Some(name) => vec![name.clone()],
        None => known().cloned().collect(),
    };
    let one = || match (host, settings.hosts.as_slice()) {
        (Some(name), _) => Ok(name.clone()),
        (None, [only]) => Ok(only.name.clone()),
        (None, hosts) => Err(Error::new(
            Kind::BadInput,
            format!("there are {} hosts and none is named", hosts.len()),
        )
        .hint(format!("name one with --host: {}", names(settings)))),
    };
    Ok(Some(match command {
        Command::Sandboxes => Plan::Sandboxes(several()),
        Command::Snapshots => Plan::Snapshots(several()),
        Command::Objects => Plan::Objects,
        Command::Exists { name } => Plan::Exists(one()?, name),
        Command::Info { name } => Plan::Info(one()?, name),
        Command::Create {
            sandbox,
            name,
            live,
            overwrite,
        } => Plan::Run(Operation::Create {
            host: one()?,
            sandbox,
            name,
            live,
            overwrite,
        }),
        Command::Push {
            sandbox,
            name,
            overwrite,
        } => Plan::Run(Operation::Push {
            host: one()?,
            sandbox,
            name,
            overwrite,
        }),
        Command::Pull { name, overwrite } => Plan::Run(Operation::Pull {
            host: one()?,
            name,
            overwrite,
        }),
        Command::Remove {
            name,
            local,
            bucket,
        } => Plan::Run(Operation::Remove {
            host: local.then(one).transpose()?,
            name,
            bucket,
        }),
        Command::Config | Command::Demo => return Ok(None),
    }))
}

fn names(settings: &Settings) -> String {
    let names: Vec<&str> = settings
        .hosts
        .iter()
        .map(|host| host.name.as_str())
        .collect();
    names.join(", ")
}

/// Does what was planned. Progress and warnings go to stderr; nothing is written to stdout.
///
/// # Errors
/// The operation's or the question's own.
pub async fn run(engine: &Engine, plan: Plan, verbose: bool) -> Result<Answer> {
    match plan {
        Plan::Sandboxes(hosts) => list::sandboxes(engine, &hosts).await,
        Plan::Snapshots(hosts) => list::snapshots(engine, &hosts).await,
        Plan::Objects => list::objects(engine).await,
        Plan::Exists(host, name) => ask::exists(engine, &host, &name).await,
        Plan::Info(host, name) => ask::info(engine, &host, &name).await,
        Plan::Run(operation) => job::run(engine, operation, verbose).await,
    }
}
