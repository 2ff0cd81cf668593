//! Share sessions: which partitions a member fetches is remembered from one request to the next. A member has one
//! session; its requests count it up, so that a request that got lost or came twice is seen. It ends with its connection.
//!
//! Called by the Kafka door. The cache holds at most `sessions_max` sessions; when it is full, no more are opened.
//!
//! Source: KIP-932.

use std::collections::HashMap;

use indexmap::IndexMap;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{SESSION_PARTITIONS_MAX, ShareError};

/// Epoch of a request that opens a session, and of one that ends it.
pub const OPENING: i32 = 0;
pub const FINAL: i32 = -1;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub group_id: String,
    pub member_id: String,
}

/// A partition by topic id, as the client named it.
pub type Place = (Uuid, i32);

/// What a request is to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of this request: every request begins with another one, so that all get their turn.
    pub places: Vec<Place>,
}

struct Session {
    /// Of the next request.
    epoch: i32,
    connection: u64,
    /// With whether the next answer has to name it, be there news or not.
    places: IndexMap<Place, bool>,
}

pub struct Sessions {
    max: usize,
    cache: Mutex<HashMap<SessionKey, Session>>,
}

impl Sessions {
    pub fn new(max: usize) -> Sessions {
        Sessions { max, cache: Mutex::new(HashMap::new()) }
    }

    /// Begins a session anew.
    pub fn open(
        &self,
        key: &SessionKey,
        connection: u64,
        places: impl IntoIterator<Item = Place>,
    ) -> Result<Plan, ShareError> {
        let places = bounded(places.into_iter().map(|place| (place, true)).collect())?;
        let mut cache = self.cache.lock();
        cache.remove(key);
        if cache.len() >= self.max {
            return Err(ShareError::SessionLimitReached);
        }
        let plan = Plan { places: places.keys().copied().collect() };
        cache.insert(key.clone(), Session { epoch: 1, connection, places });
        Ok(plan)
    }

    /// Goes on with a session, with partitions added and forgotten.
    pub fn go_on(
        &self,
        key: &SessionKey,
        epoch: i32,
        added: impl IntoIterator<Item = Place>,
        forgotten: impl IntoIterator<Item = Place>,
    ) -> Result<Plan, ShareError> {
        let mut cache = self.cache.lock();
        let session = current(&mut cache, key, epoch)?;
        let mut places = session.places.clone();
        for place in added {
            places.entry(place).or_insert(true);
        }
        for place in forgotten {
            places.shift_remove(&place);
        }
        session.places = bounded(places)?;
        session.next();
        let mut places: Vec<Place> = session.places.keys().copied().collect();
        if !places.is_empty() {
            let turn = epoch.unsigned_abs() as usize % places.len();
            places.rotate_left(turn);
        }
        Ok(Plan { places })
    }

    /// A request that only acknowledges.
    pub fn acknowledge(&self, key: &SessionKey, epoch: i32) -> Result<(), ShareError> {
        current(&mut self.cache.lock(), key, epoch)?.next();
        Ok(())
    }

    /// Ends a session; what it fetched.
    pub fn close(&self, key: &SessionKey) -> Result<Vec<Place>, ShareError> {
        let session = self.cache.lock().remove(key).ok_or(ShareError::SessionNotFound)?;
        Ok(session.places.into_keys().collect())
    }

    /// Whether an answer has to name a partition though nothing is new about it.
    pub fn is_due(&self, key: &SessionKey, place: &Place) -> bool {
        let cache = self.cache.lock();
        cache.get(key).and_then(|session| session.places.get(place)).copied().unwrap_or(true)
    }

    /// An answer names a partition. After an error the next one does too.
    pub fn told(&self, key: &SessionKey, place: &Place, failed: bool) {
        if let Some(due) = self.cache.lock().get_mut(key).and_then(|session| session.places.get_mut(place)) {
            *due = failed;
        }
    }

    /// Ends the sessions of a connection.
    pub fn disconnect(&self, connection: u64) -> Vec<(SessionKey, Vec<Place>)> {
        let mut cache = self.cache.lock();
        let gone: Vec<SessionKey> =
            cache.iter().filter(|(_, session)| session.connection == connection).map(|(key, _)| key.clone()).collect();
        let ended = gone.into_iter().filter_map(|key| {
            let session = cache.remove(&key)?;
            Some((key, session.places.into_keys().collect()))
        });
        ended.collect()
    }
}

impl Session {
    fn next(&mut self) {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
    }
}

fn current<'a>(
    cache: &'a mut HashMap<SessionKey, Session>,
    key: &SessionKey,
    epoch: i32,
) -> Result<&'a mut Session, ShareError> {
    let session = cache.get_mut(key).ok_or(ShareError::SessionNotFound)?;
    if session.epoch == epoch { Ok(session) } else { Err(ShareError::InvalidSessionEpoch) }
}

fn bounded(places: IndexMap<Place, bool>) -> Result<IndexMap<Place, bool>, ShareError> {
    if places.len() > SESSION_PARTITIONS_MAX { Err(ShareError::InvalidRequest) } else { Ok(places) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Uuid = Uuid::from_u128(1);

    fn key(member_id: &str) -> SessionKey {
        SessionKey { group_id: "g".into(), member_id: member_id.into() }
    }

    #[test]
    fn a_session_remembers_its_partitions_and_begins_with_another_each_time() {
        let sessions = Sessions::new(2);
        let opened = sessions.open(&key("m"), 1, [(T, 0), (T, 1)]).unwrap();
        assert_eq!(opened.places, [(T, 0), (T, 1)]);
        assert_eq!(sessions.go_on(&key("m"), 1, [(T, 2)], []).unwrap().places, [(T, 1), (T, 2), (T, 0)]);
        assert_eq!(sessions.go_on(&key("m"), 2, [], [(T, 1)]).unwrap().places, [(T, 0), (T, 2)]);
        assert_eq!(sessions.acknowledge(&key("m"), 3), Ok(()));
        assert_eq!(sessions.go_on(&key("m"), 3, [], []), Err(ShareError::InvalidSessionEpoch));
        assert_eq!(sessions.close(&key("m")).unwrap(), [(T, 0), (T, 2)]);
        assert_eq!(sessions.acknowledge(&key("m"), 4), Err(ShareError::SessionNotFound));
    }

    #[test]
    fn partitions_are_named_until_all_is_well() {
        let sessions = Sessions::new(1);
        sessions.open(&key("m"), 1, [(T, 0)]).unwrap();
        assert!(sessions.is_due(&key("m"), &(T, 0)));
        sessions.told(&key("m"), &(T, 0), true);
        assert!(sessions.is_due(&key("m"), &(T, 0)));
        sessions.told(&key("m"), &(T, 0), false);
        assert!(!sessions.is_due(&key("m"), &(T, 0)));
    }

    #[test]
    fn sessions_are_bounded_and_end_with_their_connection() {
        let sessions = Sessions::new(2);
        sessions.open(&key("a"), 1, []).unwrap();
        sessions.open(&key("b"), 2, [(T, 0)]).unwrap();
        assert_eq!(sessions.open(&key("c"), 3, []), Err(ShareError::SessionLimitReached));
        assert!(sessions.open(&key("a"), 1, []).is_ok(), "one's own makes room");
        assert_eq!(sessions.disconnect(2), [(key("b"), vec![(T, 0)])]);
        assert_eq!(sessions.disconnect(2), []);
        let many = (0..=SESSION_PARTITIONS_MAX as i32).map(|index| (T, index));
        assert_eq!(sessions.open(&key("c"), 3, many), Err(ShareError::InvalidRequest));
    }
}
