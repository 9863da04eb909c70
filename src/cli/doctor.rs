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

/// Delay before the running checks are listed.
const STILL_RUNNING_NOTICE: Duration = Duration::from_secs(3);
const DETAIL_INDENT: usize = 24;
const MIN_DETAIL_COLUMNS: usize = 30;

/// Checks hosts, and with `bucket` the bucket. The exit code is 0 without failed checks, that of `Unreachable` if a host or
/// the bucket is unreachable, else that of `Failed`.
pub(crate) async fn run(
    engine: &Engine,
    hosts: &[HostName],
    bucket: bool,
) -> Result<CommandOutput> {
    let mut stops = StopSignals::new()?;
    engine.run_health_checks(hosts, bucket)?;
    let mut watch = engine.watch();
    let requested = |view: &View| -> Vec<Arc<HealthCheckView>> {
        let is_requested = |check: &&Arc<HealthCheckView>| match &check.host {
            Some(host) => hosts.contains(host),
            None => bucket,
        };
        view.health_checks
            .iter()
            .filter(is_requested)
            .cloned()
            .collect()
    };
    let running = |view: &View| {
        let mut checks = requested(view);
        checks.retain(|check| check.is_running);
        checks
    };
    let mut is_notified = false;
    loop {
        tokio::select! {
            result = watch.wait_for(|view| running(view).is_empty()) => {
                result.map_err(|_| Error::new(Kind::Failed, "the engine has ended"))?;
                break;
            }
            () = tokio::time::sleep(STILL_RUNNING_NOTICE), if !is_notified => {
                is_notified = true;
                let running = running(&engine.view());
                let names: Vec<&str> = running.iter().map(|check| target_name(check.host.as_ref())).collect();
                eprint_line(format_args!("still checking {}", names.join(", ")));
            }
            // The checks clean up during the shutdown of the engine, which is next.
            _ = stops.recv() => return Err(Error::cancelled("the health check")),
        }
    }
    let checks = requested(&engine.view());
    let reports: Vec<&HealthReport> = checks
        .iter()
        .filter_map(|check| check.report.as_deref())
        .collect();
    let columns = match stdout().is_terminal() {
        true => crossterm::terminal::size().map_or(80, |(columns, _)| columns.into()),
        false => usize::MAX,
    };
    build_output(engine, &reports, columns)
}

fn build_output(
    engine: &Engine,
    reports: &[&HealthReport],
    columns: usize,
) -> Result<CommandOutput> {
    let mut text = String::new();
    for report in reports {
        let view = engine.view();
        let location = match &report.host {
            Some(host) => view
                .host(host)
                .map(|host| host.uri.clone())
                .unwrap_or_default(),
            None => view.bucket.location.clone(),
        };
        text += &format!("{}  {location}\n", target_name(report.host.as_ref()));
        for check in &report.checks {
            text += &format_check(check, columns);
        }
        text.push('\n');
    }
    text += &summarize(reports);
    let verdict = worst_verdict(reports);
    let document = json!({ "verdict": verdict, "healthChecks": reports });
    let output = CommandOutput::new(&document, text)?;
    let code = match verdict {
        Verdict::Failed if reports.iter().any(|report| !report.reachable) => {
            exit::code(Kind::Unreachable)
        }
        Verdict::Failed => exit::code(Kind::Failed),
        Verdict::Passed | Verdict::Warning => 0,
    };
    Ok(CommandOutput { code, ..output })
}

fn target_name(host: Option<&HostName>) -> &str {
    host.map_or("bucket", HostName::as_str)
}

fn worst_verdict(reports: &[&HealthReport]) -> Verdict {
    let verdicts = reports.iter().map(|report| report.verdict());
    verdicts.max().unwrap_or(Verdict::Passed)
}

/// `1 failed, 2 warnings, 30 passed`.
fn summarize(reports: &[&HealthReport]) -> String {
    let count = |verdict| {
        let checks = reports.iter().flat_map(|report| &report.checks);
        checks.filter(|check| check.verdict == verdict).count()
    };
    let warnings = match count(Verdict::Warning) {
        1 => "1 warning".to_owned(),
        many => format!("{many} warnings"),
    };
    let (failed, passed) = (count(Verdict::Failed), count(Verdict::Passed));
    format!("{failed} failed, {warnings}, {passed} passed\n")
}

/// Formats a check: sign, name, finding, and on the next line the fix. The fix is not wrapped, so that it can be copied.
fn format_check(check: &Check, columns: usize) -> String {
    let sign = match check.verdict {
        Verdict::Passed => '✓',
        Verdict::Warning => '!',
        Verdict::Failed => '✗',
    };
    let mut text = format!("  {sign} {:<19} ", check.name);
    let detail_columns = columns
        .saturating_sub(DETAIL_INDENT)
        .max(MIN_DETAIL_COLUMNS);
    let mut used = 0;
    for word in check.finding.split_whitespace() {
        if used > 0 && used + 1 + word.width() > detail_columns {
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
    if let Some(fix) = &check.fix {
        text += &format!("      → {fix}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_wrap_and_fixes_do_not() {
        let fix = "chown libvirt-qemu:kvm /var/lib/libvirt/snapshots/myapp-v1.0.qcow2";
        let check = Check::warning(
            "owner and mode",
            "of 3: myapp-v1.0 (root:root 600), other (root:root 644)",
            fix,
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
    fn the_worst_verdict_wins() {
        let report = |checks: &[Check]| HealthReport {
            host: None,
            reachable: true,
            checks: checks.to_vec(),
        };
        let passed = report(&[Check::passed("a", "b")]);
        let failed = report(&[Check::failed("a", "b", "c"), Check::warning("a", "b", "c")]);
        assert_eq!(worst_verdict(&[&passed, &failed]), Verdict::Failed);
        assert_eq!(worst_verdict(&[]), Verdict::Passed);
        assert_eq!(
            summarize(&[&passed, &failed]),
            "1 failed, 1 warning, 1 passed\n"
        );
    }
}
