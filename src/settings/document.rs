//! Reads a layer from TOML. Each error names the file, the line and the key.

use serde_path_to_error::Segment;

use super::layer::{Layer, Origin, SECTIONS, heading, invalid_setting};
use super::text::{find_similar, line_number};
use snapdeck_model::{Error, Result};

/// Reads a layer; `origin_of_line` returns the origin of the values in a line, which counts from 1.
///
/// # Errors
/// `InvalidInput` for a syntax error, an unknown key, a wrong type, an invalid value.
pub(crate) fn read(text: &str, origin_of_line: &dyn Fn(usize) -> Origin) -> Result<Layer> {
    let origin_at = |at: usize| origin_of_line(line_number(text, at));
    // Only the message is used: the error's `Display` repeats the line, which may contain a secret.
    let document = toml::Deserializer::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let cause = match key_of_line(text, at) {
            Some(key) => format!("key {key}: {}", error.message()),
            None => error.message().to_owned(),
        };
        invalid_setting(&origin_at(at), cause)
    })?;
    let mut layer: Layer = serde_path_to_error::deserialize(document).map_err(|error| {
        let keys = error.path().iter().filter_map(|segment| match segment {
            Segment::Map { key } if !key.starts_with("$__serde_spanned") => Some(key.as_str()),
            _ => None,
        });
        let keys: Vec<&str> = keys.collect();
        let at = error.inner().span().map_or(0, |span| span.start);
        value_error(&origin_at(at), &keys, error.inner().message())
    })?;
    layer.set_origins(&origin_at);
    check_hosts(&layer, &origin_at)?;
    Ok(layer)
}

/// Returns the error of the value at the path `keys`.
fn value_error(origin: &Origin, keys: &[&str], message: &str) -> Error {
    let section = keys.first().copied().unwrap_or_default();
    let Some((_, known)) = SECTIONS.iter().find(|(name, _)| *name == section) else {
        return unknown_section(origin, section);
    };
    let heading = heading(section);
    match keys.get(1).copied() {
        None if section == "hosts" => invalid_setting(origin, "hosts must be a list of tables")
            .hint("begin each host with a line [[hosts]]"),
        None => invalid_setting(origin, format!("{heading} must be a table")),
        Some(key) if !known.contains(&key) => {
            let hint = match find_similar(key, known.iter().copied()) {
                Some(similar) => format!("did you mean {similar}?"),
                None => format!("known keys: {}", known.join(", ")),
            };
            invalid_setting(origin, format!("unknown key {key:?} in {heading}")).hint(hint)
        }
        // The message would repeat the value.
        Some(key @ ("access_key_id" | "secret_access_key")) => invalid_setting(
            origin,
            format!("{key} in {heading}: invalid value, expected a string without spaces"),
        ),
        Some(key) => {
            let message = message.replace("unknown variant", "unknown value");
            invalid_setting(origin, format!("{key} in {heading}: {message}"))
        }
    }
}

fn unknown_section(origin: &Origin, name: &str) -> Error {
    let similar = find_similar(name, SECTIONS.iter().map(|(section, _)| *section));
    let owner = SECTIONS.iter().find(|(_, keys)| keys.contains(&name));
    let hint = match (similar, owner) {
        (Some(section), _) => format!("did you mean {}?", heading(section)),
        (None, Some((section, _))) => format!("move it to {}", heading(section)),
        (None, None) => {
            let known: Vec<String> = SECTIONS
                .iter()
                .map(|(section, _)| heading(section))
                .collect();
            format!("known tables: {}", known.join(", "))
        }
    };
    invalid_setting(origin, format!("unknown key {name:?} at the top level")).hint(hint)
}

/// Checks that each host has a name and a URI, and that the names are unique.
fn check_hosts(layer: &Layer, origin_at: &dyn Fn(usize) -> Origin) -> Result<()> {
    for (index, spanned) in layer.hosts.iter().enumerate() {
        let host = spanned.as_ref();
        let missing = |key: &str| {
            let origin = origin_at(spanned.span().start);
            invalid_setting(&origin, format!("[[hosts]] has no {key}"))
        };
        let name = host.name.as_ref().ok_or_else(|| missing("name"))?;
        host.uri.as_ref().ok_or_else(|| missing("uri"))?;
        let earlier = layer.hosts.iter().take(index);
        let earlier = earlier.filter_map(|host| host.as_ref().name.as_ref());
        if let Some(twin) = earlier.into_iter().find(|other| other.value == name.value) {
            let origin = name.entry.origin.clone();
            let (name, place) = (&name.value, &twin.entry.origin);
            let cause = format!("name in [[hosts]] must be unique, {name} is also at {place}");
            return Err(invalid_setting(&origin, cause));
        }
    }
    Ok(())
}

/// Returns the key at the beginning of the line at `at`, if any.
fn key_of_line(text: &str, at: usize) -> Option<&str> {
    let line = text.lines().nth(line_number(text, at) - 1)?;
    let key = line.split_once('=')?.0.trim();
    let is_key = !key.is_empty()
        && key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"_-.".contains(&c));
    is_key.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_settings() {
        snapdeck_fuzz::FuzzTarget::new("settings")
            .seed(include_str!("../../config/default.toml"))
            .seed("[[hosts]]\nname = \"a\"\nuri = \"qemu+ssh://root@a:22/system?keyfile=/k\"\nowner = \"0:0\"\n")
            .words(&["[bucket]\n", "[[hosts]]\n", "endpoint = \"http://", "owner = \"", "uri = \"qemu+ssh://"])
            // The tree of TOML with its positions.
            .memory(4 << 20, 512)
            .run(|text| {
                let origin = |_: usize| Origin::Default;
                let _ = read(&snapdeck_fuzz::text(text), &origin);
            });
    }
}
