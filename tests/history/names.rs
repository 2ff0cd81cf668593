//! What topics, groups and transactional ids of one run are called on the broker: new in every run.

use kafka_protocol::messages::{GroupId, TopicName, TransactionalId};

use crate::frame::{text, topic};
use crate::history::{Group, Partition};

/// Partitions by topic.
pub const TOPICS: [i32; 3] = [2, 2, 2];

#[derive(Clone)]
pub struct Names {
    run: String,
}

impl Names {
    pub fn new(run: String) -> Names {
        Names { run }
    }

    pub fn topic(&self, number: u8) -> TopicName {
        topic(&format!("{}-t{number}", self.run))
    }

    /// Of an answer; it can only speak of what was asked.
    pub fn partition(&self, name: &TopicName, index: i32) -> Partition {
        let number = name.as_str().rsplit_once("-t").and_then(|(_, number)| number.parse().ok());
        Partition { topic: number.unwrap_or_else(|| panic!("a topic {name:?} of nobody")), index }
    }

    pub fn group(&self, group: Group) -> GroupId {
        GroupId(text(&format!("{}-g{group}", self.run)))
    }

    pub fn transactional_id(&self, id: u32) -> TransactionalId {
        TransactionalId(text(&format!("{}-x{id}", self.run)))
    }
}

pub fn partitions_of(topics: &[u8]) -> Vec<Partition> {
    topics
        .iter()
        .flat_map(|topic| (0..TOPICS[usize::from(*topic)]).map(|index| Partition { topic: *topic, index }))
        .collect()
}
