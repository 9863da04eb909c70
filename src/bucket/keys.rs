//! Keys of snapshots in the bucket.

use snapdeck_model::{Digest, SnapshotName};

/// `PREFIX/NAME.qcow2`: the image.
pub(crate) const IMAGE_SUFFIX: &str = ".qcow2";
/// `PREFIX/NAME.json`: the manifest.
pub(crate) const MANIFEST_SUFFIX: &str = ".json";
/// `PREFIX/NAME_VARS.fd`: the UEFI variables of an image whose metadata does not name any.
pub(crate) const VARIABLES_SUFFIX: &str = "_VARS.fd";

/// `PREFIX/NAME_VARS.DIGEST.fd`: the UEFI variables with that SHA-256, of which the key has 16 digits. With the digest in
/// the key, those of a new image never replace those of the image that it is about to overwrite.
pub(crate) fn variables_suffix(digest: Digest) -> String {
    let digest = digest.to_string();
    let digits = digest.get(..16).unwrap_or_default();
    format!("_VARS.{digits}.fd")
}

/// Returns the snapshot whose UEFI variables have `key`, whatever their digest.
pub(crate) fn variables_owner(prefix: &str, key: &str) -> Option<SnapshotName> {
    let (stem, digits) = key.strip_suffix(".fd")?.rsplit_once("_VARS.")?;
    let is_digest = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_digest.then(|| snapshot_name(prefix, stem, &[""]))?
}

/// Returns the snapshot whose file with one of `suffixes` has `key`; `None` if that snapshot's key is another one
/// (`a.qcow2.qcow2`).
pub(crate) fn snapshot_name(prefix: &str, key: &str, suffixes: &[&str]) -> Option<SnapshotName> {
    let file = key.strip_prefix(prefix)?;
    let stem = suffixes.iter().find_map(|s| file.strip_suffix(s))?;
    let name: SnapshotName = stem.parse().ok()?;
    (name.as_str() == stem).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_names_under_the_prefix_and_one_level_deeper() {
        let name = |key, suffixes: &[&str]| {
            snapshot_name("p/", key, suffixes).map(|name| name.to_string())
        };
        let all = [IMAGE_SUFFIX, VARIABLES_SUFFIX];
        assert_eq!(name("p/a-1.qcow2", &all).as_deref(), Some("a-1"));
        assert_eq!(name("p/a-1_VARS.fd", &all).as_deref(), Some("a-1"));
        assert_eq!(name("p/a-1_VARS.fd", &[IMAGE_SUFFIX]), None);
        assert_eq!(name("p/acme/a.qcow2", &all).as_deref(), Some("acme/a"));
        assert_eq!(name("p/acme/a_VARS.fd", &all).as_deref(), Some("acme/a"));
        let digest = |key| variables_owner("p/", key).map(|name| name.to_string());
        assert_eq!(
            digest("p/a-1_VARS.0123456789abcdef.fd").as_deref(),
            Some("a-1")
        );
        assert_eq!(
            digest("p/acme/a_VARS.0123456789abcdef.fd").as_deref(),
            Some("acme/a")
        );
        assert_eq!(digest("p/a_VARS.123.fd"), None);
        assert_eq!(digest("a_VARS.0123456789abcdef.fd"), None);
        for key in [
            "p/",
            "p/.qcow2",
            "p/very/deep/a.qcow2",
            "p//a.qcow2",
            "p/acme/.qcow2",
            "p/a.qcow2/b.qcow2",
            "p/.acme/a.qcow2",
            "p/a.json",
            "p/a.qcow2.qcow2",
            "p/a b.qcow2",
            "a.qcow2",
        ] {
            assert_eq!(name(key, &all), None, "{key}");
        }
    }
}
