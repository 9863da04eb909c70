//! Health checks of a host: everything that operations on it need.

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

/// libvirt probes QEMU for them the first time, which takes seconds.
const CAPABILITIES_TIMEOUT: Duration = Duration::from_secs(60);
/// Below this rate a snapshot of 10 GiB takes more than 17 minutes.
const SLOW_BYTES_PER_SECOND: f64 = (10 << 20) as f64;

/// The health checks of a host.
#[derive(Clone, Copy)]
pub struct Doctor<'a> {
    host: &'a Host,
}

impl<'a> Doctor<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl Doctor<'_> {
    /// Runs all checks, each step with a deadline. No files are left on the host.
    pub async fn run(self, accel: Accel) -> HealthReport {
        let mut checks = Vec::new();
        let reachable = self.check_connection(&mut checks).await
            && self.check_services(&mut checks, accel).await;
        HealthReport {
            host: Some(self.host.name().clone()),
            reachable,
            checks,
        }
    }

    /// Checks SSH and its throughput; returns whether the host can be reached.
    async fn check_connection(self, checks: &mut Vec<Check>) -> bool {
        let check_name = "SSH";
        let started_at = Instant::now();
        let Some(ssh) = self.host.runner.ssh() else {
            return true;
        };
        if let Err(error) = ssh.acquire_master().await {
            checks.push(report_error(check_name, &error, "everything on the host"));
            return false;
        }
        let seconds = started_at.elapsed().as_secs_f64();
        checks.push(Check::passed(
            check_name,
            format!("logged in within {seconds:.2} s"),
        ));
        match probe::measure_speed(&self.host.runner).await {
            Ok(speed) => {
                let rate = format!("{}/s from the host", format_size(speed as u64, BINARY));
                checks.push(match speed < SLOW_BYTES_PER_SECOND {
                    true => Check::warning(
                        "line",
                        format!("{rate}: large snapshots take long"),
                        "check what else uses the link, or run snapdeck on a faster one or on the host itself",
                    ),
                    false => Check::passed("line", rate),
                });
            }
            // If the host is lost, the next step reports it.
            Err(error) => tracing::debug!("{error}"),
        }
        true
    }

    /// Checks libvirt and, at the same time, programs and files; returns whether libvirt answers.
    async fn check_services(self, checks: &mut Vec<Check>, accel: Accel) -> bool {
        let query = async {
            let started_at = Instant::now();
            let version = self
                .host
                .libvirt
                .call("read libvirt's version", CALL_TIMEOUT, |connect| {
                    connect.lib_version()
                })
                .await?;
            let seconds = started_at.elapsed().as_secs_f64();
            let (guests, domains) = tokio::join!(
                self.host.libvirt.call(
                    "read the domain capabilities",
                    CAPABILITIES_TIMEOUT,
                    GuestCapabilities::query
                ),
                self.host
                    .libvirt
                    .call("list sandboxes", CALL_TIMEOUT, domain::list),
            );
            Ok::<_, Error>((version, seconds, guests, domains))
        };
        let (libvirt, probe) =
            tokio::join!(query, Probe::run(&self.host.runner, &self.host.settings));
        let installer = Installer::detect(probe.as_ref().ok());
        let is_reachable = libvirt.is_ok();
        let domains = match libvirt {
            Ok((version, seconds, guests, domains)) => {
                checks.push(guest_capabilities::report_libvirt(version, seconds));
                match guests {
                    Ok(guests) => checks.extend([
                        guest_capabilities::check_qemu(&guests, installer),
                        guest_capabilities::check_acceleration(&guests, probe.as_ref().ok(), accel),
                        guest_capabilities::check_firmware(&guests, installer),
                    ]),
                    Err(error) => {
                        let unchecked = "acceleration, UEFI firmware";
                        checks.push(report_error("QEMU", &error, unchecked));
                    }
                }
                domains
            }
            Err(error) => {
                let probe = probe.as_ref().ok();
                checks.push(guest_capabilities::report_unreachable(&error, probe));
                Err(error)
            }
        };
        self.check_files(checks, probe, domains).await;
        is_reachable
    }

    async fn check_files(
        self,
        checks: &mut Vec<Check>,
        probe: Result<Probe>,
        domains: Result<Vec<domain::DomainSummary>>,
    ) {
        let settings = &*self.host.settings;
        let probe = match probe {
            Ok(probe) => probe,
            Err(error) => {
                let unchecked = "programs, directories, images";
                checks.push(report_error("commands", &error, unchecked));
                return;
            }
        };
        checks.extend(programs::check_programs(
            &probe,
            self.host.runner.ssh().is_some(),
        ));
        checks.extend(probe::check_clock(&probe));
        checks.extend(access::check_dirs(&probe, settings));
        checks.extend(access::check_dir_owners(&probe, settings));
        checks.extend(access::check_owner(&probe, settings));
        checks.extend(access::check_modes(&probe, settings));
        checks.extend(disk_space::check_reflinks(&probe, settings));
        let has_domains = domains.is_ok();
        // The files are checked also if libvirt cannot list the domains that use them.
        let domains = domains.unwrap_or_default().into();
        let inventory = match self
            .host
            .inventory()
            .scan_with_domains(domains, Scope::All)
            .await
        {
            Ok(inventory) => inventory,
            Err(error) => {
                // A directory that cannot be listed is reported by its own check.
                tracing::debug!("{error}");
                checks.extend(disk_space::check_space(&probe, settings, None, None));
                checks.extend(self.check_leftovers().await);
                return;
            }
        };
        let results =
            images::check_images(&self.host.runner, &self.host.settings.owner, &inventory).await;
        checks.extend(disk_space::check_space(
            &probe,
            settings,
            images::largest_flat(&inventory),
            images::largest_snapshot(&inventory),
        ));
        // A directory that cannot be listed would be reported as empty.
        if probe.get("snapshots.list") == Some("") {
            checks.extend(images::check_snapshots(&inventory, &results, settings));
        }
        if has_domains {
            checks.extend(images::check_sandboxes(&inventory, settings));
        }
        checks.extend(self.check_leftovers().await);
    }

    async fn check_leftovers(self) -> Option<Check> {
        match self.host.leftovers().list().await {
            Ok(leftovers) => Some(disk_space::check_leftovers(&leftovers, &self.host.settings)),
            Err(error) => {
                // A directory that cannot be read is reported by its own check.
                tracing::debug!("{error}");
                None
            }
        }
    }
}

/// Returns a failed check for `error`, after which `unchecked` cannot be checked.
fn report_error(name: &str, error: &Error, unchecked: &str) -> Check {
    let finding = format!("{}; not checked: {unchecked}", error.message());
    let fix = error
        .hint_text()
        .unwrap_or("read the log of libvirtd on the host: journalctl -u libvirtd");
    Check::failed(name, finding, fix)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use snapdeck_model::settings::{HostSettings, TransferRoute};

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
            transfer: TransferRoute::Relay,
            bucket_endpoint: None,
            unattended: Duration::ZERO,
            max_bytes_per_sec: 0,
            organizations: Vec::new(),
        }
    }
}
