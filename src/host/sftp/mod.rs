//! Reads and writes a file of a host at offsets over SFTP: for hosts that forbid to forward sockets, where
//! [`Nbd`](snapdeck_nbd::Nbd) cannot be reached. It does the same, and fails in the same ways.

#[cfg(test)]
mod tests;

use std::io::{self, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openssh_sftp_client::error::SftpErrorKind;
use openssh_sftp_client::file::File;
use openssh_sftp_client::{Error, Sftp, SftpOptions};
use tokio::io::{AsyncRead, AsyncSeekExt, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use snapdeck_model::BufferPool;
use snapdeck_nbd::chunked;

/// Requests under way at once: 16 MiB of them.
const MAX_REQUESTS: usize = 64;
/// Longest request of OpenSSH's server (`SFTP_MAX_READ_LENGTH` in its `sftp-server.c`).
const MAX_REQUEST_BYTES: usize = 255 * 1024;
/// Requests are shorter than this for no server.
const MIN_REQUEST_BYTES: usize = 4096;

/// What an opened file may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// A file on a host, alone on its SFTP connection. Calls may be made from many tasks at once; they have no deadline
/// of their own, and any of them may be dropped: what it asked for may happen nevertheless.
pub(crate) struct SftpFile {
    sftp: Sftp,
    file: File,
    path: String,
    access: Access,
    size_bytes: u64,
    /// Most bytes of one request, as far as it is known.
    request_bytes: AtomicUsize,
    permits: Semaphore,
}

impl SftpFile {
    /// Opens the existing file `path` over the pipes of an `ssh -s HOST sftp`, within `deadline`. The process is the
    /// caller's: with its end every call ends.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`; `TimedOut`; `UnexpectedEof` or `BrokenPipe` where nobody answers; `InvalidData`
    /// for what is no SFTP server or no regular file.
    pub(crate) async fn open(
        stdin: impl AsyncWrite + Send + 'static,
        stdout: impl AsyncRead + Send + 'static,
        path: &str,
        access: Access,
        deadline: Duration,
    ) -> io::Result<Self> {
        let opened = async {
            // Requests are sent when they are made, not at a clock's ticks.
            let options = SftpOptions::new().flush_interval(Duration::ZERO);
            let sftp = Sftp::new(stdin, stdout, options).await?;
            let mut file = sftp
                .options()
                .read(true)
                .write(access == Access::ReadWrite)
                .open(path)
                .await?;
            let metadata = file.metadata().await?;
            Ok((sftp, file, metadata))
        };
        let (sftp, file, metadata) = with_timeout(deadline, opened).await?.map_err(explain)?;
        let is_file = metadata.file_type().is_some_and(|kind| kind.is_file());
        let Some(size_bytes) = metadata.len().filter(|_| is_file) else {
            return Err(invalid_data("it is no regular file"));
        };
        Ok(Self {
            sftp,
            file,
            path: path.to_owned(),
            access,
            size_bytes,
            request_bytes: AtomicUsize::new(MAX_REQUEST_BYTES),
            permits: Semaphore::new(MAX_REQUESTS),
        })
    }

    /// Length as far as it is known, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Looks again how long the file is.
    ///
    /// # Errors
    /// As [`SftpFile::read`].
    pub(crate) async fn refresh_size(&mut self) -> io::Result<()> {
        let metadata = self.file.metadata().await.map_err(explain)?;
        self.size_bytes = metadata.len().unwrap_or(self.size_bytes);
        Ok(())
    }

    /// Reads exactly `length` bytes at `offset`, to one of `buffers`.
    ///
    /// # Errors
    /// `InvalidInput` behind the end. `ConnectionReset` where the connection ended, `InvalidData` where the file is
    /// shorter than it was or what came makes no sense. Otherwise the host's.
    pub(crate) async fn read(
        &self,
        buffers: &BufferPool,
        offset: u64,
        length: usize,
    ) -> io::Result<Bytes> {
        chunked::check_bounds(self.size_bytes, offset, length)?;
        chunked::read_chunked(
            buffers,
            offset,
            length,
            self.request_bytes(),
            |offset, length, buffer| self.read_chunk(offset, length, buffer),
        )
        .await
    }

    /// Writes all of `data` at `offset`. It has reached the host's page cache then, not the disk: see
    /// [`SftpFile::flush`].
    ///
    /// # Errors
    /// `StorageFull`; `PermissionDenied` where it was opened for reading; as [`SftpFile::read`].
    pub(crate) async fn write(&self, offset: u64, data: Bytes) -> io::Result<()> {
        chunked::check_bounds(self.size_bytes, offset, data.len())?;
        self.check_writable()?;
        chunked::write_chunked(offset, data, self.request_bytes(), |offset, data| {
            self.write_chunk(offset, data)
        })
        .await
    }

    /// Brings everything to the disk whose [`SftpFile::write`] has returned (`fsync@openssh.com` in
    /// OpenSSH's `PROTOCOL`).
    ///
    /// # Errors
    /// As [`SftpFile::write`]; `Unsupported` where the server does not know how.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        self.check_writable()?;
        self.file.clone().sync_all().await.map_err(explain)
    }

    /// Closes the file, within `deadline`.
    ///
    /// # Errors
    /// `TimedOut`; the host's.
    pub(crate) async fn close(self, deadline: Duration) -> io::Result<()> {
        let Self { sftp, file, .. } = self;
        let closed = async {
            file.close().await?;
            sftp.close().await
        };
        with_timeout(deadline, closed).await?.map_err(explain)
    }

    fn request_bytes(&self) -> usize {
        self.request_bytes.load(Ordering::Relaxed)
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is opened for reading",
            )),
        }
    }

    async fn read_chunk(
        &self,
        offset: u64,
        length: usize,
        mut buffer: BytesMut,
    ) -> io::Result<BytesMut> {
        let _permit = self.permits.acquire().await;
        let mut file = self.file.clone();
        while buffer.len() < length {
            let done = buffer.len();
            file.seek(SeekFrom::Start(offset + done as u64)).await?;
            // No more than `REQUEST_BYTES`.
            let asked = (length - done) as u32;
            let read = file.read(asked, buffer.split_off(done)).await;
            let Some(bytes) = read.map_err(explain)? else {
                return Err(invalid_data(format!("{} has become shorter", self.path)));
            };
            if bytes.is_empty() || bytes.len() > asked as usize {
                return Err(invalid_data(format!("{} bytes for {asked}", bytes.len())));
            }
            self.limit_request_bytes(bytes.len(), asked as usize);
            buffer.unsplit(bytes);
        }
        Ok(buffer)
    }

    async fn write_chunk(&self, mut offset: u64, mut data: Bytes) -> io::Result<()> {
        let _permit = self.permits.acquire().await;
        let mut file = self.file.clone();
        while !data.is_empty() {
            file.seek(SeekFrom::Start(offset)).await?;
            let written = match file.write_zero_copy(std::slice::from_ref(&data)).await {
                Ok(count) => count.min(data.len()),
                Err(error) => return Err(self.explain_write_error(error, data.len()).await),
            };
            self.limit_request_bytes(written, data.len());
            data = data.slice(written..);
            offset += written as u64;
        }
        Ok(())
    }

    /// Later requests are not longer than what the server carries out, so that all of it is under way at once.
    fn limit_request_bytes(&self, length: usize, asked: usize) {
        if length < asked {
            let step = length.max(MIN_REQUEST_BYTES);
            self.request_bytes.fetch_min(step, Ordering::Relaxed);
        }
    }

    /// SFTP has no number for a full disk: it is a "failure" while no space is left
    /// (draft-ietf-secsh-filexfer-02, section 7).
    async fn explain_write_error(&self, error: Error, length: usize) -> io::Error {
        if !matches!(error, Error::SftpError(SftpErrorKind::Failure, _)) {
            return explain(error);
        }
        match self.sftp.fs().statvfs(&self.path).await {
            Ok(space) if space.bavail.saturating_mul(space.frsize) < length as u64 => {
                io::Error::new(io::ErrorKind::StorageFull, "No space left on device")
            }
            _ => explain(error),
        }
    }
}

async fn with_timeout<T>(deadline: Duration, call: impl Future<Output = T>) -> io::Result<T> {
    timeout(deadline, call).await.map_err(|_| {
        let words = format!(
            "the SFTP server did not answer for {} s",
            deadline.as_secs()
        );
        io::Error::new(io::ErrorKind::TimedOut, words)
    })
}

fn invalid_data(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

fn explain(error: Error) -> io::Error {
    use io::ErrorKind::*;
    match error {
        Error::IOError(error) => error,
        // What happened while cleaning up says less.
        Error::RecursiveErrors(errors) => explain(errors.original_error),
        Error::RecursiveErrors3(errors) => explain(errors.err1),
        Error::BackgroundTaskFailure(_) => {
            io::Error::new(ConnectionReset, "the connection to the SFTP server ended")
        }
        Error::UnsupportedExtension(name) => {
            io::Error::new(Unsupported, format!("the SFTP server does not know {name}"))
        }
        Error::SftpError(code, message) => {
            let kind = match code {
                SftpErrorKind::NoSuchFile => NotFound,
                SftpErrorKind::PermDenied => PermissionDenied,
                SftpErrorKind::OpUnsupported => Unsupported,
                SftpErrorKind::BadMessage => InvalidInput,
                _ => Other,
            };
            let words = message.get().0.replace(char::is_control, " ");
            io::Error::new(kind, words)
        }
        error => invalid_data(format!("this is no SFTP server: {error}")),
    }
}
