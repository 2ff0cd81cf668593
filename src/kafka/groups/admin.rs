//! Finding, listing, describing and deleting groups: FindCoordinator (10), DescribeGroups (15), ListGroups (16),
//! DeleteGroups (42).

use indexmap::IndexSet;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{group_id, string};
use crate::group::classic::{Description, MemberDescription, State};
use crate::group::{GroupType, Listed};
use crate::kafka::error::{self, NONE};
use crate::kafka::{Context, names, share};

/// FindCoordinator versions that ask for several keys (KIP-699).
const SEVERAL_KEYS_FROM: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// DescribeGroups versions that know GROUP_ID_NOT_FOUND (KIP-1043).
const GROUP_ID_NOT_FOUND_FROM: i16 = 6;
/// What everyone may do with a group, as Kafka's bits: read 3, delete 6, describe 8, describe configs 10, alter configs 11.
pub(super) const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// FindCoordinator, versions 0 to 6: this broker, by the address of the listener that the client came by.
///
/// It coordinates groups and transactional ids alike. Coordinators of share groups are for brokers to ask:
/// INVALID_REQUEST, as where share groups are off.
pub async fn find_coordinator(cx: Context, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let refusal = refusal(request.key_type);
    let advertised = cx.door.listeners.get(cx.client.listener);
    let (host, port) = advertised.map_or((String::new(), -1), |it| (it.host.clone(), i32::from(it.port)));
    let found = Found { node_id: cx.door.node_id(), host: string(host), port, refusal };
    if cx.version >= SEVERAL_KEYS_FROM {
        let coordinators = request.coordinator_keys.into_iter().map(|key| found.coordinator(key));
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    } else {
        found.response()
    }
}

/// Why there is no coordinator of this type.
fn refusal(key_type: i8) -> Option<(ResponseError, &'static str)> {
    match key_type {
        GROUP | TRANSACTION => None,
        _ => Some((ResponseError::InvalidRequest, "There is no coordinator of this type.")),
    }
}

struct Found {
    node_id: BrokerId,
    host: StrBytes,
    port: i32,
    refusal: Option<(ResponseError, &'static str)>,
}

impl Found {
    /// Versions 4 and later; [`Found::response`] says the same before.
    fn coordinator(&self, key: StrBytes) -> Coordinator {
        let coordinator = Coordinator::default().with_key(key);
        match self.refusal {
            Some((error, message)) => coordinator
                .with_error_code(error.code())
                .with_error_message(names::message(message))
                .with_node_id(BrokerId(-1))
                .with_port(-1),
            None => coordinator.with_node_id(self.node_id).with_host(self.host.clone()).with_port(self.port),
        }
    }

    fn response(&self) -> FindCoordinatorResponse {
        let response = FindCoordinatorResponse::default();
        match self.refusal {
            Some((error, message)) => response
                .with_error_code(error.code())
                .with_error_message(names::message(message))
                .with_node_id(BrokerId(-1))
                .with_port(-1),
            None => response.with_node_id(self.node_id).with_host(self.host.clone()).with_port(self.port),
        }
    }
}

/// DescribeGroups, versions 0 to 6. A group that does not exist is Dead, and from 6 on an error besides.
pub async fn describe_groups(cx: Context, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    // Each once: a description can be large, and a request could name it a million times.
    let wanted: IndexSet<GroupId> = request.groups.into_iter().collect();
    let described = wanted.into_iter().map(|group_id| {
        let Some(description) = cx.door.groups.describe(&group_id) else { return missing(group_id, cx.version) };
        let described = described(group_id, description);
        if request.include_authorized_operations {
            described.with_authorized_operations(GROUP_OPERATIONS)
        } else {
            described
        }
    });
    DescribeGroupsResponse::default().with_groups(described.collect())
}

fn missing(group_id: GroupId, version: i16) -> DescribedGroup {
    let message = names::message(format!("Group {} not found.", group_id.as_str()));
    let dead = DescribedGroup::default()
        .with_group_id(group_id)
        .with_group_state(StrBytes::from_static_str(State::Dead.name()));
    if version < GROUP_ID_NOT_FOUND_FROM {
        return dead;
    }
    dead.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(message)
}

fn described(group_id: GroupId, description: Description) -> DescribedGroup {
    let member = |member: MemberDescription| {
        DescribedGroupMember::default()
            .with_member_id(string(member.member_id))
            .with_group_instance_id(member.group_instance_id.map(string))
            .with_client_id(string(member.client_id))
            .with_client_host(string(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    };
    DescribedGroup::default()
        .with_group_id(group_id)
        .with_group_state(StrBytes::from_static_str(description.state.name()))
        .with_protocol_type(string(description.protocol_type))
        .with_protocol_data(string(description.protocol))
        .with_members(description.members.into_iter().map(member).collect())
}

/// ListGroups, versions 0 to 5, with filters by state (from 4 on) and type (5).
pub async fn list_groups(cx: Context, request: ListGroupsRequest) -> ListGroupsResponse {
    let names = |filter: Vec<StrBytes>| filter.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (states, types) = (names(request.states_filter), names(request.types_filter));
    let listed = cx.door.groups.list(&states, &types);
    let shares = share_groups(&cx, &states, &types);
    let group = |listed: Listed| {
        ListedGroup::default()
            .with_group_id(group_id(&listed.group_id))
            .with_protocol_type(string(listed.protocol_type))
            .with_group_state(StrBytes::from_static_str(listed.state))
            .with_group_type(StrBytes::from_static_str(listed.group_type.name()))
    };
    ListGroupsResponse::default().with_groups(listed.into_iter().map(group).chain(shares).collect())
}

fn share_groups(cx: &Context, states: &[String], types: &[String]) -> Vec<ListedGroup> {
    let among =
        |names: &[String], name: &str| names.is_empty() || names.iter().any(|asked| asked.eq_ignore_ascii_case(name));
    let group_type = GroupType::Share.name();
    if !among(types, group_type) {
        return Vec::new();
    }
    let listed = cx.door.shares.list().into_iter().filter(|group| among(states, group.state.name())).map(|group| {
        ListedGroup::default()
            .with_group_id(group_id(&group.group_id))
            .with_protocol_type(StrBytes::from_static_str(group_type))
            .with_group_state(StrBytes::from_static_str(group.state.name()))
            .with_group_type(StrBytes::from_static_str(group_type))
    });
    listed.collect()
}

/// DeleteGroups, versions 0 to 2: groups without members, with their offsets; share groups with what they processed.
pub async fn delete_groups(cx: Context, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let wanted: IndexSet<GroupId> = request.groups_names.into_iter().collect();
    let (shares, others): (Vec<GroupId>, Vec<GroupId>) = wanted.into_iter().partition(|id| cx.door.shares.holds(id));
    let ids: Vec<String> = others.iter().map(|group_id| group_id.to_string()).collect();
    let answers = cx.door.groups.delete_groups(&ids).await;
    let codes = answers.into_iter().map(|answer| answer.map_or_else(|error| error::of_group(error).code(), |()| NONE));
    let mut deleted: Vec<(GroupId, i16)> = others.into_iter().zip(codes).collect();
    for group_id in shares {
        let answer = cx.door.shares.delete_group(&group_id).await;
        let code = answer.map_or_else(|failure| share::of_share(failure).code(), |()| NONE);
        deleted.push((group_id, code));
    }
    let results = deleted
        .into_iter()
        .map(|(group_id, code)| DeletableGroupResult::default().with_group_id(group_id).with_error_code(code));
    DeleteGroupsResponse::default().with_results(results.collect())
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::protocol::{Encodable, Message};

    use super::*;

    fn found(refusal: Option<(ResponseError, &'static str)>) -> Found {
        Found { node_id: BrokerId(1), host: StrBytes::from_static_str("here"), port: 9092, refusal }
    }

    #[test]
    fn coordinators_are_found_and_refused_in_every_version() {
        for version in FindCoordinatorResponse::VERSIONS.min..=FindCoordinatorResponse::VERSIONS.max {
            for key_type in [GROUP, TRANSACTION, 2, -1] {
                let found = found(refusal(key_type));
                let response = if version >= SEVERAL_KEYS_FROM {
                    FindCoordinatorResponse::default().with_coordinators(vec![found.coordinator(StrBytes::default())])
                } else {
                    found.response()
                };
                response
                    .encode(&mut BytesMut::new(), version)
                    .unwrap_or_else(|error| panic!("version {version}, type {key_type}: {error}"));
            }
        }
        assert_eq!(found(refusal(GROUP)).response().port, 9092);
        assert_eq!(found(refusal(TRANSACTION)).response().port, 9092);
        assert_eq!(found(refusal(2)).coordinator(StrBytes::default()).error_code, 42);
    }

    #[test]
    fn descriptions_can_be_encoded_in_every_version() {
        let member = MemberDescription {
            member_id: "m".into(),
            group_instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            metadata: Bytes::new(),
            assignment: Bytes::from_static(b"a"),
        };
        let description = Description {
            state: State::Stable,
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            members: vec![member],
        };
        for version in DescribeGroupsResponse::VERSIONS.min..=DescribeGroupsResponse::VERSIONS.max {
            let groups = vec![described(group_id("g"), description.clone()), missing(group_id("n"), version)];
            assert_eq!(groups[1].error_code, if version >= 6 { 69 } else { 0 });
            assert_eq!(groups[1].group_state.as_str(), "Dead");
            DescribeGroupsResponse::default()
                .with_groups(groups)
                .encode(&mut BytesMut::new(), version)
                .unwrap_or_else(|error| panic!("version {version}: {error}"));
        }
    }
}
