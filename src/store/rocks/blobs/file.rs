//! A file of values: reads and writes at positions, and how much of it is on the disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};

pub struct BlobFile {
    pub path: PathBuf,
    open: OnceLock<File>,
    /// Bytes of values, and how many of them are known to be on the disk.
    pub written: AtomicU64,
    synced: AtomicU64,
    /// The folder may not know it yet after a power cut.
    new: AtomicBool,
}

impl BlobFile {
    /// One that is there, or was just made. What of it is on the disk is not known.
    pub fn found(path: PathBuf, about: &fs::Metadata) -> BlobFile {
        let [written, synced] = [allocated(about), 0].map(AtomicU64::new);
        BlobFile { path, open: OnceLock::new(), written, synced, new: AtomicBool::new(about.len() == 0) }
    }

    pub fn opened(path: PathBuf, file: File, about: &fs::Metadata) -> BlobFile {
        BlobFile { open: OnceLock::from(file), ..BlobFile::found(path, about) }
    }

    pub fn file(&self) -> io::Result<&File> {
        match self.open.get() {
            Some(file) => Ok(file),
            None => {
                let file = File::open(&self.path)?;
                Ok(self.open.get_or_init(|| file))
            }
        }
    }

    pub fn unsynced(&self) -> u64 {
        self.written.load(Ordering::Acquire).saturating_sub(self.synced.load(Ordering::Acquire))
    }

    pub fn sync(&self) -> io::Result<()> {
        let written = self.written.load(Ordering::Acquire);
        if self.synced.load(Ordering::Acquire) < written {
            self.file()?.sync_data()?;
            if self.new.swap(false, Ordering::AcqRel) {
                self.path.ancestors().skip(1).take(2).try_for_each(sync_folder)?;
            }
            self.synced.fetch_max(written, Ordering::AcqRel);
        }
        Ok(())
    }
}

#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened, or a file's sync takes its name along.
#[cfg(not(unix))]
pub fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn allocated(about: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    about.blocks() * 512
}

#[cfg(not(unix))]
fn allocated(about: &fs::Metadata) -> u64 {
    about.len()
}

/// Has the system find room for bytes to come. Where it does not, it finds some for each write.
#[cfg(target_os = "linux")]
pub fn reserve(file: &File, position: u64, len: u64) {
    fallocate(file, 0, position, len);
}

/// Gives back room in which nothing was written: it is a hole then.
#[cfg(target_os = "linux")]
pub fn release(file: &File, position: u64, len: u64) {
    fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, position, len);
}

#[cfg(target_os = "linux")]
fn fallocate(file: &File, mode: libc::c_int, position: u64, len: u64) {
    use std::os::fd::AsRawFd;

    let (Ok(position), Ok(len)) = (position.try_into(), len.try_into()) else { return };
    // SAFETY: the descriptor is open for as long as the call takes. Not every file system can do it, and none has to.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, position, len) };
}

#[cfg(not(target_os = "linux"))]
pub fn reserve(_file: &File, _position: u64, _len: u64) {}

#[cfg(not(target_os = "linux"))]
pub fn release(_file: &File, _position: u64, _len: u64) {}

#[cfg(unix)]
pub fn write_all_at(file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    file.write_all_at(bytes, position)
}

#[cfg(windows)]
pub fn write_all_at(file: &File, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        match file.seek_write(bytes, position)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => (bytes, position) = (&bytes[written..], position + written as u64),
        }
    }
    Ok(())
}

/// Exactly `len` bytes. A length that the file cannot hold is refused before there is memory for it.
pub fn read_at(file: &File, len: usize, position: u64) -> io::Result<Bytes> {
    if position.saturating_add(len as u64) > file.metadata()?.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut out = BytesMut::with_capacity(len);
    while out.len() < len {
        let more = (len - out.len(), position + out.len() as u64);
        match read_some(file, &mut out, more.0, more.1) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(out.freeze())
}

/// Appends at most `len` bytes, for which `out` has room, without first filling that with zeros.
#[cfg(unix)]
fn read_some(file: &File, out: &mut BytesMut, len: usize, position: u64) -> io::Result<usize> {
    use std::os::fd::AsRawFd;

    let room = out.spare_capacity_mut();
    let len = len.min(room.len());
    let position = libc::off_t::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open for as long as the call takes, and `len` bytes from there on are writable.
    let read = unsafe { libc::pread(file.as_raw_fd(), room.as_mut_ptr().cast(), len, position) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the call has written so many bytes behind those that were there, and no more than there is room for.
    unsafe { out.set_len(out.len() + read) };
    Ok(read)
}

#[cfg(windows)]
fn read_some(file: &File, out: &mut BytesMut, len: usize, position: u64) -> io::Result<usize> {
    use std::os::windows::fs::FileExt;

    let before = out.len();
    out.resize(before + len, 0);
    let read = file.seek_read(&mut out[before..], position);
    out.truncate(before + read.as_ref().copied().unwrap_or(0));
    read
}
