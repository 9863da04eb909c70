//! Lists of sandboxes, snapshots and objects.

use std::future::Future;

use futures_util::future::join_all;
use serde::Serialize;

use super::exit;
use super::output::{
    CommandOutput, eprint_error, eprint_line, format_size, format_table, format_time,
};
use snapdeck_engine::{Engine, Partials, PruneRequest};
use snapdeck_model::{
    ForeignDomain, HostName, Leftover, Object, PartialPull, PruneRule, Result, Sandbox,
    SandboxState, Snapshot,
};

/// An item with its host; one flat object in JSON.
#[derive(Serialize)]
struct HostItem<'a, T> {
    host: &'a HostName,
    #[serde(flatten)]
    item: T,
}

/// The items of the hosts that answered, and the exit code of those that did not.
struct Listing<'a, T> {
    items: Vec<HostItem<'a, T>>,
    code: u8,
}

/// Queries all hosts at the same time. A failure is reported on stderr and gives the exit code; it is an error if no host
/// answers.
async fn query_hosts<'a, T, F>(
    hosts: &'a [HostName],
    query: impl Fn(&'a HostName) -> F,
) -> Result<Listing<'a, T>>
where
    F: Future<Output = Result<Vec<T>>>,
{
    let mut failed = Vec::new();
    let mut items = Vec::new();
    let mut has_answer = false;
    for (host, answer) in hosts.iter().zip(join_all(hosts.iter().map(query)).await) {
        match answer {
            Ok(found) => {
                has_answer = true;
                items.extend(found.into_iter().map(|item| HostItem { host, item }));
            }
            Err(error) => failed.push(error),
        }
    }
    if !has_answer && let Some(last) = failed.pop() {
        failed.iter().for_each(eprint_error);
        return Err(last);
    }
    failed.iter().for_each(eprint_error);
    let code = failed.first().map_or(0, |error| exit::code(error.kind()));
    Ok(Listing { items, code })
}

/// Formats a table, with a column for the host if several were queried.
fn format_host_table<'a>(
    shows_host: bool,
    headings: &[&str],
    rows: impl Iterator<Item = (&'a HostName, Vec<String>)>,
) -> String {
    let headings: Vec<&str> = shows_host
        .then_some("HOST")
        .into_iter()
        .chain(headings.iter().copied())
        .collect();
    let rows: Vec<Vec<String>> = rows
        .map(|(host, row)| {
            shows_host
                .then(|| host.to_string())
                .into_iter()
                .chain(row)
                .collect()
        })
        .collect();
    format_nonempty_table(&headings, &rows)
}

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
    let listing = query_hosts(hosts, |host| engine.sandboxes(host)).await?;
    if listing.items.is_empty() {
        eprint_line(format_args!("no sandboxes on {}", join_names(hosts)));
    }
    let rows = listing.items.iter().map(|HostItem { host, item }| {
        let base = item.base().map(ToString::to_string);
        (
            *host,
            format_guest_row(item.id.as_str(), GuestSummary::from_sandbox(item), base),
        )
    });
    let text = format_host_table(hosts.len() > 1, &GUEST_HEADINGS, rows);
    let output = CommandOutput::new(&listing.items, text)?;
    Ok(CommandOutput {
        code: listing.code,
        ..output
    })
}

/// A sandbox or another domain.
#[derive(Serialize)]
struct GuestItem {
    managed: bool,
    #[serde(flatten)]
    guest: Guest,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Guest {
    Sandbox(Sandbox),
    Foreign(ForeignDomain),
}

/// `snapdeck sandboxes --all`.
pub(crate) async fn guests(engine: &Engine, hosts: &[HostName]) -> Result<CommandOutput> {
    let query = |host| async move {
        let (sandboxes, foreign) = engine.guests(host).await?;
        let sandboxes = sandboxes.into_iter().map(|sandbox| GuestItem {
            managed: true,
            guest: Guest::Sandbox(sandbox),
        });
        let foreign = foreign.into_iter().map(|domain| GuestItem {
            managed: false,
            guest: Guest::Foreign(domain),
        });
        Ok(sandboxes.chain(foreign).collect())
    };
    let listing = query_hosts(hosts, query).await?;
    let rows = listing.items.iter().map(|HostItem { host, item }| {
        let row = match &item.guest {
            Guest::Sandbox(item) => {
                let base = item.base().map(ToString::to_string);
                format_guest_row(item.id.as_str(), GuestSummary::from_sandbox(item), base)
            }
            Guest::Foreign(item) => {
                let summary = GuestSummary {
                    state: item.state,
                    cpus: item.cpus,
                    memory_bytes: item.memory_bytes,
                    autostart: None,
                    disk_bytes: item.chain.first().and_then(|link| link.size_bytes),
                };
                format_guest_row(&item.id, summary, Some("(not managed)".to_owned()))
            }
        };
        (*host, row)
    });
    let text = format_host_table(hosts.len() > 1, &GUEST_HEADINGS, rows);
    let output = CommandOutput::new(&listing.items, text)?;
    Ok(CommandOutput {
        code: listing.code,
        ..output
    })
}

const GUEST_HEADINGS: [&str; 7] = [
    "SANDBOX",
    "STATE",
    ">CPUS",
    ">MEMORY",
    ">DISK",
    "AUTOSTART",
    "BASE",
];

struct GuestSummary {
    state: SandboxState,
    cpus: u32,
    memory_bytes: u64,
    autostart: Option<bool>,
    disk_bytes: Option<u64>,
}

impl GuestSummary {
    fn from_sandbox(sandbox: &Sandbox) -> Self {
        Self {
            state: sandbox.state,
            cpus: sandbox.cpus,
            memory_bytes: sandbox.memory_bytes,
            autostart: Some(sandbox.autostart),
            disk_bytes: sandbox.chain.first().and_then(|link| link.size_bytes),
        }
    }
}

fn format_guest_row(id: &str, summary: GuestSummary, base: Option<String>) -> Vec<String> {
    let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        id.to_owned(),
        summary.state.label().to_owned(),
        summary.cpus.to_string(),
        format_size(summary.memory_bytes),
        or_dash(summary.disk_bytes.map(format_size)),
        or_dash(summary.autostart.map(on_off)),
        or_dash(base),
    ]
}

/// `snapdeck snapshots`.
pub(crate) async fn snapshots(engine: &Engine, hosts: &[HostName]) -> Result<CommandOutput> {
    let listing = query_hosts(hosts, |host| engine.snapshots(host)).await?;
    if listing.items.is_empty() {
        eprint_line(format_args!("no snapshots on {}", join_names(hosts)));
    }
    let rows = listing
        .items
        .iter()
        .map(|HostItem { host, item }| (*host, format_snapshot_row(item)));
    let headings = [
        "SNAPSHOT", ">SIZE", ">DISK", "MODIFIED", "USED BY", "PROBLEM",
    ];
    let text = format_host_table(hosts.len() > 1, &headings, rows);
    let output = CommandOutput::new(&listing.items, text)?;
    Ok(CommandOutput {
        code: listing.code,
        ..output
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

/// A partial pull, and what `prune --partial` knows of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedPartial {
    #[serde(flatten)]
    pull: PartialPull,
    /// Whether this installation created it.
    is_own: bool,
    /// `null`: it has no mark of snapdeck, so nothing proves that snapdeck created it.
    creator: Option<String>,
}

async fn listed_partials(engine: &Engine, host: &HostName) -> Result<Vec<ListedPartial>> {
    let pulls = engine.partial_pulls(host).await?;
    if pulls.is_empty() {
        return Ok(Vec::new());
    }
    let request = PruneRequest {
        rule: PruneRule::default(),
        hosts: vec![host.clone()],
        include_bucket: false,
        include_leftovers: false,
        include_foreign: false,
        partials: Partials::All,
    };
    let plan = Box::pin(engine.prune_plan(&request)).await?;
    let marked: Vec<Leftover> = [plan.leftovers, plan.foreign_leftovers].concat();
    let with_creator = |pull: PartialPull| {
        let leftover = marked
            .iter()
            .find(|one| one.name.as_ref() == Some(&pull.name));
        ListedPartial {
            is_own: leftover.is_some_and(|leftover| leftover.is_own),
            creator: leftover.and_then(|leftover| leftover.creator.clone()),
            pull,
        }
    };
    Ok(pulls.into_iter().map(with_creator).collect())
}

/// `snapdeck snapshots --partial`.
pub(crate) async fn partial_pulls(engine: &Engine, hosts: &[HostName]) -> Result<CommandOutput> {
    let listing = query_hosts(hosts, |host| listed_partials(engine, host)).await?;
    if listing.items.is_empty() {
        eprint_line(format_args!("no partial pulls on {}", join_names(hosts)));
    }
    let rows = listing.items.iter().map(|HostItem { host, item }| {
        let cells = vec![
            item.pull.name.to_string(),
            format_size(item.pull.allocated_bytes),
            format_time(item.pull.modified),
            match (item.is_own, &item.creator) {
                (true, _) => "this installation".to_owned(),
                (false, Some(creator)) => creator.clone(),
                (false, None) => "unknown: not removable".to_owned(),
            },
        ];
        (*host, cells)
    });
    let headings = ["SNAPSHOT", ">SIZE", "MODIFIED", "CREATED BY"];
    let text = format_host_table(hosts.len() > 1, &headings, rows);
    let output = CommandOutput::new(&listing.items, text)?;
    Ok(CommandOutput {
        code: listing.code,
        ..output
    })
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
                 problem,
                 ..
             }| {
                vec![
                    name.to_string(),
                    format_size(*size_bytes),
                    format_time(*modified),
                    problem.clone().unwrap_or_default(),
                ]
            },
        )
        .collect();
    CommandOutput::new(
        &objects,
        format_nonempty_table(&["SNAPSHOT", ">SIZE", "MODIFIED", "PROBLEM"], &rows),
    )
}
