//! The environment as a layer. A variable that is set to nothing counts as not set, as the AWS tools
//! have it.

use std::ffi::OsString;
use std::path::PathBuf;

use super::host_from_uri;
use super::layer::{Layer, Origin, Value, find_key, invalid_setting};
use snapdeck_model::Result;

type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// A path, which need not be Unicode.
pub(super) fn read_path(env: Env<'_>, name: &str) -> Option<PathBuf> {
    env(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// A text that must be Unicode.
pub(super) fn read_text(env: Env<'_>, name: &'static str) -> Result<Option<String>> {
    env(name)
        .filter(|value| !value.is_empty())
        .map(|value| {
            value
                .into_string()
                .map_err(|_| invalid_setting(&Origin::Environment(name), "it is not valid Unicode"))
        })
        .transpose()
}

/// Covers `layer`. `LIBVIRT_URI` speaks only where the file has no hosts: a list that somebody wrote
/// down is not replaced by a variable that virsh, too, listens to. `notes` tells of what was passed over.
pub(super) fn apply_environment(
    layer: &mut Layer,
    env: Env<'_>,
    hosts_in_file: bool,
    notes: &mut Vec<String>,
) -> Result<()> {
    match read_text(env, "LIBVIRT_URI")? {
        Some(uri) if !hosts_in_file => {
            layer.hosts = vec![host_from_uri(&uri, &Origin::Environment("LIBVIRT_URI"))?];
        }
        Some(_) => notes.push("LIBVIRT_URI is ignored because [[hosts]] is configured".to_owned()),
        None => {}
    }
    for (variable, name) in [
        ("AWS_ENDPOINT_URL", "endpoint"),
        ("AWS_REGION", "region"),
        ("AWS_DEFAULT_BUCKET", "name"),
    ] {
        if let (Some(value), Some(key)) = (read_text(env, variable)?, find_key("bucket", name)) {
            layer.set_text(key, value, Origin::Environment(variable))?;
        }
    }
    apply_key_pair(layer, env, notes)
}

/// The key pair. It is never mixed from a file's half and the environment's other half where the file
/// has both; and a pair with a session token is left to the AWS chain, which takes all three.
fn apply_key_pair(layer: &mut Layer, env: Env<'_>, notes: &mut Vec<String>) -> Result<()> {
    let halves = [
        (KEY_ID, "access_key_id", read_text(env, KEY_ID)?),
        (SECRET, "secret_access_key", read_text(env, SECRET)?),
    ];
    let given = halves
        .iter()
        .filter(|(_, _, value)| value.is_some())
        .count();
    if given == 2 && read_text(env, TOKEN)?.is_some() {
        let bucket = layer.tables.entry("bucket").or_default();
        halves.iter().for_each(|(_, name, _)| {
            bucket.remove(name);
        });
        notes.push(format!(
            "the key pair is left to the AWS chain because {TOKEN} is set beside {KEY_ID}"
        ));
        return Ok(());
    }
    for (variable, name, value) in halves {
        let (Some(value), Some(key)) = (value, find_key("bucket", name)) else {
            continue;
        };
        let origin = Origin::Environment(variable);
        if let Some(below) = layer.get("bucket", name).filter(|_| given == 1)
            && below.value != Value::Text(value.clone())
        {
            let other = if variable == KEY_ID { SECRET } else { KEY_ID };
            return Err(invalid_setting(
                &origin,
                format!(
                    "it is set without {other}, and {} sets another {name}",
                    below.origin
                ),
            )
            .hint("set both variables, or neither"));
        }
        layer.set_text(key, value, origin)?;
    }
    Ok(())
}
