//! The account: what it may have and has (DescribeLimits), and its commitment to a minimum throughput
//! (DescribeAccountSettings, UpdateAccountSettings), with which on-demand streams can be kept warm and have 50 consumers.
//!
//! The commitment is kept in `Meta` under [`Key::Account`], as JSON. It runs for at least [`COMMITTED_MS`]: ended before,
//! it goes on until then.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Context;
use super::error::Error;
use super::streams::quotas;
use super::validate::{Rule, input, part};
use crate::broker::Broker;
use crate::http::Timestamp;
use crate::store::keys::Key;
use crate::store::{Batch, Family, StoreError};

/// A day.
const COMMITTED_MS: i64 = 86_400_000;

input! { DescribeLimits about the account {} }

input! { DescribeAccountSettings about the account {} }

part! {
    CommitmentInput {
        status: String = "Status" &[Rule::Required, Rule::OneOf(&["ENABLED", "DISABLED"])];
    }
}

input! {
    UpdateAccountSettings about the account {
        commitment: CommitmentInput = "MinimumThroughputBillingCommitment" &[Rule::Required];
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeLimitsOutput {
    shard_limit: usize,
    open_shard_count: usize,
    on_demand_stream_count: usize,
    on_demand_stream_count_limit: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AccountSettingsOutput {
    minimum_throughput_billing_commitment: CommitmentOutput,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CommitmentOutput {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest_allowed_end_at: Option<Timestamp>,
}

/// What the account has set.
#[derive(Default)]
pub struct Account(Mutex<Commitment>);

/// A commitment to a minimum throughput, past ones too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Commitment {
    started_ms: Option<i64>,
    /// From when on it does not hold any more.
    ended_ms: Option<i64>,
}

impl Commitment {
    fn holds(self, now_ms: i64) -> bool {
        self.started_ms.is_some() && self.ended_ms.is_none_or(|ended_ms| now_ms < ended_ms)
    }

    fn earliest_end_ms(self) -> Option<i64> {
        self.started_ms.map(|started_ms| started_ms.saturating_add(COMMITTED_MS))
    }

    fn enabled(self, now_ms: i64) -> Commitment {
        let started_ms = if self.holds(now_ms) { self.started_ms } else { Some(now_ms) };
        Commitment { started_ms, ended_ms: None }
    }

    fn disabled(self, now_ms: i64) -> Commitment {
        if !self.holds(now_ms) || self.ended_ms.is_some() {
            return self;
        }
        Commitment { ended_ms: self.earliest_end_ms().map(|earliest_ms| earliest_ms.max(now_ms)), ..self }
    }

    fn told(self, now_ms: i64) -> AccountSettingsOutput {
        let holds = self.holds(now_ms);
        let status = match self.ended_ms {
            None if holds => "ENABLED",
            Some(_) if holds => "ENABLED_UNTIL_EARLIEST_ALLOWED_END",
            Some(_) | None => "DISABLED",
        };
        AccountSettingsOutput {
            minimum_throughput_billing_commitment: CommitmentOutput {
                status,
                started_at: self.started_ms.map(Timestamp),
                ended_at: self.ended_ms.filter(|_| !holds).map(Timestamp),
                earliest_allowed_end_at: self.earliest_end_ms().filter(|_| holds).map(Timestamp),
            },
        }
    }
}

impl Account {
    /// Blocks.
    pub fn open(broker: &Broker) -> Result<Account, StoreError> {
        let stored = broker.scan_meta(&Key::Account.encode())?;
        let commitment = match stored.first() {
            Some((_, json)) => serde_json::from_slice(json)
                .map_err(|error| StoreError::Corrupt(format!("the account's settings: {error}")))?,
            None => Commitment::default(),
        };
        Ok(Account(Mutex::new(commitment)))
    }

    /// Returns when what `change` makes of the commitment is durable.
    async fn set(
        &self,
        broker: &Broker,
        change: impl FnOnce(Commitment) -> Commitment,
    ) -> Result<Commitment, StoreError> {
        let (commitment, done) = {
            let mut kept = self.0.lock();
            *kept = change(*kept);
            let mut batch = Batch::default();
            // Two numbers always encode.
            batch.put(Family::Meta, Key::Account.encode(), serde_json::to_vec(&*kept).unwrap_or_default());
            (*kept, broker.commit_meta(batch))
        };
        match done.await {
            Ok(outcome) => outcome.map(|()| commitment),
            Err(_) => Err(StoreError::NotDone("the server stops".to_owned())),
        }
    }

    /// As if nothing had ever been set: for test suites.
    pub async fn reset(&self, broker: &Broker) -> Result<(), StoreError> {
        self.set(broker, |_| Commitment::default()).await.map(drop)
    }

    /// Whether the account is committed to a minimum throughput.
    pub fn is_committed(&self, now_ms: i64) -> bool {
        self.0.lock().holds(now_ms)
    }
}

pub async fn describe_limits(cx: Context, _input: DescribeLimits) -> Result<DescribeLimitsOutput, Error> {
    let streams = cx.door.broker.streams_in_any_state();
    Ok(DescribeLimitsOutput {
        shard_limit: cx.door.config.shards_max,
        open_shard_count: quotas::open_shards(&streams, None),
        on_demand_stream_count: quotas::on_demand_streams(&streams, None),
        on_demand_stream_count_limit: cx.door.config.on_demand_streams_max,
    })
}

pub async fn describe_account_settings(
    cx: Context,
    _input: DescribeAccountSettings,
) -> Result<AccountSettingsOutput, Error> {
    let commitment = *cx.door.account.0.lock();
    Ok(commitment.told(cx.now_ms))
}

pub async fn update_account_settings(
    cx: Context,
    input: UpdateAccountSettings,
) -> Result<AccountSettingsOutput, Error> {
    let enabled = input.commitment.and_then(|commitment| commitment.status).is_some_and(|status| status == "ENABLED");
    let set = cx.door.account.set(&cx.door.broker, |kept| match enabled {
        true => kept.enabled(cx.now_ms),
        false => kept.disabled(cx.now_ms),
    });
    let commitment = set.await.map_err(|error| Error::internal(&error))?;
    Ok(commitment.told(cx.now_ms))
}
