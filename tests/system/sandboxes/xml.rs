//! `sandbox xml` and `manifest` show what libvirt and snapdeck have recorded.

use serde_json::json;

use crate::api::server::Api;
use crate::common::{State, World};

#[test]
fn the_domain_xml_is_that_of_libvirt_without_passwords() {
    let (world, id) = World::with_sandbox(State::Off);
    let file = world.path("scratch/password.xml");
    let xml = world.virsh(&["dumpxml", &id]);
    let graphics = "<graphics type='vnc' port='-1' autoport='yes' passwd='opensesa'/></devices>";
    std::fs::write(&file, xml.replace("</devices>", graphics)).unwrap();
    world.virsh(&["define", &file]);
    for state in [State::Off, State::Running] {
        if state == State::Running {
            world.virsh(&["start", &id]);
        }
        let expected = world.virsh(&["dumpxml", &id]);
        let printed = world.snapdeck(&["sandbox", "xml", &id]).ok().stdout;
        assert_eq!(printed.trim(), expected.trim());
        assert!(!printed.contains("opensesa"), "{printed}");
        let document = world
            .snapdeck(&["sandbox", "xml", &id, "--json"])
            .ok()
            .json();
        assert_eq!(
            (&document["host"], &document["id"]),
            (&json!("alpha"), &json!(id))
        );
        assert_eq!(document["xml"].as_str().unwrap().trim(), expected.trim());
    }
    // A clone has the password of its source.
    world.virsh(&["destroy", &id]);
    world
        .snapdeck(&["sandbox", "clone", &id, &world.id("b")])
        .ok();
    let xml = world.virsh(&["dumpxml", "--security-info", &world.id("b")]);
    assert!(xml.contains("opensesa"), "{xml}");
    let api = Api::start(&world);
    let shown = api.get(&format!("/sandboxes/{id}/xml")).expect_status(200);
    assert!(
        shown["xml"]
            .as_str()
            .unwrap()
            .contains(&format!("<name>{id}</name>"))
    );
    api.get("/sandboxes/unknown/xml")
        .failed(404, "notFound", &["unknown"]);
}

#[test]
fn the_xml_of_other_domains_is_not_shown() {
    let world = World::new();
    let (foreign, disk) = (world.id("foreign"), world.path("scratch/foreign.qcow2"));
    world.image(&disk, 0);
    world.define(&foreign, &disk);
    let ran = world.snapdeck(&["sandbox", "xml", &foreign]);
    ran.failed(4, &[&foreign, "is not a sandbox of snapdeck"]);
    world
        .snapdeck(&["sandbox", "xml", "unknown"])
        .failed(3, &["sandbox unknown not found"]);
}

#[test]
fn the_manifest_is_shown_on_the_host_and_in_the_bucket() {
    let (world, id) = World::with_sandbox(State::Off);
    world.snapdeck(&["push", &id, "app"]).ok();
    world.snapdeck(&["pull", "app"]).ok();
    for place in [&[][..], &["--bucket"]] {
        let args = [&["manifest", "app"], place].concat();
        let printed = world.snapdeck(&args).ok().stdout;
        let manifest: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(manifest["name"], "app", "{printed}");
        let json = world
            .snapdeck(&[&args[..], &["--json"]].concat())
            .ok()
            .json();
        assert_eq!(json, manifest);
        let args = [&["manifest", "other"], place].concat();
        world
            .snapdeck(&args)
            .failed(3, &["manifest of other not found"]);
    }
    // A snapshot without one.
    world.snapshot("golden", 0);
    world
        .snapdeck(&["manifest", "golden"])
        .failed(3, &["manifest of golden not found on host alpha"]);
}
