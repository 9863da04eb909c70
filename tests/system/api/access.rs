//! Authentication and TLS.

use std::process::Command;

use crate::api::server::{Api, TOKEN, send};
use crate::common::{World, run};

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
    let empty = world.path("scratch/empty");
    std::fs::write(&empty, "\n").unwrap();
    for (args, word) in [
        (&["serve"][..], "needs a token"),
        (&["serve", "--token-file", "/nonexistent"], "/nonexistent"),
        (&["serve", "--token-file", &empty], "API token is empty"),
        (
            &["serve", "--insecure-no-auth", "--listen", "0.0.0.0:0"],
            "refusing to listen on 0.0.0.0",
        ),
        (&["serve", "--tls-cert", "x"], "--tls-key"),
    ] {
        world.snapdeck(args).failed(2, &[word]);
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
    let token = world.path("scratch/token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
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
