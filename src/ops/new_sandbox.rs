//! A sandbox that is being created, or cloned: what exists of it, to be removed after an error.

use bytes::Bytes;

use snapdeck_host::Host;
use snapdeck_model::{Kind, Outcome, Phase, Result, Sandbox, SandboxId};

use crate::context::Context;

/// A partly created sandbox.
pub(crate) struct NewSandbox<'a> {
    pub host: &'a Host,
    pub id: &'a SandboxId,
    pub disk: &'a str,
    pub variables: &'a str,
    /// Created files, oldest first.
    files: Vec<&'a str>,
    /// Whether libvirt may have its definition.
    is_defined: bool,
}

impl<'a> NewSandbox<'a> {
    /// Returns a sandbox of which nothing exists.
    pub(crate) fn new(
        host: &'a Host,
        id: &'a SandboxId,
        disk: &'a str,
        variables: &'a str,
    ) -> Self {
        Self {
            host,
            id,
            disk,
            variables,
            files: Vec::new(),
            is_defined: false,
        }
    }
}

impl NewSandbox<'_> {
    /// Notes that its disk exists.
    pub(crate) fn add_disk(&mut self) {
        self.files.push(self.disk);
    }

    /// Creates the file of its UEFI variables.
    pub(crate) async fn create_variables(&mut self, bytes: Bytes) -> Result<()> {
        self.host
            .created_files()
            .record_content(self.variables, &bytes);
        self.host
            .fs()
            .create_new(self.variables, bytes.into())
            .await?;
        self.files.push(self.variables);
        Ok(())
    }

    /// Defines its domain.
    pub(crate) async fn define(&mut self, xml: String) -> Result<()> {
        self.is_defined = true;
        self.host.sandboxes().define(xml).await
    }

    /// Returns the outcome; after an error, removes all that exists.
    pub(crate) async fn finish(self, result: Result<Sandbox>, ctx: &Context) -> Result<Outcome> {
        let host = self.host;
        match result {
            Ok(sandbox) => {
                // From now on its domain refers to them.
                host.created_files().forget(self.disk);
                host.created_files().forget(self.variables);
                Ok(Outcome::SandboxCreated {
                    host: host.name().clone(),
                    sandbox,
                    changed: true,
                })
            }
            Err(error) => {
                ctx.progress.enter(Phase::CleaningUp, 0);
                self.roll_back(ctx).await;
                Err(error)
            }
        }
    }

    /// Removes all of it, the overlay last: as long as that exists, `destroy` finds the leftovers.
    async fn roll_back(&self, ctx: &Context) {
        let (host, id) = (self.host, self.id);
        let result: Result<()> = async {
            if self.is_defined {
                self.undefine().await?;
            }
            for file in self.files.iter().rev() {
                host.fs().remove_file(file).await?;
                host.created_files().forget(file);
            }
            Ok(())
        }
        .await;
        if let Err(error) = result {
            ctx.warn(format!(
                "{error}; remove the rest with `snapdeck sandbox destroy {id}`"
            ));
        }
    }

    /// Undefines the domain if it has the new disk; if libvirt's response was lost, it may not exist.
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
