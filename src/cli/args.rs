//! The command line's form.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand};

use super::annotate::{NoteArgs, PinArgs};
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
    after_help = "Exit codes: 0 done, 2 bad usage or input, 3 not found, 4 refused (state, in use, \
    exists), 5 host or bucket out of reach, 130 cancelled, 1 anything else."
)]
pub struct Cli {
    /// What to do; nothing: the console.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What holds for the console.
    #[command(flatten)]
    pub console: ConsoleFlags,
    /// What holds for every command.
    #[command(flatten)]
    pub global: GlobalFlags,
}

/// How the console is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ConsoleFlags {
    /// The console changes nothing: it shows, and refuses everything else
    #[arg(long)]
    pub read_only: bool,
    /// Lines of plain text, for screen readers and poor terminals: no borders, no graphs, ASCII signs
    #[arg(long)]
    pub plain: bool,
}

/// Flags that stand before or behind any command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct GlobalFlags {
    /// Print exactly one JSON document on stdout, also for an error
    #[arg(long, global = true)]
    pub json: bool,
    /// The host to work on; needed where there are several. A pull, listings and doctor take more than
    /// one
    #[arg(long, global = true, value_name = "NAME")]
    pub host: Vec<HostName>,
    /// Tell more on stderr; twice for still more
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
    /// What the keys of all snapshots in the bucket begin with
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
    /// The flags that are settings.
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

/// How the API is offered.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// File with the token that callers show [env: SNAPDECK_API_TOKEN, the token itself]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Serve everybody who reaches a loopback address, without a token
    #[arg(long, conflicts_with = "token_file")]
    pub insecure_no_auth: bool,
    /// Offer TLS with this certificate (PEM, with those that vouch for it)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// List sandboxes
    Sandboxes {
        /// Show the hosts' other guests, too, which snapdeck leaves alone
        #[arg(long)]
        all: bool,
    },
    /// List the snapshots on the hosts
    Snapshots,
    /// List the snapshots in the bucket
    Objects,
    /// Make, run and destroy sandboxes
    Sandbox {
        /// What to do
        #[command(subcommand)]
        command: SandboxCommand,
    },
    /// Cut a snapshot from a sandbox in any state and upload it; a running guest is paused for a moment
    Create {
        /// The sandbox
        sandbox: SandboxId,
        /// The new snapshot's name
        name: SnapshotName,
        /// Do not pause the guest: the image is only as consistent as after a power cut, or less
        #[arg(long)]
        live: bool,
        /// Replace an object of that name
        #[arg(long)]
        overwrite: bool,
        /// Write the image anew, without what was deleted
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
        /// Write the image anew, without what was deleted
        #[arg(long)]
        compact: bool,
        /// Say what would be copied and what uploaded, and why, and move nothing
        #[arg(long)]
        plan: bool,
    },
    /// Download a snapshot from the bucket to a host, or to several at once
    Pull {
        /// The snapshot
        name: SnapshotName,
        /// Pull it to every host of the settings
        #[arg(long)]
        all_hosts: bool,
        /// Fetch it again even where a valid copy is there
        #[arg(long)]
        overwrite: bool,
    },
    /// Read a snapshot again and check every block of it; exit code 1 where one is bad
    Verify {
        /// The snapshot
        name: SnapshotName,
        /// The one in the bucket
        #[arg(long)]
        bucket: bool,
        /// The one on the host (so it is where nothing is said)
        #[arg(long, conflicts_with = "bucket")]
        local: bool,
        /// Fetch bad blocks of the one on the host from the bucket
        #[arg(long, conflicts_with = "bucket")]
        repair: bool,
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
    /// Tell what is said of a snapshot, or say it: a note, labels
    ///
    /// Wherever it is: on all hosts, or those named, and in the bucket.
    Note(NoteArgs),
    /// Keep a snapshot from remove and prune, wherever it is
    Pin(PinArgs),
    /// Take the pin away
    Unpin(PinArgs),
    /// Remove what is old or not used, and what was left behind
    ///
    /// What meets all conditions goes, on all hosts and in the bucket. What sandboxes stand on stays, what is pinned,
    /// and what may be needed by what could not be looked at.
    Prune(PruneArgs),
    /// Is a snapshot on the host? Exit code 0 where it is, 3 where it is not
    Exists {
        /// The snapshot
        name: SnapshotName,
    },
    /// Show what is known of a snapshot, on the host and in the bucket
    Info {
        /// The snapshot
        name: SnapshotName,
    },
    /// Offer the HTTP API of one host, until SIGTERM or Ctrl-C
    ///
    /// Callers show a token: Authorization: Bearer TOKEN. It is that of --token-file or SNAPDECK_API_TOKEN. Jobs that
    /// run at the end go on at the next start.
    Serve(ServeArgs),
    /// Examine the hosts and the bucket: what an operation will need, and the command that mends what is wrong
    ///
    /// With --host these hosts alone. Commands are to be run on the host they stand under.
    Doctor,
    /// Print the settings in force and where each came from, secrets masked
    Config,
    /// Open the console on a small world of its own: needs no setup, touches nothing else
    #[cfg(feature = "demo")]
    Demo(ConsoleFlags),
}
