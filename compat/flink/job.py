"""A Flink job copies a topic exactly once. Its process dies between a checkpoint and the commit of the transactions that
belong to it, the broker is killed as well, and the next process commits them by the ids and epochs that the
checkpoint holds; then the broker is killed once more under the running job."""

import os
import re
import time

import jobs
from jobs import SCRATCH, check, until

STEPS = ("incrementing", "pooling")
PARTITIONS = 2
RECORDS = 10_000
OPENED = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in (
    "java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "java.text", "java.time", "java.util",
    "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch")]
# Flink logs every attempt of its clients while the broker is away.
LOGGING = ("-Dorg.slf4j.simpleLogger.log.org.apache.kafka=error",
           "-Dorg.slf4j.simpleLogger.log.org.apache.flink.metrics=error",
           "-Dorg.slf4j.simpleLogger.log.org.apache.flink.connector.kafka.source=error")


class Flink(jobs.Job):
    def __init__(self):
        super().__init__("flink")

    def copy(self, naming, source, target, halt_at, restore=""):
        """The job, which dies at so many commits if that is not 0."""
        os.environ.update(FROM=source, TO=target, NAMING=naming, HALT_AT=str(halt_at),
                          RESTORE=restore, CHECKPOINTS=(SCRATCH / f"{naming}-checkpoints").as_uri())
        return self.java(f"copy-{naming}", "Copy", heap=512, options=(*OPENED, *LOGGING))

    @staticmethod
    def last_checkpoint(naming):
        complete = sorted((SCRATCH / f"{naming}-checkpoints").glob("*/chk-*/_metadata"), key=lambda path: path.stat().st_mtime)
        check(complete, "no checkpoint was completed")
        return complete[-1].parent.as_uri()

    def exactly_once(self, naming):
        source, target = self.create(self.topic(f"{naming}-from"), PARTITIONS), self.topic(f"{naming}-to")
        self.create(target, PARTITIONS)
        for partition in range(PARTITIONS):
            self.produce(source, [(None, f"{partition}-{n}") for n in range(RECORDS)], partition)
        first = self.copy(naming, source, target, 4)
        first.says("^leaves", 90)
        first.process.wait(30)
        committed, written = self.count(target), self.count(target, committed=False)
        check(written > committed, "no transaction was open when the job's process died: nothing was tested")
        self.restart()
        second = self.copy(naming, source, target, 0, self.last_checkpoint(naming))
        second.says("^passed 1000", 90)
        # The other instance of the sink may have committed its own just before: that one it is told to be over.
        left = {one for line in first.lines for one in re.findall(r"^leaves .*?transactionalId='([^']+)'", line)}
        fenced = {one for line in second.errors.read_text(errors="replace").splitlines() if "already fenced" in line
                  for one in re.findall(r"transactionalId='([^']+)'", line)}
        check(left and not left & fenced, f"{left & fenced} could not be committed by the next process")
        second.says("^passed 3000", 90)
        self.restart()
        until(lambda: self.count(target) >= RECORDS * PARTITIONS or not second.running(),
              lambda: f"{self.count(target)} of {RECORDS * PARTITIONS} records are committed; {second.last_words()}",
              lambda: time.sleep(1), 150)
        second.kill()
        self.once(target, [f"{partition}-{n}" for partition in range(PARTITIONS) for n in range(RECORDS)],
                  [value.decode() for value in self.values(target)])

    def incrementing(self):
        self.exactly_once("INCREMENTING")

    def pooling(self):
        self.exactly_once("POOLING")


if __name__ == "__main__":
    jobs.run(Flink(), f"Flink {jobs.version_of('flink-runtime')}", STEPS)
