//! The OpenAPI description, generated from routes and types.

use std::borrow::Cow;
use std::sync::OnceLock;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{Modify, OpenApi, PartialSchema, ToSchema};

use super::annotations::{NoteRequest, PinRequest};
use super::doctor::DoctorRequest;
use super::json_response;
use super::problem::{CommonErrors, ErrorBody};
use super::prune::PruneBody;
use super::runner::RunnerFields;
use super::snapshots::{RemoveSnapshotRequest, VerifySnapshotRequest};
use snapdeck_model::Outcome;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "snapdeck",
        description = "Windows VM sandboxes on one libvirt host, their snapshots, and an S3 bucket. Bodies are JSON \
                       whatever their content type; unknown fields are refused. If the server has a token, all \
                       calls but GET / and GET /healthz need it."
    ),
    security(("token" = [])),
    modifiers(&BearerAuth),
    components(schemas(super::events::JobEvent, ErrorBody, RunnerFields)),
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

/// Responses to calls that create or change a sandbox, and the outcome that each extends with the fields of the runner.
const SANDBOX_OUTCOMES: &[(&str, &str)] = &[
    ("CreatedSandbox", "SandboxCreated"),
    ("ChangedSandbox", "SandboxChanged"),
];

type Schemas = std::collections::BTreeMap<String, RefOr<Schema>>;

/// Adds a schema per outcome, which the routes and [`Outcome`] refer to.
fn describe_outcomes(api: &mut utoipa::openapi::OpenApi) {
    let RefOr::T(Schema::OneOf(outcome)) = Outcome::schema() else {
        return;
    };
    let schemas = &mut api.components.get_or_insert_default().schemas;
    let mut variants = Vec::new();
    for item in outcome.items {
        let title = match &item {
            RefOr::T(Schema::Object(object)) => object.title.clone(),
            RefOr::T(Schema::AllOf(all)) => all.title.clone(),
            _ => None,
        };
        if let Some(title) = title {
            variants.push((count_fields(&item, schemas), title.clone()));
            schemas.insert(title, item);
        }
    }
    // A body with all fields of one outcome may have those of another, too: clients take the first that fits, so those with
    // most fields come first.
    variants.sort_by_key(|(fields, _)| std::cmp::Reverse(*fields));
    let variants = variants
        .into_iter()
        .map(|(_, title)| Ref::from_schema_name(title));
    let any = variants.fold(AnyOfBuilder::new(), AnyOfBuilder::item);
    let any = any.description(outcome.description);
    let name = Outcome::name().into_owned();
    schemas.insert(name, RefOr::T(Schema::AnyOf(any.build())));
    for (name, outcome) in SANDBOX_OUTCOMES {
        let all = AllOfBuilder::new()
            .item(Ref::from_schema_name(*outcome))
            .item(Ref::from_schema_name(RunnerFields::name()));
        let schema = Schema::AllOf(all.build());
        schemas.insert((*name).to_owned(), RefOr::T(schema));
    }
}

/// Returns the number of required fields of a schema.
fn count_fields(schema: &RefOr<Schema>, schemas: &Schemas) -> usize {
    match schema {
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next();
            let schema = name.and_then(|name| schemas.get(name));
            schema.map_or(0, |schema| count_fields(schema, schemas))
        }
        RefOr::T(Schema::Object(object)) => object.required.len(),
        RefOr::T(Schema::AllOf(all)) => {
            let items = all.items.iter();
            items.map(|item| count_fields(item, schemas)).sum()
        }
        RefOr::T(_) => 0,
    }
}

pub(crate) fn base_document() -> utoipa::openapi::OpenApi {
    ApiDoc::openapi()
}

/// Bodies that are refused although each of their fields is valid, by the name of their schema. They are described with `if`,
/// which generators of clients ignore; of `not` they make types.
fn excluded_bodies() -> [(Cow<'static, str>, Vec<Value>); 6] {
    let neither_place = || {
        json!({
            "required": ["local", "bucket"],
            "properties": {"local": {"const": false}, "bucket": {"const": false}},
        })
    };
    // The bucket is not chosen by default.
    let no_place = || {
        json!({
            "required": ["local"],
            "properties": {"local": {"const": false}, "bucket": {"const": false}},
        })
    };
    let no_condition = json!({"properties": {
        "keep": {"type": "null"}, "olderThan": {"type": "null"}, "unused": {"const": false},
        "leftovers": {"const": false}, "partial": {"type": "null"},
    }});
    let foreign_without_files = json!({
        "required": ["foreign"],
        "properties": {
            "foreign": {"const": true}, "leftovers": {"const": false}, "partial": {"type": "null"},
        },
    });
    let partial_in_bucket = json!({
        "required": ["partial", "local"],
        "properties": {"partial": {"type": "string"}, "local": {"const": false}},
    });
    let no_change = json!({"properties": {
        "note": {"type": "null"}, "labels": {"maxProperties": 0}, "removeLabels": {"maxItems": 0},
    }});
    let repaired_object = json!({
        "required": ["bucket", "repair"],
        "properties": {"bucket": {"const": true}, "repair": {"const": true}},
    });
    [
        (RemoveSnapshotRequest::name(), vec![no_place()]),
        (
            PruneBody::name(),
            vec![
                no_place(),
                no_condition,
                foreign_without_files,
                partial_in_bucket,
            ],
        ),
        (NoteRequest::name(), vec![neither_place(), no_change]),
        (PinRequest::name(), vec![neither_place()]),
        (DoctorRequest::name(), vec![neither_place()]),
        (VerifySnapshotRequest::name(), vec![repaired_object]),
    ]
}

/// Show this description.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, description = "The description", body = Object), CommonErrors))]
pub(crate) async fn get_openapi() -> Response {
    static API: OnceLock<Value> = OnceLock::new();
    json_response(StatusCode::OK, API.get_or_init(build_document))
}

fn build_document() -> Value {
    let mut api = super::routes().into_openapi();
    describe_outcomes(&mut api);
    // Does not fail: all map keys are strings.
    let mut document = serde_json::to_value(&api).unwrap_or_default();
    for (name, excluded) in excluded_bodies() {
        let schema = &mut document["components"]["schemas"][&*name];
        schema["if"] = json!({ "anyOf": excluded });
        schema["then"] = json!(false);
    }
    document
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_operation_has_an_id_of_its_own_and_each_response_a_description() {
        let api = build_document();
        assert_eq!(api["openapi"], "3.1.0");
        let mut ids = BTreeSet::new();
        for (path, operations) in api["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} is used twice");
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let description = response["description"].as_str().unwrap_or_default();
                    assert!(!description.is_empty(), "{method} {path} {status}");
                }
            }
        }
    }

    #[test]
    fn bodies_have_names_for_generated_clients() {
        let api = build_document();
        let schemas = api["components"]["schemas"].as_object().unwrap();
        let outcomes = schemas["Outcome"]["anyOf"].as_array().unwrap();
        let names: Vec<&str> = outcomes
            .iter()
            .map(|outcome| {
                outcome["$ref"]
                    .as_str()
                    .unwrap()
                    .rsplit('/')
                    .next()
                    .unwrap()
            })
            .collect();
        let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
        // The fields of the second of each are among those of the first.
        assert!(place("SnapshotPushed") < place("SnapshotUploaded"));
        assert!(place("SnapshotCopied") < place("SnapshotPulled"));
        assert!(names.iter().all(|name| schemas.contains_key(*name)));
        let stop = &api["paths"]["/sandboxes/{id}/stop"]["post"];
        let refused = &stop["responses"]["409"]["content"]["application/json"]["schema"];
        assert_eq!(refused["$ref"], "#/components/schemas/ErrorBody");
        for (name, _) in excluded_bodies() {
            assert!(schemas[&*name]["properties"].is_object(), "{name}");
        }
    }
}
