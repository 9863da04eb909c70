//! The filter language: words of a name, and fields.
//!
//! ```text
//! web 01          both words
//! ~wsb            letters in this order, with others between them: finds winserver-base
//! /v[0-9]+$/      a regular expression
//! state:running   the field contains the text; `=` compares the whole text
//! size>10G        also <, >=, <=; memory, cpus, users, size, date>2026-01-31, age<7d
//! place:bucket    where a snapshot is: host, bucket, both, or the name of a host
//! pin:yes         also note:TEXT, label:KEY, label:KEY=VALUE
//! !base:old       rows that do not match
//! ```

use jiff::Timestamp;
use jiff::civil::Date;
use regex::{Regex, RegexBuilder};

use super::columns::{COLUMNS, Column, Row, Value};
use super::facts::{FACTS, Fact, Facts};
use super::format::parse_size;

/// Limit of a compiled regular expression.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A parsed filter; rows match all its terms.
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
    /// Letters in this order, with others between them.
    Fuzzy(String),
    Pattern(Pattern),
    Contains(Column, String),
    Equals(Column, String),
    Number(Column, Comparison, u64),
    /// A text of the fact contains this one.
    FactContains(Fact, String),
    FactEquals(Fact, String),
}

/// A regular expression, which ignores case.
#[derive(Debug, Clone)]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// The row contains every word.
    Substring,
    /// The row contains the letters of some fuzzy word, scattered.
    Fuzzy,
}

impl Query {
    /// Parses `text`. Fields without a value yet are ignored. The second part is the error of the first invalid term; invalid
    /// terms are ignored.
    pub(crate) fn parse(text: &str, now: Timestamp) -> (Self, Option<String>) {
        let mut terms = Vec::new();
        let mut first_error = None;
        for token in tokens(text) {
            let (negated, token) = match token.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, token.as_str()),
            };
            match test(token, now) {
                Ok(test) => terms.extend(test.map(|test| Term { negated, test })),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        (Self(terms), first_error)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether it has a term about a fact.
    pub(crate) fn has_facts(&self) -> bool {
        self.facts().next().is_some()
    }

    /// Returns whether it has a term about the annotations of snapshots.
    pub(crate) fn has_annotations(&self) -> bool {
        self.facts().any(Fact::is_annotation)
    }

    fn facts(&self) -> impl Iterator<Item = Fact> {
        self.0.iter().filter_map(|term| match term.test {
            Test::FactContains(fact, _) | Test::FactEquals(fact, _) => Some(fact),
            _ => None,
        })
    }

    /// Returns how `row` matches, if it does.
    pub(crate) fn find<R: Row>(&self, row: &R, facts: &dyn Facts<R>) -> Option<Match> {
        let mut quality = Match::Substring;
        for Term { negated, test } in &self.0 {
            let holds = match test {
                Test::Word(word) => {
                    contains(row.text(), word) || contains(row.secondary_text(), word)
                }
                Test::Fuzzy(word) if contains(row.text(), word) => true,
                Test::Fuzzy(word) => {
                    quality = Match::Fuzzy;
                    is_subsequence(row.text(), word)
                }
                Test::Pattern(Pattern(pattern)) => {
                    pattern.is_match(row.text()) || pattern.is_match(row.secondary_text())
                }
                Test::Contains(column, text) => match row.value(*column) {
                    Some(Value::Text(value)) => contains(value, text),
                    _ => false,
                },
                Test::Equals(column, text) => match row.value(*column) {
                    Some(Value::Text(value)) => value.eq_ignore_ascii_case(text),
                    _ => false,
                },
                Test::Number(column, comparison, operand) => match row.value(*column) {
                    Some(Value::Number(value)) => comparison.holds(value, *operand),
                    _ => false,
                },
                Test::FactContains(fact, text) => {
                    let mut texts = facts.texts(row, *fact).into_iter();
                    texts.any(|value| contains(&value, text))
                }
                Test::FactEquals(fact, text) => {
                    let mut texts = facts.texts(row, *fact).into_iter();
                    texts.any(|value| value.eq_ignore_ascii_case(text))
                }
            };
            if holds == *negated {
                return None;
            }
        }
        Some(quality)
    }
}

impl Comparison {
    fn holds(self, value: u64, operand: u64) -> bool {
        match self {
            Self::Less => value < operand,
            Self::AtMost => value <= operand,
            Self::Equal => value == operand,
            Self::AtLeast => value >= operand,
            Self::More => value > operand,
        }
    }

    /// Returns the comparison of times that is equivalent to this one of ages.
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

/// Splits `text` at spaces outside of quotes.
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

fn parse_pattern(pattern: &str) -> Result<Test, String> {
    let regex = RegexBuilder::new(pattern)
        .case_insensitive(true)
        .size_limit(MAX_PATTERN_BYTES)
        .build();
    match regex {
        Ok(regex) => Ok(Test::Pattern(Pattern(regex))),
        Err(error) => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            Err(format!(
                "invalid pattern: {}",
                last.trim_start_matches("error: ")
            ))
        }
    }
}

fn test(token: &str, now: Timestamp) -> Result<Option<Test>, String> {
    if let Some(word) = token.strip_prefix('~') {
        let word = word.to_ascii_lowercase();
        return Ok((!word.is_empty()).then_some(Test::Fuzzy(word)));
    }
    if let Some(pattern) = token.strip_prefix('/') {
        // Without the second slash it is still being typed.
        return match pattern
            .strip_suffix('/')
            .filter(|pattern| !pattern.is_empty())
        {
            Some(pattern) => parse_pattern(pattern).map(Some),
            None => Ok(None),
        };
    }
    let Some(sign_at) = token.find([':', '<', '>', '=']) else {
        let word = token.to_ascii_lowercase();
        return Ok((!word.is_empty()).then_some(Test::Word(word)));
    };
    let (name, rest) = token.split_at(sign_at);
    let name = name.to_ascii_lowercase();
    let signs = [
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Less),
        (">", Comparison::More),
        ("=", Comparison::Equal),
        (":", Comparison::Equal),
    ];
    let sign = signs.iter().find(|(sign, _)| rest.starts_with(sign));
    let (sign, comparison) = sign.copied().unwrap_or((":", Comparison::Equal));
    let value = rest[sign.len()..].to_ascii_lowercase();
    if let Some(fact) = Fact::from_name(&name) {
        return fact_test(fact, &name, sign, value);
    }
    let is_age = name == "age";
    let Some(column) = Column::from_name(&name).or(is_age.then_some(Column::Modified)) else {
        let facts = FACTS.iter().map(|(name, _)| *name);
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).chain(facts).collect();
        return Err(format!(
            "unknown field {name:?}: use {} or age",
            names.join(", ")
        ));
    };
    if value.is_empty() {
        return Ok(None);
    }
    let number = match column {
        _ if is_age => age(&value)
            .map(|age| {
                u64::try_from(now.as_second())
                    .unwrap_or(0)
                    .saturating_sub(age)
            })
            .ok_or("an age such as 12h, 7d or 4w"),
        Column::Size | Column::Memory => {
            let bytes = value.parse().ok().or_else(|| parse_size(&value));
            bytes.ok_or("a size such as 512M or 10G")
        }
        Column::Modified => date(&value).ok_or("a date such as 2026-01-31"),
        Column::Cpus | Column::Dependents => value.parse().map_err(|_| "a number"),
        _ if matches!(comparison, Comparison::Equal) => {
            return Ok(Some(match sign {
                ":" => Test::Contains(column, value),
                _ => Test::Equals(column, value),
            }));
        }
        _ => Err("a text, compared with : or ="),
    };
    let comparison = match is_age {
        true => comparison.reverse(),
        false => comparison,
    };
    match number {
        Ok(number) => Ok(Some(Test::Number(column, comparison, number))),
        Err(expected) => Err(format!("{name} must be {expected}")),
    }
}

/// Returns the test of a fact, which is compared with `value` by `sign`.
fn fact_test(fact: Fact, name: &str, sign: &str, value: String) -> Result<Option<Test>, String> {
    let is_incomplete = |word: &&str| fact == Fact::Pin && word.starts_with(&*value);
    match (sign, &*value) {
        (":" | "=", "") => Ok(None),
        (":" | "=", "yes" | "no") if fact == Fact::Pin => Ok(Some(Test::FactEquals(fact, value))),
        (":" | "=", _) if ["yes", "no"].iter().any(is_incomplete) => Ok(None),
        (":" | "=", _) if fact == Fact::Pin => Err("pin must be yes or no".to_owned()),
        (":", _) => Ok(Some(Test::FactContains(fact, value))),
        ("=", _) => Ok(Some(Test::FactEquals(fact, value))),
        _ => Err(format!("{name} must be a text, compared with : or =")),
    }
}

/// Returns the names of fields that complete `text`, the beginning of one.
pub(crate) fn complete_field(text: &str) -> Vec<&'static str> {
    let text = text.to_ascii_lowercase();
    let columns = COLUMNS.iter().map(|(name, _)| *name);
    let facts = FACTS.iter().map(|(name, _)| *name);
    let names = columns.chain(facts).chain(["age"]);
    names.filter(|name| name.starts_with(&text)).collect()
}

/// Returns the seconds of `90s`, `5m`, `12h`, `7d` or `4w`.
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
    let midnight = date.to_zoned(super::format::zone()).ok()?;
    midnight.timestamp().as_second().try_into().ok()
}

/// Returns whether `text` contains `word`, which is lower case; ignores case.
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

/// Returns whether the letters of `word`, which is lower case, are a subsequence of `text`; ignores case.
///
/// There is no score: it is too slow for a keystroke that filters 100,000 names.
fn is_subsequence(text: &str, word: &str) -> bool {
    let mut letters = text.bytes();
    word.bytes()
        .all(|expected| letters.any(|letter| letter.to_ascii_lowercase() == expected))
}

/// Returns how well `words` match `text`: less is better; `None` if they do not match. For short lists.
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
        let (query, error) = Query::parse(text, now());
        assert_eq!(error, None, "{text}");
        query.find(row, &()).is_some()
    }

    #[test]
    fn the_features_of_regex_are_those_that_patterns_need() {
        // Tests have more: their build unifies the features with those that dev-dependencies need.
        let manifest = include_str!("../../Cargo.toml");
        let line = manifest.lines().find(|line| line.starts_with("regex = "));
        let line = line.unwrap_or_default();
        for feature in ["unicode-case", "unicode-perl"] {
            assert!(line.contains(feature), "{line}");
        }
    }

    #[test]
    fn words_match_exactly_fuzzily_or_as_patterns_and_ignore_case() {
        let base = object("winserver-base", 1);
        for text in [
            "WINSERVER",
            "base win",
            "~wsb",
            "",
            "!old",
            "server !tools",
            "/^WIN.*e$/",
            "!/v[0-9]/",
            "/still",
        ] {
            assert!(matches(text, &base), "{text}");
        }
        for text in [
            "wsb",
            "~bw",
            "basex",
            "win !base",
            "!winserver",
            "!~wsb",
            "/^base/",
        ] {
            assert!(!matches(text, &base), "{text}");
        }
        let (query, error) = Query::parse("/(/", now());
        assert!(query.is_empty() && error.unwrap().contains("unclosed group"));
    }

    #[test]
    fn fields_compare_texts_numbers_and_times() {
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
        // Modified at 2026-01-02T03:04:05Z.
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
    fn incomplete_terms_are_ignored_and_invalid_ones_reported() {
        let one = object("one", 1);
        for text in [
            "state:",
            "size>",
            "!",
            "on size<=",
            "pin:",
            "pin:y",
            "note:",
        ] {
            assert!(matches(text, &one), "{text}");
        }
        for (text, message) in [
            ("stat:running", "unknown field \"stat\": use name, host"),
            ("size>10Q", "size must be a size such as 512M"),
            ("cpus>many", "cpus must be a number"),
            ("state>x", "state must be a text"),
            ("place>x", "place must be a text"),
            ("pin:maybe", "pin must be yes or no"),
            ("age<x", "age must be an age such as 12h"),
            ("date>soon", "date must be a date such as 2026-01-31"),
        ] {
            let (query, error) = Query::parse(text, now());
            assert!(query.is_empty(), "{text}");
            assert!(error.unwrap().contains(message), "{text}");
        }
    }

    #[test]
    fn better_matches_rank_first() {
        let ranks =
            ["push", "copy push", "xpush", "p-u-s-h", "pull"].map(|text| rank("push", text));
        assert_eq!(ranks, [Some(0), Some(1), Some(2), Some(4), None]);
    }

    proptest! {
        #[test]
        fn any_text_is_a_query(text in "\\PC{0,40}") {
            let (query, _) = Query::parse(&text, now());
            query.find(&object("name", 1), &());
        }
    }
}
