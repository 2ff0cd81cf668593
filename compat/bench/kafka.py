"""The loads that go through Kafka's protocol."""

import signal
import socket
import time

import brokers
import meter
import wire
from generators import Failed, Java, Rdkafka, clients
from loads import DELAY, Load, Result, Stopwatch, name, quantiles

EVERY = tuple(brokers.KAFKA)
SYNCED = tuple(brokers.SYNCED)
# What keeps its records and serves all of the protocol that the load needs.
WHOLE = ("anabranch", "kafka")
MB, MIB = 1_000_000, 1 << 20
PARTITIONS = 16
# Kafka refuses requests that make 10,000 records of metadata.
PARTITIONS_A_REQUEST = 5_000
# Before latencies count. A JVM needs most of it.
WARM_SECONDS = 10


def admin(broker):
    from confluent_kafka.admin import AdminClient
    return AdminClient({"bootstrap.servers": broker.kafka})


def create(broker, partitions=PARTITIONS, topics=1):
    """New topics: their names, or the name of the only one."""
    from confluent_kafka.admin import NewPartitions, NewTopic
    made, asking = [name() for _ in range(topics)], admin(broker)
    patience = {"operation_timeout": 120, "request_timeout": 120}
    first = min(partitions, PARTITIONS_A_REQUEST)
    at_once = max(PARTITIONS_A_REQUEST // partitions, 1)
    for at in range(0, topics, at_once):
        wanted = [NewTopic(one, first, 1) for one in made[at:at + at_once]]
        for answer in asking.create_topics(wanted, **patience).values():
            answer.result()
    for total in range(first, partitions, PARTITIONS_A_REQUEST):
        more = min(total + PARTITIONS_A_REQUEST, partitions)
        for answer in asking.create_partitions([NewPartitions(one, more) for one in made], **patience).values():
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


def read_only(times=1):
    """A reader that looks at nothing, in one thread over one connection, beside the same bytes over a bare socket."""
    def run(broker, topic):
        connection, total = wire.Connection(broker.kafka), 0
        with Stopwatch() as watch:
            for partition in list(range(PARTITIONS)) * times:
                offset, end = 0, 1
                while offset < end:
                    size, offset, end = connection.fetch(topic, partition, offset, 4 << 20)
                    total += max(size, 0)
        bare = loopback(total)
        return Result({"MB/s": total / watch.seconds / MB, "of bare TCP": total / watch.seconds / bare}, total)
    return run


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
        write_rate, _ = Rdkafka.rate(tool.producer(broker, topic, records, size))
        rate, per_second = Rdkafka.rate(reading)
        return Result({"MB/s": rate, "records/s": per_second, "produce MB/s": write_rate}, records * size)
    return run


def mixed(size, records):
    """All at once: a producer writes, one group reads what it writes, another reads what was written before."""
    backlog = filled(size, records)

    def run(broker, topics):
        (fresh, old), tool = topics, Rdkafka()
        following = tool.consumer(broker, fresh, records)
        tool.assigned(following)
        with Stopwatch() as watch:
            catching_up, writing = tool.consumer(broker, old, records), tool.producer(broker, fresh, records, size)
            rates = [Rdkafka.rate(one)[0] for one in (writing, following, catching_up)]
        figures = dict(zip(("produce MB/s", "tail MB/s", "catch-up MB/s"), rates))
        return Result({"MB/s": 3 * records * size / watch.seconds / MB} | figures, 3 * records * size)
    return {"run": run, "prepare": lambda broker: (create(broker), backlog(broker))}


# Latency.

def latency(rate, seconds):
    """End to end at a fixed rate, or one record at a time, once the broker is warm."""
    def run(broker, topic):
        found = clients("latency", broker.kafka, topic, rate, WARM_SECONDS, seconds)
        return Result({"p50 ms": found["p50_ms"], "p99 ms": found["p99_ms"], "p99.9 ms": found["p999_ms"],
                       "sent late p99 ms": found["late_p99_ms"], "bare TCP p50 ms": found["bare_p50_ms"],
                       "bare TCP p99 ms": found["bare_p99_ms"]}, found["records"] * 1024)
    return {"run": run, "prepare": create, "headline": DELAY}


def acknowledged(rate, seconds, size=1024):
    """Java's: from send until the acknowledgement."""
    def run(broker, topic):
        records = rate * seconds
        _, _, (half, most, nearly_all) = Java.produced(
            Java().producer(broker, topic, records, size, rate, **{"linger.ms": 0}))
        return Result({"p50 ms": half, "p99 ms": most, "p99.9 ms": nearly_all}, records * size)
    return {"run": run, "prepare": create, "headline": DELAY}


# Many of something.

def a_record_each(broker, topics, partitions):
    """One into every partition."""
    import confluent_kafka as ck
    producer = ck.Producer({"bootstrap.servers": broker.kafka, "linger.ms": 5})
    for topic in topics:
        for partition in range(partitions):
            producer.produce(topic, b"x" * 100, partition=partition)
        producer.poll(0)
    if left := producer.flush(300):
        raise Failed(f"{left} records are not acknowledged")


def partitions(count):
    """Topics with 100 partitions each: made, a record into each partition, restarted, asked again. What they take of
    memory is what an idle broker has more than it had before there were any."""
    def run(broker, _):
        def resident_mb():
            meter.quiet(broker.pid)
            return meter.resident_bytes(broker.pid) / MB
        empty = resident_mb()
        with Stopwatch() as creating:
            topics = create(broker, 100, count // 100)
        made = resident_mb()
        with Stopwatch() as producing:
            a_record_each(broker, topics, 100)
        used = resident_mb()
        broker.stop()
        with Stopwatch() as starting:
            broker.spawn()
            broker.acknowledge(topics[-1], 300)
        return Result({"create s": creating.seconds, "idle MB more": made - empty, "produce s": producing.seconds,
                       "used MB more": used - empty, "restart to ack s": starting.seconds,
                       "restarted MB more": resident_mb() - empty})
    return run


def growth(small, large, grow):
    """What a GiB costs the broker to take and to give, before it has grown and after; each time in a topic of its own."""
    def run(broker, _):
        fresh, figures = filled(1024, MIB), {}
        # What is cold in a broker that has just started costs more.
        fresh(broker)
        for kept in (small, large):
            if kept == large:
                grow(broker)
            topic = create(broker)
            for what, work in (("write", lambda: Rdkafka().producer(broker, topic, MIB, 1024)),
                               ("read", lambda: Rdkafka().consumer(broker, topic, MIB))):
                meter.quiet(broker.pid)
                meter.memory_in_hand()
                with meter.Meter(broker.pid) as measured:
                    Rdkafka.rate(work())
                figures[f"{what} CPU-s/GiB, {kept}"] = measured.cost.cpu_seconds
        for what in ("write", "read"):
            figures[f"{what}: times"] = figures[f"{what} CPU-s/GiB, {large}"] / figures[f"{what} CPU-s/GiB, {small}"]
        return Result(figures)
    return {"run": run, "long": True, "headline": ("write: times", "read: times")}


def more_bytes(gib):
    return lambda broker: filled(10_240, (gib << 30) // 10_240)(broker)


def more_partitions(count):
    return lambda broker: a_record_each(broker, create(broker, 100, count // 100), 100)


def connections(count, seconds):
    def run(broker, topic):
        found = clients("connections", broker.kafka, topic, count, seconds)
        return Result({"p50 ms": found["p50_ms"], "p99 ms": found["p99_ms"], "records/s": found["records_per_second"]})
    return {"run": run, "prepare": create, "headline": DELAY}


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
    return {"run": run, "prepare": create, "headline": ("transactions/s", "p99 ms")}


# Starts.

def start_empty(broker, _):
    with Stopwatch() as watch:
        broker.spawn()
        broker.acknowledge("first")
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
                broker.acknowledge(topic)
            figures[column] = watch.seconds * 1000
        return Result(figures)
    return {"run": run, "prepare": prepare, "headline": ("after stop ms", "after kill ms")}


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
    return {"run": run, "prepare": prepare, "headline": ("MB/s", "written/byte")}


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
        Load("produce-10000p", "10,000 partitions", WHOLE, **produce(1024, kib, 10_000), long=True),
        Load("produce-java", "1 KiB by ProducerPerformance", EVERY, **produce_java(1024, n(1_000_000))),
        Load("produce-sync", "every commit synced", SYNCED, **produce(1024, n(200_000))),
        Load("consume-warm", "from the start, just written", EVERY, consume(1024, kib), warm),
        Load("consume-cold", "from the start, after a restart without a page cache", WHOLE, consume(1024, kib), restarted(warm)),
        Load("consume-tail", "while a producer writes", EVERY, tail(1024, kib), create),
        Load("consume-java", "from the start, by ConsumerPerformance", EVERY, consume_java(1024, kib), warm),
        Load("mixed", "a producer, a group that follows it, a group that reads what was written before", EVERY,
             **mixed(1024, n(1_000_000))),
        Load("read-only", "from the start by a client that only reads", EVERY, read_only(), warm),
        Load("read-newest", "the newest 32 MB again and again by a client that only reads", EVERY, read_only(max(int(50 * scale), 4)),
             filled(1024, 32_000)),
        Load("latency-one", "end to end, one record at a time", EVERY, **latency(0, seconds)),
        Load("latency-1k", "end to end at 1,000 records/s", EVERY, **latency(1_000, seconds)),
        Load("latency-10k", "end to end at 10,000 records/s", EVERY, **latency(10_000, seconds)),
        Load("latency-sync", "end to end at 1,000 records/s, every commit synced", SYNCED, **latency(1_000, seconds)),
        Load("ack-10k", "until the acknowledgement, ProducerPerformance at 10,000 records/s", EVERY,
             **acknowledged(10_000, seconds)),
        Load("connections", "1,000 connections, a record a second each", EVERY, **connections(1_000, seconds)),
        Load("transactions", "of 100 records", WHOLE, **transactions(n(2_000) // 2)),
        Load("partitions", "10,000 partitions", WHOLE, partitions(10_000), long=True,
             headline=("create s", "idle MB more", "restart to ack s")),
        Load("growth", "the cost of a GiB when 1 GiB and when 16 GiB are kept", WHOLE,
             **growth("1 GiB", "16 GiB", more_bytes(16))),
        Load("growth-p", "the cost of a GiB beside 16 and beside 10,000 partitions", WHOLE,
             **growth("16 partitions", "10,000 partitions", more_partitions(10_000))),
        Load("start-empty", "from nothing to the first acknowledgement", EVERY, start_empty, unstarted=True,
             headline=("to ack ms", "idle MB")),
        Load("start-full", "1,000 partitions and 10 GiB", WHOLE, **start_full(10), long=True),
        Load("soak", "32 GiB written, 2 GiB kept", WHOLE, **soak(32, 2048), long=True),
    ]
