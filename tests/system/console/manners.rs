//! How the console behaves as a guest of a terminal, and what it remembers from one run to the next.

use std::process::Command;

use crate::common::screen::Screen;
use crate::common::{State, World, only_local};

/// A console on a world with nothing but a snapshot.
fn opened(world: &World, args: &[&str], env: &[(&str, &str)]) -> Screen {
    let mut command = world.command(args);
    command.envs(env.iter().copied());
    let screen = Screen::open(&command);
    screen.wait_for("the host's snapshots", |text| {
        text.contains("base") || text.contains("Snapshots (1)")
    });
    screen
}

fn quit(screen: &mut Screen) {
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0, "{}", screen.text());
    assert!(screen.is_restored());
}

#[test]
fn the_background_is_asked_for_and_the_answer_is_no_key() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = opened(&world, &[], &[]);
    screen.wait_sent("\u{1b}]11;?");
    assert!(
        !screen.was_sent("38;5;25;"),
        "a light theme before the answer"
    );
    screen.press("\u{1b}]11;rgb:ffff/ffff/ffff\u{1b}\\");
    // The blue of the light theme.
    screen.wait_sent("38;5;25;");
    // None of it was a key: ] would have gone to another host, r would have asked all again.
    assert!(
        !screen.text().contains("refreshing all hosts"),
        "{}",
        screen.text()
    );
    quit(&mut screen);
}

#[test]
fn more_than_is_read_at_once_waits_for_no_other_key() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = opened(&world, &[], &[]);
    // One turn of the wheel on a slow line, and then a key.
    screen.press(&"\u{1b}[<65;100;10M\u{1b}[<64;100;10M".repeat(200));
    screen.press("?");
    screen.wait(&["help"]);
    screen.press("\u{1b}");
    screen.wait_for("the help is closed", |text| !text.contains("help:"));
    // Of an arrow right behind an escape no letter is a key: A and B mean nothing, [ is another host, D the doctor.
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
fn without_colours_the_selection_is_seen_still() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = opened(&world, &[], &[("NO_COLOR", "1")]);
    screen.press("\t");
    screen.wait_row("base", |row| row.inverse);
    assert!(!screen.was_sent("\u{1b}]11;?"));
    assert!(!screen.has_colors());
    quit(&mut screen);
}

#[test]
fn plain_text_has_no_borders_and_tells_the_selection_in_letters() {
    let world = World::new();
    world.snapshot("base", 1);
    let mut screen = opened(&world, &["--plain"], &[]);
    screen.press("\t");
    let text = screen.wait(&["> base"]);
    assert!(text.is_ascii() && !text.contains('|'), "{text}");
    screen.press("?vnc");
    let text = screen.wait(&["help: vnc", "Copy the sandbox's vnc:// URL"]);
    assert!(text.is_ascii() && !text.contains('|'), "{text}");
    screen.press("\u{1b}");
    screen.wait_for("the help is gone", |text| !text.contains("help: vnc"));
    quit(&mut screen);
}

#[test]
fn a_read_only_console_says_so_and_changes_nothing() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", State::Off);
    let mut screen = opened(&world, &["--read-only"], &[]);
    screen.wait(&["[read-only]", &id]);
    screen.press("p");
    screen.wait(&["started with --read-only"]);
    screen.press("s");
    screen.wait(&["started with --read-only"]);
    assert_eq!(world.state(&id), "shut off");
    quit(&mut screen);
}

#[test]
fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_back() {
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
    assert!(screen.is_restored());
    screen.press("fg\n");
    screen.wait(&["alpha ●", "base"]);
    screen.press("?");
    screen.wait(&["┌ help"]);
    screen.press("\u{1b}");
    screen.wait_for("the help is gone", |text| !text.contains("┌ help"));
    screen.press("q");
    screen.wait_for("the shell has it back", |text| {
        text.contains("shell> ") && !text.contains("alpha ●")
    });
    screen.press("exit\n");
    screen.wait_for_exit();
}

#[test]
fn the_next_run_begins_where_this_one_ended_before_any_host_answers() {
    if only_local("the host's socket is replaced by one that is silent") {
        return;
    }
    let world = World::new();
    world.snapshot("base", 1);
    world.snapshot("other", 1);
    let mut screen = opened(&world, &[], &[]);
    screen.press("\t,z/o");
    screen.wait(&["Snapshots · alpha (1 of 2) ↓size", "/o"]);
    screen.press("\r");
    quit(&mut screen);

    // A host that never answers: what is shown can only be what was seen then.
    let socket = world.dir.join("silent");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let settings = std::fs::read_to_string(world.config()).unwrap();
    let line = settings
        .lines()
        .find(|line| line.starts_with("uri = "))
        .unwrap();
    assert!(line.contains("socket="), "{line}");
    let home = world.dir.join("home/.local/state/snapdeck/inventory.json");
    let old = line.trim_start_matches("uri = \"").trim_end_matches('"');
    let new = format!("qemu:///system?socket={}", socket.display());
    world.reconfigure(old, &new);
    let inventory = std::fs::read_to_string(&home).unwrap();
    std::fs::write(&home, inventory.replace(old, &new)).unwrap();

    let mut screen = Screen::open(&world.command(&[]));
    screen.wait(&[
        "alpha ◌ connecting, seen <1m ago",
        "Snapshots · alpha (1 of 2) ↓size",
        "other",
    ]);
    quit(&mut screen);
}

#[test]
fn keys_and_themes_of_the_users_are_taken_or_refused_with_their_line() {
    let world = World::new();
    world.snapshot("base", 1);
    let keymap = world.dir.join("keymap.toml");
    std::fs::write(&keymap, "quit = [\"Z Z\"]\nhelp = [\"c\"]\n").unwrap();
    let mut screen = opened(&world, &[], &[]);
    screen.wait(&["c is help now, not create"]);
    screen.press("\u{1b}");
    screen.wait(&["c help"]);
    screen.press("c");
    screen.wait(&["┌ help"]);
    screen.press("\u{1b}");
    screen.wait_for("the help is gone", |text| !text.contains("┌ help"));
    screen.press("Z");
    screen.wait(&["Z … · esc cancel", "Z quit"]);
    screen.press("Z");
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
    screen.wait(&["no theme \"mine\"", "themes/mine.toml"]);
    std::fs::create_dir_all(world.dir.join("themes")).unwrap();
    std::fs::write(world.dir.join("themes/mine.toml"), "title = \"#123456\"\n").unwrap();
    let mut screen = opened(&world, &[], &[]);
    screen.wait_sent("38;2;18;52;86;");
    quit(&mut screen);
}
