"""confluent-kafka (librdkafka underneath), adapted to the steps."""

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

import steps


class Producer:
    def __init__(self, bootstrap, codec):
        self.producer = ck.Producer({
            "bootstrap.servers": bootstrap, "compression.type": codec, "acks": "all",
            "enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 60000,
        })
        self.outcomes = []

    def send(self, topic, record):
        place = len(self.outcomes)
        self.outcomes.append(None)

        def delivered(error, message):
            self.outcomes[place] = error or (message.partition(), message.offset())

        self.producer.produce(topic, value=record.value, key=record.key, partition=record.partition,
                              headers=record.headers, timestamp=record.timestamp, on_delivery=delivered)
        self.producer.poll(0)

    def flush(self):
        left = self.producer.flush(60)
        steps.check(left == 0, f"{left} records still unacknowledged after 60 s")
        outcomes, self.outcomes = self.outcomes, []
        for outcome in outcomes:
            steps.check(isinstance(outcome, tuple), f"a record was refused: {outcome}")
        return outcomes

    def close(self):
        self.producer.flush(5)


# What a member of a group needs besides, by protocol. With KIP-848's, the broker has the times.
PROTOCOLS = {
    "classic": {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500},
    "consumer": {"group.protocol": "consumer"},
}


class Consumer:
    def __init__(self, bootstrap, topic, group, protocol="classic"):
        self.topic = topic
        self.consumer = ck.Consumer({
            "bootstrap.servers": bootstrap, "group.id": group or "none", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", **PROTOCOLS[protocol],
        })
        if group:
            self.consumer.subscribe([topic])
        else:
            self.consumer.assign([self.at(p, ck.OFFSET_BEGINNING) for p in range(steps.PARTITIONS)])

    def at(self, partition, offset=ck.OFFSET_INVALID):
        return ck.TopicPartition(self.topic, partition, offset)

    def all(self):
        return [self.at(p) for p in range(steps.PARTITIONS)]

    def poll(self, seconds):
        got = []
        for message in self.consumer.consume(500, seconds):
            if message.error():
                # While the broker is away librdkafka reports it and goes on by itself.
                if message.error().retriable() or message.error().code() in (
                        ck.KafkaError._TRANSPORT, ck.KafkaError._ALL_BROKERS_DOWN):
                    continue
                raise ck.KafkaException(message.error())
            kind, timestamp = message.timestamp()
            steps.check(kind == ck.TIMESTAMP_CREATE_TIME, f"timestamp of kind {kind}")
            got.append(steps.Record(message.key(), message.value(), message.headers() or [], timestamp,
                                    message.partition(), message.offset()))
        return got

    def assignment(self):
        return {p.partition for p in self.consumer.assignment()}

    def commit(self, offsets):
        answers = self.consumer.commit(offsets=[self.at(p, o) for p, o in offsets.items()], asynchronous=False)
        for answer in answers:
            if answer.error:
                raise ck.KafkaException(answer.error)

    def committed(self):
        return {p.partition: p.offset for p in self.consumer.committed(self.all(), 30) if p.offset >= 0}

    def offsets_for_time(self, milliseconds):
        asked = [self.at(p, milliseconds) for p in range(steps.PARTITIONS)]
        return {p.partition: p.offset if p.offset >= 0 else None
                for p in self.consumer.offsets_for_times(asked, 30)}

    def seek(self, offsets):
        self.consumer.assign([self.at(p, o) for p, o in offsets.items()])

    def close(self):
        self.consumer.close()


class Client:
    name = "confluent-kafka"
    version = f"{ck.__version__} (librdkafka {ck.libversion()[0]})"
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def metadata(self):
        known = self.admin.list_topics(timeout=30)
        return ([(b.host, b.port) for b in known.brokers.values()],
                {name: len(topic.partitions) for name, topic in known.topics.items()})

    def create(self, topic, partitions, config):
        future = self.admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic]
        try:
            future.result(30)
        except ck.KafkaException as error:
            if error.args[0].code() == ck.KafkaError.TOPIC_ALREADY_EXISTS:
                raise steps.Exists from error
            raise

    def config(self, topic):
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        answer = self.admin.describe_configs([resource])[resource].result(30)
        return {name: entry.value for name, entry in answer.items()}

    def delete(self, topic):
        try:
            self.admin.delete_topics([topic])[topic].result(30)
        except ck.KafkaException as error:
            if error.args[0].code() == ck.KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise steps.Unknown from error
            raise

    def producer(self, codec):
        return Producer(self.bootstrap, codec)

    def consumer(self, topic, group):
        return Consumer(self.bootstrap, topic, group)

    def group_type(self, group):
        answer = self.admin.list_consumer_groups(request_timeout=30).result()
        return next((listed.type.name.lower() for listed in answer.valid if listed.group_id == group), None)


def migrate(run):
    """A group of two goes over to KIP-848's protocol and back, one member at a time, with its offsets: whoever is in it
    has every partition between them, and is given every record once."""
    topic, group = run.topic("migration"), run.group("migration")
    everything = set(range(steps.PARTITIONS))
    run.client.create(topic, steps.PARTITIONS, {})
    members, sent, got = [], [], []

    def poll():
        for member in members:
            got.extend(member.poll(0.1))

    def shares():
        return [member.assignment() for member in members]

    def shared():
        parts = shares()
        return all(parts) and set().union(*parts) == everything and sum(map(len, parts)) == steps.PARTITIONS

    def settle():
        steps.until(shared, lambda: f"{len(members)} members have {shares()}", poll)

    def work(label):
        batch = steps.records(100, label)
        run.produce(topic, batch)
        sent.extend(batch)
        steps.until(lambda: len(got) >= len(sent), lambda: f"{label}: read {len(got)} of {len(sent)} records", poll)
        following = {p: sum(r.partition == p for r in got) for p in everything}
        for member in members:
            member.commit({p: following[p] for p in member.assignment()})

    def check_type(wanted):
        found = run.client.group_type(group)
        steps.check(found == wanted, f"the group is {found} instead of {wanted}")

    try:
        for protocol in ("classic", "classic"):
            members.append(Consumer(run.bootstrap, topic, group, protocol))
        settle()
        work("classic")
        check_type("classic")
        # Who comes, what the group is when one has gone, and what it is when that one has come.
        for protocol, before, after in (("consumer", "classic", "consumer"), ("consumer", "consumer", "consumer"),
                                        ("classic", "consumer", "consumer"), ("classic", "classic", "classic")):
            members.pop(0).close()
            settle()
            work(f"{len(sent)}-alone")
            check_type(before)
            members.append(Consumer(run.bootstrap, topic, group, protocol))
            settle()
            work(f"{len(sent)}-joined")
            check_type(after)
        steps.check(sorted(map(steps.number, got)) == sorted(map(steps.number, sent)),
                    f"{len(sent)} records were delivered as {len(got)}")
    finally:
        for member in members:
            member.close()


if __name__ == "__main__":
    steps.run(Client, {"migration": migrate})
