//! Creates a sandbox based on a snapshot. The overlay is created first and the domain is defined last: if snapdeck is
//! killed, only a file without a sandbox remains.

use bytes::Bytes;
use humansize::{BINARY, format_size};

use snapdeck_host::{DomainTemplate, Host, ImageFile, find_network_device};
use snapdeck_model::settings::{Firmware, Network, SandboxSettings};
use snapdeck_model::{
    Error, ImageFacts, Kind, Outcome, Phase, Result, SandboxId, SandboxSpec, SnapshotName,
};

use crate::context::Context;
use crate::dependents::file_users;
use crate::existing_sandbox::find_existing;
use crate::host_memory::check_memory;
use crate::new_id::refuse_used_id;
use crate::new_sandbox::NewSandbox;
use crate::standalone_image::standalone_facts;
use crate::variables::{MAX_BYTES, find_local_problem, read_variables};

/// Blocks of a flash memory that QEMU emulates (hw/block/pflash_cfi01.c), in bytes.
const FLASH_BLOCK_BYTES: usize = 4096;
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";

/// Creates the sandbox `id` from `spec`; `defaults` apply to what that leaves unset.
///
/// # Errors
/// `Conflict` if the id is taken (with `accept_existing`: by a sandbox with other properties), the disk would be smaller than the snapshot's, or the host lacks memory or firmware;
/// `NotFound` without the snapshot; `Damaged` if it is not a valid standalone image; `InvalidInput` for an invalid
/// template; `Failed` with libvirt's message. Everything that was created is removed then.
pub async fn create_sandbox(
    host: &Host,
    id: &SandboxId,
    spec: &SandboxSpec,
    defaults: &SandboxSettings,
    ctx: &Context,
) -> Result<Outcome> {
    ctx.enter_phase(Phase::Checking)?;
    let refused = |kind| creation_error(host, id, kind);
    let memory_bytes = spec.memory_bytes.unwrap_or(defaults.memory_bytes);
    let base_path = host.snapshot_path(&spec.snapshot);
    let (disk, variables) = (host.disk_path(id), host.variables_path(id));
    let mut domain = DomainTemplate {
        id,
        disk: &disk,
        base: &base_path,
        variables: &variables,
        cpus: spec.cpus.unwrap_or(defaults.cpus),
        memory_bytes,
        is_kvm: false,
        firmware: defaults.firmware,
        network: match spec.block_network {
            true => &Network::None,
            false => &defaults.network,
        },
        has_tpm: false,
    };
    // Detect an invalid template before anything is queried or created.
    let xml = domain.fill(&defaults.template)?;
    if spec.block_network {
        refuse_network(host, id, &xml)?;
    }
    if spec.accept_existing
        && let Some(sandbox) = find_existing(host, id, spec, defaults, &xml).await?
    {
        ctx.info(format!("{id} exists with these properties"));
        return Ok(Outcome::SandboxCreated {
            host: host.name().clone(),
            sandbox,
            changed: false,
        });
    }
    refuse_used_id(host, id, &[], refused, ctx).await?;
    let base = BaseSnapshot::find(host, spec, ctx).await?;
    let storage_bytes = disk_size(host, id, spec, &base.facts)?;
    check_memory(host, id, memory_bytes, refused, ctx).await?;
    let capabilities = host.libvirt().capabilities().await?;
    let missing_firmware = match domain.firmware {
        Firmware::Bios => None,
        Firmware::Uefi => (!capabilities.has_uefi).then_some("UEFI"),
        Firmware::SecureUefi => (!capabilities.has_secure_boot).then_some("UEFI with Secure Boot"),
    };
    if let Some(firmware) = missing_firmware {
        return Err(creation_error(host, id, Kind::Conflict)
            .with_cause(format!("no firmware on the host for {firmware}"))
            .hint("install ovmf there, or set firmware in [sandbox] of the settings"));
    }
    domain.has_tpm = capabilities.has_tpm;
    domain.is_kvm = host.libvirt().has_usable_kvm(defaults.accel).await?;
    let xml = domain.fill(&defaults.template)?;
    ctx.check_cancelled()?;

    ctx.enter_phase(Phase::Creating)?;
    let mut new_sandbox = NewSandbox::new(host, id, &disk, &variables);
    let result = async {
        create_files(&mut new_sandbox, &base, storage_bytes, domain.firmware, ctx).await?;
        ctx.check_cancelled()?;
        new_sandbox
            .define(xml)
            .await
            .map_err(|error| match error.kind() {
                Kind::Failed => error.hint("check template in [sandbox] of the settings"),
                _ => error,
            })?;
        base.check_unchanged(host).await?;
        if spec.start {
            ctx.enter_phase(Phase::Starting)?;
            host.sandboxes().start(id).await?;
        }
        host.sandboxes().get(id).await
    }
    .await;
    new_sandbox.finish(result, ctx).await
}

fn creation_error(host: &Host, id: &SandboxId, kind: Kind) -> Error {
    let summary = format!("cannot create sandbox {id} on host {}", host.name());
    Error::new(kind, summary)
}

/// Fails if the template has network devices of its own.
fn refuse_network(host: &Host, id: &SandboxId, xml: &str) -> Result<()> {
    match find_network_device(xml)? {
        None => Ok(()),
        Some(device) => Err(creation_error(host, id, Kind::InvalidInput)
            .with_cause(format!(
                "it is to have no network, and the template has <{device}>"
            ))
            .hint("use {{network}} in template in [sandbox] of the settings")),
    }
}

/// The UEFI variables of a snapshot.
enum BaseVariables {
    /// The path of those beside it.
    File(String),
    /// Those that another program keeps for it.
    Bytes(Bytes),
}

/// The snapshot that a new sandbox is based on.
struct BaseSnapshot {
    path: String,
    /// UEFI variables, if it has any.
    variables: Option<BaseVariables>,
    file: ImageFile,
    facts: ImageFacts,
}

impl BaseSnapshot {
    async fn find(host: &Host, spec: &SandboxSpec, ctx: &Context) -> Result<Self> {
        let name = &spec.snapshot;
        let path = host.snapshot_path(name);
        let Some(file) = host.fs().image_file(&path).await? else {
            let summary = format!("snapshot {name} not found on host {}", host.name());
            return Err(Error::new(Kind::NotFound, summary).hint(format!(
                "run `snapdeck pull {name}` first, or pass --pull to `snapdeck sandbox new`"
            )));
        };
        let unusable = |problem: String| {
            let summary = format!("cannot use {path} on host {} as a base", host.name());
            let hint = format!("run `snapdeck pull {name}` to repair or complete it");
            Error::new(Kind::Damaged, summary)
                .with_cause(problem)
                .hint(hint)
        };
        let facts = standalone_facts(&file.facts).cloned().map_err(unusable)?;
        // A link to a file that only root reads must not become a guest's disk.
        host.fs().open_reader(&path).await?;
        let damage = host.snapshots().damage(name).await?;
        if let Some(damage) = damage.filter(|damage| damage.is_of(file.stamp)) {
            return Err(unusable(damage.problem));
        }
        let expected = host
            .snapshots()
            .expected_variables(name, file.stamp)
            .await?;
        if let Some(problem) = find_local_problem(host, name, expected).await? {
            return Err(unusable(problem));
        }
        let own = host.snapshot_variables_path(name);
        let variables = match (host.fs().has_file(&own).await?, expected) {
            (true, _) => Some(BaseVariables::File(own)),
            (false, Some(_)) => None,
            (false, None) => find_base_variables(host, name, ctx)
                .await?
                .map(BaseVariables::Bytes),
        };
        Ok(Self {
            variables,
            path,
            facts,
            file,
        })
    }

    /// Fails if the snapshot was removed or replaced meanwhile: the overlay would be based on another image.
    async fn check_unchanged(&self, host: &Host) -> Result<()> {
        let current = host.fs().image_file(&self.path).await?;
        if current.is_some_and(|current| current.stamp.is_same_file(&self.file.stamp)) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!(
                "{} on host {} was changed or removed meanwhile",
                self.path,
                host.name()
            ),
        )
        .hint("try again"))
    }
}

/// Returns the UEFI variables that another program keeps for a snapshot, if there are any that are not those of a sandbox with the
/// same name. QEMU's user must not be able to write them now.
async fn find_base_variables(
    host: &Host,
    name: &SnapshotName,
    ctx: &Context,
) -> Result<Option<Bytes>> {
    let Some(path) = host.base_variables_path(name) else {
        return Ok(None);
    };
    // One more byte shows that it is longer.
    let bytes = match host.fs().read_trusted(&path, MAX_BYTES + 1).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == Kind::Conflict => {
            ctx.warn(format!("not using {path}: {error}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let is_flash = !bytes.is_empty()
        && bytes.len() as u64 <= MAX_BYTES
        && bytes.len().is_multiple_of(FLASH_BLOCK_BYTES)
        && !bytes.starts_with(QCOW2_MAGIC);
    if !is_flash {
        ctx.warn(format!(
            "not using {path}: it is no raw image of UEFI variables"
        ));
        return Ok(None);
    }
    let users = file_users(host, &path, None, ctx).await?;
    match users.is_empty() {
        true => {
            ctx.info(format!("using the UEFI variables {path}"));
            Ok(Some(bytes.into()))
        }
        false => {
            let users = users.join(", ");
            ctx.info(format!("not using {path}, the UEFI variables of {users}"));
            Ok(None)
        }
    }
}

/// Returns the size of the new disk in bytes if it is larger than the snapshot's.
fn disk_size(
    host: &Host,
    id: &SandboxId,
    spec: &SandboxSpec,
    base: &ImageFacts,
) -> Result<Option<u64>> {
    let base_bytes = base.virtual_size;
    match spec.storage_bytes {
        Some(bytes) if bytes < base_bytes => Err(creation_error(host, id, Kind::Conflict)
            .with_cause(format!(
                "its disk of {} would be smaller than the {} of its base, {}",
                format_size(bytes, BINARY),
                format_size(base_bytes, BINARY),
                spec.snapshot
            ))
            .hint("use at least the snapshot's size, or leave it out")),
        bytes => Ok(bytes.filter(|bytes| *bytes > base_bytes)),
    }
}

/// Creates the overlay, and the UEFI variables if the snapshot has some.
async fn create_files(
    new_sandbox: &mut NewSandbox<'_>,
    base: &BaseSnapshot,
    storage_bytes: Option<u64>,
    firmware: Firmware,
    ctx: &Context,
) -> Result<()> {
    let host = new_sandbox.host;
    let size_bytes = storage_bytes.unwrap_or(base.facts.virtual_size);
    host.scratch_dirs()
        .make_overlay(new_sandbox.id, &base.path, new_sandbox.disk, size_bytes)
        .await?;
    new_sandbox.add_disk();
    ctx.check_cancelled()?;
    if firmware == Firmware::Bios {
        return Ok(());
    }
    match &base.variables {
        Some(BaseVariables::File(path)) => {
            let bytes = read_variables(host, path).await?;
            new_sandbox.create_variables(bytes).await
        }
        Some(BaseVariables::Bytes(bytes)) => new_sandbox.create_variables(bytes.clone()).await,
        // libvirt creates them at the first start, from the template of the firmware it selects.
        None => {
            ctx.info("the snapshot has no UEFI variables: using the firmware's defaults");
            Ok(())
        }
    }
}
