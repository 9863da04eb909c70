//! Answers with another root element than S3's, which the SDK does not read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame};

/// Root elements of other stores, and those of S3.
const ROOTS: [(&str, &str); 2] = [
    // To CreateMultipartUpload, of `rclone serve s3` 1.75.
    ("InitiateMultipartUpload>", "InitiateMultipartUploadResult>"),
    // To GetBucketVersioning, of moto 5.2.
    ("GetBucketVersioningResponse", "VersioningConfiguration"),
];

/// Renames the root element to that of S3. The answer is bounded by [`super::bounds::LimitResponses`].
#[derive(Debug)]
pub(super) struct RenameRoot;

impl Intercept for RenameRoot {
    fn name(&self) -> &'static str {
        "RenameRoot"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().status().is_success() {
            let body = context.response_mut().body_mut();
            let inner = std::mem::replace(body, SdkBody::taken());
            *body = SdkBody::from_body_1_x(RenamedBody {
                inner,
                text: Vec::new(),
                is_sent: false,
            });
        }
        Ok(())
    }
}

/// The whole body in one frame.
struct RenamedBody {
    inner: SdkBody,
    text: Vec<u8>,
    is_sent: bool,
}

impl Body for RenamedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while !self.is_sent {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        let data = data.clone();
                        self.text.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.is_sent = true;
                    let text = rename(std::mem::take(&mut self.text));
                    return Poll::Ready(Some(Ok(Frame::data(text.into()))));
                }
            }
        }
        Poll::Ready(None)
    }
}

fn rename(answer: Vec<u8>) -> Vec<u8> {
    match String::from_utf8(answer) {
        Ok(text) => ROOTS
            .iter()
            .fold(text, |text, (odd, usual)| text.replace(odd, usual))
            .into_bytes(),
        Err(other) => other.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_odd_root_is_renamed() {
        let odd = b"<InitiateMultipartUpload>\n<UploadId>x</UploadId></InitiateMultipartUpload>";
        let usual = "<InitiateMultipartUploadResult>\n<UploadId>x</UploadId></InitiateMultipartUploadResult>";
        assert_eq!(rename(odd.to_vec()), usual.as_bytes());
        assert_eq!(rename(usual.as_bytes().to_vec()), usual.as_bytes());
        assert_eq!(rename(vec![0xff]), [0xff]);
    }
}
