//! Connections without a token do not keep callers with one from being served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::api::server::{Api, TOKEN};
use crate::common::World;

/// More than the server has places for.
const FLOOD: usize = 600;

fn connect(api: &Api, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// Asserts that a caller with the token is served at once.
#[track_caller]
fn is_served(api: &Api) {
    let start = Instant::now();
    api.get("/jobs").expect_status(200);
    let took = start.elapsed();
    // Without places for it, it would wait for those of others to be closed, after 15 s and more.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Reads one response with a body of known length.
fn read_response(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{text:?}");
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).unwrap();
    let length = text.to_lowercase();
    let length = length.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    text
}

#[test]
fn idle_and_slow_connections_do_not_shut_out_a_caller_with_the_token() {
    let world = World::new();
    let api = Api::start(&world);
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    // A connection of a caller with the token, in use before and after.
    let get = format!("GET /jobs HTTP/1.1\r\nHost: x\r\n{token}\r\n");
    let mut own = connect(&api, &get);
    assert!(read_response(&mut own).starts_with("HTTP/1.1 200"));
    let wrong = "GET /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";
    for text in [
        "",
        "GET /jobs HTTP/1.1\r\nHost: x\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /snapshots/pull HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{",
        wrong,
    ] {
        let flood: Vec<TcpStream> = (0..FLOOD).map(|_| connect(&api, text)).collect();
        is_served(&api);
        own.write_all(get.as_bytes()).unwrap();
        assert!(read_response(&mut own).starts_with("HTTP/1.1 200"));
        drop(flood);
    }
}

#[test]
fn connections_that_are_kept_alive_without_a_token_are_closed() {
    let world = World::new();
    let api = Api::start(&world);
    let get = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut kept: Vec<TcpStream> = (0..FLOOD).map(|_| connect(&api, get)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                for stream in &mut kept {
                    // Closed ones are replaced: that is the attack.
                    if stream.write_all(get.as_bytes()).is_err() {
                        *stream = connect(&api, get);
                    }
                }
            }
        });
        for _ in 0..5 {
            is_served(&api);
        }
        stop.store(true, Relaxed);
    });
    // The last one has a place; without a token it is closed nevertheless.
    let mut last = connect(&api, get);
    let start = Instant::now();
    loop {
        let mut buffer = [0; 4096];
        if matches!(last.read(&mut buffer), Ok(0) | Err(_)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        let _ = last.write_all(get.as_bytes());
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "it is never closed"
        );
    }
}

#[test]
fn headers_are_bounded() {
    let world = World::new();
    let api = Api::start(&world);
    let many: String = (0..200).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = format!("X: {}\r\n", "a".repeat(1 << 20));
    for headers in [many, long] {
        let mut stream = TcpStream::connect(api.address()).unwrap();
        let text = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        // The server may close before everything is sent.
        let _ = stream.write_all(text.as_bytes());
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        let response = String::from_utf8_lossy(&response).into_owned();
        assert!(
            response.is_empty() || response.starts_with("HTTP/1.1 431"),
            "{response:?}"
        );
    }
    is_served(&api);
}
