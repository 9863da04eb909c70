//! Taken up after anything: at most what was on its way is fetched again.

use std::sync::atomic::Ordering::SeqCst;

use super::{BLOCK, Lab, MIB, bytes, family, new_bytes};
use crate::common::{signal, wait_for_exit, wait_until};

/// MiB in the object: with its tables 20 blocks.
const IMAGE: u32 = 152;

#[test]
fn killed_at_nine_tenths_a_tenth_is_fetched_again() {
    let (lab, image) = Lab::with_object(IMAGE);
    let size = std::fs::metadata(&image).unwrap().len();
    assert_eq!(size.div_ceil(BLOCK), 20);
    for name in ["KILL", "INT"] {
        let child = lab.start_held(18 * BLOCK);
        signal(&child, name);
        let ran = wait_for_exit(child);
        lab.release();
        lab.received();
        if name == "INT" {
            assert!(ran.stderr.contains("for the next pull"), "{ran:?}");
            ran.failed(130, &["was cancelled"]);
        }
        let told = lab.snapdeck(&["pull", "app", "--json"]).ok().json();
        assert_eq!(bytes(&told, "resumedBytes"), 18 * BLOCK);
        assert_eq!(bytes(&told, "fetchedBytes"), size - 18 * BLOCK);
        lab.assert_pulled(&lab, "app", &image);
        let received = lab.received();
        assert!(received <= size * 12 / 100, "{received} of {size}");
        std::fs::remove_file(lab.snapshot_path("app")).unwrap();
    }
}

#[test]
fn what_was_copied_from_other_snapshots_is_there_after_a_kill_too() {
    let lab = Lab::new(1);
    let (parent, child) = family(&lab);
    let (size, new) = (
        std::fs::metadata(&child).unwrap().len(),
        new_bytes(&parent, &child),
    );
    lab.snapdeck(&["pull", "base"]).ok();
    lab.line.hold_from.store(1, SeqCst);
    let pull = lab.start(&["pull", "app"]);
    // All that is not new, and the first block, which is.
    wait_until("what can be copied is noted", || {
        lab.logged_bytes() >= size - new
    });
    signal(&pull, "KILL");
    wait_for_exit(pull);
    lab.release();
    // The next one need not read them again.
    std::fs::remove_file(lab.snapshot_path("base")).unwrap();
    lab.received();
    let told = lab.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert_eq!(bytes(&told, "copiedBytes"), 0);
    assert!(bytes(&told, "resumedBytes") >= size - new, "{told}");
    lab.assert_pulled(&lab, "app", &child);
    assert!(lab.received() < new + MIB);
}

#[test]
fn a_disk_that_fills_up_on_the_way_is_told_and_what_is_there_is_used_later() {
    let (lab, image) = Lab::with_object(40);
    let size = std::fs::metadata(&image).unwrap().len();
    let Some(disk) = lab.small_disk("snapshots", "44m") else {
        return;
    };
    let child = lab.start_held(3 * BLOCK);
    let filler = lab.path("snapshots/filler");
    // It ends where the disk does.
    disk.run_on_host(&[
        "dd",
        "if=/dev/zero",
        &format!("of={filler}"),
        "bs=1M",
        "status=none",
    ]);
    lab.release();
    let ran = wait_for_exit(child);
    assert_eq!(ran.error_kind(), "noSpace");
    assert!(ran.stderr.contains("for the next pull"), "{ran:?}");
    ran.failed(1, &["No space left", "free space there"]);
    let listed = lab.snapdeck(&["snapshots", "--json"]).ok().json();
    assert_eq!(listed, serde_json::json!([]));
    // As long as it is full nothing is lost.
    let ran = lab.snapdeck(&["pull", "app"]);
    assert!(ran.stderr.contains("for the next pull"), "{ran:?}");
    ran.failed(1, &["cannot pull app", "has 0 B free"]);

    disk.run_on_host(&["rm", &filler]);
    lab.received();
    let told = lab.snapdeck(&["pull", "app", "--json"]).ok().json();
    assert!(bytes(&told, "resumedBytes") >= 3 * BLOCK, "{told}");
    assert!(lab.received() < size - 3 * BLOCK + MIB);
}
