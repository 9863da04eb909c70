//! A job that waits for a host that does not answer is cancelled at once: it has changed nothing yet.

use std::path::Path;
use std::time::Duration;

use crate::common::{State, World, exists, signal, wait_for_exit_within, wait_until};

/// Some seconds for a slow machine: the host answers after a minute.
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn jobs_are_cancelled_while_they_wait_for_a_host() {
    let world = World::over_ssh(1);
    let base = world.snapshot("base", 1);
    world.put(&base, "app");
    let id = world.sandbox("a", "base", State::Off);
    let reached = world.path("scratch/reached");
    world.fake("realpath", &format!("touch '{reached}'; exec sleep 60"));
    for args in [
        &["remove", "base", "--local"][..],
        &["pull", "app"],
        &["sandbox", "new", "b", "base"],
        &["sandbox", "destroy", &id, "--yes"],
        &["push", &id, "new"],
    ] {
        let child = world.start(args);
        wait_until("the host is asked", || Path::new(&reached).exists());
        signal(&child, "INT");
        let ran = wait_for_exit_within(child, DEADLINE);
        assert_eq!(ran.code, Some(130), "{args:?}: {ran:?}");
        std::fs::remove_file(&reached).unwrap();
    }
    assert!(exists(&base));
    assert_eq!(world.state(&id), "shut off");
}
