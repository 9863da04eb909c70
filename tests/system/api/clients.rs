//! Clients that are generated from the OpenAPI description.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::api::server::{Api, TOKEN};
use crate::common::{World, exists, wait_for_exit_within};

const LIMIT: Duration = Duration::from_secs(180);

/// Runs a program of the tests' Python environment in the directory of an environment; returns what it printed.
#[track_caller]
fn run_python(world: &World, program: &str, args: &[&str]) -> String {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join(".lab/venv/bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let child = Command::new(programs.join(program))
        .args(args)
        .current_dir(world.path("scratch"))
        .env("PATH", format!("{}:{path}", programs.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: run the tests with `make test`"));
    let ran = wait_for_exit_within(child, LIMIT);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    format!("{}\n{}", ran.stdout, ran.stderr)
}

/// Writes the description of the API to a file.
fn write_description(world: &World, api: &Api) -> PathBuf {
    let file = PathBuf::from(world.path("scratch/openapi.json"));
    let description = api.get("/openapi.json").expect_status(200);
    std::fs::write(&file, description.to_string()).unwrap();
    file
}

#[test]
fn the_description_is_valid_and_clients_are_generated_without_flags() {
    let world = World::new();
    let api = Api::start(&world);
    let file = write_description(&world, &api);
    let file = file.to_str().unwrap();
    let text = run_python(&world, "openapi-spec-validator", &[file]);
    assert!(text.contains("OK"), "{text}");
    for (generator, module) in [
        ("python", "openapi_client/api/sandboxes_api.py"),
        ("typescript-fetch", "apis/SandboxesApi.ts"),
    ] {
        let args = ["generate", "-i", file, "-g", generator, "-o", generator];
        run_python(&world, "openapi-generator-cli", &args);
        let module = format!("{generator}/{module}");
        let text = std::fs::read_to_string(world.path(&format!("scratch/{module}"))).unwrap();
        // The name of the operation, in both styles.
        assert!(
            text.contains("destroy_sandbox") || text.contains("destroySandbox"),
            "{module}"
        );
    }
}

#[test]
fn a_generated_client_drives_the_life_of_a_sandbox_and_a_snapshot() {
    let world = World::new();
    world.snapshot("base", 1);
    let api = Api::start(&world);
    let file = write_description(&world, &api);
    let generate = [
        "generate",
        "--path",
        file.to_str().unwrap(),
        "--output-path",
        "snapdeck_client",
        "--meta",
        "none",
    ];
    let text = run_python(&world, "openapi-python-client", &generate);
    assert!(
        !text.contains("Unable") && !text.contains("Warning"),
        "{text}"
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/api/clients.py");
    let (id, dir) = (world.id("box"), world.path("scratch"));
    run_python(
        &world,
        "python",
        &[script, &dir, &api.base, TOKEN, &id, "base"],
    );
    assert!(world.names("sandboxes").is_empty());
    assert_eq!(world.names("snapshots"), ["base.qcow2"]);
    assert!(!world.is_in_bucket("app-v1") && !world.is_in_bucket("live-v1"));
    assert!(exists(&world.snapshot_path("base")));
}
