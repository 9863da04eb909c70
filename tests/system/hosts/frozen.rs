//! A libvirtd that is stopped (SIGSTOP) during calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use snapdeck_engine::Link;
use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{Result, SandboxId};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::{State, World};

/// Keepalive closes a connection after 10 s, and a call times out after 10 s.
const DEADLINE: Duration = Duration::from_secs(40);

/// Concurrent calls.
const CALLS: usize = 8;

/// Up to libvirt 10.3 (CVE-2024-4418) a connection that ends during several calls crashes the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_fails_concurrent_calls_without_a_crash() {
    let world = World::private_local();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Off);
    let id: SandboxId = id.parse().unwrap();
    let host = Host::new(world.settings().hosts[0].clone()).unwrap();
    host.inventory().scan().await.unwrap();

    for _ in 0..2 {
        let mut changes = host.libvirt().changes();
        let stop = Arc::new(AtomicBool::new(false));
        let started = Arc::new(AtomicUsize::new(0));
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let (host, id) = (host.clone(), id.clone());
            let (started, stop) = (started.clone(), stop.clone());
            calls.spawn(async move {
                while !stop.load(Relaxed) {
                    started.fetch_add(1, Relaxed);
                    let _ = host.sandboxes().owned_state(&id).await;
                }
            });
        }
        world.signal_libvirtd("STOP");
        let before = started.load(Relaxed);
        let closed = timeout(DEADLINE, changes.changed()).await;
        let restarted = async {
            while started.load(Relaxed) < before + CALLS {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let restarted = timeout(DEADLINE, restarted).await;
        world.signal_libvirtd("CONT");
        closed.expect("the connection is closed").unwrap();
        restarted.expect("the calls are started again");
        stop.store(true, Relaxed);
        while let Some(call) = timeout(DEADLINE, calls.join_next()).await.unwrap() {
            call.unwrap();
        }
        let mut last: Option<Result<HostInventory>> = None;
        let scanned = async {
            while !matches!(&last, Some(Ok(inventory)) if inventory.sandboxes.len() == 1) {
                last = Some(host.inventory().scan().await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let scanned = timeout(DEADLINE, scanned).await;
        assert!(scanned.is_ok(), "cannot scan: {last:?}");
    }
}

/// Less than keepalive and a connection attempt together: the loss is reported before a reconnect has failed.
const LOSS_DEADLINE: Duration = Duration::from_secs(17);

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_libvirtd_is_reported_as_down_and_as_up_after_it_continues() {
    let world = World::private_local();
    let engine = world.engine().await;
    engine.follow();
    let mut watch = engine.watch();
    let up = watch.wait_for(|view| view.hosts[0].link == Link::Up);
    timeout(DEADLINE, up).await.unwrap().unwrap();
    world.signal_libvirtd("STOP");
    let lost = watch.wait_for(|view| matches!(view.hosts[0].link, Link::Down(_)));
    let lost = timeout(LOSS_DEADLINE, lost).await.map(drop);
    world.signal_libvirtd("CONT");
    lost.expect("the host is reported as down");
    let up = watch.wait_for(|view| view.hosts[0].link == Link::Up);
    timeout(DEADLINE, up)
        .await
        .expect("the host is up again")
        .unwrap();
    engine.shutdown().await;
}
