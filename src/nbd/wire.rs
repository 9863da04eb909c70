//! The part of the NBD protocol that reading and writing one export of a `qemu-nbd` needs: fixed newstyle negotiation,
//! one `NBD_OPT_GO`, simple replies. Numbers and layouts are those of
//! <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>, all big-endian; section names in the
//! comments are that document's.

use std::io;

use bytes::{Buf, BufMut};
use snapdeck_model::printable;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// `NBDMAGIC`, which the server sends first ("Newstyle negotiation").
pub(crate) const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`, which the server sends second, and the client before an option.
pub(crate) const OPTION: u64 = 0x4948_4156_454f_5054;
/// Before a reply to an option ("Fixed newstyle negotiation").
pub(crate) const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// Before a request ("Request message").
const REQUEST: u32 = 0x2560_9513;
/// Before a reply to a request ("Simple reply message").
pub(crate) const SIMPLE_REPLY: u32 = 0x6744_6698;

/// Handshake and client flags: `NBD_FLAG_FIXED_NEWSTYLE`, `NBD_FLAG_NO_ZEROES`.
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 1 << 1;
/// Transmission flags: `NBD_FLAG_READ_ONLY`, `NBD_FLAG_SEND_FLUSH`.
const READ_ONLY: u16 = 1 << 1;
const SEND_FLUSH: u16 = 1 << 2;

/// Message of `NBD_ESHUTDOWN`.
pub(crate) const SHUTDOWN: &str = "qemu-nbd is shutting down";

const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

/// Replies to one option; there are about ten kinds of them.
const MAX_OPTION_REPLIES: usize = 64;
/// Bytes of an export's name ("Conventions": strings).
const MAX_NAME_BYTES: u32 = 4096;
/// Bytes of such a reply. Strings in it have at most 4096 ("Conventions": strings).
const MAX_OPTION_REPLY_BYTES: usize = 8192;
/// Bytes that a server must take in a request: with less, a block would be millions of requests.
pub(crate) const MIN_PAYLOAD: u32 = 64 * 1024;
/// The payload that every server accepts: 32 MiB ("Size constraints").
pub(crate) const MAX_PAYLOAD: u32 = 1 << 25;
/// Bytes of a simple reply without its data.
pub(crate) const REPLY_HEADER: usize = 16;
/// Bytes of a request without its data.
pub(crate) const REQUEST_HEADER: usize = 28;

/// "Request types".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
}

/// Encodes a request's header; the data of a write follows it.
pub(crate) fn encode_request(
    command: Command,
    cookie: u64,
    offset: u64,
    length: u32,
) -> [u8; REQUEST_HEADER] {
    let mut header = [0; REQUEST_HEADER];
    let mut rest = &mut header[..];
    rest.put_u32(REQUEST);
    rest.put_u16(0); // No command flags.
    rest.put_u16(command as u16);
    rest.put_u64(cookie);
    rest.put_u64(offset);
    rest.put_u32(length);
    header
}

/// Decodes a simple reply's header to the request's cookie and its outcome.
///
/// # Errors
/// `InvalidData` for another message: the stream cannot be decoded any further.
pub(crate) fn decode_reply(header: [u8; REPLY_HEADER]) -> io::Result<(u64, io::Result<()>)> {
    let mut rest = &header[..];
    let magic = rest.get_u32();
    if magic != SIMPLE_REPLY {
        return Err(protocol_error(format!("unknown reply {magic:#x}")));
    }
    let error = rest.get_u32();
    let cookie = rest.get_u64();
    Ok((cookie, decode_error(error)))
}

/// "Error values". An unknown one counts as `NBD_EINVAL`.
fn decode_error(error: u32) -> io::Result<()> {
    use io::ErrorKind::*;
    let (kind, message) = match error {
        0 => return Ok(()),
        1 => (PermissionDenied, "Operation not permitted"),
        5 => (Other, "Input/output error"),
        12 => (OutOfMemory, "Cannot allocate memory"),
        28 => (StorageFull, "No space left on device"),
        75 => (InvalidInput, "Value too large"),
        95 => (Unsupported, "Operation not supported"),
        // `NBD_ESHUTDOWN`: all later requests fail as well.
        108 => (ConnectionReset, SHUTDOWN),
        _ => (InvalidInput, "Invalid argument"),
    };
    Err(io::Error::new(kind, message))
}

/// An export as the server describes it ("Option reply types", `NBD_REP_INFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Export {
    pub size_bytes: u64,
    pub read_only: bool,
    pub flush_supported: bool,
    /// Bytes of data in one request; never 0.
    pub max_payload: u32,
}

/// Negotiates up to the transmission phase, for the export of that name ("" is the default one).
///
/// # Errors
/// `InvalidData` if the peer speaks another protocol; `Other` with its message if it refuses; `InvalidInput` for a
/// name that is too long; the stream's.
pub(crate) async fn negotiate(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    name: &str,
) -> io::Result<Export> {
    let length = u32::try_from(name.len())
        .ok()
        .filter(|length| *length <= MAX_NAME_BYTES)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name of the export is too long",
            )
        })?;
    let magic = (stream.read_u64().await?, stream.read_u64().await?);
    if magic != (MAGIC, OPTION) {
        return Err(protocol_error(format!(
            "unknown greeting {:#x} {:#x}",
            magic.0, magic.1
        )));
    }
    let flags = stream.read_u16().await?;
    if flags & FIXED_NEWSTYLE == 0 {
        return Err(protocol_error("no fixed newstyle negotiation"));
    }
    let mut hello = Vec::with_capacity(26 + name.len());
    hello.put_u32(u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)));
    hello.put_u64(OPTION);
    hello.put_u32(OPT_GO);
    hello.put_u32(6 + length);
    hello.put_u32(length);
    hello.put_slice(name.as_bytes());
    // No information requests. A client that does not request block sizes need not align its reads and writes; the size
    // is sent in any case.
    hello.put_u16(0);
    stream.write_all(&hello).await?;

    let (mut size_and_flags, mut max_payload) = (None, MAX_PAYLOAD);
    for _ in 0..MAX_OPTION_REPLIES {
        let magic = stream.read_u64().await?;
        let option = stream.read_u32().await?;
        let kind = stream.read_u32().await?;
        let length = stream.read_u32().await? as usize;
        if magic != OPTION_REPLY || option != OPT_GO || length > MAX_OPTION_REPLY_BYTES {
            return Err(protocol_error(format!(
                "invalid option reply {magic:#x} {option} {kind:#x} {length}"
            )));
        }
        let mut data = vec![0; length];
        stream.read_exact(&mut data).await?;
        match kind {
            REP_ACK => {
                let (size_bytes, flags): (u64, u16) = size_and_flags
                    .ok_or_else(|| protocol_error("the size of the export is missing"))?;
                return Ok(Export {
                    size_bytes,
                    read_only: flags & READ_ONLY != 0,
                    flush_supported: flags & SEND_FLUSH != 0,
                    max_payload,
                });
            }
            REP_INFO => {
                let mut rest = &data[..];
                match (rest.try_get_u16(), rest.len()) {
                    (Ok(INFO_EXPORT), 10) => {
                        size_and_flags = Some((rest.get_u64(), rest.get_u16()))
                    }
                    (Ok(INFO_BLOCK_SIZE), 12) => {
                        rest.advance(8);
                        max_payload = rest.get_u32().min(MAX_PAYLOAD);
                        if max_payload < MIN_PAYLOAD {
                            return Err(protocol_error(format!(
                                "it takes at most {max_payload} bytes in a request"
                            )));
                        }
                    }
                    // "The client MUST ignore information replies it does not understand."
                    _ => {}
                }
            }
            kind if kind & REP_ERROR != 0 => {
                let message = printable(&String::from_utf8_lossy(&data));
                let number = kind & !REP_ERROR;
                return Err(io::Error::other(format!(
                    "qemu-nbd refused the export (error {number}): {message}"
                )));
            }
            _ => {
                return Err(protocol_error(format!("unknown option reply type {kind}")));
            }
        }
    }
    Err(protocol_error("its option replies do not end"))
}

pub(crate) fn protocol_error(cause: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not an NBD server: {cause}"),
    )
}
