//! Sandboxes (spec, "Example: Create a Custom Base Image", "Using Custom Snapshots").

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::problem::{Answer, Any, Asked, Problem};
use super::{App, json};
use crate::model::{Sandbox, SandboxId};

/// All sandboxes of the host.
#[utoipa::path(get, path = "/sandboxes", tag = "sandboxes", responses((status = 200, body = Vec<Sandbox>), Any, Asked))]
pub async fn list(State(app): State<App>) -> Answer {
    let sandboxes = app.engine.sandboxes(&app.host).await?;
    Ok(json(StatusCode::OK, &sandboxes))
}

/// One sandbox.
#[utoipa::path(
    get, path = "/sandboxes/{id}", tag = "sandboxes",
    params(("id" = SandboxId, Path, description = "Its id")),
    responses((status = 200, body = Sandbox), Any, Asked),
)]
pub async fn get(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let id: SandboxId = id.parse()?;
    let sandboxes = app.engine.sandboxes(&app.host).await?;
    let found = sandboxes.into_iter().find(|sandbox| sandbox.id == id);
    let unknown = || Problem::not_found(format!("there is no sandbox {id} on host {}", app.host));
    Ok(json(StatusCode::OK, &found.ok_or_else(unknown)?))
}
