//! EnableEnhancedMonitoring and DisableEnhancedMonitoring: which shard-level metrics a stream has. ALL stands for all
//! seven, and is answered as those.

use std::collections::BTreeSet;

use serde::Serialize;

use super::Context;
use super::error::Error;
use super::validate::{Rule, input};

const ALL: &str = "ALL";
const METRICS: &[&str] = &[
    "IncomingBytes",
    "IncomingRecords",
    "OutgoingBytes",
    "OutgoingRecords",
    "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded",
    "IteratorAgeMilliseconds",
    ALL,
];
const RULES: &[Rule] = &[Rule::Required, Rule::LengthMin(1), Rule::LengthMax(7), Rule::OneOf(METRICS)];

input! {
    EnableEnhancedMonitoring about a stream {
        metrics: Vec<String> = "ShardLevelMetrics" RULES;
    }
}

input! {
    DisableEnhancedMonitoring about a stream {
        metrics: Vec<String> = "ShardLevelMetrics" RULES;
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct EnhancedMonitoringOutput {
    stream_name: String,
    current_shard_level_metrics: BTreeSet<String>,
    desired_shard_level_metrics: BTreeSet<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

pub async fn enable_enhanced_monitoring(
    cx: Context,
    input: EnableEnhancedMonitoring,
) -> Result<EnhancedMonitoringOutput, Error> {
    let metrics = named(input.metrics);
    set(&cx, |current| current.union(&metrics).cloned().collect()).await
}

pub async fn disable_enhanced_monitoring(
    cx: Context,
    input: DisableEnhancedMonitoring,
) -> Result<EnhancedMonitoringOutput, Error> {
    let metrics = named(input.metrics);
    set(&cx, |current| current.difference(&metrics).cloned().collect()).await
}

fn named(metrics: Option<Vec<String>>) -> BTreeSet<String> {
    let metrics = metrics.unwrap_or_default();
    if metrics.iter().any(|metric| metric == ALL) {
        return METRICS.iter().filter(|metric| **metric != ALL).map(|metric| (*metric).to_owned()).collect();
    }
    metrics.into_iter().collect()
}

async fn set(
    cx: &Context,
    change: impl FnOnce(&BTreeSet<String>) -> BTreeSet<String>,
) -> Result<EnhancedMonitoringOutput, Error> {
    let stream = cx.stream()?;
    let changed = cx.change_active(&stream, |draft| {
        let current = draft.attributes.shard_metrics.clone();
        let desired = change(&current);
        if desired != current {
            draft.attributes.shard_metrics = desired.clone();
            cx.updating(draft);
        }
        Ok((current, desired))
    });
    let (current_shard_level_metrics, desired_shard_level_metrics) = changed.await?;
    Ok(EnhancedMonitoringOutput {
        stream_name: stream.name.to_string(),
        current_shard_level_metrics,
        desired_shard_level_metrics,
        stream_arn: cx.door.home.stream_arn(&stream.name),
    })
}
