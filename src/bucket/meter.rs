//! Counting bytes as they move, so that a part that is sent again counts once.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A slice of a body given to the connection at a time.
const SLICE: usize = 256 * 1024;

/// Bytes of one try of one part.
pub(super) type ByteCounter = Arc<AtomicU64>;

/// The bytes of one transfer: parts that are done, and the present try of those on their way.
#[derive(Default)]
pub(super) struct Meter {
    parts: Mutex<HashMap<u64, ByteCounter>>,
}

impl Meter {
    /// A new try of `part` begins: what earlier tries moved no longer counts, even if a connection
    /// given up still moves some.
    pub(super) fn begin(&self, part: u64) -> ByteCounter {
        let count = ByteCounter::default();
        self.lock().insert(part, count.clone());
        count
    }

    /// `part` is done, all its `bytes`.
    pub(super) fn finish(&self, part: u64, bytes: u64) {
        self.lock().insert(part, Arc::new(AtomicU64::new(bytes)));
    }

    /// `part` is not done after all.
    pub(super) fn remove_part(&self, part: u64) {
        self.lock().remove(&part);
    }

    /// Bytes moved so far.
    pub(super) fn total(&self) -> u64 {
        self.lock().values().map(|count| count.load(Relaxed)).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, ByteCounter>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts the bytes of a request's body as the connection takes them.
#[derive(Debug)]
pub(super) struct CountingInterceptor(pub(super) ByteCounter);

impl Intercept for CountingInterceptor {
    fn name(&self) -> &'static str {
        "Counting"
    }

    // Before transmit, not before: signing and checksums want the body in memory.
    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.request_mut().body_mut();
        let inner = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(CountingBody {
            inner,
            rest: Bytes::new(),
            count: self.0.clone(),
        });
        Ok(())
    }
}

/// A body in slices, counted.
struct CountingBody {
    inner: SdkBody,
    rest: Bytes,
    count: ByteCounter,
}

impl Body for CountingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let length = self.rest.len().min(SLICE);
        let slice = self.rest.split_to(length);
        self.count.fetch_add(length as u64, Relaxed);
        Poll::Ready(Some(Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && Body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = Body::size_hint(&self.inner);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_sent_again_counts_once() {
        let meter = Meter::default();
        let lost = meter.begin(1);
        lost.fetch_add(50, Relaxed);
        assert_eq!(meter.total(), 50);
        let second = meter.begin(1);
        lost.fetch_add(50, Relaxed);
        second.fetch_add(10, Relaxed);
        assert_eq!(meter.total(), 10);
        meter.finish(1, 100);
        assert_eq!(meter.total(), 100);
        meter.begin(1);
        assert_eq!(meter.total(), 0, "and once more");
    }
}
