//! ApiVersions (18): what [`super::TABLE`] serves, and the features that clients derive more from.
//!
//! KIP-511: a version that is not known is answered with version 0, error 35 and the list, so that the client can ask
//! again. The answer's header never has tagged fields, whatever the version (the codec knows).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::chunks::Chunks;
use super::{Answer, Context, TABLE, encode_frame, features};

/// Of a software's name, and of its version, as far as it is remembered.
const SOFTWARE_BYTES_MAX: usize = 128;

pub async fn api_versions(cx: Context, request: ApiVersionsRequest) -> ApiVersionsResponse {
    // KIP-511: a client that names itself does so in a form that can be a metric's label.
    let named = [&request.client_software_name, &request.client_software_version];
    if cx.version >= 3 && !named.into_iter().all(|name| is_software_name(name)) {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    if cx.version >= 3 && named.into_iter().all(|name| name.len() <= SOFTWARE_BYTES_MAX) {
        // Who asks again says the same again.
        let _ = cx.client.software.set(format!("{}/{}", named[0], named[1]));
    }
    served()
}

/// The answer to a version that is not known.
pub fn unsupported(correlation_id: i32) -> Answer {
    let error = ResponseError::UnsupportedVersion.code();
    let frame = encode_frame(&served().with_error_code(error), correlation_id, 0).map(Chunks::from);
    Answer { frame, error, close: false, pause_ms: 0, grant: None }
}

fn served() -> ApiVersionsResponse {
    let api_keys = TABLE.iter().map(|row| {
        ApiVersion::default()
            .with_api_key(row.key as i16)
            .with_min_version(row.advertised_min)
            .with_max_version(row.versions.max)
    });
    ApiVersionsResponse::default()
        .with_api_keys(api_keys.collect())
        .with_supported_features(features::supported())
        .with_finalized_features_epoch(0)
        .with_finalized_features(features::finalized())
}

/// Kafka's `[a-zA-Z0-9](?:[a-zA-Z0-9\\-.]*[a-zA-Z0-9])?`.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let ends = [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric));
    ends && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_checked_as_kafka_does() {
        for good in ["a", "librdkafka", "apache-kafka-java", "2.11.1"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "ä"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
