//! A program in a pseudo terminal: sends keys, reads the screen.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// Longer than any screen takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);
const COLUMNS: u16 = 120;
const ROWS: u16 = 40;

/// Attributes of a cell.
pub(crate) struct CellStyle {
    pub inverse: bool,
}

pub(crate) struct Screen {
    parser: Arc<Mutex<vt100::Parser>>,
    /// All bytes written to the terminal.
    written: Arc<Mutex<Vec<u8>>>,
    keys: Box<dyn Write + Send>,
    pub child: Box<dyn Child + Send + Sync>,
    /// Closes the terminal on drop.
    terminal: Box<dyn MasterPty + Send>,
}

impl Screen {
    pub(crate) fn open(command: &Command) -> Self {
        let size = PtySize {
            rows: ROWS,
            cols: COLUMNS,
            ..PtySize::default()
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut builder = CommandBuilder::new(command.get_program());
        builder.args(command.get_args());
        builder.env_clear();
        for (name, value) in command.get_envs() {
            builder.env(name, value.unwrap());
        }
        builder.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(builder).unwrap();
        let mut output = pair.master.try_clone_reader().unwrap();
        let parser = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let updated = parser.clone();
        let written = Arc::new(Mutex::new(Vec::new()));
        let copy = written.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                copy.lock().unwrap().extend_from_slice(&buffer[..length]);
                updated.lock().unwrap().process(&buffer[..length]);
            }
        });
        Self {
            parser,
            written,
            keys: pair.master.take_writer().unwrap(),
            child,
            terminal: pair.master,
        }
    }

    pub(crate) fn text(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Changes the size of the terminal.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let mut parser = self.parser.lock().unwrap();
        parser.screen_mut().set_size(rows, columns);
        let size = PtySize {
            rows,
            cols: columns,
            ..PtySize::default()
        };
        self.terminal.resize(size).unwrap();
    }

    /// Returns all that was written to the terminal.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// Returns whether `sequence` was written to the terminal, visible or not.
    pub(crate) fn was_sent(&self, sequence: &str) -> bool {
        self.written().contains(sequence)
    }

    /// Waits until `sequence` was written to the terminal.
    #[track_caller]
    pub(crate) fn wait_sent(&self, sequence: &str) {
        self.wait_for(&format!("{sequence:?} is sent"), |_| {
            self.was_sent(sequence)
        });
    }

    /// Waits until `text` is on the screen and its first cell meets a condition.
    #[track_caller]
    pub(crate) fn wait_row(&self, text: &str, condition: impl Fn(&CellStyle) -> bool) {
        self.wait_for(&format!("{text:?} has the expected attributes"), |_| {
            let parser = self.parser.lock().unwrap();
            let screen = parser.screen();
            let rows: Vec<String> = screen.rows(0, COLUMNS).collect();
            let found = rows.iter().enumerate().find_map(|(row, line)| {
                let before = line.split_once(text)?.0;
                screen.cell(row as u16, before.chars().count() as u16)
            });
            found.is_some_and(|cell| {
                condition(&CellStyle {
                    inverse: cell.inverse(),
                })
            })
        });
    }

    /// Returns whether any cell has a colour.
    pub(crate) fn has_colors(&self) -> bool {
        let parser = self.parser.lock().unwrap();
        let screen = parser.screen();
        let mut cells = (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (row, column)));
        cells.any(|(row, column)| {
            screen.cell(row, column).is_some_and(|cell| {
                (cell.fgcolor(), cell.bgcolor()) != (vt100::Color::Default, vt100::Color::Default)
            })
        })
    }

    /// Returns the number of cells with two different RGB colours, as pictures have.
    pub(crate) fn picture_cells(&self) -> usize {
        let parser = self.parser.lock().unwrap();
        let screen = parser.screen();
        let is_picture = |row, column| {
            screen.cell(row, column).is_some_and(|cell| {
                let colors = (cell.fgcolor(), cell.bgcolor());
                matches!(colors, (vt100::Color::Rgb(..), vt100::Color::Rgb(..)))
                    && cell.fgcolor() != cell.bgcolor()
            })
        };
        let rows = 0..ROWS;
        rows.map(|row| {
            (0..COLUMNS)
                .filter(|column| is_picture(row, *column))
                .count()
        })
        .sum()
    }

    /// Waits until the normal screen is shown and the cursor is visible: the last output of a program is read after its exit.
    #[track_caller]
    pub(crate) fn wait_until_restored(&self) {
        super::wait_until("the terminal is restored", || {
            let parser = self.parser.lock().unwrap();
            !parser.screen().alternate_screen() && !parser.screen().hide_cursor()
        });
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until the screen contains all of `words`; returns its text.
    #[track_caller]
    pub(crate) fn wait(&self, words: &[&str]) -> String {
        self.wait_for(&format!("{words:?}"), |text| {
            words.iter().all(|word| text.contains(word))
        })
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let since = Instant::now();
        loop {
            let text = self.text();
            if condition(&text) {
                return text;
            }
            assert!(
                since.elapsed() < DEADLINE,
                "timed out waiting for {what}:\n{text}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the program ends; returns its exit code.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self) -> u32 {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.exit_code();
            }
            assert!(
                since.elapsed() < DEADLINE,
                "program does not end:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
