//! Every setting with its value, where that comes from, and what else could have given it: DescribeConfigs' and
//! CreateTopics' view. Called by the Kafka door.

use super::broker::{BROKER_SOURCES, FIXED, behind, fixed_setting};
use super::definition::{Definition, ValueType};
use super::group::{GROUP_SETTINGS, GroupSetting, server_value};
use super::topic::{TOPIC_SETTINGS, topic_setting};
use super::{BrokerSettings, Overrides, Scope, Source};

/// One setting as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    /// `None` where it is null, and where it is sensitive.
    pub value: Option<String>,
    pub source: Source,
    pub read_only: bool,
    pub sensitive: bool,
    pub value_type: ValueType,
    /// All that give the setting a value, the one that counts first.
    pub synonyms: Vec<Synonym>,
    pub documentation: Option<&'static str>,
}

/// A name that gives a setting its value, or would without those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
}

/// All settings of a topic, by name.
pub fn topic(overrides: &Overrides, broker: &BrokerSettings) -> Vec<Described> {
    let described = |definition: &Definition| {
        let name = definition.name;
        let server = topic_setting(name).and_then(|setting| setting.server);
        let own = overrides.get(name).map(|value| (value.clone(), Source::DynamicTopic));
        let given = own.clone().or_else(|| server.and_then(|server| broker.given(server.name)));
        let (value, source) = match given {
            Some((value, source)) => (Some(value), source),
            None => (definition.default.map(str::to_owned), Source::Default),
        };
        let mut synonyms: Vec<_> = own
            .into_iter()
            .map(|(value, source)| Synonym { name: name.to_owned(), value: Some(value), source })
            .collect();
        synonyms.extend(server.into_iter().flat_map(|server| synonyms_of(server.name, broker)));
        describe(definition, name, value, source, synonyms, false)
    };
    TOPIC_SETTINGS.iter().filter(|setting| !setting.internal).map(|setting| described(&setting.definition)).collect()
}

/// All settings of a group, by name.
pub fn group(overrides: &Overrides, broker: &BrokerSettings) -> Vec<Described> {
    let described = |setting: &GroupSetting| {
        let definition = &setting.definition;
        let own = overrides.get(definition.name).cloned();
        let synonym = |(value, source)| Synonym { name: definition.name.to_owned(), value: Some(value), source };
        let synonyms = own.clone().map(|value| synonym((value, Source::DynamicGroup))).into_iter().collect();
        let source = if own.is_some() { Source::DynamicGroup } else { Source::Default };
        let default = || definition.default.map(str::to_owned);
        let value = own.or_else(|| setting.server.map_or_else(default, |server| server_value(broker, server)));
        describe(definition, definition.name, value, source, synonyms, false)
    };
    GROUP_SETTINGS.iter().map(described).collect()
}

/// All settings of this node, by name; custom ones among them.
pub fn broker(broker: &BrokerSettings) -> Vec<Described> {
    let mut names: Vec<&str> = FIXED.iter().map(|setting| setting.definition.name).collect();
    names.extend(TOPIC_SETTINGS.iter().filter_map(|setting| setting.server.map(|server| server.name)));
    names.extend(broker.dynamic().node.keys().chain(broker.dynamic().cluster.keys()).map(String::as_str));
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| broker_setting(name, broker)).collect()
}

/// What was altered for every node of the cluster, by name.
pub fn cluster(broker: &BrokerSettings) -> Vec<Described> {
    let altered = broker.dynamic().scope(Scope::Cluster);
    let described = |(name, value): (&String, &String)| {
        let mut described = broker_setting(name, broker);
        described.value = Some(value.clone()).filter(|_| !described.sensitive);
        described.source = Source::DynamicDefaultBroker;
        described.synonyms.retain(|synonym| synonym.source == Source::DynamicDefaultBroker);
        described
    };
    altered.iter().map(described).collect()
}

fn broker_setting(name: &str, broker: &BrokerSettings) -> Described {
    let (value, source) = match broker.given(name) {
        Some((value, source)) => (Some(value), source),
        None => (broker.given_by(Source::Default, name), Source::Default),
    };
    let synonyms = synonyms_of(name, broker);
    if let Some((setting, _)) = behind(name) {
        return describe(&setting.definition, name, value, source, synonyms, false);
    }
    if let Some(setting) = fixed_setting(name) {
        return describe(&setting.definition, name, value, source, synonyms, true);
    }
    // Nothing is known of a custom setting, so it may be a secret.
    let synonyms = synonyms.into_iter().map(|synonym| Synonym { value: None, ..synonym }).collect();
    Described {
        name: name.to_owned(),
        value: None,
        source,
        read_only: true,
        sensitive: true,
        value_type: ValueType::Unknown,
        synonyms,
        documentation: None,
    }
}

fn describe(
    definition: &Definition,
    name: &str,
    value: Option<String>,
    source: Source,
    synonyms: Vec<Synonym>,
    read_only: bool,
) -> Described {
    Described {
        name: name.to_owned(),
        value,
        source,
        read_only,
        sensitive: false,
        value_type: definition.value_type,
        synonyms,
        documentation: Some(definition.documentation),
    }
}

/// What gives the broker setting `name` a value: itself first, then those of other units that stand in for it. Empty
/// where only the others do, as in Kafka.
fn synonyms_of(name: &str, broker: &BrokerSettings) -> Vec<Synonym> {
    let family = TOPIC_SETTINGS
        .iter()
        .filter_map(|setting| setting.server)
        .find(|server| server.name == name || server.fallbacks.contains(&name));
    let names: Vec<&str> = match &family {
        Some(server) => std::iter::once(server.name).chain(server.fallbacks.iter().copied()).collect(),
        None => vec![name],
    };
    BROKER_SOURCES
        .into_iter()
        .flat_map(|source| names.iter().map(move |name| (source, *name)))
        .filter_map(|(source, name)| {
            broker.given_by(source, name).map(|value| Synonym { name: name.to_owned(), value: Some(value), source })
        })
        .skip_while(|synonym| synonym.name != name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::{BrokerValues, DynamicSettings};

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn settings(node: &[(&str, &str)], cluster: &[(&str, &str)]) -> BrokerSettings {
        let values = BrokerValues { log_segment_bytes: 2 << 20, ..BrokerValues::default() };
        BrokerSettings::new(values, DynamicSettings { node: overrides(node), cluster: overrides(cluster) })
    }

    fn find(all: Vec<Described>, name: &str) -> Described {
        all.into_iter().find(|described| described.name == name).unwrap()
    }

    fn chain(described: &Described) -> Vec<(&str, &str, Source)> {
        described
            .synonyms
            .iter()
            .map(|synonym| (synonym.name.as_str(), synonym.value.as_deref().unwrap_or_default(), synonym.source))
            .collect()
    }

    #[test]
    fn a_topics_setting_lists_all_that_could_give_it() {
        let broker = settings(&[("log.segment.bytes", "3145728")], &[("log.segment.bytes", "4194304")]);
        let described = find(topic(&overrides(&[("segment.bytes", "5242880")]), &broker), "segment.bytes");
        assert_eq!((described.value.as_deref(), described.source), (Some("5242880"), Source::DynamicTopic));
        assert!(!described.read_only && !described.sensitive);
        assert_eq!(
            chain(&described),
            [
                ("segment.bytes", "5242880", Source::DynamicTopic),
                ("log.segment.bytes", "3145728", Source::DynamicBroker),
                ("log.segment.bytes", "4194304", Source::DynamicDefaultBroker),
                ("log.segment.bytes", "2097152", Source::StaticBroker),
                ("log.segment.bytes", "1073741824", Source::Default),
            ]
        );
    }

    #[test]
    fn a_default_in_another_unit_is_no_synonym_by_itself() {
        let retention = |broker| find(topic(&Overrides::new(), &broker), "retention.ms");
        let by_default = retention(settings(&[], &[]));
        assert_eq!((by_default.value.as_deref(), by_default.source), (Some("604800000"), Source::Default));
        assert_eq!(chain(&by_default), []);
        let altered = retention(settings(&[], &[("log.retention.ms", "5")]));
        assert_eq!((altered.value.as_deref(), altered.source), (Some("5"), Source::DynamicDefaultBroker));
        assert_eq!(
            chain(&altered),
            [("log.retention.ms", "5", Source::DynamicDefaultBroker), ("log.retention.hours", "168", Source::Default)]
        );
    }

    #[test]
    fn every_topic_setting_is_described_once_and_in_order() {
        let all = topic(&Overrides::new(), &settings(&[], &[]));
        assert_eq!(all.len(), 36);
        assert!(all.is_sorted_by(|a, b| a.name < b.name));
        assert!(all.iter().all(|described| described.value.is_some() && described.documentation.is_some()));
    }

    #[test]
    fn the_broker_says_what_can_be_altered() {
        let all = broker(&settings(&[("my.secret", "x")], &[("log.retention.ms", "7")]));
        assert!(all.is_sorted_by(|a, b| a.name < b.name));
        let altered = find(all.clone(), "log.retention.ms");
        assert_eq!((altered.value.as_deref(), altered.read_only), (Some("7"), false));
        let fixed = find(all.clone(), "node.id");
        assert_eq!((fixed.value.as_deref(), fixed.read_only, fixed.source), (Some("1"), true, Source::StaticBroker));
        let null = find(all.clone(), "log.roll.ms");
        assert_eq!((null.value, null.source), (None, Source::Default));
        let custom = find(all, "my.secret");
        assert_eq!((custom.value, custom.sensitive, custom.synonyms[0].value.clone()), (None, true, None));
    }

    #[test]
    fn the_clusters_defaults_are_only_what_was_altered() {
        let broker = settings(&[("log.roll.ms", "1")], &[("log.roll.ms", "2")]);
        let all = cluster(&broker);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].value.as_deref(), all[0].source), (Some("2"), Source::DynamicDefaultBroker));
        assert_eq!(chain(&all[0]), [("log.roll.ms", "2", Source::DynamicDefaultBroker)]);
    }
}
