//! Listings: sandboxes, snapshots, objects.

use std::future::Future;

use futures_util::future::join_all;
use serde::Serialize;

use super::exit;
use super::output::{CommandOutput, eprint_line, format_size, format_table, format_time};
use snapdeck_engine::Engine;
use snapdeck_model::{ForeignDomain, HostName, Object, Result, Sandbox, SandboxState, Snapshot};

/// An item and the host it is on; in JSON one flat object.
#[derive(Serialize)]
struct HostItem<'a, T> {
    host: &'a HostName,
    #[serde(flatten)]
    item: T,
}

/// What the hosts that answered have, and the exit code for those that did not.
struct Listing<'a, T> {
    items: Vec<HostItem<'a, T>>,
    code: u8,
}

/// Asks every host at once. A host that fails is told of on stderr and leaves its exit code; only
/// where none answers it is an error.
async fn query_hosts<'a, T, F>(
    hosts: &'a [HostName],
    ask: impl Fn(&'a HostName) -> F,
) -> Result<Listing<'a, T>>
where
    F: Future<Output = Result<Vec<T>>>,
{
    let mut failed = Vec::new();
    let mut items = Vec::new();
    let mut answered = false;
    for (host, answer) in hosts.iter().zip(join_all(hosts.iter().map(ask)).await) {
        match answer {
            Ok(found) => {
                answered = true;
                items.extend(found.into_iter().map(|item| HostItem { host, item }));
            }
            Err(error) => failed.push(error),
        }
    }
    if !answered && let Some(last) = failed.pop() {
        failed.iter().for_each(eprint_line);
        return Err(last);
    }
    failed.iter().for_each(eprint_line);
    let code = failed.first().map_or(0, |error| exit::code(error.kind()));
    Ok(Listing { items, code })
}

/// A table with a column for the host where several were asked.
fn format_host_table<'a>(
    many: bool,
    headings: &[&str],
    rows: impl Iterator<Item = (&'a HostName, Vec<String>)>,
) -> String {
    let headings: Vec<&str> = many
        .then_some("HOST")
        .into_iter()
        .chain(headings.iter().copied())
        .collect();
    let rows: Vec<Vec<String>> = rows
        .map(|(host, row)| {
            many.then(|| host.to_string())
                .into_iter()
                .chain(row)
                .collect()
        })
        .collect();
    format_nonempty_table(&headings, &rows)
}

/// A table, or nothing where it would have no rows.
fn format_nonempty_table(headings: &[&str], rows: &[Vec<String>]) -> String {
    match rows {
        [] => String::new(),
        rows => format_table(headings, rows),
    }
}

fn join_names(hosts: &[HostName]) -> String {
    let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    names.join(", ")
}

/// `snapdeck sandboxes`.
pub(crate) async fn sandboxes(engine: &Engine, hosts: &[HostName]) -> Result<CommandOutput> {
    let found = query_hosts(hosts, |host| engine.sandboxes(host)).await?;
    if found.items.is_empty() {
        eprint_line(format_args!("no sandboxes on {}", join_names(hosts)));
    }
    let rows = found.items.iter().map(|HostItem { host, item }| {
        let base = item.base().map(ToString::to_string);
        (
            *host,
            format_guest_row(item.id.as_str(), GuestSummary::from_sandbox(item), base),
        )
    });
    let text = format_host_table(hosts.len() > 1, &GUEST_HEADINGS, rows);
    let answer = CommandOutput::new(&found.items, text)?;
    Ok(CommandOutput {
        code: found.code,
        ..answer
    })
}

/// A sandbox or another guest, marked as which.
#[derive(Serialize)]
struct GuestItem {
    managed: bool,
    #[serde(flatten)]
    guest: Either,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Either {
    Sandbox(Sandbox),
    Foreign(ForeignDomain),
}

/// `snapdeck sandboxes --all`.
pub(crate) async fn guests(engine: &Engine, hosts: &[HostName]) -> Result<CommandOutput> {
    let ask = |host| async move {
        let (ours, others) = engine.guests(host).await?;
        let guest = |ours, guest| GuestItem {
            managed: ours,
            guest,
        };
        let ours = ours
            .into_iter()
            .map(|item| guest(true, Either::Sandbox(item)));
        let others = others
            .into_iter()
            .map(|item| guest(false, Either::Foreign(item)));
        Ok(ours.chain(others).collect())
    };
    let found = query_hosts(hosts, ask).await?;
    let rows = found.items.iter().map(|HostItem { host, item }| {
        let row = match &item.guest {
            Either::Sandbox(item) => {
                let base = item.base().map(ToString::to_string);
                format_guest_row(item.id.as_str(), GuestSummary::from_sandbox(item), base)
            }
            Either::Foreign(item) => {
                let facts = GuestSummary {
                    state: item.state,
                    cpus: item.cpus,
                    memory_bytes: item.memory_bytes,
                    disk_bytes: item.chain.first().and_then(|link| link.size_bytes),
                };
                format_guest_row(&item.id, facts, Some("(no sandbox of ours)".to_owned()))
            }
        };
        (*host, row)
    });
    let text = format_host_table(hosts.len() > 1, &GUEST_HEADINGS, rows);
    let answer = CommandOutput::new(&found.items, text)?;
    Ok(CommandOutput {
        code: found.code,
        ..answer
    })
}

const GUEST_HEADINGS: [&str; 6] = ["SANDBOX", "STATE", ">CPUS", ">MEMORY", ">DISK", "BASE"];

/// What a row tells of any guest.
struct GuestSummary {
    state: SandboxState,
    cpus: u32,
    memory_bytes: u64,
    disk_bytes: Option<u64>,
}

impl GuestSummary {
    fn from_sandbox(sandbox: &Sandbox) -> Self {
        Self {
            state: sandbox.state,
            cpus: sandbox.cpus,
            memory_bytes: sandbox.memory_bytes,
            disk_bytes: sandbox.chain.first().and_then(|link| link.size_bytes),
        }
    }
}

fn format_guest_row(id: &str, facts: GuestSummary, base: Option<String>) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        id.to_owned(),
        facts.state.label().to_owned(),
        facts.cpus.to_string(),
        format_size(facts.memory_bytes),
        or_dash(facts.disk_bytes.map(format_size)),
        or_dash(base),
    ]
}

/// `snapdeck snapshots`.
pub(crate) async fn snapshots(engine: &Engine, hosts: &[HostName]) -> Result<CommandOutput> {
    let found = query_hosts(hosts, |host| engine.snapshots(host)).await?;
    if found.items.is_empty() {
        eprint_line(format_args!("no snapshots on {}", join_names(hosts)));
    }
    let rows = found
        .items
        .iter()
        .map(|HostItem { host, item }| (*host, format_snapshot_row(item)));
    let headings = [
        "SNAPSHOT", ">SIZE", ">DISK", "MODIFIED", "USED BY", "PROBLEM",
    ];
    let text = format_host_table(hosts.len() > 1, &headings, rows);
    let answer = CommandOutput::new(&found.items, text)?;
    Ok(CommandOutput {
        code: found.code,
        ..answer
    })
}

fn format_snapshot_row(snapshot: &Snapshot) -> Vec<String> {
    vec![
        snapshot.name.to_string(),
        format_size(snapshot.size_bytes),
        snapshot
            .virtual_size()
            .map_or_else(|| "-".to_owned(), format_size),
        format_time(snapshot.modified),
        match snapshot.dependents.is_empty() {
            true => "-".to_owned(),
            false => snapshot.dependents.join(","),
        },
        snapshot.problem.clone().unwrap_or_default(),
    ]
}

/// `snapdeck objects`.
pub(crate) async fn objects(engine: &Engine) -> Result<CommandOutput> {
    let objects = engine.objects().await?;
    if objects.is_empty() {
        eprint_line("no snapshots in the bucket");
    }
    let rows: Vec<Vec<String>> = objects
        .iter()
        .map(
            |Object {
                 name,
                 size_bytes,
                 modified,
                 ..
             }| {
                vec![
                    name.to_string(),
                    format_size(*size_bytes),
                    format_time(*modified),
                ]
            },
        )
        .collect();
    CommandOutput::new(
        &objects,
        format_nonempty_table(&["SNAPSHOT", ">SIZE", "MODIFIED"], &rows),
    )
}
