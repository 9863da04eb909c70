//! The command line.

mod adopt;
mod annotate;
mod args;
mod doctor;
pub mod exit;
mod init;
mod job;
mod list;
pub mod output;
mod progress;
mod prune;
mod sandbox;
mod snapshot;

pub use annotate::{AnnotationRequest, LocationFlags, NoteArgs, PinArgs};
pub use args::{Cli, Command, ConsoleFlags, GlobalFlags, ServeArgs};
pub use init::{InitArgs, init};
pub use job::StopSignals;
pub use output::CommandOutput;
pub use prune::{Confirmation, PruneArgs};
pub use sandbox::{NewSandboxArgs, SandboxCommand, Switch};

use snapdeck_engine::{Engine, PruneRequest};
use snapdeck_model::settings::Settings;
use snapdeck_model::{Error, HostName, Kind, Operation, Result, SandboxId, SnapshotName};

/// A command with its hosts and operations, before any connection is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandPlan {
    /// List sandboxes.
    Sandboxes {
        /// The hosts.
        hosts: Vec<HostName>,
        /// Whether to list domains that are not sandboxes.
        all: bool,
    },
    /// List the snapshots of hosts.
    Snapshots(Vec<HostName>),
    /// List the partial files of pulls on hosts.
    PartialPulls(Vec<HostName>),
    /// List the objects in the bucket.
    Objects,
    /// Check whether a host has a snapshot.
    Exists(HostName, SnapshotName),
    /// Show a snapshot.
    Info(HostName, SnapshotName),
    /// Show what a push would do.
    PushPlan {
        /// The host.
        host: HostName,
        /// The sandbox.
        sandbox: SandboxId,
        /// Name of the new object.
        name: SnapshotName,
        /// Whether to rewrite the whole image.
        is_compact: bool,
    },
    /// Show a sandbox.
    ShowSandbox(HostName, SandboxId),
    /// Print the domain XML of a sandbox.
    DomainXml(HostName, SandboxId),
    /// Print the manifest of a snapshot; without a host, of the object in the bucket.
    Manifest(Option<HostName>, SnapshotName),
    /// Run health checks.
    Doctor {
        /// The hosts.
        hosts: Vec<HostName>,
        /// Whether to check the bucket.
        includes_bucket: bool,
    },
    /// Show or change annotations.
    Annotate(AnnotationRequest),
    /// Prune snapshots and leftovers.
    Prune(PruneRequest, Confirmation),
    /// Adopt all snapshots of hosts, or all objects in the bucket.
    AdoptAll {
        /// The hosts.
        hosts: Vec<HostName>,
        /// Whether to adopt the objects instead.
        is_bucket: bool,
    },
    /// Run jobs at the same time.
    Run(Vec<Operation>),
    /// Run jobs after the operator has confirmed what they destroy.
    ConfirmAndRun(Vec<Operation>),
    /// Run jobs one after the other; the output is that of the last one.
    RunInOrder(Vec<Operation>),
}

/// Returns the plan of a command; `None` for commands that need no engine. `named` are the hosts given with `--host`.
///
/// # Errors
/// `InvalidInput` for an unknown host, or if a command needs exactly one host.
pub fn plan(
    command: Command,
    named: &[HostName],
    settings: &Settings,
) -> Result<Option<CommandPlan>> {
    check_known_hosts(named, settings)?;
    let all_hosts = || settings.hosts.iter().map(|host| host.name.clone());
    let hosts = || match named {
        [] => all_hosts().collect(),
        named => dedup_hosts(named),
    };
    let host = || select_host(named, settings);
    Ok(Some(match command {
        Command::Sandboxes { all } => CommandPlan::Sandboxes {
            hosts: hosts(),
            all,
        },
        Command::Sandbox { command } => sandbox::plan(command, host()?),
        Command::Snapshots { partial: false } => CommandPlan::Snapshots(hosts()),
        Command::Snapshots { partial: true } => CommandPlan::PartialPulls(hosts()),
        Command::Objects => CommandPlan::Objects,
        Command::Doctor => CommandPlan::Doctor {
            hosts: hosts(),
            includes_bucket: named.is_empty(),
        },
        Command::Exists { name } => CommandPlan::Exists(host()?, name),
        Command::Info { name } => CommandPlan::Info(host()?, name),
        Command::Manifest { name, bucket } => {
            CommandPlan::Manifest((!bucket).then(host).transpose()?, name)
        }
        Command::Create {
            sandbox,
            name,
            live,
            overwrite,
            compact,
        } => run_single(Operation::Create {
            host: host()?,
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
            host: host()?,
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
            host: host()?,
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
            let targets = match (all_hosts, named) {
                (false, [] | [_]) => vec![host()?],
                (true, [_, ..]) => {
                    return Err(Error::new(
                        Kind::InvalidInput,
                        "--all-hosts conflicts with --host",
                    )
                    .hint("remove one of the two"));
                }
                _ => hosts(),
            };
            let pull = |host| Operation::Pull {
                host,
                name: name.clone(),
                overwrite,
            };
            CommandPlan::Run(targets.into_iter().map(pull).collect())
        }
        Command::Upload { name, overwrite } => run_single(Operation::Upload {
            host: host()?,
            name,
            overwrite,
        }),
        Command::Copy {
            name,
            from,
            to,
            overwrite,
        } => {
            if !named.is_empty() {
                return Err(Error::new(
                    Kind::InvalidInput,
                    "copy does not work on the hosts of --host",
                )
                .hint("name the hosts with --from and --to"));
            }
            check_known_hosts(&[std::slice::from_ref(&from), &to].concat(), settings)?;
            let copy = |host| Operation::Copy {
                from: from.clone(),
                host,
                name: name.clone(),
                overwrite,
            };
            CommandPlan::Run(dedup_hosts(&to).into_iter().map(copy).collect())
        }
        Command::Verify {
            name,
            bucket,
            repair,
            ..
        } => run_single(Operation::Verify {
            host: (!bucket).then(host).transpose()?,
            name,
            repair,
        }),
        Command::Adopt {
            name: Some(name),
            bucket,
            ..
        } => run_single(Operation::Adopt {
            host: (!bucket).then(host).transpose()?,
            name,
        }),
        Command::Adopt {
            name: None, bucket, ..
        } => CommandPlan::AdoptAll {
            hosts: hosts(),
            is_bucket: bucket,
        },
        Command::Remove {
            name,
            local,
            bucket,
        } => run_single(Operation::Remove {
            host: local.then(host).transpose()?,
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
        Command::Config | Command::Init(_) | Command::Serve(_) => return Ok(None),
    }))
}

/// Returns the host of a command that works on one host: the named or the only one.
///
/// # Errors
/// `InvalidInput` for an unknown host, or if none or several are named of several configured ones.
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
            Error::new(Kind::InvalidInput, format!("host {name} is not configured")).hint(format!(
                "use a configured host: {}",
                join_host_names(settings)
            )),
        ),
    }
}

fn run_single(operation: Operation) -> CommandPlan {
    CommandPlan::Run(vec![operation])
}

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

/// Runs a plan. Progress and warnings go to stderr; the output is returned.
///
/// # Errors
/// Those of the operations and queries.
pub async fn run(engine: &Engine, plan: CommandPlan, verbose: bool) -> Result<CommandOutput> {
    match plan {
        CommandPlan::Sandboxes { hosts, all: false } => list::sandboxes(engine, &hosts).await,
        CommandPlan::Sandboxes { hosts, all: true } => list::guests(engine, &hosts).await,
        CommandPlan::Snapshots(hosts) => list::snapshots(engine, &hosts).await,
        CommandPlan::PartialPulls(hosts) => list::partial_pulls(engine, &hosts).await,
        CommandPlan::Objects => list::objects(engine).await,
        CommandPlan::Exists(host, name) => snapshot::exists(engine, &host, &name).await,
        CommandPlan::Info(host, name) => snapshot::info(engine, &host, &name).await,
        CommandPlan::PushPlan {
            host,
            sandbox,
            name,
            is_compact,
        } => snapshot::show_push_plan(engine, &host, &sandbox, &name, is_compact).await,
        CommandPlan::ShowSandbox(host, id) => sandbox::show(engine, &host, &id).await,
        CommandPlan::DomainXml(host, id) => sandbox::domain_xml(engine, &host, &id).await,
        CommandPlan::Manifest(host, name) => snapshot::manifest(engine, host.as_ref(), &name).await,
        CommandPlan::Doctor {
            hosts,
            includes_bucket,
        } => doctor::run(engine, &hosts, includes_bucket).await,
        CommandPlan::Annotate(request) => annotate::run(engine, request).await,
        CommandPlan::Prune(request, confirmation) => {
            prune::run(engine, &request, confirmation, verbose).await
        }
        CommandPlan::AdoptAll { hosts, is_bucket } => {
            adopt::run_all(engine, &hosts, is_bucket, verbose).await
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

    fn plan_for(args: &[&str], hosts: usize) -> Result<Option<CommandPlan>> {
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
    fn only_some_commands_accept_several_hosts() {
        let named = ["--host", "beta", "--host", "alpha", "--host", "beta"];
        let plan_with_hosts = |args: &[&'static str]| plan_for(&[args, &named].concat(), 2);
        assert_eq!(
            plan_with_hosts(&["pull", "x"]),
            Ok(Some(pulls(&["beta", "alpha"])))
        );
        assert_eq!(
            plan_for(&["pull", "x", "--all-hosts"], 2),
            Ok(Some(pulls(&["alpha", "beta"])))
        );
        assert_eq!(
            plan_for(&["pull", "x", "--all-hosts"], 1),
            Ok(Some(pulls(&["alpha"])))
        );
        let named = vec!["beta".parse().unwrap(), "alpha".parse().unwrap()];
        assert_eq!(
            plan_with_hosts(&["snapshots"]),
            Ok(Some(CommandPlan::Snapshots(named)))
        );
        for args in [
            &["pull", "x", "--all-hosts"][..],
            &["push", "a", "x"],
            &["exists", "x"],
            &["remove", "x", "--local"],
        ] {
            assert_eq!(
                plan_with_hosts(args).unwrap_err().kind(),
                Kind::InvalidInput,
                "{args:?}"
            );
        }
    }

    #[test]
    fn the_only_host_needs_no_name() {
        let pull = |host: &str| Ok(Some(pulls(&[host])));
        assert_eq!(plan_for(&["pull", "x.qcow2"], 1), pull("alpha"));
        assert_eq!(plan_for(&["pull", "x", "--host", "beta"], 2), pull("beta"));
        assert_eq!(
            plan_for(&["pull", "x"], 2).unwrap_err().kind(),
            Kind::InvalidInput
        );
    }

    #[test]
    fn listings_use_all_hosts_and_bucket_operations_none() {
        let both = vec!["alpha".parse().unwrap(), "beta".parse().unwrap()];
        assert_eq!(
            plan_for(&["sandboxes"], 2),
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
            plan_for(&["remove", "x", "--bucket"], 2),
            Ok(Some(run_single(remove)))
        );
        assert!(plan_for(&["remove", "x", "--bucket", "--local"], 2).is_err());
    }
}
