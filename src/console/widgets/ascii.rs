//! Translation of a frame to ASCII, for terminals and fonts without other characters.

use ratatui::buffer::Buffer;

/// Replaces each sign of the console by an ASCII one. Letters of other alphabets are kept: names and messages would be
/// unreadable without them.
pub(crate) fn translate(buffer: &mut Buffer) {
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
        '▾' | '▼' => 'v',
        '⚑' => 'P',
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
        // Braille: the lower the dots, the lower the sign.
        '⠀' => ' ',
        c if is_braille(c) => match c as u32 & 0xff {
            dots if dots & 0x09 != 0 && dots & 0xc0 != 0 => '|',
            dots if dots & 0x09 != 0 => '\'',
            dots if dots & 0x36 != 0 => '-',
            _ => '.',
        },
        _ => '?',
    }
}

fn is_braille(c: char) -> bool {
    ('⠀'..='⣿').contains(&c)
}
