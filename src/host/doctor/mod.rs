//! The examination of a host: everything an operation on it will need, looked at before one fails for want of it
//! (spec, "Troubleshooting").

mod access;
mod guests;
mod images;
mod probe;
mod programs;
mod room;

use std::time::Duration;

use humansize::{BINARY, format_size};
use tokio::time::Instant;

use self::guests::Guests;
use self::probe::Probe;
use self::programs::Installer;
use super::survey::Scope;
use super::{CALL, Host, domain};
use snapdeck_model::settings::Accel;
use snapdeck_model::{Check, Error, Examination, Result};

/// For asking QEMU what guests it can run; the first time that takes it seconds.
const CAPABILITIES: Duration = Duration::from_secs(60);
/// A line slower than so many bytes a second makes a snapshot of 10 GiB take over a quarter of an hour.
const SLOW: f64 = (10 << 20) as f64;

impl Host {
    /// Looks at everything that operations need of the host. Every step has a deadline. Nothing is left there.
    pub async fn examine(&self, accel: Accel) -> Examination {
        let mut checks = Vec::new();
        let reached = match self.place.ssh() {
            Some(_) => self.examine_line(&mut checks).await,
            None => true,
        };
        let reached = reached && self.examine_inside(&mut checks, accel).await;
        Examination {
            host: Some(self.name().clone()),
            reached,
            checks,
        }
    }

    /// SSH, and how fast it is. `false` where there is no way in.
    async fn examine_line(&self, checks: &mut Vec<Check>) -> bool {
        let what = "SSH";
        let begun = Instant::now();
        let Some(ssh) = self.place.ssh() else {
            return true;
        };
        if let Err(error) = ssh.master().await {
            let seen = format!(
                "{}; not looked at: all that is on the host",
                error.message()
            );
            checks.push(Check::failed(what, seen, hint(&error)));
            return false;
        }
        let took = begun.elapsed().as_secs_f64();
        checks.push(Check::passed(what, format!("logged in within {took:.2} s")));
        checks.extend(match probe::speed(&self.place).await {
            Ok(speed) => {
                let seen = format!("{}/s from there", format_size(speed as u64, BINARY));
                Some(match speed < SLOW {
                    true => Check::warning(
                        "line",
                        format!("{seen}: large snapshots take long"),
                        "see that nothing else fills the line, or run snapdeck on a faster one, on the host itself \
                         for instance",
                    ),
                    false => Check::passed("line", seen),
                })
            }
            // If the host has gone, the next step tells so.
            Err(error) => {
                tracing::debug!("{error}");
                None
            }
        });
        true
    }

    /// The rest, libvirt and the host's inside at the same time. `false` where libvirt does not answer.
    async fn examine_inside(&self, checks: &mut Vec<Check>, accel: Accel) -> bool {
        let ask = async {
            let begun = Instant::now();
            let version = self
                .libvirt
                .call("ask libvirt's version", CALL, |connect| {
                    connect.lib_version()
                })
                .await?;
            let seconds = begun.elapsed().as_secs_f64();
            let (guests, domains) = tokio::join!(
                self.libvirt
                    .call("ask what guests it can run", CAPABILITIES, Guests::ask),
                self.libvirt.call("list sandboxes", CALL, domain::list),
            );
            Ok::<_, Error>((version, seconds, guests, domains))
        };
        let (answer, probe) = tokio::join!(ask, Probe::take(&self.place, &self.settings));
        let installer = Installer::of(probe.as_ref().ok());
        let answers = answer.is_ok();
        let domains = match answer {
            Ok((version, seconds, guests, domains)) => {
                checks.push(guests::libvirt(version, seconds));
                match guests {
                    Ok(guests) => checks.extend([
                        guests::qemu(&guests, installer),
                        guests::acceleration(&guests, probe.as_ref().ok(), accel),
                        guests::firmware(&guests, installer),
                    ]),
                    Err(error) => {
                        let unseen = "acceleration, UEFI firmware";
                        let seen = format!("{}; not looked at: {unseen}", error.message());
                        checks.push(Check::failed("QEMU", seen, hint(&error)));
                    }
                }
                domains
            }
            Err(error) => {
                let user = probe.as_ref().ok().and_then(|probe| probe.get("user"));
                let unseen = "QEMU, acceleration, UEFI firmware, sandboxes";
                checks.push(guests::unreachable(&error, unseen, user));
                Err(error)
            }
        };
        self.examine_files(checks, probe, domains).await;
        answers
    }

    async fn examine_files(
        &self,
        checks: &mut Vec<Check>,
        probe: Result<Probe>,
        domains: Result<Vec<domain::Facts>>,
    ) {
        let settings = &*self.settings;
        let probe = match probe {
            Ok(probe) => probe,
            Err(error) => {
                let seen = format!(
                    "{}; not looked at: programs, directories, images",
                    error.message()
                );
                checks.push(Check::failed("commands", seen, hint(&error)));
                return;
            }
        };
        checks.extend(programs::checks(&probe, self.place.ssh().is_some()));
        checks.extend(probe::clock(&probe));
        checks.extend(access::rights(&probe, settings));
        checks.extend(access::owner(&probe, settings));
        checks.extend(access::modes(&probe, settings));
        checks.extend(room::reflinks(&probe, settings));
        let with_domains = domains.is_ok();
        // The files are looked at also where libvirt does not say who uses them.
        let domains = domains.unwrap_or_default().into();
        let survey = match self.look_at(domains, Scope::All).await {
            Ok(survey) => survey,
            Err(error) => {
                // A directory that cannot be listed has been told of.
                tracing::debug!("{error}");
                checks.extend(room::space(&probe, settings, None, None));
                checks.push(room::leftovers(&probe));
                return;
            }
        };
        let verified = images::verify(&self.place, &survey).await;
        checks.extend(room::space(
            &probe,
            settings,
            images::largest_flat(&survey),
            images::largest_snapshot(&survey),
        ));
        // Of a directory that cannot be listed this would say that there are none.
        if probe.get("snapshots.list") == Some("") {
            checks.extend(images::snapshots(&survey, &verified, settings));
        }
        if with_domains {
            checks.extend(images::sandboxes(&survey, settings));
        }
        checks.push(room::leftovers(&probe));
    }
}

/// What to do about an error.
fn hint(error: &Error) -> String {
    error
        .hint_text()
        .unwrap_or("see the log of libvirtd there: journalctl -u libvirtd")
        .to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::settings::HostSettings;

    /// A host's settings, with paths short enough to be read.
    pub(super) fn settings() -> HostSettings {
        HostSettings {
            name: "alpha".parse().unwrap(),
            uri: "qemu:///system".into(),
            snapshots_dir: "/s".into(),
            sandboxes_dir: "/b".into(),
            nvram_dir: "/n".into(),
            owner: "qemu:kvm".into(),
            temp_dir: "/t".into(),
            reconnect: Duration::ZERO,
            running: Vec::new(),
        }
    }
}
