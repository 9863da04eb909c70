//! Parses the documents of libvirt. An untrusted host may have made them up.

use roxmltree::{Document, ParsingOptions};

/// Maximum length of a document; libvirt's own limit is 4 MiB, too.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Elements and texts; those of a domain with a hundred disks are some thousand.
const MAX_NODES: u32 = 50_000;
/// Elements within each other. A chain of backing files is nested.
const MAX_DEPTH: u16 = 300;

/// Parses a document.
///
/// # Errors
/// Why it is not one that libvirt writes.
pub(crate) fn parse_xml(xml: &str) -> Result<Document<'_>, String> {
    if xml.len() > MAX_BYTES {
        return Err("it is longer than 4 MiB".to_owned());
    }
    let options = ParsingOptions {
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(xml, options).map_err(|error| error.to_string())?;
    // Each node comes after its parent.
    let mut depths: Vec<u16> = Vec::new();
    for node in document.descendants() {
        let parent = node
            .parent()
            .and_then(|node| depths.get(node.id().get_usize()));
        let depth = parent.map_or(0, |depth| depth + 1);
        if depth > MAX_DEPTH {
            return Err(format!(
                "its elements are nested more than {MAX_DEPTH} deep"
            ));
        }
        depths.push(depth);
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_take_long_are_refused() {
        let nested = |depth| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(parse_xml(&nested(290)).is_ok());
        for (xml, cause) in [
            (nested(310), "nested"),
            (nested(400_000), "nodes limit"),
            (format!("<a>{}</a>", "<b/>".repeat(60_000)), "nodes limit"),
            (format!("<a>{}</a>", " ".repeat(5 << 20)), "4 MiB"),
            (
                "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>".to_owned(),
                "DTD",
            ),
        ] {
            let error = parse_xml(&xml).map(|_| ()).unwrap_err();
            assert!(error.contains(cause), "{error}");
        }
    }
}
