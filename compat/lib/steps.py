"""The steps that every client goes through, for clients with a Python binding.

A client's script brings an adapter and calls `run`. The adapter gives `name`, `version`, `codecs` (names as
in Kafka's `compression.type`) and

    metadata() -> ([(host, port)], {topic: partitions})
    create(topic, partitions, config)      raises Exists
    config(topic) -> {name: value}, or None when the client cannot ask
    delete(topic)                          raises Unknown
    producer(codec) -> send(topic, record), flush() -> [(partition, offset)] in the order of sending, close()
    consumer(topic, group) -> a Consumer, see below
    close()

A consumer with a group subscribes and never commits by itself; without one it is assigned every partition
from its beginning. It has

    poll(seconds) -> [Record]              also keeps its membership alive
    assignment() -> {partition}
    commit({partition: offset}), committed() -> {partition: offset}
    offsets_for_time(milliseconds) -> {partition: offset or None}
    seek({partition: offset})
    close()                                leaves the group

Every wait is bounded, and a whole step is as well: a client that hangs fails its step, not the run.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections import defaultdict
from dataclasses import dataclass, field, replace

STEP_SECONDS = 120
WAIT_SECONDS = 60
PARTITIONS = 4
RECORDS = 400
FIRST_TIMESTAMP = int(time.time() * 1000) - 3_600_000
APART_MS = 1000


class Exists(Exception):
    """The topic is there already."""


class Unknown(Exception):
    """There is no such topic."""


class Failed(Exception):
    """A step's own finding."""


class Skip(Exception):
    """The client has no way to do this step."""


class TooLong(BaseException):
    """The step's time is over. Not an Exception, so that no client's retry loop takes it for its own."""


@dataclass
class Record:
    key: bytes | None
    value: bytes | None
    headers: list = field(default_factory=list)
    timestamp: int | None = None
    partition: int | None = None
    offset: int | None = None


def records(count=RECORDS, label="r"):
    """Records of every shape, spread over the partitions; the header `n` numbers them."""
    made = []
    for n in range(count):
        key = None if n % 50 == 7 else f"{label}-{n}".encode()
        value = None if n % 50 == 13 else bytes((n * 7 + i) % 251 for i in range((n * 37) % 1500)) + b"x" * (n % 90)
        headers = [("n", f"{label}{n}".encode())]
        if n % 5 == 0:
            headers += [("empty", b""), ("twice", b"\x00\xff"), ("twice", b"b")]
        made.append(Record(key, value, headers, FIRST_TIMESTAMP + n * APART_MS, n % PARTITIONS))
    return made


def number(record):
    return dict(record.headers)["n"].decode()


def check(holds, otherwise):
    if not holds:
        raise Failed(otherwise)


def short(record):
    size = "null" if record.value is None else f"{len(record.value)} bytes"
    return (f"[{record.partition}@{record.offset} key={record.key!r} value={size} "
            f"headers={record.headers!r} timestamp={record.timestamp}]")


def check_equal(sent, got):
    """That `got` holds exactly what was sent, in order within each partition, at offsets without a gap."""
    by_partition = defaultdict(list)
    for record in got:
        by_partition[record.partition].append(record)
    wanted = defaultdict(list)
    for record in sent:
        wanted[record.partition].append(record)
    check(len(got) == len(sent), f"sent {len(sent)} records and read {len(got)}")
    for partition, expected in wanted.items():
        check(len(by_partition[partition]) == len(expected),
              f"partition {partition} got {len(expected)} records and gave {len(by_partition[partition])}")
        for i, (one, other) in enumerate(zip(expected, by_partition[partition])):
            check(other.offset == i, f"partition {partition} has offset {other.offset} at place {i}")
            check(replace(one, offset=None) == replace(other, offset=None), f"sent {short(one)} and read {short(other)}")


def until(condition, what, act=lambda: time.sleep(0.05), seconds=WAIT_SECONDS):
    """Acts until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"within {seconds} s: {what() if callable(what) else what}")
        act()


class Steps:
    def __init__(self, client, bootstrap, restart):
        self.client = client
        self.bootstrap = bootstrap
        self.restart_command = restart
        self.run_id = uuid.uuid4().hex[:8]
        self.produced = {}
        self.failed = False

    def topic(self, name):
        return f"{self.client.name}-{name}-{self.run_id}"

    group = topic

    def step(self, name, action, *arguments):
        """Runs one step and reports it, whatever happens in it."""
        def alarm(*_):
            raise TooLong
        signal.signal(signal.SIGALRM, alarm)
        signal.alarm(STEP_SECONDS)
        try:
            action(*arguments)
            line = f"ok {name}"
        except Skip as why:
            line = f"skip {name}: {why}"
        except TooLong:
            self.failed = True
            line = f"FAIL {name}: not done within {STEP_SECONDS} s"
            traceback.print_exc()
        except Exception as error:
            self.failed = True
            kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
            line = f"FAIL {name}: {kind}{' '.join(str(error).split())[:600]}"
            traceback.print_exc()
        finally:
            signal.alarm(0)
        print(line, flush=True)

    def produce(self, topic, batch, codec="none"):
        producer = self.client.producer(codec)
        try:
            for record in batch:
                producer.send(topic, record)
            return producer.flush()
        finally:
            producer.close()

    def read(self, consumer, count, into=None):
        """Polls until `count` records are there; then once more, so that a record too many shows."""
        got = [] if into is None else into
        until(lambda: len(got) >= count, lambda: f"read {len(got)} of {count} records",
              lambda: got.extend(consumer.poll(0.5)))
        got.extend(consumer.poll(0.3))
        return got

    def read_all(self, topic, count):
        consumer = self.client.consumer(topic, None)
        try:
            return self.read(consumer, count)
        finally:
            consumer.close()

    # The steps.

    def metadata(self):
        brokers, topics = self.client.metadata()
        port = int(self.bootstrap.rsplit(":", 1)[1])
        check(any(p == port for _, p in brokers), f"no broker with port {port} among {brokers}")
        check(self.topic("none") not in topics, "lists a topic that nobody made")

    def create(self):
        topic = self.topic("create")
        self.client.create(topic, PARTITIONS, {"retention.ms": "86400000"})
        until(lambda: self.client.metadata()[1].get(topic) == PARTITIONS,
              lambda: f"metadata says {self.client.metadata()[1].get(topic)} partitions instead of {PARTITIONS}")
        config = self.client.config(topic)
        if config is not None:
            check(config.get("retention.ms") == "86400000", f"retention.ms is described as {config.get('retention.ms')!r}")
        try:
            self.client.create(topic, PARTITIONS, {})
        except Exists:
            return
        raise Failed("a second creation was not refused")

    def produce_with(self, codec):
        topic = self.topic(codec)
        self.client.create(topic, PARTITIONS, {})
        batch = records()
        places = self.produce(topic, batch, codec)
        check(len(places) == len(batch), f"{len(batch)} records sent, {len(places)} acknowledged")
        following = defaultdict(int)
        for record, (partition, offset) in zip(batch, places):
            check(partition == record.partition, f"sent to partition {record.partition}, acknowledged in {partition}")
            check(offset == following[partition], f"acknowledged offset {offset} instead of {following[partition]}")
            following[partition] += 1
        self.produced[codec] = (topic, batch)

    def consume_start(self):
        check(self.produced, "nothing was produced")
        for codec, (topic, batch) in self.produced.items():
            try:
                check_equal(batch, self.read_all(topic, len(batch)))
            except Failed as why:
                raise Failed(f"{codec}: {why}") from None

    def consume_timestamp(self):
        check("none" in self.produced, "nothing was produced")
        topic, batch = self.produced["none"]
        consumer = self.client.consumer(topic, None)
        try:
            middle = FIRST_TIMESTAMP + RECORDS // 2 * APART_MS
            for at in (middle, middle + 1):
                wanted = {p: next(i for i, r in enumerate(r for r in batch if r.partition == p) if r.timestamp >= at)
                          for p in range(PARTITIONS)}
                offsets = consumer.offsets_for_time(at)
                check(offsets == wanted, f"offsets for {at} are {offsets} instead of {wanted}")
            # The loop's last answer is for the later time, which no record has exactly.
            later = [r for r in batch if r.timestamp > middle]
            consumer.seek(offsets)
            got = self.read(consumer, len(later))
            check(sorted(map(number, got)) == sorted(map(number, later)),
                  f"read {len(got)} records from the timestamp on instead of {len(later)}")
            after = consumer.offsets_for_time(FIRST_TIMESTAMP + RECORDS * APART_MS * 2)
            check(all(after.get(p) is None for p in range(PARTITIONS)), f"offsets after the last record: {after}")
        finally:
            consumer.close()

    def group_step(self):
        topic, group = self.topic("group"), self.group("group")
        everything = set(range(PARTITIONS))
        self.client.create(topic, PARTITIONS, {})
        members = [self.client.consumer(topic, group)]
        got = []

        def poll():
            for member in members:
                got.extend(member.poll(0.1))

        def shares():
            return [member.assignment() for member in members]

        def shared():
            parts = shares()
            return all(parts) and set().union(*parts) == everything and sum(map(len, parts)) == PARTITIONS

        try:
            until(shared, lambda: f"the first member has {shares()}", poll)
            members.append(self.client.consumer(topic, group))
            until(shared, lambda: f"two members have {shares()}", poll)
            first = records(200, "a")
            self.produce(topic, first)
            until(lambda: len(got) >= 200, lambda: f"two members read {len(got)} of 200 records", poll)
            # Both commit what they have read: after the rebalance every partition goes on from there.
            following = {p: sum(r.partition == p for r in got) for p in everything}
            for member in members:
                member.commit({p: following[p] for p in member.assignment()})
            members.pop(0).close()
            until(shared, lambda: f"the remaining member has {shares()}", poll)
            second = records(200, "b")
            self.produce(topic, second)
            until(lambda: len(got) >= 400, lambda: f"the remaining member read up to {len(got)} of 400 records", poll)
            poll()
            check(sorted(map(number, got)) == sorted(map(number, first + second)),
                  f"400 records were delivered as {len(got)}, {len(set(map(number, got)))} of them different")
        finally:
            for member in members:
                member.close()

    def commit(self):
        topic, group = self.topic("commit"), self.group("commit")
        self.client.create(topic, PARTITIONS, {})
        batch = records()
        self.produce(topic, batch)
        member = self.client.consumer(topic, group)
        try:
            check(not member.committed(), f"a new group has offsets: {member.committed()}")
            self.read(member, len(batch))
            places = {p: 30 + p for p in range(PARTITIONS)}
            member.commit(places)
            check(member.committed() == places, f"committed {places} and read back {member.committed()}")
        finally:
            member.close()
        self.check_resumes(topic, group, places, batch)

    def check_resumes(self, topic, group, places, batch):
        """That a new member of the group is given exactly what lies after the committed places."""
        member = self.client.consumer(topic, group)
        try:
            left = len(batch) - sum(places.values())
            got = self.read(member, left)
            check(member.committed() == places, f"committed {places}, now {member.committed()}")
        finally:
            member.close()
        check(len(got) == left, f"{left} records lie after the commit, {len(got)} were delivered")
        for partition, place in places.items():
            offsets = [r.offset for r in got if r.partition == partition]
            check(offsets == list(range(place, place + len(offsets))),
                  f"partition {partition} was committed at {place} and went on at {offsets[:5]}")

    def restart(self):
        if not self.restart_command:
            raise Skip("this broker can't be restarted")
        topic, group = self.topic("restart"), self.group("restart")
        self.client.create(topic, PARTITIONS, {})
        batch = records(600, "s")
        before, during, after = batch[:200], batch[200:400], batch[400:]
        producer = self.client.producer("none")
        places = {p: 40 + p for p in range(PARTITIONS)}
        stays = self.client.consumer(topic, group + "-stays")
        try:
            for record in before:
                producer.send(topic, record)
            check(len(producer.flush()) == 200, "not all of the first 200 records were acknowledged")
            member = self.client.consumer(topic, group)
            try:
                self.read(member, 200)
                member.commit(places)
            finally:
                member.close()
            seen = self.read(stays, 200)
            # These are on their way, acknowledged or not, when the broker is killed.
            for record in during:
                producer.send(topic, record)
            done = subprocess.run(shlex.split(self.restart_command) + ["kill"], stdin=subprocess.DEVNULL)
            check(done.returncode == 0, "the broker did not come back")
            for record in after:
                producer.send(topic, record)
            acknowledged = producer.flush()
            check(len(acknowledged) == 400, f"{len(acknowledged)} of 400 records sent around the restart were acknowledged")
            # A member that lived through the restart goes on. It may be given again what it did not commit.
            until(lambda: len({(r.partition, r.offset) for r in seen}) >= 600,
                  lambda: f"the member that stayed saw {len({(r.partition, r.offset) for r in seen})} of 600 records",
                  lambda: seen.extend(stays.poll(0.5)))
        finally:
            stays.close()
            producer.close()
        check_equal(batch, self.read_all(topic, len(batch)))
        self.check_resumes(topic, group, places, batch)

    def delete(self):
        topic = self.topic("delete")
        self.client.create(topic, PARTITIONS, {})
        self.produce(topic, records(20))
        self.client.delete(topic)
        until(lambda: topic not in self.client.metadata()[1], "metadata still lists the topic")
        try:
            self.client.delete(topic)
        except Unknown:
            return
        raise Failed("a second deletion was not refused")

    def all(self, also=None):
        print(f"version {self.client.version}", flush=True)
        self.step("metadata", self.metadata)
        if self.failed:
            # Without a connection every further step would only wait for its own time to run out.
            return
        self.step("create", self.create)
        for codec in self.client.codecs:
            self.step(f"produce-{codec}", self.produce_with, codec)
        self.step("consume-start", self.consume_start)
        self.step("consume-timestamp", self.consume_timestamp)
        self.step("group", self.group_step)
        self.step("commit", self.commit)
        self.step("restart", self.restart)
        self.step("delete", self.delete)
        for name, action in (also or {}).items():
            self.step(name, action, self)


def run(make_client, also=None):
    """Runs all steps with the client that `make_client(bootstrap)` gives, and those that are this client's alone: `also`,
    functions by name that are given these steps. Ends the process."""
    bootstrap = os.environ["BOOTSTRAP"]
    steps = Steps(make_client(bootstrap), bootstrap, os.environ.get("RESTART"))
    steps.all(also)
    sys.stdout.flush()
    # Not sys.exit: a client's background threads, after a failed step, must not keep the process.
    os._exit(1 if steps.failed else 0)
