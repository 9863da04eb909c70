//! A world for one test: hosts of the lab with directories and sandboxes of its own, a place in its bucket. All of
//! it real, all of it gone when the test is over. `make test` starts the lab.
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
mod link;
mod process;
pub(crate) mod proxy;
pub(crate) mod screen;
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
pub(crate) use link::{Fault, Link, Way};
pub(crate) use process::{
    Ran, am_root, ended, ended_within, found, output, run, signal, tree, until,
};
pub(crate) use proxy::Trouble;
use snapdeck_engine::Engine;
use snapdeck_model::settings::Settings;
use snapdeck_settings::{self, Flags};

pub(crate) fn lab(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests with `make test`"))
}

/// Do the tests of this run stand on hosts over SSH?
pub(crate) fn is_remote() -> bool {
    match std::env::var("SNAPDECK_TEST_HOST").as_deref() {
        Ok("remote") => true,
        Ok("local") | Err(_) => false,
        Ok(other) => panic!("SNAPDECK_TEST_HOST is {other:?}: local or remote?"),
    }
}

/// What is the same on a host over SSH, or cannot be had there, is tried on this machine alone.
pub(crate) fn only_local(why: &str) -> bool {
    if is_remote() {
        eprintln!("skipped on a host over SSH: {why}");
    }
    is_remote()
}

/// One test's own world. Of its hosts the first is meant where none is named.
pub(crate) struct World {
    /// Short and unique; every name in the lab begins with it.
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
    /// With one host, which is reached as this run of the tests has it.
    pub(crate) fn new() -> Self {
        Self::hosts(1)
    }

    /// With so many hosts, 3 at most: alpha, beta, and gamma, which is on alpha's libvirt.
    pub(crate) fn hosts(count: usize) -> Self {
        Self::of(count, is_remote())
    }

    /// As [`World::hosts`], over SSH.
    pub(crate) fn over_ssh(count: usize) -> Self {
        Self::of(count, true)
    }

    /// With one host over SSH whose directories lie in one of that name.
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

    fn of(count: usize, over_ssh: bool) -> Self {
        let all = [("alpha", "alpha"), ("beta", "beta"), ("gamma", "alpha")];
        Self::make(|world| {
            let hosts = all[..count].iter().map(|(name, root)| {
                let root = PathBuf::from(lab("SNAPDECK_LAB")).join(root);
                Host::new(&world.tag, &world.dir, (name, name), root, over_ssh)
            });
            hosts.collect()
        })
    }

    /// With one host over SSH that no other test has: its libvirtd may be killed.
    pub(crate) fn private() -> Self {
        Self::own(true)
    }

    /// With one host on this machine that no other test has.
    pub(crate) fn private_here() -> Self {
        Self::own(false)
    }

    fn own(over_ssh: bool) -> Self {
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

    /// A world with one sandbox, on a small snapshot.
    pub(crate) fn with_sandbox(state: State) -> (Self, String) {
        let world = Self::new();
        world.snapshot("base", 1);
        let id = world.sandbox("a", "base", state);
        (world, id)
    }

    /// Writes the settings; `more` goes into each `[[hosts]]`. A new sandbox is as small as [`Host::sandbox`] makes them.
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

    /// Replaces text in the settings.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        assert!(config.contains(from), "{from:?} is not in the settings");
        std::fs::write(self.config(), config.replace(from, to)).unwrap();
    }

    /// An engine with this world's settings.
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

    /// snapdeck with this world's settings and nothing else of our environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snapdeck"));
        let programs = match self.is_over_ssh() {
            // What is to be found on the host is told there.
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

    #[track_caller]
    pub(crate) fn snapdeck(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        ended(command.spawn().unwrap())
    }

    /// Starts snapdeck in a process group of its own, for tests that signal or kill it.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).spawn().unwrap()
    }

    /// From here on running sandboxes are paused for as long as it takes to convert their disks.
    pub(crate) fn only_converts(&self) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        if !config.contains("running = ") {
            let config = config.replace("owner = ", "running = \"convert\"\nowner = ");
            std::fs::write(self.config(), config).unwrap();
        }
    }

    /// As [`Host::gate`]; to convert is what a create of a running sandbox does then, too.
    pub(crate) fn gate(&self, verb: &str) -> Gate {
        if verb == "convert" {
            self.only_converts();
        }
        self.hosts[0].gate(verb)
    }

    /// Starts snapdeck and waits until it is about to run qemu-img with `verb`.
    pub(crate) fn start_to_gate(&self, verb: &str, args: &[&str]) -> (Child, Gate) {
        let gate = self.gate(verb);
        let child = self.start(args);
        gate.reached();
        (child, gate)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Each host ends what runs on it.
        self.hosts.clear();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
