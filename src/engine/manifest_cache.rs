//! Manifests that were read, each while its image is the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snapdeck_model::{HostName, Manifest, SnapshotName};

/// Manifests that are kept: of images of 40 GiB, 40 MiB.
const MAX_CACHED_MANIFESTS: usize = 256;

/// How long it is believed that there is no manifest beside an image: it may get one while it stays the same.
const MISSING_MANIFEST_TTL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct ManifestCache {
    entries: HashMap<(Option<HostName>, SnapshotName), CachedManifest>,
}

struct CachedManifest {
    /// Tells the image from others of its name.
    fingerprint: String,
    cached_at: Instant,
    manifest: Option<Arc<Manifest>>,
}

impl ManifestCache {
    /// What is known of an image's manifest.
    pub(crate) fn get(
        &self,
        place: Option<&HostName>,
        name: &SnapshotName,
        mark: &str,
    ) -> Option<Option<Arc<Manifest>>> {
        let kept = self.entries.get(&(place.cloned(), name.clone()))?;
        let holds = kept.manifest.is_some() || kept.cached_at.elapsed() < MISSING_MANIFEST_TTL;
        (kept.fingerprint == mark && holds).then(|| kept.manifest.clone())
    }

    pub(crate) fn insert(
        &mut self,
        place: Option<&HostName>,
        name: &SnapshotName,
        mark: String,
        manifest: Option<Arc<Manifest>>,
    ) {
        if self.entries.len() >= MAX_CACHED_MANIFESTS {
            self.entries.clear();
        }
        let kept = CachedManifest {
            fingerprint: mark,
            cached_at: Instant::now(),
            manifest,
        };
        self.entries.insert((place.cloned(), name.clone()), kept);
    }
}
