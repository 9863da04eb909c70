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
        let columns = columns.clamp(MIN_SIZE.0, MAX_SIZE.0);
        let rows = rows.clamp(MIN_SIZE.1, MAX_SIZE.1);
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

#[cfg(test)]
mod tests {
    use super::*;

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
                let mut emulator = Emulator::new(20, 5);
                emulator.process(bytes);
                let (rows, columns) = emulator.screen().size();
                for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |at| (row, at))) {
                    assert!(emulator.screen().cell(row, column).is_some());
                }
            });
    }
}
