//! Several hosts in the console, in a pseudo terminal, with a proxy that can hold downloads.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::common::proxy::{Faults, proxy};
use crate::common::screen::Screen;
use crate::common::{Fault, State, World, exists, sha256};
use tokio::runtime::Runtime;

/// Size of the object in MiB: more than five ranges of a download.
const IMAGE: u32 = 40;
/// Three ranges of a download, in bytes.
const HALF: u64 = 24 * 1024 * 1024;

/// A proxy to the bucket that holds ranges from `hold` on until they are released.
struct HoldingProxy {
    faults: Arc<Faults>,
    _runtime: Runtime,
}

impl HoldingProxy {
    fn start(world: &World, hold: u64) -> Self {
        let store = std::env::var("SNAPDECK_LAB_S3").unwrap();
        let runtime = Runtime::new().unwrap();
        let address = store.trim_start_matches("http://").to_owned();
        let (address, faults) = runtime.block_on(proxy(address));
        world.reconfigure(&store, &format!("http://{address}"));
        faults.hold_from.store(hold, SeqCst);
        Self {
            faults,
            _runtime: runtime,
        }
    }

    fn release(&self) {
        self.faults.hold_from.store(0, SeqCst);
    }
}

/// Returns the cells of the row `name` in the Locations list, the bucket first.
fn cells(text: &str, name: &str) -> Vec<String> {
    let line = text
        .lines()
        .find(|line| line.contains(&format!("│ {name} ")));
    let Some(line) = line else { return Vec::new() };
    // The name has 29 columns, each cell 16.
    let cells: Vec<char> = line.chars().skip(30).collect();
    let cells = cells.chunks(16).take(3);
    cells
        .map(|cell| cell.iter().collect::<String>().trim().to_owned())
        .collect()
}

/// Opens Locations, marks the row of `app`, and pulls it to all hosts.
fn fan_out(world: &World) -> Screen {
    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&["alpha ●", "beta ●", "Bucket 1"]);
    screen.press("m");
    screen.wait_for("app is only in the bucket", |text| {
        cells(text, "app").get(1..) == Some(&["·".to_owned(), "·".to_owned()])
    });
    // In the column of the bucket, space marks the whole row.
    screen.press("\u{1b}[D\u{1b}[D f");
    screen.wait(&[
        "pull to 2 hosts",
        "once for 2 hosts",
        "[x] alpha",
        "[x] beta",
    ]);
    screen.press("y");
    screen
}

#[test]
fn one_host_or_all_hosts_are_listed() {
    let world = World::hosts(2);
    let (alpha, beta) = (&world.hosts[0], &world.hosts[1]);
    alpha.snapshot("of-alpha", 1);
    beta.snapshot("of-beta", 1);
    let id = beta.sandbox("vm", "of-beta", State::Off);
    let mut screen = Screen::open(&world.command(&[]));
    let text = screen.wait(&["alpha ●", "beta ●", "of-alpha"]);
    assert!(!text.contains("of-beta"), "{text}");
    screen.press("]");
    screen.wait(&["· on beta", "of-beta", &id]);
    screen.press("]");
    let text = screen.wait(&["· all hosts", "of-beta", "of-alpha"]);
    for row in ["alpha of-alpha", "beta  of-beta"] {
        assert!(text.contains(row), "{text}");
    }

    // Actions on a row apply to its host.
    screen.press("pgolden\r");
    screen.wait(&["✓ push", "golden.qcow2", "golden "]);
    screen.press("\t/beta\r");
    screen.wait(&["Snapshots 1 of 2"]);
    screen.press("d");
    screen.wait(&["remove of-beta", "in use by"]);
}

#[test]
fn a_pull_to_several_hosts_shows_progress_for_each_host() {
    let world = World::hosts(2);
    let image = world.path("scratch/app.qcow2");
    world.image(&image, IMAGE);
    world.put(&image, "app");
    let holding_proxy = HoldingProxy::start(&world, HALF);
    let screen = fan_out(&world);
    screen.wait_for("progress of both hosts", |text| {
        let cells = cells(text, "app");
        cells.len() == 3 && cells[1..].iter().all(|cell| cell.ends_with(" %"))
    });
    holding_proxy.release();
    screen.wait_for("both hosts have it", |text| {
        let cells = cells(text, "app");
        cells.len() == 3 && cells[1..].iter().all(|cell| cell == "● present")
    });
    for host in &world.hosts {
        assert_eq!(sha256(&host.snapshot_path("app")), sha256(&image));
    }
    let (fetched, size) = (
        holding_proxy.faults.received.load(SeqCst),
        std::fs::metadata(&image).unwrap().len(),
    );
    assert!(
        fetched < size + size / 10,
        "fetched once: {fetched} of {size}"
    );
}

/// Begins a pull to both hosts by keys, and waits for its progress on both.
fn fan_out_to_progress(world: &World) -> Screen {
    let screen = fan_out(world);
    screen.wait_for("progress of both hosts", |text| {
        let cells = cells(text, "app");
        cells.len() == 3 && cells[1..].iter().all(|cell| cell.ends_with(" %"))
    });
    screen
}

#[test]
fn a_disconnected_host_shows_its_error_and_the_other_host_finishes() {
    let world = World::over_ssh(2);
    world.configure("reconnect_secs = 2");
    let (alpha, beta) = (&world.hosts[0], &world.hosts[1]);
    let image = world.path("scratch/app.qcow2");
    world.image(&image, IMAGE);
    world.put(&image, "app");
    let holding_proxy = HoldingProxy::start(&world, HALF);
    let mut screen = fan_out_to_progress(&world);
    beta.link().cut(Fault::Closed);
    screen.wait(&["beta ✗ unreachable, seen"]);
    holding_proxy.release();
    screen.wait_for("alpha has it, beta has its error", |text| {
        let cells = cells(text, "app");
        cells.get(1..) == Some(&["● present".to_owned(), "✗ unreachable".to_owned()])
    });
    assert_eq!(sha256(&alpha.snapshot_path("app")), sha256(&image));
    assert!(!exists(&beta.snapshot_path("app")));
    // The full error of the cell.
    screen.press("2\r");
    screen.wait(&["┌ app", "✗ pull app → beta"]);
    screen.press("\u{1b}");

    beta.link().heal();
    screen.press("r");
    screen.wait_for("beta answers", |text| text.contains("beta ●"));
    screen.press("f");
    screen.wait(&["pull to beta"]);
    screen.press("y");
    screen.wait_for("beta has it too", |text| {
        cells(text, "app")
            .get(2)
            .is_some_and(|cell| cell == "● present")
    });
    assert_eq!(sha256(&beta.snapshot_path("app")), sha256(&image));
}

#[test]
fn a_pull_to_a_disconnected_host_says_until_when_it_waits_and_resumes() {
    let world = World::over_ssh(2);
    world.configure("reconnect_secs = 120");
    let (alpha, beta) = (&world.hosts[0], &world.hosts[1]);
    let image = world.path("scratch/app.qcow2");
    world.image(&image, IMAGE);
    world.put(&image, "app");
    let holding_proxy = HoldingProxy::start(&world, HALF);
    let mut screen = fan_out_to_progress(&world);
    beta.link().cut(Fault::Closed);
    holding_proxy.release();
    screen.wait_for("alpha has it, beta waits", |text| {
        let cells = cells(text, "app");
        let waits = |cell: &String| cell.starts_with("◌ waits");
        cells.get(1).is_some_and(|cell| cell == "● present") && cells.get(2).is_some_and(waits)
    });
    screen.press("J");
    let text = screen.wait(&["waiting for host beta until"]);
    let line = text
        .lines()
        .find(|line| line.contains("waiting for host beta"));
    assert!(line.is_some_and(|line| !line.contains("/s")), "{text}");
    beta.link().heal();
    screen.press("m");
    screen.wait_for("beta has it too", |text| {
        cells(text, "app")
            .get(2)
            .is_some_and(|cell| cell == "● present")
    });
    for host in [alpha, beta] {
        assert_eq!(sha256(&host.snapshot_path("app")), sha256(&image));
    }
}
