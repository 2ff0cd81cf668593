"""Work for the broker by both protocols, counted as the clients see it."""

import os
import socket
import struct
import threading
import time

import boto3
import confluent_kafka as ck
from botocore.config import Config
from confluent_kafka.admin import NewTopic

from jobs import CLIENT
from steps import check, until

HTTP = os.environ["KINESIS"]
SHARDS = 2
RECORDS = 1200
# A client of this name is held to so many bytes a second, over the eleven seconds that Kafka measures by default.
SLOWED = "prometheus-slowed"
QUOTA = 5_000


def client(service):
    """Without a retry, so that what is sent is counted here."""
    return boto3.client(service, endpoint_url=HTTP, region_name="us-east-1", aws_access_key_id="compat",
                        aws_secret_access_key="compat",
                        config=Config(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=30))


class Kinesis:
    """A stream of two shards, with metrics of its shards, that is put to beyond its limits and read in both ways."""

    def __init__(self, stream):
        self.stream = stream
        self.client = client("kinesis")
        self.kept = self.kept_bytes = self.puts = self.batch_kept = self.batch_throttled = 0
        self.gets = self.got = self.pushed = self.reads_throttled = self.behind_ms = 0

    def create(self):
        self.client.create_stream(StreamName=self.stream, ShardCount=SHARDS)
        self.client.get_waiter("stream_exists").wait(StreamName=self.stream, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        described = self.client.describe_stream_summary(StreamName=self.stream)["StreamDescriptionSummary"]
        self.client.enable_enhanced_monitoring(StreamName=self.stream, ShardLevelMetrics=["ALL"])
        self.active()
        self.consumer = self.client.register_stream_consumer(StreamARN=described["StreamARN"],
                                                             ConsumerName="pushed-to")["Consumer"]["ConsumerARN"]
        until(lambda: self.client.describe_stream_consumer(ConsumerARN=self.consumer)["ConsumerDescription"][
            "ConsumerStatus"] == "ACTIVE", "the consumer is not ACTIVE")
        self.shards = [one["ShardId"] for one in self.client.list_shards(StreamName=self.stream)["Shards"]]

    def active(self):
        until(lambda: self.client.describe_stream_summary(StreamName=self.stream)["StreamDescriptionSummary"][
            "StreamStatus"] == "ACTIVE", "the stream is not ACTIVE", lambda: time.sleep(0.2))

    def put(self, count):
        for number in range(count):
            key, data = f"key-{number}", f"put {number}".encode()
            self.client.put_record(StreamName=self.stream, PartitionKey=key, Data=data)
            self.kept, self.kept_bytes, self.puts = self.kept + 1, self.kept_bytes + len(key) + len(data), self.puts + 1

    def put_batch(self, count, data):
        """One PutRecords, as far as shards take it."""
        keys = [f"key-{number}" for number in range(count)]
        answer = self.client.put_records(StreamName=self.stream,
                                         Records=[{"PartitionKey": key, "Data": data} for key in keys])
        for key, one in zip(keys, answer["Records"]):
            if "ErrorCode" in one:
                check(one["ErrorCode"] == "ProvisionedThroughputExceededException", f"a put failed with {one}")
                self.batch_throttled += 1
            else:
                self.kept, self.batch_kept = self.kept + 1, self.batch_kept + 1
                self.kept_bytes += len(key) + len(data)

    def get(self, shard, position, pages, limit=1000, **at):
        iterator = self.client.get_shard_iterator(StreamName=self.stream, ShardId=shard, ShardIteratorType=position,
                                                  **at)["ShardIterator"]
        for _ in range(pages):
            answer = self.client.get_records(ShardIterator=iterator, Limit=limit)
            iterator = answer["NextShardIterator"]
            self.gets, self.got = self.gets + 1, self.got + len(answer["Records"])
            self.behind_ms = max(self.behind_ms, answer["MillisBehindLatest"])
            time.sleep(0.25)

    def get_too_often(self):
        """More than five times a second, until one is refused."""
        iterator = self.client.get_shard_iterator(StreamName=self.stream, ShardId=self.shards[0],
                                                  ShardIteratorType="LATEST")["ShardIterator"]
        for _ in range(20):
            try:
                answer = self.client.get_records(ShardIterator=iterator)
                self.gets, self.got = self.gets + 1, self.got + len(answer["Records"])
            except self.client.exceptions.ProvisionedThroughputExceededException:
                self.reads_throttled += 1
                return
        check(False, "20 reads in a row were not throttled")

    def subscribe(self, seconds):
        answer = self.client.subscribe_to_shard(ConsumerARN=self.consumer, ShardId=self.shards[0],
                                                StartingPosition={"Type": "TRIM_HORIZON"})
        try:
            self.client.subscribe_to_shard(ConsumerARN=self.consumer, ShardId=self.shards[0],
                                           StartingPosition={"Type": "LATEST"})
            check(False, "a second subscription was not refused")
        except self.client.exceptions.ResourceInUseException:
            pass
        end, events = time.monotonic() + seconds, answer["EventStream"]
        for event in events:
            self.pushed += len(event["SubscribeToShardEvent"]["Records"])
            if time.monotonic() > end:
                break
        events.close()

    def work(self):
        self.put(20)
        self.put_batch(300, b"x" * 100)
        time.sleep(1.5)
        # Four MiB at once for two shards of one MiB a second each.
        self.put_batch(80, b"y" * 50_000)
        check(0 < self.batch_throttled < 80, f"{self.batch_throttled} of 80 records of 4 MB were throttled")
        time.sleep(1.2)
        self.put(5)
        # One record at a time from the beginning: the rest is behind it.
        self.get(self.shards[0], "TRIM_HORIZON", 3, limit=1)
        for shard in self.shards:
            self.get(shard, "TRIM_HORIZON", 3)
        self.get_too_often()
        self.subscribe(6)
        self.around()

    def around(self):
        """What is refused or asked of other doors, for a while, so that there is a rate of it."""
        host, port = HTTP.split("//")[1].split(":")
        cloudwatch = client("cloudwatch")
        for _ in range(3):
            cloudwatch.put_metric_data(Namespace="compat", MetricData=[{"MetricName": "load", "Value": 1}])
            try:
                self.client.describe_stream_summary(StreamName="not-there")
                check(False, "a stream that is not there was described")
            except self.client.exceptions.ResourceNotFoundException:
                pass
            with socket.create_connection((host, int(port)), 10) as peer:
                # A request that names no operation.
                peer.sendall(b"POST / HTTP/1.1\r\nHost: kinesis\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                peer.makefile("rb").read()
            time.sleep(1.2)


class Kafka:
    """Topics, a group that is behind, transactions, a share group, a client beyond its quota and shards at their limits."""

    def __init__(self, cluster, name):
        self.cluster, self.bootstrap = cluster, CLIENT["bootstrap.servers"]
        self.topic, self.full, self.watched = name("topic"), name("full"), name("watched")
        self.group, self.share_group = name("group"), name("share")
        self.sent = self.consumed = self.committed = self.accepted = 0
        self.transactions_committed = self.transactions_aborted = 0
        self.first_left = 0.0
        self.open_producer = None

    def create(self):
        self.cluster.create(self.topic, 4)
        self.cluster.create(self.full, 1, kinesis__limits="enforce")
        self.cluster.create(self.watched, 1, kinesis__limits="observe")
        self.set_quota("producer_byte_rate", QUOTA)

    def set_quota(self, key, value):
        """AlterClientQuotas, version 0: confluent-kafka has no call for it."""
        def text(string):
            return struct.pack(">h", len(string)) + string.encode()
        entity = struct.pack(">i", 1) + text("client-id") + text(SLOWED)
        operation = struct.pack(">i", 1) + text(key) + struct.pack(">d?", value, False)
        body = struct.pack(">i", 1) + entity + operation + b"\0"
        request = struct.pack(">hhi", 49, 0, 1) + text("compat") + body
        host, port = self.bootstrap.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 10) as peer:
            peer.sendall(struct.pack(">i", len(request)) + request)
            answer = peer.makefile("rb").read(4 + 4 + 4 + 4 + 2)
        check(len(answer) == 18 and answer[-2:] == b"\0\0", f"the quota was not set: {answer!r}")

    def produce(self, topic, count, size, seconds=0.0, **settings):
        """So many records, spread over so many seconds."""
        producer = ck.Producer({**CLIENT, "linger.ms": 5, **settings})
        for number in range(count):
            while True:
                try:
                    producer.produce(topic, key=f"key-{number}", value=b"k" * size)
                    break
                except BufferError:
                    producer.poll(0.1)
            if seconds:
                producer.poll(seconds / count)
        check(producer.flush(60) == 0, f"records for {topic} were not acknowledged")

    def fill_topic(self):
        self.produce(self.topic, RECORDS // 2, 200, 3.0, **{"enable.idempotence": True})
        self.sent += RECORDS // 2
        self.consume(RECORDS // 2)
        time.sleep(1)
        self.first_left = time.time()
        self.produce(self.topic, RECORDS // 2, 200, 2.0, **{"enable.idempotence": True})
        self.sent += RECORDS // 2

    def consume(self, count):
        """Reads what there is and commits it; what comes after is the group's lag."""
        consumer = ck.Consumer({**CLIENT, "group.id": self.group, "auto.offset.reset": "earliest",
                                "enable.auto.commit": False})
        consumer.subscribe([self.topic])
        try:
            until(lambda: self.consumed >= count, lambda: f"{self.consumed} of {count} records were consumed",
                  lambda: self.count(consumer.consume(500, 0.5)))
            consumer.commit(asynchronous=False)
            self.committed = self.consumed
        finally:
            consumer.close()

    def count(self, messages):
        self.consumed += sum(1 for one in messages if not one.error())

    def transactions(self):
        producer = ck.Producer({**CLIENT, "transactional.id": self.group})
        producer.init_transactions(30)
        for commit in (True, False, True, True, False):
            # Apart by more than a scrape, so that there is a rate of them.
            time.sleep(1.1)
            producer.begin_transaction()
            producer.produce(self.watched, b"in a transaction")
            producer.flush(30)
            if commit:
                producer.commit_transaction(30)
                self.transactions_committed += 1
            else:
                producer.abort_transaction(30)
                self.transactions_aborted += 1
        producer.begin_transaction()
        producer.produce(self.watched, b"in a transaction that stays open")
        producer.flush(30)
        self.open_producer = producer

    def share(self):
        """Accepts records of a share group, gives one back and holds some."""
        self.cluster.produce(self.watched, [(None, f"shared {number}".encode()) for number in range(20)])
        consumer = ck.ShareConsumer({**CLIENT, "group.id": self.share_group, "share.acknowledgement.mode": "explicit"})
        consumer.subscribe([self.watched])
        released = False
        # A share group begins at what comes after it.
        end = time.monotonic() + 20
        while self.accepted < 5 and time.monotonic() < end:
            self.cluster.produce(self.watched, [(None, b"shared")] * 3)
            for message in consumer.poll(0.5):
                if message.error():
                    continue
                if released:
                    consumer.acknowledge(message)
                    self.accepted += 1
                else:
                    consumer.acknowledge(message, ck.AcknowledgeType.RELEASE)
                    released = True
            consumer.commit_sync(10)
        check(self.accepted >= 5, f"a share group was given {self.accepted} records")
        self.sharer = consumer

    def beyond_limits(self):
        # Three MB at once to shards that take one MiB a second, then 200 kB by a client that is held to a quota.
        self.produce(self.full, 300, 10_000)
        self.produce(self.watched, 300, 10_000)
        self.produce(self.watched, 20, 10_000, **{"client.id": SLOWED})

    def work(self):
        self.fill_topic()
        self.transactions()
        self.share()
        self.beyond_limits()
        self.fail()

    def fail(self):
        """What is answered with an error, for a while, so that there is a rate of it."""
        for _ in range(3):
            created = self.cluster.admin.create_topics([NewTopic(self.topic, 1, 1)])[self.topic]
            check(isinstance(created.exception(10), ck.KafkaException), "a topic was made twice")
            time.sleep(1.2)

    def end(self):
        if self.open_producer:
            self.open_producer.abort_transaction(10)
            self.open_producer = None


class Load:
    def __init__(self, job):
        self.kinesis = Kinesis(job.topic("stream"))
        self.kafka = Kafka(job, job.topic)
        self.failures = []

    def make(self):
        """Both at once."""
        self.kinesis.create()
        self.kafka.create()
        # Series that begin are seen to begin at 0.
        time.sleep(2)
        workers = [threading.Thread(target=self.work, args=(one,)) for one in (self.kinesis, self.kafka)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if self.failures:
            raise self.failures[0]

    def work(self, side):
        try:
            side.work()
        except Exception as error:
            self.failures.append(error)

    def end(self):
        self.kafka.end()
