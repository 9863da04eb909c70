//! Lines of text on their rows. A `Paragraph` looks for places to break each line and a `Line` for clusters of letters:
//! in what is nearly always ASCII that was a third of a frame.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

/// Draws them from the top of `area` on, each from its left; what is too long or too much is cut off.
pub(super) fn draw_lines(frame: &mut Frame, area: Rect, lines: &[Line]) {
    let buffer = frame.buffer_mut();
    for (text, place) in lines.iter().zip(area.intersection(buffer.area).rows()) {
        draw_line(text, place, buffer);
    }
}

fn draw_line(line: &Line, place: Rect, buffer: &mut Buffer) {
    let mut rest = place;
    for span in &line.spans {
        if rest.is_empty() {
            return;
        }
        let style = line.style.patch(span.style);
        let width = match span.content.chars().all(is_plain) {
            true => draw_plain(&span.content, style, rest, buffer),
            false => {
                Span::styled(span.content.as_ref(), style).render(rest, buffer);
                // Without what cannot be shown, control characters, which the span's own width counts.
                let shown = span.styled_graphemes(style);
                shown.map(|letter| letter.symbol.width()).sum()
            }
        };
        let width = u16::try_from(width).unwrap_or(u16::MAX).min(rest.width);
        rest.x += width;
        rest.width -= width;
    }
}

/// Draws letters that are each one cell; how many there were.
fn draw_plain(text: &str, style: Style, place: Rect, buffer: &mut Buffer) -> usize {
    let first = buffer.index_of(place.x, place.y);
    let cells = buffer.content.iter_mut().skip(first);
    let mut count = 0;
    for (letter, cell) in text.chars().zip(cells.take(place.width.into())) {
        cell.set_char(letter).set_style(style);
        count += 1;
    }
    count
}

/// Is it one cell by itself, whatever stands beside it? Those that the console's own texts are made of.
fn is_plain(letter: char) -> bool {
    matches!(
        letter,
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
    fn what_is_taken_for_plain_is_one_cell_wide() {
        let plain = ('\0'..=char::MAX).filter(|letter| is_plain(*letter));
        for letter in plain {
            assert_eq!(letter.width(), Some(1), "{letter}");
        }
    }

    #[test]
    fn a_place_without_room_at_the_edge_stays_as_it_is() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 5, 1));
        draw_line(&Line::raw("text"), Rect::new(5, 0, 0, 1), &mut buffer);
        assert_eq!(buffer, Buffer::empty(buffer.area));
    }

    proptest! {
        /// The judge is ratatui's paragraph.
        #[test]
        fn they_look_as_a_paragraph_of_them(
            texts in proptest::collection::vec(
                (proptest::collection::vec(("[ -~]{0,9}|(a|·|…|●|▸|日|e\u{301}|👍🏽|\t){0,5}", any::<bool>()), 0..4), any::<bool>()),
                0..5,
            ),
            // In less a paragraph goes on behind a letter that is too wide for it.
            width in 2..24_u16,
            height in 0..5_u16,
        ) {
            let style = |wished: bool| match wished {
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
            let (mut ours, mut theirs) = (Buffer::empty(whole), Buffer::empty(whole));
            for (text, place) in texts.iter().zip(area.rows()) {
                draw_line(text, place, &mut ours);
            }
            Paragraph::new(texts).render(area, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }
    }
}
