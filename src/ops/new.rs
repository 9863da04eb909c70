//! New: a sandbox on a snapshot (spec, "Using Custom Snapshots"). Its overlay first, its definition last: what is left
//! of one that was killed in the middle is a file that no sandbox has, and nothing that looks like one.

use snapdeck_host::{DomainTemplate, Host, ImageFile};
use snapdeck_model::settings::{Firmware, SandboxSettings};
use snapdeck_model::{Error, ImageFacts, Kind, Outcome, Phase, Result, SandboxId, SandboxSpec};

use super::Context;

/// Makes the sandbox `id` as `form` says; what that leaves open is as `defaults` have it.
///
/// # Errors
/// `Refused` where the id is taken, the disk is to be smaller than the snapshot's, or the host has not what it needs
/// (memory, firmware); `NotFound` without the snapshot; `Damaged` where that is no sound standalone image;
/// `InvalidInput` for a template that cannot be used; `Failed` with libvirt's words. Nothing of it stays then.
pub async fn new(
    host: &Host,
    id: &SandboxId,
    form: &SandboxSpec,
    defaults: &SandboxSettings,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter(Phase::Checking)?;
    refuse_taken(host, id).await?;
    let base = Base::find(host, form).await?;
    let storage_bytes = storage(host, id, form, &base.facts)?;
    let memory_bytes = form.memory_bytes.unwrap_or(defaults.memory_bytes);
    look_at_memory(host, id, memory_bytes, ctx).await?;
    let (disk, variables) = (host.disk_path(id), host.variables_path(id));
    let mut plan = DomainTemplate {
        id,
        disk: &disk,
        variables: &variables,
        cpus: form.cpus.unwrap_or(defaults.cpus),
        memory_bytes,
        is_kvm: false,
        firmware: defaults.firmware,
        network: &defaults.network,
        has_tpm: false,
    };
    // A template that cannot be used is better known before anything is asked or made.
    plan.fill(&defaults.template)?;
    let offer = host.capabilities().await?;
    let lacks = match plan.firmware {
        Firmware::Bios => None,
        Firmware::Uefi => (!offer.has_uefi).then_some("UEFI"),
        Firmware::SecureUefi => (!offer.has_secure_boot).then_some("UEFI that can secure its boot"),
    };
    if let Some(lacks) = lacks {
        return Err(cannot(host, id, Kind::Conflict)
            .with_cause(format!("the host has no firmware for {lacks}"))
            .hint("install ovmf there, or set firmware in [sandbox] of the settings"));
    }
    plan.has_tpm = offer.has_tpm;
    plan.is_kvm = host.has_usable_kvm(defaults.accel).await?;
    let xml = plan.fill(&defaults.template)?;
    ctx.go_on()?;

    ctx.enter(Phase::Creating)?;
    let mut made = Made {
        host,
        id,
        disk: &disk,
        variables: &variables,
        files: Vec::new(),
        defined: false,
    };
    let outcome = async {
        made.files(&base, storage_bytes, plan.firmware, ctx).await?;
        ctx.go_on()?;
        made.defined = true;
        host.define(xml).await.map_err(|error| match error.kind() {
            Kind::Failed => error.hint("is template in [sandbox] of the settings to blame?"),
            _ => error,
        })?;
        base.still_there(host).await?;
        if form.start {
            ctx.enter(Phase::Starting)?;
            host.start(id).await?;
        }
        host.sandbox(id).await
    }
    .await;
    match outcome {
        Ok(sandbox) => Ok(Outcome::SandboxCreated {
            host: host.name().clone(),
            sandbox,
        }),
        Err(error) => {
            ctx.progress.enter(Phase::CleaningUp, 0);
            made.take_back(ctx).await;
            Err(error)
        }
    }
}

fn cannot(host: &Host, id: &SandboxId, kind: Kind) -> Error {
    let what = format!("cannot make the sandbox {id} on host {}", host.name());
    Error::new(kind, what)
}

/// Nobody may have that name, nor the disk.
async fn refuse_taken(host: &Host, id: &SandboxId) -> Result<()> {
    let taken = |why: String| Err(cannot(host, id, Kind::Conflict).with_cause(why));
    match host.sandbox_state(id).await {
        Ok(state) => {
            return taken(format!("the id is taken by one that is {}", state.as_str()))
                .map_err(|error| error.hint("choose another id"));
        }
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    for path in [host.disk_path(id), host.variables_path(id)] {
        if host.has_file(&path).await? {
            return taken(format!("{path} is there, and no sandbox {id}")).map_err(|error| {
                error.hint(format!(
                    "`snapdeck sandbox destroy {id}` removes what is left of one; or choose another id"
                ))
            });
        }
    }
    Ok(())
}

/// The snapshot a new sandbox stands on.
struct Base {
    path: String,
    /// Path of its own UEFI variables, where it has any.
    variables: Option<String>,
    file: ImageFile,
    facts: ImageFacts,
}

impl Base {
    async fn find(host: &Host, form: &SandboxSpec) -> Result<Self> {
        let name = &form.snapshot;
        let path = host.snapshot_path(name);
        let Some(file) = host.image_file(&path).await? else {
            let what = format!("there is no snapshot {name} on host {}", host.name());
            return Err(Error::new(Kind::NotFound, what).hint(format!(
                "`snapdeck pull {name}` fetches it from the bucket; `snapdeck sandbox new --pull` does both"
            )));
        };
        let facts = fit(&file).map_err(|why| {
            Error::new(
                Kind::Damaged,
                format!("no sandbox can stand on {path} on host {}", host.name()),
            )
            .with_cause(why)
            .hint(format!("`snapdeck pull {name}` repairs a broken copy"))
        })?;
        let variables = host.snapshot_variables_path(name);
        Ok(Self {
            variables: host.has_file(&variables).await?.then_some(variables),
            path,
            facts,
            file,
        })
    }

    /// Fails where somebody has removed or replaced it meanwhile: the overlay would stand on nothing it knows.
    async fn still_there(&self, host: &Host) -> Result<()> {
        let now = host.image_file(&self.path).await?;
        match now.is_some_and(|now| now.stamp == self.file.stamp) {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Conflict,
                format!(
                    "{} on host {} was changed or removed meanwhile",
                    self.path,
                    host.name()
                ),
            )
            .hint("try again")),
        }
    }
}

/// The facts of an image that an overlay may stand on, or why it may not.
fn fit(file: &ImageFile) -> Result<ImageFacts, String> {
    let facts = file.facts.clone()?;
    match &facts.backing_file {
        Some(backing) => Err(format!("it stands on {backing} itself")),
        None if facts.has_external_data_file => Err("its data lies in another file".to_owned()),
        None if facts.corrupt => Err("it is marked corrupt".to_owned()),
        None => Ok(facts),
    }
}

/// The size of the new disk, where it is not to be the snapshot's.
fn storage(
    host: &Host,
    id: &SandboxId,
    form: &SandboxSpec,
    base: &ImageFacts,
) -> Result<Option<u64>> {
    match form.storage_bytes {
        Some(wanted) if wanted < base.virtual_size => Err(cannot(host, id, Kind::Conflict)
            .with_cause(format!(
                "its disk of {wanted} bytes would be smaller than that of {}, which has {}",
                form.snapshot, base.virtual_size
            ))
            .hint("a disk can only grow: name at least the snapshot's size, or none")),
        wanted => Ok(wanted.filter(|wanted| *wanted > base.virtual_size)),
    }
}

async fn look_at_memory(host: &Host, id: &SandboxId, wanted: u64, ctx: &Context) -> Result<()> {
    let memory = host.memory().await?;
    if wanted > memory.total_bytes {
        return Err(cannot(host, id, Kind::Conflict)
            .with_cause(format!(
                "it is to have {wanted} bytes of memory, and the host has {} in all",
                memory.total_bytes
            ))
            .hint("give it less with --memory"));
    }
    if wanted > memory.available_bytes {
        ctx.warn(format!(
            "{id} is to have {wanted} bytes of memory, and host {} has {} to give now",
            host.name(),
            memory.available_bytes
        ));
    }
    Ok(())
}

/// What was made of a sandbox, to be taken back.
struct Made<'a> {
    host: &'a Host,
    id: &'a SandboxId,
    disk: &'a str,
    variables: &'a str,
    /// Files that are ours, in the order they were made in.
    files: Vec<&'a str>,
    /// May it be known to libvirt?
    defined: bool,
}

impl Made<'_> {
    async fn files(
        &mut self,
        base: &Base,
        storage_bytes: Option<u64>,
        firmware: Firmware,
        ctx: &Context,
    ) -> Result<()> {
        let host = self.host;
        // Nobody else's file is written: it is claimed first, then filled.
        host.create_exclusive(self.disk).await?;
        self.files.push(self.disk);
        host.make_overlay(&base.path, self.disk, storage_bytes)
            .await?;
        ctx.go_on()?;
        if firmware == Firmware::Bios {
            return Ok(());
        }
        match &base.variables {
            Some(own) => {
                host.create_exclusive(self.variables).await?;
                self.files.push(self.variables);
                host.copy_file(own, self.variables).await
            }
            // libvirt makes them at the first start, from the template that belongs to the firmware it chose.
            None => {
                ctx.info(
                    "the snapshot has no UEFI variables of its own: it begins with the firmware's",
                );
                Ok(())
            }
        }
    }

    /// Removes all of it, the overlay last: while that is there, `destroy` finds what is left.
    async fn take_back(&self, ctx: &Context) {
        let (host, id) = (self.host, self.id);
        let taken = async {
            if self.defined {
                self.undefine().await?;
            }
            for file in self.files.iter().rev() {
                host.remove_file(file).await?;
            }
            Ok(())
        };
        let taken: Result<()> = taken.await;
        if let Err(error) = taken {
            ctx.warn(format!(
                "{error}; `snapdeck sandbox destroy {id}` removes what is left of {id}"
            ));
        }
    }

    /// Whether it was defined is not known where libvirt's answer was lost: it is ours if it has our disk.
    async fn undefine(&self) -> Result<()> {
        let (host, id) = (self.host, self.id);
        match host.sandbox(id).await {
            Ok(sandbox) if sandbox.disk() == Some(self.disk) => {
                if sandbox.state.is_active() {
                    host.force_off(id).await?;
                }
                host.undefine(id).await
            }
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
