//! A shell on the host, the serial console of a guest, and commands of the operator.

use crate::common::World;
use crate::common::screen::Screen;

/// Opens a console with the sandbox `id` selected.
fn open_console(world: &World, id: &str) -> Screen {
    let mut command = world.command(&[]);
    command.env("SHELL", "/bin/sh");
    let screen = Screen::open(&command);
    screen.wait(&[id]);
    screen
}

fn quit(screen: &mut Screen) {
    screen.press("q");
    assert_eq!(screen.wait_for_exit(), 0, "{}", screen.text());
    screen.wait_until_restored();
}

#[test]
fn a_shell_on_the_host_has_the_terminal_until_it_ends() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", crate::common::State::Off);
    let mut screen = open_console(&world, &id);
    screen.press("!");
    screen.wait(&["snapdeck: shell on alpha"]);
    // Keys go to the shell; ctrl-c ends its program and not the console. The program replaces the shell, which therefore
    // does not give the terminal back. Short sleeps: a trap waits for the end of one that a signal just missed.
    screen.press(
        "exec sh -c 'trap \"exit 0\" INT; echo in-$((40 + 2)); while sleep 0.1; do :; done'\r",
    );
    screen.wait(&["in-42"]);
    screen.press("\u{3}");
    screen.wait(&["Sandboxes", &id, "q quit"]);
    screen.press("?");
    screen.wait(&["┌ help"]);
    screen.press("\u{1b}");
    screen.wait_for("the help is closed", |text| !text.contains("┌ help"));
    quit(&mut screen);
}

#[test]
fn the_serial_console_shows_the_guest_and_gets_the_keys() {
    let world = World::new();
    world.use_guest_with_console();
    world.snapshot("base", 1);
    let id = world.id("vm");
    world
        .snapdeck(&["sandbox", "new", &id, "base", "--start"])
        .ok();
    let mut screen = open_console(&world, &id);
    screen.wait(&["running"]);
    screen.press("C");
    screen.wait(&[&format!("serial console of {id} on alpha"), "ctrl-] leave"]);
    screen.wait(&["guest alive"]);
    // The guest's terminal echoes what it gets; q would quit the console.
    screen.press("qzyx");
    screen.wait(&["qzyx"]);
    screen.press("\u{1d}");
    screen.wait(&["Sandboxes", "q quit"]);
    quit(&mut screen);
}

#[test]
fn commands_of_the_operator_run_in_the_foreground_and_in_the_background() {
    let world = World::new();
    world.snapshot("base", 1);
    let id = world.sandbox("vm", "base", crate::common::State::Off);
    world.sandbox("vn", "base", crate::common::State::Off);
    let commands = "[[command]]\nname = \"say\"\nkeys = [\"alt-e\"]\non = [\"sandbox\"]\n\
                    argv = [\"echo\", \"disk={path}\", \"$(id); {uuid}\"]\n\
                    [[command]]\nname = \"quiet\"\nkeys = [\"alt-b\"]\non = [\"sandbox\"]\n\
                    argv = [\"echo\", \"logged {name}\"]\nbackground = true\nconfirm = true\n";
    std::fs::write(world.dir.join("commands.toml"), commands).unwrap();
    let mut screen = open_console(&world, &id);
    screen.press("\u{1b}e");
    let disk = format!("disk={} $(id); ", world.disk("vm"));
    screen.wait(&[&disk, "Press enter to return to snapdeck."]);
    screen.press("\r");
    screen.wait(&["Sandboxes", "q quit"]);
    screen.press("\u{1b}b");
    screen.wait(&["Run this command?", &format!("logged {id}")]);
    screen.press("y");
    screen.wait(&["quiet finished", &format!("quiet: logged {id}")]);
    // For each marked row, one after the other.
    screen.press("\u{1}\u{1b}e");
    screen.wait(&["Run these 2 commands"]);
    screen.press("y");
    for name in ["vm", "vn"] {
        let disk = format!("disk={} $(id); ", world.disk(name));
        screen.wait(&[&disk, "Press enter to return to snapdeck."]);
        screen.press("\r");
    }
    screen.wait(&["Sandboxes", "2 marked", "q quit"]);
    quit(&mut screen);
}

#[test]
fn filters_by_annotations_and_their_bookmarks_survive_a_restart() {
    let world = World::new();
    world.snapshot("base", 1);
    world.snapshot("other", 1);
    world
        .snapdeck(&["note", "other", "for the fair", "--label", "os=2022"])
        .ok();
    world.snapdeck(&["pin", "base"]).ok();
    let mut screen = open_console(&world, "other");
    screen.press("\t/pin:yes");
    screen.wait(&["Snapshots 1 of 2", "base"]);
    screen.press("\u{15}label:os=2022 note:FAIR");
    screen.wait(&["Snapshots 1 of 2", "other"]);
    screen.press("\rb");
    screen.wait(&["There are no bookmarks."]);
    screen.press("afair\r");
    screen.wait(&["fair  ", "enter apply"]);
    screen.press("\u{1b}");
    screen.wait_for("the bookmarks are closed", |text| {
        !text.contains("bookmarks of filters")
    });
    quit(&mut screen);

    let mut screen = open_console(&world, "other");
    screen.wait(&["Snapshots 1 of 2"]);
    screen.press("\u{1b}");
    screen.wait(&["Snapshots 2 ", "base"]);
    screen.press("b");
    screen.wait(&["fair  ", "label:os=2022 note:FAIR"]);
    screen.press("\r");
    screen.wait(&["Snapshots 1 of 2", "other"]);
    quit(&mut screen);
}
