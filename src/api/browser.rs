//! Requests of web pages, which are refused by a server without a token.
//!
//! Any page in a browser on this machine can send requests to it. Browsers mark most of them with `Origin` or
//! `Sec-Fetch-Site`. A page whose name in the DNS was changed to a loopback address (DNS rebinding) is of the same origin
//! for the browser, and can read the responses; but then `Host` is the name of the page.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header;
use axum::http::uri::Authority;

use super::problem::Problem;

/// A browser sets it to `none` if a person has typed the address (W3C, "Fetch Metadata Request Headers").
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Refuses a request that a web page may have sent to a server that listens on `address`.
pub(crate) fn check_not_from_browser(
    address: SocketAddr,
    request: &Request,
) -> Result<(), Problem> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(Problem::invalid_input("there are several Host headers")),
        (host, None) => host.map(|host| host.as_bytes()),
    };
    // Of an absolute URI, or the header `:authority` of HTTP/2.
    let authority = request
        .uri()
        .authority()
        .map(|text| text.as_str().as_bytes());
    if host.is_none() && authority.is_none() {
        return Err(Problem::invalid_input("the Host header is missing"));
    }
    let mut names = host.into_iter().chain(authority);
    if !names.all(|name| is_this_server(name, address)) {
        return Err(Problem::misdirected(address));
    }
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if headers.contains_key(header::ORIGIN) || !sites.all(|site| site == "none") {
        return Err(Problem::origin_forbidden());
    }
    Ok(())
}

/// Returns whether `name` is that of the loopback interface or `address`, with the port of `address` or none.
fn is_this_server(name: &[u8], address: SocketAddr) -> bool {
    let Ok(authority) = Authority::try_from(name) else {
        return false;
    };
    let host = authority.host();
    let Some(port) = authority.as_str().strip_prefix(host) else {
        // It has a user.
        return false;
    };
    let is_port = port.is_empty() || port.strip_prefix(':') == Some(&*address.port().to_string());
    let host = host.strip_suffix('.').unwrap_or(host);
    let ip = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
        .map(|ip| ip.to_canonical());
    let is_ip = ip.is_ok_and(|ip| ip.is_loopback() || ip == address.ip().to_canonical());
    is_port && (is_ip || host.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::body::Body;

    use super::*;

    #[test]
    fn only_names_of_this_machine_are_accepted() {
        let address = "127.0.0.1:8080".parse().unwrap();
        for name in [
            "localhost",
            "LocalHost.:8080",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_this_server(name.as_bytes(), address), "{name}");
        }
        for name in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "evil.localhost",
            "127.0.0.1.evil.example",
            "127.0.0.1:8081",
            "127.0.0.1:80800",
            "127.0.0.1:",
            "0.0.0.0:8080",
            "[::]:8080",
            "2130706433:8080",
            "0x7f.1:8080",
            "localhost@evil.example",
            "evil@localhost:8080",
            "localhost/x",
            "localhost, evil.example",
            "10.0.0.1:8080",
        ] {
            assert!(!is_this_server(name.as_bytes(), address), "{name}");
        }
    }

    #[test]
    fn the_authority_of_the_uri_counts_too() {
        let address = "127.0.0.1:8080".parse().unwrap();
        let check = |uri: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::empty()).unwrap();
            check_not_from_browser(address, &request).is_ok()
        };
        let host = ("host", "localhost:8080");
        assert!(check("/jobs", &[host]));
        assert!(check("http://127.0.0.1:8080/jobs", &[]));
        assert!(check("http://127.0.0.1:8080/jobs", &[host]));
        assert!(check("/jobs", &[host, ("sec-fetch-site", "none")]));
        assert!(!check("/jobs", &[]));
        assert!(!check("http://evil.example/jobs", &[host]));
        assert!(!check(
            "http://127.0.0.1:8080/jobs",
            &[("host", "evil.example")]
        ));
        assert!(!check("/jobs", &[host, ("host", "evil.example")]));
        for site in ["same-origin", "same-site", "cross-site", "None", ""] {
            assert!(!check("/jobs", &[host, ("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["http://localhost:8080", "null", "http://evil.example"] {
            assert!(!check("/jobs", &[host, ("origin", origin)]), "{origin}");
        }
    }
}
