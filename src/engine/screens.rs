//! Thumbnails of the screens of several sandboxes, taken in turn while a front end shows them. They are published separately
//! from the view.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::time::sleep;

use super::state::{Engine, Inner};
use super::view::{Link, View};
use snapdeck_host::Thumbnail;
use snapdeck_model::{Error, HostName, Kind, Picture, Result, SandboxId};

/// Largest width and height of a thumbnail, in pixels.
const SIZE: (u32, u32) = (320, 240);
/// Shortest interval of the thumbnails of one sandbox.
const SCREEN_INTERVAL: Duration = Duration::from_secs(4);
/// Parts of the time that thumbnails may take: of a CPU, also while the first ones are taken, and of the connection.
const CPU_SHARE: u32 = 80;
const FIRST_CPU_SHARE: u32 = 10;
const TIME_SHARE: u32 = 2;
/// Wait before a screen that could not be shown is tried again, and before a host that does not answer is.
const ERROR_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// For a change of states or of the hosts that answer, if no screen is due.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);

/// A sandbox of a host.
pub type ScreenKey = (HostName, SandboxId);

/// The last thumbnails, by sandbox.
pub type Screens = BTreeMap<ScreenKey, Screen>;

/// The screen of a sandbox.
#[derive(Debug, Clone)]
pub struct Screen {
    /// The last thumbnail, at most 320 x 240 pixels.
    pub picture: Option<Arc<Picture>>,
    /// Time of the last look at the screen; `picture` was still right then.
    pub taken_at: Option<Instant>,
    /// Why the last attempt failed.
    pub error: Option<Error>,
}

impl Engine {
    /// Selects the sandboxes whose screens are shown; an empty list ends that. Those without a QEMU process are skipped.
    /// Cheap if it is the same list.
    pub fn watch_screens(&self, targets: Vec<ScreenKey>) {
        self.inner.watch_screens.send_if_modified(|old| {
            let differs = *old != targets;
            *old = targets;
            differs
        });
    }

    /// Returns a receiver of the thumbnails of the selected sandboxes: one is taken at a time, each at most every 4 s, and
    /// less often if they take more than 1/80 of a CPU. It wakes only if a screen has changed.
    pub fn screens(&self) -> watch::Receiver<Arc<Screens>> {
        self.inner.screens.subscribe()
    }
}

/// Takes thumbnails of the selected sandboxes until the engine ends.
pub(super) async fn take_thumbnails(inner: Arc<Inner>) {
    let mut targets = inner.watch_screens.subscribe();
    let mut turns = Turns::default();
    loop {
        let selected = targets.borrow_and_update().clone();
        turns.select(&selected);
        turns.publish(&inner);
        let taking: BoxFuture<()> = match selected.is_empty() {
            true => pending().boxed(),
            false => take_turns(&inner, &mut turns).boxed(),
        };
        tokio::select! {
            () = taking => {}
            changed = targets.changed() => if changed.is_err() { return },
            () = inner.stop.cancelled() => return,
        }
    }
}

async fn take_turns(inner: &Inner, turns: &mut Turns) {
    loop {
        let view = inner.view.borrow().clone();
        if turns.remove_ended(&view) {
            turns.publish(inner);
        }
        let now = Instant::now();
        let Some((key, due_at)) = turns.next(&view, now) else {
            sleep(IDLE_INTERVAL).await;
            continue;
        };
        if due_at > now {
            sleep((due_at - now).min(IDLE_INTERVAL)).await;
            continue;
        }
        let is_first = turns.screens[&key].picture.is_none();
        let thumbnail = take_thumbnail(inner, &key, turns).await;
        let elapsed = now.elapsed();
        let cpu_time = thumbnail
            .as_ref()
            .map_or(Duration::ZERO, |thumbnail| thumbnail.cpu_time);
        if turns.record(&key, thumbnail, Instant::now()) {
            turns.publish(inner);
        } else {
            turns.publish_silently(inner);
        }
        let share = match is_first {
            true => FIRST_CPU_SHARE,
            false => CPU_SHARE,
        };
        sleep((cpu_time * share).max(elapsed * TIME_SHARE)).await;
    }
}

async fn take_thumbnail(
    inner: &Inner,
    (host, sandbox): &ScreenKey,
    turns: &Turns,
) -> Result<Thumbnail> {
    let key = (host.clone(), sandbox.clone());
    let previous = turns.screens.get(&key);
    let previous = previous.and_then(|screen| screen.picture.clone());
    let (_, host) = inner.find_host(host)?;
    host.sandboxes().thumbnail(sandbox, previous, SIZE).await
}

/// The selected screens, and when each is due.
#[derive(Default)]
struct Turns {
    selected: Vec<ScreenKey>,
    screens: Screens,
    due_at: HashMap<ScreenKey, Instant>,
}

impl Turns {
    /// Keeps the thumbnails that stay selected.
    fn select(&mut self, selected: &[ScreenKey]) {
        self.selected = selected.to_vec();
        self.screens.retain(|key, _| selected.contains(key));
        self.due_at.retain(|key, _| selected.contains(key));
    }

    /// Removes the thumbnails of sandboxes that have ended; returns whether there was one.
    fn remove_ended(&mut self, view: &View) -> bool {
        let before = self.screens.len();
        self.screens.retain(|key, _| is_active(view, key));
        self.screens.len() != before
    }

    /// Returns the screen that is due first, and adds it; `None` without a sandbox that has a screen on a host that answers.
    fn next(&mut self, view: &View, now: Instant) -> Option<(ScreenKey, Instant)> {
        let possible = self.selected.iter().filter(|key| {
            let host = view.host(&key.0);
            host.is_some_and(|host| host.link == Link::Up) && is_active(view, key)
        });
        // Those that were never taken come first, in their order.
        let due = possible.min_by_key(|key| self.due_at.get(*key).copied());
        let key = due?.clone();
        let empty = Screen {
            picture: None,
            taken_at: None,
            error: None,
        };
        self.screens.entry(key.clone()).or_insert(empty);
        let due_at = self.due_at.get(&key).copied();
        Some((key, due_at.unwrap_or(now)))
    }

    /// Records an attempt; returns whether a display has changed.
    fn record(&mut self, key: &ScreenKey, thumbnail: Result<Thumbnail>, now: Instant) -> bool {
        let Some(screen) = self.screens.get_mut(key) else {
            return false;
        };
        match thumbnail {
            Ok(Thumbnail { picture, .. }) => {
                let is_same = |old: &Arc<Picture>| Arc::ptr_eq(old, &picture);
                let changed =
                    !screen.picture.as_ref().is_some_and(is_same) || screen.error.is_some();
                screen.picture = Some(picture);
                (screen.taken_at, screen.error) = (Some(now), None);
                self.due_at.insert(key.clone(), now + SCREEN_INTERVAL);
                changed
            }
            Err(error) => {
                let retry_at = now + ERROR_RETRY_INTERVAL;
                if error.kind() == Kind::Unreachable {
                    let same_host = self.selected.iter().filter(|(host, _)| *host == key.0);
                    self.due_at
                        .extend(same_host.map(|key| (key.clone(), retry_at)));
                }
                self.due_at.insert(key.clone(), retry_at);
                let changed = screen.error.as_ref() != Some(&error);
                // The last picture stays if the host does not answer.
                if error.kind() != Kind::Unreachable {
                    screen.picture = None;
                }
                screen.error = Some(error);
                changed
            }
        }
    }

    fn publish(&self, inner: &Inner) {
        let is_empty = self.screens.is_empty();
        inner.screens.send_if_modified(|screens| {
            let changed = !(is_empty && screens.is_empty());
            *screens = Arc::new(self.screens.clone());
            changed
        });
    }

    fn publish_silently(&self, inner: &Inner) {
        inner.screens.send_if_modified(|screens| {
            *screens = Arc::new(self.screens.clone());
            false
        });
    }
}

fn is_active(view: &View, (host, id): &ScreenKey) -> bool {
    let sandboxes = view.host(host).map(|host| host.sandboxes.iter());
    let mut sandboxes = sandboxes.into_iter().flatten();
    sandboxes.any(|sandbox| sandbox.id == *id && sandbox.state.is_active())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::HostView;
    use snapdeck_model::{Sandbox, SandboxState};

    fn view(states: &[(&str, SandboxState)]) -> View {
        let sandbox = |(id, state): &(&str, SandboxState)| Sandbox {
            id: id.parse().unwrap(),
            state: *state,
            cpus: 1,
            memory_bytes: 1,
            autostart: false,
            chain: Vec::new(),
            variables: None,
        };
        let host = HostView {
            name: "alpha".parse().unwrap(),
            uri: String::new(),
            link: Link::Up,
            last_scan: None,
            sandboxes: states.iter().map(sandbox).collect(),
            snapshots: Arc::default(),
            locks: Arc::default(),
            partials: Arc::default(),
            running_method: None,
        };
        View {
            hosts: vec![Arc::new(host)],
            ..View::default()
        }
    }

    fn key(id: &str) -> ScreenKey {
        ("alpha".parse().unwrap(), id.parse().unwrap())
    }

    fn thumbnail(fingerprint: u64) -> Thumbnail {
        Thumbnail {
            picture: Arc::new(Picture {
                width: 1,
                height: 1,
                rgb: Arc::from([0, 0, 0]),
                fingerprint,
            }),
            cpu_time: Duration::ZERO,
        }
    }

    #[test]
    fn screens_are_taken_in_turn_and_unchanged_ones_are_not_published() {
        use SandboxState::{Paused, Running, ShutOff};
        let view = view(&[("a", Running), ("b", ShutOff), ("c", Paused)]);
        let mut turns = Turns::default();
        turns.select(&[key("a"), key("b"), key("c"), key("gone")]);
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let first = thumbnail(1);
        assert_eq!(turns.next(&view, now), Some((key("a"), now)));
        assert!(turns.record(&key("a"), Ok(first.clone()), at(0)));
        assert_eq!(turns.next(&view, now), Some((key("c"), now)));
        assert!(turns.record(&key("c"), Ok(thumbnail(2)), at(1)));
        assert_eq!(turns.next(&view, now), Some((key("a"), at(4))));
        assert!(
            !turns.record(&key("a"), Ok(first), at(4)),
            "it is unchanged"
        );
        assert_eq!(turns.screens[&key("a")].taken_at, Some(at(4)));
        assert_eq!(turns.next(&view, now), Some((key("c"), at(5))));
        let failed = || Error::new(Kind::Failed, "it has no screen");
        assert!(turns.record(&key("c"), Err(failed()), at(5)));
        assert!(!turns.record(&key("c"), Err(failed()), at(35)));
        assert_eq!(turns.next(&view, now), Some((key("a"), at(8))));
        assert_eq!(turns.screens.len(), 2);
        turns.select(&[key("c")]);
        assert_eq!(turns.screens.len(), 1);
    }

    #[test]
    fn a_host_that_does_not_answer_is_left_alone_and_its_pictures_stay() {
        use SandboxState::Running;
        let view = view(&[("a", Running), ("b", Running)]);
        let mut turns = Turns::default();
        turns.select(&[key("a"), key("b")]);
        let now = Instant::now();
        for id in ["a", "b"] {
            turns.next(&view, now).unwrap();
            turns.record(&key(id), Ok(thumbnail(1)), now);
        }
        let lost = Error::new(Kind::Unreachable, "no answer");
        assert!(turns.record(&key("a"), Err(lost), now));
        let (_, due_at) = turns.next(&view, now).unwrap();
        assert_eq!(due_at, now + ERROR_RETRY_INTERVAL);
        assert!(turns.screens[&key("a")].picture.is_some());
    }
}
