//! The serial console of a sandbox. The bytes of a guest reach the terminal only through an emulator.

mod emulator;
mod keys;
mod session;

use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) use emulator::Emulator;
pub(crate) use keys::{encode_key, encode_paste};
pub(crate) use session::SerialSession;

/// The state of a serial console: the thread that reads it writes the state, the screen shows it.
#[derive(Debug, Clone)]
pub(crate) struct SerialTerminal(Arc<Mutex<TerminalState>>);

#[derive(Debug)]
pub(crate) struct TerminalState {
    pub emulator: Emulator,
    /// Why there is no connection any more.
    pub end: Option<String>,
}

impl SerialTerminal {
    /// Creates a terminal of this size, at least 20 columns and 5 rows.
    pub(crate) fn new(columns: u16, rows: u16) -> Self {
        Self(Arc::new(Mutex::new(TerminalState {
            emulator: Emulator::new(columns, rows),
            end: None,
        })))
    }

    /// Returns the state; `None` if the emulator has panicked.
    pub(crate) fn lock(&self) -> Option<MutexGuard<'_, TerminalState>> {
        self.0.lock().ok()
    }

    /// Returns why there is no connection any more.
    pub(crate) fn end(&self) -> Option<String> {
        match self.lock() {
            Some(state) => state.end.clone(),
            None => Some("the terminal emulator failed, see the log".to_owned()),
        }
    }

    fn set_end(&self, reason: &str) {
        if let Some(mut state) = self.lock() {
            state.end.get_or_insert_with(|| reason.to_owned());
        }
    }
}
