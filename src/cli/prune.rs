//! `snapdeck prune`: shows what matches a rule, and removes it.

use std::io::{IsTerminal, stderr, stdin};
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::output::{
    CommandOutput, eprint_error, eprint_line, format_size, format_table, format_time, prompt,
};
use super::{CommandPlan, exit, job};
use snapdeck_engine::{Engine, Partials, PruneRequest, leftover_label};
use snapdeck_model::settings::Settings;
use snapdeck_model::{
    Candidate, Error, HostName, Kind, Leftover, PrunePlan, PruneRule, Result, SnapshotName,
    parse_age, printable,
};

/// `snapdeck prune`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true)
    .args(["keep", "older_than", "unused", "leftovers", "partial"]))]
#[command(group = ArgGroup::new("files").multiple(true).args(["leftovers", "partial"]))]
pub struct PruneArgs {
    /// Keep the newest N versions of each snapshot, per host and in the bucket. app-v1.0, app-v1.1 and
    /// app-2026-01-31 are versions of app
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Remove only snapshots created longer ago than this: 12h, 30d, 8w
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Remove only snapshots that no sandbox on any configured host is based on
    #[arg(long)]
    unused: bool,
    /// Remove leftovers of interrupted jobs older than a day: uploads, partial pulls, temporary directories. Those of
    /// other installations of snapdeck are only listed
    #[arg(long)]
    leftovers: bool,
    /// Remove the partial pull of this snapshot on the hosts, whatever its age
    #[arg(long, value_name = "NAME")]
    partial: Option<SnapshotName>,
    /// Remove also leftovers that another installation created, or one whose state directory was lost
    #[arg(long, requires = "files")]
    foreign: bool,
    /// Dry run: only show what would be removed
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask for confirmation; required without a terminal
    #[arg(long)]
    yes: bool,
    /// Only on the hosts; implied by --host
    #[arg(long)]
    local: bool,
    /// Only in the bucket; with --host also on that host
    #[arg(long, conflicts_with = "local")]
    bucket: bool,
}

/// Confirmation of a prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// Remove nothing.
    DryRun,
    /// Ask the operator.
    Prompt,
    /// Remove without asking.
    AssumeYes,
}

impl PruneArgs {
    /// `named` are the hosts given with `--host`, `all` those to use without it.
    pub(super) fn plan(
        self,
        named: Vec<HostName>,
        all: Vec<HostName>,
        settings: &Settings,
    ) -> CommandPlan {
        let has_bucket = settings.bucket.name.is_some();
        let (hosts, bucket) = match (named.is_empty(), self.local, self.bucket) {
            (true, _, true) => (Vec::new(), true),
            (true, true, false) => (all, false),
            (true, false, false) => (all, has_bucket),
            (false, _, bucket) => (named, bucket),
        };
        let confirmation = match (self.dry_run, self.yes) {
            (true, _) => Confirmation::DryRun,
            (false, true) => Confirmation::AssumeYes,
            (false, false) => Confirmation::Prompt,
        };
        let rule = PruneRule {
            keep_newest: self.keep.map(|keep| keep as usize),
            older_than: self.older_than,
            unused: self.unused,
        };
        let request = PruneRequest {
            rule,
            hosts,
            include_bucket: bucket,
            include_leftovers: self.leftovers,
            include_foreign: self.foreign,
            partials: self.partial.map_or(Partials::None, Partials::Of),
        };
        CommandPlan::Prune(request, confirmation)
    }
}

/// Shows the plan and, if confirmed, removes what it selects. A failure gives the exit code and does not stop the rest.
pub(super) async fn run(
    engine: &Engine,
    request: &PruneRequest,
    confirmation: Confirmation,
    verbose: bool,
) -> Result<CommandOutput> {
    let can_ask = stdin().is_terminal() && stderr().is_terminal();
    if confirmation == Confirmation::Prompt && !can_ask {
        return Err(Error::new(
            Kind::InvalidInput,
            "cannot ask for confirmation without a terminal",
        )
        .hint(
            "pass --dry-run to see what would be removed, or --yes to remove it without asking",
        ));
    }
    let plan = engine.prune_plan(request).await?;
    for warning in &plan.warnings {
        eprint_line(format_args!("warning: {warning}"));
    }
    let (mut text, mut document) = render_plan(&plan)?;
    if let (Partials::Of(name), true) = (&request.partials, plan.is_empty()) {
        match Box::pin(engine.kept_partial(request, name, &plan)).await? {
            // It was asked for by its name: that it stays is not what was wanted.
            Some(error) if confirmation != Confirmation::DryRun => return Err(error),
            Some(error) => eprint_line(format_args!("warning: {error}")),
            None => {
                let hosts: Vec<&str> = request.hosts.iter().map(HostName::as_str).collect();
                let hosts = hosts.join(", ");
                text = format!("nothing to remove: no partial pull of {name} on {hosts}\n");
            }
        }
    }
    document["dryRun"] = json!(confirmation == Confirmation::DryRun);
    if confirmation == Confirmation::DryRun || plan.is_empty() {
        return CommandOutput::new(&document, text);
    }
    let kept_before = plan.kept.len();
    if confirmation == Confirmation::Prompt {
        confirm_removal(&plan, &text)?;
        text.clear();
    }
    let plan = engine.recheck_prune(request, plan).await?;
    for candidate in plan.kept.iter().skip(kept_before) {
        let reasons = candidate.keep_reasons.join("; ");
        text += &format!("kept: {}: {}\n", candidate.name, printable(&reasons));
    }
    document["toRemove"] = json!(plan.to_remove);
    document["kept"] = json!(plan.kept);
    document["reclaimedBytes"] = json!(plan.reclaimed_bytes());
    let mut code = 0;
    let mut record_failure = |error: &Error| {
        if code == 0 {
            code = exit::code(error.kind());
        }
    };
    let mut results: Vec<Value> = Vec::new();
    for (operation, result) in job::run_all(engine, plan.operations(), verbose).await? {
        match result {
            Ok(outcome) => {
                text += &job::describe_outcome(&outcome);
                results.push(json!(outcome));
            }
            Err(error) => {
                eprint_error(&error);
                record_failure(&error);
                let mut document = exit::json(&error);
                document["host"] = json!(operation.host());
                document["snapshotName"] = json!(operation.snapshot());
                results.push(document);
            }
        }
    }
    for leftover in &plan.leftovers {
        match engine.remove_leftover(leftover).await {
            Ok(removed) => {
                let verb = if removed {
                    "removed"
                } else {
                    "skipped (in use):"
                };
                text += &format!(
                    "{verb} {} {}\n",
                    leftover_label(leftover.kind),
                    printable(&leftover.path)
                );
                results.push(json!({"leftover": leftover, "removed": removed}));
            }
            Err(error) => {
                eprint_error(&error);
                record_failure(&error);
                let mut document = exit::json(&error);
                document["leftover"] = json!(leftover);
                results.push(document);
            }
        }
    }
    document["results"] = json!(results);
    let output = CommandOutput::new(&document, text)?;
    Ok(CommandOutput { code, ..output })
}

fn confirm_removal(plan: &PrunePlan, text: &str) -> Result<()> {
    let answer = prompt(&format!("{text}Type yes to remove: "))?;
    match answer.trim() {
        "yes" => Ok(()),
        _ => {
            let count = plan.to_remove.len() + plan.leftovers.len();
            Err(Error::cancelled(format!("cannot remove {count} items"))
                .with_cause("not confirmed; nothing was removed"))
        }
    }
}

/// Returns a plan as text and as JSON.
fn render_plan(plan: &PrunePlan) -> Result<(String, Value)> {
    let mut document = serde_json::to_value(plan).map_err(|error| {
        Error::new(Kind::Failed, "cannot write the output as JSON").with_cause(error)
    })?;
    document["reclaimedBytes"] = json!(plan.reclaimed_bytes());
    let location = |host: &Option<HostName>| match host {
        Some(host) => host.to_string(),
        None => "bucket".to_owned(),
    };
    let row = |candidate: &Candidate| {
        vec![
            location(&candidate.host),
            candidate.name.to_string(),
            format_size(candidate.size_bytes),
            candidate
                .created
                .map_or_else(String::new, |time| format_time(Some(time))),
        ]
    };
    let mut text = String::new();
    if !plan.to_remove.is_empty() {
        let rows: Vec<Vec<String>> = plan
            .to_remove
            .iter()
            .map(|candidate| {
                let remark = match candidate.is_last_copy {
                    true => "the last copy",
                    false => "",
                };
                [row(candidate), vec![remark.to_owned()]].concat()
            })
            .collect();
        text += "to remove:\n";
        text += &format_table(&["LOCATION", "NAME", ">FREES", "CREATED", ""], &rows);
    }
    let leftovers = |title: &str, leftovers: &[Leftover]| {
        let row = |leftover: &Leftover| {
            let creator = match (leftover.is_own, &leftover.creator) {
                (_, Some(creator)) => creator.clone(),
                (true, None) => "this installation".to_owned(),
                (false, None) => "unknown".to_owned(),
            };
            let creator = match leftover.continuable_until {
                Some(until) => {
                    let until = format_time(Some(until));
                    format!("{creator}; can be continued until {until}")
                }
                None => creator,
            };
            vec![
                location(&leftover.host),
                leftover_label(leftover.kind).to_owned(),
                format_size(leftover.size_bytes),
                format_time(leftover.modified),
                leftover.path.clone(),
                creator,
            ]
        };
        let rows: Vec<Vec<String>> = leftovers.iter().map(row).collect();
        let header = [
            "LOCATION",
            "KIND",
            ">FREES",
            "MODIFIED",
            "PATH",
            "CREATED BY",
        ];
        match rows.is_empty() {
            true => String::new(),
            false => format!("{title}:\n{}", format_table(&header, &rows)),
        }
    };
    text += &leftovers("leftovers to remove", &plan.leftovers);
    text += &leftovers(
        "leftovers of other installations, kept without --foreign",
        &plan.foreign_leftovers,
    );
    if !plan.kept.is_empty() {
        let row = |candidate: &Candidate| {
            [row(candidate), vec![candidate.keep_reasons.join("; ")]].concat()
        };
        let rows: Vec<Vec<String>> = plan.kept.iter().map(row).collect();
        text += "kept although it matches:\n";
        text += &format_table(&["LOCATION", "NAME", ">SIZE", "CREATED", "REASON"], &rows);
    }
    text += &match plan.is_empty() {
        true => "nothing to remove\n".to_owned(),
        false => format!("reclaims {}\n", format_size(plan.reclaimed_bytes())),
    };
    Ok((text, document))
}
