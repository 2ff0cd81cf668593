//! Structures that several answers have, as the service model spells them, and how a stream's facts become them.

use std::sync::Arc;

use serde::Serialize;

use super::arn::Home;
use super::error::status;
use super::validate::{Rule, part};
use crate::broker::Stream;
use crate::http::Timestamp;
use crate::model::attributes::{self, Attributes, CapacityMode, Transition};
use crate::model::settings::StreamSettings;
use crate::model::shard;

const HOUR_MS: i64 = 3_600_000;
/// Kinesis' longest retention: what is told of a stream that keeps its records for ever.
pub const RETENTION_HOURS_MAX: i64 = 8_760;

pub const PROVISIONED: &str = "PROVISIONED";
pub const ON_DEMAND: &str = "ON_DEMAND";

part! {
    StreamModeDetails {
        mode: String = "StreamMode" &[Rule::Required, Rule::OneOf(&[PROVISIONED, ON_DEMAND])];
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HashKeyRange {
    pub starting_hash_key: String,
    pub ending_hash_key: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SequenceNumberRange {
    pub starting_sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending_sequence_number: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shard {
    pub shard_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_shard_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adjacent_parent_shard_id: Option<String>,
    pub hash_key_range: HashKeyRange,
    pub sequence_number_range: SequenceNumberRange,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EnhancedMetrics {
    pub shard_level_metrics: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct WarmThroughput {
    #[serde(rename = "TargetMiBps")]
    pub target_mibps: u32,
    #[serde(rename = "CurrentMiBps")]
    pub current_mibps: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Consumer {
    pub consumer_name: String,
    #[serde(rename = "ConsumerARN")]
    pub consumer_arn: String,
    pub consumer_status: &'static str,
    pub consumer_creation_timestamp: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tag {
    pub key: String,
    pub value: String,
}

impl From<&shard::HashKeyRange> for HashKeyRange {
    fn from(range: &shard::HashKeyRange) -> HashKeyRange {
        HashKeyRange { starting_hash_key: range.start.to_string(), ending_hash_key: range.end.to_string() }
    }
}

impl From<&shard::Shard> for Shard {
    fn from(shard: &shard::Shard) -> Shard {
        let mut parents = shard.parents.iter().map(ToString::to_string);
        Shard {
            shard_id: shard.ordinal.to_string(),
            parent_shard_id: parents.next(),
            adjacent_parent_shard_id: parents.next(),
            hash_key_range: (&shard.hash_key_range).into(),
            sequence_number_range: SequenceNumberRange {
                starting_sequence_number: shard.starting_sequence_number().to_string(),
                ending_sequence_number: shard.ending_sequence_number().map(|number| number.to_string()),
            },
        }
    }
}

impl Consumer {
    pub fn new(home: &Home, stream: &str, consumer: &attributes::Consumer, now_ms: i64) -> Consumer {
        Consumer {
            consumer_name: consumer.name.clone(),
            consumer_arn: home.consumer_arn(stream, &consumer.name, consumer.created_ms),
            consumer_status: status(consumer.transition(now_ms)),
            // To the second, as in its ARN.
            consumer_creation_timestamp: Timestamp(consumer.created_ms.div_euclid(1_000) * 1_000),
        }
    }
}

/// What describing and listing tell of a stream, read once.
pub struct Facts {
    pub attributes: Arc<Attributes>,
    pub settings: Arc<StreamSettings>,
    pub transition: Option<Transition>,
}

impl Facts {
    pub fn of(stream: &Stream, now_ms: i64) -> Facts {
        let attributes = stream.attributes();
        Facts { transition: attributes.transition(now_ms), attributes, settings: stream.settings() }
    }

    pub fn status(&self) -> &'static str {
        status(self.transition)
    }

    pub fn mode(&self) -> StreamModeDetails {
        mode_details(self.settings.capacity_mode)
    }

    pub fn created(&self) -> Timestamp {
        Timestamp(self.attributes.created_ms)
    }

    pub fn retention_hours(&self) -> i64 {
        retention_hours(&self.settings)
    }

    /// Shards are told once there are records to be put into them.
    pub fn shows_shards(&self) -> bool {
        self.transition != Some(Transition::Creating)
    }

    pub fn enhanced_monitoring(&self) -> Vec<EnhancedMetrics> {
        vec![EnhancedMetrics { shard_level_metrics: self.attributes.shard_metrics.iter().cloned().collect() }]
    }

    pub fn encryption_type(&self) -> &'static str {
        if self.attributes.encryption.is_some() { "KMS" } else { "NONE" }
    }

    pub fn key_id(&self) -> Option<String> {
        self.attributes.encryption.as_ref().map(|encryption| encryption.key_name.clone())
    }
}

pub fn mode_details(mode: CapacityMode) -> StreamModeDetails {
    let mode = match mode {
        CapacityMode::Provisioned => PROVISIONED,
        CapacityMode::OnDemand => ON_DEMAND,
    };
    StreamModeDetails { mode: Some(mode.to_owned()) }
}

/// In whole hours, rounded up: topics made by Kafka clients may keep records for any time.
pub fn retention_hours(settings: &StreamSettings) -> i64 {
    match settings.retention_ms {
        ms if ms < 0 => RETENTION_HOURS_MAX,
        ms => ms.div_euclid(HOUR_MS) + i64::from(ms % HOUR_MS != 0),
    }
}

pub fn hours_ms(hours: i64) -> i64 {
    hours.saturating_mul(HOUR_MS)
}
