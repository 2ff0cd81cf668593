//! Pages of a scan: keys first, then the values that stand apart.

use bytes::Bytes;

use super::blobs::{Blobs, Lost, Place};
use crate::store::{Family, Page, StoreError};

pub fn place_of(family: Family, key: &[u8], value: &[u8]) -> Option<Place> {
    if family == Family::Log { Place::parse(key, value) } else { None }
}

/// A page being read: keys first, then the values that stand apart, as many at once as follow each other in their file.
#[derive(Default)]
pub struct Found {
    /// Values that stand apart are empty here.
    pub entries: Vec<(Bytes, Bytes)>,
    /// Which entries have their values apart, and where; ascending.
    apart: Vec<(usize, Place)>,
    pub bytes: usize,
    pub more: bool,
    pub beyond: Option<(Bytes, Bytes)>,
}

impl Found {
    pub fn push(&mut self, key: &[u8], value: &[u8], place: Option<Place>) {
        let value = match place {
            Some(place) => {
                self.apart.push((self.entries.len(), place));
                self.bytes += place.len;
                Bytes::new()
            }
            None => {
                self.bytes += value.len();
                Bytes::copy_from_slice(value)
            }
        };
        self.entries.push((Bytes::copy_from_slice(key), value));
    }

    /// What cannot be read ends the page, and is an error where the page would begin with it.
    pub fn into_page(mut self, blobs: &Blobs) -> Result<Page, StoreError> {
        let apart = std::mem::take(&mut self.apart);
        let epoch = |at: usize| self.entries[at].0.first_chunk::<4>().copied();
        let follows = |a: &(usize, Place), b: &(usize, Place)| epoch(a.0) == epoch(b.0) && a.1.end() == b.1.position;
        let runs: Vec<&[(usize, Place)]> = apart.chunk_by(follows).collect();
        // Ascending, as the runs are.
        let mut vanished = Vec::new();
        for run in runs {
            if let Err((at, error)) = self.read_run(run, blobs, &mut vanished) {
                if at == 0 {
                    return Err(error);
                }
                tracing::warn!(%error, "a page ends early");
                self.entries.truncate(at);
                (self.more, self.beyond) = (true, None);
                break;
            }
        }
        let mut at = 0;
        self.entries.retain(|_| {
            at += 1;
            vanished.binary_search(&(at - 1)).is_err()
        });
        Ok(Page { entries: self.entries, more: self.more, beyond: self.beyond })
    }

    /// Takes in the values of entries that follow each other in one file. An error says which entry it is about.
    fn read_run(
        &mut self,
        run: &[(usize, Place)],
        blobs: &Blobs,
        vanished: &mut Vec<usize>,
    ) -> Result<(), (usize, StoreError)> {
        let Some((first, _)) = run.first() else { return Ok(()) };
        let places: Vec<Place> = run.iter().map(|(_, place)| *place).collect();
        match blobs.read_run(&self.entries[*first].0, &places) {
            Ok(values) => run.iter().zip(values).for_each(|((at, _), value)| self.entries[*at].1 = value),
            // One by one, to know which.
            Err(Lost::Unreadable(_)) if run.len() > 1 => {
                return run.chunks(1).try_for_each(|one| self.read_run(one, blobs, vanished));
            }
            Err(lost) => {
                lost_value(&self.entries[*first].0, lost).map_err(|error| (*first, error))?;
                vanished.extend(run.iter().map(|(at, _)| *at));
            }
        }
        Ok(())
    }
}

/// Keys of a dropped epoch may vanish at any time; any other must have its value.
pub fn lost_value(key: &[u8], lost: Lost) -> Result<(), StoreError> {
    match lost {
        Lost::Dropped => Ok(()),
        Lost::Unreadable(reason) => Err(StoreError::Corrupt(format!("the value of key {key:02x?}: {reason}"))),
    }
}
