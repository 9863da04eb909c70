//! Note, pin, prune, verify and doctor over HTTP follow the rules of the command line.

use serde_json::{Value, json};

use crate::api::server::{Api, HttpResponse, TOKEN};
use crate::common::{World, exists, wait_until};

/// Creates an environment with a snapshot `app` on the host and in the bucket.
fn with_app() -> World {
    let world = crate::api::with_object();
    world.snapdeck(&["pull", "app"]).ok();
    world
}

fn annotations(api: &Api) -> Vec<Value> {
    let response = api.get("/snapshots/note?snapshot=app").expect_status(200);
    response["locations"].as_array().unwrap().clone()
}

#[test]
fn a_note_is_set_where_the_snapshot_is() {
    let world = with_app();
    let api = Api::start(&world);
    let post = |route: &str, body: Value| api.post(&format!("/snapshots/{route}"), &body);
    let note =
        json!({"snapshot": "app", "note": "golden", "labels": {"os": "2022", "team": "web"}});
    let noted = post("note", note).expect_status(200);
    let both = noted["locations"].as_array().unwrap();
    assert_eq!(both.len(), 2, "{noted}");
    assert_eq!(
        (&both[0]["host"], &both[0]["bucket"]),
        (&json!("alpha"), &json!(false))
    );
    assert_eq!(
        (&both[1]["host"], &both[1]["bucket"]),
        (&Value::Null, &json!(true))
    );
    let change = json!({"snapshot": "app", "removeLabels": ["team"], "bucket": false});
    post("note", change).expect_status(200);
    let shown: Vec<Value> = annotations(&api)
        .iter()
        .map(|place| place["annotations"].clone())
        .collect();
    let expected = |labels: Value| json!({"notes": "golden", "labels": labels, "pinned": false});
    assert_eq!(shown[0], expected(json!({"os": "2022"})));
    assert_eq!(shown[1], expected(json!({"os": "2022", "team": "web"})));
    // The command line shows the same.
    let ran = world.snapdeck(&["note", "app", "--json"]).ok().json();
    assert_eq!(ran["locations"], json!(annotations(&api)));

    post("note", json!({"snapshot": "app"})).failed(400, "invalidInput", &["nothing to change"]);
    for note in ["a\u{1b}b".to_owned(), "x".repeat(5000)] {
        post("note", json!({"snapshot": "app", "note": note})).failed(
            400,
            "invalidInput",
            &["a note"],
        );
    }
    let places = json!({"snapshot": "app", "note": "x", "local": false, "bucket": false});
    post("note", places).failed(400, "invalidInput", &["both false"]);
    post("note", json!({"snapshot": "nope", "note": "x"})).failed(404, "notFound", &["nope"]);
    api.get("/snapshots/note?snapshot=nope")
        .failed(404, "notFound", &["nope"]);
    let url = format!("{}/snapshots/note", api.base);
    let bare = crate::common::run(
        "curl",
        &[
            "-sS",
            "-m",
            "100",
            "-d",
            r#"{"snapshot": "app", "note": ""}"#,
            &url,
        ],
    );
    assert!(bare.contains("unauthorized"), "{bare}");
    assert_eq!(annotations(&api)[0]["annotations"]["notes"], "golden");
}

#[test]
fn a_pinned_snapshot_is_neither_removed_nor_pruned() {
    let world = with_app();
    world.snapdeck(&["adopt", "app", "--bucket"]).ok();
    let api = Api::start(&world);
    let post = |route: &str, body: Value| api.post(&format!("/snapshots/{route}"), &body);
    post("pin", json!({"snapshot": "app", "local": false})).expect_status(200);
    let pins: Vec<Value> = annotations(&api)
        .iter()
        .map(|place| place["annotations"]["pinned"].clone())
        .collect();
    assert_eq!(pins, [json!(false), json!(true)]);
    post(
        "remove",
        json!({"snapshot": "app", "local": false, "bucket": true}),
    )
    .failed(409, "conflict", &["pinned"]);
    let rule = json!({"unused": true, "bucket": true, "dryRun": false});
    let report = post("prune", rule).expect_status(200);
    assert_eq!(
        report["kept"][0]["keepReasons"],
        json!(["pinned"]),
        "{report}"
    );
    assert!(
        world.is_in_bucket("app") && !exists(&world.snapshot_path("app")),
        "{report}"
    );
    post("unpin", json!({"snapshot": "app"})).expect_status(200);
    let remove = json!({"snapshot": "app", "local": false, "bucket": true});
    post("remove", remove).expect_status(200);
}

#[test]
fn a_prune_removes_nothing_unless_it_is_asked_for() {
    let world = with_app();
    world.snapshot("used", 0);
    world.sandbox("a", "used", crate::common::State::Off);
    let api = Api::start(&world);
    let prune = |body: Value| -> HttpResponse { api.post("/snapshots/prune", &body) };
    let planned = prune(json!({"unused": true})).expect_status(200);
    assert_eq!(planned["dryRun"], true);
    assert_eq!(planned["toRemove"][0]["name"], "app");
    assert_eq!(
        planned["toRemove"].as_array().unwrap().len(),
        1,
        "{planned}"
    );
    assert!(planned["reclaimedBytes"].as_u64().unwrap() > 0);
    assert_eq!(planned["results"], json!([]));
    let ran = world.snapdeck(&[
        "prune",
        "--host",
        "alpha",
        "--unused",
        "--dry-run",
        "--json",
    ]);
    let ran = ran.ok().json();
    for key in [
        "toRemove",
        "kept",
        "leftovers",
        "foreignLeftovers",
        "warnings",
    ] {
        assert_eq!(planned[key], ran[key], "{key}");
    }
    assert!(exists(&world.snapshot_path("app")));
    for body in [
        json!({}),
        json!({"foreign": true}),
        json!({"keep": 0}),
        json!({"olderThan": "3"}),
    ] {
        prune(body).failed(400, "invalidInput", &[]);
    }
    let report = prune(json!({"unused": true, "dryRun": false})).expect_status(200);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 1, "{report}");
    assert_eq!(
        (&results[0]["snapshotName"], &results[0]["removed"]),
        (&json!("app"), &json!(true))
    );
    assert_eq!(world.names("snapshots"), ["used.qcow2"]);
    assert!(world.is_in_bucket("app"));
    let jobs = api.get("/jobs").expect_status(200);
    assert_eq!(jobs[0]["operation"], "remove");
}

#[test]
fn a_prune_is_completed_if_the_caller_disconnects() {
    let world = World::new();
    // More than are removed at the same time.
    for number in 0..10 {
        world.snapshot(&format!("old-{number}"), 0);
    }
    let api = Api::start(&world);
    let body = json!({"unused": true, "dryRun": false}).to_string();
    let mut caller = api
        .curl("/snapshots/prune", &["-d", &body])
        .spawn()
        .unwrap();
    wait_until("a removal begins", || {
        api.get("/jobs").expect_status(200)[0]["operation"] == "remove"
    });
    caller.kill().unwrap();
    caller.wait().unwrap();
    wait_until("all are removed", || world.names("snapshots").is_empty());
}

#[test]
fn a_bad_block_is_found_and_repaired() {
    let world = with_app();
    let api = Api::start(&world);
    let verify = |body: Value| api.post("/snapshots/verify", &body);
    let good = verify(json!({"snapshot": "app"})).expect_status(200);
    assert_eq!(
        (&good["hasManifest"], &good["repairedBlocks"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(
        verify(json!({"snapshot": "app", "bucket": true})).expect_status(200)["host"],
        Value::Null
    );
    verify(json!({"snapshot": "app", "bucket": true, "repair": true})).failed(
        400,
        "invalidInput",
        &["repair"],
    );
    world.scribble(&world.snapshot_path("app"), 0, 1);
    verify(json!({"snapshot": "app"})).failed(502, "damaged", &["app"]);
    let repaired = verify(json!({"snapshot": "app", "repair": true})).expect_status(200);
    assert!(
        !repaired["repairedBlocks"].as_array().unwrap().is_empty(),
        "{repaired}"
    );
    verify(json!({"snapshot": "app"})).expect_status(200);
}

#[test]
fn doctor_checks_host_and_bucket() {
    let world = World::new();
    let api = Api::start(&world);
    let report = api.call("/doctor", &["-X", "POST"]).expect_status(200);
    let hosts: Vec<&Value> = report["healthChecks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| &check["host"])
        .collect();
    assert_eq!(hosts, [&json!("alpha"), &Value::Null]);
    assert_ne!(report["verdict"], "failed", "{report}");
    world.reconfigure(TOKEN_KEY, "secret_access_key = \"wrong");
    drop(api);
    let token = [("SNAPDECK_API_TOKEN", TOKEN)];
    let api = Api::start_with(&world, &[], &token);
    let report = api
        .post("/doctor", &json!({"local": false}))
        .expect_status(200);
    assert_eq!(report["verdict"], "failed");
    let checks = report["healthChecks"][0]["checks"].as_array().unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["verdict"] == "failed" && check["fix"].is_string())
    );
    let neither = json!({"local": false, "bucket": false});
    api.post("/doctor", &neither)
        .failed(400, "invalidInput", &["both false"]);
}

const TOKEN_KEY: &str = "secret_access_key = \"";
