//! Holds the floors: reads the sources and tells, with file and line, what goes against the order of imports
//! that `src/lib.rs` describes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "floors/tokens.rs"]
mod tokens;

use std::path::{Path, PathBuf};

use tokens::{Token, text_at, tokens};

/// A floor, and the ones it may import. What is missing here (`main`, `lib`) stands on top and may import all.
const FLOORS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("qcow2", &["model"]),
    ("host", &["model", "qcow2"]),
    ("bucket", &["model", "qcow2"]),
    ("ops", &["model", "qcow2", "host", "bucket"]),
    ("engine", &["model", "qcow2", "host", "bucket", "ops"]),
    ("settings", &["model"]),
    // A face holds an engine handle and nothing below it but plain data.
    ("cli", &["model", "engine", "settings"]),
    ("console", &["model", "engine", "settings"]),
    ("api", &["model", "engine", "settings"]),
    (
        "demo",
        &[
            "model", "qcow2", "host", "bucket", "ops", "engine", "settings", "console",
        ],
    ),
];

/// They are handed what they need: they neither print, nor draw, nor ask the environment.
const QUIET: &[&str] = &["model", "qcow2", "host", "bucket", "ops", "engine"];
const LOUD_CRATES: &[&str] = &[
    "ratatui",
    "crossterm",
    "clap",
    "indicatif",
    "tui_logger",
    "directories",
];
const LOUD_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// The one folder for what Rust cannot check.
const UNSAFE: &str = "host/ffi/";

#[test]
fn every_source_keeps_to_its_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let has = |floor: &str| {
        let of = |path: &PathBuf| floor_of(&relative(&src, path)).0 == floor;
        files.iter().any(of)
    };
    // A folder that was renamed must not slip out of the rules.
    for floor in QUIET {
        assert!(has(floor), "nothing was read of src/{floor}");
    }
    let mut violations = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path).unwrap();
        violations.extend(check(&relative(&src, path), &text));
    }
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    for (file, text, told) in [
        (
            "model/a.rs",
            "\nuse crate::host::Host;",
            "src/model/a.rs:2: model imports host",
        ),
        (
            "host/a.rs",
            "use crate::{\n  model::A,\n  bucket::{B, C},\n};",
            "src/host/a.rs:3: host imports bucket",
        ),
        (
            "bucket/mod.rs",
            "fn f() -> super::host::Host {}",
            "src/bucket/mod.rs:1: bucket imports host",
        ),
        (
            "host/a.rs",
            "use super::super::bucket::B;",
            "src/host/a.rs:1: host imports bucket",
        ),
        (
            "host/a/b.rs",
            "use super::{super::super::{model::M, ops}};",
            "src/host/a/b.rs:1: host imports ops",
        ),
        (
            "host/mod.rs",
            "mod tests { use super::super::bucket::B; }",
            "src/host/mod.rs:1: host imports bucket",
        ),
        (
            "engine/mod.rs",
            "use crate::console;",
            "src/engine/mod.rs:1: engine imports console",
        ),
        (
            "cli/mod.rs",
            "crate::ops::push();",
            "src/cli/mod.rs:1: cli imports ops",
        ),
        (
            "console/mod.rs",
            "use crate::cli::Cli;",
            "src/console/mod.rs:1: console imports cli",
        ),
        (
            "api.rs",
            "use snapdeck::host::Host;",
            "src/api.rs:1: api imports host",
        ),
        (
            "settings/mod.rs",
            "use crate::engine::Engine;",
            "src/settings/mod.rs:1: settings imports engine",
        ),
        (
            "demo/mod.rs",
            "use crate::cli;",
            "src/demo/mod.rs:1: demo imports cli",
        ),
        ("ops/a.rs", "use crate::*;", "src/ops/a.rs:1: ops imports *"),
        (
            "new/a.rs",
            "",
            "src/new/a.rs:1: new is no floor that tests/floors.rs knows",
        ),
        (
            "ops/a.rs",
            "let a = '\"';\nprintln!(\"{a}\");",
            "src/ops/a.rs:2: ops uses println!",
        ),
        (
            "host/a.rs",
            "std::env::var(\"A\")",
            "src/host/a.rs:1: host uses std::env",
        ),
        (
            "host/a.rs",
            "use std::{fs, env};",
            "src/host/a.rs:1: host uses std::env",
        ),
        (
            "engine/a.rs",
            "use ratatui::Frame;",
            "src/engine/a.rs:1: engine uses ratatui",
        ),
        (
            "host/a.rs",
            "unsafe { f() }",
            "src/host/a.rs:1: unsafe outside src/host/ffi/",
        ),
        (
            "main.rs",
            "unsafe { f() }",
            "src/main.rs:1: unsafe outside src/host/ffi/",
        ),
        (
            "cli/a.rs",
            "fn a() { todo!() }",
            "src/cli/a.rs:1: unfinished: todo!",
        ),
        (
            "cli/a.rs",
            "unimplemented!()",
            "src/cli/a.rs:1: unfinished: unimplemented!",
        ),
        (
            "cli/a.rs",
            "x();\n// TODO: y",
            "src/cli/a.rs:2: unfinished: TODO",
        ),
    ] {
        let told = vec![told.to_owned()];
        assert_eq!(check(file, text), told, "{file}: {text}");
    }
}

#[test]
fn what_is_no_violation_is_not_told() {
    for (file, text) in [
        (
            "model/a.rs",
            "//! Filled by [`crate::settings`].\n/* crate::host /* unsafe */ */ struct A;",
        ),
        (
            "host/a.rs",
            "let a = \"crate::ops \\\" println!()\"; let b = r#\"unsafe \" {}\"#;",
        ),
        (
            "host/a.rs",
            "fn f<'a>(x: &'a str) -> char { '\\'' } // std::env",
        ),
        (
            "host/mod.rs",
            "mod tests { use super::*; use super::command::run; }",
        ),
        (
            "host/a.rs",
            "use super::super::host::Host; use crate::host::survey;",
        ),
        ("host/ffi/mod.rs", "unsafe { f() }"),
        ("lib.rs", "#![deny(unsafe_code)]\npub mod host;"),
        ("main.rs", "use snapdeck::{cli, host::Host}; println!();"),
        (
            "cli/a.rs",
            "eprintln!(); let environment = std::env::args();",
        ),
        (
            "engine/a.rs",
            "use std::{fmt::{self, Write}, io}; write!(out, \"\"); command.env(a, b);",
        ),
    ] {
        assert_eq!(check(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

/// What a file, named relative to `src`, does against the rules: `src/FILE:LINE: what`.
fn check(file: &str, text: &str) -> Vec<String> {
    let (floor, depth) = floor_of(file);
    let tokens = tokens(text);
    let mut found: Vec<(usize, String)> = Vec::new();
    if !["main", "lib"].contains(&floor) {
        match FLOORS.iter().find(|(name, _)| *name == floor) {
            None => found.push((1, format!("{floor} is no floor that tests/floors.rs knows"))),
            Some((_, below)) => {
                let fine = |name: &str| name == floor || below.contains(&name);
                let wrong = imports(&tokens, depth)
                    .into_iter()
                    .filter(|(_, name)| !fine(name));
                found.extend(wrong.map(|(line, name)| (line, format!("{floor} imports {name}"))));
            }
        }
    }
    if QUIET.contains(&floor) {
        let loud = loud(&tokens).into_iter();
        found.extend(loud.map(|(line, what)| (line, format!("{floor} uses {what}"))));
    }
    for (at, token) in tokens.iter().enumerate() {
        let is_macro = text_at(&tokens, at + 1) == "!";
        match token.text.as_str() {
            "unsafe" if !file.starts_with(UNSAFE) => {
                found.push((token.line, format!("unsafe outside src/{UNSAFE}")));
            }
            name @ ("todo" | "unimplemented") if is_macro => {
                found.push((token.line, format!("unfinished: {name}!")));
            }
            _ => {}
        }
    }
    for (number, line) in text.lines().enumerate() {
        for mark in ["TODO", "FIXME"] {
            if line.contains(mark) {
                found.push((number + 1, format!("unfinished: {mark}")));
            }
        }
    }
    found.sort();
    found.dedup();
    let told = |(line, what)| format!("src/{file}:{line}: {what}");
    found.into_iter().map(told).collect()
}

/// A file's floor, and how many `super::` lead from its module to the crate's root.
fn floor_of(file: &str) -> (&str, usize) {
    let path = file.strip_suffix(".rs").unwrap();
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (path.split('/').next().unwrap(), path.split('/').count())
}

/// Modules at the crate's root that a file of that depth names, with their lines.
fn imports(tokens: &[Token], depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let starts = at == 0 || tokens[at - 1].text != "::";
        match tokens[at].text.as_str() {
            "crate" | "snapdeck" if starts && text_at(tokens, at + 1) == "::" => {
                heads(tokens, at + 2, 0, &mut found);
            }
            // One `super::` fewer to the root for each that was gone.
            "super" if starts && text_at(tokens, at + 1) == "::" => {
                heads(tokens, at + 2, depth - 1, &mut found);
            }
            _ => {}
        }
    }
    found
}

/// The first names of a path at `at` (all of a group's) once `up` more `super::` have led to the root. Returns the
/// place behind it.
fn heads(tokens: &[Token], at: usize, up: usize, found: &mut Vec<(usize, String)>) -> usize {
    let Some(token) = tokens.get(at) else {
        return at;
    };
    match token.text.as_str() {
        "{" => {
            let mut next = at + 1;
            while !["}", ""].contains(&text_at(tokens, next)) {
                next = heads(tokens, next, up, found);
                // The rest of a path, with the groups in it, says nothing new.
                let mut open = 0;
                while open > 0 || ![",", "}", ""].contains(&text_at(tokens, next)) {
                    match text_at(tokens, next) {
                        "{" => open += 1,
                        "}" => open -= 1,
                        "" => return next,
                        _ => {}
                    }
                    next += 1;
                }
                next += usize::from(text_at(tokens, next) == ",");
            }
            next + 1
        }
        "super" if text_at(tokens, at + 1) == "::" => {
            heads(tokens, at + 2, up.saturating_sub(1), found)
        }
        // An inline module's `super::` leads less far, to a name that is no floor's.
        name if up == 0 => {
            if name == "*" && tokens[at - 2].text == "crate"
                || FLOORS.iter().any(|(floor, _)| *floor == name)
            {
                found.push((token.line, name.to_owned()));
            }
            at + 1
        }
        _ => at + 1,
    }
}

/// Crates, macros and modules that a quiet floor may not use.
fn loud(tokens: &[Token]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let (name, next) = (token.text.as_str(), text_at(tokens, at + 1));
        if LOUD_CRATES.contains(&name) {
            found.push((token.line, name.to_owned()));
        }
        if LOUD_MACROS.contains(&name) && next == "!" {
            found.push((token.line, format!("{name}!")));
        }
        if name == "std" && next == "::" {
            let mut inside = Vec::new();
            names_in(tokens, at + 2, &mut inside);
            let env = inside.into_iter().filter(|(_, name)| name == "env");
            found.extend(env.map(|(line, _)| (line, "std::env".to_owned())));
        }
    }
    found
}

/// The name at `at`, or all names right inside the group there.
fn names_in(tokens: &[Token], at: usize, found: &mut Vec<(usize, String)>) {
    if text_at(tokens, at) != "{" {
        let name = tokens.get(at).map(|token| (token.line, token.text.clone()));
        return found.extend(name);
    }
    let mut open = 0;
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => open += 1,
            "}" => open -= 1,
            name if open == 1 => found.push((token.line, name.to_owned())),
            _ => {}
        }
        if open == 0 {
            return;
        }
    }
}

fn relative(src: &Path, path: &Path) -> String {
    path.strip_prefix(src).unwrap().to_str().unwrap().to_owned()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}
