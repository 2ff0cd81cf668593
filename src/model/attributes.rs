//! What a stream is beside its records: everything that control operations set, from tags to the consumers that are
//! registered. One [`Attributes`] per stream, kept by `broker` with the stream's record (JSON) and changed under its lock;
//! pure, so the caller brings the time.
//!
//! Source: Kinesis API reference (StreamDescriptionSummary, Consumer).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What becomes of traffic beyond a shard's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitsPolicy {
    /// Kinesis clients are refused, Kafka clients slowed down.
    Enforce,
    /// Only metrics tell what would have been throttled.
    Observe,
    Off,
}

/// Which records of transactions a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All, whatever becomes of their transaction.
    Uncommitted,
    /// Those of transactions that were committed, and nothing behind one that is open.
    Committed,
}

/// Who decides how many shards there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityMode {
    Provisioned,
    OnDemand,
}

/// What a stream or a consumer is going through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transition {
    Creating,
    Updating,
    Deleting,
}

/// A state that lasts until a time; nobody has to do anything for it to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passing {
    pub transition: Transition,
    pub until_ms: i64,
}

/// How an on-demand stream spreads records over its shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordDistribution {
    /// By the hash of the partition key.
    #[default]
    PartitionKey,
    /// Evenly, whatever the key.
    Auto,
}

/// Encryption at rest that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// The master key's name as the client gave it.
    pub key_name: String,
    /// Number of the stream's data key that seals what is written: `store::crypt`.
    pub data_key_id: u32,
}

/// A consumer with a read pipe of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    pub name: String,
    pub created_ms: i64,
    pub passing: Option<Passing>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub created_ms: i64,
    /// `None`: active.
    pub passing: Option<Passing>,
    /// When the mode was switched, ascending; those of the last day count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mode_switches_ms: Vec<i64>,
    /// When shards were scaled to a count, ascending; those of the last day count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scalings_ms: Vec<i64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// A resource policy, as it was put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// KiB of data and key.
    pub record_kib_max: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// When encryption was started, ascending; those of the last day count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encryption_starts_ms: Vec<i64>,
    /// The same of its stops.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encryption_stops_ms: Vec<i64>,
    /// Names of the shard-level metrics that were enabled.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub shard_metrics: BTreeSet<String>,
    /// MiB/s of writes that the stream is kept ready for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_mibps: Option<u32>,
    /// When capacity beyond what is needed was last given back: loads from before count no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_released_ms: Option<i64>,
    #[serde(default)]
    pub distribution: RecordDistribution,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<Consumer>,
}

impl Attributes {
    pub fn new(created_ms: i64) -> Attributes {
        Attributes {
            created_ms,
            passing: None,
            mode_switches_ms: Vec::new(),
            scalings_ms: Vec::new(),
            tags: BTreeMap::new(),
            policy: None,
            record_kib_max: 1_024,
            encryption: None,
            encryption_starts_ms: Vec::new(),
            encryption_stops_ms: Vec::new(),
            shard_metrics: BTreeSet::new(),
            warm_mibps: None,
            capacity_released_ms: None,
            distribution: RecordDistribution::PartitionKey,
            consumers: Vec::new(),
        }
    }

    /// What the stream is going through at `now_ms`; `None` when it is active.
    pub fn transition(&self, now_ms: i64) -> Option<Transition> {
        at(self.passing, now_ms)
    }

    pub fn consumer(&self, name: &str) -> Option<&Consumer> {
        self.consumers.iter().find(|consumer| consumer.name == name)
    }

    /// Consumers but those whose deletion is over.
    pub fn live_consumers(&self, now_ms: i64) -> impl Iterator<Item = &Consumer> {
        self.consumers.iter().filter(move |consumer| !consumer.is_gone(now_ms))
    }
}

impl Consumer {
    pub fn transition(&self, now_ms: i64) -> Option<Transition> {
        at(self.passing, now_ms)
    }

    /// Whether its deletion is over. The next change of the stream's consumers takes it out of the list.
    pub fn is_gone(&self, now_ms: i64) -> bool {
        let deleting = self.passing.filter(|passing| passing.transition == Transition::Deleting);
        deleting.is_some_and(|passing| now_ms >= passing.until_ms)
    }
}

/// A deletion is not over by itself: until someone has carried it out, it goes on.
fn at(passing: Option<Passing>, now_ms: i64) -> Option<Transition> {
    passing
        .filter(|passing| passing.transition == Transition::Deleting || now_ms < passing.until_ms)
        .map(|passing| passing.transition)
}

impl FromStr for LimitsPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<LimitsPolicy, String> {
        match text {
            "enforce" => Ok(LimitsPolicy::Enforce),
            "observe" => Ok(LimitsPolicy::Observe),
            "off" => Ok(LimitsPolicy::Off),
            _ => Err(format!("{text:?} is neither enforce, observe nor off")),
        }
    }
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Isolation, String> {
        match text {
            "read_uncommitted" => Ok(Isolation::Uncommitted),
            "read_committed" => Ok(Isolation::Committed),
            _ => Err(format!("{text:?} is neither read_committed nor read_uncommitted")),
        }
    }
}

impl FromStr for CapacityMode {
    type Err = String;

    fn from_str(text: &str) -> Result<CapacityMode, String> {
        match text {
            "provisioned" => Ok(CapacityMode::Provisioned),
            "on-demand" => Ok(CapacityMode::OnDemand),
            _ => Err(format!("{text:?} is neither provisioned nor on-demand")),
        }
    }
}

impl fmt::Display for CapacityMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CapacityMode::Provisioned => "provisioned",
            CapacityMode::OnDemand => "on-demand",
        })
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isolation::Uncommitted => "read_uncommitted",
            Isolation::Committed => "read_committed",
        })
    }
}

impl fmt::Display for LimitsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitsPolicy::Enforce => "enforce",
            LimitsPolicy::Observe => "observe",
            LimitsPolicy::Off => "off",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transition_passes_but_a_deletion_is_carried_out() {
        let mut attributes = Attributes::new(1_000);
        assert_eq!(attributes.transition(0), None);
        attributes.passing = Some(Passing { transition: Transition::Creating, until_ms: 1_500 });
        assert_eq!(attributes.transition(1_499), Some(Transition::Creating));
        assert_eq!(attributes.transition(1_500), None);
        attributes.passing = Some(Passing { transition: Transition::Deleting, until_ms: 1_500 });
        assert_eq!(attributes.transition(9_000), Some(Transition::Deleting));
    }
}
