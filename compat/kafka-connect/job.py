"""Kafka Connect standalone and distributed: lines of a file go through a topic into another file, while the broker and the
workers are killed. The distributed workers keep their connectors, offsets and states in three compacted topics, and
write source records and offsets in transactions."""

import json
import threading
import time
import urllib.error
import urllib.request

import jobs
from jobs import BOOTSTRAP, SCRATCH, Failed, check, until

STEPS = ("standalone", "distributed", "exactly-once", "offsets")
CONVERTERS = {"key__converter": "org.apache.kafka.connect.storage.StringConverter",
              "value__converter": "org.apache.kafka.connect.storage.StringConverter"}
# Connect logs a lot that is nobody's fault when its broker goes away.
LOGGING = ("-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients=error",)


class Lines:
    """A file of numbered lines that grows, and the file that they arrive in."""

    def __init__(self, name):
        self.source = SCRATCH / f"{name}.source"
        self.sink = SCRATCH / f"{name}.sink"
        self.source.touch()
        self.written = 0

    def add(self, count):
        lines = "".join(f"line {n}\n" for n in range(self.written, self.written + count))
        with open(self.source, "a", encoding="ascii") as file:
            file.write(lines)
        self.written += count

    def flow(self, count, seconds):
        """Adds lines bit by bit while other things happen."""
        def feed():
            parts = max(int(seconds * 10), 1)
            for _ in range(parts):
                self.add(count // parts)
                time.sleep(0.1)
        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        return thread

    def wanted(self):
        return [f"line {n}" for n in range(self.written)]

    def arrived(self):
        return self.sink.read_text().splitlines() if self.sink.exists() else []

    def all_arrive(self, workers, seconds=90):
        """A sink is given again what it had not committed, so lines may be there twice, but all must be."""
        until(lambda: len(set(self.arrived())) >= self.written or not all(worker.running() for worker in workers),
              lambda: f"{len(set(self.arrived()))} of {self.written} lines arrived; {workers[-1].last_words()}",
              lambda: time.sleep(0.2), seconds)
        check(set(self.arrived()) == set(self.wanted()),
              f"{len(set(self.arrived()))} different lines arrived of {self.written}; {workers[-1].last_words()}")


class Connect(jobs.Job):
    def __init__(self):
        super().__init__("connect")
        self.port = jobs.free_port()
        self.workers = 0
        self.lines = self.cluster = None

    def worker(self, main, *files):
        self.workers += 1
        return self.java(f"worker-{self.workers}", f"org.apache.kafka.connect.cli.{main}", *files, options=LOGGING)

    def rest(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path} was answered {error.code} {error.read().decode()[:300]}") from None
        return json.loads(text) if text else None

    def answers(self, method, path, body=None, seconds=60):
        """Asks until it is answered: a worker that starts, or whose group rebalances, refuses for a while."""
        answered = []

        def ask():
            try:
                answered.append(self.rest(method, path, body))
            except (Failed, OSError) as error:
                why[0] = error
            return bool(answered)
        why = [None]
        until(ask, lambda: f"{why[0]}", lambda: time.sleep(0.2), seconds)
        return answered[-1]

    def states(self, connector):
        try:
            status = self.rest("GET", f"/connectors/{connector}/status")
        except (Failed, OSError) as error:
            return [str(error)]
        return [status["connector"]["state"], *(task["state"] for task in status["tasks"])]

    def runs(self, connector):
        until(lambda: self.states(connector) == ["RUNNING", "RUNNING"],
              lambda: f"{connector} and its task are {self.states(connector)}", lambda: time.sleep(0.2))

    def check_topic(self, topic, lines):
        self.once(topic, lines.wanted(), [value.decode() for value in self.values(topic)])

    # The steps.

    def standalone(self):
        topic, lines = self.create(self.topic("standalone"), 1), Lines("standalone")
        worker = self.properties("standalone.properties", bootstrap__servers=BOOTSTRAP, plugin__discovery="service_load",
                                 listeners=f"http://127.0.0.1:{self.port}", offset__flush__interval__ms=500,
                                 offset__storage__file__filename=SCRATCH / "standalone.offsets", **CONVERTERS)
        source = self.properties("standalone-source.properties", name="source", connector__class="FileStreamSource",
                                 tasks__max=1, file=lines.source, topic=topic)
        sink = self.properties("standalone-sink.properties", name="sink", connector__class="FileStreamSink", tasks__max=1,
                               file=lines.sink, topics=topic)
        lines.add(1000)
        first = self.worker("ConnectStandalone", worker, source, sink)
        lines.all_arrive([first])
        flow = lines.flow(2000, 4)
        self.restart()
        flow.join()
        lines.all_arrive([first])
        first.leave()
        lines.add(1000)
        second = self.worker("ConnectStandalone", worker, source, sink)
        lines.all_arrive([second])
        second.leave()
        self.check_topic(topic, lines)

    def settings(self):
        name = self.topic("cluster")
        storage = {part: f"{name}-{part}" for part in ("config", "offset", "status")}
        self.storage = storage
        return self.properties(
            "distributed.properties", bootstrap__servers=BOOTSTRAP, plugin__discovery="service_load",
            listeners=f"http://127.0.0.1:{self.port}", group__id=name, offset__flush__interval__ms=500,
            config__storage__topic=storage["config"], config__storage__replication__factor=1,
            offset__storage__topic=storage["offset"], offset__storage__replication__factor=1,
            offset__storage__partitions=4, status__storage__topic=storage["status"],
            status__storage__replication__factor=1, status__storage__partitions=2,
            exactly__once__source__support="enabled", session__timeout__ms=6000, heartbeat__interval__ms=1000,
            scheduled__rebalance__max__delay__ms=0, **CONVERTERS)

    def distributed(self):
        """Connectors made over the REST API run; what the cluster knows lies in three compacted topics."""
        self.copied, self.lines = self.create(self.topic("distributed"), 1), Lines("distributed")
        self.config_file = self.settings()
        self.lines.add(1000)
        self.cluster = self.worker("ConnectDistributed", self.config_file)
        for name, config in (("source", {"connector.class": "FileStreamSource", "file": str(self.lines.source),
                                         "topic": self.copied, "transaction.boundary": "poll"}),
                             ("sink", {"connector.class": "FileStreamSink", "file": str(self.lines.sink),
                                       "topics": self.copied})):
            self.answers("PUT", f"/connectors/{name}/config", {**config, "tasks.max": "1"})
        self.runs("source")
        self.runs("sink")
        self.lines.all_arrive([self.cluster])
        for topic in self.storage.values():
            policy = self.config(topic)["cleanup.policy"]
            check(policy == "compact", f"{topic} has the cleanup policy {policy}")
        check(sorted(self.rest("GET", "/connectors")) == ["sink", "source"], "other connectors are listed than were made")
        self.rest("PUT", "/connectors/sink/pause")
        until(lambda: self.states("sink") == ["PAUSED", "PAUSED"], lambda: f"the sink is {self.states('sink')}")
        self.rest("PUT", "/connectors/sink/resume")
        self.runs("sink")

    def exactly_once(self):
        """Each line is in the topic once, although the broker is killed and then the worker, whose successor finds its
        connectors and offsets where the broker kept them."""
        check(self.cluster, "the step before failed")
        flow = self.lines.flow(3000, 6)
        self.restart()
        flow.join()
        self.lines.all_arrive([self.cluster])
        flow = self.lines.flow(2000, 3)
        time.sleep(1)
        self.cluster.kill()
        flow.join()
        self.cluster = self.worker("ConnectDistributed", self.config_file)
        self.answers("GET", "/connectors/source/status")
        self.runs("source")
        self.runs("sink")
        self.lines.all_arrive([self.cluster])
        self.check_topic(self.copied, self.lines)

    def offsets(self):
        """Offsets over the REST API: a sink's are a group's, a source's lie in the compacted topic."""
        check(self.cluster, "the step before failed")
        position = self.lines.source.stat().st_size
        # They are committed every half second, a little after the lines were written.
        until(lambda: self.offset_of("source") == position,
              lambda: f"the source is at {self.offset_of('source')} of {position}", lambda: time.sleep(0.2))
        self.answers("PUT", "/connectors/sink/stop")
        until(lambda: self.states("sink") == ["STOPPED"], lambda: f"the sink is {self.states('sink')}")
        before = len(self.lines.arrived())
        self.answers("DELETE", "/connectors/sink/offsets")
        self.answers("PUT", "/connectors/sink/resume")
        until(lambda: len(self.lines.arrived()) >= before + self.lines.written,
              lambda: f"{len(self.lines.arrived()) - before} of {self.lines.written} lines were given again")
        for name in ("source", "sink"):
            self.answers("DELETE", f"/connectors/{name}")
        until(lambda: self.rest("GET", "/connectors") == [], "deleted connectors are listed")
        self.cluster.leave()

    def offset_of(self, connector):
        offsets = self.rest("GET", f"/connectors/{connector}/offsets")["offsets"]
        return offsets[0]["offset"]["position"] if offsets else None

    def all(self, names):
        # The worker of one step serves the next ones.
        for name in names:
            self.step(name, getattr(self, name.replace("-", "_")))


if __name__ == "__main__":
    jobs.run(Connect(), f"Connect {jobs.version_of('connect-runtime')}", STEPS)
