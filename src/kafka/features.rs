//! Features: what clients and tools derive from a level that all brokers have agreed on (KIP-584). ApiVersions tells them;
//! UpdateFeatures (57), versions 0 to 2, changes them. Here a level is what this program does, so that none can be
//! changed: an update to the level that is there succeeds, any other is refused as a Kafka refuses one that its brokers do
//! not support. A feature is told only where [`super::TABLE`] serves everything that it stands for.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{ApiKey, UpdateFeaturesRequest, UpdateFeaturesResponse};
use kafka_protocol::protocol::StrBytes;

use super::error::{NONE, Refusal};
use super::{Context, names, row};

/// Versions that answer for all updates at once.
const ALL_AT_ONCE_FROM: i16 = 2;
/// The one version that says `allow_downgrade` instead of a type.
const UNTYPED: i16 = 0;

struct Feature {
    name: &'static str,
    level: i16,
    /// The lowest level that tools may name. It is not 0, which clients of ApiVersions 3 cannot read.
    min: i16,
    /// What has to be served.
    needs: &'static [ApiKey],
}

const FEATURES: &[Feature] = &[
    Feature {
        name: "group.version",
        level: 1,
        min: 1,
        needs: &[ApiKey::ConsumerGroupHeartbeat, ApiKey::ConsumerGroupDescribe],
    },
    // Kafka 4.1 (4.1-IV1): UIs derive what a broker can do from it. The lowest is Kafka's.
    Feature { name: "metadata.version", level: 27, min: 7, needs: &[] },
    Feature {
        name: "share.version",
        level: 1,
        min: 1,
        needs: &[ApiKey::ShareGroupHeartbeat, ApiKey::ShareGroupDescribe, ApiKey::ShareFetch, ApiKey::ShareAcknowledge],
    },
    Feature {
        name: "transaction.version",
        level: 2,
        min: 2,
        needs: &[
            ApiKey::InitProducerId,
            ApiKey::AddPartitionsToTxn,
            ApiKey::AddOffsetsToTxn,
            ApiKey::EndTxn,
            ApiKey::TxnOffsetCommit,
        ],
    },
];

fn served() -> impl Iterator<Item = &'static Feature> {
    FEATURES.iter().filter(|feature| feature.needs.iter().all(|key| row(*key as i16).is_some()))
}

pub fn supported() -> Vec<SupportedFeatureKey> {
    let key = |feature: &Feature| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version(feature.min)
            .with_max_version(feature.level)
    };
    served().map(key).collect()
}

pub fn finalized() -> Vec<FinalizedFeatureKey> {
    let key = |feature: &Feature| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_version_level(feature.level)
            .with_max_version_level(feature.level)
    };
    served().map(key).collect()
}

pub async fn update_features(cx: Context, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let judged: Vec<_> = request.feature_updates.iter().map(|update| (update, judge(&cx, update))).collect();
    let answer = UpdateFeaturesResponse::default().with_error_message(None);
    if cx.version >= ALL_AT_ONCE_FROM {
        let refusal = judged.into_iter().find_map(|(_, judged)| judged.err());
        return match refusal {
            None => answer,
            Some(refusal) => {
                let all = "The update failed for all features since the following feature had an error:";
                answer
                    .with_error_code(refusal.error.code())
                    .with_error_message(names::message(format!("{all} {}", refusal.message)))
            }
        };
    }
    let result = |(update, judged): (&FeatureUpdateKey, Result<(), Refusal>)| {
        let result = UpdatableFeatureResult::default().with_feature(update.feature.clone());
        match judged {
            Ok(()) => result.with_error_code(NONE).with_error_message(None),
            Err(refusal) => {
                result.with_error_code(refusal.error.code()).with_error_message(names::message(refusal.message))
            }
        }
    };
    answer.with_results(judged.into_iter().map(result).collect())
}

/// How an update may change a level.
enum Change {
    Upgrade,
    Downgrade,
}

fn judge(cx: &Context, update: &FeatureUpdateKey) -> Result<(), Refusal> {
    let (name, level, node) = (&update.feature, update.max_version_level, cx.door.config.node_id);
    let refuse = |message: String| Err(Refusal::new(ResponseError::InvalidUpdateVersion, message));
    let change = match update.upgrade_type {
        _ if cx.version == UNTYPED && update.allow_downgrade => Change::Downgrade,
        1 => Change::Upgrade,
        2 | 3 => Change::Downgrade,
        _ => return refuse("The controller does not support the given upgrade type.".to_owned()),
    };
    let invalid = format!("Invalid update version {level} for feature {name}.");
    let Some(feature) = served().find(|feature| feature.name == name.as_str()) else {
        return refuse(format!("{invalid} Local controller {node} does not support this feature."));
    };
    let Feature { level: now, min, .. } = *feature;
    match change {
        _ if level == now => Ok(()),
        _ if level < min || level > now => {
            refuse(format!("{invalid} Local controller {node} only supports versions {min}-{now}"))
        }
        Change::Upgrade => refuse(format!(
            "{invalid} Can't downgrade the version of this feature without setting the upgrade type to either safe or \
             unsafe downgrade."
        )),
        Change::Downgrade => refuse(format!(
            "Unsupported {name} downgrade from {now} to {level}. Refusing to perform the requested downgrade because it \
             might delete metadata information."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::TABLE;
    use crate::kafka::tests::fixture::{Fixture, encodes};

    #[test]
    fn features_are_told_where_they_are_served() {
        assert!(finalized().iter().any(|feature| &*feature.name == "metadata.version"));
        for feature in FEATURES {
            let needed = feature.needs.iter().all(|key| TABLE.iter().any(|row| row.key == *key));
            assert_eq!(finalized().iter().any(|told| &*told.name == feature.name), needed, "{}", feature.name);
        }
    }

    #[tokio::test]
    async fn levels_are_what_they_are() {
        let fixture = Fixture::new();
        let invalid = ResponseError::InvalidUpdateVersion.code();
        for (name, level, kind, refused) in [
            ("metadata.version", 27, 1, false),
            ("metadata.version", 28, 1, true),
            ("metadata.version", 20, 1, true),
            ("metadata.version", 20, 2, true),
            ("metadata.version", 6, 3, true),
            ("metadata.version", 27, 0, true),
            ("nonsense", 1, 1, true),
        ] {
            let update = FeatureUpdateKey::default()
                .with_feature(StrBytes::from_static_str(name))
                .with_max_version_level(level)
                .with_upgrade_type(kind);
            let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
            let answer = encodes(update_features(fixture.cx(2), request.clone()).await, 2);
            assert_eq!(answer.error_code, if refused { invalid } else { NONE }, "{name} {level} {kind}");
            let answer = encodes(update_features(fixture.cx(1), request).await, 1);
            assert_eq!((answer.error_code, answer.results[0].error_code == invalid), (NONE, refused));
        }
    }
}
