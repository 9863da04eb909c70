//! Changes of the UEFI variables beside a snapshot of a host: no image is left with those of another.

use snapdeck_host::Host;
use snapdeck_model::{Error, ExpectedVariables, Kind, Result, SnapshotName};

use crate::context::Context;
use crate::remote_object::RemoteObject;
use crate::replace::{ExistingCopy, is_same_image};
use crate::variables::{FetchedVariables, SourceVariables, local_digest};

pub(crate) enum VariablesChange {
    Keep,
    Install(FetchedVariables),
    /// Those of a replaced image.
    Remove,
}

impl VariablesChange {
    /// Decides what becomes of the file when the image of `source` is installed in place of `existing`.
    ///
    /// # Errors
    /// `Conflict` if a file would have to go that nothing shows to be of the replaced image; those of the host.
    pub(crate) async fn decide(
        host: &Host,
        source: &RemoteObject,
        variables: SourceVariables,
        existing: ExistingCopy,
        overwrite: bool,
        ctx: &Context,
    ) -> Result<Self> {
        let name = &source.object.name;
        let path = host.snapshot_variables_path(name);
        let Some(digest) = local_digest(host, name).await? else {
            return Ok(match variables {
                SourceVariables::Fetched(variables) => Self::Install(variables),
                SourceVariables::Absent | SourceVariables::Unknown => Self::Keep,
            });
        };
        let current = Some(ExpectedVariables::Digest(digest));
        if variables.expected() == current {
            return Ok(Self::Keep);
        }
        let recorded = host.snapshots().recorded_manifest(name).await?;
        let is_same = matches!(existing, ExistingCopy::DamagedSameImage(_))
            || recorded
                .as_ref()
                .is_some_and(|local| is_same_image(local, source));
        // Left by a pull that was interrupted before its image was there.
        let is_leftover = existing == ExistingCopy::Absent
            && recorded.is_some_and(|manifest| manifest.variables == current);
        let may_replace = overwrite || existing != ExistingCopy::Absent || is_leftover;
        let conflict = |cause: String| {
            Err(Error::new(
                Kind::Conflict,
                format!("cannot {} {name} to host {}", source.verb, host.name()),
            )
            .with_cause(cause)
            .hint("move it elsewhere, or pass --overwrite to replace it"))
        };
        match variables {
            SourceVariables::Fetched(variables) if may_replace => Ok(Self::Install(variables)),
            SourceVariables::Fetched(_) => conflict(format!(
                "{path} already exists on host {} and differs from the one of {}",
                host.name(),
                source.object.key
            )),
            SourceVariables::Absent if is_same && !overwrite => {
                ctx.warn(format!(
                    "{path} does not belong to {name}, which has no UEFI variables: move it elsewhere"
                ));
                Ok(Self::Keep)
            }
            SourceVariables::Absent if may_replace => Ok(Self::Remove),
            SourceVariables::Absent => conflict(format!(
                "{path} already exists, and the snapshot has no UEFI variables"
            )),
            SourceVariables::Unknown
                if matches!(existing, ExistingCopy::Valid(_)) && !is_same =>
            {
                Err(Error::new(
                    Kind::Conflict,
                    format!("cannot {} {name} to host {}", source.verb, host.name()),
                )
                .with_cause(format!(
                    "{path} belongs to the image that is replaced, and the bucket has no UEFI variables for the new one"
                ))
                .hint("move it elsewhere, or put the new one in its place and remove the old image"))
            }
            SourceVariables::Unknown => {
                ctx.warn(format!(
                    "no UEFI variables for {name} in the bucket: keeping those on the host"
                ));
                Ok(Self::Keep)
            }
        }
    }

    /// Changes the file; returns whether it did.
    pub(crate) async fn apply(
        &self,
        host: &Host,
        name: &SnapshotName,
        ctx: &Context,
    ) -> Result<bool> {
        match self {
            Self::Keep => Ok(false),
            Self::Install(variables) => variables.install(host, name).await.map(|()| true),
            Self::Remove => {
                let path = host.snapshot_variables_path(name);
                let is_removed = host.fs().remove_file(&path).await?;
                if is_removed {
                    ctx.info(format!(
                        "removed {path}, which belonged to the previous image"
                    ));
                }
                Ok(is_removed)
            }
        }
    }
}
