//! The console and its terminal: colours, keys, suspension, key map, theme, and the state kept between runs.

use std::process::Command;

use crate::common::screen::Screen;
use crate::common::{State, World, only_local};

/// Opens a console and waits for the snapshot of its host.
fn open_console(world: &World, args: &[&str], variables: &[(&str, &str)]) -> Screen {
    let mut command = world.command(args);
    command.envs(variables.iter().copied());
    let screen = Screen::open(&command);
    screen.wait_for("the host's snapshots", |text| {
        text.contains("base") || text.contains("Snapshots 1")
    });
    screen
}

fn quit(screen: &mut Screen) {
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0, "{}", screen.text());
    screen.wait_until_restored();
}

#[test]
fn the_theme_follows_the_terminals_background_colour() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = open_console(&world, &[], &[]);
    screen.wait_sent("\u{1b}]11;?");
    assert!(
        !screen.was_sent("38;5;25;"),
        "the light theme is used before the terminal replied"
    );
    screen.press("\u{1b}]11;rgb:ffff/ffff/ffff\u{1b}\\");
    // The blue of the light theme.
    screen.wait_sent("38;5;25;");
    // The reply is not read as keys: ] would select another host, r would refresh all.
    assert!(
        !screen.text().contains("refreshing all hosts"),
        "{}",
        screen.text()
    );
    quit(&mut screen);
}

#[test]
fn input_longer_than_one_read_is_handled_at_once() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = open_console(&world, &[], &[]);
    // Mouse wheel events longer than one read, then a key.
    screen.press(&"\u{1b}[<65;100;10M\u{1b}[<64;100;10M".repeat(200));
    screen.press("?");
    screen.wait(&["help"]);
    screen.press("\u{1b}");
    screen.wait_for("the help is closed", |text| !text.contains("help:"));
    // An arrow key right after Esc is not read as the keys [ (another host) and D (doctor).
    screen.press("?");
    screen.wait(&["help"]);
    screen.press("\u{1b}\u{1b}[D");
    screen.wait_for("the help is closed", |text| !text.contains("help:"));
    screen.press(":");
    screen.wait(&[":▏"]);
    screen.press("\u{1b}");
    screen.wait_for("the palette is closed", |text| !text.contains(":▏"));
    assert!(!screen.text().contains("examined"), "{}", screen.text());
    quit(&mut screen);
}

#[test]
fn the_selection_is_visible_without_colours() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = open_console(&world, &[], &[("NO_COLOR", "1")]);
    screen.press("\t");
    screen.wait_row("base", |row| row.inverse);
    assert!(!screen.was_sent("\u{1b}]11;?"));
    assert!(!screen.has_colors());
    quit(&mut screen);
}

#[test]
fn plain_mode_is_ascii_without_borders_and_marks_the_selection() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = open_console(&world, &["--plain"], &[]);
    screen.press("\t");
    let text = screen.wait(&["> base"]);
    assert!(text.is_ascii() && !text.contains('|'), "{text}");
    screen.press("?/vnc");
    let text = screen.wait(&["help /vnc", "Copy the sandbox's vnc:// URL"]);
    assert!(text.is_ascii() && !text.contains('|'), "{text}");
    screen.press("\u{1b}");
    screen.wait_for("the search is ended", |text| !text.contains("/vnc"));
    screen.press("\u{1b}");
    // Before that, another key would be read as one with alt.
    screen.wait_for("the help is closed", |text| text.contains("> base"));
    quit(&mut screen);
}

#[test]
fn a_read_only_console_refuses_changes() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", State::Off);
    let mut screen = open_console(&world, &["--read-only"], &[]);
    screen.wait(&["[read-only]", &id]);
    screen.press("p");
    screen.wait(&["started with --read-only"]);
    screen.press("s");
    screen.wait(&["started with --read-only"]);
    assert_eq!(world.state(&id), "shut off");
    quit(&mut screen);
}

#[test]
fn ctrl_z_suspends_to_the_shell_and_fg_resumes() {
    let world = World::new();
    world.snapshot("base", 1);
    let console = world.command(&[]);
    let mut shell = Command::new("/bin/bash");
    shell.args(["--norc", "--noprofile", "-i"]);
    shell.env_clear().env("PS1", "shell> ");
    shell.envs(
        console
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let mut screen = Screen::open(&shell);
    screen.wait(&["shell> "]);
    screen.press(&format!("{}\n", console.get_program().to_str().unwrap()));
    screen.wait(&["alpha ●", "base"]);
    screen.press("\u{1a}");
    screen.wait(&["Stopped", "shell> "]);
    screen.wait_until_restored();
    screen.press("fg\n");
    screen.wait(&["alpha ●", "base"]);
    screen.press("?");
    screen.wait(&["┌ help"]);
    screen.press("\u{1b}");
    screen.wait_for("the help is closed", |text| !text.contains("┌ help"));
    screen.press("q");
    screen.wait_for("the shell has the terminal again", |text| {
        text.contains("shell> ") && !text.contains("alpha ●")
    });
    screen.press("exit\n");
    screen.wait_for_exit();
}

#[test]
fn the_next_run_restores_list_filter_and_cached_inventory() {
    if only_local("the libvirt socket is replaced by one that never answers") {
        return;
    }
    let world = World::new();
    world.snapshot("base", 1);
    world.snapshot("other", 1);
    let mut screen = open_console(&world, &[], &[]);
    screen.press("\t,z/o");
    screen.wait(&["Snapshots 1 of 2", "▼ size", "/o"]);
    screen.press("\r");
    quit(&mut screen);

    // A host that never answers: only the cached inventory can be shown.
    let socket = world.dir.join("silent");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let settings = std::fs::read_to_string(world.config()).unwrap();
    let line = settings
        .lines()
        .find(|line| line.starts_with("uri = "))
        .unwrap();
    assert!(line.contains("socket="), "{line}");
    let cache = world.dir.join("home/.local/state/snapdeck/inventory.json");
    let old = line.trim_start_matches("uri = \"").trim_end_matches('"');
    let new = format!("qemu:///system?socket={}", socket.display());
    world.reconfigure(old, &new);
    let inventory = std::fs::read_to_string(&cache).unwrap();
    std::fs::write(&cache, inventory.replace(old, &new)).unwrap();

    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&[
        "alpha ◌ connecting, seen <1m ago",
        "Snapshots 1 of 2",
        "▼ size",
        "other",
    ]);
    quit(&mut screen);
}

#[test]
fn user_keymaps_and_themes_are_applied_or_refused_with_the_line() {
    let world = World::new();
    world.snapshot("base", 1);
    let keymap = world.dir.join("keymap.toml");
    std::fs::write(&keymap, "quit = [\"Q Q\"]\nhelp = [\"c\"]\n").unwrap();
    let mut screen = open_console(&world, &[], &[]);
    screen.wait(&["c is now help, no longer create"]);
    screen.press("\u{1b}");
    screen.wait_for("the message is gone", |text| {
        text.contains("c help") && !text.contains("· keymap.toml")
    });
    screen.press("c");
    screen.wait(&["┌ help"]);
    screen.press("\u{1b}");
    screen.wait_for("the help is closed", |text| !text.contains("┌ help"));
    screen.press("Q");
    screen.wait(&["Q … · esc cancel", "Q quit"]);
    screen.press("Q");
    assert_eq!(screen.wait_for_exit(), 0);

    std::fs::write(&keymap, "\nqiut = [\"Z\"]\n").unwrap();
    let mut screen = Screen::open(&world.command(&[]));
    assert_eq!(screen.wait_for_exit(), 2);
    screen.wait(&["keymap.toml line 2: unknown action \"qiut\"; did you mean quit?"]);
    std::fs::remove_file(&keymap).unwrap();

    let settings = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(
        world.config(),
        format!("{settings}[console]\ntheme = \"mine\"\n"),
    )
    .unwrap();
    let mut screen = Screen::open(&world.command(&[]));
    assert_eq!(screen.wait_for_exit(), 2);
    screen.wait(&["unknown theme \"mine\"", "themes/mine.toml"]);
    std::fs::create_dir_all(world.dir.join("themes")).unwrap();
    std::fs::write(world.dir.join("themes/mine.toml"), "title = \"#123456\"\n").unwrap();
    let mut screen = open_console(&world, &[], &[]);
    screen.wait_sent("38;2;18;52;86;");
    quit(&mut screen);
}
