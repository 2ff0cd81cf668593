"""kcat, as a person at a shell uses it: its own versions of the steps, since kcat has no API, cannot set a
timestamp, and makes topics only by writing to them."""

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time

import steps
from steps import check, until

ASSIGNED = re.compile(r"rebalanced \(memberid [^)]*\): assigned: (.*)$")


def kcat(bootstrap, *arguments, text="", seconds=60):
    done = subprocess.run(["kcat", "-b", bootstrap, *arguments], input=text, capture_output=True, text=True,
                          timeout=seconds)
    check(done.returncode == 0, f"kcat {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def lines(count, label):
    """`key:value` lines; an empty side is sent as null."""
    made = []
    for n in range(count):
        key = "" if n % 50 == 7 else f"{label}-{n}"
        value = "" if n % 50 == 13 else f"{label}{n} é " + "x" * ((n * 37) % 1500)
        made.append((key, value))
    return made


def as_text(pairs):
    return "".join(f"{key}:{value}\n" for key, value in pairs)


def pairs_of(records):
    return [(r["key"] or "", r["payload"] or "") for r in records]


def check_same(sent, got):
    """That the log holds each pair once, nulls as nulls, in order and without a gap in each partition."""
    check(sorted(pairs_of(got)) == sorted(sent), f"sent {len(sent)} records and read {len(got)}, or others")
    place = {pair: n for n, pair in enumerate(sent)}
    last, following = {}, {}
    for record, pair in zip(got, pairs_of(got)):
        partition = record["partition"]
        check(record["key"] != "" and record["payload"] != "", f"a null came back as empty: {record}")
        check(record["offset"] == following.get(partition, 0), f"a gap before {partition}@{record['offset']}")
        following[partition] = record["offset"] + 1
        # Pairs that occur twice (null keys with null values) have no place of their own.
        if pair != ("", ""):
            check(place[pair] > last.get(partition, -1), f"out of order at {partition}@{record['offset']}")
            last[partition] = place[pair]


class Member:
    """A `kcat -G` process."""

    def __init__(self, bootstrap, group, topic, *more):
        self.records = []
        self.assigned = set()
        self.process = subprocess.Popen(
            ["kcat", "-b", bootstrap, "-J", "-u", "-E", "-X", "auto.offset.reset=earliest",
             "-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=500", *more, "-G", group, topic],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.threads = [threading.Thread(target=t, daemon=True) for t in (self.take_records, self.take_notes)]
        for thread in self.threads:
            thread.start()

    def take_records(self):
        for line in self.process.stdout:
            self.records.append(json.loads(line))

    def take_notes(self):
        for line in self.process.stderr:
            found = ASSIGNED.search(line)
            if found:
                self.assigned = {int(p) for p in re.findall(r"\[(\d+)\]", found.group(1))}
            elif ": revoked: " in line:
                self.assigned = set()

    def leave(self):
        self.process.send_signal(signal.SIGTERM)
        self.ended()

    def ended(self):
        status = self.process.wait(30)
        for thread in self.threads:
            thread.join(10)
        check(status == 0, f"a member ended with {status}")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Kcat:
    name = "kcat"
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        said = subprocess.run(["kcat", "-V"], capture_output=True, text=True).stdout
        self.version = " ".join(re.findall(r"Version (\S+) \(.*(librdkafka \S+)", said)[0])


class KcatSteps(steps.Steps):
    def kcat(self, *arguments, **more):
        return kcat(self.bootstrap, *arguments, **more)

    def send(self, topic, pairs, *more):
        self.kcat("-P", "-t", topic, "-K", ":", "-Z", "-X", "acks=all", "-X", "enable.idempotence=true", *more,
                  text=as_text(pairs))

    def listed(self):
        known = json.loads(self.kcat("-L", "-J"))
        return known["brokers"], {t["topic"]: len(t["partitions"]) for t in known["topics"]}

    def log(self, topic, *more):
        out = self.kcat("-C", "-t", topic, "-e", "-q", "-J", *(more or ("-o", "beginning")))
        return [json.loads(line) for line in out.splitlines()]

    def metadata(self):
        brokers, topics = self.listed()
        port = self.bootstrap.rsplit(":", 1)[1]
        check(any(b["name"].endswith(f":{port}") for b in brokers), f"no broker with port {port} among {brokers}")
        check(self.topic("none") not in topics, "lists a topic that nobody made")

    def create(self):
        topic = self.topic("create")
        self.send(topic, [("a", "b")])
        check(self.listed()[1].get(topic) == steps.PARTITIONS, f"the topic is listed as {self.listed()[1].get(topic)}")

    def produce_with(self, codec):
        topic = self.topic(codec)
        pairs = lines(400, codec)
        self.send(topic, pairs, "-z", codec, "-H", "codec=" + codec, "-H", "codec=again", "-H", "bare")
        self.produced[codec] = (topic, pairs)

    def consume_start(self):
        check(self.produced, "nothing was produced")
        for codec, (topic, pairs) in self.produced.items():
            got = self.log(topic)
            check_same(pairs, got)
            for record in got:
                check(record["headers"] == ["codec", codec, "codec", "again", "bare", None],
                      f"{codec}: headers {record['headers']}")
                check(record["tstype"] == "create" and abs(record["ts"] / 1000 - time.time()) < 600,
                      f"{codec}: timestamp {record['tstype']} {record['ts']}")

    def consume_timestamp(self):
        topic = self.topic("timestamp")
        first, second = lines(100, "first"), lines(100, "second")
        self.send(topic, first)
        earlier = max(r["ts"] for r in self.log(topic))
        until(lambda: time.time() * 1000 > earlier + 1, "the clock goes on")
        self.send(topic, second)
        got = self.log(topic, "-o", f"s@{earlier + 1}")
        check(sorted(pairs_of(got)) == sorted(second), f"{len(got)} records from the timestamp on instead of 100")
        for partition in range(steps.PARTITIONS):
            at = min((r["offset"] for r in got if r["partition"] == partition), default=None)
            said = self.kcat("-Q", "-t", f"{topic}:{partition}:{earlier + 1}").strip()
            if at is not None:
                check(said == f"{topic} [{partition}] offset {at}", f"queried the offset {at} and got {said!r}")

    def group_step(self):
        topic, group = self.topic("group"), self.group("group")
        everything = set(range(steps.PARTITIONS))
        self.send(topic, [("made", "by writing")])
        members = [Member(self.bootstrap, group, topic)]
        every = list(members)

        def shared():
            parts = [m.assigned for m in members]
            return all(parts) and set().union(*parts) == everything and sum(map(len, parts)) == len(everything)

        def count():
            return sum(len(m.records) for m in every)

        def state():
            return f"members have {[m.assigned for m in members]} and {count()} records"

        try:
            until(shared, state)
            members.append(Member(self.bootstrap, group, topic))
            every = list(members)
            until(shared, state)
            first, second = lines(200, "a"), lines(200, "b")
            self.send(topic, first)
            until(lambda: count() >= 201, state)
            members.pop(0).leave()
            until(shared, state)
            self.send(topic, second)
            until(lambda: count() >= 401, state)
            members[0].leave()
            got = [pair for m in every for pair in pairs_of(m.records)]
            wanted = [("made", "by writing"), *first, *second]
            check(sorted(got) == sorted(wanted), f"{len(wanted)} records were delivered as {len(got)}")
        finally:
            for member in every:
                member.stop()

    def members_in_turn(self, topic, group, pairs, first):
        """One member takes `first` records, commits as it closes, and the next gets the rest."""
        one = Member(self.bootstrap, group, topic, "-c", str(first))
        two = None
        try:
            one.ended()
            check(len(one.records) == first, f"asked for {first} records and got {len(one.records)}")
            two = self.rest(topic, group, pairs, one.records)
        finally:
            for member in (one, two):
                if member:
                    member.stop()

    def rest(self, topic, group, pairs, taken):
        two = Member(self.bootstrap, group, topic)
        until(lambda: len(two.records) + len(taken) >= len(pairs),
              lambda: f"after {len(taken)} committed records the next member got {len(two.records)} of {len(pairs)}")
        two.leave()
        got = pairs_of(taken) + pairs_of(two.records)
        check(sorted(got) == sorted(pairs), f"{len(pairs)} records were delivered as {len(got)} across the commit")
        return two

    def commit(self):
        topic = self.topic("commit")
        pairs = lines(300, "c")
        self.send(topic, pairs)
        self.members_in_turn(topic, self.group("commit"), pairs, 120)

    def restart(self):
        if not self.restart_command:
            raise steps.Skip("this broker can't be restarted")
        topic, group = self.topic("restart"), self.group("restart")
        pairs = lines(600, "s")
        producer = subprocess.Popen(
            ["kcat", "-b", self.bootstrap, "-P", "-E", "-t", topic, "-K", ":", "-Z", "-X", "acks=all",
             "-X", "enable.idempotence=true"],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        stays = taken = None
        try:
            producer.stdin.write(as_text(pairs[:200]))
            producer.stdin.flush()
            # kcat hands over what it has read in blocks, so how much is there before the restart is its own affair.
            until(lambda: topic in self.listed()[1] and len(self.log(topic)) >= 60, "60 of the first 200 records arrive")
            taken = Member(self.bootstrap, group, topic, "-c", "60")
            taken.ended()
            stays = Member(self.bootstrap, group + "-stays", topic)
            until(lambda: len(stays.records) >= 60, lambda: f"a member read {len(stays.records)} records")
            producer.stdin.write(as_text(pairs[200:400]))
            producer.stdin.flush()
            done = subprocess.run(shlex.split(self.restart_command) + ["kill"], stdin=subprocess.DEVNULL)
            check(done.returncode == 0, "the broker did not come back")
            producer.stdin.write(as_text(pairs[400:]))
            producer.stdin.close()
            check(producer.wait(60) == 0, f"the producer ended with {producer.returncode}")
            # Given again is only what this member had not committed; the set is whole either way.
            until(lambda: len({(r["partition"], r["offset"]) for r in list(stays.records)}) >= 600,
                  lambda: f"the member that stayed saw {len(stays.records)} of 600 records")
            check_same(pairs, self.log(topic))
            self.rest(topic, group, pairs, taken.records).stop()
        finally:
            producer.kill()
            producer.wait()
            for member in (stays, taken):
                if member:
                    member.stop()

    def delete(self):
        raise steps.Skip("kcat deletes no topics")


if __name__ == "__main__":
    bootstrap = os.environ["BOOTSTRAP"]
    run = KcatSteps(Kcat(bootstrap), bootstrap, os.environ.get("RESTART"))
    run.all()
    os._exit(1 if run.failed else 0)
