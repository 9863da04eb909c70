//! The language of filters: words of a name, in any spelling that keeps their letters' order, and fields.
//!
//! ```text
//! web 01          both words, each letter of a word in its order: `wsb` finds winserver-base
//! state:running   a field's text contains that; `=` is the whole text
//! size>10G        also <, >=, <=; memory, cpus, users, size, date>2026-01-31, age<7d
//! !base:old       what does not match
//! ```

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::columns::{COLUMNS, Column, Row, Value};
use super::format::parse_size;

/// What a filter looks for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Query(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Word(String),
    Contains(Column, String),
    Equals(Column, String),
    Number(Column, Comparison, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// How well a row matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// Every word stands in it as it is.
    Substring,
    /// The letters of some word are scattered over it.
    Fuzzy,
}

impl Query {
    /// Reads `text`. A field that is not finished yet counts as not written; the second part says what cannot be meant
    /// and is left out.
    pub(crate) fn parse(text: &str, now: Timestamp) -> (Self, Option<String>) {
        let mut terms = Vec::new();
        let mut complaint = None;
        for token in tokens(text) {
            let (negated, token) = match token.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, token.as_str()),
            };
            match test(token, now) {
                Ok(test) => terms.extend(test.map(|test| Term { negated, test })),
                Err(why) => complaint = complaint.or(Some(why)),
            }
        }
        (Self(terms), complaint)
    }

    /// Does it let everything through?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether and how well `row` matches.
    pub(crate) fn find<R: Row>(&self, row: &R) -> Option<Match> {
        let mut found = Match::Substring;
        for Term { negated, test } in &self.0 {
            let holds = match test {
                // Nobody expects scattered letters to be missed.
                Test::Word(word) if *negated => {
                    contains(row.text(), word) || contains(row.secondary_text(), word)
                }
                Test::Word(word)
                    if contains(row.text(), word) || contains(row.secondary_text(), word) =>
                {
                    true
                }
                Test::Word(word) => {
                    found = Match::Fuzzy;
                    is_subsequence(row.text(), word)
                }
                Test::Contains(field, text) => match row.value(*field) {
                    Some(Value::Text(value)) => contains(value, text),
                    _ => false,
                },
                Test::Equals(field, text) => match row.value(*field) {
                    Some(Value::Text(value)) => value.eq_ignore_ascii_case(text),
                    _ => false,
                },
                Test::Number(field, sign, wanted) => match row.value(*field) {
                    Some(Value::Number(value)) => sign.holds(value, *wanted),
                    _ => false,
                },
            };
            if holds == *negated {
                return None;
            }
        }
        Some(found)
    }
}

impl Comparison {
    fn holds(self, value: u64, wanted: u64) -> bool {
        match self {
            Self::Less => value < wanted,
            Self::AtMost => value <= wanted,
            Self::Equal => value == wanted,
            Self::AtLeast => value >= wanted,
            Self::More => value > wanted,
        }
    }

    /// Of an age, as of the moment it began.
    fn reverse(self) -> Self {
        match self {
            Self::Less => Self::More,
            Self::AtMost => Self::AtLeast,
            Self::Equal => Self::Equal,
            Self::AtLeast => Self::AtMost,
            Self::More => Self::Less,
        }
    }
}

/// Words with spaces between; in quotes a space is one of the word.
fn tokens(text: &str) -> Vec<String> {
    let (mut tokens, mut token, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => tokens.push(std::mem::take(&mut token)),
            c => token.push(c),
        }
    }
    tokens.push(token);
    tokens.retain(|token| !token.is_empty());
    tokens
}

fn test(token: &str, now: Timestamp) -> Result<Option<Test>, String> {
    let Some(at) = token.find([':', '<', '>', '=']) else {
        let word = token.to_ascii_lowercase();
        return Ok((!word.is_empty()).then_some(Test::Word(word)));
    };
    let (name, rest) = token.split_at(at);
    let name = name.to_ascii_lowercase();
    let signs = [
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Less),
        (">", Comparison::More),
        ("=", Comparison::Equal),
        (":", Comparison::Equal),
    ];
    let found = signs.iter().find(|(text, _)| rest.starts_with(text));
    let (text, sign) = found.copied().unwrap_or((":", Comparison::Equal));
    let value = rest[text.len()..].to_ascii_lowercase();
    let is_age = name == "age";
    let Some(field) = Column::named(&name).or(is_age.then_some(Column::Modified)) else {
        let known: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "no field {name:?}; fields: {}, age",
            known.join(", ")
        ));
    };
    if value.is_empty() {
        return Ok(None);
    }
    let number = match field {
        _ if is_age => age(&value)
            .map(|age| {
                u64::try_from(now.as_second())
                    .unwrap_or(0)
                    .saturating_sub(age)
            })
            .ok_or("such as 12h, 7d or 4w"),
        Column::Size | Column::Memory => {
            let bytes = value.parse().ok().or_else(|| parse_size(&value));
            bytes.ok_or("such as 512M or 10G")
        }
        Column::Modified => date(&value).ok_or("such as 2026-01-31"),
        Column::Cpus | Column::Dependents => value.parse().map_err(|_| "a number"),
        _ if matches!(sign, Comparison::Equal) => {
            return Ok(Some(match text {
                ":" => Test::Contains(field, value),
                _ => Test::Equals(field, value),
            }));
        }
        _ => Err("a text: use : or ="),
    };
    let sign = if is_age { sign.reverse() } else { sign };
    match number {
        Ok(number) => Ok(Some(Test::Number(field, sign, number))),
        Err(form) => Err(format!("{name} is {form}")),
    }
}

/// The seconds of `90s`, `5m`, `12h`, `7d`, `4w`.
fn age(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len() - 1)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds)
}

fn date(text: &str) -> Option<u64> {
    let date: Date = text.parse().ok()?;
    let midnight = date.to_zoned(TimeZone::UTC).ok()?;
    midnight.timestamp().as_second().try_into().ok()
}

/// Does `text` contain `word`, which is lower case? Letter case does not count.
fn contains(text: &str, word: &str) -> bool {
    let [first, rest @ ..] = word.as_bytes() else {
        return true;
    };
    let mut windows = text.as_bytes().windows(word.len());
    windows.any(|part| {
        part.split_first().is_some_and(|(letter, letters)| {
            letter.to_ascii_lowercase() == *first && letters.eq_ignore_ascii_case(rest)
        })
    })
}

/// Do the letters of `word`, which is lower case, stand in `text` in their order? A score would tell the better match,
/// but a keystroke over a hundred thousand names has no time for one.
fn is_subsequence(text: &str, word: &str) -> bool {
    let mut letters = text.bytes();
    word.bytes()
        .all(|wanted| letters.any(|letter| letter.to_ascii_lowercase() == wanted))
}

/// How well `words` fit `text`: less is better; `None` where a letter is missing. For short lists.
pub(crate) fn rank(words: &str, text: &str) -> Option<u32> {
    let text = text.to_ascii_lowercase();
    let mut sum = 0;
    for word in words.to_ascii_lowercase().split_whitespace() {
        sum += match text.find(word) {
            Some(0) => 0,
            Some(at) if text[..at].ends_with([' ', '-']) => 1,
            Some(_) => 2,
            None if is_subsequence(&text, word) => 4,
            None => return None,
        };
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fixture::{object, sandbox, snapshot};
    use proptest::prelude::*;
    use snapdeck_model::SandboxState;

    fn now() -> Timestamp {
        "2026-01-05T00:00:00Z".parse().unwrap()
    }

    fn matches<R: Row>(text: &str, row: &R) -> bool {
        let (query, complaint) = Query::parse(text, now());
        assert_eq!(complaint, None, "{text}");
        query.find(row).is_some()
    }

    #[test]
    fn words_match_in_any_case_and_scattered() {
        let base = object("winserver-base", 1);
        for text in ["WINSERVER", "base win", "wsb", "", "!old", "server !tools"] {
            assert!(matches(text, &base), "{text}");
        }
        for text in ["bw", "basex", "win !base", "!winserver"] {
            assert!(!matches(text, &base), "{text}");
        }
        assert!(matches("!wsb", &base), "scattered letters are not excluded");
    }

    #[test]
    fn fields_compare_texts_sizes_dates_and_ages() {
        let vm = sandbox("web-01", SandboxState::Running);
        for text in [
            "state:run",
            "state=running",
            "memory>=4G",
            "cpus:2",
            "base:winserver",
            "size<1G",
            "!state:paused",
        ] {
            assert!(matches(text, &vm), "{text}");
        }
        for text in [
            "state=run",
            "memory>4G",
            "cpus>2",
            "!state:running",
            "users:0",
            "host:alpha",
        ] {
            assert!(!matches(text, &vm), "{text}");
        }
        // Written at 2026-01-02T03:04:05Z.
        let base = snapshot("base", 10 << 30, &["a", "b"]);
        for text in [
            "users>1",
            "size>9.5G",
            "date>2026-01-01",
            "age<3d",
            "!age<2d",
            "state:sound",
        ] {
            assert!(matches(text, &base), "{text}");
        }
        let off = sandbox("b", SandboxState::ShutOff);
        assert!(matches("state:\"shut off\"", &off));
    }

    #[test]
    fn what_is_half_typed_counts_as_not_written_and_nonsense_is_told() {
        let one = object("one", 1);
        for text in ["state:", "size>", "!", "on size<="] {
            assert!(matches(text, &one), "{text}");
        }
        for (text, told) in [
            ("stat:running", "no field \"stat\"; fields: name, host"),
            ("size>10Q", "size is such as 512M"),
            ("cpus>many", "cpus is a number"),
            ("state>x", "state is a text"),
            ("age<x", "age is such as 12h"),
            ("date>soon", "date is such as 2026-01-31"),
        ] {
            let (query, complaint) = Query::parse(text, now());
            assert!(query.is_empty(), "{text}");
            assert!(complaint.unwrap().contains(told), "{text}");
        }
    }

    #[test]
    fn the_better_fit_ranks_first() {
        let ranks =
            ["push", "copy push", "xpush", "p-u-s-h", "pull"].map(|text| rank("push", text));
        assert_eq!(ranks, [Some(0), Some(1), Some(2), Some(4), None]);
    }

    proptest! {
        #[test]
        fn any_text_is_a_query(text in "\\PC{0,40}") {
            let (query, _) = Query::parse(&text, now());
            query.find(&object("name", 1));
        }
    }
}
