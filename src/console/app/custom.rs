//! Commands of the operator on the marked rows, or on the selected one.

use super::copy::{object_url, path};
use super::{App, Command};
use crate::cell::Place;
use crate::custom::{CommandRun, CustomCommand, Part, Placeholder, Target};
use crate::dialog::ConfirmCommand;
use crate::pages::Subject;

/// Runs the command, or opens its confirmation. For several rows it is always asked.
pub(crate) fn run(app: &mut App, number: u8) -> Vec<Command> {
    let confirm = command(app, number).is_ok_and(|command| command.confirm);
    let Ok(runs) = prepare(app, number) else {
        return Vec::new();
    };
    if confirm || runs.len() > 1 {
        app.open(Box::new(ConfirmCommand { runs }));
        return Vec::new();
    }
    vec![Command::Run(runs)]
}

fn command(app: &App, number: u8) -> Result<&CustomCommand, String> {
    let commands = &app.custom_commands;
    commands
        .get(usize::from(number))
        .ok_or_else(|| "no such command".to_owned())
}

/// Returns why the command is not possible, by the first row that it is for.
pub(crate) fn obstacle(app: &App, number: u8) -> Option<String> {
    let prepare_first = || {
        let command = command(app, number)?;
        match subjects(app, command)?.first() {
            Some(subject) => prepare_row(app, command, subject).map(drop),
            None => Ok(()),
        }
    };
    prepare_first().err()
}

/// Returns the command with the values of each marked row, or of the selected one, or why it is not possible.
fn prepare(app: &App, number: u8) -> Result<Vec<CommandRun>, String> {
    let command = command(app, number)?;
    let subjects = subjects(app, command)?.into_iter();
    subjects
        .map(|subject| prepare_row(app, command, &subject))
        .collect()
}

/// Returns the rows that the command is for.
fn subjects(app: &App, command: &CustomCommand) -> Result<Vec<Subject>, String> {
    let mut subjects = app.chosen();
    if subjects.is_empty() {
        return Err("nothing is selected".to_owned());
    }
    let is_for = |target: Target| command.targets.contains(&target);
    subjects.retain(|subject| target(subject).is_some_and(is_for));
    match subjects.is_empty() {
        true => Err(format!("{} is not for this row", command.entry.name)),
        false => Ok(subjects),
    }
}

fn prepare_row(
    app: &App,
    command: &CustomCommand,
    subject: &Subject,
) -> Result<CommandRun, String> {
    let argv = command
        .argv
        .iter()
        .map(|word| word.iter().map(|part| fill(app, subject, part)).collect())
        .collect::<Result<Vec<Vec<Part>>, String>>()?;
    Ok(CommandRun {
        name: command.entry.name,
        uuid_of: uuid_of(command, subject),
        argv,
        background: command.background,
        pause: command.pause,
        is_mutating: command.entry.is_mutating,
    })
}

fn target(subject: &Subject) -> Option<Target> {
    Some(match subject {
        Subject::Sandbox(..) => Target::Sandbox,
        Subject::Snapshot(_, Place::Host(_)) => Target::Snapshot,
        Subject::Snapshot(_, Place::Bucket) => Target::Object,
        Subject::Host(_) => Target::Host,
        Subject::Job(_) | Subject::Interrupted(_) | Subject::Past(_) | Subject::Partial(..) => {
            return None;
        }
    })
}

/// Returns the sandbox if the command needs its UUID.
fn uuid_of(
    command: &CustomCommand,
    subject: &Subject,
) -> Option<(snapdeck_model::HostName, snapdeck_model::SandboxId)> {
    let mut parts = command.argv.iter().flatten();
    match subject {
        Subject::Sandbox(host, id) if parts.any(|part| *part == Part::Value(Placeholder::Uuid)) => {
            Some((host.clone(), id.clone()))
        }
        _ => None,
    }
}

/// Replaces a placeholder by its value; that of a UUID, which is asked for later, stays.
fn fill(app: &App, subject: &Subject, part: &Part) -> Result<Part, String> {
    let Part::Value(placeholder) = part else {
        return Ok(part.clone());
    };
    let host = match subject {
        Subject::Sandbox(host, _)
        | Subject::Snapshot(_, Place::Host(host))
        | Subject::Host(host) => Some(host),
        _ => None,
    };
    let value = match (placeholder, subject) {
        (Placeholder::Uuid, Subject::Sandbox(..)) => return Ok(part.clone()),
        (Placeholder::Uuid, _) => None,
        (Placeholder::Name, Subject::Sandbox(_, id)) => Some(id.to_string()),
        (Placeholder::Name, Subject::Snapshot(name, _)) => Some(name.to_string()),
        (Placeholder::Name | Placeholder::Host, _) => host.map(ToString::to_string),
        (Placeholder::Path, subject) => path(app, subject),
        (Placeholder::Uri, _) => {
            let host = host.and_then(|host| app.world.host(host));
            host.map(|host| host.uri.clone())
        }
        (Placeholder::Object, Subject::Snapshot(name, _)) => object_url(app, name),
        (Placeholder::Object, _) => None,
    };
    value.map(Part::Text).ok_or_else(|| {
        let row = match subject {
            Subject::Sandbox(_, id) => id.to_string(),
            Subject::Snapshot(name, _) => name.to_string(),
            Subject::Host(host) => host.to_string(),
            _ => "the row".to_owned(),
        };
        format!("{row} has no {{{}}}", placeholder.name())
    })
}
