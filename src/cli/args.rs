//! Definition of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand};

use super::annotate::{NoteArgs, PinArgs};
use super::init::InitArgs;
use super::prune::PruneArgs;
use super::sandbox::SandboxCommand;
use snapdeck_model::{HostName, SandboxId, SnapshotName};
use snapdeck_settings::Flags;

/// Console and command line for Windows VM sandboxes, their snapshots and an S3 bucket.
///
/// Without a command it opens the console.
#[derive(Debug, Parser)]
#[command(name = "snapdeck", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 success, 2 invalid usage or input, 3 not found, 4 conflict (state, in \
    use, exists), 5 host or bucket unreachable, 130 cancelled, 1 anything else."
)]
pub struct Cli {
    /// The command; without one the console opens.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of the console.
    #[command(flatten)]
    pub console: ConsoleFlags,
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalFlags,
}

/// Flags of the console.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ConsoleFlags {
    /// Disable all actions that change hosts or the bucket
    #[arg(long)]
    pub read_only: bool,
    /// Plain text for screen readers and simple terminals: no borders or graphs, ASCII only
    #[arg(long)]
    pub plain: bool,
}

/// Flags that are accepted before or after any command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalFlags {
    /// Print exactly one JSON document on stdout, also for an error
    #[arg(long, global = true)]
    pub json: bool,
    /// Work on this host; required where several are configured. Repeat it for listings, pull
    /// and doctor
    #[arg(long, global = true, value_name = "NAME")]
    pub host: Vec<HostName>,
    /// Log more to stderr; -vv for debug output
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Settings file to read instead of the user's config.toml [env: SNAPDECK_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// libvirt URI: work on this host alone [env: LIBVIRT_URI]
    #[arg(long, global = true, value_name = "URI")]
    pub uri: Option<String>,
    /// The bucket's name [env: AWS_DEFAULT_BUCKET]
    #[arg(long, global = true, value_name = "NAME")]
    pub bucket_name: Option<String>,
    /// Key prefix of all snapshots in the bucket
    #[arg(long, global = true, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The bucket's region [env: AWS_REGION]
    #[arg(long, global = true, value_name = "REGION")]
    pub region: Option<String>,
}

impl GlobalFlags {
    /// Returns the flags that override settings.
    pub fn flags(&self) -> Flags {
        Flags {
            config: self.config.clone(),
            uri: self.uri.clone(),
            bucket: self.bucket_name.clone(),
            prefix: self.prefix.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
        }
    }
}

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Listen on this address
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// File with the bearer token of callers [env: SNAPDECK_API_TOKEN, the token itself]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Serve every caller on a loopback address, without a token
    #[arg(long, conflicts_with = "token_file")]
    pub insecure_no_auth: bool,
    /// Use TLS with this certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve GET /metrics without a token
    #[arg(long)]
    pub public_metrics: bool,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// List sandboxes
    Sandboxes {
        /// Also list domains that snapdeck does not manage
        #[arg(long)]
        all: bool,
    },
    /// List the snapshots on the hosts
    Snapshots {
        /// List instead the partial files of interrupted and running pulls
        #[arg(long)]
        partial: bool,
    },
    /// List the snapshots in the bucket
    Objects,
    /// Create, run and destroy sandboxes
    Sandbox {
        /// The command
        #[command(subcommand)]
        command: SandboxCommand,
    },
    /// Create a snapshot of a sandbox in any state and upload it; pauses a running guest briefly
    Create {
        /// The sandbox
        sandbox: SandboxId,
        /// The new snapshot's name
        name: SnapshotName,
        /// Do not pause the guest; the image may be inconsistent
        #[arg(long)]
        live: bool,
        /// Replace an object of that name
        #[arg(long)]
        overwrite: bool,
        /// Rewrite the whole image without deleted data
        #[arg(long)]
        compact: bool,
    },
    /// Upload the disk of a stopped or paused sandbox as a snapshot
    Push {
        /// The sandbox
        sandbox: SandboxId,
        /// The new snapshot's name
        name: SnapshotName,
        /// Replace an object of that name
        #[arg(long)]
        overwrite: bool,
        /// Rewrite the whole image without deleted data
        #[arg(long)]
        compact: bool,
        /// Dry run: show what would be copied and uploaded, and why
        #[arg(long)]
        plan: bool,
    },
    /// Download a snapshot from the bucket to a host, or to several at once
    Pull {
        /// The snapshot
        name: SnapshotName,
        /// Pull to every configured host
        #[arg(long)]
        all_hosts: bool,
        /// Download again even where a valid copy exists
        #[arg(long)]
        overwrite: bool,
    },
    /// Upload a snapshot of a host to the bucket, under its own name
    ///
    /// With its UEFI variables, lineage, note, labels and pin. Parts that the bucket has already are copied by the
    /// store; an object of that name is kept unless --overwrite is given. An interrupted upload is continued by the next one
    /// within 7 days.
    Upload {
        /// The snapshot
        name: SnapshotName,
        /// Replace an object of that name
        #[arg(long)]
        overwrite: bool,
    },
    /// Copy a snapshot of one host to others, without the bucket
    ///
    /// With its UEFI variables, lineage, note and labels. Blocks that a host has already are taken there; an interrupted
    /// copy is resumed.
    Copy {
        /// The snapshot
        name: SnapshotName,
        /// The host that has it
        #[arg(long, value_name = "HOST")]
        from: HostName,
        /// The hosts that receive it, separated by commas
        #[arg(long, value_name = "HOST", value_delimiter = ',', required = true)]
        to: Vec<HostName>,
        /// Copy again even where a valid copy exists
        #[arg(long)]
        overwrite: bool,
    },
    /// Read a snapshot and check every block; exit code 1 if one is bad
    Verify {
        /// The snapshot
        name: SnapshotName,
        /// Verify the object in the bucket
        #[arg(long)]
        bucket: bool,
        /// Verify the snapshot on the host (the default)
        #[arg(long, conflicts_with = "bucket")]
        local: bool,
        /// Download bad blocks of the host's snapshot from the bucket
        #[arg(long, conflicts_with = "bucket")]
        repair: bool,
    },
    /// Record the digests of a snapshot that snapdeck has not written
    ///
    /// With its digests in a manifest, pushes need not upload it, and verify can check its blocks. The file is read on its host.
    /// create, push and verify do it for a snapshot without a manifest.
    Adopt {
        /// The snapshot
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        name: Option<SnapshotName>,
        /// Adopt every snapshot without a manifest, on all hosts or those given with --host
        #[arg(long)]
        all: bool,
        /// Adopt the object in the bucket: it is downloaded once and not kept
        #[arg(long)]
        bucket: bool,
    },
    /// Remove a snapshot from a host, from the bucket, or both
    #[command(group = ArgGroup::new("place").required(true).multiple(true).args(["local", "bucket"]))]
    Remove {
        /// The snapshot
        name: SnapshotName,
        /// Remove it from the host
        #[arg(long)]
        local: bool,
        /// Remove it from the bucket
        #[arg(long)]
        bucket: bool,
    },
    /// Show or edit a snapshot's note and labels
    ///
    /// Applies to all hosts, or those given with --host, and to the bucket.
    Note(NoteArgs),
    /// Pin a snapshot: it is neither removed, pruned nor overwritten
    Pin(PinArgs),
    /// Unpin a snapshot
    Unpin(PinArgs),
    /// Remove old or unused snapshots and leftovers of interrupted jobs
    ///
    /// Removes snapshots that match all given conditions, on all hosts and in the bucket. Never removes a snapshot that
    /// is in use, pinned, the last good copy of one in use, or possibly needed by a host that cannot be read.
    Prune(PruneArgs),
    /// Check whether a snapshot is on the host; exit code 0 if it is, 3 if not
    Exists {
        /// The snapshot
        name: SnapshotName,
    },
    /// Show details of a snapshot on the host and in the bucket
    Info {
        /// The snapshot
        name: SnapshotName,
    },
    /// Print the manifest of a snapshot: lineage, digests of its blocks, annotations
    Manifest {
        /// The snapshot
        name: SnapshotName,
        /// That of the object in the bucket
        #[arg(long)]
        bucket: bool,
    },
    /// Serve the HTTP API of one host until SIGTERM or Ctrl-C
    ///
    /// Callers send Authorization: Bearer TOKEN, with the token of --token-file or SNAPDECK_API_TOKEN. At the end, pulls
    /// of new snapshots, pushes and uploads of new objects and adoptions stop and are resumed at the next start; others are
    /// cancelled.
    Serve(ServeArgs),
    /// Ask for hosts and bucket, check them, and write a settings file
    ///
    /// Finds libvirt on this machine, the hosts of ~/.ssh/config and the AWS profiles. --host (local or an SSH host), --uri,
    /// --bucket-name, --prefix, --endpoint and --region replace what is proposed. An existing file is never replaced, and no
    /// secret is written: keys come from the environment or an AWS profile.
    Init(InitArgs),
    /// Check hosts and bucket; print a fix for each problem
    ///
    /// With --host only these hosts. Run each command on the host it is listed under.
    Doctor,
    /// Print the effective settings and the origin of each, secrets masked
    Config,
    /// Run the console against a throwaway demo environment
    #[cfg(feature = "demo")]
    Demo(ConsoleFlags),
}
