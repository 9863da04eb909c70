//! The OpenAPI description, generated from routes and types.

use std::sync::OnceLock;

use axum::http::StatusCode;
use axum::response::Response;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{Modify, OpenApi, PartialSchema, ToSchema};

use super::json_response;
use super::problem::CommonErrors;
use snapdeck_model::Outcome;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "snapdeck",
        description = "Windows VM sandboxes on one libvirt host, their snapshots, and an S3 bucket. Bodies are JSON \
                       whatever their content type; unknown fields are ignored. If the server has a token, all \
                       calls but GET /healthz need it."
    ),
    security(("token" = [])),
    modifiers(&BearerAuth, &OutcomeSchemas),
    components(schemas(super::events::JobEvent, Outcome)),
)]
struct ApiDoc;

struct BearerAuth;

impl Modify for BearerAuth {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
    }
}

/// Adds a schema per outcome, which the route with that outcome refers to.
struct OutcomeSchemas;

impl Modify for OutcomeSchemas {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let RefOr::T(Schema::OneOf(mut outcome)) = Outcome::schema() else {
            return;
        };
        let schemas = &mut api.components.get_or_insert_default().schemas;
        for item in &mut outcome.items {
            let title = match item {
                RefOr::T(Schema::Object(object)) => object.title.clone(),
                RefOr::T(Schema::AllOf(all)) => all.title.clone(),
                _ => None,
            };
            if let Some(title) = title {
                let reference = Ref::from_schema_name(&title);
                let schema = std::mem::replace(item, RefOr::Ref(reference));
                schemas.insert(title, schema);
            }
        }
        let name = Outcome::name().into_owned();
        schemas.insert(name, RefOr::T(Schema::OneOf(outcome)));
    }
}

pub(crate) fn base_document() -> utoipa::openapi::OpenApi {
    ApiDoc::openapi()
}

/// Show this description.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, body = Object), CommonErrors))]
pub(crate) async fn get_openapi() -> Response {
    static API: OnceLock<utoipa::openapi::OpenApi> = OnceLock::new();
    json_response(
        StatusCode::OK,
        API.get_or_init(|| super::routes().into_openapi()),
    )
}
