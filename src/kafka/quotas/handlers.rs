//! DescribeClientQuotas (48) and AlterClientQuotas (49), versions 0 and 1 each. Messages are Kafka's. An entity that a
//! request alters twice is refused; an entry with one bad key changes nothing, while others of the request are made.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
    alter_client_quotas_response as altered, describe_client_quotas_response as described,
};
use kafka_protocol::protocol::StrBytes;

use super::entity::{Entity, Kind, Limits, Quota, Table};
use super::{Change, ENTITIES_MAX};
use crate::kafka::error::{Refusal, of_store};
use crate::kafka::{Context, error, names};

/// The longest name: an entity is a key of the store.
const NAME_BYTES_MAX: usize = 1_024;

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, message)
}

/// What a filter asks of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    /// This name, or the default.
    Exactly(Option<String>),
    /// Any name, and the default.
    Any,
}

impl Asked {
    fn of(component: &ComponentData) -> Result<(Kind, Asked), Refusal> {
        let ComponentData { entity_type, match_type, _match: name, .. } = component;
        if entity_type.is_empty() {
            return Err(invalid("Invalid empty entity type."));
        }
        let Some(kind) = Kind::of(entity_type) else {
            let message = format!("Unsupported entity type {entity_type}");
            return Err(Refusal::new(ResponseError::UnsupportedVersion, message));
        };
        let asked = match (match_type, name) {
            (0, Some(name)) => Asked::Exactly(Some(name.to_string())),
            (0, None) => return Err(invalid("Request specified MATCH_TYPE_EXACT, but set match string to null.")),
            (1, None) => Asked::Exactly(None),
            (2, None) => Asked::Any,
            (1, Some(_)) => {
                return Err(invalid("Request specified MATCH_TYPE_DEFAULT, but also specified a match string."));
            }
            (2, Some(_)) => {
                return Err(invalid("Request specified MATCH_TYPE_SPECIFIED, but also specified a match string."));
            }
            _ => return Err(invalid(format!("Unknown match type {match_type}"))),
        };
        Ok((kind, asked))
    }

    fn matches(&self, name: &Option<String>) -> bool {
        match self {
            Asked::Exactly(wanted) => wanted == name,
            Asked::Any => true,
        }
    }
}

pub async fn describe_client_quotas(cx: Context, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    let filter = match filter(&request.components) {
        Ok(filter) => filter,
        Err(refusal) => {
            return DescribeClientQuotasResponse::default()
                .with_error_code(refusal.error.code())
                .with_error_message(names::message(refusal.message))
                .with_entries(None);
        }
    };
    let is_asked = |entity: &Entity| {
        let all = filter.iter().all(|(kind, asked)| entity.0.get(kind).is_some_and(|name| asked.matches(name)));
        all && (!request.strict || entity.0.len() == filter.len())
    };
    let table = cx.door.quotas.table();
    let entries = table.entities().iter().filter(|(entity, _)| is_asked(entity));
    let entries = entries.map(|(entity, limits)| {
        let part = |(kind, name): (&Kind, &Option<String>)| {
            described::EntityData::default()
                .with_entity_type(StrBytes::from_static_str(kind.name()))
                .with_entity_name(name.clone().map(StrBytes::from_string))
        };
        let value = |(quota, limit): (&Quota, &f64)| {
            described::ValueData::default().with_key(StrBytes::from_static_str(quota.name())).with_value(*limit)
        };
        described::EntryData::default()
            .with_entity(entity.0.iter().map(part).collect())
            .with_values(limits.iter().map(value).collect())
    });
    DescribeClientQuotasResponse::default().with_error_message(None).with_entries(Some(entries.collect()))
}

fn filter(components: &[ComponentData]) -> Result<BTreeMap<Kind, Asked>, Refusal> {
    let mut filter = BTreeMap::new();
    for component in components {
        let (kind, asked) = Asked::of(component)?;
        if filter.insert(kind, asked).is_some() {
            let message = format!("Entity type {} cannot appear more than once in the filter.", kind.name());
            return Err(invalid(message));
        }
    }
    if filter.contains_key(&Kind::Ip) && filter.len() > 1 {
        return Err(invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId \
             filter component.",
        ));
    }
    Ok(filter)
}

pub async fn alter_client_quotas(cx: Context, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let AlterClientQuotasRequest { entries, validate_only, .. } = &request;
    let changed = cx.door.quotas.change(&cx.door.broker, |table| {
        let judged = judge(table, entries);
        let changes = judged.iter().filter_map(|judged| judged.as_ref().ok().cloned());
        (if *validate_only { Vec::new() } else { changes.collect() }, judged)
    });
    let outcomes: Vec<Result<(), Refusal>> = match changed.await {
        Ok(judged) => judged.into_iter().map(|judged| judged.map(drop)).collect(),
        Err(failure) => vec![Err(Refusal::new(of_store(&failure), failure.to_string())); entries.len()],
    };
    let entry = |(entry, outcome): (&EntryData, Result<(), Refusal>)| {
        let part = |part: &EntityData| {
            altered::EntityData::default()
                .with_entity_type(part.entity_type.clone())
                .with_entity_name(part.entity_name.clone())
        };
        let answer = altered::EntryData::default().with_entity(entry.entity.iter().map(part).collect());
        match outcome {
            Ok(()) => answer.with_error_code(error::NONE).with_error_message(None),
            Err(refusal) => {
                answer.with_error_code(refusal.error.code()).with_error_message(names::message(refusal.message))
            }
        }
    };
    AlterClientQuotasResponse::default().with_entries(entries.iter().zip(outcomes).map(entry).collect())
}

/// What each entry makes of its entity.
fn judge(table: &Table, entries: &[EntryData]) -> Vec<Result<Change, Refusal>> {
    let entities: Vec<_> = entries.iter().map(|entry| entity(&entry.entity)).collect();
    let mut times: HashMap<&Entity, usize> = HashMap::new();
    entities.iter().flatten().for_each(|entity| *times.entry(entity).or_default() += 1);
    let mut count = table.entities().len();
    let judge = |(entity, entry): (&Result<Entity, Refusal>, &EntryData)| {
        let entity = entity.as_ref().map_err(Refusal::clone)?;
        if times.get(entity).is_some_and(|times| *times > 1) {
            return Err(invalid("Ignoring duplicate entity"));
        }
        let before = table.entities().get(entity);
        let limits = limits(entity, before, &entry.ops)?;
        if before.is_none() && !limits.is_empty() {
            if count >= ENTITIES_MAX {
                return Err(invalid(format!("There are quotas for {ENTITIES_MAX} entities already.")));
            }
            count += 1;
        }
        Ok((entity.clone(), limits))
    };
    entities.iter().zip(entries).map(judge).collect()
}

fn entity(parts: &[EntityData]) -> Result<Entity, Refusal> {
    let mut entity = Entity::default();
    for EntityData { entity_type, entity_name, .. } in parts {
        let Some(kind) = Kind::of(entity_type) else {
            return Err(invalid(format!("Unhandled client quota entity type: {entity_type}")));
        };
        let name = match (kind, entity_name.as_deref()) {
            (_, None) => None,
            (_, Some("")) => return Err(invalid(format!("Empty {entity_type} not supported"))),
            (_, Some(name)) if name.len() > NAME_BYTES_MAX => {
                return Err(invalid(format!("The name of a {entity_type} is longer than {NAME_BYTES_MAX} bytes")));
            }
            (Kind::Ip, Some(name)) => match name.parse::<IpAddr>() {
                Ok(address) => Some(address.to_canonical().to_string()),
                Err(_) => return Err(invalid(format!("{name} is not a valid IP or resolvable host."))),
            },
            (Kind::User | Kind::ClientId, Some(name)) => Some(name.to_owned()),
        };
        if entity.0.insert(kind, name).is_some() {
            let message = format!("Invalid empty client quota entity, duplicate entity entry {entity_type}");
            return Err(invalid(message));
        }
    }
    let is_mixed = entity.0.contains_key(&Kind::Ip) && entity.0.len() > 1;
    if entity.0.is_empty() || is_mixed {
        return Err(invalid("Invalid empty client quota entity"));
    }
    Ok(entity)
}

fn limits(entity: &Entity, before: Option<&Limits>, ops: &[OpData]) -> Result<Limits, Refusal> {
    let mut limits = before.cloned().unwrap_or_default();
    let is_address = entity.0.contains_key(&Kind::Ip);
    let mut keys = HashSet::new();
    for OpData { key, value, remove, .. } in ops {
        if !keys.insert(key) {
            return Err(invalid(format!("Duplicate quota key {key} not updating quota for this entity")));
        }
        let quota = Quota::of(key).filter(|quota| quota.is_of_addresses() == is_address);
        match (quota, remove) {
            (Some(quota), true) => drop(limits.remove(&quota)),
            // There is none to remove.
            (None, true) => {}
            (Some(quota), false) => drop(limits.insert(quota, valid(quota, *value)?)),
            (None, false) => return Err(invalid(format!("Invalid configuration key {key}"))),
        }
    }
    Ok(limits)
}

fn valid(quota: Quota, value: f64) -> Result<f64, Refusal> {
    let name = quota.name();
    if value.is_nan() || value <= 0.0 {
        return Err(invalid(format!("Quota {name} must be greater than 0")));
    }
    match quota.whole_max() {
        Some(max) if value > max => Err(invalid(format!("Proposed value for {name} is too large."))),
        Some(_) if value.fract() != 0.0 => Err(invalid(format!("{name} cannot be a fractional value."))),
        None if value.is_infinite() => Err(invalid(format!("Proposed value for {name} is too large."))),
        Some(_) | None => Ok(value),
    }
}
