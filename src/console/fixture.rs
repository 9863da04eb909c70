//! Test data.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use snapdeck_engine::{
    BucketView, HealthCheckView, HostView, InterruptedId, InterruptedJob, JobId, JobState, JobView,
    Link, LogLine, Sample, SandboxMetrics, View, WatchTarget, operation_title,
};
use snapdeck_model::{
    AgentChannel, Annotations, ChainLink, Check, Compression, Error, Guest, GuestAccess,
    HealthReport, ImageFacts, Kind, KnownDigests, Lineage, Method, Object, Operation, Phase,
    Picture, ProgressCell, PullCost, RelatedSnapshot, Sandbox, SandboxState, SharedBytes, Snapshot,
    Vnc,
};

const GIB: u64 = 1 << 30;

/// Returns the header of a valid image.
pub(crate) fn facts(backing: Option<&str>) -> ImageFacts {
    ImageFacts {
        version: 3,
        virtual_size: 64 * GIB,
        cluster_size: 65536,
        backing_file: backing.map(str::to_owned),
        backing_format: Default::default(),
        has_external_data_file: false,
        dirty: false,
        corrupt: false,
        encrypted: false,
        extended_l2: false,
        internal_snapshots: 0,
        refcount_bits: 16,
        compression: Compression::Zlib,
    }
}

/// Returns a sandbox based on `winserver-base`.
pub(crate) fn sandbox(id: &str, state: SandboxState) -> Sandbox {
    let base = "/var/lib/libvirt/snapshots/winserver-base.qcow2";
    Sandbox {
        id: id.parse().unwrap(),
        state,
        cpus: 2,
        memory_bytes: 4 * GIB,
        autostart: false,
        chain: vec![
            ChainLink {
                path: format!("/var/lib/libvirt/sandboxes/{id}.qcow2"),
                snapshot: None,
                size_bytes: Some(812 << 20),
                facts: Some(facts(Some(base))),
            },
            ChainLink {
                path: base.to_owned(),
                snapshot: Some("winserver-base".parse().unwrap()),
                size_bytes: Some(9 * GIB),
                facts: Some(facts(None)),
            },
        ],
        variables: None,
    }
}

pub(crate) fn snapshot(name: &str, size_bytes: u64, dependents: &[&str]) -> Snapshot {
    Snapshot {
        name: name.parse().unwrap(),
        path: format!("/var/lib/libvirt/snapshots/{name}.qcow2"),
        size_bytes,
        allocated_bytes: size_bytes,
        modified: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        facts: Some(facts(None)),
        problem: None,
        dependents: dependents.iter().map(|id| id.parse().unwrap()).collect(),
        file: None,
    }
}

pub(crate) fn object(name: &str, size_bytes: u64) -> Object {
    Object {
        name: name.parse().unwrap(),
        key: format!("snapshots/{name}.qcow2"),
        size_bytes,
        modified: Some("2026-01-02T03:04:05Z".parse().unwrap()),
        etag: Some("\"d41d8cd98f00b204e9800998ecf8427e-2\"".to_owned()),
        problem: None,
    }
}

pub(crate) fn opening(name: &str) -> HostView {
    HostView {
        name: name.parse().unwrap(),
        uri: format!("qemu+ssh://root@{name}/system"),
        link: Link::Connecting,
        last_scan: None,
        sandboxes: Arc::new([]),
        snapshots: Arc::new([]),
        locks: Arc::new([]),
        partials: Arc::new([]),
        running_method: Some(Method::Backup),
    }
}

/// Returns a view with two hosts and a bucket, all connecting.
pub(crate) fn empty() -> View {
    View {
        hosts: vec![Arc::new(opening("alpha")), Arc::new(opening("beta"))],
        bucket: Arc::new(BucketView {
            location: "s3://daytona/snapshots/".to_owned(),
            is_listing: true,
            ..BucketView::default()
        }),
        jobs: Vec::new(),
        interrupted_jobs: Arc::default(),
        health_checks: Vec::new(),
    }
}

/// Returns the host `alpha` with sandboxes and snapshots.
pub(crate) fn alpha(last_scan: Instant) -> HostView {
    let ids = ["config-vm", "sandbox-002", "sandbox-003", "sandbox-004"];
    let states = [
        SandboxState::Running,
        SandboxState::Paused,
        SandboxState::Saved,
        SandboxState::ShutOff,
    ];
    HostView {
        link: Link::Up,
        last_scan: Some(last_scan),
        sandboxes: ids
            .iter()
            .zip(states)
            .map(|(id, state)| sandbox(id, state))
            .collect(),
        snapshots: Arc::new([
            snapshot("local-only", 2 * GIB, &[]),
            snapshot("myapp-v1.0", 10 * GIB, &[]),
            snapshot("winserver-base", 9 * GIB, &ids),
        ]),
        ..opening("alpha")
    }
}

/// Returns the lineage of a snapshot that is pinned in the bucket.
pub(crate) fn lineage(name: &str) -> Lineage {
    let relative = |name: &str, is_on_host, is_in_bucket| RelatedSnapshot {
        name: name.parse().unwrap(),
        is_on_host,
        is_in_bucket,
    };
    let part = |name: &str, bytes| SharedBytes {
        name: name.parse().unwrap(),
        bytes,
    };
    Lineage {
        name: name.parse().unwrap(),
        local: None,
        bucket: Some(Annotations {
            notes: Some("the one for the fair".to_owned()),
            labels: [("os".to_owned(), "2022".to_owned())].into(),
            pinned: true,
        }),
        local_digests: Some(KnownDigests::Recorded),
        bucket_digests: Some(KnownDigests::Recorded),
        parents: vec![
            relative("winserver-base", true, true),
            relative("winserver-iso", false, false),
        ],
        children: vec!["myapp-v1.1".parse().unwrap()],
        shared_with_parent_bytes: Some(8 * GIB),
        shares: vec![part("winserver-base", 8 * GIB), part("myapp-v1.1", GIB)],
        unread: Vec::new(),
        pull_cost: Some(PullCost {
            fetch_bytes: GIB,
            copies: vec![part("winserver-base", 8 * GIB), part("myapp-v1.1", GIB)],
        }),
    }
}

/// Returns a push that is uploading.
pub(crate) fn running_job(id: u64) -> JobView {
    let cell = ProgressCell::default();
    cell.enter(Phase::Uploading, 812 << 20);
    cell.add(503 << 20);
    JobView {
        id: JobId(id),
        operation: Operation::Push {
            host: "alpha".parse().unwrap(),
            sandbox: "sandbox-004".parse().unwrap(),
            name: "myapp-v1.1".parse().unwrap(),
            overwrite: false,
            compact: false,
        },
        state: JobState::Running,
        started_at: Some(Instant::now()),
        ended_at: None,
        log: Arc::new([LogLine {
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
            text: "converting /var/lib/libvirt/sandboxes/sandbox-004.qcow2".to_owned(),
            is_warning: false,
        }]),
        progress_cell: Arc::new(cell),
    }
}

/// Returns a queued pull.
pub(crate) fn queued_job(id: u64, name: &str) -> JobView {
    JobView {
        operation: Operation::Pull {
            host: "alpha".parse().unwrap(),
            name: name.parse().unwrap(),
            overwrite: false,
        },
        state: JobState::Queued,
        started_at: None,
        log: Arc::default(),
        progress_cell: Arc::default(),
        ..running_job(id)
    }
}

pub(crate) fn interrupted_job(id: u64, name: &str) -> InterruptedJob {
    let pull = queued_job(0, name).operation;
    InterruptedJob {
        id: InterruptedId(id),
        title: operation_title(&pull),
        operations: vec![pull],
        has_begun: false,
        requested_at: jiff::Timestamp::now(),
    }
}

/// Returns a failed pull.
pub(crate) fn failed_job(id: u64) -> JobView {
    JobView {
        operation: Operation::Pull {
            host: "alpha".parse().unwrap(),
            name: "broken".parse().unwrap(),
            overwrite: false,
        },
        state: JobState::Failed(
            Error::new(Kind::Damaged, "cannot pull broken to host alpha")
                .with_cause("qemu-img check found 3 errors")
                .hint("push it again"),
        ),
        ended_at: Some(Instant::now()),
        ..running_job(id)
    }
}

/// Returns a view with one reachable and one unreachable host, a bucket, a running and a failed job.
pub(crate) fn populated() -> View {
    let now = Instant::now();
    let beta = HostView {
        link: Link::Down(Error::new(Kind::Unreachable, "cannot reach host beta")),
        ..opening("beta")
    };
    View {
        hosts: vec![Arc::new(alpha(now)), Arc::new(beta)],
        bucket: Arc::new(BucketView {
            location: "s3://daytona/snapshots/".to_owned(),
            link: Link::Up,
            last_listing: Some(now),
            is_listing: false,
            objects: Arc::new([
                object("far-away", 3 * GIB),
                object("myapp-v1.0", 10 * GIB),
                object("winserver-base", 9 * GIB),
            ]),
        }),
        jobs: vec![Arc::new(running_job(1)), Arc::new(failed_job(2))],
        interrupted_jobs: Arc::default(),
        health_checks: Vec::new(),
    }
}

/// Returns [`populated`] with the health checks of alpha and of beta, which is unreachable, and running ones of the
/// bucket.
pub(crate) fn with_health_checks() -> View {
    let health_check = |host: Option<&str>, checks: Vec<Check>| {
        let host = host.map(|name| name.parse().unwrap());
        let report = HealthReport {
            host: host.clone(),
            reachable: true,
            checks,
        };
        Arc::new(HealthCheckView {
            host,
            is_running: report.checks.is_empty(),
            report: (!report.checks.is_empty()).then(|| Arc::new(report)),
        })
    };
    let alpha = vec![
        Check::passed("libvirt", "version 9.0.0, responded within 0.01 s"),
        Check::failed(
            "qemu-img",
            "not installed; create, push and pull will fail",
            "apt-get install qemu-utils",
        ),
        Check::warning(
            "owner and mode",
            "1 of 3 differ: myapp-v1.0 (root:root 600)",
            "chown libvirt-qemu:kvm /var/lib/libvirt/snapshots/myapp-v1.0.qcow2; chmod 644 \
             /var/lib/libvirt/snapshots/myapp-v1.0.qcow2",
        ),
    ];
    let beta = vec![Check::failed(
        "SSH",
        "cannot reach host beta over SSH: Permission denied (publickey); the checks on the host were skipped",
        "the server rejected all keys: run `ssh-copy-id root@beta`; a key with a passphrase needs `ssh-add`",
    )];
    View {
        health_checks: vec![
            health_check(Some("alpha"), alpha),
            health_check(Some("beta"), beta),
            health_check(None, Vec::new()),
        ],
        ..populated()
    }
}

/// Returns a pull of `far-away` to a host, in `state`.
fn pull_job(id: u64, host: &str, state: JobState) -> JobView {
    let cell = ProgressCell::default();
    cell.enter(Phase::Downloading, 3 * GIB);
    cell.add(2 * GIB);
    JobView {
        operation: Operation::Pull {
            host: host.parse().unwrap(),
            name: "far-away".parse().unwrap(),
            overwrite: false,
        },
        ended_at: state.is_finished().then(Instant::now),
        state,
        progress_cell: Arc::new(cell),
        log: Arc::default(),
        ..running_job(id)
    }
}

/// Returns a view with three hosts: alpha; beta, which has a damaged snapshot; gamma, which became unreachable three
/// minutes before `now`. A pull to beta is running, the one to gamma has failed.
pub(crate) fn fleet(now: Instant) -> View {
    let mut view = populated();
    let mut damaged = snapshot("myapp-v1.0", 4 * GIB, &[]);
    damaged.problem = Some("it is not a qcow2 image".to_owned());
    let beta = HostView {
        link: Link::Up,
        last_scan: Some(now),
        sandboxes: Arc::new([sandbox("build-7", SandboxState::ShutOff)]),
        snapshots: Arc::new([damaged, snapshot("winserver-base", 8 * GIB, &["build-7"])]),
        ..opening("beta")
    };
    let error = Error::new(Kind::Unreachable, "cannot reach host gamma")
        .with_cause("Connection timed out")
        .hint("check the network and sshd on gamma");
    let gamma = HostView {
        link: Link::Down(error.clone()),
        last_scan: now.checked_sub(Duration::from_secs(200)),
        sandboxes: Arc::new([sandbox("test-1", SandboxState::Running)]),
        snapshots: Arc::new([snapshot("winserver-base", 9 * GIB, &["test-1"])]),
        ..opening("gamma")
    };
    view.hosts = vec![Arc::new(alpha(now)), Arc::new(beta), Arc::new(gamma)];
    view.jobs = vec![
        Arc::new(pull_job(1, "beta", JobState::Running)),
        Arc::new(pull_job(
            2,
            "gamma",
            JobState::Failed(error.context("cannot pull far-away to host gamma")),
        )),
    ];
    view
}

/// Returns a view of `hosts` hosts with `snapshots` snapshots each; every fifth host is unreachable.
pub(crate) fn many(hosts: usize, snapshots: usize) -> View {
    let now = Instant::now();
    let snapshots: Arc<[Snapshot]> = (0..snapshots)
        .map(|number| snapshot(&format!("image-{number:05}"), GIB, &[]))
        .collect();
    let host = |number: usize| {
        let name = format!("host-{number:02}");
        let link = match number % 5 {
            4 => Link::Down(Error::new(
                Kind::Unreachable,
                format!("cannot reach {name}"),
            )),
            _ => Link::Up,
        };
        Arc::new(HostView {
            link,
            last_scan: Some(now),
            snapshots: snapshots.iter().cloned().collect(),
            ..opening(&name)
        })
    };
    let mut view = populated();
    view.hosts = (0..hosts).map(host).collect();
    view.jobs.clear();
    view
}

/// Returns [`populated`] with alpha unreachable since `age` before `now`.
pub(crate) fn unreachable_host_view(now: Instant, age: Duration) -> View {
    let mut view = populated();
    view.hosts[0] = Arc::new(HostView {
        link: Link::Down(
            Error::new(Kind::Unreachable, "cannot reach host alpha")
                .with_cause("Connection timed out")
                .hint("check the network and sshd on alpha"),
        ),
        last_scan: now.checked_sub(age),
        ..alpha(now)
    });
    view.jobs.clear();
    view
}

/// Returns metrics of `config-vm` on alpha, with a screen that is red above blue.
pub(crate) fn metrics(now: Instant) -> SandboxMetrics {
    let sample = |age: u64| Sample {
        time: now - Duration::from_secs(age),
        cpu: Some(1.0 / (age + 2) as f64),
        resident_bytes: Some(2 * GIB),
        guest_memory: None,
        read_rate: 0.0,
        write_rate: (20 - age) as f64 * 262_144.0,
        receive_rate: 1024.0,
        send_rate: 0.0,
        overlay_bytes: Some((812 << 20) - age * (1 << 20)),
    };
    SandboxMetrics {
        target: WatchTarget {
            host: "alpha".parse().unwrap(),
            sandbox: "config-vm".parse().unwrap(),
            include_screen: true,
        },
        samples: (0..10).rev().map(|step| sample(step * 2)).collect(),
        started_at: now.checked_sub(Duration::from_secs(3723)),
        guest_access: Some(GuestAccess {
            vnc: Some(Vnc::Tcp {
                address: "127.0.0.1".to_owned(),
                port: 5901,
            }),
            agent: AgentChannel::Connected,
        }),
        guest: Some(Guest {
            os: Some("Windows Server 2022".to_owned()),
            hostname: Some("WIN-1".to_owned()),
            addresses: vec!["192.168.122.7".to_owned()],
        }),
        screen: Some(Arc::new(Picture {
            width: 32,
            height: 18,
            rgb: [[255, 0, 0].repeat(32 * 9), [0, 0, 255].repeat(32 * 9)]
                .concat()
                .into(),
            fingerprint: 7,
        })),
        screen_error: None,
        error: None,
    }
}
