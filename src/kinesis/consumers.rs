//! Consumers with a read pipe of their own (enhanced fan-out): registered, described, listed, deregistered.
//!
//! A consumer is CREATING for a while and then ACTIVE by itself; one that is deregistered is DELETING for a while and then
//! gone, and the next registration or deregistration of the stream takes it out of the list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Context;
use super::arn::NamedConsumer;
use super::error::Error;
use super::shapes;
use super::tags;
use super::token;
use super::validate::{REQUIRED_NAME, Rule, input};
use crate::http::Timestamp;
use crate::model::attributes::{self, Attributes, CapacityMode, Passing, Transition};

/// Consumers of one stream.
const CONSUMERS_MAX: usize = 20;
/// The same of an on-demand stream once the account is committed to a minimum throughput.
const ADVANTAGE_CONSUMERS_MAX: usize = 50;
const CREATING_MAX: usize = 5;
/// Consumers in one answer.
const PAGE: usize = 100;

input! {
    RegisterStreamConsumer about a stream by arn {
        consumer_name: String = "ConsumerName" REQUIRED_NAME;
        tags: BTreeMap<String, String> = "Tags" tags::TAGS;
    }
}

input! { DeregisterStreamConsumer about a consumer {} }

input! { DescribeStreamConsumer about a consumer {} }

input! {
    ListStreamConsumers about a stream by arn {
        next_token: String = "NextToken" &[Rule::LengthMin(1), Rule::LengthMax(1_048_576)];
        max_results: i32 = "MaxResults" &[Rule::Min(1), Rule::Max(10_000)];
        stream_creation_timestamp: Timestamp = "StreamCreationTimestamp" &[];
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RegisterStreamConsumerOutput {
    consumer: shapes::Consumer,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeStreamConsumerOutput {
    consumer_description: ConsumerDescription,
}

#[derive(Debug, Serialize)]
struct ConsumerDescription {
    #[serde(flatten)]
    consumer: shapes::Consumer,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListStreamConsumersOutput {
    consumers: Vec<shapes::Consumer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Place {
    stream: String,
    after: String,
}

pub async fn register_stream_consumer(
    cx: Context,
    input: RegisterStreamConsumer,
) -> Result<RegisterStreamConsumerOutput, Error> {
    let stream = cx.stream()?;
    let (home, name) = (&cx.door.home, input.consumer_name.unwrap_or_default());
    let is_committed = cx.door.account.is_committed(cx.now_ms);
    let mut consumer = attributes::Consumer {
        name,
        created_ms: cx.now_ms,
        passing: cx.passing(Transition::Creating, cx.now_ms),
        tags: BTreeMap::new(),
        policy: None,
    };
    if let Some(tags) = input.tags {
        tags::check(home, "add tags to", &stream.name, &tags)?;
        tags::merge(home, &stream.name, &mut consumer.tags, tags)?;
    }
    let told = shapes::Consumer::new(home, &stream.name, &consumer, cx.now_ms);
    let registered = cx.change(&stream, |draft| {
        require_usable(&cx, &stream.name, &draft.attributes, draft.now_ms)?;
        let advantage = is_committed && draft.settings.capacity_mode == CapacityMode::OnDemand;
        let consumers_max = if advantage { ADVANTAGE_CONSUMERS_MAX } else { CONSUMERS_MAX };
        register(&cx, &stream.name, &mut draft.attributes, consumer, consumers_max)
    });
    registered.await?;
    Ok(RegisterStreamConsumerOutput { consumer: told })
}

fn register(
    cx: &Context,
    stream: &str,
    attributes: &mut Attributes,
    consumer: attributes::Consumer,
    consumers_max: usize,
) -> Result<(), Error> {
    let account = &cx.door.home.account;
    let consumers = &mut attributes.consumers;
    consumers.retain(|known| !known.is_gone(cx.now_ms));
    if consumers.iter().any(|known| known.name == consumer.name) {
        let name = &consumer.name;
        return Err(Error::ResourceInUse(format!(
            "Consumer {name} under stream {stream} already exists for account {account}."
        )));
    }
    if consumers.len() >= consumers_max {
        return Err(Error::LimitExceeded(format!(
            "This request would exceed the limit on the number of consumers that can be registered with stream {stream} \
             under account {account}. Limit: {consumers_max}."
        )));
    }
    let creating = |known: &&attributes::Consumer| known.transition(cx.now_ms) == Some(Transition::Creating);
    if consumers.iter().filter(creating).count() >= CREATING_MAX {
        return Err(Error::LimitExceeded(format!(
            "This request would exceed the limit on the number of consumers that can simultaneously be in CREATING for \
             stream {stream} under account {account}. Limit: {CREATING_MAX}."
        )));
    }
    consumers.push(consumer);
    Ok(())
}

pub async fn deregister_stream_consumer(cx: Context, _input: DeregisterStreamConsumer) -> Result<(), Error> {
    let stream = cx.stream()?;
    let named = cx.require_consumer()?;
    cx.change(&stream, |draft| {
        draft.attributes.consumers.retain(|known| !known.is_gone(cx.now_ms));
        let consumer = find_mut(&cx, &mut draft.attributes, named)?;
        if consumer.transition(cx.now_ms) == Some(Transition::Deleting) {
            return Err(not_active(&cx, &stream.name, consumer));
        }
        let until_ms = cx.now_ms.saturating_add(cx.door.config.state_delay);
        consumer.passing = Some(Passing { transition: Transition::Deleting, until_ms });
        draft.attributes.consumers.retain(|known| !known.is_gone(cx.now_ms));
        Ok(())
    })
    .await
}

pub async fn describe_stream_consumer(
    cx: Context,
    _input: DescribeStreamConsumer,
) -> Result<DescribeStreamConsumerOutput, Error> {
    let stream = cx.stream().map_err(|error| match cx.require_consumer() {
        // As recorded: a consumer's ARN is told as it came, whatever there is of it.
        Ok(named) if named.created_s.is_some() => not_found(&cx, named),
        Ok(_) | Err(_) => error,
    })?;
    let attributes = stream.attributes();
    let consumer = find(&cx, &attributes, cx.require_consumer()?)?;
    let home = &cx.door.home;
    let consumer_description = ConsumerDescription {
        consumer: shapes::Consumer::new(home, &stream.name, consumer, cx.now_ms),
        stream_arn: home.stream_arn(&stream.name),
    };
    Ok(DescribeStreamConsumerOutput { consumer_description })
}

pub async fn list_stream_consumers(
    cx: Context,
    input: ListStreamConsumers,
) -> Result<ListStreamConsumersOutput, Error> {
    let stream = cx.stream()?;
    let attributes = stream.attributes();
    let is_other = |given: Timestamp| given.0.div_euclid(1_000) != attributes.created_ms.div_euclid(1_000);
    let after = match (&input.next_token, input.stream_creation_timestamp) {
        (Some(_), Some(_)) => {
            let text = "NextToken and StreamCreationTimestamp cannot be provided together.";
            return Err(Error::InvalidArgument(text.to_owned()));
        }
        (None, Some(given)) if is_other(given) => {
            return Err(Error::stream_not_found(&cx.door.home, &stream.name));
        }
        (None, _) => None,
        (Some(token), None) => {
            let place: Place = token::take(token, cx.now_ms)?;
            if *place.stream != *stream.name {
                return Err(Error::InvalidArgument("NextToken is that of another stream.".to_owned()));
            }
            Some(place.after)
        }
    };
    let limit = input.max_results.map_or(PAGE, |limit| PAGE.min(limit.unsigned_abs() as usize));
    let mut consumers: Vec<_> = attributes.live_consumers(cx.now_ms).collect();
    consumers.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rest = consumers.into_iter().filter(|consumer| after.as_ref().is_none_or(|after| consumer.name > *after));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let last = page.last().filter(|_| rest.next().is_some());
    let next_token =
        last.map(|last| token::give(Place { stream: stream.name.to_string(), after: last.name.clone() }, cx.now_ms));
    let told =
        |consumer: &attributes::Consumer| shapes::Consumer::new(&cx.door.home, &stream.name, consumer, cx.now_ms);
    Ok(ListStreamConsumersOutput { consumers: page.into_iter().map(told).collect(), next_token })
}

/// The consumer that is named, if its stream has it.
pub fn find<'a>(
    cx: &Context,
    attributes: &'a Attributes,
    named: &NamedConsumer,
) -> Result<&'a attributes::Consumer, Error> {
    let mut consumers = attributes.live_consumers(cx.now_ms);
    consumers.find(|consumer| is_named(consumer, named)).ok_or_else(|| not_found(cx, named))
}

pub fn find_mut<'a>(
    cx: &Context,
    attributes: &'a mut Attributes,
    named: &NamedConsumer,
) -> Result<&'a mut attributes::Consumer, Error> {
    let mut consumers = attributes.consumers.iter_mut().filter(|consumer| !consumer.is_gone(cx.now_ms));
    consumers.find(|consumer| is_named(consumer, named)).ok_or_else(|| not_found(cx, named))
}

/// An ARN names the consumer of one registration.
fn is_named(consumer: &attributes::Consumer, named: &NamedConsumer) -> bool {
    let created_s = consumer.created_ms.div_euclid(1_000);
    consumer.name == named.name && named.created_s.is_none_or(|named_s| named_s == created_s)
}

pub fn not_found(cx: &Context, named: &NamedConsumer) -> Error {
    let home = &cx.door.home;
    let resource = cx.named.as_ref();
    Error::ResourceNotFound(match (named.created_s, resource) {
        (Some(_), Some(resource)) => {
            format!("Consumer {}, account {} not found.", resource.arn(home), home.account)
        }
        (_, resource) => {
            let stream = resource.map_or("", |resource| &resource.stream);
            format!("Consumer {} under stream {stream} not found for account {}.", named.name, home.account)
        }
    })
}

/// AWS's text where a consumer cannot be used yet or any more.
pub fn not_active(cx: &Context, stream: &str, consumer: &attributes::Consumer) -> Error {
    Error::ResourceInUse(format!(
        "Consumer {} with creation timestamp {} under stream {stream} and account {} is not in ACTIVE status.",
        consumer.name,
        consumer.created_ms.div_euclid(1_000),
        cx.door.home.account
    ))
}

/// A stream takes consumers unless it comes or goes.
fn require_usable(cx: &Context, stream: &str, attributes: &Attributes, now_ms: i64) -> Result<(), Error> {
    match attributes.transition(now_ms) {
        Some(state @ (Transition::Creating | Transition::Deleting)) => {
            Err(Error::stream_not_active(&cx.door.home, stream, state))
        }
        Some(Transition::Updating) | None => Ok(()),
    }
}
