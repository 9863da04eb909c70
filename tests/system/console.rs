//! The console in a pseudo terminal, with a real host and bucket.
mod habits;
mod jobs;
mod sandboxes;
mod terminal;

use crate::common::screen::Screen;
use crate::common::{State, World, run, same_disk, wait_until};

#[test]
fn a_push_and_a_pull_by_keys() {
    let world = World::new();
    world.snapshot("base", 8);
    let id = world.sandbox("vm", "base", State::Off);
    let mut screen = Screen::open(&world.command(&[]));

    screen.wait(&[&id, "shut off", "base"]);
    screen.press("p");
    screen.wait(&[&format!("push a snapshot of {id}"), "Name:"]);
    screen.press("golden\r");
    screen.wait(&["✓ push", "golden.qcow2"]);
    let object = world.get("golden");
    assert!(same_disk(&object, &world.disk("vm")));

    // The bucket list has the new object.
    screen.press("\t\t");
    screen.wait(&["golden", "absent"]);
    screen.press("f");
    screen.wait(&["pull to alpha", "y pull"]);
    screen.press("y");
    screen.wait(&["✓ pull golden", "✓ same"]);
    assert_eq!(
        std::fs::read(world.snapshot_path("golden")).unwrap(),
        std::fs::read(&object).unwrap()
    );

    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
    screen.wait_until_restored();
    assert!(world.names("temp").is_empty());
}

#[test]
fn removes_a_snapshot_without_dependents_after_confirmation() {
    let world = World::new();
    world.snapshot("base", 1);
    world.snapshot("old", 1);
    world.sandbox("vm", "base", State::Off);
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["base", "old"]);

    screen.press("\td");
    screen.wait(&["in use by", &world.id("vm")]);
    screen.press("\u{1b}");
    screen.wait_for("the dialog is closed", |text| !text.contains("in use by"));
    assert_eq!(world.names("snapshots"), ["base.qcow2", "old.qcow2"]);

    screen.press("jd");
    // The last copy is removed only after its name is typed.
    screen.wait(&["To remove", "Type old to confirm"]);
    screen.press("y");
    screen.wait(&["enter remove"]);
    screen.press("old\r");
    screen.wait(&["✓ remove old"]);
    assert_eq!(world.names("snapshots"), ["base.qcow2"]);
}

#[test]
fn an_unreachable_host_and_bucket_are_shown() {
    let world = World::new();
    world.snapshot("base", 1);
    let settings = std::fs::read_to_string(world.config()).unwrap();
    // A second host that never answers.
    let broken = "[[hosts]]\nname = \"beta\"\nuri = \"qemu:///system?socket=/nowhere\"\n";
    std::fs::write(
        world.config(),
        format!("{broken}{settings}").replace(
            "endpoint = \"http://127.0.0.1",
            "endpoint = \"http://127.0.0.2",
        ),
    )
    .unwrap();
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["beta ✗", "alpha ●"]);
    screen.press("\t\t?");
    screen.wait(&["┌ help"]);
    screen.press("\u{1b}");
    screen.wait_for("the help is closed", |text| !text.contains("┌ help"));
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn quitting_cancels_a_running_job_and_resumes_the_guest() {
    let world = World::new();
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Running);
    let gate = world.gate("convert");
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&[&id, "running"]);
    screen.press("cgolden\r");
    gate.wait_reached();
    assert_eq!(world.state(&id), "paused");
    screen.wait(&["paused"]);
    screen.press("q");
    screen.wait(&["1 job is not finished"]);
    screen.press("c");
    assert_eq!(screen.wait_for_exit(), 0);
    assert_eq!(world.state(&id), "running");
    assert!(world.names("temp").is_empty());
}

#[test]
fn a_closed_terminal_ends_the_console_and_resumes_the_guest() {
    let world = World::new();
    world.snapshot("base", 4);
    let id = world.sandbox("vm", "base", State::Running);
    let gate = world.gate("convert");
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&[&id, "running"]);
    screen.press("cgolden\r");
    gate.wait_reached();
    // The kernel sends SIGHUP when a terminal is closed.
    run(
        "kill",
        &["-HUP", &screen.child.process_id().unwrap().to_string()],
    );
    screen.wait_for_exit();
    wait_until("the guest runs", || world.state(&id) == "running");
    wait_until("the temporary directory is empty", || {
        world.names("temp").is_empty()
    });
}

#[test]
fn the_demo_needs_no_setup_and_leaves_nothing() {
    let world = World::new();
    let mut screen = Screen::open(&world.command(&["demo"]));
    let text = screen.wait(&[
        "web-01", "running", "build-02", "shut off", "test-03", "paused",
    ]);
    assert!(text.contains("winserver-base"), "{text}");
    // build-02 is the first row.
    screen.press("pmine\r");
    screen.wait(&["✓ push", "mine.qcow2"]);
    screen.press("\t\tG");
    screen.wait(&["winserver-tools-v1", "absent"]);
    screen.press("f");
    screen.wait(&["y pull"]);
    screen.press("y");
    screen.wait(&["✓ pull winserver-tools-v1"]);
    screen.press("T");
    screen.wait(&["winserver-base", "├ web-01", "└ mine"]);
    let dir = demo_directory(screen.child.process_id().unwrap());
    assert!(crate::common::exists(&dir));
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
    assert!(!crate::common::exists(&dir));
    assert!(demo_guests(&dir).is_empty());
}

#[test]
fn the_demo_has_the_look_of_the_settings() {
    let world = World::new();
    let mut settings = std::fs::read_to_string(world.config()).unwrap();
    settings += "[console]\ntheme = \"mono\"\nascii = true\n";
    std::fs::write(world.config(), settings).unwrap();
    let mut screen = Screen::open(&world.command(&["demo"]));
    let text = screen.wait(&["web-01", "winserver-base"]);
    assert!(text.is_ascii() && !screen.has_colors(), "{text}");
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn the_first_push_in_the_demo_takes_at_most_six_keys() {
    let world = World::new();
    let mut screen = Screen::open(&world.command(&["demo"]));
    let mut pressed = 0;
    // Before each key the screen shows which one to press.
    for (expected, key) in [
        (&["build-02", "shut off", "p push"][..], "p"),
        (&["push a snapshot of build-02", "Name:", "enter push"], "v"),
        (&["Name: v"], "1"),
        (&["uploads to s3://demo/snapshots/v1.qcow2"], "\r"),
    ] {
        screen.wait(expected);
        screen.press(key);
        pressed += 1;
    }
    // Another test waits for the end of a push.
    screen.wait(&["Jobs · 1 running", "● push build-02 → v1"]);
    assert!(pressed <= 6);
}

#[test]
fn the_demo_passes_its_own_check_of_snapshots() {
    let world = World::new();
    let mut screen = Screen::open(&world.command(&["demo"]));
    screen.wait(&["build-02", "winserver-base", "r-tools-v1"]);
    screen.press("D");
    // Warnings are first in the list of a host.
    screen.wait_for("the checks have ended", |text| {
        text.contains("┌ doctor") && text.contains("reflinks") && !text.contains("checking")
    });
    let text = screen.text();
    assert!(!text.contains("! owner and mode"), "{text}");
}

#[test]
fn every_page_opens_with_one_key_and_closes_with_esc() {
    let world = World::new();
    let mut screen = Screen::open(&world.command(&["demo"]));
    screen.wait(&["build-02", "winserver-base", "r-tools-v1"]);
    for (keys, expected) in [
        ("?", &["┌ help", "Create a snapshot"][..]),
        (":", &["┌ :", "enter run"]),
        ("D", &["┌ doctor", "qemu-img"]),
        ("o", &["f force off"]),
        ("c", &["create a snapshot of build-02"]),
        ("n", &["new sandbox on demo"]),
        ("d", &["destroy"]),
        ("m", &["Locations 2"]),
        (",", &["sort by name", "esc cancel"]),
        ("g", &["go to bucket"]),
        ("/web", &["1 of 3"]),
    ] {
        screen.press(keys);
        screen.wait(expected);
        screen.press("\u{1b}");
        screen.wait_for("the lists are shown again", |text| {
            text.contains("Sandboxes 3 ") && !expected.iter().all(|word| text.contains(word))
        });
    }
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn every_page_fits_terminals_of_all_sizes() {
    let world = World::new();
    let mut screen = Screen::open(&world.command(&["demo"]));
    // test-03 is paused last.
    screen.wait(&["build-02", "winserver-base", "r-tools-v1", "paused"]);
    for (columns, rows) in [(60, 20), (80, 24), (120, 40), (200, 60)] {
        screen.resize(columns, rows);
        for (key, expected) in [
            ("m", &["Locations 2", "winserver-base"][..]),
            ("T", &["Tree", "winserver-base", "web-01"]),
            ("J", &["Jobs"]),
            ("H", &["Hosts 1", "demo", "DISK"]),
            // One of the guests, test-03 or web-01, where only one fits.
            ("W", &["Wall 2", "-0"]),
        ] {
            let title = format!("{columns}x{rows}: {key}");
            screen.press(key);
            screen.wait_for(&title, |text| {
                let lines: Vec<&str> = text.lines().collect();
                let has_keys = lines.last().is_some_and(|line| line.contains("? help"));
                let fills = lines.len() == usize::from(rows);
                fills && has_keys && expected.iter().all(|word| text.contains(word))
            });
            // The pane with the focus on the whole screen, and back.
            screen.press("Z");
            screen.wait(&expected[..1]);
            screen.press("Z\u{1b}");
            screen.wait_for(&format!("{title}: closed"), |text| {
                text.contains("Sandboxes 3 ") && !text.contains(expected[0])
            });
        }
        for (key, expected) in [
            ("?", "┌ help"),
            (":", "┌ :"),
            ("D", "┌ doctor"),
            ("o", "force off"),
            ("c", "create a snapshot"),
            ("n", "new sandbox"),
            ("|", "columns of Sandboxes"),
        ] {
            let title = format!("{columns}x{rows}: {key}");
            screen.press(key);
            screen.wait_for(&title, |text| text.contains(expected));
            screen.press("\u{1b}");
            screen.wait_for(&format!("{title}: closed"), |text| !text.contains(expected));
        }
    }
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn a_killed_demo_leaves_nothing() {
    let world = World::new();
    let screen = Screen::open(&world.command(&["demo"]));
    screen.wait(&["web-01", "running"]);
    let pid = screen.child.process_id().unwrap();
    let dir = demo_directory(pid);
    assert!(!demo_guests(&dir).is_empty());
    run("kill", &["-9", &pid.to_string()]);
    wait_until("the directory is removed", || !crate::common::exists(&dir));
    wait_until("the guests are ended", || demo_guests(&dir).is_empty());
}

/// Returns the directory of a demo, by its open log file.
fn demo_directory(pid: u32) -> String {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    files
        .filter_map(|file| std::fs::read_link(file.unwrap().path()).ok())
        .find(|target| target.ends_with("snapdeck.log"))
        .and_then(|log| Some(log.parent()?.to_str()?.to_owned()))
        .expect("a log")
}

/// Returns the QEMU processes with `dir` in their arguments.
fn demo_guests(dir: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|process| {
            let path = process.ok()?.path();
            let line = std::fs::read_to_string(path.join("cmdline")).ok()?;
            (line.starts_with("/usr/bin/qemu-system") && line.contains(dir))
                .then(|| path.display().to_string())
        })
        .collect()
}
