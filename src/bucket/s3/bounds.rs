//! Bounds on what a store answers, which is not trusted: responses that are read as a whole, and texts that are kept.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use snapdeck_model::printable_within;

/// Length in bytes of a response that is read as a whole. A page of 1,000 keys of 1,024 bytes has a third of it.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// Tags in such a response: a page of 1,000 keys has 30 of each key. The parsed values take much more than their XML.
const MAX_TAGS: usize = 100_000;
/// Length in bytes of a key (S3 user guide, "Naming Amazon S3 objects").
pub(super) const MAX_KEY_BYTES: usize = 1024;
/// Length in bytes of the ID of an upload and of a continuation token.
const MAX_TOKEN_BYTES: usize = 4096;
/// Length in bytes of an entity tag and of a checksum, which are kept for each object and part.
const MAX_TAG_BYTES: usize = 256;
/// Length in characters of a text of the store in a message.
const MAX_TEXT_CHARS: usize = 500;
/// Maximum size of an object in bytes: more than any store allows. A larger one is not what it claims to be; the sum of
/// a listing does not overflow.
const MAX_SIZE_BYTES: u64 = 64 << 40;

/// Ends responses that are longer than any answer to the call.
#[derive(Debug)]
pub(super) struct LimitResponses {
    /// Whether successful responses are objects, of which the readers count the bytes.
    pub(super) has_objects: bool,
}

impl Intercept for LimitResponses {
    fn name(&self) -> &'static str {
        "LimitResponses"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.has_objects && context.response().status().is_success() {
            return Ok(());
        }
        let body = context.response_mut().body_mut();
        let inner = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(LimitedBody {
            inner,
            bytes: 0,
            tags: 0,
        });
        Ok(())
    }
}

struct LimitedBody {
    inner: SdkBody,
    bytes: usize,
    tags: usize,
}

/// A response has passed its limit.
#[derive(Debug)]
pub(super) struct ResponseTooLong;

impl fmt::Display for ResponseTooLong {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("its response is longer than that of any S3 store")
    }
}

impl std::error::Error for ResponseTooLong {}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes += data.len();
            self.tags += data.iter().filter(|byte| **byte == b'<').count();
            if self.bytes > MAX_RESPONSE_BYTES || self.tags > MAX_TAGS {
                return Poll::Ready(Some(Err(ResponseTooLong.into())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        Body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.inner)
    }
}

/// Returns an upload ID or continuation token of the store, which is kept, printed and sent back; `None` for one that no store
/// would choose.
pub(super) fn token(text: Option<String>) -> Option<String> {
    within(MAX_TOKEN_BYTES, text)
}

/// As [`token`], for an entity tag or a checksum.
pub(super) fn tag(text: Option<String>) -> Option<String> {
    within(MAX_TAG_BYTES, text)
}

fn within(max_bytes: usize, text: Option<String>) -> Option<String> {
    let is_valid = |text: &String| {
        text.len() <= max_bytes && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    };
    text.filter(is_valid)
}

/// Returns a size in bytes; a negative one is invalid and counts as 0.
pub(super) fn size(length: Option<i64>) -> u64 {
    let length = length.and_then(|length| u64::try_from(length).ok());
    length.unwrap_or(0).min(MAX_SIZE_BYTES)
}

/// Returns a text of the store for a message or a listing: short, and without characters that a terminal acts on.
pub(crate) fn printable(text: &str) -> String {
    printable_within(text, MAX_TEXT_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_sizes_of_a_store_are_bounded() {
        let tag = |tag: &str| token(Some(tag.to_owned()));
        assert_eq!(tag("\"abc-2\"").as_deref(), Some("\"abc-2\""));
        for bad in ["\u{1b}[31m", "a\nb", "\u{202e}", &"x".repeat(5000)] {
            assert_eq!(tag(bad), None, "{bad}");
        }
        for (announced, bytes) in [
            (Some(-5), 0),
            (None, 0),
            (Some(7), 7),
            (Some(i64::MAX), MAX_SIZE_BYTES),
        ] {
            assert_eq!(size(announced), bytes);
        }
        assert_eq!(printable("a\u{1b}]0;b\u{7}"), "a\\u{1b}]0;b\\u{7}");
        assert!(printable(&"x".repeat(1 << 20)).chars().count() <= MAX_TEXT_CHARS);
    }
}
