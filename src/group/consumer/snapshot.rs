//! The group as it is stored, loaded and described.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Assignment, ClassicSide, Consumer, ConsumerState, Deadlines, Member, MemberState, Step};
use crate::group::classic::Protocol;
use crate::group::stored::{StoredClassicSide, StoredConsumer, StoredConsumerMember, StoredProtocol};

/// A group as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerDescription {
    pub state: ConsumerState,
    pub group_epoch: i32,
    pub assignment_epoch: i32,
    pub assignor: &'static str,
    pub members: Vec<ConsumerMemberDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMemberDescription {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub member_epoch: i32,
    pub client_id: String,
    pub client_host: String,
    pub topics: Vec<String>,
    pub regex: Option<String>,
    pub assigned: Assignment,
    pub target: Assignment,
    pub is_classic: bool,
}

impl Consumer {
    pub(super) fn stored_head(&self) -> StoredConsumer {
        StoredConsumer {
            group_epoch: self.group_epoch,
            assignment_epoch: self.assignment_epoch,
            metadata_hash: self.metadata_hash,
        }
    }

    pub(super) fn stored_member(&self, member_id: &str) -> Option<StoredConsumerMember> {
        let member = self.members.get(member_id)?;
        let classic = member.classic.as_ref().map(|classic| StoredClassicSide {
            session_timeout_ms: classic.session_timeout_ms,
            protocols: classic.protocols.iter().map(StoredProtocol::from).collect(),
        });
        Some(StoredConsumerMember {
            group_instance_id: member.group_instance_id.clone(),
            rack_id: member.rack_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            server_assignor: member.server_assignor.clone(),
            topics: member.topics.clone(),
            regex: member.regex.clone(),
            epoch: member.epoch,
            previous_epoch: member.previous_epoch,
            waits_for: match member.state {
                MemberState::Stable => None,
                MemberState::UnrevokedPartitions => Some("member".to_owned()),
                MemberState::UnreleasedPartitions => Some("others".to_owned()),
            },
            assigned: stored_assignment(&member.assigned),
            revoking: stored_assignment(&member.revoking),
            target: stored_assignment(&member.target),
            classic,
        })
    }

    /// A group as it was stored. Its members' sessions begin anew, so that they can go on as if nothing had been.
    pub fn load(step: &Step, head: StoredConsumer, members: Vec<(String, StoredConsumerMember)>) -> Consumer {
        let mut group = Consumer {
            group_epoch: head.group_epoch,
            assignment_epoch: head.assignment_epoch,
            metadata_hash: head.metadata_hash,
            ..Consumer::default()
        };
        for (member_id, stored) in members {
            let mut member = Member::from(stored);
            if member.state == MemberState::UnrevokedPartitions && member.classic.is_none() {
                let deadline = step.now.tick_ms.saturating_add(i64::from(member.rebalance_timeout_ms.max(0)));
                member.deadlines.rebalance = Some(deadline);
                group.arm(deadline);
            }
            group.put(&member_id, member);
            group.begin_session(step, &member_id);
        }
        group.members_changed.clear();
        group.look_up_topics(step.topics, None);
        group
    }

    pub fn describe(&self) -> ConsumerDescription {
        let member = |(member_id, member): (&String, &Member)| ConsumerMemberDescription {
            member_id: member_id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            rack_id: member.rack_id.clone(),
            member_epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: member.topics.iter().cloned().collect(),
            regex: member.regex.clone(),
            assigned: member.assigned.clone(),
            target: member.target.clone(),
            is_classic: member.classic.is_some(),
        };
        ConsumerDescription {
            state: self.state(),
            group_epoch: self.group_epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: self.assignor(),
            members: self.members.iter().map(member).collect(),
        }
    }
}

fn stored_assignment(assignment: &Assignment) -> BTreeMap<String, BTreeSet<u32>> {
    assignment.iter().map(|(topic, partitions)| (topic.to_string(), partitions.clone())).collect()
}

/// What is no topic id is left out: nobody has it.
fn assignment(stored: BTreeMap<String, BTreeSet<u32>>) -> Assignment {
    stored.into_iter().filter_map(|(topic, partitions)| Some((Uuid::parse_str(&topic).ok()?, partitions))).collect()
}

impl From<StoredConsumerMember> for Member {
    fn from(stored: StoredConsumerMember) -> Member {
        let protocol = |stored: StoredProtocol| Protocol { name: stored.name, metadata: stored.metadata };
        Member {
            group_instance_id: stored.group_instance_id,
            rack_id: stored.rack_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            server_assignor: stored.server_assignor,
            topics: stored.topics,
            regex: stored.regex,
            epoch: stored.epoch,
            previous_epoch: stored.previous_epoch,
            state: match stored.waits_for.as_deref() {
                Some("member") => MemberState::UnrevokedPartitions,
                Some(_) => MemberState::UnreleasedPartitions,
                None => MemberState::Stable,
            },
            assigned: assignment(stored.assigned),
            revoking: assignment(stored.revoking),
            target: assignment(stored.target),
            classic: stored.classic.map(|classic| ClassicSide {
                session_timeout_ms: classic.session_timeout_ms,
                protocols: classic.protocols.into_iter().map(protocol).collect(),
            }),
            deadlines: Deadlines::default(),
        }
    }
}
