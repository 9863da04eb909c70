//! Whether a file can be a snapshot: a qcow2 image that needs no other file.

use humansize::{BINARY, format_size};

use snapdeck_host::ImageFile;
use snapdeck_model::{Error, ImageFacts, Kind, MAX_IMAGE_BYTES, Result};
use snapdeck_qcow2::HeaderError;

/// Returns the facts of a standalone qcow2 image, or why the file is not one.
pub(crate) fn standalone_facts(facts: &Result<ImageFacts, String>) -> Result<&ImageFacts, String> {
    let facts = facts.as_ref().map_err(String::clone)?;
    match &facts.backing_file {
        Some(backing) => Err(format!("it has the backing file {backing:?}")),
        None if facts.has_external_data_file => Err("it has an external data file".to_owned()),
        // QEMU sets the mark when it finds the tables damaged, and writes no such image any more.
        None if facts.corrupt => Err("it is marked corrupt".to_owned()),
        None => Ok(facts),
    }
}

/// Returns the facts of an image that starts with `data`, or why it cannot be a snapshot.
pub(crate) fn header_facts(data: &[u8]) -> Result<ImageFacts, String> {
    let facts = snapdeck_qcow2::read_header(data).map_err(|error| match error {
        HeaderError::Invalid(reason) => reason,
        HeaderError::Incomplete { .. } => "its header is truncated".to_owned(),
    });
    standalone_facts(&facts)?;
    facts
}

/// Fails unless `file`, which messages call `name`, is a standalone qcow2 image, and not longer than one may be: memory is
/// taken for each of its blocks.
///
/// # Errors
/// `Damaged`.
pub(crate) fn refuse_unusable(file: &ImageFile, name: &str) -> Result<()> {
    let reason = match standalone_facts(&file.facts) {
        Err(reason) => reason,
        Ok(_) if file.size_bytes > MAX_IMAGE_BYTES => {
            let size = |bytes| format_size(bytes, BINARY);
            format!(
                "it has {}, an image has {} at most",
                size(file.size_bytes),
                size(MAX_IMAGE_BYTES)
            )
        }
        Ok(_) => return Ok(()),
    };
    let summary = format!("{name} cannot be used as a snapshot");
    Err(Error::new(Kind::Damaged, summary)
        .with_cause(reason)
        .hint("only standalone qcow2 images can; inspect it with `qemu-img info`"))
}
