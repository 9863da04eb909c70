//! Prune plans: the snapshots and leftovers that a rule selects. Snapshots are removed by jobs, which check again.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::state::Engine;
use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{
    Candidate, HostName, ImageIdentity, Leftover, Object, Operation, PrunePlan, PruneRule, Result,
    SnapshotName, find_matching, find_removable,
};

const MAX_ANNOTATION_READS: usize = 8;

/// A prune: a rule, and where to apply it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneRequest {
    /// The rule that selects snapshots.
    pub rule: PruneRule,
    /// The hosts to prune.
    pub hosts: Vec<HostName>,
    /// Whether to prune the bucket.
    pub include_bucket: bool,
    /// Whether to remove leftovers, too.
    pub include_leftovers: bool,
}

type HostScan = (HostName, Result<HostInventory>);

impl Engine {
    /// Returns what a rule selects. Keeps snapshots that a disk chain needs or may need, pinned ones, and the last good
    /// copy of a snapshot that a sandbox is based on; all hosts of the settings are scanned for that.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host; `Unreachable` if a host to prune, or the bucket, does not answer.
    pub async fn prune_plan(&self, request: &PruneRequest) -> Result<PrunePlan> {
        for host in &request.hosts {
            self.host(host)?;
        }
        let mut plan = PrunePlan::default();
        if request.rule != PruneRule::default() {
            self.find_snapshots(request, &mut plan).await?;
        }
        if request.include_leftovers {
            self.find_leftovers(request, &mut plan).await?;
        }
        Ok(plan)
    }

    /// Checks a plan again just before it is carried out: keeps snapshots that are in use or pinned by now, or were
    /// replaced. The jobs that remove snapshots check for later uses.
    ///
    /// # Errors
    /// As [`Engine::prune_plan`].
    pub async fn recheck_prune(
        &self,
        request: &PruneRequest,
        plan: PrunePlan,
    ) -> Result<PrunePlan> {
        if plan.to_remove.is_empty() {
            return Ok(plan);
        }
        let mut now = PrunePlan::default();
        self.find_snapshots(request, &mut now).await?;
        Ok(plan.revalidate(&now, "it has changed since it was listed"))
    }

    /// Removes a leftover; returns whether it was removed. One that is in use again stays.
    ///
    /// # Errors
    /// `Conflict` while it is locked; those of the host and the bucket.
    pub async fn remove_leftover(&self, leftover: &Leftover) -> Result<bool> {
        if leftover
            .name
            .as_ref()
            .is_some_and(|name| self.is_being_uploaded(name))
        {
            return Ok(false);
        }
        match &leftover.host {
            Some(host) => self.host(host)?.leftovers().remove(leftover).await,
            None => self.inner.bucket.remove_leftover(leftover).await,
        }
    }

    async fn find_snapshots(&self, request: &PruneRequest, plan: &mut PrunePlan) -> Result<()> {
        let scan = |host: &Host| {
            let host = host.clone();
            async move { (host.name().clone(), host.inventory().scan().await) }
        };
        let scans: Vec<HostScan> = join_all(self.inner.hosts.iter().map(scan)).await;
        for (host, scan) in &scans {
            match scan {
                Err(error) if request.hosts.contains(host) => return Err(error.clone()),
                Err(error) => plan.warnings.push(error.to_string()),
                Ok(_) => {}
            }
        }
        let objects = match (request.include_bucket, self.inner.bucket.is_configured()) {
            (true, _) => self.objects().await?,
            (false, true) => self.objects().await.unwrap_or_else(|error| {
                plan.warnings.push(error.to_string());
                Vec::new()
            }),
            (false, false) => Vec::new(),
        };
        let mut all = candidates(request, &scans, &objects);
        let now = Timestamp::now();
        // Only the annotations of removable snapshots are read.
        let removable = find_removable(&request.rule, &all, now);
        let reads = removable.into_iter().map(|index| {
            let (name, host) = (all[index].name.clone(), all[index].host.clone());
            async move {
                let annotations = self.annotations(host.as_ref(), host.is_none(), &name).await;
                (index, annotations)
            }
        });
        let reads: Vec<_> = stream::iter(reads)
            .buffer_unordered(MAX_ANNOTATION_READS)
            .collect()
            .await;
        for (index, annotations) in reads {
            match annotations {
                Ok((on_host, in_bucket)) if on_host.iter().chain(&in_bucket).any(|a| a.pinned) => {
                    all[index].keep_reasons.push("pinned".to_owned());
                }
                Ok(_) => {}
                Err(error) => all[index]
                    .keep_reasons
                    .push(format!("cannot determine whether it is pinned: {error}")),
            }
        }
        let removable: BTreeSet<usize> = find_removable(&request.rule, &all, now)
            .into_iter()
            .collect();
        let remaining: BTreeSet<SnapshotName> = copies(&scans, &objects)
            .filter(|(host, name)| {
                let is_same = |index: &usize| {
                    all[*index].host.as_ref() == *host && all[*index].name == **name
                };
                !removable.iter().any(is_same)
            })
            .map(|(_, name)| name.clone())
            .collect();
        for index in find_matching(&request.rule, &all, now) {
            let mut candidate = all[index].clone();
            candidate.is_last_copy = !remaining.contains(&candidate.name);
            match removable.contains(&index) {
                true => plan.to_remove.push(candidate),
                false => plan.kept.push(candidate),
            }
        }
        Ok(())
    }

    /// Returns whether a job of this process uploads an object of that name.
    fn is_being_uploaded(&self, name: &SnapshotName) -> bool {
        let view = self.view();
        view.jobs.iter().any(|job| {
            !job.state.is_finished()
                && matches!(&job.operation, Operation::Create { name: new, .. } | Operation::Push { name: new, .. } if new == name)
        })
    }

    async fn find_leftovers(&self, request: &PruneRequest, plan: &mut PrunePlan) -> Result<()> {
        for host in &request.hosts {
            plan.leftovers
                .extend(self.host(host)?.leftovers().list().await?);
        }
        if request.include_bucket {
            match self.inner.bucket.leftovers().await? {
                Some(uploads) => plan.leftovers.extend(uploads.into_iter().filter(|upload| {
                    let name = upload.name.as_ref();
                    !name.is_some_and(|name| self.is_being_uploaded(name))
                })),
                None => plan.warnings.push(format!(
                    "the store of {} does not list unfinished uploads",
                    self.inner.bucket.location()
                )),
            }
        }
        Ok(())
    }
}

/// Returns host (`None`: the bucket) and name of every copy without a known problem.
fn copies<'a>(
    scans: &'a [HostScan],
    objects: &'a [Object],
) -> impl Iterator<Item = (Option<&'a HostName>, &'a SnapshotName)> {
    let on_hosts = scans.iter().flat_map(|(host, scan)| {
        let snapshots = scan.iter().flat_map(|inventory| &inventory.snapshots);
        let good = snapshots.filter(|snapshot| snapshot.problem.is_none());
        good.map(move |snapshot| (Some(host), &snapshot.name))
    });
    let complete = objects.iter().filter(|object| object.problem.is_none());
    on_hosts.chain(complete.map(|object| (None, &object.name)))
}

/// Returns the snapshots that sandboxes and other domains of a host are based on.
fn used_snapshots(inventory: &HostInventory) -> BTreeSet<&SnapshotName> {
    let bases = inventory
        .sandboxes
        .iter()
        .flat_map(|sandbox| &sandbox.chain)
        .chain(
            inventory
                .foreign_domains
                .iter()
                .flat_map(|guest| &guest.chain),
        )
        .filter_map(|link| link.snapshot.as_ref());
    let with_dependents = inventory
        .snapshots
        .iter()
        .filter(|snapshot| !snapshot.dependents.is_empty())
        .map(|snapshot| &snapshot.name);
    bases.chain(with_dependents).collect()
}

/// Returns all snapshots on the hosts and in the bucket of a request, with the reasons to keep them, except pins.
fn candidates(request: &PruneRequest, scans: &[HostScan], objects: &[Object]) -> Vec<Candidate> {
    let inventories = || {
        let scans = scans.iter();
        scans.filter_map(|(host, scan)| Some((host, scan.as_ref().ok()?)))
    };
    let used: BTreeSet<&SnapshotName> = inventories()
        .flat_map(|(_, inventory)| used_snapshots(inventory))
        .collect();
    // On some host its sandboxes have no good file of it: any other copy may be the last one.
    let needed: BTreeSet<&SnapshotName> = inventories()
        .flat_map(|(_, inventory)| {
            let is_good = |name: &SnapshotName| {
                let mut snapshots = inventory.snapshots.iter();
                snapshots.any(|snapshot| snapshot.name == *name && snapshot.problem.is_none())
            };
            used_snapshots(inventory)
                .into_iter()
                .filter(move |name| !is_good(name))
        })
        .collect();
    let needed = |name: &SnapshotName| {
        let reason = "in use by sandboxes, and their base file is missing or damaged";
        needed.contains(name).then(|| reason.to_owned())
    };
    let mut all = Vec::new();
    for (host, inventory) in inventories().filter(|(host, _)| request.hosts.contains(host)) {
        for snapshot in &inventory.snapshots {
            let dependents = &snapshot.dependents;
            let unreadable = snapshot.file.is_none();
            let unreadable = unreadable.then(|| "it cannot be read".to_owned());
            let in_use =
                (!dependents.is_empty()).then(|| format!("in use by {}", dependents.join(", ")));
            let unresolved = &inventory.unresolved_chains;
            let unresolved = (!unresolved.is_empty()).then(|| {
                format!(
                    "cannot determine the bases of these: {}",
                    unresolved.join(", ")
                )
            });
            all.push(Candidate {
                name: snapshot.name.clone(),
                host: Some(host.clone()),
                size_bytes: snapshot.allocated_bytes,
                modified: snapshot.modified,
                in_use: !dependents.is_empty(),
                is_last_copy: false,
                identity: snapshot.file.map(ImageIdentity::File),
                keep_reasons: [unreadable, in_use, unresolved, needed(&snapshot.name)]
                    .into_iter()
                    .flatten()
                    .collect(),
            });
        }
    }
    // A chain that cannot be read may need any object, and its host may have no file of it.
    let unknown: Vec<String> = scans
        .iter()
        .filter_map(|(host, scan)| match scan {
            Err(_) => Some(format!(
                "cannot determine what host {host} needs: it does not respond"
            )),
            Ok(inventory) if !inventory.unresolved_chains.is_empty() => Some(format!(
                "cannot determine what host {host} needs: {}",
                inventory.unresolved_chains.join(", ")
            )),
            Ok(_) => None,
        })
        .collect();
    let objects = objects.iter().filter(|_| request.include_bucket);
    all.extend(objects.map(|object| {
        Candidate {
            name: object.name.clone(),
            host: None,
            size_bytes: object.size_bytes,
            modified: object.modified,
            in_use: used.contains(&object.name),
            is_last_copy: false,
            identity: Some(object.identity()),
            keep_reasons: needed(&object.name)
                .into_iter()
                .chain(unknown.clone())
                .collect(),
        }
    }));
    all
}
