//! Records as GetRecords and SubscribeToShard give them out. They are written straight from the batches they were read in:
//! nothing is copied between the log and the answer, and what is made for a record (its number) is on the stack.

use std::borrow::Cow;

use serde::Serialize;
use serde::ser::{SerializeSeq, SerializeStruct, Serializer};

use super::shapes::HashKeyRange;
use crate::broker::shards::ShardRecord;
use crate::http::Timestamp;
use crate::model::attributes::RecordDistribution;
use crate::model::batch;
use crate::model::ids::ShardOrdinal;
use crate::model::shard::{Lineage, Shard};

/// How many records one answer has at most.
pub const RECORDS_MAX: usize = 10_000;
/// Bytes of keys and data in one answer at most.
pub const ANSWER_BYTES_MAX: usize = 10 << 20;

/// `Records`.
pub struct Records<'a> {
    pub shard: &'a Shard,
    pub records: &'a [ShardRecord],
    pub distribution: RecordDistribution,
}

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.records.len()))?;
        for record in self.records {
            list.serialize_element(&One { list: self, record })?;
        }
        list.end()
    }
}

struct One<'a> {
    list: &'a Records<'a>,
    record: &'a ShardRecord,
}

impl One<'_> {
    /// Where keys decide nothing, a record may have none.
    fn partition_key(&self) -> Option<Cow<'_, str>> {
        let key = self.record.key.as_deref();
        match self.list.distribution {
            RecordDistribution::Auto if key.is_none() => None,
            RecordDistribution::Auto | RecordDistribution::PartitionKey => {
                Some(batch::partition_key(key, self.list.shard.partition))
            }
        }
    }
}

impl Serialize for One<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ShardRecord { offset, append_ms, value, sealed, .. } = self.record;
        let partition_key = self.partition_key();
        let members = 3 + usize::from(partition_key.is_some()) + usize::from(*sealed);
        let mut record = serializer.serialize_struct("Record", members)?;
        let digits = self.list.shard.sequence_number(*offset, *append_ms).digits();
        record.serialize_field("SequenceNumber", std::str::from_utf8(&digits).unwrap_or_default())?;
        record.serialize_field("ApproximateArrivalTimestamp", &Timestamp(*append_ms))?;
        record.serialize_field("Data", &Data(value.as_deref().unwrap_or_default()))?;
        if let Some(partition_key) = &partition_key {
            record.serialize_field("PartitionKey", &**partition_key)?;
        }
        if *sealed {
            record.serialize_field("EncryptionType", KMS)?;
        }
        record.end()
    }
}

/// The encryption type of what is sealed at rest; what is not has none.
pub const KMS: &str = "KMS";

/// Borrowed bytes, written like a blob.
struct Data<'a>(&'a [u8]);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// `ChildShards`: told once a reader has had everything of a closed shard.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChildShard {
    shard_id: String,
    parent_shards: Vec<String>,
    hash_key_range: HashKeyRange,
}

/// The children of a closed shard.
pub fn child_shards(lineage: &Lineage, parent: ShardOrdinal) -> Vec<ChildShard> {
    let child = |shard: &Shard| ChildShard {
        shard_id: shard.ordinal.to_string(),
        parent_shards: shard.parents.iter().map(ShardOrdinal::to_string).collect(),
        hash_key_range: (&shard.hash_key_range).into(),
    };
    lineage.children(parent).map(child).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;
    use ciborium::Value;

    use super::*;
    use crate::http::{Format, codec};

    fn record(key: Option<&'static [u8]>, sealed: bool) -> ShardRecord {
        let (key, value) = (key.map(Bytes::from_static), Some(Bytes::from_static(&[1, 2, 3])));
        ShardRecord { offset: 5, append_ms: 1_700_000_000_123, sealed, key, value }
    }

    fn written(format: Format, distribution: RecordDistribution, records: &[ShardRecord]) -> Bytes {
        let lineage = Lineage::uniform(NonZeroU32::MIN, 1_600_000_000_000);
        let shard = &lineage.shards()[0];
        codec::encode(format, &Records { shard, records, distribution }).unwrap()
    }

    #[test]
    fn both_formats_say_the_same() {
        let records = [record(Some(b"k"), false), record(None, true)];
        let json = written(Format::Json, RecordDistribution::PartitionKey, &records);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json[0]["ApproximateArrivalTimestamp"], 1_700_000_000.123);
        assert_eq!((&json[0]["Data"], &json[0]["PartitionKey"]), (&"AQID".into(), &"k".into()));
        assert_eq!((&json[1]["EncryptionType"], &json[1]["PartitionKey"]), (&"KMS".into(), &"partition-0".into()));
        let cbor = written(Format::Cbor, RecordDistribution::PartitionKey, &records);
        let Value::Array(list) = ciborium::from_reader(&cbor[..]).unwrap() else { panic!("no list") };
        let member = |record: usize, name: &str| {
            let members = list[record].as_map().unwrap();
            members.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value.clone())
        };
        assert_eq!(member(0, "Data"), Some(Value::Bytes(vec![1, 2, 3])));
        let time = Value::Tag(1, Box::new(Value::Integer(1_700_000_000_123_i64.into())));
        assert_eq!(member(0, "ApproximateArrivalTimestamp"), Some(time));
        assert_eq!(member(0, "SequenceNumber"), json[0]["SequenceNumber"].as_str().map(|text| text.into()));
        assert_eq!((member(0, "EncryptionType"), member(1, "EncryptionType")), (None, Some("KMS".into())));
    }

    #[test]
    fn where_records_are_spread_evenly_one_may_have_no_key() {
        let written =
            written(Format::Json, RecordDistribution::Auto, &[record(None, false), record(Some(b"k"), false)]);
        let json: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!((json[0].get("PartitionKey"), &json[1]["PartitionKey"]), (None, &"k".into()));
    }
}
