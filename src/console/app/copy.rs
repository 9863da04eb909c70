//! Copies the names, paths or URLs of the chosen rows.

use super::{App, Command};
use crate::cell::Place;
use crate::dialog::{CopyMenu, CopyValue};
use crate::pages::Subject;

/// Returns a value of a row, if it has one.
type Value = fn(&App, &Subject) -> Option<String>;

/// Opens the menu of what can be copied; copies the names if there is nothing else.
pub(crate) fn copy(app: &mut App) -> Vec<Command> {
    let mut values = values(app);
    match values.len() {
        0 => Vec::new(),
        1 => values
            .pop()
            .map(|value| Command::Copy(value.text()))
            .into_iter()
            .collect(),
        _ => {
            app.open(Box::new(CopyMenu::new(values)));
            Vec::new()
        }
    }
}

/// Returns what can be copied of the chosen rows: what all of them have.
fn values(app: &App) -> Vec<CopyValue> {
    let subjects = app.chosen();
    let mut values = vec![CopyValue {
        letter: 'n',
        label: "name",
        lines: app.chosen_names(),
    }];
    let kinds: [(char, &'static str, Value); 3] =
        [('p', "path", path), ('u', "URL", url), ('h', "host", host)];
    for (letter, label, value) in kinds {
        let lines: Option<Vec<String>> = subjects.iter().map(|row| value(app, row)).collect();
        let mut lines = lines.unwrap_or_default();
        lines.dedup();
        if !lines.is_empty() {
            values.push(CopyValue {
                letter,
                label,
                lines,
            });
        }
    }
    values
}

/// Returns the path of the image on its host.
pub(super) fn path(app: &App, subject: &Subject) -> Option<String> {
    match subject {
        Subject::Sandbox(host, id) => {
            let sandbox = app.world.sandbox(host, id)?;
            sandbox.disk().map(str::to_owned)
        }
        Subject::Snapshot(name, Place::Host(host)) => {
            Some(app.world.snapshot(host, name)?.path.clone())
        }
        _ => None,
    }
}

/// Returns the URL of the object in the bucket, or the libvirt URI of the host.
fn url(app: &App, subject: &Subject) -> Option<String> {
    match subject {
        Subject::Snapshot(name, _) => object_url(app, name),
        Subject::Host(host) => Some(app.world.host(host)?.uri.clone()),
        _ => None,
    }
}

/// Returns `s3://BUCKET/KEY`.
pub(super) fn object_url(app: &App, name: &snapdeck_model::SnapshotName) -> Option<String> {
    let key = &app.world.object(name)?.key;
    // The location is the bucket with the prefix, which the key has, too.
    let location = app.view().bucket.location.strip_prefix("s3://")?;
    let bucket = location.split('/').next()?;
    Some(format!("s3://{bucket}/{key}"))
}

fn host(_app: &App, subject: &Subject) -> Option<String> {
    match subject {
        Subject::Sandbox(host, _) | Subject::Snapshot(_, Place::Host(host)) => {
            Some(host.to_string())
        }
        _ => None,
    }
}
