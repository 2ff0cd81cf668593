//! Cuts RocksDB's write-ahead log where it speaks of values that a power cut has taken: see [`super::blobs`]. Called once,
//! before RocksDB opens the folder, which then replays up to the cut and no further.
//!
//! Files are read as RocksDB writes them (its wiki: "Write Ahead Log File Format"): blocks of 32 KiB hold physical records,
//! each `masked CRC-32C u32, length u16, type u8`, in a recycled file also the file's number as `u32`, then a payload;
//! integers are little-endian. A batch is one record, or a first, middle and last ones. It begins with a sequence number and
//! a count, 12 bytes, then come its changes: a tag, a column family, a key, for puts and deleted ranges a value or second
//! key; lengths and families are base-128 varints.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::blobs::{Blobs, Place};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const RECYCLABLE_HEADER: usize = 11;
const BATCH_HEADER: usize = 12;

const COLUMN_FAMILY_DELETION: u8 = 0x4;
const COLUMN_FAMILY_VALUE: u8 = 0x5;
const COLUMN_FAMILY_RANGE_DELETION: u8 = 0xE;

/// What RocksDB numbered the log's family with: the first that was made.
const LOG_FAMILY: u32 = 1;

/// Cuts every file before its first batch with a place that holds no value. RocksDB stops at the end of a file that its
/// successor remembers as longer; of files that it has no use for any more the cut means nothing.
pub(super) fn cut(data_folder: &Path, blobs: &Blobs) -> io::Result<()> {
    for path in files(data_folder)? {
        let bytes = fs::read(&path)?;
        if let Some(end) = end_of_whole(&bytes, number(&path), blobs) {
            tracing::warn!(
                file = %path.display(),
                bytes = end,
                "the system stopped before all values were on the disk; what was committed from the first missing one on is gone"
            );
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(end as u64)?;
            file.sync_all()?;
        }
    }
    Ok(())
}

/// The files of the write-ahead log.
pub(super) fn files(data_folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(data_folder)?.map(|entry| entry.map(|entry| entry.path()));
    let of_wal =
        |path: &io::Result<PathBuf>| path.as_ref().map_or(true, |path| path.extension() == Some("log".as_ref()));
    paths.filter(of_wal).collect()
}

fn number(path: &Path) -> Option<u32> {
    // Records hold the low half only.
    Some(path.file_stem()?.to_str()?.parse::<u64>().ok()? as u32)
}

/// Where the first batch begins that names a value which is not there.
fn end_of_whole(bytes: &[u8], file_number: Option<u32>, blobs: &Blobs) -> Option<usize> {
    let mut batch = Vec::new();
    let mut begin = 0;
    for record in (Records { bytes, file_number, at: 0 }) {
        match record.part {
            Part::Other => continue,
            Part::Full | Part::First => {
                batch.clear();
                begin = record.at;
            }
            Part::Middle | Part::Last => {}
        }
        batch.extend_from_slice(record.payload);
        let whole = matches!(record.part, Part::Full | Part::Last);
        if whole && places(&batch).any(|(key, place)| !blobs.holds(key, place)) {
            return Some(begin);
        }
    }
    None
}

enum Part {
    Full,
    First,
    Middle,
    Last,
    /// Says something of the file, not of its batches.
    Other,
}

struct Record<'a> {
    at: usize,
    part: Part,
    payload: &'a [u8],
}

/// The records of a file, up to the first that is not whole or not this file's: there RocksDB stops as well.
struct Records<'a> {
    bytes: &'a [u8],
    file_number: Option<u32>,
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        // The end of a block that has no room for a header is left empty.
        if BLOCK - self.at % BLOCK < HEADER {
            self.at = self.at.next_multiple_of(BLOCK);
        }
        let at = self.at;
        let block_end = (at / BLOCK + 1) * BLOCK;
        let block = self.bytes.get(at..block_end.min(self.bytes.len()))?;
        let (header, _) = block.split_first_chunk::<HEADER>()?;
        let kind = header[6];
        let part = match kind {
            1 | 5 => Part::Full,
            2 | 6 => Part::First,
            3 | 7 => Part::Middle,
            4 | 8 => Part::Last,
            10 | 11 | 130 | 131 => Part::Other,
            // Zeros of a file with room for more, or a block's padding where a recyclable header has no room.
            0 if block_end - at < RECYCLABLE_HEADER => {
                self.at = block_end;
                return self.next();
            }
            _ => return None,
        };
        let header_len = if matches!(kind, 5..=8 | 11 | 131) { RECYCLABLE_HEADER } else { HEADER };
        let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let payload = block.get(header_len..header_len + len)?;
        if header_len == RECYCLABLE_HEADER {
            let number = block.get(HEADER..)?.first_chunk().map(|number| u32::from_le_bytes(*number));
            if number != self.file_number {
                return None;
            }
        }
        let crc = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if crc != masked(crc32c::crc32c(block.get(HEADER - 1..header_len + len)?)) {
            return None;
        }
        self.at = at + header_len + len;
        Some(Record { at, part, payload })
    }
}

fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The places in a batch, each with its key. What it does not understand ends it.
fn places(batch: &[u8]) -> impl Iterator<Item = (&[u8], Place)> {
    let mut rest = batch.get(BATCH_HEADER..).unwrap_or_default();
    let changes = std::iter::from_fn(move || change(&mut rest));
    changes.flatten().filter_map(|(key, value)| Some((key, Place::parse(key, value)?)))
}

type Put<'a> = (&'a [u8], &'a [u8]);

/// The next change: what it puts into the log, if that is what it does. None at the end.
fn change<'a>(rest: &mut &'a [u8]) -> Option<Option<Put<'a>>> {
    let (tag, behind) = rest.split_first()?;
    *rest = behind;
    let family = varint(rest)?;
    let key = prefixed(rest)?;
    match *tag {
        COLUMN_FAMILY_DELETION => Some(None),
        COLUMN_FAMILY_VALUE => {
            let value = prefixed(rest)?;
            Some((family == LOG_FAMILY).then_some((key, value)))
        }
        COLUMN_FAMILY_RANGE_DELETION => prefixed(rest).map(|_| None),
        _ => None,
    }
}

fn varint(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn prefixed<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = varint(rest)? as usize;
    let (bytes, behind) = rest.split_at_checked(len)?;
    *rest = behind;
    Some(bytes)
}
