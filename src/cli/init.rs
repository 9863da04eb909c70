//! `snapdeck init`: asks for hosts and bucket, checks them, and writes a settings file.

use std::io::{IsTerminal, stderr, stdin};

use clap::Args;
use serde_json::{Value, json};

use super::doctor;
use super::job::StopSignals;
use super::output::{CommandOutput, eprint_text, prompt};
use snapdeck_engine::Engine;
use snapdeck_model::{Error, HostName, Kind, Result};
use snapdeck_settings::{Setup, SetupAnswers, SetupField, write_settings_file};

/// Arguments of `init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Directory of the snapshots on each host
    #[arg(long, value_name = "DIR")]
    pub snapshots_dir: Option<String>,
    /// Directory of the sandboxes on each host
    #[arg(long, value_name = "DIR")]
    pub sandboxes_dir: Option<String>,
    /// User and group of QEMU on the hosts
    #[arg(long, value_name = "USER:GROUP")]
    pub owner: Option<String>,
    /// AWS profile with the keys of the bucket [env: AWS_PROFILE]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Do not ask; write what is given and proposed
    #[arg(long)]
    pub yes: bool,
    /// Do not ask; print the file instead of writing it
    #[arg(long, conflicts_with = "yes")]
    pub print: bool,
}

impl InitArgs {
    /// Returns the proposed answers with those of the command line; `hosts` are the hosts given with `--host`.
    fn answers(&self, setup: &Setup, hosts: &[HostName]) -> SetupAnswers {
        let mut answers = setup.proposed.clone();
        let fields = [
            (SetupField::Snapshots, &self.snapshots_dir),
            (SetupField::Sandboxes, &self.sandboxes_dir),
            (SetupField::Owner, &self.owner),
            (SetupField::Profile, &self.profile),
        ];
        for (field, text) in fields {
            if let Some(text) = text {
                answers.set(field, text);
            }
        }
        if !hosts.is_empty() {
            let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
            answers.set(SetupField::Hosts, &names.join(" "));
        }
        answers
    }
}

/// The operator's decision about the checked answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Write,
    Change,
    Leave,
}

/// Asks for the settings unless flags forbid it, checks them, and writes them. `hosts` are the hosts given with `--host`.
///
/// # Errors
/// `InvalidInput` for an invalid answer of the command line, or if nothing can be asked; `Conflict` if the file exists;
/// `Cancelled`.
pub async fn init(setup: &Setup, hosts: &[HostName], args: &InitArgs) -> Result<CommandOutput> {
    let mut answers = args.answers(setup, hosts);
    if args.print {
        let text = answers.to_toml()?;
        return CommandOutput::new(&json!({ "config": text }), text);
    }
    let path = setup.path.display();
    let mut report = None;
    if args.yes {
        // Before the checks, which take time.
        answers.to_toml()?;
        report = Some(check(setup, &answers).await?);
    } else {
        require_terminal()?;
        let mut stops = StopSignals::new()?;
        eprint_text(&introduction(setup));
        loop {
            ask_fields(setup, &mut answers, &mut stops).await?;
            eprint_text("\nchecking hosts and bucket ...\n\n");
            let checked = check(setup, &answers).await?;
            eprint_text(&format!("{}\n", checked.text));
            match decide(&format!("{path}"), &mut stops).await? {
                Decision::Write => break,
                Decision::Change => {}
                Decision::Leave => return Err(Error::cancelled("the setup")),
            }
        }
    }
    write_settings_file(&setup.path, &answers.to_toml()?)?;
    let text = format!(
        "wrote {path}\n\nNext: `snapdeck` opens the console, `snapdeck doctor` repeats the checks.\n"
    );
    let (checked, document) = report.map_or_else(Default::default, |report: CommandOutput| {
        (format!("{}\n", report.text), report.json)
    });
    let mut json = json!({ "configFile": path.to_string() });
    if let (Value::Object(json), Value::Object(checks)) = (&mut json, document) {
        json.extend(checks);
    }
    CommandOutput::new(&json, checked + &text)
}

fn require_terminal() -> Result<()> {
    if stdin().is_terminal() && stderr().is_terminal() {
        return Ok(());
    }
    let summary = "cannot ask for the settings without a terminal";
    Err(Error::new(Kind::InvalidInput, summary)
        .hint("pass --yes with --host or --uri and --bucket-name; see snapdeck init --help"))
}

fn introduction(setup: &Setup) -> String {
    format!(
        "This asks for hosts and bucket, checks them, and writes {}.\n\
         Enter accepts the value in brackets, - clears it, ctrl-c leaves without a file.\n",
        setup.path.display()
    )
}

/// Checks the hosts and the bucket of the answers.
async fn check(setup: &Setup, answers: &SetupAnswers) -> Result<CommandOutput> {
    let settings = setup.settings(answers)?;
    let hosts: Vec<HostName> = settings
        .hosts
        .iter()
        .map(|host| host.name.clone())
        .collect();
    let has_bucket = settings.bucket.name.is_some();
    let engine = Engine::new(settings).await?;
    let output = doctor::run(&engine, &hosts, has_bucket).await;
    engine.shutdown().await;
    output
}

async fn ask_fields(
    setup: &Setup,
    answers: &mut SetupAnswers,
    stops: &mut StopSignals,
) -> Result<()> {
    for field in SetupField::ALL {
        if !answers.asks(field) {
            continue;
        }
        let mut heading = format!("\n{}: {}\n", field.label(), field.help());
        if field == SetupField::Profile {
            heading += &format!("  {}\n", setup.discovery.describe_keys());
        } else if let Some(found) = setup.found(field) {
            heading += &format!("  {found}\n");
        }
        eprint_text(&heading);
        loop {
            let before = answers.get(field).to_owned();
            let current = match before.as_str() {
                "" => String::new(),
                text => format!(" [{text}]"),
            };
            match ask(format!("{}{current}: ", field.label()), stops)
                .await?
                .as_str()
            {
                "" => {}
                "-" => answers.set(field, ""),
                text => answers.set(field, text),
            }
            match (answers.check(field), setup.problem(answers, field)) {
                (Err(problem), _) => {
                    eprint_text(&format!("  {problem}\n"));
                    answers.set(field, &before);
                }
                (Ok(()), note) => {
                    if let Some(note) = note {
                        eprint_text(&format!("  note: {note}\n"));
                    }
                    break;
                }
            }
        }
    }
    Ok(())
}

async fn decide(path: &str, stops: &mut StopSignals) -> Result<Decision> {
    loop {
        let question = format!("Write {path}? yes, change the answers, or no [yes]: ");
        let decision = match ask(question, stops).await?.to_lowercase().as_str() {
            "" | "y" | "yes" => Decision::Write,
            "c" | "change" => Decision::Change,
            "n" | "no" => Decision::Leave,
            _ => continue,
        };
        return Ok(decision);
    }
}

/// Returns the line that is typed, without spaces around it.
///
/// # Errors
/// `Cancelled` after a signal or the end of the input.
async fn ask(question: String, stops: &mut StopSignals) -> Result<String> {
    let read = tokio::task::spawn_blocking(move || prompt(&question));
    let line = tokio::select! {
        line = read => line.map_err(|error| Error::new(Kind::Failed, "cannot ask").with_cause(error))??,
        _ = stops.recv() => return Err(Error::cancelled("the setup")),
    };
    match line.is_empty() {
        true => Err(Error::cancelled("the setup")),
        false => Ok(line.trim().to_owned()),
    }
}
