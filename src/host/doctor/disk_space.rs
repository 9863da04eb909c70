//! Checks of disk space, reflinks and leftovers.

use humansize::{BINARY, format_size};

use super::probe::Probe;
use crate::quote::quote_words;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Check, Leftover};

/// Checks that there is space for the largest file an operation may write: a flattened image, a snapshot.
pub(super) fn check_space(
    probe: &Probe,
    settings: &HostSettings,
    largest_flat: Option<(&str, u64)>,
    largest_snapshot: Option<(&str, u64)>,
) -> Vec<Check> {
    let larger = match (largest_flat, largest_snapshot) {
        (Some(flat), Some(snapshot)) if snapshot.1 > flat.1 => Some(snapshot),
        (None, snapshot) => snapshot,
        (flat, _) => flat,
    };
    let (host, size) = (&settings.name, |bytes| format_size(bytes, BINARY));
    let dirs = [
        (
            "temp",
            "temporary space",
            &settings.temp_dir,
            largest_flat,
            format!("set temp_dir of host {host} to a larger disk"),
        ),
        (
            "snapshots",
            "snapshots space",
            &settings.snapshots_dir,
            larger,
            format!("remove unneeded snapshots: `snapdeck remove NAME --local --host {host}`"),
        ),
    ];
    let checks = dirs.map(|(kind, check_name, dir, largest, alternative)| {
        let free = parse_free_bytes(probe.get(&format!("{kind}.free"))?)?;
        let finding = format!("{} free in {dir}", size(free));
        Some(match largest {
            Some((name, bytes)) if bytes > free => Check::warning(
                check_name,
                format!("{finding}; an image of {name} may take {}", size(bytes)),
                format!(
                    "free space on its file system (`{}`), or {alternative}",
                    quote_words(["df", "-h", dir])
                ),
            ),
            _ => Check::passed(check_name, finding),
        })
    });
    checks.into_iter().flatten().collect()
}

/// Parses `BLOCKS BLOCK_SIZE` of `stat -f`.
fn parse_free_bytes(text: &str) -> Option<u64> {
    let (blocks, size) = text.split_once(' ')?;
    let blocks: u64 = blocks.parse().ok()?;
    Some(blocks.saturating_mul(size.parse().ok()?))
}

pub(super) fn check_reflinks(probe: &Probe, settings: &HostSettings) -> Option<Check> {
    let (check_name, dir) = ("reflinks", &settings.snapshots_dir);
    Some(match probe.get("snapshots.reflink")? {
        "" => Check::passed(check_name, format!("{dir} supports reflinks")),
        message if message.contains("No space left") => return None,
        _ => Check::warning(
            check_name,
            format!("{dir} does not support reflinks: copies take time and space"),
            "put it on XFS (created with reflink=1) or Btrfs",
        ),
    })
}

/// Checks for leftovers of interrupted jobs, older than a day.
pub(super) fn check_leftovers(leftovers: &[Leftover], settings: &HostSettings) -> Check {
    let check_name = "leftovers";
    let Some(first) = leftovers.first() else {
        return Check::passed(check_name, "none older than a day");
    };
    let host = &settings.name;
    let foreign = match leftovers.iter().all(|leftover| leftover.is_own) {
        true => "",
        false => " --foreign",
    };
    Check::warning(
        check_name,
        format!(
            "{} older than a day, no longer in use: {}",
            leftovers.len(),
            first.path
        ),
        format!("snapdeck prune --leftovers{foreign} --host {host}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;
    use snapdeck_model::Verdict;

    #[test]
    fn space_for_the_largest_image_is_required() {
        let probe = Probe::from_pairs(&[("temp.free", "10 4096"), ("snapshots.free", "30 4096")]);
        let verdicts = |flat, snapshot| {
            let checks = check_space(&probe, &settings(), flat, snapshot);
            checks.iter().map(|check| check.verdict).collect::<Vec<_>>()
        };
        use Verdict::{Passed, Warning};
        assert_eq!(verdicts(None, None), [Passed, Passed]);
        assert_eq!(verdicts(Some(("a", 40_961)), None), [Warning, Passed]);
        assert_eq!(
            verdicts(Some(("a", 1)), Some(("b", 200_000))),
            [Passed, Warning]
        );
        assert_eq!(
            verdicts(Some(("a", 200_000)), Some(("b", 1))),
            [Warning, Warning]
        );
    }
}
