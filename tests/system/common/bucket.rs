//! A world's place in the lab's bucket, by another S3 client.

use std::process::{Child, Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::process::{output, until};
use super::proxy::{Trouble, proxy};
use super::{World, lab};

/// Does `start` in a thread of its own, where what it spawns goes on until the tests end.
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

impl World {
    /// The other S3 client; `{}` in an argument is this world's place in the bucket.
    #[track_caller]
    pub(crate) fn s5cmd(&self, args: &[&str]) -> Output {
        let place = format!("s3://{}/{}", lab("SNAPDECK_LAB_BUCKET"), self.tag);
        output(
            Command::new(lab("SNAPDECK_LAB_S5CMD"))
                .args(args.iter().map(|arg| arg.replace("{}", &place)))
                .env("AWS_ACCESS_KEY_ID", lab("SNAPDECK_LAB_S3_KEY"))
                .env("AWS_SECRET_ACCESS_KEY", lab("SNAPDECK_LAB_S3_SECRET"))
                .env("AWS_REGION", "us-east-1")
                .env("S3_ENDPOINT_URL", lab("SNAPDECK_LAB_S3")),
        )
    }

    /// From here on snapdeck reaches the store by a line of ours.
    pub(crate) fn detour(&self) -> Arc<Trouble> {
        let store = lab("SNAPDECK_LAB_S3");
        let (address, trouble) = in_background(proxy(store.replace("http://", "")));
        self.reconfigure(&store, &format!("http://{address}"));
        trouble
    }

    /// As [`World::detour`], with the parts of uploads held; returns once snapdeck, started with `args`, has come to
    /// one.
    pub(crate) fn start_to_parts(&self, args: &[&str]) -> (Child, Arc<Trouble>) {
        let trouble = self.detour();
        trouble.hold_parts.store(true, SeqCst);
        let child = self.start(args);
        until("a part is on its way", || trouble.held.load(SeqCst) > 0);
        (child, trouble)
    }

    /// What unfinished uploads have left in this world's place in the bucket.
    pub(crate) fn uploads(&self) -> String {
        let place = format!("{}/", self.tag);
        let list = async {
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
            let client = aws_sdk_s3::Client::from_conf(config);
            let call = client
                .list_multipart_uploads()
                .bucket(lab("SNAPDECK_LAB_BUCKET"))
                .prefix(place);
            format!("{:?}", call.send().await.unwrap().uploads())
        };
        tokio::runtime::Runtime::new().unwrap().block_on(list)
    }

    /// Puts a file into the bucket as `name`, by the other client.
    pub(crate) fn put(&self, file: &str, name: &str) {
        // Raw: odd names are names.
        let put = self.s5cmd(&["cp", "--raw", file, &format!("{{}}/{name}.qcow2")]);
        assert!(put.status.success(), "{put:?}");
    }

    /// Gets an object by the other client; returns where it lies.
    pub(crate) fn get(&self, name: &str) -> String {
        // Not in a host's directory, whose name may be one that this client takes for a pattern.
        let file = self.dir.join(format!("{name}.got.qcow2"));
        let file = file.to_str().unwrap().to_owned();
        let get = self.s5cmd(&["cp", &format!("{{}}/{name}.qcow2"), &file]);
        assert!(get.status.success(), "{get:?}");
        file
    }

    /// The manifest beside an object, as the other client gets it.
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

    /// The object's entity tag, as the other client sees it.
    pub(crate) fn etag(&self, name: &str) -> String {
        let listed = self.s5cmd(&["ls", "-e", &format!("{{}}/{name}.qcow2")]);
        assert!(listed.status.success(), "{listed:?}");
        let line = String::from_utf8(listed.stdout).unwrap();
        // DATE TIME ETAG SIZE NAME
        line.split_whitespace().nth(2).unwrap().to_owned()
    }
}
