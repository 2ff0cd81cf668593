"""MirrorMaker 2, exactly once and both ways, between an Apache Kafka broker of the job's own and the broker under test, which
is killed in the middle."""

import time

import confluent_kafka as ck

import jobs
from jobs import BOOTSTRAP, SCRATCH, check, until

STEPS = ("from-kafka", "to-kafka", "configs", "groups", "restart")
RECORDS = 2000
LOGGING = ("-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients=error",)


class Mirror(jobs.Job):
    def __init__(self):
        super().__init__("mirror")
        self.port = jobs.free_port()
        self.kafka = f"127.0.0.1:{self.port}"
        self.other = jobs.Cluster(self.kafka)
        self.maker = None
        self.sent = {}

    # The two programs.

    def start_kafka(self):
        controller = jobs.free_port()
        config = self.properties(
            "kafka.properties", process__roles="broker,controller", node__id=1,
            controller__quorum__voters=f"1@127.0.0.1:{controller}",
            listeners=f"PLAINTEXT://{self.kafka},CONTROLLER://127.0.0.1:{controller}",
            advertised__listeners=f"PLAINTEXT://{self.kafka}", controller__listener__names="CONTROLLER",
            inter__broker__listener__name="PLAINTEXT", log__dirs=SCRATCH / "kafka-data",
            offsets__topic__replication__factor=1, offsets__topic__num__partitions=2,
            transaction__state__log__replication__factor=1, transaction__state__log__min__isr=1,
            transaction__state__log__num__partitions=2, group__initial__rebalance__delay__ms=0,
            num__network__threads=1, num__io__threads=2, log__cleaner__dedupe__buffer__size=4000000)
        self.java("format", "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", config).ends()
        kafka = self.java("kafka", "kafka.Kafka", config, heap=384, options=LOGGING)

        def answers():
            try:
                return bool(self.other.topics() is not None)
            except ck.KafkaException:
                return False
        until(lambda: answers() or not kafka.running(), lambda: f"Apache Kafka does not answer: {kafka.last_words()}")

    def start_maker(self):
        one = {f"{link}.{setting}": value for link in ("kafka->ours", "ours->kafka") for setting, value in (
            ("enabled", "true"), ("topics", f"mirror-.*-{self.run_id}"), ("groups", f"mirror-.*-{self.run_id}"),
            ("sync.group.offsets.enabled", "true"), ("sync.group.offsets.interval.seconds", 1),
            ("emit.checkpoints.interval.seconds", 1), ("refresh.topics.interval.seconds", 2),
            ("refresh.groups.interval.seconds", 2), ("sync.topic.configs.interval.seconds", 2),
            ("emit.heartbeats.interval.seconds", 1), ("offset.lag.max", 10))}
        each = {f"{name}.{setting}": value for name, bootstrap in (("kafka", self.kafka), ("ours", BOOTSTRAP))
                for setting, value in (("bootstrap.servers", bootstrap), ("exactly.once.source.support", "enabled"),
                                       ("session.timeout.ms", 6000), ("heartbeat.interval.ms", 1000),
                                       ("offset.storage.partitions", 2), ("status.storage.partitions", 2))}
        factors = {f"{what}replication.factor": 1 for what in (
            "", "checkpoints.topic.", "heartbeats.topic.", "offset-syncs.topic.", "offset.storage.", "config.storage.",
            "status.storage.")}
        config = self.properties("mirror-maker.properties", **{
            "clusters": "kafka,ours", "dedicated.mode.enable.internal.rest": "true", "listeners": "http://127.0.0.1:0",
            "tasks.max": 2, "offset.flush.interval.ms": 500, "scheduled.rebalance.max.delay.ms": 0,
            **one, **each, **factors})
        return self.java("mirror-maker", "org.apache.kafka.connect.mirror.MirrorMaker", config, heap=384,
                         options=LOGGING)

    # The steps.

    def mirrored(self, source, target, alias):
        """What is written to one cluster arrives in the other's topic of the alias's name, once and in order."""
        topic = source.create(self.topic(f"from-{alias}"), 2)
        source.produce(topic, [(f"k{n % 20}", str(n)) for n in range(RECORDS)])
        self.sent[alias] = RECORDS
        if not self.maker:
            self.maker = self.start_maker()
        self.arrives(source, target, alias, topic)

    def arrives(self, source, target, alias, topic, seconds=90):
        copy = f"{alias}.{topic}"
        until(lambda: copy in target.topics() and target.count(copy) >= self.sent[alias],
              lambda: f"{copy} has {target.count(copy) if copy in target.topics() else 'not been made'} "
              f"of {self.sent[alias]}: {self.maker.last_words()}", lambda: time.sleep(0.5), seconds)
        original, copied = source.read(topic), target.read(copy)
        for partition, records in original.items():
            wanted = [(key, value) for _, key, value in records]
            got = [(key, value) for _, key, value in copied[partition]]
            self.once(f"{copy} partition {partition}", wanted, got)
            check(wanted == got, f"{copy} partition {partition} has lost the order")

    def from_kafka(self):
        self.start_kafka()
        self.mirrored(self.other, self, "kafka")

    def to_kafka(self):
        check(self.maker, "the step before failed")
        self.mirrored(self, self.other, "ours")

    def configs(self):
        """A topic's settings go along, and MirrorMaker keeps what it knows in compacted topics."""
        check(self.maker, "the first step failed")
        topic = self.create(self.topic("compacted"), 1, cleanup__policy="compact", max__message__bytes=123456)
        copy = f"ours.{topic}"
        until(lambda: copy in self.other.topics(), f"{copy} is not made", lambda: time.sleep(0.5))
        until(lambda: self.other.config(copy)["cleanup.policy"] == "compact"
              and self.other.config(copy)["max.message.bytes"] == "123456",
              lambda: f"{copy} has other settings: {self.other.config(copy)['cleanup.policy']}", lambda: time.sleep(0.5))
        own = [topic for topic in self.topics() if topic.startswith(("mm2-", "kafka.checkpoints.internal"))]
        check(any("offsets" in topic for topic in own), f"MirrorMaker's own topics are {own}")
        policies = {topic: self.config(topic)["cleanup.policy"] for topic in own}
        check(set(policies.values()) == {"compact"}, f"MirrorMaker's own topics have the policies {policies}")

    def groups(self):
        """A group's offsets are translated into the other cluster's, both ways. MirrorMaker promises that nothing is skipped,
        and remembers only some places exactly, so a little may be read again."""
        check(len(self.sent) == 2, "a step before failed")
        for source, target, alias in ((self.other, self, "kafka"), (self, self.other, "ours")):
            topic, group = self.topic(f"from-{alias}"), self.group(f"group-{alias}")
            source.commit(group, topic, source.ends(topic))
            copy = f"{alias}.{topic}"
            log = target.read(copy)

            def left():
                at = target.committed(group, copy)
                return sum(offset >= at[partition] for partition, records in log.items() for offset, _, _ in records)
            until(lambda: left() <= RECORDS // 10,
                  lambda: f"{group} is at {target.committed(group, copy)} in {copy}, {left()} records before its end; "
                  f"{self.maker.last_words()}", lambda: time.sleep(0.5))

    def restart(self, how="kill"):
        """The broker is killed while records come and go; then both copies hold each record once."""
        check(len(self.sent) == 2, "a step before failed")
        both = ((self.other, self, "kafka"), (self, self.other, "ours"))
        for part in range(3):
            for source, _, alias in both:
                first = self.sent[alias]
                source.produce(self.topic(f"from-{alias}"), [(f"k{n % 20}", str(n)) for n in range(first, first + 500)])
                self.sent[alias] += 500
            if part == 1:
                super().restart(how)
        for source, target, alias in both:
            self.arrives(source, target, alias, self.topic(f"from-{alias}"), 120)
        self.maker.leave()

    def all(self, names):
        for name in names:
            self.step(name, getattr(self, name.replace("-", "_")))


if __name__ == "__main__":
    jobs.run(Mirror(), f"MirrorMaker {jobs.version_of('connect-mirror')}", STEPS)
