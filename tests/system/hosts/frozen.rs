//! A libvirtd that is stopped (SIGSTOP) while it has calls to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use snapdeck_engine::Link;
use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{Result, SandboxId};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::{State, World};

/// Keepalive gives a connection up after ten seconds, a call is given up after as many.
const IN_TIME: Duration = Duration::from_secs(40);

/// So many at once.
const CALLS: usize = 8;

/// Up to libvirt 10.3 (CVE-2024-4418) a connection that ends under several calls takes the whole process with it.
#[tokio::test(flavor = "multi_thread")]
async fn under_many_calls_it_costs_no_more_than_the_calls() {
    let world = World::private_local();
    world.snapshot("base", 0);
    let id = world.sandbox("a", "base", State::Off);
    let id: SandboxId = id.parse().unwrap();
    let host = Host::new(world.settings().hosts[0].clone()).unwrap();
    host.inventory().scan().await.unwrap();

    for _ in 0..2 {
        let mut changes = host.libvirt().changes();
        let is_over = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicUsize::new(0));
        let mut calls = JoinSet::new();
        for _ in 0..CALLS {
            let (host, id) = (host.clone(), id.clone());
            let (begun, is_over) = (begun.clone(), is_over.clone());
            calls.spawn(async move {
                while !is_over.load(Relaxed) {
                    begun.fetch_add(1, Relaxed);
                    let _ = host.sandboxes().owned_state(&id).await;
                }
            });
        }
        world.signal_libvirtd("STOP");
        let before = begun.load(Relaxed);
        let told = timeout(IN_TIME, changes.changed()).await;
        let anew = async {
            while begun.load(Relaxed) < before + CALLS {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let anew = timeout(IN_TIME, anew).await;
        world.signal_libvirtd("CONT");
        told.expect("the connection is given up").unwrap();
        anew.expect("the calls are under way anew");
        is_over.store(true, Relaxed);
        while let Some(call) = timeout(IN_TIME, calls.join_next()).await.unwrap() {
            call.unwrap();
        }
        let mut last: Option<Result<HostInventory>> = None;
        let seen = async {
            while !matches!(&last, Some(Ok(survey)) if survey.sandboxes.len() == 1) {
                last = Some(host.inventory().scan().await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let seen = timeout(IN_TIME, seen).await;
        assert!(seen.is_ok(), "not back: {last:?}");
    }
}

/// Less than keepalive and another try together: that the connection is lost shows before a new one has failed.
const LOST: Duration = Duration::from_secs(17);

#[tokio::test(flavor = "multi_thread")]
async fn it_is_shown_as_away_while_it_is_tried_again_and_as_up_when_it_is_back() {
    let world = World::private_local();
    let engine = world.engine().await;
    engine.follow();
    let mut watch = engine.watch();
    let up = watch.wait_for(|view| view.hosts[0].link == Link::Up);
    timeout(IN_TIME, up).await.unwrap().unwrap();
    world.signal_libvirtd("STOP");
    let lost = watch.wait_for(|view| matches!(view.hosts[0].link, Link::Down(_)));
    let lost = timeout(LOST, lost).await.map(drop);
    world.signal_libvirtd("CONT");
    lost.expect("it is shown as away");
    let up = watch.wait_for(|view| view.hosts[0].link == Link::Up);
    timeout(IN_TIME, up).await.expect("it is back").unwrap();
    engine.shutdown().await;
}
