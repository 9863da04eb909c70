//! Clients of the runner that the specification describes: docs/api-compat.md.

use serde_json::{Value, json};

use crate::api::server::{Api, TOKEN};
use crate::common::{State, World, exists, run};

/// Returns what curl gets without the token.
fn get_without_token(api: &Api, path: &str) -> String {
    let url = format!("{}{path}", api.base);
    run("curl", &["-sS", "-m", "100", "-w", "\n%{http_code}", &url])
}

#[test]
fn the_root_needs_no_token_and_the_metrics_only_by_default() {
    let world = World::new();
    let api = Api::start(&world);
    let status = json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")});
    assert_eq!(api.get("/").expect_status(200), status);
    assert_eq!(get_without_token(&api, "/"), format!("{status}\n200"));
    assert!(get_without_token(&api, "/metrics").ends_with("\n401"));
    drop(api);
    let token = [("SNAPDECK_API_TOKEN", TOKEN)];
    let api = Api::start_with(&world, &["--public-metrics"], &token);
    let metrics = get_without_token(&api, "/metrics");
    assert!(metrics.contains("snapdeck_host_up") && metrics.ends_with("\n200"));
    for path in ["/metrics/", "/info", "/jobs"] {
        assert!(get_without_token(&api, path).ends_with("\n401"), "{path}");
    }
}

#[test]
fn info_shows_the_load_of_the_host() {
    let (world, _) = World::with_sandbox(State::Running);
    let api = Api::start(&world);
    let info = api.get("/info").expect_status(200);
    assert_eq!(info["host"], "alpha");
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["appVersion"], info["version"]);
    let metrics = &info["metrics"];
    assert_eq!(metrics["currentSnapshotCount"], 1);
    assert_eq!(metrics["currentAllocatedCpu"], 1);
    for key in ["Cpu", "Memory", "Disk"] {
        let percentage = &metrics[format!("current{key}UsagePercentage")];
        let percentage = percentage.as_f64().unwrap_or_else(|| panic!("{info}"));
        assert!((0.0..=100.0).contains(&percentage), "{info}");
    }
    for key in ["cpus", "memoryTotalBytes", "diskTotalBytes"] {
        assert!(metrics[key].as_u64().unwrap() > 0, "{info}");
    }
    api.get("/info?x=1").failed(400, "invalidInput", &["x"]);
}

#[test]
fn a_snapshot_is_removed_by_query() {
    let world = World::new();
    world.snapshot("base", 0);
    let api = Api::start(&world);
    let remove = |query: &str, args: &[&str]| {
        let args = [&["-X", "POST"], args].concat();
        api.call(&format!("/snapshots/remove{query}"), &args)
    };
    for (query, args, words) in [
        ("", &[][..], "empty"),
        ("?snapshot=base&local=true", &[], "local"),
        ("?snapshot=base&snapshot=base", &[], "more than once"),
        ("?snapshot=../base", &[], "valid snapshot name"),
        (
            "?snapshot=base",
            &["-d", r#"{"snapshot": "base"}"#],
            "one of the two",
        ),
    ] {
        remove(query, args).failed(400, "invalidInput", &[words]);
    }
    assert!(exists(&world.snapshot_path("base")));
    let removed = remove("?snapshot=base", &[]).expect_status(200);
    assert_eq!(removed["host"], "alpha");
    assert_eq!(removed["bucket"], false);
    assert!(!exists(&world.snapshot_path("base")));
    remove("?snapshot=base", &[]).failed(404, "notFound", &["base"]);
}

#[test]
fn a_sandbox_is_created_once_and_destroyed_once() {
    let world = World::new();
    world.snapshot("base", 0);
    let api = Api::start(&world);
    let id = world.id("a");
    // As the runner's client sends it.
    let body = json!({
        "id": id, "userId": "u", "snapshot": "base", "osUser": "Administrator", "cpuQuota": 1, "gpuQuota": 0,
        "memoryQuota": 64, "storageQuota": 1, "env": {}, "metadata": {"team": "web"}, "networkBlockAll": null,
    });
    let first = api.post("/sandboxes", &body).expect_status(201);
    let words = |sandbox: &Value| {
        let version = sandbox["daemonVersion"] == env!("CARGO_PKG_VERSION");
        (
            sandbox["state"].clone(),
            sandbox["runnerState"].clone(),
            version,
        )
    };
    assert_eq!(words(&first), (json!("running"), json!("started"), true));
    let uuid = world.virsh(&["domuuid", &id]);
    let again = api.post("/sandboxes", &body);
    assert_eq!(again.header("location"), format!("/sandboxes/{id}"));
    let again = again.expect_status(200);
    assert_eq!(
        (&again["id"], &again["changed"]),
        (&json!(id), &json!(false))
    );
    assert_eq!(world.virsh(&["domuuid", &id]), uuid);
    for (key, value, cause) in [
        ("cpuQuota", json!(2), "1 CPUs, not 2"),
        ("memoryQuota", json!(96), "64 MiB of memory, not 96 MiB"),
        ("storageQuota", json!(2), "1 GiB, not 2 GiB"),
        ("snapshot", json!("other"), "based on base, not on other"),
    ] {
        let mut other = body.clone();
        other[key] = value;
        api.post("/sandboxes", &other)
            .failed(409, "conflict", &[&id, cause]);
    }
    let path = format!("/sandboxes/{id}");
    let paused = api.call(&format!("{path}/pause"), &["-X", "POST"]);
    let paused = paused.expect_status(200);
    assert_eq!(words(&paused), (json!("paused"), json!("stopped"), true));
    assert_eq!(words(&api.get(&path).expect_status(200)).1, "stopped");
    // A paused guest cannot shut down: it is cut at once.
    let stopped = api.post(&format!("{path}/stop"), &json!({"force": true}));
    assert_eq!(words(&stopped.expect_status(200)).0, "shut-off");
    for changed in [true, false] {
        let destroyed = api.call(&format!("{path}/destroy"), &["-X", "POST"]);
        let destroyed = destroyed.expect_status(200);
        assert_eq!(destroyed["changed"], changed);
        assert_eq!(words(&destroyed), (Value::Null, json!("destroyed"), true));
    }
    let deleted = api.call(&path, &["-X", "DELETE"]).expect_status(200);
    assert_eq!(deleted["changed"], false);
    // On the command line, an unknown id is a mistake.
    let destroy = ["sandbox", "destroy", &id, "--yes"];
    world.snapdeck(&destroy).failed(3, &[&id, "not found"]);
}

#[test]
fn files_that_may_be_of_another_program_are_no_destroyed_sandbox() {
    let world = World::new();
    let api = Api::start(&world);
    let (id, disk) = (world.id("a"), world.disk("a"));
    world.image(&disk, 0);
    api.call(&format!("/sandboxes/{id}/destroy"), &["-X", "POST"])
        .failed(404, "notFound", &[&disk, "no record"]);
    assert!(exists(&disk));
}

#[test]
fn what_cannot_be_done_is_refused() {
    let world = World::new();
    world.snapshot("base", 0);
    let api = Api::start(&world);
    let id = world.id("a");
    for (key, value, words) in [
        ("memoryQuota", json!(4), "not between 64 and"),
        ("gpuQuota", json!(1), "gpuQuota: it is not supported"),
        ("env", json!({"A": "b"}), "env: it is not supported"),
        ("volumes", json!([{}]), "volumes: it is not supported"),
        (
            "networkAllowList",
            json!("10.0.0.0/8"),
            "networkAllowList: it is not supported",
        ),
        (
            "networkBlockAll",
            json!("yes"),
            "networkBlockAll: invalid type",
        ),
    ] {
        let mut body = json!({"id": id, "snapshot": "base"});
        body[key] = value;
        let error = api
            .post("/sandboxes", &body)
            .failed(400, "invalidInput", &[words]);
        if key == "memoryQuota" {
            assert_eq!(error["hint"], "its unit is MiB: 4096 are 4 GiB");
        }
    }
    let pull = json!({"snapshot": "base", "registry": {"url": "x"}});
    api.post("/snapshots/pull", &pull).failed(
        400,
        "invalidInput",
        &["registry: it is not supported"],
    );
    assert!(world.names("sandboxes").is_empty());
}

#[test]
fn a_blocked_network_is_honoured_or_refused() {
    let world = World::new();
    world.snapshot("base", 0);
    world.reconfigure("network = \"none\"", "network = \"bridge:br9\"");
    let create = |short: &str, blocked: bool| {
        let api = Api::start(&world);
        let body = json!({
            "id": world.id(short), "snapshot": "base", "start": false, "networkBlockAll": blocked,
        });
        api.post("/sandboxes", &body)
    };
    create("open", false).expect_status(201);
    let xml = |short: &str| world.virsh(&["dumpxml", &world.id(short)]);
    assert!(xml("open").contains("<interface"));
    create("blocked", true).expect_status(201);
    assert!(!xml("blocked").contains("<interface"), "{}", xml("blocked"));
    create("blocked", true).expect_status(200);
    // That one has a network.
    create("open", true).failed(409, "conflict", &["it has a network"]);

    let template = world.dir.join("own.xml");
    let text = include_str!("../../../config/sandbox.xml");
    let device = "<interface type='user'/>{{tpm}}";
    std::fs::write(&template, text.replace("{{tpm}}", device)).unwrap();
    let setting = format!("[sandbox]\ntemplate = \"{}\"\n", template.display());
    world.reconfigure("[sandbox]\n", &setting);
    for id in ["own", "open"] {
        create(id, true).failed(400, "invalidInput", &["no network", "<interface>"]);
    }
    assert_eq!(world.names("sandboxes").len(), 2);
}

#[test]
fn a_snapshot_that_only_the_bucket_has_is_pulled_first() {
    let world = crate::api::with_object();
    let api = Api::start(&world);
    let id = world.id("a");
    let body = json!({"id": id, "snapshot": "app", "start": false});
    let key = ["-H", "Idempotency-Key: one", "-d", &body.to_string()];
    api.call("/sandboxes", &key).expect_status(201);
    assert!(exists(&world.snapshot_path("app")));
    // The same request is the same job, although the snapshot is on the host now.
    api.call("/sandboxes", &key).expect_status(201);
    let jobs = api.get("/jobs").expect_status(200);
    let operations: Vec<&Value> = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["operation"])
        .collect();
    assert_eq!(operations, ["pull", "new"]);
    let missing = json!({"id": world.id("b"), "snapshot": "nope"});
    api.post("/sandboxes", &missing)
        .failed(404, "notFound", &["nope", "alpha"]);
}
