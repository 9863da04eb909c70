//! A store that answers what a test wants: without end, a byte now and then, or lies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use snapdeck_bucket::Bucket;
use snapdeck_model::settings::{BucketSettings, Credentials, ObjectStorage, TrustedChecksums};

/// First line and headers of a request, in lower case.
pub(crate) struct Request {
    /// For example `GET /b/snapshots/a.json`.
    pub line: String,
    /// The requested range, both ends included.
    pub range: Option<(u64, u64)>,
}

impl Request {
    pub(crate) fn is_listing(&self) -> bool {
        self.line.contains("list-type=")
    }

    /// Returns the value of a parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.line.split_once('?')?;
        let query = query.split(' ').next()?;
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// The answer to a request: a status, headers, and a body.
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

pub(crate) enum Body {
    Text(Vec<u8>),
    /// Only the header that announces so many bytes.
    Announced(u64),
    /// A start, and then the same bytes without end.
    Endless(&'static str, Vec<u8>),
    /// A space every 100 ms, without end.
    Drip,
    /// Nothing at all.
    Silence,
}

impl Answer {
    pub(crate) fn new(status: u16, body: Body) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    pub(crate) fn ok(text: impl Into<Vec<u8>>) -> Self {
        Self::new(200, Body::Text(text.into()))
    }

    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let text = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        Self::new(status, Body::Text(text.into()))
    }

    pub(crate) fn not_found() -> Self {
        Self::error(404, "NoSuchKey", "no such key")
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Returns a page of a listing with these XML entries.
pub(crate) fn page(entries: &str, next: Option<&str>) -> Answer {
    let token = next.map_or(String::new(), |next| {
        format!("<NextContinuationToken>{next}</NextContinuationToken>")
    });
    Answer::ok(format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>{}</IsTruncated>{entries}{token}</ListBucketResult>",
        next.is_some()
    ))
}

/// Returns the entry of an object in a listing.
pub(crate) fn entry(key: &str, etag: &str, size: i64) -> String {
    format!(
        "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>\
         <Size>{size}</Size></Contents>"
    )
}

/// A running server; it ends with the process.
pub(crate) struct HostileStore {
    pub address: SocketAddr,
    /// Bytes of bodies that were sent.
    pub sent: Arc<AtomicU64>,
    pub requests: Arc<AtomicU64>,
}

impl HostileStore {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let store = Self {
            address: listener.local_addr().unwrap(),
            sent: Arc::default(),
            requests: Arc::default(),
        };
        let (sent, requests, answer) =
            (store.sent.clone(), store.requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (sent, requests, answer) = (sent.clone(), requests.clone(), answer.clone());
                std::thread::spawn(move || {
                    while let Some(request) = read_request(&client) {
                        requests.fetch_add(1, SeqCst);
                        // An error ends the connection: the client has closed it.
                        if !matches!(send(&client, &request, answer(&request), &sent), Ok(true)) {
                            break;
                        }
                    }
                });
            }
        });
        store
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn bucket(&self) -> Bucket {
        Bucket::new(&BucketSettings {
            name: Some("b".into()),
            prefix: "snapshots/".into(),
            organizations: Vec::new(),
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".into()),
            profile: None,
            credentials: Some(Credentials {
                access_key_id: "lab".into(),
                secret_access_key: "lab-secret".into(),
            }),
            trusted_checksums: TrustedChecksums::Any,
            storage: ObjectStorage::default(),
        })
    }

    pub(crate) fn sent_mib(&self) -> u64 {
        self.sent.load(SeqCst) >> 20
    }
}

fn read_request(client: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(client);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let header = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let length = header("content-length").and_then(|length| length.parse().ok());
    std::io::copy(
        &mut reader.by_ref().take(length.unwrap_or(0)),
        &mut std::io::sink(),
    )
    .ok()?;
    let range = header("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    Some(Request {
        line: lines.first()?.clone(),
        range,
    })
}

/// Sends an answer; returns whether the connection can be used again.
fn send(
    mut client: &TcpStream,
    request: &Request,
    answer: Answer,
    sent: &AtomicU64,
) -> std::io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} x\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    match answer.body {
        Body::Text(text) => {
            head += &format!("content-length: {}\r\n\r\n", text.len());
            client.write_all(head.as_bytes())?;
            if !request.line.starts_with("HEAD ") {
                client.write_all(&text)?;
            }
            Ok(true)
        }
        Body::Announced(length) => {
            head += &format!("content-length: {length}\r\n\r\n");
            client.write_all(head.as_bytes())?;
            Ok(request.line.starts_with("HEAD "))
        }
        Body::Endless(start, bytes) => {
            head += "transfer-encoding: chunked\r\n\r\n";
            client.write_all(head.as_bytes())?;
            let mut chunk = start.as_bytes().to_vec();
            // A client that reads on would fill the memory.
            while sent.load(SeqCst) < 1 << 30 {
                client.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                client.write_all(&chunk)?;
                client.write_all(b"\r\n")?;
                sent.fetch_add(chunk.len() as u64, SeqCst);
                chunk.clone_from(&bytes);
            }
            Ok(false)
        }
        Body::Drip => {
            head += "content-length: 1000000\r\n\r\n";
            client.write_all(head.as_bytes())?;
            loop {
                client.write_all(b" ")?;
                sent.fetch_add(1, SeqCst);
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Body::Silence => {
            sent.fetch_add(1, SeqCst);
            // Until the client closes the connection.
            let _ = client.read(&mut [0; 1]);
            Ok(false)
        }
    }
}
