//! Queries of pages and dialogs to the engine, which run in the background.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::app::READING_ANNOTATIONS;
use super::commands::TaskResult;
use super::dialog::{DialogAnswer, DialogQuery, TextSource};
use super::format;
use super::run::{SELECTION_DEBOUNCE, Screen};
use snapdeck_engine::{Engine, Partials, PruneRequest, check_settings};
use snapdeck_model::{Error, HostName, Kind, Operation, PrunePlan, PruneRule, SnapshotName};

/// Delay of checks of what is typed.
const TYPING_DEBOUNCE: Duration = Duration::from_millis(800);

impl Screen {
    pub(crate) fn on_query_result(&mut self, result: TaskResult, engine: &Engine) {
        match result {
            TaskResult::Lineage(_, None) => {}
            TaskResult::Lineage(query, Some(lineage)) => {
                let lineage = lineage.map_err(|error| error.to_string());
                self.app.on_lineage(query, lineage.map(|lineage| *lineage));
            }
            TaskResult::Parents(inputs, parents) => {
                self.parents_query_inputs = None;
                self.app.on_parents(inputs, parents);
            }
            TaskResult::Dialog(None) => {}
            TaskResult::Dialog(Some(answer)) => {
                // A dialog that is opened again may ask the same.
                self.dialog_query_task = None;
                self.app.on_dialog_answer(answer);
            }
            TaskResult::PruneApplied(Ok((plan, skipped))) => {
                let jobs = plan.operations();
                let mut parts = Vec::new();
                if !jobs.is_empty() {
                    parts.push(format!("started {}", format::count(jobs.len(), "removal")));
                }
                if !plan.leftovers.is_empty() || jobs.is_empty() {
                    let leftovers = format::count(plan.leftovers.len(), "leftover");
                    parts.push(format!("removed {leftovers}"));
                }
                match skipped.as_slice() {
                    [] => {}
                    [reason] => parts.push(reason.clone()),
                    reasons => parts.push(format!("skipped {}, see the log", reasons.len())),
                }
                self.app.show_notice(parts.join("; "), !skipped.is_empty());
                self.submit(engine, jobs);
                engine.refresh();
            }
            TaskResult::PruneApplied(Err(error)) => self.show_error(&error),
            TaskResult::Annotated(message, Ok(())) => {
                self.app.on_annotations_edited();
                self.app.show_notice(message, false);
            }
            TaskResult::Annotated(_, Err(error)) => {
                // The edit may have succeeded in one of two places.
                self.app.on_annotations_edited();
                self.show_error(&error);
            }
            TaskResult::Annotations(None) => {}
            TaskResult::Annotations(Some((query, list))) => self.app.on_annotations(query, list),
            TaskResult::Picture(_)
            | TaskResult::Thumbnails(_)
            | TaskResult::SavedInventory(_)
            | TaskResult::Serial { .. }
            | TaskResult::Commands(_)
            | TaskResult::CommandEnded(..)
            | TaskResult::Copied(..)
            | TaskResult::Viewer { .. } => {}
        }
    }

    /// Queries the lineage of the selected snapshot once the selection has settled.
    pub(crate) fn query_lineage(&mut self, engine: &Engine) {
        let Some((query, cancel)) =
            next_query(self.app.pending_query(), &mut self.lineage_query_task)
        else {
            return;
        };
        let engine = engine.clone();
        self.tasks.spawn(async move {
            let lineage = async {
                sleep(SELECTION_DEBOUNCE).await;
                let lineage = engine.lineage(query.host.as_ref(), &query.name).await;
                lineage.map(Box::new)
            };
            let lineage = cancel.run_until_cancelled(lineage).await;
            TaskResult::Lineage(query, lineage)
        });
    }

    /// Asks what the open dialog wants to know; cancels its former question.
    pub(crate) fn query_dialog(&mut self, engine: &Engine) {
        let pending = self.app.pending_dialog_query();
        let Some((query, cancel)) = next_query(pending, &mut self.dialog_query_task) else {
            return;
        };
        let engine = engine.clone();
        self.tasks.spawn(async move {
            let answer = Box::pin(answer(&engine, query));
            TaskResult::Dialog(cancel.run_until_cancelled(answer).await)
        });
    }

    /// Reads the annotations that a filter needs once its text has settled.
    pub(crate) fn query_annotations(&mut self, engine: &Engine) {
        let pending = self.app.pending_annotations_query();
        let Some((query, cancel)) = next_query(pending, &mut self.annotations_query_task) else {
            return;
        };
        self.app.show_notice(READING_ANNOTATIONS, false);
        let engine = engine.clone();
        self.tasks.spawn(async move {
            let hosts: Vec<_> = query.hosts.iter().map(|(host, _)| host.clone()).collect();
            let read = async {
                sleep(SELECTION_DEBOUNCE).await;
                let list = engine.list_annotations(&hosts, query.objects.is_some());
                Box::pin(list).await
            };
            let list = cancel.run_until_cancelled(read).await;
            TaskResult::Annotations(list.map(|list| (query, list)))
        });
    }

    /// Queries the parents of all snapshots while the tree is open, one query at a time.
    pub(crate) fn query_parents(&mut self, engine: &Engine) {
        let pending = self.app.pending_parents_query();
        if let (Some(inputs), None) = (pending, &self.parents_query_inputs) {
            self.parents_query_inputs = Some(inputs.clone());
            let engine = engine.clone();
            self.tasks
                .spawn(async move { TaskResult::Parents(inputs, engine.parents().await) });
        }
    }
}

async fn answer(engine: &Engine, query: DialogQuery) -> DialogAnswer {
    match query {
        DialogQuery::PullCost((host, name)) => {
            let cost = engine.pull_cost(&host, &name).await;
            DialogAnswer::PullCost((host, name), cost)
        }
        DialogQuery::PrunePlan(request) => {
            let plan = engine.prune_plan(&request).await;
            DialogAnswer::PrunePlan(request, plan)
        }
        DialogQuery::Copies(locations) => {
            let copies = engine.equal_copies(&locations).await;
            DialogAnswer::Copies(locations, copies)
        }
        DialogQuery::Text(source) => {
            let text = match &source {
                TextSource::DomainXml(host, id) => engine.domain_xml(host, id).await,
                TextSource::Manifest(host, name) => engine.manifest_text(host.as_ref(), name).await,
            };
            DialogAnswer::Text(source, text)
        }
        DialogQuery::Checks(settings) => {
            sleep(TYPING_DEBOUNCE).await;
            let reports = check_settings((*settings).clone()).await;
            let report = reports.and_then(|reports| {
                let none = || Error::new(Kind::Failed, "the health check did not finish");
                reports.into_iter().next().ok_or_else(none)
            });
            DialogAnswer::Checks(settings, report)
        }
    }
}

/// Replaces the query in `task` by `pending`; cancels the replaced query. Returns the new query if it is another one.
fn next_query<T: Clone + PartialEq>(
    pending: Option<T>,
    task: &mut Option<(T, DropGuard)>,
) -> Option<(T, CancellationToken)> {
    let Some(pending) = pending else {
        *task = None;
        return None;
    };
    if task
        .as_ref()
        .is_some_and(|(running, _)| *running == pending)
    {
        return None;
    }
    let cancel = CancellationToken::new();
    *task = Some((pending.clone(), cancel.clone().drop_guard()));
    Some((pending, cancel))
}

/// Removes the partial pulls of these snapshots; returns those removed, and why others were not.
///
/// # Errors
/// `Unreachable`; an I/O error of a host, or the first conflict if nothing was removed.
pub(crate) async fn remove_partials(
    engine: &Engine,
    partials: Vec<(HostName, SnapshotName)>,
) -> snapdeck_model::Result<(PrunePlan, Vec<String>)> {
    let (mut all, mut skipped) = (PrunePlan::default(), Vec::new());
    for (host, name) in partials {
        wait_for_removal(engine, &host, &name).await;
        let request = PruneRequest {
            rule: PruneRule::default(),
            hosts: vec![host.clone()],
            include_bucket: false,
            include_leftovers: false,
            include_foreign: false,
            partials: Partials::Of(name.clone()),
        };
        let plan = engine.prune_plan(&request).await?;
        for foreign in &plan.foreign_leftovers {
            let creator = foreign.creator.as_deref().unwrap_or("unknown");
            skipped.push(format!(
                "kept {}: another installation has created it ({creator}); snapdeck prune --partial {name} --foreign removes it",
                foreign.path
            ));
        }
        if plan.leftovers.is_empty() && plan.foreign_leftovers.is_empty() {
            skipped.push(format!("there is no partial pull of {name} on host {host}"));
        }
        let (plan, reasons) = apply_prune(engine, &request, plan).await?;
        all.leftovers.extend(plan.leftovers);
        skipped.extend(reasons);
    }
    Ok((all, skipped))
}

/// Waits for a job that removes the snapshot from the host: it has the lock of the name.
async fn wait_for_removal(engine: &Engine, host: &HostName, name: &SnapshotName) {
    let view = engine.view();
    let removals = view.jobs.iter().filter(|job| {
        let operation = &job.operation;
        !job.state.is_finished()
            && matches!(operation, Operation::Remove { .. })
            && operation.host() == Some(host)
            && operation.snapshot() == Some(name)
    });
    for job in removals {
        // Its result is shown by itself.
        let _ = engine.wait(job.id).await;
    }
}

/// Checks the candidates again and removes the leftovers.
///
/// Returns the plan with the candidates that jobs are to remove and the leftovers removed, and why others were skipped.
pub(crate) async fn apply_prune(
    engine: &Engine,
    request: &PruneRequest,
    plan: PrunePlan,
) -> snapdeck_model::Result<(PrunePlan, Vec<String>)> {
    let kept_before = plan.kept.len();
    let mut plan = engine.recheck_prune(request, plan).await?;
    let kept = plan.kept.iter().skip(kept_before);
    let mut skipped: Vec<String> = kept
        .map(|one| format!("skipped {}: {}", one.name, one.keep_reasons.join("; ")))
        .collect();
    let mut removed = Vec::new();
    for leftover in plan.leftovers {
        match engine.remove_leftover(&leftover).await {
            Ok(true) => removed.push(leftover),
            Ok(false) => skipped.push(format!("skipped {}: it is in use", leftover.path)),
            Err(error) => skipped.push(error.to_string()),
        }
    }
    plan.leftovers = removed;
    skipped.iter().for_each(|line| tracing::warn!("{line}"));
    Ok((plan, skipped))
}
