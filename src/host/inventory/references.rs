//! Names of backing and data files in images, resolved as QEMU does.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Options in options: each level is one of the stack.
const MAX_DEPTH: usize = 32;
/// Format drivers, and filters, of QEMU: the image is in their child `file`.
const FORMAT_DRIVERS: &[&str] = &[
    "qcow2",
    "raw",
    "qcow",
    "qed",
    "vmdk",
    "vdi",
    "vpc",
    "vhdx",
    "parallels",
    "dmg",
    "bochs",
    "cloop",
    "luks",
    "copy-on-read",
    "throttle",
    "preallocate",
];
/// Drivers of files and devices of the host.
const FILE_DRIVERS: &[&str] = &["file", "host_device", "host_cdrom"];
/// Drivers, and protocols of URLs, that use no file of the host.
const REMOTE_DRIVERS: &[&str] = &[
    "nbd",
    "nbd+tcp",
    "nbd+unix",
    "http",
    "https",
    "ftp",
    "ftps",
    "ssh",
    "rbd",
    "iscsi",
    "iser",
    "gluster",
    "gluster+tcp",
    "gluster+rdma",
    "gluster+unix",
    "nfs",
    "sheepdog",
    "null-co",
    "null-aio",
];

/// The files that a name refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub target: Target,
    /// Further files, for example a backing file that replaces the one in the header.
    pub others: Vec<PathBuf>,
    /// Whether it refers to no other files of the host.
    pub is_complete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    File(PathBuf),
    /// Not a file of this host, for example an NBD export.
    Remote,
    Unknown,
}

impl Reference {
    fn new(target: Target) -> Self {
        Self {
            is_complete: target != Target::Unknown,
            others: Vec::new(),
            target,
        }
    }
}

/// Resolves a name in the header of `image` (QEMU, docs/interop/qcow2, "backing file name": relative to the directory of
/// the image's name as it was given, also if that is a link; with the syntax of block drivers in `-drive file=`).
pub(super) fn resolve(image: &Path, name: &str) -> Reference {
    let Some(json) = name.strip_prefix("json:") else {
        return Reference::new(resolve_file_name(image, name));
    };
    let mut reference = Reference::new(Target::Remote);
    let Ok(Value::Object(options)) = serde_json::from_str(json) else {
        return Reference::new(Target::Unknown);
    };
    reference.target = resolve_node(image, &nest(options, 0), &mut reference);
    reference.is_complete &= reference.target != Target::Unknown;
    reference
}

fn resolve_file_name(image: &Path, name: &str) -> Target {
    let file = |name: &str| Target::File(image.parent().unwrap_or(Path::new("/")).join(name));
    // A protocol ends at the first colon, unless a slash precedes it.
    let protocol = match name.find([':', '/']) {
        Some(index) if name[index..].starts_with(':') => &name[..index],
        _ => return file(name),
    };
    let rest = &name[protocol.len() + 1..];
    if FILE_DRIVERS.contains(&protocol) {
        file(rest)
    } else if REMOTE_DRIVERS.contains(&protocol) {
        Target::Remote
    } else {
        Target::Unknown
    }
}

/// Resolves the options of a block driver, and adds the files of its other children.
fn resolve_node(image: &Path, node: &Map<String, Value>, reference: &mut Reference) -> Target {
    for child in ["backing", "data-file"] {
        match node.get(child) {
            None | Some(Value::Null) => {}
            Some(Value::Object(options)) => match resolve_node(image, options, reference) {
                Target::File(path) => reference.others.push(path),
                Target::Remote => {}
                Target::Unknown => reference.is_complete = false,
            },
            // The name of another node.
            Some(_) => reference.is_complete = false,
        }
    }
    let filename = node.get("filename").and_then(Value::as_str);
    // A relative name is resolved against the directory of the process.
    let file = |name: &str| match name.starts_with('/') {
        true => Target::File(name.into()),
        false => Target::Unknown,
    };
    match (node.get("driver").and_then(Value::as_str), node.get("file")) {
        (Some(driver), _) if FILE_DRIVERS.contains(&driver) => {
            filename.map_or(Target::Unknown, file)
        }
        (Some(driver), _) if REMOTE_DRIVERS.contains(&driver) => Target::Remote,
        (Some(driver), Some(Value::Object(options))) if FORMAT_DRIVERS.contains(&driver) => {
            resolve_node(image, options, reference)
        }
        (None, Some(Value::Object(options))) => resolve_node(image, options, reference),
        (None, None) => match filename.map(|name| (name, resolve_file_name(image, name))) {
            Some((name, Target::File(_))) if !name.contains(':') => file(name),
            Some((_, target)) => target,
            None => Target::Unknown,
        },
        _ => Target::Unknown,
    }
}

/// Turns `{"a.b": 1}` into `{"a": {"b": 1}}`; what is nested in `depth` others and too deep is not understood.
fn nest(options: Map<String, Value>, depth: usize) -> Map<String, Value> {
    let (mut nested, mut is_too_deep) = (Map::new(), false);
    for (key, value) in options {
        let depth = depth + 1 + key.matches('.').count();
        if depth > MAX_DEPTH {
            is_too_deep = true;
            continue;
        }
        let value = match value {
            Value::Object(options) => Value::Object(nest(options, depth)),
            value => value,
        };
        insert(&mut nested, &key, value);
    }
    // Last: other keys must not take its place.
    if is_too_deep {
        mark_unknown(&mut nested);
    }
    nested
}

fn insert(node: &mut Map<String, Value>, key: &str, value: Value) {
    let Some((first, rest)) = key.split_once('.') else {
        return match (node.get_mut(key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (_, value) => {
                node.insert(key.to_owned(), value);
            }
        };
    };
    let child = node.entry(first).or_insert_with(|| Map::new().into());
    if let Value::Object(child) = child {
        insert(child, rest, value);
    } else {
        // A value that is both a text and options.
        mark_unknown(node);
    }
}

/// Makes options ones that are not understood.
fn mark_unknown(node: &mut Map<String, Value>) {
    node.insert("driver".to_owned(), Value::Null);
    node.insert("file".to_owned(), Value::Null);
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static DEEP_KEY: LazyLock<String> =
        LazyLock::new(|| format!(r#"{{"{}":1,"filename":"/b/x"}}"#, "a.".repeat(100_000)));
    static DEEP_OPTIONS: LazyLock<String> = LazyLock::new(|| {
        let (start, end) = (r#"{"a.b.c.d.e.f":"#.repeat(100), "}".repeat(100));
        format!(r#"{{"filename":"/b/x","x":{start}1{end}}}"#)
    });

    fn text(reference: &Reference) -> String {
        let target = match &reference.target {
            Target::File(path) => path.display().to_string(),
            Target::Remote => "remote".into(),
            Target::Unknown => "unknown".into(),
        };
        let others = reference
            .others
            .iter()
            .map(|path| path.display().to_string());
        let more = (!reference.is_complete).then(|| "incomplete".to_owned());
        let all: Vec<String> = [target].into_iter().chain(others).chain(more).collect();
        all.join(" ")
    }

    #[test]
    fn names_are_resolved_as_qemu_does() {
        for (name, expected) in [
            ("/b/x.qcow2", "/b/x.qcow2"),
            ("x.qcow2", "/s/x.qcow2"),
            ("../b/x.qcow2", "/s/../b/x.qcow2"),
            ("file:/b/x", "/b/x"),
            ("host_device:/dev/x", "/dev/x"),
            ("./a:b", "/s/./a:b"),
            ("nbd://localhost/x", "remote"),
            ("blkdebug:rules:/b/x", "unknown incomplete"),
        ] {
            let reference = resolve(Path::new("/s/o.qcow2"), name);
            assert_eq!(text(&reference), expected, "{name}");
        }
    }

    #[test]
    fn options_of_block_drivers_are_understood_or_unknown() {
        for (json, expected) in [
            (
                r#"{"driver":"qcow2","file":{"driver":"file","filename":"/b/x"}}"#,
                "/b/x",
            ),
            (r#"{"file.filename":"/b/x"}"#, "/b/x"),
            (
                r#"{"driver":"raw","file.driver":"host_device","file.filename":"/dev/x"}"#,
                "/dev/x",
            ),
            (r#"{"filename":"nbd:localhost:1"}"#, "remote"),
            (r#"{"driver":"nbd","host":"h","port":"1"}"#, "remote"),
            (
                r#"{"driver":"qcow2","file.filename":"/b/x","backing":{"driver":"qcow2","file":{"driver":"file","filename":"/b/y"}}}"#,
                "/b/x /b/y",
            ),
            (
                r#"{"driver":"qcow2","file.filename":"/b/x","backing":"node"}"#,
                "/b/x incomplete",
            ),
            // Options that are nested too deep.
            (&DEEP_KEY, "unknown incomplete"),
            (&DEEP_OPTIONS, "/b/x"),
            // Relative to the directory of the process.
            (r#"{"file.filename":"x"}"#, "unknown incomplete"),
            (
                r#"{"driver":"blkdebug","image.filename":"/b/x"}"#,
                "unknown incomplete",
            ),
            (r#"{"driver":"qcow2","file":"node"}"#, "unknown incomplete"),
            ("{", "unknown incomplete"),
            ("[]", "unknown incomplete"),
        ] {
            let reference = resolve(Path::new("/s/o.qcow2"), &format!("json:{json}"));
            assert_eq!(text(&reference), expected, "{json}");
        }
    }

    #[test]
    fn fuzz_references() {
        snapdeck_fuzz::FuzzTarget::new("names of backing files")
            .seed("base.qcow2")
            .seed("nbd+tcp://host/export")
            .seed(r#"json:{"driver":"qcow2","file.driver":"file","file.filename":"/a","backing":{"file":{"filename":"/b"}}}"#)
            .words(&["json:", "\"file.\":", "\"driver\":\"", "a.", ".b", "file:", "\"data-file\":"])
            // A name in a header has at most 1023 bytes, three times that as text.
            .max_bytes(3069)
            .memory(4 << 20, 64)
            .run(|name| {
                let reference = resolve(Path::new("/a/b.qcow2"), &snapdeck_fuzz::text(name));
                if reference.target == Target::Unknown {
                    assert!(!reference.is_complete);
                }
            });
    }
}
