//! Control operations of this door as events of the audit log: requests that change topics, settings, groups, quotas or who
//! may do what. What clients do all the time to read, write and find each other is none.
//!
//! Called by `conn`. Of a request, what it is about is told, never a secret; of its answer, the first error.

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, StrBytes};
use serde_json::{Value, json};

use super::{Context, Row, error, guard};
use crate::audit::event::{PARAMETERS_BYTES_MAX, left_out};
use crate::audit::{Event, Identity, Source};

/// A request whose answer will be told.
pub struct Asked {
    cx: Context,
    row: &'static Row,
    body: Bytes,
    at_ms: i64,
}

/// `None` where nothing is to be told.
pub fn asked(cx: &Context, row: &'static Row, body: &Bytes) -> Option<Asked> {
    if !cx.door.audit.is_on() || parameters_of(row.key).is_none() {
        return None;
    }
    Some(Asked { cx: cx.clone(), row, body: body.clone(), at_ms: cx.door.audit.now_ms() })
}

pub fn answered(asked: Asked, code: i16) {
    let Asked { cx, row, body, at_ms } = asked;
    let request = match parameters_of(row.key) {
        Some(_) if body.len() > PARAMETERS_BYTES_MAX => left_out(body.len()),
        Some(parameters) => parameters(body, cx.version).unwrap_or_default(),
        None => Value::Null,
    };
    let client_id = cx.client_id.as_ref().map_or("", |id| id.as_str());
    let agent = match cx.client.software.get() {
        Some(software) => format!("{software} {client_id}"),
        None => client_id.to_owned(),
    };
    cx.door.audit.record(Event {
        source: Source::Kafka,
        name: row.name,
        read_only: false,
        at_ms,
        peer: cx.client.peer,
        user_agent: Some(agent.trim().to_owned()).filter(|agent| !agent.is_empty()),
        identity: Identity::Anonymous,
        request,
        response: Value::Null,
        error: (code != error::NONE).then(|| (error::name(code).to_owned(), None)),
        request_id: format!("{}-{}", cx.client.id, cx.correlation_id),
    });
}

type Parameters = fn(Bytes, i16) -> Option<Value>;

/// How a control operation's request is told; `None` for what is no control operation.
fn parameters_of(key: ApiKey) -> Option<Parameters> {
    Some(match key {
        ApiKey::CreateTopics => |body, version| told(body, version, create_topics),
        ApiKey::DeleteTopics => |body, version| told(body, version, delete_topics),
        ApiKey::CreatePartitions => |body, version| told(body, version, create_partitions),
        ApiKey::DeleteRecords => |body, version| told(body, version, delete_records),
        ApiKey::DeleteGroups => |body, version| {
            told(body, version, |r: DeleteGroupsRequest| json!({"groups": texts(r.groups_names.iter().map(|g| &g.0))}))
        },
        ApiKey::OffsetDelete => |body, version| told(body, version, offset_delete),
        ApiKey::AlterConfigs => |body, version| told(body, version, alter_configs),
        ApiKey::IncrementalAlterConfigs => |body, version| told(body, version, incremental_alter_configs),
        ApiKey::AlterReplicaLogDirs => |body, version| told(body, version, alter_replica_log_dirs),
        ApiKey::ElectLeaders => |body, version| told(body, version, elect_leaders),
        ApiKey::AlterPartitionReassignments => |body, version| told(body, version, reassignments),
        ApiKey::AlterClientQuotas => |body, version| told(body, version, alter_client_quotas),
        ApiKey::CreateAcls => |body, version| told(body, version, create_acls),
        ApiKey::DeleteAcls => {
            |body, version| told(body, version, |r: DeleteAclsRequest| json!({"filters": r.filters.len()}))
        }
        ApiKey::AlterUserScramCredentials => |body, version| told(body, version, alter_user_scram_credentials),
        ApiKey::UpdateFeatures => |body, version| told(body, version, update_features),
        ApiKey::AlterShareGroupOffsets => |body, version| {
            told(
                body,
                version,
                |r: AlterShareGroupOffsetsRequest| json!({"group": text(&r.group_id.0), "topics": texts(r.topics.iter().map(|t| &t.topic_name.0))}),
            )
        },
        ApiKey::DeleteShareGroupOffsets => |body, version| {
            told(
                body,
                version,
                |r: DeleteShareGroupOffsetsRequest| json!({"group": text(&r.group_id.0), "topics": texts(r.topics.iter().map(|t| &t.topic_name.0))}),
            )
        },
        _ => return None,
    })
}

fn told<R: Decodable>(body: Bytes, version: i16, tell: impl FnOnce(R) -> Value) -> Option<Value> {
    guard::decode(body, version).ok().map(tell)
}

fn text(text: &StrBytes) -> Value {
    json!(text.as_str())
}

fn texts<'a>(all: impl Iterator<Item = &'a StrBytes>) -> Value {
    all.map(text).collect()
}

fn create_topics(request: CreateTopicsRequest) -> Value {
    let topics = request.topics.iter().map(|topic| {
        let configs = topic
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.as_ref().map_or(Value::Null, text)));
        json!({"name": text(&topic.name.0), "partitions": topic.num_partitions,
            "replicationFactor": topic.replication_factor, "configs": configs.collect::<Value>()})
    });
    json!({"topics": topics.collect::<Value>(), "validateOnly": request.validate_only})
}

fn delete_topics(request: DeleteTopicsRequest) -> Value {
    let named = request.topics.iter().map(|topic| match &topic.name {
        Some(name) => json!({"name": text(&name.0)}),
        None => json!({"topicId": topic.topic_id.to_string()}),
    });
    let old = request.topic_names.iter().map(|name| json!({"name": text(&name.0)}));
    json!({"topics": named.chain(old).collect::<Value>()})
}

fn create_partitions(request: CreatePartitionsRequest) -> Value {
    let topics = request.topics.iter().map(|topic| json!({"name": text(&topic.name.0), "partitions": topic.count}));
    json!({"topics": topics.collect::<Value>(), "validateOnly": request.validate_only})
}

fn delete_records(request: DeleteRecordsRequest) -> Value {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|p| json!({"partition": p.partition_index, "beforeOffset": p.offset}));
        json!({"name": text(&topic.name.0), "partitions": partitions.collect::<Value>()})
    });
    json!({"topics": topics.collect::<Value>()})
}

fn offset_delete(request: OffsetDeleteRequest) -> Value {
    let topics = request.topics.iter().map(|topic| {
        let partitions: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        json!({"name": text(&topic.name.0), "partitions": partitions})
    });
    json!({"group": text(&request.group_id.0), "topics": topics.collect::<Value>()})
}

fn alter_configs(request: AlterConfigsRequest) -> Value {
    let resources = request.resources.iter().map(|resource| {
        let configs = resource.configs.iter();
        let configs = configs.map(|c| (c.name.to_string(), c.value.as_ref().map_or(Value::Null, text)));
        json!({"type": resource.resource_type, "name": text(&resource.resource_name),
            "configs": configs.collect::<Value>()})
    });
    json!({"resources": resources.collect::<Value>(), "validateOnly": request.validate_only})
}

fn incremental_alter_configs(request: IncrementalAlterConfigsRequest) -> Value {
    let resources = request.resources.iter().map(|resource| {
        let configs = resource.configs.iter().map(|config| {
            let operation = match config.config_operation {
                0 => "SET",
                1 => "DELETE",
                2 => "APPEND",
                3 => "SUBTRACT",
                _ => "UNKNOWN",
            };
            json!({"name": text(&config.name), "operation": operation,
                "value": config.value.as_ref().map_or(Value::Null, text)})
        });
        json!({"type": resource.resource_type, "name": text(&resource.resource_name),
            "configs": configs.collect::<Value>()})
    });
    json!({"resources": resources.collect::<Value>(), "validateOnly": request.validate_only})
}

fn alter_replica_log_dirs(request: AlterReplicaLogDirsRequest) -> Value {
    let dirs = request
        .dirs
        .iter()
        .map(|dir| json!({"path": text(&dir.path), "topics": texts(dir.topics.iter().map(|topic| &topic.name.0))}));
    json!({"dirs": dirs.collect::<Value>()})
}

fn elect_leaders(request: ElectLeadersRequest) -> Value {
    let topics = request.topic_partitions.as_ref().map(|topics| {
        topics.iter().map(|t| json!({"name": text(&t.topic.0), "partitions": t.partitions})).collect::<Value>()
    });
    json!({"electionType": request.election_type, "topics": topics})
}

fn reassignments(request: AlterPartitionReassignmentsRequest) -> Value {
    let topics = request.topics.iter().map(|topic| {
        let partitions: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        json!({"name": text(&topic.name.0), "partitions": partitions})
    });
    json!({"topics": topics.collect::<Value>()})
}

fn alter_client_quotas(request: AlterClientQuotasRequest) -> Value {
    let entries = request.entries.iter().map(|entry| {
        let entity = entry.entity.iter();
        let entity = entity.map(|e| (e.entity_type.to_string(), e.entity_name.as_ref().map_or(Value::Null, text)));
        let quotas =
            entry.ops.iter().map(|op| (op.key.to_string(), if op.remove { Value::Null } else { json!(op.value) }));
        json!({"entity": entity.collect::<Value>(), "quotas": quotas.collect::<Value>()})
    });
    json!({"entries": entries.collect::<Value>(), "validateOnly": request.validate_only})
}

fn create_acls(request: CreateAclsRequest) -> Value {
    let acls = request.creations.iter().map(|acl| {
        json!({"resourceType": acl.resource_type, "resourceName": text(&acl.resource_name),
            "principal": text(&acl.principal), "host": text(&acl.host), "operation": acl.operation,
            "permissionType": acl.permission_type})
    });
    json!({"creations": acls.collect::<Value>()})
}

/// Users and mechanisms; salts and passwords are secrets.
fn alter_user_scram_credentials(request: AlterUserScramCredentialsRequest) -> Value {
    let deletions = request.deletions.iter().map(|d| json!({"user": text(&d.name), "mechanism": d.mechanism}));
    let upsertions = request.upsertions.iter().map(|u| json!({"user": text(&u.name), "mechanism": u.mechanism}));
    json!({"deletions": deletions.collect::<Value>(), "upsertions": upsertions.collect::<Value>()})
}

fn update_features(request: UpdateFeaturesRequest) -> Value {
    let updates = request.feature_updates.iter();
    let updates = updates.map(|update| (update.feature.to_string(), json!(update.max_version_level)));
    json!({"features": updates.collect::<Value>(), "validateOnly": request.validate_only})
}
