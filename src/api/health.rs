//! Liveness and readiness.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::CommonErrors;
use super::{App, json_response};
use snapdeck_engine::Link;

/// A path that never needs a token.
pub(crate) const HEALTHZ: &str = "/healthz";

/// The server is running.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`.
    status: String,
}

/// Whether operations can succeed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether host and bucket answer and jobs are accepted.
    ready: bool,
    /// The host.
    host: ConnectionStatus,
    /// The bucket; `off` without one, which counts as ready.
    bucket: ConnectionStatus,
}

/// State of the connection to the host or the bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectionStatus {
    /// `connecting`, `up`, `down`, `unconfigured`.
    link: String,
    /// Why it is `down`.
    error: Option<String>,
}

impl ConnectionStatus {
    fn from_link(link: &Link) -> Self {
        let (state, error) = match link {
            Link::Connecting => ("connecting", None),
            Link::Up => ("up", None),
            Link::Down(error) => ("down", Some(error.to_string())),
            Link::Unconfigured => ("unconfigured", None),
        };
        Self {
            link: state.to_owned(),
            error,
        }
    }
}

/// Check that the server is running. Needs no token.
#[utoipa::path(get, path = HEALTHZ, tag = "service", security(()), responses((status = 200, description = "It is running", body = Health)))]
pub(crate) async fn healthz() -> Response {
    let status = "ok".to_owned();
    json_response(StatusCode::OK, &Health { status })
}

/// Check that host and bucket answer and jobs are accepted.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses((status = 200, description = "Ready", body = Readiness), (status = 503, description = "Not ready", body = Readiness), CommonErrors),
)]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let view = app.engine.view();
    let host = view
        .host(&app.host)
        .map_or(&Link::Unconfigured, |host| &host.link);
    let bucket = &view.bucket.link;
    let ready = *host == Link::Up
        && matches!(bucket, Link::Up | Link::Unconfigured)
        && !app.shutdown.is_cancelled();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = Readiness {
        ready,
        host: ConnectionStatus::from_link(host),
        bucket: ConnectionStatus::from_link(bucket),
    };
    json_response(status, &body)
}
