//! Room on a host: how much there is, what takes it for nothing, and whether copies can do without.

use humansize::{BINARY, format_size};

use super::access::MAX_NAMED;
use super::probe::Probe;
use crate::quote;
use snapdeck_model::Check;
use snapdeck_model::settings::HostSettings;

/// Is there room for what an operation may write: a flattened image on its way to the bucket, and a snapshot?
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
    let places = [
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
            format!("snapdeck remove NAME --local --host {host} removes unneeded snapshots"),
        ),
    ];
    let checks = places.map(|(kind, what, dir, largest, else_do)| {
        let free = parse_free_bytes(probe.get(&format!("{kind}.free"))?)?;
        let seen = format!("{} free in {dir}", size(free));
        Some(match largest {
            Some((name, bytes)) if bytes > free => Check::warning(
                what,
                format!("{seen}; an image of {name} may take {}", size(bytes)),
                format!(
                    "free space there ({}), or {else_do}",
                    quote::quote_for_display(["df", "-h", dir])
                ),
            ),
            _ => Check::passed(what, seen),
        })
    });
    checks.into_iter().flatten().collect()
}

/// Bytes in what `stat -f` says: free blocks and their size.
fn parse_free_bytes(said: &str) -> Option<u64> {
    let (blocks, size) = said.split_once(' ')?;
    Some(
        blocks
            .parse::<u64>()
            .ok()?
            .saturating_mul(size.parse().ok()?),
    )
}

/// Can a file there be copied by reference?
pub(super) fn check_reflinks(probe: &Probe, settings: &HostSettings) -> Option<Check> {
    let (what, dir) = ("reflinks", &settings.snapshots_dir);
    Some(match probe.get("snapshots.reflink")? {
        "" => Check::passed(what, format!("{dir} supports reflinks")),
        words if words.contains("No space left") => return None,
        _ => Check::warning(
            what,
            format!("{dir} does not support reflinks: copies take time and space"),
            "put it on XFS (made with reflink=1) or Btrfs",
        ),
    })
}

/// What operations that were killed have left, a day ago or more.
pub(super) fn check_leftovers(probe: &Probe) -> Check {
    let what = "leftovers";
    let old: Vec<&str> = probe.get_all("old").collect();
    match old.len() {
        0 => Check::passed(what, "none older than a day"),
        count => Check::warning(
            what,
            format!("{count} older than a day, no longer in use: {}", old[0]),
            quote::quote_for_display(
                ["rm", "-rf", "--"]
                    .into_iter()
                    .chain(old.into_iter().take(MAX_NAMED)),
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;
    use snapdeck_model::Verdict;

    #[test]
    fn room_is_measured_by_the_largest_image() {
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
