//! Parses the arguments, runs a front end, and returns its exit code.

#![expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]

use std::ffi::OsString;
use std::io::{IsTerminal, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use snapdeck_api as api;
use snapdeck_cli::{
    self as cli, Cli, Command, CommandOutput, CommandPlan, ConsoleFlags, ServeArgs, StopSignals,
};
use snapdeck_console as console;
#[cfg(feature = "demo")]
use snapdeck_demo as demo;
use snapdeck_engine::Engine;
use snapdeck_model::{Error, HostName, Kind, Result, is_unprintable, printable};
use snapdeck_settings::{self as settings, Flags, LoadedSettings, Setup};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

/// Limit of the wait for threads that may hang in a libvirt call.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    escape_panic_messages();
    snapdeck_host::keep_new_files_private();
    snapdeck_host::set_mmap_threshold();
    snapdeck_host::raise_open_files_limit();
    let args: Vec<OsString> = std::env::args_os().collect();
    // Before parsing, so that usage errors are JSON, too.
    let json = args
        .iter()
        .skip(1)
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--json");
    let result = match Cli::try_parse_from(args) {
        Ok(cli) => run_front_end(cli),
        Err(error) if !error.use_stderr() => {
            let text = error.render();
            let output = CommandOutput::new(&text.to_string(), text.to_string());
            return ExitCode::from(cli::output::finish(output, false));
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Error::new(Kind::InvalidInput, "a command is missing").hint("see snapdeck --help"))
        }
        Err(error) => Err(cli::exit::usage_error(&error)),
    };
    ExitCode::from(cli::output::finish(result, json))
}

/// Prints panics whose message has unprintable characters with escapes. It may quote texts of hosts and stores.
fn escape_panic_messages() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match info.payload_as_str() {
        Some(text) if text.contains(is_unprintable) => {
            let place = info.location().map(ToString::to_string);
            let text = printable(text);
            cli::output::eprint_line(format_args!(
                "internal error at {}: {text}",
                place.unwrap_or_default()
            ));
        }
        _ => default(info),
    }));
}

fn run_front_end(cli: Cli) -> Result<CommandOutput> {
    let Cli {
        command,
        console: flags,
        global,
    } = cli;
    if global.json && !has_output(command.as_ref()) {
        return Err(Error::new(
            Kind::InvalidInput,
            "--json needs a command that prints a result",
        )
        .hint("see snapdeck --help"));
    }
    if command.is_some() && flags != ConsoleFlags::default() {
        return Err(Error::new(
            Kind::InvalidInput,
            "--read-only and --plain apply to the console only",
        )
        .hint("use them without a command, or after demo"));
    }
    if let Some(Command::Init(args)) = &command {
        log_to_stderr(global.verbose);
        let setup = find_setup(global.flags(), args.print)?;
        return run_async(cli::init(&setup, &global.host, args));
    }
    let loaded = settings::load(
        &global.flags(),
        &|name| std::env::var_os(name),
        settings::user_config_path().as_deref(),
    )?;
    match command {
        None => {
            require_terminal()?;
            open_console(loaded, &flags)
        }
        #[cfg(feature = "demo")]
        Some(Command::Demo(flags)) => {
            require_terminal()?;
            open_demo(loaded, &flags)
        }
        Some(Command::Config) => {
            CommandOutput::new(&loaded.report.to_json(), loaded.report.to_string())
        }
        Some(Command::Serve(args)) => {
            log_to_stderr(global.verbose.max(1));
            let host = cli::select_host(&global.host, &loaded.settings)?;
            open_api(loaded, host, &args)
        }
        Some(command) => {
            let plan = cli::plan(command, &global.host, &loaded.settings)?;
            log_to_stderr(global.verbose);
            match plan {
                Some(plan) => run_command(loaded, plan, global.verbose > 0),
                None => empty_output(),
            }
        }
    }
}

fn has_output(command: Option<&Command>) -> bool {
    match command {
        None => false,
        #[cfg(feature = "demo")]
        Some(Command::Demo(_)) => false,
        Some(_) => true,
    }
}

/// Returns the setup of the settings file that `flags` or the environment name, which must not exist unless it is only
/// printed.
fn find_setup(mut flags: Flags, is_printed: bool) -> Result<Setup> {
    const CONFIG: &str = "SNAPDECK_CONFIG";
    let env = |name: &str| std::env::var_os(name).filter(|_| name != CONFIG);
    let variable = std::env::var_os(CONFIG).filter(|path| !path.is_empty());
    let named = flags.config.take().or(variable.map(PathBuf::from));
    let path = named.or_else(settings::user_config_path).ok_or_else(|| {
        Error::new(Kind::InvalidInput, "no directory for the settings file")
            .hint("set HOME or XDG_CONFIG_HOME, or pass --config")
    })?;
    if !is_printed {
        settings::refuse_existing(&path)?;
    }
    let loaded = settings::load(&flags, &env, None)?;
    Ok(Setup::search(path, &loaded, &env))
}

fn run_async(output: impl Future<Output = Result<CommandOutput>>) -> Result<CommandOutput> {
    let runtime = build_runtime()?;
    let result = runtime.block_on(output);
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    result
}

fn empty_output() -> Result<CommandOutput> {
    CommandOutput::new(&(), "")
}

fn run_command(loaded: LoadedSettings, plan: CommandPlan, verbose: bool) -> Result<CommandOutput> {
    run_async(async {
        let state = settings::state_dir();
        let engine = Engine::with_state(loaded.settings, state.as_deref()).await?;
        let output = cli::run(&engine, plan, verbose).await;
        engine.shutdown().await;
        output
    })
}

fn open_console(loaded: LoadedSettings, flags: &ConsoleFlags) -> Result<CommandOutput> {
    color_eyre::install().map_err(into_error)?;
    let env = |name: &str| std::env::var_os(name);
    let missing_file = loaded.missing_file.clone();
    let setup = missing_file.map(|path| Setup::search(path, &loaded, &env));
    let runtime = build_runtime()?;
    let state_dir = settings::state_dir();
    let options = console::Options {
        log_file: state_dir.as_ref().map(|dir| dir.join("snapdeck.log")),
        state_dir,
        config_dir: loaded.config_dir.clone(),
        read_only: flags.read_only,
        plain: flags.plain,
        banner: None,
        setup,
        offers_setup: loaded.is_unconfigured(),
    };
    let result = runtime.block_on(async {
        let state = settings::state_dir();
        let engine = Engine::with_state(loaded.settings, state.as_deref()).await?;
        if let Some(state) = state
            && let Err(error) = engine.open_journal(&state)
        {
            // Without a journal, only interrupted jobs cannot be resumed.
            cli::output::eprint_line(format_args!("warning: {error}"));
        }
        console::run(engine, options).await.map_err(into_error)
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    match result? {
        console::Exit::Quit => empty_output(),
        console::Exit::Restart => Err(restart()),
    }
}

/// Replaces this process by a new one with the same arguments; returns why that is not possible.
fn restart() -> Error {
    let replace = || -> std::io::Result<std::io::Error> {
        let program = std::env::current_exe()?;
        let args = std::env::args_os().skip(1);
        Ok(std::process::Command::new(program).args(args).exec())
    };
    let error = replace().unwrap_or_else(|error| error);
    Error::new(Kind::Failed, "cannot restart snapdeck")
        .with_cause(error)
        .hint("start it again: the settings are written")
}

fn open_api(loaded: LoadedSettings, host: HostName, args: &ServeArgs) -> Result<CommandOutput> {
    let options = build_api_options(args)?;
    options.check()?;
    let state = settings::state_dir().ok_or_else(|| {
        Error::new(Kind::InvalidInput, "no directory for the journal")
            .hint("set HOME or XDG_STATE_HOME")
    })?;
    let runtime = build_runtime()?;
    let result = runtime.block_on(async {
        // First, so that no signal can end the process during a job.
        let mut stops = StopSignals::new()?;
        // Other hosts are served by other processes.
        let engine = Engine::for_host(loaded.settings, &host, &state).await?;
        engine.open_journal(&state)?;
        api::serve(engine, host, options, async {
            stops.recv().await;
        })
        .await
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    result.and_then(|()| empty_output())
}

fn build_api_options(args: &ServeArgs) -> Result<api::Options> {
    let env = |name: &str| std::env::var_os(name);
    let token = settings::read_api_token(args.token_file.as_deref(), &env)?;
    let access = match (token, args.insecure_no_auth) {
        (Some(token), false) => api::Access::Token(api::Token::new(&token)?),
        (None, true) => api::Access::Open,
        (Some(_), true) => {
            return Err(Error::new(
                Kind::InvalidInput,
                "--insecure-no-auth conflicts with SNAPDECK_API_TOKEN",
            )
            .hint("remove one of the two"));
        }
        (None, false) => {
            return Err(Error::new(Kind::InvalidInput, "the API needs a token")
                .hint(
                    "set SNAPDECK_API_TOKEN or pass --token-file; generate one with `openssl rand -hex 32`",
                ));
        }
    };
    let files = args.tls_cert.clone().zip(args.tls_key.clone());
    Ok(api::Options {
        listen: args.listen,
        access,
        tls: files.map(|(cert, key)| api::TlsFiles { cert, key }),
        has_public_metrics: args.public_metrics,
    })
}

#[cfg(feature = "demo")]
fn open_demo(loaded: LoadedSettings, flags: &ConsoleFlags) -> Result<CommandOutput> {
    demo::reexec_with_quiet_libvirt()?;
    color_eyre::install().map_err(into_error)?;
    let runtime = build_runtime()?;
    let result = runtime.block_on(async {
        cli::output::eprint_line("creating a host, a bucket, an image and three sandboxes ...");
        let demo = demo::DemoEnvironment::create(loaded.settings.console).await?;
        let options = console::Options {
            log_file: Some(demo.dir().join("snapdeck.log")),
            banner: Some("demo: removed on exit".into()),
            config_dir: loaded.config_dir,
            read_only: flags.read_only,
            plain: flags.plain,
            ..console::Options::default()
        };
        let result = async {
            let engine = Engine::new(demo.settings()).await?;
            console::run(engine, options).await.map_err(into_error)
        }
        .await;
        demo.shut_down().await?;
        result
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    result.and_then(|_| empty_output())
}

fn require_terminal() -> Result<()> {
    if stdin().is_terminal() && stdout().is_terminal() {
        return match std::env::var_os("TERM") {
            Some(term) if term == "dumb" => Err(Error::new(
                Kind::InvalidInput,
                "the console needs a terminal that can move the cursor: TERM is dumb",
            )
            .hint("set TERM to the terminal's type, such as xterm-256color, or use a command such as snapdeck sandboxes")),
            _ => Ok(()),
        };
    }
    Err(Error::new(
        Kind::InvalidInput,
        "the console needs a terminal for its input and output",
    )
    .hint("in a script use a command such as snapdeck sandboxes; see snapdeck --help"))
}

const STACK_BYTES: usize = 8 << 20;

fn build_runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(
            std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4)),
        )
        // The calls of a job are deeply nested, and without optimisation their frames are large. Only what is used is memory.
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|error| Error::new(Kind::Failed, "cannot start the runtime").with_cause(error))
}

/// Unwraps the [`Error`] in a report, with its exit code.
fn into_error(report: color_eyre::Report) -> Error {
    match report.downcast::<Error>() {
        Ok(error) => error,
        Err(report) => Error::new(Kind::Failed, format!("{report:#}")),
    }
}

/// Logs to stderr, except the lines of jobs, which are shown with their progress.
fn log_to_stderr(verbose: u8) {
    let filter = match verbose {
        0 => "warn,snapdeck_engine::jobs=off",
        1 => "warn,snapdeck=info,snapdeck_engine::jobs=off",
        _ => "info,snapdeck=debug,snapdeck_engine::jobs=off",
    };
    // Fails only if a subscriber is set.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .fmt_fields(console::log_fields())
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
