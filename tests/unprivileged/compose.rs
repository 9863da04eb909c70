//! Images composed from chains, checked with `qemu-img`, `qemu-io` and another qcow2 library (imago).
//!
//! The default is a short run. For a long one, before a release:
//!
//! ```text
//! TMPDIR=/dev/shm SNAPDECK_COMPOSE_CASES=2000 cargo test --locked --test unprivileged random_chains -- --nocapture
//! SNAPDECK_FUZZ_SECONDS=600 cargo test --locked --test unprivileged damaged -- --nocapture
//! ```

mod cases;
mod check;
mod damaged;
mod driver;
mod large;
mod rules;

use std::cell::Cell;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};

/// Returns a number from the environment.
fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn a_small_image_is_flattened() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (raw, image) = (path("raw"), path("image"));
    let bytes: Vec<u8> = (0..540_672_u32)
        .map(|at| (at / 7).wrapping_mul(at) as u8)
        .collect();
    std::fs::write(&raw, &bytes).unwrap();
    for options in [
        "compat=1.1",
        "compat=0.10",
        "cluster_size=4k",
        "preallocation=full",
    ] {
        check::run(
            "qemu-img",
            &[
                "convert", "-f", "raw", "-O", "qcow2", "-o", options, &raw, &image,
            ],
        );
        let file = std::fs::read(&image).unwrap();
        assert_eq!(
            snapdeck_qcow2::flatten(&file, 1 << 20).unwrap(),
            bytes,
            "{options}"
        );
        assert!(snapdeck_qcow2::flatten(&file, 1 << 10).is_err());
        assert!(snapdeck_qcow2::flatten(&file[..file.len() / 2], 1 << 20).is_err());
    }
    let overlay = path("overlay");
    check::run(
        "qemu-img",
        &[
            "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &image, &overlay,
        ],
    );
    assert!(snapdeck_qcow2::flatten(&std::fs::read(&overlay).unwrap(), 1 << 20).is_err());
}

#[test]
fn random_chains_equal_the_output_of_qemu_img_convert() {
    run_cases(100, cases::case(), check::try_case);
}

#[test]
fn random_changes_are_composed_on_the_previous_image() {
    run_cases(60, cases::rounds_case(), check::try_rounds);
}

/// Runs `default` random cases, or `SNAPDECK_COMPOSE_CASES`. `check` returns `false` for one that it skips.
fn run_cases<S: Strategy>(default: u64, cases: S, check: fn(&S::Value) -> bool) {
    let count = setting("SNAPDECK_COMPOSE_CASES", default);
    let config = Config {
        cases: count.try_into().unwrap(),
        // The failing chain is printed instead.
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    };
    let (passed, skipped) = (Cell::new(0u64), Cell::new(0u64));
    let result = TestRunner::new(config).run(&cases, |case| {
        let counter = if check(&case) { &passed } else { &skipped };
        counter.set(counter.get() + 1);
        if passed.get().is_multiple_of(100) {
            eprintln!("{} cases passed", passed.get());
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (passed, skipped) = (passed.get(), skipped.get());
    eprintln!("{passed} random cases passed, {skipped} skipped as damaged by QEMU");
    assert!(skipped <= count / 10);
}
