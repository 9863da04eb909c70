//! Snapshots of a host and the files beside them: manifests with annotations, and records of damage.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::fs::HostFiles;
use crate::inventory::{file_source, scan};
use crate::{Host, SCAN_TIMEOUT};
use snapdeck_model::{
    Annotations, AnnotationsPatch, Damage, Error, ExpectedVariables, FileStamp, Kind,
    MAX_MANIFEST_BYTES, Manifest, Result, SnapshotName,
};

/// Maximum length of a damage record, in bytes.
const MAX_DAMAGE_BYTES: u64 = 64 << 10;

/// A manifest beside a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// The manifest.
    pub manifest: Manifest,
    /// Whether the file is unchanged since it was verified, and has no known damage.
    pub is_verified: bool,
}

/// The snapshots of a host.
#[derive(Clone, Copy)]
pub struct Snapshots<'a> {
    host: &'a Host,
}

impl<'a> Snapshots<'a> {
    pub(super) fn new(host: &'a Host) -> Self {
        Self { host }
    }

    /// Returns the names of all snapshots, damaged ones included.
    ///
    /// # Errors
    /// `Unreachable` if the directory cannot be listed.
    pub async fn names(self) -> Result<Vec<SnapshotName>> {
        let dir = self.host.settings.snapshots_dir.clone();
        let listings = match &self.host.files {
            HostFiles::Local(fs) => {
                let (action, settings) = (format!("list {dir}"), self.host.settings.clone());
                vec![
                    fs.run(action, SCAN_TIMEOUT, move || {
                        file_source::list_snapshots(&settings)
                    })
                    .await?,
                ]
            }
            HostFiles::Remote(fs) => fs.list(&[&dir]).await?,
        };
        let settings = &self.host.settings;
        let names = listings.iter().flat_map(|listing| {
            let images = listing.images.iter();
            images.filter_map(move |file| scan::image_name(settings, &listing.dir, file))
        });
        let mut names: Vec<SnapshotName> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Removes a snapshot and, after it, its manifest and record of damage, but not another program's files in their
    /// places.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn remove(self, name: &SnapshotName) -> Result<()> {
        let mut paths = vec![self.host.snapshot_path(name)];
        let has_damage = self.damage(name).await?.is_some();
        // Last: another program may have written it meanwhile.
        if self.foreign_manifest(name).await?.is_none() {
            paths.push(self.manifest_path(name));
        }
        paths.extend(has_damage.then(|| self.damage_path(name)));
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        self.host.fs().remove_files(&paths).await?;
        Ok(())
    }

    /// Returns the path of the file in the place of a snapshot's manifest if it is another program's.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn foreign_manifest(self, name: &SnapshotName) -> Result<Option<String>> {
        let path = self.manifest_path(name);
        // One more byte shows that it is longer.
        let limit = MAX_MANIFEST_BYTES + 1;
        let json = self.host.fs().read_file(&path, limit).await?;
        Ok(json
            .filter(|json| !Manifest::is_manifest(json))
            .map(|_| path))
    }

    /// Fails if the file in the place of a snapshot's manifest is another program's.
    ///
    /// # Errors
    /// `Conflict`; as [`Snapshots::foreign_manifest`].
    pub async fn refuse_foreign_manifest(self, name: &SnapshotName) -> Result<()> {
        let Some(path) = self.foreign_manifest(name).await? else {
            return Ok(());
        };
        let summary = format!("cannot write {path} on host {}", self.host.name());
        Err(Error::new(Kind::Conflict, summary)
            .with_cause("it is not a manifest of snapdeck")
            .hint("move the file to another directory"))
    }

    /// Returns the manifest of a snapshot if it is this file's and no damage is known.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn manifest(self, name: &SnapshotName) -> Result<Option<Manifest>> {
        let stored = self.stored_manifest(name).await?;
        Ok(stored
            .filter(|stored| stored.is_verified)
            .map(|stored| stored.manifest))
    }

    /// Returns what the manifest of a snapshot says of its UEFI variables, also if the owner of the file was changed.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn expected_variables(
        self,
        name: &SnapshotName,
        file: FileStamp,
    ) -> Result<Option<ExpectedVariables>> {
        let manifest = self.recorded_manifest(name).await?;
        let manifest = manifest.filter(|manifest| manifest.is_of_file(file));
        Ok(manifest.and_then(|manifest| manifest.variables))
    }

    /// Returns the manifest beside a snapshot, even if the file was changed; `None` if either is missing.
    ///
    /// # Errors
    /// As [`Snapshots::manifest`].
    pub async fn stored_manifest(self, name: &SnapshotName) -> Result<Option<StoredManifest>> {
        let Some(manifest) = self.recorded_manifest(name).await? else {
            return Ok(None);
        };
        let image = self.host.snapshot_path(name);
        let Some(file) = self.host.fs().image_file(&image).await? else {
            return Ok(None);
        };
        let is_damaged = match manifest.matches_file(file.stamp) {
            true => self
                .damage(name)
                .await?
                .is_some_and(|damage| damage.is_of(file.stamp)),
            false => true,
        };
        Ok(Some(StoredManifest {
            manifest,
            is_verified: !is_damaged,
        }))
    }

    /// Returns the manifest under the name of a snapshot, even if the snapshot is missing. One that others than root and the user
    /// of snapdeck can write does not count: its digests would be theirs. Its annotations stay.
    ///
    /// # Errors
    /// As [`Snapshots::manifest`].
    pub async fn recorded_manifest(self, name: &SnapshotName) -> Result<Option<Manifest>> {
        let path = self.manifest_path(name);
        // One more byte shows that it is longer.
        let limit = MAX_MANIFEST_BYTES + 1;
        let Some(json) = self.host.fs().read_own_file(&path, limit).await? else {
            return Ok(None);
        };
        match Manifest::read(&json) {
            Ok(mut manifest) => {
                // It may have been copied or renamed with its image.
                manifest.name = name.clone();
                Ok(Some(manifest))
            }
            Err(error) => {
                tracing::debug!("{path} on host {} is ignored: {error}", self.host.name());
                Ok(None)
            }
        }
    }

    /// Writes the manifest beside its snapshot atomically, with the annotations of the one it replaces, and its lineage if that is of
    /// the same bytes and only root and the user of snapdeck can write it.
    ///
    /// # Errors
    /// `Conflict` if the file in its place is another program's; an I/O error; `Unreachable`.
    pub async fn write_manifest(self, manifest: Manifest) -> Result<()> {
        self.refuse_foreign_manifest(&manifest.name).await?;
        let path = self.manifest_path(&manifest.name);
        let existing = self.manifest_json(&manifest.name).await?;
        let earlier = match existing {
            Some(_) => self.recorded_manifest(&manifest.name).await?,
            None => None,
        };
        let annotations = existing.and_then(|json| Annotations::parse(&json).ok());
        let json = manifest
            .with_lineage_of(earlier)
            .with_existing_annotations(annotations.unwrap_or_default())
            .write()?;
        self.host.fs().write_file(&path, json).await
    }

    /// Returns the damage found in a snapshot, or in an earlier file of that name.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn damage(self, name: &SnapshotName) -> Result<Option<Damage>> {
        let path = self.damage_path(name);
        let json = self.host.fs().read_file(&path, MAX_DAMAGE_BYTES).await?;
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    /// Records the damage of a snapshot, or that it has none.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn record_damage(self, name: &SnapshotName, damage: Option<&Damage>) -> Result<()> {
        let path = self.damage_path(name);
        let Some(damage) = damage else {
            // Another program's file of that name stays.
            if self.damage(name).await?.is_some() {
                self.host.fs().remove_file(&path).await?;
            }
            return Ok(());
        };
        let json = serde_json::to_vec(damage).map_err(|error| {
            Error::new(Kind::Failed, format!("cannot write {path}")).with_cause(error)
        })?;
        self.host.fs().write_file(&path, json).await
    }

    /// Returns the annotations in the manifest beside a snapshot, even if that is of another image; `None` without one.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn annotations(self, name: &SnapshotName) -> Result<Option<Annotations>> {
        let json = self.manifest_json(name).await?;
        Ok(json.and_then(|json| Annotations::from_manifest_json(&json).ok()))
    }

    /// Changes the annotations of a snapshot; without a manifest, one with annotations only is created.
    ///
    /// # Errors
    /// `NotFound` without such a snapshot; `Conflict` if the file beside it is not a manifest, or a job has locked the
    /// snapshot; an I/O error; `Unreachable`.
    pub async fn annotate(
        self,
        name: &SnapshotName,
        patch: &AnnotationsPatch,
    ) -> Result<Annotations> {
        let locks = self.host.locks();
        let requests = vec![locks.snapshot(name, true)];
        // One command writes the file: nothing can be stopped when the lock is lost.
        let lost = CancellationToken::new();
        let guard = locks
            .acquire(requests, &format!("annotate {name}"), lost)
            .await?;
        let result = self.annotate_locked(name, patch).await;
        guard.release().await;
        result
    }

    async fn annotate_locked(
        self,
        name: &SnapshotName,
        patch: &AnnotationsPatch,
    ) -> Result<Annotations> {
        let path = self.host.snapshot_path(name);
        let Some(file) = self.host.fs().image_file(&path).await? else {
            let summary = format!("snapshot {name} not found on host {}", self.host.name());
            return Err(Error::new(Kind::NotFound, summary));
        };
        let path = self.manifest_path(name);
        let own = self
            .host
            .fs()
            .read_own_file(&path, MAX_MANIFEST_BYTES)
            .await?;
        let json = match own {
            Some(json) => Some(json),
            // Digests that others could have written must not become those of a file of this user.
            None => (self.manifest_json(name).await?).map(without_blocks),
        };
        let stamp = serde_json::to_value(file.stamp).map_err(|error| {
            Error::new(
                Kind::Failed,
                format!("cannot write the annotations of {name}"),
            )
            .with_cause(error)
        })?;
        let image = || {
            let size = Value::from(file.stamp.size_bytes);
            [("sizeBytes", size), ("file", stamp)]
                .map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect()
        };
        let (json, annotations) = patch.apply(json.as_deref(), name, image)?;
        self.refuse_foreign_manifest(name).await?;
        self.host.fs().write_file(&path, json).await?;
        Ok(annotations)
    }

    async fn manifest_json(self, name: &SnapshotName) -> Result<Option<Vec<u8>>> {
        let path = self.manifest_path(name);
        self.host.fs().read_file(&path, MAX_MANIFEST_BYTES).await
    }

    fn manifest_path(self, name: &SnapshotName) -> String {
        self.host.in_snapshots_dir(&name.manifest_file_name())
    }

    fn damage_path(self, name: &SnapshotName) -> String {
        self.host.in_snapshots_dir(&name.damage_file_name())
    }
}

/// Returns the JSON of a manifest without the digests; unchanged if that is not a manifest.
fn without_blocks(json: Vec<u8>) -> Vec<u8> {
    let stripped =
        serde_json::from_slice(&json).and_then(|mut manifest: serde_json::Map<String, Value>| {
            manifest.remove("blocks");
            serde_json::to_vec(&manifest)
        });
    stripped.unwrap_or(json)
}
