//! rskafka, through the steps of compat/README.md. It has no consumer groups, and its producer is not
//! idempotent: what is in flight when the broker is killed may be written twice.

#[path = "../../lib/rust/steps.rs"]
mod steps;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use rskafka::BackoffConfig;
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use steps::{
    APART_MS, Outcome, PARTITIONS, Record, Steps, Stop, WAIT, check, check_equal, fail, first_timestamp, records,
};
use tokio::time::{sleep, timeout};

const FETCH_BYTES: std::ops::Range<i32> = 1..200_000;

fn time(milliseconds: i64) -> Outcome<DateTime<Utc>> {
    Utc.timestamp_millis_opt(milliseconds).single().ok_or(Stop::Failed("no such time".to_owned()))
}

fn to_rskafka(record: &Record) -> Outcome<rskafka::record::Record> {
    Ok(rskafka::record::Record {
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.iter().cloned().collect::<BTreeMap<_, _>>(),
        timestamp: time(record.timestamp)?,
    })
}

struct Door {
    client: Client,
}

impl Door {
    async fn new(bootstrap: String) -> Outcome<Door> {
        // The default waits up to 500 s between tries.
        let backoff =
            BackoffConfig { max_backoff: Duration::from_secs(1), deadline: Some(WAIT), ..BackoffConfig::default() };
        let client = ClientBuilder::new(vec![bootstrap]).backoff_config(backoff).build().await?;
        Ok(Door { client })
    }

    async fn partition(&self, topic: &str, partition: i32) -> Outcome<PartitionClient> {
        Ok(self.client.partition_client(topic, partition, UnknownTopicHandling::Retry).await?)
    }

    async fn topics(&self) -> Outcome<BTreeMap<String, usize>> {
        Ok(self.client.list_topics().await?.into_iter().map(|t| (t.name, t.partitions.len())).collect())
    }

    async fn create(&self, topic: &str) -> Result<(), Error> {
        self.client.controller_client()?.create_topic(topic, PARTITIONS, 1, 30_000).await
    }

    /// Sends a batch in requests of 25 records; gives where they are, in the order of `batch`.
    async fn produce(&self, topic: &str, batch: &[Record], codec: Compression) -> Outcome<Vec<(i32, i64)>> {
        let mut places = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let client = self.partition(topic, partition).await?;
            let of_it: Vec<_> = batch.iter().enumerate().filter(|(_, r)| r.partition == partition).collect();
            for part in of_it.chunks(25) {
                let sent = part.iter().map(|(_, r)| to_rskafka(r)).collect::<Outcome<Vec<_>>>()?;
                let offsets = client.produce(sent, codec).await?;
                check(offsets.len() == part.len(), || format!("{} records gave offsets {offsets:?}", part.len()))?;
                places.extend(part.iter().zip(offsets).map(|((n, _), offset)| (*n, (partition, offset))));
            }
        }
        Ok(places.into_values().collect())
    }

    /// Everything from an offset of one partition to its end.
    async fn read(&self, topic: &str, partition: i32, from: i64) -> Outcome<Vec<Record>> {
        let client = self.partition(topic, partition).await?;
        let end = client.get_offset(OffsetAt::Latest).await?;
        let (mut next, mut got) = (from, Vec::new());
        while next < end {
            let (fetched, _) = timeout(WAIT, client.fetch_records(next, FETCH_BYTES, 500)).await??;
            for found in fetched {
                next = found.offset + 1;
                got.push(Record {
                    key: found.record.key,
                    value: found.record.value,
                    headers: found.record.headers.into_iter().collect(),
                    timestamp: found.record.timestamp.timestamp_millis(),
                    partition,
                    offset: found.offset,
                });
            }
        }
        Ok(got)
    }

    async fn read_all(&self, topic: &str) -> Outcome<Vec<Record>> {
        let mut got = Vec::new();
        for partition in 0..PARTITIONS {
            let first = self.partition(topic, partition).await?.get_offset(OffsetAt::Earliest).await?;
            got.extend(self.read(topic, partition, first).await?);
        }
        Ok(got)
    }

    async fn metadata_step(&self, absent: &str) -> Outcome {
        let topics = self.topics().await?;
        check(!topics.contains_key(absent), || "lists a topic that nobody made".to_owned())
    }

    async fn create_step(&self, topic: &str) -> Outcome {
        self.create(topic).await?;
        let partitions = self.topics().await?.get(topic).copied();
        check(partitions == Some(PARTITIONS as usize), || format!("metadata says {partitions:?} partitions"))?;
        refused(self.create(topic).await, ProtocolError::TopicAlreadyExists)
    }

    async fn produce_step(&self, topic: &str, codec: Compression) -> Outcome {
        self.create(topic).await?;
        let batch = records(400, "r");
        let places = self.produce(topic, &batch, codec).await?;
        let wanted: Vec<_> = batch.iter().map(|r| (r.partition, r.offset)).collect();
        check(places == wanted, || format!("acknowledged at {places:?}"))
    }

    async fn start_step(&self, topics: &[String]) -> Outcome {
        for topic in topics {
            check_equal(&records(400, "r"), &self.read_all(topic).await?)?;
        }
        Ok(())
    }

    async fn timestamp_step(&self, topic: &str) -> Outcome {
        let batch = records(400, "r");
        let middle = first_timestamp() + 200 * APART_MS;
        for partition in 0..PARTITIONS {
            let client = self.partition(topic, partition).await?;
            for at in [middle, middle + 1] {
                let wanted: Vec<_> =
                    batch.iter().filter(|r| r.partition == partition && r.timestamp >= at).cloned().collect();
                let found = client.get_offset(OffsetAt::Timestamp(time(at)?)).await?;
                let first = wanted.first().map(|r| r.offset);
                check(Some(found) == first, || format!("the offset for {at} is {found} instead of {first:?}"))?;
                check_equal(&wanted, &self.read(topic, partition, found).await?)?;
            }
            let after = time(first_timestamp() + 1000 * APART_MS)?;
            let found = client.get_offset(OffsetAt::Timestamp(after)).await?;
            check(found == -1, || format!("the offset after the last record is {found}"))?;
        }
        Ok(())
    }

    /// Records go one by one to one partition while the broker is killed. The client tries again by itself,
    /// so what was in flight may be there twice, in a row; everything else is there once, in order.
    async fn restart_step(&self, topic: &str) -> Outcome {
        steps::can_restart()?;
        self.create(topic).await?;
        let client = self.partition(topic, 0).await?;
        let batch: Vec<_> = records(1200, "s").into_iter().filter(|r| r.partition == 0).collect();
        let restart = std::thread::spawn(steps::restart);
        for (n, record) in batch.iter().enumerate() {
            timeout(WAIT, client.produce(vec![to_rskafka(record)?], Compression::NoCompression)).await??;
            // Until the kill has come and gone there are always records left to send.
            while n == batch.len() - 100 && !restart.is_finished() {
                sleep(Duration::from_millis(20)).await;
            }
        }
        restart.join().unwrap_or_else(|_| fail("the restart panicked"))?;
        let mut got = self.read(topic, 0, 0).await?;
        let read = got.len();
        got.dedup_by(|later, earlier| later.headers == earlier.headers);
        let twice = read - got.len();
        check(twice <= 1, || format!("{twice} records are there twice, though only one was in flight"))?;
        for (offset, record) in got.iter_mut().enumerate() {
            record.offset = offset as i64;
        }
        check_equal(&batch, &got)
    }

    async fn delete_step(&self, topic: &str) -> Outcome {
        self.create(topic).await?;
        self.produce(topic, &records(20, "r"), Compression::NoCompression).await?;
        let controller = self.client.controller_client()?;
        controller.delete_topic(topic, 30_000).await?;
        let gone = async {
            while self.topics().await?.contains_key(topic) {
                sleep(Duration::from_millis(50)).await;
            }
            Ok::<(), Stop>(())
        };
        timeout(WAIT, gone).await??;
        refused(controller.delete_topic(topic, 30_000).await, ProtocolError::UnknownTopicOrPartition)
    }
}

fn refused(outcome: Result<(), Error>, wanted: ProtocolError) -> Outcome {
    match outcome {
        Err(Error::ServerError { protocol_error, .. }) if protocol_error == wanted => Ok(()),
        other => fail(format!("the second time gave {other:?} instead of {wanted:?}")),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut steps = Steps::new("rskafka", "0.6.0");
    let bootstrap = steps::bootstrap();
    let mut made = None;
    let absent = steps.name("none");
    steps.step("metadata", || {
        runtime.block_on(async {
            let door = timeout(WAIT, Door::new(bootstrap)).await??;
            door.metadata_step(&absent).await?;
            made = Some(door);
            Ok(())
        })
    });
    // Without a connection every further step would only wait for its own time to run out.
    let Some(door) = made.filter(|_| !steps.failed()) else { steps.end() };
    let topic = steps.name("create");
    steps.step("create", || runtime.block_on(door.create_step(&topic)));
    let codecs = [
        ("none", Compression::NoCompression),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];
    let topics: Vec<_> = codecs.iter().map(|(name, _)| steps.name(name)).collect();
    for ((name, codec), topic) in codecs.iter().zip(&topics) {
        steps.step(&format!("produce-{name}"), || runtime.block_on(door.produce_step(topic, *codec)));
    }
    steps.step("consume-start", || runtime.block_on(door.start_step(&topics)));
    steps.step("consume-timestamp", || runtime.block_on(door.timestamp_step(&topics[0])));
    for name in ["group", "commit"] {
        steps.step(name, || Err(Stop::Skip("rskafka has no consumer groups".to_owned())));
    }
    let topic = steps.name("restart");
    steps.step("restart", || runtime.block_on(door.restart_step(&topic)));
    let topic = steps.name("delete");
    steps.step("delete", || runtime.block_on(door.delete_step(&topic)));
    steps.end();
}
