//! rust-rdkafka, on the librdkafka that it bundles, through the steps of compat/README.md.

#[path = "../../lib/rust/steps.rs"]
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use steps::{APART_MS, Outcome, PARTITIONS, Record, Steps, WAIT, check, check_equal, fail, first_timestamp, records};

type Places = BTreeMap<i32, i64>;

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

/// Asks until the condition holds; asking polls.
fn until(what: &str, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome {
    let end = Instant::now() + WAIT;
    while !holds()? {
        check(Instant::now() < end, || format!("within {} s: {what}", WAIT.as_secs()))?;
    }
    Ok(())
}

/// Keeps what the broker said of each record, by its number in the order of sending.
#[derive(Default)]
struct Deliveries(Mutex<BTreeMap<usize, Result<(i32, i64), KafkaError>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let said = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.clone()),
        };
        if let Ok(mut all) = self.0.lock() {
            all.insert(*number, said);
        }
    }
}

struct Sender {
    producer: BaseProducer<Deliveries>,
    sent: usize,
}

impl Sender {
    fn new(bootstrap: &str, codec: &str) -> Outcome<Sender> {
        let mut config = config(bootstrap);
        config
            .set("compression.type", codec)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "60000");
        let producer = BaseProducer::from_config_and_context(&config, Deliveries::default())?;
        Ok(Sender { producer, sent: 0 })
    }

    fn send(&mut self, topic: &str, record: &Record) -> Outcome {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut message = BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(self.sent))
            .partition(record.partition)
            .timestamp(record.timestamp)
            .headers(headers);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        self.producer.send(message).map_err(|(error, _)| error)?;
        self.sent += 1;
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    /// Waits for every answer; gives where the records since the last flush are, in the order of sending.
    fn flush(&mut self) -> Outcome<Vec<(i32, i64)>> {
        self.producer.flush(WAIT)?;
        let Ok(mut answers) = self.producer.context().0.lock() else {
            return fail("a delivery report panicked");
        };
        let answers = std::mem::take(&mut *answers);
        let sent = std::mem::take(&mut self.sent);
        check(answers.len() == sent, || format!("{sent} records sent, {} answered", answers.len()))?;
        Ok(answers.into_values().collect::<Result<Vec<_>, _>>()?)
    }
}

fn produce(bootstrap: &str, topic: &str, batch: &[Record], codec: &str) -> Outcome<Vec<(i32, i64)>> {
    let mut sender = Sender::new(bootstrap, codec)?;
    for record in batch {
        sender.send(topic, record)?;
    }
    sender.flush()
}

/// A consumer with what it has read.
struct Reader {
    topic: String,
    consumer: BaseConsumer,
    got: Vec<Record>,
}

impl Reader {
    fn member(bootstrap: &str, topic: &str, group: &str) -> Outcome<Reader> {
        let reader = Reader::new(bootstrap, topic, group)?;
        reader.consumer.subscribe(&[topic])?;
        Ok(reader)
    }

    fn at(bootstrap: &str, topic: &str, places: &TopicPartitionList) -> Outcome<Reader> {
        let reader = Reader::new(bootstrap, topic, "none")?;
        reader.consumer.assign(places)?;
        Ok(reader)
    }

    fn new(bootstrap: &str, topic: &str, group: &str) -> Outcome<Reader> {
        let consumer = config(bootstrap)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .create()?;
        Ok(Reader { topic: topic.to_owned(), consumer, got: Vec::new() })
    }

    fn poll(&mut self, wait: Duration) -> Outcome {
        let mut wait = wait;
        while let Some(polled) = self.consumer.poll(wait) {
            wait = Duration::ZERO;
            let message = match polled {
                Ok(message) => message,
                // While the broker is away librdkafka says so and goes on by itself.
                Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
                )) => continue,
                Err(error) => return Err(error.into()),
            };
            let headers = message.headers().map_or_else(Vec::new, |all| {
                all.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
            });
            self.got.push(Record {
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers,
                timestamp: message.timestamp().to_millis().unwrap_or(-1),
                partition: message.partition(),
                offset: message.offset(),
            });
        }
        Ok(())
    }

    /// Polls until `count` records are there; then once more, so that a record too many shows.
    fn read(&mut self, count: usize) -> Outcome {
        let end = Instant::now() + WAIT;
        while self.got.len() < count {
            check(Instant::now() < end, || format!("read {} of {count} records", self.got.len()))?;
            self.poll(Duration::from_millis(200))?;
        }
        self.poll(Duration::from_millis(300))
    }

    fn assignment(&self) -> Outcome<BTreeSet<i32>> {
        Ok(self.consumer.assignment()?.elements().iter().map(|e| e.partition()).collect())
    }

    fn commit(&self, places: &Places) -> Outcome {
        Ok(self.consumer.commit(&list(&self.topic, places)?, CommitMode::Sync)?)
    }

    fn committed(&self) -> Outcome<Places> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&self.topic, 0, PARTITIONS - 1);
        Ok(offsets(&self.consumer.committed_offsets(asked, WAIT)?))
    }

    fn numbers(&self) -> Vec<Vec<u8>> {
        numbers(&self.got)
    }
}

fn list(topic: &str, places: &Places) -> Outcome<TopicPartitionList> {
    let mut made = TopicPartitionList::new();
    for (partition, offset) in places {
        made.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(made)
}

fn offsets(found: &TopicPartitionList) -> Places {
    found
        .elements()
        .iter()
        .filter_map(|e| match e.offset() {
            Offset::Offset(offset) => Some((e.partition(), offset)),
            _ => None,
        })
        .collect()
}

fn numbers(of: &[Record]) -> Vec<Vec<u8>> {
    let mut all: Vec<_> =
        of.iter().flat_map(|r| r.headers.iter().filter(|h| h.0 == "n").map(|h| h.1.clone())).collect();
    all.sort();
    all
}

fn from_beginning(topic: &str) -> Outcome<TopicPartitionList> {
    let mut all = TopicPartitionList::new();
    all.add_partition_range(topic, 0, PARTITIONS - 1);
    all.set_all_offsets(Offset::Beginning)?;
    Ok(all)
}

struct Client {
    bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    options: AdminOptions,
}

impl Client {
    fn new(bootstrap: String) -> Outcome<Client> {
        let admin = config(&bootstrap).create()?;
        Ok(Client { bootstrap, admin, options: AdminOptions::new().request_timeout(Some(WAIT)) })
    }

    /// The brokers' ports and each topic's number of partitions.
    fn metadata(&self) -> Outcome<(Vec<i32>, BTreeMap<String, usize>)> {
        let known = self.admin.inner().fetch_metadata(None, WAIT)?;
        let ports = known.brokers().iter().map(|b| b.port()).collect();
        Ok((ports, known.topics().iter().map(|t| (t.name().to_owned(), t.partitions().len())).collect()))
    }

    /// Creates a topic; gives the broker's refusal, if it refuses.
    fn create(&self, topic: &str) -> Outcome<Option<RDKafkaErrorCode>> {
        let made = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "86400000");
        let answers = block_on(self.admin.create_topics([&made], &self.options))?;
        Ok(answers.into_iter().find_map(|a| a.err().map(|(_, code)| code)))
    }

    fn must_create(&self, topic: &str) -> Outcome {
        match self.create(topic)? {
            None => Ok(()),
            Some(code) => fail(format!("creating a topic: {code}")),
        }
    }

    fn delete(&self, topic: &str) -> Outcome<Option<RDKafkaErrorCode>> {
        let answers = block_on(self.admin.delete_topics(&[topic], &self.options))?;
        Ok(answers.into_iter().find_map(|a| a.err().map(|(_, code)| code)))
    }

    fn retention(&self, topic: &str) -> Outcome<Option<String>> {
        let answers = block_on(self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &self.options))?;
        for answer in answers {
            let described = answer.map_err(|code| KafkaError::AdminOp(code))?;
            return Ok(described.get("retention.ms").and_then(|entry| entry.value.clone()));
        }
        Ok(None)
    }

    fn read_all(&self, topic: &str, count: usize) -> Outcome<Vec<Record>> {
        let mut reader = Reader::at(&self.bootstrap, topic, &from_beginning(topic)?)?;
        reader.read(count)?;
        Ok(reader.got)
    }

    fn metadata_step(&self, absent: &str) -> Outcome {
        let (ports, topics) = self.metadata()?;
        let port = self.bootstrap.rsplit(':').next().and_then(|p| p.parse().ok()).unwrap_or(0);
        check(ports.contains(&port), || format!("no broker with port {port} among {ports:?}"))?;
        check(!topics.contains_key(absent), || "lists a topic that nobody made".to_owned())
    }

    fn create_step(&self, topic: &str) -> Outcome {
        self.must_create(topic)?;
        let partitions = self.metadata()?.1.get(topic).copied();
        check(partitions == Some(PARTITIONS as usize), || format!("metadata says {partitions:?} partitions"))?;
        let retention = self.retention(topic)?;
        check(retention.as_deref() == Some("86400000"), || format!("retention.ms is described as {retention:?}"))?;
        let again = self.create(topic)?;
        check(again == Some(RDKafkaErrorCode::TopicAlreadyExists), || format!("a second creation gave {again:?}"))
    }

    fn produce_step(&self, topic: &str, codec: &str) -> Outcome {
        self.must_create(topic)?;
        let batch = records(400, "r");
        let places = produce(&self.bootstrap, topic, &batch, codec)?;
        let wanted: Vec<_> = batch.iter().map(|r| (r.partition, r.offset)).collect();
        check(places == wanted, || format!("acknowledged at {places:?}"))
    }

    fn timestamp_step(&self, topic: &str) -> Outcome {
        let batch = records(400, "r");
        let middle = first_timestamp() + 200 * APART_MS;
        let mut reader = Reader::at(&self.bootstrap, topic, &from_beginning(topic)?)?;
        let look_up = |reader: &Reader, at: i64| -> Outcome<Places> {
            let asked = list(topic, &(0..PARTITIONS).map(|p| (p, at)).collect())?;
            Ok(offsets(&reader.consumer.offsets_for_times(asked, WAIT)?))
        };
        for at in [middle, middle + 1] {
            let mut wanted = Places::new();
            for record in batch.iter().filter(|r| r.timestamp >= at) {
                wanted.entry(record.partition).or_insert(record.offset);
            }
            let found = look_up(&reader, at)?;
            check(found == wanted, || format!("offsets for {at} are {found:?} instead of {wanted:?}"))?;
        }
        let after = look_up(&reader, first_timestamp() + 1000 * APART_MS)?;
        check(after.is_empty(), || format!("offsets after the last record: {after:?}"))?;
        let found = look_up(&reader, middle)?;
        reader.consumer.assign(&list(topic, &found)?)?;
        reader.read(200)?;
        let later: Vec<_> = batch.into_iter().filter(|r| r.timestamp >= middle).collect();
        check(reader.numbers() == numbers(&later), || format!("read {} records from there on", reader.got.len()))
    }

    fn group_step(&self, topic: &str, group: &str) -> Outcome {
        self.must_create(topic)?;
        let poll_all = |members: &mut Vec<Reader>| -> Outcome {
            members.iter_mut().try_for_each(|m| m.poll(Duration::from_millis(100)))
        };
        let share = |members: &mut Vec<Reader>| -> Outcome {
            until("the members share the partitions", || {
                poll_all(members)?;
                let parts = members.iter().map(Reader::assignment).collect::<Outcome<Vec<_>>>()?;
                let all: BTreeSet<_> = parts.iter().flatten().collect();
                let sum: usize = parts.iter().map(BTreeSet::len).sum();
                Ok(all.len() == PARTITIONS as usize && sum == all.len() && !parts.iter().any(BTreeSet::is_empty))
            })
        };
        let read = |members: &mut Vec<Reader>, count: usize| -> Outcome {
            until(&format!("the members read {count} records"), || {
                poll_all(members)?;
                Ok(members.iter().map(|m| m.got.len()).sum::<usize>() >= count)
            })
        };
        let (first, second) = (records(200, "a"), records(200, "b"));
        let mut members = vec![Reader::member(&self.bootstrap, topic, group)?];
        share(&mut members)?;
        members.push(Reader::member(&self.bootstrap, topic, group)?);
        share(&mut members)?;
        produce(&self.bootstrap, topic, &first, "none")?;
        read(&mut members, 200)?;
        for member in &members {
            // Every partition got 50 records; after the rebalance it goes on from there.
            member.commit(&member.assignment()?.into_iter().map(|p| (p, 50)).collect())?;
        }
        let mut got = members.remove(0).got;
        share(&mut members)?;
        produce(&self.bootstrap, topic, &second, "none")?;
        let left = 400 - got.len();
        read(&mut members, left)?;
        members[0].poll(Duration::from_millis(300))?;
        got.append(&mut members[0].got);
        let sent = [first, second].concat();
        check(numbers(&got) == numbers(&sent), || format!("400 records were delivered as {}", got.len()))
    }

    /// That a new member of the group is given exactly what lies after the committed places.
    fn check_resumes(&self, topic: &str, group: &str, places: &Places, batch: &[Record]) -> Outcome {
        let mut member = Reader::member(&self.bootstrap, topic, group)?;
        let wanted: Vec<_> = batch.iter().filter(|r| r.offset >= places[&r.partition]).cloned().collect();
        member.read(wanted.len())?;
        check_equal(&wanted, &member.got)?;
        let committed = member.committed()?;
        check(committed == *places, || format!("committed {places:?}, now {committed:?}"))
    }

    fn commit_step(&self, topic: &str, group: &str) -> Outcome {
        self.must_create(topic)?;
        let batch = records(400, "r");
        produce(&self.bootstrap, topic, &batch, "none")?;
        let places: Places = (0..PARTITIONS).map(|p| (p, 30 + i64::from(p))).collect();
        let mut member = Reader::member(&self.bootstrap, topic, group)?;
        let new = member.committed()?;
        check(new.is_empty(), || format!("a new group has offsets: {new:?}"))?;
        member.read(batch.len())?;
        member.commit(&places)?;
        let committed = member.committed()?;
        check(committed == places, || format!("committed {places:?} and read back {committed:?}"))?;
        drop(member);
        self.check_resumes(topic, group, &places, &batch)
    }

    fn restart_step(&self, topic: &str, group: &str) -> Outcome {
        steps::can_restart()?;
        self.must_create(topic)?;
        let batch = records(600, "s");
        let places: Places = (0..PARTITIONS).map(|p| (p, 20 + i64::from(p))).collect();
        let mut stays = Reader::member(&self.bootstrap, topic, &format!("{group}-stays"))?;
        let mut sender = Sender::new(&self.bootstrap, "none")?;
        batch[..200].iter().try_for_each(|r| sender.send(topic, r))?;
        sender.flush()?;
        let mut member = Reader::member(&self.bootstrap, topic, group)?;
        member.read(200)?;
        member.commit(&places)?;
        drop(member);
        stays.read(200)?;
        // These are on their way, acknowledged or not, when the broker is killed.
        batch[200..400].iter().try_for_each(|r| sender.send(topic, r))?;
        steps::restart()?;
        batch[400..].iter().try_for_each(|r| sender.send(topic, r))?;
        sender.flush()?;
        // A member that lived through the restart may be given again what it did not commit.
        until("the member that stayed sees all 600 records", || {
            stays.poll(Duration::from_millis(200))?;
            let places: BTreeSet<_> = stays.got.iter().map(|r| (r.partition, r.offset)).collect();
            Ok(places.len() >= 600)
        })?;
        check_equal(&batch, &self.read_all(topic, batch.len())?)?;
        self.check_resumes(topic, group, &places, &batch)
    }

    fn delete_step(&self, topic: &str) -> Outcome {
        self.must_create(topic)?;
        produce(&self.bootstrap, topic, &records(20, "r"), "none")?;
        let refused = self.delete(topic)?;
        check(refused.is_none(), || format!("deleting gave {refused:?}"))?;
        until("metadata lists the topic no more", || {
            std::thread::sleep(Duration::from_millis(50));
            Ok(!self.metadata()?.1.contains_key(topic))
        })?;
        let again = self.delete(topic)?;
        check(again == Some(RDKafkaErrorCode::UnknownTopicOrPartition), || format!("a second deletion gave {again:?}"))
    }
}

fn main() {
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let mut steps = Steps::new("rdkafka", &format!("0.39.0 (librdkafka {librdkafka})"));
    let client = match Client::new(steps::bootstrap()) {
        Ok(client) => client,
        Err(why) => {
            println!("FAIL metadata: {why:?}");
            std::process::exit(1);
        }
    };
    let absent = steps.name("none");
    steps.step("metadata", || client.metadata_step(&absent));
    if steps.failed() {
        // Without a connection every further step would only wait for its own time to run out.
        steps.end();
    }
    let topic = steps.name("create");
    steps.step("create", || client.create_step(&topic));
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let topics: Vec<_> = codecs.iter().map(|codec| steps.name(codec)).collect();
    for (codec, topic) in codecs.iter().zip(&topics) {
        steps.step(&format!("produce-{codec}"), || client.produce_step(topic, codec));
    }
    steps.step("consume-start", || {
        for topic in &topics {
            check_equal(&records(400, "r"), &client.read_all(topic, 400)?)?;
        }
        Ok(())
    });
    steps.step("consume-timestamp", || client.timestamp_step(&topics[0]));
    let topic = steps.name("group");
    steps.step("group", || client.group_step(&topic, &topic));
    let topic = steps.name("commit");
    steps.step("commit", || client.commit_step(&topic, &topic));
    let topic = steps.name("restart");
    steps.step("restart", || client.restart_step(&topic, &topic));
    let topic = steps.name("delete");
    steps.step("delete", || client.delete_step(&topic));
    steps.end();
}
