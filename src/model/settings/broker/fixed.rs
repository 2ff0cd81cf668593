//! The table of broker settings that are fixed at the start. Read by `BrokerSettings` and described for the Kafka door.

use super::super::definition::{Check, Definition, ValueType};
use super::{BrokerValues, ShareGroupValues};

/// A setting that is fixed at the start, and where its value comes from.
pub struct Fixed {
    pub definition: Definition,
    read: Read,
}

enum Read {
    Any(fn(&BrokerValues) -> Option<String>),
    ShareGroups(fn(&ShareGroupValues) -> i64),
}

impl Fixed {
    /// What the start gave; `None` where it gives nothing.
    pub fn read(&self, values: &BrokerValues) -> Option<String> {
        match self.read {
            Read::Any(read) => read(values),
            Read::ShareGroups(read) => Some(read(&values.share_groups).to_string()),
        }
    }
}

/// By name.
pub const FIXED: &[Fixed] = &[
    fixed(
        "advertised.listeners",
        ValueType::String,
        None,
        |values| Some(values.advertised_listeners.clone()),
        "Addresses that clients are told to connect to.",
    ),
    fixed(
        "authorizer.class.name",
        ValueType::String,
        Some(""),
        |_| None,
        "Class that authorises requests; empty because every request is allowed.",
    ),
    fixed(
        "auto.create.topics.enable",
        ValueType::Boolean,
        Some("true"),
        |values| Some(values.auto_create_topics_enable.to_string()),
        "Whether a topic is made when a client first asks for it.",
    ),
    fixed("broker.id", ValueType::Int, None, |values| Some(values.node_id.to_string()), "This broker's id."),
    fixed("broker.rack", ValueType::String, None, |_| None, "Rack of this broker; a single broker has none."),
    fixed(
        "connections.max.idle.ms",
        ValueType::Long,
        Some("600000"),
        |values| Some(values.connections_max_idle_ms.to_string()),
        "A connection without a request for this long is closed.",
    ),
    fixed(
        "default.replication.factor",
        ValueType::Int,
        Some("1"),
        |_| None,
        "Replicas of a topic made without saying how many.",
    ),
    fixed("delete.topic.enable", ValueType::Boolean, Some("true"), |_| None, "Whether topics can be deleted."),
    fixed(
        "fetch.max.bytes",
        ValueType::Int,
        Some("57671680"),
        |values| Some(values.fetch_max_bytes.to_string()),
        "Most bytes of records in one fetch answer, but for a first batch that is larger.",
    ),
    fixed(
        "group.consumer.assignors",
        ValueType::List,
        Some("uniform,range"),
        |_| None,
        "How consumer groups can be assigned; the first unless members ask for another.",
    ),
    fixed(
        "group.consumer.heartbeat.interval.ms",
        ValueType::Int,
        Some("5000"),
        |values| Some(values.group_consumer_heartbeat_interval_ms.to_string()),
        "Time between two heartbeats that members of consumer groups are told to keep.",
    ),
    fixed(
        "group.consumer.max.heartbeat.interval.ms",
        ValueType::Int,
        Some("15000"),
        |values| Some(values.group_consumer_max_heartbeat_interval_ms.to_string()),
        "Longest heartbeat interval that can be set for a consumer group.",
    ),
    fixed(
        "group.consumer.max.session.timeout.ms",
        ValueType::Int,
        Some("60000"),
        |values| Some(values.group_consumer_max_session_timeout_ms.to_string()),
        "Longest session timeout that can be set for a consumer group.",
    ),
    fixed(
        "group.consumer.max.size",
        ValueType::Int,
        Some("2147483647"),
        |values| Some(values.group_max_size.to_string()),
        "Most members of one consumer group.",
    ),
    fixed(
        "group.consumer.migration.policy",
        ValueType::String,
        Some("bidirectional"),
        |values| Some(values.group_consumer_migration_policy.to_owned()),
        "Whether groups go over from the classic to the consumer protocol and back while they have members: disabled, upgrade, downgrade or bidirectional.",
    ),
    fixed(
        "group.consumer.min.heartbeat.interval.ms",
        ValueType::Int,
        Some("5000"),
        |values| Some(values.group_consumer_min_heartbeat_interval_ms.to_string()),
        "Shortest heartbeat interval that can be set for a consumer group.",
    ),
    fixed(
        "group.consumer.min.session.timeout.ms",
        ValueType::Int,
        Some("45000"),
        |values| Some(values.group_consumer_min_session_timeout_ms.to_string()),
        "Shortest session timeout that can be set for a consumer group.",
    ),
    fixed(
        "group.consumer.session.timeout.ms",
        ValueType::Int,
        Some("45000"),
        |values| Some(values.group_consumer_session_timeout_ms.to_string()),
        "Time after which a silent member of a consumer group is put out.",
    ),
    fixed(
        "group.coordinator.rebalance.protocols",
        ValueType::List,
        Some("classic,consumer"),
        |_| None,
        "The protocols that groups can use.",
    ),
    fixed(
        "group.initial.rebalance.delay.ms",
        ValueType::Int,
        Some("0"),
        |values| Some(values.group_initial_rebalance_delay_ms.to_string()),
        "Time a new group waits for more members before its first rebalance.",
    ),
    fixed(
        "group.max.session.timeout.ms",
        ValueType::Int,
        Some("1800000"),
        |values| Some(values.group_max_session_timeout_ms.to_string()),
        "Longest session timeout that a member may ask for.",
    ),
    fixed(
        "group.max.size",
        ValueType::Int,
        Some("2147483647"),
        |values| Some(values.group_max_size.to_string()),
        "Most members of one group.",
    ),
    fixed(
        "group.min.session.timeout.ms",
        ValueType::Int,
        Some("6000"),
        |values| Some(values.group_min_session_timeout_ms.to_string()),
        "Shortest session timeout that a member may ask for.",
    ),
    fixed("group.share.assignors", ValueType::List, Some("simple"), |_| None, "How share groups are assigned."),
    share(
        "group.share.delivery.count.limit",
        "5",
        |groups| groups.delivery_count_limit.value,
        "How often a record is delivered to a share group at most.",
    ),
    share(
        "group.share.heartbeat.interval.ms",
        "5000",
        |groups| groups.heartbeat_interval_ms.value,
        "Time between two heartbeats that members of share groups are told to keep.",
    ),
    share(
        "group.share.max.delivery.count.limit",
        "10",
        |groups| groups.delivery_count_limit.max,
        "Most deliveries of a record that can be set for a share group.",
    ),
    share(
        "group.share.max.heartbeat.interval.ms",
        "15000",
        |groups| groups.heartbeat_interval_ms.max,
        "Longest heartbeat interval that can be set for a share group.",
    ),
    share(
        "group.share.max.partition.max.record.locks",
        "4000",
        |groups| groups.partition_max_record_locks.max,
        "Most records in flight of a partition that can be set for a share group.",
    ),
    share(
        "group.share.max.record.lock.duration.ms",
        "60000",
        |groups| groups.record_lock_duration_ms.max,
        "Longest lock of a record that can be set for a share group.",
    ),
    share(
        "group.share.max.session.timeout.ms",
        "60000",
        |groups| groups.session_timeout_ms.max,
        "Longest session timeout that can be set for a share group.",
    ),
    share("group.share.max.share.sessions", "2000", |groups| groups.max_share_sessions, "Share sessions at once."),
    share("group.share.max.size", "200", |groups| groups.max_size, "Most members of one share group."),
    share(
        "group.share.min.delivery.count.limit",
        "2",
        |groups| groups.delivery_count_limit.min,
        "Fewest deliveries of a record that can be set for a share group.",
    ),
    share(
        "group.share.min.heartbeat.interval.ms",
        "5000",
        |groups| groups.heartbeat_interval_ms.min,
        "Shortest heartbeat interval that can be set for a share group.",
    ),
    share(
        "group.share.min.partition.max.record.locks",
        "100",
        |groups| groups.partition_max_record_locks.min,
        "Fewest records in flight of a partition that can be set for a share group.",
    ),
    share(
        "group.share.min.record.lock.duration.ms",
        "15000",
        |groups| groups.record_lock_duration_ms.min,
        "Shortest lock of a record that can be set for a share group.",
    ),
    share(
        "group.share.min.session.timeout.ms",
        "45000",
        |groups| groups.session_timeout_ms.min,
        "Shortest session timeout that can be set for a share group.",
    ),
    share(
        "group.share.partition.max.record.locks",
        "2000",
        |groups| groups.partition_max_record_locks.value,
        "Offsets of a partition that may be between the first one that a share group has not processed and the last one delivered.",
    ),
    share(
        "group.share.record.lock.duration.ms",
        "30000",
        |groups| groups.record_lock_duration_ms.value,
        "Time for which a record is locked for the member of a share group that acquired it.",
    ),
    share(
        "group.share.session.timeout.ms",
        "45000",
        |groups| groups.session_timeout_ms.value,
        "Time after which a silent member of a share group is put out.",
    ),
    fixed(
        "listeners",
        ValueType::String,
        None,
        |values| Some(values.listeners.clone()),
        "Addresses that the broker listens on.",
    ),
    fixed(
        "log.cleaner.backoff.ms",
        ValueType::Long,
        Some("15000"),
        |values| Some(values.log_cleaner_backoff_ms.to_string()),
        "Time between two looks for what can be compacted.",
    ),
    fixed(
        "log.cleaner.dedupe.buffer.size",
        ValueType::Long,
        Some("67108864"),
        |values| Some(values.log_cleaner_dedupe_buffer_size.to_string()),
        "Memory for the keys of one partition being compacted.",
    ),
    fixed("log.cleaner.enable", ValueType::Boolean, Some("true"), |_| None, "Whether compacted topics are compacted."),
    fixed(
        "log.dirs",
        ValueType::String,
        None,
        |values| Some(values.log_dirs.clone()),
        "Folder that holds everything the broker keeps.",
    ),
    fixed(
        "log.flush.scheduler.interval.ms",
        ValueType::Long,
        Some("9223372036854775807"),
        |_| None,
        "Stands in for log.flush.interval.ms where that is not set. Has no effect here: the durability setting decides when to sync.",
    ),
    fixed(
        "log.retention.check.interval.ms",
        ValueType::Long,
        Some("30000"),
        |values| Some(values.log_retention_check_interval_ms.to_string()),
        "Time between two looks for expired records.",
    ),
    fixed(
        "log.retention.hours",
        ValueType::Int,
        Some("168"),
        |_| None,
        "Hours that records are kept where neither log.retention.ms nor log.retention.minutes is set.",
    ),
    fixed(
        "log.retention.minutes",
        ValueType::Int,
        None,
        |_| None,
        "Minutes that records are kept where log.retention.ms is not set.",
    ),
    fixed(
        "log.roll.hours",
        ValueType::Int,
        Some("168"),
        |_| None,
        "Hours after which a segment ends where log.roll.ms is not set.",
    ),
    fixed(
        "log.roll.jitter.hours",
        ValueType::Int,
        Some("0"),
        |_| None,
        "Random hours taken off the time of a segment where log.roll.jitter.ms is not set. Has no effect here.",
    ),
    fixed(
        "max.connections",
        ValueType::Int,
        Some("20000"),
        |values| Some(values.max_connections.to_string()),
        "Connections at once; further ones are closed.",
    ),
    fixed(
        "max.incremental.fetch.session.cache.slots",
        ValueType::Int,
        Some("1000"),
        |values| Some(values.max_incremental_fetch_session_cache_slots.to_string()),
        "Incremental fetch sessions that are kept.",
    ),
    fixed("node.id", ValueType::Int, None, |values| Some(values.node_id.to_string()), "This node's id."),
    fixed(
        "num.partitions",
        ValueType::Int,
        Some("1"),
        |values| Some(values.num_partitions.to_string()),
        "Partitions of a topic made without saying how many.",
    ),
    fixed(
        "offset.metadata.max.bytes",
        ValueType::Int,
        Some("4096"),
        |values| Some(values.offset_metadata_max_bytes.to_string()),
        "Longest metadata of a committed offset.",
    ),
    fixed(
        "offsets.retention.minutes",
        ValueType::Int,
        Some("10080"),
        |values| Some((values.offsets_retention_ms / 60_000).to_string()),
        "Minutes that the committed offsets of an empty group are kept.",
    ),
    fixed(
        "process.roles",
        ValueType::List,
        Some("broker,controller"),
        |_| None,
        "What this node does: it is broker and controller in one.",
    ),
    fixed(
        "producer.id.expiration.ms",
        ValueType::Int,
        Some("86400000"),
        |values| Some(values.producer_id_expiration_ms.to_string()),
        "An idempotent producer silent for this long is forgotten.",
    ),
    fixed(
        "remote.log.storage.system.enable",
        ValueType::Boolean,
        Some("false"),
        |_| None,
        "Whether tiered storage is available: it is not.",
    ),
    fixed(
        "socket.request.max.bytes",
        ValueType::Int,
        Some("104857600"),
        |values| Some(values.socket_request_max_bytes.to_string()),
        "Largest request.",
    ),
    fixed(
        "transaction.max.timeout.ms",
        ValueType::Int,
        Some("900000"),
        |values| Some(values.transaction_max_timeout_ms.to_string()),
        "Longest timeout that a transactional producer may ask for.",
    ),
    fixed(
        "transactional.id.expiration.ms",
        ValueType::Int,
        Some("604800000"),
        |values| Some(values.transactional_id_expiration_ms.to_string()),
        "A transactional id without a transaction for this long is forgotten.",
    ),
];

const fn fixed(
    name: &'static str,
    value_type: ValueType,
    default: Option<&'static str>,
    read: fn(&BrokerValues) -> Option<String>,
    documentation: &'static str,
) -> Fixed {
    Fixed {
        definition: Definition { name, value_type, default, check: Check::Any, documentation },
        read: Read::Any(read),
    }
}

const fn share(
    name: &'static str,
    default: &'static str,
    read: fn(&ShareGroupValues) -> i64,
    documentation: &'static str,
) -> Fixed {
    let definition =
        Definition { name, value_type: ValueType::Int, default: Some(default), check: Check::Any, documentation };
    Fixed { definition, read: Read::ShareGroups(read) }
}
