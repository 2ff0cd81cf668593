//! From a call to a handler and back: decodes, validates, finds what the request is about, authorises, throttles, and
//! counts what became of it. Called by `http` for every request of this service whose signature is right.

use std::net::SocketAddr;
use std::sync::Arc;

use super::arn::{Asked, Named, NamedConsumer};
use super::error::{Error, Refused};
use super::validate::Input;
use super::{Door, Row, row};
use super::{audit, consumers};
use crate::broker::Stream;
use crate::broker::catalog::Draft;
use crate::http::codec::decode;
use crate::http::{Call, Failure, Format, Reply};
use crate::model::attributes::{Attributes, Passing, Transition};
use crate::security::Principal;
use crate::security::policy::{Ask, authorize};

/// How a request that went well is counted.
const NONE: &str = "NONE";

/// What a handler knows besides its request.
#[derive(Clone)]
pub struct Context {
    pub door: Arc<Door>,
    pub principal: Principal,
    pub peer: SocketAddr,
    /// When the request was admitted, by [`Clock::tick_micros`](crate::clock::Clock::tick_micros).
    begun_micros: i64,
    /// What it asks to do.
    pub operation: &'static str,
    /// Of the answer; for those that encode on their own (event streams).
    pub format: Format,
    /// When the request was admitted.
    pub now_ms: i64,
    /// What the request is about; `None`: the account as a whole.
    pub named: Option<Named>,
    /// The handler finds out what the request is about, and authorises it.
    is_sealed: bool,
    stream: Option<Arc<Stream>>,
}

/// Answers one call.
pub async fn dispatch(door: Arc<Door>, call: Call) -> Reply {
    let Some((place, row)) = row(&call.operation) else { return Reply::Whole(Err(Failure::unknown_operation())) };
    let clock = door.broker.clock().clone();
    let (started, request_id, trace) = (clock.tick_micros(), call.request_id, call.trace);
    let asked = audit::asked(&door, row.operation, &call);
    let answered = (row.run)(door.clone(), row, call).await;
    let error = match &answered {
        Ok(Reply::Whole(Ok(_)) | Reply::Events(_)) => NONE,
        Ok(Reply::Whole(Err(failure))) | Err(failure) => failure.code,
    };
    if error == Error::Internal.code() {
        tracing::error!(%request_id, operation = row.operation, "answered with InternalFailure");
    }
    if let Some(metrics) = door.metrics.get(place) {
        metrics.observe(error, (clock.tick_micros() - started) as f64 / 1e6, trace);
    }
    if let Some(asked) = asked {
        audit::answered(&door, asked, &answered);
    }
    answered.unwrap_or_else(|failure| Reply::Whole(Err(failure)))
}

/// Lets a request in: its handler gets what is valid, allowed and within the rate.
pub(super) fn admit<I: Input>(door: Arc<Door>, row: &'static Row, call: Call) -> Result<(Context, I), Failure> {
    let input: I = decode(call.format, &call.body)?;
    input.validate()?;
    let asked = input.asked();
    let is_sealed = asked == Asked::Sealed;
    let named = door.home.resolve(asked, &call.principal.account)?;
    let stream = named.as_ref().filter(|named| named.foreign.is_none());
    let stream = stream.and_then(|named| door.broker.stream_in_any_state(&named.stream));
    let cx = Context {
        principal: call.principal,
        peer: call.peer,
        begun_micros: door.broker.clock().tick_micros(),
        operation: row.operation,
        format: call.format,
        now_ms: door.broker.clock().now_ms(),
        named,
        is_sealed,
        stream,
        door,
    };
    cx.admit()?;
    cx.throttle(row)?;
    Ok((cx, input))
}

impl Context {
    /// The stream that the request names, in whatever state.
    pub fn stream(&self) -> Result<Arc<Stream>, Error> {
        self.stream.clone().ok_or_else(|| self.not_found())
    }

    /// Whether the caller may ask for this at all. Names of another account's streams are looked for there, and nothing is
    /// found.
    fn admit(&self) -> Result<(), Error> {
        let home = &self.door.home;
        match &self.named {
            Some(named) if named.foreign.is_some() => Err(self.not_found()),
            Some(named) => {
                let attributes = self.stream.as_ref().map(|stream| stream.attributes());
                let consumer = match (&attributes, &named.consumer) {
                    (Some(attributes), Some(consumer)) => consumers::find(self, attributes, consumer).ok(),
                    (None, _) | (_, None) => None,
                };
                let policy = match (&named.consumer, &attributes) {
                    (Some(_), _) => consumer.and_then(|consumer| consumer.policy.as_deref()),
                    (None, Some(attributes)) => attributes.policy.as_deref(),
                    (None, None) => None,
                };
                let arn = match consumer {
                    Some(consumer) => home.consumer_arn(&named.stream, &consumer.name, consumer.created_ms),
                    None => named.arn(home),
                };
                self.judge(policy, &arn)
            }
            None if self.is_sealed || self.principal.account == home.account => Ok(()),
            None => Err(Error::AccessDenied(format!(
                "User: {} is not authorized to perform: kinesis:{} because no identity-based policy allows the kinesis:{} \
                 action",
                self.principal.arn, self.operation, self.operation
            ))),
        }
    }

    /// Whether the caller may ask for this of a stream that only what the request has sealed tells: an iterator.
    pub fn authorize(&self, stream: &Stream) -> Result<(), Error> {
        self.judge(stream.attributes().policy.as_deref(), &self.door.home.stream_arn(&stream.name))
    }

    fn judge(&self, policy: Option<&str>, resource: &str) -> Result<(), Error> {
        let (home, principal) = (&self.door.home, &self.principal);
        if policy.is_none() && principal.account == home.account {
            return Ok(());
        }
        let action = format!("kinesis:{}", self.operation);
        let (source_ip, now_ms) = (self.peer.ip(), self.now_ms);
        let ask = Ask { principal, action: &action, resource, source_ip, now_ms };
        authorize(&home.account, policy, &ask).map_err(|denied| Error::AccessDenied(denied.to_string()))
    }

    /// The consumer that the request names.
    pub fn named_consumer(&self) -> Option<&NamedConsumer> {
        self.named.as_ref().and_then(|named| named.consumer.as_ref())
    }

    pub fn require_consumer(&self) -> Result<&NamedConsumer, Error> {
        let text = "The request does not name a consumer.";
        self.named_consumer().ok_or_else(|| Error::InvalidArgument(text.to_owned()))
    }

    fn not_found(&self) -> Error {
        let name = self.named.as_ref().map_or("", |named| &named.stream);
        match self.named.as_ref().and_then(|named| named.foreign.as_ref()) {
            Some(foreign) => {
                Error::ResourceNotFound(format!("Stream {name} under account {} not found.", foreign.account))
            }
            None => Error::stream_not_found(&self.door.home, name),
        }
    }

    /// How long this request has taken so far.
    pub fn seconds(&self) -> f64 {
        (self.door.broker.clock().tick_micros() - self.begun_micros) as f64 / 1e6
    }

    pub fn require_active(&self, stream: &str, attributes: &Attributes) -> Result<(), Error> {
        match attributes.transition(self.door.broker.clock().now_ms()) {
            None => Ok(()),
            Some(state) => Err(Error::stream_not_active(&self.door.home, stream, state)),
        }
    }

    /// Changes the stream if it is ACTIVE, as one.
    pub async fn change_active<T>(
        &self,
        stream: &Stream,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.change(stream, |draft| {
            self.require_active(&stream.name, &draft.attributes)?;
            change(draft)
        })
        .await
    }

    /// Changes the stream in whatever state, as one.
    pub async fn change<T>(
        &self,
        stream: &Stream,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let changed = self.door.broker.change_stream(stream, |draft| change(draft).map_err(Refused::Request)).await;
        changed.map_err(|refused| refused.into_error(&self.door.home, &stream.name))
    }

    /// A state that begins at `now_ms` and passes by itself; none when there is no delay.
    pub fn passing(&self, transition: Transition, now_ms: i64) -> Option<Passing> {
        let delay_ms = self.door.config.state_delay;
        (delay_ms > 0).then(|| Passing { transition, until_ms: now_ms.saturating_add(delay_ms) })
    }

    /// The stream is UPDATING for a while.
    pub fn updating(&self, draft: &mut Draft<'_>) {
        draft.attributes.passing = self.passing(Transition::Updating, draft.now_ms);
    }

    fn throttle(&self, row: &'static Row) -> Result<(), Error> {
        if !self.door.config.control_rates {
            return Ok(());
        }
        let now_ms = self.door.broker.clock().tick_ms();
        let stream = self.stream.as_ref().map(|stream| &stream.name);
        if self.door.rates.take(row.operation, row.rate, stream, now_ms) {
            return Ok(());
        }
        let account = &self.door.home.account;
        Err(Error::LimitExceeded(match &self.named {
            Some(named) => format!("Rate exceeded for stream {} under account {account}.", named.stream),
            None => format!("Rate exceeded for account {account}."),
        }))
    }
}
