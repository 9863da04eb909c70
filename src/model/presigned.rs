//! Requests to a store that need no key.

use std::fmt;

/// A request to the store that needs no key, valid for a while. Until then it is a secret: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedRequest {
    /// URL with its signature.
    pub url: String,
    /// Headers that are sent with it, names and values.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for PresignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedRequest").finish_non_exhaustive()
    }
}
