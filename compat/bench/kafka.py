"""The loads that go through Kafka's protocol."""

import signal
import socket
import time

import brokers
import meter
import wire
from generators import Failed, Java, Rdkafka
from loads import Load, Result, Stopwatch, name, quantiles

EVERY = tuple(brokers.KAFKA)
SYNCED = tuple(brokers.SYNCED)
# What keeps its records and serves all of the protocol that the load needs.
WHOLE = ("anabranch", "kafka")
MB = 1_000_000
PARTITIONS = 16


def admin(broker):
    from confluent_kafka.admin import AdminClient
    return AdminClient({"bootstrap.servers": broker.kafka})


def create(broker, partitions=PARTITIONS, topics=1):
    """New topics; the name of the first."""
    from confluent_kafka.admin import NewTopic
    made, asking = [name() for _ in range(topics)], admin(broker)
    for at in range(0, topics, 100):
        wanted = [NewTopic(one, partitions, 1) for one in made[at:at + 100]]
        for answer in asking.create_topics(wanted, operation_timeout=120, request_timeout=120).values():
            answer.result()
    return made if topics > 1 else made[0]


# Produce.

def produce(size, records, partitions=PARTITIONS, **how):
    def run(broker, topic):
        rate, per_second = Rdkafka.rate(Rdkafka().producer(broker, topic, records, size, **how))
        return Result({"MB/s": rate, "records/s": per_second}, records * size)
    return {"run": run, "prepare": lambda broker: create(broker, partitions)}


def produce_java(size, records):
    def run(broker, topic):
        rate, per_second, _ = Java.produced(Java().producer(broker, topic, records, size))
        return Result({"MB/s": rate, "records/s": per_second}, records * size)
    return {"run": run, "prepare": create}


# Consume.

def filled(size, records, partitions=PARTITIONS):
    def prepare(broker):
        topic = create(broker, partitions)
        Rdkafka.rate(Rdkafka().producer(broker, topic, records, size))
        return topic
    return prepare


def restarted(prepare):
    """The same with nothing of it in anybody's memory."""
    def cold(broker):
        topic = prepare(broker)
        broker.stop()
        drop_page_cache()
        broker.spawn()
        broker.ready()
        return topic
    return cold


def drop_page_cache():
    try:
        with open("/proc/sys/vm/drop_caches", "w") as drop:
            drop.write("1")
    except OSError as error:
        raise Failed(f"the page cache cannot be dropped: {error}") from error


def consume(size, records):
    def run(broker, topic):
        rate, per_second = Rdkafka.rate(Rdkafka().consumer(broker, topic, records))
        return Result({"MB/s": rate, "records/s": per_second}, records * size)
    return run


def consume_java(size, records):
    def run(broker, topic):
        rate, per_second = Java.consumed(Java().consumer(broker, topic, records))
        return Result({"MB/s": rate, "records/s": per_second}, records * size)
    return run


def read_only(broker, topic):
    """A reader that looks at nothing, in one thread over one connection, beside the same bytes over a bare socket."""
    connection, total = wire.Connection(broker.kafka), 0
    with Stopwatch() as watch:
        for partition in range(PARTITIONS):
            offset, end = 0, 1
            while offset < end:
                size, offset, end = connection.fetch(topic, partition, offset, 4 << 20)
                total += max(size, 0)
    bare = loopback(total)
    return Result({"MB/s": total / watch.seconds / MB, "of bare TCP": total / watch.seconds / bare}, total)


def loopback(total):
    """Bytes a second of a socket pair between two processes."""
    import multiprocessing
    listener = socket.create_server(("127.0.0.1", 0))

    def send():
        peer, _ = listener.accept()
        block, left = bytes(1 << 20), total
        while left > 0:
            left -= peer.send(block[:left])
        peer.close()
    sender = multiprocessing.get_context("fork").Process(target=send)
    sender.start()
    connection, buffer, got = socket.create_connection(listener.getsockname()), bytearray(1 << 20), 0
    with Stopwatch() as watch:
        while count := connection.recv_into(buffer):
            got += count
    sender.join()
    return got / watch.seconds


def tail(size, records):
    """A group at the end of the topic while a producer writes as fast as it can."""
    def run(broker, topic):
        tool = Rdkafka()
        reading = tool.consumer(broker, topic, records)
        tool.assigned(reading)
        with Stopwatch() as watch:
            writing = tool.producer(broker, topic, records, size)
            write_rate, _ = Rdkafka.rate(writing)
            Rdkafka.rate(reading)
        return Result({"MB/s": size * records / watch.seconds / MB, "produce MB/s": write_rate}, records * size)
    return run


# Latency.

def latency(rate, seconds, size=1024):
    """From before a record is given to the producer until the consumer has it, at a fixed rate, without lingering."""
    def run(broker, topic):
        tool, file = Rdkafka(), broker.folder / "latencies"
        records = rate * seconds
        reading = tool.consumer(broker, topic, records, latency=file, **{"fetch.wait.max.ms": 100})
        tool.assigned(reading)
        Rdkafka.rate(tool.producer(broker, topic, records, size, rate=rate, latency=True, **{"linger.ms": 0}))
        Rdkafka.rate(reading)
        found = [int(line) / 1000 for line in file.read_text().split()]
        half, most, nearly_all = quantiles(found[len(found) // 10:], 0.5, 0.99, 0.999)
        return Result({"p50 ms": half, "p99 ms": most, "p99.9 ms": nearly_all}, records * size)
    return {"run": run, "prepare": create}


def acknowledged(rate, seconds, size=1024):
    """Java's: from send until the acknowledgement."""
    def run(broker, topic):
        records = rate * seconds
        _, _, (half, most, nearly_all) = Java.produced(
            Java().producer(broker, topic, records, size, rate, **{"linger.ms": 0}))
        return Result({"p50 ms": half, "p99 ms": most, "p99.9 ms": nearly_all}, records * size)
    return {"run": run, "prepare": create}


# Many of something.

def partitions(count):
    """Topics with 100 partitions each: made, a record into each partition, restarted, asked again."""
    def run(broker, _):
        import confluent_kafka as ck
        before = meter.resident_bytes(broker.pid)
        with Stopwatch() as creating:
            topics = create(broker, 100, count // 100)
        idle = meter.resident_bytes(broker.pid) - before
        producer = ck.Producer({"bootstrap.servers": broker.kafka, "linger.ms": 5})
        with Stopwatch() as producing:
            for topic in topics:
                for partition in range(100):
                    producer.produce(topic, b"x" * 100, partition=partition)
                producer.poll(0)
            if left := producer.flush(300):
                raise Failed(f"{left} records are not acknowledged")
        broker.stop()
        with Stopwatch() as starting:
            broker.spawn()
            wire.first_acknowledgement(broker.kafka, topics[-1], 300)
        return Result({"create s": creating.seconds, "MB more": idle / MB, "produce s": producing.seconds,
                       "restart to ack s": starting.seconds})
    return run


def connections(count, seconds):
    def run(broker, topic):
        program = brokers.go(brokers.HERE / "clients")
        import json
        from generators import said, started
        found = json.loads(said(started([program, "connections", broker.kafka, topic, count, seconds])).splitlines()[-1])
        return Result({"p50 ms": found["p50_ms"], "p99 ms": found["p99_ms"], "records/s": found["records_per_second"]})
    return {"run": run, "prepare": create}


def transactions(count, records=100):
    def run(broker, topic):
        import confluent_kafka as ck
        producer = ck.Producer({"bootstrap.servers": broker.kafka, "transactional.id": name(), "linger.ms": 0})
        producer.init_transactions(60)
        took = []
        for _ in range(count):
            with Stopwatch() as watch:
                producer.begin_transaction()
                for at in range(records):
                    producer.produce(topic, b"x" * 1024, partition=at % PARTITIONS)
                producer.commit_transaction(60)
            took.append(watch.seconds)
        half, most = quantiles(took, 0.5, 0.99)
        return Result({"transactions/s": count / sum(took), "p50 ms": half * 1000, "p99 ms": most * 1000},
                      count * records * 1024)
    return {"run": run, "prepare": create}


# Starts.

def start_empty(broker, _):
    with Stopwatch() as watch:
        broker.spawn()
        wire.first_acknowledgement(broker.kafka, "first")
    time.sleep(1)
    return Result({"to ack ms": watch.seconds * 1000, "idle MB": meter.resident_bytes(broker.pid) / MB})


def start_full(gib):
    """1,000 partitions with so much in them; started again after a clean stop and after a kill."""
    def prepare(broker):
        topics = create(broker, 100, 10)
        for topic in topics:
            Rdkafka.rate(Rdkafka().producer(broker, topic, gib * (1 << 30) // 10 // 10_240, 10_240))
        return topics[0]

    def run(broker, topic):
        figures = {}
        for column, how in (("after stop ms", signal.SIGTERM), ("after kill ms", signal.SIGKILL)):
            broker.stop(how)
            with Stopwatch() as watch:
                broker.spawn()
                wire.first_acknowledgement(broker.kafka, topic)
            figures[column] = watch.seconds * 1000
        return Result(figures)
    return {"run": run, "prepare": prepare}


def soak(gib, keep_mib):
    """Write amplification and memory with retention at work."""
    def prepare(broker):
        from confluent_kafka.admin import NewTopic
        topic = name()
        config = {"retention.bytes": str(keep_mib * (1 << 20) // PARTITIONS), "segment.bytes": str(16 << 20)}
        asking = admin(broker)
        asking.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result()
        return topic

    def run(broker, topic):
        rate, per_second = Rdkafka.rate(Rdkafka().producer(broker, topic, gib * (1 << 30) // 10_240, 10_240))
        return Result({"MB/s": rate, "records/s": per_second}, gib << 30)
    return {"run": run, "prepare": prepare}


def all_loads(scale):
    def n(records):
        return max(int(records * scale), 1000)
    seconds = max(int(20 * scale), 4)
    kib = n(2_000_000)
    warm = filled(1024, kib)
    return [
        Load("produce", "1 KiB, 16 partitions, acks=all", EVERY, **produce(1024, kib)),
        Load("produce-100B", "100 B", EVERY, **produce(100, n(5_000_000))),
        Load("produce-64KiB", "64 KiB", EVERY, **produce(65_536, n(40_000))),
        Load("produce-1p", "one partition", EVERY, **produce(1024, kib, 1)),
        Load("produce-128p", "128 partitions", EVERY, **produce(1024, kib, 128)),
        Load("produce-acks0", "acks=0", EVERY, **produce(1024, kib, acks=0)),
        Load("produce-acks1", "acks=1", EVERY, **produce(1024, kib, acks=1)),
        Load("produce-lz4", "lz4, rdkafka_performance's repeating payload", EVERY, **produce(1024, kib, codec="lz4")),
        Load("produce-zstd", "zstd, the same payload", EVERY, **produce(1024, kib, codec="zstd")),
        Load("produce-java", "1 KiB by ProducerPerformance", EVERY, **produce_java(1024, n(1_000_000))),
        Load("produce-sync", "every commit synced", SYNCED, **produce(1024, n(200_000))),
        Load("consume-warm", "from the start, just written", EVERY, consume(1024, kib), warm),
        Load("consume-cold", "from the start, after a restart without a page cache", WHOLE, consume(1024, kib), restarted(warm)),
        Load("consume-tail", "while a producer writes", EVERY, tail(1024, kib), create),
        Load("consume-java", "from the start, by ConsumerPerformance", EVERY, consume_java(1024, kib), warm),
        Load("read-only", "a client that only reads", EVERY, read_only, warm),
        Load("latency-1k", "end to end at 1,000 records/s", EVERY, **latency(1_000, seconds)),
        Load("latency-10k", "end to end at 10,000 records/s", EVERY, **latency(10_000, seconds)),
        Load("ack-10k", "ProducerPerformance at 10,000 records/s", EVERY, **acknowledged(10_000, seconds)),
        Load("connections", "1,000 connections, a record a second each", EVERY, **connections(1_000, seconds)),
        Load("transactions", "of 100 records", WHOLE, **transactions(n(2_000) // 2)),
        Load("partitions", "10,000 partitions", WHOLE, partitions(10_000), long=True),
        Load("start-empty", "from nothing to the first acknowledgement", EVERY, start_empty, unstarted=True),
        Load("start-full", "1,000 partitions and 10 GiB", WHOLE, **start_full(10), long=True),
        Load("soak", "32 GiB written, 2 GiB kept", WHOLE, **soak(32, 2048), long=True),
    ]
