//! Words for a shell on a host: the only place where they are quoted.

/// One line of POSIX shell (XCU 2.2.2) that is exactly `words`, whatever they are made of. Words never hold a
/// NUL: no argument of a process can.
pub(crate) fn quote_words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words
        .into_iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
        .collect();
    quoted.join(" ")
}

/// The same for a person to read and paste: words that need no quotes have none.
pub(crate) fn quote_for_display<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"/._-+:=,@%".contains(&c);
    let words: Vec<String> = words
        .into_iter()
        .map(|word| match !word.is_empty() && word.bytes().all(plain) {
            true => word.to_owned(),
            false => quote_words([word]),
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn run_in_shell(words: &[&str]) -> Vec<String> {
        let line = quote_words(["printf", "%s\\0"].into_iter().chain(words.iter().copied()));
        let said = std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn hostile_names_stay_what_they_are() {
        let words = [
            "a b",
            "$(touch /tmp/x)",
            "`id`",
            "'; rm -rf /; '",
            "\"",
            "\\",
            "*",
            "~",
            "-n",
            "",
            "line\nbreak",
            "ä→😀",
            "!!",
        ];
        assert_eq!(run_in_shell(&words), words);
    }

    #[test]
    fn what_is_told_has_quotes_where_it_needs_them() {
        assert_eq!(
            quote_for_display(["chown", "qemu:qemu", "/a b/it's", "~x", ""]),
            r"chown qemu:qemu '/a b/it'\''s' '~x' ''"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_words_come_through(words in prop::collection::vec("[^\0]{0,12}", 1..4)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            prop_assert_eq!(run_in_shell(&words), words);
        }
    }
}
