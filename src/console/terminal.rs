//! The terminal: taken over, and given back whatever happens.

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

/// Button presses and the wheel (1000) in SGR form (1006). crossterm's own command would also turn on
/// 1003, which reports every motion of the mouse and so wakes the console all the time.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

static IS_ACTIVE: AtomicBool = AtomicBool::new(false);
/// The thread that draws: only its panics end the console.
static DRAW_THREAD: OnceLock<ThreadId> = OnceLock::new();

/// The terminal while the console has it; dropping gives it back.
///
/// ratatui's own drop is left out: it prints to stderr where the cursor cannot be shown, which panics
/// when the terminal is gone. What it would do is done in [`restore_terminal`].
pub(crate) struct Terminal {
    screen: ManuallyDrop<ratatui::Terminal<CrosstermBackend<OutputBuffer>>>,
    output: OutputBuffer,
    mouse: bool,
}

/// What is to be written, until it is sent: ratatui flushes within a frame, and a frame in pieces flickers over a slow
/// link.
#[derive(Clone, Default)]
struct OutputBuffer(Rc<RefCell<Vec<u8>>>);

impl OutputBuffer {
    fn send(&self) -> io::Result<()> {
        let mut held = self.0.borrow_mut();
        let mut stdout = io::stdout().lock();
        let sent = stdout.write_all(&held).and_then(|()| stdout.flush());
        held.clear();
        sent
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
    /// Takes the terminal over.
    pub(crate) fn open(mouse: bool) -> io::Result<Self> {
        // Fixed: of a full screen ratatui asks the size before each frame, opening /dev/tty for it.
        let viewport = Viewport::Fixed(size()?);
        let held = OutputBuffer::default();
        let backend = CrosstermBackend::new(held.clone());
        let terminal = ratatui::Terminal::with_options(backend, TerminalOptions { viewport })?;
        DRAW_THREAD.get_or_init(|| thread::current().id());
        let taken = Self {
            screen: ManuallyDrop::new(terminal),
            output: held,
            mouse,
        };
        taken.enter()?;
        Ok(taken)
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

    /// Gives the terminal back until [`Self::again`].
    pub(crate) fn leave(&self) {
        restore_terminal();
    }

    /// Takes the terminal over again; what stood on it is drawn anew with the next frame.
    pub(crate) fn reenter(&mut self) -> io::Result<()> {
        self.enter()?;
        execute!(io::stdout(), Clear(ClearType::All))?;
        self.fit()?;
        // Not `clear`: it asks for the cursor's place, and the answer would come among the keys. Both buffers are blank
        // after this, as the screen is.
        self.screen.swap_buffers();
        Ok(())
    }

    /// Asks for the terminal's size and draws within it from now on.
    pub(crate) fn fit(&mut self) -> io::Result<()> {
        let size = size()?;
        if self.screen.get_frame().area() != size {
            self.screen.resize(size)?;
        }
        Ok(())
    }

    /// Draws a frame; a terminal that knows synchronized output shows it at once.
    pub(crate) fn draw<T>(&mut self, draw: impl FnOnce(&mut Frame) -> T) -> io::Result<Option<T>> {
        let mut drawn = None;
        queue!(self.screen.backend_mut(), BeginSynchronizedUpdate)?;
        self.screen.draw(|frame| drawn = Some(draw(frame)))?;
        queue!(self.screen.backend_mut(), EndSynchronizedUpdate)?;
        self.output.send()?;
        Ok(drawn)
    }

    /// Sends a control sequence that draws nothing.
    pub(crate) fn send(&mut self, sequence: &str) -> io::Result<()> {
        self.output.write_all(sequence.as_bytes())?;
        self.output.send()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore_terminal();
    }
}

/// The whole terminal.
fn size() -> io::Result<Rect> {
    let (width, height) = crossterm::terminal::size()?;
    Ok(Rect::new(0, 0, width, height))
}

/// Gives the terminal back, once. What cannot be written now can be written nowhere else either.
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

/// From now on a panic writes a report beside the log file. Where it ends the console the terminal is
/// given back first and the report's path is printed; a panic on another thread (a job's, say) is
/// told in the log, and the console goes on.
pub(crate) fn report_panics(log_file: Option<&Path>) {
    let directory = log_file.and_then(Path::parent).map(Path::to_path_buf);
    let hooks = HookBuilder::default().theme(Theme::new()).try_into_hooks();
    let Ok((hook, eyre)) = hooks else { return };
    // The hook for errors can be set once, and main may have set it.
    let _ = eyre.install();
    std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        let report = hook.panic_report(info).to_string();
        let written = directory
            .as_deref()
            .map(|directory| write_report(directory, &report));
        let text = match written {
            Some(Ok(path)) => format!("a report is in {}", path.display()),
            _ => report,
        };
        let drawer = DRAW_THREAD
            .get()
            .is_none_or(|drawer| *drawer == thread::current().id());
        if IS_ACTIVE.load(Ordering::SeqCst) && !drawer {
            tracing::error!("internal error: {text}");
        } else {
            restore_terminal();
            // Not eprintln: it panics where stderr is gone, and a panic in here aborts.
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
