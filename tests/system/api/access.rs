//! Authentication and TLS.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::api::server::{Api, TOKEN, send};
use crate::common::{World, is_root, output, run};

#[test]
fn only_healthz_is_served_without_the_token() {
    let world = World::new();
    let api = Api::start(&world);
    let bare = |path: &str, header: &str| {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "-i",
            "-m",
            "100",
            "-H",
            header,
            &format!("{}{path}", api.base),
        ]);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        send(command)
    };
    for header in [
        "X-None: 1".to_owned(),
        "Authorization: Bearer wrong".to_owned(),
        format!("Authorization: Bearer {TOKEN}x"),
        format!("Authorization: Basic {TOKEN}"),
    ] {
        for path in [
            "/sandboxes",
            "/nope",
            "/metrics",
            "/openapi.json",
            "/readyz",
            "/healthz/",
        ] {
            let refused = bare(path, &header);
            assert!(
                refused.header("www-authenticate").starts_with("Bearer"),
                "{refused:?}"
            );
            refused.failed(401, "unauthorized", &[]);
        }
        assert_eq!(bare("/healthz", &header).expect_status(200)["status"], "ok");
    }
    assert_eq!(
        bare("/readyz", &format!("authorization: bearer {TOKEN}")).status,
        200
    );
}

#[test]
fn serve_refuses_to_start_without_authentication() {
    let world = World::new();
    let empty = secret_file(&world, "empty", "\n");
    let short = secret_file(&world, "short", "123456789012345\n");
    for (args, word) in [
        (&["serve"][..], "needs a token"),
        (&["serve", "--token-file", "/nonexistent"], "/nonexistent"),
        (&["serve", "--token-file", &empty], "API token is empty"),
        (
            &["serve", "--token-file", &short],
            "shorter than 16 characters",
        ),
        (
            &["serve", "--insecure-no-auth", "--listen", "0.0.0.0:0"],
            "refusing to listen on 0.0.0.0",
        ),
        (&["serve", "--tls-cert", "x"], "--tls-key"),
    ] {
        world.snapdeck(args).failed(2, &[word]);
    }
    let mut command = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    let ran = output(command.env("SNAPDECK_API_TOKEN", "too-short"));
    assert_eq!(ran.status.code(), Some(2), "{ran:?}");
    let message = String::from_utf8_lossy(&ran.stderr).into_owned();
    for word in ["shorter than 16 characters", "openssl rand -hex 32"] {
        assert!(message.contains(word), "{message}");
    }
    assert!(!message.contains("too-short"), "{message}");
}

/// Writes a file that only its owner can read.
fn secret_file(world: &World, name: &str, text: &str) -> String {
    let path = world.path(&format!("scratch/{name}"));
    std::fs::write(&path, text).unwrap();
    set_mode(&path, 0o600);
    path
}

fn set_mode(path: &str, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_with_secrets_that_others_can_read_or_replace_are_refused() {
    let world = World::new();
    let dir = world.path("scratch/secrets");
    std::fs::create_dir(&dir).unwrap();
    let token = secret_file(&world, "secrets/token", TOKEN);
    let key = secret_file(&world, "secrets/key.pem", "no key");
    let cert = secret_file(&world, "secrets/cert.pem", "no certificate");
    let fifo = world.path("scratch/secrets/fifo");
    run("mkfifo", &["-m", "600", &fifo]);
    let with_token = |file: &str, word: &str| {
        world
            .snapdeck(&["serve", "--token-file", file])
            .failed(2, &[word, file]);
    };
    with_token(&fifo, "not a regular file");
    with_token(&dir, "not a regular file");
    with_token("/dev/zero", "not a regular file");
    for mode in [0o644, 0o640, 0o620, 0o602, 0o604] {
        set_mode(&token, mode);
        with_token(&token, "other users can read or write it");
    }
    set_mode(&token, 0o600);
    set_mode(&dir, 0o777);
    with_token(&token, "other users can write to its directory");
    set_mode(&dir, 0o755);
    if is_root() {
        run("chown", &["libvirt-qemu", &token]);
        with_token(&token, "belongs to another user");
        run("chown", &["root", &token]);
        run("chown", &["libvirt-qemu", &dir]);
        with_token(&token, "belongs to another user");
        run("chown", &["root", &dir]);
    }
    set_mode(&key, 0o644);
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let serve = [&["serve", "--token-file", &token][..], &tls].concat();
    world.snapdeck(&serve).failed(
        2,
        &[
            "cannot read the TLS key",
            "other users can read or write it",
        ],
    );
}

#[test]
fn a_page_whose_name_was_rebound_to_this_machine_is_refused() {
    let world = World::new();
    let api = Api::start_with(&world, &["--insecure-no-auth"], &[]);
    let port = api.address().rsplit(':').next().unwrap().to_owned();
    let with_host = |path: &str, host: &str| api.call(path, &["-H", &format!("Host: {host}")]);
    for host in ["localhost", "127.0.0.1", "[::1]", "LOCALHOST."] {
        with_host("/jobs", host).expect_status(200);
        with_host("/jobs", &format!("{host}:{port}")).expect_status(200);
    }
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        &format!("127.0.0.1.evil.example:{port}"),
        "localhost:1",
        &format!("0.0.0.0:{port}"),
        &format!("x@localhost:{port}"),
    ] {
        for path in ["/sandboxes", "/jobs", "/healthz", "/metrics", "/nope"] {
            let refused = with_host(path, host);
            let refused = refused.failed(421, "misdirected", &["Host header"]);
            assert!(refused["hint"].as_str().unwrap().contains(api.address()));
        }
    }
    // The authority of an absolute URI counts, too.
    api.call("/jobs", &["--request-target", "http://evil.example/jobs"])
        .failed(421, "misdirected", &[]);
    api.call("/jobs", &["-H", "Host:"])
        .failed(400, "invalidInput", &["Host"]);
    for site in ["same-origin", "same-site", "cross-site"] {
        let header = format!("Sec-Fetch-Site: {site}");
        api.call("/jobs", &["-H", &header])
            .failed(403, "forbidden", &[]);
        let post = ["-H", &header, "-d", "{}"];
        api.call("/snapshots/pull", &post)
            .failed(403, "forbidden", &[]);
    }
    api.call("/jobs", &["-H", "Sec-Fetch-Site: none"])
        .expect_status(200);
    drop(api);
    // With a token the name is the operator's choice: a proxy may have another one.
    let api = Api::start(&world);
    api.call("/jobs", &["-H", "Host: snapdeck.example"])
        .expect_status(200);
}

#[test]
fn a_token_in_the_url_and_several_tokens_are_refused() {
    let world = World::new();
    let api = Api::start(&world);
    for path in [
        "/jobs?token=x",
        "/sandboxes?Access_Token=x",
        "/healthz?api_key=x",
    ] {
        api.get(path)
            .failed(400, "invalidInput", &["token in the URL"]);
    }
    api.get("/jobs?x=1").failed(400, "invalidInput", &["\"x\""]);
    api.get("/snapshots/exists?snapshot=a&x=1")
        .failed(400, "invalidInput", &["\"x\""]);
    api.call("/jobs", &["-H", "Authorization: Bearer 0123456789abcdef"])
        .failed(401, "unauthorized", &["several"]);
}

#[test]
fn responses_are_neither_kept_nor_shown_as_pages() {
    let world = World::new();
    let api = Api::start(&world);
    for (path, status) in [("/healthz", 200), ("/jobs", 200), ("/nope", 404)] {
        let response = api.get(path);
        assert_eq!(response.status, status);
        assert_eq!(response.header("x-content-type-options"), "nosniff");
        assert_eq!(response.header("cache-control"), "no-store");
        assert_eq!(response.header("access-control-allow-origin"), "");
    }
}

#[test]
fn web_pages_cannot_call_a_server_without_authentication() {
    let world = World::new();
    let api = Api::start_with(&world, &["--insecure-no-auth"], &[]);
    api.get("/jobs").expect_status(200);
    api.call("/jobs", &["-H", "Origin: http://evil.example"])
        .failed(403, "forbidden", &[]);
}

#[test]
fn tls_and_a_token_file_are_supported() {
    let world = World::new();
    let (cert, key) = (
        world.path("scratch/cert.pem"),
        world.path("scratch/key.pem"),
    );
    let names = "subjectAltName=IP:127.0.0.1";
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=snapdeck",
            "-addext",
            names,
            "-keyout",
            &key,
            "-out",
            &cert,
        ],
    );
    set_mode(&key, 0o600);
    let token = secret_file(&world, "token", &format!("{TOKEN}\n"));
    let args = [
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
        "--token-file",
        &token,
    ];
    let api = Api::start_with(&world, &args, &[("SNAPDECK_API_TOKEN", "another")]);
    assert!(api.base.starts_with("https://"), "{}", api.base);
    assert_eq!(
        api.call("/healthz", &["--cacert", &cert])
            .expect_status(200)["status"],
        "ok"
    );
    api.call("/jobs", &["--cacert", &cert]).expect_status(200);
    drop(api);
    world
        .snapdeck(&[
            "serve",
            "--token-file",
            &token,
            "--tls-cert",
            &key,
            "--tls-key",
            &cert,
        ])
        .failed(2, &["TLS"]);
}
