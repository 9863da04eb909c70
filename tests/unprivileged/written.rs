//! Files generated from the code: keymap, keys in the README, man page, completions. A file that differs fails its test;
//! `SNAPDECK_WRITE=1 cargo test --test unprivileged written` (`make written`) writes them.

use std::fmt::Write;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use snapdeck_cli::Cli;
use snapdeck_console::{Reference, keymap_file, keys};

/// Asserts that the file `path` has the content `text`; writes it with SNAPDECK_WRITE.
#[track_caller]
fn assert_file(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("SNAPDECK_WRITE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    let line = found
        .lines()
        .zip(text.lines())
        .position(|(one, other)| one != other);
    assert!(
        found == text,
        "{path} is out of date (line {:?}); `make written` updates it",
        line.map(|line| line + 1)
    );
}

#[test]
fn keymap_file_is_up_to_date() {
    assert_file("config/keymap.toml", &keymap_file());
}

#[test]
fn readme_keys_are_up_to_date() {
    const BEGIN: &str = "<!-- keys: written by tests/unprivileged/written.rs -->\n";
    const END: &str = "<!-- end of keys -->";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(file).unwrap();
    let (head, rest) = readme
        .split_once(BEGIN)
        .expect("the comment before the keys");
    let (_, tail) = rest.split_once(END).expect("the comment after the keys");
    let mut table = String::from("| key | does |\n| --- | --- |\n");
    for Reference { keys, sentence, .. } in keys().iter().filter(|key| key.is_main) {
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        writeln!(table, "| {} | {sentence} |", keys.join(", ")).unwrap();
    }
    assert_file("README.md", &format!("{head}{BEGIN}{table}{END}{tail}"));
}

#[test]
fn completions_are_up_to_date() {
    for (shell, file) in [
        (Shell::Bash, "snapdeck.bash"),
        (Shell::Zsh, "_snapdeck"),
        (Shell::Fish, "snapdeck.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "snapdeck", &mut text);
        assert_file(
            &format!("assets/completions/{file}"),
            &String::from_utf8(text).unwrap(),
        );
    }
}

#[test]
fn man_page_is_up_to_date() {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).date("");
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    page.push_str(".SH COMMANDS\n");
    write_commands(&mut page, &command);
    page.push_str(".SH KEYS OF THE CONSOLE\n");
    for Reference {
        keys,
        sentence,
        places,
        ..
    } in keys()
    {
        let keys: Vec<String> = keys
            .iter()
            .map(|key| format!("\\fB{}\\fR", escape_roff(key)))
            .collect();
        let place = places.map_or(String::new(), |places| format!(" In {places}."));
        writeln!(
            page,
            ".TP\n{}\n{}",
            keys.join(", "),
            escape_roff(&format!("{sentence}{place}"))
        )
        .unwrap();
    }
    page.push_str(
        ".SH FILES\n.TP\n~/.config/snapdeck/config.toml\nSettings. \\fBsnapdeck config\\fR shows what is in force.\n\
         .TP\n~/.config/snapdeck/keymap.toml\nKeys of the console.\n\
         .TP\n~/.config/snapdeck/themes/NAME.toml\nThemes of the console.\n\
         .TP\n~/.local/state/snapdeck\nThe log, the journal of jobs, and what the console showed last.\n\
         .SH EXIT STATUS\n0 done, 2 bad usage or input, 3 not found, 4 refused (state, in use, exists), 5 host or bucket out\n\
         of reach, 130 cancelled, 1 anything else.\n",
    );
    assert_file("assets/snapdeck.1", &page);
}

/// Writes the subcommands of `command` with their arguments.
fn write_commands(page: &mut String, command: &Command) {
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        let usage = sub.clone().render_usage().to_string();
        writeln!(
            page,
            ".SS \"{}\"",
            escape_roff(usage.trim_start_matches("Usage: "))
        )
        .unwrap();
        if let Some(about) = sub.get_long_about().or(sub.get_about()) {
            writeln!(page, "{}", escape_roff(&about.to_string())).unwrap();
        }
        for arg in sub.get_arguments().filter(|arg| !arg.is_global_set()) {
            let name = match (arg.get_long(), arg.get_value_names()) {
                (Some("help"), _) => continue,
                (Some(long), Some([value, ..])) if arg.get_action().takes_values() => {
                    format!("--{long} {value}")
                }
                (Some(long), _) => format!("--{long}"),
                (None, _) => format!("{}", arg.get_id()).to_uppercase(),
            };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            writeln!(
                page,
                ".TP\n\\fB{}\\fR\n{}",
                escape_roff(&name),
                escape_roff(&help)
            )
            .unwrap();
        }
        write_commands(page, sub);
    }
}

/// Escapes dashes, backslashes, and dots at the beginning of a line.
fn escape_roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let escaped = text
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        });
    escaped.collect::<Vec<_>>().join("\n")
}
