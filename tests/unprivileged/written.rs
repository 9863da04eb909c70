//! What is written down from the code: keys, the man page, completions. Where one differs the test says so;
//! `SNAPDECK_WRITE=1 cargo test --test written` writes them anew.

use std::fmt::Write;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use snapdeck_cli::Cli;
use snapdeck_console::{Reference, keymap_file, keys};

/// `path` holds `text`, or does from now on.
#[track_caller]
fn holds(path: &str, text: &str) {
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
        "{path} is not what the code says (line {:?}); SNAPDECK_WRITE=1 cargo test --test written writes it",
        line.map(|line| line + 1)
    );
}

#[test]
fn the_keys_file_is_the_table() {
    holds("config/keymap.toml", &keymap_file());
}

#[test]
fn the_readme_has_the_keys_of_the_footer() {
    const BEGIN: &str = "<!-- keys: written by tests/unprivileged/written.rs -->\n";
    const END: &str = "<!-- end of keys -->";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(file).unwrap();
    let (head, rest) = readme.split_once(BEGIN).expect("the beginning of the keys");
    let (_, tail) = rest.split_once(END).expect("their end");
    let mut table = String::from("| key | does |\n| --- | --- |\n");
    for Reference { keys, sentence, .. } in keys().iter().filter(|key| key.is_main) {
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        writeln!(table, "| {} | {sentence} |", keys.join(", ")).unwrap();
    }
    holds("README.md", &format!("{head}{BEGIN}{table}{END}{tail}"));
}

#[test]
fn completions_are_the_command_lines() {
    for (shell, file) in [
        (Shell::Bash, "snapdeck.bash"),
        (Shell::Zsh, "_snapdeck"),
        (Shell::Fish, "snapdeck.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "snapdeck", &mut text);
        holds(
            &format!("assets/completions/{file}"),
            &String::from_utf8(text).unwrap(),
        );
    }
}

#[test]
fn the_man_page_has_every_command_and_every_key() {
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
    commands(&mut page, &command);
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
            .map(|key| format!("\\fB{}\\fR", roff(key)))
            .collect();
        let place = places.map_or(String::new(), |places| format!(" In {places}."));
        writeln!(
            page,
            ".TP\n{}\n{}",
            keys.join(", "),
            roff(&format!("{sentence}{place}"))
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
    holds("assets/snapdeck.1", &page);
}

/// The commands below `command` with their own arguments.
fn commands(page: &mut String, command: &Command) {
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help")
    {
        let usage = sub.clone().render_usage().to_string();
        writeln!(
            page,
            ".SS \"{}\"",
            roff(usage.trim_start_matches("Usage: "))
        )
        .unwrap();
        if let Some(about) = sub.get_long_about().or(sub.get_about()) {
            writeln!(page, "{}", roff(&about.to_string())).unwrap();
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
            writeln!(page, ".TP\n\\fB{}\\fR\n{}", roff(&name), roff(&help)).unwrap();
        }
        commands(page, sub);
    }
}

/// `text` as roff shows it: dashes stay dashes, and no line begins with what roff takes for a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let guarded = text
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        });
    guarded.collect::<Vec<_>>().join("\n")
}
