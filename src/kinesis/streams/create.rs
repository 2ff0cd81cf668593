//! CreateStream. Answers an empty body.
//!
//! Deviations: ShardCount above 100,000 is a ValidationException as recorded, though today's model has no such bound.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::quotas;
use crate::broker::catalog::NewStream;
use crate::kinesis::Context;
use crate::kinesis::error::{Error, Refused};
use crate::kinesis::modes::{self, AUTO, DISTRIBUTIONS};
use crate::kinesis::shapes::{ON_DEMAND, StreamModeDetails, hours_ms};
use crate::kinesis::tags;
use crate::kinesis::validate::{REQUIRED_NAME, Rule, input};
use crate::model::attributes::{Attributes, CapacityMode, RecordDistribution, Transition};
use crate::model::settings::{Overrides, topic};

/// Every stream keeps its records for this long at first.
const RETENTION_HOURS: i64 = 24;
/// An on-demand stream begins with these.
const ON_DEMAND_SHARDS: u32 = 4;

input! {
    CreateStream about the account {
        shard_count: i32 = "ShardCount" &[Rule::Min(1), Rule::Max(100_000)];
        mode_details: StreamModeDetails = "StreamModeDetails" &[];
        warm_mibps: i32 = "WarmThroughputMiBps" &[Rule::Min(0)];
        record_kib_max: i32 = "MaxRecordSizeInKiB" &[Rule::Min(1_024), Rule::Max(10_240)];
        distribution: String = "RecordDistributionStrategy" &[Rule::OneOf(DISTRIBUTIONS)];
        tags: BTreeMap<String, String> = "Tags" tags::TAGS;
        stream_name: String = "StreamName" REQUIRED_NAME;
    }
}

impl CreateStream {
    fn is_on_demand(&self) -> bool {
        let mode = self.mode_details.as_ref().and_then(|details| details.mode.as_deref());
        mode == Some(ON_DEMAND)
    }
}

pub async fn create_stream(cx: Context, input: CreateStream) -> Result<(), Error> {
    let name = input.stream_name.clone().unwrap_or_default();
    let (home, config) = (&cx.door.home, &cx.door.config);
    let is_on_demand = input.is_on_demand();
    let new = plan(&cx, &name, input)?;
    let more = new.partitions.get() as usize;
    let created = cx.door.broker.create_stream_if(new, |streams| {
        quotas::check_shards(home, config, quotas::open_shards(streams, None), more)?;
        if is_on_demand {
            quotas::check_on_demand(home, config, quotas::on_demand_streams(streams, None))?;
        }
        quotas::check_passing(home, streams, cx.now_ms)?;
        Ok::<_, Refused>(())
    });
    created.await.map(drop).map_err(|refused| refused.into_error(home, &name))
}

/// The stream as it is asked for.
fn plan(cx: &Context, name: &str, input: CreateStream) -> Result<NewStream, Error> {
    let is_on_demand = input.is_on_demand();
    let mut attributes = Attributes::new(cx.now_ms);
    attributes.passing = cx.passing(Transition::Creating, cx.now_ms);
    if let Some(kib) = input.record_kib_max {
        attributes.record_kib_max = kib.unsigned_abs();
    }
    if let Some(tags) = input.tags {
        tags::check(&cx.door.home, "add tags to", name, &tags)?;
        tags::merge(&cx.door.home, name, &mut attributes.tags, tags)?;
    }
    if input.distribution.is_some_and(|strategy| strategy == AUTO) {
        modes::require_on_demand_distribution(is_on_demand)?;
        attributes.distribution = RecordDistribution::Auto;
    }
    let mut shards = match (is_on_demand, input.shard_count) {
        (true, None) => ON_DEMAND_SHARDS,
        (true, Some(_)) => {
            let text = "ShardCount must not be set for a stream in On-Demand mode.";
            return Err(Error::Validation(text.to_owned()));
        }
        (false, Some(count)) => count.unsigned_abs(),
        (false, None) => {
            let text = "1 validation error detected: Value null at 'shardCount' failed to satisfy constraint: Member must \
                        not be null";
            return Err(Error::Validation(text.to_owned()));
        }
    };
    if let Some(mibps) = input.warm_mibps {
        let mibps = modes::check_warm(cx, mibps, is_on_demand)?;
        attributes.warm_mibps = Some(mibps);
        shards = shards.max(modes::shards_for(mibps));
    }
    let mode = if is_on_demand { CapacityMode::OnDemand } else { CapacityMode::Provisioned };
    let partitions = NonZeroU32::new(shards).unwrap_or(NonZeroU32::MIN);
    Ok(NewStream { name: name.to_owned(), partitions, claimed_replicas: 1, overrides: overrides(cx, mode), attributes })
}

/// A stream made here has Kinesis' ways, whatever the broker's defaults for topics are.
fn overrides(cx: &Context, mode: CapacityMode) -> Overrides {
    [
        (topic::RETENTION_MS, hours_ms(RETENTION_HOURS).to_string()),
        (topic::RETENTION_BYTES, "-1".to_owned()),
        (topic::CLEANUP_POLICY, "delete".to_owned()),
        (topic::KINESIS_LIMITS, cx.door.config.kinesis_limits.to_string()),
        (topic::KINESIS_STREAM_MODE, mode.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
