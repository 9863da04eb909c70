//! Sandboxes in the console: from creation to removal, metrics, screens and VNC.

use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crossterm::Command as _;
use crossterm::clipboard::CopyToClipboard;

use crate::common::screen::Screen;
use crate::common::{State, World, exists, is_root, output, run, wait_until};

/// Adds a running sandbox whose firmware draws on its screen.
fn with_screen(world: World) -> (World, String) {
    world.snapshot("base", 1);
    let id = world.id("vm");
    let new = ["sandbox", "new", &id, "base", "--start"];
    world.snapdeck(&new).ok();
    (world, id)
}

#[test]
fn a_custom_base_image_is_created_by_keys_alone() {
    let world = World::new();
    world.use_guest();
    world.snapshot("base", 1);
    let (config, next) = (world.id("config"), world.id("next"));
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["base"]);

    screen.press("\tn");
    screen.wait(&["new sandbox on alpha", "→ base, virtual size 1 GiB"]);
    screen.press(&format!("{config}\r"));
    screen.wait(&[&format!("✓ new {config}"), "running"]);
    let guest = world.guest(&config);
    let alive = guest.wait_for_heartbeat(0);
    let written = guest.wait_for_heartbeat_after(&alive).head;

    screen.press("\u{1b}[Z");
    screen.wait_for("the write rate is shown", |text| {
        let rate = text.split(" w ").nth(1).unwrap_or("0 B/s");
        text.contains("CPU") && !rate.starts_with("0 B/s")
    });
    screen.press("S");
    screen.wait(&[
        &format!("stop {config} on alpha"),
        "Asks the guest to shut down",
    ]);
    screen.press("y");
    // Wait for the row too: a push checks the state in it. The row may truncate the name.
    let row = format!("○ {}", &config[..config.len() - 4]);
    screen.wait(&[&format!("✓ stop {config}"), &row]);
    assert!(guest.was_power_button_pressed());
    screen.press("pmyapp\r");
    screen.wait(&["✓ push", "myapp.qcow2"]);
    screen.press("d");
    screen.wait(&[&format!("Type {config}"), &world.disk("config")]);
    screen.press(&format!("{config}\r"));
    screen.wait(&[&format!("✓ destroy {config}"), "alpha has no sandboxes"]);
    assert!(!exists(&world.disk("config")));

    // A snapshot that is only in the bucket is pulled first.
    screen.press("n");
    screen.wait(&["new sandbox on alpha", "CPUs:"]);
    screen.press(&format!("{next}\tmyapp"));
    screen.wait(&["only in the bucket: it is pulled first"]);
    screen.press("\r");
    screen.wait(&["✓ pull myapp", &format!("✓ new {next}")]);
    let guest = world.guest(&next);
    guest.wait_for_heartbeat(0);
    let found = guest.boots().remove(0);
    assert!(
        found.head >= written,
        "{found:?}, but record {written} was written"
    );

    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn a_running_sandbox_is_shown_with_metrics_and_screen() {
    let (world, id) = with_screen(World::new());
    let mut screen = Screen::open(&world.command(&[]));
    let metrics = [
        "CPU",
        "memory",
        "overlay",
        "up 0:",
        "VNC 127.0.0.1:",
        "no guest agent",
    ];
    screen.wait(&[&[&*id, "running"], &metrics[..]].concat());
    wait_until("the screen is drawn", || screen.picture_cells() > 3);
    let small = screen.picture_cells();
    screen.press("i");
    screen.wait(&[&format!("screen of {id} on alpha")]);
    wait_until("the screen is drawn large", || {
        screen.picture_cells() > 4 * small
    });
    screen.press("\u{1b}");
    screen.wait(&["VNC 127.0.0.1:"]);
    // A sandbox that is shut off has no metrics.
    world.virsh(&["destroy", &id]);
    screen.wait_for("the sandbox is shut off", |text| {
        text.contains("shut off") && !text.contains("VNC")
    });
    assert_eq!(screen.picture_cells(), 0);
}

#[test]
fn the_configured_picture_protocol_is_used() {
    let (world, id) = with_screen(World::new());
    for (style, begins) in [("kitty", "\u{1b}_Gq=2,i="), ("sixel", "\u{1b}P")] {
        let picture = format!("[console]\npicture = \"{style}\"\n[bucket]\n");
        world.configure("");
        world.reconfigure("[bucket]\n", &picture);
        let mut screen = Screen::open(&world.command(&[]));
        screen.wait(&[&id, "running", "VNC"]);
        wait_until("a picture is sent", || screen.was_sent(begins));
        screen.press("q");
        assert_eq!(screen.wait_for_exit(), 0);
    }
}

/// Waits for a VNC URL on the clipboard, connects to it, and returns its address.
fn connect_to_copied_url(screen: &Screen) -> String {
    let text = screen.wait(&["vnc://127.0.0.1:", ": sent to the terminal"]);
    let url = text.split(": sent to the terminal").next().unwrap();
    let url = url.rsplit("vnc://").next().unwrap();
    let url = format!("vnc://{url}");
    let mut sequence = String::new();
    CopyToClipboard::to_clipboard_from(&url)
        .write_ansi(&mut sequence)
        .unwrap();
    assert!(screen.was_sent(&sequence), "{url}");
    let address = url.trim_start_matches("vnc://").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut banner = [0; 4];
    stream.read_exact(&mut banner).unwrap();
    // RFC 6143, 7.1.1.
    assert_eq!(&banner, b"RFB ");
    address
}

#[test]
fn the_vnc_url_is_copied_to_the_clipboard() {
    let (world, id) = with_screen(World::new());
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&[&id, "running", "VNC"]);
    screen.press("v");
    connect_to_copied_url(&screen);
    screen.press("V");
    screen.wait(&["cannot start a viewer"]);
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn the_vnc_url_of_a_remote_host_leads_through_an_ssh_tunnel() {
    let (world, id) = with_screen(World::over_ssh(1));
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&[&id, "running", "VNC", "up 0:"]);
    screen.press("v");
    screen.wait(&["the tunnel serves only this user"]);
    let address = connect_to_copied_url(&screen);
    // The tunnel is reused.
    screen.press("v");
    assert_eq!(connect_to_copied_url(&screen), address);
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
    wait_until("the tunnel is closed", || {
        TcpStream::connect(&address).is_err()
    });
}

/// Connects as another user or as this one, with an address of IPv4 or the same one in IPv6; prints what the server sends.
fn connect_as(user: &str, address: &str, port: &str) -> String {
    let script = "import socket, sys\n\
        s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)\n\
        s.settimeout(20)\n\
        print(s.recv(4).decode())";
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        user,
        "--clear-groups",
        "--",
        "python3",
        "-S",
        "-c",
    ]);
    let ran = output(command.args([script, address, port]));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

#[test]
fn a_tunnel_serves_only_its_user_and_closes_with_the_viewer() {
    if !is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let (world, id) = with_screen(World::over_ssh(1));
    let (viewer, ended) = (world.path("scratch/viewer"), world.path("scratch/ended"));
    let text = format!(
        "#!/bin/bash\nenv >{viewer}.env\nexec 3<>/dev/tcp/$1/$2\nhead -c 4 <&3 >{viewer}.sent\n\
         echo $2 >{viewer}.new && mv {viewer}.new {viewer}.port\n\
         until [ -e {ended} ] || [ ! -e {viewer} ]; do sleep 0.05; done\n"
    );
    std::fs::write(world.path("scratch/text"), text).unwrap();
    run(
        "install",
        &["-m", "755", &world.path("scratch/text"), &viewer],
    );
    let setting = format!("[console]\nviewer = \"{viewer} {{host}} {{port}}\"\n[sandbox]\n");
    world.reconfigure("[sandbox]\n", &setting);
    let mut command = world.command(&[]);
    command.env("DISPLAY", ":99");
    command.env("SNAPDECK_API_TOKEN", "never-in-a-viewer");
    command.env("DB_PASSWORD", "never-in-a-viewer");
    let mut screen = Screen::open(&command);
    screen.wait(&[&id, "running", "VNC", "up 0:"]);
    screen.press("V");
    wait_until("the viewer is connected", || {
        exists(&format!("{viewer}.port"))
    });
    let read = |suffix: &str| std::fs::read_to_string(format!("{viewer}.{suffix}")).unwrap();
    assert_eq!(read("sent"), "RFB ");
    let variables = read("env");
    assert!(variables.contains("DISPLAY=:99"), "{variables}");
    assert!(!variables.contains("never-in-a-viewer"), "{variables}");
    let port = read("port").trim().to_owned();
    for address in ["127.0.0.1", "::ffff:127.0.0.1"] {
        assert_eq!(connect_as("root", address, &port), "RFB", "{address}");
        for user in ["nobody", "libvirt-qemu"] {
            assert_eq!(connect_as(user, address, &port), "", "{user} {address}");
        }
    }
    let is_open = || TcpStream::connect(format!("127.0.0.1:{port}")).is_ok();
    assert!(is_open());
    std::fs::write(&ended, "").unwrap();
    wait_until("the tunnel is closed", || !is_open());
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0);
}

#[test]
fn a_guest_that_does_not_stop_is_forced_off_after_confirmation() {
    let world = World::new();
    world.reconfigure(
        "network = \"none\"\n",
        "network = \"none\"\nstop_timeout_secs = 1\n",
    );
    // Firmware without an operating system ignores the power button.
    let (world, id) = with_screen(world);
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&[&id, "running"]);
    screen.press("S");
    screen.wait(&["Asks the guest to shut down"]);
    screen.press("y");
    screen.wait(&[&format!("force off {id}"), "has not stopped within 1 s"]);
    assert_eq!(world.state(&id), "running");
    screen.press("y");
    screen.wait(&[&format!("✓ force off {id}"), "shut off"]);
}

#[test]
fn one_confirmation_applies_to_all_marked_sandboxes() {
    let world = World::new();
    world.snapshot("base", 1);
    let ids = ["a", "b", "c"].map(|short| {
        let state = if short == "b" {
            State::Running
        } else {
            State::Off
        };
        world.sandbox(short, "base", state)
    });
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&[&ids[0], &ids[1], &ids[2], "running"]);
    screen.press("   s");
    screen.wait(&[
        "start 3 sandboxes",
        "Skipped",
        &format!("{}: it is already running", ids[1]),
    ]);
    screen.press("y");
    screen.wait(&[
        &format!("✓ start {}", ids[0]),
        &format!("✓ start {}", ids[2]),
    ]);
    assert!(ids.iter().all(|id| world.state(id) == "running"));

    screen.press("gg   d");
    screen.wait(&["destroy 3 sandboxes", "Type destroy 3"]);
    screen.press("destroy 3\r");
    screen.wait(&["alpha has no sandboxes"]);
    // The domain is undefined before the files are removed.
    wait_until("the files are removed", || {
        world.names("sandboxes").is_empty()
    });
}
