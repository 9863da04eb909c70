//! All keys, from the one table.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::{Content, Reply};
use crate::console::actions::{ACTIONS, Entry};
use crate::console::format;
use crate::console::keymap;
use crate::console::theme::Theme;

/// The dialog.
#[derive(Debug)]
pub struct Help;

const KEYS: usize = 17;

impl Help {
    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> Reply {
        match key.code {
            KeyCode::Char('q' | '?') | KeyCode::Enter | KeyCode::F(1) => Reply::close(),
            _ => Reply::Stay,
        }
    }

    /// What it shows.
    pub fn content(&self, theme: &Theme, width: usize) -> Content {
        let mut content = Content {
            title: "help".to_owned(),
            ..Content::default()
        };
        for entry in ACTIONS {
            let keys: Vec<String> = entry.keys.iter().map(|key| keymap::name(*key)).collect();
            let mut keys = format::fit(&keys.join(", "), KEYS);
            for line in format::wrap(&sentence(entry), width.saturating_sub(KEYS + 1)) {
                content.lines.push(Line::from(vec![
                    Span::styled(std::mem::replace(&mut keys, " ".repeat(KEYS)), theme.key),
                    Span::raw(format!(" {line}")),
                ]));
            }
        }
        content.gap();
        for line in [
            "Sandboxes   ● running  ◐ paused or asleep  ◌ saved  ○ shut off  ✗ crashed",
            "Snapshots   ⌂N sandboxes stand on it   = in the bucket  ≠ of another size there  ↑ not there",
            "Bucket      = here  ≠ here with another size  ↓ absent",
            "Matrix      ● here  ≠ of another size than in the bucket  · absent  ! damaged  ? as last seen  ✗ failed",
        ] {
            content.say(line, 0, theme.dim, width);
        }
        content.keys = vec![("esc", "close", true), ("j k", "scroll", true)];
        content
    }
}

fn sentence(entry: &Entry) -> String {
    let mut text = entry.sentence.to_owned();
    if entry.panes.len() < 5 {
        let panes: Vec<&str> = entry.panes.iter().map(|pane| pane.name()).collect();
        text.push_str(&format!(" [{}]", panes.join(", ")));
    }
    text
}
