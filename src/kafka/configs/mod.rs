//! Settings as clients see and change them.
//!
//! - [`describe`] has DescribeConfigs (32)
//! - [`alter`] has AlterConfigs (33) and IncrementalAlterConfigs (44)
//! - [`list`] has ListConfigResources (74)
//!
//! What has settings:
//!
//! | resource | name | here |
//! |---|---|---|
//! | topic | the topic's | its settings, over the broker's |
//! | broker | this node's id | this node's settings; those behind topic settings can be altered |
//! | broker | empty | what was altered for every node of the cluster |
//! | group | any | its settings, over the broker's `group.*`; whether it exists or not |
//! | client metrics | any | none: clients are not asked for metrics |
//! | broker logger | | not offered: what is logged is decided at the start |

use kafka_protocol::error::ResponseError;

use crate::kafka::Context;
use crate::kafka::error::Refusal;
use crate::model::settings::Scope;

mod alter;
mod describe;
#[cfg(test)]
mod handler_tests;
mod list;

pub use alter::{alter_configs, incremental_alter_configs};
pub use describe::describe_configs;
pub use list::list_config_resources;

/// Kafka's ConfigResource.Type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
enum Kind {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Topic, Kind::Broker, Kind::BrokerLogger, Kind::ClientMetrics, Kind::Group];

    fn of(id: i8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as i8 == id)
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, message)
}

/// Whose settings a broker resource means: this node's by its id, the cluster's by the empty name.
fn scope(cx: &Context, name: &str) -> Result<Scope, Refusal> {
    let node = cx.door.config.node_id;
    if name.is_empty() {
        return Ok(Scope::Cluster);
    }
    match name.parse::<i32>() {
        Ok(id) if id == node => Ok(Scope::Node),
        Ok(_) => Err(invalid(format!("Unexpected broker id, expected {node} or empty string, but received {name}"))),
        Err(_) => Err(invalid(format!("Broker id must be an integer, but it is: {name}"))),
    }
}
