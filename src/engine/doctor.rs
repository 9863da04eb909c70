//! Examinations of hosts and the bucket, each a task of its own, so that one that hangs holds up no other.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::view::HealthCheckView;
use super::{Inner, jobs};
use snapdeck_model::{Check, HealthReport, HostName, Result};

/// The net under the deadlines of a host's single steps.
const CHECK_TIMEOUT: Duration = Duration::from_secs(180);

/// See [`super::Engine::examine`].
pub(super) fn run_checks(inner: &Arc<Inner>, hosts: &[HostName], bucket: bool) -> Result<()> {
    let mut found = Vec::new();
    for name in hosts {
        found.push(jobs::find_host(inner, name)?.1.clone());
    }
    let accel = inner.settings.sandbox.accel;
    for host in found {
        let (name, stop) = (host.name().clone(), inner.stop.clone());
        begin(inner, Some(name.clone()), async move {
            // Nothing of it is left behind: what it starts on the host ends by itself.
            tokio::select! {
                examination = host.doctor().run(accel) => examination,
                () = tokio::time::sleep(CHECK_TIMEOUT) => aborted_report(Some(name), "the check did not finish in time"),
                () = stop.cancelled() => aborted_report(Some(name), "it was cancelled"),
            }
        });
    }
    if bucket {
        let (bucket, stop) = (inner.bucket.clone(), inner.stop.clone());
        begin(inner, None, async move { bucket.run_checks(&stop).await });
    }
    Ok(())
}

fn begin(
    inner: &Arc<Inner>,
    host: Option<HostName>,
    examination: impl Future<Output = HealthReport> + Send + 'static,
) {
    let mut idle = false;
    edit(inner, host.as_ref(), |patient| {
        idle = !std::mem::replace(&mut patient.is_running, true);
    });
    if !idle {
        return;
    }
    let inner = inner.clone();
    // A panic ends this examination and nothing else.
    let task: JoinHandle<HealthReport> = tokio::spawn(examination);
    tokio::spawn(async move {
        let found = task.await.unwrap_or_else(|crash| {
            let why = format!("it crashed inside snapdeck: {crash}");
            aborted_report(host.clone(), &why)
        });
        edit(&inner, host.as_ref(), |patient| {
            patient.is_running = false;
            patient.report = Some(Arc::new(found));
        });
    });
}

fn edit(inner: &Inner, host: Option<&HostName>, change: impl FnOnce(&mut HealthCheckView)) {
    inner.publish(|view| {
        let mut patients = view.health_checks.iter_mut();
        if let Some(patient) = patients.find(|patient| patient.host.as_ref() == host) {
            change(Arc::make_mut(patient));
        }
    });
}

fn aborted_report(host: Option<HostName>, why: &str) -> HealthReport {
    HealthReport {
        host,
        reachable: true,
        checks: vec![Check::failed("examination", why, "run it again")],
    }
}
