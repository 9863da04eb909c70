//! Proves by the store's checksums that an object without a manifest has the bytes of a host's file: the object is not read,
//! and the file is read on its host.

use humansize::{BINARY, format_size};

use snapdeck_bucket::{Bucket, Md5Tag};
use snapdeck_host::{Checksum, Host};
use snapdeck_model::{
    BLOCK_BYTES, ContentProof, Digest, FileStamp, Kind, Manifest, Object, Phase, Result,
    block_bytes, block_count,
};

use crate::context::Context;

/// Why an object is not proven to be a snapshot.
pub(crate) struct Unproven {
    pub reason: String,
    /// Whether the checksums were compared, which takes long.
    pub is_compared: bool,
}

/// The proof that an object has the bytes of a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObjectProof {
    pub kind: ContentProof,
    /// Whether it shows the digests of the blocks, too. Else they are those that the host claims: its file has the checksums of the
    /// object, but may have other blocks than its manifest says.
    pub has_digests: bool,
}

impl ObjectProof {
    fn of_file(kind: ContentProof) -> Self {
        Self {
            kind,
            has_digests: false,
        }
    }
}

/// Returns the proof that `object` has the bytes of the snapshot of `local`, or why that is not proven.
///
/// The caller checks afterwards that the snapshot is unchanged.
///
/// # Errors
/// `Conflict` if the file does not have the stamp in `local`; `Cancelled`; those of the host and the bucket.
pub(crate) async fn prove_object(
    host: &Host,
    bucket: &Bucket,
    object: &Object,
    local: &Manifest,
    ctx: &Context,
) -> Result<Result<ObjectProof, Unproven>> {
    let (key, name) = (&object.key, &local.name);
    let different = || {
        Ok(Err(Unproven {
            reason: format!("{key} is a different image"),
            is_compared: true,
        }))
    };
    let unproven = || {
        format!(
            "{key} is a different image, as far as the store's checksums show; `snapdeck adopt {name} --bucket` reads it"
        )
    };
    if local.different_object.is_some() && local.different_object == object.etag {
        return Ok(Err(Unproven {
            reason: unproven(),
            is_compared: false,
        }));
    }
    let checksums = bucket.checksums(object).await?;
    let path = host.snapshot_path(name);
    let file = PartSums {
        host,
        path: &path,
        stamp: local.file,
        size_bytes: local.size_bytes,
        ctx,
    };
    let trusted = bucket.trusted_checksums();
    if !checksums.sha256_parts.is_empty() {
        let blocks = blocks_of(&checksums.sha256_parts, local.size_bytes);
        let has_digests = blocks.is_some();
        let is_same = match blocks {
            Some(blocks) => blocks == local.blocks,
            None => {
                let (lengths, expected): (Vec<u64>, Vec<Digest>) =
                    checksums.sha256_parts.iter().copied().unzip();
                let sums = file.compute(Checksum::Sha256, &lengths).await?;
                let expected = expected.iter().map(|digest| &digest.0[..]);
                sums.iter().map(Vec::as_slice).eq(expected)
            }
        };
        return match is_same {
            true => Ok(Ok(ObjectProof {
                kind: ContentProof::Sha256,
                has_digests,
            })),
            false => different(),
        };
    }
    if !trusted.accepts(ContentProof::Md5) {
        let reason = format!(
            "the store has no SHA-256 of {key}, which the settings require: `snapdeck adopt {name} --bucket` reads it"
        );
        return Ok(Err(Unproven {
            reason,
            is_compared: false,
        }));
    }
    if let Some(crc) = checksums.crc64nvme
        && !host.is_remote()
    {
        let sums = file
            .compute(Checksum::Crc64Nvme, &[local.size_bytes])
            .await?;
        return match sums == [crc] {
            true => Ok(Ok(ObjectProof::of_file(ContentProof::Crc64Nvme))),
            false => different(),
        };
    }
    let is_same = match &checksums.md5 {
        None => false,
        Some(Md5Tag::Whole(digest)) => {
            let sums = file.compute(Checksum::Md5, &[local.size_bytes]).await?;
            sums == [digest]
        }
        Some(Md5Tag::Parts {
            digest,
            part_lengths,
        }) => {
            let mut is_same = false;
            for length in part_lengths {
                let lengths = file.split(*length);
                let sums = file.compute(Checksum::Md5, &lengths).await?;
                is_same = Checksum::Md5.compute(&sums.concat()) == digest;
                if is_same {
                    break;
                }
            }
            is_same
        }
    };
    Ok(match is_same {
        true => Ok(ObjectProof::of_file(ContentProof::Md5)),
        false => Err(Unproven {
            reason: unproven(),
            is_compared: checksums.md5.is_some(),
        }),
    })
}

/// Returns the digests of the blocks of an image if its parts are its blocks.
fn blocks_of(parts: &[(u64, Digest)], size_bytes: u64) -> Option<Vec<Digest>> {
    let lengths = parts.iter().map(|(length, _)| *length);
    let blocks = (0..block_count(size_bytes)).map(|block| block_bytes(block, size_bytes));
    lengths
        .eq(blocks)
        .then(|| parts.iter().map(|(_, digest)| *digest).collect())
}

struct PartSums<'a> {
    host: &'a Host,
    path: &'a str,
    stamp: Option<FileStamp>,
    size_bytes: u64,
    ctx: &'a Context,
}

impl PartSums<'_> {
    fn split(&self, length: u64) -> Vec<u64> {
        let count = self.size_bytes.div_ceil(length);
        let part = |index| length.min(self.size_bytes - index * length);
        (0..count).map(part).collect()
    }

    async fn compute(&self, checksum: Checksum, lengths: &[u64]) -> Result<Vec<Vec<u8>>> {
        let (host, ctx) = (self.host, self.ctx);
        ctx.check_cancelled()?;
        ctx.info(format!(
            "computing the {} of {}, {}, in parts of {}",
            match checksum {
                Checksum::Sha256 => "SHA-256",
                Checksum::Md5 => "MD5",
                Checksum::Crc64Nvme => "CRC64NVME",
            },
            self.path,
            format_size(self.size_bytes, BINARY),
            format_size(lengths.first().copied().unwrap_or(BLOCK_BYTES), BINARY)
        ));
        ctx.progress.enter(Phase::Hashing, self.size_bytes);
        let (progress, cancel) = (&ctx.progress, &ctx.cancel);
        let file = (self.path, self.stamp);
        let sums = host
            .fs()
            .part_checksums(file, checksum, lengths, progress, cancel);
        sums.await
    }
}

/// Writes the manifest of an object that was proven to be the snapshot of `local`.
///
/// A failure is only logged: the proof is repeated then.
///
/// # Errors
/// `Cancelled`; `Conflict` if the object was replaced meanwhile.
pub(crate) async fn adopt_proven(
    host: &Host,
    bucket: &Bucket,
    object: &Object,
    local: &Manifest,
    proof: ObjectProof,
    ctx: &Context,
) -> Result<()> {
    let mut manifest = Manifest::new(object.name.clone(), object.size_bytes, local.blocks.clone());
    manifest.virtual_size = local.virtual_size;
    manifest.etag = object.etag.clone();
    manifest.proof = Some(proof.kind);
    manifest.claimed = (!proof.has_digests).then(|| host.claim());
    match bucket.write_manifest(&manifest).await {
        Ok(()) => ctx.info(format!(
            "recorded the digests of {}, proven by {}",
            object.key,
            proof.kind.as_str()
        )),
        Err(error) if error.kind() == Kind::Cancelled => return Err(error),
        Err(error) => ctx.warn(format!("{}; it still has no manifest", error.message())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_blocks_need_no_reading() {
        let digest = |seed| Digest([seed; 32]);
        let size = BLOCK_BYTES + 5;
        let parts = [(BLOCK_BYTES, digest(1)), (5, digest(2))];
        assert_eq!(blocks_of(&parts, size), Some(vec![digest(1), digest(2)]));
        assert_eq!(blocks_of(&parts, size + 1), None);
        assert_eq!(blocks_of(&[(size, digest(1))], size), None);
    }
}
