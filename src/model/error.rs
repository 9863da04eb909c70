//! The one error of the library: what failed, on which host or object, why, is another try worth
//! it, and what to do. Faces turn [`Kind`] into an exit code or a status; nothing else is parsed.

use std::fmt;

/// `Result` with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is; each face maps it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A name, flag or setting that cannot be meant.
    InvalidInput,
    /// The sandbox, snapshot or object is not there.
    NotFound,
    /// It exists, is in use, or is in the wrong state: nothing was done.
    Conflict,
    /// A host or the bucket cannot be reached, or does not let us in.
    Unreachable,
    /// The operator cancelled it.
    Cancelled,
    /// A disk or the bucket is full.
    NoSpace,
    /// An image or object is broken or not what it claims to be.
    Damaged,
    /// Anything else.
    Failed,
}

/// One failure, told in one sentence by its `Display`:
/// `WHAT: CAUSE; HINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    summary: String,
    cause: Option<String>,
    hint: Option<String>,
    retryable: bool,
}

impl Error {
    /// A failure of `kind`; `what` says what failed and on what: "cannot pull myapp to host alpha".
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            summary: what.into(),
            cause: None,
            hint: None,
            retryable: false,
        }
    }

    /// Why: the words of the program or library below, trimmed to one line.
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        let cause = cause.to_string();
        let line = cause.split_whitespace().collect::<Vec<_>>().join(" ");
        self.cause = Some(line.trim_end_matches(['.', ';']).to_owned()).filter(|c| !c.is_empty());
        self
    }

    /// What the operator can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Marks a failure that may be gone at the next try (a broken connection, a busy server).
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The same failure told as part of a larger one: `what` becomes the cause.
    pub fn context(mut self, what: impl Into<String>) -> Self {
        let inner = match self.cause.take() {
            Some(cause) => format!("{}: {cause}", self.summary),
            None => std::mem::take(&mut self.summary),
        };
        self.summary = what.into();
        self.cause = Some(inner);
        self
    }

    /// The operator cancelled `what`.
    pub fn cancelled(what: impl Into<String>) -> Self {
        Self::new(Kind::Cancelled, format!("{} was cancelled", what.into()))
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Is the same call worth another try?
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// What to do, if it is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The sentence without its hint.
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
    fn reads_as_one_sentence() {
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
    fn keeps_kind_and_hint_when_told_as_part_of_a_larger_failure() {
        let error = Error::new(Kind::NotFound, "no such file")
            .hint("look again")
            .context("cannot push a");
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.to_string(), "cannot push a: no such file; look again");
    }
}
