//! The data folder itself: who holds it, and the volume it is on.
//!
//! The lock is on `anabranch.lock`, which holds the owner's process id as text so that a second start can name it. The
//! system releases the lock with the process, however that ends; the file stays and means nothing without it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use tokio::sync::watch;

use super::{OpenError, Volume};

const LOCK_FILE: &str = "anabranch.lock";

/// Holds the folder, or shares it with others who look, until it is dropped.
pub(super) struct FolderLock {
    file: File,
    held: watch::Sender<()>,
}

/// Tells when a folder is free again.
pub struct Released(watch::Receiver<()>);

impl Released {
    pub async fn wait(mut self) {
        // Nothing is ever sent: the wait ends with the sender.
        while self.0.changed().await.is_ok() {}
    }
}

impl FolderLock {
    pub(super) fn acquire(dir: &Path) -> Result<FolderLock, OpenError> {
        let unusable = |error: io::Error| OpenError::Unusable {
            folder: dir.to_path_buf(),
            reason: format!("{LOCK_FILE}: {error}"),
        };
        // Not truncated by opening: the holder's process id must stay for us to read.
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(dir.join(LOCK_FILE)).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Held { pid: holder(&mut file) }),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
        Ok(FolderLock { file, held: watch::Sender::new(()) })
    }

    /// Keeps a broker from the folder, beside others who only look, and writes nothing. None where nothing was ever
    /// locked: a copy without the file.
    pub(super) fn share(dir: &Path) -> Result<Option<FolderLock>, OpenError> {
        let unusable = |error: io::Error| OpenError::Unusable {
            folder: dir.to_path_buf(),
            reason: format!("{LOCK_FILE}: {error}"),
        };
        let mut file = match File::open(dir.join(LOCK_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(FolderLock { file, held: watch::Sender::new(()) })),
            Err(TryLockError::WouldBlock) => Err(OpenError::Held { pid: holder(&mut file) }),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    pub(super) fn released(&self) -> Released {
        Released(self.held.subscribe())
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file is not enough while a process being started holds a copy of it. Should this fail, the lock
        // goes with the last copy.
        let _ = self.file.unlock();
    }
}

/// The process id in a lock file; none while its new owner has not written it yet.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// How large the volume of `dir` is; None where the system does not say.
#[cfg(unix)]
pub(super) fn volume(dir: &Path) -> Option<Volume> {
    use std::ffi::CString;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;

    let path = CString::new(dir.as_os_str().as_bytes()).ok()?;
    let mut told = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends with a zero byte and the structure is writable, both for as long as the call takes.
    let outcome = unsafe { libc::statvfs(path.as_ptr(), told.as_mut_ptr()) };
    if outcome != 0 {
        return None;
    }
    // SAFETY: all its fields are numbers, for which zeros are values, and the call has filled them in.
    let told = unsafe { told.assume_init() };
    // Some systems have narrower numbers here.
    #[allow(clippy::unnecessary_cast)]
    let (block, total, usable) = (told.f_frsize as u64, told.f_blocks as u64, told.f_bavail as u64);
    Some(Volume { total_bytes: total.saturating_mul(block), usable_bytes: usable.saturating_mul(block) })
}

#[cfg(not(unix))]
pub(super) fn volume(_dir: &Path) -> Option<Volume> {
    None
}
