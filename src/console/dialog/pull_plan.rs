//! The plan of a pull: what is transferred to which host.

use std::collections::{HashMap, HashSet};

use ratatui::style::Style;

use super::pull::{MAX_COST_QUERIES, PullTarget};
use crate::format::{self, size};
use crate::lookup;
use crate::theme::Theme;
use snapdeck_engine::{HostView, Link, View};
use snapdeck_model::{HostName, Operation, PullCost, SnapshotName};

/// The choices in a view.
pub(super) struct PullChoices<'a> {
    pub view: &'a View,
    pub names: &'a [SnapshotName],
    /// The names for a host; one without an entry gets all names.
    pub names_by_host: &'a HashMap<HostName, HashSet<SnapshotName>>,
    pub targets: Vec<&'a HostView>,
    pub overwrite: bool,
    pub costs: &'a HashMap<PullTarget, Result<PullCost, String>>,
}

/// The effects of the choices in a view.
#[derive(Debug, Default)]
pub(super) struct PullPlan {
    pub rows: Vec<PullRow>,
    pub download_count: usize,
    pub download_bytes: u64,
    /// Bytes to write and to download on each host.
    pub bytes_by_host: HashMap<HostName, (u64, u64)>,
    pub is_any_present: bool,
    /// Pulls that transfer data, at most [`MAX_COST_QUERIES`].
    pub cost_queries: Vec<PullTarget>,
    pub refusal: Option<String>,
}

/// A snapshot, with its state on the target hosts.
#[derive(Debug)]
pub(super) struct PullRow {
    pub object_bytes: Option<u64>,
    pub note: String,
    pub tone: Tone,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Tone {
    Plain,
    Dim,
    Good,
    Warn,
}

impl Tone {
    pub(super) fn style(self, theme: &Theme) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Dim => theme.dim,
            Self::Good => theme.good,
            Self::Warn => theme.warn,
        }
    }
}

/// State of a snapshot on the host of a pull.
enum LocalState<'a> {
    Absent,
    Damaged(&'a str),
    Present,
}

fn local_state<'a>(view: &'a View, host: &HostName, name: &SnapshotName) -> LocalState<'a> {
    match lookup::snapshot(view, host, name) {
        None => LocalState::Absent,
        Some(snapshot) => match &snapshot.problem {
            Some(problem) => LocalState::Damaged(problem),
            None => LocalState::Present,
        },
    }
}

impl PullChoices<'_> {
    fn is_selected(&self, host: &HostName, name: &SnapshotName) -> bool {
        self.names_by_host
            .get(host)
            .is_none_or(|names| names.contains(name))
    }

    fn cost(&self, host: &HostName, name: &SnapshotName) -> Option<&PullCost> {
        self.costs.get(&(host.clone(), name.clone()))?.as_ref().ok()
    }

    /// Returns the downloaded and the copied bytes, if blocks are copied on the host.
    pub(super) fn cost_text(&self, host: &HostView, name: &SnapshotName) -> Option<String> {
        let cost = self.cost(&host.name, name)?;
        let copies = format::parts(&cost.copies, "from");
        let download = size(cost.fetch_bytes);
        (!copies.is_empty()).then(|| format!("downloads {download}, copies {copies}"))
    }

    fn is_transferred(&self, local: &LocalState<'_>) -> bool {
        self.overwrite || !matches!(local, LocalState::Present)
    }

    fn refusal(&self) -> Option<String> {
        if let Some(refusal) = super::bucket_refusal(self.view) {
            return Some(refusal);
        }
        // An unreachable host does not stop the others: only its own job waits.
        let mut unreachable = None;
        for host in &self.targets {
            match &host.link {
                Link::Down(error) => unreachable = Some(error.to_string()),
                _ => return None,
            }
        }
        Some(unreachable.unwrap_or_else(|| "no host is selected".to_owned()))
    }

    pub(super) fn plan(&self) -> PullPlan {
        let view = self.view;
        let objects = lookup::objects_by_name(view);
        let mut plan = PullPlan {
            refusal: self.refusal(),
            ..PullPlan::default()
        };
        for name in self.names {
            let object_bytes = objects.get(name).map(|object| object.size_bytes);
            // Blocks that several hosts need are fetched once: the sum over the hosts is an upper limit.
            let mut limit = None;
            for host in self
                .targets
                .iter()
                .filter(|host| self.is_selected(&host.name, name))
            {
                let local = local_state(view, &host.name, name);
                plan.is_any_present |= matches!(local, LocalState::Present);
                if let Some(size_bytes) = object_bytes
                    && self.is_transferred(&local)
                {
                    let cost = self.cost(&host.name, name);
                    let fetch_bytes = cost.map_or(size_bytes, |cost| cost.fetch_bytes);
                    let (needed, fetched) =
                        plan.bytes_by_host.entry(host.name.clone()).or_default();
                    *needed += size_bytes;
                    *fetched += fetch_bytes;
                    let sum = limit.unwrap_or(0_u64).saturating_add(fetch_bytes);
                    limit = Some(sum.min(size_bytes));
                }
            }
            if let Some(limit) = limit {
                plan.download_count += 1;
                plan.download_bytes += limit;
            }
            plan.rows.push(self.row(name, object_bytes));
        }
        if view.bucket.link != Link::Unconfigured {
            let hosts = self.targets.iter().filter(|host| host.link == Link::Up);
            let queries = hosts.flat_map(|host| {
                let names = self.names.iter().filter(|name| {
                    objects.contains_key(name)
                        && self.is_selected(&host.name, name)
                        && self.is_transferred(&local_state(view, &host.name, name))
                });
                names.map(|name| (host.name.clone(), name.clone()))
            });
            plan.cost_queries = queries.take(MAX_COST_QUERIES).collect();
        }
        plan
    }

    pub(super) fn operations(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        for name in self.names {
            for host in self
                .targets
                .iter()
                .filter(|host| self.is_selected(&host.name, name))
            {
                let is_present = matches!(
                    local_state(self.view, &host.name, name),
                    LocalState::Present
                );
                operations.push(Operation::Pull {
                    host: host.name.clone(),
                    name: name.clone(),
                    overwrite: self.overwrite && is_present,
                });
            }
        }
        operations
    }

    /// Returns the row of a snapshot: its size, and its state on the target hosts.
    fn row(&self, name: &SnapshotName, object_bytes: Option<u64>) -> PullRow {
        let targets = self.targets.as_slice();
        let (mut present, mut damaged, mut selected) = (Vec::new(), Vec::new(), Vec::new());
        let mut damage = "";
        for host in targets
            .iter()
            .filter(|host| self.is_selected(&host.name, name))
        {
            selected.push(host.name.as_str());
            match local_state(self.view, &host.name, name) {
                LocalState::Absent => {}
                LocalState::Present => present.push(host.name.as_str()),
                LocalState::Damaged(problem) => {
                    damaged.push(host.name.as_str());
                    damage = problem;
                }
            }
        }
        let on = |hosts: &[&str]| match targets {
            [_] => "on the host".to_owned(),
            _ => format!("on {}", hosts.join(", ")),
        };
        let (note, tone) = if object_bytes.is_none() {
            ("not in the bucket".to_owned(), Tone::Warn)
        } else if !damaged.is_empty() {
            (
                format!("{} but damaged: will be repaired ({damage})", on(&damaged)),
                Tone::Warn,
            )
        } else if !present.is_empty() && self.overwrite {
            (format!("{}: will be replaced", on(&present)), Tone::Warn)
        } else if !present.is_empty() {
            (
                format!("{}: skipped if the copy is valid", on(&present)),
                Tone::Dim,
            )
        } else if selected.len() < targets.len() {
            (format!("to {}", selected.join(", ")), Tone::Plain)
        } else {
            let cost = match targets {
                [host] if self.names.len() > 1 => self.cost_text(host, name),
                _ => None,
            };
            (cost.unwrap_or_default(), Tone::Good)
        };
        PullRow {
            object_bytes,
            note,
            tone,
        }
    }
}
