//! Names as Kafka has them: which topic names are valid, which collide, how UUIDs are written, what sources of settings
//! are called. Pure; used by the handlers of this folder.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::model::settings::Source;

/// The longest topic name.
const TOPIC_NAME_MAX: usize = 249;

/// Error messages are cut here: older versions write a string's length as an i16, and names inside come from clients.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// Topics that are Kafka's own. None exists here until a client makes it, but clients hide what bears such a name.
const INTERNAL_TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// Kafka's log of its own metadata: no client may make a topic of that name.
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// Why `name` cannot be a topic's, in Kafka's words; None if it can.
pub fn topic_name_fault(name: &str) -> Option<String> {
    let fault = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.chars().count() > TOPIC_NAME_MAX => {
            format!("the length of '{name}' is longer than the max allowed length {TOPIC_NAME_MAX}")
        }
        _ if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {
            format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => return None,
    };
    Some(format!("Topic name is invalid: {fault}"))
}

pub fn is_valid_topic(name: &str) -> bool {
    topic_name_fault(name).is_none()
}

pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// Existing topics whose names hold '.' or '_': metrics make one of both, so that `a.b` and `a_b` must not both exist.
pub struct Collisions(HashMap<String, Arc<str>>);

impl Collisions {
    pub fn among<'a>(existing: impl IntoIterator<Item = &'a Arc<str>>) -> Collisions {
        let clashing = existing.into_iter().filter(|name| may_collide(name));
        Collisions(clashing.map(|name| (name.replace('.', "_"), name.clone())).collect())
    }

    /// The existing topic that a new one called `name` would collide with.
    pub fn with(&self, name: &str) -> Option<&str> {
        if !may_collide(name) {
            return None;
        }
        self.0.get(&name.replace('.', "_")).map(|other| &**other)
    }
}

pub fn may_collide(name: &str) -> bool {
    name.contains(['.', '_'])
}

/// A UUID as Kafka writes it: 22 characters of URL-safe base64 without padding.
pub fn uuid_text(id: Uuid) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const SYMBOLS: u32 = 22;
    let bits = id.as_u128();
    // 22 symbols of 6 bits are 132: the last one holds the UUID's last two bits and four zeros.
    let symbol = |at: u32| match at {
        21 => (bits & 0b11) << 4,
        _ => bits >> (122 - 6 * at),
    };
    (0..SYMBOLS).map(|at| char::from(ALPHABET[(symbol(at) & 63) as usize])).collect()
}

/// Kafka's number of where a setting's value comes from.
pub fn config_source(source: Source) -> i8 {
    match source {
        Source::DynamicTopic => 1,
        Source::DynamicBroker => 2,
        Source::DynamicDefaultBroker => 3,
        Source::StaticBroker => 4,
        Source::Default => 5,
        Source::DynamicGroup => 8,
    }
}

pub fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// An error's explanation as answers carry it.
pub fn message(text: impl Into<String>) -> Option<StrBytes> {
    let mut text = text.into();
    if text.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    Some(StrBytes::from_string(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_held_to_kafkas_rules() {
        let longest = "x".repeat(249);
        for good in ["a", "a.b_c-D9", "...", "__consumer_offsets", "-", &longest] {
            assert_eq!(topic_name_fault(good), None, "{good}");
        }
        let fault = |name: &str| topic_name_fault(name).unwrap();
        assert_eq!(fault(""), "Topic name is invalid: the empty string is not allowed");
        assert_eq!(fault("."), "Topic name is invalid: '.' is not allowed");
        assert_eq!(fault(".."), "Topic name is invalid: '..' is not allowed");
        assert!(fault(&"x".repeat(250)).ends_with("is longer than the max allowed length 249"));
        for bad in ["a b", "a/b", "naïve", "a\0", "a:b"] {
            assert!(fault(bad).contains("other than ASCII alphanumerics"), "{bad}");
        }
        assert!(is_internal("__consumer_offsets") && !is_internal("consumer_offsets"));
    }

    #[test]
    fn names_collide_where_dots_and_underscores_stand_for_each_other() {
        let existing: Vec<Arc<str>> = ["a.b_c", "plain"].map(Arc::from).into();
        let collisions = Collisions::among(&existing);
        for colliding in ["a_b_c", "a.b.c", "a_b.c", "a.b_c"] {
            assert_eq!(collisions.with(colliding), Some("a.b_c"), "{colliding}");
        }
        for free in ["a-b_c", "plain", "a.b", "abc"] {
            assert_eq!(collisions.with(free), None, "{free}");
        }
    }

    #[test]
    fn uuids_are_written_as_kafka_writes_them() {
        // Kafka's own reserved ids, and one from the printout of a real cluster.
        assert_eq!(uuid_text(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(uuid_text(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(uuid_text(Uuid::from_u128(u128::MAX)), "_____________________w");
        assert_eq!(uuid_text(Uuid::from_u128(0x72ca_027b_8166_4f5f_aafa_3d09_3479_5580)), "csoCe4FmT1-q-j0JNHlVgA");
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let text = "é".repeat(2_000);
        let cut = message(text.as_str()).unwrap();
        assert_eq!(cut.len(), 2_000);
        assert!(text.starts_with(cut.as_str()));
        assert_eq!(message("as it is").unwrap().as_str(), "as it is");
    }
}
