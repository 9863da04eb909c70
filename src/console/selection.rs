//! Selection, marks and sort orders of the lists: those of the current host, or of all hosts.

use super::actions::Pane;
use super::app::App;
use super::cell::Place;
use super::list::{Change, List, Sort};
use super::lookup;
use snapdeck_engine::HostView;
use snapdeck_model::{HostName, Sandbox, SandboxId, Snapshot, SnapshotName};

#[derive(Debug, Default)]
pub(crate) struct Numbers<'a> {
    pub total: usize,
    /// Rows that match the filter.
    pub visible: usize,
    pub marked: usize,
    pub filter: &'a str,
    pub filter_error: Option<&'a str>,
    pub sort: Sort,
}

fn numbers<K: Clone + Ord + std::hash::Hash>(list: &List<K>, total: usize) -> Numbers<'_> {
    Numbers {
        total,
        visible: list.len(),
        marked: list.marked_count(),
        filter: list.filter(),
        filter_error: list.filter_error(),
        sort: list.sort(),
    }
}

impl App {
    /// Returns the numbers for the title of `pane`.
    pub(crate) fn numbers(&self, pane: Pane) -> Numbers<'_> {
        let all = &self.all_hosts;
        match (pane, self.host_view(), self.host_lists()) {
            (Pane::Sandboxes, ..) if all.is_shown => {
                numbers(&all.sandboxes, all.sandbox_rows.len())
            }
            (Pane::Snapshots, ..) if all.is_shown => {
                numbers(&all.snapshots, all.snapshot_rows.len())
            }
            (Pane::Sandboxes, Some(host), Some(lists)) => {
                numbers(&lists.sandboxes, host.sandboxes.len())
            }
            (Pane::Snapshots, Some(host), Some(lists)) => {
                numbers(&lists.snapshots, host.snapshots.len())
            }
            (Pane::Bucket, ..) => numbers(&self.objects, self.view.bucket.objects.len()),
            (Pane::Tree, ..) => numbers(&self.tree.list, self.tree.items.len()),
            (Pane::JobsPage, ..) => numbers(&self.page.list, self.page.items.len()),
            (Pane::Matrix, ..) => Numbers {
                marked: self.matrix.marked_count(),
                ..numbers(&self.matrix.list, self.matrix.names.len())
            },
            _ => Numbers::default(),
        }
    }

    /// Returns the selected sandbox with its host.
    pub(crate) fn sandbox(&self) -> Option<(&HostView, &Sandbox)> {
        let all = &self.all_hosts;
        if all.is_shown {
            return all.sandboxes.current(&all.sandbox_rows)?.find(&self.view);
        }
        let (host, lists) = (self.host_view()?, self.host_lists()?);
        Some((host, lists.sandboxes.current(&host.sandboxes)?))
    }

    /// Returns the selected snapshot with its host.
    pub(crate) fn snapshot(&self) -> Option<(&HostView, &Snapshot)> {
        let all = &self.all_hosts;
        if all.is_shown {
            return all.snapshots.current(&all.snapshot_rows)?.find(&self.view);
        }
        let (host, lists) = (self.host_view()?, self.host_lists()?);
        Some((host, lists.snapshots.current(&host.snapshots)?))
    }

    /// Returns the marked sandboxes; the selected one if none is marked.
    pub(crate) fn chosen_sandboxes(&self) -> Vec<(HostName, SandboxId)> {
        let all = &self.all_hosts;
        if all.is_shown {
            let chosen = all.sandboxes.chosen_keys(&all.sandbox_rows);
            return chosen.into_iter().map(|(id, host)| (host, id)).collect();
        }
        let (Some(host), Some(lists)) = (self.host_view(), self.host_lists()) else {
            return Vec::new();
        };
        let chosen = lists.sandboxes.chosen_keys(&host.sandboxes);
        chosen
            .into_iter()
            .map(|id| (host.name.clone(), id))
            .collect()
    }

    /// Returns the marked snapshots, or the selected one, each with the place in which it is selected.
    pub(crate) fn chosen_snapshots(&self) -> Vec<(SnapshotName, Place)> {
        let all = &self.all_hosts;
        match (self.list, self.host_view(), self.host_lists()) {
            (Pane::Matrix, ..) => self.matrix.chosen_cells(),
            (Pane::Tree, ..) => self.tree_snapshot().into_iter().collect(),
            (Pane::Bucket, ..) => {
                let names = self.objects.chosen_keys(&self.view.bucket.objects);
                names
                    .into_iter()
                    .map(|name| (name, Place::Bucket))
                    .collect()
            }
            (Pane::Snapshots, ..) if all.is_shown => {
                let keys = all.snapshots.chosen_keys(&all.snapshot_rows).into_iter();
                keys.map(|(name, host)| (name, Place::Host(host))).collect()
            }
            (Pane::Snapshots, Some(host), Some(lists)) => {
                let names = lists.snapshots.chosen_keys(&host.snapshots).into_iter();
                let place = Place::Host(host.name.clone());
                names.map(|name| (name, place.clone())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Applies `change` to the list in `pane`.
    pub(crate) fn change(&mut self, pane: Pane, change: Change) {
        let view = self.view.clone();
        let host = self
            .host
            .as_ref()
            .and_then(|name| lookup::host(&view, name));
        let lists = self.host.as_ref().and_then(|name| self.hosts.get_mut(name));
        let all = &mut self.all_hosts;
        match (pane, host, lists) {
            (Pane::Sandboxes, ..) if all.is_shown => all.sandboxes.apply(&all.sandbox_rows, change),
            (Pane::Snapshots, ..) if all.is_shown => {
                all.snapshots.apply(&all.snapshot_rows, change)
            }
            (Pane::Sandboxes, Some(host), Some(lists)) => {
                lists.sandboxes.apply(&host.sandboxes, change);
            }
            (Pane::Snapshots, Some(host), Some(lists)) => {
                lists.snapshots.apply(&host.snapshots, change);
            }
            (Pane::Bucket, ..) => self.objects.apply(&view.bucket.objects, change),
            (Pane::Jobs, ..) => self.jobs.apply(&view.jobs, change),
            (Pane::Matrix, ..) => self.matrix.change(change),
            (Pane::Tree, ..) => self.tree.list.apply(&self.tree.items, change),
            (Pane::JobsPage, ..) => self.page.list.apply(&self.page.items, change),
            _ => {}
        }
        if pane == self.list {
            self.details = 0;
        }
    }

    pub(crate) fn filter_error(&self, pane: Pane) -> Option<&str> {
        self.numbers(pane).filter_error
    }

    pub(crate) fn current_sort(&self, pane: Pane) -> Sort {
        self.sorts.get(&pane).copied().unwrap_or_default()
    }

    /// Sorts the rows in `pane`, for every host.
    pub(crate) fn sort(&mut self, pane: Pane, sort: Sort) {
        self.sorts.insert(pane, sort);
        let change = || Change::Sort(sort);
        let all = &mut self.all_hosts;
        match pane {
            Pane::Sandboxes => all.sandboxes.apply(&all.sandbox_rows, change()),
            Pane::Snapshots => all.snapshots.apply(&all.snapshot_rows, change()),
            Pane::Bucket => self.objects.apply(&self.view.bucket.objects, change()),
            _ => {}
        }
        for host in &self.view.hosts {
            let Some(lists) = self.hosts.get_mut(&host.name) else {
                continue;
            };
            match pane {
                Pane::Sandboxes => lists.sandboxes.apply(&host.sandboxes, change()),
                Pane::Snapshots => lists.snapshots.apply(&host.snapshots, change()),
                _ => {}
            }
        }
        self.details = 0;
    }

    /// Returns the names of the marked rows, or of the selected one.
    pub(crate) fn chosen_names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self.list {
            Pane::Sandboxes => {
                let sandboxes = self.chosen_sandboxes().into_iter();
                sandboxes.map(|(_, id)| id.to_string()).collect()
            }
            _ => {
                let snapshots = self.chosen_snapshots().into_iter();
                snapshots.map(|(name, _)| name.to_string()).collect()
            }
        };
        names.dedup();
        names
    }

    /// Stores the first visible row of `pane`.
    pub(crate) fn after_pane_draw(&mut self, pane: Pane, first: usize) {
        let lists = self.host.as_ref().and_then(|name| self.hosts.get_mut(name));
        let all = &mut self.all_hosts;
        match (pane, lists) {
            (Pane::Sandboxes, _) if all.is_shown => all.sandboxes.offset = first,
            (Pane::Snapshots, _) if all.is_shown => all.snapshots.offset = first,
            (Pane::Sandboxes, Some(lists)) => lists.sandboxes.offset = first,
            (Pane::Snapshots, Some(lists)) => lists.snapshots.offset = first,
            (Pane::Bucket, _) => self.objects.offset = first,
            (Pane::Jobs, _) => self.jobs.offset = first,
            (Pane::Matrix, _) => self.matrix.list.offset = first,
            (Pane::Tree, _) => self.tree.list.offset = first,
            (Pane::JobsPage, _) => self.page.list.offset = first,
            _ => {}
        }
    }

    /// Switches between the lists of all hosts and those of the current host. In the lists of all hosts the rows that were
    /// selected before are selected.
    pub(crate) fn show_all(&mut self, shown: bool) {
        if self.all_hosts.is_shown == shown {
            return;
        }
        let sandbox = self
            .sandbox()
            .map(|(host, sandbox)| (sandbox.id.clone(), host.name.clone()));
        let snapshot = self
            .snapshot()
            .map(|(host, snapshot)| (snapshot.name.clone(), host.name.clone()));
        let view = self.view.clone();
        let all = &mut self.all_hosts;
        all.is_shown = shown;
        all.update(&view);
        self.details = 0;
        if shown {
            if let Some(key) = sandbox {
                all.sandboxes.select_key(&all.sandbox_rows, &key);
            }
            if let Some(key) = snapshot {
                all.snapshots.select_key(&all.snapshot_rows, &key);
            }
        }
    }

    /// Makes `name` the current host, and its column the matrix's current one; `None` shows all hosts.
    pub(crate) fn show_host(&mut self, name: Option<&HostName>) {
        let Some(name) = name else {
            return self.show_all(true);
        };
        if lookup::host(&self.view, name).is_some() {
            self.show_all(false);
            self.host = Some(name.clone());
            self.matrix.place = Place::Host(name.clone());
            self.details = 0;
        }
    }

    /// Switches from all hosts to the host of the selected row, which stays selected, or to all hosts.
    pub(crate) fn toggle_all_hosts(&mut self) {
        if !self.all_hosts.is_shown {
            return self.show_all(true);
        }
        let selected_host = match self.list {
            Pane::Snapshots => self.snapshot().map(|(host, _)| host.name.clone()),
            _ => self.sandbox().map(|(host, _)| host.name.clone()),
        };
        let sandbox = self.sandbox().map(|(_, sandbox)| sandbox.id.clone());
        let snapshot = self.snapshot().map(|(_, snapshot)| snapshot.name.clone());
        let name = selected_host.or_else(|| self.host.clone());
        self.show_host(name.as_ref());
        let view = self.view.clone();
        let host = self
            .host
            .as_ref()
            .and_then(|name| lookup::host(&view, name));
        let lists = self.host.as_ref().and_then(|name| self.hosts.get_mut(name));
        if let (Some(host), Some(lists)) = (host, lists) {
            if let Some(id) = sandbox {
                lists.sandboxes.select_key(&host.sandboxes, &id);
            }
            if let Some(name) = snapshot {
                lists.snapshots.select_key(&host.snapshots, &name);
            }
        }
    }
}
