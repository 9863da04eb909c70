//! The command line: the engine's operations and questions, one a run.

mod annotate;
mod args;
mod doctor;
pub mod exit;
mod job;
mod list;
pub mod output;
mod progress;
mod prune;
mod sandbox;
mod snapshot;

pub use annotate::{AnnotationRequest, LocationFlags, NoteArgs, PinArgs};
pub use args::{Cli, Command, ConsoleFlags, GlobalFlags, ServeArgs};
pub use job::StopSignals;
pub use output::CommandOutput;
pub use prune::{Confirmation, PruneArgs};
pub use sandbox::{NewSandboxArgs, SandboxCommand};

use snapdeck_engine::{Engine, PruneRequest};
use snapdeck_model::settings::Settings;
use snapdeck_model::{Error, HostName, Kind, Operation, Result, SandboxId, SnapshotName};

/// What a command means under the settings in force, before anything was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandPlan {
    /// List the sandboxes of these hosts, and their other guests where `all` is asked for.
    Sandboxes {
        /// The hosts.
        hosts: Vec<HostName>,
        /// Other guests, too?
        all: bool,
    },
    /// List the snapshots of these hosts.
    Snapshots(Vec<HostName>),
    /// List the bucket.
    Objects,
    /// Is it there?
    Exists(HostName, SnapshotName),
    /// What is it?
    Info(HostName, SnapshotName),
    /// What would a push do?
    PushPlan {
        /// Where the sandbox is.
        host: HostName,
        /// The sandbox.
        sandbox: SandboxId,
        /// Name of the new object.
        name: SnapshotName,
        /// Write the image anew.
        is_compact: bool,
    },
    /// What is this sandbox?
    ShowSandbox(HostName, SandboxId),
    /// Examine these hosts, and perhaps the bucket.
    Doctor {
        /// The hosts.
        hosts: Vec<HostName>,
        /// The bucket, too?
        includes_bucket: bool,
    },
    /// Tell or change what is said of a snapshot.
    Annotate(AnnotationRequest),
    /// Find what may go, and with consent remove it.
    Prune(PruneRequest, Confirmation),
    /// Run these as jobs, at the same time.
    Run(Vec<Operation>),
    /// The same, once the operator has typed the names of what it destroys.
    ConfirmAndRun(Vec<Operation>),
    /// Run these as jobs, one after the other; the last one's outcome is the answer.
    RunInOrder(Vec<Operation>),
}

/// Finds the hosts and puts the operations together. `None` for the commands that need no engine.
///
/// # Errors
/// `InvalidInput` for a host that is not in the settings, or where one must be named, or too many are.
pub fn plan(
    command: Command,
    named: &[HostName],
    settings: &Settings,
) -> Result<Option<CommandPlan>> {
    check_known_hosts(named, settings)?;
    let known = || settings.hosts.iter().map(|host| &host.name);
    let hosts = || match named {
        [] => known().cloned().collect(),
        named => dedup_hosts(named),
    };
    let one = || select_host(named, settings);
    Ok(Some(match command {
        Command::Sandboxes { all } => CommandPlan::Sandboxes {
            hosts: hosts(),
            all,
        },
        Command::Sandbox { command } => sandbox::plan(command, one()?),
        Command::Snapshots => CommandPlan::Snapshots(hosts()),
        Command::Objects => CommandPlan::Objects,
        Command::Doctor => CommandPlan::Doctor {
            hosts: hosts(),
            includes_bucket: named.is_empty(),
        },
        Command::Exists { name } => CommandPlan::Exists(one()?, name),
        Command::Info { name } => CommandPlan::Info(one()?, name),
        Command::Create {
            sandbox,
            name,
            live,
            overwrite,
            compact,
        } => run_single(Operation::Create {
            host: one()?,
            sandbox,
            name,
            live,
            overwrite,
            compact,
        }),
        Command::Push {
            sandbox,
            name,
            compact,
            plan: true,
            ..
        } => CommandPlan::PushPlan {
            host: one()?,
            sandbox,
            name,
            is_compact: compact,
        },
        Command::Push {
            sandbox,
            name,
            overwrite,
            compact,
            plan: false,
        } => run_single(Operation::Push {
            host: one()?,
            sandbox,
            name,
            overwrite,
            compact,
        }),
        Command::Pull {
            name,
            all_hosts,
            overwrite,
        } => {
            let to = match (all_hosts, named) {
                (false, [] | [_]) => vec![one()?],
                (true, [_, ..]) => {
                    return Err(Error::new(
                        Kind::InvalidInput,
                        "--all-hosts and --host exclude each other",
                    )
                    .hint("give one of the two"));
                }
                _ => hosts(),
            };
            let pull = |host| Operation::Pull {
                host,
                name: name.clone(),
                overwrite,
            };
            CommandPlan::Run(to.into_iter().map(pull).collect())
        }
        Command::Verify {
            name,
            bucket,
            repair,
            ..
        } => run_single(Operation::Verify {
            host: (!bucket).then(one).transpose()?,
            name,
            repair,
        }),
        Command::Remove {
            name,
            local,
            bucket,
        } => run_single(Operation::Remove {
            host: local.then(one).transpose()?,
            name,
            from_bucket: bucket,
            expected_identity: None,
        }),
        Command::Note(note) => note.plan(hosts()),
        Command::Pin(pin) => pin.plan(true, hosts()),
        Command::Unpin(pin) => pin.plan(false, hosts()),
        Command::Prune(prune) => prune.plan(dedup_hosts(named), hosts(), settings),
        #[cfg(feature = "demo")]
        Command::Demo(_) => return Ok(None),
        Command::Config | Command::Serve(_) => return Ok(None),
    }))
}

/// The one host that is meant: the named one, or the only one.
///
/// # Errors
/// `InvalidInput` for a host that is not in the settings, where one must be named, and where too many are.
pub fn select_host(named: &[HostName], settings: &Settings) -> Result<HostName> {
    check_known_hosts(named, settings)?;
    match (dedup_hosts(named).as_slice(), settings.hosts.as_slice()) {
        ([name], _) => Ok(name.clone()),
        ([], [only]) => Ok(only.name.clone()),
        ([], hosts) => Err(Error::new(
            Kind::InvalidInput,
            format!("{} hosts are configured: choose one", hosts.len()),
        )
        .hint(format!(
            "name one with --host: {}",
            join_host_names(settings)
        ))),
        (several, _) => Err(Error::new(
            Kind::InvalidInput,
            format!(
                "this command works on one host, but {} are given",
                several.len()
            ),
        )
        .hint("run it once per host; pull, listings and doctor accept several")),
    }
}

fn check_known_hosts(named: &[HostName], settings: &Settings) -> Result<()> {
    let is_known = |name: &HostName| settings.hosts.iter().any(|host| host.name == *name);
    match named.iter().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(
            Error::new(Kind::InvalidInput, format!("host {name} is not configured"))
                .hint(format!("known hosts: {}", join_host_names(settings))),
        ),
    }
}

fn run_single(operation: Operation) -> CommandPlan {
    CommandPlan::Run(vec![operation])
}

/// Named twice is named once.
fn dedup_hosts(named: &[HostName]) -> Vec<HostName> {
    let mut hosts: Vec<HostName> = Vec::new();
    for name in named {
        if !hosts.contains(name) {
            hosts.push(name.clone());
        }
    }
    hosts
}

fn join_host_names(settings: &Settings) -> String {
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
pub async fn run(engine: &Engine, plan: CommandPlan, verbose: bool) -> Result<CommandOutput> {
    match plan {
        CommandPlan::Sandboxes { hosts, all: false } => list::sandboxes(engine, &hosts).await,
        CommandPlan::Sandboxes { hosts, all: true } => list::guests(engine, &hosts).await,
        CommandPlan::Snapshots(hosts) => list::snapshots(engine, &hosts).await,
        CommandPlan::Objects => list::objects(engine).await,
        CommandPlan::Exists(host, name) => snapshot::exists(engine, &host, &name).await,
        CommandPlan::Info(host, name) => snapshot::info(engine, &host, &name).await,
        CommandPlan::PushPlan {
            host,
            sandbox,
            name,
            is_compact: compact,
        } => snapshot::show_push_plan(engine, &host, &sandbox, &name, compact).await,
        CommandPlan::ShowSandbox(host, id) => sandbox::show(engine, &host, &id).await,
        CommandPlan::Doctor {
            hosts,
            includes_bucket: bucket,
        } => doctor::run(engine, &hosts, bucket).await,
        CommandPlan::Annotate(saying) => annotate::run(engine, saying).await,
        CommandPlan::Prune(pruning, consent) => {
            prune::run(engine, &pruning, consent, verbose).await
        }
        CommandPlan::Run(operations) => job::run(engine, operations, verbose).await,
        CommandPlan::ConfirmAndRun(operations) => {
            sandbox::confirm_destroy(&operations)?;
            job::run(engine, operations, verbose).await
        }
        CommandPlan::RunInOrder(operations) => job::run_chain(engine, operations, verbose).await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    fn planned(args: &[&str], hosts: usize) -> Result<Option<CommandPlan>> {
        let mut settings = snapdeck_settings::load(&Default::default(), &|_| None, None)
            .unwrap()
            .settings;
        let local = settings.hosts[0].clone();
        settings.hosts = (0..hosts).map(|_| local.clone()).collect();
        for (host, name) in settings.hosts.iter_mut().zip(["alpha", "beta"]) {
            host.name = name.parse().unwrap();
        }
        let cli = Cli::try_parse_from(["snapdeck"].iter().chain(args)).unwrap();
        plan(cli.command.unwrap(), &cli.global.host, &settings)
    }

    fn pulls(hosts: &[&str]) -> CommandPlan {
        let pull = |host: &&str| Operation::Pull {
            host: host.parse().unwrap(),
            name: "x".parse().unwrap(),
            overwrite: false,
        };
        CommandPlan::Run(hosts.iter().map(pull).collect())
    }

    #[test]
    fn a_pull_takes_several_hosts_and_most_commands_do_not() {
        let named = ["--host", "beta", "--host", "alpha", "--host", "beta"];
        let with = |args: &[&'static str]| planned(&[args, &named].concat(), 2);
        assert_eq!(with(&["pull", "x"]), Ok(Some(pulls(&["beta", "alpha"]))));
        assert_eq!(
            planned(&["pull", "x", "--all-hosts"], 2),
            Ok(Some(pulls(&["alpha", "beta"])))
        );
        assert_eq!(
            planned(&["pull", "x", "--all-hosts"], 1),
            Ok(Some(pulls(&["alpha"])))
        );
        let named = vec!["beta".parse().unwrap(), "alpha".parse().unwrap()];
        assert_eq!(
            with(&["snapshots"]),
            Ok(Some(CommandPlan::Snapshots(named)))
        );
        for args in [
            &["pull", "x", "--all-hosts"][..],
            &["push", "a", "x"],
            &["exists", "x"],
            &["remove", "x", "--local"],
        ] {
            assert_eq!(
                with(args).unwrap_err().kind(),
                Kind::InvalidInput,
                "{args:?}"
            );
        }
    }

    #[test]
    fn one_host_needs_no_name_and_several_do() {
        let pull = |host: &str| Ok(Some(pulls(&[host])));
        assert_eq!(planned(&["pull", "x.qcow2"], 1), pull("alpha"));
        assert_eq!(planned(&["pull", "x", "--host", "beta"], 2), pull("beta"));
        assert_eq!(
            planned(&["pull", "x"], 2).unwrap_err().kind(),
            Kind::InvalidInput
        );
    }

    #[test]
    fn listings_ask_every_host_and_the_bucket_alone_needs_none() {
        let both = vec!["alpha".parse().unwrap(), "beta".parse().unwrap()];
        assert_eq!(
            planned(&["sandboxes"], 2),
            Ok(Some(CommandPlan::Sandboxes {
                hosts: both,
                all: false
            }))
        );
        let remove = Operation::Remove {
            host: None,
            name: "x".parse().unwrap(),
            from_bucket: true,
            expected_identity: None,
        };
        assert_eq!(
            planned(&["remove", "x", "--bucket"], 2),
            Ok(Some(run_single(remove)))
        );
        assert!(planned(&["remove", "x", "--bucket", "--local"], 2).is_err());
    }
}
