//! Sets up the terminal, and restores it on exit, on a panic and before a suspend.

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};
use std::time::{SystemTime, UNIX_EPOCH};

use color_eyre::config::{HookBuilder, Theme};
use crossterm::cursor::Show;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::style::Print;
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Frame, TerminalOptions, Viewport};
use snapdeck_model::escape_unprintable_lines;

use super::osc::ControlSequence;

/// Reports button presses and the wheel (1000) in SGR form (1006). crossterm's own command also enables 1003, which
/// reports every motion of the mouse and so wakes the console all the time.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

static IS_ACTIVE: AtomicBool = AtomicBool::new(false);
/// The thread that draws. Only its panics end the console.
static DRAW_THREAD: OnceLock<ThreadId> = OnceLock::new();

/// The terminal in raw mode and on the alternate screen. It is restored on drop.
///
/// ratatui's drop is not used: if the cursor cannot be shown it prints to stderr, which panics if the terminal was
/// closed. [`restore_terminal`] does the same.
pub(crate) struct Terminal {
    screen: ManuallyDrop<ratatui::Terminal<CrosstermBackend<OutputBuffer>>>,
    output: OutputBuffer,
    mouse: bool,
}

/// Buffers a whole frame: ratatui flushes within a frame, which flickers over a slow connection.
#[derive(Clone, Default)]
struct OutputBuffer(Rc<RefCell<Vec<u8>>>);

impl OutputBuffer {
    fn send(&self) -> io::Result<()> {
        let mut buffer = self.0.borrow_mut();
        let mut stdout = io::stdout().lock();
        let result = stdout.write_all(&buffer).and_then(|()| stdout.flush());
        buffer.clear();
        result
    }
}

impl Write for OutputBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Terminal {
    pub(crate) fn open(mouse: bool) -> io::Result<Self> {
        // A fixed viewport: for a full-screen one ratatui opens /dev/tty before each frame to get the size.
        let viewport = Viewport::Fixed(size()?);
        let output = OutputBuffer::default();
        let backend = CrosstermBackend::new(output.clone());
        let screen = ratatui::Terminal::with_options(backend, TerminalOptions { viewport })?;
        DRAW_THREAD.get_or_init(|| thread::current().id());
        let terminal = Self {
            screen: ManuallyDrop::new(screen),
            output,
            mouse,
        };
        terminal.enter()?;
        Ok(terminal)
    }

    fn enter(&self) -> io::Result<()> {
        IS_ACTIVE.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        let mouse = if self.mouse { MOUSE_ON } else { "" };
        execute!(
            io::stdout(),
            EnterAlternateScreen,
            EnableBracketedPaste,
            Print(mouse)
        )
    }

    /// Restores the terminal until [`Self::reenter`].
    pub(crate) fn leave(&self) {
        restore_terminal();
    }

    /// Sets up the terminal again. The next frame redraws the whole screen.
    pub(crate) fn reenter(&mut self) -> io::Result<()> {
        self.enter()?;
        execute!(io::stdout(), Clear(ClearType::All))?;
        self.fit()?;
        // Not `clear`: it queries the cursor's position, and the response would arrive among the keys. After this both
        // buffers are blank, as the screen is.
        self.screen.swap_buffers();
        Ok(())
    }

    /// Adapts to the terminal's current size.
    pub(crate) fn fit(&mut self) -> io::Result<()> {
        let size = size()?;
        if self.screen.get_frame().area() != size {
            self.screen.resize(size)?;
        }
        Ok(())
    }

    /// Draws a frame, with synchronized output for terminals that support it.
    pub(crate) fn draw<T>(&mut self, draw: impl FnOnce(&mut Frame) -> T) -> io::Result<Option<T>> {
        let mut result = None;
        queue!(self.screen.backend_mut(), BeginSynchronizedUpdate)?;
        self.screen.draw(|frame| result = Some(draw(frame)))?;
        queue!(self.screen.backend_mut(), EndSynchronizedUpdate)?;
        self.output.send()?;
        Ok(result)
    }

    /// Sends a control sequence that draws nothing.
    pub(crate) fn send(&mut self, sequence: &ControlSequence) -> io::Result<()> {
        self.output.write_all(sequence.as_str().as_bytes())?;
        self.output.send()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore_terminal();
    }
}

fn size() -> io::Result<Rect> {
    let (width, height) = crossterm::terminal::size()?;
    Ok(Rect::new(0, 0, width, height))
}

/// Restores the terminal, once. Write errors are ignored: they cannot be reported anywhere.
fn restore_terminal() {
    if IS_ACTIVE.swap(false, Ordering::SeqCst) {
        let _ = execute!(
            io::stdout(),
            EndSynchronizedUpdate,
            Print(MOUSE_OFF),
            DisableBracketedPaste,
            LeaveAlternateScreen,
            Show
        );
        let _ = disable_raw_mode();
    }
}

/// Installs a panic hook that writes a report to the directory of the log file.
///
/// A panic of the drawing thread ends the console: the terminal is restored and the report's path printed. Panics of
/// other threads (jobs) are logged.
pub(crate) fn report_panics(log_file: Option<&Path>) {
    let directory = log_file.and_then(Path::parent).map(Path::to_path_buf);
    let hooks = HookBuilder::default().theme(Theme::new()).try_into_hooks();
    let Ok((hook, eyre)) = hooks else { return };
    // The error hook can be installed only once; main may have done so.
    let _ = eyre.install();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let report = hook.panic_report(info).to_string();
        let path = directory
            .as_deref()
            .map(|directory| write_report(directory, &report));
        let text = match path {
            Some(Ok(path)) => format!("the report is in {}", path.display()),
            _ => report,
        };
        // It may quote texts of hosts and stores.
        let text = escape_unprintable_lines(&text);
        let draws = DRAW_THREAD
            .get()
            .is_none_or(|id| *id == thread::current().id());
        if IS_ACTIVE.load(Ordering::SeqCst) && !draws {
            tracing::error!("internal error: {text}");
        } else {
            restore_terminal();
            // Not eprintln: it panics if stderr is closed, and a panic in the hook aborts.
            let _ = writeln!(io::stderr(), "internal error, snapdeck stopped: {text}");
        }
    }));
}

fn write_report(directory: &Path, report: &str) -> io::Result<PathBuf> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let path = directory.join(format!(
        "panic-{}-{}.txt",
        now.as_secs(),
        std::process::id()
    ));
    std::fs::create_dir_all(directory)?;
    std::fs::write(
        &path,
        format!("snapdeck {}\n{report}\n", env!("CARGO_PKG_VERSION")),
    )?;
    Ok(path)
}
