//! Jobs: asynchronous or waited for, followed, cancelled, idempotent.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::api::server::{Api, send};
use crate::api::with_object;
use crate::common::{State, World, wait_for_exit, wait_until};

#[test]
fn an_asynchronous_job_reports_progress_and_its_result() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    let response = api.call(
        "/snapshots/pull",
        &[
            "-H",
            "Prefer: respond-async",
            "-d",
            r#"{"snapshot": "app"}"#,
        ],
    );
    assert_eq!(response.header("location"), "/jobs/1");
    assert_eq!(response.header("preference-applied"), "respond-async");
    assert_eq!(response.expect_status(202)["operation"], "pull");
    let follow = api.curl("/jobs/1/events", &["-N"]).spawn().unwrap();
    gate.wait_reached();
    let job = api.get("/jobs/1").expect_status(200);
    assert_eq!(
        (&job["state"], &job["phase"]),
        (&json!("running"), &json!("verifying")),
        "{job}"
    );
    gate.open();
    let output = wait_for_exit(follow).ok().stdout;
    assert!(
        output.contains("content-type: text/event-stream"),
        "{output}"
    );
    let events: Vec<(&str, Value)> = output
        .split("\n\n")
        .filter_map(|event| {
            let (name, data) = event.rsplit_once("event: ")?.1.split_once("\ndata: ")?;
            Some((name, serde_json::from_str(data).unwrap()))
        })
        .collect();
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last.0, "result");
    assert_eq!(last.1["result"]["snapshotName"], "app");
    assert!(
        before
            .iter()
            .all(|(name, data)| *name == "progress" && data["bytesPerSecond"].is_u64())
    );
    for pair in before.windows(2) {
        assert_ne!(pair[0], pair[1], "no event is repeated");
    }
    let metrics = api.get("/metrics").body;
    for line in [
        "snapdeck_jobs_completed_total{operation=\"pull\",result=\"finished\"} 1",
        "snapdeck_job_duration_seconds_count{operation=\"pull\"} 1",
        "snapdeck_host_up 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let size = std::fs::metadata(world.snapshot_path("app")).unwrap().len();
    assert!(
        metrics.contains(&format!(
            "snapdeck_transferred_bytes_total{{operation=\"pull\"}} {size}"
        )),
        "{metrics}"
    );
}

#[test]
fn a_snapshot_and_an_object_are_adopted() {
    let world = with_object();
    world.snapshot("base", 2);
    let api = Api::start(&world);
    let adopt = |body: Value| {
        let response = api.post("/snapshots/adopt", &body);
        response.expect_status(200)
    };
    let result = adopt(json!({"snapshot": "base"}));
    assert_eq!(
        (&result["changed"], &result["host"]),
        (&json!(true), &json!(world.name))
    );
    assert_eq!(adopt(json!({"snapshot": "base"}))["changed"], false);
    let result = adopt(json!({"snapshot": "app", "bucket": true}));
    assert_eq!(
        (&result["changed"], &result["host"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(world.manifest("app")["proof"], "read");
    api.post("/snapshots/adopt", &json!({"snapshot": "missing"}))
        .failed(404, "notFound", &["missing is not on host"]);
}

#[test]
fn a_request_that_outlasts_its_wait_returns_the_job() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    let response = api.call(
        "/snapshots/pull",
        &[
            "-H",
            "Prefer: respond-async, wait=1",
            "-d",
            r#"{"snapshot": "app"}"#,
        ],
    );
    assert_eq!(response.expect_status(202)["id"], 1);
    gate.open();
    let response = api.call(
        "/snapshots/pull",
        &[
            "-H",
            "Idempotency-Key: k",
            "-H",
            "Prefer: wait=1",
            "-d",
            r#"{"snapshot": "app"}"#,
        ],
    );
    assert!(
        [200, 409].contains(&response.status),
        "finished, or refused while the first job runs: {response:?}"
    );
}

#[test]
fn a_cancelled_job_leaves_no_files_and_its_client_gets_409() {
    let (world, id) = World::with_sandbox(State::Running);
    let gate = world.gate("convert");
    let api = Api::start(&world);
    let body = json!({"sandboxId": id, "name": "app"}).to_string();
    let waiting = api.curl("/snapshots/create", &["-d", &body]);
    let waiting = std::thread::spawn(move || send(waiting));
    gate.wait_reached();
    let cancelled = api.call("/jobs/1", &["-X", "DELETE"]);
    assert!(
        cancelled.status == 202 || cancelled.status == 200,
        "{cancelled:?}"
    );
    waiting
        .join()
        .unwrap()
        .failed(409, "cancelled", &["was cancelled"]);
    assert_eq!(api.state(1), "cancelled");
    assert_eq!(
        api.call("/jobs/1", &["-X", "DELETE"]).expect_status(200)["state"],
        "cancelled"
    );
    assert_eq!(world.state(&id), "running");
    assert!(world.names("temp").is_empty());
}

#[test]
fn a_disconnected_client_does_not_end_the_job() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    let mut client = api.curl("/snapshots/pull", &["-d", r#"{"snapshot": "app"}"#]);
    let mut client = client.stdout(Stdio::null()).spawn().unwrap();
    gate.wait_reached();
    client.kill().unwrap();
    client.wait().unwrap();
    gate.open();
    wait_until("the job is finished", || api.state(1) == "finished");
    assert!(world.names("snapshots").contains(&"app.qcow2".to_owned()));
}

#[test]
fn an_idempotency_key_identifies_one_request() {
    let world = with_object();
    let gate = world.gate("check");
    let api = Api::start(&world);
    let pull = |body: &str| {
        let mut command = api.curl(
            "/snapshots/pull",
            &["-H", "Idempotency-Key: one", "-d", body],
        );
        command.stderr(Stdio::piped());
        command
    };
    let (first, second) = (
        pull(r#"{"snapshot": "app"}"#),
        pull(r#"{ "snapshot" : "app.qcow2" }"#),
    );
    let first = std::thread::spawn(move || send(first));
    gate.wait_reached();
    let second = std::thread::spawn(move || send(second));
    send(pull(r#"{"snapshot": "other"}"#)).failed(409, "keyReused", &[]);
    gate.open();
    let (first, second) = (
        first.join().unwrap().expect_status(200),
        second.join().unwrap().expect_status(200),
    );
    assert_eq!(first, second);
    assert_eq!(first["skipped"], false);
    assert_eq!(
        send(pull(r#"{"snapshot": "app"}"#)).expect_status(200),
        first,
        "also after the job has finished"
    );
    assert_eq!(
        api.get("/jobs")
            .expect_status(200)
            .as_array()
            .unwrap()
            .len(),
        1
    );
}
