//! Notes, labels and pins of snapshots. The host and the bucket have their own.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{ApiResult, CommonErrors, JobErrors, Problem, QueryErrors};
use super::request::{JsonBody, NoQuery, SnapshotQuery, default_true};
use super::{App, json_response};
use snapdeck_model::{Annotations, AnnotationsPatch, Error, HostName, Kind, Result, SnapshotName};

/// The note and the labels to change, at least one of them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NoteRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// The new note; an empty one removes it. Default: unchanged.
    #[serde(default)]
    #[schema(max_length = 4096)]
    note: Option<String>,
    /// Labels to set.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Keys of labels to remove.
    #[serde(default)]
    remove_labels: Vec<String>,
    /// Change it on the host, if that has the snapshot.
    #[serde(default = "default_true")]
    local: bool,
    /// Change it in the bucket, if that has the snapshot.
    #[serde(default = "default_true")]
    bucket: bool,
}

/// The snapshot to pin or unpin.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PinRequest {
    /// The snapshot.
    snapshot: SnapshotName,
    /// Pin it on the host, if that has the snapshot.
    #[serde(default = "default_true")]
    local: bool,
    /// Pin it in the bucket, if that has the snapshot.
    #[serde(default = "default_true")]
    bucket: bool,
}

/// The annotations of a snapshot wherever it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SnapshotAnnotations {
    /// Name of the snapshot.
    name: SnapshotName,
    /// The host, the bucket, or both.
    locations: Vec<AnnotatedLocation>,
}

/// The annotations of a snapshot in one place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnnotatedLocation {
    /// The host; null for the bucket.
    host: Option<HostName>,
    /// Whether it is the bucket.
    bucket: bool,
    /// The annotations.
    annotations: Annotations,
}

/// Places to read or change annotations in.
#[derive(Debug, Clone, Copy)]
struct Places {
    local: bool,
    bucket: bool,
}

/// Show the note, the labels and the pin of a snapshot.
#[utoipa::path(
    get, path = "/snapshots/note", tag = "snapshots",
    params(("snapshot" = SnapshotName, Query, description = "The snapshot")),
    responses((status = 200, description = "The annotations", body = SnapshotAnnotations), CommonErrors, QueryErrors),
)]
pub(crate) async fn get_note(
    State(app): State<App>,
    SnapshotQuery(name): SnapshotQuery,
) -> ApiResult {
    let places = Places {
        local: true,
        bucket: true,
    };
    app.annotate(name, places, AnnotationsPatch::default())
        .await
}

/// Change the note and the labels of a snapshot, on the host and in the bucket.
#[utoipa::path(
    post, path = "/snapshots/note", tag = "snapshots", request_body = NoteRequest,
    responses((status = 200, description = "The annotations after the change", body = SnapshotAnnotations), CommonErrors, JobErrors),
)]
pub(crate) async fn set_note(
    State(app): State<App>,
    _: NoQuery,
    JsonBody(request): JsonBody<NoteRequest>,
) -> ApiResult {
    let patch = AnnotationsPatch {
        new_note: request.note,
        set_labels: request.labels.into_iter().collect(),
        remove_labels: request.remove_labels,
        set_pinned: None,
    };
    if patch.is_empty() {
        return Err(Problem::invalid_input(
            "there is nothing to change: set note, labels or removeLabels",
        ));
    }
    let places = Places {
        local: request.local,
        bucket: request.bucket,
    };
    app.annotate(request.snapshot, places, patch).await
}

/// Pin a snapshot, so that `remove` and `prune` keep it.
#[utoipa::path(
    post, path = "/snapshots/pin", tag = "snapshots", request_body = PinRequest,
    responses((status = 200, description = "The annotations after the change", body = SnapshotAnnotations), CommonErrors, JobErrors),
)]
pub(crate) async fn pin_snapshot(
    State(app): State<App>,
    _: NoQuery,
    JsonBody(request): JsonBody<PinRequest>,
) -> ApiResult {
    app.set_pinned(request, true).await
}

/// Unpin a snapshot.
#[utoipa::path(
    post, path = "/snapshots/unpin", tag = "snapshots", request_body = PinRequest,
    responses((status = 200, description = "The annotations after the change", body = SnapshotAnnotations), CommonErrors, JobErrors),
)]
pub(crate) async fn unpin_snapshot(
    State(app): State<App>,
    _: NoQuery,
    JsonBody(request): JsonBody<PinRequest>,
) -> ApiResult {
    app.set_pinned(request, false).await
}

impl App {
    async fn set_pinned(&self, request: PinRequest, pinned: bool) -> ApiResult {
        let places = Places {
            local: request.local,
            bucket: request.bucket,
        };
        let patch = AnnotationsPatch::with_pinned(pinned);
        self.annotate(request.snapshot, places, patch).await
    }

    /// Applies the patch in every place that has the snapshot; an empty one only reads.
    async fn annotate(
        &self,
        name: SnapshotName,
        places: Places,
        patch: AnnotationsPatch,
    ) -> ApiResult {
        if !(places.local || places.bucket) {
            return Err(Problem::invalid_input(
                "local and bucket are both false: there is nothing to change",
            ));
        }
        let app = self.clone();
        let change = async move { app.annotate_places(name, places, &patch).await };
        let annotations = self.run_to_end(change).await??;
        Ok(json_response(StatusCode::OK, &annotations))
    }

    async fn annotate_places(
        &self,
        name: SnapshotName,
        places: Places,
        patch: &AnnotationsPatch,
    ) -> Result<SnapshotAnnotations> {
        let has_bucket = self.engine.settings().bucket.name.is_some();
        // Without a bucket, the host alone is meant, unless only the bucket was asked for.
        let in_bucket = places.bucket && (has_bucket || !places.local);
        let mut locations = Vec::new();
        if places.local
            && let Some(annotations) =
                (self
                    .engine
                    .annotate_if_present(Some(&self.host), &name, patch))
                .await?
        {
            locations.push(AnnotatedLocation {
                host: Some(self.host.clone()),
                bucket: false,
                annotations,
            });
        }
        if in_bucket {
            let result = self.engine.annotate_if_present(None, &name, patch).await;
            let is_changed = !patch.is_empty() && !locations.is_empty();
            let annotations = result.map_err(|error| match is_changed {
                true => error.hint("the host's are changed; the same call can be repeated"),
                false => error,
            })?;
            locations.extend(annotations.map(|annotations| AnnotatedLocation {
                host: None,
                bucket: true,
                annotations,
            }));
        }
        if locations.is_empty() {
            let message = format!("snapshot {name} not found in the places asked for");
            return Err(Error::new(Kind::NotFound, message));
        }
        Ok(SnapshotAnnotations { name, locations })
    }
}
