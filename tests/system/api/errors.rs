//! Errors have one form and the right status code.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::api::server::Api;
use crate::api::with_object;
use crate::common::{State, World, only_local};

#[test]
fn invalid_input_is_400_and_names_the_field() {
    let world = World::new();
    let api = Api::start(&world);
    let long = "x".repeat(70_000);
    for (path, body, words) in [
        ("/snapshots/pull", "", &["empty"][..]),
        ("/snapshots/pull", "{", &["EOF"]),
        ("/snapshots/pull", "[]x", &["invalid body"]),
        ("/snapshots/pull", "{}", &["`snapshot`"]),
        (
            "/snapshots/pull",
            r#"{"snapshot": 1}"#,
            &["snapshot: invalid type"],
        ),
        (
            "/snapshots/pull",
            r#"{"snapshot": "../x"}"#,
            &["snapshot: \"../x\" is not a valid snapshot name"],
        ),
        (
            "/snapshots/push",
            r#"{"sandboxId": "a"}"#,
            &["`snapshotName`"],
        ),
        (
            "/snapshots/create",
            r#"{"sandboxId": "a;b", "name": "x"}"#,
            &["sandboxId: \"a;b\""],
        ),
        (
            "/snapshots/create",
            r#"{"sandboxId": "a", "name": "x", "live": "yes"}"#,
            &["live: invalid type"],
        ),
        (
            "/sandboxes",
            r#"{"id": "a", "snapshot": "b", "cpuQuota": 0}"#,
            &["cpuQuota: 0 is not"],
        ),
        (
            "/sandboxes",
            r#"{"id": "a", "snapshot": "b", "memoryQuota": -1}"#,
            &["memoryQuota: -1 is not a whole number"],
        ),
        (
            "/sandboxes/a/stop",
            r#"{"timeout": 1000000}"#,
            &["timeout: 1000000"],
        ),
    ] {
        let error = api
            .call(path, &["-d", body])
            .failed(400, "invalidInput", words);
        assert_eq!(error["path"], path);
        assert_eq!(error["method"], "POST");
    }
    let file = world.path("scratch/long");
    std::fs::write(&file, long).unwrap();
    api.call("/snapshots/pull", &["--data-binary", &format!("@{file}")])
        .failed(413, "tooLarge", &["65536"]);
    api.get("/snapshots/exists")
        .failed(400, "invalidInput", &["snapshot is missing"]);
    api.get("/snapshots/info?snapshot=a%2Fb")
        .failed(400, "invalidInput", &["a/b"]);
    api.get("/sandboxes/a%20b")
        .failed(400, "invalidInput", &["a b"]);
    api.call("/snapshots/pull", &["-d", "{}", "-H", "Idempotency-Key;"])
        .failed(400, "invalidInput", &["Idempotency-Key"]);
}

#[test]
fn unknown_paths_and_objects_are_404_and_wrong_methods_405() {
    let world = World::new();
    let api = Api::start(&world);
    for path in [
        "/",
        "/nope",
        "/jobs/1",
        "/jobs/x",
        "/jobs/7/events",
        "/sandboxes/none/nope",
    ] {
        api.get(path).failed(404, "notFound", &[]);
    }
    api.get("/sandboxes/none")
        .failed(404, "notFound", &["none"]);
    api.post("/snapshots/pull", &json!({"snapshot": "none"}))
        .failed(404, "notFound", &["snapshot not found in store"]);
    api.post(
        "/snapshots/push",
        &json!({"sandboxId": "none", "snapshotName": "x"}),
    )
    .failed(404, "notFound", &["none"]);
    api.post("/sandboxes", &json!({"id": "x", "snapshot": "none"}))
        .failed(404, "notFound", &["none"]);
    let refused = api.call("/sandboxes", &["-X", "PUT"]);
    let allowed = refused.header("allow").to_owned();
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed:?}"
    );
    refused.failed(405, "methodNotAllowed", &[]);
}

#[test]
fn conflicts_damage_and_unreachable_stores_have_their_own_codes() {
    let (world, id) = World::with_sandbox(State::Running);
    let api = Api::start(&world);
    world.put(&world.snapshot_path("base"), "taken");
    let create = |name: &str| json!({"sandboxId": id, "name": name});
    api.post("/snapshots/create", &create("taken"))
        .failed(409, "conflict", &["already exists"]);
    let text = world.path("scratch/text");
    std::fs::write(&text, "not an image").unwrap();
    world.put(&text, "odd");
    api.post("/snapshots/pull", &json!({"snapshot": "odd"}))
        .failed(502, "damaged", &["odd"]);
    drop(api);
    world.reconfigure(
        &std::env::var("SNAPDECK_LAB_S3").unwrap(),
        "http://127.0.0.1:9",
    );
    let api = Api::start_with(
        &world,
        &[],
        &[("SNAPDECK_API_TOKEN", crate::api::server::TOKEN)],
    );
    api.post("/snapshots/pull", &json!({"snapshot": "app"}))
        .failed(502, "unreachable", &[]);
    let ready = api.get("/readyz").expect_status(503);
    assert_eq!(ready["ready"], false);
}

#[test]
fn a_full_disk_is_507() {
    if only_local("the disk is mounted on this machine") {
        return;
    }
    let world = with_object();
    let Some(_disk) = world.small_disk("snapshots", "1M") else {
        return;
    };
    let api = Api::start(&world);
    api.post("/snapshots/pull", &json!({"snapshot": "app"}))
        .failed(507, "noSpace", &["app"]);
}

#[test]
fn slow_clients_time_out() {
    let world = World::new();
    let api = Api::start(&world);
    let send = |text: &str| {
        let mut stream = TcpStream::connect(api.address()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    std::thread::scope(|scope| {
        let headers = scope.spawn(|| send("GET /healthz HTTP/1.1\r\nHost: x\r\n"));
        let body = scope.spawn(|| {
            let token = crate::api::server::TOKEN;
            send(&format!(
                "POST /snapshots/pull HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n{{"
            ))
        });
        // The server closes both connections.
        let response = headers.join().unwrap();
        assert!(
            response.is_empty() || response.contains("408"),
            "{response:?}"
        );
        let response = body.join().unwrap();
        assert!(
            response.starts_with("HTTP/1.1 408") && response.contains("\"code\":\"timeout\""),
            "{response:?}"
        );
    });
}
