//! Faults of system calls in the tested program, by a library that is loaded before libc.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::World;
use super::process::run;

/// Adds the seconds in `CLOCK_OFFSET` to the time of day; kills the process before or after it renames a file to a name that ends in `KILL_BEFORE_RENAME` or
/// `KILL_AFTER_RENAME`; fails each fsync of a file whose name ends in `FAIL_FSYNC`, and each read of one whose name ends
/// in `FAIL_READ`.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int ends(const char *name, const char *variable) {
    const char *end = getenv(variable);
    size_t length = strlen(name);
    return end && *end && length >= strlen(end) && strcmp(name + length - strlen(end), end) == 0;
}
static int is_open_as(int fd, const char *variable) {
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0) return 0;
    name[length] = 0;
    return ends(name, variable);
}
static void before(const char *to) {
    if (ends(to, "KILL_BEFORE_RENAME")) kill(getpid(), SIGKILL);
}
static int after(int result, const char *to) {
    if (result == 0 && ends(to, "KILL_AFTER_RENAME")) kill(getpid(), SIGKILL);
    return result;
}
int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    before(to);
    return after(real(from, to), to);
}
int renameat2(int fd, const char *from, int to_fd, const char *to, unsigned flags) {
    int (*real)(int, const char *, int, const char *, unsigned) = dlsym(RTLD_NEXT, "renameat2");
    before(to);
    return after(real(fd, from, to_fd, to, flags), to);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    const char *offset = getenv("CLOCK_OFFSET");
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME && offset) now->tv_sec += atol(offset);
    return result;
}
int fsync(int fd) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    if (is_open_as(fd, "FAIL_FSYNC")) { errno = EIO; return -1; }
    return real(fd);
}
ssize_t pread64(int fd, void *to, size_t length, off64_t offset) {
    ssize_t (*real)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pread64");
    if (is_open_as(fd, "FAIL_READ")) { errno = EIO; return -1; }
    return real(fd, to, length, offset);
}
"#;

impl World {
    /// Returns a snapdeck command with a fault: a variable and its value (see [`SOURCE`]).
    pub(crate) fn command_with_fault(
        &self,
        args: &[&str],
        (variable, value): (&str, &str),
    ) -> Command {
        let (source, library) = (self.dir.join("preload.c"), self.dir.join("preload.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let [source, library] = [source, library].map(|path| path.to_str().unwrap().to_owned());
        run("cc", &["-shared", "-fPIC", "-o", &library, &source, "-ldl"]);
        let mut command = self.command(args);
        command.env("LD_PRELOAD", &library).env(variable, value);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs snapdeck, which is killed at a rename: a variable, and the end of the new name (see [`SOURCE`]).
    #[track_caller]
    pub(crate) fn killed_at(&self, args: &[&str], fault: (&str, &str)) {
        let mut command = self.command_with_fault(args, fault);
        let child: Child = command.process_group(0).spawn().unwrap();
        let ran = super::process::wait_for_exit(child);
        assert_eq!(ran.code, None, "not killed: {ran:?}");
    }
}
