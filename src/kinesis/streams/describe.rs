//! DescribeStream and DescribeStreamSummary. As recorded from AWS, a stream shows no shards while it is CREATING.

use serde::Serialize;

use crate::http::Timestamp;
use crate::kinesis::Context;
use crate::kinesis::arn::shard_ordinal;
use crate::kinesis::error::Error;
use crate::kinesis::modes;
use crate::kinesis::shapes::{EnhancedMetrics, Facts, Shard, StreamModeDetails, WarmThroughput};
use crate::kinesis::validate::{NAME, Rule, input};
use crate::model::attributes::{CapacityMode, RecordDistribution};

/// Shards in one answer of DescribeStream.
const PAGE: usize = 100;

input! {
    DescribeStream about a stream {
        limit: i32 = "Limit" &[Rule::Min(1), Rule::Max(10_000)];
        exclusive_start_shard_id: String = "ExclusiveStartShardId" NAME;
    }
}

input! { DescribeStreamSummary about a stream {} }

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeStreamOutput {
    stream_description: StreamDescription,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescription {
    #[serde(flatten)]
    common: Common,
    shards: Vec<Shard>,
    has_more_shards: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeStreamSummaryOutput {
    stream_description_summary: StreamDescriptionSummary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescriptionSummary {
    #[serde(flatten)]
    common: Common,
    open_shard_count: usize,
    consumer_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_throughput: Option<WarmThroughput>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size_in_kib: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_distribution_strategy: Option<&'static str>,
}

/// What both tell.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Common {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeDetails,
    retention_period_hours: i64,
    stream_creation_timestamp: Timestamp,
    enhanced_monitoring: Vec<EnhancedMetrics>,
    encryption_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

impl Common {
    fn new(cx: &Context, name: &str, facts: &Facts) -> Common {
        Common {
            stream_name: name.to_owned(),
            stream_arn: cx.door.home.stream_arn(name),
            stream_status: facts.status(),
            stream_mode_details: facts.mode(),
            retention_period_hours: facts.retention_hours(),
            stream_creation_timestamp: facts.created(),
            enhanced_monitoring: facts.enhanced_monitoring(),
            encryption_type: facts.encryption_type(),
            key_id: facts.key_id(),
        }
    }
}

pub async fn describe_stream(cx: Context, input: DescribeStream) -> Result<DescribeStreamOutput, Error> {
    let stream = cx.stream()?;
    let facts = Facts::of(&stream, cx.now_ms);
    let lineage = stream.lineage();
    let after = match &input.exclusive_start_shard_id {
        Some(id) => Some(shard_ordinal(id).ok_or_else(|| Error::shard_not_found(&cx.door.home, &stream.name, id))?),
        None => None,
    };
    let limit = input.limit.map_or(PAGE, |limit| PAGE.min(limit.unsigned_abs() as usize));
    let visible = lineage.shards().iter().filter(|_| facts.shows_shards());
    let mut shards = visible.filter(|shard| after.is_none_or(|after| shard.ordinal > after));
    let page: Vec<Shard> = shards.by_ref().take(limit).map(Shard::from).collect();
    let common = Common::new(&cx, &stream.name, &facts);
    let stream_description = StreamDescription { common, shards: page, has_more_shards: shards.next().is_some() };
    Ok(DescribeStreamOutput { stream_description })
}

pub async fn describe_stream_summary(
    cx: Context,
    _input: DescribeStreamSummary,
) -> Result<DescribeStreamSummaryOutput, Error> {
    let stream = cx.stream()?;
    let facts = Facts::of(&stream, cx.now_ms);
    let open = if facts.shows_shards() { stream.lineage().open_shards().count() } else { 0 };
    let is_on_demand = facts.settings.capacity_mode == CapacityMode::OnDemand;
    let warm = facts.attributes.warm_mibps.filter(|_| is_on_demand);
    let strategy = match facts.attributes.distribution {
        RecordDistribution::Auto => modes::AUTO,
        RecordDistribution::PartitionKey => modes::USER_PARTITION_KEY,
    };
    let stream_description_summary = StreamDescriptionSummary {
        open_shard_count: open,
        consumer_count: facts.attributes.live_consumers(cx.now_ms).count(),
        warm_throughput: warm
            .map(|mibps| WarmThroughput { target_mibps: mibps, current_mibps: mibps.min(open as u32) }),
        max_record_size_in_kib: facts.attributes.record_kib_max,
        record_distribution_strategy: is_on_demand.then_some(strategy),
        common: Common::new(&cx, &stream.name, &facts),
    };
    Ok(DescribeStreamSummaryOutput { stream_description_summary })
}
