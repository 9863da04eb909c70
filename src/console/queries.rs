//! Asks the engine what a page or a dialog wants to know, beside all else.

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::commands::TaskResult;
use super::dialog::Dialog;
use super::format;
use super::run::{SELECTION_DEBOUNCE, Screen};
use snapdeck_engine::{Engine, PruneRequest};
use snapdeck_model::PrunePlan;

impl Screen {
    /// Takes what the engine answered.
    pub(crate) fn on_answer(&mut self, done: TaskResult, engine: &Engine) {
        match done {
            TaskResult::Lineage(_, None) => {}
            TaskResult::Lineage(asked, Some(found)) => {
                let found = found.map_err(|error| error.to_string());
                self.app.on_lineage(asked, found.map(|found| *found));
            }
            TaskResult::Parents(mark, parents) => {
                self.parents_query_inputs = None;
                self.app.on_parents(mark, parents);
            }
            TaskResult::PullCost(_, None) => {}
            TaskResult::PullCost(pair, Some(cost)) => {
                if let Some(Dialog::Pull(pull)) = self.app.dialog() {
                    pull.on_cost(pair, cost.map_err(|error| error.to_string()));
                }
            }
            TaskResult::PrunePlan(pruning, plan) => {
                if let Some(Dialog::Prune(dialog)) = self.app.dialog() {
                    dialog.on_plan(&pruning, plan);
                }
            }
            TaskResult::PruneApplied(Ok((plan, stayed))) => {
                let stayed = match stayed.as_slice() {
                    [] => String::new(),
                    [one] => format!("; {one}"),
                    many => format!("; {} things stay, see the log", many.len()),
                };
                let jobs = plan.operations();
                let left = format::count(plan.leftovers.len(), "leftover");
                let told = match (jobs.len(), plan.leftovers.len()) {
                    (0, _) => format!("{left} removed{stayed}"),
                    (jobs, 0) => format!("{} begun{stayed}", format::count(jobs, "removal")),
                    (jobs, _) => format!(
                        "{} begun, {left} removed{stayed}",
                        format::count(jobs, "removal")
                    ),
                };
                self.app.show_notice(told, !stayed.is_empty());
                self.submit(engine, jobs);
                engine.refresh();
            }
            TaskResult::PruneApplied(Err(error)) => {
                tracing::error!("{error}");
                self.app.show_notice(error.to_string(), true);
            }
            TaskResult::Annotated(told, Ok(())) => {
                self.app.annotation_edits += 1;
                self.app.show_notice(told, false);
            }
            TaskResult::Annotated(_, Err(error)) => {
                // One of two places may have it.
                self.app.annotation_edits += 1;
                tracing::error!("{error}");
                self.app.show_notice(error.to_string(), true);
            }
            TaskResult::Picture(_) | TaskResult::SavedInventory(_) | TaskResult::Viewer { .. } => {}
        }
    }

    /// Asks about the selected snapshot, once it stays selected.
    pub(crate) fn query_lineage(&mut self, engine: &Engine) {
        let Some(wanted) = self.app.pending_query() else {
            self.lineage_query_task = None;
            return;
        };
        if self
            .lineage_query_task
            .as_ref()
            .is_some_and(|(asked, _)| *asked == wanted)
        {
            return;
        }
        let stop = CancellationToken::new();
        self.lineage_query_task = Some((wanted.clone(), stop.clone().drop_guard()));
        let engine = engine.clone();
        self.tasks.spawn(async move {
            let answer = async {
                sleep(SELECTION_DEBOUNCE).await;
                let found = engine.lineage(wanted.host.as_ref(), &wanted.name).await;
                found.map(Box::new)
            };
            let answer = stop.run_until_cancelled(answer).await;
            TaskResult::Lineage(wanted, answer)
        });
    }

    /// Asks what a pull that is being asked about would bring.
    pub(crate) fn query_pull_cost(&mut self, engine: &Engine) {
        let Some(wanted) = self.app.pending_cost_query() else {
            self.cost_query_task = None;
            return;
        };
        if self
            .cost_query_task
            .as_ref()
            .is_some_and(|(pair, _)| *pair == wanted)
        {
            return;
        }
        let stop = CancellationToken::new();
        self.cost_query_task = Some((wanted.clone(), stop.clone().drop_guard()));
        let engine = engine.clone();
        self.tasks.spawn(async move {
            let answer = engine.pull_cost(&wanted.0, &wanted.1);
            let answer = stop.run_until_cancelled(answer).await;
            TaskResult::PullCost(wanted, answer)
        });
    }

    /// Asks what was made from what, while the tree is open; one answer at a time.
    pub(crate) fn query_parents(&mut self, engine: &Engine) {
        if let (Some(mark), None) = (self.app.pending_parents_query(), &self.parents_query_inputs) {
            self.parents_query_inputs = Some(mark.clone());
            let engine = engine.clone();
            self.tasks
                .spawn(async move { TaskResult::Parents(mark, engine.parents().await) });
        }
    }
}

/// Looks again at what a rule let go, and removes what was left behind; the rest of what still goes is for jobs. Returns
/// what goes, and what does not after all.
pub(crate) async fn apply_prune(
    engine: &Engine,
    pruning: &PruneRequest,
    plan: PrunePlan,
) -> snapdeck_model::Result<(PrunePlan, Vec<String>)> {
    let before = plan.kept.len();
    let mut plan = engine.recheck_prune(pruning, plan).await?;
    let held = plan.kept.iter().skip(before);
    let mut stayed: Vec<String> = held
        .map(|one| format!("{} stays: {}", one.name, one.keep_reasons.join("; ")))
        .collect();
    let mut removed = Vec::new();
    for leftover in plan.leftovers {
        match engine.remove_leftover(&leftover).await {
            Ok(true) => removed.push(leftover),
            Ok(false) => stayed.push(format!("{} stays: it is in use again", leftover.path)),
            Err(error) => stayed.push(error.to_string()),
        }
    }
    plan.leftovers = removed;
    stayed.iter().for_each(|line| tracing::warn!("{line}"));
    Ok((plan, stayed))
}
