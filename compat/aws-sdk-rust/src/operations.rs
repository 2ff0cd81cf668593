//! The operations that the steps use, from JSON to the SDK's builders and back.

use std::collections::HashMap;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::say;

type Answer = Result<Value, (String, String)>;

/// The parameters of one request.
struct Parameters<'a>(&'a Value);

impl<'a> Parameters<'a> {
    fn text(&self, name: &str) -> Option<String> {
        self.0[name].as_str().map(str::to_owned)
    }

    fn number(&self, name: &str) -> Option<i32> {
        self.0[name].as_i64().and_then(|n| i32::try_from(n).ok())
    }

    fn data(&self) -> Option<Blob> {
        self.0["Data"].as_str().and_then(|text| STANDARD.decode(text).ok()).map(Blob::new)
    }

    fn time(&self, name: &str) -> Option<DateTime> {
        self.0[name].as_f64().map(DateTime::from_secs_f64)
    }

    fn texts(&self, name: &str) -> Option<Vec<String>> {
        let all = self.0[name].as_array()?;
        Some(all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect())
    }

    fn tags(&self, name: &str) -> Option<HashMap<String, String>> {
        let all = self.0[name].as_object()?;
        Some(all.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
    }

    fn inner(&self, name: &str) -> Option<Parameters<'a>> {
        self.0.get(name).map(Parameters)
    }
}

/// An object without the members that are null.
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {{
        let mut members = Map::new();
        $(
            let value = json!($value);
            if !value.is_null() {
                members.insert($name.to_owned(), value);
            }
        )*
        Value::Object(members)
    }};
}

fn refusal<E: ProvideErrorMetadata + std::error::Error + 'static, R: std::fmt::Debug>(
    error: SdkError<E, R>,
) -> (String, String)
where
    SdkError<E, R>: std::error::Error + 'static,
{
    match error.as_service_error().and_then(|service| service.code()) {
        Some(code) => {
            let message = error.as_service_error().and_then(|service| service.message());
            (code.to_owned(), message.unwrap_or_default().to_owned())
        }
        None => ("Client".to_owned(), DisplayErrorContext(&error).to_string()),
    }
}

fn seconds(time: Option<&DateTime>) -> Option<f64> {
    time.map(DateTime::as_secs_f64)
}

fn range(range: Option<&HashKeyRange>) -> Option<Value> {
    range.map(|r| object! {"StartingHashKey": r.starting_hash_key(), "EndingHashKey": r.ending_hash_key()})
}

fn shard(shard: &Shard) -> Value {
    let numbers = shard.sequence_number_range().map(|r| {
        object! {
            "StartingSequenceNumber": r.starting_sequence_number(),
            "EndingSequenceNumber": r.ending_sequence_number(),
        }
    });
    object! {
        "ShardId": shard.shard_id(),
        "ParentShardId": shard.parent_shard_id(),
        "AdjacentParentShardId": shard.adjacent_parent_shard_id(),
        "HashKeyRange": range(shard.hash_key_range()),
        "SequenceNumberRange": numbers,
    }
}

fn child(child: &ChildShard) -> Value {
    object! {
        "ShardId": child.shard_id(),
        "ParentShards": child.parent_shards(),
        "HashKeyRange": range(child.hash_key_range()),
    }
}

fn record(record: &Record) -> Value {
    object! {
        "SequenceNumber": record.sequence_number(),
        "ApproximateArrivalTimestamp": seconds(record.approximate_arrival_timestamp()),
        "Data": STANDARD.encode(record.data()),
        "PartitionKey": record.partition_key(),
        "EncryptionType": record.encryption_type().map(EncryptionType::as_str),
    }
}

fn all<T>(items: &[T], one: impl Fn(&T) -> Value) -> Value {
    items.iter().map(one).collect()
}

fn tag(tag: &Tag) -> Value {
    object! {"Key": tag.key(), "Value": tag.value()}
}

fn consumer(consumer: &Consumer) -> Value {
    object! {
        "ConsumerName": consumer.consumer_name(),
        "ConsumerARN": consumer.consumer_arn(),
        "ConsumerStatus": consumer.consumer_status().as_str(),
    }
}

/// Answers one request; events of a subscription are said as they come.
pub async fn call(client: &Client, operation: &str, parameters: &Value, id: &Value) -> Answer {
    let p = Parameters(parameters);
    match operation {
        "CreateStream" | "DeleteStream" | "DescribeStream" | "DescribeStreamSummary" | "ListStreams" => {
            streams(client, operation, p).await
        }
        "PutRecord" | "PutRecords" | "GetShardIterator" | "GetRecords" => records(client, operation, p).await,
        "ListShards" | "SplitShard" | "MergeShards" | "UpdateShardCount" => shards(client, operation, p).await,
        "SubscribeToShard" => subscribe(client, p, id).await,
        "RegisterStreamConsumer" | "DescribeStreamConsumer" | "ListStreamConsumers" | "DeregisterStreamConsumer" => {
            consumers(client, operation, p).await
        }
        _ => settings(client, operation, p).await,
    }
}

async fn streams(client: &Client, operation: &str, p: Parameters<'_>) -> Answer {
    match operation {
        "CreateStream" => {
            let call = client.create_stream().set_stream_name(p.text("StreamName"));
            call.set_shard_count(p.number("ShardCount")).set_tags(p.tags("Tags")).send().await.map_err(refusal)?;
            Ok(json!({}))
        }
        "DeleteStream" => {
            client.delete_stream().set_stream_name(p.text("StreamName")).send().await.map_err(refusal)?;
            Ok(json!({}))
        }
        "DescribeStream" => {
            let call = client.describe_stream().set_stream_name(p.text("StreamName"));
            let answer = call.set_stream_arn(p.text("StreamARN")).send().await.map_err(refusal)?;
            let description = answer.stream_description().map(|d| {
                object! {
                    "StreamName": d.stream_name(),
                    "StreamARN": d.stream_arn(),
                    "StreamStatus": d.stream_status().as_str(),
                    "Shards": all(d.shards(), shard),
                    "HasMoreShards": d.has_more_shards(),
                    "RetentionPeriodHours": d.retention_period_hours(),
                    "EncryptionType": d.encryption_type().map(EncryptionType::as_str),
                }
            });
            Ok(object! {"StreamDescription": description})
        }
        "DescribeStreamSummary" => {
            let call = client.describe_stream_summary().set_stream_name(p.text("StreamName"));
            let answer = call.set_stream_arn(p.text("StreamARN")).send().await.map_err(refusal)?;
            let summary = answer.stream_description_summary().map(|s| {
                let mode = s.stream_mode_details().map(|m| object! {"StreamMode": m.stream_mode().as_str()});
                object! {
                    "StreamName": s.stream_name(),
                    "StreamARN": s.stream_arn(),
                    "StreamStatus": s.stream_status().as_str(),
                    "StreamModeDetails": mode,
                    "RetentionPeriodHours": s.retention_period_hours(),
                    "OpenShardCount": s.open_shard_count(),
                    "ConsumerCount": s.consumer_count(),
                }
            });
            Ok(object! {"StreamDescriptionSummary": summary})
        }
        _ => {
            let call = client.list_streams().set_limit(p.number("Limit"));
            let call = call.set_exclusive_start_stream_name(p.text("ExclusiveStartStreamName"));
            let answer = call.send().await.map_err(refusal)?;
            Ok(object! {"StreamNames": answer.stream_names(), "HasMoreStreams": answer.has_more_streams()})
        }
    }
}

fn entry(value: &Value) -> Result<PutRecordsRequestEntry, (String, String)> {
    let p = Parameters(value);
    PutRecordsRequestEntry::builder()
        .set_data(p.data())
        .set_partition_key(p.text("PartitionKey"))
        .set_explicit_hash_key(p.text("ExplicitHashKey"))
        .build()
        .map_err(|error| ("Client".to_owned(), error.to_string()))
}

async fn records(client: &Client, operation: &str, p: Parameters<'_>) -> Answer {
    match operation {
        "PutRecord" => {
            let call = client.put_record().set_stream_name(p.text("StreamName")).set_data(p.data());
            let call = call.set_partition_key(p.text("PartitionKey"));
            let call = call.set_explicit_hash_key(p.text("ExplicitHashKey"));
            let call = call.set_sequence_number_for_ordering(p.text("SequenceNumberForOrdering"));
            let answer = call.send().await.map_err(refusal)?;
            Ok(object! {"ShardId": answer.shard_id(), "SequenceNumber": answer.sequence_number()})
        }
        "PutRecords" => {
            let entries = p.0["Records"].as_array().into_iter().flatten();
            let entries = entries.map(entry).collect::<Result<Vec<_>, _>>()?;
            let call = client.put_records().set_stream_name(p.text("StreamName")).set_records(Some(entries));
            let answer = call.send().await.map_err(refusal)?;
            let places = all(answer.records(), |r| {
                object! {
                    "ShardId": r.shard_id(),
                    "SequenceNumber": r.sequence_number(),
                    "ErrorCode": r.error_code(),
                    "ErrorMessage": r.error_message(),
                }
            });
            Ok(object! {"FailedRecordCount": answer.failed_record_count(), "Records": places})
        }
        "GetShardIterator" => {
            let call = client.get_shard_iterator().set_stream_name(p.text("StreamName"));
            let call = call.set_shard_id(p.text("ShardId")).set_timestamp(p.time("Timestamp"));
            let kind = p.text("ShardIteratorType").map(|kind| ShardIteratorType::from(kind.as_str()));
            let call = call.set_shard_iterator_type(kind);
            let call = call.set_starting_sequence_number(p.text("StartingSequenceNumber"));
            let answer = call.send().await.map_err(refusal)?;
            Ok(object! {"ShardIterator": answer.shard_iterator()})
        }
        _ => {
            let call = client.get_records().set_shard_iterator(p.text("ShardIterator")).set_limit(p.number("Limit"));
            let answer = call.send().await.map_err(refusal)?;
            Ok(object! {
                "Records": all(answer.records(), record),
                "NextShardIterator": answer.next_shard_iterator(),
                "MillisBehindLatest": answer.millis_behind_latest(),
                "ChildShards": all(answer.child_shards(), child),
            })
        }
    }
}

async fn shards(client: &Client, operation: &str, p: Parameters<'_>) -> Answer {
    match operation {
        "ListShards" => {
            let filter = p.inner("ShardFilter").map(|f| {
                let kind = f.text("Type").map(|kind| ShardFilterType::from(kind.as_str()));
                let filter = ShardFilter::builder().set_type(kind).set_shard_id(f.text("ShardId"));
                filter.set_timestamp(f.time("Timestamp")).build()
            });
            let filter = filter.transpose().map_err(|error| ("Client".to_owned(), error.to_string()))?;
            let call = client.list_shards().set_stream_name(p.text("StreamName")).set_next_token(p.text("NextToken"));
            let call = call.set_exclusive_start_shard_id(p.text("ExclusiveStartShardId"));
            let call = call.set_max_results(p.number("MaxResults")).set_shard_filter(filter);
            let answer = call.send().await.map_err(refusal)?;
            Ok(object! {"Shards": all(answer.shards(), shard), "NextToken": answer.next_token()})
        }
        "SplitShard" => {
            let call = client.split_shard().set_stream_name(p.text("StreamName"));
            let call = call.set_shard_to_split(p.text("ShardToSplit"));
            call.set_new_starting_hash_key(p.text("NewStartingHashKey")).send().await.map_err(refusal)?;
            Ok(json!({}))
        }
        "MergeShards" => {
            let call = client.merge_shards().set_stream_name(p.text("StreamName"));
            let call = call.set_shard_to_merge(p.text("ShardToMerge"));
            call.set_adjacent_shard_to_merge(p.text("AdjacentShardToMerge")).send().await.map_err(refusal)?;
            Ok(json!({}))
        }
        _ => {
            let call = client.update_shard_count().set_stream_name(p.text("StreamName"));
            let kind = p.text("ScalingType").map(|kind| ScalingType::from(kind.as_str()));
            let call = call.set_target_shard_count(p.number("TargetShardCount")).set_scaling_type(kind);
            let answer = call.send().await.map_err(refusal)?;
            Ok(object! {
                "CurrentShardCount": answer.current_shard_count(),
                "TargetShardCount": answer.target_shard_count(),
            })
        }
    }
}

async fn consumers(client: &Client, operation: &str, p: Parameters<'_>) -> Answer {
    match operation {
        "RegisterStreamConsumer" => {
            let call = client.register_stream_consumer().set_stream_arn(p.text("StreamARN"));
            let answer = call.set_consumer_name(p.text("ConsumerName")).send().await.map_err(refusal)?;
            Ok(object! {"Consumer": answer.consumer().map(consumer)})
        }
        "DescribeStreamConsumer" => {
            let call = client.describe_stream_consumer().set_consumer_arn(p.text("ConsumerARN"));
            let answer = call.send().await.map_err(refusal)?;
            let description = answer.consumer_description().map(|c| {
                object! {
                    "ConsumerName": c.consumer_name(),
                    "ConsumerARN": c.consumer_arn(),
                    "ConsumerStatus": c.consumer_status().as_str(),
                }
            });
            Ok(object! {"ConsumerDescription": description})
        }
        "ListStreamConsumers" => {
            let call = client.list_stream_consumers().set_stream_arn(p.text("StreamARN"));
            let answer = call.send().await.map_err(refusal)?;
            Ok(object! {"Consumers": all(answer.consumers(), consumer)})
        }
        _ => {
            let call = client.deregister_stream_consumer().set_consumer_arn(p.text("ConsumerARN"));
            call.send().await.map_err(refusal)?;
            Ok(json!({}))
        }
    }
}

async fn subscribe(client: &Client, p: Parameters<'_>, id: &Value) -> Answer {
    let position = p.inner("StartingPosition").map(|s| {
        let kind = s.text("Type").map(|kind| ShardIteratorType::from(kind.as_str()));
        StartingPosition::builder().set_type(kind).build()
    });
    let position = position.transpose().map_err(|error| ("Client".to_owned(), error.to_string()))?;
    let call = client.subscribe_to_shard().set_consumer_arn(p.text("ConsumerARN"));
    let call = call.set_shard_id(p.text("ShardId")).set_starting_position(position);
    let mut answer = call.send().await.map_err(refusal)?;
    while let Some(event) = answer.event_stream.recv().await.map_err(refusal)? {
        if let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event {
            let event = object! {
                "Records": all(event.records(), record),
                "ContinuationSequenceNumber": event.continuation_sequence_number(),
                "MillisBehindLatest": event.millis_behind_latest(),
                "ChildShards": all(event.child_shards(), child),
            };
            say(&json!({"id": id, "event": event}));
        }
    }
    Ok(json!({}))
}

async fn settings(client: &Client, operation: &str, p: Parameters<'_>) -> Answer {
    let name = p.text("StreamName");
    match operation {
        "AddTagsToStream" => {
            let call = client.add_tags_to_stream().set_stream_name(name).set_tags(p.tags("Tags"));
            call.send().await.map_err(refusal)?;
        }
        "RemoveTagsFromStream" => {
            let call = client.remove_tags_from_stream().set_stream_name(name).set_tag_keys(p.texts("TagKeys"));
            call.send().await.map_err(refusal)?;
        }
        "TagResource" => {
            let call = client.tag_resource().set_resource_arn(p.text("ResourceARN")).set_tags(p.tags("Tags"));
            call.send().await.map_err(refusal)?;
        }
        "UntagResource" => {
            let call = client.untag_resource().set_resource_arn(p.text("ResourceARN"));
            call.set_tag_keys(p.texts("TagKeys")).send().await.map_err(refusal)?;
        }
        "ListTagsForStream" => {
            let answer = client.list_tags_for_stream().set_stream_name(name).send().await.map_err(refusal)?;
            return Ok(object! {"Tags": all(answer.tags(), tag), "HasMoreTags": answer.has_more_tags()});
        }
        "ListTagsForResource" => {
            let call = client.list_tags_for_resource().set_resource_arn(p.text("ResourceARN"));
            let answer = call.send().await.map_err(refusal)?;
            return Ok(object! {"Tags": all(answer.tags(), tag)});
        }
        "IncreaseStreamRetentionPeriod" => {
            let call = client.increase_stream_retention_period().set_stream_name(name);
            let call = call.set_retention_period_hours(p.number("RetentionPeriodHours"));
            call.send().await.map_err(refusal)?;
        }
        "DecreaseStreamRetentionPeriod" => {
            let call = client.decrease_stream_retention_period().set_stream_name(name);
            let call = call.set_retention_period_hours(p.number("RetentionPeriodHours"));
            call.send().await.map_err(refusal)?;
        }
        _ => return Err(("Client".to_owned(), format!("{operation} is not among the steps' operations"))),
    }
    Ok(json!({}))
}
