//! Looking at a host: all of it, or no more than may have changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fs::HostFs;
use super::survey::{self, Scope, Survey};
use super::{CALL, Host, SURVEY, domain};
use snapdeck_model::Result;

/// libvirt is asked anew after so long, whatever it told: of a few changes it tells nothing, as of a saved state that is
/// thrown away, or of a guest that fails to start.
const KNOWN: Duration = Duration::from_secs(120);

/// What the last glance has left: what libvirt said, and how often it had told of a change by then.
pub struct Known {
    told: u64,
    asked: Instant,
    domains: Arc<[domain::Facts]>,
    survey: Survey,
}

impl Host {
    /// Looks at everything: libvirt's domains, then the two directories, reading the first bytes of each image.
    /// On this machine no command is run, on another a handful, whatever the number of files.
    ///
    /// # Errors
    /// `Unreachable` where libvirt does not answer or a directory may not be listed.
    pub async fn survey(&self) -> Result<Survey> {
        let look = || async { self.look_at(self.domains().await?, Scope::All).await };
        self.patience.call(look).await
    }

    /// As [`Host::survey`], for whoever looks again and again: as long as libvirt has told of no change and the files are
    /// those of the last glance, it is asked nothing, for two minutes at most. Not for deciding what may be done.
    /// `known` is that look's own memory; without one, all is looked at.
    ///
    /// # Errors
    /// As [`Host::survey`]; then nothing is known any more.
    pub async fn glance(&self, known: &mut Option<Known>) -> Result<Survey> {
        let is_fresh = |known: &Known| {
            self.libvirt.told() == Some(known.told) && known.asked.elapsed() < KNOWN
        };
        let mut looked = None;
        if let Some(last) = known.take().filter(is_fresh) {
            let survey = self.look_at(last.domains.clone(), Scope::All).await?;
            if survey == last.survey && is_fresh(&last) {
                *known = Some(last);
                return Ok(survey);
            }
            looked = Some((last.domains, survey));
        }
        // Before they are listed: what it tells meanwhile is not in the list for sure.
        let (told, asked) = (self.libvirt.told(), Instant::now());
        let domains = self.domains().await?;
        let survey = match looked {
            Some((same, survey)) if same == domains => survey,
            _ => self.look_at(domains.clone(), Scope::All).await?,
        };
        *known = told.map(|told| Known {
            told,
            asked,
            domains,
            survey: survey.clone(),
        });
        Ok(survey)
    }

    async fn domains(&self) -> Result<Arc<[domain::Facts]>> {
        let listed = self
            .libvirt
            .call("list sandboxes", CALL, domain::list)
            .await?;
        Ok(listed.into())
    }

    /// Puts domains together with the files they stand on.
    pub(super) async fn look_at(
        &self,
        domains: Arc<[domain::Facts]>,
        scope: Scope,
    ) -> Result<Survey> {
        match &self.files {
            HostFs::Local(files) => {
                let settings = self.settings.clone();
                let look = move || survey::here(&settings, &domains, scope);
                files.run("list images".into(), SURVEY, look).await
            }
            HostFs::Remote(files) => survey::there(files, &self.settings, &domains, scope).await,
        }
    }
}
