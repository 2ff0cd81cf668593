//! A member of a classic group, with the offsets of the group.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::frame::text;
use crate::history::{Group, Partition};
use crate::names::{Names, partitions_of};
use crate::wire::{Address, Link, Trouble};

const JOIN: i16 = 9;
const SYNC: i16 = 5;
const HEARTBEAT: i16 = 4;
const LEAVE: i16 = 5;
const OFFSETS: i16 = 9;
const SESSION_MS: i32 = 6_000;
const REBALANCE_MS: i32 = 2_000;
/// Longer than a join may wait for other members.
const REBALANCED: Duration = Duration::from_secs(8);

pub struct Member {
    link: Link,
    names: Names,
    group: Group,
    topics: Vec<u8>,
    id: StrBytes,
    generation: i32,
    pub assigned: Vec<Partition>,
}

pub enum Standing {
    Stays,
    /// It has partitions of a new generation.
    Joined,
    /// Nothing is known of it just now.
    Away,
}

impl Member {
    pub fn new(broker: &Address, names: &Names, group: Group, topics: &[u8]) -> Member {
        Member {
            link: Link::new(broker),
            names: names.clone(),
            group,
            topics: topics.to_vec(),
            id: text(""),
            generation: -1,
            assigned: Vec::new(),
        }
    }

    pub fn id(&self) -> StrBytes {
        self.id.clone()
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Joins, or says that it is still there.
    pub async fn beat(&mut self) -> Standing {
        if self.generation < 0 {
            return self.join().await;
        }
        let request = HeartbeatRequest::default()
            .with_group_id(self.names.group(self.group))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        match self.link.call(&request, HEARTBEAT).await.map(|answer| ResponseError::try_from_code(answer.error_code)) {
            Ok(None) => Standing::Stays,
            Ok(Some(ResponseError::RebalanceInProgress)) => self.join().await,
            Ok(Some(error)) => {
                self.forget(error);
                Standing::Away
            }
            Err(_) => Standing::Away,
        }
    }

    /// What it held is not its own any more.
    pub fn forget(&mut self, error: ResponseError) {
        self.generation = -1;
        self.assigned.clear();
        if error == ResponseError::UnknownMemberId {
            self.id = text("");
        }
    }

    /// Begins anew as another member; the group learns of it by the session's end.
    pub fn vanish(&mut self) {
        self.forget(ResponseError::UnknownMemberId);
    }

    pub async fn leave(&mut self) {
        let member = MemberIdentity::default().with_member_id(self.id.clone());
        let request =
            LeaveGroupRequest::default().with_group_id(self.names.group(self.group)).with_members(vec![member]);
        // A leave that is lost is a member that vanishes.
        let _ = self.link.call(&request, LEAVE).await;
        self.vanish();
    }

    async fn join(&mut self) -> Standing {
        self.generation = -1;
        self.assigned.clear();
        let protocol = JoinGroupRequestProtocol::default().with_name(text("here")).with_metadata(self.subscription());
        let request = JoinGroupRequest::default()
            .with_group_id(self.names.group(self.group))
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_member_id(self.id.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let Ok(joined) = self.link.call_for(REBALANCED, &request, JOIN).await else { return Standing::Away };
        match ResponseError::try_from_code(joined.error_code) {
            None => self.sync(joined).await,
            Some(ResponseError::MemberIdRequired) => {
                self.id = joined.member_id;
                Standing::Away
            }
            Some(error) => {
                self.forget(error);
                Standing::Away
            }
        }
    }

    async fn sync(&mut self, joined: JoinGroupResponse) -> Standing {
        self.id = joined.member_id.clone();
        let mut members: Vec<StrBytes> = joined.members.iter().map(|member| member.member_id.clone()).collect();
        members.sort();
        let assigned = members.iter().enumerate().map(|(place, member)| {
            let partitions = partitions_of(&self.topics).into_iter().skip(place).step_by(members.len());
            SyncGroupRequestAssignment::default()
                .with_member_id(member.clone())
                .with_assignment(self.assignment(&partitions.collect::<Vec<_>>()))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(self.names.group(self.group))
            .with_generation_id(joined.generation_id)
            .with_member_id(self.id.clone())
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("here")))
            .with_assignments(if joined.leader == self.id { assigned.collect() } else { vec![] });
        match self.link.call_for(REBALANCED, &request, SYNC).await {
            Ok(synced) if synced.error_code == 0 => {
                self.generation = joined.generation_id;
                self.assigned = self.decode(synced.assignment);
                Standing::Joined
            }
            Ok(synced) => {
                self.forget(
                    ResponseError::try_from_code(synced.error_code).unwrap_or(ResponseError::UnknownServerError),
                );
                Standing::Away
            }
            Err(_) => Standing::Away,
        }
    }

    /// Kafka's consumer protocol, version 0: topics, no user data.
    fn subscription(&self) -> Bytes {
        let mut bytes = vec![];
        bytes.put_i16(0);
        bytes.put_i32(self.topics.len() as i32);
        for topic in &self.topics {
            let name = self.names.topic(*topic);
            bytes.put_i16(name.len() as i16);
            bytes.put_slice(name.as_bytes());
        }
        bytes.put_i32(-1);
        bytes.into()
    }

    fn assignment(&self, partitions: &[Partition]) -> Bytes {
        let topics: BTreeSet<u8> = partitions.iter().map(|partition| partition.topic).collect();
        let mut bytes = vec![];
        bytes.put_i16(0);
        bytes.put_i32(topics.len() as i32);
        for topic in topics {
            let name = self.names.topic(topic);
            bytes.put_i16(name.len() as i16);
            bytes.put_slice(name.as_bytes());
            let of_topic: Vec<i32> = partitions.iter().filter(|of| of.topic == topic).map(|of| of.index).collect();
            bytes.put_i32(of_topic.len() as i32);
            of_topic.into_iter().for_each(|index| bytes.put_i32(index));
        }
        bytes.put_i32(-1);
        bytes.into()
    }

    fn decode(&self, mut bytes: Bytes) -> Vec<Partition> {
        let mut partitions = Vec::new();
        bytes.advance(2);
        for _ in 0..bytes.get_i32() {
            let length = usize::try_from(bytes.get_i16()).unwrap();
            let name = TopicName(StrBytes::try_from(bytes.split_to(length)).unwrap());
            for _ in 0..bytes.get_i32() {
                partitions.push(self.names.partition(&name, bytes.get_i32()));
            }
        }
        partitions
    }

    /// Outside of any transaction, once.
    pub async fn commit(&mut self, offsets: &[(Partition, i64)]) -> Result<(), Trouble> {
        let topic = |topic: &u8| {
            let of_topic = offsets.iter().filter(|(partition, _)| partition.topic == *topic);
            let offset = |(partition, offset): &(Partition, i64)| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition.index)
                    .with_committed_offset(*offset)
                    .with_committed_leader_epoch(-1)
                    .with_committed_metadata(Some(text("")))
            };
            OffsetCommitRequestTopic::default()
                .with_name(self.names.topic(*topic))
                .with_partitions(of_topic.map(offset).collect())
        };
        let topics: BTreeSet<u8> = offsets.iter().map(|(partition, _)| partition.topic).collect();
        let request = OffsetCommitRequest::default()
            .with_group_id(self.names.group(self.group))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(topics.iter().map(topic).collect());
        let worst = |answer: &OffsetCommitResponse| {
            let results = answer.topics.iter().flat_map(|topic| &topic.partitions);
            results.map(|result| result.error_code).find(|code| *code != 0).unwrap_or(0)
        };
        self.link.ask(&request, OFFSETS, false, worst).await.map(|_| ())
    }

    /// The group's offsets of all its topics, when none of them is about to change by a transaction.
    pub async fn offsets(&mut self) -> Result<Vec<(Partition, i64)>, Trouble> {
        let topic = |topic: &u8| {
            let indexes = partitions_of(&[*topic]).iter().map(|partition| partition.index).collect();
            OffsetFetchRequestTopics::default().with_name(self.names.topic(*topic)).with_partition_indexes(indexes)
        };
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(self.names.group(self.group))
            .with_member_epoch(-1)
            .with_topics(Some(self.topics.iter().map(topic).collect()));
        let request = OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(true);
        let worst = |answer: &OffsetFetchResponse| {
            let Some(group) = answer.groups.first() else { return ResponseError::UnknownServerError.code() };
            let results = group.topics.iter().flat_map(|topic| &topic.partitions);
            let codes = std::iter::once(group.error_code).chain(results.map(|result| result.error_code));
            codes.into_iter().find(|code| *code != 0).unwrap_or(0)
        };
        let answer = self.link.ask(&request, OFFSETS, true, worst).await?;
        let mut offsets = Vec::new();
        for topic in answer.groups.iter().flat_map(|group| &group.topics) {
            for part in topic.partitions.iter().filter(|part| part.committed_offset >= 0) {
                offsets.push((self.names.partition(&topic.name, part.partition_index), part.committed_offset));
            }
        }
        Ok(offsets)
    }
}
