//! Types of values that a settings file can have. Each parses its text once; a value that exists is valid.

use std::time::Duration;

use serde::de::{Error, IntoDeserializer, Unexpected, Visitor, value::StringDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use snapdeck_model::settings::{
    BUCKET_COLUMNS, Encryption, Network, SANDBOX_COLUMNS, SNAPSHOT_COLUMNS,
};
use snapdeck_model::{Method, is_organization};

/// Parses a text, in an error of which `expected` describes valid ones.
fn parse_text<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| {
        let found = match text.contains('@') {
            // It may be a password.
            true => Unexpected::Other("text with an @"),
            false => Unexpected::Str(&text),
        };
        D::Error::invalid_value(found, &expected)
    })
}

/// Defines types of texts, each with a description of valid ones and a function that returns the normal form of one.
macro_rules! text_types {
    ($($name:ident, $expected:literal, $normalize:expr;)+) => {$(
        #[doc = concat!("Text: ", $expected, ".")]
        #[derive(Clone, PartialEq, Eq, Serialize)]
        pub(crate) struct $name(pub(crate) String);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parse_text(deserializer, $expected, $normalize).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    )+};
}

text_types! {
    LibvirtUri, "the URI of a local libvirt, or of one over SSH, without a password: qemu:///system, qemu+ssh://USER@HOST/system", |text| {
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        // The other transports give no access to the files of the host.
        let is_local = authority.is_empty();
        match scheme.split_once('+').map(|(_, transport)| transport) {
            None | Some("unix") if is_local => {}
            Some("ssh") if !is_local => {}
            _ => return None,
        }
        // SSH does not use a password, and it would be shown.
        let has_password = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
        keep_if(text, is_plain(text) && !has_password)
    };
    // Without slashes at the end.
    Directory, "an absolute directory without '.' and '..'", |text| {
        let trimmed = text.trim_end_matches('/');
        let directory = if trimmed.is_empty() { "/" } else { trimmed };
        let is_relative = trimmed.split('/').any(|part| matches!(part, "." | ".."));
        keep_if(directory, text.starts_with('/') && !is_relative && !has_control(text))
    };
    FilePath, "the absolute path of a file", |text| {
        keep_if(text, text.starts_with('/') && !text.ends_with('/') && !has_control(text))
    };
    Owner, "USER:GROUP", |text| {
        let is_name = |part: &str| is_word(part, b"._-") && !part.starts_with('-');
        let (user, group) = text.split_once(':')?;
        keep_if(text, is_name(user) && is_name(group))
    };
    // The ARN of an access point, which contains a '/', can be used as a bucket's name.
    BucketName, "a bucket's name without '/' and spaces", |text| {
        keep_if(text, is_plain(text) && (!text.contains('/') || text.starts_with("arn:")))
    };
    // Without a slash at the beginning, with one at the end.
    Prefix, "a prefix of keys such as snapshots/", |text| {
        let bare = text.trim_matches('/');
        if bare.is_empty() {
            return Some(String::new());
        }
        // A store that keeps objects as files could leave its directory.
        let is_unsafe = bare.split('/').any(|part| matches!(part, "" | "." | ".."));
        keep_if(&format!("{bare}/"), !is_unsafe && !has_control(bare))
    };
    Endpoint, "a URL such as https://s3.example.com:9000", |text| {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of a bare [::1] belongs to the address.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        let is_address = host.starts_with('[') && host.ends_with(']');
        let is_host = !host.is_empty() && (!host.contains(':') || is_address);
        let is_url = is_plain(text) && !text.contains(['@', '?', '#', '\\']);
        keep_if(text, is_url && is_host && is_port)
    };
    Region, "a region such as us-east-1", |text| keep_if(text, is_word(text, b"_-"));
    Profile, "the name of an AWS profile", |text| {
        let is_name = !text.trim().is_empty() && text.trim() == text;
        keep_if(text, is_name && !has_control(text) && !text.contains(['[', ']']))
    };
    Credential, "a text without spaces", |text| keep_if(text, is_plain(text));
    // Objects of the others cannot be read before they are restored.
    StorageClass, "a storage class such as STANDARD_IA, without GLACIER and DEEP_ARCHIVE", |text| {
        let is_archive = matches!(text, "GLACIER" | "DEEP_ARCHIVE");
        keep_if(text, is_word(text, b"_-") && !is_archive)
    };
    Theme, "\"auto\" or a theme's name of letters, digits, '_' and '-'", |text| {
        keep_if(text, is_word(text, b"_-"))
    };
    // Each as COLUMN, COLUMN.
    SandboxColumns, "a comma-separated list of state, base, overlay, cpu and mem", |text| {
        parse_columns(text, SANDBOX_COLUMNS)
    };
    SnapshotColumns, "a comma-separated list of size, used, bucket and modified", |text| {
        parse_columns(text, SNAPSHOT_COLUMNS)
    };
    BucketColumns, "a comma-separated list of size, on-host and uploaded", |text| {
        parse_columns(text, BUCKET_COLUMNS)
    };
    Viewer, "a command with {url}, or {host} and {port}, in it", |text| {
        let has_address = text.contains("{url}") || text.contains("{host}");
        keep_if(text.trim(), has_address && !has_control(text))
    };
}

fn keep_if(text: &str, is_valid: bool) -> Option<String> {
    is_valid.then(|| text.to_owned())
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// Returns whether a text is not empty and has no spaces.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !has_control(text) && !text.contains(char::is_whitespace)
}

/// Returns whether a text consists of ASCII letters, digits and `others`.
fn is_word(text: &str, others: &[u8]) -> bool {
    let mut bytes = text.bytes();
    !text.is_empty() && bytes.all(|c| c.is_ascii_alphanumeric() || others.contains(&c))
}

/// One of the keywords of `T`, as its serde names.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Keyword<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Keyword<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word: StringDeserializer<D::Error> =
            String::deserialize(deserializer)?.into_deserializer();
        T::deserialize(word).map(Self)
    }
}

/// Compression of the clusters that a push writes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    None,
    Zstd,
}

/// Encryption of new objects in the words of the file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EncryptionText(pub(crate) Encryption);

impl<'de> Deserialize<'de> for EncryptionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "\"bucket\", \"s3\", \"kms\", or kms: with the ID, alias or ARN of a key";
        parse_text(deserializer, expected, Encryption::parse).map(Self)
    }
}

impl Serialize for EncryptionText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Encryption::Bucket => serializer.serialize_str("bucket"),
            Encryption::S3 => serializer.serialize_str("s3"),
            Encryption::Kms { key: None } => serializer.serialize_str("kms"),
            Encryption::Kms { key: Some(key) } => {
                serializer.collect_str(&format_args!("kms:{key}"))
            }
        }
    }
}

impl From<EncryptionText> for Encryption {
    fn from(text: EncryptionText) -> Self {
        text.0
    }
}

/// Methods to read the disk of a running sandbox, each at most once.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RunningMethods(pub(crate) Vec<Method>);

impl<'de> Deserialize<'de> for RunningMethods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a comma-separated list of \"backup\", \"copy\" and \"convert\"";
        parse_text(deserializer, expected, parse_methods).map(Self)
    }
}

impl Serialize for RunningMethods {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let words: Vec<&str> = self.0.iter().map(|method| method.as_str()).collect();
        serializer.serialize_str(&words.join(", "))
    }
}

/// A network in the words of the file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NetworkName(pub(crate) Network);

impl<'de> Deserialize<'de> for NetworkName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "\"none\", a libvirt network, or bridge:NAME";
        parse_text(deserializer, expected, Network::parse).map(Self)
    }
}

impl Serialize for NetworkName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Network::None => serializer.serialize_str("none"),
            Network::Libvirt(name) => serializer.serialize_str(name),
            Network::Bridge(name) => serializer.collect_str(&format_args!("bridge:{name}")),
        }
    }
}

/// Names of organizations in the words of the file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Organizations(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Organizations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a comma-separated list of names, each of letters, digits, '.', '_' and '-'";
        parse_text(deserializer, expected, parse_organizations).map(Self)
    }
}

impl Serialize for Organizations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.join(", "))
    }
}

/// An integer from `MIN` to `MAX`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Count<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Count<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_i64(CountVisitor(MIN, MAX))
            .map(Self)
    }
}

impl<const MIN: u32, const MAX: u32> From<Count<MIN, MAX>> for u32 {
    fn from(count: Count<MIN, MAX>) -> Self {
        count.0
    }
}

impl<const MIN: u32, const MAX: u32> From<Count<MIN, MAX>> for u64 {
    fn from(count: Count<MIN, MAX>) -> Self {
        count.0.into()
    }
}

/// A number of seconds.
impl<const MIN: u32, const MAX: u32> From<Count<MIN, MAX>> for Duration {
    fn from(count: Count<MIN, MAX>) -> Self {
        Self::from_secs(count.0.into())
    }
}

struct CountVisitor(u32, u32);

impl Visitor<'_> for CountVisitor {
    type Value = u32;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an integer from {} to {}", self.0, self.1)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u32, E> {
        u32::try_from(value)
            .ok()
            .filter(|count| (self.0..=self.1).contains(count))
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(value), &self))
    }
}

/// Returns the columns of a list, each of `known` at most once. An empty list is valid: the name is always shown.
fn parse_columns(text: &str, known: &[&str]) -> Option<String> {
    let mut columns: Vec<&str> = Vec::new();
    for word in text.split(',').map(str::trim) {
        if word.is_empty() && text.trim().is_empty() {
            break;
        }
        let is_new = known.contains(&word) && !columns.contains(&word);
        columns.push(Some(word).filter(|_| is_new)?);
    }
    Some(columns.join(", "))
}

fn parse_organizations(text: &str) -> Option<Vec<String>> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let mut known = Vec::new();
    for name in names {
        if !is_organization(name) || known.iter().any(|other| other == name) {
            return None;
        }
        known.push(name.to_owned());
    }
    Some(known)
}

fn parse_methods(text: &str) -> Option<Vec<Method>> {
    let mut methods = Vec::new();
    for word in text.split(',') {
        let known = [Method::Backup, Method::Copy, Method::Convert];
        let method = known
            .into_iter()
            .find(|method| method.as_str() == word.trim())?;
        if methods.contains(&method) {
            return None;
        }
        methods.push(method);
    }
    Some(methods)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, from_value, json};

    /// Returns the normal form of a text as a `T`.
    fn normalize<T: DeserializeOwned + Serialize>(text: &str) -> Option<Value> {
        Some(json!(from_value::<T>(json!(text)).ok()?))
    }

    #[test]
    fn normal_forms() {
        for (text, prefix) in [("a", "a/"), ("/a/b/", "a/b/"), ("", ""), ("/", "")] {
            assert_eq!(normalize::<Prefix>(text), Some(json!(prefix)), "{text:?}");
        }
        assert_eq!(normalize::<Directory>("/srv/x//"), Some(json!("/srv/x")));
        assert_eq!(normalize::<Directory>("/"), Some(json!("/")));
        assert_eq!(
            normalize::<BucketColumns>("uploaded,size"),
            Some(json!("uploaded, size"))
        );
        let methods = normalize::<RunningMethods>("copy,backup");
        assert_eq!(methods, Some(json!("copy, backup")));
    }

    /// Checks texts separated by `|`.
    #[track_caller]
    fn check<T: DeserializeOwned + Serialize>(valid: &str, invalid: &str) {
        for text in valid.split('|') {
            assert!(normalize::<T>(text).is_some(), "{text:?}");
        }
        for text in invalid.split('|') {
            assert_eq!(normalize::<T>(text), None, "{text:?}");
        }
    }

    #[test]
    fn valid_and_invalid_values() {
        check::<Prefix>("a/b", "a//b|../a|a/./b|a\n");
        check::<Directory>("/a b/c", "|a|~/x|/a/../b|/a/..|/a\0b");
        check::<Owner>("libvirt-qemu:kvm|0:0", "|root|root:|:kvm|a:b:c|-r:x|a b:c");
        check::<Endpoint>(
            "http://minio:9000|https://s3.example.com|http://[::1]:8333|http://[::1]|http://h/path",
            "|minio:9000|ftp://x|http://|http://:9000|http://h:0|http://h:99999|http://u:p@h|\
             http://h x|http://::1:80",
        );
        check::<BucketName>("daytona|arn:aws:s3:eu-west-1:1:accesspoint/x", "|a/b|a b");
        check::<LibvirtUri>(
            "qemu:///system|qemu+unix:///system|qemu+ssh://root@h/system|test:///default|qemu:///embed?root=/x",
            "|qemu|qemu:///a b|qemu+ssh://root:pw@h/system|qemu+tcp://h/system|qemu+tls://h/system|qemu://h/system|\
             qemu+ssh:///system|qemu+tcp:///system",
        );
        check::<Keyword<Compression>>("none|zstd", "|zlib|ZSTD");
        let methods = "backup, copy, convert|convert";
        check::<RunningMethods>(methods, "|pause|backup copy|copy,copy|append");
        check::<SandboxColumns>("|mem|base, state,overlay", "size|mem,mem|mem,|mem cpu|MEM");
        check::<SnapshotColumns>("bucket,size", "on-host");
        check::<BucketColumns>("on-host,size,uploaded", "on host");
        check::<Viewer>(
            "remote-viewer {url}|v {host}::{port}",
            "|remote-viewer|a {url}\n",
        );
        check::<NetworkName>("none|default|bridge:br0", "|bridge:|a b|a/b");
        check::<FilePath>("/a b/c.xml", "|a|~/x|/a/|/a\0b");
    }
}
