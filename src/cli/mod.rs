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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    fn planned(args: &[&str], hosts: usize) -> Result<Option<Plan>> {
        let mut settings = crate::settings::load(&Default::default(), &|_| None, None)
            .unwrap()
            .settings;
        let local = settings.hosts[0].clone();
        settings.hosts = (0..hosts).map(|_| local.clone()).collect();
        for (host, name) in settings.hosts.iter_mut().zip(["alpha", "beta"]) {
            host.name = name.parse().unwrap();
        }
        let cli = Cli::try_parse_from(["snapdeck"].iter().chain(args)).unwrap();
        plan(cli.command.unwrap(), cli.global.host.as_ref(), &settings)
    }

    #[test]
    fn one_host_needs_no_name_and_several_do() {
        let pull = |host: &str| {
            Ok(Some(Plan::Run(Operation::Pull {
                host: host.parse()?,
                name: "x".parse()?,
                overwrite: false,
            })))
        };
        assert_eq!(planned(&["pull", "x.qcow2"], 1), pull("alpha"));
        assert_eq!(planned(&["pull", "x", "--host", "beta"], 2), pull("beta"));
        assert_eq!(
            planned(&["pull", "x"], 2).unwrap_err().kind(),
            Kind::BadInput
        );
    }

    #[test]
    fn listings_ask_every_host_and_the_bucket_alone_needs_none() {
        let both = vec!["alpha".parse().unwrap(), "beta".parse().unwrap()];
        assert_eq!(planned(&["sandboxes"], 2), Ok(Some(Plan::Sandboxes(both))));
        let remove = Operation::Remove {
            host: None,
            name: "x".parse().unwrap(),
            bucket: true,
        };
        assert_eq!(
            planned(&["remove", "x", "--bucket"], 2),
            Ok(Some(Plan::Run(remove)))
        );
        assert!(planned(&["remove", "x", "--bucket", "--local"], 2).is_err());
    }
}
