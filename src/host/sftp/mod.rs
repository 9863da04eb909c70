//! Reads and writes a file of a host at offsets over SFTP, for hosts whose sshd forbids socket forwarding, which
//! [`Nbd`](snapdeck_nbd::Nbd) needs. Both have the same calls and errors.

mod packets;
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

use self::packets::CheckedPackets;
use crate::image_file::NOT_A_FILE;
use snapdeck_model::BufferPool;
use snapdeck_nbd::chunked;

/// Concurrent requests, 16 MiB in total.
const MAX_REQUESTS: usize = 64;
/// Maximum request length of OpenSSH's server (`SFTP_MAX_READ_LENGTH` in its `sftp-server.c`).
const MAX_REQUEST_BYTES: usize = 255 * 1024;
/// Requests are never limited to less than this.
const MIN_REQUEST_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// A file of a host on its own SFTP connection.
///
/// Many tasks may call it concurrently. Calls have no deadline of their own and may be dropped; a dropped write may
/// happen nevertheless.
pub(crate) struct SftpFile {
    sftp: Sftp,
    file: File,
    path: String,
    access: Access,
    size_bytes: u64,
    /// Maximum request length that the server is known to execute.
    request_bytes: AtomicUsize,
    permits: Semaphore,
}

impl SftpFile {
    /// Opens the existing file `path` over the pipes of an `ssh -s HOST sftp`, which the caller owns; all calls fail
    /// when it exits.
    ///
    /// # Errors
    /// `NotFound`; `PermissionDenied`; `TimedOut` after `deadline`; `UnexpectedEof` or `BrokenPipe` if the server
    /// exits; `InvalidData` if it is not an SFTP server, or the file is not a regular one.
    pub(crate) async fn open(
        stdin: impl AsyncWrite + Send + 'static,
        stdout: impl AsyncRead + Unpin + Send + 'static,
        path: &str,
        access: Access,
        deadline: Duration,
    ) -> io::Result<Self> {
        let opened = async {
            // Sends each request at once instead of at an interval.
            let options = SftpOptions::new().flush_interval(Duration::ZERO);
            let sftp = Sftp::new(stdin, CheckedPackets::new(stdout), options).await?;
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
            return Err(invalid_data(NOT_A_FILE));
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

    /// Returns the length when it was last read, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Reads the length of the file again.
    ///
    /// # Errors
    /// As [`SftpFile::read`].
    pub(crate) async fn refresh_size(&mut self) -> io::Result<()> {
        let metadata = self.file.metadata().await.map_err(explain)?;
        self.size_bytes = metadata.len().unwrap_or(self.size_bytes);
        Ok(())
    }

    /// Reads exactly `length` bytes at `offset` into one of `buffers`.
    ///
    /// # Errors
    /// `InvalidInput` past the end; `ConnectionReset` if the connection is lost; `InvalidData` if the file has become
    /// shorter or the response is invalid; an I/O error of the host.
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

    /// Writes all of `data` at `offset` to the host's page cache; [`SftpFile::flush`] writes it to the disk.
    ///
    /// # Errors
    /// `StorageFull`; `PermissionDenied` if it is open for reads only; as [`SftpFile::read`].
    pub(crate) async fn write(&self, offset: u64, data: Bytes) -> io::Result<()> {
        chunked::check_bounds(self.size_bytes, offset, data.len())?;
        self.check_writable()?;
        chunked::write_chunked(offset, data, self.request_bytes(), |offset, data| {
            self.write_chunk(offset, data)
        })
        .await
    }

    /// Flushes all finished writes to the disk (`fsync@openssh.com` in OpenSSH's `PROTOCOL`).
    ///
    /// # Errors
    /// As [`SftpFile::write`]; `Unsupported` if the server does not have this extension.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        self.check_writable()?;
        self.file.clone().sync_all().await.map_err(explain)
    }

    /// Closes the file.
    ///
    /// # Errors
    /// `TimedOut` after `deadline`; an I/O error of the host.
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
                "it is open for reads only",
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
            // At most `MAX_REQUEST_BYTES`.
            let requested = (length - done) as u32;
            let read = file.read(requested, buffer.split_off(done)).await;
            let Some(bytes) = read.map_err(explain)? else {
                return Err(invalid_data(format!("{} has become shorter", self.path)));
            };
            if bytes.is_empty() || bytes.len() > requested as usize {
                let message = format!("the response has {} of {requested} bytes", bytes.len());
                return Err(invalid_data(message));
            }
            self.limit_request_bytes(bytes.len(), requested as usize);
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
                // The server has announced such a limit.
                Ok(0) => return Err(invalid_data("the server takes no bytes in a write")),
                Ok(count) => count.min(data.len()),
                Err(error) => return Err(self.explain_write_error(error, data.len()).await),
            };
            self.limit_request_bytes(written, data.len());
            data = data.slice(written..);
            offset += written as u64;
        }
        Ok(())
    }

    /// Limits later requests to what the server executed of one, so that they need no second one for the rest.
    fn limit_request_bytes(&self, executed: usize, requested: usize) {
        if executed < requested {
            let limit = executed.max(MIN_REQUEST_BYTES);
            self.request_bytes.fetch_min(limit, Ordering::Relaxed);
        }
    }

    /// Detects a full disk, for which SFTP only has the code of a general failure (draft-ietf-secsh-filexfer-02,
    /// section 7).
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
        let message = format!(
            "no answer from the SFTP server for {} s",
            deadline.as_secs()
        );
        io::Error::new(io::ErrorKind::TimedOut, message)
    })
}

fn invalid_data(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

fn explain(error: Error) -> io::Error {
    use io::ErrorKind::*;
    match error {
        Error::IOError(error) => error,
        // The first error is the cause, the others are of the cleanup.
        Error::RecursiveErrors(errors) => explain(errors.original_error),
        Error::RecursiveErrors3(errors) => explain(errors.err1),
        Error::BackgroundTaskFailure(_) => io::Error::new(
            ConnectionReset,
            "the connection to the SFTP server was lost",
        ),
        Error::UnsupportedExtension(name) => io::Error::new(
            Unsupported,
            format!("the SFTP server does not support {name}"),
        ),
        Error::SftpError(code, message) => {
            let kind = match code {
                SftpErrorKind::NoSuchFile => NotFound,
                SftpErrorKind::PermDenied => PermissionDenied,
                SftpErrorKind::OpUnsupported => Unsupported,
                SftpErrorKind::BadMessage => InvalidInput,
                _ => Other,
            };
            let message = message.get().0.replace(char::is_control, " ");
            io::Error::new(kind, message)
        }
        error => invalid_data(format!("unexpected response of the SFTP server: {error}")),
    }
}
