#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use snapdeck_fuzz::FuzzTarget;

use super::bounds::LimitResponses;
use super::*;

const LISTING: &str = "200\r\nserver: MinIO\r\ndate: Mon, 24 Feb 2025 14:30:42 GMT\r\n\r\n\
    <?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
    <Name>b</Name><Prefix>snapshots/</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter>\
    <IsTruncated>true</IsTruncated><NextContinuationToken>t1</NextContinuationToken><Contents><Key>snapshots/a.qcow2</Key>\
    <LastModified>2025-02-24T14:30:42.000Z</LastModified><ETag>&quot;0123-2&quot;</ETag><Size>327680</Size>\
    <StorageClass>STANDARD</StorageClass></Contents><Contents><Key>snapshots/a.json</Key><Size>7</Size></Contents>\
    <CommonPrefixes><Prefix>snapshots/c/</Prefix></CommonPrefixes></ListBucketResult>";
const OBJECT: &str = "200\r\ncontent-length: 4\r\ncontent-range: bytes 0-3/4\r\netag: \"0123-2\"\r\n\
    last-modified: Mon, 24 Feb 2025 14:30:42 GMT\r\nx-amz-meta-snapdeck-upload: tag\r\n\
    x-amz-meta-snapdeck-variables: none\r\nx-amz-meta-snapdeck-manifest: required\r\n\
    x-amz-checksum-type: FULL_OBJECT\r\nx-amz-checksum-crc64nvme: AAAAAAAAAAA=\r\n\r\nabcd";
const UPLOADS: &str = "200\r\n\r\n<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>\
    <NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker><Upload><Key>snapshots/a.qcow2</Key>\
    <UploadId>u1</UploadId><Initiated>2025-02-24T14:30:42.000Z</Initiated><Initiator><ID>1</ID><DisplayName>me\
    </DisplayName></Initiator></Upload></ListMultipartUploadsResult>";
const PARTS: &str = "200\r\n\r\n<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>1\
    </NextPartNumberMarker><Part><PartNumber>1</PartNumber><LastModified>2025-02-24T14:30:42.000Z</LastModified>\
    <ETag>\"1\"</ETag><Size>8388608</Size></Part></ListPartsResult>";
const UPLOAD: &str = "200\r\n\r\n<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u1</UploadId>\
    </InitiateMultipartUploadResult>";
const COPIED: &str = "200\r\n\r\n<CopyPartResult><LastModified>2025-02-24T14:30:42.000Z</LastModified><ETag>\"1\"</ETag>\
    </CopyPartResult>";
const ERROR: &str = "403\r\n\r\n<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message>\
    <Key>k</Key><RequestId>1</RequestId><HostId>h</HostId></Error>";

/// Answers the first requests of a call with one response, and all others with 404.
#[derive(Debug, Clone, Default)]
struct Answers {
    response: Arc<Mutex<Vec<u8>>>,
    requests: Arc<AtomicUsize>,
}

impl Answers {
    /// Sets the response: status, headers, an empty line and the body.
    fn set(&self, response: &[u8]) {
        *self.response.lock().unwrap() = response.to_vec();
        self.requests.store(0, Relaxed);
    }

    fn respond(&self) -> HttpResponse {
        let not_found = || HttpResponse::new(404.try_into().unwrap(), SdkBody::empty());
        if self.requests.fetch_add(1, Relaxed) >= 3 {
            return not_found();
        }
        let bytes = self.response.lock().unwrap();
        let split = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let (head, body) = match split {
            Some(index) => (&bytes[..index], &bytes[index + 4..]),
            None => (&bytes[..], &b""[..]),
        };
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|status| status.parse::<u16>().ok());
        let Some(status) = status.and_then(|status| status.try_into().ok()) else {
            return not_found();
        };
        let mut response = HttpResponse::new(status, SdkBody::from(body));
        for line in lines {
            if let Some((name, value)) = line.split_once(": ") {
                // What is not a header does not come through an HTTP client.
                let headers = response.headers_mut();
                let _ = headers.try_append(name.to_owned(), value.to_owned());
            }
        }
        response
    }
}

impl HttpConnector for Answers {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Ok(self.respond()))
    }
}

fn store(answers: &Answers) -> Store {
    let connector = answers.clone();
    let headers = ResponseHeaders::default();
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url("http://store")
        .force_path_style(true)
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .interceptor(headers.clone())
        .http_client(http_client_fn(move |_, _| {
            SharedHttpConnector::new(connector.clone())
        }));
    let limited = |has_objects| {
        let limit = LimitResponses { has_objects };
        Client::from_conf(config.clone().interceptor(limit).build())
    };
    Store {
        client: limited(false),
        reader: limited(true),
        bucket: "b".into(),
        endpoint: "http://store".into(),
        headers,
        timeout: None,
        storage: Default::default(),
        retry: StoreRetry::none(),
        records: OwnershipRecords::in_memory(),
        upload_records: UploadRecords::default(),
    }
}

fn target(name: &'static str) -> FuzzTarget {
    FuzzTarget::new(name)
        .words(&[
            "<Contents>",
            "<Key>",
            "<Size>",
            "</",
            "/>",
            "\r\nx-amz-meta-a: ",
            "\r\netag: ",
            "\r\n\r\n",
            "200",
            "500",
        ])
        .max_bytes(5 << 20)
        // Of a client and of values: a tag of a few bytes becomes an object of some hundred.
        .memory(16 << 20, 256)
}

fn run(target: FuzzTarget, call: impl AsyncFn(&Store)) {
    let answers = Answers::default();
    let store = store(&answers);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    target.run(|response| {
        answers.set(response);
        runtime.block_on(call(&store));
    });
}

fn check_message<T>(result: Result<T, StoreError>) -> Option<T> {
    let text = match &result {
        Ok(_) => return result.ok(),
        Err(error) => error.error.to_string(),
    };
    assert!(text.len() < 16 << 10, "{} bytes", text.len());
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
    None
}

#[test]
fn fuzz_listing() {
    run(
        target("S3: listing").seed(LISTING).seed(ERROR),
        async |store| {
            if let Some(page) = check_message(store.list("snapshots/", None).await) {
                assert!(
                    page.objects
                        .iter()
                        .all(|object| object.key.len() <= MAX_KEY_BYTES)
                );
            }
            store.server_time();
            store.capabilities();
        },
    );
}

#[test]
fn fuzz_object() {
    run(
        target("S3: object").seed(OBJECT).seed(ERROR),
        async |store| {
            check_message(store.head("k").await);
            if let Some(mut body) = check_message(store.get("k", Some(0..4), None).await) {
                while let Ok(Some(_)) = body.next_chunk().await {}
            }
        },
    );
}

#[test]
fn fuzz_uploads() {
    let target = target("S3: unfinished uploads")
        .seed(UPLOADS)
        .seed(PARTS)
        .seed(ERROR)
        // Of up to three pages.
        .memory(16 << 20, 512);
    run(target, async |store| {
        check_message(store.list_uploads("snapshots/").await);
        check_message(store.list_parts("k", "u1").await);
    });
}

#[test]
fn fuzz_multipart_upload() {
    let target = target("S3: multipart upload")
        .seed(UPLOAD)
        .seed(COPIED)
        .seed(ERROR);
    let metadata = NewMetadata {
        upload_tag: "tag".into(),
        parts: None,
    };
    run(target, async |store| {
        check_message(
            store
                .create_multipart("k", &metadata, Checksums::Object)
                .await,
        );
        let upload = UploadHandle {
            key: "k".into(),
            id: "u1".into(),
            checksums: Checksums::Parts,
        };
        let count = ByteCounter::default();
        let parts = [
            check_message(store.copy_part(&upload, 0, "s", 0..7, None).await),
            check_message(
                store
                    .upload_part(&upload, 1, Bytes::from_static(b"a"), count)
                    .await,
            ),
        ];
        let parts: Vec<UploadedPart> = parts.into_iter().flatten().collect();
        check_message(store.complete_multipart(&upload, &parts, 8, true).await);
        check_message(store.abort_multipart("k", "u1").await);
        check_message(store.delete_version("k", "\"1\"").await);
    });
}
