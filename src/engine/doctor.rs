//! Health checks of hosts and the bucket, each a task of its own, so that one that hangs does not delay the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::doctor_direct::check_direct_downloads;
use super::state::{Engine, Inner};
use super::view::{HealthCheckView, View};
use snapdeck_host::Host;
use snapdeck_model::settings::Settings;
use snapdeck_model::{Check, HealthReport, HostName, Result, Verdict};
use snapdeck_ops::SharedDirectory;

/// Limit for a host; its single checks have shorter timeouts.
const CHECK_TIMEOUT: Duration = Duration::from_secs(180);

impl Engine {
    /// Starts the health checks of hosts, and with `bucket` of the bucket, in parallel. Each report appears in the view
    /// ([`View::health_checks`](crate::View::health_checks)) within three minutes. A check that is running is not
    /// restarted.
    ///
    /// # Errors
    /// `InvalidInput` for an unknown host; no check is started then.
    pub fn run_health_checks(&self, hosts: &[HostName], bucket: bool) -> Result<()> {
        run_checks(&self.inner, hosts, bucket)
    }

    /// Starts the health checks of all hosts and the bucket; see [`Engine::run_health_checks`].
    pub fn run_all_health_checks(&self) {
        let hosts: Vec<HostName> = self
            .inner
            .hosts
            .iter()
            .map(|host| host.name().clone())
            .collect();
        // Cannot fail: all hosts are known.
        let _ = self.run_health_checks(&hosts, true);
    }
}

/// Runs the health checks of the hosts of `settings`, and of the bucket if one is configured, without a state directory.
/// Returns the report of each. If it is dropped, the checks end and clean up in the background.
///
/// # Errors
/// `InvalidInput` for a host with invalid settings.
pub async fn check_settings(settings: Settings) -> Result<Vec<Arc<HealthReport>>> {
    let has_bucket = settings.bucket.name.is_some();
    let names = settings.hosts.iter().map(|host| host.name.clone());
    let names: Vec<HostName> = names.collect();
    let engine = Engine::new(settings).await?;
    let _shutdown = ShutdownOnDrop(engine.clone());
    engine.run_health_checks(&names, has_bucket)?;
    let is_done = |view: &Arc<View>| view.health_checks.iter().all(|check| !check.is_running);
    let mut watch = engine.watch();
    let view = watch.wait_for(is_done).await.map(|view| view.clone());
    let checks = view.map_or_else(|_| Vec::new(), |view| view.health_checks.clone());
    Ok(checks
        .iter()
        .filter_map(|check| check.report.clone())
        .collect())
}

/// Shuts down an engine in the background.
struct ShutdownOnDrop(Engine);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        let engine = self.0.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { engine.shutdown().await });
        }
    }
}

fn run_checks(inner: &Arc<Inner>, hosts: &[HostName], bucket: bool) -> Result<()> {
    let hosts = hosts
        .iter()
        .map(|name| Ok(inner.find_host(name)?.1.clone()))
        .collect::<Result<Vec<Host>>>()?;
    let accel = inner.settings.sandbox.accel;
    for host in hosts {
        let (name, stop) = (host.name().clone(), inner.stop.clone());
        let sharing = inner.sharing.clone();
        let bucket = inner.bucket.clone();
        let relayed_hosts = inner.relayed_hosts.clone();
        start(inner, Some(name.clone()), async move {
            let check = async {
                let run = host.doctor().run(accel);
                let (mut report, shared, direct) = tokio::join!(
                    run,
                    sharing.shared_directories(&host),
                    check_direct_downloads(&host, &bucket)
                );
                if direct
                    .as_ref()
                    .is_some_and(|check| check.verdict == Verdict::Passed)
                {
                    relayed_hosts.remove(host.name());
                }
                // If they cannot be read, other checks say why.
                let shared = shared.unwrap_or_default();
                report
                    .checks
                    .extend(shared.iter().map(check_shared_directory));
                // Without a connection the first check says why.
                report.checks.extend(direct.filter(|_| report.reachable));
                report
            };
            // A dropped check needs no cleanup: its processes on the host end by themselves.
            tokio::select! {
                report = check => report,
                () = tokio::time::sleep(CHECK_TIMEOUT) => aborted_report(Some(name), "the check did not finish in time"),
                () = stop.cancelled() => aborted_report(Some(name), "it was cancelled"),
            }
        });
    }
    if bucket {
        let (bucket, stop) = (inner.bucket.clone(), inner.stop.clone());
        start(inner, None, async move { bucket.run_checks(&stop).await });
    }
    Ok(())
}

fn check_shared_directory(shared: &SharedDirectory) -> Check {
    let name = "shared directories";
    match shared {
        SharedDirectory::Shared { path, host } => Check::passed(
            name,
            format!(
                "{} is shared with host {host}: users there count here, too",
                path.display()
            ),
        ),
        SharedDirectory::Copied { path, host } => Check::warning(
            name,
            format!(
                "{} has the id of a directory of host {host}, but is another one",
                path.display()
            ),
            format!(
                "if it is a copy, remove the file .snapdeck-directory-id in it: `rm {}/.snapdeck-directory-id`",
                path.display()
            ),
        ),
    }
}

fn start(
    inner: &Arc<Inner>,
    host: Option<HostName>,
    check: impl Future<Output = HealthReport> + Send + 'static,
) {
    let mut was_idle = false;
    edit(inner, host.as_ref(), |check| {
        was_idle = !std::mem::replace(&mut check.is_running, true);
    });
    if !was_idle {
        return;
    }
    let inner = inner.clone();
    // A task of its own, so that a panic ends only this check.
    let task: JoinHandle<HealthReport> = tokio::spawn(check);
    tokio::spawn(async move {
        let report = task.await.unwrap_or_else(|crash| {
            let finding = format!("it crashed inside snapdeck: {crash}");
            aborted_report(host.clone(), &finding)
        });
        edit(&inner, host.as_ref(), |check| {
            check.is_running = false;
            check.report = Some(Arc::new(report));
        });
    });
}

fn edit(inner: &Inner, host: Option<&HostName>, change: impl FnOnce(&mut HealthCheckView)) {
    inner.publish(|view| {
        let mut checks = view.health_checks.iter_mut();
        if let Some(check) = checks.find(|check| check.host.as_ref() == host) {
            change(Arc::make_mut(check));
        }
    });
}

fn aborted_report(host: Option<HostName>, finding: &str) -> HealthReport {
    HealthReport {
        host,
        reachable: true,
        checks: vec![Check::failed("health check", finding, "run it again")],
    }
}
