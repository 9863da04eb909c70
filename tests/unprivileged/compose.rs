//! Images composed from chains, judged by `qemu-img`, `qemu-io` and a second reader of the format. It needs no lab.
//!
//! A short run by default. The long one, as before a release:
//!
//! ```text
//! TMPDIR=/dev/shm SNAPDECK_COMPOSE_CASES=2000 cargo test --locked --test compose random_chains -- --nocapture
//! SNAPDECK_FUZZ_SECONDS=600 cargo test --locked --test compose damaged -- --nocapture
//! ```

mod cases;
mod damaged;
mod driver;
mod judge;
mod large;
mod rules;

use std::cell::Cell;

use proptest::test_runner::{Config, TestRunner};

/// A number from the environment.
fn setting(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn random_chains_come_out_as_qemu_converts_them() {
    let cases = setting("SNAPDECK_COMPOSE_CASES", 100);
    let config = Config {
        cases: cases.try_into().unwrap(),
        // The chain that failed is printed, whole.
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    };
    let (held, left_out) = (Cell::new(0u64), Cell::new(0u64));
    let result = TestRunner::new(config).run(&cases::case(), |case| {
        let count = if judge::try_case(&case) {
            &held
        } else {
            &left_out
        };
        count.set(count.get() + 1);
        if held.get().is_multiple_of(100) {
            eprintln!("{} chains hold", held.get());
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let (held, left_out) = (held.get(), left_out.get());
    eprintln!("{held} random chains hold, {left_out} were damaged by QEMU");
    assert!(left_out <= cases / 10);
}
