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
        ("/snapshots/remove", r#"["base", true]"#, &["invalid body"]),
        (
            "/snapshots/remove",
            r#"{"snapshot": "base"} {}"#,
            &["invalid body"],
        ),
        (
            "/snapshots/remove",
            r#"{"snapshot": "base", "local": null}"#,
            &["local: invalid type"],
        ),
        (
            "/snapshots/remove",
            r#"{"snapshot": "base", "snapshot": "other"}"#,
            &["duplicate field"],
        ),
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
    api.get("/snapshots/info?snapshot=a%2Fb%2Fc")
        .failed(400, "invalidInput", &["a/b/c"]);
    api.get("/sandboxes/a%20b")
        .failed(400, "invalidInput", &["a b"]);
    api.call("/snapshots/pull", &["-d", "{}", "-H", "Idempotency-Key;"])
        .failed(400, "invalidInput", &["Idempotency-Key"]);
}

#[test]
fn unknown_fields_and_parameters_are_refused_and_nothing_is_done() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapshot("app", 1);
    world.put(&world.snapshot_path("app"), "app");
    let api = Api::start(&world);
    let verbs = [
        "start", "stop", "restart", "reset", "pause", "resume", "save", "restore", "destroy",
    ];
    let verb_paths = verbs.map(|verb| format!("/sandboxes/{id}/{verb}"));
    for path in verb_paths.iter().map(String::as_str) {
        for body in [r#"{"dryRun": true}"#, r#"{"Force": true}"#, "[1]", "x=1"] {
            api.call(path, &["-d", body])
                .failed(400, "invalidInput", &[]);
        }
        let path = format!("{path}?dryRun=true");
        api.call(&path, &["-X", "POST"]).failed(
            400,
            "invalidInput",
            &["unknown parameter \"dryRun\""],
        );
    }
    for (path, body) in [
        ("/snapshots/remove", json!({"snapshot": "app"})),
        (
            "/snapshots/remove",
            json!({"snapshot": "app", "bucket": true}),
        ),
        (
            "/snapshots/push",
            json!({"sandboxId": id, "snapshotName": "app", "overwrite": true}),
        ),
        (
            "/snapshots/create",
            json!({"sandboxId": id, "name": "app", "overwrite": true}),
        ),
        (
            "/snapshots/pull",
            json!({"snapshot": "app", "overwrite": true}),
        ),
        ("/sandboxes", json!({"id": "n", "snapshot": "app"})),
    ] {
        for (key, value) in [
            ("dryRun", json!(true)),
            ("Local", json!(false)),
            ("", json!(1)),
        ] {
            let mut body = body.clone();
            body[key] = value;
            let unknown = format!("unknown field `{key}`");
            api.post(path, &body)
                .failed(400, "invalidInput", &[&unknown]);
        }
        api.post(&format!("{path}?overwrite=false"), &body).failed(
            400,
            "invalidInput",
            &["unknown parameter \"overwrite\""],
        );
    }
    for args in [
        &["-X", "DELETE", "-d", r#"{"keepDisk": true}"#][..],
        &["-X", "DELETE", "-d", "null 1"],
    ] {
        api.call(&format!("/sandboxes/{id}"), args)
            .failed(400, "invalidInput", &[]);
    }
    api.call(&format!("/sandboxes/{id}?keepDisk"), &["-X", "DELETE"])
        .failed(400, "invalidInput", &["keepDisk"]);
    api.call("/jobs/1?x=1", &["-X", "DELETE"])
        .failed(400, "invalidInput", &["\"x\""]);
    assert_eq!(api.get("/jobs").expect_status(200), json!([]));
    assert_eq!(world.names("snapshots"), ["app.qcow2", "base.qcow2"]);
    assert!(world.is_in_bucket("app"));
    assert_eq!(world.state(&id), "shut off");
}

#[test]
fn a_remove_takes_only_the_copies_that_it_names() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.snapshot(name, 1);
        world.put(&world.snapshot_path(name), name);
    }
    let api = Api::start(&world);
    let remove = |local, bucket, name| {
        let body = json!({"snapshot": name, "local": local, "bucket": bucket});
        api.post("/snapshots/remove", &body)
    };
    remove(false, false, "a").failed(400, "invalidInput", &["both false"]);
    api.post(
        "/snapshots/remove",
        &json!({"snapshot": "a", "local": false}),
    )
    .failed(400, "invalidInput", &["both false"]);
    let removed = remove(false, true, "a").expect_status(200);
    assert_eq!(
        (&removed["host"], &removed["bucket"]),
        (&json!(null), &json!(true))
    );
    remove(true, false, "b").expect_status(200);
    api.post(
        "/snapshots/remove",
        &json!({"snapshot": "c", "bucket": true}),
    )
    .expect_status(200);
    assert_eq!(world.names("snapshots"), ["a.qcow2"]);
    let left = ["a", "b", "c"].map(|name| world.is_in_bucket(name));
    assert_eq!(left, [false, true, false]);
}

#[test]
fn unknown_paths_and_objects_are_404_and_wrong_methods_405() {
    let world = World::new();
    let api = Api::start(&world);
    for path in [
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
