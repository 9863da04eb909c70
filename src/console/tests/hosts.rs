//! The host bar, and the lists of all hosts.

use super::*;
use crate::fixture::{fleet, many, opening};
use proptest::prelude::*;

fn first_line(app: &mut App, width: u16) -> String {
    let output = screen(app, width, 24);
    output.lines().next().unwrap().trim_matches('"').to_owned()
}

#[test]
fn rows_of_all_hosts_are_shown() {
    let now = Instant::now();
    let mut app = app(fleet(now));
    press(&mut app, KeyCode::Down);
    keys(&mut app, "a");
    assert_eq!(app.sandbox().unwrap().1.id.as_str(), "sandbox-002");
    shot("all_hosts", &mut app, now);
    let (x, y) = position_of(&screen(&mut app, 120, 40), "gamma ● test-1");
    let output = show(&mut app, 120, 40, now);
    assert!(
        output.buffer()[(x, y)]
            .modifier
            .contains(ratatui::style::Modifier::DIM)
    );
    press(&mut app, KeyCode::Tab);
    insta::assert_snapshot!(
        "all_hosts_snapshots_80x24",
        screen_at(&mut app, 80, 24, now)
    );
}

#[test]
fn leaving_all_hosts_shows_the_host_of_the_selected_row() {
    let mut app = app(fleet(Instant::now()));
    keys(&mut app, "a");
    press(&mut app, KeyCode::Home);
    assert_eq!(app.sandbox().unwrap().0.name.as_str(), "beta");
    keys(&mut app, "a");
    assert!(screen(&mut app, 120, 40).contains("Sandboxes 1 · on beta"));
}

#[test]
fn operations_apply_to_the_host_of_each_row() {
    let mut app = app(fleet(Instant::now()));
    keys(&mut app, "aggpgolden");
    let commands = press(&mut app, KeyCode::Enter);
    let [Command::Submit(Operation::Push { host, sandbox, .. })] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!((host.as_str(), sandbox.as_str()), ("beta", "build-7"));

    app.focus_on(Pane::Snapshots);
    keys(&mut app, "/myapp");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "  f");
    let both = [("myapp-v1.0", "alpha"), ("myapp-v1.0", "beta")];
    assert_eq!(keys(&mut app, "y"), [pulls(&both)]);

    keys(&mut app, "gg  d");
    give_copies(&mut app);
    let commands = keys(&mut app, "y");
    let removed: Vec<_> = commands
        .iter()
        .map(|command| match command {
            Command::Submit(Operation::Remove {
                host,
                from_bucket: bucket,
                ..
            }) => (host.as_ref().unwrap().to_string(), *bucket),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        removed,
        [("alpha".to_owned(), false), ("beta".to_owned(), false)]
    );
}

#[test]
fn removing_all_copies_must_be_confirmed_by_typing() {
    let mut app = app(fleet(Instant::now()));
    keys(&mut app, "a");
    app.focus_on(Pane::Snapshots);
    keys(&mut app, "/myapp");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "  d");
    give_copies(&mut app);
    press(&mut app, KeyCode::Down);
    keys(&mut app, " y");
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("Type myapp-v1.0 to confirm"), "{output}");
    keys(&mut app, "myapp-v1.0");
    let commands = press(&mut app, KeyCode::Enter);
    let buckets: Vec<bool> = commands
        .iter()
        .map(|command| {
            matches!(
                command,
                Command::Submit(Operation::Remove {
                    from_bucket: true,
                    ..
                })
            )
        })
        .collect();
    assert_eq!(buckets, [false, false, true], "the object is removed once");
}

#[test]
fn a_filter_matches_host_names_and_marks_survive_a_refresh() {
    let mut app = app(fleet(Instant::now()));
    keys(&mut app, "a/GAMM");
    press(&mut app, KeyCode::Enter);
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("Sandboxes 1 of 6"), "{output}");
    keys(&mut app, " ");
    update(&mut app, |view| {
        set_alpha(view, |host| {
            host.sandboxes = Arc::new([sandbox("aaa", SandboxState::Paused)])
        });
    });
    assert_eq!(app.chosen_sandboxes().len(), 1);
    assert!(screen(&mut app, 120, 40).contains("1 of 3 · 1 marked"));
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Esc);
    assert!(screen(&mut app, 120, 40).contains("Sandboxes 3 · "));
}

#[test]
fn host_keys_cycle_through_hosts_and_all_hosts() {
    let mut app = app(fleet(Instant::now()));
    keys(&mut app, "[");
    assert!(app.world().shows_all_hosts());
    keys(&mut app, "[");
    assert_eq!(app.world().current_host().unwrap().as_str(), "gamma");
    keys(&mut app, "]]");
    assert!(!app.world().shows_all_hosts());
    assert_eq!(app.world().current_host().unwrap().as_str(), "alpha");
    update(&mut app, |view| view.hosts.truncate(1));
    keys(&mut app, "]");
    assert!(!app.world().shows_all_hosts());
    keys(&mut app, "a");
    assert!(app.notice().unwrap().text.contains("only one host"));
}

#[test]
fn a_click_on_a_host_shows_it() {
    let mut app = app(fleet(Instant::now()));
    let output = screen(&mut app, 120, 40);
    let (x, y) = position_of(&output, "beta");
    click(&mut app, x, y);
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("· on beta"), "{output}");
    let reversed = ratatui::style::Modifier::REVERSED;
    let buffer = show(&mut app, 120, 40, Instant::now());
    assert!(buffer.buffer()[(x, y)].modifier.contains(reversed));
    let (x, y) = position_of(&output, " all ");
    click(&mut app, x + 1, y);
    assert!(app.world().shows_all_hosts());
}

#[test]
fn the_host_bar_always_shows_the_current_host_and_the_bucket() {
    let mut app = app(many(20, 3));
    for number in 0..20 {
        let name = format!("host-{number:02}");
        for width in [40, 60, 80, 120, 200] {
            let line = first_line(&mut app, width);
            assert!(line.contains(&name), "{width}: {line}");
            assert!(line.contains("s3://"), "{width}: {line}");
        }
        keys(&mut app, "]");
    }
    assert!(first_line(&mut app, 80).contains(" all "));
    keys(&mut app, "5");
    insta::assert_snapshot!("host_bar_80", first_line(&mut app, 80));
    let line = first_line(&mut app, 80);
    let column = line.chars().position(|c| c == '›').unwrap() as u16;
    click(&mut app, column, 0);
    assert_ne!(app.world().current_host().unwrap().as_str(), "host-04");
    let line = first_line(&mut app, 80);
    assert!(line.contains(app.world().current_host().unwrap().as_str()));
}

#[test]
fn a_narrow_host_bar_shows_the_worst_hosts_first() {
    let mut view = many(20, 3);
    let mut set = |number: usize, link: Link| {
        let host = HostView {
            link,
            ..(*view.hosts[number]).clone()
        };
        view.hosts[number] = Arc::new(host);
    };
    set(17, Link::Down(Error::new(Kind::Unreachable, "no")));
    set(12, Link::Connecting);
    let mut app = app(view);
    keys(&mut app, "5");
    let line = first_line(&mut app, 120);
    let names = line.split_whitespace();
    let shown: Vec<&str> = names.filter(|word| word.starts_with("host-")).collect();
    let expected = ["04", "09", "14", "17", "19", "12", "00"];
    let expected = expected.map(|number| format!("host-{number}"));
    assert_eq!(shown[..7], expected, "{line}");
}

#[test]
fn a_host_never_connected_shows_the_time_since_start() {
    let mut app = app(empty());
    let later = Instant::now() + Duration::from_secs(130);
    assert!(screen_at(&mut app, 120, 40, later).contains("alpha ◌ connecting 2m"));
    update(&mut app, |view| {
        set_alpha(view, |host| {
            *host = HostView {
                link: Link::Down(Error::new(Kind::Unreachable, "no")),
                ..opening("alpha")
            };
        });
    });
    assert!(screen(&mut app, 120, 40).contains("alpha ✗ unreachable <1m"));
}

#[test]
fn the_list_of_an_unreachable_host_shows_the_error() {
    let now = Instant::now();
    let mut app = app(fleet(now));
    keys(&mut app, "3");
    app.focus_on(Pane::Bucket);
    let output = screen_at(&mut app, 120, 40, now);
    assert!(output.contains("✗ cannot reach host gamma"), "{output}");
    assert!(output.contains("winserver-base"), "{output}");
}

#[test]
fn only_visible_rows_of_all_hosts_are_built() {
    let mut app = app(many(20, 5_000));
    keys(&mut app, "a");
    app.focus_on(Pane::Snapshots);
    press(&mut app, KeyCode::End);
    let (first, rows) = pane_rows(&app, Pane::Snapshots, 40, 30);
    assert_eq!((first, rows.len()), (99_970, 30));
    keys(&mut app, "/host-17");
    assert_eq!(app.summary(Pane::Snapshots).visible, 5_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_keys_at_any_size_are_drawn(
        width in 0u16..=500, height in 0u16..=200, view in 0usize..4, typed in "[amldJ \r/x\\]\\[09jkyo?]{0,8}",
    ) {
        let view = match view {
            0 => fleet(Instant::now()),
            1 => many(20, 30),
            2 => empty(),
            _ => View::default(),
        };
        let mut app = app(view);
        for key in typed.chars() {
            match key {
                '\r' => press(&mut app, KeyCode::Enter),
                '9' => press(&mut app, KeyCode::Right),
                '0' => press(&mut app, KeyCode::Tab),
                key => press(&mut app, KeyCode::Char(key)),
            };
            show(&mut app, width, height, Instant::now());
            click(&mut app, width / 2, height / 3);
        }
        show(&mut app, width, height, Instant::now());
    }
}

#[test]
fn snapshots_of_an_unscanned_host_are_unknown() {
    let mut view = populated();
    for host in &mut view.hosts {
        let host = Arc::make_mut(host);
        (host.last_scan, host.snapshots) = (None, Arc::default());
    }
    let mut app = app(view);
    keys(&mut app, "agb");
    let output = screen(&mut app, 120, 40);
    assert!(
        output.contains("? unknown") && !output.contains("on 0 of"),
        "{output}"
    );
}

#[test]
fn details_show_the_load_of_the_host() {
    let mut app = app(populated());
    let load = |seconds: u64, percent: u32| snapdeck_model::HostLoad {
        cpus: 8,
        cpu_permille: Some(percent * 10),
        memory_total_bytes: 64 << 30,
        memory_used_bytes: 16 << 30,
        snapshots_free_bytes: Some(256 << 30),
        snapshots_total_bytes: Some(1 << 40),
        sampled_at: Instant::now() + Duration::from_secs(seconds),
    };
    for sample in [load(0, 10), load(5, 30)] {
        let host: snapdeck_model::HostName = "alpha".parse().unwrap();
        app.on_loads(Arc::new(std::collections::BTreeMap::from([(host, sample)])));
    }
    app.focus_on(Pane::Snapshots);
    let output = screen(&mut app, 120, 40);
    for text in [
        "host     CPU ███▌░░░░░░░░ 30 %",
        "16/64G",
        "256G free",
        "CPU of alpha  30 %",
        "memory of alpha  16 GiB",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
    keys(&mut app, "H");
    let output = screen(&mut app, 120, 40);
    for text in [
        "30 % of 8 CPUs",
        "16 GiB of 64 GiB in use",
        "256 GiB of 1 TiB free",
        "CPU of alpha  30 %",
        "└ 15 s ago",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
}
