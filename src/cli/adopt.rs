//! `snapdeck adopt --all`.

use serde_json::{Value, json};

use super::output::{CommandOutput, eprint_error};
use super::{exit, job};
use snapdeck_engine::Engine;
use snapdeck_model::{Error, HostName, Operation, Outcome, Result};

/// Adopts every snapshot of `hosts`, or every object in the bucket, that has no manifest. `{"results": [...]}` has an outcome
/// or an error for each; the first failure gives the exit code.
pub(crate) async fn run_all(
    engine: &Engine,
    hosts: &[HostName],
    is_bucket: bool,
    verbose: bool,
) -> Result<CommandOutput> {
    let mut report = Report::default();
    let mut operations = Vec::new();
    if is_bucket {
        let objects = engine.objects().await?;
        operations.extend(objects.into_iter().map(|object| Operation::Adopt {
            host: None,
            name: object.name,
        }));
    }
    for host in hosts.iter().filter(|_| !is_bucket) {
        match engine.snapshots(host).await {
            Ok(snapshots) => {
                operations.extend(snapshots.into_iter().map(|snapshot| Operation::Adopt {
                    host: Some(host.clone()),
                    name: snapshot.name,
                }))
            }
            Err(error) => report.add_failure(&error, Some(host), None),
        }
    }
    for (operation, result) in job::run_all(engine, operations, verbose).await? {
        match result {
            Ok(outcome) => report.add_outcome(&outcome),
            Err(error) => report.add_failure(&error, operation.host(), Some(operation.subject())),
        }
    }
    report.finish()
}

#[derive(Default)]
struct Report {
    results: Vec<Value>,
    text: String,
    known_count: usize,
    code: u8,
}

impl Report {
    fn add_outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Adopted { changed: false, .. } => self.known_count += 1,
            _ => self.text += &job::describe_outcome(outcome),
        }
        self.results.push(json!(outcome));
    }

    fn add_failure(&mut self, error: &Error, host: Option<&HostName>, name: Option<&str>) {
        eprint_error(error);
        if self.code == 0 {
            self.code = exit::code(error.kind());
        }
        let mut document = exit::json(error);
        document["host"] = json!(host);
        document["snapshotName"] = json!(name);
        self.results.push(document);
    }

    fn finish(mut self) -> Result<CommandOutput> {
        if self.known_count > 0 {
            self.text += &format!("{} already have a manifest\n", self.known_count);
        }
        let output = CommandOutput::new(&json!({ "results": self.results }), self.text)?;
        Ok(CommandOutput {
            code: self.code,
            ..output
        })
    }
}
