//! Prune plans: the snapshots and leftovers that a rule selects. Snapshots are removed by jobs, which check again.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::copies::{ImageLocation, ListedImage};
use super::state::Engine;
use snapdeck_host::HostInventory;
use snapdeck_model::{
    Candidate, Error, HostName, ImageIdentity, Kind, Leftover, Object, Operation, PrunePlan,
    PruneRule, Result, SnapshotName, find_matching, find_removable, printable,
};

const MAX_READS: usize = 8;

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
    /// Whether to remove also those that another installation of snapdeck has created.
    pub include_foreign: bool,
    /// Partial files of pulls to remove on the hosts, whatever their age.
    pub partials: Partials,
}

/// A selection of partial files of pulls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Partials {
    /// Only those that are leftovers.
    #[default]
    None,
    /// Those of one snapshot.
    Of(SnapshotName),
    /// All.
    All,
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
            plan.warnings.extend(self.kept_versions(&plan).await?);
        }
        if request.include_leftovers || request.partials != Partials::None {
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

    /// Returns why the partial pull of `name`, which `plan` does not remove, is kept; `None` if it does not exist.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn kept_partial(
        &self,
        request: &PruneRequest,
        name: &SnapshotName,
        plan: &PrunePlan,
    ) -> Result<Option<Error>> {
        let conflict = |host: &HostName| {
            let summary = format!("cannot remove the partial pull of {name} on host {host}");
            Error::new(Kind::Conflict, summary)
        };
        let mut foreign = plan.foreign_leftovers.iter();
        let foreign = foreign.find(|leftover| leftover.name.as_ref() == Some(name));
        if let Some((leftover, host)) = foreign.and_then(|one| Some((one, one.host.as_ref()?))) {
            let creator = leftover.creator.as_deref().unwrap_or("unknown");
            let cause = format!("another installation created it: {}", printable(creator));
            let hint = "make sure that its pull does not run any more, then add --foreign";
            return Ok(Some(conflict(host).with_cause(cause).hint(hint)));
        }
        for host in &request.hosts {
            let pulls = self.partial_pulls(host).await?;
            if pulls.iter().any(|pull| pull.name == *name) {
                let cause =
                    format!("nothing proves that snapdeck created .{name}.qcow2.pull there");
                let hint = "look at it, and remove it by hand if nothing uses it";
                return Ok(Some(conflict(host).with_cause(cause).hint(hint)));
            }
        }
        Ok(None)
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

    /// Returns a warning if the bucket keeps what the plan removes from it.
    async fn kept_versions(&self, plan: &PrunePlan) -> Result<Option<String>> {
        let bucket = &self.inner.bucket;
        let mut removed = plan.to_remove.iter();
        if bucket.deletes_versions() || removed.all(|candidate| candidate.host.is_some()) {
            return Ok(None);
        }
        let is_kept = bucket.keeps_versions().await? == Some(true);
        Ok(is_kept.then(|| {
            format!(
                "{} keeps old versions: nothing is freed in it, unless a lifecycle rule or [bucket] delete_versions \
                 does it",
                bucket.location()
            )
        }))
    }

    async fn find_snapshots(&self, request: &PruneRequest, plan: &mut PrunePlan) -> Result<()> {
        let mut scans: Vec<HostScan> = self.inner.sharing.scan_all().await;
        // A snapshot in a shared directory belongs to the first host.
        scans.sort_by_key(|(host, _)| !request.hosts.contains(host));
        for (host, scan) in &scans {
            match scan {
                Err(error) if request.hosts.contains(host) => return Err(error.clone()),
                Err(error) => plan.warnings.push(error.to_string()),
                Ok(_) => {}
            }
        }
        let (objects, denied) = match (request.include_bucket, self.inner.bucket.is_configured()) {
            (true, _) => self.list_objects().await?,
            (false, true) => self
                .list_objects()
                .await
                .unwrap_or_else(|error| (Vec::new(), vec![error])),
            (false, false) => Default::default(),
        };
        plan.warnings.extend(denied.iter().map(Error::to_string));
        let mut all = candidates(request, &scans, &objects);
        let images = listed_images(&scans, &objects);
        if request.rule.uses_age() {
            self.find_ages(&mut all, &images).await;
        }
        let now = Timestamp::now();
        // Only the annotations of removable snapshots are read.
        let removable = find_removable(&request.rule, &all, now);
        let reads = removable.into_iter().map(|index| {
            let (name, host) = (all[index].name.clone(), all[index].host.clone());
            async move {
                if host.is_none()
                    && let Err(reason) = self.check_own_object(&name).await
                {
                    return (index, Err(reason));
                }
                let annotations = self.annotations(host.as_ref(), host.is_none(), &name).await;
                let unknown = |error| format!("cannot determine whether it is pinned: {error}");
                (index, annotations.map_err(unknown))
            }
        });
        let reads: Vec<_> = stream::iter(reads)
            .buffer_unordered(MAX_READS)
            .collect()
            .await;
        for (index, annotations) in reads {
            match annotations {
                Ok((on_host, in_bucket)) if on_host.iter().chain(&in_bucket).any(|a| a.pinned) => {
                    all[index].keep_reasons.push("pinned".to_owned());
                }
                Ok(_) => {}
                Err(reason) => all[index].keep_reasons.push(reason),
            }
        }
        let removable: BTreeSet<usize> = find_removable(&request.rule, &all, now)
            .into_iter()
            .collect();
        let removed: BTreeSet<ImageLocation> = removable
            .iter()
            .map(|index| location(&all[*index]))
            .collect();
        let equal = self.find_equal(&removed, &images).await;
        for index in find_matching(&request.rule, &all, now) {
            let mut candidate = all[index].clone();
            let others = equal.get(&location(&candidate)).into_iter().flatten();
            candidate.is_last_copy = removable.contains(&index)
                && others.filter(|other| !removed.contains(other)).count() == 0;
            match removable.contains(&index) {
                true => plan.to_remove.push(candidate),
                false => plan.kept.push(candidate),
            }
        }
        Ok(())
    }

    /// Reads the time of creation of all candidates from their manifests.
    async fn find_ages(&self, all: &mut [Candidate], images: &[ListedImage]) {
        let images: HashMap<&ImageLocation, &ListedImage> = images
            .iter()
            .map(|image| (&image.location, image))
            .collect();
        let reads: Vec<_> = all
            .iter()
            .enumerate()
            .filter_map(|(index, candidate)| {
                let image = *images.get(&location(candidate))?;
                Some(async move { (index, self.listed_manifest(image).await) })
            })
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(MAX_READS);
        while let Some((index, manifest)) = reads.next().await {
            let created = manifest.and_then(|manifest| manifest.created);
            // One of the future is wrong, and would stay the newest.
            all[index].created = created.filter(|created| *created <= Timestamp::now());
        }
        for candidate in all
            .iter_mut()
            .filter(|candidate| candidate.created.is_none())
        {
            let reason = "its age is unknown: it has no manifest with the time of its creation";
            candidate.keep_reasons.push(reason.to_owned());
        }
    }

    /// Returns why an object is not known to be a snapshot: another program may have any object of that name.
    async fn check_own_object(&self, name: &SnapshotName) -> std::result::Result<(), String> {
        let bucket = &self.inner.bucket;
        let unknown = |error| format!("cannot determine whether it is a snapshot: {error}");
        let Some(found) = bucket.find(name).await.map_err(unknown)? else {
            return Ok(());
        };
        if found.parts.is_some()
            || bucket
                .manifest(&found.object)
                .await
                .map_err(unknown)?
                .is_some()
        {
            return Ok(());
        }
        Err("it may be another program's: it has no manifest".to_owned())
    }

    /// Returns whether a job of this process uploads an object of that name.
    fn is_being_uploaded(&self, name: &SnapshotName) -> bool {
        let view = self.view();
        view.jobs.iter().any(|job| {
            !job.state.is_finished()
                && matches!(&job.operation,
                    Operation::Create { name: new, .. }
                    | Operation::Push { name: new, .. }
                    | Operation::Upload { name: new, .. } if new == name)
        })
    }

    async fn find_leftovers(&self, request: &PruneRequest, plan: &mut PrunePlan) -> Result<()> {
        let mut all = Vec::new();
        for host in &request.hosts {
            let leftovers = self.host(host)?.leftovers();
            let partials = match &request.partials {
                Partials::None => Vec::new(),
                Partials::Of(name) => leftovers.list_partials(Some(name)).await?,
                Partials::All => leftovers.list_partials(None).await?,
            };
            if request.include_leftovers {
                let paths: BTreeSet<&str> = partials.iter().map(|one| &*one.path).collect();
                let others = leftovers.list().await?.into_iter();
                all.extend(others.filter(|one| !paths.contains(&*one.path)));
            }
            all.extend(partials);
        }
        // Hosts may share a directory.
        let mut seen = BTreeSet::new();
        all.retain(|one: &Leftover| {
            one.mark_id.is_empty() || seen.insert((one.path.clone(), one.mark_id.clone()))
        });
        if request.include_bucket && request.include_leftovers {
            match self.inner.bucket.leftovers().await? {
                Some(uploads) => all.extend(uploads.into_iter().filter(|upload| {
                    let name = upload.name.as_ref();
                    !name.is_some_and(|name| self.is_being_uploaded(name))
                })),
                None => plan.warnings.push(format!(
                    "the store of {} does not list unfinished uploads",
                    self.inner.bucket.location()
                )),
            }
        }
        let (to_remove, foreign) = all
            .into_iter()
            .partition(|leftover| leftover.is_own || request.include_foreign);
        plan.leftovers = to_remove;
        plan.foreign_leftovers = foreign;
        Ok(())
    }
}

/// Returns the hosts that answered, without those that share the snapshots of an earlier one: that would list a file twice.
fn distinct(scans: &[HostScan]) -> Vec<(&HostName, &HostInventory)> {
    let mut seen = BTreeSet::new();
    let hosts = scans
        .iter()
        .filter_map(|(host, scan)| Some((host, scan.as_ref().ok()?)));
    hosts
        .filter(|(_, inventory)| {
            let directories = &inventory.directories;
            let id = directories.id(&directories.snapshots);
            id.is_none_or(|id| seen.insert(id))
        })
        .collect()
}

/// Returns all images of the hosts that were scanned, and of the bucket.
fn listed_images(scans: &[HostScan], objects: &[Object]) -> Vec<ListedImage> {
    let on_hosts = distinct(scans).into_iter().flat_map(|(host, inventory)| {
        let snapshots = inventory.snapshots.iter();
        snapshots.map(move |snapshot| ListedImage::from_snapshot(host, snapshot))
    });
    on_hosts
        .chain(objects.iter().map(ListedImage::from_object))
        .collect()
}

fn location(candidate: &Candidate) -> ImageLocation {
    ImageLocation {
        host: candidate.host.clone(),
        name: candidate.name.clone(),
    }
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
    let requested = distinct(scans).into_iter();
    for (host, inventory) in requested.filter(|(host, _)| request.hosts.contains(host)) {
        for snapshot in &inventory.snapshots {
            let dependents = &snapshot.dependents;
            // It may be another program's, or need a repair.
            let problem = snapshot.problem.as_ref();
            let problem = problem.map(|problem| format!("it is not a valid snapshot: {problem}"));
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
                created: None,
                in_use: !dependents.is_empty(),
                is_last_copy: false,
                identity: snapshot.file.map(ImageIdentity::File),
                keep_reasons: [
                    unreadable,
                    problem,
                    in_use,
                    unresolved,
                    needed(&snapshot.name),
                ]
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
            created: None,
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
