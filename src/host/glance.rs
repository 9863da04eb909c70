//! Looking at a host: all of it, or no more than may have changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::files::Files;
use super::survey::{self, Scope, Survey};
use super::{CALL, Host, SURVEY, domain};
use crate::model::Result;

/// libvirt is asked anew after so long, whatever it told: of a few changes, as a saved state that is thrown away, it
/// tells nothing.
const KNOWN: Duration = Duration::from_secs(300);

/// What libvirt said last, and how often it had told of a change by then.
#[derive(Clone, Default)]
pub struct Known(Arc<Mutex<Option<Arc<Said>>>>);

struct Said {
    told: u64,
    at: Instant,
    domains: Arc<[domain::Facts]>,
    survey: Survey,
}

impl Known {
    fn get(&self) -> Option<Arc<Said>> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone().filter(|said| said.at.elapsed() < KNOWN)
    }

    fn set(&self, said: Option<Said>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said.map(Arc::new);
    }
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

    /// As [`Host::survey`], for whoever looks again and again: libvirt is asked nothing as long as it has told of no
    /// change and the files are those of the last glance, for five minutes at most. Not for deciding what may be done.
    ///
    /// # Errors
    /// As [`Host::survey`].
    pub async fn glance(&self) -> Result<Survey> {
        let told = self.libvirt.told();
        if let Some(said) = self.known.get().filter(|said| told == Some(said.told)) {
            let survey = self.look_at(said.domains.clone(), Scope::All).await?;
            if survey == said.survey && told == self.libvirt.told() {
                return Ok(survey);
            }
        }
        // Before they are listed: what it tells meanwhile is not in the list for sure.
        let (told, at) = (self.libvirt.told(), Instant::now());
        let domains = self.domains().await?;
        let survey = self.look_at(domains.clone(), Scope::All).await?;
        self.known.set(told.map(|told| Said {
            told,
            at,
            domains,
            survey: survey.clone(),
        }));
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
            Files::Here(files) => {
                let settings = self.settings.clone();
                let look = move || survey::here(&settings, &domains, scope);
                files.run("list images".into(), SURVEY, look).await
            }
            Files::There(files) => survey::there(files, &self.settings, &domains, scope).await,
        }
    }
}
