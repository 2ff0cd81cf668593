//! Consumer groups: `members` (JoinGroup, SyncGroup, Heartbeat, LeaveGroup), `committed` (OffsetCommit, OffsetFetch,
//! OffsetDelete), `consumers` (ConsumerGroupHeartbeat, ConsumerGroupDescribe) and `admin` (FindCoordinator, DescribeGroups, ListGroups, DeleteGroups). What they decide stands in
//! [`crate::group`]; here requests of all versions become its requests, and its answers theirs.
//!
//! This broker coordinates every group.

use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::StrBytes;

mod admin;
mod committed;
mod consumers;
mod members;

pub use admin::{delete_groups, describe_groups, find_coordinator, list_groups};
pub use committed::{offset_commit, offset_delete, offset_fetch};
pub use consumers::{consumer_group_describe, consumer_group_heartbeat};
pub use members::{heartbeat, join_group, leave_group, sync_group};

fn string(text: String) -> StrBytes {
    StrBytes::from_string(text)
}

fn owned(text: Option<StrBytes>) -> Option<String> {
    text.map(|text| text.to_string())
}

fn group_id(id: &str) -> GroupId {
    GroupId(string(id.to_owned()))
}
