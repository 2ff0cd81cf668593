//! Producers: transactional ones of both protocols, and an idempotent one. Requests one after the other, repeated as
//! clients repeat them, with the outcome as far as it is known.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use anabranch::model::batch::{self, Codec, Compressor, Options, Record};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProduceRequest,
    ProduceResponse, ProducerId, TransactionalId, TxnOffsetCommitRequest,
};

use crate::frame::text;
use crate::group::Member;
use crate::history::{Consumed, Group, Partition, Sent, Value};
use crate::names::Names;
use crate::wire::{Address, Attempts, Link, Trouble};

/// How a transactional producer speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// As clients do since KIP-890: partitions join by Produce, and each end of a transaction brings a new epoch, so what
    /// was not answered may be sent again.
    Implicit,
    /// As clients did before. A request that was not answered may still come to pass in the next transaction, so such a
    /// client begins anew after one.
    Explicit,
}

/// Versions of Produce, TxnOffsetCommit and EndTxn.
impl Flow {
    fn produce(self) -> i16 {
        if self == Flow::Implicit { 12 } else { 11 }
    }

    fn offsets(self) -> i16 {
        if self == Flow::Implicit { 5 } else { 4 }
    }

    fn end(self) -> i16 {
        if self == Flow::Implicit { 5 } else { 4 }
    }
}

const INIT: i16 = 5;
const ADD_PARTITIONS: i16 = 3;
const ADD_OFFSETS: i16 = 3;

pub struct Producer {
    link: Link,
    names: Names,
    /// None: idempotent, and nothing more.
    transactional_id: Option<TransactionalId>,
    pub flow: Flow,
    id: i64,
    epoch: i16,
    sequences: HashMap<Partition, i32>,
    added: HashSet<Partition>,
}

impl Producer {
    pub fn new(broker: &Address, names: &Names, transactional_id: Option<u32>, flow: Flow) -> Producer {
        Producer {
            link: Link::new(broker),
            names: names.clone(),
            transactional_id: transactional_id.map(|id| names.transactional_id(id)),
            flow,
            id: -1,
            epoch: -1,
            sequences: HashMap::new(),
            added: HashSet::new(),
        }
    }

    /// As a producer that knows nothing of those before it.
    pub async fn init(&mut self, timeout_ms: u64) -> Result<(), Trouble> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(self.transactional_id.clone())
            .with_transaction_timeout_ms(timeout_ms as i32)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = self.link.ask(&request, INIT, true, |answer| answer.error_code).await?;
        (self.id, self.epoch) = (answer.producer_id.0, answer.producer_epoch);
        self.sequences.clear();
        self.added.clear();
        Ok(())
    }

    fn transactional_id(&self) -> TransactionalId {
        self.transactional_id.clone().unwrap_or_default()
    }

    /// What became of each partition's part, and the first thing that went wrong.
    pub async fn send(&mut self, writes: &[(Partition, Vec<Value>)]) -> (Vec<(Partition, Sent)>, Option<Trouble>) {
        if self.transactional_id.is_some() && self.flow == Flow::Explicit {
            let new: Vec<Partition> = writes.iter().map(|(on, _)| *on).filter(|on| !self.added.contains(on)).collect();
            if let Err(trouble) = self.add(&new).await {
                return (writes.iter().map(|(on, _)| (*on, Sent::Refused)).collect(), Some(trouble));
            }
            self.added.extend(new);
        }
        let mut open: Vec<(Partition, Bytes, Attempts)> =
            writes.iter().map(|(on, values)| (*on, self.batch(*on, values), Attempts::new())).collect();
        let mut sent = Vec::new();
        let mut first = None;
        while !open.is_empty() {
            let answer = self.link.call(&self.request(&open), self.flow.produce()).await;
            let told = answer.map(|answer| self.told(&answer));
            open.retain_mut(|(partition, _, attempts)| {
                let trouble = match &told {
                    Ok(told) => match told.get(partition).copied().unwrap_or((None, -1)) {
                        (None | Some(ResponseError::DuplicateSequenceNumber), offset) => {
                            sent.push((*partition, if offset >= 0 { Sent::At(offset) } else { Sent::Stored }));
                            return false;
                        }
                        (Some(error), _) => attempts.refused(error),
                    },
                    Err(lost) => attempts.lost(*lost, true),
                };
                let Some(trouble) = trouble else { return true };
                let is_unknown = matches!(trouble, Trouble::Unknown(_));
                sent.push((*partition, if is_unknown { Sent::Maybe } else { Sent::Refused }));
                first = first.or(Some(trouble));
                false
            });
            if !open.is_empty() {
                Attempts::breathe().await;
            }
        }
        for (partition, values) in writes {
            if sent.iter().any(|(on, sent)| on == partition && matches!(sent, Sent::At(_) | Sent::Stored)) {
                *self.sequences.entry(*partition).or_insert(0) += values.len() as i32;
            }
        }
        (sent, first)
    }

    fn batch(&self, partition: Partition, values: &[Value]) -> Bytes {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let record = |value: &Value| Record {
            offset: 0,
            timestamp: now_ms,
            key: None,
            // Some of them long.
            value: Some(Bytes::from(format!("{value} {}", "x".repeat((value * 7_919 % 300) as usize)))),
            headers: Vec::new(),
        };
        let records: Vec<Record> = values.iter().map(record).collect();
        let producer = (self.id >= 0).then(|| batch::Producer {
            id: self.id,
            epoch: self.epoch,
            base_sequence: self.sequences.get(&partition).copied().unwrap_or(0),
            transactional: self.transactional_id.is_some(),
        });
        batch::build(&records, &Options { compressor: Compressor::of(Codec::None), producer }).unwrap()
    }

    fn request(&self, open: &[(Partition, Bytes, Attempts)]) -> ProduceRequest {
        let mut topics: Vec<TopicProduceData> = Vec::new();
        for (partition, batch, _) in open {
            let name = self.names.topic(partition.topic);
            let data = PartitionProduceData::default().with_index(partition.index).with_records(Some(batch.clone()));
            match topics.iter_mut().find(|topic| topic.name == name) {
                Some(topic) => topic.partition_data.push(data),
                None => topics.push(TopicProduceData::default().with_name(name).with_partition_data(vec![data])),
            }
        }
        ProduceRequest::default()
            .with_transactional_id(self.transactional_id.clone())
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(topics)
    }

    fn told(&self, answer: &ProduceResponse) -> HashMap<Partition, (Option<ResponseError>, i64)> {
        let mut told = HashMap::new();
        for topic in &answer.responses {
            for part in &topic.partition_responses {
                let error = ResponseError::try_from_code(part.error_code);
                told.insert(self.names.partition(&topic.name, part.index), (error, part.base_offset));
            }
        }
        told
    }

    async fn add(&mut self, partitions: &[Partition]) -> Result<(), Trouble> {
        if partitions.is_empty() {
            return Ok(());
        }
        let topic = |partition: &Partition| {
            AddPartitionsToTxnTopic::default()
                .with_name(self.names.topic(partition.topic))
                .with_partitions(vec![partition.index])
        };
        // One entry for each topic.
        let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
        for entry in partitions.iter().map(topic) {
            match topics.iter_mut().find(|topic| topic.name == entry.name) {
                Some(topic) => topic.partitions.extend(entry.partitions),
                None => topics.push(entry),
            }
        }
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.transactional_id())
            .with_v3_and_below_producer_id(ProducerId(self.id))
            .with_v3_and_below_producer_epoch(self.epoch)
            .with_v3_and_below_topics(topics);
        let worst = |answer: &kafka_protocol::messages::AddPartitionsToTxnResponse| {
            let results = answer.results_by_topic_v3_and_below.iter().flat_map(|topic| &topic.results_by_partition);
            results.map(|result| result.partition_error_code).find(|code| *code != 0).unwrap_or(0)
        };
        self.link.ask(&request, ADD_PARTITIONS, false, worst).await.map(|_| ())
    }

    pub async fn send_offsets(&mut self, group: Group, member: &Member, consumed: &[Consumed]) -> Result<(), Trouble> {
        let is_implicit = self.flow == Flow::Implicit;
        if !is_implicit {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(self.transactional_id())
                .with_producer_id(ProducerId(self.id))
                .with_producer_epoch(self.epoch)
                .with_group_id(self.names.group(group));
            self.link.ask(&request, ADD_OFFSETS, false, |answer| answer.error_code).await?;
        }
        let mut topics: Vec<TxnOffsetCommitRequestTopic> = Vec::new();
        for taken in consumed {
            let name = self.names.topic(taken.partition.topic);
            let offset = TxnOffsetCommitRequestPartition::default()
                .with_partition_index(taken.partition.index)
                .with_committed_offset(taken.to)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(text("")));
            match topics.iter_mut().find(|topic| topic.name == name) {
                Some(topic) => topic.partitions.push(offset),
                None => {
                    topics.push(TxnOffsetCommitRequestTopic::default().with_name(name).with_partitions(vec![offset]));
                }
            }
        }
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_group_id(self.names.group(group))
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_generation_id(member.generation())
            .with_member_id(member.id())
            .with_topics(topics);
        let worst = |answer: &kafka_protocol::messages::TxnOffsetCommitResponse| {
            let results = answer.topics.iter().flat_map(|topic| &topic.partitions);
            results.map(|result| result.error_code).find(|code| *code != 0).unwrap_or(0)
        };
        self.link.ask(&request, self.flow.offsets(), is_implicit, worst).await.map(|_| ())
    }

    fn end_request(&self, commit: bool) -> EndTxnRequest {
        EndTxnRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_producer_id(ProducerId(self.id))
            .with_producer_epoch(self.epoch)
            .with_committed(commit)
    }

    pub async fn end(&mut self, commit: bool) -> Result<(), Trouble> {
        let is_implicit = self.flow == Flow::Implicit;
        let request = self.end_request(commit);
        let answer = self.link.ask(&request, self.flow.end(), is_implicit, |answer| answer.error_code).await?;
        self.added.clear();
        if is_implicit && (answer.producer_id.0, answer.producer_epoch) != (self.id, self.epoch) {
            (self.id, self.epoch) = (answer.producer_id.0, answer.producer_epoch);
            self.sequences.clear();
        }
        Ok(())
    }

    /// Asks for the end and is gone before the answer.
    pub async fn end_and_vanish(mut self, commit: bool) {
        let request = self.end_request(commit);
        // Whether it was sent is as unknown as what became of it.
        let _ = self.link.leave_behind(&request, self.flow.end()).await;
    }
}
