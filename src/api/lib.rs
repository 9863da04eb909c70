//! The HTTP API of one host.

mod access;
mod annotations;
mod browser;
mod connections;
mod doctor;
mod events;
mod health;
mod idempotency;
mod jobs;
mod metrics;
mod openapi;
mod problem;
mod prune;
mod request;
mod runner;
mod sandboxes;
mod server;
mod snapshots;
mod submit;
mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use idempotency::IdempotencyKeys;
use metrics::Metrics;
use problem::Problem;
use snapdeck_engine::Engine;
use snapdeck_model::{Error, HostName, Kind, Result, escape_json};

pub use access::{Access, Token};
pub use server::serve;
pub use tls::TlsFiles;

/// Options of the server.
pub struct Options {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Access rule.
    pub access: Access,
    /// Certificate and key; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Whether `GET /metrics` needs no token.
    pub has_public_metrics: bool,
}

impl Options {
    /// Checks the options.
    ///
    /// # Errors
    /// `InvalidInput` for an address other than loopback without a token.
    pub fn check(&self) -> Result<()> {
        if self.access == Access::Open && !self.listen.ip().is_loopback() {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("refusing to listen on {} without a token", self.listen),
            )
            .hint("use --insecure-no-auth only with a loopback address such as 127.0.0.1:8080"));
        }
        Ok(())
    }
}

/// State of all handlers.
#[derive(Clone)]
struct App(Arc<AppState>);

struct AppState {
    engine: Engine,
    host: HostName,
    access: Access,
    has_public_metrics: bool,
    /// The address listened on.
    address: SocketAddr,
    idempotency_keys: Mutex<IdempotencyKeys>,
    metrics: Metrics,
    /// Calls that may wait for jobs or follow them at the same time.
    waits: Arc<Semaphore>,
    /// Requests for the load of the host.
    load_requests: Notify,
    /// Fires when no more jobs are accepted.
    shutdown: CancellationToken,
}

impl std::ops::Deref for App {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.0
    }
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base_document())
        .routes(routes!(snapshots::create_snapshot))
        .routes(routes!(snapshots::push_snapshot))
        .routes(routes!(snapshots::pull_snapshot))
        .routes(routes!(snapshots::adopt_snapshot))
        .routes(routes!(snapshots::verify_snapshot))
        .routes(routes!(snapshots::upload_snapshot))
        .routes(routes!(snapshots::copy_snapshot))
        .routes(routes!(snapshots::remove_snapshot))
        .routes(routes!(prune::prune_snapshots))
        .routes(routes!(annotations::get_note, annotations::set_note))
        .routes(routes!(annotations::pin_snapshot))
        .routes(routes!(annotations::unpin_snapshot))
        .routes(routes!(snapshots::snapshot_exists))
        .routes(routes!(snapshots::get_snapshot_info))
        .routes(routes!(
            sandboxes::list_sandboxes,
            sandboxes::create_sandbox
        ))
        .routes(routes!(sandboxes::get_sandbox, sandboxes::delete_sandbox))
        .routes(routes!(sandboxes::get_domain_xml))
        .routes(routes!(sandboxes::start_sandbox))
        .routes(routes!(sandboxes::stop_sandbox))
        .routes(routes!(sandboxes::restart_sandbox))
        .routes(routes!(sandboxes::reset_sandbox))
        .routes(routes!(sandboxes::pause_sandbox))
        .routes(routes!(sandboxes::resume_sandbox))
        .routes(routes!(sandboxes::save_sandbox))
        .routes(routes!(sandboxes::restore_sandbox))
        .routes(routes!(sandboxes::set_autostart))
        .routes(routes!(sandboxes::set_sandbox))
        .routes(routes!(sandboxes::rename_sandbox))
        .routes(routes!(sandboxes::clone_sandbox))
        .routes(routes!(sandboxes::destroy_sandbox))
        .routes(routes!(jobs::list_jobs))
        .routes(routes!(jobs::get_job, jobs::cancel_job))
        .routes(routes!(events::follow_job))
        .routes(routes!(runner::get_status))
        .routes(routes!(runner::get_host_info))
        .routes(routes!(doctor::run_doctor))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(openapi::get_openapi))
}

fn router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(async || Problem::route_not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(DefaultBodyLimit::max(request::MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            access::authenticate,
        ))
        .with_state(app)
}

fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => {
            let content_type = HeaderValue::from_static("application/json");
            // Clients print it on terminals.
            let text = escape_json(&text).into_owned();
            (status, [(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => {
            // Does not happen: all map keys are strings.
            tracing::error!("cannot write a response as JSON: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
