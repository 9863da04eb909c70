//! Overlays whose header a guest that has broken out of QEMU has rewritten.

use super::{SECRET, Target, as_qemu_user};
use crate::common::{State, exists, run, same_disk};

/// Bytes of the file that a header names: a raw disk.
fn grow_secret(target: &Target) {
    run("truncate", &["-s", "131072", &target.secret]);
    assert!(
        std::fs::read_to_string(&target.secret)
            .unwrap()
            .starts_with(SECRET)
    );
}

#[test]
fn a_disk_that_needs_another_file_of_the_host_is_not_read() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let base = world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    let (disk, kept) = (world.disk("a"), world.path("scratch/kept"));
    std::fs::copy(&disk, &kept).unwrap();
    grow_secret(&target);
    let secret = &target.secret;
    target.link("sandboxes/raw.img", secret);
    let linked = world.path("sandboxes/raw.img");
    let image = world.path("scratch/other.qcow2");
    world.image(&image, 1);
    let rebase = |backing: &str, format: &str| {
        let name = [
            "rebase", "-u", "-f", "qcow2", "-F", format, "-b", backing, &disk,
        ];
        run("qemu-img", &name);
    };
    let data_file = || {
        let made = world.path("scratch/data.qcow2");
        let option = format!("data_file={secret},data_file_raw=on");
        run(
            "qemu-img",
            &[
                "create", "-q", "-f", "qcow2", "-o", &option, &made, "131072",
            ],
        );
        std::fs::write(secret, SECRET).unwrap();
        grow_secret(&target);
        std::fs::copy(&made, &disk).unwrap();
    };
    let attacks: [(&str, &dyn Fn()); 8] = [
        ("raw", &|| rebase(secret, "raw")),
        ("link", &|| rebase(&linked, "raw")),
        ("elsewhere", &|| rebase(&image, "qcow2")),
        ("climbing", &|| {
            rebase(
                &format!("{}/../root-only/shadow", world.path("sandboxes")),
                "raw",
            )
        }),
        ("server", &|| rebase("nbd://127.0.0.1:10809/x", "raw")),
        ("http", &|| rebase("http://127.0.0.1:9/x", "raw")),
        ("json", &|| {
            let name = format!("json:{{\"driver\":\"raw\",\"file.filename\":\"{secret}\"}}");
            let create = [
                "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &name, &disk, "1M",
            ];
            run("qemu-img", &create);
        }),
        ("data file", &data_file),
    ];
    for (what, attack) in attacks {
        std::fs::copy(&kept, &disk).unwrap();
        attack();
        for args in [
            &["push", &id, "leak"][..],
            &["push", &id, "leak", "--plan"],
            &["push", &id, "leak", "--compact"],
            &["create", &id, "leak"],
            &["create", &id, "leak", "--live"],
        ] {
            let ran = world.snapdeck(args);
            assert_eq!(ran.code, Some(4), "{what} {args:?}: {ran:?}");
            assert!(!world.is_in_bucket("leak"), "{what} {args:?}");
        }
        world.snapdeck(&["sandbox", "show", &id]).ok();
    }
    std::fs::copy(&kept, &disk).unwrap();
    world.snapdeck(&["push", &id, "app"]).ok();
    assert!(same_disk(&world.get("app"), &disk));
    run("qemu-img", &["check", "-q", &base]);
}

#[test]
fn a_raw_file_of_the_sandboxes_directory_is_read_as_raw() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    let (id, disk, raw) = (
        world.id("a"),
        world.disk("a"),
        world.path("sandboxes/base.raw"),
    );
    // It begins with the header of an image that needs root's file.
    let create = [
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        &target.secret,
        &raw,
        "1M",
    ];
    run("qemu-img", &create);
    run("truncate", &["-s", "1M", &raw]);
    run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "raw", "-b", &raw, &disk,
        ],
    );
    world.define(&id, &disk);
    world.snapdeck(&["push", &id, "app"]).ok();
    target.assert_not_in_bucket("app");
    let got = world.path("scratch/got.raw");
    run(
        "qemu-img",
        &[
            "convert",
            "-f",
            "qcow2",
            "-O",
            "raw",
            &world.get("app"),
            &got,
        ],
    );
    assert_eq!(std::fs::read(&got).unwrap(), std::fs::read(&raw).unwrap());
    assert!(as_qemu_user("cat", &[&target.secret]).stdout.is_empty());
}

#[test]
fn links_that_take_ages_to_follow_do_not_disable_a_host() {
    let Some(target) = Target::new() else { return };
    let world = &target.world;
    world.snapshot("base", 1);
    let id = world.sandbox("a", "base", State::Off);
    // Each doubles the steps to the end.
    for step in 0..30 {
        let next = format!("l{0}/../l{0}", step + 1);
        target.link(&format!("sandboxes/l{step}"), &next);
    }
    let made = as_qemu_user("mkdir", &[&world.path("sandboxes/l30")]);
    assert!(made.status.success(), "{made:?}");
    let (disk, backing) = (world.disk("a"), world.path("sandboxes/l0/x.qcow2"));
    let arguments = [
        "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", &backing, &disk,
    ];
    run("qemu-img", &arguments);
    let listed = world.snapdeck(&["snapshots"]).ok().stdout;
    assert!(listed.contains("base"), "{listed}");
    // What it needs cannot be known.
    let refused = world.snapdeck(&["remove", "base", "--local"]);
    refused.failed(4, &[&id]);
    assert!(exists(&world.snapshot_path("base")));
}
