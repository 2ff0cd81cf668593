"""Apicurio Registry over its Confluent-compatible API. It keeps what it knows in a topic, which is compacted here, and in
memory: a registry that is started anew has read all of it from the topic."""

import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import jobs
from jobs import BOOTSTRAP, SCRATCH, Failed, check, until

STEPS = ("register", "compatibility", "broker-killed", "registry-killed", "both-restarted")
SUBJECTS = 20


def schema(number, *fields):
    """An Avro schema; a field with a default may come and go."""
    fields = [{"name": "id", "type": "long"}] + [{"name": name, "type": "string", "default": ""} for name in fields]
    return {"schema": json.dumps({"type": "record", "name": f"Record{number}", "fields": fields})}


class Registry(jobs.Job):
    def __init__(self):
        super().__init__("registry")
        self.journal = self.topic("journal")
        self.snapshots = self.topic("snapshots")
        self.url = f"http://127.0.0.1:{jobs.free_port()}"
        self.server = None
        self.ids = {}

    def serve(self):
        """Starts a registry, which answers once it has read its topic."""
        settings = {"apicurio.storage.kind": "kafkasql", "apicurio.kafkasql.bootstrap.servers": BOOTSTRAP,
                    "apicurio.kafkasql.topic": self.journal, "apicurio.kafkasql.snapshots.topic": self.snapshots,
                    "apicurio.events.kafka.topic": self.topic("events"),
                    "apicurio.ccompat.legacy-id-mode.enabled": "true", "quarkus.http.host": "127.0.0.1",
                    "quarkus.http.port": self.url.rsplit(":", 1)[1], "quarkus.log.level": "WARN",
                    "quarkus.console.color": "false", "apicurio.storage.snapshot.location": SCRATCH,
                    "apicurio.import.work-dir": SCRATCH}
        self.server = self.start("registry", ["java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
                                              *(f"-D{name}={value}" for name, value in settings.items()),
                                              "-jar", next(str(jar) for jar in Path(os.environ["REGISTRY"]).glob("*-runner.jar"))])
        why = []

        def ready():
            try:
                self.ask("GET", "/subjects")
                return True
            except (OSError, Failed) as error:
                why[:] = [error]
                return not self.server.running()
        until(ready, lambda: f"the registry does not answer: {why} {self.server.last_words()}", lambda: time.sleep(0.2), 120)
        check(self.server.running(), f"the registry ended: {self.server.last_words()}")

    def ask(self, method, path, body=None, status=200):
        """What it answers with the status that is expected."""
        request = urllib.request.Request(f"{self.url}/apis/ccompat/v7{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/vnd.schemaregistry.v1+json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                code, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            code, text = error.code, error.read()
        check(code == status, f"{method} {path} was answered {code} {text.decode(errors='replace')[:300]}")
        return json.loads(text) if text else None

    def add(self, number, *fields):
        subject = f"subject-{number}-value"
        made = self.ask("POST", f"/subjects/{subject}/versions", schema(number, *fields))["id"]
        self.ids.setdefault(subject, []).append((made, schema(number, *fields)))

    def everything_is_there(self):
        check(set(self.ask("GET", "/subjects")) == set(self.ids), f"{self.ask('GET', '/subjects')} are the subjects")
        for subject, versions in self.ids.items():
            found = self.ask("GET", f"/subjects/{subject}/versions")
            check(found == list(range(1, len(versions) + 1)), f"{subject} has the versions {found}")
            for number, (made, text) in enumerate(versions, 1):
                got = self.ask("GET", f"/subjects/{subject}/versions/{number}")
                check(got["id"] == made and json.loads(got["schema"]) == json.loads(text["schema"]),
                      f"{subject} version {number} is {got} instead of {made} {text}")
                check(json.loads(self.ask("GET", f"/schemas/ids/{made}")["schema"]) == json.loads(text["schema"]),
                      f"schema {made} is another one")

    # The steps.

    def register(self):
        for topic in (self.journal, self.snapshots):
            self.create(topic, 1, cleanup__policy="compact", min__cleanable__dirty__ratio=0.01, segment__ms=1000)
        self.serve()
        for number in range(SUBJECTS):
            self.add(number)
        self.everything_is_there()
        check(self.ask("POST", "/subjects/subject-0-value/versions", schema(0))["id"]
              == self.ids["subject-0-value"][0][0], "the same schema again has another id")
        policy = self.config(self.journal)["cleanup.policy"]
        check(policy == "compact", f"its topic has the cleanup policy {policy}")

    def compatibility(self):
        check(self.ids, "the first step failed")
        self.ask("PUT", "/config", {"compatibility": "BACKWARD"})
        self.add(0, "name")
        needed = {"schema": json.dumps({"type": "record", "name": "Record0", "fields": [
            {"name": "other", "type": "long"}]})}
        self.ask("POST", "/subjects/subject-0-value/versions", needed, 409)
        self.everything_is_there()

    def broker_killed(self):
        check(self.ids, "the first step failed")
        self.restart()
        for number in range(SUBJECTS):
            self.add(number, "after", "restart")
        self.everything_is_there()

    def registry_killed(self):
        """The next one has nothing but the topic."""
        check(self.ids, "the first step failed")
        self.server.kill()
        self.serve()
        self.everything_is_there()
        check(self.ask("GET", "/config")["compatibilityLevel"] == "BACKWARD", "the configured compatibility is lost")
        self.add(1, "after", "restart", "again")

    def both_restarted(self):
        check(self.ids, "the first step failed")
        self.server.leave()
        self.restart("term")
        self.serve()
        self.everything_is_there()
        self.server.leave()

    def all(self, names):
        # The registry of one step serves the next ones.
        for name in names:
            self.step(name, getattr(self, name.replace("-", "_")))


if __name__ == "__main__":
    jobs.run(Registry(), f"Apicurio {os.environ['VERSION']}", STEPS)
