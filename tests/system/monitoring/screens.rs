//! Screens of several guests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use snapdeck_engine::{ScreenKey, Screens};
use tokio::time::timeout;

use crate::common::World;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn screens_of_several_guests_are_shown_as_thumbnails() {
    let world = World::new();
    world.snapshot("base", 0);
    let ids = [world.id("a"), world.id("b")];
    for id in &ids {
        world
            .snapdeck(&["sandbox", "new", id, "base", "--start"])
            .ok();
    }
    let key = |id: &String| -> ScreenKey { (world.name.parse().unwrap(), id.parse().unwrap()) };
    let engine = world.engine().await;
    engine.follow();
    let mut screens = engine.screens();
    engine.watch_screens(ids.iter().map(key).collect());
    let has_pictures = |count: usize| {
        move |screens: &Arc<Screens>| {
            let pictures = screens.values().filter(|screen| screen.picture.is_some());
            screens.len() == count && pictures.count() == count
        }
    };
    let both = timeout(DEADLINE, screens.wait_for(has_pictures(2))).await;
    let Ok(both) = both.map(|both| both.unwrap().clone()) else {
        panic!("not all are shown: {:?}", screens.borrow());
    };
    for screen in both.values() {
        let picture = screen.picture.as_ref().unwrap();
        assert!(picture.width <= 320 && picture.height <= 240 && picture.width > 100);
        assert_eq!(picture.rgb.len() as u32, picture.width * picture.height * 3);
    }
    let taken_at = |screens: &Screens| screens[&key(&ids[0])].taken_at.unwrap();
    let started_at = Instant::now();
    while taken_at(&screens.borrow()) == taken_at(&both) {
        assert!(started_at.elapsed() < DEADLINE, "it is taken again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let interval = taken_at(&screens.borrow()) - taken_at(&both);
    assert!(interval >= Duration::from_secs(4), "{interval:?}");

    world.virsh(&["destroy", &ids[0]]);
    let one = timeout(DEADLINE, screens.wait_for(has_pictures(1))).await;
    let one = one.expect("one has ended").unwrap().clone();
    assert!(one.contains_key(&key(&ids[1])));
    engine.watch_screens(Vec::new());
    let none = screens.wait_for(|screens| screens.is_empty());
    timeout(DEADLINE, none)
        .await
        .expect("none is shown")
        .unwrap();
    engine.shutdown().await;
}
