//! Alarms: when each of many things wants to be looked at again. Kept by the registries of groups, share groups and
//! transactions, each of which has a task that waits for the next one and looks at what is due.
//!
//! A thing has one alarm at most; where it stands is kept by the thing itself, under whose lock it is set and cleared.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Clock;

pub struct Alarms<K> {
    entries: Mutex<BTreeSet<(i64, K)>>,
    /// Rung when the first of `entries` has become an earlier one.
    earlier: Notify,
}

impl<K> Default for Alarms<K> {
    fn default() -> Alarms<K> {
        Alarms { entries: Mutex::new(BTreeSet::new()), earlier: Notify::new() }
    }
}

impl<K: Ord + Clone> Alarms<K> {
    /// Sees to it that `key` is due at `at` or before. One that stands earlier is left: who looks then sets it anew.
    pub fn set(&self, scheduled: &mut Option<i64>, at: i64, key: &K) {
        if scheduled.is_some_and(|scheduled| scheduled <= at) {
            return;
        }
        let mut entries = self.entries.lock();
        if let Some(later) = scheduled.replace(at) {
            entries.remove(&(later, key.clone()));
        }
        let entry = (at, key.clone());
        entries.insert(entry.clone());
        if entries.first() == Some(&entry) {
            self.earlier.notify_one();
        }
    }

    pub fn clear(&self, scheduled: &mut Option<i64>, key: &K) {
        if let Some(at) = scheduled.take() {
            self.entries.lock().remove(&(at, key.clone()));
        }
    }

    /// Takes out what is due at `now`, with when it was. Whoever looks at it says so: [`fired`].
    pub fn take_due(&self, now: i64) -> Vec<(i64, K)> {
        let mut entries = self.entries.lock();
        let mut due = Vec::new();
        while entries.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(entries.pop_first());
        }
        due
    }

    /// Returns when the first is due, or an earlier one than it was set meanwhile, or at `until`.
    pub async fn next(&self, clock: &Clock, until: Option<i64>) {
        let first = self.entries.lock().first().map(|(at, _)| *at);
        let next = first.into_iter().chain(until).min();
        tokio::select! {
            () = clock.sleep_until(next.unwrap_or_default()), if next.is_some() => {}
            () = self.earlier.notified() => {}
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }
}

/// The alarm that was set for `at` was taken out; the thing may have been given another since.
pub fn fired(scheduled: &mut Option<i64>, at: i64) {
    if *scheduled == Some(at) {
        *scheduled = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_has_one_alarm_that_only_moves_to_earlier() {
        let alarms = Alarms::default();
        let (mut a, mut b) = (None, None);
        alarms.set(&mut a, 20, &"a");
        alarms.set(&mut a, 30, &"a");
        alarms.set(&mut b, 15, &"b");
        alarms.set(&mut a, 10, &"a");
        assert_eq!((a, b, alarms.take_due(9)), (Some(10), Some(15), vec![]));
        assert_eq!(alarms.take_due(20), [(10, "a"), (15, "b")]);
        fired(&mut a, 10);
        alarms.set(&mut a, 40, &"a");
        fired(&mut a, 10);
        assert_eq!(a, Some(40), "another one than that which fired");
        alarms.clear(&mut a, &"a");
        assert!(a.is_none() && alarms.is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_an_earlier_one() {
        let (clock, alarms) = (Clock::manual(0), Alarms::default());
        alarms.set(&mut None, 50, &"late");
        alarms.next(&clock, None).await;
        let (wait, set) = (alarms.next(&clock, Some(100)), async { alarms.set(&mut None, 20, &"early") });
        tokio::join!(wait, set);
        clock.advance(20);
        alarms.next(&clock, None).await;
        assert_eq!(alarms.take_due(clock.tick_ms()), [(20, "early")]);
    }
}
