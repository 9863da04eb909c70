//! Formats sizes, times and texts for the screen.

use std::time::Duration;

use humansize::{BINARY, FormatSizeOptions, format_size};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

use snapdeck_model::{HostName, SharedBytes, Wait, escape_unprintable};

/// Returns a size: `812 MiB`, `9.8 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    format_size(bytes, FormatSizeOptions::from(BINARY).decimal_places(1))
}

/// Returns a size and its total: `503/812 MiB`, `812 MiB/1.2 GiB`.
pub(crate) fn share(done: u64, total: u64) -> String {
    let (done, total) = (size(done), size(total));
    match (done.split_once(' '), total.split_once(' ')) {
        (Some((number, one)), Some((_, other))) if one == other => format!("{number}/{total}"),
        _ => format!("{done}/{total}"),
    }
}

/// Returns a size in at most six columns: `812M`, `9.8G`.
pub(crate) fn short_size(bytes: u64) -> String {
    let options = FormatSizeOptions::from(BINARY)
        .decimal_places(1)
        .space_after_value(false);
    format_size(bytes, options)
        .trim_end_matches("iB")
        .to_owned()
}

/// Returns a size and its total in few columns: `41/64G`, `812M/1.2G`.
pub(crate) fn share_short(done: u64, total: u64) -> String {
    let (done, total) = (short_size(done), short_size(total));
    let unit = |text: &str| text.chars().last();
    match unit(&done) == unit(&total) {
        true => format!("{}/{total}", &done[..done.len() - 1]),
        false => format!("{done}/{total}"),
    }
}

/// Parses a size: `4G`, `512 MiB`, `1.5t`. Units are powers of 1024; a size without a unit is invalid.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = text[number.len()..].trim();
    let power = ["k", "m", "g", "t"].iter().position(|one| {
        unit.strip_prefix(one)
            .is_some_and(|rest| matches!(rest, "" | "b" | "ib"))
    })?;
    let bytes = number.parse::<f64>().ok()? * 1024f64.powi(power as i32 + 1);
    (bytes.is_finite() && (1.0..1e18).contains(&bytes)).then_some(bytes as u64)
}

pub(crate) fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", size(bytes_per_second as u64))
}

/// Returns numbers as a bar graph, a column each. The full height is the largest number, or `least`.
pub(crate) fn graph<'a>(numbers: impl IntoIterator<Item = &'a f64> + Clone, least: f64) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = numbers.clone().into_iter().copied().fold(least, f64::max);
    let bar = |number: &f64| BARS[((number / top * 7.0).round() as usize).min(7)];
    numbers.into_iter().map(bar).collect()
}

/// Returns a duration: `0:02`, `1:02:03`.
pub(crate) fn clock(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{:02}", seconds % 60)
    } else {
        format!("{minutes}:{:02}", seconds % 60)
    }
}

/// Returns an age: `<1m`, `3m`, `2h`, `5d`. It changes at most once a minute, so that rare redraws suffice.
pub(crate) fn age(span: Duration) -> String {
    match span.as_secs() / 60 {
        0 => "<1m".to_owned(),
        minutes @ 1..60 => format!("{minutes}m"),
        minutes @ 60..2880 => format!("{}h", minutes / 60),
        minutes => format!("{}d", minutes / 1440),
    }
}

/// Returns the zone of all times on screen: the local one.
pub(crate) fn zone() -> TimeZone {
    match cfg!(test) {
        true => TimeZone::UTC,
        false => TimeZone::system(),
    }
}

fn local(time: Timestamp) -> Zoned {
    time.to_zoned(zone())
}

/// Returns the offset of the local time at `time`: `UTC+01:00`.
pub(crate) fn utc_offset(time: Timestamp) -> String {
    let time = local(time);
    match time.offset().is_zero() {
        true => "UTC".to_owned(),
        false => time.strftime("UTC%:z").to_string(),
    }
}

/// Returns a time to the minute, with its offset: `2026-11-28 14:03 UTC+01:00`.
pub(crate) fn timestamp(time: Timestamp) -> String {
    let minute = local(time).strftime("%Y-%m-%d %H:%M").to_string();
    format!("{minute} {}", utc_offset(time))
}

/// Returns a time of the day: `14:03:10`.
pub(crate) fn time_of_day(time: Timestamp) -> String {
    local(time).strftime("%H:%M:%S").to_string()
}

/// Returns what an interrupted job waits for: `waiting for host alpha until 14:03:10`.
pub(crate) fn wait(wait: Wait, host: Option<&HostName>) -> String {
    format!("{} until {}", wait.label(host), time_of_day(wait.until))
}

/// Returns `text` cut to `width` columns, with `…` at the cut.
pub(crate) fn clip(text: &str, width: usize) -> String {
    // Here, where the width is measured; the drawing would do it as well.
    let text = &*escape_unprintable(text);
    if text.width() <= width {
        return text.to_owned();
    }
    let Some(room) = width.checked_sub(1) else {
        return String::new();
    };
    let mut cut = text[..cut_at(text, room)].to_owned();
    cut.push('…');
    cut
}

/// Returns the length in bytes of the longest start of `text` that fits in `width` columns. Grapheme clusters stay whole:
/// a variation selector changes the width of the character before it.
fn cut_at(text: &str, width: usize) -> usize {
    let mut used = 0;
    text.grapheme_indices(true)
        .find(|(_, cluster)| {
            used += cluster.width();
            used > width
        })
        .map_or(text.len(), |(at, _)| at)
}

/// Returns `text` in exactly `width` columns: cut, or padded with spaces.
pub(crate) fn fit(text: &str, width: usize) -> String {
    let mut cut = clip(text, width);
    let missing = width.saturating_sub(cut.width());
    cut.extend(std::iter::repeat_n(' ', missing));
    cut
}

/// Returns the start of the longest end of `text` that fits in `width` columns, in bytes.
fn cut_from_end(text: &str, width: usize) -> usize {
    let mut used = 0;
    text.grapheme_indices(true)
        .rev()
        .take_while(|(_, cluster)| {
            used += cluster.width();
            used <= width
        })
        .last()
        .map_or(text.len(), |(at, _)| at)
}

/// Returns `text` in exactly `width` columns: padded with spaces, or cut in the middle, with `…` at the cut.
pub(crate) fn fit_middle(text: &str, width: usize) -> String {
    Distinction::none(text).fit(text, width)
}

/// The parts of a text that distinguish it from others in a list, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distinction {
    /// End of the start that all texts share.
    start: usize,
    /// Start of the end that all texts share.
    end: usize,
    /// Where it begins to differ from the most similar one.
    difference: usize,
}

impl Distinction {
    /// Returns the distinction of a text that nothing has to be distinguished from.
    pub(crate) fn none(text: &str) -> Self {
        Self {
            start: text.len(),
            end: text.len(),
            difference: text.len(),
        }
    }

    /// Returns the distinction of each of these texts from the others.
    pub(crate) fn between(texts: &[&str]) -> Vec<Self> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_unstable_by_key(|index| texts[*index]);
        let mut distinctions: Vec<Self> = texts.iter().map(|text| Self::none(text)).collect();
        let (Some(first), Some(last)) = (order.first(), order.last()) else {
            return distinctions;
        };
        // Of all pairs of sorted texts, the outermost ones have the shortest common start, neighbours the longest ones.
        let start = common_start(texts[*first].bytes(), texts[*last].bytes());
        let ends = texts
            .iter()
            .map(|text| common_start(text.bytes().rev(), texts[*first].bytes().rev()));
        let end = ends.min().unwrap_or(0);
        for (distinction, text) in distinctions.iter_mut().zip(texts) {
            distinction.start = text.floor_char_boundary(start);
            distinction.end = text
                .ceil_char_boundary(text.len() - end)
                .max(distinction.start);
            distinction.difference = distinction.start;
        }
        for pair in order.windows(2) {
            let (one, other) = (texts[pair[0]], texts[pair[1]]);
            let common = common_start(one.bytes(), other.bytes());
            for index in pair.iter().filter(|_| one != other) {
                let distinction = &mut distinctions[*index];
                let common = texts[*index].floor_char_boundary(common);
                distinction.difference = distinction.difference.max(common);
            }
        }
        distinctions
    }

    /// Returns `text`, which this is the distinction of, in exactly `width` columns: padded with spaces, or cut, with `…`
    /// at each cut. Its end and, if there is room, what distinguishes it are kept.
    pub(crate) fn fit(&self, text: &str, width: usize) -> String {
        let escaped = |part: &str| escape_unprintable(part).into_owned();
        let (shared, own) = text.split_at(self.start);
        let (shared, own) = (escaped(shared), escaped(own));
        let core = escaped(&text[self.start..self.end]);
        let all = format!("{shared}{own}");
        if all.width() <= width || width < 8 {
            return fit(&all, width);
        }
        let head = |room| &all[..cut_at(&all, room)];
        let tail = |room| &all[cut_from_end(&all, room)..];
        let room = width - 1;
        let usual_tail = room * 2 / 3;
        let mut cut = if own.width() <= room - room / 6 {
            let end = tail(usual_tail.max(own.width()));
            format!("{}…{end}", head(room - end.width()))
        } else {
            let (before, least) = match core.width() + room / 4 < room {
                true => (shared, core.width()),
                false => (escaped(&text[..self.difference]), room / 3),
            };
            let end = tail((room / 3).min(room - 1 - least));
            let rest = &all[cut_from_end(&before, 1)..];
            if before.width() + least < room - end.width() {
                format!("{}…{end}", head(room - end.width()))
            } else if rest.width() <= room - room / 6 {
                // What distinguishes it is a part of its end.
                let end = tail(usual_tail.max(rest.width()));
                format!("{}…{end}", head(room - end.width()))
            } else if rest.width() <= room {
                format!("…{}", tail(room))
            } else {
                let middle = rest;
                let middle = &middle[..cut_at(middle, room - 1 - end.width())];
                format!("…{middle}…{end}")
            }
        };
        let missing = width.saturating_sub(cut.width());
        cut.extend(std::iter::repeat_n(' ', missing));
        cut
    }
}

fn common_start(one: impl Iterator<Item = u8>, other: impl Iterator<Item = u8>) -> usize {
    one.zip(other)
        .take_while(|(one, other)| one == other)
        .count()
}

/// Returns `text` in lines of at most `width` columns, broken between words if possible.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let text = &*escape_unprintable(text);
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        if !line.is_empty() && line.width() + 1 + rest.width() > width {
            lines.push(std::mem::take(&mut line));
        }
        while line.is_empty() && rest.width() > width {
            let cut = match cut_at(rest, width) {
                // A cluster that is wider than the line.
                0 => rest.chars().next().map_or(rest.len(), char::len_utf8),
                cut => cut,
            };
            let (head, tail) = rest.split_at(cut);
            lines.push(head.to_owned());
            rest = tail;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(rest);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Returns a number with thousands separated: `5,003`.
pub(crate) fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns a date: `2026-11-28`.
pub(crate) fn date(time: Timestamp) -> String {
    local(time).strftime("%Y-%m-%d").to_string()
}

/// Returns `1 job`, `2 jobs`.
pub(crate) fn count(number: usize, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        let ending = if one.ends_with('x') { "es" } else { "s" };
        format!("{number} {one}{ending}")
    }
}

/// Snapshots that [`parts`] names; it sums up the others.
const NAMED_PARTS: usize = 3;

/// Returns shared bytes: `9.8 GiB from winserver-base, 1 GiB from 2 more`.
pub(crate) fn parts(parts: &[SharedBytes], word: &str) -> String {
    let named = parts.iter().take(NAMED_PARTS);
    let mut texts: Vec<String> = named
        .map(|part| format!("{} {word} {}", size(part.bytes), part.name))
        .collect();
    let rest = parts.get(NAMED_PARTS..).unwrap_or_default();
    if !rest.is_empty() {
        let bytes = rest.iter().map(|part| part.bytes).sum();
        texts.push(format!("{} {word} {} more", size(bytes), rest.len()));
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_times_are_formatted() {
        assert_eq!(size(812 << 20), "812 MiB");
        assert_eq!(short_size(10_522_669_875), "9.8G");
        assert_eq!(short_size(512), "512B");
        assert_eq!(parse_size("512 MiB"), Some(512 << 20));
        assert_eq!(parse_size(" 1.5g"), Some(3 << 29));
        for invalid in ["", "4", "G", "-1G", "4Q", "4GG", "1e300T", "nanG"] {
            assert_eq!(parse_size(invalid), None, "{invalid}");
        }
        assert_eq!(share(503 << 20, 812 << 20), "503/812 MiB");
        assert_eq!(share(503 << 20, 2 << 30), "503 MiB/2 GiB");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        assert_eq!(clock(Duration::from_secs(2)), "0:02");
        assert_eq!(age(Duration::from_secs(59)), "<1m");
        assert_eq!(age(Duration::from_secs(200)), "3m");
        assert_eq!(age(Duration::from_secs(7200)), "2h");
    }

    #[test]
    fn a_text_cut_in_the_middle_keeps_both_ends() {
        assert_eq!(
            fit_middle("winserver-2022-base", 20),
            "winserver-2022-base "
        );
        assert_eq!(
            fit_middle("winserver-2022-base-v2026-11-28", 20),
            "winserv…-v2026-11-28"
        );
    }

    #[test]
    fn a_text_never_has_a_part_of_itself_twice() {
        let texts = [
            "browser-farm-2026-04-04",
            "browser-farm-2026-06-27",
            "browser-farm-before-update-v2",
            "browser-farm-v1.0",
            "ci-runner-2026-01-30",
        ];
        let cut = |width: usize| -> Vec<String> {
            let distinctions = Distinction::between(&texts).into_iter();
            let cut = distinctions
                .zip(texts)
                .map(|(one, text)| one.fit(text, width));
            cut.map(|text| text.trim_end().to_owned()).collect()
        };
        assert_eq!(
            cut(16),
            [
                "brows…2026-04-04",
                "brows…2026-06-27",
                "…-before-u…te-v2",
                "brows…-farm-v1.0",
                "ci-runner-…01-30"
            ]
        );
        for width in 8..30 {
            for text in cut(width) {
                let parts: Vec<&str> = text.split('…').filter(|part| part.len() > 2).collect();
                for (at, part) in parts.iter().enumerate() {
                    assert!(!parts[..at].contains(part), "{width}: {text}");
                }
            }
        }
    }

    #[test]
    fn texts_that_differ_only_in_the_middle_stay_different() {
        let directory = "/var/lib/libvirt/snapshots-of-the-whole-department";
        let ends = ["app-one", "app-two", "base-one", "base-two-v1"];
        let names: Vec<String> = ends
            .iter()
            .map(|name| format!("{directory}/{name}-{}.qcow2", "same-end-for-all-".repeat(2)))
            .collect();
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        for width in [24, 30, 40, 60, 80] {
            let cut: Vec<String> = texts
                .iter()
                .zip(Distinction::between(&texts))
                .map(|(text, distinction)| distinction.fit(text, width))
                .collect();
            for (index, one) in cut.iter().enumerate() {
                assert_eq!(one.width(), width, "{one}");
                assert!(!cut[..index].contains(one), "{cut:#?}");
                assert!(one.trim_end().ends_with(".qcow2"), "{one}");
            }
        }
    }

    #[test]
    fn a_variation_selector_counts() {
        assert_eq!(clip("⚠\u{fe0f} a0aa", 2), "…");
        assert_eq!(clip("⚠\u{fe0f} a0aa", 3), "⚠\u{fe0f}…");
    }

    #[test]
    fn texts_of_others_are_measured_as_they_are_shown() {
        assert_eq!(clip("a\u{1b}b", 7), "a\\u{1b…");
        assert_eq!(fit("\u{202e}", 10), "\\u{202e}  ");
        assert_eq!(wrap("a \u{9b}\nb", 12), ["a", "\\u{9b}\\u{a}b"]);
    }

    proptest! {
        #[test]
        fn texts_are_no_wider_than_requested(text in "\\PC{0,80}", width in 0usize..40) {
            prop_assert!(clip(&text, width).width() <= width);
            prop_assert_eq!(fit("name", width).width(), width);
            prop_assert_eq!(fit_middle(&text, width).width(), width);
            let other = format!("{}x{}", &text[..text.floor_char_boundary(9)], &text[text.ceil_char_boundary(9)..]);
            let texts = [text.as_str(), other.as_str(), "a"];
            for (text, distinction) in texts.iter().zip(Distinction::between(&texts)) {
                prop_assert_eq!(distinction.fit(text, width).width(), width);
            }
            if width > 1 {
                for line in wrap(&text, width) {
                    prop_assert!(line.width() <= width, "{:?}", line);
                }
            }
        }
    }
}
