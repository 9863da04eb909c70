//! What an examination of a host or the bucket found.

use serde::Serialize;

use super::HostName;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// Works, but not as well or as safely as it could.
    Warning,
    /// Operations will fail until it is mended.
    Failed,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was looked at: `qemu-img`, `snapshots directory`.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen, in one line.
    pub finding: String,
    /// The command that mends it, or what to do where no command can.
    pub fix: Option<String>,
}

impl Check {
    /// All is well.
    pub fn passed(what: &str, seen: impl Into<String>) -> Self {
        Self {
            name: what.to_owned(),
            verdict: Verdict::Passed,
            finding: seen.into(),
            fix: None,
        }
    }

    /// It could be better.
    pub fn warning(what: &str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warning,
            fix: Some(mend.into()),
            ..Self::passed(what, seen)
        }
    }

    /// It has to be mended.
    pub fn failed(what: &str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Failed,
            ..Self::warning(what, seen, mend)
        }
    }
}

/// All checks of one host, or of the bucket. What could not be looked at because of a check that failed is not
/// among them: that check's `seen` ends with what was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// The host; `None`: the bucket.
    pub host: Option<HostName>,
    /// Did it answer and let us in: SSH and libvirt of a host, the store of a bucket?
    pub reachable: bool,
    /// Its checks.
    pub checks: Vec<Check>,
}

impl HealthReport {
    /// The worst of its checks; `Passed` where there are none.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.checks.iter().map(|check| check.verdict);
        verdicts.max().unwrap_or(Verdict::Passed)
    }
}
