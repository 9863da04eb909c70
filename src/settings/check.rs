//! What a value may be. Each check returns the value in its normal form, or why it cannot be meant.

use snapdeck_model::{HostName, Method};

/// A check of one text: its normal form, or the end of a sentence that begins with the key's name.
pub(super) type Check = fn(&str) -> Result<String, String>;

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

pub(super) fn parse_host_name(text: &str) -> Result<String, String> {
    text.parse::<HostName>()
        .map(|name| name.to_string())
        .map_err(|_| {
            format!(
                "must be 1 to 128 letters, digits, '.', '_' and '-', beginning with a letter or \
                 digit, is {text:?}"
            )
        })
}

/// A libvirt URI. A password has no place in it: it would be shown, and SSH does not take it.
pub(super) fn parse_libvirt_uri(text: &str) -> Result<String, String> {
    let Some((_, rest)) = text.split_once("://").filter(|_| is_plain(text)) else {
        return Err(format!(
            "must be a libvirt URI such as qemu:///system, is {text:?}"
        ));
    };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            Err("must not hold a password: use an SSH key".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

/// An absolute directory, without `.` and `..`, without a `/` at its end.
pub(super) fn parse_directory(text: &str) -> Result<String, String> {
    let normal = match text.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    let plain = text.starts_with('/')
        && !text.chars().any(char::is_control)
        && !normal.split('/').any(|part| matches!(part, "." | ".."));
    match plain {
        true => Ok(normal.to_owned()),
        false => Err(format!(
            "must be an absolute directory without . and .., is {text:?}"
        )),
    }
}

pub(super) fn parse_owner(text: &str) -> Result<String, String> {
    let name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
    };
    match text.split_once(':') {
        Some((user, group)) if name(user) && name(group) => Ok(text.to_owned()),
        _ => Err(format!("must be user:group, is {text:?}")),
    }
}

pub(super) fn parse_bucket_name(text: &str) -> Result<String, String> {
    // An access point's ARN stands where a bucket's name does, and holds a '/'.
    match is_plain(text) && (!text.contains('/') || text.starts_with("arn:")) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "must be a bucket's name without '/' and spaces, is {text:?}"
        )),
    }
}

/// The beginning of every key: empty, or without a `/` at its beginning and with one at its end.
pub(super) fn parse_prefix(text: &str) -> Result<String, String> {
    let bare = text.trim_matches('/');
    if bare.is_empty() {
        return Ok(String::new());
    }
    // A store that keeps objects as files would take such a part for a way out of its directory.
    let odd = bare.chars().any(char::is_control)
        || bare.split('/').any(|part| matches!(part, "" | "." | ".."));
    match odd {
        true => Err(format!(
            "must be a key's beginning such as snapshots/, is {text:?}"
        )),
        false => Ok(format!("{bare}/")),
    }
}

pub(super) fn parse_endpoint(text: &str) -> Result<String, String> {
    let bad = || {
        // Whatever stands before an '@' may be a password: it is not repeated.
        let shown = match text.contains('@') {
            true => "holds a user".to_owned(),
            false => format!("is {text:?}"),
        };
        format!("must be a URL such as https://s3.example.com:9000, {shown}")
    };
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .filter(|_| is_plain(text) && !text.contains(['@', '?', '#', '\\']))
        .ok_or_else(bad)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of a bare [::1] is a part of the address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let host_fits =
        !host.is_empty() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    match host_fits && port_fits {
        true => Ok(text.to_owned()),
        false => Err(bad()),
    }
}

pub(super) fn parse_region(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c));
    match fits {
        true => Ok(text.to_owned()),
        false => Err(format!("must be a region such as us-east-1, is {text:?}")),
    }
}

/// Half of a key pair. It is never repeated in an error.
pub(super) fn parse_credential(text: &str) -> Result<String, String> {
    match is_plain(text) {
        true => Ok(text.to_owned()),
        false => Err("must not be empty or hold spaces".to_owned()),
    }
}

pub(super) fn parse_compression(text: &str) -> Result<String, String> {
    match text {
        "none" | "zstd" => Ok(text.to_owned()),
        _ => Err(format!("must be \"none\" or \"zstd\", is {text:?}")),
    }
}

pub(super) fn parse_running(text: &str) -> Result<String, String> {
    match parse_methods(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!(
            "must be a comma-separated list of \"backup\", \"copy\" and \"convert\", is {text:?}"
        )),
    }
}

/// The methods that such a text names, each once.
pub(super) fn parse_methods(text: &str) -> Option<Vec<Method>> {
    let mut methods = Vec::new();
    for word in text.split(',') {
        let method = match word.trim() {
            "backup" => Method::Backup,
            "copy" => Method::Copy,
            "convert" => Method::Convert,
            _ => return None,
        };
        if methods.contains(&method) {
            return None;
        }
        methods.push(method);
    }
    Some(methods)
}

pub(super) fn parse_accel(text: &str) -> Result<String, String> {
    match text {
        "auto" | "kvm" | "qemu" => Ok(text.to_owned()),
        _ => Err(format!(
            "must be \"auto\", \"kvm\" or \"qemu\", is {text:?}"
        )),
    }
}

pub(super) fn parse_firmware(text: &str) -> Result<String, String> {
    match text {
        "secure-uefi" | "uefi" | "bios" => Ok(text.to_owned()),
        _ => Err(format!(
            "must be \"secure-uefi\", \"uefi\" or \"bios\", is {text:?}"
        )),
    }
}

/// `none`, `bridge:NAME`, or the name of a network of libvirt's.
pub(super) fn parse_network(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("bridge:").unwrap_or(text);
    match is_plain(name) && !name.contains('/') {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "must be \"none\", a libvirt network, or bridge:NAME, is {text:?}"
        )),
    }
}

/// An absolute path of a file.
pub(super) fn parse_file_path(text: &str) -> Result<String, String> {
    let plain =
        text.starts_with('/') && !text.ends_with('/') && !text.chars().any(char::is_control);
    match plain {
        true => Ok(text.to_owned()),
        false => Err(format!("must be the absolute path of a file, is {text:?}")),
    }
}

pub(super) fn parse_picture(text: &str) -> Result<String, String> {
    match text {
        "auto" | "kitty" | "sixel" | "blocks" | "off" => Ok(text.to_owned()),
        _ => Err(format!(
            "must be \"auto\", \"kitty\", \"sixel\", \"blocks\" or \"off\", is {text:?}"
        )),
    }
}

/// `auto`, or the name of a theme, which is also the one of its file.
pub(super) fn parse_theme(text: &str) -> Result<String, String> {
    let is_name = |c: u8| c.is_ascii_alphanumeric() || b"_-".contains(&c);
    match !text.is_empty() && text.bytes().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "must be \"auto\" or a theme's name, of letters, digits, '_' and '-', is {text:?}"
        )),
    }
}

pub(super) fn parse_notify(text: &str) -> Result<String, String> {
    match text {
        "bell" | "notification" | "off" => Ok(text.to_owned()),
        _ => Err(format!(
            "must be \"bell\", \"notification\" or \"off\", is {text:?}"
        )),
    }
}

/// A command with the place of an address in it.
pub(super) fn parse_viewer(text: &str) -> Result<String, String> {
    let has_address = text.contains("{url}") || text.contains("{host}");
    match has_address && !text.chars().any(char::is_control) {
        true => Ok(text.trim().to_owned()),
        false => Err(format!(
            "must be a command with {{url}}, or {{host}} and {{port}}, in it, is {text:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn normal_forms() {
        for (given, normal) in [
            ("snapshots", "snapshots/"),
            ("/a/b/", "a/b/"),
            ("", ""),
            ("/", ""),
        ] {
            assert_eq!(parse_prefix(given).unwrap(), normal, "{given:?}");
        }
        assert_eq!(parse_directory("/srv/x//").unwrap(), "/srv/x");
        assert_eq!(parse_directory("/").unwrap(), "/");
    }

    #[test]
    fn what_is_taken_and_what_is_not() {
        let table: &[(Check, &[&str], &[&str])] = &[
            (parse_prefix, &["a/b"], &["a//b", "../a", "a/./b", "a\n"]),
            (
                parse_directory,
                &["/a b/c"],
                &["", "a", "~/x", "/a/../b", "/a\0b"],
            ),
            (
                parse_owner,
                &["libvirt-qemu:kvm", "0:0"],
                &["", "root", "root:", ":kvm", "a:b:c", "-r:x", "a b:c"],
            ),
            (
                parse_endpoint,
                &[
                    "http://minio:9000",
                    "https://s3.example.com",
                    "http://[::1]:8333",
                    "http://[::1]",
                    "http://h/path",
                ],
                &[
                    "",
                    "minio:9000",
                    "ftp://x",
                    "http://",
                    "http://:9000",
                    "http://h:0",
                    "http://h:99999",
                    "http://u:p@h",
                    "http://h x",
                    "http://::1:80",
                ],
            ),
            (
                parse_bucket_name,
                &["daytona", "arn:aws:s3:eu-west-1:1:accesspoint/x"],
                &["", "a/b", "a b"],
            ),
            (
                parse_libvirt_uri,
                &[
                    "qemu:///system",
                    "qemu+ssh://root@h/system",
                    "test:///default",
                ],
                &["", "qemu", "qemu:///a b", "qemu+ssh://root:pw@h/system"],
            ),
            (parse_compression, &["none", "zstd"], &["", "zlib", "ZSTD"]),
            (
                parse_running,
                &["backup, copy, convert", "convert", "copy,backup"],
                &["", "pause", "backup copy", "copy,copy", "append"],
            ),
            (parse_accel, &["auto", "kvm", "qemu"], &["", "tcg", "KVM"]),
            (
                parse_picture,
                &["auto", "kitty", "off"],
                &["", "Kitty", "ascii"],
            ),
            (
                parse_viewer,
                &["remote-viewer {url}", "vncviewer {host}::{port}"],
                &["", "remote-viewer", "a {url}\n"],
            ),
            (
                parse_firmware,
                &["secure-uefi", "uefi", "bios"],
                &["", "none", "UEFI"],
            ),
            (
                parse_network,
                &["none", "default", "bridge:br0"],
                &["", "bridge:", "a b", "a/b"],
            ),
            (
                parse_file_path,
                &["/a b/c.xml"],
                &["", "a", "~/x", "/a/", "/a\0b"],
            ),
            (
                parse_host_name,
                &["alpha", "a.b-c_1"],
                &["", "-a", "a b", "../x", "a;b"],
            ),
        ];
        for (check, good, bad) in table {
            for text in *good {
                assert!(check(text).is_ok(), "{text:?}: {:?}", check(text));
            }
            for text in *bad {
                assert!(check(text).is_err(), "{text:?}");
            }
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        for sentence in [
            parse_endpoint("http://user:hunter2@h").unwrap_err(),
            parse_libvirt_uri("qemu+ssh://root:hunter2@h/system").unwrap_err(),
            parse_credential("hunter2 ").unwrap_err(),
        ] {
            assert!(!sentence.contains("hunter2"), "{sentence}");
        }
    }
}
