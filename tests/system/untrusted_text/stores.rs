//! Errors, keys and manifests of a store.

use serde_json::json;

use super::{EVIL, SHOWN, checked, open, quit, snapdeck};
use crate::api::server::Api;
use crate::common::hostile::{Answer, Body, HostileStore, entry, page};
use crate::common::{State, World, lab};

/// Returns the text as XML: C0 characters as references, which a store may send whatever XML says.
fn xml(text: &str) -> String {
    text.chars()
        .map(|c| match c.is_control() {
            true => format!("&#{};", u32::from(c)),
            false => c.to_string(),
        })
        .collect()
}

fn world_at(store: &HostileStore) -> World {
    let world = World::new();
    world.reconfigure(&lab("SNAPDECK_LAB_S3"), &store.endpoint());
    world
}

#[test]
fn an_error() {
    let long = "x".repeat(1 << 20);
    for (status, code, message) in [
        (403, "AccessDenied".to_owned(), xml(EVIL)),
        (400, xml(EVIL), "x".to_owned()),
        (409, "Odd".to_owned(), format!("{}&#10;{long}", xml(EVIL))),
    ] {
        let store = HostileStore::start(move |_| Answer::error(status, &code, &message));
        let world = world_at(&store);
        world.snapshot("base", 1);
        let id = world.sandbox("vm", "base", State::Off);
        for args in [
            &["objects"][..],
            &["pull", "app"],
            &["push", &id, "app"],
            &["verify", "app", "--bucket"],
            &["info", "base"],
            &["note", "base", "--bucket"],
            &["prune", "--leftovers", "--dry-run"],
        ] {
            let ran = snapdeck(&world, args);
            assert!(ran.stderr.len() < 20_000, "{} bytes", ran.stderr.len());
        }
        if status != 403 {
            continue;
        }
        let listed = world.snapdeck(&["objects"]);
        listed.failed(5, &["denied access", SHOWN]);
        snapdeck(&world, &["doctor"]);

        let api = Api::start_with(
            &world,
            &[],
            &[("SNAPDECK_API_TOKEN", crate::api::server::TOKEN)],
        );
        checked(&api, api.get("/readyz"));
        let refused = checked(
            &api,
            api.post("/snapshots/pull", &json!({"snapshot": "app"})),
        );
        assert!(refused.status >= 400, "{refused:?}");
        checked(&api, api.get("/jobs"));
        checked(&api, api.get("/jobs/1/events"));

        let screen = open(&world, &world.command(&[]), true);
        screen.wait(&["denied access", SHOWN]);
        quit(&world, screen);
    }
}

#[test]
fn keys_tags_and_uploads() {
    let store = HostileStore::start(|request| match request.is_listing() {
        true => page(
            &[
                entry("app.qcow2", &xml(EVIL), 1000),
                entry(&format!("{}.qcow2", xml(EVIL)), "e", 1000),
                entry(&format!("{}.json", xml(EVIL)), "e", 1000),
                entry("..&#47;..&#47;etc&#47;x.qcow2", "e", 1000),
                entry("-rf.qcow2", "e", 1000),
            ]
            .map(|entry| entry.replace("<Key>", &format!("<Key>{}", prefix(&request.line))))
            .concat(),
            None,
        ),
        false if request.line.contains("uploads") => Answer::ok(format!(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>{}{}.qcow2</Key>\
             <UploadId>{}</UploadId><Initiator><DisplayName>{}</DisplayName></Initiator>\
             <Initiated>2024-01-01T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>",
            prefix(&request.line),
            xml(EVIL),
            xml(EVIL),
            xml(EVIL)
        )),
        false if request.line.starts_with("HEAD ") && request.line.contains("app.qcow2") => {
            Answer::new(200, Body::Announced(1000))
                .header("etag", "\"e\"")
                .header("x-amz-meta-odd", "\u{9b}31m\u{202e}")
        }
        false => Answer::not_found(),
    });
    let world = world_at(&store);
    let listed = snapdeck(&world, &["objects"]).ok();
    assert!(listed.stdout.contains("app"), "{}", listed.stdout);
    snapdeck(&world, &["info", "app"]).ok();
    for args in [
        &["prune", "--leftovers", "--foreign", "--dry-run"][..],
        &["doctor"],
    ] {
        snapdeck(&world, args);
    }
    let mut screen = open(&world, &world.command(&[]), false);
    screen.wait(&["app", "↓"]);
    screen.press("\t\t");
    screen.wait(&["key", "app.qcow2"]);
    quit(&world, screen);
}

/// Returns the prefix that a request lists.
fn prefix(line: &str) -> String {
    let (_, after) = line.split_once("prefix=").unwrap_or_default();
    let end = after.find(['&', ' ']).unwrap_or(after.len());
    after[..end].replace("%2F", "/")
}

#[test]
fn a_manifest_of_another_client() {
    let world = World::new();
    let image = world.path("scratch/image.qcow2");
    world.image(&image, 2);
    world.put(&image, "app");
    let manifest = json!({"format": 1, "schema": "snapdeck.manifest/1", "name": "app", "notes": format!("{EVIL}\nsecond"),
        "labels": {EVIL: EVIL}, "parent": {"name": "p", "etag": EVIL}, "method": EVIL, "pinned": true});
    let file = world.path("scratch/app.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let put = world.s5cmd(&["cp", &file, "{}/app.json"]);
    assert!(put.status.success(), "{put:?}");

    let note = snapdeck(&world, &["note", "app"]).ok();
    assert!(
        note.stdout.contains(&format!("  {SHOWN}")),
        "{}",
        note.stdout
    );
    assert!(note.stdout.contains("\n  second\n"), "{}", note.stdout);
    let info = snapdeck(&world, &["info", "app"]).ok();
    assert!(info.stdout.contains(SHOWN), "{}", info.stdout);
    snapdeck(&world, &["objects"]).ok();
    snapdeck(&world, &["remove", "app", "--bucket"]).failed(4, &["pinned"]);
    snapdeck(&world, &["pull", "app"]).ok();
    let note = snapdeck(&world, &["note", "app", "--local"]).ok();
    assert!(note.stdout.contains(SHOWN), "{}", note.stdout);

    let mut screen = open(&world, &world.command(&[]), false);
    screen.wait(&["app"]);
    screen.press("\t\t");
    screen.wait(&["note", SHOWN, "labels"]);
    quit(&world, screen);
}
