//! Ids of directories, by which hosts that share one are found.
//!
//! The file `.snapdeck-directory-id` has a random id. Two hosts share a directory if both read the same id from the same
//! inode: in a copy of a directory the file has another one.

use crate::fs::HostFs;
use snapdeck_model::{Error, Kind, Result};

/// Name of the file in a directory.
pub(crate) const FILE_NAME: &str = ".snapdeck-directory-id";
const PREFIX: &str = "snapdeck-directory-id ";
/// Length of an id in hexadecimal digits.
const ID_LENGTH: usize = 32;

/// Returns the id that a file begins with.
pub(crate) fn parse(start: &[u8]) -> Option<String> {
    let id = start.strip_prefix(PREFIX.as_bytes())?.get(..ID_LENGTH)?;
    let id = std::str::from_utf8(id).ok()?;
    let is_hex = |c: char| c.is_ascii_hexdigit();
    id.chars().all(is_hex).then(|| id.to_owned())
}

/// Returns the text of a new file.
fn new_text() -> std::io::Result<String> {
    let mut bytes = [0; ID_LENGTH / 2];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        "{PREFIX}{id}\n\nHosts that share this directory are recognised by this file. Do not copy it.\n"
    ))
}

/// Creates the file in `dir`, if that exists; never replaces one.
///
/// # Errors
/// An I/O error; `Unreachable`.
pub(crate) async fn ensure(fs: &dyn HostFs, dir: &str) -> Result<()> {
    let path = format!("{dir}/{FILE_NAME}");
    let text = new_text().map_err(|error| {
        Error::new(Kind::Failed, format!("cannot create {path}")).with_cause(error)
    })?;
    fs.create_file(&path, text.into_bytes()).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_id_is_random_and_read_back() {
        let (a, b) = (new_text().unwrap(), new_text().unwrap());
        assert_eq!(parse(a.as_bytes()).unwrap().len(), ID_LENGTH);
        assert_ne!(parse(a.as_bytes()), parse(b.as_bytes()));
        assert_eq!(parse(&a.as_bytes()[..PREFIX.len() + 5]), None);
        assert_eq!(
            parse(b"snapdeck-directory-id ../../../../../etc/passwd/////"),
            None
        );
    }
}
