//! An open dialog and its scroll position.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Context, Dialog, DialogAnswer, DialogReply};
use snapdeck_engine::View;

/// An open dialog and its scroll position.
#[derive(Debug)]
pub(crate) struct Layer {
    pub dialog: Box<dyn Dialog>,
    /// Lines above the visible part.
    pub scroll: usize,
    /// Whether the focused line is kept in view; false after scrolling by hand.
    pub is_following: bool,
}

impl Layer {
    pub(crate) fn new(mut dialog: Box<dyn Dialog>, view: &Arc<View>) -> Self {
        dialog.update(view);
        Self {
            dialog,
            scroll: 0,
            is_following: false,
        }
    }

    /// Handles a key; `lines` is the number of visible lines.
    pub(crate) fn on_key(
        &mut self,
        key: KeyEvent,
        context: &Context<'_>,
        lines: usize,
    ) -> DialogReply {
        if key.code == KeyCode::Esc && self.dialog.serial().is_none() {
            return self.dialog.cancel();
        }
        let reply = self.dialog.on_key(key, context);
        self.dialog.update(context.view);
        match reply {
            DialogReply::Ignored => {
                if let Some(by) = scroll_lines(key, lines) {
                    self.is_following = false;
                    self.scroll = self.scroll.saturating_add_signed(by);
                }
                DialogReply::Stay
            }
            reply => {
                self.is_following = true;
                reply
            }
        }
    }

    pub(crate) fn paste(&mut self, text: &str, view: &Arc<View>) {
        self.dialog.paste(text);
        self.dialog.update(view);
        self.is_following = true;
    }

    /// Handles a click on a line of the content, `width` columns wide.
    pub(crate) fn on_click(
        &mut self,
        line: usize,
        context: &Context<'_>,
        width: usize,
    ) -> DialogReply {
        let target = self.dialog.content(context, width).target(line);
        let reply = match target {
            Some(target) => self.dialog.on_click(target, context),
            None => DialogReply::Ignored,
        };
        self.dialog.update(context.view);
        reply
    }

    pub(crate) fn on_answer(&mut self, answer: DialogAnswer, view: &Arc<View>) {
        self.dialog.on_answer(answer);
        self.dialog.update(view);
    }
}

/// Returns the lines that a key scrolls by; `None`: it does not scroll.
fn scroll_lines(key: KeyEvent, lines: usize) -> Option<isize> {
    let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
    let page = isize::try_from(lines).unwrap_or(isize::MAX).max(1);
    let half = (page / 2).max(1);
    Some(match (key.code, ctrl) {
        (KeyCode::PageUp, _) | (KeyCode::Char('b'), true) => -page,
        (KeyCode::PageDown, _) | (KeyCode::Char('f'), true) => page,
        (KeyCode::Char('u'), true) => -half,
        (KeyCode::Char('d'), true) => half,
        (KeyCode::Home, _) | (KeyCode::Char('g'), false) => isize::MIN,
        (KeyCode::End, _) | (KeyCode::Char('G'), false) => isize::MAX,
        (KeyCode::Up, _) | (KeyCode::Char('k'), false) => -1,
        (KeyCode::Down, _) | (KeyCode::Char('j'), false) => 1,
        _ => return None,
    })
}
