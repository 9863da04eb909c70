//! New: a sandbox on a snapshot (spec, "Using Custom Snapshots"). Its overlay first, its definition last: what is left
//! of one that was killed in the middle is a file that no sandbox has, and nothing that looks like one.

use snapdeck_host::{DomainTemplate, Host, ImageFile};
use snapdeck_model::settings::{Firmware, SandboxSettings};
use snapdeck_model::{Error, ImageFacts, Kind, Outcome, Phase, Result, SandboxId, SandboxSpec};

use crate::context::Context;

/// Makes the sandbox `id` as `form` says; what that leaves open is as `defaults` have it.
///
/// # Errors
/// `Unsupported` where the id is taken, the disk is to be smaller than the snapshot's, or the host has not what it needs
/// (memory, firmware); `NotFound` without the snapshot; `Damaged` where that is no sound standalone image;
/// `InvalidInput` for a template that cannot be used; `Failed` with libvirt's words. Nothing of it stays then.
pub async fn create_sandbox(
    host: &Host,
    id: &SandboxId,
    form: &SandboxSpec,
    defaults: &SandboxSettings,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    refuse_existing_id(host, id).await?;
    let base = BaseSnapshot::find(host, form).await?;
    let storage_bytes = disk_size(host, id, form, &base.facts)?;
    let memory_bytes = form.memory_bytes.unwrap_or(defaults.memory_bytes);
    warn_of_low_memory(host, id, memory_bytes, ctx).await?;
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
    let offer = host.libvirt().capabilities().await?;
    let lacks = match plan.firmware {
        Firmware::Bios => None,
        Firmware::Uefi => (!offer.has_uefi).then_some("UEFI"),
        Firmware::SecureUefi => (!offer.has_secure_boot).then_some("UEFI with Secure Boot"),
    };
    if let Some(lacks) = lacks {
        return Err(creation_error(host, id, Kind::Conflict)
            .with_cause(format!("no firmware on the host for {lacks}"))
            .hint("install ovmf there, or set firmware in [sandbox] of the settings"));
    }
    plan.has_tpm = offer.has_tpm;
    plan.is_kvm = host.libvirt().has_usable_kvm(defaults.accel).await?;
    let xml = plan.fill(&defaults.template)?;
    ctx.check_cancelled()?;

    ctx.enter_phase(Phase::Creating)?;
    let mut made = NewSandboxFiles {
        host,
        id,
        disk: &disk,
        variables: &variables,
        files: Vec::new(),
        is_defined: false,
    };
    let outcome = async {
        made.create(&base, storage_bytes, plan.firmware, ctx)
            .await?;
        ctx.check_cancelled()?;
        made.is_defined = true;
        host.sandboxes()
            .define(xml)
            .await
            .map_err(|error| match error.kind() {
                Kind::Failed => error.hint("check template in [sandbox] of the settings"),
                _ => error,
            })?;
        base.check_unchanged(host).await?;
        if form.start {
            ctx.enter_phase(Phase::Starting)?;
            host.sandboxes().start(id).await?;
        }
        host.sandboxes().get(id).await
    }
    .await;
    match outcome {
        Ok(sandbox) => Ok(Outcome::SandboxCreated {
            host: host.name().clone(),
            sandbox,
        }),
        Err(error) => {
            ctx.progress.enter(Phase::CleaningUp, 0);
            made.roll_back(ctx).await;
            Err(error)
        }
    }
}

fn creation_error(host: &Host, id: &SandboxId, kind: Kind) -> Error {
    let what = format!("cannot create sandbox {id} on host {}", host.name());
    Error::new(kind, what)
}

/// Nobody may have that name, nor the disk.
async fn refuse_existing_id(host: &Host, id: &SandboxId) -> Result<()> {
    let taken = |why: String| Err(creation_error(host, id, Kind::Conflict).with_cause(why));
    match host.sandboxes().state(id).await {
        Ok(state) => {
            return taken(format!(
                "a sandbox with this id exists and is {}",
                state.label()
            ))
            .map_err(|error| error.hint("choose another id"));
        }
        Err(error) if error.kind() == Kind::NotFound => {}
        Err(error) => return Err(error),
    }
    for path in [host.disk_path(id), host.variables_path(id)] {
        if host.fs().has_file(&path).await? {
            return taken(format!("{path} exists, but sandbox {id} does not")).map_err(|error| {
                error.hint(format!(
                    "remove the leftover with `snapdeck sandbox destroy {id}`, or choose another id"
                ))
            });
        }
    }
    Ok(())
}

/// The snapshot a new sandbox stands on.
struct BaseSnapshot {
    path: String,
    /// Path of its own UEFI variables, where it has any.
    variables: Option<String>,
    file: ImageFile,
    facts: ImageFacts,
}

impl BaseSnapshot {
    async fn find(host: &Host, form: &SandboxSpec) -> Result<Self> {
        let name = &form.snapshot;
        let path = host.snapshot_path(name);
        let Some(file) = host.fs().image_file(&path).await? else {
            let what = format!("snapshot {name} not found on host {}", host.name());
            return Err(Error::new(Kind::NotFound, what).hint(format!(
                "run `snapdeck pull {name}` first, or pass --pull to `snapdeck sandbox new`"
            )));
        };
        let facts = check_usable_base(&file).map_err(|why| {
            Error::new(
                Kind::Damaged,
                format!("cannot use {path} on host {} as a base", host.name()),
            )
            .with_cause(why)
            .hint(format!(
                "run `snapdeck pull {name}` to repair a damaged copy"
            ))
        })?;
        let variables = host.snapshot_variables_path(name);
        Ok(Self {
            variables: host.fs().has_file(&variables).await?.then_some(variables),
            path,
            facts,
            file,
        })
    }

    /// Fails where somebody has removed or replaced it meanwhile: the overlay would stand on nothing it knows.
    async fn check_unchanged(&self, host: &Host) -> Result<()> {
        let now = host.fs().image_file(&self.path).await?;
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
fn check_usable_base(file: &ImageFile) -> Result<ImageFacts, String> {
    let facts = file.facts.clone()?;
    match &facts.backing_file {
        Some(backing) => Err(format!("it has the backing file {backing}")),
        None if facts.has_external_data_file => Err("it has an external data file".to_owned()),
        None if facts.corrupt => Err("it is marked corrupt".to_owned()),
        None => Ok(facts),
    }
}

/// The size of the new disk, where it is not to be the snapshot's.
fn disk_size(
    host: &Host,
    id: &SandboxId,
    form: &SandboxSpec,
    base: &ImageFacts,
) -> Result<Option<u64>> {
    match form.storage_bytes {
        Some(wanted) if wanted < base.virtual_size => Err(creation_error(host, id, Kind::Conflict)
            .with_cause(format!(
                "its disk of {wanted} bytes would be smaller than the {} of its base, {}",
                form.snapshot, base.virtual_size
            ))
            .hint("use at least the snapshot's size, or leave it out")),
        wanted => Ok(wanted.filter(|wanted| *wanted > base.virtual_size)),
    }
}

async fn warn_of_low_memory(host: &Host, id: &SandboxId, wanted: u64, ctx: &Context) -> Result<()> {
    let memory = host.libvirt().memory().await?;
    if wanted > memory.total_bytes {
        return Err(creation_error(host, id, Kind::Conflict)
            .with_cause(format!(
                "{wanted} bytes of memory requested, the host has {} in total",
                memory.total_bytes
            ))
            .hint("request less with --memory"));
    }
    if wanted > memory.available_bytes {
        ctx.warn(format!(
            "{id} requests {wanted} bytes of memory, host {} has {} available",
            host.name(),
            memory.available_bytes
        ));
    }
    Ok(())
}

/// What was made of a sandbox, to be taken back.
struct NewSandboxFiles<'a> {
    host: &'a Host,
    id: &'a SandboxId,
    disk: &'a str,
    variables: &'a str,
    /// Files that are ours, in the order they were made in.
    files: Vec<&'a str>,
    /// May it be known to libvirt?
    is_defined: bool,
}

impl NewSandboxFiles<'_> {
    async fn create(
        &mut self,
        base: &BaseSnapshot,
        storage_bytes: Option<u64>,
        firmware: Firmware,
        ctx: &Context,
    ) -> Result<()> {
        let host = self.host;
        // Nobody else's file is written: it is claimed first, then filled.
        host.fs().create_exclusive(self.disk).await?;
        self.files.push(self.disk);
        host.images()
            .make_overlay(&base.path, self.disk, storage_bytes)
            .await?;
        ctx.check_cancelled()?;
        if firmware == Firmware::Bios {
            return Ok(());
        }
        match &base.variables {
            Some(own) => {
                host.fs().create_exclusive(self.variables).await?;
                self.files.push(self.variables);
                host.fs().copy_file(own, self.variables).await
            }
            // libvirt makes them at the first start, from the template that belongs to the firmware it chose.
            None => {
                ctx.info("the snapshot has no UEFI variables: using the firmware's defaults");
                Ok(())
            }
        }
    }

    /// Removes all of it, the overlay last: while that is there, `destroy` finds what is left.
    async fn roll_back(&self, ctx: &Context) {
        let (host, id) = (self.host, self.id);
        let taken = async {
            if self.is_defined {
                self.undefine().await?;
            }
            for file in self.files.iter().rev() {
                host.fs().remove_file(file).await?;
            }
            Ok(())
        };
        let taken: Result<()> = taken.await;
        if let Err(error) = taken {
            ctx.warn(format!(
                "{error}; remove the rest with `snapdeck sandbox destroy {id}`"
            ));
        }
    }

    /// Whether it was defined is not known where libvirt's answer was lost: it is ours if it has our disk.
    async fn undefine(&self) -> Result<()> {
        let (host, id) = (self.host, self.id);
        match host.sandboxes().get(id).await {
            Ok(sandbox) if sandbox.disk() == Some(self.disk) => {
                if sandbox.state.is_active() {
                    host.sandboxes().force_off(id).await?;
                }
                host.sandboxes().undefine(id).await
            }
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
