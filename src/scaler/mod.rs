//! On-demand capacity: how many shards an on-demand stream has, and when they are split and merged. One task looks once a
//! minute at what was written to each such stream (`broker::traffic`), lets [`plan`] decide, and has the broker do it.
//! The Kinesis door calls [`warm_up`].
//!
//! What AWS documents, and what is kept of it:
//! - A stream starts with four shards, which take 4 MiB and 4,000 records a second; what can be read follows.
//! - Its capacity is twice the highest load of the last thirty days, and at least its warm throughput.
//! - It grows within a minute or two, but in a quarter of an hour to no more than double: beyond that writes are throttled.
//! - A shard that takes more than its share is split by itself. One key alone is not helped by that.
//! - A stream that becomes on-demand keeps its shards, as if it had needed them until then.
//! - Capacity that nothing needs any more is given back by and by: at most half of it a day. `UpdateStreamWarmThroughput`
//!   gives back at once what is beyond both the warm throughput and twice the present load.
//!
//! Sources: Kinesis developer guide (choosing the data stream mode), API reference (UpdateStreamWarmThroughput).

mod plan;

use std::sync::Arc;

use crate::broker::catalog::Draft;
use crate::broker::traffic::Observed;
use crate::broker::{Broker, CatalogError, Stream};
use crate::model::attributes::CapacityMode;
use crate::model::shard::{LineageError, SplitAt};

use plan::{Step, View};

/// Time between two looks: a load is the average of as much.
const LOOK_MS: i64 = 60_000;

/// Scales on-demand streams until the task is dropped. All streams together get no more than `shards_max` open shards.
pub async fn run(broker: Arc<Broker>, shards_max: usize) {
    loop {
        broker.clock().sleep_ms(LOOK_MS).await;
        look(&broker, shards_max).await;
    }
}

/// One look at every on-demand stream.
pub async fn look(broker: &Broker, shards_max: usize) {
    let mut room = free_room(broker, shards_max);
    for stream in broker.streams() {
        let Some(observed) = broker.observe_traffic(&stream) else { continue };
        let lineage = stream.lineage();
        let steps = plan::plan(&View::new(&lineage, &stream.attributes(), &observed, room, broker.clock().now_ms()));
        if steps.is_empty() {
            continue;
        }
        if let Err(error) = carry_out(broker, &stream, &observed, room).await {
            tracing::warn!(%error, stream = &*stream.name, "an on-demand stream could not be scaled");
        }
        room = free_room(broker, shards_max);
    }
}

/// How many more shards may be opened.
fn free_room(broker: &Broker, shards_max: usize) -> u32 {
    let open: usize = broker.streams_in_any_state().iter().map(|stream| stream.lineage().open_count() as usize).sum();
    u32::try_from(shards_max.saturating_sub(open)).unwrap_or(u32::MAX)
}

/// Decides anew under the stream's lock, because a door may have changed the stream meanwhile.
async fn carry_out(broker: &Broker, stream: &Stream, observed: &Observed, room: u32) -> Result<(), CatalogError> {
    let (before, after) = broker
        .change_stream(stream, |draft| {
            let before = draft.lineage.open_count();
            if draft.settings.capacity_mode == CapacityMode::OnDemand {
                let view = View::new(&draft.lineage, &draft.attributes, observed, room, draft.now_ms);
                for step in plan::plan(&view) {
                    take(draft, step)?;
                }
            }
            Ok::<_, CatalogError>((before, draft.lineage.open_count()))
        })
        .await?;
    tracing::info!(stream = &*stream.name, before, after, "an on-demand stream was scaled");
    Ok(())
}

fn take(draft: &mut Draft<'_>, step: Step) -> Result<(), LineageError> {
    match step {
        Step::Split { at } => {
            if let Some(shard) = draft.lineage.shard_for_hash_key(at).map(|shard| shard.ordinal) {
                draft.split(shard, SplitAt::HashKey(at))?;
            }
        }
        Step::Merge { at } => {
            let lineage = &draft.lineage;
            let below =
                at.checked_sub(1).and_then(|below| lineage.shard_for_hash_key(below)).map(|shard| shard.ordinal);
            let above = lineage.shard_for_hash_key(at).map(|shard| shard.ordinal);
            if let (Some(below), Some(above)) = (below, above) {
                draft.merge(below, above)?;
            }
        }
    }
    Ok(())
}

/// Sets the warm throughput of an on-demand stream: it has shards for `mibps` MiB a second at once, and what it had
/// beyond that and its present load is given back over the next minutes.
pub fn warm_up(draft: &mut Draft<'_>, mibps: u32) -> Result<(), LineageError> {
    draft.attributes.warm_mibps = Some(mibps);
    draft.attributes.capacity_released_ms = Some(draft.now_ms);
    for step in plan::widen(&draft.lineage, plan::warm_shards(Some(mibps))) {
        take(draft, step)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
