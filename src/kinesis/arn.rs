//! What a request is about: the forms in which streams, consumers and shards are named (StreamName, StreamARN,
//! ConsumerARN, ResourceARN, shard ids), resolved in this one place. Called by `dispatch` for every request; the forms
//! themselves have been validated by then.
//!
//! Streams belong to one account and one region ([`Home`]). A name is looked for in the caller's account, an ARN in its
//! own; what belongs to another account or region is not found, as AWS answers.

use crate::model::ids::ShardOrdinal;

use super::error::Error;

/// The account and the region that streams belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    pub account: String,
    pub region: String,
}

/// The members of a request that name a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// The account as a whole.
    Account,
    Stream {
        name: Option<&'a str>,
        arn: Option<&'a str>,
    },
    /// The stream whose list goes on, by its NextToken.
    Listed {
        stream: String,
    },
    /// A stream that only an iterator tells: its handler authorises the request with `Context::authorize`.
    Sealed,
    Resource {
        arn: Option<&'a str>,
    },
    Consumer {
        arn: Option<&'a str>,
        stream_arn: Option<&'a str>,
        name: Option<&'a str>,
    },
}

/// A resource that a request names; whether it exists is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Who it belongs to, if not [`Home::account`].
    pub foreign: Option<Foreign>,
    pub by_arn: bool,
    pub stream: String,
    pub consumer: Option<NamedConsumer>,
}

/// An account or region that has no streams here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub account: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedConsumer {
    pub name: String,
    /// The creation second in its ARN.
    pub created_s: Option<i64>,
}

impl Home {
    pub fn stream_arn(&self, stream: &str) -> String {
        format!("arn:aws:kinesis:{}:{}:stream/{stream}", self.region, self.account)
    }

    /// A consumer's ARN ends with its creation second, so that one registered again is another.
    pub fn consumer_arn(&self, stream: &str, consumer: &str, created_ms: i64) -> String {
        format!("{}/consumer/{consumer}:{}", self.stream_arn(stream), created_ms.div_euclid(1_000))
    }

    /// What `asked` names, for a caller of `account`; `None`: the account as a whole.
    pub fn resolve(&self, asked: Asked<'_>, account: &str) -> Result<Option<Named>, Error> {
        match asked {
            Asked::Account
            | Asked::Sealed
            | Asked::Stream { name: None, arn: None }
            | Asked::Resource { arn: None } => Ok(None),
            Asked::Stream { name: Some(name), arn: None } => {
                let foreign = (account != self.account).then(|| Foreign { account: account.to_owned() });
                Ok(Some(Named { foreign, by_arn: false, stream: name.to_owned(), consumer: None }))
            }
            Asked::Listed { stream } => Ok(Some(Named { foreign: None, by_arn: true, stream, consumer: None })),
            Asked::Stream { name, arn: Some(arn) } => {
                let (foreign, stream) = self.parse(arn)?;
                if name.is_some_and(|name| name != stream) {
                    return Err(Error::InvalidArgument(format!(
                        "StreamARN {arn} and StreamName {} do not name the same stream.",
                        name.unwrap_or_default()
                    )));
                }
                Ok(Some(Named { foreign, by_arn: true, stream: stream.to_owned(), consumer: None }))
            }
            Asked::Resource { arn: Some(arn) } => self.resource(arn).map(Some),
            Asked::Consumer { arn: Some(arn), stream_arn, name } => {
                let named = self.resource(arn)?;
                let same_name = |consumer: &NamedConsumer| name.is_none_or(|name| name == consumer.name);
                let stream_agrees = match stream_arn {
                    Some(stream_arn) => self.parse(stream_arn)?.1 == named.stream,
                    None => true,
                };
                if !stream_agrees || !named.consumer.as_ref().is_some_and(same_name) {
                    return Err(Error::InvalidArgument(format!(
                        "ConsumerARN {arn}, StreamARN and ConsumerName do not name the same consumer."
                    )));
                }
                Ok(Some(named))
            }
            Asked::Consumer { arn: None, stream_arn: Some(stream_arn), name: Some(name) } => {
                let (foreign, stream) = self.parse(stream_arn)?;
                let consumer = Some(NamedConsumer { name: name.to_owned(), created_s: None });
                Ok(Some(Named { foreign, by_arn: true, stream: stream.to_owned(), consumer }))
            }
            Asked::Consumer { arn: None, .. } => Err(Error::InvalidArgument(
                "Either ConsumerARN, or StreamARN and ConsumerName, must be provided.".to_owned(),
            )),
        }
    }

    /// A stream's or a consumer's ARN.
    fn resource(&self, arn: &str) -> Result<Named, Error> {
        let (foreign, path) = self.parse(arn)?;
        let consumer = path.split_once("/consumer/").map(|(stream, consumer)| {
            let (name, created) = consumer.rsplit_once(':').unwrap_or((consumer, ""));
            (stream, NamedConsumer { name: name.to_owned(), created_s: created.parse().ok() })
        });
        Ok(match consumer {
            Some((stream, consumer)) => {
                Named { foreign, by_arn: true, stream: stream.to_owned(), consumer: Some(consumer) }
            }
            None => Named { foreign, by_arn: true, stream: path.to_owned(), consumer: None },
        })
    }

    /// Whom the ARN's resource belongs to if not this home, and what stands behind `stream/`.
    fn parse<'a>(&self, arn: &'a str) -> Result<(Option<Foreign>, &'a str), Error> {
        let mut parts = arn.splitn(6, ':').skip(3);
        let (region, account, resource) = (parts.next(), parts.next(), parts.next());
        let path = resource.and_then(|resource| resource.strip_prefix("stream/"));
        let (Some(region), Some(account), Some(path)) = (region, account, path) else {
            // Channels and queues, which there are none of, and ARNs with more colons than AWS's have.
            return Err(Error::ResourceNotFound(format!("Resource {arn} not found.")));
        };
        let is_home = region == self.region && account == self.account;
        Ok(((!is_home).then(|| Foreign { account: account.to_owned() }), path))
    }
}

impl Named {
    pub fn arn(&self, home: &Home) -> String {
        let account = self.foreign.as_ref().map_or(&home.account, |foreign| &foreign.account);
        let stream = format!("arn:aws:kinesis:{}:{account}:stream/{}", home.region, self.stream);
        match &self.consumer {
            Some(NamedConsumer { name, created_s: Some(created_s) }) => format!("{stream}/consumer/{name}:{created_s}"),
            Some(NamedConsumer { name, created_s: None }) => format!("{stream}/consumer/{name}"),
            None => stream,
        }
    }
}

/// The shard that a client means. AWS takes any prefix (`shardId-000000000001`, `x-1`, `1`) and ordinals up to 2^31 - 1.
pub fn shard_ordinal(shard_id: &str) -> Option<ShardOrdinal> {
    let digits = shard_id.split('-').nth(1).filter(|part| !part.is_empty()).unwrap_or(shard_id);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let ordinal: u32 = is_number.then(|| digits.parse().ok()).flatten()?;
    i32::try_from(ordinal).is_ok().then_some(ShardOrdinal(ordinal))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/s";

    fn home() -> Home {
        Home { account: "000000000000".to_owned(), region: "us-east-1".to_owned() }
    }

    fn resolve(asked: Asked<'_>) -> Result<Named, Error> {
        home().resolve(asked, "000000000000").map(|named| named.expect("something is named"))
    }

    #[test]
    fn a_stream_has_a_name_and_an_arn() {
        let named = resolve(Asked::Stream { name: Some("s"), arn: None }).unwrap();
        assert_eq!((named.stream.as_str(), named.by_arn, &named.foreign), ("s", false, &None));
        let named = resolve(Asked::Stream { name: Some("s"), arn: Some(STREAM) }).unwrap();
        assert_eq!((named.stream.as_str(), named.by_arn, &named.foreign), ("s", true, &None));
        assert_eq!(named.arn(&home()), STREAM);
        let refused = resolve(Asked::Stream { name: Some("t"), arn: Some(STREAM) });
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    }

    #[test]
    fn other_accounts_and_regions_have_streams_of_their_own() {
        for arn in
            ["arn:aws:kinesis:us-east-1:111111111111:stream/s", "arn:aws:kinesis:eu-west-1:111111111111:stream/s"]
        {
            let named = resolve(Asked::Stream { name: None, arn: Some(arn) }).unwrap();
            assert_eq!(named.foreign, Some(Foreign { account: "111111111111".to_owned() }));
        }
        let named =
            resolve(Asked::Stream { name: None, arn: Some("arn:aws:kinesis:x:000000000000:stream/s") }).unwrap();
        assert!(named.foreign.is_some());
        let named = home().resolve(Asked::Stream { name: Some("s"), arn: None }, "222222222222").unwrap().unwrap();
        assert_eq!(named.foreign, Some(Foreign { account: "222222222222".to_owned() }));
    }

    #[test]
    fn a_consumer_is_named_by_its_arn_or_by_its_stream_and_name() {
        let arn = format!("{STREAM}/consumer/c:1700000000");
        let by_arn = resolve(Asked::Consumer { arn: Some(&arn), stream_arn: Some(STREAM), name: Some("c") }).unwrap();
        let consumer = NamedConsumer { name: "c".to_owned(), created_s: Some(1_700_000_000) };
        assert_eq!((by_arn.stream.as_str(), by_arn.consumer.as_ref()), ("s", Some(&consumer)));
        assert_eq!(by_arn.arn(&home()), arn);
        assert_eq!(home().consumer_arn("s", "c", 1_700_000_000_999), arn);
        let by_name = resolve(Asked::Consumer { arn: None, stream_arn: Some(STREAM), name: Some("c") }).unwrap();
        assert_eq!(by_name.consumer, Some(NamedConsumer { name: "c".to_owned(), created_s: None }));
        for (arn, stream_arn, name) in [
            (None, None, None),
            (None, Some(STREAM), None),
            (None, None, Some("c")),
            (Some(arn.as_str()), None, Some("d")),
            (Some(arn.as_str()), Some("arn:aws:kinesis:us-east-1:000000000000:stream/t"), None),
        ] {
            let refused = resolve(Asked::Consumer { arn, stream_arn, name });
            assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
        }
    }

    #[test]
    fn queues_and_channels_are_not_found() {
        let refused = resolve(Asked::Resource { arn: Some("arn:aws:kinesis:us-east-1:000000000000:queue/q") });
        assert!(matches!(refused, Err(Error::ResourceNotFound(_))), "{refused:?}");
    }

    #[test]
    fn shard_ids_have_any_prefix() {
        let ordinal = |id| shard_ordinal(id).map(|ordinal| ordinal.0);
        for (id, expected) in [
            ("shardId-000000000007", Some(7)),
            ("shardId-7", Some(7)),
            ("7", Some(7)),
            ("-7", Some(7)),
            ("x-7-8", Some(7)),
            ("a-00002147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("shardId-002147483648", None),
            ("ABKLFD8", None),
            ("2.14E4", None),
            ("shardId-", None),
        ] {
            assert_eq!(ordinal(id), expected, "{id}");
        }
    }
}
