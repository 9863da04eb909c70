//! The environment as a layer. An empty variable counts as unset, as in the AWS tools.

use std::ffi::OsString;
use std::path::PathBuf;

use super::layer::{Layer, Origin, invalid_setting};
use super::{set_bucket_key, set_only_host};
use snapdeck_model::Result;

type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// Returns a path, which need not be Unicode.
pub(crate) fn read_path(env: Env<'_>, name: &str) -> Option<PathBuf> {
    env(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Returns a text, which must be Unicode.
pub(crate) fn read_text(env: Env<'_>, variable: &'static str) -> Result<Option<String>> {
    let invalid = |_| invalid_setting(&Origin::Environment { variable }, "it is not valid Unicode");
    env(variable)
        .filter(|value| !value.is_empty())
        .map(|value| value.into_string().map_err(invalid))
        .transpose()
}

/// Puts the environment on top of `layer`, and a note into `notes` for each variable that is ignored.
///
/// `LIBVIRT_URI` is ignored if the file has hosts: virsh uses the variable too, and it must not replace a list.
pub(crate) fn apply_environment(
    layer: &mut Layer,
    env: Env<'_>,
    has_hosts_in_file: bool,
    notes: &mut Vec<String>,
) -> Result<()> {
    let variable = "LIBVIRT_URI";
    match read_text(env, variable)? {
        Some(uri) if !has_hosts_in_file => {
            set_only_host(layer, &uri, &Origin::Environment { variable })?;
        }
        Some(_) => notes.push("LIBVIRT_URI is ignored because [[hosts]] is configured".to_owned()),
        None => {}
    }
    for (variable, key) in [
        ("AWS_ENDPOINT_URL", "endpoint"),
        ("AWS_REGION", "region"),
        ("AWS_DEFAULT_BUCKET", "name"),
        ("AWS_PROFILE", "profile"),
    ] {
        if let Some(value) = read_text(env, variable)? {
            set_bucket_key(layer, key, &value, &Origin::Environment { variable })?;
        }
    }
    apply_key_pair(layer, env, notes)
}

/// Applies the key pair. Halves of different pairs are never mixed; a pair with a session token is left to the AWS
/// chain, which reads all three.
fn apply_key_pair(layer: &mut Layer, env: Env<'_>, notes: &mut Vec<String>) -> Result<()> {
    let (id, secret) = (read_text(env, KEY_ID)?, read_text(env, SECRET)?);
    let has_both = id.is_some() && secret.is_some();
    if has_both && read_text(env, TOKEN)?.is_some() {
        layer.bucket.access_key_id = None;
        layer.bucket.secret_access_key = None;
        notes.push(format!(
            "the key pair is left to the AWS chain because {TOKEN} is set beside {KEY_ID}"
        ));
        return Ok(());
    }
    for (variable, key, other, value) in [
        (KEY_ID, "access_key_id", SECRET, id),
        (SECRET, "secret_access_key", KEY_ID, secret),
    ] {
        let Some(value) = value else { continue };
        let origin = Origin::Environment { variable };
        let below = match variable {
            KEY_ID => &layer.bucket.access_key_id,
            _ => &layer.bucket.secret_access_key,
        };
        if let Some(below) = below.as_ref().filter(|below| below.value.0 != value)
            && !has_both
        {
            let place = &below.entry.origin;
            let cause = format!("it is set without {other}, and {place} sets another {key}");
            return Err(invalid_setting(&origin, cause).hint("set both variables, or neither"));
        }
        set_bucket_key(layer, key, &value, &origin)?;
    }
    Ok(())
}
