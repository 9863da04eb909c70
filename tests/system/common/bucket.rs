//! The test's prefix in the lab's bucket, accessed with another S3 client (s5cmd).

use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use aws_sdk_s3::types::MultipartUpload;

use super::process::{output, wait_until};
use super::proxy::{Faults, proxy};
use super::{World, lab};

/// Runs `start` on a runtime in another thread; tasks that it spawns run until the tests end.
pub(crate) fn in_background<T: Send + 'static>(
    start: impl Future<Output = T> + Send + 'static,
) -> T {
    let (done, result) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            done.send(start.await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    result.recv().unwrap()
}

/// Returns a client of the lab's store.
fn client() -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .endpoint_url(lab("SNAPDECK_LAB_S3"))
        .region(aws_sdk_s3::config::Region::new("us-east-1"))
        .force_path_style(true)
        .credentials_provider(aws_sdk_s3::config::Credentials::new(
            lab("SNAPDECK_LAB_S3_KEY"),
            lab("SNAPDECK_LAB_S3_SECRET"),
            None,
            None,
            "lab",
        ))
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

impl World {
    /// Runs s5cmd; `{}` in an argument is replaced by the URL of the test's prefix.
    #[track_caller]
    pub(crate) fn s5cmd(&self, args: &[&str]) -> Output {
        let url = format!("s3://{}/{}", lab("SNAPDECK_LAB_BUCKET"), self.tag);
        output(
            Command::new(lab("SNAPDECK_LAB_S5CMD"))
                .args(args.iter().map(|arg| arg.replace("{}", &url)))
                .env("AWS_ACCESS_KEY_ID", lab("SNAPDECK_LAB_S3_KEY"))
                .env("AWS_SECRET_ACCESS_KEY", lab("SNAPDECK_LAB_S3_SECRET"))
                .env("AWS_REGION", "us-east-1")
                .env("S3_ENDPOINT_URL", lab("SNAPDECK_LAB_S3")),
        )
    }

    /// Puts a proxy between snapdeck and the store.
    pub(crate) fn use_proxy(&self) -> Arc<Faults> {
        let store = lab("SNAPDECK_LAB_S3");
        let (address, faults) = in_background(proxy(store.replace("http://", "")));
        self.reconfigure(&store, &format!("http://{address}"));
        faults
    }

    /// Starts snapdeck with a proxy that holds uploaded parts; returns when the first part is held.
    pub(crate) fn start_to_parts(&self, args: &[&str]) -> (Child, Arc<Faults>) {
        let faults = self.use_proxy();
        faults.hold_parts.store(true, SeqCst);
        let child = self.start(args);
        wait_until("a part is being uploaded", || faults.held.load(SeqCst) > 0);
        (child, faults)
    }

    /// Returns the unfinished multipart uploads under the test's prefix, for an assertion.
    pub(crate) fn uploads(&self) -> String {
        format!("{:?}", self.list_uploads())
    }

    fn list_uploads(&self) -> Vec<MultipartUpload> {
        let prefix = format!("{}/", self.tag);
        let list = async {
            let call = client()
                .list_multipart_uploads()
                .bucket(lab("SNAPDECK_LAB_BUCKET"))
                .prefix(prefix);
            call.send().await.unwrap().uploads().to_vec()
        };
        tokio::runtime::Runtime::new().unwrap().block_on(list)
    }

    /// Aborts the unfinished multipart uploads under the test's prefix.
    pub(crate) fn abort_uploads(&self) {
        for upload in self.list_uploads() {
            let abort = async {
                let call = client()
                    .abort_multipart_upload()
                    .bucket(lab("SNAPDECK_LAB_BUCKET"))
                    .key(upload.key().unwrap())
                    .upload_id(upload.upload_id().unwrap());
                call.send().await.unwrap();
            };
            tokio::runtime::Runtime::new().unwrap().block_on(abort);
        }
    }

    /// Replaces a part of the only unfinished multipart upload under the test's prefix.
    pub(crate) fn replace_part(&self, number: i32, bytes: Vec<u8>) {
        let uploads = self.list_uploads();
        let [upload] = &uploads[..] else {
            panic!("{uploads:?}");
        };
        let replace = async {
            let call = client()
                .upload_part()
                .bucket(lab("SNAPDECK_LAB_BUCKET"))
                .key(upload.key().unwrap())
                .upload_id(upload.upload_id().unwrap())
                .part_number(number)
                .checksum_algorithm(aws_sdk_s3::types::ChecksumAlgorithm::Crc64Nvme)
                .body(bytes.into());
            call.send().await.unwrap();
        };
        tokio::runtime::Runtime::new().unwrap().block_on(replace);
    }

    /// Uploads a file as object `name`.
    pub(crate) fn put(&self, file: &str, name: &str) {
        // --raw: wildcard characters in names have no meaning.
        let put = self.s5cmd(&["cp", "--raw", file, &format!("{{}}/{name}.qcow2")]);
        assert!(put.status.success(), "{put:?}");
    }

    /// Downloads an object; returns the path of the file.
    pub(crate) fn get(&self, name: &str) -> String {
        // Not in a host's directory, whose name may have wildcard characters.
        let file = self.dir.join(format!("{name}.got.qcow2"));
        let file = file.to_str().unwrap().to_owned();
        let get = self.s5cmd(&["cp", &format!("{{}}/{name}.qcow2"), &file]);
        assert!(get.status.success(), "{get:?}");
        file
    }

    /// Downloads the manifest of an object.
    pub(crate) fn manifest(&self, name: &str) -> serde_json::Value {
        let file = self.dir.join(format!("{name}.got.json"));
        let get = self.s5cmd(&["cp", &format!("{{}}/{name}.json"), file.to_str().unwrap()]);
        assert!(get.status.success(), "{get:?}");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    }

    pub(crate) fn is_in_bucket(&self, name: &str) -> bool {
        self.s5cmd(&["ls", &format!("{{}}/{name}.qcow2")])
            .status
            .success()
    }

    /// Returns the ETag of an object.
    pub(crate) fn etag(&self, name: &str) -> String {
        let listed = self.s5cmd(&["ls", "-e", &format!("{{}}/{name}.qcow2")]);
        assert!(listed.status.success(), "{listed:?}");
        let line = String::from_utf8(listed.stdout).unwrap();
        // DATE TIME ETAG SIZE NAME
        line.split_whitespace().nth(2).unwrap().to_owned()
    }
}
