"""The loads that go through the Kinesis API: bodies made before the clock runs, over plain HTTP/1.1 connections in
processes of their own, so that the load costs next to nothing and is the same for every broker."""

import base64
import http.client
import json
import multiprocessing
import random
import socket
import time

import brokers
from generators import Failed, clients
from loads import DELAY, Load, Result, name, quantiles

EVERY = tuple(brokers.KINESIS)
RATE = ("records/s", "CPU-s/GiB")
CONNECTIONS = 4
SHARDS = 4
RECORDS_A_CALL = 500
RECORD_BYTES = 1024
# Each sends these over and over.
BODIES = 8
FORK = multiprocessing.get_context("fork")
HEADERS = {
    "Content-Type": "application/x-amz-json-1.1", "X-Amz-Date": "20260101T000000Z",
    "Authorization": "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/kinesis/aws4_request, "
                     "SignedHeaders=host;x-amz-date, Signature=00"}


class Api:
    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=120)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, operation, body):
        """The status and the bytes of the answer."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request("POST", "/", raw, HEADERS | {"X-Amz-Target": f"Kinesis_20131202.{operation}"})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def get(self, operation, **body):
        status, answer = self.ask(operation, body)
        if status != 200:
            raise Failed(f"{operation}: {status} {answer[:200].decode(errors='replace')}")
        return json.loads(answer) if answer else {}


def create(broker, **how):
    api, stream = Api(broker.http), name()
    api.get("CreateStream", StreamName=stream, **(how or {"ShardCount": SHARDS}))
    while api.get("DescribeStreamSummary", StreamName=stream)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
        time.sleep(0.05)
    return stream


def shards(broker, stream):
    return [shard["ShardId"] for shard in Api(broker.http).get("ListShards", StreamName=stream)["Shards"]]


def bodies(stream, seed):
    chance = random.Random(seed)
    return [json.dumps({"StreamName": stream, "Records": [
        {"PartitionKey": f"{chance.getrandbits(64):016x}", "Data": base64.b64encode(chance.randbytes(RECORD_BYTES)).decode()}
        for _ in range(RECORDS_A_CALL)]}, separators=(",", ":")).encode() for _ in range(BODIES)]


def put(address, stream, seconds, seed):
    ready, api, answered, took = bodies(stream, seed), Api(address), 0, []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        sent = time.perf_counter()
        status, answer = api.ask("PutRecords", ready[answered % BODIES])
        took.append(time.perf_counter() - sent)
        if status != 200 or b'"FailedRecordCount":0' not in answer.replace(b" ", b""):
            raise Failed(f"PutRecords: {status} {answer[:200].decode(errors='replace')}")
        answered += 1
    return answered, time.perf_counter() - began, took


def get(address, stream, mine):
    """Records read of these shards, until none has more."""
    api, read = Api(address), 0
    iterators = [api.get("GetShardIterator", StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
                 for shard in mine]
    began = time.perf_counter()
    while iterators:
        iterator = iterators.pop(0)
        status, answer = api.ask("GetRecords", {"ShardIterator": iterator, "Limit": 10_000})
        if status != 200:
            raise Failed(f"GetRecords: {status} {answer[:200].decode(errors='replace')}")
        # Megabytes of records are not parsed: they are counted, and the iterator is cut out.
        count, after = answer.count(b'"SequenceNumber"'), answer.rfind(b'"NextShardIterator"')
        read += count
        if count and after >= 0:
            iterators.append(answer[after:].split(b'"')[3].decode())
    return read, time.perf_counter() - began


def outcome(work, arguments, answers):
    try:
        answers.put(work(*arguments))
    except Exception as error:  # Whatever it was ends the load.
        answers.put(error)


def together(work, calls):
    """What each call gave, in processes of their own."""
    answers = FORK.Queue()
    workers = [FORK.Process(target=outcome, args=(work, call, answers)) for call in calls]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found


def put_records(seconds):
    def prepare(broker):
        # Machines that compile what they often do need some of it first.
        warm = create(broker)
        together(put, [(broker.http, warm, seconds / 4, seed) for seed in range(CONNECTIONS)])
        return create(broker)

    def run(broker, stream):
        found = together(put, [(broker.http, stream, seconds, seed) for seed in range(CONNECTIONS)])
        records = RECORDS_A_CALL * sum(answered for answered, _, _ in found)
        half, most = quantiles([one for _, _, took in found for one in took], 0.5, 0.99)
        return Result({"records/s": records / max(spent for _, spent, _ in found), "p50 ms": half * 1000,
                       "p99 ms": most * 1000}, records * RECORD_BYTES)
    return {"run": run, "prepare": prepare}


def get_records(seconds):
    def prepare(broker):
        stream = create(broker)
        found = together(put, [(broker.http, stream, seconds, seed) for seed in range(CONNECTIONS)])
        return stream, RECORDS_A_CALL * sum(answered for answered, _, _ in found)

    def run(broker, prepared):
        stream, written = prepared
        found = together(get, [(broker.http, stream, [shard]) for shard in shards(broker, stream)])
        records = sum(read for read, _ in found)
        return Result({"records/s": records / max(spent for _, spent in found), "of those put": records / written},
                      records * RECORD_BYTES)
    return {"run": run, "prepare": prepare}


def fan_out(consumers, rate, seconds):
    """Subscribers of the AWS SDK for Go, each with every record; delay from before its put until it is delivered."""
    def run(broker, stream):
        found = clients("fanout", f"http://{broker.http}", stream, consumers, rate, seconds)
        return Result({"p50 ms": found["p50_ms"], "p99 ms": found["p99_ms"], "delivered": found["delivered"] / found["due"]},
                      found["delivered"] * 100)
    # Only these may have 50 consumers.
    return {"run": run, "prepare": lambda broker: create(broker, StreamModeDetails={"StreamMode": "ON_DEMAND"}),
            "headline": DELAY}


def all_loads(scale):
    seconds = max(8 * scale, 2)
    return [
        Load("put-records", "500 x 1 KiB a call, 4 connections, 4 shards", EVERY, **put_records(seconds), headline=RATE),
        Load("get-records", "all of that", EVERY, **get_records(seconds), headline=RATE),
        # The peers have five consumers a stream, or none.
        Load("fan-out", "50 consumers, 1,000 records/s of 100 B", ("anabranch",), **fan_out(50, 1_000, max(int(10 * scale), 4))),
    ]
