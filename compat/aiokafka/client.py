"""aiokafka, adapted to the steps: its event loop runs in a thread of its own, so that a member keeps its
heartbeats while the steps look elsewhere."""

import asyncio
import threading

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from aiokafka.structs import OffsetAndMetadata, TopicPartition

import steps

LOOP = asyncio.new_event_loop()


def wait(coroutine, seconds=60):
    return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, seconds), LOOP).result(seconds + 5)


async def started(make):
    """The client objects bind to the running loop where they are made."""
    made = make()
    await made.start()
    return made


class Producer:
    def __init__(self, bootstrap, codec):
        self.producer = wait(started(lambda: aiokafka.AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=5,
            compression_type=None if codec == "none" else codec)))
        self.futures = []

    def send(self, topic, record):
        self.futures.append(wait(self.producer.send(
            topic, value=record.value, key=record.key, partition=record.partition,
            timestamp_ms=record.timestamp, headers=record.headers)))

    def flush(self):
        async def gather(futures):
            return await asyncio.gather(*futures)
        futures, self.futures = self.futures, []
        return [(answer.partition, answer.offset) for answer in wait(gather(futures))]

    def close(self):
        wait(self.producer.stop())


class Consumer:
    def __init__(self, bootstrap, topic, group):
        self.topic = topic
        self.consumer = wait(started(lambda: aiokafka.AIOKafkaConsumer(
            *([topic] if group else []), bootstrap_servers=bootstrap, group_id=group,
            enable_auto_commit=False, auto_offset_reset="earliest", session_timeout_ms=6000,
            heartbeat_interval_ms=500, fetch_max_wait_ms=100)))
        if not group:
            self.on_loop(self.consumer.assign, self.all())

    def on_loop(self, function, *arguments):
        async def call():
            return function(*arguments)
        return wait(call())

    def at(self, partition):
        return TopicPartition(self.topic, partition)

    def all(self):
        return [self.at(p) for p in range(steps.PARTITIONS)]

    def poll(self, seconds):
        batches = wait(self.consumer.getmany(timeout_ms=int(seconds * 1000)))
        return [steps.Record(r.key, r.value, list(r.headers), r.timestamp, r.partition, r.offset)
                for batch in batches.values() for r in batch]

    def assignment(self):
        return {p.partition for p in self.consumer.assignment()}

    def commit(self, offsets):
        wait(self.consumer.commit({self.at(p): OffsetAndMetadata(o, f"at {o}") for p, o in offsets.items()}))

    def committed(self):
        found = {p.partition: wait(self.consumer.committed(p)) for p in self.all()}
        return {p: offset for p, offset in found.items() if offset is not None}

    def offsets_for_time(self, milliseconds):
        found = wait(self.consumer.offsets_for_times({p: milliseconds for p in self.all()}))
        return {p.partition: at.offset if at else None for p, at in found.items()}

    def seek(self, offsets):
        for partition, offset in offsets.items():
            self.on_loop(self.consumer.seek, self.at(partition), offset)

    def close(self):
        wait(self.consumer.stop())


class Client:
    name = "aiokafka"
    version = aiokafka.__version__
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]

    def __init__(self, bootstrap):
        threading.Thread(target=LOOP.run_forever, daemon=True).start()
        self.bootstrap = bootstrap
        self.admin = wait(started(lambda: AIOKafkaAdminClient(bootstrap_servers=bootstrap)))

    def metadata(self):
        brokers = wait(self.admin.describe_cluster())["brokers"]
        topics = wait(self.admin.describe_topics())
        return ([(b["host"], b["port"]) for b in brokers],
                {t["topic"]: len(t["partitions"]) for t in topics})

    def create(self, topic, partitions, config):
        answer = wait(self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)]))
        error = for_code(answer.topic_errors[0][1])
        if error is TopicAlreadyExistsError:
            raise steps.Exists
        if error.errno:
            raise error(answer.topic_errors)

    def config(self, topic):
        answers = wait(self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}

    def delete(self, topic):
        answer = wait(self.admin.delete_topics([topic]))
        error = for_code(answer.topic_error_codes[0][1])
        if error is UnknownTopicOrPartitionError:
            raise steps.Unknown
        if error.errno:
            raise error(topic)

    def producer(self, codec):
        return Producer(self.bootstrap, codec)

    def consumer(self, topic, group):
        return Consumer(self.bootstrap, topic, group)


if __name__ == "__main__":
    steps.run(Client)
