//! Getting values onto the disk: at once where somebody waits for it, and early where nobody does.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::file::BlobFile;

/// What is written may lie on no disk yet.
#[derive(Default)]
pub struct Dirty {
    files: Mutex<Vec<Arc<BlobFile>>>,
    /// One syncs at a time, since the system tells of a failure only once.
    turn: Mutex<()>,
    /// After a failed sync the system may take for written what is not. So the first failure is the last word.
    pub failure: OnceLock<String>,
}

impl Dirty {
    pub fn add(&self, file: &Arc<BlobFile>) {
        let mut files = self.files.lock();
        if !files.iter().any(|other| Arc::ptr_eq(other, file)) {
            files.push(file.clone());
        }
    }

    /// Files that are gone.
    pub fn leave_out(&self, gone: &[Arc<BlobFile>]) {
        self.files.lock().retain(|file| !gone.iter().any(|gone| Arc::ptr_eq(file, gone)));
    }

    /// Not on the disk yet.
    pub fn bytes(&self) -> u64 {
        self.files.lock().iter().map(|file| file.unsynced()).sum()
    }

    /// Syncs all there is by now, or some of it if `leaving` is set meanwhile.
    pub fn sync(&self, leaving: &AtomicBool) -> io::Result<()> {
        let _turn = self.turn.lock();
        let files = self.files.lock().clone();
        for file in files {
            if leaving.load(Ordering::Acquire) {
                break;
            }
            if let Err(error) = file.sync() {
                let _ = self.failure.set(error.to_string());
            }
        }
        self.files.lock().retain(|file| file.unsynced() > 0);
        match self.failure.get() {
            Some(failure) => Err(io::Error::other(format!("values could not be synced: {failure}"))),
            None => Ok(()),
        }
    }
}

/// Has the disk write while others append, so that a flush finds little left to wait for; and while RocksDB syncs.
pub struct Syncer {
    wake: Option<SyncSender<Option<Done>>>,
    leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

type Done = SyncSender<io::Result<()>>;

/// A sync under way.
pub struct Syncing(Option<Receiver<io::Result<()>>>);

impl Syncing {
    /// Nothing was to be synced.
    pub fn done() -> Syncing {
        Syncing(None)
    }

    pub fn wait(self) -> io::Result<()> {
        self.0.map_or(Ok(()), |done| done.recv().unwrap_or_else(|_| Err(io::Error::other("nobody syncs any more"))))
    }
}

impl Syncer {
    pub fn start(dirty: Arc<Dirty>) -> io::Result<Syncer> {
        // One wake waiting is enough: it covers all that is dirty by then.
        let (wake, woken) = sync_channel::<Option<Done>>(1);
        let leaving = Arc::new(AtomicBool::new(false));
        let left = leaving.clone();
        let work = move || {
            while let Ok(done) = woken.recv() {
                let outcome = dirty.sync(&left);
                // Where nobody waits, who commits next meets the failure.
                let _ = done.map(|done| done.send(outcome));
            }
        };
        let thread = std::thread::Builder::new().name("blob-sync".into()).spawn(work)?;
        Ok(Syncer { wake: Some(wake), leaving, thread: Some(thread) })
    }

    pub fn wake(&self) {
        // A full channel will wake it anyway.
        let _ = self.wake.as_ref().map(|wake| wake.try_send(None));
    }

    pub fn begin(&self) -> Syncing {
        let (done, outcome) = sync_channel(1);
        // One that is gone is met by who waits.
        let _ = self.wake.as_ref().map(|wake| wake.send(Some(done)));
        Syncing(Some(outcome))
    }
}

/// Leaves unsynced what nobody has asked for: as a killed process does.
impl Drop for Syncer {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Release);
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // It only ends early by a panic, which has been reported.
            let _ = thread.join();
        }
    }
}
