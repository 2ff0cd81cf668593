//! Every row of the table in every version, and what ApiVersions says of it.

use std::collections::{BTreeMap, BTreeSet};

use anabranch::kafka::TABLE;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::Decodable;

use crate::harness::{Broker, frame};
use crate::samples::{self, CORRELATION_ID};

#[tokio::test]
async fn every_row_is_answered_in_every_version() {
    let broker = Broker::start().await;
    let samples = samples::all(broker.create_topic("t", 1).await);
    let sampled: BTreeSet<i16> = samples.iter().map(|sample| sample.key).collect();
    let served: BTreeSet<i16> = TABLE.iter().map(|row| row.key as i16).collect();
    assert_eq!((sampled, samples.len()), (served, TABLE.len()), "there is one sample for each row");

    let mut client = broker.connect().await;
    for sample in &samples {
        let row = TABLE.iter().find(|row| row.key as i16 == sample.key).unwrap();
        for version in row.versions.min..=row.versions.max {
            client.send_bytes(&(sample.frame)(version)).await;
            let answer = client.receive_frame().await;
            let answer = answer.unwrap_or_else(|| panic!("{} version {version} closes the connection", row.name));
            assert_eq!((sample.decode)(answer, version), CORRELATION_ID, "{} version {version}", row.name);
        }
    }
}

#[tokio::test]
async fn api_versions_lists_what_is_served() {
    let broker = Broker::start().await;
    let mut client = broker.connect().await;
    let expected: BTreeMap<i16, (i16, i16)> =
        TABLE.iter().map(|row| (row.key as i16, (row.versions.min, row.versions.max))).collect();
    let listed = |answer: &ApiVersionsResponse| -> BTreeMap<i16, (i16, i16)> {
        answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect()
    };
    for version in 0..=4 {
        let request = match version {
            0..=2 => ApiVersionsRequest::default(),
            _ => ApiVersionsRequest::default()
                .with_client_software_name("test".to_owned().into())
                .with_client_software_version("1.0".to_owned().into()),
        };
        let answer = client.call(request, version).await;
        assert_eq!((answer.error_code, answer.api_keys.len()), (0, expected.len()));
        let mut listed = listed(&answer);
        let produce = listed.insert(0, expected[&0]).unwrap();
        assert_eq!(produce, (0, expected[&0].1), "librdkafka before 2.11.1 stops compressing unless 0 is listed");
        assert_eq!(listed, expected, "version {version}");
        assert_eq!(answer.finalized_features.iter().any(|feature| &*feature.name == "metadata.version"), version >= 3);
    }
}

/// KIP-511: error 35 in the shape of version 0, and the list, so that the client can ask again on the same connection.
#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_as_version_0() {
    let broker = Broker::start().await;
    let mut client = broker.connect().await;
    for version in [5_i16, 99, i16::MAX, -1, i16::MIN] {
        let mut request = frame(&ApiVersionsRequest::default(), 3, CORRELATION_ID);
        request[6..8].copy_from_slice(&version.to_be_bytes());
        client.send_bytes(&request).await;
        let mut answer = client.receive_frame().await.expect("answered");
        // A header of version 0: the correlation id and no tagged fields.
        assert_eq!(answer.split_to(4), CORRELATION_ID.to_be_bytes()[..]);
        let body = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
        assert!(answer.is_empty());
        assert_eq!(body.error_code, ResponseError::UnsupportedVersion.code());
        assert_eq!(body.api_keys.len(), TABLE.len());
        assert!(body.api_keys.iter().any(|api| api.api_key == ApiKey::ApiVersions as i16 && api.max_version == 4));
    }
    assert_eq!(client.call(ApiVersionsRequest::default(), 0).await.error_code, 0);
}
