//! Why composing an image ends early.

use snapdeck_model::{Error, Kind};

pub(crate) enum ComposeAbort {
    /// The disk cannot be composed, and why.
    Unsupported(String),
    /// The disk of a running sandbox cannot be read by this method, and why.
    MethodUnavailable(String),
    /// The last push, or another object, cannot be copied as it was planned, and why.
    CopiesUnusable(String),
    Failed(Error),
}

impl From<Error> for ComposeAbort {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<snapdeck_qcow2::ComposeError> for ComposeAbort {
    fn from(error: snapdeck_qcow2::ComposeError) -> Self {
        Self::Unsupported(error.to_string())
    }
}

/// Returns the error of a broken invariant of the composer.
pub(super) fn internal_error(problem: &str) -> Error {
    Error::new(Kind::Failed, format!("cannot compose an image: {problem}"))
}
