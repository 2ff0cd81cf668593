//! What an inspection found, in the shape that `--json` prints: times are milliseconds since 1970, sizes bytes. [`text`]
//! prints the same for people.
//!
//! [`text`]: super::text

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::model::ids::Offset;
use crate::model::settings::{DynamicSettings, Overrides};

/// Faults that are listed; the rest are counted.
pub const FAULTS_MAX: usize = 1_000;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub folder: String,
    pub cluster_id: Option<String>,
    /// That the broker wrote in last.
    pub epoch: u32,
    pub next_producer_id: i64,
    pub disk: Disk,
    /// Altered while the broker ran.
    pub settings: DynamicSettings,
    pub streams: Vec<Stream>,
    pub groups: Vec<Group>,
    pub share_groups: Vec<ShareGroup>,
    pub transactional_ids: Vec<TransactionalId>,
    pub quotas: Vec<Quota>,
    /// Batches of which only what is clear was checked.
    pub unchecked: Vec<Unchecked>,
    pub faults: Faults,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Disk {
    pub file_bytes: u64,
    /// Of the write-ahead log's files, those kept for later included.
    pub wal_bytes: u64,
    /// Batches that streams have.
    pub batches: u64,
    pub batch_bytes: u64,
    /// Batches that were trimmed, compacted away or of deleted streams, and whose files are not dropped yet.
    pub dead_batches: u64,
    pub dead_bytes: u64,
}

#[derive(Debug, Serialize)]
pub struct Stream {
    pub name: String,
    pub id: u32,
    pub topic_id: String,
    pub created_ms: i64,
    pub mode: &'static str,
    pub status: &'static str,
    pub cleanup_policy: &'static str,
    /// -1: without an end.
    pub retention_ms: i64,
    /// Set for the stream, by their Kafka names.
    pub settings: Overrides,
    pub tags: BTreeMap<String, String>,
    pub consumers: Vec<String>,
    pub encryption: Option<String>,
    pub data_keys: Vec<DataKey>,
    pub shards: Vec<Shard>,
    pub partitions: Vec<Partition>,
}

#[derive(Clone, Debug, Serialize)]
pub struct DataKey {
    pub number: u32,
    /// Why it cannot be used.
    pub unusable: Option<String>,
}

/// What the batches of a shard or a partition come to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    pub batches: u64,
    /// Without markers.
    pub records: u64,
    /// Ends of transactions.
    pub markers: u64,
    pub bytes: u64,
    pub first_append_ms: Option<i64>,
    pub last_append_ms: Option<i64>,
    #[serde(skip)]
    pub last_offset: Option<Offset>,
}

#[derive(Debug, Serialize)]
pub struct Shard {
    pub id: String,
    pub partition: u32,
    pub leader_epoch: i32,
    pub open: bool,
    pub parents: Vec<String>,
    pub children: Vec<String>,
    pub starting_hash_key: String,
    pub ending_hash_key: String,
    pub start_offset: Offset,
    /// Of the next record, or where the shard ends.
    pub next_offset: Offset,
    pub starting_sequence_number: String,
    /// Of the last record that is there.
    pub last_sequence_number: Option<String>,
    pub ending_sequence_number: Option<String>,
    pub created_ms: i64,
    pub closed_ms: Option<i64>,
    #[serde(flatten)]
    pub totals: Totals,
}

#[derive(Debug, Serialize)]
pub struct Partition {
    pub index: u32,
    /// The shard that takes what is addressed to it, where it has no open one.
    pub absorbed_by: Option<String>,
    pub log_start_offset: Offset,
    pub end_offset: Offset,
    pub last_stable_offset: Offset,
    pub segments: usize,
    pub compacted_until: Option<Offset>,
    pub open_transactions: Vec<OpenTransaction>,
    pub aborted_transactions: usize,
    pub producers: Vec<Producer>,
    #[serde(flatten)]
    pub totals: Totals,
}

#[derive(Debug, Serialize)]
pub struct OpenTransaction {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub first_offset: Offset,
}

#[derive(Debug, Serialize)]
pub struct Producer {
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// -1: none of this epoch.
    pub last_sequence: i32,
    pub last_append_ms: i64,
}

#[derive(Debug, Default, Serialize)]
pub struct Group {
    pub id: String,
    pub kind: &'static str,
    pub state: &'static str,
    /// Or the group's epoch.
    pub generation: i32,
    pub protocol: Option<String>,
    pub settings: BTreeMap<String, String>,
    pub members: Vec<Member>,
    pub offsets: Vec<Committed>,
}

/// Whom the group had when the broker stopped; they are gone unless they come back in time.
#[derive(Debug, Serialize)]
pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub epoch: i32,
    pub subscribed: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Committed {
    pub stream: String,
    pub partition: u32,
    pub offset: Offset,
    pub commit_ms: i64,
    pub metadata: String,
    /// Records behind; none where there is no such partition.
    pub lag: Option<i64>,
    /// Of a transaction that is open: the producer.
    pub pending_of: Option<i64>,
}

#[derive(Debug, Default, Serialize)]
pub struct ShareGroup {
    pub id: String,
    pub epoch: i32,
    pub members: Vec<Member>,
    pub partitions: Vec<Shared>,
}

#[derive(Debug, Serialize)]
pub struct Shared {
    pub stream: String,
    pub partition: u32,
    /// What lies before it is processed.
    pub start_offset: Offset,
    /// What lies behind was never handed out.
    pub end_offset: Offset,
    pub lag: Option<i64>,
}

#[derive(Debug, Serialize)]
pub struct TransactionalId {
    pub id: String,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub state: &'static str,
    pub timeout_ms: i32,
    pub start_ms: Option<i64>,
    /// Of the open transaction, as `stream/partition`.
    pub partitions: Vec<String>,
    pub groups: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Quota {
    pub entity: Value,
    pub limits: Value,
}

#[derive(Debug, Serialize)]
pub struct Unchecked {
    pub stream: String,
    pub data_key: u32,
    pub batches: u64,
    pub why: String,
}

/// Something that is not as the broker writes it.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    pub fault: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stream) = &self.stream {
            write!(f, "stream {stream}")?;
            if let Some(partition) = self.partition {
                write!(f, ", partition {partition}")?;
            }
            if let Some(offset) = self.offset {
                write!(f, ", offset {offset}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.fault)
    }
}

#[derive(Debug, Default, Serialize)]
pub struct Faults {
    pub listed: Vec<Fault>,
    pub left_out: u64,
}

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        match self.listed.len() < FAULTS_MAX {
            true => self.listed.push(fault),
            false => self.left_out += 1,
        }
    }

    /// Of the catalogue, or of the folder as a whole.
    pub fn general(&mut self, fault: impl fmt::Display) {
        self.add(Fault { stream: None, partition: None, offset: None, fault: fault.to_string() });
    }

    pub fn of_stream(&mut self, stream: &str, partition: Option<u32>, fault: impl fmt::Display) {
        self.add(Fault { stream: Some(stream.to_owned()), partition, offset: None, fault: fault.to_string() });
    }

    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}
