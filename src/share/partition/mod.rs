//! The state of one share partition: which records of a partition a share group has still to process, who holds which
//! of them, and how often each was delivered. Pure: time and records' offsets come in as arguments.
//!
//! Owned and called by the registry, under the share partition's lock. Kafka's doors speak to it today; queues of other
//! protocols can, for nothing here knows a protocol.
//!
//! Everything before [`SharePartition::start`] is done. Everything from [`SharePartition::end`] on was never delivered.
//! What lies between is the window: runs of offsets in one state, so that a thousand records acquired at once cost one
//! entry. Runs cover the window without holes or overlaps, and neighbours differ.
//!
//! | state | becomes |
//! |---|---|
//! | available | acquired, by a delivery that counts |
//! | acquired | done, when its member accepts or rejects it; available, when it releases it or its lock runs out; done instead when it was delivered as often as it may |
//! | done | nothing any more |
//!
//! Invariants: the window holds at most as many offsets as the group's limit of locks, holes in the log apart; a change
//! that is refused changes nothing; a record that is done is never delivered again.
//!
//! Source: KIP-932; the behaviour of Apache Kafka 4's SharePartition. KIP-1206 (exact limits of records), KIP-1222
//! (renewal).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::model::ids::Offset;

mod stored;
#[cfg(test)]
mod tests;

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// With how often it was delivered already.
    Available(u16),
    Acquired(Lock),
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    member: Arc<str>,
    /// This delivery counted.
    deliveries: u16,
    /// On the clock that never goes back.
    until_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// Exclusive.
    end: Offset,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharePartition {
    start: Offset,
    end: Offset,
    /// By first offset.
    runs: BTreeMap<Offset, Run>,
}

/// The bounds that a group's settings put on a share partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Offsets in the window.
    pub locks_max: i64,
    /// How often a record is delivered at most.
    pub deliveries_max: u16,
}

/// A batch of the log, as far as delivery goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBatch {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// False for what no consumer may see: control batches, and aborted ones where the group reads committed.
    pub deliverable: bool,
}

/// Who acquires, and how much.
#[derive(Clone, Debug)]
pub struct Acquire<'a> {
    pub member: &'a Arc<str>,
    /// How many records are wanted.
    pub records_max: i64,
    /// Never more than that; else the last batch of the log is acquired whole.
    pub exact: bool,
    /// An acquired range ends with the batch that brings it to this many records. 0: no matter how long.
    pub range_records: i64,
    pub until_ms: i64,
}

/// Offsets that were acquired together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    pub first: Offset,
    /// Inclusive.
    pub last: Offset,
    pub deliveries: u16,
}

/// What a member says of a record that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acknowledgement {
    /// There is no record at this offset.
    Gap,
    Accept,
    Release,
    Reject,
    /// It needs more time.
    Renew,
}

impl Acknowledgement {
    /// As it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Acknowledgement::Gap => "gap",
            Acknowledgement::Accept => "accept",
            Acknowledgement::Release => "release",
            Acknowledgement::Reject => "reject",
            Acknowledgement::Renew => "renew",
        }
    }
}

/// One range of offsets that is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckBatch {
    pub first: Offset,
    /// Inclusive.
    pub last: Offset,
    /// One for all offsets, or one for each.
    pub kinds: Vec<Acknowledgement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AckError {
    #[error("the offsets are not ones that were acquired")]
    Invalid,
    #[error("a record is not acquired by this member")]
    RecordState,
}

/// What a change did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The stored form is another.
    pub stored: bool,
    /// There may be something to acquire where there was nothing: records came back, or the window moved.
    pub room: bool,
    /// Records that are done because they were delivered as often as they may be.
    pub archived: i64,
}

impl Changed {
    pub fn and(self, other: Changed) -> Changed {
        Changed {
            stored: self.stored || other.stored,
            room: self.room || other.room,
            archived: self.archived + other.archived,
        }
    }
}

impl SharePartition {
    /// Nothing before `start` is ever delivered.
    pub fn new(start: Offset) -> SharePartition {
        SharePartition { start, end: start, runs: BTreeMap::new() }
    }

    pub fn start(&self) -> Offset {
        self.start
    }

    pub fn end(&self) -> Offset {
        self.end
    }

    /// Where records to acquire are to be looked for; `None` while the window is full and all of it is held or done.
    pub fn next_offset(&self, bounds: Bounds) -> Option<Offset> {
        let back = self.runs.iter().find(|(_, run)| matches!(run.state, State::Available(_)));
        let more = || (self.end - self.start < bounds.locks_max).then_some(self.end);
        back.map(|(first, _)| *first).or_else(more)
    }

    /// Offsets that wait for their first or next delivery, below `log_end`.
    pub fn backlog(&self, log_end: Offset) -> i64 {
        let within = self.runs.iter().filter(|(_, run)| run.state != State::Done).map(|(first, run)| run.end - first);
        within.sum::<i64>() + (log_end - self.end).max(0)
    }

    /// Records before `log_start` are no longer there.
    pub fn trim(&mut self, log_start: Offset) -> Changed {
        if log_start <= self.start {
            return Changed::default();
        }
        self.cut(log_start);
        self.runs = self.runs.split_off(&log_start);
        self.start = log_start;
        self.end = self.end.max(log_start);
        self.advance();
        Changed { stored: true, room: true, archived: 0 }
    }

    /// Acquires what is available in `batches`, which are all that the log holds from `from` on, ascending. What it does
    /// not hold any more (compaction) is done.
    pub fn acquire(
        &mut self,
        from: Offset,
        batches: impl IntoIterator<Item = LogBatch>,
        want: &Acquire,
        bounds: Bounds,
    ) -> (Vec<Acquired>, Changed) {
        let mut taken = Taken { ranges: Vec::new(), records: 0, archived: 0, closed: false };
        let mut at = from.max(self.start);
        let mut passed = false;
        for batch in batches {
            if taken.records >= want.records_max {
                break;
            }
            if batch.base_offset >= self.end && self.is_full(bounds) {
                // What is gone from a full window makes room in it.
                passed |= self.pass(at..self.end);
                break;
            }
            passed |= self.pass(at..batch.base_offset);
            at = at.max(batch.base_offset);
            let mut end = batch.last_offset.saturating_add(1);
            if !batch.deliverable {
                passed |= self.pass(at..end);
                at = at.max(end);
                continue;
            }
            end = end.min(self.end.max(self.start.saturating_add(bounds.locks_max)));
            passed |= self.acquire_batch(at..end, want, bounds, &mut taken);
            at = at.max(end);
        }
        self.advance();
        (taken.ranges, Changed { stored: passed, room: passed, archived: taken.archived })
    }

    fn is_full(&self, bounds: Bounds) -> bool {
        self.end - self.start >= bounds.locks_max
    }

    /// Acquires what is available of one batch. True if something is done instead, delivered often enough.
    fn acquire_batch(&mut self, offsets: Range<Offset>, want: &Acquire, bounds: Bounds, taken: &mut Taken) -> bool {
        let mut passed = false;
        taken.begin_batch(want.range_records);
        for (piece, deliveries) in self.available(offsets) {
            if deliveries >= bounds.deliveries_max {
                taken.archived += piece.end - piece.start;
                passed |= self.pass(piece);
                continue;
            }
            let room = if want.exact { want.records_max - taken.records } else { i64::MAX };
            let piece = piece.start..piece.end.min(piece.start.saturating_add(room));
            if piece.is_empty() {
                break;
            }
            let lock = Lock { member: want.member.clone(), deliveries: deliveries + 1, until_ms: want.until_ms };
            taken.add(&piece, lock.deliveries);
            self.set(piece, State::Acquired(lock));
        }
        passed
    }

    /// The parts of `offsets` that can be acquired, with their counts of deliveries.
    fn available(&self, offsets: Range<Offset>) -> Vec<(Range<Offset>, u16)> {
        let mut found = Vec::new();
        for (first, run) in self.runs_within(&offsets) {
            if let State::Available(deliveries) = run.state {
                found.push(((*first).max(offsets.start)..run.end.min(offsets.end), deliveries));
            }
        }
        let fresh = offsets.start.max(self.end)..offsets.end;
        if !fresh.is_empty() {
            found.push((fresh, 0));
        }
        found
    }

    /// There is nothing to deliver at `offsets`. True if that changed something.
    fn pass(&mut self, offsets: Range<Offset>) -> bool {
        let pieces = self.available(offsets);
        let any = !pieces.is_empty();
        pieces.into_iter().for_each(|(piece, _)| self.set(piece, State::Done));
        any
    }

    /// Takes what `member` says of records that it holds: all of it, or nothing and why. `renewed_until_ms` is for
    /// those that it needs more time for.
    pub fn acknowledge(
        &mut self,
        member: &str,
        batches: &[AckBatch],
        bounds: Bounds,
        renewed_until_ms: i64,
    ) -> Result<Changed, AckError> {
        self.check(member, batches)?;
        let before = self.start;
        let mut changed = Changed::default();
        for batch in batches {
            for (offsets, kind) in batch.ranges() {
                let offsets = offsets.start.max(self.start)..offsets.end;
                changed.stored |= kind != Acknowledgement::Renew;
                changed.room |= kind == Acknowledgement::Release;
                if kind == Acknowledgement::Release {
                    changed.archived += self.exhausted(&offsets, bounds);
                }
                self.change(offsets, |lock| match kind {
                    Acknowledgement::Gap | Acknowledgement::Accept | Acknowledgement::Reject => State::Done,
                    Acknowledgement::Release => lock.given_back(bounds),
                    Acknowledgement::Renew => {
                        State::Acquired(Lock { until_ms: renewed_until_ms.max(lock.until_ms), ..lock.clone() })
                    }
                });
            }
        }
        self.advance();
        changed.room |= self.start != before;
        Ok(changed)
    }

    /// Offsets before the start are done, whatever is said of them: an acknowledgement may cross a trim of the log.
    fn check(&self, member: &str, batches: &[AckBatch]) -> Result<(), AckError> {
        let held = |run: &Run| matches!(&run.state, State::Acquired(lock) if *lock.member == *member);
        let mut after = Offset::MIN;
        for batch in batches {
            let count = i128::from(batch.last) - i128::from(batch.first) + 1;
            let told = batch.kinds.len() as i128;
            if batch.first < after || count < 1 || (told != 1 && told != count) {
                return Err(AckError::Invalid);
            }
            after = batch.last.saturating_add(1);
            if batch.last < self.start {
                continue;
            }
            if batch.last >= self.end {
                return Err(AckError::Invalid);
            }
            let offsets = batch.first.max(self.start)..after;
            if !self.runs_within(&offsets).all(|(_, run)| held(run)) {
                return Err(AckError::RecordState);
            }
        }
        Ok(())
    }

    /// Gives back what `member` holds, as if it had never been delivered: it went away before it was processed.
    pub fn release_member(&mut self, member: &str) -> Changed {
        self.release(|lock| (*lock.member == *member).then(|| State::Available(lock.deliveries.saturating_sub(1))))
    }

    /// Gives back what was held for too long.
    pub fn expire(&mut self, now_ms: i64, bounds: Bounds) -> Changed {
        self.release(|lock| (lock.until_ms <= now_ms).then(|| lock.given_back(bounds)))
    }

    /// Records that are held by members.
    pub fn acquired(&self) -> i64 {
        let held = self.runs.iter().filter(|(_, run)| matches!(run.state, State::Acquired(_)));
        held.map(|(first, run)| run.end - first).sum()
    }

    /// How many of `offsets` are held and were delivered as often as they may be.
    fn exhausted(&self, offsets: &Range<Offset>, bounds: Bounds) -> i64 {
        let runs = self.runs_within(offsets).filter(|(_, run)| match &run.state {
            State::Acquired(lock) => lock.deliveries >= bounds.deliveries_max,
            State::Available(_) | State::Done => false,
        });
        runs.map(|(first, run)| run.end.min(offsets.end) - (*first).max(offsets.start)).sum()
    }

    /// When the next lock runs out.
    pub fn next_expiry(&self) -> Option<i64> {
        let locks = self.runs.values().filter_map(|run| match &run.state {
            State::Acquired(lock) => Some(lock.until_ms),
            State::Available(_) | State::Done => None,
        });
        locks.min()
    }

    fn release(&mut self, becomes: impl Fn(&Lock) -> Option<State>) -> Changed {
        let (mut any, mut archived) = (false, 0);
        for (first, run) in &mut self.runs {
            if let State::Acquired(lock) = &run.state
                && let Some(state) = becomes(lock)
            {
                if state == State::Done {
                    archived += run.end - first;
                }
                run.state = state;
                any = true;
            }
        }
        if any {
            self.join(self.start..self.end);
            self.advance();
        }
        Changed { stored: any, room: any, archived }
    }

    // The runs.

    /// The runs that hold any of `offsets`.
    fn runs_within(&self, offsets: &Range<Offset>) -> impl Iterator<Item = (&Offset, &Run)> {
        let first = self.runs.range(..=offsets.start).next_back().map_or(offsets.start, |(first, _)| *first);
        let (start, end) = (offsets.start, offsets.end.max(first));
        self.runs.range(first..end).filter(move |(_, run)| run.end > start)
    }

    /// Puts `offsets` into one state; the window grows to hold them.
    fn set(&mut self, offsets: Range<Offset>, state: State) {
        if offsets.is_empty() {
            return;
        }
        self.cut(offsets.start);
        self.cut(offsets.end);
        let inner: Vec<Offset> = self.runs.range(offsets.clone()).map(|(first, _)| *first).collect();
        inner.iter().for_each(|first| drop(self.runs.remove(first)));
        self.end = self.end.max(offsets.end);
        self.runs.insert(offsets.start, Run { end: offsets.end, state });
        self.join(offsets);
    }

    /// Changes the locks on `offsets`.
    fn change(&mut self, offsets: Range<Offset>, mut becomes: impl FnMut(&Lock) -> State) {
        if offsets.is_empty() {
            return;
        }
        self.cut(offsets.start);
        self.cut(offsets.end);
        for (_, run) in self.runs.range_mut(offsets.clone()) {
            if let State::Acquired(lock) = &run.state {
                run.state = becomes(lock);
            }
        }
        self.join(offsets);
    }

    /// Has a run end at `offset`, where one spans it.
    fn cut(&mut self, offset: Offset) {
        let Some((_, run)) = self.runs.range_mut(..offset).next_back() else { return };
        if run.end > offset {
            let rest = Run { end: run.end, state: run.state.clone() };
            run.end = offset;
            self.runs.insert(offset, rest);
        }
    }

    /// Makes one of neighbours in the same state, within `offsets` and at its ends.
    fn join(&mut self, offsets: Range<Offset>) {
        let mut at = self.runs.range(..offsets.start).next_back().map_or(offsets.start, |(first, _)| *first);
        while at < offsets.end {
            let Some(next) = self.runs.get(&at).map(|run| run.end) else { return };
            let same = self.runs.get(&at).map(|run| &run.state) == self.runs.get(&next).map(|run| &run.state);
            if !same {
                at = next;
                continue;
            }
            let end = self.runs.remove(&next).map(|run| run.end);
            if let (Some(run), Some(end)) = (self.runs.get_mut(&at), end) {
                run.end = end;
            }
        }
    }

    /// Leaves behind what is done at the start of the window.
    fn advance(&mut self) {
        while let Some(first) = self.runs.first_entry() {
            if first.get().state != State::Done {
                return;
            }
            self.start = first.remove().end;
        }
        self.start = self.end;
    }
}

impl Lock {
    /// The state of what was delivered and not processed.
    fn given_back(&self, bounds: Bounds) -> State {
        if self.deliveries >= bounds.deliveries_max { State::Done } else { State::Available(self.deliveries) }
    }
}

impl AckBatch {
    /// What is said, as ranges of which one thing is said.
    pub fn ranges(&self) -> Vec<(Range<Offset>, Acknowledgement)> {
        if let [kind] = self.kinds[..] {
            return vec![(self.first..self.last.saturating_add(1), kind)];
        }
        let mut ranges: Vec<(Range<Offset>, Acknowledgement)> = Vec::new();
        for (offset, kind) in (self.first..).zip(&self.kinds) {
            match ranges.last_mut() {
                Some((range, last)) if last == kind => range.end = offset + 1,
                _ => ranges.push((offset..offset + 1, *kind)),
            }
        }
        ranges
    }
}

/// What an acquisition has so far.
struct Taken {
    ranges: Vec<Acquired>,
    records: i64,
    archived: i64,
    /// The last range is long enough.
    closed: bool,
}

impl Taken {
    /// A range that is long enough ends with its batch.
    fn begin_batch(&mut self, range_records: i64) {
        let long = self.ranges.last().is_some_and(|last| last.last - last.first + 1 >= range_records);
        self.closed = range_records > 0 && long;
    }

    fn add(&mut self, offsets: &Range<Offset>, deliveries: u16) {
        self.records += offsets.end - offsets.start;
        let acquired = Acquired { first: offsets.start, last: offsets.end - 1, deliveries };
        match self.ranges.last_mut() {
            Some(last) if !self.closed && last.deliveries == deliveries && last.last + 1 == acquired.first => {
                last.last = acquired.last;
            }
            _ => self.ranges.push(acquired),
        }
        self.closed = false;
    }
}
