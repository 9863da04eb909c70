//! Requests to the API, which it quotes in its answers and its log.

use super::{EVIL, checked};
use crate::api::server::{Api, TOKEN};
use crate::common::World;

#[test]
fn bodies_paths_and_headers_are_quoted_safely() {
    let world = World::new();
    let variables = [("SNAPDECK_API_TOKEN", TOKEN)];
    let api = Api::start_with(&world, &["-vv"], &variables);
    let escaped = serde_json::to_string(EVIL).unwrap();
    for body in [
        format!("{{\"snapshot\":{escaped}}}"),
        "{\"snapshot\":\"\\u001b]0;x\\u0007\"}".to_owned(),
        "{\"snapshot\":\"\\ud800\"}".to_owned(),
        "{\"snapshot\":\"a\\u0000b\"}".to_owned(),
        "{\"snapshot\":\"\u{9b}31m\u{202e}\"}".to_owned(),
        "{\"snapshot\":\"../../etc/passwd\"}".to_owned(),
        format!("{{{escaped}:1}}"),
        format!("{EVIL}{{"),
    ] {
        let answer = checked(&api, api.call("/snapshots/pull", &["-d", &body]));
        assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
        answer.json();
    }
    let encoded: String = EVIL.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for path in [
        format!("/{encoded}"),
        format!("/jobs/{encoded}"),
        format!("/sandboxes/{encoded}"),
        format!("/snapshots/info?snapshot={encoded}"),
        format!("/snapshots/info?{encoded}=1"),
        "/x\u{202e}\u{9b}31m".to_owned(),
        "/jobs/\u{202e}\u{9b}31m".to_owned(),
    ] {
        let answer = checked(&api, api.get(&path));
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
    }
    let key = "Idempotency-Key: \u{9b}31m\u{202e}";
    let body = "{\"snapshot\":\"nope\"}";
    let answer = api.call("/snapshots/pull", &["-H", key, "-d", body]);
    assert!(checked(&api, answer).status >= 400);
    checked(&api, api.get("/metrics"));
}
