//! The examples of the specification, verbatim but for host, token and IDs.

use std::process::Command;

use serde_json::{Value, json};

use crate::api::server::{Api, TOKEN};
use crate::common::{State, World, wait_for_exit, wait_until};

/// Runs an example in a shell; returns status and body.
#[track_caller]
fn example(api: &Api, text: &str) -> (u16, Value) {
    let home = api.dir.join("curl");
    std::fs::create_dir_all(&home).unwrap();
    // Options that the examples do not have: no progress meter, and the status after the body.
    std::fs::write(
        home.join(".curlrc"),
        "silent\nmax-time = 100\nwrite-out = \"\\n%{http_code}\"\n",
    )
    .unwrap();
    let text = text
        .replace("http://runner1:8080", &api.base)
        .replace("http://runner2:8080", &api.base)
        .replace("http://runner:8080", &api.base);
    let mut command = Command::new("sh");
    command
        .args(["-c", &text])
        .env("TOKEN", TOKEN)
        .env("CURL_HOME", home)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let ran = wait_for_exit(command.spawn().unwrap()).ok();
    let (body, status) = ran.stdout.rsplit_once('\n').unwrap();
    let json = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    (status.parse().unwrap(), json)
}

/// Asserts that `json` contains the values in the specification.
#[track_caller]
fn assert_contains(json: &Value, expected: Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&json[key], value, "{key}: {json}");
    }
    assert!(json["sizeBytes"].as_u64().unwrap() > 0, "{json}");
}

#[test]
fn a_base_image_is_created_configured_pushed_and_pulled() {
    let world = World::new();
    world.snapshot("winserver-autologin-base", 1);
    let api = Api::start(&world);
    let (config_vm, tag) = (world.id("config-vm"), &world.tag);

    let (status, created) = example(
        &api,
        &format!(
            r#"curl -X POST http://runner:8080/sandboxes \
  -H "Authorization: Bearer $TOKEN" \
  -d '{{"id": "{config_vm}", "snapshot": "winserver-autologin-base"}}'"#
        ),
    );
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["id"], *config_vm);
    assert_eq!(world.state(&config_vm), "running");

    // A guest without an operating system ignores the shutdown request; ending it here simulates its shutdown.
    let (status, stopped) = std::thread::scope(|scope| {
        let stop = scope.spawn(|| {
            example(
                &api,
                &format!(
                    r#"curl -X POST http://runner:8080/sandboxes/{config_vm}/stop \
  -H "Authorization: Bearer $TOKEN""#
                ),
            )
        });
        wait_until("the guest is asked to shut down", || {
            let jobs = api.get("/jobs").expect_status(200);
            jobs[1]["phase"] == "stopping"
        });
        world.virsh(&["destroy", &config_vm]);
        stop.join().unwrap()
    });
    assert_eq!(status, 200, "{stopped}");
    assert_eq!(stopped["state"], "shut-off");

    let (status, pushed) = example(
        &api,
        &format!(
            r#"curl -X POST http://runner:8080/snapshots/push \
  -H "Authorization: Bearer $TOKEN" \
  -d '{{"sandboxId": "{config_vm}", "snapshotName": "myapp-configured-v1.0"}}'"#
        ),
    );
    assert_eq!(status, 200, "{pushed}");
    assert_contains(
        &pushed,
        json!({
            "snapshotName": "myapp-configured-v1.0",
            "snapshotPath": format!("{tag}/myapp-configured-v1.0.qcow2"),
        }),
    );
    assert!(world.is_in_bucket("myapp-configured-v1.0"));

    let (status, destroyed) = example(
        &api,
        &format!(
            r#"curl -X POST http://runner:8080/sandboxes/{config_vm}/destroy \
  -H "Authorization: Bearer $TOKEN""#
        ),
    );
    assert_eq!(status, 200, "{destroyed}");
    assert_eq!(destroyed["state"], Value::Null);
    assert!(
        world.names("sandboxes").is_empty(),
        "{:?}",
        world.names("sandboxes")
    );

    // Pulled twice: the second pull finds it.
    world.put(
        &world.snapshot_path("winserver-autologin-base"),
        "myapp-v1.0",
    );
    for (runner, skipped) in [("runner1", false), ("runner2", true)] {
        let (status, pulled) = example(
            &api,
            &format!(
                r#"curl -X POST http://{runner}:8080/snapshots/pull \
  -H "Authorization: Bearer $TOKEN" \
  -d '{{"snapshot": "myapp-v1.0"}}'"#
            ),
        );
        assert_eq!(status, 200, "{pulled}");
        assert_contains(
            &pulled,
            json!({"snapshotName": "myapp-v1.0", "skipped": skipped}),
        );
    }
    assert!(
        world
            .names("snapshots")
            .contains(&"myapp-v1.0.qcow2".to_owned())
    );

    let my_sandbox = world.id("my-sandbox");
    let (status, created) = example(
        &api,
        &format!(
            r#"curl -X POST http://runner:8080/sandboxes \
  -H "Authorization: Bearer $TOKEN" \
  -d '{{
    "id": "{my_sandbox}",
    "snapshot": "myapp-v1.0",
    "cpuQuota": 2,
    "memoryQuota": 4096,
    "storageQuota": 50
  }}'"#
        ),
    );
    assert_eq!(status, 201, "{created}");
    assert_eq!(
        (&created["cpus"], &created["memoryBytes"]),
        (&json!(2), &json!(4096_u64 << 20))
    );
    assert_eq!(created["chain"][0]["facts"]["virtualSize"], 50_u64 << 30);
    api.call(&format!("/sandboxes/{my_sandbox}"), &["-X", "DELETE"])
        .expect_status(200);
}

#[test]
fn snapshots_of_a_running_sandbox_with_and_without_a_pause() {
    let (world, _) = World::with_sandbox(State::Off);
    let id = world.sandbox("my-running-sandbox", "base", State::Running);
    let api = Api::start(&world);
    let tag = &world.tag;
    let (status, created) = example(
        &api,
        &format!(
            r#"curl -X POST http://runner:8080/snapshots/create \
  -H "Authorization: Bearer $TOKEN" \
  -d '{{
    "sandboxId": "{id}",
    "name": "myapp-checkpoint-v1"
  }}'"#
        ),
    );
    assert_eq!(status, 200, "{created}");
    assert_contains(
        &created,
        json!({
            "name": "myapp-checkpoint-v1",
            "snapshotPath": format!("{tag}/myapp-checkpoint-v1.qcow2"),
            "liveMode": false,
        }),
    );
    let (status, created) = example(
        &api,
        &format!(
            r#"curl -X POST http://runner:8080/snapshots/create \
  -H "Authorization: Bearer $TOKEN" \
  -d '{{
    "sandboxId": "{id}",
    "name": "myapp-quick-snapshot",
    "live": true
  }}'"#
        ),
    );
    assert_eq!(status, 200, "{created}");
    assert_contains(
        &created,
        json!({"name": "myapp-quick-snapshot", "liveMode": true}),
    );
    assert_eq!(world.state(&id), "running");
}

#[test]
fn a_push_of_a_running_sandbox_is_refused_until_it_is_stopped() {
    let (world, id) = World::with_sandbox(State::Running);
    let api = Api::start(&world);
    let push = format!(
        r#"curl -X POST http://runner:8080/snapshots/push \
  -H "Authorization: Bearer $TOKEN" \
  -d '{{"sandboxId": "{id}", "snapshotName": "app"}}'"#
    );
    let (status, refused) = example(&api, &push);
    assert_eq!(status, 409, "{refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("sandbox must be stopped or paused"),
        "{message}"
    );
    world.virsh(&["destroy", &id]);
    // It is stopped already.
    let (status, stopped) = example(
        &api,
        &format!(
            r#"SANDBOX_ID={id}
curl -X POST http://runner:8080/sandboxes/$SANDBOX_ID/stop \
  -H "Authorization: Bearer $TOKEN""#
        ),
    );
    assert_eq!(
        (status, &stopped["changed"]),
        (200, &json!(false)),
        "{stopped}"
    );
    assert_eq!(example(&api, &push).0, 200);
}

#[test]
fn the_other_endpoints_work() {
    let (world, id) = World::with_sandbox(State::Running);
    let api = Api::start(&world);
    let exists = |name: &str| {
        api.get(&format!("/snapshots/exists?snapshot={name}"))
            .expect_status(200)
    };
    assert_eq!(
        (&exists("base")["exists"], &exists("base")["bucket"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(exists("nope")["exists"], false);
    let info = api
        .get("/snapshots/info?snapshot=base.qcow2")
        .expect_status(200);
    assert_eq!(info["snapshot"]["path"], world.snapshot_path("base"));
    assert_eq!(info["snapshot"]["dependents"], json!([id]));
    api.get("/snapshots/info?snapshot=nope")
        .failed(404, "notFound", &["nope"]);
    api.post("/snapshots/remove", &json!({"snapshot": "base"}))
        .failed(409, "conflict", &[&id]);
    assert_eq!(
        api.get("/sandboxes").expect_status(200)[0]["id"]
            .as_str()
            .map(|_| ()),
        Some(())
    );
    let path = format!("/sandboxes/{id}");
    assert_eq!(api.get(&path).expect_status(200)["state"], "running");
    for (verb, state) in [
        ("pause", "paused"),
        ("resume", "running"),
        ("save", "saved"),
        ("restore", "running"),
    ] {
        let sandbox = api
            .call(&format!("{path}/{verb}"), &["-X", "POST"])
            .expect_status(200);
        assert_eq!(sandbox["state"], state, "{verb}");
    }
    let force = json!({"force": true, "timeout": 0});
    assert_eq!(
        api.post(&format!("{path}/stop"), &force).expect_status(200)["state"],
        "shut-off"
    );
    let sandbox = api
        .call(&format!("{path}/start"), &["-X", "POST"])
        .expect_status(200);
    assert_eq!(sandbox["state"], "running");
    api.call(&path, &["-X", "DELETE"]).expect_status(200);
    api.get(&path).failed(404, "notFound", &[&id]);
    let removed = api
        .post("/snapshots/remove", &json!({"snapshot": "base"}))
        .expect_status(200);
    assert_eq!(removed["snapshotName"], "base");
    assert!(world.names("snapshots").is_empty());
}
