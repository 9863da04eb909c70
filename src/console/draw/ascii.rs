//! A frame of ASCII characters alone, for terminals and fonts that have no others.

use ratatui::buffer::Buffer;

/// Replaces each sign of ours by one of ASCII in the same place. Letters of other alphabets stay: they are in names and
/// messages, which nobody could read otherwise.
pub(super) fn translate(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        let mut chars = cell.symbol().chars();
        if let (Some(c), None) = (chars.next(), chars.next())
            && !c.is_ascii()
            && !c.is_alphanumeric()
        {
            cell.set_char(ascii_sign(c));
        }
    }
}

fn ascii_sign(c: char) -> char {
    match c {
        '─' | '–' => '-',
        '│' => '|',
        '▏' => '_',
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' => '+',
        '●' | '█' => '#',
        '◐' => '%',
        '◌' => '~',
        '○' => 'o',
        '✗' => 'x',
        '✓' => '+',
        '▸' | '›' | '→' => '>',
        '‹' | '←' => '<',
        '▲' | '↑' => '^',
        '↓' => 'v',
        '≠' => '!',
        '⌂' => '@',
        '·' | '…' | '░' | '▁' => '.',
        '▂' | '▎' => ':',
        '▃' | '▍' => '-',
        '▄' | '▌' => '=',
        '▅' | '▋' => '+',
        '▆' | '▊' => '*',
        '▇' | '▉' => '#',
        _ => '?',
    }
}
