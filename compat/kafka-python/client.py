"""kafka-python, adapted to the steps."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition, OffsetAndMetadata, __version__
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError

import steps


class Producer:
    def __init__(self, bootstrap, codec):
        self.producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True,
                                      compression_type=None if codec == "none" else codec,
                                      linger_ms=5, delivery_timeout_ms=60000, request_timeout_ms=20000)
        self.futures = []

    def send(self, topic, record):
        self.futures.append(self.producer.send(topic, value=record.value, key=record.key,
                                               headers=record.headers, partition=record.partition,
                                               timestamp_ms=record.timestamp))

    def flush(self):
        self.producer.flush(60)
        futures, self.futures = self.futures, []
        answers = [future.get(1) for future in futures]
        return [(answer.partition, answer.offset) for answer in answers]

    def close(self):
        self.producer.close(5)


class Consumer:
    def __init__(self, bootstrap, topic, group):
        self.topic = topic
        self.consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False,
                                      auto_offset_reset="earliest", session_timeout_ms=6000,
                                      heartbeat_interval_ms=500, fetch_max_wait_ms=100)
        if group:
            self.consumer.subscribe([topic])
        else:
            self.consumer.assign(self.all())
            self.consumer.seek_to_beginning()

    def at(self, partition):
        return TopicPartition(self.topic, partition)

    def all(self):
        return [self.at(p) for p in range(steps.PARTITIONS)]

    def poll(self, seconds):
        return [steps.Record(r.key, r.value, list(r.headers), r.timestamp, r.partition, r.offset)
                for batch in self.consumer.poll(timeout_ms=int(seconds * 1000)).values() for r in batch]

    def assignment(self):
        return {p.partition for p in self.consumer.assignment()}

    def commit(self, offsets):
        self.consumer.commit({self.at(p): OffsetAndMetadata(o, f"at {o}", -1) for p, o in offsets.items()})

    def committed(self):
        found = {p.partition: self.consumer.committed(p, metadata=True) for p in self.all()}
        found = {p: at for p, at in found.items() if at is not None}
        for at in found.values():
            steps.check(at.metadata == f"at {at.offset}", f"committed with metadata 'at {at.offset}', read back {at!r}")
        return {p: at.offset for p, at in found.items()}

    def offsets_for_time(self, milliseconds):
        found = self.consumer.offsets_for_times({p: milliseconds for p in self.all()})
        return {p.partition: at.offset if at else None for p, at in found.items()}

    def seek(self, offsets):
        for partition, offset in offsets.items():
            self.consumer.seek(self.at(partition), offset)

    def close(self):
        self.consumer.close()


class Client:
    name = "kafka-python"
    version = __version__
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def metadata(self):
        brokers = [(b["host"], b["port"]) for b in self.admin.describe_cluster()["brokers"]]
        return brokers, {t["name"]: len(t["partitions"]) for t in self.admin.describe_topics()}

    def create(self, topic, partitions, config):
        try:
            self.admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1,
                                              "configs": config}})
        except TopicAlreadyExistsError as error:
            raise steps.Exists from error

    def config(self, topic):
        answer = self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        return {name: entry["value"] for name, entry in answer["topic"][topic].items()}

    def delete(self, topic):
        try:
            self.admin.delete_topics([topic])
        except UnknownTopicOrPartitionError as error:
            raise steps.Unknown from error

    def producer(self, codec):
        return Producer(self.bootstrap, codec)

    def consumer(self, topic, group):
        return Consumer(self.bootstrap, topic, group)


if __name__ == "__main__":
    steps.run(Client)
