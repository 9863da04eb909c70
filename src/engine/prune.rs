//! What may go of what there is. Finds out; what is found goes as jobs like any other, which check again.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;

use super::Engine;
use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{
    Candidate, HostName, ImageIdentity, Leftover, Object, Operation, PrunePlan, PruneRule, Result,
    SnapshotName, find_matching, find_removable,
};

/// Manifests read at once.
const MAX_ANNOTATION_READS: usize = 8;

/// Where to look for what may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneRequest {
    /// What may go.
    pub rule: PruneRule,
    /// The hosts whose snapshots are looked at.
    pub hosts: Vec<HostName>,
    /// The bucket, too?
    pub include_bucket: bool,
    /// And what was left behind there?
    pub include_leftovers: bool,
}

/// A host and what it has, or why that is not known.
type HostScan = (HostName, Result<HostInventory>);

impl Engine {
    /// Finds what may go by a rule. Held is what a chain needs or may need, what is pinned, and the last sound copy of
    /// what a sandbox stands on, for which all hosts of the settings are asked.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host; `Unreachable` where a host that is to be looked at, or the bucket, does not
    /// answer.
    pub async fn prune_plan(&self, asked: &PruneRequest) -> Result<PrunePlan> {
        for host in &asked.hosts {
            self.host(host)?;
        }
        let mut plan = PrunePlan::default();
        if asked.rule != PruneRule::default() {
            self.find(asked, &mut plan).await?;
        }
        if asked.include_leftovers {
            self.find_leftovers(asked, &mut plan).await?;
        }
        Ok(plan)
    }

    /// Looks again at what `plan` lets go, just before it goes: what is in use or pinned by now, or is another image,
    /// is held. What comes to be used later yet is the removing jobs' to find out.
    ///
    /// # Errors
    /// As [`Engine::prune_plan`].
    pub async fn recheck_prune(&self, asked: &PruneRequest, plan: PrunePlan) -> Result<PrunePlan> {
        if plan.to_remove.is_empty() {
            return Ok(plan);
        }
        let mut now = PrunePlan::default();
        self.find(asked, &mut now).await?;
        Ok(plan.revalidate(&now, "it has changed since it was listed"))
    }

    /// Removes what was left behind; tells whether it went: what was taken up meanwhile stays.
    ///
    /// # Errors
    /// `Unsupported` while somebody works on it; the host's; the store's.
    pub async fn remove_leftover(&self, leftover: &Leftover) -> Result<bool> {
        if leftover
            .name
            .as_ref()
            .is_some_and(|name| self.is_being_built(name))
        {
            return Ok(false);
        }
        match &leftover.host {
            Some(host) => self.host(host)?.leftovers().remove(leftover).await,
            None => self.inner.bucket.remove_leftover(leftover).await,
        }
    }

    async fn find(&self, asked: &PruneRequest, plan: &mut PrunePlan) -> Result<()> {
        let look = |host: &Host| {
            let host = host.clone();
            async move { (host.name().clone(), host.inventory().scan().await) }
        };
        let surveys: Vec<HostScan> = join_all(self.inner.hosts.iter().map(look)).await;
        for (host, survey) in &surveys {
            match survey {
                Err(error) if asked.hosts.contains(host) => return Err(error.clone()),
                Err(error) => plan.warnings.push(error.to_string()),
                Ok(_) => {}
            }
        }
        let objects = match (asked.include_bucket, self.inner.bucket.is_configured()) {
            (true, _) => self.objects().await?,
            (false, true) => self.objects().await.unwrap_or_else(|error| {
                plan.warnings.push(error.to_string());
                Vec::new()
            }),
            (false, false) => Vec::new(),
        };
        let mut all = candidates(asked, &surveys, &objects);
        let now = Timestamp::now();
        // Manifests are read of what would go alone.
        let chosen = find_removable(&asked.rule, &all, now);
        let pins = chosen.into_iter().map(|at| {
            let (name, host) = (all[at].name.clone(), all[at].host.clone());
            async move {
                let said = self.annotations(host.as_ref(), host.is_none(), &name).await;
                (at, said)
            }
        });
        let pins: Vec<_> = stream::iter(pins)
            .buffer_unordered(MAX_ANNOTATION_READS)
            .collect()
            .await;
        for (at, said) in pins {
            match said {
                Ok((here, there)) if here.iter().chain(&there).any(|said| said.pinned) => {
                    all[at].keep_reasons.push("pinned".to_owned());
                }
                Ok(_) => {}
                Err(error) => all[at]
                    .keep_reasons
                    .push(format!("cannot determine whether it is pinned: {error}")),
            }
        }
        let goes: BTreeSet<usize> = find_removable(&asked.rule, &all, now).into_iter().collect();
        let stays: BTreeSet<SnapshotName> = copies(&surveys, &objects)
            .filter(|(host, name)| {
                let is_it = |at: &usize| all[*at].host.as_ref() == *host && all[*at].name == **name;
                !goes.iter().any(is_it)
            })
            .map(|(_, name)| name.clone())
            .collect();
        for at in find_matching(&asked.rule, &all, now) {
            let mut one = all[at].clone();
            one.is_last_copy = !stays.contains(&one.name);
            match goes.contains(&at) {
                true => plan.to_remove.push(one),
                false => plan.kept.push(one),
            }
        }
        Ok(())
    }

    /// Does a job of this process make an object of that name?
    fn is_being_built(&self, name: &SnapshotName) -> bool {
        let view = self.view();
        view.jobs.iter().any(|job| {
            !job.state.is_finished()
                && matches!(&job.operation, Operation::Create { name: made, .. } | Operation::Push { name: made, .. } if made == name)
        })
    }

    async fn find_leftovers(&self, asked: &PruneRequest, plan: &mut PrunePlan) -> Result<()> {
        for host in &asked.hosts {
            let found = self.host(host)?.leftovers().list().await?;
            plan.leftovers.extend(found);
        }
        if asked.include_bucket {
            match self.inner.bucket.leftovers().await? {
                Some(found) => plan.leftovers.extend(found.into_iter().filter(|upload| {
                    let name = upload.name.as_ref();
                    !name.is_some_and(|name| self.is_being_built(name))
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

/// Every copy that is sound as far as is known, by its host (`None`: the bucket) and name.
fn copies<'a>(
    surveys: &'a [HostScan],
    objects: &'a [Object],
) -> impl Iterator<Item = (Option<&'a HostName>, &'a SnapshotName)> {
    let on_hosts = surveys.iter().flat_map(|(host, survey)| {
        let snapshots = survey.iter().flat_map(|survey| &survey.snapshots);
        let sound = snapshots.filter(|snapshot| snapshot.problem.is_none());
        sound.map(move |snapshot| (Some(host), &snapshot.name))
    });
    on_hosts.chain(objects.iter().map(|object| (None, &object.name)))
}

/// The snapshots that sandboxes of a host stand on.
fn used_snapshots(survey: &HostInventory) -> BTreeSet<&SnapshotName> {
    let bases = survey
        .sandboxes
        .iter()
        .flat_map(|sandbox| &sandbox.chain)
        .chain(survey.foreign_domains.iter().flat_map(|guest| &guest.chain))
        .filter_map(|link| link.snapshot.as_ref());
    let needed = survey
        .snapshots
        .iter()
        .filter(|snapshot| !snapshot.dependents.is_empty())
        .map(|snapshot| &snapshot.name);
    bases.chain(needed).collect()
}

/// What there is in the places that are asked for, and what holds it; pins are not looked at yet.
fn candidates(asked: &PruneRequest, surveys: &[HostScan], objects: &[Object]) -> Vec<Candidate> {
    let known = || {
        let known = surveys.iter();
        known.filter_map(|(host, survey)| Some((host, survey.as_ref().ok()?)))
    };
    let everywhere: BTreeSet<&SnapshotName> = known()
        .flat_map(|(_, survey)| used_snapshots(survey))
        .collect();
    // Sandboxes stand on it where there is no sound file: who has one has the last.
    let needy: BTreeSet<&SnapshotName> = known()
        .flat_map(|(_, survey)| {
            let sound = |name: &SnapshotName| {
                let mut all = survey.snapshots.iter();
                all.any(|snapshot| snapshot.name == *name && snapshot.problem.is_none())
            };
            used_snapshots(survey)
                .into_iter()
                .filter(move |name| !sound(name))
        })
        .collect();
    let needed = |name: &SnapshotName| {
        let held = "in use by sandboxes, and their base file is missing or damaged";
        needy.contains(name).then(|| held.to_owned())
    };
    let mut all = Vec::new();
    for (host, survey) in known().filter(|(host, _)| asked.hosts.contains(host)) {
        for snapshot in &survey.snapshots {
            let users = &snapshot.dependents;
            let unseen = snapshot.file.is_none();
            let unseen = unseen.then(|| "it cannot be read".to_owned());
            let in_use = (!users.is_empty()).then(|| format!("in use by {}", users.join(", ")));
            let unread = &survey.unresolved_chains;
            let unread = (!unread.is_empty())
                .then(|| format!("cannot determine the bases of these: {}", unread.join(", ")));
            all.push(Candidate {
                name: snapshot.name.clone(),
                host: Some(host.clone()),
                size_bytes: snapshot.allocated_bytes,
                modified: snapshot.modified,
                in_use: !users.is_empty(),
                is_last_copy: false,
                identity: snapshot.file.map(ImageIdentity::File),
                keep_reasons: [unseen, in_use, unread, needed(&snapshot.name)]
                    .into_iter()
                    .flatten()
                    .collect(),
            });
        }
    }
    // What stands on what there is not known: it may be any of them, and without a file of its own.
    let unknown: Vec<String> = surveys
        .iter()
        .filter_map(|(host, survey)| match survey {
            Err(_) => Some(format!(
                "cannot determine what host {host} needs: it does not answer"
            )),
            Ok(survey) if !survey.unresolved_chains.is_empty() => Some(format!(
                "cannot determine what host {host} needs: {}",
                survey.unresolved_chains.join(", ")
            )),
            Ok(_) => None,
        })
        .collect();
    let objects = objects.iter().filter(|_| asked.include_bucket);
    all.extend(objects.map(|object| {
        Candidate {
            name: object.name.clone(),
            host: None,
            size_bytes: object.size_bytes,
            modified: object.modified,
            in_use: everywhere.contains(&object.name),
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
