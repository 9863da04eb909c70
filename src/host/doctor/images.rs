//! Checks of snapshots and of the backing chains of sandboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::access::ownership_fix;
use crate::command::CommandRunner;
use crate::inventory::scan::HostInventory;
use crate::quote::quote_words;
use crate::supervisor::Limits;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{ChainLink, Check, Sandbox, SandboxState, Snapshot};

/// For `qemu-img check` of all snapshots.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
const LIMITS: Limits<'_> = Limits {
    cpu_time: Duration::from_secs(10),
    images: None,
};
/// Checks each file with its own timeout, so that one that hangs hides no other; in the foreground, so that all of them
/// are in the group of the script, which is killed as a whole. Prints exit status (124 after a
/// timeout), index and last line of output.
const SCRIPT: &str = concat!(
    include_str!("../least_rights.sh"),
    r#"
owner=$1 index=0
shift
for file do
  output=$(choose_reader "$owner" '' 1 "$file" && timeout --foreground 10 $reader qemu-img check -q -f qcow2 -- "$file" 2>&1)
  printf '%s %s %s\n' "$?" "$index" "$(printf %s "$output" | tail -n 1)"
  index=$((index + 1))
done
"#
);
/// Snapshots that are checked, in one command.
const MAX_CHECKED: usize = 300;

/// Results of `qemu-img check`.
#[derive(Debug, Default)]
pub(super) struct ImageCheckResults {
    /// Paths, and qemu-img's messages.
    damaged_images: BTreeMap<String, String>,
    sound_count: usize,
}

/// Checks the snapshots that have no other problem, as many as are finished before the timeout.
pub(super) async fn check_images(
    runner: &CommandRunner,
    owner: &str,
    inventory: &HostInventory,
) -> ImageCheckResults {
    let paths: Vec<&str> = inventory
        .snapshots
        .iter()
        .filter(|snapshot| snapshot.problem.is_none() && snapshot.facts.is_some())
        .map(|snapshot| &*snapshot.path)
        .take(MAX_CHECKED)
        .collect();
    if paths.is_empty() {
        return ImageCheckResults::default();
    }
    let argv: Vec<&str> = ["sh", "-c", SCRIPT, "snapdeck", owner]
        .into_iter()
        .chain(paths.iter().copied())
        .collect();
    match runner
        .run_limited(&argv, LIMITS, CHECK_TIMEOUT, &CancellationToken::new())
        .await
    {
        Ok(output) => parse_check_output(&output.stdout, &paths),
        // Other checks report a missing qemu-img or a lost host.
        Err(error) => {
            tracing::debug!("{error}");
            ImageCheckResults::default()
        }
    }
}

fn parse_check_output(output: &str, paths: &[&str]) -> ImageCheckResults {
    let mut results = ImageCheckResults::default();
    for line in output.lines() {
        let mut parts = line.splitn(3, ' ');
        let number = |text: Option<&str>| text?.parse::<usize>().ok();
        let (status, index) = (number(parts.next()), number(parts.next()));
        let path = index.and_then(|index| paths.get(index));
        let message = parts.next().unwrap_or_default();
        match (status, path) {
            // Status 3: leaked clusters, which only waste space (QEMU, docs/tools/qemu-img, "check").
            (Some(0 | 3), Some(_)) => results.sound_count += 1,
            (Some(2), Some(&path)) => {
                let damaged = &mut results.damaged_images;
                damaged.insert(path.to_owned(), message.to_owned());
            }
            // The check itself failed.
            _ => {}
        }
    }
    results
}

/// Returns a failed check for each snapshot with a problem, or one that passed.
pub(super) fn check_snapshots(
    inventory: &HostInventory,
    results: &ImageCheckResults,
    settings: &HostSettings,
) -> Vec<Check> {
    let failed: Vec<Check> = inventory
        .snapshots
        .iter()
        .filter_map(|snapshot| {
            let damage = results.damaged_images.get(&snapshot.path);
            let problem = match (&snapshot.problem, damage) {
                (Some(problem), _) => problem.clone(),
                (None, Some(message)) => format!("qemu-img check failed: {message}"),
                (None, None) => return None,
            };
            Some(report_problem(snapshot, &problem, settings))
        })
        .collect();
    if !failed.is_empty() {
        return failed;
    }
    let (all, checked) = (inventory.snapshots.len(), results.sound_count);
    vec![Check::passed(
        "snapshots",
        match (all, checked) {
            (0, _) => format!("none in {}", settings.snapshots_dir),
            (all, checked) if all == checked => format!("{all} found, all pass qemu-img check"),
            (all, checked) => {
                format!("{all} found, headers are valid; {checked} of them pass qemu-img check")
            }
        },
    )]
}

fn report_problem(snapshot: &Snapshot, problem: &str, settings: &HostSettings) -> Check {
    let (name, path, host) = (&snapshot.name, &snapshot.path, &settings.name);
    let has_backing_file = snapshot
        .facts
        .as_ref()
        .is_some_and(|facts| !facts.is_standalone());
    let fix = if has_backing_file {
        // Converting it would read whatever file its header names.
        let info = quote_words(["qemu-img", "info", "-f", "qcow2", "--", path]);
        format!(
            "look at the files it needs with `{info}`; run `snapdeck pull {name} --host {host}`, or remove it"
        )
    } else if problem.contains("ermission denied") {
        ownership_fix(settings, &[path, "-maxdepth", "0"])
    } else {
        format!(
            "run `snapdeck pull {name} --host {host}` to download it again; if it is not in the bucket, run \
             `snapdeck remove {name} --local --host {host}`"
        )
    };
    let used_by = match snapshot.dependents.as_slice() {
        [] => String::new(),
        dependents => format!(" (used by {})", dependents.join(", ")),
    };
    Check::failed("snapshots", format!("{path}: {problem}{used_by}"), fix)
}

/// Checks that the backing files of sandboxes exist and no image is marked corrupt, and names those that push refuses
/// because they run.
pub(super) fn check_sandboxes(inventory: &HostInventory, settings: &HostSettings) -> Vec<Check> {
    let (what, host) = ("sandboxes", &settings.name);
    let check_chain = |sandbox: &Sandbox| {
        let missing = sandbox
            .chain
            .iter()
            .find(|link| link.size_bytes.is_none())
            // A URL is not checked.
            .filter(|link| link.path.starts_with('/'))?;
        let fix = match &missing.snapshot {
            Some(name) => format!("snapdeck pull {name} --host {host}"),
            None => format!(
                "restore it: `{}`",
                quote_words(["ls", "-la", &missing.path])
            ),
        };
        Some(Check::failed(
            what,
            format!(
                "{} is based on {}, which does not exist",
                sandbox.id, missing.path
            ),
            fix,
        ))
    };
    let mut checks: Vec<Check> = inventory.sandboxes.iter().filter_map(check_chain).collect();
    // Snapshots have a check of their own.
    let corrupt = |link: &&ChainLink| {
        link.snapshot.is_none() && link.facts.as_ref().is_some_and(|facts| facts.corrupt)
    };
    checks.extend(inventory.sandboxes.iter().filter_map(|sandbox| {
        let link = sandbox.chain.iter().find(corrupt)?;
        Some(Check::failed(
            what,
            format!("{}: {} is marked corrupt", sandbox.id, link.path),
            format!(
                "copy it, then `{}`",
                quote_words(["qemu-img", "check", "-r", "all", &link.path])
            ),
        ))
    }));
    checks.extend(inventory.unresolved_chains.iter().map(|chain| {
        Check::warning(
            what,
            format!("cannot determine the base of {chain}"),
            "inspect it: `qemu-img info DISK`",
        )
    }));
    checks.extend(inventory.endless_chains.iter().map(|chain| {
        Check::failed(
            what,
            format!("a disk cannot be opened: {chain}"),
            format!("restore it, or remove it with `snapdeck sandbox destroy ID --host {host}`"),
        )
    }));
    let running: Vec<&str> = inventory
        .sandboxes
        .iter()
        .filter(|sandbox| !sandbox.state.is_quiescent() && sandbox.state != SandboxState::Crashed)
        .map(|sandbox| sandbox.id.as_str())
        .collect();
    let all = inventory.sandboxes.len();
    checks.push(match running.first() {
        None if all == 0 => Check::passed(what, format!("none in {}", settings.sandboxes_dir)),
        None => Check::passed(what, format!("{all} found, none is running")),
        Some(first) => Check {
            // Not a problem; the alternative for an operator whose push was refused.
            fix: Some(format!(
                "use `snapdeck create {first} NAME --host {host}` for a running sandbox; push needs it stopped or paused"
            )),
            ..Check::passed(
                what,
                format!(
                    "{all} found, {} running: {}",
                    running.len(),
                    running.join(", ")
                ),
            )
        },
    });
    checks
}

/// Returns the sandbox with the largest flattened image, and its bytes: at most the disk's size, and the sum of the
/// images of its chain.
pub(super) fn largest_flat(inventory: &HostInventory) -> Option<(&str, u64)> {
    let flat_bytes = |sandbox: &Sandbox| {
        let chain_bytes = sandbox
            .chain
            .iter()
            .filter_map(|link| link.size_bytes)
            .sum();
        let facts = sandbox.chain.first().and_then(|link| link.facts.as_ref());
        facts.map_or(chain_bytes, |facts| facts.virtual_size.min(chain_bytes))
    };
    inventory
        .sandboxes
        .iter()
        .map(|sandbox| (sandbox.id.as_str(), flat_bytes(sandbox)))
        .max_by_key(|(_, bytes)| *bytes)
}

/// Returns the largest snapshot and its bytes.
pub(super) fn largest_snapshot(inventory: &HostInventory) -> Option<(&str, u64)> {
    inventory
        .snapshots
        .iter()
        .map(|snapshot| (snapshot.name.as_str(), snapshot.allocated_bytes))
        .max_by_key(|(_, bytes)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_result_of_each_image() {
        let output = "0 0 \n2 1 3 errors were found on the image.\n3 2 \n1 3 qemu-img: Could not open\n124 4 \n";
        let results = parse_check_output(output, &["/a", "/b", "/c", "/d", "/e"]);
        assert_eq!(results.sound_count, 2);
        assert_eq!(
            results.damaged_images.into_iter().collect::<Vec<_>>(),
            [(
                "/b".to_owned(),
                "3 errors were found on the image.".to_owned()
            )]
        );
    }

    #[test]
    fn fuzz_check_output() {
        snapdeck_fuzz::FuzzTarget::new("output of the image checks")
            .seed("0 0\n2 1 1 errors were found on the image.\n3 0 leaked\n1 1 x\n")
            .memory(1 << 20, 64)
            .run(|output| {
                parse_check_output(&snapdeck_fuzz::text(output), &["/a", "/b"]);
            });
    }
}
