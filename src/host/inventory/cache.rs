//! Looking at a host: all of it, or no more than may have changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::scan::{self, HostInventory, Scope};
use crate::fs::HostFiles;
use crate::{CALL_TIMEOUT, Host, SCAN_TIMEOUT, domain};
use snapdeck_model::Result;

/// libvirt is asked anew after so long, whatever it told: of a few changes it tells nothing, as of a saved state that is
/// thrown away, or of a guest that fails to start.
const CACHE_TTL: Duration = Duration::from_secs(120);

/// What the last glance has left: what libvirt said, and how often it had told of a change by then.
pub struct ScanCache {
    event_count: u64,
    fetched_at: Instant,
    domains: Arc<[domain::DomainSummary]>,
    inventory: HostInventory,
}

/// Scans of a host.
#[derive(Clone, Copy)]
pub struct Inventory<'a> {
    host: &'a Host,
}

impl<'a> Inventory<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl Inventory<'_> {
    /// Looks at everything: libvirt's domains, then the two directories, reading the first bytes of each image.
    /// On this machine no command is run, on another a handful, whatever the number of files.
    ///
    /// # Errors
    /// `Unreachable` where libvirt does not answer or a directory may not be listed.
    pub async fn scan(self) -> Result<HostInventory> {
        let look = || async {
            self.scan_with_domains(self.list_domains().await?, Scope::All)
                .await
        };
        self.host.retry_policy.call(look).await
    }

    /// As [`Host::survey`], for whoever looks again and again: as long as libvirt has told of no change and the files are
    /// those of the last glance, it is asked nothing, for two minutes at most. Not for deciding what may be done.
    /// `known` is that look's own memory; without one, all is looked at.
    ///
    /// # Errors
    /// As [`Host::survey`]; then nothing is known any more.
    pub async fn scan_cached(self, known: &mut Option<ScanCache>) -> Result<HostInventory> {
        let is_fresh = |known: &ScanCache| {
            self.host.libvirt.event_count() == Some(known.event_count)
                && known.fetched_at.elapsed() < CACHE_TTL
        };
        let mut looked = None;
        if let Some(last) = known.take().filter(is_fresh) {
            let survey = self
                .scan_with_domains(last.domains.clone(), Scope::All)
                .await?;
            if survey == last.inventory && is_fresh(&last) {
                *known = Some(last);
                return Ok(survey);
            }
            looked = Some((last.domains, survey));
        }
        // Before they are listed: what it tells meanwhile is not in the list for sure.
        let (told, asked) = (self.host.libvirt.event_count(), Instant::now());
        let domains = self.list_domains().await?;
        let survey = match looked {
            Some((same, survey)) if same == domains => survey,
            _ => self.scan_with_domains(domains.clone(), Scope::All).await?,
        };
        *known = told.map(|told| ScanCache {
            event_count: told,
            fetched_at: asked,
            domains,
            inventory: survey.clone(),
        });
        Ok(survey)
    }

    async fn list_domains(self) -> Result<Arc<[domain::DomainSummary]>> {
        let listed = self
            .host
            .libvirt
            .call("list sandboxes", CALL_TIMEOUT, domain::list)
            .await?;
        Ok(listed.into())
    }

    /// Puts domains together with the files they stand on.
    pub(crate) async fn scan_with_domains(
        self,
        domains: Arc<[domain::DomainSummary]>,
        scope: Scope,
    ) -> Result<HostInventory> {
        match &self.host.files {
            HostFiles::Local(files) => {
                let settings = self.host.settings.clone();
                let look = move || scan::scan_local(&settings, &domains, scope);
                files.run("list images".into(), SCAN_TIMEOUT, look).await
            }
            HostFiles::Remote(files) => {
                scan::scan_remote(files, &self.host.settings, &domains, scope).await
            }
        }
    }
}
