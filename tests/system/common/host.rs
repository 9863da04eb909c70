//! One host of a test: its directories, sandboxes and libvirt. It does not use the code of snapdeck.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::lab;
use super::link::Link;
use super::process::{output, run};
use super::ssh;

/// State of a sandbox made by [`Host::sandbox`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Off,
    Running,
    Paused,
    Saved,
}

/// One host of a [`super::World`].
pub(crate) struct Host {
    pub name: String,
    /// Parent of the directories that the settings name.
    pub dir: PathBuf,
    /// Keys, fakes and other files of the tests.
    tools: PathBuf,
    /// Directory of the lab's host (tests/lab/host.sh).
    pub(super) root: PathBuf,
    tag: String,
    link: Option<Link>,
    /// PATH, without the directory of fakes that precedes it.
    pub(super) programs: RefCell<String>,
    /// Another libvirt socket for the URI.
    socket: RefCell<Option<String>>,
    is_private: Cell<bool>,
}

/// Starts a host of the lab in `root`.
pub(super) fn start_lab_host(root: &Path) {
    std::fs::create_dir_all(root).unwrap();
    let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/.lab/capabilities");
    run(SCRIPT, &["start", root.to_str().unwrap(), cache]);
}

/// Limit for a restart of libvirtd after a crash.
const RESTART_DEADLINE: Duration = Duration::from_secs(60);
/// Limit for the lab to notice a crash.
const CRASH_DEADLINE: Duration = Duration::from_secs(5);

pub(super) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/host.sh");

impl Host {
    pub(super) fn new(
        tag: &str,
        world: &Path,
        (name, dir): (&str, &str),
        root: PathBuf,
        over_ssh: bool,
    ) -> Self {
        let (dir, tools) = (world.join(dir), world.join(format!("{name}.tools")));
        std::fs::create_dir(&tools).unwrap();
        for name in ["snapshots", "sandboxes", "nvram", "temp", "scratch"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let is_private = root.starts_with(world);
        let mut host = Self {
            name: name.to_owned(),
            dir,
            tools,
            root,
            tag: tag.to_owned(),
            link: None,
            programs: RefCell::new(std::env::var("PATH").unwrap()),
            socket: RefCell::default(),
            is_private: Cell::new(is_private),
        };
        if over_ssh {
            host.link = Some(ssh::open(&host));
        }
        host
    }

    /// Returns its `[[hosts]]` table, with `more` in it.
    pub(super) fn settings(&self, more: &str) -> String {
        let (dir, name) = (self.dir.to_str().unwrap(), &self.name);
        // The host keeps files of a killed snapdeck for this time.
        let reconnect = match self.is_over_ssh() && !more.contains("reconnect_secs") {
            true => "reconnect_secs = 20\n",
            false => "",
        };
        let dir = dir.replace('\\', "\\\\").replace('"', "\\\"");
        let (uid, gid) = (run("id", &["-u"]), run("id", &["-g"]));
        format!(
            "[[hosts]]\nname = \"{name}\"\nuri = \"{}\"\nsnapshots_dir = \"{dir}/snapshots\"\n\
             sandboxes_dir = \"{dir}/sandboxes\"\nnvram_dir = \"{dir}/nvram\"\ntemp_dir = \"{dir}/temp\"\n\
             owner = \"{}:{}\"\n{reconnect}{more}\n",
            self.uri(),
            uid.trim(),
            gid.trim(),
        )
    }

    /// Returns its URI in the settings.
    pub(crate) fn uri(&self) -> String {
        match (&self.link, &*self.socket.borrow()) {
            (None, socket) => {
                let own = self.libvirt_socket();
                format!("qemu:///system?socket={}", socket.as_ref().unwrap_or(&own))
            }
            (Some(link), None) => ssh::uri(self, link),
            (Some(link), Some(socket)) => format!("{}&socket={socket}", ssh::uri(self, link)),
        }
    }

    /// Sets another socket in its URI; takes effect with [`super::World::configure`].
    pub(crate) fn set_socket(&self, path: &str) {
        *self.socket.borrow_mut() = Some(path.to_owned());
    }

    /// Returns the path of its libvirt socket outside its mount namespace.
    pub(crate) fn libvirt_socket(&self) -> String {
        let socket = self.root.join("run/libvirt/libvirt-sock");
        socket.to_str().unwrap().to_owned()
    }

    pub(crate) fn is_over_ssh(&self) -> bool {
        self.link.is_some()
    }

    /// Returns the connection to its sshd.
    pub(crate) fn link(&self) -> &Link {
        self.link.as_ref().expect("a host over SSH")
    }

    /// Runs a program in its mount namespace and returns the output.
    #[track_caller]
    pub(crate) fn run_on_host(&self, argv: &[&str]) -> String {
        run(
            SCRIPT,
            &[&["enter", self.root.to_str().unwrap()], argv].concat(),
        )
    }

    pub(crate) fn path(&self, relative: &str) -> String {
        self.dir.join(relative).to_str().unwrap().to_owned()
    }

    /// Returns the path of a file of the tests.
    pub(super) fn tool(&self, relative: &str) -> String {
        self.tools.join(relative).to_str().unwrap().to_owned()
    }

    pub(crate) fn snapshot_path(&self, name: &str) -> String {
        self.path(&format!("snapshots/{name}.qcow2"))
    }

    /// Returns a sandbox id that is unique in the lab.
    pub(crate) fn id(&self, short: &str) -> String {
        format!("{}-{short}", self.tag)
    }

    pub(crate) fn disk(&self, short: &str) -> String {
        self.path(&format!("sandboxes/{}.qcow2", self.id(short)))
    }

    /// Creates a snapshot: a standalone 1 GiB image with `megabytes` MiB of random data at 64 MiB.
    pub(crate) fn snapshot(&self, name: &str, megabytes: u32) -> String {
        let path = self.snapshot_path(name);
        self.image(&path, megabytes);
        path
    }

    pub(crate) fn image(&self, path: &str, megabytes: u32) {
        run("qemu-img", &["create", "-q", "-f", "qcow2", path, "1G"]);
        self.scribble(path, 64, megabytes);
    }

    /// Writes `megabytes` MiB of random data at `at` MiB of a disk that no process has open.
    pub(crate) fn scribble(&self, disk: &str, at: u32, megabytes: u32) {
        if megabytes == 0 {
            return;
        }
        let random = self.tool("random");
        run(
            "dd",
            &[
                "if=/dev/urandom",
                &format!("of={random}"),
                "bs=1M",
                &format!("count={megabytes}"),
                "status=none",
            ],
        );
        let command = format!("write -q -s {random} {at}M {megabytes}M");
        run("qemu-io", &["-f", "qcow2", "-c", &command, disk]);
    }

    /// Creates a sandbox based on a snapshot, with 2 MiB of its own data. It has no operating system, only firmware.
    pub(crate) fn sandbox(&self, short: &str, base: &str, state: State) -> String {
        let (id, disk) = (self.id(short), self.disk(short));
        let backing = self.snapshot_path(base);
        let create = [
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &backing, &disk,
        ];
        run("qemu-img", &create);
        self.scribble(&disk, 32, 2);
        self.define(&id, &disk);
        if state != State::Off {
            self.virsh(&["start", &id]);
        }
        match state {
            State::Paused => drop(self.virsh(&["suspend", &id])),
            State::Saved => drop(self.virsh(&["managedsave", &id])),
            State::Off | State::Running => {}
        }
        id
    }

    /// Replaces a sandbox by another one with the same id and path.
    pub(crate) fn replace_sandbox(&self, short: &str, base: &str, state: State) {
        let id = self.id(short);
        if self.state(&id) != "shut off" {
            self.virsh(&["destroy", &id]);
        }
        self.virsh(&["undefine", &id]);
        std::fs::remove_file(self.disk(short)).unwrap();
        self.sandbox(short, base, state);
    }

    /// Defines a domain with one disk.
    pub(crate) fn define(&self, id: &str, disk: &str) {
        let source = disk.replace('&', "&amp;").replace('\'', "&apos;");
        let xml = format!(
            "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
             <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>\
             <source file='{source}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
        );
        self.define_xml(&xml);
    }

    /// Defines a domain.
    pub(crate) fn define_xml(&self, xml: &str) {
        let file = self.tool("domain.xml");
        std::fs::write(&file, xml).unwrap();
        self.virsh(&["define", &file]);
    }

    pub(crate) fn virsh_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("virsh");
        let uri = format!("qemu:///system?socket={}", self.libvirt_socket());
        command.args(["-q", "-c", &uri]).args(args);
        command
    }

    /// Runs virsh, once more if libvirtd crashed meanwhile; it must succeed. Returns the output.
    #[track_caller]
    pub(crate) fn virsh(&self, args: &[&str]) -> String {
        let crashes = self.wait_for_restart();
        let mut result = output(&mut self.virsh_command(args));
        let lost = ["End of file while reading", "Failed to connect socket"];
        let stderr = String::from_utf8_lossy(&result.stderr).into_owned();
        if lost.iter().any(|text| stderr.contains(text)) {
            // The lab notices the crash a moment later.
            let since = Instant::now();
            while self.wait_for_restart() == crashes && since.elapsed() < CRASH_DEADLINE {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if !result.status.success() && self.wait_for_restart() != crashes {
            eprintln!("libvirtd crashed during virsh {args:?}, which runs again: {result:?}");
            result = output(&mut self.virsh_command(args));
            // It did its work before it crashed.
            let stderr = String::from_utf8_lossy(&result.stderr);
            let done = [("start", "already active"), ("destroy", "is not running")];
            let is_done = |(verb, text): (&str, &str)| args[0] == verb && stderr.contains(text);
            if done.into_iter().any(is_done) {
                return String::new();
            }
        }
        assert!(result.status.success(), "virsh {args:?}: {result:?}");
        String::from_utf8(result.stdout).unwrap()
    }

    /// Waits while a crashed libvirtd is being restarted; returns the number of its crashes so far.
    #[track_caller]
    pub(crate) fn wait_for_restart(&self) -> usize {
        let crashes = || {
            let log = std::fs::read_to_string(lab("SNAPDECK_LAB") + "/crashes.log");
            let name = format!(" libvirtd of {} ", self.root.display());
            let log = log.unwrap_or_default();
            log.lines().filter(|line| line.contains(&name)).count()
        };
        let since = Instant::now();
        while self.root.join("libvirtd.restarting").exists() {
            assert!(
                since.elapsed() < RESTART_DEADLINE,
                "libvirtd of {} does not restart",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        crashes()
    }

    /// Returns libvirt's name of the state: `running`, `paused`, `shut off`.
    #[track_caller]
    pub(crate) fn state(&self, id: &str) -> String {
        self.virsh(&["domstate", id]).trim().to_owned()
    }

    /// Returns the sorted file names in one of its directories, with hidden files and without manifests and the id of the
    /// directory.
    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path_on_host(dir)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.') || !name.ends_with(".json"))
            .filter(|name| name != ".snapdeck-directory-id")
            .collect();
        names.sort();
        names
    }

    /// Returns the path of one of its directories as snapdeck sees it: with the mounts of its namespace.
    pub(crate) fn path_on_host(&self, dir: &str) -> PathBuf {
        match self.is_over_ssh() {
            true => {
                let dir = self.dir.join(dir);
                let root = PathBuf::from(format!("/proc/{}/root", self.holder()));
                root.join(dir.strip_prefix("/").unwrap())
            }
            false => self.dir.join(dir),
        }
    }

    /// Mounts a small file system at one of its directories; `None` without the right to mount.
    pub(crate) fn small_disk(&self, dir: &str, size: &str) -> Option<SmallDisk> {
        let option = format!("size={size},mode=755");
        self.disk_at(dir, &["-t", "tmpfs", "-o", &option, "snapdeck-test"])
    }

    /// Mounts a file system with reflinks at one of its directories; `None` without the right to mount.
    pub(crate) fn reflink_disk(&self, dir: &str) -> Option<SmallDisk> {
        let image = self.tool("xfs");
        run("truncate", &["-s", "400M", &image]);
        run("mkfs.xfs", &["-q", "-m", "reflink=1", &image]);
        self.disk_at(dir, &["-o", "loop", &image])
    }

    fn disk_at(&self, dir: &str, what: &[&str]) -> Option<SmallDisk> {
        let enter: Vec<String> = match self.is_over_ssh() {
            true => [SCRIPT, "enter", self.root.to_str().unwrap()]
                .map(str::to_owned)
                .into(),
            false => vec!["env".to_owned()],
        };
        let disk = SmallDisk {
            enter,
            path: self.path(dir),
        };
        let mounted = disk.run_on_host(&[&["mount"][..], what, &[&disk.path]].concat());
        if mounted.status.success() {
            return Some(disk);
        }
        eprintln!("skipped: {}", String::from_utf8_lossy(&mounted.stderr));
        None
    }

    /// Returns the process that keeps its mount namespace.
    pub(super) fn holder(&self) -> String {
        let pid = std::fs::read_to_string(self.root.join("holder.pid")).unwrap();
        pid.trim().to_owned()
    }

    /// Kills its libvirtd, which is not restarted; its guests run on. For private hosts only.
    pub(crate) fn kill_libvirtd(&self) {
        self.signal_libvirtd("KILL");
    }

    /// Sends a signal to its libvirtd. For private hosts only.
    pub(crate) fn signal_libvirtd(&self, name: &str) {
        assert!(self.is_private.get(), "other tests use this libvirtd");
        let pid = std::fs::read_to_string(self.root.join("libvirtd.pid")).unwrap();
        self.run_on_host(&["kill", "-s", name, pid.trim()]);
    }

    /// Starts its libvirtd after [`Host::kill_libvirtd`].
    pub(crate) fn start_libvirtd(&self) {
        run(SCRIPT, &["libvirtd", self.root.to_str().unwrap()]);
    }
}

/// A file system mounted at a directory; unmounted on drop.
pub(crate) struct SmallDisk {
    enter: Vec<String>,
    path: String,
}

impl SmallDisk {
    /// Remounts it read-only.
    pub(crate) fn make_read_only(&self) {
        let mounted = self.run_on_host(&["mount", "-o", "remount,ro", &self.path]);
        assert!(mounted.status.success(), "{mounted:?}");
    }

    /// Fills a file system of less than 1 MiB. Never writes more if another file system is mounted.
    pub(crate) fn fill(&self) {
        let file = format!("{}/full", self.path);
        let fill = "head -c 1048576 /dev/zero >\"$1\"";
        let filled = self.run_on_host(&["sh", "-c", fill, "sh", &file]);
        assert!(!filled.status.success(), "the disk is not full: {filled:?}");
    }

    /// Runs a program in the mount namespace of the file system.
    pub(crate) fn run_on_host(&self, argv: &[&str]) -> std::process::Output {
        output(
            Command::new(&self.enter[0])
                .args(&self.enter[1..])
                .args(argv),
        )
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.run_on_host(&["umount", &self.path]);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Closes all SSH sessions.
        self.link = None;
        if self.is_private.get() {
            let root = self.root.to_str().unwrap();
            let _ = output(Command::new(SCRIPT).args(["stop", root]));
            return;
        }
        let all = output(&mut self.virsh_command(&["list", "--all", "--name"]));
        let all = String::from_utf8_lossy(&all.stdout).into_owned();
        for id in all.lines().filter(|id| id.starts_with(&self.id(""))) {
            for verb in [
                &["destroy"][..],
                &["managedsave-remove"],
                &["undefine", "--nvram", "--snapshots-metadata"],
            ] {
                let _ = output(&mut self.virsh_command(&[verb, &[id]].concat()));
            }
        }
    }
}
