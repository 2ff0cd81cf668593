//! The Kinesis door: AWS's Kinesis Data Streams API over the streams of [`crate::broker`]. [`TABLE`] is the list of what
//! is served; what is not in it is answered as AWS answers an operation that it does not know. Metrics, the rates of
//! control operations and the test that every row is exercised read the same table.
//!
//! A handler is a plain function from a validated request to a future of its answer. `dispatch` alone decodes, validates,
//! finds what the request is about, authorises, throttles, encodes and counts.
//!
//! | room | what it owns |
//! |---|---|
//! | [`dispatch`] | from a call to a handler and back |
//! | [`validate`] | rules of members, all violations told at once |
//! | [`arn`] | names, ARNs and shard ids |
//! | [`error`] | AWS's errors and texts |
//! | [`audit`] | control operations as events of the audit log |
//! | [`rates`] | how often control operations may be called |
//! | [`limits`] | what may be done so many times a day |
//! | [`token`] | NextToken of the lists |
//! | [`start`], [`iterator`] | where a reader begins, and where it is |
//! | [`records`] | records as they are given out |
//! | [`shapes`] | structures that several answers have |
//! | others | handlers, a family each |
//!
//! Only this folder knows Kinesis' shapes. Sources: Kinesis API reference and service model, answers recorded from AWS.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::audit::Audit;
use crate::broker::Broker;
use crate::config::Config;
use crate::fanout::Dispatcher;
use crate::http::{Api, Call, Failure, Reply};
use crate::metrics::ApiMetrics;
use crate::store::StoreError;

pub mod account;
pub mod arn;
pub mod audit;
pub mod consumers;
pub mod dispatch;
pub mod encryption;
pub mod error;
pub mod get;
pub mod iterator;
pub mod limits;
pub mod modes;
pub mod monitoring;
pub mod policies;
pub mod put;
pub mod rates;
pub mod records;
pub mod reshard;
pub mod retention;
pub mod shapes;
pub mod shards;
pub mod start;
pub mod streams;
pub mod subscribe;
pub mod tags;
#[cfg(test)]
mod tests;
pub mod token;
pub mod validate;

pub use dispatch::Context;

use arn::Home;
use iterator::Iterators;
use rates::{Rate, Rates};

/// In `X-Amz-Target`, before the operation.
pub const SERVICE: &str = "Kinesis_20131202";

/// One operation.
pub struct Row {
    pub operation: &'static str,
    pub rate: Rate,
    run: fn(Arc<Door>, &'static Row, Call) -> Running,
}

/// A request being answered.
type Running = BoxFuture<'static, Result<Reply, Failure>>;

/// Everything that handlers need.
pub struct Door {
    pub broker: Arc<Broker>,
    pub config: Arc<Config>,
    pub home: Home,
    pub account: account::Account,
    pub iterators: Iterators,
    pub fanout: Arc<Dispatcher>,
    pub audit: Arc<Audit>,
    rates: Rates,
    /// Of each row of [`TABLE`].
    metrics: Vec<ApiMetrics>,
}

impl Door {
    /// Reads what the door keeps in the store. Blocks.
    pub fn open(broker: Arc<Broker>, config: Arc<Config>, audit: Arc<Audit>) -> Result<Arc<Door>, StoreError> {
        let home = Home { account: config.account_id.clone(), region: config.region.clone() };
        let account = account::Account::open(&broker)?;
        let metrics = TABLE.iter().map(|row| broker.metrics().operation(row.operation)).collect();
        let iterators = Iterators::new(broker.secret(), broker.clock().clone());
        let fanout = Dispatcher::new(broker.clock().clone(), config.memory_shares().fanout, broker.metrics());
        let rates = Rates::default();
        Ok(Arc::new(Door { home, account, iterators, fanout, audit, rates, metrics, broker, config }))
    }

    /// What `http` serves of it.
    pub fn api(self: &Arc<Door>) -> Api {
        let door = self.clone();
        Api {
            name: SERVICE,
            knows: |operation| row(operation).is_some(),
            handler: Arc::new(move |call| Box::pin(dispatch::dispatch(door.clone(), call))),
        }
    }
}

/// A row: `Operation, rate, Input => handler`, where the handler answers with a structure.
macro_rules! row {
    ($operation:ident, $rate:expr, $input:ty => $handler:path) => {
        Row {
            operation: stringify!($operation),
            rate: $rate,
            run: |door, row, call| {
                Box::pin(async move {
                    let format = call.format;
                    let (cx, input) = dispatch::admit::<$input>(door, row, call)?;
                    let output = $handler(cx, input).await?;
                    Ok(Reply::Whole(Ok(crate::http::codec::encode(format, &output)?)))
                })
            },
        }
    };
}

/// The same where AWS answers with an empty body.
macro_rules! silent {
    ($operation:ident, $rate:expr, $input:ty => $handler:path) => {
        Row {
            operation: stringify!($operation),
            rate: $rate,
            run: |door, row, call| {
                Box::pin(async move {
                    let (cx, input) = dispatch::admit::<$input>(door, row, call)?;
                    let () = $handler(cx, input).await?;
                    Ok(Reply::Whole(Ok(bytes::Bytes::new())))
                })
            },
        }
    };
}

/// The same where the answer is a stream of events.
macro_rules! events {
    ($operation:ident, $rate:expr, $input:ty => $handler:path) => {
        Row {
            operation: stringify!($operation),
            rate: $rate,
            run: |door, row, call| {
                Box::pin(async move {
                    let (cx, input) = dispatch::admit::<$input>(door, row, call)?;
                    Ok(Reply::Events($handler(cx, input).await?))
                })
            },
        }
    };
}

/// What is served. Rates are AWS's, in calls a second.
pub const TABLE: &[Row] = &[
    silent!(AddTagsToStream, Rate::Account(5), tags::AddTagsToStream => tags::add_tags_to_stream),
    silent!(CreateStream, Rate::Account(5), streams::CreateStream => streams::create_stream),
    silent!(
        DecreaseStreamRetentionPeriod, Rate::Stream(5),
        retention::DecreaseStreamRetentionPeriod => retention::decrease_stream_retention_period
    ),
    silent!(
        DeleteResourcePolicy, Rate::Account(5),
        policies::DeleteResourcePolicy => policies::delete_resource_policy
    ),
    silent!(DeleteStream, Rate::Account(5), streams::DeleteStream => streams::delete_stream),
    silent!(
        DeregisterStreamConsumer, Rate::Stream(5),
        consumers::DeregisterStreamConsumer => consumers::deregister_stream_consumer
    ),
    row!(
        DescribeAccountSettings, Rate::Account(5),
        account::DescribeAccountSettings => account::describe_account_settings
    ),
    row!(DescribeLimits, Rate::Account(1), account::DescribeLimits => account::describe_limits),
    row!(DescribeStream, Rate::Account(10), streams::DescribeStream => streams::describe_stream),
    row!(
        DescribeStreamConsumer, Rate::Stream(20),
        consumers::DescribeStreamConsumer => consumers::describe_stream_consumer
    ),
    row!(
        DescribeStreamSummary, Rate::Account(20),
        streams::DescribeStreamSummary => streams::describe_stream_summary
    ),
    row!(
        DisableEnhancedMonitoring, Rate::Stream(5),
        monitoring::DisableEnhancedMonitoring => monitoring::disable_enhanced_monitoring
    ),
    row!(
        EnableEnhancedMonitoring, Rate::Stream(5),
        monitoring::EnableEnhancedMonitoring => monitoring::enable_enhanced_monitoring
    ),
    row!(GetRecords, Rate::Free, get::GetRecords => get::get_records),
    row!(GetResourcePolicy, Rate::Account(5), policies::GetResourcePolicy => policies::get_resource_policy),
    row!(GetShardIterator, Rate::Free, get::GetShardIterator => get::get_shard_iterator),
    silent!(
        IncreaseStreamRetentionPeriod, Rate::Stream(5),
        retention::IncreaseStreamRetentionPeriod => retention::increase_stream_retention_period
    ),
    row!(ListShards, Rate::Stream(1_000), shards::ListShards => shards::list_shards),
    row!(ListStreamConsumers, Rate::Stream(5), consumers::ListStreamConsumers => consumers::list_stream_consumers),
    row!(ListStreams, Rate::Account(5), streams::ListStreams => streams::list_streams),
    row!(ListTagsForResource, Rate::Account(5), tags::ListTagsForResource => tags::list_tags_for_resource),
    row!(ListTagsForStream, Rate::Account(5), tags::ListTagsForStream => tags::list_tags_for_stream),
    silent!(MergeShards, Rate::Account(5), reshard::MergeShards => reshard::merge_shards),
    row!(PutRecord, Rate::Free, put::PutRecord => put::put_record),
    row!(PutRecords, Rate::Free, put::PutRecords => put::put_records),
    silent!(PutResourcePolicy, Rate::Account(5), policies::PutResourcePolicy => policies::put_resource_policy),
    row!(
        RegisterStreamConsumer, Rate::Account(5),
        consumers::RegisterStreamConsumer => consumers::register_stream_consumer
    ),
    silent!(RemoveTagsFromStream, Rate::Account(5), tags::RemoveTagsFromStream => tags::remove_tags_from_stream),
    silent!(SplitShard, Rate::Account(5), reshard::SplitShard => reshard::split_shard),
    silent!(
        StartStreamEncryption, Rate::Account(5),
        encryption::StartStreamEncryption => encryption::start_stream_encryption
    ),
    silent!(
        StopStreamEncryption, Rate::Account(5),
        encryption::StopStreamEncryption => encryption::stop_stream_encryption
    ),
    events!(SubscribeToShard, Rate::Free, subscribe::SubscribeToShard => subscribe::subscribe_to_shard),
    silent!(TagResource, Rate::Account(5), tags::TagResource => tags::tag_resource),
    silent!(UntagResource, Rate::Account(5), tags::UntagResource => tags::untag_resource),
    row!(UpdateAccountSettings, Rate::Account(5), account::UpdateAccountSettings => account::update_account_settings),
    silent!(UpdateMaxRecordSize, Rate::Account(5), modes::UpdateMaxRecordSize => modes::update_max_record_size),
    row!(UpdateShardCount, Rate::Account(10), reshard::UpdateShardCount => reshard::update_shard_count),
    silent!(UpdateStreamMode, Rate::Account(5), modes::UpdateStreamMode => modes::update_stream_mode),
    silent!(
        UpdateStreamRecordDistributionStrategy, Rate::Account(5),
        modes::UpdateStreamRecordDistributionStrategy => modes::update_stream_record_distribution_strategy
    ),
    row!(
        UpdateStreamWarmThroughput, Rate::Account(5),
        modes::UpdateStreamWarmThroughput => modes::update_stream_warm_throughput
    ),
];

/// The row of an operation, with its place in [`TABLE`].
pub fn row(operation: &str) -> Option<(usize, &'static Row)> {
    TABLE.iter().enumerate().find(|(_, row)| row.operation == operation)
}
