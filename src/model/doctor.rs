//! Results of the health checks of a host or the bucket.

use serde::Serialize;

use super::HostName;
use super::text::{escape_unprintable, printable};

/// Verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing to do.
    Passed,
    /// Works, but more slowly or less safely than possible.
    Warning,
    /// Operations will fail until it is fixed.
    Failed,
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Subject of the check: `qemu-img`, `snapshots directory`.
    pub name: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The finding in one line.
    pub finding: String,
    /// Command that fixes it, or advice if no command can.
    pub fix: Option<String>,
}

impl Check {
    /// Returns a check that passed.
    pub fn passed(name: &str, finding: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            verdict: Verdict::Passed,
            finding: printable(&finding.into()),
            fix: None,
        }
    }

    /// Returns a check with a warning.
    pub fn warning(name: &str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warning,
            // Not cut: a part of a command is another command.
            fix: Some(escape_unprintable(&fix.into()).into_owned()),
            ..Self::passed(name, finding)
        }
    }

    /// Returns a check that failed.
    pub fn failed(name: &str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Failed,
            ..Self::warning(name, finding, fix)
        }
    }
}

/// The checks of a host or the bucket. Checks that are impossible because of a failed one are missing; its finding
/// names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// The host; `None`: the bucket.
    pub host: Option<HostName>,
    /// Whether SSH and libvirt of the host, or the store, answered and granted access.
    pub reachable: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

impl HealthReport {
    /// Returns the worst verdict; `Passed` without checks.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.checks.iter().map(|check| check.verdict);
        verdicts.max().unwrap_or(Verdict::Passed)
    }
}
