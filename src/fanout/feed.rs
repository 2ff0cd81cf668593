//! Events that are written once for all subscriptions that stand at the same place: at a shard's end, that is nearly all.
//! Called by [`Subscription`](super::Subscription), before it reads and after what it read was written.
//!
//! Invariants:
//! - A [`Feed`] is one shard's, and an event is given only for the very [`Name`] that it was held by, which tells all that
//!   its bytes depend on. Whether its records may still be shown is for the caller to see.
//! - It holds at most [`EVENTS_MAX`] events, each until every subscription of the moment may have had it, or the shard has
//!   got further, or one subscription is left. All feeds together hold no more bytes than their [`Room`] has; what does
//!   not fit is written for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::model::attributes::{Isolation, RecordDistribution};
use crate::model::ids::Offset;

/// Of one shard, all up to the same end: some read from further back, and some in another format.
const EVENTS_MAX: usize = 8;

/// What an event's bytes depend on, in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub from: Offset,
    /// One past the shard's last record that may be read.
    pub end: Offset,
    /// The door's own number for how it writes.
    pub format: u8,
    pub distribution: RecordDistribution,
    pub isolation: Isolation,
}

/// An event as it was written for one subscription.
#[derive(Clone, Debug)]
pub struct Written {
    pub body: Bytes,
    pub records: u64,
    /// Of keys and data.
    pub bytes: u64,
    pub(super) first: Offset,
    pub(super) oldest_append_ms: i64,
}

/// Memory for the events of all feeds.
pub(super) struct Room {
    bytes_max: usize,
    used: AtomicUsize,
}

impl Room {
    pub fn new(bytes_max: usize) -> Arc<Room> {
        Arc::new(Room { bytes_max, used: AtomicUsize::new(0) })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Room>, bytes: usize) -> Option<Share> {
        let share = Share { room: self.clone(), bytes };
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        // What was taken too much goes back with the share.
        (before.saturating_add(bytes) <= self.bytes_max).then_some(share)
    }
}

/// A part of the room, until it is dropped.
struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The events of one shard.
pub(super) struct Feed {
    room: Arc<Room>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    subscriptions: usize,
    held: Vec<Held>,
}

struct Held {
    name: Name,
    written: Written,
    /// Subscriptions that it was not given to yet, were they all to come for it.
    awaited: usize,
    _share: Share,
}

impl Feed {
    pub fn new(room: &Arc<Room>) -> Arc<Feed> {
        Arc::new(Feed { room: room.clone(), state: Mutex::default() })
    }

    pub fn join(&self) {
        self.state.lock().subscriptions += 1;
    }

    /// Whether it was the last subscription.
    pub fn leave(&self) -> bool {
        let mut state = self.state.lock();
        state.subscriptions = state.subscriptions.saturating_sub(1);
        if state.subscriptions <= 1 {
            state.held = Vec::new();
        }
        state.subscriptions == 0
    }

    /// For one subscription, which does not come for it again.
    pub fn take(&self, name: &Name) -> Option<Written> {
        let mut state = self.state.lock();
        let at = state.held.iter().position(|held| held.name == *name)?;
        let held = state.held.get_mut(at)?;
        held.awaited = held.awaited.saturating_sub(1);
        if held.awaited > 0 {
            return Some(held.written.clone());
        }
        Some(state.held.swap_remove(at).written)
    }

    /// Holds what one subscription has for the others.
    pub fn hold(&self, name: Name, written: &Written) {
        let mut state = self.state.lock();
        let awaited = state.subscriptions.saturating_sub(1);
        // The shard's end only goes on: nobody comes for what ends earlier.
        state.held.retain(|held| held.name.end >= name.end);
        let is_outdated = state.held.iter().any(|held| held.name.end > name.end);
        let is_held = state.held.iter().any(|held| held.name == name);
        if awaited == 0 || is_outdated || is_held || state.held.len() >= EVENTS_MAX {
            return;
        }
        let Some(share) = self.room.take(written.body.len()) else { return };
        state.held.push(Held { name, written: written.clone(), awaited, _share: share });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name {
        from: 10,
        end: 20,
        format: 0,
        distribution: RecordDistribution::PartitionKey,
        isolation: Isolation::Committed,
    };

    fn written(bytes: usize) -> Written {
        Written { body: vec![b'x'; bytes].into(), records: 10, bytes: 5, first: 10, oldest_append_ms: 0 }
    }

    fn feed(room: &Arc<Room>, subscriptions: usize) -> Arc<Feed> {
        let feed = Feed::new(room);
        (0..subscriptions).for_each(|_| feed.join());
        feed
    }

    #[test]
    fn an_event_is_given_for_its_very_name_only() {
        let feed = feed(&Room::new(1_000), 9);
        feed.hold(NAME, &written(100));
        for other in [
            Name { from: 11, ..NAME },
            Name { end: 21, ..NAME },
            Name { format: 1, ..NAME },
            Name { distribution: RecordDistribution::Auto, ..NAME },
            Name { isolation: Isolation::Uncommitted, ..NAME },
        ] {
            assert!(feed.take(&other).is_none(), "{other:?}");
        }
        assert_eq!(feed.take(&NAME).map(|written| written.body.len()), Some(100));
    }

    #[test]
    fn it_is_held_until_all_have_had_it() {
        let room = Room::new(1_000);
        let feed = feed(&room, 3);
        feed.hold(NAME, &written(100));
        feed.hold(NAME, &written(100));
        assert_eq!((feed.take(&NAME).is_some(), room.used()), (true, 100));
        assert_eq!((feed.take(&NAME).is_some(), room.used()), (true, 0));
        assert!(feed.take(&NAME).is_none());
    }

    #[test]
    fn one_subscription_has_nobody_to_hold_for() {
        let room = Room::new(1_000);
        let feed = feed(&room, 1);
        feed.hold(NAME, &written(100));
        assert_eq!(room.used(), 0);
        feed.join();
        feed.hold(NAME, &written(100));
        assert_eq!(room.used(), 100);
        assert!(!feed.leave());
        assert_eq!(room.used(), 0);
        assert!(feed.leave());
    }

    #[test]
    fn a_later_end_takes_the_place_of_an_earlier_one_and_not_the_other_way() {
        let room = Room::new(1_000);
        let feed = feed(&room, 5);
        feed.hold(NAME, &written(100));
        let later = Name { from: 20, end: 30, ..NAME };
        feed.hold(later, &written(200));
        assert_eq!((feed.take(&NAME).is_none(), room.used()), (true, 200));
        feed.hold(NAME, &written(100));
        assert_eq!((feed.take(&NAME).is_none(), room.used()), (true, 200));
        assert!(feed.take(&later).is_some());
    }

    #[test]
    fn what_is_held_is_bounded() {
        let room = Room::new(1_000);
        let (one, other) = (feed(&room, 5), feed(&room, 5));
        one.hold(NAME, &written(600));
        other.hold(NAME, &written(401));
        assert_eq!((other.take(&NAME).is_none(), room.used()), (true, 600));
        other.hold(NAME, &written(400));
        assert_eq!((other.take(&NAME).is_some(), room.used()), (true, 1_000));
        drop(one);
        assert_eq!(room.used(), 400);
        (0..100).for_each(|from| other.hold(Name { from, ..NAME }, &written(1)));
        assert_eq!(room.used(), 400 + EVENTS_MAX - 1);
    }
}
