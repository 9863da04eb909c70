//! The images that this installation uploaded last of each sandbox, from which the next ones are composed.
//!
//! A cache: without an entry, or with one of an object that was replaced, a push only sends more. It is in the state
//! directory and not in the bucket, since an entry decides which bytes are not sent again.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use snapdeck_host::hash_block;
use snapdeck_model::{Digest, HostName, Manifest};
use snapdeck_qcow2::ComposedImage;

/// Version of the files.
const FORMAT: u32 = 1;
/// Longest file that is read: an image of 2 TiB with clusters of 64 KiB, all of them changed.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Bytes of all files; the oldest are removed beyond it.
const MAX_TOTAL_BYTES: u64 = 2 << 30;
const MAX_FILES: usize = 512;
/// Bytes of a file's digest, which are its last.
const CHECKSUM_BYTES: usize = 32;

/// The directory of the cache, if there is a state directory.
#[derive(Debug, Default)]
pub struct PushCache(Option<PathBuf>);

/// An uploaded image and its state.
pub(crate) struct PushedImage {
    /// Location of the bucket.
    pub location: String,
    /// The manifest of the object.
    pub manifest: Manifest,
    /// [`content_digest`] of the base.
    pub base: Digest,
    pub image: ComposedImage,
    /// Digests of the blocks of the overlay's file, if they were computed.
    pub overlay: Option<Vec<Digest>>,
}

/// The first line of a file; the image's state follows.
#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    location: String,
    base: String,
    manifest: Manifest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    overlay: Option<Vec<String>>,
}

/// Returns the digest of the length and the block digests of an image: it is the same for the same bytes.
pub fn content_digest(manifest: &Manifest) -> Digest {
    let digests = manifest.blocks.iter().flat_map(|digest| digest.0);
    let bytes: Vec<u8> = manifest
        .size_bytes
        .to_be_bytes()
        .into_iter()
        .chain(digests)
        .collect();
    hash_block(&bytes)
}

impl PushCache {
    /// Returns the cache in `directory`, which is created with the first entry.
    pub fn new(directory: PathBuf) -> Self {
        Self(Some(directory))
    }

    /// Returns what was uploaded last of a domain; `None` also if that cannot be read.
    pub(crate) async fn read(&self, host: &HostName, uuid: &str) -> Option<PushedImage> {
        let path = self.path(host, uuid)?;
        let read = tokio::task::spawn_blocking(move || read_file(&path));
        read.await.ok()?
    }

    /// Replaces the entry of a domain.
    ///
    /// # Errors
    /// An I/O error; the earlier entry may be left, which is that of another object.
    pub(crate) async fn write(
        &self,
        host: &HostName,
        uuid: &str,
        pushed: PushedImage,
    ) -> io::Result<()> {
        let Some(path) = self.path(host, uuid) else {
            return Ok(());
        };
        let write = tokio::task::spawn_blocking(move || write_file(&path, &pushed));
        write.await.map_err(io::Error::other)?
    }

    /// Removes the entry of a domain.
    pub(crate) async fn remove(&self, host: &HostName, uuid: &str) {
        if let Some(path) = self.path(host, uuid) {
            // What remains is removed when the cache is full.
            let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
        }
    }

    fn path(&self, host: &HostName, uuid: &str) -> Option<PathBuf> {
        let name = hash_block(format!("{host}/{uuid}").as_bytes()).to_string();
        Some(self.0.as_ref()?.join(name))
    }
}

fn read_file(path: &Path) -> Option<PushedImage> {
    if std::fs::metadata(path).ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    if hash_block(content).0 != checksum {
        return None;
    }
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let (head, image) = content.split_at_checked(end)?;
    let head: Head = serde_json::from_slice(head).ok()?;
    let image = ComposedImage::from_bytes(image.get(1..)?).ok()?;
    let overlay = head.overlay.map(|digests| {
        let parse = |text: &String| Digest::from_hex(text);
        digests.iter().map(parse).collect::<Option<Vec<Digest>>>()
    });
    let is_whole = head.format == FORMAT && image.file_bytes() == head.manifest.size_bytes;
    Some(PushedImage {
        location: head.location,
        base: Digest::from_hex(&head.base)?,
        manifest: is_whole.then_some(head.manifest)?,
        image,
        overlay: overlay.flatten(),
    })
}

fn write_file(path: &Path, pushed: &PushedImage) -> io::Result<()> {
    let head = Head {
        format: FORMAT,
        location: pushed.location.clone(),
        base: pushed.base.to_string(),
        manifest: pushed.manifest.clone(),
        overlay: (pushed.overlay.as_ref())
            .map(|digests| digests.iter().map(Digest::to_string).collect()),
    };
    let mut content = serde_json::to_vec(&head).map_err(io::Error::other)?;
    content.push(b'\n');
    content.extend_from_slice(&pushed.image.to_bytes());
    let checksum = hash_block(&content);
    content.extend_from_slice(&checksum.0);
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    remove_oldest(directory)
}

fn remove_oldest(directory: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, u64, PathBuf)> = std::fs::read_dir(directory)?
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let modified = metadata.modified().ok()?;
            Some((modified, metadata.len(), entry.path()))
        })
        .collect();
    files.sort_unstable();
    let mut bytes = 0;
    for (number, (_, length, path)) in files.iter().rev().enumerate() {
        bytes += length;
        if number > 0 && (number >= MAX_FILES || bytes > MAX_TOTAL_BYTES) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}
