//! The environment of one test: hosts of the lab with their own directories and sandboxes, and a prefix in the lab's
//! bucket. Everything is real and is removed when the test ends. `make test` starts the lab.
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod bucket;
mod files;
mod gate;
mod guest;
mod host;
pub(crate) mod hostile;
mod link;
mod opener;
mod preload;
mod process;
pub(crate) mod proxy;
pub(crate) mod screen;
pub(crate) mod servers;
mod ssh;
pub(crate) mod stores;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub(crate) use bucket::in_background;
pub(crate) use files::{exists, same_disk, sha256, stamp};
pub(crate) use gate::Gate;
pub(crate) use guest::{Guest, consistent_records};
pub(crate) use host::{Host, SmallDisk, State};
pub(crate) use link::{Direction, Fault, Link};
pub(crate) use opener::Opener;
pub(crate) use process::{
    CommandOutput, find_program, is_root, kill_with_watchdogs, output, process_tree, run, signal,
    wait_for_exit, wait_for_exit_within, wait_until,
};
pub(crate) use proxy::Faults;
use snapdeck_engine::Engine;
use snapdeck_model::settings::Settings;
use snapdeck_settings::{self, Flags};

pub(crate) fn lab(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests with `make test`"))
}

/// Returns whether this run uses hosts over SSH.
pub(crate) fn is_remote() -> bool {
    match std::env::var("SNAPDECK_TEST_HOST").as_deref() {
        Ok("remote") => true,
        Ok("local") | Err(_) => false,
        Ok(other) => panic!("SNAPDECK_TEST_HOST is {other:?}: local or remote?"),
    }
}

/// Returns whether the caller must return because it tests only a local host.
pub(crate) fn only_local(reason: &str) -> bool {
    if is_remote() {
        eprintln!("skipped on a host over SSH: {reason}");
    }
    is_remote()
}

/// The environment of one test. It dereferences to its first host.
pub(crate) struct World {
    /// Short and unique; the prefix of every domain name and of the objects in the bucket.
    pub tag: String,
    pub dir: PathBuf,
    pub hosts: Vec<Host>,
}

impl std::ops::Deref for World {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.hosts[0]
    }
}

impl World {
    /// Creates an environment with one host, local or over SSH as [`is_remote`] says.
    pub(crate) fn new() -> Self {
        Self::hosts(1)
    }

    /// Creates an environment with up to 3 hosts: alpha, beta, and gamma, which shares alpha's libvirt.
    pub(crate) fn hosts(count: usize) -> Self {
        Self::with_hosts(count, is_remote())
    }

    /// Same as [`World::hosts`], always over SSH.
    pub(crate) fn over_ssh(count: usize) -> Self {
        Self::with_hosts(count, true)
    }

    /// Creates an environment with one host over SSH, whose directories are in a directory named `dir`.
    pub(crate) fn over_ssh_in(dir: &str) -> Self {
        Self::make(|world| {
            let root = PathBuf::from(lab("SNAPDECK_LAB")).join("alpha");
            vec![Host::new(
                &world.tag,
                &world.dir,
                ("alpha", dir),
                root,
                true,
            )]
        })
    }

    fn with_hosts(count: usize, over_ssh: bool) -> Self {
        let all = [("alpha", "alpha"), ("beta", "beta"), ("gamma", "alpha")];
        Self::make(|world| {
            let hosts = all[..count].iter().map(|(name, root)| {
                let root = PathBuf::from(lab("SNAPDECK_LAB")).join(root);
                Host::new(&world.tag, &world.dir, (name, name), root, over_ssh)
            });
            hosts.collect()
        })
    }

    /// Creates an environment with one host over SSH that no other test uses: its libvirtd may be killed.
    pub(crate) fn private() -> Self {
        Self::with_private_host(true)
    }

    /// Same as [`World::private`], with a local host.
    pub(crate) fn private_local() -> Self {
        Self::with_private_host(false)
    }

    fn with_private_host(over_ssh: bool) -> Self {
        Self::make(|world| {
            let root = world.dir.join("own.host");
            host::start_lab_host(&root);
            let names = ("own", "own");
            vec![Host::new(&world.tag, &world.dir, names, root, over_ssh)]
        })
    }

    fn make(hosts: impl FnOnce(&Self) -> Vec<Host>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let dir = PathBuf::from(lab("SNAPDECK_LAB")).join("hosts").join(&tag);
        std::fs::create_dir_all(dir.join("home")).unwrap();
        let mut world = Self {
            tag,
            dir,
            hosts: Vec::new(),
        };
        world.hosts = hosts(&world);
        world.configure("");
        world
    }

    /// Creates an environment with one sandbox `a`, based on a small snapshot `base`.
    pub(crate) fn with_sandbox(state: State) -> (Self, String) {
        let world = Self::new();
        world.snapshot("base", 1);
        let id = world.sandbox("a", "base", state);
        (world, id)
    }

    /// Writes the settings with `more` in each `[[hosts]]`. New sandboxes are as small as those of [`Host::sandbox`].
    pub(crate) fn configure(&self, more: &str) {
        let hosts = self.hosts.iter().map(|host| host.settings(more));
        let config = format!(
            "{}[sandbox]\naccel = \"qemu\"\ncpus = 1\nmemory_mib = 64\nfirmware = \"bios\"\nnetwork = \"none\"\n\
             [bucket]\nname = \"{}\"\nprefix = \"{}/\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
             access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
            hosts.collect::<String>(),
            lab("SNAPDECK_LAB_BUCKET"),
            self.tag,
            lab("SNAPDECK_LAB_S3"),
            lab("SNAPDECK_LAB_S3_KEY"),
            lab("SNAPDECK_LAB_S3_SECRET"),
        );
        std::fs::write(self.config(), config).unwrap();
    }

    /// Makes `acme` one of the organizations.
    pub(crate) fn use_organization(&self) {
        self.reconfigure("[bucket]\n", "[bucket]\norganizations = \"acme\"\n");
    }

    /// Replaces text in the settings, which must contain it.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        assert!(config.contains(from), "{from:?} is not in the settings");
        std::fs::write(self.config(), config.replace(from, to)).unwrap();
    }

    /// Returns an engine with these settings.
    pub(crate) async fn engine(&self) -> Engine {
        Engine::new(self.settings()).await.unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        let flags = Flags {
            config: Some(self.config()),
            ..Flags::default()
        };
        snapdeck_settings::load(&flags, &|_| None, None)
            .unwrap()
            .settings
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    /// Returns a snapdeck command with these settings and an empty environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snapdeck"));
        let programs = match self.is_over_ssh() {
            // `Host::programs` is the PATH of the host's sshd then.
            true => std::env::var_os("PATH").unwrap(),
            false => OsString::from(self.programs()),
        };
        command
            .args(args)
            .env_clear()
            .env("PATH", programs)
            .env("HOME", self.dir.join("home"))
            .env("SNAPDECK_CONFIG", self.config())
            .stdin(Stdio::null());
        command
    }

    /// Runs snapdeck to its end. Once more if it failed with exit code 5 (unreachable) while libvirtd crashed.
    #[track_caller]
    pub(crate) fn snapdeck(&self, args: &[&str]) -> CommandOutput {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let crashes: Vec<usize> = self.hosts.iter().map(Host::wait_for_restart).collect();
        let ran = wait_for_exit(command.spawn().unwrap());
        if ran.code != Some(5)
            || crashes
                == self
                    .hosts
                    .iter()
                    .map(Host::wait_for_restart)
                    .collect::<Vec<_>>()
        {
            return ran;
        }
        eprintln!("libvirtd crashed during snapdeck {args:?}, which runs again: {ran:?}");
        wait_for_exit(command.spawn().unwrap())
    }

    /// Returns the files of the jobs in the journal.
    pub(crate) fn journal_files(&self) -> Vec<PathBuf> {
        let journal = self.dir.join("home/.local/state/snapdeck/journal");
        let sessions = std::fs::read_dir(journal).into_iter().flatten();
        // A session may be removed meanwhile.
        let files = sessions.filter_map(|session| std::fs::read_dir(session.ok()?.path()).ok());
        let files = files.flatten().filter_map(|file| Some(file.ok()?.path()));
        files
            .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
            .collect()
    }

    /// Returns the entries of the journal that can be read.
    pub(crate) fn journal_entries(&self) -> Vec<serde_json::Value> {
        let read = |file: PathBuf| serde_json::from_slice(&std::fs::read(file).ok()?).ok();
        self.journal_files().into_iter().filter_map(read).collect()
    }

    /// Starts snapdeck in its own process group, for tests that signal or kill it.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).spawn().unwrap()
    }

    /// Disables backup jobs: running sandboxes are paused while their disks are converted.
    pub(crate) fn force_convert(&self) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        if !config.contains("running = ") {
            let config = config.replace("owner = ", "running = \"convert\"\nowner = ");
            std::fs::write(self.config(), config).unwrap();
        }
    }

    /// Same as [`Host::gate`]. For `convert`, snapshots of running sandboxes are converted too.
    pub(crate) fn gate(&self, verb: &str) -> Gate {
        if verb == "convert" {
            self.force_convert();
        }
        self.hosts[0].gate(verb)
    }

    /// Starts snapdeck and waits until it runs qemu-img with `verb`, which waits for [`Gate::open`].
    pub(crate) fn start_to_gate(&self, verb: &str, args: &[&str]) -> (Child, Gate) {
        let gate = self.gate(verb);
        let child = self.start(args);
        gate.wait_reached();
        (child, gate)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Each host ends its guests and sessions.
        self.hosts.clear();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
