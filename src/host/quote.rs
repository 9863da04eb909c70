//! Words for a shell on a host: the only place where they are quoted.

/// One line of POSIX shell (XCU 2.2.2) that is exactly `words`, whatever they are made of. Words never hold a
/// NUL: no argument of a process can.
pub fn line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words
        .into_iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
        .collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn through_a_shell(words: &[&str]) -> Vec<String> {
        let line = line(["printf", "%s\\0"].into_iter().chain(words.iter().copied()));
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
        assert_eq!(through_a_shell(&words), words);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_words_come_through(words in prop::collection::vec("[^\0]{0,12}", 1..4)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            prop_assert_eq!(through_a_shell(&words), words);
        }
    }
}
