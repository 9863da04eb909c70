//! The S3 servers of the bucket tests: s3s-fs in this process, and the lab's SeaweedFS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::{BehaviorVersion, Credentials as Keys, Region};
use aws_sdk_s3::primitives::ByteStream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use snapdeck_bucket::Bucket;
use snapdeck_model::settings::{BucketSettings, Credentials, ObjectStorage, TrustedChecksums};
use tempfile::TempDir;

const BUCKET: &str = "snapdeck-tests";

/// A store with a bucket, and a client other than snapdeck's.
pub(crate) struct TestStore {
    pub name: &'static str,
    pub settings: BucketSettings,
    pub client: aws_sdk_s3::Client,
    /// Root directory of an s3s-fs.
    root: Option<TempDir>,
}

/// Returns all stores; without the lab only s3s-fs.
pub(crate) async fn stores() -> Vec<TestStore> {
    let mut stores = vec![s3s_fs().await];
    match std::env::var("SNAPDECK_LAB_S3") {
        Ok(endpoint) => stores.push(seaweed(&endpoint).await),
        Err(_) => eprintln!("skipped on SeaweedFS: SNAPDECK_LAB_S3 is not set"),
    }
    stores
}

/// Starts an s3s-fs on a free port; it ends with the test's runtime.
pub(crate) async fn s3s_fs() -> TestStore {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join(BUCKET)).unwrap();
    let address = serve(root.path()).await;
    test_store(
        "s3s-fs",
        &format!("http://{address}"),
        "lab",
        "lab-secret",
        Some(root),
    )
}

async fn serve(root: &Path) -> SocketAddr {
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(s3s::auth::SimpleAuth::from_single("lab", "lab-secret"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        while let Ok((socket, _)) = listener.accept().await {
            let connection = http.serve_connection(TokioIo::new(socket), service.clone());
            tokio::spawn(connection.into_owned());
        }
    });
    address
}

async fn seaweed(endpoint: &str) -> TestStore {
    let key = std::env::var("SNAPDECK_LAB_S3_KEY").expect("SNAPDECK_LAB_S3_KEY");
    let secret = std::env::var("SNAPDECK_LAB_S3_SECRET").expect("SNAPDECK_LAB_S3_SECRET");
    let store = test_store("SeaweedFS", endpoint, &key, &secret, None);
    // Tests share the bucket, each with its own prefix; another test may have created it.
    let _ = store.client.create_bucket().bucket(BUCKET).send().await;
    store
        .client
        .head_bucket()
        .bucket(BUCKET)
        .send()
        .await
        .expect("SeaweedFS answers");
    store
}

fn test_store(
    name: &'static str,
    endpoint: &str,
    key: &str,
    secret: &str,
    root: Option<TempDir>,
) -> TestStore {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let settings = BucketSettings {
        name: Some(BUCKET.into()),
        prefix: format!("t{now}-{}/", NEXT.fetch_add(1, Relaxed)),
        organizations: Vec::new(),
        endpoint: Some(endpoint.into()),
        region: Some("us-east-1".into()),
        profile: None,
        credentials: Some(Credentials {
            access_key_id: key.into(),
            secret_access_key: secret.into(),
        }),
        trusted_checksums: TrustedChecksums::Any,
        storage: ObjectStorage::default(),
    };
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .force_path_style(true)
        .credentials_provider(Keys::new(key, secret, None, None, "lab"))
        .build();
    TestStore {
        name,
        settings,
        client: aws_sdk_s3::Client::from_conf(config),
        root,
    }
}

impl TestStore {
    pub(crate) async fn bucket(&self) -> Bucket {
        Bucket::new(&self.settings)
    }

    /// Returns the same bucket at another address.
    pub(crate) async fn bucket_at(&self, address: SocketAddr) -> Bucket {
        let mut settings = self.settings.clone();
        settings.endpoint = Some(format!("http://{address}"));
        Bucket::new(&settings)
    }

    /// Returns `HOST:PORT` of the store.
    pub(crate) fn address(&self) -> String {
        self.settings
            .endpoint
            .as_ref()
            .unwrap()
            .trim_start_matches("http://")
            .into()
    }

    pub(crate) fn key(&self, file: &str) -> String {
        format!("{}{file}", self.settings.prefix)
    }

    /// Uploads an object with the other client.
    pub(crate) async fn put(&self, file: &str, bytes: Vec<u8>) {
        self.client
            .put_object()
            .bucket(BUCKET)
            .key(self.key(file))
            .body(ByteStream::from(bytes))
            .send()
            .await
            .unwrap();
    }

    /// Downloads an object with the other client; `None` if it does not exist.
    pub(crate) async fn get(&self, file: &str) -> Option<Vec<u8>> {
        let call = self.client.get_object().bucket(BUCKET).key(self.key(file));
        let found = call.send().await.ok()?;
        Some(found.body.collect().await.unwrap().to_vec())
    }

    /// Returns the leftovers of unfinished uploads in the store.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        if let Some(root) = &self.root {
            let entries = std::fs::read_dir(root.path()).unwrap();
            return entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .filter(|name| name.contains("upload") || name.contains("tmp"))
                .collect();
        }
        let call = self.client.list_multipart_uploads().bucket(BUCKET);
        let listed = call.prefix(&self.settings.prefix).send().await.unwrap();
        listed
            .uploads()
            .iter()
            .map(|upload| upload.key().unwrap().to_owned())
            .collect()
    }

    /// Waits until the store has no leftovers.
    pub(crate) async fn clean(&self) {
        wait_until(
            async || self.leftovers().await.is_empty(),
            "the store has no leftovers",
        )
        .await;
    }
}

/// Waits until a condition is true.
pub(crate) async fn wait_until(condition: impl AsyncFn() -> bool, what: &str) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .expect(what);
}
