//! SplitShard, MergeShards (both answer an empty body) and UpdateShardCount. The shards change when the request is taken,
//! and the stream is UPDATING for a while: AWS changes them at the end of it.
//!
//! Texts are AWS's as recorded, and so is the order of checks: the form of the shard id, the stream, its state, the shard,
//! the account's quota, the hash key.

use std::num::NonZeroU32;

use serde::Serialize;

use super::Context;
use super::arn::shard_ordinal;
use super::error::Error;
use super::limits::count_today;
use super::streams::quotas;
use super::validate::{Pattern, REQUIRED_NAME, Rule, input};
use crate::broker::Stream;
use crate::broker::catalog::Draft;
use crate::model::attributes::CapacityMode;
use crate::model::ids::ShardOrdinal;
use crate::model::shard::{LineageError, Shard, SplitAt};

/// UpdateShardCount's, in a day.
const SCALINGS_MAX: usize = 10;
/// Shards that UpdateShardCount makes of one stream.
const SHARDS_MAX: u32 = 10_000;

input! {
    SplitShard about a stream {
        new_starting_hash_key: String = "NewStartingHashKey" &[Rule::Required, Rule::Matches(Pattern::HashKey)];
        shard_to_split: String = "ShardToSplit" REQUIRED_NAME;
    }
}

input! {
    MergeShards about a stream {
        shard_to_merge: String = "ShardToMerge" REQUIRED_NAME;
        adjacent_shard_to_merge: String = "AdjacentShardToMerge" REQUIRED_NAME;
    }
}

input! {
    UpdateShardCount about a stream {
        target_shard_count: i32 = "TargetShardCount" &[Rule::Required, Rule::Min(1)];
        scaling_type: String = "ScalingType" &[Rule::Required, Rule::OneOf(&["UNIFORM_SCALING"])];
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateShardCountOutput {
    stream_name: String,
    current_shard_count: u32,
    target_shard_count: u32,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

pub async fn split_shard(cx: Context, input: SplitShard) -> Result<(), Error> {
    let ordinal = parse_shard_id(&cx, &input.shard_to_split.unwrap_or_default())?;
    let hash_key = input.new_starting_hash_key.unwrap_or_default();
    let stream = cx.stream()?;
    let home = &cx.door.home;
    let split = cx.change_active(&stream, |draft| {
        require_provisioned(&cx, &stream, draft)?;
        let range = find_open(&cx, &stream, draft, ordinal)?.hash_key_range;
        check_quota(&cx, &stream, draft.lineage.open_count(), 1)?;
        let refuse = || {
            Error::InvalidArgument(format!(
                "NewStartingHashKey {hash_key} used in SplitShard() on shard {ordinal} in stream {} under account {} is \
                 not both greater than one plus the shard's StartingHashKey {} and less than the shard's EndingHashKey \
                 {}.",
                stream.name, home.account, range.start, range.end
            ))
        };
        // 39 digits may be more than a hash key has.
        let at = hash_key.parse().map_err(|_| refuse())?;
        match draft.split(ordinal, SplitAt::HashKey(at)) {
            Ok(_) => cx.updating(draft),
            Err(LineageError::HashKeyOutside { .. } | LineageError::TooNarrow(_)) => return Err(refuse()),
            Err(error) => return Err(unexpected(&stream, error)),
        }
        Ok(())
    });
    split.await
}

pub async fn merge_shards(cx: Context, input: MergeShards) -> Result<(), Error> {
    let first = parse_shard_id(&cx, &input.shard_to_merge.unwrap_or_default())?;
    let second = parse_shard_id(&cx, &input.adjacent_shard_to_merge.unwrap_or_default())?;
    let stream = cx.stream()?;
    let merged = cx.change_active(&stream, |draft| {
        require_provisioned(&cx, &stream, draft)?;
        let end = find_open(&cx, &stream, draft, first)?.hash_key_range.end;
        let start = find_open(&cx, &stream, draft, second)?.hash_key_range.start;
        // As AWS has it, the second shard's hash keys follow the first's.
        if end.checked_add(1) != Some(start) {
            return Err(Error::InvalidArgument(format!(
                "Shards {first} and {second} in stream {} under account {} are not an adjacent pair of shards eligible \
                 for merging",
                stream.name, cx.door.home.account
            )));
        }
        draft.merge(first, second).map_err(|error| unexpected(&stream, error))?;
        cx.updating(draft);
        Ok(())
    });
    merged.await
}

pub async fn update_shard_count(cx: Context, input: UpdateShardCount) -> Result<UpdateShardCountOutput, Error> {
    let stream = cx.stream()?;
    let target = input.target_shard_count.and_then(|count| NonZeroU32::new(count.unsigned_abs()));
    let target = target.unwrap_or(NonZeroU32::MIN);
    let scaled = cx.change_active(&stream, |draft| {
        require_provisioned(&cx, &stream, draft)?;
        let current = draft.lineage.open_count();
        check_target(current, target.get())?;
        check_quota(&cx, &stream, current, target.get().saturating_sub(current) as usize)?;
        count_today(&mut draft.attributes.scalings_ms, SCALINGS_MAX, draft.now_ms, || {
            format!(
                "UpdateShardCount cannot be called more than {SCALINGS_MAX} times in a rolling 24-hour period for stream \
                 {} under account {}.",
                stream.name, cx.door.home.account
            )
        })?;
        draft.scale(target).map_err(|error| unexpected(&stream, error))?;
        cx.updating(draft);
        Ok(current)
    });
    let current_shard_count = scaled.await?;
    Ok(UpdateShardCountOutput {
        stream_name: stream.name.to_string(),
        current_shard_count,
        target_shard_count: target.get(),
        stream_arn: cx.door.home.stream_arn(&stream.name),
    })
}

/// At most twice, at least half of what there is.
fn check_target(current: u32, target: u32) -> Result<(), Error> {
    let counts = format!("Current open shard count: {current}, Target shard count: {target}");
    let text = match () {
        () if target > SHARDS_MAX => {
            format!("UpdateShardCount cannot scale a stream to more than {SHARDS_MAX} shards. {counts}")
        }
        () if target > current.saturating_mul(2) => {
            format!("UpdateShardCount cannot scale up over double your current open shard count. {counts}")
        }
        () if target.saturating_mul(2) < current => {
            format!("UpdateShardCount cannot scale down below half your current open shard count. {counts}")
        }
        () => return Ok(()),
    };
    Err(Error::LimitExceeded(text))
}

fn parse_shard_id(cx: &Context, id: &str) -> Result<ShardOrdinal, Error> {
    let stream = cx.named.as_ref().map_or("", |named| &named.stream);
    shard_ordinal(id).ok_or_else(|| Error::shard_not_found(&cx.door.home, stream, id))
}

fn require_provisioned(cx: &Context, stream: &Stream, draft: &Draft<'_>) -> Result<(), Error> {
    match draft.settings.capacity_mode {
        CapacityMode::Provisioned => Ok(()),
        CapacityMode::OnDemand => Err(Error::on_demand(&cx.door.home, &stream.name)),
    }
}

fn find_open<'a>(
    cx: &Context,
    stream: &Stream,
    draft: &'a Draft<'_>,
    ordinal: ShardOrdinal,
) -> Result<&'a Shard, Error> {
    let (home, name) = (&cx.door.home, &stream.name);
    let shard = draft.lineage.shard(ordinal);
    let shard = shard.ok_or_else(|| Error::shard_not_found(home, name, &ordinal.to_string()))?;
    if shard.is_open() {
        return Ok(shard);
    }
    Err(Error::InvalidArgument(format!(
        "Shard {ordinal} in stream {name} under account {} has already been merged or split, and thus is not eligible for \
         merging or splitting.",
        home.account
    )))
}

fn check_quota(cx: &Context, stream: &Stream, own: u32, more: usize) -> Result<(), Error> {
    let others = quotas::open_shards(&cx.door.broker.streams_in_any_state(), Some(stream));
    quotas::check_shards(&cx.door.home, &cx.door.config, others + own as usize, more)
}

/// What the checks before leave over.
fn unexpected(stream: &Stream, error: LineageError) -> Error {
    tracing::error!(%error, stream = &*stream.name, "a reshard failed");
    Error::Internal
}
