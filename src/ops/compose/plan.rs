//! Decides how a disk is composed.

use std::ops::Range;

use humansize::{BINARY, format_size};

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{BLOCK_BYTES, Digest, Manifest, Method, Result};
use snapdeck_qcow2::{Composer, Layout, Options};

use super::abort::ComposeAbort;
use super::base_proof::{BaseProof, known_base, prove_base};
use super::disk_chain::DiskChain;
use super::overlay_blocks::{hash_overlay, unchanged_ranges};
use super::previous::find_previous;
use crate::context::Context;
use crate::push_cache::PushCache;
use crate::sandbox_disk::SandboxDisk;
use crate::transfer_plan::ZERO_BLOCK;

/// Fraction of dead bytes in the kept image above which the whole image is rewritten.
const MAX_DEAD_FRACTION: f64 = 0.25;

/// The layout of a composed image and the source of the bytes that it keeps.
pub(super) struct ComposePlan<'a> {
    pub chain: &'a DiskChain,
    pub composer: Composer,
    pub layout: Layout,
    /// Why this layout.
    pub layout_reason: String,
    /// The object that has the kept bytes, or why the bucket cannot copy them.
    pub kept_object: Result<BaseProof, String>,
    /// Whether the kept image is the sandbox's last push, and not the base.
    pub is_on_previous: bool,
    /// The manifest of the base's file, if its content is known.
    pub base_manifest: Option<Manifest>,
    /// Why the image is not composed on the last push, if there is one.
    pub previous_reason: Option<String>,
    /// Digests of the blocks of the overlay's file, if they were computed.
    pub overlay_digests: Option<Vec<Digest>>,
}

/// Choices of a [`ComposePlan`].
#[derive(Clone, Copy)]
pub(super) struct PlanOptions<'a> {
    pub compact: bool,
    pub zstd_enabled: bool,
    /// Where the last push is recorded; `None` if nothing may be composed on it.
    pub push_cache: Option<&'a PushCache>,
}

impl<'a> ComposePlan<'a> {
    /// Reads the tables of `chain` and decides.
    pub(super) async fn new(
        host: &Host,
        bucket: &Bucket,
        source: &SandboxDisk,
        chain: &'a DiskChain,
        options: PlanOptions<'_>,
        ctx: Option<&Context>,
    ) -> Result<Self, ComposeAbort> {
        let (base, overlays) = chain.read_tables().await?;
        let known = known_base(host, source, chain, ctx).await?;
        let zeros = known.as_ref().map(|manifest| zero_ranges(&manifest.blocks));
        let base = base.with_zero_ranges(&zeros.unwrap_or_default());
        let compose_options = Options {
            zstd_enabled: options.zstd_enabled,
        };
        let (mut previous_reason, mut overlay_digests) = (None, None);
        if !options.compact
            && let (Some(cache), Ok(manifest)) = (options.push_cache, &known)
        {
            match find_previous(host, bucket, source, manifest, cache).await? {
                None => {}
                Some(Err(reason)) => previous_reason = Some(reason),
                Some(Ok(previous)) => {
                    let (base, overlays) = (base.clone(), overlays.clone());
                    let unchanged = match (&previous.overlay, ctx) {
                        (Some(before), Some(ctx)) => {
                            overlay_digests = hash_overlay(host, source, chain, ctx).await?;
                            let ranges = unchanged_ranges(before, overlay_digests.as_deref());
                            let bytes: u64 =
                                ranges.iter().map(|range| range.end - range.start).sum();
                            if bytes > 0 {
                                let size = format_size(bytes, BINARY);
                                ctx.info(format!(
                                    "{size} of the overlay are unchanged on the host and not read"
                                ));
                            }
                            ranges
                        }
                        _ => Vec::new(),
                    };
                    let image = &previous.image;
                    let composer =
                        Composer::on_previous(base, overlays, image, &unchanged, compose_options)?;
                    let dead_fraction = composer.estimate().dead_fraction();
                    if dead_fraction <= MAX_DEAD_FRACTION {
                        let name = &previous.proof.object.name;
                        return Ok(Self {
                            chain,
                            composer,
                            layout: Layout::Append,
                            layout_reason: format!(
                                "{name}, the last push of this sandbox, is kept and changes are appended"
                            ),
                            kept_object: Ok(previous.proof),
                            is_on_previous: true,
                            base_manifest: known.ok(),
                            previous_reason: None,
                            overlay_digests,
                        });
                    }
                    previous_reason = Some(format!(
                        "{:.0} % of it is deleted data",
                        dead_fraction * 100.0
                    ));
                }
            }
        }
        let compose =
            |layout| Composer::new(base.clone(), overlays.clone(), layout, compose_options);
        let append = compose(Layout::Append)?;
        let dead_fraction = append.estimate().dead_fraction();
        let compact_reason = match options.compact {
            true => Some("requested with --compact".to_owned()),
            false => (dead_fraction > MAX_DEAD_FRACTION)
                .then(|| format!("{:.0} % of the base is deleted data", dead_fraction * 100.0)),
        };
        let (reason, kept_object) = match (compact_reason, &known) {
            (Some(reason), _) => (Some(reason), Err("the whole image is rewritten".to_owned())),
            (None, known) => {
                let proof = match known {
                    Ok(manifest) => prove_base(host, bucket, manifest, ctx).await?,
                    Err(reason) => Err(reason.clone()),
                };
                let holes = chain.base_hole_fraction();
                let is_sparse = proof.is_err() && holes > MAX_DEAD_FRACTION;
                let reason = || format!("{:.0} % of the base's file are holes", holes * 100.0);
                (is_sparse.then(reason), proof)
            }
        };
        let (layout, composer, layout_reason) = match reason {
            Some(reason) => (Layout::Compact, compose(Layout::Compact)?, reason),
            None => {
                let reason = "the base's bytes are kept and changes are appended".to_owned();
                (Layout::Append, append, reason)
            }
        };
        Ok(Self {
            chain,
            composer,
            layout,
            layout_reason,
            kept_object,
            is_on_previous: false,
            base_manifest: known.ok(),
            previous_reason,
            overlay_digests,
        })
    }

    pub(super) fn method(&self) -> Method {
        match self.layout {
            Layout::Append => Method::Append,
            Layout::Compact => Method::Compact,
        }
    }

    pub(super) fn log(&self, ctx: &Context) {
        ctx.info(format!(
            "composing the image ({}): {}",
            self.method().as_str(),
            self.layout_reason
        ));
        if let Some(reason) = &self.previous_reason {
            ctx.info(format!("not composing on the last push: {reason}"));
        }
        if self.layout == Layout::Append {
            match &self.kept_object {
                Ok(proof) => ctx.info(format!(
                    "copying unchanged parts from {} in the bucket: {}",
                    proof.object.key, proof.reason
                )),
                Err(reason) => ctx.warn(format!(
                    "the bucket has no copy of the base: {reason}; uploading what no other object has"
                )),
            }
        }
        let dead_bytes = self.composer.estimate().dead_data_bytes;
        if dead_bytes > 0 {
            ctx.info(format!(
                "{} are deleted or replaced but stay readable in the object; pass --compact to leave them \
                 out",
                format_size(dead_bytes, BINARY)
            ));
        }
    }
}

/// Returns the ranges of a file whose blocks are zeros.
fn zero_ranges(blocks: &[Digest]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let zeros = (0..)
        .zip(blocks)
        .filter(|(_, digest)| **digest == ZERO_BLOCK);
    for (block, _) in zeros {
        let (start, end) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeros_are_ranges() {
        let data = Digest([1; 32]);
        let blocks = [ZERO_BLOCK, data, ZERO_BLOCK, ZERO_BLOCK, data];
        let expected = [0..BLOCK_BYTES, 2 * BLOCK_BYTES..4 * BLOCK_BYTES];
        assert_eq!(zero_ranges(&blocks), expected);
        assert_eq!(zero_ranges(&[data]), []);
    }
}
