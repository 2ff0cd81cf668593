//! `AWS/Kinesis`: what our own streams, their shards and consumers have done in each minute, from the numbers behind
//! `/metrics`. Run by `server`; points go the way of those that clients put.
//!
//! Deviations: of what was added up within a minute the number of samples is known where requests are counted, else there
//! is one; the smallest and the largest sample are known where a series has them, else both are the average. A metric
//! that has never had anything has no points. What happened in the minute in which the server stops is not told.
//!
//! Source: "Monitor the Amazon Kinesis Data Streams service with Amazon CloudWatch".

use std::collections::HashMap;
use std::sync::Arc;

use super::keeper::{Datum, Keeper, Name, Resolution};
use super::point::{Point, Unit};
use crate::broker::Broker;
use crate::metrics::cloudwatch::{self, Level, Reading};

pub const NAMESPACE: &str = "AWS/Kinesis";
const MINUTE_MS: i64 = 60_000;
/// What the series of streams beyond their bound are told of.
const OTHER: &str = "_other";
/// Points that are put at once.
const PUT_MAX: usize = 1_000;

/// Where each metric stood at the last reading: its sum and its samples.
#[derive(Default)]
struct Before(HashMap<Name, (f64, f64)>);

/// Tells each minute when it is over, until the server stops.
pub async fn run(broker: Arc<Broker>, keeper: Arc<Keeper>) {
    let clock = broker.clock().clone();
    let mut before = Before::default();
    loop {
        let now_ms = clock.now_ms();
        clock.sleep_ms(MINUTE_MS - now_ms.rem_euclid(MINUTE_MS)).await;
        let reading = broker.clone();
        let readings = tokio::task::spawn_blocking(move || {
            let streams = reading.streams();
            let now_ms = reading.clock().tick_ms();
            reading.metrics().cloudwatch(streams.iter().map(|stream| &stream.metrics), now_ms)
        });
        // An error says that the server stops.
        let Ok(readings) = readings.await else { return };
        let data = before.data(readings, now_ms.div_euclid(MINUTE_MS) * MINUTE_MS);
        for data in data.chunks(PUT_MAX) {
            if keeper.put(data.to_vec()).await.is_err() {
                tracing::warn!("metrics of streams are not kept for this minute");
            }
        }
    }
}

impl Before {
    /// What has come since the last reading. Metrics that are not read any more are forgotten.
    fn data(&mut self, readings: Vec<Reading>, at_ms: i64) -> Vec<Datum> {
        let mut now = HashMap::with_capacity(readings.len());
        let mut data = Vec::new();
        for reading in readings.into_iter().filter(|reading| reading.stream != OTHER) {
            let name = name(&reading);
            let (sum, samples) = (reading.sum.unwrap_or(0.0), reading.samples.unwrap_or(0.0));
            let since = self.0.get(&name).copied().unwrap_or_default();
            // A stream that was deleted and made again begins anew.
            let grown = |now: f64, then: f64| if now < then { now } else { now - then };
            let point = point(&reading, grown(sum, since.0), grown(samples, since.1));
            if let Some(point) = point {
                let unit = Unit::of(unit(reading.metric.unit)).unwrap_or_default();
                data.push(Datum { name: name.clone(), at_ms, unit, resolution: Resolution::Minutes, point });
            }
            now.insert(name, (sum, samples));
        }
        self.0 = now;
        data
    }
}

fn point(reading: &Reading, sum: f64, samples: f64) -> Option<Point> {
    match (reading.sum, reading.samples) {
        (None, _) => reading.largest.map(|largest| Point::of_statistics(1.0, largest, largest, largest)),
        // Nobody counts: one sample a minute, from the first that was anything.
        (Some(whole), None) => (whole > 0.0).then(|| Point::of_statistics(1.0, sum, sum, sum)),
        (Some(_), Some(_)) if samples <= 0.0 => None,
        (Some(_), Some(_)) => {
            let average = sum / samples;
            let (least, largest) = match reading.metric.name.ends_with(".Success") {
                // Each sample is 1 or 0.
                true => (if average < 1.0 { 0.0 } else { 1.0 }, if average > 0.0 { 1.0 } else { 0.0 }),
                false => (average, reading.largest.unwrap_or(average).max(average)),
            };
            Some(Point::of_unknown(samples, sum, least, largest))
        }
    }
}

fn name(reading: &Reading) -> Name {
    let mut dimensions = vec![("StreamName".to_owned(), reading.stream.clone())];
    match reading.metric.level {
        Level::Stream => {}
        Level::Shard => dimensions.extend(reading.shard.clone().map(|shard| ("ShardId".to_owned(), shard))),
        Level::Consumer => {
            dimensions.extend(reading.consumer.clone().map(|consumer| ("ConsumerName".to_owned(), consumer)));
        }
    }
    Name::new(NAMESPACE.to_owned(), reading.metric.name.to_owned(), dimensions)
}

fn unit(unit: cloudwatch::Unit) -> &'static str {
    match unit {
        cloudwatch::Unit::Bytes => "Bytes",
        cloudwatch::Unit::Count => "Count",
        cloudwatch::Unit::Milliseconds => "Milliseconds",
    }
}

#[cfg(test)]
mod tests {
    use super::super::point::Statistic;
    use super::*;
    use crate::metrics::{Metrics, Records};
    use crate::model::ids::ShardOrdinal;

    #[test]
    fn each_minute_has_what_came_in_it() {
        let metrics = Metrics::new(10);
        let stream = metrics.stream("orders");
        let mut before = Before::default();
        let mut minute = |now_ms: i64| before.data(metrics.cloudwatch([&stream], now_ms), 60_000);
        assert!(minute(0).is_empty(), "nothing has happened yet");

        let shard = ShardOrdinal(0);
        stream.incoming(shard, 3, 300);
        stream.put_records.records(Records { successful: 3, failed: 0, throttled: 0, bytes: 300 });
        stream.put_records.answered(true, 0.010);
        stream.put_records.answered(false, 0.030);
        stream.iterator_age(shard, 7_000, 60_000);
        stream.iterator_age(shard, 1_000, 60_000);
        let told = |data: &[Datum], metric: &str| {
            let datum = data.iter().find(|datum| datum.name.metric == metric)?;
            assert_eq!(datum.name.namespace, NAMESPACE);
            assert_eq!(datum.name.dimensions, [("StreamName".to_owned(), "orders".to_owned())]);
            let of = |statistic| datum.point.statistic(statistic).unwrap();
            Some((of(Statistic::SampleCount), of(Statistic::Sum), of(Statistic::Minimum), of(Statistic::Maximum)))
        };
        let first = minute(60_000);
        assert_eq!(told(&first, "IncomingRecords"), Some((1.0, 3.0, 3.0, 3.0)));
        assert_eq!(told(&first, "PutRecords.Success"), Some((2.0, 1.0, 0.0, 1.0)));
        assert_eq!(told(&first, "GetRecords.IteratorAgeMilliseconds"), Some((2.0, 8_000.0, 4_000.0, 7_000.0)));
        let (samples, sum, ..) = told(&first, "PutRecords.Latency").unwrap();
        assert_eq!((samples, sum.round()), (2.0, 40.0));
        assert_eq!(told(&first, "WriteProvisionedThroughputExceeded"), None);

        stream.incoming(shard, 1, 50);
        let second = minute(120_000);
        assert_eq!(told(&second, "IncomingBytes"), Some((1.0, 50.0, 50.0, 50.0)));
        assert_eq!(told(&second, "PutRecords.Success"), None);
        // What has had something before is told to be at rest.
        assert_eq!(told(&minute(180_000), "IncomingBytes"), Some((1.0, 0.0, 0.0, 0.0)));
    }
}
