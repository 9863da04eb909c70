//! A snapshot of a host as the source of an upload or a copy: a complete image that needs no other file.

use std::collections::BTreeMap;

use bytes::Bytes;

use snapdeck_host::{Host, ImageFile};
use snapdeck_model::{
    Annotations, BlockSet, ContentProof, Digest, Error, FileStamp, Kind, Manifest, Result,
    SnapshotName,
};

use crate::adopt::{adopt_file, wait_for_clock};
use crate::context::Context;
use crate::hash_blocks::{bad_blocks_text, hash_local_blocks};
use crate::standalone_image::refuse_unusable;
use crate::variables::{find_local_problem, read_variables, snapshot_parts};
use crate::verify::find_image;

/// A snapshot that was checked, as it was then.
pub(crate) struct LocalSnapshot<'a> {
    host: &'a Host,
    pub name: &'a SnapshotName,
    /// Completes "cannot ... NAME".
    verb: &'static str,
    pub path: String,
    pub file: ImageFile,
    /// The manifest, whose digests are those of the file.
    pub manifest: Option<Manifest>,
    annotations: Annotations,
    /// The UEFI variables.
    pub variables: Option<Bytes>,
}

impl<'a> LocalSnapshot<'a> {
    /// Finds the snapshot that is to be `verb`ed, and checks it.
    ///
    /// The manifest is trusted while the file has the recorded stamp; else all blocks are hashed, and the new stamp is
    /// recorded.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` if it is not a standalone image, is damaged, or is not what its manifest says; `Conflict` if a
    /// process has it open for writing; those of the host.
    pub(crate) async fn find(
        host: &'a Host,
        name: &'a SnapshotName,
        verb: &'static str,
        ctx: &Context,
    ) -> Result<Self> {
        let mut snapshot = Self {
            host,
            name,
            verb,
            path: host.snapshot_path(name),
            file: find_image(host, name).await?,
            manifest: None,
            annotations: Annotations::default(),
            variables: None,
        };
        snapshot.refuse_unusable(ctx).await?;
        let annotations = host.snapshots().annotations(name).await?;
        snapshot.annotations = annotations.unwrap_or_default();
        snapshot.manifest = snapshot.find_manifest(ctx).await?;
        snapshot.variables = snapshot.find_variables().await?;
        Ok(snapshot)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.file.size_bytes
    }

    /// Returns the digests of its blocks, if they are known.
    pub(crate) fn digests(&self) -> Option<&[Digest]> {
        self.manifest.as_ref().map(|manifest| &*manifest.blocks)
    }

    /// Adopts it if its blocks are not known: they are hashed on its host, and it has a manifest from then on.
    ///
    /// # Errors
    /// Those of the host; `Conflict` if it changes meanwhile; `Cancelled`.
    pub(crate) async fn hash_blocks(&mut self, ctx: &Context) -> Result<()> {
        if self.manifest.is_some() {
            return Ok(());
        }
        let adopted = Box::pin(adopt_file(self.host, self.name, ctx)).await?;
        let manifest = adopted.manifest;
        if manifest.file != Some(self.file.stamp) {
            return Err(self.changed_error(&self.path));
        }
        self.manifest = Some(manifest.with_existing_annotations(self.annotations.clone()));
        Ok(())
    }

    /// Returns a manifest with its annotations for a snapshot that has none.
    pub(crate) fn new_manifest(&self, blocks: Vec<Digest>) -> Manifest {
        let mut manifest = Manifest::new(self.name.clone(), self.size_bytes(), blocks);
        manifest.proof = Some(ContentProof::Read);
        manifest.with_existing_annotations(self.annotations.clone())
    }

    /// Fails if it was changed since it was found. `digests` are those of the blocks as they were read meanwhile.
    ///
    /// A file of which only the owner was changed, as libvirt does when a sandbox starts, is hashed again.
    ///
    /// # Errors
    /// `Conflict`; those of the host; `Cancelled`.
    pub(crate) async fn check_unchanged(
        &mut self,
        digests: &[Digest],
        ctx: &Context,
    ) -> Result<()> {
        let stamp = self.file.stamp;
        let current = self.host.fs().image_file(&self.path).await?;
        let Some(current) = current.filter(|current| current.stamp.is_same_file(&stamp)) else {
            return Err(self.changed_error(&self.path));
        };
        if current.stamp != stamp {
            let blocks = BlockSet::all(self.size_bytes());
            ctx.info(format!(
                "{} has another owner or mode now: hashing it again",
                self.path
            ));
            let hashed = self.hash_file(current.stamp, &blocks, ctx).await?;
            let now = self.host.fs().image_file(&self.path).await?;
            let is_same = now.is_some_and(|now| now.stamp == current.stamp)
                && hashed.into_values().eq(digests.iter().copied());
            if !is_same {
                return Err(self.changed_error(&self.path));
            }
        }
        let variables = self.read_variables().await?;
        if variables != self.variables {
            return Err(self.changed_error(&self.host.snapshot_variables_path(self.name)));
        }
        self.file = current;
        Ok(())
    }

    /// Fails if the blocks that were read do not have the digests of its manifest.
    ///
    /// # Errors
    /// `Damaged`, which names the blocks.
    pub(crate) fn refuse_bad_blocks(&self, read: &[Digest]) -> Result<()> {
        let Some(expected) = self.digests() else {
            return Ok(());
        };
        let is_bad = |block: u64| read.get(block as usize) != expected.get(block as usize);
        let bad = BlockSet::from_predicate(self.size_bytes(), is_bad);
        match bad.is_empty() {
            true => Ok(()),
            false => Err(self.other_image_error(bad_blocks_text(&bad))),
        }
    }

    fn other_image_error(&self, cause: String) -> Error {
        let hint = format!(
            "run `snapdeck verify --repair {name}`; or, if the file is meant to be another image, move {name}.json beside \
             it elsewhere",
            name = self.name
        );
        self.error(Kind::Damaged).with_cause(cause).hint(hint)
    }

    pub(crate) fn changed_error(&self, path: &str) -> Error {
        self.error(Kind::Conflict)
            .with_cause(format!("{path} was changed while it was read"))
            .hint("retry while nothing writes to it")
            .retryable()
    }

    fn error(&self, kind: Kind) -> Error {
        Error::new(kind, self.summary())
    }

    fn summary(&self) -> String {
        let (verb, name, host) = (self.verb, self.name, self.host.name());
        format!("cannot {verb} {name} on host {host}")
    }

    /// Fails unless the file is a sound standalone image that no process writes.
    async fn refuse_unusable(&self, ctx: &Context) -> Result<()> {
        let (host, path) = (self.host, &*self.path);
        // The header first: no program may open an image that names other files (CVE-2024-32498).
        refuse_unusable(&self.file, path)?;
        if self.file.facts.as_ref().is_ok_and(|facts| facts.dirty) {
            return Err(self
                .error(Kind::Damaged)
                .with_cause(format!("{path} was not closed cleanly (dirty bit)"))
                .hint("check it with `qemu-img check` on its host"));
        }
        let damage = host.snapshots().damage(self.name).await?;
        if let Some(damage) = damage.filter(|damage| damage.is_of(self.file.stamp)) {
            return Err(self
                .error(Kind::Damaged)
                .with_cause(damage.problem)
                .hint(format!("run `snapdeck verify --repair {}`", self.name)));
        }
        host.images()
            .refuse_other_writers(&[path], None, &self.summary())
            .await?;
        let allocated_bytes = self.file.allocated_bytes;
        let warning = host
            .images()
            .check(path, allocated_bytes, &ctx.cancel)
            .await?;
        if let Some(warning) = warning {
            ctx.warn(warning);
        }
        Ok(())
    }

    /// Hashes blocks of the file with this stamp, in which every later write shows.
    async fn hash_file(
        &self,
        stamp: FileStamp,
        blocks: &BlockSet,
        ctx: &Context,
    ) -> Result<BTreeMap<u64, Digest>> {
        wait_for_clock(stamp, ctx).await?;
        hash_local_blocks(self.host, (&self.path, Some(stamp)), blocks, ctx).await
    }

    async fn find_manifest(&self, ctx: &Context) -> Result<Option<Manifest>> {
        let snapshots = self.host.snapshots();
        let Some(stored) = snapshots.stored_manifest(self.name).await? else {
            return Ok(None);
        };
        let mut manifest = stored.manifest;
        if stored.is_verified {
            return Ok(Some(manifest));
        }
        if manifest.proof.is_some() && !manifest.is_of_file(self.file.stamp) {
            // An adopted image that was written since is adopted again.
            return Ok(None);
        }
        if manifest.size_bytes != self.size_bytes() {
            // Exact lengths, since a few bytes may make the difference.
            return Err(self.other_image_error(format!(
                "{} has {} bytes, its manifest says {}",
                self.path,
                self.size_bytes(),
                manifest.size_bytes
            )));
        }
        ctx.info(format!(
            "{} was changed since it was verified: hashing it",
            self.path
        ));
        let blocks = BlockSet::all(manifest.size_bytes);
        let digests = self.hash_file(self.file.stamp, &blocks, ctx).await?;
        let is_bad = |block: u64| manifest.blocks.get(block as usize) != digests.get(&block);
        let bad = BlockSet::from_predicate(manifest.size_bytes, is_bad);
        if !bad.is_empty() {
            return Err(self.other_image_error(bad_blocks_text(&bad)));
        }
        let current = self.host.fs().image_file(&self.path).await?;
        if current.is_some_and(|current| current.stamp == self.file.stamp) {
            manifest.file = Some(self.file.stamp);
            snapshots.write_manifest(manifest.clone()).await?;
        }
        Ok(Some(manifest))
    }

    /// Returns its UEFI variables; fails if they are not those that its manifest names.
    async fn find_variables(&self) -> Result<Option<Bytes>> {
        let variables = self.read_variables().await?;
        let expected = self
            .manifest
            .as_ref()
            .and_then(|manifest| manifest.variables);
        let current = Some(snapshot_parts(variables.as_ref()).variables);
        if expected.is_some()
            && expected != current
            && let Some(problem) = find_local_problem(self.host, self.name, expected).await?
        {
            return Err(self
                .error(Kind::Damaged)
                .with_cause(problem)
                .hint("put the right file there first"));
        }
        Ok(variables)
    }

    async fn read_variables(&self) -> Result<Option<Bytes>> {
        let path = self.host.snapshot_variables_path(self.name);
        match self.host.fs().has_file(&path).await? {
            true => read_variables(self.host, &path).await.map(Some),
            false => Ok(None),
        }
    }
}
