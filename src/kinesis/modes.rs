//! How a stream is kept: its capacity mode, the throughput it is kept ready for, how records are spread, how large they
//! may be (UpdateStreamMode, UpdateStreamWarmThroughput, UpdateStreamRecordDistributionStrategy, UpdateMaxRecordSize).
//!
//! A stream that changes its mode keeps its shards, as AWS says.

use serde::Serialize;

use super::Context;
use super::error::Error;
use super::limits::count_today;
use super::shapes::{ON_DEMAND, StreamModeDetails, WarmThroughput};
use super::streams::quotas;
use super::validate::{Rule, input};
use crate::broker::Stream;
use crate::broker::catalog::Draft;
use crate::model::attributes::{CapacityMode, RecordDistribution};
use crate::model::settings::topic;
use crate::scaler;

pub const AUTO: &str = "AUTO";
pub const USER_PARTITION_KEY: &str = "USER_PARTITION_KEY";
pub const DISTRIBUTIONS: &[&str] = &[AUTO, USER_PARTITION_KEY];

/// Switches of a stream's mode in a day.
const SWITCHES_MAX: usize = 2;
/// 10 GiB/s.
const WARM_MIBPS_MAX: u32 = 10_240;

input! {
    UpdateStreamMode about a stream by arn {
        mode_details: StreamModeDetails = "StreamModeDetails" &[Rule::Required];
        warm_mibps: i32 = "WarmThroughputMiBps" &[Rule::Min(0)];
    }
}

input! {
    UpdateStreamWarmThroughput about a stream {
        warm_mibps: i32 = "WarmThroughputMiBps" &[Rule::Required, Rule::Min(0)];
    }
}

input! {
    UpdateStreamRecordDistributionStrategy about a stream by arn {
        strategy: String = "RecordDistributionStrategy" &[Rule::Required, Rule::OneOf(DISTRIBUTIONS)];
    }
}

input! {
    UpdateMaxRecordSize about a stream by arn {
        record_kib_max: i32 = "MaxRecordSizeInKiB" &[Rule::Required, Rule::Min(1_024), Rule::Max(10_240)];
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateStreamWarmThroughputOutput {
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_name: String,
    warm_throughput: WarmThroughput,
}

pub async fn update_stream_mode(cx: Context, input: UpdateStreamMode) -> Result<(), Error> {
    let stream = cx.stream()?;
    let mode = input.mode_details.and_then(|details| details.mode);
    let is_on_demand = mode.is_some_and(|mode| mode == ON_DEMAND);
    let warm = input.warm_mibps.map(|mibps| check_warm(&cx, mibps, is_on_demand)).transpose()?;
    let mode = if is_on_demand { CapacityMode::OnDemand } else { CapacityMode::Provisioned };
    let (home, config) = (&cx.door.home, &cx.door.config);
    let switched = cx.change_active(&stream, |draft| {
        if draft.settings.capacity_mode != mode {
            if is_on_demand {
                let streams = cx.door.broker.streams_in_any_state();
                quotas::check_on_demand(home, config, quotas::on_demand_streams(&streams, Some(&stream)))?;
            } else {
                draft.attributes.distribution = RecordDistribution::PartitionKey;
                draft.attributes.warm_mibps = None;
            }
            count_switch(&cx, &stream, draft)?;
            draft.overrides.insert(topic::KINESIS_STREAM_MODE.to_owned(), mode.to_string());
            cx.updating(draft);
        }
        match warm {
            Some(mibps) => warm_up(&cx, &stream, draft, mibps),
            None => Ok(()),
        }
    });
    switched.await
}

fn count_switch(cx: &Context, stream: &Stream, draft: &mut Draft<'_>) -> Result<(), Error> {
    count_today(&mut draft.attributes.mode_switches_ms, SWITCHES_MAX, draft.now_ms, || {
        format!(
            "The capacity mode of stream {} under account {} cannot be switched more than {SWITCHES_MAX} times in a \
             rolling 24-hour period.",
            stream.name, cx.door.home.account
        )
    })
}

pub async fn update_stream_warm_throughput(
    cx: Context,
    input: UpdateStreamWarmThroughput,
) -> Result<UpdateStreamWarmThroughputOutput, Error> {
    let stream = cx.stream()?;
    let given = input.warm_mibps.unwrap_or_default();
    let warmed = cx.change_active(&stream, |draft| {
        let is_on_demand = draft.settings.capacity_mode == CapacityMode::OnDemand;
        let mibps = check_warm(&cx, given, is_on_demand)?;
        let before = draft.lineage.open_count();
        warm_up(&cx, &stream, draft, mibps)?;
        Ok((mibps, before))
    });
    let (mibps, before) = warmed.await?;
    Ok(UpdateStreamWarmThroughputOutput {
        stream_arn: cx.door.home.stream_arn(&stream.name),
        stream_name: stream.name.to_string(),
        warm_throughput: WarmThroughput { target_mibps: mibps, current_mibps: before },
    })
}

/// Keeps an on-demand stream ready: shards are split at once, and the scaler keeps them; those that are too many it merges.
fn warm_up(cx: &Context, stream: &Stream, draft: &mut Draft<'_>, mibps: u32) -> Result<(), Error> {
    let (open, wanted) = (draft.lineage.open_count(), shards_for(mibps));
    if wanted > open {
        let others = quotas::open_shards(&cx.door.broker.streams_in_any_state(), Some(stream));
        let (home, config) = (&cx.door.home, &cx.door.config);
        quotas::check_shards(home, config, others + open as usize, (wanted - open) as usize)?;
    }
    scaler::warm_up(draft, mibps).map_err(|error| {
        tracing::error!(%error, stream = &*stream.name, "a stream cannot be scaled");
        Error::Internal
    })?;
    cx.updating(draft);
    Ok(())
}

/// A shard takes 1 MiB/s.
pub fn shards_for(mibps: u32) -> u32 {
    mibps.max(1)
}

/// The throughput to keep a stream ready for, if there may be one.
pub fn check_warm(cx: &Context, mibps: i32, is_on_demand: bool) -> Result<u32, Error> {
    if !is_on_demand {
        let text = "WarmThroughputMiBps is only supported for streams in On-Demand mode.";
        return Err(Error::Validation(text.to_owned()));
    }
    if !cx.door.account.is_committed(cx.now_ms) {
        let text =
            "WarmThroughputMiBps is only supported for accounts that have MinimumThroughputBillingCommitment enabled.";
        return Err(Error::Validation(text.to_owned()));
    }
    let mibps = mibps.unsigned_abs();
    if mibps > WARM_MIBPS_MAX {
        return Err(Error::LimitExceeded(format!(
            "WarmThroughputMiBps cannot be more than {WARM_MIBPS_MAX}. Requested: {mibps}."
        )));
    }
    Ok(mibps)
}

/// Takes effect at once and leaves the stream ACTIVE.
pub async fn update_stream_record_distribution_strategy(
    cx: Context,
    input: UpdateStreamRecordDistributionStrategy,
) -> Result<(), Error> {
    let stream = cx.stream()?;
    let distribution = match input.strategy.as_deref() {
        Some(AUTO) => RecordDistribution::Auto,
        _ => RecordDistribution::PartitionKey,
    };
    let changed = cx.change_active(&stream, |draft| {
        require_on_demand_distribution(draft.settings.capacity_mode == CapacityMode::OnDemand)?;
        draft.attributes.distribution = distribution;
        Ok(())
    });
    changed.await
}

pub fn require_on_demand_distribution(is_on_demand: bool) -> Result<(), Error> {
    if is_on_demand {
        return Ok(());
    }
    let text = "RecordDistributionStrategy is only supported for streams in On-Demand mode.";
    Err(Error::InvalidArgument(text.to_owned()))
}

pub async fn update_max_record_size(cx: Context, input: UpdateMaxRecordSize) -> Result<(), Error> {
    let stream = cx.stream()?;
    let kib = input.record_kib_max.unwrap_or_default().unsigned_abs();
    let changed = cx.change_active(&stream, |draft| {
        if draft.attributes.record_kib_max != kib {
            draft.attributes.record_kib_max = kib;
            cx.updating(draft);
        }
        Ok(())
    });
    changed.await
}
