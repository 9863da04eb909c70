//! Quotes command lines for POSIX shells on hosts, and for operators to copy.

use std::fmt::Write as _;

/// Returns one line of POSIX shell that is exactly `words`.
///
/// They contain no NUL, as arguments of a process cannot.
pub(crate) fn quote_words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    // A NUL is the only error; it is allowed here, and starting the command fails then.
    let quoter = shlex::Quoter::new().allow_nul(true);
    quoter.join(words).unwrap_or_default()
}

/// Returns `line` of POSIX shell as a command that starts `sh` with it, for any shell that has `exec` and single quotes:
/// POSIX ones, csh, tcsh, fish.
pub(crate) fn quote_for_any_shell(line: &str) -> String {
    let mut encoded = String::new();
    for byte in line.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'/' | b'.' | b'_' | b'-' => {
                encoded.push(byte.into());
            }
            // An octal escape of printf (POSIX, XCU printf).
            _ => {
                let _ = write!(encoded, "\\{byte:03o}");
            }
        }
    }
    format!("exec sh -c 'eval \"$(printf \"$0\")\"' '{encoded}'")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn run_in_shell(words: &[&str]) -> Vec<String> {
        let line = quote_words(["printf", "%s\\0"].into_iter().chain(words.iter().copied()));
        let output = std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn special_characters_are_not_interpreted() {
        let words = [
            "a b",
            "$(touch /tmp/x)",
            "`id`",
            "'; rm -rf /; '",
            "\"",
            "\\",
            "*",
            "~",
            "{a,b}",
            "-n",
            "",
            "line\nbreak",
            "ä→😀",
            "!!",
        ];
        assert_eq!(run_in_shell(&words), words);
    }

    #[test]
    fn a_line_passes_shells_that_are_not_posix_ones() {
        let words = [
            "a'b",
            "$HOME \\ ! \"",
            "line\nbreak",
            "%s \\n",
            "ä→😀",
            "*?{x}~",
        ];
        let line = quote_words(["printf", "%s|"].into_iter().chain(words));
        for shell in ["sh", "bash", "csh", "tcsh", "fish", "zsh"] {
            let mut command = std::process::Command::new(shell);
            match command.args(["-c", &quote_for_any_shell(&line)]).output() {
                Ok(output) => assert_eq!(
                    String::from_utf8(output.stdout).unwrap(),
                    words.map(|word| format!("{word}|")).concat(),
                    "{shell}"
                ),
                // Not each is installed everywhere.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
            }
        }
    }

    #[test]
    fn only_words_that_need_quotes_have_them() {
        assert_eq!(
            quote_words(["chown", "qemu:qemu", "/a b/it's", "~x", ""]),
            r#"chown qemu:qemu "/a b/it's" '~x' ''"#
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_words_are_passed_unchanged(words in prop::collection::vec("[^\0]{0,12}", 1..4)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            prop_assert_eq!(run_in_shell(&words), words);
        }
    }
}
