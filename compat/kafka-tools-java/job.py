"""The programs that Apache Kafka's own system tests run against its brokers: ClientCompatibilityTest, VerifiableProducer,
VerifiableConsumer with both group protocols, VerifiableShareConsumer and TransactionalMessageCopier, with the broker
killed under each but the first."""

import json

import jobs
from jobs import BOOTSTRAP, check, until

RECORDS = 10_000
STEPS = ("compatibility", "producer", "consumer-classic", "consumer-consumer", "share-consumer", "copier",
         "copier-group")


class Tools(jobs.Job):
    def tool(self, name, *arguments):
        return self.java(name, f"org.apache.kafka.tools.{name}", *arguments)

    @staticmethod
    def events(program, name):
        """What a Verifiable... program printed of one kind."""
        lines = [line for line in list(program.lines) if f'"name":"{name}"' in line]
        return [json.loads(line) for line in lines]

    # ClientCompatibilityTest.

    def compatibility(self):
        # The program makes this topic and leaves it.
        self.delete("newtopic")
        topic = self.create(self.topic("compatibility"), 1)
        test = self.tool("ClientCompatibilityTest", "--topic", topic, "--bootstrap-server", BOOTSTRAP,
                         "--offsets-for-times-supported", "true", "--cluster-id-supported", "true",
                         "--expect-record-too-large-exception", "false", "--num-cluster-nodes", 1,
                         "--create-topics-supported", "true", "--describe-acls-supported", "true",
                         "--describe-configs-supported", "true", "--idempotent-producer-supported", "true")
        test.ends()
        check(test.said("^SUCCESS"), f"it did not end with SUCCESS: {test.lines[-3:]}")
        self.delete("newtopic")

    # VerifiableProducer.

    def producer(self):
        topic = self.create(self.topic("producer"))
        # It tries nothing again by itself, so that what was on its way to a killed broker would count as refused.
        config = self.properties("producer", retries=2147483647)
        program = self.tool("VerifiableProducer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--max-messages",
                            RECORDS, "--throughput", 4000, "--repeating-keys", 50, "--command-config", config)
        until(lambda: len(self.events(program, "producer_send_success")) > RECORDS // 3 or not program.running(),
              lambda: f"acknowledged {len(self.events(program, 'producer_send_success'))}")
        check(program.running(), "it had ended before the broker was killed")
        self.restart()
        program.ends()
        refused = self.events(program, "producer_send_error")
        check(not refused, f"{len(refused)} records were refused, the first with {refused[:1]}")
        acknowledged = self.events(program, "producer_send_success")
        check(len(acknowledged) == RECORDS, f"{len(acknowledged)} of {RECORDS} records were acknowledged")
        log = self.read(topic)
        places = {(partition, offset): value.decode() for partition, records in log.items()
                  for offset, _, value in records}
        wrong = [one for one in acknowledged if places.get((one["partition"], one["offset"])) != one["value"]]
        check(not wrong, f"{len(wrong)} records are not where they were acknowledged, the first {wrong[:1]}")
        self.once("the log", [str(n) for n in range(RECORDS)], places.values())
        for partition, records in log.items():
            numbers = [int(value) for _, _, value in records]
            check(numbers == sorted(numbers), f"partition {partition} has lost the order")

    # VerifiableConsumer and VerifiableShareConsumer.

    def wait_for_values(self, members, wanted, what):
        def seen():
            return {one["value"] for member in members for one in self.events(member, "record_data")}
        until(lambda: len(seen()) >= wanted, lambda: f"{what} saw {len(seen())} of {wanted} records", seconds=90)

    def consumer(self, protocol):
        topic, group = self.create(self.topic(protocol)), self.group(protocol)
        timeout = ["--session-timeout", 10_000] if protocol == "classic" else []

        def member():
            return self.tool("VerifiableConsumer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--group-id", group,
                             "--group-protocol", protocol, "--verbose", *timeout)

        members = [member(), member()]
        until(lambda: all(self.owned(one) for one in members)
              and sum(len(self.owned(one)) for one in members) == jobs.steps.PARTITIONS,
              lambda: f"the members own {[sorted(self.owned(one)) for one in members]}")
        self.produce(topic, [(f"k{n % 50}", str(n)) for n in range(RECORDS // 2)])
        self.wait_for_values(members, RECORDS // 2, "two members")
        self.restart()
        self.produce(topic, [(f"k{n % 50}", str(n)) for n in range(RECORDS // 2, RECORDS)])
        self.wait_for_values(members, RECORDS, "two members after the restart")
        # One leaves and the other takes its partitions over.
        members[0].leave()
        check(self.events(members[0], "shutdown_complete"), "the first member did not shut down")
        until(lambda: len(self.owned(members[1])) == jobs.steps.PARTITIONS,
              lambda: f"the member that stayed owns {sorted(self.owned(members[1]))}")
        self.produce(topic, [(f"k{n % 50}", f"last-{n}") for n in range(100)])
        self.wait_for_values(members, RECORDS + 100, "the member that stayed")
        until(lambda: self.committed(group, topic) == self.ends(topic),
              lambda: f"{self.committed(group, topic)} is committed, the log ends at {self.ends(topic)}")
        members[1].leave()
        failed = [one for member in members for one in self.events(member, "offsets_committed") if not one["success"]]
        # A commit in flight while the broker is away may fail, but hardly two.
        check(len(failed) <= 2, f"{len(failed)} commits failed, the first {failed[:1]}")
        # Only what a commit had not told yet is given again.
        values = [one["value"] for member in members for one in self.events(member, "record_data")]
        check(len(values) <= (RECORDS + 100) * 1.2, f"{RECORDS + 100} records were given as {len(values)}")

    def owned(self, member):
        """What its callbacks say that it has."""
        owned = set()
        for line in list(member.lines):
            if '"name":"partitions_' in line:
                event = json.loads(line)
                partitions = {one["partition"] for one in event["partitions"]}
                owned = owned | partitions if event["name"] == "partitions_assigned" else owned - partitions
        return owned

    def consumer_classic(self):
        self.consumer("classic")

    def consumer_consumer(self):
        self.consumer("consumer")

    def share_consumer(self):
        topic, group = self.create(self.topic("share"), 2), self.group("share")

        def member():
            return self.tool("VerifiableShareConsumer", "--bootstrap-server", BOOTSTRAP, "--topic", topic, "--group-id",
                             group, "--verbose", "--acknowledgement-mode", "sync", "--offset-reset-strategy", "earliest")

        self.produce(topic, [(None, str(n)) for n in range(RECORDS // 2)])
        members = [member(), member()]
        self.wait_for_values(members, RECORDS // 2, "two members")
        self.settled(members, RECORDS // 2)
        values = [one["value"] for one in members for one in self.events(one, "record_data")]
        self.once("the share group", [str(n) for n in range(RECORDS // 2)], values)
        self.restart()
        self.produce(topic, [(None, str(n)) for n in range(RECORDS // 2, RECORDS)])
        self.wait_for_values(members, RECORDS, "two members after the restart")
        self.settled(members, RECORDS)
        for one in members:
            one.leave()
        # Nothing that was acknowledged is given to a member that comes later.
        self.produce(topic, [(None, "last")])
        later = member()
        self.wait_for_values([later], 1, "a later member")
        later.leave()
        values = [one["value"] for one in self.events(later, "record_data")]
        check(values == ["last"], f"a later member was given {len(values)} records, the first {values[:3]}")

    def settled(self, members, wanted):
        def acknowledged():
            return sum(one["count"] for member in members for one in self.events(member, "offsets_acknowledged")
                       if one["success"])
        until(lambda: acknowledged() >= wanted, lambda: f"{acknowledged()} of {wanted} records are acknowledged")

    # TransactionalMessageCopier.

    def copier_program(self, source, target, transactional_id, *arguments):
        # A copier asks for its committed position before it takes its transactional id over. When the one before it was
        # killed after it had sent its offsets, that position is unstable until the transaction times out, and the
        # consumer gives up after 60 s, which is the default of the timeout as well.
        return self.tool("TransactionalMessageCopier", "--broker-list", BOOTSTRAP, "--input-topic", source, "--output-topic",
                         target, "--consumer-group", target, "--transactional-id", transactional_id,
                         "--transaction-size", 50, "--transaction-timeout", 20_000, "--enable-random-aborts", *arguments)

    @staticmethod
    def processed(program):
        told = [json.loads(line) for line in list(program.lines) if '"totalProcessed"' in line]
        return told[-1]["totalProcessed"] if told else 0

    def copy(self, name, start):
        """Copies two partitions under kills of the broker and of a copier; the copy must hold each record once, in order."""
        half = RECORDS // 2
        source, target = self.create(self.topic(f"{name}-in"), 2), self.create(self.topic(f"{name}-out"), 2)
        for partition in (0, 1):
            self.produce(source, [(None, str(n)) for n in range(half)], partition)
        copiers = start(source, target)

        def copied():
            return sum(self.processed(one) for one in copiers)
        for part in (RECORDS // 5, RECORDS // 2):
            until(lambda: copied() > part or not all(one.running() for one in copiers),
                  lambda: f"{copied()} records were copied")
            check(all(one.running() for one in copiers), f"a copier ended early: {[one.last_words() for one in copiers]}")
            self.restart()
        # Another process takes the transactional id over in the middle of a transaction.
        until(lambda: copied() > RECORDS * 6 // 10, lambda: f"{copied()} records were copied")
        copiers[0].kill()
        again = start(source, target, 0)
        for one in (*copiers[1:], *again):
            one.ends(90)
        log = self.read(target)
        for partition in (0, 1):
            values = [int(value) for _, _, value in log[partition]]
            self.once(f"partition {partition}", range(half), values)
            check(values == list(range(half)), f"partition {partition} has lost the order")
        everything = self.count(target, committed=False)
        check(everything > RECORDS, "no transaction was aborted: nothing was tested")

    def copier(self):
        def start(source, target, only=None):
            partitions = (0, 1) if only is None else (only,)
            return [self.copier_program(source, target, f"{target}-{n}", "--input-partition", n) for n in partitions]
        self.copy("copier", start)

    def copier_group(self):
        def start(source, target, only=None):
            numbers = (0, 1) if only is None else (only,)
            return [self.copier_program(source, target, f"{target}-{n}", "--input-partition", -1, "--group-mode",
                                        "--use-group-metadata") for n in numbers]
        self.copy("copier-group", start)


if __name__ == "__main__":
    jobs.run(Tools("tools"), f"kafka-tools {jobs.version_of('kafka-tools')}", STEPS)
