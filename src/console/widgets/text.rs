//! Fast drawing of unwrapped lines. A `Paragraph` searches each line for break points and a `Line` for grapheme
//! clusters; for text that is nearly always ASCII that was a third of a frame's time.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use snapdeck_model::{escape_unprintable, is_unprintable};
use unicode_width::UnicodeWidthStr;

/// Draws the lines from the top left of `area` on; what does not fit is cut off.
pub(crate) fn draw_lines(frame: &mut Frame, area: Rect, lines: &[Line]) {
    let buffer = frame.buffer_mut();
    for (line, row) in lines.iter().zip(area.intersection(buffer.area).rows()) {
        draw_line(line, row, buffer);
    }
}

/// Columns before the further lines of a wrapped line.
const WRAP_INDENT: usize = 5;

/// Returns `line` in lines of at most `width` columns, broken between words if possible, in the styles of its spans.
pub(crate) fn wrap_line(line: Line<'static>, width: usize) -> Vec<Line<'static>> {
    if width <= WRAP_INDENT || line.width() <= width {
        return vec![line];
    }
    let mut lines = Vec::new();
    let mut spans: Vec<Span> = Vec::new();
    let mut used = 0;
    for span in &line.spans {
        for word in span.content.split_inclusive(' ') {
            let mut word = word.to_owned();
            if used > WRAP_INDENT && used + word.trim_end().width() > width {
                let indent = Span::raw(" ".repeat(WRAP_INDENT));
                lines.push(
                    Line::from(std::mem::replace(&mut spans, vec![indent])).style(line.style),
                );
                used = WRAP_INDENT;
                word = word.trim_start().to_owned();
            }
            // A word that is wider than a line.
            while used + word.trim_end().width() > width && word.is_ascii() {
                let rest = word.split_off((width - used).max(1).min(word.len()));
                spans.push(Span::styled(word, span.style));
                let indent = Span::raw(" ".repeat(WRAP_INDENT));
                lines.push(
                    Line::from(std::mem::replace(&mut spans, vec![indent])).style(line.style),
                );
                (word, used) = (rest, WRAP_INDENT);
            }
            used += word.width();
            spans.push(Span::styled(word, span.style));
        }
    }
    lines.push(Line::from(spans).style(line.style));
    lines
}

fn draw_line(line: &Line, row: Rect, buffer: &mut Buffer) {
    let mut rest = row;
    for span in &line.spans {
        if rest.is_empty() {
            return;
        }
        let style = line.style.patch(span.style);
        let width = match span.content.chars().all(is_plain) {
            true => draw_plain(&span.content, style, rest, buffer),
            false => {
                // ratatui would omit some of them, and send others.
                let text = Span::styled(escape_unprintable(&span.content), style);
                (&text).render(rest, buffer);
                let graphemes = text.styled_graphemes(style);
                graphemes.map(|grapheme| grapheme.symbol.width()).sum()
            }
        };
        let width = u16::try_from(width).unwrap_or(u16::MAX).min(rest.width);
        rest.x += width;
        rest.width -= width;
    }
}

/// Removes unprintable characters that are still in a frame: those joined to a character before them in a text that was
/// not drawn by [`draw_lines`].
pub(crate) fn remove_unprintable(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        let symbol = cell.symbol();
        // ratatui draws no control characters: such a cell has the pixels of a picture.
        if symbol.is_ascii() || symbol.starts_with('\u{1b}') {
            continue;
        }
        if escape_unprintable(symbol) != symbol {
            let shown: String = symbol.chars().filter(|c| !is_unprintable(*c)).collect();
            cell.set_symbol(if shown.is_empty() { "?" } else { &shown });
        }
    }
}

/// Draws characters of one cell each; returns how many were drawn.
fn draw_plain(text: &str, style: Style, rest: Rect, buffer: &mut Buffer) -> usize {
    let first = buffer.index_of(rest.x, rest.y);
    let cells = buffer.content.iter_mut().skip(first);
    let mut count = 0;
    for (c, cell) in text.chars().zip(cells.take(rest.width.into())) {
        cell.set_char(c).set_style(style);
        count += 1;
    }
    count
}

/// Returns whether a character of the console's own texts takes one cell, whatever its neighbours.
fn is_plain(c: char) -> bool {
    matches!(
        c,
        ' '..='~' | '─'..='▟' | '⠀'..='⣿' | '·' | '…' | '–' | '‹' | '›' | '↑' | '↓' | '↻' | '≠' | '⌂' | '⚑' | '●' | '○' | '◌' | '◐' | '▲' | '▼' | '▸' | '▾' | '✓' | '✗'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ratatui::style::{Color, Modifier};
    use ratatui::widgets::Paragraph;
    use unicode_width::UnicodeWidthChar;

    use super::*;

    #[test]
    fn plain_characters_are_one_cell_wide() {
        for c in ('\0'..=char::MAX).filter(|c| is_plain(*c)) {
            assert_eq!(c.width(), Some(1), "{c}");
        }
    }

    #[test]
    fn a_long_line_is_wrapped_with_its_styles() {
        let line = Line::from(vec![
            Span::raw(" one two "),
            Span::styled("three four", Style::new().fg(Color::Red)),
            Span::raw(" /a/path/that/is/wider/than/the/line"),
        ]);
        let lines = wrap_line(line.clone(), 15);
        let texts: Vec<String> = lines.iter().map(ToString::to_string).collect();
        assert_eq!(texts[..2], [" one two three ", "     four "]);
        assert!(texts.iter().all(|text| text.width() <= 16), "{texts:?}");
        let joined: String = texts.iter().map(|text| text.trim()).collect();
        let whole: String = line.to_string().split_whitespace().collect();
        assert_eq!(joined.split_whitespace().collect::<String>(), whole);
        assert_eq!(lines[1].spans[1].style.fg, Some(Color::Red));
        assert_eq!(wrap_line(line, 3).len(), 1, "there is no room to wrap");
    }

    #[test]
    fn an_empty_area_at_the_edge_is_not_drawn() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 5, 1));
        draw_line(&Line::raw("text"), Rect::new(5, 0, 0, 1), &mut buffer);
        assert_eq!(buffer, Buffer::empty(buffer.area));
    }

    /// Returns the texts of the cells of a line.
    fn cells(buffer: &Buffer) -> String {
        buffer.content.iter().map(|cell| cell.symbol()).collect()
    }

    #[test]
    fn texts_of_others_are_shown_and_not_sent() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 60, 1));
        let name = "a\u{1b}]0;x\u{7}\n\u{202e}b\u{200d}\u{9b}31m";
        draw_line(&Line::from(Span::raw(name)), buffer.area, &mut buffer);
        let shown = "a\\u{1b}]0;x\\u{7}\\u{a}\\u{202e}b\\u{200d}\\u{9b}31m";
        assert_eq!(cells(&buffer).trim_end(), shown);
    }

    #[test]
    fn a_frame_has_no_unprintable_characters() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 20, 1));
        let name = "a\u{200d}\u{1b}\u{202e}b\u{fe0f}\u{e0041}⚠\u{fe0f}日";
        Line::raw(name).render(buffer.area, &mut buffer);
        remove_unprintable(&mut buffer);
        assert_eq!(cells(&buffer).trim_end(), "ab⚠\u{fe0f} 日");
        let pixels = "\u{1b}_Gq=2;AAAA\u{1b}\\\u{10eeee}\u{fe0f}";
        buffer.content[0].set_symbol(pixels);
        remove_unprintable(&mut buffer);
        assert_eq!(buffer.content[0].symbol(), pixels);
    }

    proptest! {
        #[test]
        fn lines_are_drawn_like_a_paragraph(
            texts in proptest::collection::vec(
                (proptest::collection::vec(("[ -~]{0,9}|(a|·|…|●|▸|日|e\u{301}|👍🏽|⚠\u{fe0f}){0,5}", any::<bool>()), 0..4), any::<bool>()),
                0..5,
            ),
            // In a narrower area a paragraph continues after a character that is too wide.
            width in 2..24_u16,
            height in 0..5_u16,
        ) {
            let style = |styled: bool| match styled {
                true => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
                false => Style::new(),
            };
            let texts: Vec<Line> = texts
                .iter()
                .map(|(spans, styled)| {
                    let spans = spans.iter().map(|(text, styled)| Span::styled(text.as_str(), style(*styled)));
                    Line::from(spans.collect::<Vec<_>>()).style(Style::new().bg(if *styled { Color::Blue } else { Color::Reset }))
                })
                .collect();
            let area = Rect::new(1, 1, width, height);
            let whole = Rect::new(0, 0, width + 2, height + 2);
            let (mut actual, mut expected) = (Buffer::empty(whole), Buffer::empty(whole));
            for (text, row) in texts.iter().zip(area.rows()) {
                draw_line(text, row, &mut actual);
            }
            Paragraph::new(texts).render(area, &mut expected);
            prop_assert_eq!(actual, expected);
        }
    }
}
