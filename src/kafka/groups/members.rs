//! What members ask: JoinGroup (11), SyncGroup (14), Heartbeat (12), LeaveGroup (13).

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{owned, string};
use crate::group::GroupError;
use crate::group::classic::{
    JoinAnswer, JoinRefused, JoinRequest, Joined, JoinedMember, Leaver, Protocol, SyncAnswer, SyncRequest, Synced,
};
use crate::kafka::error::{self, NONE};
use crate::kafka::{Client, Context};

/// JoinGroup versions that tell a dynamic member its id first (KIP-394).
const MEMBER_ID_REQUIRED_FROM: i16 = 4;
/// JoinGroup versions whose protocol name may be null (KIP-559).
const NULL_PROTOCOL_FROM: i16 = 7;
/// JoinGroup versions that know `skip_assignment` (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;
/// SyncGroup versions that must name the protocol and its type (KIP-559).
const PROTOCOL_CHECKED_FROM: i16 = 5;
/// LeaveGroup versions that name several members (KIP-345).
const LEAVE_TOGETHER_FROM: i16 = 3;

/// JoinGroup, versions 0 to 9. Version 0 has one timeout for both; from 4 on a member asks for its id first; from 5 on
/// there are static members.
pub async fn join_group(cx: Context, request: JoinGroupRequest) -> JoinGroupResponse {
    let group_id = request.group_id.clone();
    let client_id = cx.client_id.as_deref().unwrap_or_default();
    let request = join_request(request, cx.version, client_id, &cx.client);
    join_response(cx.door.groups.join(&group_id, request).await, cx.version)
}

fn join_request(request: JoinGroupRequest, version: i16, client_id: &str, client: &Client) -> JoinRequest {
    let rebalance_timeout_ms = if version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
    let protocols = request.protocols.into_iter();
    JoinRequest {
        member_id: request.member_id.to_string(),
        group_instance_id: owned(request.group_instance_id),
        client_id: client_id.to_owned(),
        client_host: format!("/{}", client.peer.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols
            .map(|protocol| Protocol { name: protocol.name.to_string(), metadata: protocol.metadata })
            .collect(),
        member_id_required: version >= MEMBER_ID_REQUIRED_FROM,
        can_skip_assignment: version >= SKIP_ASSIGNMENT_FROM,
    }
}

fn join_response(answer: JoinAnswer, version: i16) -> JoinGroupResponse {
    match answer {
        Ok(joined) => joined_response(joined, version),
        Err(JoinRefused { error, member_id }) => JoinGroupResponse::default()
            .with_error_code(error::of_group(error).code())
            .with_generation_id(-1)
            .with_protocol_name(Some(StrBytes::default()))
            .with_member_id(string(member_id)),
    }
}

fn joined_response(joined: Joined, version: i16) -> JoinGroupResponse {
    let protocol = joined.protocol.map(string);
    let member = |member: JoinedMember| {
        JoinGroupResponseMember::default()
            .with_member_id(string(member.member_id))
            .with_group_instance_id(member.group_instance_id.map(string))
            .with_metadata(member.metadata)
    };
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.map(string))
        .with_protocol_name(if version < NULL_PROTOCOL_FROM { Some(protocol.unwrap_or_default()) } else { protocol })
        .with_leader(string(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(string(joined.member_id))
        .with_members(joined.members.into_iter().map(member).collect())
}

/// SyncGroup, versions 0 to 5.
pub async fn sync_group(cx: Context, request: SyncGroupRequest) -> SyncGroupResponse {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if cx.version >= PROTOCOL_CHECKED_FROM && !names_protocol {
        return sync_response(Err(GroupError::InconsistentGroupProtocol));
    }
    let group_id = request.group_id.clone();
    let assignments = request.assignments.into_iter();
    let request = SyncRequest {
        member_id: request.member_id.to_string(),
        group_instance_id: owned(request.group_instance_id),
        generation: request.generation_id,
        protocol_type: owned(request.protocol_type),
        protocol: owned(request.protocol_name),
        assignments: assignments.map(|assigned| (assigned.member_id.to_string(), assigned.assignment)).collect(),
    };
    sync_response(cx.door.groups.sync(&group_id, request).await)
}

fn sync_response(answer: SyncAnswer) -> SyncGroupResponse {
    match answer {
        Ok(Synced { protocol_type, protocol, assignment }) => SyncGroupResponse::default()
            .with_protocol_type(protocol_type.map(string))
            .with_protocol_name(protocol.map(string))
            .with_assignment(assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error::of_group(error).code()),
    }
}

/// Heartbeat, versions 0 to 4.
pub async fn heartbeat(cx: Context, request: HeartbeatRequest) -> HeartbeatResponse {
    let instance = request.group_instance_id.as_deref();
    let beat = cx.door.groups.heartbeat(&request.group_id, &request.member_id, instance, request.generation_id);
    HeartbeatResponse::default().with_error_code(code(beat))
}

/// LeaveGroup, versions 0 to 5: one member, or from 3 on several, by member id or group instance id.
pub async fn leave_group(cx: Context, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let LeaveGroupRequest { group_id, member_id, members, .. } = request;
    if cx.version < LEAVE_TOGETHER_FROM {
        let leaver = Leaver { member_id: member_id.to_string(), group_instance_id: None };
        let left = cx.door.groups.leave(&group_id, &[leaver]).await;
        let left = left.and_then(|answers| answers.into_iter().collect());
        return LeaveGroupResponse::default().with_error_code(code(left));
    }
    let leaver = |member: &MemberIdentity| Leaver {
        member_id: member.member_id.to_string(),
        group_instance_id: owned(member.group_instance_id.clone()),
    };
    let leavers: Vec<Leaver> = members.iter().map(leaver).collect();
    match cx.door.groups.leave(&group_id, &leavers).await {
        Ok(answers) => {
            let members = members.into_iter().zip(answers).map(|(member, answer)| {
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(code(answer))
            });
            LeaveGroupResponse::default().with_members(members.collect())
        }
        Err(error) => LeaveGroupResponse::default().with_error_code(error::of_group(error).code()),
    }
}

fn code(answer: Result<(), GroupError>) -> i16 {
    answer.map_or_else(|error| error::of_group(error).code(), |()| NONE)
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
    use kafka_protocol::protocol::{Encodable, Message};

    use super::*;

    fn encodes<T: Encodable>(response: &T, version: i16) {
        response.encode(&mut BytesMut::new(), version).unwrap_or_else(|error| panic!("version {version}: {error}"));
    }

    #[test]
    fn join_requests_of_all_versions_say_what_they_mean() {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(Bytes::from_static(b"m"));
        let request = JoinGroupRequest::default()
            .with_session_timeout_ms(10)
            .with_rebalance_timeout_ms(20)
            .with_group_instance_id(Some(StrBytes::from_static_str("i")))
            .with_protocols(vec![protocol]);
        let client = Client::new("127.0.0.1:9".parse().unwrap(), 0);
        let of = |version| join_request(request.clone(), version, "c", &client);
        assert_eq!((of(0).rebalance_timeout_ms, of(1).rebalance_timeout_ms), (10, 20));
        assert_eq!((of(3).member_id_required, of(4).member_id_required), (false, true));
        assert_eq!((of(8).can_skip_assignment, of(9).can_skip_assignment), (false, true));
        let last = of(9);
        assert_eq!((last.client_id.as_str(), last.client_host.as_str()), ("c", "/127.0.0.1"));
        assert_eq!(last.group_instance_id.as_deref(), Some("i"));
        assert_eq!(last.protocols, [Protocol { name: "range".into(), metadata: Bytes::from_static(b"m") }]);
    }

    #[test]
    fn answers_to_joins_can_be_encoded_in_every_version() {
        let joined = Joined {
            member_id: "m".into(),
            generation: 3,
            protocol_type: None,
            protocol: None,
            leader: "m".into(),
            skip_assignment: false,
            members: vec![JoinedMember {
                member_id: "m".into(),
                group_instance_id: Some("i".into()),
                metadata: Bytes::new(),
            }],
        };
        for version in JoinGroupResponse::VERSIONS.min..=JoinGroupResponse::VERSIONS.max {
            encodes(&join_response(Ok(joined.clone()), version), version);
            let refused = JoinRefused { error: GroupError::MemberIdRequired, member_id: "m".into() };
            let refused = join_response(Err(refused), version);
            assert_eq!((refused.error_code, refused.generation_id, &*refused.member_id), (79, -1, "m"));
            encodes(&refused, version);
        }
    }

    #[test]
    fn answers_to_syncs_can_be_encoded_in_every_version() {
        let synced = Synced { protocol_type: Some("consumer".into()), protocol: None, assignment: Bytes::new() };
        for version in SyncGroupResponse::VERSIONS.min..=SyncGroupResponse::VERSIONS.max {
            encodes(&sync_response(Ok(synced.clone())), version);
            encodes(&sync_response(Err(GroupError::RebalanceInProgress)), version);
        }
    }
}
