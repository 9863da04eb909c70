//! Bounds on the JSON of manifests, which hosts and stores may have made up. They are checked before it is parsed: a
//! parsed value takes many times its bytes.

/// Values of a manifest, with labels and the keys of later versions.
const MAX_VALUES: usize = 10_000;
/// Length in bytes of each text but that of the digests.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// Key of the digests.
const DIGESTS_KEY: &[u8] = b"blocks";

/// Returns whether `json` has as few values and as short texts as a manifest.
pub(crate) fn is_bounded(json: &[u8]) -> bool {
    let (mut values, mut previous) = (1, &json[..0]);
    let mut rest = json;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b',' | b':' | b'[' | b'{' => values += 1,
            b'"' => {
                let length = text_length(rest);
                let Some((text, after)) = rest.split_at_checked(length) else {
                    return false;
                };
                if length > MAX_TEXT_BYTES && previous != DIGESTS_KEY {
                    return false;
                }
                // The quotation mark at its end.
                (previous, rest) = (text, after.get(1..).unwrap_or_default());
            }
            _ => {}
        }
        if values > MAX_VALUES {
            return false;
        }
    }
    true
}

/// Returns the length of the text at the start of `rest`, up to its quotation mark.
fn text_length(rest: &[u8]) -> usize {
    let mut is_escaped = false;
    let end = rest.iter().position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    end.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_values_and_long_texts_are_refused_before_they_are_parsed() {
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        for valid in [
            String::new(),
            "{\"format\":1,\"notes\":\"a, b: [c] {d} \\\" e\"}".into(),
            format!("{{\"blocks\":\"{long}\"}}"),
            format!("{{\"notes\":\"{}\"}}", "[".repeat(MAX_TEXT_BYTES)),
            format!("{{\"notes\":\"\\\\\",\"blocks\": \"{long}\"}}"),
        ] {
            assert!(is_bounded(valid.as_bytes()), "{valid:.60}");
        }
        for invalid in [
            "[".repeat(20_000),
            format!("{{\"z\":[{}0]}}", "0,".repeat(20_000)),
            "{\"a\":".repeat(20_000),
            format!("{{\"notes\":\"{long}\"}}"),
            format!("{{\"blocks\":1,\"notes\":\"{long}"),
            format!("{{\"notes\":\"\\\"{long}\"}}"),
            format!("{{\"{long}\":1}}"),
        ] {
            assert!(!is_bounded(invalid.as_bytes()), "{invalid:.60}");
        }
    }
}
