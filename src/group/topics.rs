//! What groups that assign partitions themselves must know of topics. Asked under a group's lock; answers from memory.

use std::sync::Arc;

use uuid::Uuid;

use crate::broker::{Broker, Stream};

/// A topic as it is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: Uuid,
    pub partitions: u32,
}

pub trait Topics {
    /// A number that is another one after topics came, went or grew. Read before the rest, so that nothing is missed.
    fn version(&self) -> u64;

    fn topic(&self, name: &str) -> Option<Topic>;

    /// `None` once the topic is gone.
    fn topic_name(&self, id: Uuid) -> Option<Arc<str>>;

    fn topic_names(&self) -> Vec<Arc<str>>;
}

impl Topics for Broker {
    fn version(&self) -> u64 {
        self.catalog_version()
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        self.stream(name).map(|stream| Topic { id: stream.topic_id, partitions: stream.partition_count() })
    }

    fn topic_name(&self, id: Uuid) -> Option<Arc<str>> {
        self.stream_by_topic_id(id).map(|stream| stream.name.clone())
    }

    fn topic_names(&self) -> Vec<Arc<str>> {
        self.streams().iter().map(|stream: &Arc<Stream>| stream.name.clone()).collect()
    }
}

/// Topics of a test.
#[cfg(test)]
#[derive(Default)]
pub struct TestTopics {
    topics: parking_lot::Mutex<(u64, std::collections::BTreeMap<Arc<str>, Topic>)>,
}

#[cfg(test)]
impl TestTopics {
    /// Makes a topic, or makes it this wide.
    pub fn set(&self, name: &str, partitions: u32) {
        let mut topics = self.topics.lock();
        topics.0 += 1;
        let id = Uuid::from_u128(u128::from(topics.0));
        topics.1.entry(name.into()).or_insert(Topic { id, partitions }).partitions = partitions;
    }

    pub fn delete(&self, name: &str) {
        let mut topics = self.topics.lock();
        topics.0 += 1;
        topics.1.remove(name);
    }
}

#[cfg(test)]
impl Topics for TestTopics {
    fn version(&self) -> u64 {
        self.topics.lock().0
    }

    fn topic(&self, name: &str) -> Option<Topic> {
        self.topics.lock().1.get(name).copied()
    }

    fn topic_name(&self, id: Uuid) -> Option<Arc<str>> {
        self.topics.lock().1.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.clone())
    }

    fn topic_names(&self) -> Vec<Arc<str>> {
        self.topics.lock().1.keys().cloned().collect()
    }
}
