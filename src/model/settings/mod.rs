//! Settings with Kafka's names: of topics, and the broker's that stand behind them.
//!
//! | room | what it owns |
//! |---|---|
//! | [`definition`] | what a setting is: type, default, check, and Kafka's words for a bad value |
//! | [`topic`] | the table of topic settings (Kafka 4.1's `TopicConfig` and `LogConfig`) and their validation |
//! | [`broker`] | the table of broker settings, what the command line says of them, what was altered while running |
//! | [`group`] | the table of group settings and their validation |
//! | [`stream`] | [`StreamSettings`]: the typed values that a partition works with |
//! | [`alter`] | SET, DELETE, APPEND and SUBTRACT |
//! | [`describe`] | every setting with its value, source and synonyms |
//!
//! A topic's setting has the value of the first of: the topic's override; the broker setting behind it, altered for this
//! node, altered for the cluster, or given at the start; the built-in default. Values are kept as canonical text
//! ([`Overrides`]), because that is what every client writes and reads. Pure; `broker` stores them and calls this.

use std::collections::BTreeMap;

pub mod alter;
pub mod broker;
pub mod definition;
pub mod describe;
pub mod group;
pub mod stream;
pub mod topic;

pub use alter::{Change, Op};
pub use broker::{BrokerSettings, BrokerValues, DynamicSettings, Scope};
pub use definition::{SettingError, ValueType};
pub use describe::{Described, Synonym};
pub use stream::{CleanupPolicy, Compaction, Compression, StreamSettings, TimestampType};

/// Canonical values by name: what was set on a topic, or altered on the broker.
pub type Overrides = BTreeMap<String, String>;

/// Where a value comes from, highest precedence first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    DynamicTopic,
    /// Set for one group.
    DynamicGroup,
    /// Altered while running, for this node.
    DynamicBroker,
    /// Altered while running, for every node of the cluster.
    DynamicDefaultBroker,
    /// From the command line, the environment or the settings file.
    StaticBroker,
    Default,
}
