//! A store in memory: the same contract as [`super::rocks`], with faults, crashes and stopped time on demand.
//!
//! Used by the tests of every layer above, which observe through it what cannot be provoked on a disk: a commit that
//! fails or whose outcome is unknown, what is left after a killed process or a power cut, the moment between an append and
//! its durability. Nothing is ever written anywhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{Batch, Family, Figures, Op, Page, Scan, Start, Store, StoreError, Volume};

/// Small enough for a test to roll often.
const EPOCH_BYTES_MAX: usize = 1024 * 1024;

pub struct MemoryStore {
    state: Mutex<State>,
    gate: Arc<Gate>,
    epoch_bytes_max: usize,
}

#[derive(Default)]
struct State {
    contents: Contents,
    /// What a power cut leaves: `contents` as of the last synced commit.
    synced: Contents,
    /// Committed since then.
    unsynced: Vec<Op>,
    /// Answers of the next commits.
    faults: VecDeque<StoreError>,
    rolls: usize,
    closed: bool,
}

#[derive(Clone, Default)]
struct Contents {
    log: BTreeMap<Bytes, Bytes>,
    meta: BTreeMap<Bytes, Bytes>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    holds: usize,
    waiting: usize,
}

/// While this lives, commits wait before anything of them happens; reads go on.
pub struct HeldCommits(Arc<Gate>);

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::with_epoch_bytes_max(EPOCH_BYTES_MAX)
    }

    pub fn with_epoch_bytes_max(epoch_bytes_max: usize) -> MemoryStore {
        MemoryStore { state: Mutex::default(), gate: Arc::default(), epoch_bytes_max }
    }

    /// The next `n` commits answer `error`. [`StoreError::Unknown`] commits nevertheless (whoever hears of it may not
    /// count on either outcome; the one that surprises is that it was done), the others change nothing.
    pub fn fail_next_commits(&self, n: usize, error: StoreError) {
        self.state.lock().faults.extend(std::iter::repeat_n(error, n));
    }

    /// What a store opened anew would hold: after a killed process everything committed (`synced_only` false), after a
    /// power cut everything up to the last synced commit or close. Faults and holds do not survive.
    pub fn survivor(&self, synced_only: bool) -> MemoryStore {
        let state = self.state.lock();
        let contents = if synced_only { &state.synced } else { &state.contents };
        let survived = State { contents: contents.clone(), synced: contents.clone(), ..State::default() };
        MemoryStore { state: Mutex::new(survived), gate: Arc::default(), epoch_bytes_max: self.epoch_bytes_max }
    }

    /// Stops every commit at its door until the answer is dropped.
    pub fn hold_commits(&self) -> HeldCommits {
        self.gate.state.lock().holds += 1;
        HeldCommits(self.gate.clone())
    }

    /// How often [`Store::roll`] was called.
    pub fn rolls(&self) -> usize {
        self.state.lock().rolls
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl HeldCommits {
    /// Blocks until a commit waits at the door.
    pub fn wait_for_commit(&self) {
        let mut state = self.0.state.lock();
        self.0.changed.wait_while(&mut state, |state| state.waiting == 0);
    }
}

impl Drop for HeldCommits {
    fn drop(&mut self) {
        self.0.state.lock().holds -= 1;
        self.0.changed.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        if state.holds == 0 {
            return;
        }
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.holds > 0);
        state.waiting -= 1;
    }
}

impl Contents {
    fn family(&self, family: Family) -> &BTreeMap<Bytes, Bytes> {
        match family {
            Family::Log => &self.log,
            Family::Meta => &self.meta,
        }
    }

    fn family_mut(&mut self, family: Family) -> &mut BTreeMap<Bytes, Bytes> {
        match family {
            Family::Log => &mut self.log,
            Family::Meta => &mut self.meta,
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Put { family, key, value } => {
                self.family_mut(*family).insert(key.clone(), value.clone());
            }
            Op::Delete { family, key } => {
                self.family_mut(*family).remove(key);
            }
            Op::DeleteRange { from, to } => remove_range(&mut self.meta, from, to),
        }
    }
}

impl State {
    fn sync(&mut self) {
        for op in self.unsynced.drain(..) {
            self.synced.apply(&op);
        }
    }

    /// As if every entry had been in a file of its own.
    fn drop_log(&mut self, from: &[u8], to: &[u8]) {
        remove_range(&mut self.contents.log, from, to);
        remove_range(&mut self.synced.log, from, to);
        self.unsynced.retain(|op| match op {
            Op::Put { family: Family::Log, key, .. } => key < from || key >= to,
            _ => true,
        });
    }
}

fn remove_range(map: &mut BTreeMap<Bytes, Bytes>, from: &[u8], to: &[u8]) {
    if from < to {
        let mut kept_above = map.split_off(from).split_off(to);
        map.append(&mut kept_above);
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.gate.pass();
        let mut state = self.state.lock();
        if state.closed {
            return Err(StoreError::NotDone("the store is closed".into()));
        }
        let fault = state.faults.pop_front();
        if let Some(error @ (StoreError::NotDone(_) | StoreError::Corrupt(_))) = fault {
            return Err(error);
        }
        for op in &batch.ops {
            state.contents.apply(op);
        }
        state.unsynced.extend_from_slice(&batch.ops);
        if sync && fault.is_none() {
            state.sync();
        }
        fault.map_or(Ok(()), Err)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state.lock().contents.family(family).get(key).cloned())
    }

    fn scan(&self, scan: &Scan) -> Result<Page, StoreError> {
        let state = self.state.lock();
        let map = state.contents.family(scan.family);
        let from = match &scan.start {
            Start::At(key) => key,
            Start::AtOrBefore { key, floor } if floor <= key => {
                map.range(floor.clone()..=key.clone()).next_back().map_or(key, |(found, _)| found)
            }
            Start::AtOrBefore { key, .. } => key,
        };
        let mut page = Page::default();
        if *from >= scan.end {
            return Ok(page);
        }
        let mut bytes = 0;
        for (key, value) in map.range(from.clone()..scan.end.clone()) {
            bytes += value.len();
            if bytes > scan.bytes_max && !page.entries.is_empty() {
                page.more = true;
                page.beyond = Some((key.clone(), value.clone()));
                break;
            }
            page.entries.push((key.clone(), value.clone()));
            if page.entries.len() >= scan.entries_max || bytes >= scan.bytes_max {
                page.more = true;
                break;
            }
        }
        Ok(page)
    }

    fn epoch_bytes_max(&self) -> usize {
        self.epoch_bytes_max
    }

    fn epoch_is_full(&self, epoch_bytes: usize) -> bool {
        epoch_bytes >= self.epoch_bytes_max
    }

    fn roll(&self) -> Result<(), StoreError> {
        self.state.lock().rolls += 1;
        Ok(())
    }

    fn drop_range(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.state.lock().drop_log(from, to);
        Ok(())
    }

    fn figures(&self) -> Figures {
        let state = self.state.lock();
        let bytes =
            |family: &BTreeMap<Bytes, Bytes>| family.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        // What the log holds stands for its files, so that layers above see their space come back.
        let (file_bytes, memtable_bytes) = (bytes(&state.contents.log), bytes(&state.contents.meta));
        Figures { file_bytes, memtable_bytes, ..Figures::default() }
    }

    fn volume(&self) -> Option<Volume> {
        None
    }

    fn close(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.sync();
        state.closed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> Batch {
        let mut batch = Batch::default();
        batch.put(Family::Log, key, key);
        batch
    }

    fn has(store: &MemoryStore, key: &str) -> bool {
        store.get(Family::Log, key.as_bytes()).unwrap().is_some()
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced() {
        let store = MemoryStore::new();
        store.commit(&put("a"), false).unwrap();
        store.commit(&put("b"), true).unwrap();
        store.commit(&put("c"), false).unwrap();
        store.roll().unwrap();
        let power_cut = store.survivor(true);
        assert!(has(&power_cut, "a") && has(&power_cut, "b") && !has(&power_cut, "c"));
        assert!(has(&store.survivor(false), "c"));
        store.close().unwrap();
        assert!(has(&store.survivor(true), "c"));
        assert!(matches!(store.commit(&put("d"), false), Err(StoreError::NotDone(_))));
    }

    #[test]
    fn a_commit_of_unknown_outcome_is_there_unless_the_power_fails() {
        let store = MemoryStore::new();
        store.fail_next_commits(1, StoreError::NotDone("full".into()));
        store.fail_next_commits(1, StoreError::Unknown("gone".into()));
        assert!(matches!(store.commit(&put("a"), true), Err(StoreError::NotDone(_))));
        assert!(matches!(store.commit(&put("b"), true), Err(StoreError::Unknown(_))));
        assert!(!has(&store, "a") && has(&store, "b") && !has(&store.survivor(true), "b"));
        store.commit(&put("c"), true).unwrap();
    }

    #[test]
    fn held_commits_wait_and_reads_do_not() {
        let store = Arc::new(MemoryStore::new());
        let held = store.hold_commits();
        let committer = std::thread::spawn({
            let store = store.clone();
            move || store.commit(&put("a"), true)
        });
        held.wait_for_commit();
        assert!(!has(&store, "a"));
        drop(held);
        committer.join().unwrap().unwrap();
        assert!(has(&store, "a"));
    }
}
