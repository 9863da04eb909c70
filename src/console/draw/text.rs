//! Fast drawing of unwrapped lines. A `Paragraph` searches each line for break points and a `Line` for grapheme
//! clusters; for text that is nearly always ASCII that was a third of a frame's time.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

/// Draws the lines from the top left of `area` on; what does not fit is cut off.
pub(super) fn draw_lines(frame: &mut Frame, area: Rect, lines: &[Line]) {
    let buffer = frame.buffer_mut();
    for (line, row) in lines.iter().zip(area.intersection(buffer.area).rows()) {
        draw_line(line, row, buffer);
    }
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
                Span::styled(span.content.as_ref(), style).render(rest, buffer);
                // Graphemes omit control characters, which the span's own width counts.
                let graphemes = span.styled_graphemes(style);
                graphemes.map(|grapheme| grapheme.symbol.width()).sum()
            }
        };
        let width = u16::try_from(width).unwrap_or(u16::MAX).min(rest.width);
        rest.x += width;
        rest.width -= width;
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
        ' '..='~' | '─'..='▟' | '·' | '…' | '–' | '‹' | '›' | '↑' | '↓' | '↻' | '≠' | '⌂' | '●' | '○' | '◌' | '◐' | '▲' | '▸' | '✓' | '✗'
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
    fn an_empty_area_at_the_edge_is_not_drawn() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 5, 1));
        draw_line(&Line::raw("text"), Rect::new(5, 0, 0, 1), &mut buffer);
        assert_eq!(buffer, Buffer::empty(buffer.area));
    }

    proptest! {
        #[test]
        fn lines_are_drawn_like_a_paragraph(
            texts in proptest::collection::vec(
                (proptest::collection::vec(("[ -~]{0,9}|(a|·|…|●|▸|日|e\u{301}|👍🏽|\t){0,5}", any::<bool>()), 0..4), any::<bool>()),
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
