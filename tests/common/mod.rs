//! A world for one test: directories of a host, sandboxes on the lab's libvirt, a place in its bucket. All of
//! it real, all of it gone when the test is over. `make test` starts the lab.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod screen;

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(120);

fn lab(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests with `make test`"))
}

/// How a sandbox is left by [`World::sandbox`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Off,
    Running,
    Paused,
    Saved,
}

/// One test's own world.
pub struct World {
    /// Short and unique; every name in the lab begins with it.
    pub tag: String,
    pub dir: PathBuf,
    domains: RefCell<Vec<String>>,
    /// Where snapdeck looks for programs.
    programs: RefCell<OsString>,
}

impl World {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let dir = PathBuf::from(lab("SNAPDECK_LAB")).join("hosts").join(&tag);
        for name in ["snapshots", "sandboxes", "nvram", "temp", "home", "scratch"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let world = Self {
            tag,
            dir,
            domains: RefCell::default(),
            programs: RefCell::new(std::env::var_os("PATH").unwrap()),
        };
        world.configure("");
        world
    }

    /// A world with one sandbox, on a small snapshot.
    pub fn with_sandbox(state: State) -> (Self, String) {
        let world = Self::new();
        world.snapshot("base", 1);
        let id = world.sandbox("a", "base", state);
        (world, id)
    }

    /// Writes the settings; `more` goes into `[[hosts]]`.
    pub fn configure(&self, more: &str) {
        let dir = self.dir.display();
        let (uid, gid) = (run("id", &["-u"]), run("id", &["-g"]));
        let config = format!(
            "[[hosts]]\nname = \"alpha\"\nuri = \"{}\"\nsnapshots_dir = \"{dir}/snapshots\"\n\
             sandboxes_dir = \"{dir}/sandboxes\"\nnvram_dir = \"{dir}/nvram\"\ntemp_dir = \"{dir}/temp\"\n\
             owner = \"{}:{}\"\n{more}\n\
             [bucket]\nname = \"{}\"\nprefix = \"{}/\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
             access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
            lab("SNAPDECK_LAB_URI"),
            uid.trim(),
            gid.trim(),
            lab("SNAPDECK_LAB_BUCKET"),
            self.tag,
            lab("SNAPDECK_LAB_S3"),
            lab("SNAPDECK_LAB_S3_KEY"),
            lab("SNAPDECK_LAB_S3_SECRET"),
        );
        std::fs::write(self.config(), config).unwrap();
    }

    /// Replaces text in the settings.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        assert!(config.contains(from), "{from:?} is not in the settings");
        std::fs::write(self.config(), config.replace(from, to)).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    pub fn path(&self, relative: &str) -> String {
        self.dir.join(relative).to_str().unwrap().to_owned()
    }

    pub fn snapshot_path(&self, name: &str) -> String {
        self.path(&format!("snapshots/{name}.qcow2"))
    }

    /// A sandbox's id in the lab.
    pub fn id(&self, short: &str) -> String {
        format!("{}-{short}", self.tag)
    }

    pub fn disk(&self, short: &str) -> String {
        self.path(&format!("sandboxes/{}.qcow2", self.id(short)))
    }

    /// A standalone image of `megabytes` random bytes in the middle of a 1 GiB disk.
    pub fn snapshot(&self, name: &str, megabytes: u32) -> String {
        let path = self.snapshot_path(name);
        self.image(&path, megabytes);
        path
    }

    pub fn image(&self, path: &str, megabytes: u32) {
        run("qemu-img", &["create", "-q", "-f", "qcow2", path, "1G"]);
        self.scribble(path, 64, megabytes);
    }

    /// Writes `megabytes` of random bytes at `at` MiB of a disk nobody has open.
    pub fn scribble(&self, disk: &str, at: u32, megabytes: u32) {
        if megabytes == 0 {
            return;
        }
        let random = self.path("scratch/random");
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

    /// A sandbox on a snapshot, with 2 MiB of its own on its disk. Its guest is firmware alone.
    pub fn sandbox(&self, short: &str, base: &str, state: State) -> String {
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

    /// Defines a domain with a disk.
    pub fn define(&self, id: &str, disk: &str) {
        let xml = format!(
            "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
             <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>\
             <source file='{disk}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"
        );
        let file = self.path("scratch/domain.xml");
        std::fs::write(&file, xml).unwrap();
        self.virsh(&["define", &file]);
        self.domains.borrow_mut().push(id.to_owned());
    }

    pub fn virsh(&self, args: &[&str]) -> String {
        let uri = lab("SNAPDECK_LAB_URI");
        run("virsh", &[&["-q", "-c", &uri], args].concat())
    }

    /// `running`, `paused`, `shut off`.
    pub fn state(&self, id: &str) -> String {
        self.virsh(&["domstate", id]).trim().to_owned()
    }

    /// snapdeck with this world's settings and nothing else of our environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snapdeck"));
        command
            .args(args)
            .env_clear()
            .env("PATH", &*self.programs.borrow())
            .env("HOME", self.dir.join("home"))
            .env("SNAPDECK_CONFIG", self.config())
            .stdin(Stdio::null());
        command
    }

    pub fn snapdeck(&self, args: &[&str]) -> Ran {
        ended(
            self.command(args)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// Starts snapdeck in a process group of its own, for tests that signal or kill it.
    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).spawn().unwrap()
    }

    /// Starts snapdeck and waits until it is about to run qemu-img with `verb`.
    pub fn start_to_gate(&self, verb: &str, args: &[&str]) -> (Child, Gate) {
        let gate = self.gate(verb);
        let child = self.start(args);
        gate.reached();
        (child, gate)
    }

    /// The other S3 client; `{}` in an argument is this world's place in the bucket.
    pub fn s5cmd(&self, args: &[&str]) -> Output {
        let place = format!("s3://{}/{}", lab("SNAPDECK_LAB_BUCKET"), self.tag);
        Command::new(lab("SNAPDECK_LAB_S5CMD"))
            .args(args.iter().map(|arg| arg.replace("{}", &place)))
            .env("AWS_ACCESS_KEY_ID", lab("SNAPDECK_LAB_S3_KEY"))
            .env("AWS_SECRET_ACCESS_KEY", lab("SNAPDECK_LAB_S3_SECRET"))
            .env("AWS_REGION", "us-east-1")
            .env("S3_ENDPOINT_URL", lab("SNAPDECK_LAB_S3"))
            .output()
            .unwrap()
    }

    /// Puts a file into the bucket as `name`, by the other client.
    pub fn put(&self, file: &str, name: &str) {
        let put = self.s5cmd(&["cp", file, &format!("{{}}/{name}.qcow2")]);
        assert!(put.status.success(), "{put:?}");
    }

    /// Gets an object by the other client; returns where it lies.
    pub fn get(&self, name: &str) -> String {
        let file = self.path(&format!("scratch/{name}.got.qcow2"));
        let get = self.s5cmd(&["cp", &format!("{{}}/{name}.qcow2"), &file]);
        assert!(get.status.success(), "{get:?}");
        file
    }

    pub fn is_in_bucket(&self, name: &str) -> bool {
        self.s5cmd(&["ls", &format!("{{}}/{name}.qcow2")])
            .status
            .success()
    }

    /// Names in one of the world's directories, hidden ones too.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join(dir)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The object's entity tag, as the other client sees it.
    pub fn etag(&self, name: &str) -> String {
        let listed = self.s5cmd(&["ls", "-e", &format!("{{}}/{name}.qcow2")]);
        assert!(listed.status.success(), "{listed:?}");
        let line = String::from_utf8(listed.stdout).unwrap();
        // DATE TIME ETAG SIZE NAME
        line.split_whitespace().nth(2).unwrap().to_owned()
    }

    /// Puts a program of that name before all others that snapdeck finds. It is a fake: for what the real one
    /// cannot be made to do at a given moment.
    pub fn fake(&self, program: &str, script: &str) {
        let dir = self.path("fakes");
        std::fs::create_dir_all(&dir).unwrap();
        let text = self.path("scratch/fake");
        std::fs::write(&text, format!("#!/bin/bash\n{script}\n")).unwrap();
        // Written by another process: a fork of a test beside this one would hold our handle open, and a
        // program that is open for writing cannot be run.
        run(
            "install",
            &["-m", "755", &text, &format!("{dir}/{program}")],
        );
        let mut programs = self.programs.borrow_mut();
        let first = OsString::from(format!("{dir}:"));
        if !programs
            .to_str()
            .unwrap()
            .starts_with(&*first.to_string_lossy())
        {
            *programs = [first, programs.clone()].into_iter().collect();
        }
    }

    /// From here on snapdeck finds these programs and the fakes, no others.
    pub fn only_programs(&self, programs: &[&str]) {
        let (dir, fakes) = (self.path("programs"), self.path("fakes"));
        std::fs::create_dir(&dir).unwrap();
        for program in programs {
            std::os::unix::fs::symlink(found(program), format!("{dir}/{program}")).unwrap();
        }
        *self.programs.borrow_mut() = format!("{fakes}:{dir}").into();
    }

    /// Makes qemu-img stop before it begins with `verb`, until [`Gate::open`].
    pub fn gate(&self, verb: &str) -> Gate {
        let gate = Gate {
            pid: self.path("scratch/gate.pid"),
            go: self.path("scratch/gate.go"),
        };
        let Gate { pid, go } = &gate;
        let (dir, real) = (self.dir.display(), found("qemu-img"));
        self.fake(
            "qemu-img",
            &format!(
                "if [ \"$1\" = {verb} ]; then\n\
                 echo $$ >{pid}.new && mv {pid}.new {pid}\n\
                 until [ -e {go} ] || [ ! -d {dir} ]; do sleep 0.02; done\n\
                 fi\n\
                 exec {real} \"$@\""
            ),
        );
        gate
    }
}

/// A fake qemu-img that waits.
pub struct Gate {
    pid: String,
    go: String,
}

impl Gate {
    /// Waits until somebody stands before it.
    pub fn reached(&self) {
        until("qemu-img was called", || exists(&self.pid));
    }

    /// Lets all through, now and later.
    pub fn open(&self) {
        std::fs::write(&self.go, "").unwrap();
    }

    /// Is the process that stood before it gone?
    pub fn is_left(&self) -> bool {
        let pid = std::fs::read_to_string(&self.pid).unwrap();
        let command = std::fs::read(format!("/proc/{}/cmdline", pid.trim()));
        // What only waits for its parent to take note of its end has no arguments any more.
        command.map_or(true, |words| words.is_empty())
    }
}

/// Where a program lies.
pub fn found(program: &str) -> String {
    let said = run("sh", &["-c", &format!("command -v {program}")]);
    said.trim().to_owned()
}

impl Drop for World {
    fn drop(&mut self) {
        let uri = lab("SNAPDECK_LAB_URI");
        for id in self.domains.borrow().iter() {
            for verb in [
                &["destroy"][..],
                &["managedsave-remove"],
                &["undefine", "--nvram"],
            ] {
                let _ = Command::new("virsh")
                    .args(["-q", "-c", &uri])
                    .args(verb)
                    .arg(id)
                    .output();
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What a run of snapdeck came to.
#[derive(Debug)]
pub struct Ran {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Its answer, where it was asked for with `--json`.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The kind of its error, where it was asked for with `--json`.
    pub fn error_kind(&self) -> String {
        let json = self.json();
        json["error"]["kind"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It failed with `code`, and its last line says all of `words`.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let told = self.stderr.lines().last().unwrap_or_default();
        for word in words {
            assert!(told.contains(word), "{word:?} is not in {told:?}");
        }
        self
    }
}

/// Waits for a process, within the deadline.
pub fn ended(mut child: Child) -> Ran {
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("it does not end: {}", stderr.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ran {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn read(stream: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}

/// Runs a program that must succeed; returns what it said.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {} {stderr}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < DEADLINE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Are the contents of two images the same, sector by sector?
pub fn same_disk(a: &str, b: &str) -> bool {
    let shared = Command::new("qemu-img")
        .args(["compare", "-q", "-U", a, b])
        .status()
        .unwrap();
    shared.success()
}

/// The checksum of a file.
pub fn sha256(path: &str) -> String {
    let said = run("sha256sum", &[path]);
    said.split_whitespace().next().unwrap().to_owned()
}

/// Tells whether a file was touched: its inode and when it was last written.
pub fn stamp(path: &str) -> (u64, std::time::SystemTime) {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.ino(), metadata.modified().unwrap())
}

pub fn am_root() -> bool {
    run("id", &["-u"]).trim() == "0"
}

pub fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

pub fn signal(child: &Child, name: &str) {
    run("kill", &[&format!("-{name}"), &child.id().to_string()]);
}
