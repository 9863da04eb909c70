//! Commands of the operator on the selected row.

use super::copy::{object_url, path};
use super::{App, Command};
use crate::cell::Place;
use crate::custom::{CommandRun, CustomCommand, Part, Placeholder, Target};
use crate::dialog::ConfirmCommand;
use crate::pages::Subject;

/// Runs the command, or opens its confirmation.
pub(crate) fn run(app: &mut App, number: u8) -> Vec<Command> {
    let confirm = app
        .custom_commands
        .get(usize::from(number))
        .is_some_and(|command| command.confirm);
    match (prepare(app, number), confirm) {
        (Ok(run), true) => {
            app.open(Box::new(ConfirmCommand { run }));
            Vec::new()
        }
        (Ok(run), false) => vec![Command::Run(run)],
        (Err(_), _) => Vec::new(),
    }
}

/// Returns the command with the values of the selected row, or why it is not possible.
pub(crate) fn prepare(app: &App, number: u8) -> Result<CommandRun, String> {
    let commands = &app.custom_commands;
    let command = commands.get(usize::from(number)).ok_or("no such command")?;
    let subject = app.selected().ok_or("nothing is selected")?;
    if !target(&subject).is_some_and(|target| command.targets.contains(&target)) {
        return Err(format!("{} is not for this row", command.entry.name));
    }
    let argv = command
        .argv
        .iter()
        .map(|word| word.iter().map(|part| fill(app, &subject, part)).collect())
        .collect::<Result<Vec<Vec<Part>>, String>>()?;
    Ok(CommandRun {
        name: command.entry.name,
        uuid_of: uuid_of(command, &subject),
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
        Subject::Job(_) | Subject::Interrupted(_) | Subject::Past(_) => return None,
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
    value
        .map(Part::Text)
        .ok_or_else(|| format!("the row has no {{{}}}", placeholder.name()))
}
