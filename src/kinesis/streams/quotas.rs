//! What an account may have at once: open shards, on-demand streams, streams that come or go. Asked while the catalogue
//! stands still (inside a change of it), so that two requests cannot both take the last place.
//!
//! Texts are AWS's.

use std::sync::Arc;

use crate::broker::Stream;
use crate::config::Config;
use crate::kinesis::arn::Home;
use crate::kinesis::error::Error;
use crate::model::attributes::{CapacityMode, Transition};

/// Streams that may be CREATING or DELETING at once.
const PASSING_STREAMS_MAX: usize = 5;

/// Open shards of all streams but `except`, whose lock the caller holds.
pub fn open_shards(streams: &[Arc<Stream>], except: Option<&Stream>) -> usize {
    let others = streams.iter().filter(|stream| except.is_none_or(|except| except.id != stream.id));
    others.map(|stream| stream.lineage().open_shards().count()).sum()
}

pub fn on_demand_streams(streams: &[Arc<Stream>], except: Option<&Stream>) -> usize {
    let others = streams.iter().filter(|stream| except.is_none_or(|except| except.id != stream.id));
    others.filter(|stream| stream.settings().capacity_mode == CapacityMode::OnDemand).count()
}

/// Refuses `more` shards on top of the `current` ones.
pub fn check_shards(home: &Home, config: &Config, current: usize, more: usize) -> Result<(), Error> {
    if current.saturating_add(more) <= config.shards_max {
        return Ok(());
    }
    Err(Error::LimitExceeded(format!(
        "This request would exceed the shard limit for the account {} in {}. Current shard count for the account: \
         {current}. Limit: {}. Number of additional shards that would have resulted from this request: {more}. Refer to \
         the AWS Service Limits page (http://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) for current \
         limits and how to request higher limits.",
        home.account, home.region, config.shards_max
    )))
}

/// Refuses one more on-demand stream.
pub fn check_on_demand(home: &Home, config: &Config, current: usize) -> Result<(), Error> {
    if current < config.on_demand_streams_max {
        return Ok(());
    }
    Err(Error::LimitExceeded(format!(
        "This request would exceed the limit on the number of On-Demand streams for the account {} in {}. Current \
         On-Demand streams count: {current}. Limit: {}.",
        home.account, home.region, config.on_demand_streams_max
    )))
}

/// Refuses one more stream that is CREATING.
pub fn check_passing(home: &Home, streams: &[Arc<Stream>], now_ms: i64) -> Result<(), Error> {
    let comes_or_goes = |stream: &&Arc<Stream>| {
        matches!(stream.attributes().transition(now_ms), Some(Transition::Creating | Transition::Deleting))
    };
    if streams.iter().filter(comes_or_goes).count() < PASSING_STREAMS_MAX {
        return Ok(());
    }
    Err(Error::LimitExceeded(format!(
        "This request would have exceed the limit on the number of streams that can simultaneously be in CREATING or \
         DELETING for the account {}. Limit: {PASSING_STREAMS_MAX}.",
        home.account
    )))
}
