//! Prune: rule, plan and confirmation.

use super::*;
use crate::dialog::{DialogAnswer, DialogQuery};
use snapdeck_engine::{Partials, PruneRequest};
use snapdeck_model::{Candidate, Leftover, LeftoverKind, PrunePlan, PruneRule};

fn plan() -> PrunePlan {
    let candidate = |name: &str, host: Option<&str>, keep_reasons: &[&str]| Candidate {
        name: name.parse().unwrap(),
        host: host.map(|host| host.parse().unwrap()),
        size_bytes: 3 << 30,
        created: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        in_use: false,
        is_last_copy: host.is_none(),
        identity: None,
        keep_reasons: keep_reasons
            .iter()
            .map(|reason| (*reason).to_owned())
            .collect(),
    };
    PrunePlan {
        to_remove: vec![
            candidate("app-v1", Some("alpha"), &[]),
            candidate("app-v2", None, &[]),
        ],
        kept: vec![candidate(
            "app-v3",
            Some("alpha"),
            &["in use by sandbox-002"],
        )],
        leftovers: vec![leftover()],
        foreign_leftovers: Vec::new(),
        warnings: Vec::new(),
    }
}

fn leftover() -> Leftover {
    Leftover {
        kind: LeftoverKind::Partial,
        host: Some("alpha".parse().unwrap()),
        path: "/var/lib/libvirt/snapshots/.app.qcow2.partial".to_owned(),
        name: Some("app".parse().unwrap()),
        upload_id: None,
        continuable_until: None,
        size_bytes: 1 << 30,
        modified: None,
        is_own: true,
        is_recent: false,
        creator: None,
        mark_id: String::new(),
        file_id: String::new(),
    }
}

/// Submits a rule; returns the request.
fn submit_rule(app: &mut App) -> PruneRequest {
    keys(app, "U3");
    press(app, KeyCode::Tab);
    keys(app, "30");
    assert!(press(app, KeyCode::Enter).is_empty());
    match app.pending_dialog_query() {
        Some(DialogQuery::PrunePlan(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn give_plan(app: &mut App, request: &PruneRequest, plan: Result<PrunePlan, Error>) {
    app.on_dialog_answer(DialogAnswer::PrunePlan(request.clone(), plan));
}

#[test]
fn a_plan_is_shown_and_confirmed_by_typing() {
    let mut app = app(populated());
    keys(&mut app, "U");
    insta::assert_snapshot!("prune_rule", screen(&mut app, 120, 40));
    press(&mut app, KeyCode::Esc);
    let request = submit_rule(&mut app);
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    let expected = PruneRequest {
        rule: PruneRule {
            keep_newest: Some(3),
            older_than: Some(days(30)),
            unused: false,
        },
        hosts: vec!["alpha".parse().unwrap()],
        include_bucket: false,
        include_leftovers: true,
        include_foreign: false,
        partials: Partials::None,
    };
    assert_eq!(request, expected);
    assert!(screen(&mut app, 120, 40).contains("Searching"));
    give_plan(&mut app, &request, Ok(plan()));
    insta::assert_snapshot!("prune_found", screen(&mut app, 120, 40));
    keys(&mut app, "y");
    keys(&mut app, "remove 3");
    assert!(
        press(&mut app, KeyCode::Enter).is_empty(),
        "the number is wrong"
    );
    press(&mut app, KeyCode::Backspace);
    keys(&mut app, "2");
    let commands = press(&mut app, KeyCode::Enter);
    assert_eq!(commands, [Command::Prune(request, plan())]);
    assert!(app.layers().is_empty());
}

#[test]
fn leftovers_alone_are_confirmed_by_a_key() {
    let mut app = app(populated());
    let request = submit_rule(&mut app);
    let only = PrunePlan {
        leftovers: vec![leftover()],
        ..PrunePlan::default()
    };
    give_plan(&mut app, &request, Ok(only.clone()));
    assert_eq!(keys(&mut app, "y"), [Command::Prune(request, only)]);
    let request = submit_rule(&mut app);
    give_plan(&mut app, &request, Ok(PrunePlan::default()));
    assert!(screen(&mut app, 120, 40).contains("Nothing to remove."));
    assert!(keys(&mut app, "y").is_empty() && !app.layers().is_empty());
}

#[test]
fn a_plan_for_another_request_is_ignored_and_an_error_is_shown() {
    let mut app = app(populated());
    let request = submit_rule(&mut app);
    let other = PruneRequest {
        include_bucket: true,
        ..request.clone()
    };
    give_plan(&mut app, &other, Ok(plan()));
    assert!(screen(&mut app, 120, 40).contains("Searching"));
    let error = Error::new(Kind::Unreachable, "cannot reach host alpha");
    give_plan(&mut app, &request, Err(error));
    assert!(screen(&mut app, 120, 40).contains("cannot reach host alpha"));
    keys(&mut app, "b");
    assert!(screen(&mut app, 120, 40).contains("Keep newest"));
}

#[test]
fn a_condition_and_a_location_are_required() {
    let mut app = app(populated());
    keys(&mut app, "U0");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert!(screen(&mut app, 80, 24).contains("must be a number from 1"));
    press(&mut app, KeyCode::Backspace);
    // Without leftovers and without a rule.
    for _ in 0..3 {
        press(&mut app, KeyCode::Tab);
    }
    keys(&mut app, " ");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert!(screen(&mut app, 80, 24).contains("set a condition"));
    keys(&mut app, " ");
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Tab);
    // Select all hosts, then none.
    keys(&mut app, "  ");
    assert!(press(&mut app, KeyCode::Enter).is_empty());
    assert!(screen(&mut app, 80, 24).contains("no location is selected"));
}

#[test]
fn the_ends_of_a_long_plan_are_reached_with_g_and_end() {
    let mut app = app(populated());
    let request = submit_rule(&mut app);
    let mut plan = plan();
    plan.leftovers = (0..200)
        .map(|number| Leftover {
            path: format!("/s/.leftover-{number}.qcow2.pull"),
            ..leftover()
        })
        .collect();
    give_plan(&mut app, &request, Ok(plan));
    let shows = |app: &mut App, text: &str| screen(app, 120, 40).contains(text);
    assert!(shows(&mut app, "To remove, reclaims"));
    for (last, first) in [
        (KeyCode::Char('G'), KeyCode::Char('g')),
        (KeyCode::End, KeyCode::Home),
    ] {
        press(&mut app, last);
        assert!(shows(&mut app, ".leftover-199.qcow2.pull"));
        assert!(!shows(&mut app, "To remove, reclaims"));
        press(&mut app, first);
        assert!(shows(&mut app, "To remove, reclaims"));
    }
    // While the confirmation is typed, the keys that are not letters still scroll.
    keys(&mut app, "y");
    press(&mut app, KeyCode::PageUp);
    press(&mut app, KeyCode::Home);
    assert!(shows(&mut app, "To remove, reclaims"));
    press(&mut app, KeyCode::End);
    assert!(shows(&mut app, ".leftover-199.qcow2.pull"));
}

#[test]
fn the_ends_of_the_rule_are_reached_on_a_low_screen() {
    let mut app = app(populated());
    keys(&mut app, "U");
    let shows = |app: &mut App, text: &str| screen(app, 60, 14).contains(text);
    assert!(shows(&mut app, "Keep newest"));
    press(&mut app, KeyCode::End);
    assert!(shows(&mut app, "in s3://"), "{}", screen(&mut app, 60, 14));
    press(&mut app, KeyCode::Home);
    assert!(shows(&mut app, "Keep newest"));
    keys(&mut app, "G");
    assert!(shows(&mut app, "in s3://"));
}

#[test]
fn a_partial_pull_is_shown_and_removed_by_itself() {
    let mut app = app(populated());
    let partial = snapdeck_model::PartialPull {
        name: "far-away".parse().unwrap(),
        allocated_bytes: 3 << 30,
        modified: None,
    };
    update(&mut app, |view| {
        set_alpha(view, |host| host.partials = Arc::new([partial]));
    });
    press(&mut app, KeyCode::Tab);
    let output = screen(&mut app, 200, 60);
    assert!(output.contains("1 partial, 3 GiB"), "{output}");
    press(&mut app, KeyCode::Tab);
    assert_eq!(selected(&app), "far-away");
    let output = screen(&mut app, 120, 40);
    assert!(
        output.contains("alpha  ↓ partial, 3 GiB on disk"),
        "{output}"
    );
    keys(&mut app, "d");
    let output = screen(&mut app, 120, 40);
    assert!(
        output.contains("[ ] 1 partial pull on alpha (3 GiB)"),
        "{output}"
    );
    // Not the object, but the partial file.
    keys(&mut app, " ");
    press(&mut app, KeyCode::Tab);
    keys(&mut app, " ");
    let removal = Command::RemovePartials(vec![(
        "alpha".parse().unwrap(),
        "far-away".parse().unwrap(),
    )]);
    assert_eq!(keys(&mut app, "y"), [removal]);

    // On the Jobs page it is a row that can be resumed, and freed by itself.
    keys(&mut app, "J");
    let output = screen(&mut app, 120, 40);
    assert!(output.contains("pull far-away → alpha"), "{output}");
    assert!(
        output.contains("3 GiB on disk; t resumes, X frees"),
        "{output}"
    );
    keys(&mut app, "gg");
    let pull = Operation::Pull {
        host: "alpha".parse().unwrap(),
        name: "far-away".parse().unwrap(),
        overwrite: false,
    };
    assert_eq!(keys(&mut app, "t"), [Command::Submit(pull)]);
    assert!(keys(&mut app, "X").is_empty());
    assert!(screen(&mut app, 120, 40).contains("This frees 3 GiB"));
    let removal = Command::RemovePartials(vec![(
        "alpha".parse().unwrap(),
        "far-away".parse().unwrap(),
    )]);
    assert_eq!(keys(&mut app, "y"), [removal]);
    keys(&mut app, "J");

    // One that a job continues is not offered.
    update(&mut app, |view| {
        view.jobs
            .push(Arc::new(crate::fixture::queued_job(3, "far-away")));
    });
    keys(&mut app, "d");
    assert!(!screen(&mut app, 120, 40).contains("partial pull"));
}
