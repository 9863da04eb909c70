//! Loads of hosts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snapdeck_engine::Link;
use snapdeck_model::{HostLoad, HostName};
use tokio::time::timeout;

use crate::common::{Fault, World, run};

const DEADLINE: Duration = Duration::from_secs(40);

type Loads = Arc<BTreeMap<HostName, HostLoad>>;

#[tokio::test(flavor = "multi_thread")]
async fn the_load_of_all_hosts_is_sampled_while_it_is_watched() {
    let world = World::hosts(2);
    let engine = world.engine().await;
    engine.follow();
    let mut views = engine.watch();
    let is_up = |view: &Arc<snapdeck_engine::View>| {
        let mut hosts = view.hosts.iter();
        hosts.all(|host| host.link == Link::Up)
    };
    let up = views.wait_for(is_up);
    timeout(DEADLINE, up).await.expect("both are up").unwrap();
    let mut loads = engine.host_loads();
    assert!(loads.borrow().is_empty(), "nothing is sampled unasked");

    engine.watch_host_load(true);
    let is_known = |loads: &Loads| {
        let known = loads.values().filter(|load| load.cpu_permille.is_some());
        known.count() == 2
    };
    let known = timeout(DEADLINE, loads.wait_for(is_known)).await;
    let known = known.expect("both have a load").unwrap().clone();
    let dir = world.hosts[0].path("snapshots");
    let stat = run("stat", &["-f", "-c", "%b %S", &dir]);
    let mut numbers = stat.split_whitespace().map(|n| n.parse::<u64>().unwrap());
    let disk_bytes = numbers.next().unwrap() * numbers.next().unwrap();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let memory = memory.split_whitespace().nth(1).unwrap();
    let memory_bytes = memory.parse::<u64>().unwrap() * 1024;
    let cpus = std::thread::available_parallelism().unwrap().get();
    for load in known.values() {
        assert_eq!(load.cpus as usize, cpus);
        assert_eq!(load.memory_total_bytes, memory_bytes);
        assert!(load.memory_used_bytes > 0 && load.memory_used_bytes < memory_bytes);
        assert!(load.cpu_permille.unwrap() <= 1000);
        assert_eq!(load.snapshots_total_bytes, Some(disk_bytes));
        assert!(load.snapshots_free_bytes.unwrap() <= disk_bytes);
    }

    engine.watch_host_load(false);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let last = loads.borrow().clone();
    let sampled_at = |loads: &Loads| loads.values().map(|load| load.sampled_at).max();
    let stopped = Instant::now();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(sampled_at(&loads.borrow()), sampled_at(&last));
    assert!(sampled_at(&last).unwrap() < stopped);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_has_no_load_and_does_not_delay_another() {
    let world = World::over_ssh(2);
    let engine = world.engine().await;
    engine.follow();
    engine.watch_host_load(true);
    let mut loads = engine.host_loads();
    let has_both = loads.wait_for(|loads| loads.len() == 2);
    timeout(DEADLINE, has_both)
        .await
        .expect("both are up")
        .unwrap();
    world.link().cut(Fault::Frozen);
    let (alpha, beta) = (&world.hosts[0].name, &world.hosts[1].name);
    let has_one = |loads: &Loads| {
        let names: Vec<&str> = loads.keys().map(HostName::as_str).collect();
        names == [beta]
    };
    let one = timeout(DEADLINE, loads.wait_for(has_one)).await;
    one.expect("alpha has no load").unwrap();
    let sampled_at = |loads: &Loads, name: &str| {
        let mut all = loads.iter().filter(|(host, _)| host.as_str() == name);
        all.next().map(|(_, load)| load.sampled_at)
    };
    let before = sampled_at(&loads.borrow(), beta);
    let is_later = |loads: &Loads| sampled_at(loads, beta) > before;
    let later = async {
        // Equal values wake no receiver.
        while !is_later(&loads.borrow()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(12), later)
        .await
        .expect("beta is sampled");
    world.link().heal();
    let known = loads.wait_for(|loads| sampled_at(loads, alpha).is_some());
    timeout(Duration::from_secs(90), known)
        .await
        .expect("alpha has a load again")
        .unwrap();
    engine.shutdown().await;
}
