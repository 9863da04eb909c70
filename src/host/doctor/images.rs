//! The images of a host: snapshots that are fit for their purpose, sandboxes that have what they stand on.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::command::CommandRunner;
use crate::inventory::scan::HostInventory;
use crate::quote;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Check, Sandbox, SandboxState, Snapshot};

/// For `qemu-img check` of all snapshots, which reads their tables.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// Checks each file for its own time at most, so that one that hangs hides no other: its exit code and number, the
/// first as of `timeout` where the time was up.
const SCRIPT: &str = r#"
number=0
for file do
  said=$(timeout 10 qemu-img check -q -f qcow2 -- "$file" 2>&1)
  printf '%s %s %s\n' "$?" "$number" "$(printf %s "$said" | tail -n 1)"
  number=$((number + 1))
done
"#;
/// Snapshots that are checked; so many paths go into one command.
const MAX_CHECKED: usize = 300;

/// What `qemu-img check` found in the snapshots that may be opened: those that name no other file.
#[derive(Debug, Default)]
pub(super) struct ImageCheckResults {
    /// Paths of damaged ones, and what qemu-img said.
    damaged_images: BTreeMap<String, String>,
    sound_count: usize,
}

/// Checks them, as many as there is time for.
pub(super) async fn check_images(
    place: &CommandRunner,
    survey: &HostInventory,
) -> ImageCheckResults {
    let paths: Vec<&str> = survey
        .snapshots
        .iter()
        .filter(|snapshot| snapshot.problem.is_none() && snapshot.facts.is_some())
        .map(|snapshot| &*snapshot.path)
        .take(MAX_CHECKED)
        .collect();
    if paths.is_empty() {
        return ImageCheckResults::default();
    }
    let argv: Vec<&str> = ["sh", "-c", SCRIPT, "snapdeck"]
        .into_iter()
        .chain(paths.iter().copied())
        .collect();
    match place
        .run(&argv, CHECK_TIMEOUT, &CancellationToken::new())
        .await
    {
        Ok(said) => parse_check_output(&said.stdout, &paths),
        // What is wrong with qemu-img or the host is told by another check.
        Err(error) => {
            tracing::debug!("{error}");
            ImageCheckResults::default()
        }
    }
}

fn parse_check_output(said: &str, paths: &[&str]) -> ImageCheckResults {
    let mut verified = ImageCheckResults::default();
    for line in said.lines() {
        let mut parts = line.splitn(3, ' ');
        let number = |text: Option<&str>| text?.parse::<usize>().ok();
        let (code, at) = (number(parts.next()), number(parts.next()));
        let path = at.and_then(|at| paths.get(at).copied());
        let words = parts.next().unwrap_or_default();
        match (code, path) {
            // Leaked clusters, 3, waste space only (QEMU, docs/tools/qemu-img, "check").
            (Some(0 | 3), Some(_)) => verified.sound_count += 1,
            (Some(2), Some(path)) => {
                verified
                    .damaged_images
                    .insert(path.to_owned(), words.to_owned());
            }
            // It could not be found out.
            _ => {}
        }
    }
    verified
}

/// The snapshots, a check for each that is not fit to be one.
pub(super) fn check_snapshots(
    survey: &HostInventory,
    verified: &ImageCheckResults,
    settings: &HostSettings,
) -> Vec<Check> {
    let what = "snapshots";
    let bad: Vec<Check> = survey
        .snapshots
        .iter()
        .filter_map(|snapshot| {
            let broken = verified.damaged_images.get(&snapshot.path);
            let why = match (&snapshot.problem, broken) {
                (Some(problem), _) => problem.clone(),
                (None, Some(words)) => format!("qemu-img check failed: {words}"),
                (None, None) => return None,
            };
            Some(report_unfit(snapshot, &why, settings))
        })
        .collect();
    if !bad.is_empty() {
        return bad;
    }
    let (all, checked) = (survey.snapshots.len(), verified.sound_count);
    vec![Check::passed(
        what,
        match (all, checked) {
            (0, _) => format!("none in {}", settings.snapshots_dir),
            (all, checked) if all == checked => format!("{all}, all pass qemu-img check"),
            (all, checked) => {
                format!("{all}, headers are valid; {checked} of them pass qemu-img check")
            }
        },
    )]
}

fn report_unfit(snapshot: &Snapshot, why: &str, settings: &HostSettings) -> Check {
    let (name, path, host) = (&snapshot.name, &snapshot.path, &settings.name);
    let names_others = snapshot
        .facts
        .as_ref()
        .is_some_and(|facts| !facts.is_standalone());
    let mend = if names_others {
        let flat = format!("{}/{name}-flat.qcow2", settings.snapshots_dir);
        quote::quote_for_display(["qemu-img", "convert", "-O", "qcow2", path, &flat])
    } else if why.contains("ermission denied") {
        let path = quote::quote_for_display([&**path]);
        format!("chown {} {path}; chmod 644 {path}", settings.owner)
    } else {
        format!(
            "snapdeck pull {name} --host {host} downloads it again; if it is not in the bucket: snapdeck remove {name} \
             --local --host {host}"
        )
    };
    let used = match snapshot.dependents.as_slice() {
        [] => String::new(),
        users => format!(" (used by {})", users.join(", ")),
    };
    Check::failed("snapshots", format!("{path}: {why}{used}"), mend)
}

/// The sandboxes: do they have the files they stand on, and which run, so that a push refuses them?
pub(super) fn check_sandboxes(survey: &HostInventory, settings: &HostSettings) -> Vec<Check> {
    let (what, host) = ("sandboxes", &settings.name);
    let torn = |sandbox: &Sandbox| {
        let lost = sandbox
            .chain
            .iter()
            .find(|link| link.size_bytes.is_none())?;
        // One on a server was not looked for.
        let lost = Some(lost).filter(|link| link.path.starts_with('/'))?;
        let mend = match &lost.snapshot {
            Some(name) => format!("snapdeck pull {name} --host {host}"),
            None => format!(
                "bring it back: {}",
                quote::quote_for_display(["ls", "-la", &lost.path])
            ),
        };
        Some(Check::failed(
            what,
            format!(
                "{} is based on {}, which does not exist",
                sandbox.id, lost.path
            ),
            mend,
        ))
    };
    let mut checks: Vec<Check> = survey.sandboxes.iter().filter_map(torn).collect();
    checks.extend(survey.unresolved_chains.iter().map(|chain| {
        Check::warning(
            what,
            format!("cannot determine the base of {chain}"),
            "inspect it: qemu-img info --backing-chain DISK",
        )
    }));
    let running: Vec<&str> = survey
        .sandboxes
        .iter()
        .filter(|sandbox| !sandbox.state.is_quiescent() && sandbox.state != SandboxState::Crashed)
        .map(|sandbox| sandbox.id.as_str())
        .collect();
    let all = survey.sandboxes.len();
    checks.push(match running.first() {
        None if all == 0 => Check::passed(what, format!("none in {}", settings.sandboxes_dir)),
        None => Check::passed(what, format!("{all}, none runs")),
        Some(first) => Check {
            // No fault of theirs, but the answer to "sandbox must be stopped or paused".
            fix: Some(format!(
                "snapdeck create {first} NAME --host {host} works on a running sandbox"
            )),
            ..Check::passed(
                what,
                format!(
                    "{all}, {} running, which push refuses: {}",
                    running.len(),
                    running.join(", ")
                ),
            )
        },
    });
    checks
}

/// The sandbox whose flattened image may be the largest, and its bytes: never more than all images of its chain
/// hold, nor than the disk.
pub(super) fn largest_flat(survey: &HostInventory) -> Option<(&str, u64)> {
    let flat = |sandbox: &Sandbox| {
        let held = sandbox
            .chain
            .iter()
            .filter_map(|link| link.size_bytes)
            .sum();
        let facts = sandbox.chain.first().and_then(|link| link.facts.as_ref());
        facts.map_or(held, |facts| facts.virtual_size.min(held))
    };
    survey
        .sandboxes
        .iter()
        .map(|sandbox| (sandbox.id.as_str(), flat(sandbox)))
        .max_by_key(|(_, bytes)| *bytes)
}

/// The largest snapshot, and its bytes.
pub(super) fn largest_snapshot(survey: &HostInventory) -> Option<(&str, u64)> {
    survey
        .snapshots
        .iter()
        .map(|snapshot| (snapshot.name.as_str(), snapshot.allocated_bytes))
        .max_by_key(|(_, bytes)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_qemu_img_found_in_each() {
        let said = "0 0 \n2 1 3 errors were found on the image.\n3 2 \n1 3 qemu-img: Could not open\n124 4 \n";
        let verified = parse_check_output(said, &["/a", "/b", "/c", "/d", "/e"]);
        assert_eq!(verified.sound_count, 2);
        assert_eq!(
            verified.damaged_images.into_iter().collect::<Vec<_>>(),
            [(
                "/b".to_owned(),
                "3 errors were found on the image.".to_owned()
            )]
        );
    }
}
