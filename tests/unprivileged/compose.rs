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

use proptest::test_runner::{Config, TestRunner};

/// Returns a number from the environment.
fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn random_chains_equal_the_output_of_qemu_img_convert() {
    let cases = setting("SNAPDECK_COMPOSE_CASES", 100);
    let config = Config {
        cases: cases.try_into().unwrap(),
        // The failing chain is printed instead.
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    };
    let (passed, skipped) = (Cell::new(0u64), Cell::new(0u64));
    let result = TestRunner::new(config).run(&cases::case(), |case| {
        let count = if check::try_case(&case) {
            &passed
        } else {
            &skipped
        };
        count.set(count.get() + 1);
        if passed.get().is_multiple_of(100) {
            eprintln!("{} chains passed", passed.get());
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (passed, skipped) = (passed.get(), skipped.get());
    eprintln!("{passed} random chains passed, {skipped} skipped as damaged by QEMU");
    assert!(skipped <= cases / 10);
}
