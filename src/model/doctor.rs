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
    pub what: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen, in one line.
    pub seen: String,
    /// The command that mends it, or what to do where no command can.
    pub mend: Option<String>,
}

/// All checks of one host, or of the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Examination {
    /// The host; `None`: the bucket.
    pub host: Option<HostName>,
    /// Its checks, in the order they were made.
    pub checks: Vec<Check>,
}
