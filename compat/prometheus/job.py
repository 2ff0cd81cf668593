"""Prometheus beside the broker while both protocols work: what it scraped, what the dashboards and rules of grafana/ make
of it, and whether the numbers are those that were sent.

The load is made so that every panel has something to show; `empty` beside this file lists the expressions that rightly have
nothing, with reasons.
"""

import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import load
import steps
from jobs import SCRATCH, Job, Program, free_port, run
from steps import check, until

HERE = Path(__file__).resolve().parent
GRAFANA = HERE.parent.parent / "grafana"
RULES = GRAFANA / "prometheus"
HTTP = os.environ["KINESIS"]
# What Grafana would put in: everything is chosen, and the interval is four scrapes.
VARIABLES = {"$__rate_interval": "4s", "$__range": "3m", "$instance": ".+", "$stream": ".+", "$shard": ".+",
             "$group": ".+", "$consumer": ".+", "$api": ".+"}
# Alerts compare with a bound. With `bool` they tell of everything whether it is beyond, so that there is an answer.
COMPARISON = re.compile(r"\s([<>]|==)\s(?=[\d.])")
NAMES = ["rules", "load", "metrics", "scrape", "numbers-kinesis", "numbers-kafka", "late", "variables", "panels", "alerts"]


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read().decode()


def tool(*arguments, given=None):
    """What promtool says; it must be content."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=given, capture_output=True, text=True, timeout=60)
    said = " ".join((done.stdout + done.stderr).split())
    check(done.returncode == 0, f"promtool {' '.join(map(str, arguments[:2]))}: {said[-500:]}")
    return said


def near(what, wanted, got, within):
    check(abs(wanted - got) <= within, f"{what}: {got} is not {wanted} within {within}")


class Prometheus:
    """A server of its own on a folder of its own, which scrapes the broker once a second."""

    def __init__(self):
        self.address = f"127.0.0.1:{free_port()}"
        self.program = None

    def start(self):
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                  "rule_files": [str(RULES / "rules.yml")],
                  "scrape_configs": [{"job_name": "anabranch",
                                      "static_configs": [{"targets": [urllib.parse.urlsplit(HTTP).netloc]}]}]}
        # JSON is YAML.
        path = SCRATCH / "prometheus.yml"
        path.write_text(json.dumps(config))
        self.program = Program("prometheus", [
            "prometheus", f"--config.file={path}", f"--storage.tsdb.path={SCRATCH / 'tsdb'}",
            f"--web.listen-address={self.address}", "--enable-feature=exemplar-storage", "--log.level=warn"])
        until(self.ready, lambda: f"Prometheus is not ready: {self.program.last_words()}")

    def ready(self):
        check(self.program.running(), f"Prometheus ended: {self.program.last_words()}")
        try:
            return "Ready" in get(f"http://{self.address}/-/ready")
        except (urllib.error.URLError, OSError):
            return False

    def ask(self, path, **parameters):
        try:
            answer = json.loads(get(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
        except urllib.error.HTTPError as error:
            raise steps.Failed(f"{parameters.get('query', path)}: {error.read().decode()[:300]}") from None
        return answer["data"]

    def instant(self, expression):
        """The value of each series now."""
        return [(one["metric"], float(one["value"][1])) for one in self.ask("query", query=expression)["result"]]

    def over(self, expression, since):
        """Each series from then to now, by the second."""
        found = self.ask("query_range", query=expression, start=since, end=time.time(), step="1s")["result"]
        return [(one["metric"], [float(value) for _, value in one["values"]]) for one in found]

    def number(self, expression):
        """The one number that an expression gives."""
        found = self.instant(expression)
        check(len(found) == 1, f"{expression} has {len(found)} values")
        return found[0][1]

    def scraped(self):
        """Waits until two scrapes have begun after now, so that what was done before is in."""
        begun = time.time()
        until(lambda: any(at > begun + 1.1 for _, at in self.instant("timestamp(up == 1)")),
              "the broker is not scraped: Prometheus says it is down")


def panels():
    """Every expression of every panel: its page and panel, the expression, whether it is asked once or over time."""
    for path in sorted((GRAFANA / "dashboards").glob("*.json")):
        page = json.loads(path.read_text())
        for panel in page["panels"]:
            for query in panel.get("targets", []):
                yield f"{page['uid']}: {panel['title']}", query["expr"], query.get("instant", False)


def filled(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    check("$" not in expression, f"a variable in {expression} has no value here")
    return expression


def expected_empty():
    """`PAGE: PANEL | SERIES -- reason` a line, with the first series of the expression."""
    listed = {}
    for line in (HERE / "empty").read_text().splitlines():
        if line and not line.startswith("#"):
            place, _, reason = line.partition(" -- ")
            check(reason, f"{line!r} in compat/prometheus/empty has no reason")
            listed[place] = reason
    return listed


class PrometheusJob(Job):
    def __init__(self):
        super().__init__("prometheus")
        self.prometheus = Prometheus()
        self.load = load.Load(self)

    def rules(self):
        tool("check", "rules", RULES / "rules.yml")
        tool("check", "config", RULES / "prometheus.yml")
        tool("test", "rules", RULES / "rules.test.yml")
        built = subprocess.run([sys.executable, GRAFANA / "build", "--check"], capture_output=True, text=True)
        check(built.returncode == 0, built.stderr)

    def load_(self):
        self.prometheus.start()
        self.prometheus.scraped()
        self.since = time.time()
        self.load.make()
        self.prometheus.scraped()

    def metrics(self):
        """What is exported passes Prometheus's own linter, and is OpenMetrics for who asks for it."""
        tool("check", "metrics", given=get(f"{HTTP}/metrics"))
        text = get(f"{HTTP}/metrics", Accept="application/openmetrics-text; version=1.0.0")
        check(text.endswith("# EOF\n"), "an OpenMetrics answer does not end with # EOF")

    def scrape(self):
        targets = self.prometheus.ask("targets")["activeTargets"]
        check([one["health"] for one in targets] == ["up"], f"targets: {targets}")
        failed = self.prometheus.over("up == 0", self.since)
        check(not failed, f"{sum(len(values) for _, values in failed)} scrapes failed")
        took = max(max(values) for _, values in self.prometheus.over("scrape_duration_seconds", self.since))
        check(took < 1, f"a scrape took {took} s")

    def total(self, series, **labels):
        matchers = ",".join(f'{name}="{value}"' for name, value in labels.items())
        return self.prometheus.number(f"sum(anabranch_{series}{{{matchers}}})")

    def same(self, what, wanted, series, **labels):
        got = self.total(series, **labels)
        check(got == wanted, f"{what}: {series} of {labels} says {got:g}, and it was {wanted}")

    def numbers_kinesis(self):
        sent, stream = self.load.kinesis, self.load.kinesis.stream
        def records(operation, outcome):
            return dict(stream=stream, operation=operation, outcome=outcome)
        self.same("records written", sent.kept, "stream_incoming_records_total", stream=stream)
        self.same("bytes written", sent.kept_bytes, "stream_incoming_bytes_total", stream=stream)
        self.same("PutRecords, taken", sent.batch_kept, "stream_request_records_total",
                  **records("PutRecords", "successful"))
        self.same("PutRecords, throttled", sent.batch_throttled, "stream_request_records_total",
                  **records("PutRecords", "throttled"))
        self.same("PutRecord calls", sent.puts, "stream_requests_total", **records("PutRecord", "success"))
        self.same("GetRecords calls", sent.gets, "stream_requests_total", **records("GetRecords", "success"))
        self.same("records got", sent.got, "stream_request_records_total", **records("GetRecords", "successful"))
        self.same("records pushed", sent.pushed, "consumer_event_records_total", stream=stream)
        self.same("records read", sent.got + sent.pushed, "stream_outgoing_records_total", stream=stream)
        self.same("writes throttled", sent.batch_throttled, "stream_throttled_total", stream=stream, direction="write",
                  policy="enforce")
        self.same("reads throttled", sent.reads_throttled, "stream_throttled_total", stream=stream, direction="read",
                  policy="enforce")
        self.same("open shards", load.SHARDS, "stream_shards", stream=stream, state="open")
        for which in ("incoming", "outgoing"):
            whole = self.total(f"stream_{which}_records_total", stream=stream)
            self.same(f"{which} records of its shards", whole, f"shard_{which}_records_total", stream=stream)

    def numbers_kafka(self):
        sent, topic = self.load.kafka, self.load.kafka.topic
        self.same("records written", sent.sent, "stream_incoming_records_total", stream=topic)
        self.same("records held", sent.sent, "partition_log_end_offset", stream=topic)
        self.same("bytes held", self.total("partition_size_bytes", stream=topic), "stream_incoming_bytes_total", stream=topic)
        self.same("lag in records", sent.sent - sent.committed, "group_lag_records", group=sent.group)
        self.same("transactions committed", sent.transactions_committed, "transactions_ended_total", outcome="commit")
        self.same("transactions aborted", sent.transactions_aborted, "transactions_ended_total", outcome="abort")
        self.same("accepted in a share group", sent.accepted, "share_group_acknowledged_records_total",
                  group=sent.share_group, kind="accept")
        read = self.total("stream_outgoing_records_total", stream=topic)
        check(read >= sent.consumed, f"{sent.consumed} records of {topic} were consumed, and {read:g} went out")
        paused = self.total("quota_throttle_seconds_total")
        check(paused > 0, "a client over its quota was not told to pause")
        # What the graphs show: the area below the line is what was sent.
        rate = f'sum(rate(anabranch_stream_incoming_records_total{{stream="{topic}"}}[4s]))'
        area = sum(sum(values) for _, values in self.prometheus.over(rate, self.since))
        near("records below the line", sent.sent, area, sent.sent * 0.2)

    def late(self):
        """Readers that are late by a known time."""
        age = self.load.kinesis.behind_ms / 1000
        stream = self.load.kinesis.stream
        near("iterator age", age, self.prometheus.number(
            f'max(max_over_time(anabranch_stream_iterator_age_max_seconds{{stream="{stream}"}}[2m]))'), 0.01)
        first = self.load.kafka.first_left
        wanted = time.time() - first
        near("lag in time", wanted, self.prometheus.number(
            f'max(anabranch_group_lag_seconds{{group="{self.load.kafka.group}"}})'), 3)

    def variables(self):
        """Every variable of every page offers something to choose."""
        empty, asked = [], 0
        for path in sorted((GRAFANA / "dashboards").glob("*.json")):
            for variable in json.loads(path.read_text())["templating"]["list"]:
                if variable["type"] != "query":
                    continue
                asked += 1
                series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
                if not self.prometheus.ask(f"label/{label}/values", **{"match[]": filled(series)}):
                    empty.append(f"{path.stem}: {variable['name']}")
        check(asked > 0 and not empty, f"of {asked} variables these have no values: {empty}")

    def panels(self):
        listed, without, asked = expected_empty(), [], 0
        for place, expression, instant in panels():
            asked += 1
            query = filled(expression)
            found = ([[value] for _, value in self.prometheus.instant(query)] if instant
                     else [values for _, values in self.prometheus.over(query, self.since)])
            series = re.search(r"(?:anabranch|process)_\w+|ALERTS", expression).group()
            key = f"{place} | {series}"
            if any(not math.isnan(value) for values in found for value in values):
                if key in listed:
                    without.append(f"{key} has data, but `empty` lists it")
            elif key not in listed:
                without.append(f"{key} has no data: {query}")
        print(f"evaluated {asked} expressions, {len(listed)} listed as empty", flush=True)
        for line in without:
            print(f"  {line}", flush=True)
        check(not without, f"{len(without)} of {asked} expressions: {'; '.join(without)}")

    def alerts(self):
        """Prometheus evaluates every rule without an error, on series that there are."""
        rules = [rule for group in self.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        check(rules, "Prometheus has no rules")
        unwell = [rule["name"] for rule in rules if rule["health"] != "ok"]
        check(not unwell, f"rules that could not be evaluated: {unwell}")
        for rule in rules:
            # The bounds on rates and times look further back than this job runs.
            query = COMPARISON.sub(r" \1 bool ", rule["query"].replace("[5m]", "[1m]"))
            check(self.prometheus.instant(query), f"{rule['name']} has nothing to compare: {query}")
        firing = {alert["labels"]["alertname"] for alert in self.prometheus.ask("alerts")["alerts"]
                  if alert["state"] == "firing"}
        check(not firing, f"a broker that is well raises {firing}")

    def all(self, names):
        for name in sys.argv[1:] or names:
            self.step(name, getattr(self, {"load": "load_"}.get(name, name.replace("-", "_"))))

    def end_programs(self):
        super().end_programs()
        self.load.end()
        if self.prometheus.program:
            self.prometheus.program.kill()


if __name__ == "__main__":
    version = subprocess.run(["prometheus", "--version"], capture_output=True, text=True)
    run(PrometheusJob(), (version.stdout + version.stderr).split()[2].rstrip(","), NAMES)
