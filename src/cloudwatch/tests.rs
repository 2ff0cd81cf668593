//! The door through its handler, without sockets: a store in memory and a clock that stands.

use std::sync::Arc;

use bytes::Bytes;
use ciborium::Value as Cbor;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::Request as HttpRequest;
use serde_json::{Value, json};
use std::io::Write;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::keeper::{self, METRICS_MAX, MINUTES_KEPT_MS};
use super::protocol::{BODY_BYTES_MAX, INFLATED_BYTES_MAX, is_claimed};
use super::*;
use crate::broker::BrokerOptions;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::settings::BrokerValues;
use crate::security::{AuthError, Principal};
use crate::store::memory::MemoryStore;

/// 2023-11-14T22:13:20Z.
const NOW_MS: i64 = 1_700_000_000_000;
const NOW_S: i64 = NOW_MS / 1_000;
const JSON: &str = "application/x-amz-json-1.0";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

struct Fixture {
    door: Arc<Door>,
    clock: Clock,
    store: Arc<MemoryStore>,
    keeping: JoinHandle<()>,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::open(Clock::manual(NOW_MS), Arc::new(MemoryStore::new()))
    }

    fn open(clock: Clock, store: Arc<MemoryStore>) -> Fixture {
        let options = BrokerOptions {
            sync: false,
            tail_bytes_max: 1 << 20,
            compaction_bytes_max: 1 << 20,
            values: BrokerValues::default(),
            master_keys: Vec::new(),
        };
        let broker = Broker::open(store.clone(), options, clock.clone(), Metrics::new(10)).unwrap();
        let door = Door::open(broker).unwrap();
        let keeping = tokio::spawn(keeper::run(door.keeper.clone()));
        Fixture { door, clock, store, keeping }
    }

    /// What a crash leaves, opened again.
    fn restarted(self) -> Fixture {
        self.keeping.abort();
        Fixture::open(self.clock, Arc::new(self.store.survivor(false)))
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> ServiceReply {
        self.send_as(Ok(Principal::root("000000000000")), path, headers, body).await
    }

    async fn send_as(
        &self,
        principal: Result<Principal, AuthError>,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> ServiceReply {
        let mut request = HttpRequest::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let body = body.into();
        assert!(is_claimed(&head, &body), "{path} {headers:?}");
        let peer = "127.0.0.1:1".parse().unwrap();
        let call = ServiceCall { head, body, principal, peer, request_id: Uuid::nil(), trace: None };
        (self.door.service().handler)(call).await
    }

    /// As JSON; an error as its code and text.
    async fn call(&self, operation: &str, body: Value) -> Result<Value, (String, String)> {
        let target = format!("{SERVICE}.{operation}");
        let reply = self.send("/", &[("content-type", JSON), ("x-amz-target", &target)], body.to_string()).await;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        if reply.status == 200 {
            return Ok(answer);
        }
        let code = header(&reply, "x-amzn-query-error").split(';').next().unwrap().to_owned();
        Err((code, answer["message"].as_str().unwrap().to_owned()))
    }

    async fn put(&self, data: Value) -> Result<Value, (String, String)> {
        self.call("PutMetricData", json!({"Namespace": "App", "MetricData": data})).await
    }

    /// Statistics of the metric `m` for the last hour and the next minutes.
    async fn statistics(&self, period: i64, statistics: &[&str]) -> Vec<Value> {
        let (simple, extended): (Vec<&str>, Vec<&str>) = statistics.iter().partition(|name| !name.starts_with('p'));
        let mut query = json!({"Namespace": "App", "MetricName": "m", "Period": period,
            "StartTime": self.clock.now_ms() / 1_000 - 1_200, "EndTime": self.clock.now_ms() / 1_000 + 60});
        if !simple.is_empty() {
            query["Statistics"] = json!(simple);
        }
        if !extended.is_empty() {
            query["ExtendedStatistics"] = json!(extended);
        }
        let answer = self.call("GetMetricStatistics", query).await.unwrap();
        assert_eq!(answer["Label"], "m");
        answer["Datapoints"].as_array().unwrap().clone()
    }
}

fn header<'a>(reply: &'a ServiceReply, name: &str) -> &'a str {
    reply.headers.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value)
}

#[tokio::test]
async fn what_is_put_is_added_up_by_period() {
    let fixture = Fixture::new();
    let at = |seconds: i64| NOW_S - seconds;
    fixture
        .put(json!([
            {"MetricName": "m", "Value": 2.0, "Timestamp": at(0), "Unit": "Count"},
            {"MetricName": "m", "Values": [1.0, 5.0], "Counts": [3.0, 1.0], "Timestamp": at(5), "Unit": "Count"},
            {"MetricName": "m", "StatisticValues": {"SampleCount": 2, "Sum": 8, "Minimum": 4, "Maximum": 4},
                "Timestamp": at(60), "Unit": "Count"},
            {"MetricName": "m", "Value": 7.0, "Timestamp": at(0), "Unit": "Bytes",
                "Dimensions": [{"Name": "b", "Value": "2"}, {"Name": "a", "Value": "1"}]},
        ]))
        .await
        .unwrap();
    fixture.put(json!([{"MetricName": "m", "Value": 10.0, "Unit": "Count"}])).await.unwrap();
    // 22:13:20: the minute has 2, thrice 1, 5 and 10; the one before twice 4.
    let minutes = fixture.statistics(60, &["SampleCount", "Sum", "Average", "Minimum", "Maximum", "p50"]).await;
    let minute = NOW_S - 20;
    assert_eq!(
        minutes,
        [
            json!({"Timestamp": (minute - 60) as f64, "SampleCount": 2.0, "Sum": 8.0, "Average": 4.0, "Minimum": 4.0,
                "Maximum": 4.0, "Unit": "Count", "ExtendedStatistics": {"p50": 4.0}}),
            json!({"Timestamp": minute as f64, "SampleCount": 6.0, "Sum": 20.0, "Average": 20.0 / 6.0, "Minimum": 1.0,
                "Maximum": 10.0, "Unit": "Count", "ExtendedStatistics": {"p50": 1.0}}),
        ]
    );
    let fixture = fixture.restarted();
    let whole = fixture.statistics(1_320, &["Sum", "p100"]).await;
    assert_eq!(whole.len(), 1);
    assert_eq!((&whole[0]["Sum"], &whole[0]["ExtendedStatistics"]["p100"]), (&json!(28.0), &json!(10.0)));
    // Another order of the dimensions is the same metric.
    let query = json!({"Namespace": "App", "MetricName": "m", "Period": 60, "Statistics": ["Sum"],
        "StartTime": NOW_S - 60, "EndTime": NOW_S,
        "Dimensions": [{"Name": "a", "Value": "1"}, {"Name": "b", "Value": "2"}]});
    let answer = fixture.call("GetMetricStatistics", query).await.unwrap();
    assert_eq!(answer["Datapoints"][0]["Sum"], 7.0);
}

#[tokio::test]
async fn seconds_are_kept_beside_their_minutes() {
    let fixture = Fixture::new();
    for second in 0..3 {
        let datum = json!({"MetricName": "m", "Value": second, "Timestamp": NOW_S - second, "StorageResolution": 1});
        fixture.put(json!([datum])).await.unwrap();
    }
    fixture.put(json!([{"MetricName": "m", "Value": 10, "Timestamp": NOW_S}])).await.unwrap();
    let seconds = fixture.statistics(1, &["Sum"]).await;
    let sums: Vec<f64> = seconds.iter().map(|point| point["Sum"].as_f64().unwrap()).collect();
    assert_eq!(sums, [2.0, 1.0, 0.0]);
    assert_eq!(fixture.statistics(60, &["Sum"]).await[0]["Sum"], 13.0);
}

#[tokio::test]
async fn what_is_too_old_goes() {
    let fixture = Fixture::new();
    fixture.put(json!([{"MetricName": "old", "Value": 1, "StorageResolution": 1}])).await.unwrap();
    fixture.put(json!([{"MetricName": "m", "Value": 1}])).await.unwrap();
    fixture.clock.advance(MINUTES_KEPT_MS - 120_000);
    fixture.put(json!([{"MetricName": "m", "Value": 2}])).await.unwrap();
    fixture.clock.advance(3_600_000);
    let name = |metric: &str| keeper::Name::new("App".into(), metric.into(), Vec::new());
    while fixture.door.keeper.metric(&name("old")).is_some() {
        tokio::task::yield_now().await;
    }
    // What comes next is committed behind the deletion.
    fixture.put(json!([{"MetricName": "m", "Value": 4}])).await.unwrap();
    let fixture = fixture.restarted();
    assert!(fixture.door.keeper.metric(&name("old")).is_none());
    let metric = fixture.door.keeper.metric(&name("m")).unwrap();
    let mut sum = 0.0;
    let add = |_, _, point: point::Point| {
        sum += point.sum;
        true
    };
    fixture.door.keeper.points(&metric, keeper::Resolution::Minutes, 0, u32::MAX, add).unwrap();
    assert_eq!(sum, 6.0);
}

#[tokio::test]
async fn wrong_data_is_refused_whole_with_awss_texts() {
    let fixture = Fixture::new();
    let combination = "InvalidParameterCombination";
    for (datum, code, text) in [
        (json!({}), "MissingParameter", "The parameter MetricData.member.2.MetricName is required."),
        (
            json!({"MetricName": "m", "Value": 1, "Values": [1]}),
            combination,
            "The parameters MetricData.member.2.Value and MetricData.member.2.Values are mutually exclusive and you have \
             specified both.",
        ),
        (
            json!({"MetricName": "m", "Values": [1], "Counts": [1, 2]}),
            "InvalidParameterValue",
            "The parameters MetricData.member.2.Values and MetricData.member.2.Counts must be of the same size.",
        ),
        (
            json!({"MetricName": "m", "Value": 1e200}),
            "InvalidParameterValue",
            "The value 1e200 for parameter MetricData.member.2.Value is invalid.",
        ),
        (
            json!({"MetricName": "m"}),
            "MissingParameter",
            "At least one of the parameters MetricData.member.2.Value, MetricData.member.2.Values or \
             MetricData.member.2.StatisticValues must be specified.",
        ),
        (
            json!({"MetricName": "m", "Value": 1, "Timestamp": NOW_S - 15 * 86_400}),
            "InvalidParameterValue",
            "The parameter MetricData.member.2.Timestamp must specify a time within the past two weeks.",
        ),
        (
            json!({"MetricName": "m", "Value": 1, "StorageResolution": 5}),
            "InvalidParameterValue",
            "The parameter MetricData.member.2.StorageResolution must be either 1 or 60.",
        ),
        (
            json!({"MetricName": "m", "Value": 1, "Dimensions": [{"Name": "d"}]}),
            "MissingParameter",
            "The parameter MetricData.member.2.Dimensions.member.1.Value is required.",
        ),
        (
            json!({"MetricName": "m", "StatisticValues": {"SampleCount": 1, "Sum": 1, "Minimum": 1}}),
            "MissingParameter",
            "The parameter MetricData.member.2.StatisticValues.Maximum is required.",
        ),
    ] {
        let refused = fixture.put(json!([{"MetricName": "well", "Value": 1}, datum])).await;
        assert_eq!(refused, Err((code.to_owned(), text.to_owned())));
    }
    let unit = fixture.put(json!([{"MetricName": "m", "Value": 1, "Unit": "Furlongs"}])).await.unwrap_err();
    assert!(unit.1.starts_with("The parameter MetricData.member.1.Unit must be a value in the set [ None, Seconds,"));
    let reserved = fixture.call("PutMetricData", json!({"Namespace": "AWS/Kinesis", "MetricData": []})).await;
    assert_eq!(reserved.unwrap_err().1, "The value AWS/ for parameter Namespace is invalid.");
    let many: Vec<Value> = (0..1_001).map(|_| json!({"MetricName": "m", "Value": 1})).collect();
    let many = fixture.put(json!(many)).await.unwrap_err();
    assert_eq!(many.1, "The collection MetricData must not have a size greater than 1000.");
    let listed = fixture.call("ListMetrics", json!({})).await.unwrap();
    assert_eq!(listed["Metrics"], json!([]));
}

#[tokio::test]
async fn metrics_are_bounded() {
    let fixture = Fixture::new();
    for from in (0..METRICS_MAX).step_by(1_000) {
        let data: Vec<Value> =
            (from..from + 1_000).map(|index| json!({"MetricName": format!("m{index}"), "Value": 1})).collect();
        fixture.put(json!(data)).await.unwrap();
    }
    let refused = fixture.put(json!([{"MetricName": "m1", "Value": 1}, {"MetricName": "one more", "Value": 1}])).await;
    assert_eq!(refused.unwrap_err().0, "LimitExceeded");
    fixture.put(json!([{"MetricName": "m1", "Value": 1}])).await.unwrap();

    let (mut listed, mut token) = (0, Value::Null);
    loop {
        let page = fixture.call("ListMetrics", json!({"NextToken": token})).await.unwrap();
        listed += page["Metrics"].as_array().unwrap().len();
        token = page["NextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(listed, METRICS_MAX);
}

#[tokio::test]
async fn metrics_are_found_by_their_names() {
    let fixture = Fixture::new();
    fixture
        .put(json!([
            {"MetricName": "m", "Value": 1},
            {"MetricName": "m", "Value": 1, "Dimensions": [{"Name": "a", "Value": "1"}]},
            {"MetricName": "n", "Value": 1, "Timestamp": NOW_S - 4 * 3_600, "Dimensions": [{"Name": "a", "Value": "2"}]},
        ]))
        .await
        .unwrap();
    for (query, count) in [
        (json!({}), 3),
        (json!({"Namespace": "App", "MetricName": "m"}), 2),
        (json!({"Dimensions": [{"Name": "a"}]}), 2),
        (json!({"Dimensions": [{"Name": "a", "Value": "2"}]}), 1),
        (json!({"RecentlyActive": "PT3H"}), 2),
        (json!({"Namespace": "Other"}), 0),
    ] {
        let listed = fixture.call("ListMetrics", query.clone()).await.unwrap();
        assert_eq!(listed["Metrics"].as_array().unwrap().len(), count, "{query}");
    }
    fixture.clock.advance(14 * 86_400_000);
    assert_eq!(fixture.call("ListMetrics", json!({})).await.unwrap()["Metrics"].as_array().unwrap().len(), 2);
    let refused = fixture.call("ListMetrics", json!({"NextToken": "x"})).await;
    assert_eq!(refused.unwrap_err().0, "InvalidParameterValue");
}

#[tokio::test]
async fn several_metrics_are_queried_at_once() {
    let fixture = Fixture::new();
    for minute in 0..3 {
        let at = NOW_S - 60 * minute;
        let data = json!([{"MetricName": "m", "Value": 6 * (minute + 1), "Timestamp": at},
            {"MetricName": "n", "Value": 2, "Timestamp": at}]);
        fixture.put(data).await.unwrap();
    }
    let stat =
        |metric: &str| json!({"Metric": {"Namespace": "App", "MetricName": metric}, "Period": 60, "Stat": "Sum"});
    let query = |more: Value| {
        let mut query = json!({"StartTime": NOW_S - 600, "EndTime": NOW_S, "MetricDataQueries": [
            {"Id": "m1", "MetricStat": stat("m"), "ReturnData": false},
            {"Id": "e1", "Expression": "m1 / m2", "Label": "ratio"},
            {"Id": "m2", "MetricStat": stat("n")},
        ]});
        query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        query
    };
    let minute = NOW_S - 20;
    let answer = fixture.call("GetMetricData", query(json!({}))).await.unwrap();
    let times = json!([minute as f64, (minute - 60) as f64, (minute - 120) as f64]);
    assert_eq!(
        answer,
        json!({"Messages": [], "MetricDataResults": [
            {"Id": "e1", "Label": "ratio", "Timestamps": times, "Values": [3.0, 6.0, 9.0], "StatusCode": "Complete"},
            {"Id": "m2", "Label": "n", "Timestamps": times, "Values": [2.0, 2.0, 2.0], "StatusCode": "Complete"},
        ]})
    );
    // In pages.
    let paged = json!({"MaxDatapoints": 4, "ScanBy": "TimestampAscending"});
    let first = fixture.call("GetMetricData", query(paged.clone())).await.unwrap();
    assert_eq!(first["MetricDataResults"][0]["Values"], json!([9.0, 6.0, 3.0]));
    assert_eq!(first["MetricDataResults"][1]["Values"], json!([2.0]));
    assert_eq!(first["MetricDataResults"][1]["StatusCode"], "PartialData");
    let mut next = paged;
    next["NextToken"] = first["NextToken"].clone();
    let second = fixture.call("GetMetricData", query(next)).await.unwrap();
    assert_eq!(second["MetricDataResults"][1]["Values"], json!([2.0, 2.0]));
    assert!(second.get("NextToken").is_none());

    for (queries, text) in [
        (
            json!([{"Id": "M", "Expression": "m1"}]),
            "The value M for parameter MetricDataQueries.member.1.Id is invalid.",
        ),
        (
            json!([{"Id": "a", "MetricStat": stat("m"), "Period": 60}]),
            "The parameters MetricDataQueries.member.1.Period and MetricDataQueries.member.1.MetricStat are mutually \
             exclusive and you have specified both.",
        ),
        (
            json!([{"Id": "a", "Expression": "ANOMALY_DETECTION_BAND(b)"}]),
            "Error in expression 'a': Unsupported function ANOMALY_DETECTION_BAND",
        ),
    ] {
        let refused = fixture.call("GetMetricData", query(json!({"MetricDataQueries": queries}))).await;
        assert_eq!(refused, Err(("ValidationError".to_owned(), text.to_owned())));
    }
}

#[tokio::test]
async fn queries_are_checked() {
    let fixture = Fixture::new();
    let query = |more: Value| {
        let mut query = json!({"Namespace": "App", "MetricName": "m", "Period": 60, "Statistics": ["Sum"],
            "StartTime": NOW_S - 60, "EndTime": NOW_S});
        query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        query
    };
    for (more, code, text) in [
        (json!({"StartTime": null}), "MissingParameter", "The parameter StartTime is required."),
        (
            json!({"EndTime": NOW_S - 60}),
            "InvalidParameterValue",
            "The parameter StartTime must be less than the parameter EndTime.",
        ),
        (
            json!({"Period": 61}),
            "InvalidParameterValue",
            "The parameter Period must be a value in the set [ 1, 5, 10, 20, 30 ] or a multiple of 60.",
        ),
        (
            json!({"StartTime": NOW_S - 60 * 16_666}),
            "InvalidParameterCombination",
            "You have requested up to 16,667 datapoints, which exceeds the limit of 1,440. You may reduce the datapoints \
             requested by increasing Period, or decreasing the time range.",
        ),
        (
            json!({"Statistics": null}),
            "InvalidParameterCombination",
            "Must specify either Statistics or ExtendedStatistics.",
        ),
        (
            json!({"Statistics": null, "ExtendedStatistics": ["tm99"]}),
            "InvalidParameterValue",
            "The value tm99 for parameter ExtendedStatistics.member.1 is invalid.",
        ),
    ] {
        let refused = fixture.call("GetMetricStatistics", query(more)).await;
        assert_eq!(refused, Err((code.to_owned(), text.to_owned())));
    }
    let wrong = fixture.call("GetMetricStatistics", query(json!({"Period": "x"}))).await.unwrap_err();
    assert_eq!(wrong, ("MalformedInput".into(), "class java.lang.String can not be converted to an Integer".into()));
}

#[tokio::test]
async fn the_query_protocol_speaks_forms_and_xml() {
    let fixture = Fixture::new();
    let body = "Action=PutMetricData&Version=2010-08-01&Namespace=App&MetricData.member.1.MetricName=m&\
                MetricData.member.1.Value=1.5&MetricData.member.1.Timestamp=2023-11-14T22%3A13%3A00Z";
    let put = fixture.send("/", &[("content-type", FORM)], body).await;
    assert_eq!((put.status, header(&put, "content-type")), (200, "text/xml"));
    assert_eq!(
        std::str::from_utf8(&put.body).unwrap(),
        "<PutMetricDataResponse xmlns=\"http://monitoring.amazonaws.com/doc/2010-08-01/\"><ResponseMetadata><RequestId>\
         00000000-0000-0000-0000-000000000000</RequestId></ResponseMetadata></PutMetricDataResponse>"
    );
    let body = "Action=GetMetricStatistics&Namespace=App&MetricName=m&Period=60&StartTime=2023-11-14T22:13:00Z&\
                EndTime=2023-11-14T22:14:00Z&Statistics.member.1=Sum&ExtendedStatistics.member.1=p50";
    let got = fixture.send("/", &[("content-type", FORM)], body).await;
    let text = std::str::from_utf8(&got.body).unwrap();
    assert!(
        text.contains(
            "<GetMetricStatisticsResult><Label>m</Label><Datapoints><member><Timestamp>2023-11-14T22:13:00Z</Timestamp>\
             <Sum>1.5</Sum><Unit>None</Unit><ExtendedStatistics><entry><key>p50</key><value>1.5</value></entry>\
             </ExtendedStatistics></member></Datapoints></GetMetricStatisticsResult>"
        ),
        "{text}"
    );
    let refused = fixture.send("/", &[("content-type", FORM)], "Action=PutMetricData").await;
    let text = std::str::from_utf8(&refused.body).unwrap();
    assert_eq!(refused.status, 400);
    assert!(
        text.contains(
            "<Error><Type>Sender</Type><Code>MissingParameter</Code><Message>The parameter Namespace is required."
        ),
        "{text}"
    );
    // What the signature says is for us, even if there is no such operation.
    let signed =
        [("content-type", FORM), ("authorization", "AWS4-HMAC-SHA256 Credential=a/b/c/monitoring/aws4_request")];
    let unknown = fixture.send("/", &signed, "Action=PutDashboard").await;
    assert!(std::str::from_utf8(&unknown.body).unwrap().contains("<Code>InvalidAction</Code>"));
    let stranger = fixture.send_as(Err(AuthError::UnknownKey), "/", &signed, "Action=ListMetrics").await;
    assert_eq!(stranger.status, 403);
    assert!(std::str::from_utf8(&stranger.body).unwrap().contains("<Code>InvalidClientTokenId</Code>"));
}

#[tokio::test]
async fn rpc_speaks_cbor_and_bodies_may_be_compressed() {
    let fixture = Fixture::new();
    let path = |operation: &str| format!("/service/{SERVICE}/operation/{operation}");
    let headers = [("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")];
    let text = |text: &str| Cbor::Text(text.to_owned());
    let encode = |value: &Cbor| {
        let mut out = Vec::new();
        ciborium::into_writer(value, &mut out).unwrap();
        out
    };
    // Times are seconds, whole or not.
    for at in [Cbor::Integer(NOW_S.into()), Cbor::Float(NOW_S as f64 + 0.5)] {
        let datum = Cbor::Map(vec![
            (text("MetricName"), text("m")),
            (text("Value"), Cbor::Float(2.0)),
            (text("Timestamp"), Cbor::Tag(1, Box::new(at))),
        ]);
        let body =
            encode(&Cbor::Map(vec![(text("Namespace"), text("App")), (text("MetricData"), Cbor::Array(vec![datum]))]));
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(&body).unwrap();
        let with_encoding = [headers[0], headers[1], ("content-encoding", "gzip")];
        let put = fixture.send(&path("PutMetricData"), &with_encoding, zipped.finish().unwrap()).await;
        assert_eq!((put.status, header(&put, "smithy-protocol"), put.body.len()), (200, "rpc-v2-cbor", 0));
        assert_eq!(header(&put, "content-type"), "");
    }
    assert_eq!(fixture.statistics(60, &["Sum"]).await[0]["Sum"], 4.0);

    let listed = fixture.send(&path("ListMetrics"), &headers, Bytes::new()).await;
    assert_eq!((listed.status, header(&listed, "content-type")), (200, "application/cbor"));
    let answer: Value = ciborium::from_reader(&*listed.body).unwrap();
    assert_eq!(answer["Metrics"], json!([{"Namespace": "App", "MetricName": "m", "Dimensions": []}]));

    let refused = fixture.send(&path("PutMetricData"), &headers, Bytes::new()).await;
    assert_eq!((refused.status, header(&refused, "x-amzn-query-error")), (400, "MissingParameter;Sender"));
    let answer: Value = ciborium::from_reader(&*refused.body).unwrap();
    assert_eq!(answer["__type"], "com.amazonaws.cloudwatch#MissingRequiredParameterException");

    let large = fixture.send(&path("PutMetricData"), &headers, vec![0; BODY_BYTES_MAX + 1]).await;
    assert_eq!(large.status, 413);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&vec![0; INFLATED_BYTES_MAX + 1]).unwrap();
    let zipped = [headers[0], headers[1], ("content-encoding", "gzip")];
    assert_eq!(fixture.send(&path("PutMetricData"), &zipped, bomb.finish().unwrap()).await.status, 413);
    assert_eq!(fixture.send(&path("PutMetricData"), &zipped, "no gzip").await.status, 400);
    let unknown = fixture.send(&path("PutDashboard"), &headers, Bytes::new()).await;
    assert_eq!((unknown.status, header(&unknown, "x-amzn-query-error")), (400, "InvalidAction;Sender"));
}

#[test]
fn only_our_requests_are_claimed() {
    let claims = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let mut request = HttpRequest::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        is_claimed(&head, body.as_bytes())
    };
    let form = [("content-type", FORM)];
    assert!(claims("POST", "/", &form, "Version=2010-08-01&Action=ListMetrics"));
    assert!(!claims("POST", "/", &form, "Action=GetCallerIdentity&Version=2011-06-15"));
    assert!(!claims("POST", "/", &[("x-amz-target", "Kinesis_20131202.ListStreams")], "{}"));
    assert!(!claims("POST", "/service/Other/operation/ListMetrics", &[], ""));
    assert!(!claims("GET", "/service/GraniteServiceVersion20100801/operation/ListMetrics", &[], ""));
}
