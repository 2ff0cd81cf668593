//! Incremental fetch sessions (KIP-227): what a client asked for is remembered, and only what changed is told.
//!
//! Called by `fetch`. The cache holds at most `fetch_sessions_max` sessions; when it is full, a session that was not
//! used for [`EVICTABLE_MS`] makes room, else the client fetches without one, as Kafka does.

use std::collections::HashMap;

use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::model::ids::Offset;

/// `min.incremental.fetch.session.eviction.ms` of Kafka.
const EVICTABLE_MS: i64 = 120_000;
/// Epoch of a request that opens a session, and of one that wants none.
const OPENING: i32 = 0;
const SESSIONLESS: i32 = -1;

/// How a client named a topic: by id from version 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicKey {
    pub name: StrBytes,
    pub id: Uuid,
}

impl TopicKey {
    /// The same with a name of its own: one out of a request would keep all of the request's bytes.
    fn owned(&self) -> TopicKey {
        TopicKey { name: StrBytes::from_string(self.name.to_string()), id: self.id }
    }
}

/// What is wanted of one partition, and what was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub partition: i32,
    pub fetch_offset: Offset,
    pub current_leader_epoch: i32,
    pub bytes_max: i32,
    told_high_watermark: Offset,
    told_log_start: Offset,
}

/// One fetch: what to read and how to answer.
#[derive(Debug)]
pub struct Plan {
    pub session_id: i32,
    /// Everything wanted is told, not only what changed.
    pub full: bool,
    pub wanted: Vec<(TopicKey, Wanted)>,
}

#[derive(Default)]
struct Session {
    /// Of the next request.
    epoch: i32,
    uses_ids: bool,
    partitions: IndexMap<(TopicKey, i32), Wanted>,
    used_ms: i64,
}

pub struct Sessions {
    max: usize,
    cache: Mutex<HashMap<i32, Session>>,
}

impl Wanted {
    fn of(partition: &FetchPartition) -> Wanted {
        Wanted {
            partition: partition.partition,
            fetch_offset: partition.fetch_offset,
            current_leader_epoch: partition.current_leader_epoch,
            bytes_max: partition.partition_max_bytes,
            told_high_watermark: -1,
            told_log_start: -1,
        }
    }

    /// Whether an answer without records says something new.
    pub fn is_news(&self, high_watermark: Offset, log_start: Offset) -> bool {
        (self.told_high_watermark, self.told_log_start) != (high_watermark, log_start)
    }
}

impl Sessions {
    pub fn new(max: usize) -> Sessions {
        Sessions { max, cache: Mutex::new(HashMap::new()) }
    }

    /// What `request` wants, by its session if it has one. `id` is a random one, for a session that it may open.
    pub fn plan(&self, request: &FetchRequest, uses_ids: bool, now_ms: i64, id: i32) -> Result<Plan, ResponseError> {
        let mut cache = self.cache.lock();
        if request.session_epoch != OPENING && request.session_epoch != SESSIONLESS {
            return incremental(&mut cache, request, uses_ids, now_ms);
        }
        cache.remove(&request.session_id);
        let wanted: Vec<(TopicKey, Wanted)> = asked(request).collect();
        let opens = request.session_epoch == OPENING && !wanted.is_empty() && self.make_room(&mut cache, now_ms);
        if !opens {
            return Ok(Plan { session_id: 0, full: true, wanted });
        }
        // Ids are positive; a taken one is very rare and moves on to the next.
        let mut session_id = id.checked_abs().unwrap_or(1).max(1);
        while cache.contains_key(&session_id) {
            session_id = session_id.checked_add(1).unwrap_or(1);
        }
        let partitions =
            wanted.iter().map(|(topic, wanted)| ((topic.owned(), wanted.partition), wanted.clone())).collect();
        cache.insert(session_id, Session { epoch: 1, uses_ids, partitions, used_ms: now_ms });
        Ok(Plan { session_id, full: true, wanted })
    }

    /// Remembers what was told; partitions that had records go to the end, so that all get their turn when an answer
    /// is full. `told` holds high watermark, log start and whether there were records.
    pub fn told(&self, session_id: i32, told: Vec<((TopicKey, i32), Offset, Offset, bool)>) {
        let mut cache = self.cache.lock();
        let Some(session) = cache.get_mut(&session_id) else { return };
        for (key, high_watermark, log_start, records) in told {
            let Some(index) = session.partitions.get_index_of(&key) else { continue };
            if let Some((_, wanted)) = session.partitions.get_index_mut(index) {
                wanted.told_high_watermark = high_watermark;
                wanted.told_log_start = log_start;
            }
            if records {
                session.partitions.move_index(index, session.partitions.len() - 1);
            }
        }
    }

    /// Ends a session.
    pub fn forget(&self, session_id: i32) {
        self.cache.lock().remove(&session_id);
    }

    fn make_room(&self, cache: &mut HashMap<i32, Session>, now_ms: i64) -> bool {
        if cache.len() < self.max {
            return true;
        }
        let oldest = cache.iter().min_by_key(|(_, session)| session.used_ms);
        match oldest.map(|(id, session)| (*id, session.used_ms)) {
            Some((id, used_ms)) if now_ms - used_ms > EVICTABLE_MS => cache.remove(&id).is_some(),
            _ => false,
        }
    }
}

fn incremental(
    cache: &mut HashMap<i32, Session>,
    request: &FetchRequest,
    uses_ids: bool,
    now_ms: i64,
) -> Result<Plan, ResponseError> {
    let session = cache.get_mut(&request.session_id).ok_or(ResponseError::FetchSessionIdNotFound)?;
    if session.epoch != request.session_epoch {
        return Err(ResponseError::InvalidFetchSessionEpoch);
    }
    if session.uses_ids != uses_ids {
        return Err(ResponseError::FetchSessionTopicIdError);
    }
    for (topic, wanted) in asked(request) {
        let key = (topic, wanted.partition);
        match session.partitions.get_mut(&key) {
            Some(known) => {
                known.fetch_offset = wanted.fetch_offset;
                known.current_leader_epoch = wanted.current_leader_epoch;
                known.bytes_max = wanted.bytes_max;
            }
            None => {
                session.partitions.insert((key.0.owned(), key.1), wanted);
            }
        }
    }
    for topic in &request.forgotten_topics_data {
        let key = TopicKey { name: topic.topic.0.clone(), id: topic.topic_id };
        for partition in &topic.partitions {
            session.partitions.shift_remove(&(key.clone(), *partition));
        }
    }
    session.epoch = session.epoch.checked_add(1).unwrap_or(1);
    session.used_ms = now_ms;
    let wanted = session.partitions.iter().map(|((topic, _), wanted)| (topic.clone(), wanted.clone())).collect();
    Ok(Plan { session_id: request.session_id, full: false, wanted })
}

fn asked(request: &FetchRequest) -> impl Iterator<Item = (TopicKey, Wanted)> {
    request.topics.iter().flat_map(|topic| {
        let key = TopicKey { name: topic.topic.0.clone(), id: topic.topic_id };
        topic.partitions.iter().map(move |partition| (key.clone(), Wanted::of(partition)))
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::fetch_request::{FetchTopic, ForgottenTopic};

    use super::*;

    fn request(session_id: i32, session_epoch: i32, partitions: &[(i32, Offset)]) -> FetchRequest {
        let partitions = partitions
            .iter()
            .map(|(partition, offset)| FetchPartition::default().with_partition(*partition).with_fetch_offset(*offset));
        let topic = FetchTopic::default().with_topic(name()).with_partitions(partitions.collect());
        let topics = if topic.partitions.is_empty() { vec![] } else { vec![topic] };
        FetchRequest::default().with_session_id(session_id).with_session_epoch(session_epoch).with_topics(topics)
    }

    fn name() -> TopicName {
        TopicName(StrBytes::from_static_str("t"))
    }

    fn offsets(plan: &Plan) -> Vec<(i32, Offset)> {
        plan.wanted.iter().map(|(_, wanted)| (wanted.partition, wanted.fetch_offset)).collect()
    }

    #[test]
    fn a_session_remembers_changes_and_forgets_what_it_is_told_to() {
        let sessions = Sessions::new(2);
        let opened = sessions.plan(&request(0, 0, &[(0, 5), (1, 6)]), false, 0, 77).unwrap();
        assert_eq!((opened.session_id, opened.full, offsets(&opened)), (77, true, vec![(0, 5), (1, 6)]));
        let next = sessions.plan(&request(77, 1, &[(1, 9)]), false, 0, 78).unwrap();
        assert_eq!((next.session_id, next.full, offsets(&next)), (77, false, vec![(0, 5), (1, 9)]));
        let forget = ForgottenTopic::default().with_topic(name()).with_partitions(vec![0]);
        let last = request(77, 2, &[]).with_forgotten_topics_data(vec![forget]);
        assert_eq!(offsets(&sessions.plan(&last, false, 0, 79).unwrap()), [(1, 9)]);
    }

    #[test]
    fn a_wrong_session_epoch_or_naming_is_refused() {
        let sessions = Sessions::new(2);
        let plan = |id, epoch, ids| sessions.plan(&request(id, epoch, &[]), ids, 0, 1);
        sessions.plan(&request(0, 0, &[(0, 0)]), false, 0, 7).unwrap();
        assert_eq!(plan(8, 1, false).unwrap_err(), ResponseError::FetchSessionIdNotFound);
        assert_eq!(plan(7, 2, false).unwrap_err(), ResponseError::InvalidFetchSessionEpoch);
        assert_eq!(plan(7, 1, true).unwrap_err(), ResponseError::FetchSessionTopicIdError);
        assert!(plan(7, 1, false).is_ok());
        // Closed by the client: epoch -1.
        assert_eq!(plan(7, -1, false).unwrap().session_id, 0);
        assert_eq!(plan(7, 2, false).unwrap_err(), ResponseError::FetchSessionIdNotFound);
    }

    #[test]
    fn a_full_cache_gives_way_only_for_idle_sessions() {
        let sessions = Sessions::new(1);
        let open = |now_ms, id| sessions.plan(&request(0, 0, &[(0, 0)]), false, now_ms, id).unwrap().session_id;
        assert_eq!(open(0, 5), 5);
        assert_eq!(open(EVICTABLE_MS, 6), 0);
        assert_eq!(open(EVICTABLE_MS + 1, 7), 7);
    }

    #[test]
    fn what_was_told_is_news_only_once_and_moves_back_when_it_had_records() {
        let sessions = Sessions::new(1);
        let opened = sessions.plan(&request(0, 0, &[(0, 0), (1, 0)]), false, 0, 5).unwrap();
        let key = opened.wanted[0].0.clone();
        sessions.told(5, vec![((key, 0), 10, 0, true)]);
        let plan = sessions.plan(&request(5, 1, &[]), false, 0, 6).unwrap();
        assert_eq!(offsets(&plan), [(1, 0), (0, 0)]);
        assert!(plan.wanted[0].1.is_news(10, 0) && !plan.wanted[1].1.is_news(10, 0));
    }
}
