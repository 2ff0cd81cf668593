//! Whose quota it is, what it limits, and which of several holds for a client. Pure.
//!
//! An entity names a user, a client id, both, or an address; each by its name or as the default of all that have none of
//! their own. For a client the most specific one holds that limits the thing in question, in Kafka's order: its user and
//! client id, its user and the default client id, its user; the same for the default user; its client id; the default one.
//!
//! Stored as JSON: an entity as `{"user":"ada","client-id":null}` (null is the default), its limits as
//! `{"producer_byte_rate":1024.0}`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::meter::WINDOW_MS;

/// What an entity is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    ClientId,
    Ip,
    User,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::ClientId, Kind::Ip, Kind::User];

    /// As Kafka spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::ClientId => "client-id",
            Kind::Ip => "ip",
            Kind::User => "user",
        }
    }

    pub fn of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Whose quota it is; `None` is the default of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity(pub BTreeMap<Kind, Option<String>>);

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quota {
    /// Bytes of produce requests a second.
    ProducerByteRate,
    /// Bytes of records fetched a second.
    ConsumerByteRate,
    /// Time that requests are worked on, in percent of one processor.
    RequestPercentage,
    /// Partitions made and deleted a second.
    ControllerMutationRate,
    /// Connections from one address a second.
    ConnectionCreationRate,
}

impl Quota {
    pub const ALL: [Quota; 5] = [
        Quota::ProducerByteRate,
        Quota::ConsumerByteRate,
        Quota::RequestPercentage,
        Quota::ControllerMutationRate,
        Quota::ConnectionCreationRate,
    ];

    /// As Kafka spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Quota::ProducerByteRate => "producer_byte_rate",
            Quota::ConsumerByteRate => "consumer_byte_rate",
            Quota::RequestPercentage => "request_percentage",
            Quota::ControllerMutationRate => "controller_mutation_rate",
            Quota::ConnectionCreationRate => "connection_creation_rate",
        }
    }

    pub fn of(name: &str) -> Option<Quota> {
        Quota::ALL.into_iter().find(|quota| quota.name() == name)
    }

    /// The largest value, where only whole ones are taken.
    pub const fn whole_max(self) -> Option<f64> {
        match self {
            Quota::ProducerByteRate | Quota::ConsumerByteRate => Some(i64::MAX as f64),
            Quota::ConnectionCreationRate => Some(i32::MAX as f64),
            Quota::RequestPercentage | Quota::ControllerMutationRate => None,
        }
    }

    /// The longest pause; for the time of requests and for connections it is Kafka's, a window.
    pub const fn pause_ms_max(self) -> i64 {
        match self {
            Quota::RequestPercentage | Quota::ConnectionCreationRate => WINDOW_MS,
            Quota::ProducerByteRate | Quota::ConsumerByteRate | Quota::ControllerMutationRate => i64::MAX,
        }
    }

    /// Whether it is a quota of addresses.
    pub const fn is_of_addresses(self) -> bool {
        matches!(self, Quota::ConnectionCreationRate)
    }
}

/// The limits of one entity.
pub type Limits = BTreeMap<Quota, f64>;

/// All quotas, and the way to the one that holds.
#[derive(Clone, Debug, Default)]
pub struct Table {
    entities: BTreeMap<Entity, Limits>,
    index: HashMap<Quota, ByName<ByName<f64>>>,
}

/// What holds for names, from the most specific on.
#[derive(Clone, Debug)]
struct ByName<T> {
    named: HashMap<String, T>,
    default: Option<T>,
    /// For entities that do not say.
    unsaid: Option<T>,
}

impl<T> Default for ByName<T> {
    fn default() -> ByName<T> {
        ByName { named: HashMap::new(), default: None, unsaid: None }
    }
}

impl<T> ByName<T> {
    /// What may hold for `name`, in order, and whether it is for that name alone or for each on its own.
    fn of<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a T, bool)> {
        let said = [self.named.get(name), self.default.as_ref()].into_iter().flatten().map(|found| (found, true));
        said.chain(self.unsaid.as_ref().map(|found| (found, false)))
    }

    fn put(&mut self, name: Option<&Option<String>>, value: T) {
        match name {
            Some(Some(name)) => drop(self.named.insert(name.clone(), value)),
            Some(None) => self.default = Some(value),
            None => self.unsaid = Some(value),
        }
    }

    fn entry(&mut self, name: Option<&Option<String>>) -> &mut T
    where
        T: Default,
    {
        match name {
            Some(Some(name)) => self.named.entry(name.clone()).or_default(),
            Some(None) => self.default.get_or_insert_default(),
            None => self.unsaid.get_or_insert_default(),
        }
    }
}

/// The limit that holds, and who shares it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    pub limit: f64,
    /// Users have it each on their own; otherwise whoever has the client id.
    pub by_user: bool,
    /// Client ids have it each on their own; otherwise all of the user's.
    pub by_client_id: bool,
}

impl Table {
    pub fn new(entities: BTreeMap<Entity, Limits>) -> Table {
        let mut index: HashMap<Quota, ByName<ByName<f64>>> = HashMap::new();
        for (entity, limits) in &entities {
            // An address is looked up as a user of the name would be: no quota is of both.
            let user = entity.0.get(&Kind::User).or(entity.0.get(&Kind::Ip));
            for (quota, limit) in limits {
                index.entry(*quota).or_default().entry(user).put(entity.0.get(&Kind::ClientId), *limit);
            }
        }
        Table { entities, index }
    }

    pub fn entities(&self) -> &BTreeMap<Entity, Limits> {
        &self.entities
    }

    /// What holds for a client, or for an address (as `user`).
    pub fn held(&self, quota: Quota, user: &str, client_id: &str) -> Option<Held> {
        let users = self.index.get(&quota)?.of(user);
        users
            .flat_map(|(clients, by_user)| clients.of(client_id).map(move |(limit, by)| (*limit, by_user, by)))
            .map(|(limit, by_user, by_client_id)| Held { limit, by_user, by_client_id })
            .next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: Option<Option<&str>>, client_id: Option<Option<&str>>) -> Entity {
        let own = |name: Option<&str>| name.map(str::to_owned);
        let user = user.map(|user| (Kind::User, own(user)));
        Entity(user.into_iter().chain(client_id.map(|client_id| (Kind::ClientId, own(client_id)))).collect())
    }

    #[test]
    fn the_most_specific_quota_holds() {
        let order = [
            entity(Some(Some("ada")), Some(Some("app"))),
            entity(Some(Some("ada")), Some(None)),
            entity(Some(Some("ada")), None),
            entity(Some(None), Some(Some("app"))),
            entity(Some(None), Some(None)),
            entity(Some(None), None),
            entity(None, Some(Some("app"))),
            entity(None, Some(None)),
        ];
        let shared = [(true, true), (true, true), (true, false), (true, true), (true, true), (true, false)];
        let shared = shared.into_iter().chain([(false, true), (false, true)]);
        for (first, (by_user, by_client_id)) in shared.enumerate() {
            let limits = |(at, entity): (usize, &Entity)| {
                (entity.clone(), Limits::from([(Quota::ProducerByteRate, (at + 1) as f64)]))
            };
            let table = Table::new(order.iter().enumerate().skip(first).map(limits).collect());
            let held = table.held(Quota::ProducerByteRate, "ada", "app");
            assert_eq!(held, Some(Held { limit: (first + 1) as f64, by_user, by_client_id }), "{first}");
            assert_eq!(table.held(Quota::ConsumerByteRate, "ada", "app"), None);
            // Somebody else has the defaults: of users and client ids, of users, of client ids.
            let other = table.held(Quota::ProducerByteRate, "bob", "other").map(|held| held.limit);
            assert_eq!(other, Some([5.0, 5.0, 5.0, 5.0, 5.0, 6.0, 8.0, 8.0][first]));
        }
    }

    #[test]
    fn entities_are_stored_by_kafkas_names() {
        let both = entity(Some(Some("ada")), Some(None));
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(json, r#"{"client-id":null,"user":"ada"}"#);
        assert_eq!(serde_json::from_str::<Entity>(&json).unwrap(), both);
        let limits = Limits::from([(Quota::ControllerMutationRate, 0.5)]);
        assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"controller_mutation_rate":0.5}"#);
        for quota in Quota::ALL {
            assert_eq!(serde_json::to_value(quota).unwrap(), quota.name());
        }
    }
}
