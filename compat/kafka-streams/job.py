"""Kafka Streams' own system tests, StreamsSmokeTest and StreamsEosTest, with exactly_once_v2: the broker and an instance are
killed while they process, then the tests verify their results themselves."""

import time

import jobs
from jobs import BOOTSTRAP, SCRATCH, check, until

STEPS = ("smoke", "eos")
PARTITIONS = 2
# The tests name their topics themselves.
SMOKE = ("data", "echo", "max", "min", "min-suppressed", "min-raw", "dif", "sum", "sws-raw", "sws-suppressed", "cnt", "avg",
         "tagg", "fk")
EOS = ("data", "echo", "min", "sum", "repartition", "max", "cnt")
# StreamsEosTest asks for three replicas of what it makes itself, which one broker cannot give: it finds these made.
EOS_STORES = [f"KSTREAM-AGGREGATE-STATE-STORE-{number:010}" for number in (3, 7, 14, 18)]


class Streams(jobs.Job):
    def __init__(self):
        super().__init__("streams")
        self.instances = 0

    def fresh(self, topics, application):
        """The topics anew, and none that an application of an earlier run has left."""
        left = [topic for topic in self.topics() if topic.startswith(f"{application}-")]
        self.delete(*topics, *left)
        for topic in topics:
            self.create(topic, PARTITIONS)

    def program(self, test, command, name, heap=256):
        """One of the test's roles; an instance has a folder of its own for its state."""
        config = self.properties(f"{test}-{name}.properties", bootstrap__servers=BOOTSTRAP,
                                 processing__guarantee="exactly_once_v2", state__dir=SCRATCH / f"{test}-{name}.state",
                                 session__timeout__ms=6000, heartbeat__interval__ms=1000,
                                 acceptable__recovery__lag=9223372036854775807)
        return self.java(f"{test}-{name}", f"org.apache.kafka.streams.tests.{test}", config, command, heap=heap)

    def instance(self, test, command):
        self.instances += 1
        return self.program(test, command, f"instance-{self.instances}", 384)

    @staticmethod
    def processes(instance):
        """Waits until it is given records from now on."""
        instance.says("processed [0-9]+ records", since=len(instance.lines), seconds=90)

    def smoke(self):
        self.fresh(SMOKE, "SmokeTest")
        driver = self.java("smoke-driver", "Smoke", BOOTSTRAP)
        driver.says("^generated")
        first = self.instance("StreamsSmokeTest", "process")
        self.processes(first)
        self.restart()
        second = self.instance("StreamsSmokeTest", "process")
        second.says("REBALANCING -> RUNNING", seconds=90)
        check(not driver.said("SUCCESS|FAILURE"), "it was all over before an instance was killed")
        first.kill()
        driver.ends(200)
        check(driver.said("SUCCESS"), f"the results are not right: {driver.said('FAIL|fail')[:3]} {driver.lines[-3:]}")
        second.leave()
        check(second.said("SMOKE-TEST-CLIENT-CLOSED"), f"the instance did not close: {second.lines[-2:]}")

    def eos(self):
        self.fresh(EOS, "EosTest")
        for store in EOS_STORES:
            self.create(f"EosTest-{store}-changelog", PARTITIONS, cleanup__policy="compact")
        driver = self.program("StreamsEosTest", "run", "driver")
        stays = self.instance("StreamsEosTest", "process-complex")
        self.processes(stays)
        self.restart()
        self.processes(stays)
        goes = self.instance("StreamsEosTest", "process-complex")
        self.processes(goes)
        goes.kill()
        self.processes(stays)
        self.restart()
        self.processes(stays)
        driver.leave()
        check(driver.said("^Terminated$"), f"the driver did not end in order: {driver.lines[-3:]}")
        stays.leave()
        check(stays.said("EOS-TEST-CLIENT-CLOSED"), f"the instance did not close: {stays.lines[-2:]}")
        verifier = self.program("StreamsEosTest", "verify-complex", "verifier")
        verifier.ends(120)
        check(verifier.said("ALL-RECORDS-DELIVERED"), f"not each record was delivered once: {verifier.last_words()}")


if __name__ == "__main__":
    jobs.run(Streams(), f"Streams {jobs.version_of('kafka-streams')}", STEPS)
