//! The error type of all crates: summary, cause, hint, and whether a retry may help. Front ends map [`Kind`] to an exit
//! code or an HTTP status and parse nothing else.
//!
//! All texts of an error are made printable when they are set, so that messages of hosts, guests and stores can be
//! shown anywhere.

use std::fmt;

use super::text::printable;

/// `Result` with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Invalid name, flag or setting.
    InvalidInput,
    /// The sandbox, snapshot, object or organization does not exist.
    NotFound,
    /// It exists already, is in use, or is in the wrong state; nothing was changed.
    Conflict,
    /// A host or the bucket cannot be reached or denies access.
    Unreachable,
    /// The operator cancelled it.
    Cancelled,
    /// A disk or the bucket is full.
    NoSpace,
    /// An image or object is damaged or is not what it should be.
    Damaged,
    /// Anything else.
    Failed,
}

/// A failure; its `Display` is `SUMMARY: CAUSE; HINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    summary: String,
    cause: Option<String>,
    hint: Option<String>,
    retryable: bool,
}

impl Error {
    /// Returns a failure with a summary such as "cannot pull myapp to host alpha".
    pub fn new(kind: Kind, summary: impl Into<String>) -> Self {
        Self {
            kind,
            summary: printable(&summary.into()),
            cause: None,
            hint: None,
            retryable: false,
        }
    }

    /// Sets the cause, such as the message of a program or library, trimmed to one line.
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        let line = cause.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = printable(line.trim_end_matches(['.', ';']));
        self.cause = Some(line).filter(|cause| !cause.is_empty());
        self
    }

    /// Sets what the operator can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(printable(&hint.into()));
        self
    }

    /// Marks a failure that a retry may avoid (a lost connection, a busy server).
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Replaces the summary; the former summary and cause become the cause.
    pub fn context(mut self, summary: impl Into<String>) -> Self {
        let inner = match self.cause.take() {
            Some(cause) => format!("{}: {cause}", self.summary),
            None => std::mem::take(&mut self.summary),
        };
        self.summary = printable(&summary.into());
        self.cause = Some(inner);
        self
    }

    /// Returns the failure of `activity` that the operator cancelled.
    pub fn cancelled(activity: impl fmt::Display) -> Self {
        Self::new(Kind::Cancelled, format!("{activity} was cancelled"))
    }

    /// Returns the failure of work on a snapshot of an organization that the settings do not have, as of a missing bucket.
    pub fn unknown_organization(organization: &str, summary: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, summary)
            .with_cause(format!("{organization} is not one of the organizations"))
            .hint(format!("add {organization} to organizations in [bucket]"))
    }

    /// Returns its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether a retry may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Returns what the operator can do, if known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns the sentence without its hint.
    pub fn message(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {cause}", self.summary),
            None => self.summary.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_sentence() {
        let error = Error::new(
            Kind::Failed,
            "cannot convert the disk of config-vm on host alpha",
        )
        .with_cause("qemu-img: error\n  while writing: No space left.")
        .hint("free space in /tmp");
        assert_eq!(
            error.to_string(),
            "cannot convert the disk of config-vm on host alpha: qemu-img: error while writing: \
             No space left; free space in /tmp"
        );
    }

    #[test]
    fn texts_from_outside_are_printable_in_every_part() {
        let outside = "a\u{1b}]0;b\u{7}\n\u{202e}c";
        let shown = "a\\u{1b}]0;b\\u{7}\\u{a}\\u{202e}c";
        let error = Error::new(Kind::Failed, outside)
            .context(outside)
            .hint(outside);
        assert_eq!(error.to_string(), format!("{shown}: {shown}; {shown}"));
        let error = Error::new(Kind::Failed, "x").with_cause(outside);
        assert_eq!(
            error.to_string(),
            "x: a\\u{1b}]0;b\\u{7} \\u{202e}c",
            "lines are joined"
        );
        let cancelled = Error::cancelled(outside).to_string();
        assert_eq!(cancelled, format!("{shown} was cancelled"));
        let long = Error::new(Kind::Failed, "x").with_cause("y".repeat(1 << 20));
        assert!(long.message().len() < 5000 && long.message().ends_with("more bytes)"));
    }

    #[test]
    fn context_preserves_kind_and_hint() {
        let error = Error::new(Kind::NotFound, "no such file")
            .hint("check the path")
            .context("cannot push a");
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(
            error.to_string(),
            "cannot push a: no such file; check the path"
        );
    }
}
