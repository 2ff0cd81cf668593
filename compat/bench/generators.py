"""The load generators: librdkafka's rdkafka_performance, Apache Kafka's own programs, and others' clients in `clients/`."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import brokers

RDKAFKA_DONE = re.compile(rb"in \d+ms: (\d+) msgs/s (?:and |\()([\d.]+) MB/s")
PRODUCED = re.compile(r"(\d+) records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\), .*?([\d.]+) ms max latency, "
                      r"([\d.]+) ms 50th, ([\d.]+) ms 95th, ([\d.]+) ms 99th, ([\d.]+) ms 99.9th")
MIB = 1 << 20
PATIENCE_SECONDS = 600


class Failed(Exception):
    """A generator did not do its load: told in the table."""


def rdkafka():
    """Built from the source that the crate rdkafka-sys carries, as compat/rdkafka pins it."""
    home = brokers.CACHE / "librdkafka"
    program = home / "examples/rdkafka_performance"
    if not program.exists():
        found = subprocess.run(["cargo", "metadata", "--format-version", "1", "--locked"], check=True,
                               stdout=subprocess.PIPE, cwd=brokers.HERE.parent / "rdkafka").stdout
        crate = next(one for one in json.loads(found)["packages"] if one["name"] == "rdkafka-sys")
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(Path(crate["manifest_path"]).parent / "librdkafka", home)
        quiet = {"cwd": home, "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["chmod", "-R", "u+rwX", "."], **quiet)
        subprocess.run(["bash", "./configure", "--enable-static", "--disable-gssapi", "--disable-curl"], **quiet)
        subprocess.run(["make", "-C", "src", "-j2"], **quiet)
        subprocess.run(["make", "-C", "examples", "rdkafka_performance"], **quiet)
    return program


def started(arguments, **options):
    return subprocess.Popen([str(word) for word in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, **options)


def said(process):
    """Its whole output, once it has ended well."""
    try:
        output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failed(f"not done after {PATIENCE_SECONDS} s")
    if process.returncode:
        raise Failed(output[-300:].decode(errors="replace").strip())
    return output


def clients(*arguments):
    """What a load of `clients/` found."""
    return json.loads(said(started([brokers.go(brokers.HERE / "clients"), *arguments])).splitlines()[-1])


def properties(settings):
    return [word for key, value in settings.items() for word in ("-X", f"{key}={value}")]


class Rdkafka:
    def __init__(self):
        self.program = rdkafka()
        library = self.program.parent.parent / "src"
        self.options = {"env": os.environ | {"LD_LIBRARY_PATH": str(library)}}

    def start(self, *arguments):
        return started([self.program, *arguments], **self.options)

    def producer(self, broker, topic, records, size, acks=-1, codec="none", **more):
        settings = {"linger.ms": 5, "batch.size": 1_000_000, "queue.buffering.max.messages": 1_000_000,
                    "queue.buffering.max.kbytes": 1 << 18, "message.max.bytes": 1_000_000, **more}
        return self.start("-P", "-b", broker.kafka, "-t", topic, "-c", records, "-s", size, "-a", acks, "-z", codec,
                          *properties(settings))

    def consumer(self, broker, topic, records, start="earliest", **more):
        # Quiet, or it tells of every end of a partition, and waits when nobody reads that meanwhile.
        settings = {"auto.offset.reset": start, "queued.max.messages.kbytes": 1 << 18, **more}
        return self.start("-q", "-G", f"bench-{topic}-{start}", "-b", broker.kafka, "-t", topic, "-c", records,
                          *properties(settings))

    @staticmethod
    def assigned(process):
        """Waits until a consumer's group has formed."""
        for line in process.stdout:
            if b"partition(s) assigned" in line:
                return
        raise Failed("the consumer ended before its group had formed")

    @staticmethod
    def rate(process):
        """MB/s (10^6 bytes) and records/s of what it says last."""
        output = said(process)
        found = RDKAFKA_DONE.findall(output)
        if not found:
            raise Failed(output[-300:].decode(errors="replace").strip())
        records, megabytes = found[-1]
        return float(megabytes), float(records)


class Java:
    def __init__(self):
        self.classpath = brokers.classpath()

    def start(self, program, *arguments):
        return started(["java", *brokers.QUIET, "-Xmx512m", "-cp", self.classpath, f"org.apache.kafka.tools.{program}",
                        *arguments])

    def producer(self, broker, topic, records, size, throughput=-1, **settings):
        settings = {"acks": "all", "linger.ms": 5, "batch.size": 262_144, "buffer.memory": 128 * MIB} | settings
        return self.start("ProducerPerformance", "--bootstrap-server", broker.kafka, "--topic", topic, "--num-records",
                          records, "--record-size", size, "--throughput", throughput, "--command-property",
                          *(f"{key}={value}" for key, value in settings.items()))

    @staticmethod
    def produced(process):
        """MB/s (10^6 bytes), records/s, and the acknowledgements' latencies in ms."""
        output = said(process).decode(errors="replace")
        found = PRODUCED.findall(output)
        if not found:
            raise Failed(output[-300:].strip())
        _, records, mebibytes, _, half, _, most, all_but_one = found[-1]
        return float(mebibytes) * MIB / 1e6, float(records), (float(half), float(most), float(all_but_one))

    def consumer(self, broker, topic, records):
        return self.start("ConsumerPerformance", "--bootstrap-server", broker.kafka, "--topic", topic, "--num-records",
                          records, "--group", f"bench-java-{topic}", "--timeout", 60_000, "--hide-header")

    @staticmethod
    def consumed(process):
        """MB/s (10^6 bytes) and records/s while it fetched, without the time its group took to form."""
        output = said(process).decode(errors="replace")
        rows = [line.split(", ") for line in output.splitlines() if line.count(", ") >= 9]
        if not rows:
            raise Failed(output[-300:].strip())
        return float(rows[-1][8]) * MIB / 1e6, float(rows[-1][9])
