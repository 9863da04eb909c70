//! The OpenAPI description is complete and true: schemathesis generates requests from it.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::api::server::{Api, TOKEN};
use crate::common::{State, World, wait_for_exit_within};

#[test]
fn every_route_of_the_specification_is_described() {
    let world = World::new();
    let api = Api::start(&world);
    let described = api.get("/openapi.json").expect_status(200);
    let paths = described["paths"].as_object().unwrap();
    for (method, path) in [
        ("post", "/snapshots/create"),
        ("post", "/snapshots/push"),
        ("post", "/snapshots/pull"),
        ("post", "/snapshots/upload"),
        ("post", "/snapshots/copy"),
        ("get", "/snapshots/exists"),
        ("get", "/snapshots/info"),
        ("post", "/snapshots/remove"),
        ("post", "/sandboxes"),
        ("delete", "/sandboxes/{id}"),
        ("get", "/jobs/{id}/events"),
    ] {
        let responses = paths[path][method]["responses"].as_object().unwrap();
        assert!(
            responses.contains_key("401") && responses.contains_key("500"),
            "{method} {path}"
        );
    }
    let health = &paths["/healthz"]["get"];
    assert_eq!(
        health["security"],
        serde_json::json!([{}]),
        "/healthz needs no token"
    );
    // All references resolve.
    let text = described.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(
            described["components"]["schemas"].get(name).is_some(),
            "{name} is missing"
        );
    }
}

#[test]
fn generated_requests_get_only_documented_responses() {
    let (world, _) = World::with_sandbox(State::Running);
    let api = Api::start(&world);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/.lab/venv/bin/schemathesis");
    let child = Command::new(program)
        // DELETE cancels a job; GET still returns it afterwards.
        .args(["run", "--exclude-checks", "use_after_free"])
        .arg(format!("{}/openapi.json", api.base))
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args([
            "--max-examples",
            "12",
            "--seed",
            "7",
            "--no-color",
            "--request-timeout",
            "60",
        ])
        .current_dir(world.path("scratch"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: run the tests with `make test`"));
    let ran = wait_for_exit_within(child, Duration::from_secs(300));
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, api.log());
}
