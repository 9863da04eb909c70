//! The OpenAPI description, generated from routes and types.

use std::sync::OnceLock;

use axum::http::StatusCode;
use axum::response::Response;
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{Modify, OpenApi, PartialSchema, ToSchema};

use super::json_response;
use super::problem::CommonErrors;
use super::snapshots::RemoveSnapshotRequest;
use snapdeck_model::Outcome;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "snapdeck",
        description = "Windows VM sandboxes on one libvirt host, their snapshots, and an S3 bucket. Bodies are JSON \
                       whatever their content type; unknown fields are refused. If the server has a token, all \
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

/// Says in the schema of a removal that it needs a location: the host, which is the default, or the bucket.
fn require_location(api: &mut utoipa::openapi::OpenApi) {
    let schemas = &mut api.components.get_or_insert_default().schemas;
    let name = RemoveSnapshotRequest::name().into_owned();
    let Some(request) = schemas.remove(&name) else {
        return;
    };
    let is_true = |field: &str| {
        let value = ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .enum_values(Some([true]));
        ObjectBuilder::new().property(field, value)
    };
    let location = AnyOfBuilder::new()
        .item(is_true("local"))
        .item(is_true("bucket").required("bucket"))
        .build();
    let all = AllOfBuilder::new()
        .item(request)
        .item(Schema::AnyOf(location));
    schemas.insert(name, RefOr::T(Schema::AllOf(all.build())));
}

/// Show this description.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, body = Object), CommonErrors))]
pub(crate) async fn get_openapi() -> Response {
    static API: OnceLock<utoipa::openapi::OpenApi> = OnceLock::new();
    json_response(
        StatusCode::OK,
        API.get_or_init(|| {
            let mut api = super::routes().into_openapi();
            require_location(&mut api);
            api
        }),
    )
}
