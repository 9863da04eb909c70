//! Names, notes and messages of others with sequences for a terminal and with invisible characters. Each is checked where
//! it is shown: tables, errors, JSON, logs, the API, and the console in a pseudo terminal.
mod hosts;
mod names;
mod requests;
mod stores;

use std::process::Command;

use crate::api::server::{Api, HttpResponse};
use crate::common::screen::Screen;
use crate::common::{CommandOutput, World};

/// A title, a colour, the clipboard, a reversed word, an 8-bit sequence, and characters that are not seen.
const EVIL: &str = "\u{1b}]0;PWNED\u{7}\u{1b}[31mRED\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}]9;PWNED\u{1b}\\\u{202e}esrever\u{202c}\
                    \u{9b}31m\u{9d}0;PWNED\u{9c}\u{7f}\u{8}\u{200b}\u{ad}\u{feff}\u{2066}\u{e0041}";
/// The part of it that XML allows.
const EVIL_XML: &str = "\u{202e}gpj.exe\u{202c}\u{9b}31m\u{9d}0;PWNED\u{9c}\u{200b}\u{ad}\u{2066}";
/// How the start of [`EVIL_XML`] is shown.
const SHOWN_XML: &str = "\\u{202e}gpj.exe\\u{202c}\\u{9b}31m";
/// How the start of [`EVIL`] is shown.
const SHOWN: &str = "\\u{1b}]0;PWNED\\u{7}\\u{1b}[31mRED";

/// Returns whether no terminal acts on the character.
fn is_harmless(c: char) -> bool {
    let invisible = "\u{ad}\u{61c}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{feff}";
    !c.is_control()
        && !invisible.contains(c)
        && !('\u{2028}'..='\u{202e}').contains(&c)
        && !('\u{2060}'..='\u{206f}').contains(&c)
        && !('\u{e0000}'..='\u{e007f}').contains(&c)
}

#[track_caller]
fn assert_harmless(text: &str) {
    let found = text.chars().find(|c| *c != '\n' && !is_harmless(*c));
    assert_eq!(found, None, "in {text:?}");
}

/// Runs snapdeck and checks all that it prints, without and with `--json` and `-vv`. Returns the run without.
#[track_caller]
fn snapdeck(world: &World, args: &[&str]) -> CommandOutput {
    for more in [&["--json"][..], &["-vv"]] {
        let ran = world.snapdeck(&[args, more].concat());
        assert_harmless(&ran.stdout);
        assert_harmless(&ran.stderr);
        assert!(ran.stderr.len() < 100_000, "{} bytes", ran.stderr.len());
    }
    let ran = world.snapdeck(args);
    assert_harmless(&ran.stdout);
    assert_harmless(&ran.stderr);
    ran
}

/// Checks a response of the API, and its log so far.
#[track_caller]
fn checked(api: &Api, response: HttpResponse) -> HttpResponse {
    assert_harmless(&response.body);
    assert_harmless(&api.log());
    response
}

/// Opens a program in a terminal. With `notify`, the console sends a notification at the end of each job.
fn open(world: &World, command: &Command, notify: bool) -> Screen {
    if notify {
        let config = std::fs::read_to_string(world.config()).unwrap();
        let console = "[console]\nnotify = \"notification\"\nnotify_after_secs = 0\n";
        std::fs::write(world.config(), format!("{config}{console}")).unwrap();
    }
    Screen::open(command)
}

/// Checks the bytes that were sent to the terminal: nothing but the program's own sequences acts on it.
#[track_caller]
fn assert_own_sequences(screen: &Screen) {
    let written = screen.written();
    // Sequences of the program begin with an escape.
    let found = written
        .chars()
        .find(|c| !matches!(c, '\u{1b}' | '\r' | '\n' | '\u{7}') && !is_harmless(*c));
    assert_eq!(found, None, "in {written:?}");
    for sequence in written.split("\u{1b}]").skip(1) {
        let own = sequence.starts_with("11;?\u{1b}\\")
            || sequence.starts_with("9;") && !sequence.starts_with("9;PWNED");
        assert!(own, "{sequence:?}");
    }
    for part in ["\u{1b}[31mRED", "PWNED\u{7}", "ZXZpbA==\u{7}"] {
        assert!(!written.contains(part), "{part:?} in {written:?}");
    }
}

/// Ends the console, and checks its output and its log file.
#[track_caller]
fn quit(world: &World, mut screen: Screen) {
    screen.press("q");
    screen.wait_for_exit();
    assert_own_sequences(&screen);
    let log = world.dir.join("home/.local/state/snapdeck/snapdeck.log");
    assert_harmless(&std::fs::read_to_string(log).unwrap());
}
