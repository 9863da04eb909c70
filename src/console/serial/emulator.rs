//! A terminal emulator with bounded memory.

use std::fmt;

/// Lines that are kept above the screen.
const SCROLLBACK: usize = 2000;
const MIN_SIZE: (u16, u16) = (20, 5);
const MAX_SIZE: (u16, u16) = (500, 200);
/// Length of a control string (OSC, DCS) after which it is cancelled, in bytes: the parser keeps it until it ends.
const MAX_STRING_BYTES: usize = 4096;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// The screen of a guest's terminal, and the lines above it.
pub(crate) struct Emulator {
    parser: vt100::Parser,
    /// Bytes since the last one that ends any control string.
    string_bytes: usize,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("size", &self.screen().size())
            .finish_non_exhaustive()
    }
}

impl Emulator {
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        let (columns, rows) = clamp(columns, rows);
        Self {
            parser: vt100::Parser::new(rows, columns, SCROLLBACK),
            string_bytes: 0,
        }
    }

    /// Handles output of the guest.
    pub(crate) fn process(&mut self, bytes: &[u8]) {
        let mut start = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(*byte, CAN | SUB | ESC | BEL) {
                self.string_bytes = 0;
                continue;
            }
            self.string_bytes += 1;
            // Not within a character, unless a guest sends nothing else.
            let is_inner = byte & 0xc0 == 0x80 && self.string_bytes < 2 * MAX_STRING_BYTES;
            if self.string_bytes > MAX_STRING_BYTES && !is_inner {
                self.parser.process(&bytes[start..at]);
                // Outside of a control string it does nothing.
                self.parser.process(&[CAN]);
                start = at;
                self.string_bytes = 0;
            }
        }
        self.parser.process(&bytes[start..]);
    }

    pub(crate) fn screen(&self) -> &vt100::Screen {
        self.parser.screen()
    }

    /// Changes the size; returns whether it was another one. Lines that no longer fit go above the screen.
    pub(crate) fn resize(&mut self, columns: u16, rows: u16) -> bool {
        let (columns, rows) = clamp(columns, rows);
        let (old_rows, old_columns) = self.screen().size();
        if (columns, rows) == (old_columns, old_rows) {
            return false;
        }
        self.scroll_to_end();
        if columns < old_columns {
            self.clear_split_characters(columns);
        }
        let (row, _) = self.screen().cursor_position();
        let over = (row + 1).saturating_sub(rows);
        if over > 0 {
            let scroll_up = format!("\x1b[{over}S\x1b[{over}A");
            self.parser.process(scroll_up.as_bytes());
        }
        self.parser.screen_mut().set_size(rows, columns);
        true
    }

    /// Clears the characters of two columns of which only the first would be left, on both screens: the emulator fails
    /// when such a one is overwritten.
    fn clear_split_characters(&mut self, columns: u16) {
        let last = columns - 1;
        for _ in 0..2 {
            let (rows, _) = self.screen().size();
            let (row, column) = self.screen().cursor_position();
            let is_split = |screen: &vt100::Screen, row: u16| {
                screen.cell(row, last).is_some_and(|cell| cell.is_wide())
            };
            let split = (0..rows).filter(|row| is_split(self.screen(), *row));
            for row in split.collect::<Vec<u16>>() {
                let erase = format!("\x1b[{};{columns}H\x1b[X", row + 1);
                self.parser.process(erase.as_bytes());
            }
            let back = format!("\x1b[{};{}H", row + 1, column + 1);
            self.parser.process(back.as_bytes());
            if (0..rows).any(|row| is_split(self.screen(), row)) {
                // With its own origin of positions, the guest gets a blank screen.
                self.parser.process(b"\x1bc");
            }
            let other = match self.screen().alternate_screen() {
                true => b"\x1b[?47l",
                false => b"\x1b[?47h",
            };
            self.parser.process(other);
        }
    }

    /// Scrolls back (negative) or forward by so many lines.
    pub(crate) fn scroll(&mut self, by: isize) {
        let lines = self.screen().scrollback().saturating_add_signed(-by);
        self.parser.screen_mut().set_scrollback(lines);
    }

    /// Shows the end of the output.
    pub(crate) fn scroll_to_end(&mut self) {
        self.parser.screen_mut().set_scrollback(0);
    }
}

fn clamp(columns: u16, rows: u16) -> (u16, u16) {
    (
        columns.clamp(MIN_SIZE.0, MAX_SIZE.0),
        rows.clamp(MIN_SIZE.1, MAX_SIZE.1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_screen_keeps_the_last_lines_and_a_larger_one_is_used() {
        let mut emulator = Emulator::new(40, 10);
        for line in 0..9 {
            emulator.process(format!("line {line}\r\n").as_bytes());
        }
        emulator.process(b"login: ");
        assert!(!emulator.resize(40, 10));
        assert!(emulator.resize(40, 5));
        assert_eq!(
            emulator.screen().contents(),
            "line 5\nline 6\nline 7\nline 8\nlogin: "
        );
        assert_eq!(emulator.screen().cursor_position(), (4, 7));
        emulator.scroll(-isize::MAX);
        assert!(emulator.screen().contents().starts_with("line 0"));
        assert!(emulator.resize(60, 20));
        emulator.process(b"\x1b[20;60Hx");
        assert!(emulator.screen().contents().ends_with('x'));
    }

    #[test]
    fn characters_of_two_columns_at_the_new_edge_do_no_harm() {
        for screens in ["", "\x1b[?1049h", "\x1b[?1049h\x1b[3;4r\x1b[?6h"] {
            let mut emulator = Emulator::new(40, 5);
            let wide = format!("\x1b[1;1H{}", "漢".repeat(90));
            emulator.process(format!(" {wide}{screens} {wide}").as_bytes());
            for columns in [31, 30, 25, 20] {
                emulator.resize(columns, 5);
            }
            let fill = "\x1b[1;1H".to_owned() + &"x".repeat(200);
            emulator.process(format!("{fill}\x1b[2J\x1b[?6l\x1b[?1049l{fill}").as_bytes());
            assert!(emulator.screen().contents().contains("xxxx"));
        }
    }

    #[test]
    fn control_strings_end_and_draw_nothing() {
        let mut emulator = Emulator::new(40, 5);
        emulator.process(b"before\x1b]52;c;");
        // A string that never ends is cancelled, then the output is shown again.
        for _ in 0..100 {
            emulator.process(&[b'x'; 100]);
        }
        emulator.process(b"\x1b[2J\x1b[Hafter \x1b[31mred\x1b[0m");
        assert_eq!(emulator.screen().contents(), "after red");
        // The emulator cuts no character into pieces.
        let long = "é".repeat(3 * MAX_STRING_BYTES);
        emulator.process(long.as_bytes());
        assert!(!emulator.screen().contents().contains('\u{fffd}'));
    }

    #[test]
    fn lines_above_the_screen_are_bounded_and_can_be_scrolled_to() {
        let mut emulator = Emulator::new(40, 5);
        for line in 0..SCROLLBACK + 100 {
            emulator.process(format!("line {line}\r\n").as_bytes());
        }
        emulator.scroll(-10);
        assert_eq!(emulator.screen().scrollback(), 10);
        emulator.scroll(-isize::MAX);
        assert_eq!(emulator.screen().scrollback(), SCROLLBACK);
        emulator.scroll_to_end();
        assert!(emulator.screen().contents().contains("line 2099"));
    }

    #[test]
    fn fuzz_output_of_a_guest() {
        snapdeck_fuzz::FuzzTarget::new("output of a guest's serial console")
            .seed("login: \x1b[1;31mroot\x1b[0m\r\n\x1b]0;title\x07\x1b[?1049h\x1b[2J\x1b[10;5Hé漢\x1b[?25l")
            .seed("\x1b[5;3r\x1bM\x1bD\x1b[3L\x1b[2M\x1b[4P\x1b[1@\x1b[9X\x1b7\x1b8\x1bc")
            .words(&["\x1b[", "\x1b]", "\x1bP", "\x1b\\", "m", "H", "J", "K", "L", "M", "P", "@", "r", "漢"])
            .memory(64 << 20, 512)
            .run(|bytes| {
                let mut emulator = Emulator::new(31, 9);
                let (first, second) = bytes.split_at(bytes.len() / 2);
                emulator.process(first);
                emulator.resize(20, 5);
                emulator.process(second);
                emulator.resize(25, 7);
                emulator.process(first);
                let (rows, columns) = emulator.screen().size();
                for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |at| (row, at))) {
                    assert!(emulator.screen().cell(row, column).is_some());
                }
            });
    }
}
