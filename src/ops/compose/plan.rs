//! Decides how a disk is composed.

use humansize::{BINARY, format_size};

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Method, Result};
use snapdeck_qcow2::{Composer, Layout, Options};

use super::abort::ComposeAbort;
use super::base_proof::{BaseProof, prove_base};
use super::disk_chain::DiskChain;
use crate::context::Context;
use crate::sandbox_disk::SandboxDisk;

/// Fraction of dead bytes in the base above which the whole image is rewritten.
const MAX_DEAD_FRACTION: f64 = 0.25;

/// The layout of a composed image and the source of its base.
pub(super) struct ComposePlan<'a> {
    pub chain: &'a DiskChain,
    pub composer: Composer,
    pub layout: Layout,
    /// Why this layout.
    pub layout_reason: String,
    /// The object that has the base's bytes, or why the bucket cannot copy them.
    pub base: Result<BaseProof, String>,
}

impl<'a> ComposePlan<'a> {
    /// Reads the tables of `chain` and decides.
    pub(super) async fn new(
        host: &Host,
        bucket: &Bucket,
        source: &SandboxDisk,
        chain: &'a DiskChain,
        compact: bool,
        zstd_enabled: bool,
        ctx: Option<&Context>,
    ) -> Result<Self, ComposeAbort> {
        let (base, overlays) = chain.read_tables().await?;
        let compose = |layout| {
            let options = Options { zstd_enabled };
            Composer::new(base.clone(), overlays.clone(), layout, options)
        };
        let append = compose(Layout::Append)?;
        let dead_fraction = append.estimate().dead_fraction();
        let compact_reason = match compact {
            true => Some("requested with --compact".to_owned()),
            false => (dead_fraction > MAX_DEAD_FRACTION)
                .then(|| format!("{:.0} % of the base is deleted data", dead_fraction * 100.0)),
        };
        Ok(match compact_reason {
            Some(layout_reason) => Self {
                chain,
                composer: compose(Layout::Compact)?,
                layout: Layout::Compact,
                layout_reason,
                base: Err("the whole image is rewritten".to_owned()),
            },
            None => Self {
                chain,
                composer: append,
                layout: Layout::Append,
                layout_reason: "the base's bytes are kept and changes are appended".to_owned(),
                base: prove_base(host, bucket, source, chain, ctx).await?,
            },
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
        if self.layout == Layout::Append {
            match &self.base {
                Ok(proof) => ctx.info(format!(
                    "copying the base from {} in the bucket: {}",
                    proof.object.key, proof.reason
                )),
                Err(reason) => ctx.warn(format!(
                    "full upload, the base cannot be copied in the bucket: {reason}"
                )),
            }
        }
        let dead_bytes = self.composer.estimate().dead_data_bytes;
        if dead_bytes > 0 {
            ctx.info(format!(
                "{} of the base are deleted or replaced but stay readable in the object; pass --compact to leave them \
                 out",
                format_size(dead_bytes, BINARY)
            ));
        }
    }
}
