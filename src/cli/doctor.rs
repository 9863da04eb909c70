//! `snapdeck doctor`.

use std::io::{IsTerminal, stdout};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use unicode_width::UnicodeWidthStr;

use super::exit;
use super::job::StopSignals;
use super::output::{CommandOutput, eprint_line};
use snapdeck_engine::{Engine, HealthCheckView, View};
use snapdeck_model::{Check, Error, HealthReport, HostName, Kind, Result, Verdict};

/// After so long whoever waits is told what is waited for.
const STILL_RUNNING_NOTICE: Duration = Duration::from_secs(3);
/// Columns before what was seen.
const DETAIL_INDENT: usize = 24;
/// What was seen is never broken to fewer columns.
const MIN_DETAIL_COLUMNS: usize = 30;

/// Examines hosts, and with `bucket` the bucket. Nothing failed: exit code 0; something was out of reach: that
/// code; else that of a failure.
pub(crate) async fn run(
    engine: &Engine,
    hosts: &[HostName],
    bucket: bool,
) -> Result<CommandOutput> {
    let mut stops = StopSignals::new()?;
    engine.run_health_checks(hosts, bucket)?;
    let mut watch = engine.watch();
    let asked = |view: &View| -> Vec<Arc<HealthCheckView>> {
        let is_asked = |patient: &&Arc<HealthCheckView>| match &patient.host {
            Some(host) => hosts.contains(host),
            None => bucket,
        };
        view.health_checks
            .iter()
            .filter(is_asked)
            .cloned()
            .collect()
    };
    let running = |view: &View| {
        let mut patients = asked(view);
        patients.retain(|patient| patient.is_running);
        patients
    };
    let mut told = false;
    loop {
        tokio::select! {
            over = watch.wait_for(|view| running(view).is_empty()) => {
                over.map_err(|_| Error::new(Kind::Failed, "the engine has ended"))?;
                break;
            }
            () = tokio::time::sleep(STILL_RUNNING_NOTICE), if !told => {
                told = true;
                let waiting = running(&engine.view());
                let names: Vec<&str> = waiting.iter().map(|patient| target_name(patient.host.as_ref())).collect();
                eprint_line(format_args!("still examining {}", names.join(", ")));
            }
            // What was begun cleans up when the engine ends, which is next.
            () = stops.recv() => return Err(Error::cancelled("the examination")),
        }
    }
    let patients = asked(&engine.view());
    let found: Vec<&HealthReport> = patients
        .iter()
        .filter_map(|patient| patient.report.as_deref())
        .collect();
    let columns = match stdout().is_terminal() {
        true => crossterm::terminal::size().map_or(80, |(columns, _)| columns.into()),
        false => usize::MAX,
    };
    build_output(engine, &found, columns)
}

fn build_output(engine: &Engine, found: &[&HealthReport], columns: usize) -> Result<CommandOutput> {
    let mut text = String::new();
    for examination in found {
        let view = engine.view();
        let place = match &examination.host {
            Some(host) => view
                .host(host)
                .map(|host| host.uri.clone())
                .unwrap_or_default(),
            None => view.bucket.location.clone(),
        };
        text += &format!("{}  {place}\n", target_name(examination.host.as_ref()));
        for check in &examination.checks {
            text += &format_check(check, columns);
        }
        text.push('\n');
    }
    text += &summarize(found);
    let verdict = worst_verdict(found);
    let answer = CommandOutput::new(&json!({ "verdict": verdict, "healthChecks": found }), text)?;
    let code = match verdict {
        Verdict::Failed if found.iter().any(|one| !one.reachable) => exit::code(Kind::Unreachable),
        Verdict::Failed => exit::code(Kind::Failed),
        Verdict::Passed | Verdict::Warning => 0,
    };
    Ok(CommandOutput { code, ..answer })
}

fn target_name(host: Option<&HostName>) -> &str {
    host.map_or("bucket", HostName::as_str)
}

fn worst_verdict(found: &[&HealthReport]) -> Verdict {
    let verdicts = found.iter().map(|one| one.verdict());
    verdicts.max().unwrap_or(Verdict::Passed)
}

/// `1 failed, 2 warnings, 30 passed`.
fn summarize(found: &[&HealthReport]) -> String {
    let count = |verdict| {
        let checks = found.iter().flat_map(|one| &one.checks);
        checks.filter(|check| check.verdict == verdict).count()
    };
    let warnings = match count(Verdict::Warning) {
        1 => "1 warning".to_owned(),
        many => format!("{many} warnings"),
    };
    let (failed, passed) = (count(Verdict::Failed), count(Verdict::Passed));
    format!("{failed} failed, {warnings}, {passed} passed\n")
}

/// A check: its sign, what was seen, and below it what to do, which is never broken: it is to be copied.
fn format_check(check: &Check, columns: usize) -> String {
    let sign = match check.verdict {
        Verdict::Passed => '✓',
        Verdict::Warning => '!',
        Verdict::Failed => '✗',
    };
    let mut text = format!("  {sign} {:<19} ", check.name);
    let room = columns
        .saturating_sub(DETAIL_INDENT)
        .max(MIN_DETAIL_COLUMNS);
    let mut used = 0;
    for word in check.finding.split_whitespace() {
        if used > 0 && used + 1 + word.width() > room {
            text.push('\n');
            text.push_str(&" ".repeat(DETAIL_INDENT));
            used = 0;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += word.width();
    }
    text.push('\n');
    if let Some(mend) = &check.fix {
        text += &format!("      → {mend}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_reads_in_a_narrow_terminal_and_its_command_stays_whole() {
        let mend = "chown libvirt-qemu:kvm /var/lib/libvirt/snapshots/myapp-v1.0.qcow2";
        let check = Check::warning(
            "owner and mode",
            "of 3: myapp-v1.0 (root:root 600), other (root:root 644)",
            mend,
        );
        assert_eq!(
            format_check(&check, 60),
            "  ! owner and mode      of 3: myapp-v1.0 (root:root 600),\n                        \
             other (root:root 644)\n      → chown libvirt-qemu:kvm \
             /var/lib/libvirt/snapshots/myapp-v1.0.qcow2\n"
        );
        assert_eq!(format_check(&check, usize::MAX).lines().count(), 2);
    }

    #[test]
    fn the_worst_counts() {
        let examination = |checks: &[Check]| HealthReport {
            host: None,
            reachable: true,
            checks: checks.to_vec(),
        };
        let good = examination(&[Check::passed("a", "b")]);
        let bad = examination(&[Check::failed("a", "b", "c"), Check::warning("a", "b", "c")]);
        assert_eq!(worst_verdict(&[&good, &bad]), Verdict::Failed);
        assert_eq!(worst_verdict(&[]), Verdict::Passed);
        assert_eq!(summarize(&[&good, &bad]), "1 failed, 1 warning, 1 passed\n");
    }
}
