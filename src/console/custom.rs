//! Commands of the operator, bound to keys: `commands.toml`.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::actions::{Action, Entry, Pane};
use super::keymap::{Keymap, UserKey};
use snapdeck_model::{HostName, Result, SandboxId};
use snapdeck_settings::SourceText;

const MAX_COMMANDS: usize = 200;

/// Kinds of rows, and the panes with such rows.
const TARGETS: &[(&str, Target, &[Pane])] = &[
    (
        "sandbox",
        Target::Sandbox,
        &[Pane::Sandboxes, Pane::Wall, Pane::Details],
    ),
    (
        "snapshot",
        Target::Snapshot,
        &[Pane::Snapshots, Pane::Matrix, Pane::Tree, Pane::Details],
    ),
    (
        "object",
        Target::Object,
        &[Pane::Bucket, Pane::Matrix, Pane::Tree, Pane::Details],
    ),
    ("host", Target::Host, &[Pane::Hosts]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Sandbox,
    Snapshot,
    Object,
    Host,
}

/// A value of the selected row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placeholder {
    Name,
    Host,
    Path,
    Uri,
    Uuid,
    Object,
}

const PLACEHOLDERS: &[(&str, Placeholder)] = &[
    ("name", Placeholder::Name),
    ("host", Placeholder::Host),
    ("path", Placeholder::Path),
    ("uri", Placeholder::Uri),
    ("uuid", Placeholder::Uuid),
    ("object", Placeholder::Object),
];

impl Placeholder {
    pub(crate) fn name(self) -> &'static str {
        let named = PLACEHOLDERS.iter().find(|(_, other)| *other == self);
        named.map_or("", |(name, _)| name)
    }
}

/// A part of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Value(Placeholder),
}

/// A command of the operator.
#[derive(Debug, Clone)]
pub(crate) struct CustomCommand {
    pub entry: &'static Entry,
    pub targets: Vec<Target>,
    /// The program and its arguments, each of several parts.
    pub argv: Vec<Vec<Part>>,
    pub background: bool,
    pub confirm: bool,
    /// Wait for enter after it, so that its output can be read.
    pub pause: bool,
}

/// A command with the values of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandRun {
    pub name: &'static str,
    pub argv: Vec<Vec<Part>>,
    /// The sandbox whose UUID is an argument.
    pub uuid_of: Option<(HostName, SandboxId)>,
    pub background: bool,
    pub pause: bool,
    /// Not allowed with `--read-only`.
    pub is_mutating: bool,
}

impl CommandRun {
    /// Returns program and arguments, with the UUID of the sandbox.
    pub(crate) fn words(&self, uuid: &str) -> Vec<String> {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(_) => uuid.to_owned(),
        };
        let word = |parts: &Vec<Part>| parts.iter().map(part).collect();
        self.argv.iter().map(word).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    command: Vec<Definition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: Spanned<String>,
    keys: Vec<Spanned<String>>,
    on: Vec<Spanned<String>>,
    argv: Vec<Spanned<String>>,
    help: Option<String>,
    #[serde(default)]
    background: bool,
    #[serde(default)]
    confirm: bool,
    #[serde(default)]
    read_only: bool,
    #[serde(default = "enabled")]
    pause: bool,
}

fn enabled() -> bool {
    true
}

/// Reads `text`, the content of `path`, and binds the keys of its commands in `keymap`.
///
/// The second part lists the default keys that now run a command.
///
/// # Errors
/// `InvalidInput` with the line: an unknown setting, pane, placeholder or key, an empty command, or a key that is also one
/// of `keymap.toml` or of another command.
pub(crate) fn read(
    text: &str,
    path: &Path,
    keymap: &mut Keymap,
) -> Result<(Vec<CustomCommand>, Vec<String>)> {
    let text = SourceText {
        error_summary: "cannot read the commands",
        path,
        text,
    };
    let file: File = toml::from_str(text.text)
        .map_err(|error| text.syntax_error(error.span(), error.message()))?;
    let mut commands: Vec<CustomCommand> = Vec::new();
    let mut user_keys = Vec::new();
    for definition in file.command.into_iter().take(MAX_COMMANDS) {
        let number = u8::try_from(commands.len()).unwrap_or(u8::MAX);
        let keys: Vec<UserKey> = definition
            .keys
            .iter()
            .map(|key| (key.get_ref().clone(), key.span().start))
            .collect();
        let command = definition.into_command(number, &text)?;
        if commands
            .iter()
            .any(|other| other.entry.name == command.entry.name)
        {
            let at = keys.first().map_or(0, |(_, at)| *at);
            let message = format!("two commands have the name {:?}", command.entry.name);
            return Err(text.error_at(at, message));
        }
        user_keys.push((command.entry, keys));
        commands.push(command);
    }
    let reassigned = keymap.add_commands(user_keys, &text)?;
    Ok((commands, reassigned))
}

impl Definition {
    fn into_command(self, number: u8, text: &SourceText<'_>) -> Result<CustomCommand> {
        let at = self.name.span().start;
        let name = self.name.into_inner();
        if name.trim().is_empty() || name.chars().count() > 30 || name.chars().any(char::is_control)
        {
            let message = "a name must have 1 to 30 printable characters";
            return Err(text.error_at(at, message));
        }
        let mut targets = Vec::new();
        let mut panes: Vec<Pane> = Vec::new();
        for target in &self.on {
            let named = TARGETS.iter().find(|(name, ..)| name == target.get_ref());
            let (_, target, target_panes) = named.ok_or_else(|| {
                let names = TARGETS.iter().map(|(name, ..)| (*name).to_owned());
                text.unknown_name_error(target.span().start, "kind of row", target.get_ref(), names)
                    .hint("use sandbox, snapshot, object or host")
            })?;
            targets.push(*target);
            let new = target_panes.iter().filter(|pane| !panes.contains(pane));
            let new: Vec<Pane> = new.copied().collect();
            panes.extend(new);
        }
        if panes.is_empty() {
            return Err(text.error_at(at, format!("{name}: `on` is empty")));
        }
        let argv = self
            .argv
            .iter()
            .map(|word| {
                parse_word(word.get_ref())
                    .map_err(|cause| text.error_at(word.span().start, format!("{name}: {cause}")))
            })
            .collect::<Result<Vec<_>>>()?;
        match argv.first().map(Vec::as_slice) {
            Some([Part::Text(program)]) if !program.is_empty() => {}
            Some(_) => {
                let message = format!("{name}: the program must be a text without placeholders");
                return Err(text.error_at(at, message));
            }
            None => return Err(text.error_at(at, format!("{name}: `argv` is empty"))),
        }
        let sentence = self.help.unwrap_or_else(|| {
            let words: Vec<&str> = self
                .argv
                .iter()
                .map(|word| word.get_ref().as_str())
                .collect();
            format!("Run {}.", words.join(" "))
        });
        // They live as long as the console, as the rows of the table of actions do.
        let entry: &'static Entry = Box::leak(Box::new(Entry {
            action: Action::Custom(number),
            name: name.leak(),
            words: "command",
            keys: &[],
            sentence: sentence.leak(),
            panes: panes.leak(),
            destructive: false,
            is_mutating: !self.read_only,
            in_footer: true,
        }));
        Ok(CustomCommand {
            entry,
            targets,
            argv,
            background: self.background,
            confirm: self.confirm,
            pause: self.pause,
        })
    }
}

/// Parses an argument; `{{` and `}}` are braces.
fn parse_word(word: &str) -> std::result::Result<Vec<Part>, String> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut rest = word;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        let Some((name, after)) = rest.split_once('}').filter(|_| brace == "{") else {
            return Err(format!(
                "{word:?} has a single {brace}: write {brace}{brace}"
            ));
        };
        let value = PLACEHOLDERS.iter().find(|(other, _)| *other == name);
        let Some((_, value)) = value else {
            let names: Vec<&str> = PLACEHOLDERS.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "unknown placeholder {{{name}}}: use {}",
                names.join(", ")
            ));
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(Part::Value(*value));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() || parts.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read_text(text: &str) -> Result<(Vec<CustomCommand>, Vec<String>)> {
        read(
            text,
            Path::new("/home/me/commands.toml"),
            &mut Keymap::default(),
        )
    }

    const VALID: &str = "name = \"x\"\nkeys = [\"f5\"]\non = [\"sandbox\"]\nargv = [\"echo\"]\n";

    #[test]
    fn words_have_texts_and_placeholders() {
        let text = |text: &str| Part::Text(text.to_owned());
        let value = Part::Value;
        assert_eq!(parse_word("").unwrap(), [text("")]);
        assert_eq!(
            parse_word("--at={host}:{path}").unwrap(),
            [
                text("--at="),
                value(Placeholder::Host),
                text(":"),
                value(Placeholder::Path)
            ]
        );
        assert_eq!(parse_word("{{name}}").unwrap(), [text("{name}")]);
        for (word, cause) in [
            ("{nam}", "unknown placeholder {nam}: use name, host"),
            ("{name", "single {"),
            ("name}", "single }"),
        ] {
            assert!(parse_word(word).unwrap_err().contains(cause), "{word}");
        }
    }

    #[test]
    fn invalid_commands_are_reported_with_their_line() {
        for (text, line, message) in [
            (VALID.replace("name =", "nam ="), 2, "unknown field `nam`"),
            (VALID.replace("sandbox", "sandbx"), 4, "unknown kind of row"),
            (VALID.replace("f5", "hyper-x"), 3, "unknown key"),
            (VALID.replace("echo", "{name}"), 2, "without placeholders"),
            (VALID.replace("[\"echo\"]", "[]"), 2, "`argv` is empty"),
            (
                VALID.replace("\"echo\"", "\"echo\", \"{x}\""),
                5,
                "unknown placeholder",
            ),
            (
                format!("{VALID}\n[[command]]\n{VALID}"),
                9,
                "two commands have the name",
            ),
            (
                format!("{VALID}\n[[command]]\n{}", VALID.replace("\"x\"", "\"y\"")),
                9,
                "collides with f5 of x",
            ),
        ] {
            let error = read_text(&format!("[[command]]\n{text}"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(message), "{text}: {error}");
            assert!(error.contains(&format!("line {line}")), "{text}: {error}");
        }
    }

    #[test]
    fn a_command_takes_a_default_key_but_not_one_of_the_user() {
        let text = format!("[[command]]\n{}", VALID.replace("f5", "c"));
        let (commands, reassigned) = read_text(&text).unwrap();
        assert_eq!(commands.len(), 1);
        assert_eq!(reassigned, ["c is now x, no longer create"]);
        let path = Path::new("/home/me/keymap.toml");
        let (mut keymap, _) = Keymap::read("push = [\"c\"]", path).unwrap();
        let error = read(&text, Path::new("/home/me/commands.toml"), &mut keymap).unwrap_err();
        let message = "c collides with c of push in keymap.toml";
        assert!(error.to_string().contains(message), "{error}");
    }

    #[test]
    fn the_sample_file_is_valid() {
        let sample = include_str!("../../config/commands.toml");
        let lines = sample.lines().filter_map(|line| line.strip_prefix('#'));
        let text: Vec<&str> = lines.filter(|line| !line.starts_with(' ')).collect();
        let (commands, reassigned) = read_text(&text.join("\n")).unwrap();
        assert!(
            commands.len() > 2 && reassigned.is_empty(),
            "{reassigned:?}"
        );
    }
}
