"""What the jobs of Kafka's ecosystem have in common: programs that run beside the job, and a look at the log with another
client than theirs (librdkafka) for what came of it.

A job is a subclass of `Job` with a list of its steps' names; `run` goes through them. Names of topics are new in every run
where the program lets them be chosen.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

import steps
from steps import Failed, Skip, check, until

SCRATCH = Path(os.environ["SCRATCH"])
BOOTSTRAP = os.environ["BOOTSTRAP"]
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"]
LEAVE_SECONDS = 60
# The broker is killed under every job, which is nothing for librdkafka to complain of.
CLIENT = {"bootstrap.servers": BOOTSTRAP, "reconnect.backoff.max.ms": 500, "log_level": 0}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """A process whose lines of output are collected as they come."""

    def __init__(self, name, arguments, **environment):
        self.name = name
        self.lines = []
        self.errors = SCRATCH / f"{name}.stderr"
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                            text=True, errors="replace", cwd=SCRATCH,
                                            env=dict(os.environ, **environment))
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        with open(SCRATCH / f"{self.name}.stdout", "a", encoding="utf-8") as copy:
            for line in self.process.stdout:
                self.lines.append(line.rstrip("\n"))
                copy.write(line)
                copy.flush()

    def running(self):
        return self.process.poll() is None

    def said(self, pattern, since=0):
        """The lines from number `since` on that the pattern is found in."""
        return [line for line in self.lines[since:] if re.search(pattern, line)]

    def last_words(self):
        words = self.errors.read_text(errors="replace").splitlines()[-2:]
        return " ".join(words or self.lines[-2:])[-400:]

    def says(self, pattern, seconds=steps.WAIT_SECONDS, since=0):
        """Waits for such a line."""
        until(lambda: self.said(pattern, since) or not self.running(),
              lambda: f"{self.name} did not say {pattern!r}: {self.last_words()}", seconds=seconds)
        # What it said last may still be on its way when the process has ended.
        if not self.running():
            self.thread.join(5)
        check(self.said(pattern, since), f"{self.name} ended without saying {pattern!r}: {self.last_words()}")

    def ends(self, seconds=steps.WAIT_SECONDS):
        """Waits for the end of its own accord, with status 0."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{self.name} did not end within {seconds} s: {self.last_words()}") from None
        self.thread.join(5)
        check(status == 0, f"{self.name} ended with {status}: {self.last_words()}")

    def leave(self):
        """Asks it to leave, as a service manager would. A JVM ends with 143 then."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{self.name} did not leave within {LEAVE_SECONDS} s: {self.last_words()}") from None
        self.thread.join(5)
        check(status in (0, 143), f"{self.name} left with {status}: {self.last_words()}")

    def kill(self):
        if self.running():
            self.process.kill()
            self.process.wait()
            self.thread.join(5)


class Cluster:
    """The topics of a broker and what lies in them, as librdkafka sees it."""

    def __init__(self, bootstrap=BOOTSTRAP):
        self.client_settings = {**CLIENT, "bootstrap.servers": bootstrap}
        self.admin = AdminClient(self.client_settings)

    def create(self, topic, partitions=steps.PARTITIONS, **config):
        config = {key.replace("__", "."): str(value) for key, value in config.items()}
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)
        return topic

    def topics(self):
        return self.admin.list_topics(timeout=30).topics

    def delete(self, *topics):
        """Deletes those that there are, and returns when metadata has none of them."""
        there = [topic for topic in topics if topic in self.topics()]
        if there:
            for done in self.admin.delete_topics(there).values():
                done.result(30)
            until(lambda: not set(there) & set(self.topics()), f"{there} were deleted and are listed")

    def config(self, topic):
        resource = ConfigResource(ck.admin.RESOURCE_TOPIC, topic)
        return {name: entry.value for name, entry in self.admin.describe_configs([resource])[resource].result(30).items()}

    def produce(self, topic, pairs, partition=None):
        """Writes (key, value) in order, to one partition or by key."""
        refused = []
        producer = ck.Producer({**self.client_settings, "enable.idempotence": True, "linger.ms": 5})
        place = {} if partition is None else {"partition": partition}
        for key, value in pairs:
            while True:
                try:
                    producer.produce(topic, key=key, value=value, **place,
                                     on_delivery=lambda error, _: refused.append(error) if error else None)
                    break
                except BufferError:
                    producer.poll(0.1)
        check(producer.flush(60) == 0 and not refused, f"records for {topic} were refused: {refused[:1]}")

    def read(self, topic, committed=True):
        """Everything in the topic up to its end (of what is committed), by partition as [(offset, key, value)]."""
        consumer = ck.Consumer({**self.client_settings, "group.id": "compat-reads",
                                "enable.auto.commit": False, "enable.partition.eof": True,
                                "isolation.level": "read_committed" if committed else "read_uncommitted"})
        found, left = defaultdict(list), set(self.topics()[topic].partitions)
        try:
            consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING) for partition in left])
            end = time.monotonic() + steps.WAIT_SECONDS
            while left:
                check(time.monotonic() < end, f"{topic} was not read to its end: partitions {sorted(left)} are left")
                for message in consumer.consume(1000, 0.5):
                    error = message.error()
                    if not error:
                        found[message.partition()].append((message.offset(), message.key(), message.value()))
                    elif error.code() == ck.KafkaError._PARTITION_EOF:
                        left.discard(message.partition())
                    else:
                        raise Failed(f"reading {topic}: {error}")
        finally:
            consumer.close()
        return found

    def values(self, topic, committed=True):
        return [value for records in self.read(topic, committed).values() for _, _, value in records]

    def count(self, topic, committed=True):
        return len(self.values(topic, committed))

    def reader(self, group="compat-reads"):
        return ck.Consumer({**self.client_settings, "group.id": group, "enable.auto.commit": False})

    def partitions(self, topic):
        return [ck.TopicPartition(topic, partition) for partition in sorted(self.topics()[topic].partitions)]

    def ends(self, topic):
        """Where each partition ends."""
        reader = self.reader()
        try:
            return {one.partition: reader.get_watermark_offsets(one, 30)[1] for one in self.partitions(topic)}
        finally:
            reader.close()

    def committed(self, group, topic):
        """The group's offsets, 0 where it has none."""
        reader = self.reader(group)
        try:
            return {one.partition: max(one.offset, 0) for one in reader.committed(self.partitions(topic), 30)}
        finally:
            reader.close()

    def commit(self, group, topic, offsets):
        reader = self.reader(group)
        try:
            reader.commit(offsets=[ck.TopicPartition(topic, n, offset) for n, offset in offsets.items()],
                          asynchronous=False)
        finally:
            reader.close()


class Job(Cluster, steps.Steps):
    def __init__(self, name):
        Cluster.__init__(self)
        steps.Steps.__init__(self, type("Name", (), {"name": name}), BOOTSTRAP, os.environ.get("RESTART"))
        self.programs = []

    # Programs.

    def start(self, name, arguments, **environment):
        program = Program(f"{len(self.programs)}-{name}", arguments, **environment)
        self.programs.append(program)
        return program

    def java(self, name, main, *arguments, heap=256, options=()):
        return self.start(name, [*JAVA, f"-Xmx{heap}m", *options, "-cp", os.environ["CLASSPATH_OF_JOB"], main,
                                 *map(str, arguments)])

    def end_programs(self):
        for program in self.programs:
            program.kill()

    def restart(self, how="kill"):
        """Ends the broker and starts it again on the same data."""
        if not self.restart_command:
            raise Skip("this broker can't be restarted")
        done = subprocess.run(shlex.split(self.restart_command) + [how], stdin=subprocess.DEVNULL, cwd=SCRATCH)
        check(done.returncode == 0, "the broker did not come back")

    @staticmethod
    def properties(file, /, **settings):
        """A file of settings, with the dots of their names written as two underscores."""
        path = SCRATCH / file
        path.write_text("".join(f"{key.replace('__', '.')}={value}\n" for key, value in settings.items()))
        return path

    @staticmethod
    def once(what, wanted, got):
        """That `got` holds each of `wanted` once and nothing else, in whatever order."""
        times = defaultdict(int)
        for value in got:
            times[value] += 1
        missing = [value for value in wanted if value not in times]
        check(not missing, f"{what}: {len(missing)} of {len(wanted)} are missing, the first {missing[:3]}")
        again = [value for value, count in times.items() if count > 1]
        check(not again, f"{what}: {len(again)} of {len(wanted)} are there twice, the first {again[:3]}")
        check(len(times) == len(wanted), f"{what}: {len(times) - len(wanted)} are there that were not sent")

    def all(self, names):
        for name in sys.argv[1:] or names:
            try:
                self.step(name, getattr(self, name.replace("-", "_")))
            finally:
                self.end_programs()


def run(job, version, names):
    """Goes through the steps and ends the process."""
    print(f"version {version}", flush=True)
    steps.STEP_SECONDS = 300
    try:
        job.all(names)
    finally:
        job.end_programs()
    sys.stdout.flush()
    os._exit(1 if job.failed else 0)


def version_of(jar):
    """The version of a jar on the class path by its artifact's name."""
    libs = Path(os.environ["CLASSPATH_OF_JOB"].split(":")[-1].removesuffix("/*"))
    names = (re.fullmatch(rf"{re.escape(jar)}-([0-9.]+)\.jar", path.name) for path in libs.iterdir())
    return next(name.group(1) for name in names if name)
