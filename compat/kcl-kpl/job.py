"""Amazon's own libraries on both sides of the log: the Kinesis Client Library polling and with fan-out, the Kinesis
Producer Library with and without aggregation, and both crossed with Apache Kafka's clients, while shards split and merge.

The Client Library keeps its leases in DynamoDB, which moto's server stands in for. The Producer Library speaks nothing
but TLS, so a relay of ours ends it in front of the broker. Both publish their metrics to the broker's CloudWatch.
"""

import datetime
import importlib.metadata
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

import boto3
import confluent_kafka as ck
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import steps
from steps import check, until

SCRATCH = Path(os.environ["SCRATCH"])
JAVA = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", os.environ["CLASSPATH_OF_JOB"]]
HASH_KEYS = 1 << 128
SECONDS = 150


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def offset(sequence_number):
    """The offset in Kafka's partition that AWS's layout of a sequence number holds: 16 of its 47 hexadecimal digits."""
    return int(f"{int(sequence_number):047x}"[11:27], 16) - 1


class Program:
    """A process whose lines are collected as they come, and that leaves when its input ends."""

    def __init__(self, name, arguments, **environment):
        self.lines = []
        self.records = []
        self.said_wrong = SCRATCH / f"{name}.stderr"
        self.errors = open(self.said_wrong, "wb")
        self.process = subprocess.Popen(JAVA + arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True, env=dict(os.environ, **environment))
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        for line in self.process.stdout:
            fields = line.split()
            (self.records if fields and fields[0] == "record" else self.lines).append(fields)

    def said(self, word):
        return [fields for fields in self.lines if fields[:1] == [word]]

    def leave(self):
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise steps.Failed("a program did not leave within 60 s") from None
        self.thread.join()

    def published(self):
        """That it had nothing to complain of where it published its metrics."""
        wrong = [line for line in self.said_wrong.read_text(errors="replace").splitlines()
                 if "cloudwatch" in line.lower() or "metric" in line.lower()]
        check(not wrong, f"it complained {len(wrong)} times, first: {wrong[:1]}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Relay:
    """Ends TLS and hands the bytes on to the broker."""

    def __init__(self, target):
        self.target = target
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                       .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                       .not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256()))
        pem = SCRATCH / "relay.pem"
        pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption())
                        + certificate.public_bytes(serialization.Encoding.PEM))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pem)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            peer, _ = self.listener.accept()
            threading.Thread(target=self.connection, args=(peer,), daemon=True).start()

    def connection(self, peer):
        try:
            with self.context.wrap_socket(peer, server_side=True) as client, \
                    socket.create_connection(self.target) as broker:
                # One direction at a time suits HTTP/1.1: a request is answered before the next one comes.
                back = threading.Thread(target=self.copy, args=(broker, client), daemon=True)
                back.start()
                self.copy(client, broker)
                back.join()
        except OSError:
            pass

    @staticmethod
    def copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except (OSError, ValueError):
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Beside:
    """moto's server, for its DynamoDB."""

    def __init__(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = open(SCRATCH / "moto.log", "wb")
        self.process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until(self.answers, "moto's server does not answer", lambda: time.sleep(0.1))

    def answers(self):
        try:
            urllib.request.urlopen(self.url + "/moto-api/data.json", timeout=2).close()
            return True
        except OSError:
            return False

    def end(self):
        self.process.terminate()
        self.process.wait()


class Job(steps.Steps):
    def __init__(self):
        super().__init__(type("Name", (), {"name": "kcl"}), os.environ["BOOTSTRAP"], None)
        endpoint = os.environ["KINESIS"]
        self.kinesis = boto3.client("kinesis", endpoint_url=endpoint, region_name="us-east-1",
                                    aws_access_key_id="compat", aws_secret_access_key="compat",
                                    config=Config(retries={"mode": "standard", "total_max_attempts": 12}))
        self.cloudwatch = boto3.client("cloudwatch", endpoint_url=endpoint, region_name="us-east-1",
                                       aws_access_key_id="compat", aws_secret_access_key="compat")
        address = urllib.parse.urlsplit(endpoint)
        self.relay = Relay((address.hostname, address.port))
        self.beside = Beside()
        self.programs = []

    def program(self, name, *arguments):
        program = Program(f"{name}-{len(self.programs)}", list(arguments), BESIDE=self.beside.url,
                          TLS=str(self.relay.port))
        self.programs.append(program)
        return program

    def stream(self, what, shards):
        name = self.topic(what)
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        self.active(name)
        return name

    def active(self, name):
        until(lambda: self.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"]
              == "ACTIVE", f"{name} does not become ACTIVE", lambda: time.sleep(0.1))

    def open_shards(self, name):
        shards = self.kinesis.list_shards(StreamName=name)["Shards"]
        shards = [s for s in shards if "EndingSequenceNumber" not in s["SequenceNumberRange"]]
        return sorted(shards, key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))

    def reshard(self, name):
        """Splits the first shard in the middle, later merges the two last."""
        first = self.open_shards(name)[0]["HashKeyRange"]
        middle = (int(first["StartingHashKey"]) + int(first["EndingHashKey"])) // 2
        self.kinesis.split_shard(StreamName=name, ShardToSplit=self.open_shards(name)[0]["ShardId"],
                                 NewStartingHashKey=str(middle))
        self.active(name)
        time.sleep(3)
        left, right = self.open_shards(name)[-2:]
        self.kinesis.merge_shards(StreamName=name, ShardToMerge=left["ShardId"],
                                  AdjacentShardToMerge=right["ShardId"])
        self.active(name)

    def put(self, name, label, count):
        """PutRecords, and what was refused again; gives the data in the order of each key."""
        batch = [{"PartitionKey": f"{label}-{n % 53}", "Data": f"{label}-{n}".encode()} for n in range(count)]
        for start in range(0, count, 100):
            left = batch[start:start + 100]
            while left:
                answers = self.kinesis.put_records(StreamName=name, Records=left)["Records"]
                left = [one for one, answer in zip(left, answers) if "ErrorCode" in answer]
            time.sleep(0.1)
        return [one["Data"].decode() for one in batch]

    @staticmethod
    def once(sent, records):
        """That each was given, and given once."""
        times = Counter(fields[4] for fields in records)
        missing = [data for data in sent if not times[data]]
        check(not missing, f"{len(missing)} of {len(sent)} records were not given, the first {missing[:3]}")
        again = {data for data, count in times.items() if count > 1}
        first = [fields[:4] + [fields[4][:20]] for fields in records if fields[4] in again][:3]
        last = [fields[:4] + [fields[4][:20]] for fields in records if fields[4] in again][-3:]
        check(not again, f"{len(again)} of {len(sent)} records were given twice, the first {first}, the last {last}")
        check(len(records) == len(sent), f"{len(records)} records were given, {len(sent)} were sent")

    def given(self, program, sent):
        until(lambda: len(program.records) >= len(sent) or program.process.poll() is not None,
              lambda: f"given {len(program.records)} of {len(sent)} records; {program.lines[-3:]}",
              lambda: time.sleep(0.1), SECONDS)
        time.sleep(1)
        self.once(sent, program.records)

    def total(self, namespace, metric, **wanted):
        """The sum of a metric over everything that has these dimensions and no others."""
        now, total = datetime.datetime.now(datetime.UTC), 0
        for page in self.cloudwatch.get_paginator("list_metrics").paginate(Namespace=namespace, MetricName=metric):
            for one in page["Metrics"]:
                has = {dimension["Name"]: dimension["Value"] for dimension in one["Dimensions"]}
                if set(has) == set(wanted) and all(value in (None, has[name]) for name, value in wanted.items()):
                    answer = self.cloudwatch.get_metric_statistics(
                        Namespace=namespace, MetricName=metric, Dimensions=one["Dimensions"], Period=3600,
                        StartTime=now - datetime.timedelta(hours=1), EndTime=now + datetime.timedelta(hours=1),
                        Statistics=["Sum"])
                    total += sum(point["Sum"] for point in answer["Datapoints"])
        return total

    # The steps.

    def worker(self, kind):
        name = self.stream(kind, 2)
        sent = self.put(name, "first", 500)
        worker = self.program(kind, "Worker", kind, name, name)
        self.given(worker, sent)
        resharding = threading.Thread(target=self.reshard, args=(name,), daemon=True)
        resharding.start()
        sent += self.put(name, "during", 3000)
        resharding.join()
        sent += self.put(name, "last", 500)
        self.given(worker, sent)
        # Every closed shard was read to its end, and within a key the order held.
        closed = 3
        until(lambda: len(worker.said("ended")) == closed,
              lambda: f"of {closed} closed shards {len(worker.said('ended'))} ended: {worker.lines}", seconds=60)
        by_key = defaultdict(list)
        for _, _, _, key, data in worker.records:
            by_key[key].append(int(data.rsplit("-", 1)[1]))
        check(all(numbers == sorted(numbers) for numbers in by_key.values()), "order within a key was lost")
        # A second worker of the application starts where the first one left: there is nothing more to give.
        worker.leave()
        # It publishes what it has left when it leaves. (One that starts at a checkpoint counts that record once more.)
        worker.published()
        processed = self.total(name, "RecordsProcessed", Operation="ProcessTask", ShardId=None)
        check(processed == len(sent), f"{processed} of {len(sent)} records were processed by its metrics")
        more = self.put(name, "second", 200)
        again = self.program(kind, "Worker", kind, name, name)
        self.given(again, more)
        again.leave()
        again.published()
        if kind == "fan-out":
            arn = self.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
            consumers = self.kinesis.list_stream_consumers(StreamARN=arn)["Consumers"]
            check([one["ConsumerName"] for one in consumers] == [name], f"the stream's consumers are {consumers}")

    def polling(self):
        self.worker("polling")

    def fan_out(self):
        self.worker("fan-out")

    def produce(self, name, count, per_second, aggregate):
        return self.program("kpl", "Producer", name, str(count), str(per_second), "true" if aggregate else "false")

    def settled(self, producer, count):
        """Waits for the Producer Library's last answer; gives the data that it says is in the stream."""
        until(lambda: producer.process.poll() is not None,
              lambda: f"{len(producer.lines)} of {count} records were answered", lambda: time.sleep(0.1), SECONDS)
        producer.thread.join()
        bad = producer.said("refused")
        check(not bad, f"{len(bad)} of {count} records were refused, the first {bad[:1]}")
        done = producer.said("put")
        check(len(done) == count, f"{len(done)} of {count} records were answered: {producer.lines[-2:]}")
        producer.published()
        return done

    def stored(self, name):
        """(shard, sequence number, bytes) of every record as it lies in the stream."""
        found = []
        for shard in self.kinesis.list_shards(StreamName=name)["Shards"]:
            iterator = self.kinesis.get_shard_iterator(StreamName=name, ShardId=shard["ShardId"],
                                                       ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
            while iterator:
                answer = self.kinesis.get_records(ShardIterator=iterator)
                found += [(shard["ShardId"], r["SequenceNumber"], r["Data"]) for r in answer["Records"]]
                iterator = answer.get("NextShardIterator")
                if not answer["Records"] and not answer["MillisBehindLatest"]:
                    break
                time.sleep(0.21)
        return found

    def kpl_aggregated(self):
        name = self.stream("aggregated", 2)
        done = self.settled(self.produce(name, 5000, 5000, True), 5000)
        found = self.stored(name)
        check(len(found) < 2500, f"5,000 records of the Producer Library lie in {len(found)}: not aggregated")
        check(all(data.startswith(b"\xf3\x89\x9a\xc2") for _, _, data in found if len(data) > 400), "not its format")
        places = {(shard, number) for shard, number, _ in found}
        check({(shard, number) for _, shard, number, _ in done} == places, "it was told other places than there are")
        worker = self.program("polling", "Worker", "polling", name, name)
        self.given(worker, [data for _, _, _, data in done])
        worker.leave()

    def kpl_plain(self):
        name = self.stream("plain", 2)
        done = self.settled(self.produce(name, 2000, 700, False), 2000)
        found = self.stored(name)
        check(sorted(data.decode() for _, _, data in found) == sorted(data for _, _, _, data in done),
              f"2,000 records were put and {len(found)} lie there")
        put = self.total("KinesisProducerLibrary", "UserRecordsPut", StreamName=name)
        check(0 < put <= 2000, f"{put} of 2,000 records were put by its metrics")
        # The broker's own, a minute after.
        until(lambda: self.total("AWS/Kinesis", "IncomingRecords", StreamName=name) == 2000,
              "AWS/Kinesis does not have 2,000 records", lambda: time.sleep(2), 90)

    def kpl_to_kafka(self):
        name = self.stream("kpl-to-kafka", 2)
        reader = self.program("kafka", "Reader", name, name)
        producer = self.produce(name, 24_000, 2000, True)
        until(lambda: len(reader.records) > 4000 or producer.process.poll() is not None,
              lambda: f"the Kafka consumer was given {len(reader.records)}", seconds=60)
        self.reshard(name)
        check(producer.process.poll() is None, "the Producer Library had ended before the shards had changed")
        done = self.settled(producer, 24_000)
        check(len({shard for _, shard, _, _ in done}) >= 4, "it did not put into the new shards")
        until(lambda: len({tuple(fields[1:3]) for fields in reader.records}) >= len(done),
              lambda: f"the Kafka consumer was given {len(reader.records)}", lambda: time.sleep(0.1), SECONDS)
        time.sleep(1)
        # When an aggregated record has landed in another shard than its sender thought, the Producer Library sends
        # what does not belong there once more and tells where that went; readers drop the first copy.
        told = {data: offset(number) for _, _, number, data in done}
        # A consumer that was held up reads again what it had not committed: what counts is what lies in the log.
        lying = list({(fields[1], fields[2]): fields for fields in reader.records}.values())
        counted = [fields for fields in lying if int(fields[2].split(".")[0]) == told.get(fields[4])]
        self.once([data for _, _, _, data in done], counted)
        check(len(lying) - len(counted) < 2000, f"{len(lying)} records lie there for {len(done)}")
        check(len({fields[1] for fields in reader.records}) == 3, "the Kafka consumer did not read three partitions")
        reader.leave()

    def kafka_to_fan_out(self):
        name = self.stream("kafka-to-fan-out", 2)
        worker = self.program("fan-out", "Worker", "fan-out", name, name)
        producer = ck.Producer({"bootstrap.servers": self.bootstrap, "acks": "all", "enable.idempotence": True,
                                "linger.ms": 20, "topic.metadata.refresh.interval.ms": 500})
        sent, refusals = [f"rdkafka-{n}" for n in range(20_000)], []
        resharding = None
        for n, data in enumerate(sent):
            producer.produce(name, key=f"key-{n % 211}", value=data,
                             on_delivery=lambda error, _: refusals.append(error) if error else None)
            if n % 20 == 0:
                producer.poll(0.01)
            if n == 4000:
                until(lambda: len(worker.records) > 500, "the worker was given nothing",
                      lambda: producer.poll(0.05), SECONDS)
                resharding = threading.Thread(target=self.reshard, args=(name,), daemon=True)
                resharding.start()
        resharding.join()
        sent += [f"rdkafka-after-{n}" for n in range(2000)]
        time.sleep(1)
        for data in sent[-2000:]:
            producer.produce(name, key=data, value=data,
                             on_delivery=lambda error, _: refusals.append(error) if error else None)
        check(producer.flush(60) == 0 and not refusals, f"librdkafka was refused: {refusals[:1]}")
        self.given(worker, sent)
        shards = {fields[1] for fields in worker.records}
        check(len(shards) >= 4, f"the records lie in {sorted(shards)} alone")
        worker.leave()

    def all(self):
        jars = Path(os.environ["LIBS"])
        version = {part: next(jars.glob(f"amazon-kinesis-{part}-*.jar")).stem.rsplit("-", 1)[1]
                   for part in ("client", "producer")}
        print(f"version KCL {version['client']}, KPL {version['producer']}, moto {importlib.metadata.version('moto')}",
              flush=True)
        try:
            for name in sys.argv[1:] or ("polling", "fan-out", "kpl-aggregated", "kpl-plain", "kpl-to-kafka",
                                         "kafka-to-fan-out"):
                self.step(name, getattr(self, name.replace("-", "_")))
                for program in self.programs:
                    program.kill()
        finally:
            for program in self.programs:
                program.kill()
            self.beside.end()


if __name__ == "__main__":
    steps.STEP_SECONDS = 300
    job = Job()
    job.all()
    sys.stdout.flush()
    os._exit(1 if job.failed else 0)
