//! System calls for files and memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Shares the extents of a range of `from` with `to`, without copying data (ioctl_ficlonerange(2)).
///
/// # Errors
/// An I/O error if the file system does not support it, or not for these ranges.
pub fn clone_range(
    from: &File,
    from_offset: u64,
    bytes: u64,
    to: &File,
    to_offset: u64,
) -> io::Result<()> {
    let range = nix::libc::file_clone_range {
        src_fd: from.as_raw_fd().into(),
        src_offset: from_offset,
        src_length: bytes,
        dest_offset: to_offset,
    };
    // SAFETY: both files are open, and the kernel only reads `range`, which outlives the call.
    let code =
        unsafe { nix::libc::ioctl(to.as_raw_fd(), nix::libc::FICLONERANGE, &raw const range) };
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts writing a range of a file back to the disk, without waiting (sync_file_range(2)).
///
/// Only a hint: if it fails, the kernel writes the data later.
pub fn begin_sync(file: &File, offset: u64, bytes: u64) {
    let (offset, bytes) = (offset.cast_signed(), bytes.cast_signed());
    // SAFETY: the file is open, and no memory is passed.
    let _ = unsafe {
        nix::libc::sync_file_range(
            file.as_raw_fd(),
            offset,
            bytes,
            nix::libc::SYNC_FILE_RANGE_WRITE,
        )
    };
}

/// Chooses the signal of a lease (Linux, asm-generic/fcntl.h); the libc crate does not have it.
const F_SETSIG: i32 = 10;

/// A lease of a file that nothing else has open (fcntl(2), `F_SETLEASE`): until it is dropped, who opens the file waits.
pub struct FileLease<'a>(&'a File);

impl<'a> FileLease<'a> {
    /// Takes the lease; `None` if another descriptor has the file open, or its file system has no leases.
    pub fn take(file: &'a File) -> Option<Self> {
        // The default signal to its holder, SIGIO, would end this process; SIGURG is ignored unless it is handled.
        // SAFETY: the file is open, and no memory is passed.
        let is_taken = unsafe {
            nix::libc::fcntl(file.as_raw_fd(), F_SETSIG, nix::libc::SIGURG) == 0
                && nix::libc::fcntl(file.as_raw_fd(), nix::libc::F_SETLEASE, nix::libc::F_WRLCK)
                    == 0
        };
        is_taken.then_some(Self(file))
    }

    /// Returns whether no process has tried to open the file since.
    pub fn is_unbroken(&self) -> bool {
        // SAFETY: the file is open, and no memory is passed.
        let lease = unsafe { nix::libc::fcntl(self.0.as_raw_fd(), nix::libc::F_GETLEASE) };
        lease == nix::libc::F_WRLCK
    }
}

impl Drop for FileLease<'_> {
    fn drop(&mut self) {
        // SAFETY: the file is open, and no memory is passed.
        unsafe {
            nix::libc::fcntl(
                self.0.as_raw_fd(),
                nix::libc::F_SETLEASE,
                nix::libc::F_UNLCK,
            );
        }
    }
}

/// Makes a program that is not started yet lead a new session, without a controlling terminal (setsid(2)): another process of
/// the user that it may run as could use the terminal through it.
pub fn begin_session(command: &mut Command) {
    let begin = || match nix::unistd::setsid() {
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    };
    // SAFETY: between fork and exec it only makes one system call, which is async-signal-safe (signal-safety(7)).
    unsafe {
        command.pre_exec(begin);
    }
}

/// Makes glibc return buffers of 1 MiB and more to the system when they are freed (mallopt(3), `M_MMAP_THRESHOLD`).
///
/// By default it raises the threshold and keeps such buffers per thread. Parts of images pass through many threads: eight
/// parts of 8 MiB took hundreds of MiB. Other C libraries do not do this.
pub fn set_mmap_threshold() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a parameter of the allocator, under the allocator's own lock.
    unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}
