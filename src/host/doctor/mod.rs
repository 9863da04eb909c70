//! The examination of a host: everything an operation on it will need, looked at before one fails for want of it
//! (spec, "Troubleshooting").

mod access;
mod disk_space;
mod guest_capabilities;
mod images;
mod probe;
mod programs;

use std::time::Duration;

use humansize::{BINARY, format_size};
use tokio::time::Instant;

use self::guest_capabilities::GuestCapabilities;
use self::probe::Probe;
use self::programs::Installer;
use super::{CALL_TIMEOUT, Host, domain};
use crate::inventory::scan::Scope;
use snapdeck_model::settings::Accel;
use snapdeck_model::{Check, Error, HealthReport, Result};

/// For asking QEMU what guests it can run; the first time that takes it seconds.
const CAPABILITIES_TIMEOUT: Duration = Duration::from_secs(60);
/// A line slower than so many bytes a second makes a snapshot of 10 GiB take over a quarter of an hour.
const SLOW_BYTES_PER_SECOND: f64 = (10 << 20) as f64;

impl Host {
    /// Looks at everything that operations need of the host. Every step has a deadline. Nothing is left there.
    pub async fn run_checks(&self, accel: Accel) -> HealthReport {
        let mut checks = Vec::new();
        let reached = match self.runner.ssh() {
            Some(_) => self.check_connection(&mut checks).await,
            None => true,
        };
        let reached = reached && self.check_services(&mut checks, accel).await;
        HealthReport {
            host: Some(self.name().clone()),
            reachable: reached,
            checks,
        }
    }

    /// SSH, and how fast it is. `false` where there is no way in.
    async fn check_connection(&self, checks: &mut Vec<Check>) -> bool {
        let what = "SSH";
        let begun = Instant::now();
        let Some(ssh) = self.runner.ssh() else {
            return true;
        };
        if let Err(error) = ssh.acquire_master().await {
            let seen = format!("{}; not checked: everything on the host", error.message());
            checks.push(Check::failed(what, seen, hint_or_default(&error)));
            return false;
        }
        let took = begun.elapsed().as_secs_f64();
        checks.push(Check::passed(what, format!("logged in within {took:.2} s")));
        checks.extend(match probe::measure_speed(&self.runner).await {
            Ok(speed) => {
                let seen = format!("{}/s from there", format_size(speed as u64, BINARY));
                Some(match speed < SLOW_BYTES_PER_SECOND {
                    true => Check::warning(
                        "line",
                        format!("{seen}: large snapshots take long"),
                        "check what else uses the link, or run snapdeck on a faster one or on the host itself \
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
    async fn check_services(&self, checks: &mut Vec<Check>, accel: Accel) -> bool {
        let ask = async {
            let begun = Instant::now();
            let version = self
                .libvirt
                .call("ask libvirt's version", CALL_TIMEOUT, |connect| {
                    connect.lib_version()
                })
                .await?;
            let seconds = begun.elapsed().as_secs_f64();
            let (guests, domains) = tokio::join!(
                self.libvirt.call(
                    "read the domain capabilities",
                    CAPABILITIES_TIMEOUT,
                    GuestCapabilities::query
                ),
                self.libvirt
                    .call("list sandboxes", CALL_TIMEOUT, domain::list),
            );
            Ok::<_, Error>((version, seconds, guests, domains))
        };
        let (answer, probe) = tokio::join!(ask, Probe::run(&self.runner, &self.settings));
        let installer = Installer::detect(probe.as_ref().ok());
        let answers = answer.is_ok();
        let domains = match answer {
            Ok((version, seconds, guests, domains)) => {
                checks.push(guest_capabilities::report_libvirt(version, seconds));
                match guests {
                    Ok(guests) => checks.extend([
                        guest_capabilities::check_qemu(&guests, installer),
                        guest_capabilities::check_acceleration(&guests, probe.as_ref().ok(), accel),
                        guest_capabilities::check_firmware(&guests, installer),
                    ]),
                    Err(error) => {
                        let unseen = "acceleration, UEFI firmware";
                        let seen = format!("{}; not checked: {unseen}", error.message());
                        checks.push(Check::failed("QEMU", seen, hint_or_default(&error)));
                    }
                }
                domains
            }
            Err(error) => {
                let user = probe.as_ref().ok().and_then(|probe| probe.get("user"));
                let unseen = "QEMU, acceleration, UEFI firmware, sandboxes";
                checks.push(guest_capabilities::report_unreachable(&error, unseen, user));
                Err(error)
            }
        };
        self.check_files(checks, probe, domains).await;
        answers
    }

    async fn check_files(
        &self,
        checks: &mut Vec<Check>,
        probe: Result<Probe>,
        domains: Result<Vec<domain::DomainSummary>>,
    ) {
        let settings = &*self.settings;
        let probe = match probe {
            Ok(probe) => probe,
            Err(error) => {
                let seen = format!(
                    "{}; not checked: programs, directories, images",
                    error.message()
                );
                checks.push(Check::failed("commands", seen, hint_or_default(&error)));
                return;
            }
        };
        checks.extend(programs::check_programs(
            &probe,
            self.runner.ssh().is_some(),
        ));
        checks.extend(probe::check_clock(&probe));
        checks.extend(access::check_dirs(&probe, settings));
        checks.extend(access::check_owner(&probe, settings));
        checks.extend(access::check_modes(&probe, settings));
        checks.extend(disk_space::check_reflinks(&probe, settings));
        let with_domains = domains.is_ok();
        // The files are looked at also where libvirt does not say who uses them.
        let domains = domains.unwrap_or_default().into();
        let survey = match self.scan_with_domains(domains, Scope::All).await {
            Ok(survey) => survey,
            Err(error) => {
                // A directory that cannot be listed has been told of.
                tracing::debug!("{error}");
                checks.extend(disk_space::check_space(&probe, settings, None, None));
                checks.push(disk_space::check_leftovers(&probe));
                return;
            }
        };
        let verified = images::check_images(&self.runner, &survey).await;
        checks.extend(disk_space::check_space(
            &probe,
            settings,
            images::largest_flat(&survey),
            images::largest_snapshot(&survey),
        ));
        // Of a directory that cannot be listed this would say that there are none.
        if probe.get("snapshots.list") == Some("") {
            checks.extend(images::check_snapshots(&survey, &verified, settings));
        }
        if with_domains {
            checks.extend(images::check_sandboxes(&survey, settings));
        }
        checks.push(disk_space::check_leftovers(&probe));
    }
}

/// What to do about an error.
fn hint_or_default(error: &Error) -> String {
    error
        .hint_text()
        .unwrap_or("check the log of libvirtd there: journalctl -u libvirtd")
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
            reconnect_timeout: Duration::ZERO,
            running_methods: Vec::new(),
        }
    }
}
