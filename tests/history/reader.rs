//! Reads as consumers do: what an isolation level hides is hidden by the client, from the aborted list and the markers
//! of the answer.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use anabranch::model::batch::{self, Header};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest};

use crate::history::{Isolation, Partition, Read, Value};
use crate::names::Names;
use crate::wire::{Address, Link, Lost, Trouble};

const FETCH: i16 = 12;
const WAIT_MS: i32 = 100;
const BYTES_MAX: i32 = 256 << 10;
/// Longer than the broker may wait.
const ANSWER: Duration = Duration::from_millis(1_000);
/// What a record is read as that nobody can have written.
const UNREADABLE: Value = Value::MAX;

pub struct Reader {
    link: Link,
    names: Names,
}

impl Reader {
    pub fn new(broker: &Address, names: &Names) -> Reader {
        Reader { link: Link::new(broker), names: names.clone() }
    }

    /// What the partitions have from these offsets on, for those that answered. A refusal of one is that of all, except
    /// where it passes by itself.
    pub async fn poll(&mut self, isolation: Isolation, from: &[(Partition, i64)]) -> Result<Vec<Read>, Trouble> {
        let request = self.request(isolation, from);
        let answer = match self.link.call_for(ANSWER, &request, FETCH).await {
            Ok(answer) => answer,
            Err(Lost::Unsent) => return Err(Trouble::Unsent),
            Err(Lost::Unanswered) => return Err(Trouble::Unknown(None)),
        };
        if let Some(error) = ResponseError::try_from_code(answer.error_code) {
            return Err(Trouble::Refused(error));
        }
        let mut reads = Vec::new();
        for topic in answer.responses {
            for data in topic.partitions {
                let partition = self.names.partition(&topic.topic, data.partition_index);
                let Some((_, from)) = from.iter().find(|(wanted, _)| *wanted == partition) else { continue };
                match ResponseError::try_from_code(data.error_code) {
                    None => reads.push(read(isolation, partition, *from, &data)),
                    Some(ResponseError::OffsetOutOfRange) => {
                        return Err(Trouble::Refused(ResponseError::OffsetOutOfRange));
                    }
                    // Led by nobody just now.
                    Some(_) => {}
                }
            }
        }
        Ok(reads)
    }

    fn request(&self, isolation: Isolation, from: &[(Partition, i64)]) -> FetchRequest {
        let topics: BTreeSet<u8> = from.iter().map(|(partition, _)| partition.topic).collect();
        let topic = |topic: u8| {
            let of_topic = from.iter().filter(|(partition, _)| partition.topic == topic);
            let wanted = of_topic.map(|(partition, offset)| {
                FetchPartition::default()
                    .with_partition(partition.index)
                    .with_fetch_offset(*offset)
                    .with_partition_max_bytes(BYTES_MAX)
                    .with_current_leader_epoch(-1)
                    .with_log_start_offset(-1)
            });
            FetchTopic::default().with_topic(self.names.topic(topic)).with_partitions(wanted.collect())
        };
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(WAIT_MS)
            .with_min_bytes(1)
            .with_max_bytes(BYTES_MAX * 4)
            .with_session_epoch(-1)
            .with_isolation_level(if isolation == Isolation::Committed { 1 } else { 0 })
            .with_topics(topics.into_iter().map(topic).collect())
    }
}

fn read(isolation: Isolation, partition: Partition, from: i64, data: &PartitionData) -> Read {
    let mut aborted = data.aborted_transactions.clone().unwrap_or_default();
    aborted.sort_by_key(|aborted| std::cmp::Reverse(aborted.first_offset));
    let mut hidden: HashSet<i64> = HashSet::new();
    let (mut records, mut next) = (Vec::new(), from);
    // Kafka may cut the last batch short.
    for batch in batch::split(&data.records.clone().unwrap_or_default()).map_while(Result::ok) {
        let header = Header::parse(&batch).unwrap();
        next = next.max(header.last_offset() + 1);
        while let Some(first) = aborted.pop_if(|aborted| aborted.first_offset <= header.last_offset()) {
            hidden.insert(first.producer_id.0);
        }
        if header.is_control() {
            if is_abort(&batch) {
                hidden.remove(&header.producer_id);
            }
            continue;
        }
        let is_hidden = header.is_transactional() && hidden.contains(&header.producer_id);
        if isolation == Isolation::Committed && is_hidden {
            continue;
        }
        records.extend(values(&batch).filter(|(offset, _)| *offset >= from || header.last_offset() < from));
    }
    Read {
        partition,
        from,
        next,
        records,
        high_watermark: data.high_watermark,
        last_stable_offset: data.last_stable_offset,
    }
}

/// Whether a control batch holds the marker of an abort: its record's key is a version and a type, both of 16 bits.
fn is_abort(batch: &Bytes) -> bool {
    let first = batch::records(batch).unwrap().next().and_then(Result::ok);
    first.and_then(|record| record.key).is_some_and(|key| key.get(2..4) == Some(&[0, 0]))
}

fn values(batch: &Bytes) -> impl Iterator<Item = (i64, Value)> {
    batch::records(batch).unwrap().map(|record| {
        let Ok(record) = record else { return (-1, UNREADABLE) };
        let value = record.value.unwrap_or_default();
        let number = value.split(|byte| *byte == b' ').next().and_then(|number| str::from_utf8(number).ok());
        (record.offset, number.and_then(|number| number.parse().ok()).unwrap_or(UNREADABLE))
    })
}
