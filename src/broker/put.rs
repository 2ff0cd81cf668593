//! Records in, by hash key. What one request has for a shard becomes one record batch; the request has one ticket.
//!
//! Called by the Kinesis door. Shards are chosen, charged and appended to under the stream's read lock, so no reshard
//! comes between: every record goes to the shard that owns its hash key, and into that shard's span of the log.
//! The batches are made here, so they are not judged like a client's; their timestamp is their append time.

use tokio::sync::oneshot;

use crate::broker::stream::State;
use crate::broker::{Broker, PutGauge, Stream, durable};
use crate::log::partition::{self, Appended, NewBatch};
use crate::log::writer::{Outcome, RollRules};
use crate::model::attributes::RecordDistribution;
use crate::model::batch::Plain;
use crate::model::hash_key;
use crate::model::ids::{Offset, ShardOrdinal};
use crate::model::sequence_number::SequenceNumber;
use crate::model::shard::Shard;
use crate::store::StoreError;
use crate::store::crypt::{DataKey, KeyError};

/// A record to be put.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// `None` only where the stream spreads records whatever their keys.
    pub partition_key: Option<&'a str>,
    /// Goes before the partition key's.
    pub hash_key: Option<u128>,
    pub data: &'a [u8],
}

impl NewRecord<'_> {
    /// As limits count it.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.partition_key.map_or(0, str::len)
    }

    fn hash_key(&self) -> u128 {
        self.hash_key.unwrap_or_else(|| hash_key::of(self.partition_key.unwrap_or_default()))
    }
}

/// What became of one record.
#[derive(Clone, Debug)]
pub enum PutOutcome {
    Kept { shard: ShardOrdinal, sequence_number: SequenceNumber },
    Throttled { shard: ShardOrdinal },
    Failed(PutError),
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum PutError {
    #[error("the stream was deleted")]
    Deleted,
    /// A record has no key, and the stream is compacted by keys.
    #[error("a compacted stream takes no record without a key")]
    Keyless,
    /// The stream is encrypted, and its key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Records that have their places; [`PutTicket::committed`] tells when they are kept.
pub struct PutTicket {
    /// Of each record, in the order of the request.
    places: Vec<Place>,
    /// `None` where every record was beyond its shard's limits.
    batches: Vec<Result<Option<Queued>, PutError>>,
}

#[derive(Clone, Copy)]
enum Place {
    InBatch { batch: usize, index: Offset },
    Throttled(ShardOrdinal),
}

struct Queued {
    shard: Shard,
    base_offset: Offset,
    append_ms: i64,
    outcome: oneshot::Receiver<Outcome>,
}

/// The records of one request by shard.
struct Sorted<'a> {
    stream: &'a Stream,
    state: &'a State,
    now_ms: i64,
    places: Vec<Place>,
    groups: Vec<Group<'a>>,
}

struct Group<'a> {
    shard: &'a Shard,
    gauge: PutGauge<'a>,
    records: usize,
    bytes: usize,
}

impl Broker {
    /// Queues `records`, each for the shard that owns its hash key, as far as the shards' limits allow.
    pub fn put(&self, stream: &Stream, records: &[NewRecord<'_>]) -> Result<PutTicket, PutError> {
        let spread = stream.attributes().distribution == RecordDistribution::Auto;
        // Hashing is the larger part of the work that needs no lock.
        let hash_keys: Vec<u128> = if spread { Vec::new() } else { records.iter().map(NewRecord::hash_key).collect() };
        let state = stream.state.read();
        if state.settings.cleanup_policy.compacts() && records.iter().any(|record| record.partition_key.is_none()) {
            return Err(PutError::Keyless);
        }
        // Without its key nothing of the request can be kept, so nothing of it is charged.
        let data_key = self.data_key(stream, &state.attributes)?;
        let mut sorted = Sorted {
            stream,
            state: &state,
            now_ms: self.clock.tick_ms(),
            places: Vec::with_capacity(records.len()),
            groups: Vec::new(),
        };
        let all_found = match spread {
            true => sorted.spread_evenly(records, self.clock.random_uuid().as_u128()),
            false => sorted.by_hash_key(records, &hash_keys),
        };
        // Only a lineage that was stored wrong has no shard for a key.
        all_found.ok_or(PutError::Deleted)?;
        let now_ms = self.clock.now_ms();
        let Sorted { places, groups, .. } = sorted;
        let data_key = data_key.as_deref();
        let append =
            |(group, batch): (&Group<'_>, Plain)| self.append_group(stream, &state, group, batch, data_key, now_ms);
        let batches = groups.iter().zip(encode(&places, &groups, records)).map(append).collect();
        Ok(PutTicket { places, batches })
    }

    fn append_group(
        &self,
        stream: &Stream,
        state: &State,
        group: &Group<'_>,
        batch: Plain,
        data_key: Option<&DataKey>,
        now_ms: i64,
    ) -> Result<Option<Queued>, PutError> {
        if group.records == 0 {
            return Ok(None);
        }
        let shard = group.shard;
        let partition = state.partitions.get(shard.partition.0 as usize).ok_or(PutError::Deleted)?;
        let bytes = batch.finish().map_err(|error| PutError::Store(StoreError::NotDone(error.to_string())))?;
        let settings = &state.settings;
        let roll = RollRules { segment_bytes: settings.segment_bytes.max(0) as u64, segment_ms: settings.roll_ms() };
        let leader_epoch = shard.leader_epoch;
        let new = NewBatch { bytes: &bytes, marker: None, leader_epoch, log_append_time: true, roll, data_key };
        match partition.append(&self.writer, new, now_ms)? {
            Appended::Queued { base_offset, append_ms, done } => {
                stream.metrics.incoming(shard.ordinal, group.records as u64, group.bytes as u64);
                state.count_written(shard.partition, group.records as u64, group.bytes as u64);
                Ok(Some(Queued { shard: shard.clone(), base_offset, append_ms, outcome: done }))
            }
            Appended::Duplicate { .. } => {
                let reason = "a batch without a producer was taken for a duplicate";
                Err(PutError::Store(StoreError::NotDone(reason.to_owned())))
            }
        }
    }
}

impl<'a> Sorted<'a> {
    fn by_hash_key(&mut self, records: &[NewRecord<'_>], hash_keys: &[u128]) -> Option<()> {
        for (record, hash_key) in records.iter().zip(hash_keys) {
            let shard = self.state.lineage.shard_for_hash_key(*hash_key)?;
            if !self.add(shard, record) {
                self.places.push(Place::Throttled(shard.ordinal));
            }
        }
        Some(())
    }

    /// One shard after the other from a random one on; a shard without capacity is passed over as long as another has it.
    fn spread_evenly(&mut self, records: &[NewRecord<'_>], seed: u128) -> Option<()> {
        let shards: Vec<&'a Shard> = self.state.lineage.open_shards().collect();
        let count = shards.len();
        let mut next = (seed % count.max(1) as u128) as usize;
        for record in records {
            let mut from_next = shards.iter().cycle().skip(next).take(count);
            match from_next.position(|shard| self.add(shard, record)) {
                Some(passed) => next = (next + passed + 1) % count,
                None => self.places.push(Place::Throttled(shards.get(next)?.ordinal)),
            }
        }
        Some(())
    }

    /// Gives the record a place in the shard's batch, if the shard takes one more.
    fn add(&mut self, shard: &'a Shard, record: &NewRecord<'_>) -> bool {
        let known = self.groups.iter().position(|group| group.shard.ordinal == shard.ordinal);
        let batch = known.unwrap_or_else(|| {
            let gauge = self.stream.put_gauge(self.state, shard.ordinal);
            self.groups.push(Group { shard, gauge, records: 0, bytes: 0 });
            self.groups.len() - 1
        });
        let Some(group) = self.groups.get_mut(batch) else { return false };
        if !group.gauge.admit(record.bytes() as u64, self.now_ms).is_granted() {
            return false;
        }
        self.places.push(Place::InBatch { batch, index: group.records as Offset });
        group.records += 1;
        group.bytes += record.bytes();
        true
    }
}

/// The batch of each group: each record is copied once, into a buffer of the right size.
fn encode(places: &[Place], groups: &[Group<'_>], records: &[NewRecord<'_>]) -> Vec<Plain> {
    let mut batches: Vec<Plain> = groups.iter().map(|group| Plain::with_capacity(group.records, group.bytes)).collect();
    for (place, record) in places.iter().zip(records) {
        let Place::InBatch { batch, .. } = place else { continue };
        if let Some(batch) = batches.get_mut(*batch) {
            batch.push(record.partition_key.map(str::as_bytes), record.data);
        }
    }
    batches
}

impl PutTicket {
    /// Returns when all that can be kept is kept, as `--durability` means it: what became of each record, in the order of
    /// the request.
    pub async fn committed(self) -> Vec<PutOutcome> {
        let mut batches = Vec::with_capacity(self.batches.len());
        for batch in self.batches {
            batches.push(match batch {
                Ok(Some(Queued { shard, base_offset, append_ms, outcome })) => {
                    durable(outcome).await.map(|()| (shard, base_offset, append_ms)).map_err(PutError::Store)
                }
                // No record has a place in it.
                Ok(None) => Err(PutError::Deleted),
                Err(error) => Err(error),
            });
        }
        let outcome = |place| match place {
            Place::Throttled(shard) => PutOutcome::Throttled { shard },
            Place::InBatch { batch, index } => match batches.get(batch) {
                Some(Ok((shard, base_offset, append_ms))) => PutOutcome::Kept {
                    shard: shard.ordinal,
                    sequence_number: shard.sequence_number(base_offset + index, *append_ms),
                },
                Some(Err(error)) => PutOutcome::Failed(error.clone()),
                None => PutOutcome::Failed(PutError::Deleted),
            },
        };
        self.places.into_iter().map(outcome).collect()
    }
}

impl From<partition::AppendError> for PutError {
    fn from(error: partition::AppendError) -> PutError {
        match error {
            partition::AppendError::Deleted => PutError::Deleted,
            partition::AppendError::Store(error) => PutError::Store(error),
            // Neither concerns a batch that the broker made.
            partition::AppendError::Sequence(error) => PutError::Store(StoreError::NotDone(error.to_string())),
            partition::AppendError::Batch(error) => PutError::Store(StoreError::NotDone(error.to_string())),
        }
    }
}
