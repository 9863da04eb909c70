//! Processes of the tests: run with a deadline, signalled, checked.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than any process takes on a slow machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// Exit code and output of a snapdeck process.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    /// `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    /// Parses standard output, with `--json`.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the kind of the error, with `--json`.
    pub(crate) fn error_kind(&self) -> String {
        let json = self.json();
        json["error"]["kind"].as_str().unwrap().to_owned()
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Asserts that it failed with `code` and that the last line of standard error contains all of `words`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        // The last message, with its hint.
        let message = self
            .stderr
            .rsplit("\nsnapdeck: ")
            .next()
            .unwrap_or_default();
        for word in words {
            assert!(message.contains(word), "{word:?} is not in {message:?}");
        }
        self
    }
}

/// Waits for a process to end.
#[track_caller]
pub(crate) fn wait_for_exit(child: Child) -> CommandOutput {
    wait_for_exit_within(child, DEADLINE)
}

/// Same as [`wait_for_exit`], with another deadline.
#[track_caller]
pub(crate) fn wait_for_exit_within(child: Child, deadline: Duration) -> CommandOutput {
    let output = output_of(child, deadline);
    CommandOutput {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn output_of(mut child: Child, deadline: Duration) -> Output {
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            let stderr = stderr.join().unwrap();
            panic!("process does not end: {}", String::from_utf8_lossy(&stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output {
        status,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

fn read(stream: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    output_of(child.spawn().unwrap(), DEADLINE)
}

/// Runs a program that must succeed; returns its standard output.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = output(Command::new(program).args(args));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {} {stderr}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until a condition is true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < DEADLINE, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    run("kill", &[&format!("-{name}"), &child.id().to_string()]);
}

/// Returns a process and its descendants.
pub(crate) fn process_tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    // A process that starts meanwhile may be missing; its parent ends it.
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        // Each thread has its own list of children.
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    found
}

/// Kills snapdeck and its watchdogs, these first: they would clean up when it ends.
pub(crate) fn kill_with_watchdogs(child: Child) {
    // Stopped first: a watchdog whose own children are killed before it begins to clean up.
    for sign in ["-STOP", "-KILL"] {
        let tree = process_tree(child.id());
        // Some may have ended meanwhile.
        let _ = Command::new("kill")
            .arg(sign)
            .args(tree.iter().rev().map(u32::to_string))
            .status();
    }
    wait_for_exit(child);
}

/// Returns the path of a program.
pub(crate) fn find_program(program: &str) -> String {
    let path = run("sh", &["-c", &format!("command -v {program}")]);
    path.trim().to_owned()
}

pub(crate) fn is_root() -> bool {
    run("id", &["-u"]).trim() == "0"
}
