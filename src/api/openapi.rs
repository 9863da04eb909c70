//! The description of the API, made from its routes and types.

use std::sync::OnceLock;

use axum::http::StatusCode;
use axum::response::Response;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::json;
use super::problem::Any;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "snapdeck",
        description = "Windows VM sandboxes on one libvirt host, their snapshots, and an S3 bucket. Bodies are JSON, \
                       whatever their content type says; unknown fields are let pass. Every call but GET /healthz \
                       needs the token, where the server has one."
    ),
    security(("token" = [])),
    modifiers(&Bearer),
    components(schemas(super::events::JobEvent)),
)]
struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
    }
}

/// What is said of all routes together.
pub fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, body = Object), Any))]
pub async fn show() -> Response {
    static API: OnceLock<utoipa::openapi::OpenApi> = OnceLock::new();
    json(
        StatusCode::OK,
        API.get_or_init(|| super::routes().into_openapi()),
    )
}
