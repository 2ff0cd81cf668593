"""The steps that every Kinesis client goes through (../../README.md tells what must hold).

A client's script brings an adapter and calls `run`. The adapter gives `name`, `version`, `lacks` ({step: reason}), and

    call(operation, **parameters) -> the answer as a dict   raises ApiError; retries what AWS's own retries
    once(operation, **parameters)                           the same without a single retry
    subscribe(consumer_arn, shard_id, position) -> iterator over events, each {"Records", "ContinuationSequenceNumber",
                                                  "MillisBehindLatest", "ChildShards"?}; raises ApiError

Clients in other languages than Python come through bridge.py, so that all go through the very same steps.

Parameters and answers have AWS's names; data is bytes both ways, timestamps are seconds. Data sent is always UTF-8,
because not every client takes other bytes.
"""

import datetime
import hashlib
import os
import re
import sys
import threading
import time

import confluent_kafka as ck

import steps
from steps import Skip, check, until

HASH_KEYS = 1 << 128
SHARD_ID = re.compile(r"^shardId-\d{12}$")
# The Kinesis side allows five reads a second from a shard.
BETWEEN_READS = 0.21


class ApiError(Exception):
    """An error that the service answered, by its name."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message or ""


def refused(code, text, action, *arguments, **parameters):
    """That the call is refused by this name, with a message that holds this regular expression."""
    try:
        answer = action(*arguments, **parameters)
    except ApiError as error:
        check(error.code == code, f"{arguments}: refused with {error.code} ({error.message}) instead of {code}")
        check(re.search(text, error.message), f"{arguments}: {code} says {error.message!r}, not {text!r}")
        return
    raise steps.Failed(f"{arguments}: not refused with {code} but {answer}")


def hash_key(partition_key):
    return int.from_bytes(hashlib.md5(partition_key.encode()).digest(), "big")


def covers(shard, number):
    bounds = shard["HashKeyRange"]
    return int(bounds["StartingHashKey"]) <= number <= int(bounds["EndingHashKey"])


def is_open(shard):
    return "EndingSequenceNumber" not in shard["SequenceNumberRange"]


def parents(shard):
    return [shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if name in shard]


def entries(count, label):
    """Records with keys that repeat, so that their order within a key can be looked at."""
    return [{"PartitionKey": f"{label}-ключ-{n % 37}", "Data": f"{label} {n} ü".encode() * (1 + n % 5)}
            for n in range(count)]


class Kinesis(steps.Steps):
    def __init__(self, client, bootstrap, restart):
        super().__init__(client, bootstrap, restart)
        self.call = client.call
        self.once = client.once
        self.sent = []
        self.moments = {}

    # What the steps share.

    def summary(self, name):
        return self.call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]

    def active(self, name):
        until(lambda: self.summary(name)["StreamStatus"] == "ACTIVE",
              lambda: f"{name} is {self.summary(name)['StreamStatus']}", lambda: time.sleep(0.1))
        return self.summary(name)

    def make(self, what, shards):
        name = self.topic(what)
        self.call("CreateStream", StreamName=name, ShardCount=shards)
        self.active(name)
        return name

    def shards(self, name, **filters):
        return self.call("ListShards", StreamName=name, **filters)["Shards"]

    def open_shards(self, name):
        return [shard for shard in self.shards(name) if is_open(shard)]

    def put_all(self, name, batch):
        """PutRecords until every record is taken, as its users must write it; gives each record's place."""
        places = [None] * len(batch)
        left = list(range(len(batch)))
        end = time.monotonic() + steps.WAIT_SECONDS
        while left:
            check(time.monotonic() < end, f"{len(left)} records were refused for {steps.WAIT_SECONDS} s")
            now, later = left[:500], left[500:]
            answer = self.call("PutRecords", StreamName=name, Records=[batch[n] for n in now])
            check(len(answer["Records"]) == len(now), f"{len(now)} records sent, {len(answer['Records'])} answers")
            again = []
            for n, record in zip(now, answer["Records"]):
                if "ErrorCode" in record:
                    again.append(n)
                else:
                    places[n] = (record["ShardId"], record["SequenceNumber"])
            check(answer.get("FailedRecordCount", 0) == len(again),
                  f"FailedRecordCount is {answer.get('FailedRecordCount')}, {len(again)} records have an error")
            left = again + later
            if again:
                time.sleep(0.3)
        return places

    def iterator(self, name, shard_id, kind="TRIM_HORIZON", **position):
        return self.call("GetShardIterator", StreamName=name, ShardId=shard_id, ShardIteratorType=kind,
                         **position)["ShardIterator"]

    def read(self, iterator, count, **parameters):
        """Reads from the iterator until `count` records are there, then once more; also gives the last answer."""
        got, answer = [], None
        end = time.monotonic() + steps.WAIT_SECONDS
        while iterator is not None:
            full = len(got) >= count
            answer = self.call("GetRecords", ShardIterator=iterator, **parameters)
            got.extend(answer["Records"])
            iterator = answer.get("NextShardIterator")
            if full:
                break
            check(time.monotonic() < end, f"read {len(got)} of {count} records in {steps.WAIT_SECONDS} s")
            time.sleep(BETWEEN_READS)
        return got, answer

    def read_to_end(self, name, shard):
        """Everything in a shard: of a closed one to its end, of an open one until nothing is behind."""
        got, iterator, quiet = [], self.iterator(name, shard["ShardId"]), 0
        while True:
            answer = self.call("GetRecords", ShardIterator=iterator)
            got.extend(answer["Records"])
            iterator = answer.get("NextShardIterator")
            if iterator is None:
                check(not is_open(shard), f"the iterator of the open {shard['ShardId']} ended")
                return got, answer.get("ChildShards", [])
            behind = answer["Records"] or answer["MillisBehindLatest"]
            quiet = 0 if behind or not is_open(shard) else quiet + 1
            if quiet == 2:
                return got, []
            time.sleep(BETWEEN_READS)

    def lineage(self, name):
        """Reads the stream as KCL does, parents before children, and checks what it says of itself on the way."""
        shards = {shard["ShardId"]: shard for shard in self.shards(name)}
        everything, done = [], set()
        for shard_id in sorted(shards):
            shard = shards[shard_id]
            check(set(parents(shard)) <= done, f"{shard_id} has parents {parents(shard)} that are not before it")
            got, children = self.read_to_end(name, shard)
            numbers = [int(record["SequenceNumber"]) for record in got]
            check(numbers == sorted(set(numbers)), f"sequence numbers in {shard_id} are not strictly rising")
            bounds = shard["SequenceNumberRange"]
            check(all(number >= int(bounds["StartingSequenceNumber"]) for number in numbers), f"{shard_id} starts late")
            if not is_open(shard):
                check(all(n <= int(bounds["EndingSequenceNumber"]) for n in numbers), f"{shard_id} ends early")
                wanted = sorted(s["ShardId"] for s in shards.values() if shard_id in parents(s))
                found = sorted(child["ShardId"] for child in children)
                check(found == wanted, f"ChildShards of {shard_id} are {found}, ListShards says {wanted}")
            for record in got:
                check(covers(shard, hash_key(record["PartitionKey"])), f"{record['PartitionKey']} is in {shard_id}")
            everything.extend(got)
            done.add(shard_id)
        return everything

    def same_records(self, sent, got):
        """That each was read once, with its data, in order within its key."""
        check(len(got) == len(sent), f"{len(sent)} records sent and {len(got)} read")
        for key in {record["PartitionKey"] for record in sent}:
            wanted = [record["Data"] for record in sent if record["PartitionKey"] == key]
            found = [record["Data"] for record in got if record["PartitionKey"] == key]
            check(wanted == found, f"the records of {key!r} differ: {len(wanted)} sent, {len(found)} read")

    # The steps.

    def create(self):
        name = self.topic("create")
        self.call("CreateStream", StreamName=name, ShardCount=2, Tags={"made": "by compat"})
        status = self.summary(name)["StreamStatus"]
        check(status in ("CREATING", "ACTIVE"), f"a new stream is {status}")
        summary = self.active(name)
        check(summary["OpenShardCount"] == 2, f"OpenShardCount is {summary['OpenShardCount']}")
        check(re.fullmatch(r"arn:aws:kinesis:[a-z0-9-]+:\d{12}:stream/" + re.escape(name), summary["StreamARN"]),
              f"the ARN is {summary['StreamARN']}")
        check(summary["StreamModeDetails"]["StreamMode"] == "PROVISIONED", f"{summary['StreamModeDetails']}")
        description = self.call("DescribeStream", StreamARN=summary["StreamARN"])["StreamDescription"]
        check(description["RetentionPeriodHours"] == 24, f"retention is {description['RetentionPeriodHours']} h")
        check(description["EncryptionType"] == "NONE", f"encryption is {description['EncryptionType']}")
        check(not description["HasMoreShards"], "HasMoreShards of two")
        half = HASH_KEYS // 2
        ranges = [(int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"]))
                  for s in description["Shards"]]
        check(ranges == [(0, half - 1), (half, HASH_KEYS - 1)], f"the shards cover {ranges}")
        check(all(SHARD_ID.match(s["ShardId"]) for s in description["Shards"]), f"{description['Shards']}")
        tags = self.call("ListTagsForStream", StreamName=name)["Tags"]
        check(tags == [{"Key": "made", "Value": "by compat"}], f"tags are {tags}")
        refused("ResourceInUseException", f"Stream {name} under account \\d+ already exists",
                self.once, "CreateStream", StreamName=name, ShardCount=2)
        listed, more = [], {}
        while True:
            answer = self.call("ListStreams", Limit=1, **more)
            listed += answer["StreamNames"]
            if not answer["HasMoreStreams"]:
                break
            more = {"ExclusiveStartStreamName": listed[-1]}
            time.sleep(0.2)
        check(name in listed and listed == sorted(set(listed)), f"ListStreams says {listed}")

    def put(self):
        name = self.make("put", 2)
        shards = self.shards(name)
        for n in range(5):
            key = f"one-{n}"
            answer = self.call("PutRecord", StreamName=name, PartitionKey=key, Data=b"x")
            wanted = next(s["ShardId"] for s in shards if covers(s, hash_key(key)))
            check(answer["ShardId"] == wanted, f"{key} went to {answer['ShardId']} instead of {wanted}")
            number = answer["SequenceNumber"]
            check(re.fullmatch(r"\d{56}", number), f"a sequence number is {number}")
        answer = self.call("PutRecord", StreamName=name, PartitionKey="one-0", Data=b"",
                           ExplicitHashKey=str(HASH_KEYS - 1), SequenceNumberForOrdering=number)
        check(answer["ShardId"] == shards[1]["ShardId"], f"the highest hash key went to {answer['ShardId']}")
        batch = entries(400, "put")
        places = self.put_all(name, batch)
        for record, (shard_id, _) in zip(batch, places):
            shard = next(s for s in shards if s["ShardId"] == shard_id)
            check(covers(shard, hash_key(record["PartitionKey"])), f"{record['PartitionKey']} is in {shard_id}")
        for shard in shards:
            numbers = [int(number) for shard_id, number in places if shard_id == shard["ShardId"]]
            check(numbers == sorted(set(numbers)), "the sequence numbers of one request do not rise")
        got = []
        for shard in shards:
            got += self.read_to_end(name, shard)[0]
        self.same_records(batch, [r for r in got if r["PartitionKey"].startswith("put")])
        check(b"" in [r["Data"] for r in got if r["PartitionKey"] == "one-0"], "the record without data is missing")
        by_number = {r["SequenceNumber"]: r["Data"] for r in got}
        check(all(by_number.get(n) == r["Data"] for r, (_, n) in zip(batch, places)), "a number has other data")

    def iterators(self):
        name = self.make("iterators", 1)
        shard_id = self.shards(name)[0]["ShardId"]
        latest = self.iterator(name, shard_id, "LATEST")
        first = entries(20, "first")
        self.put_all(name, first)
        time.sleep(1.1)
        second = entries(20, "second")
        numbers = [number for _, number in self.put_all(name, second)]
        everything, answer = self.read(self.iterator(name, shard_id), 40)
        self.same_records(first + second, everything)
        check(answer["MillisBehindLatest"] == 0, f"at the end MillisBehindLatest is {answer['MillisBehindLatest']}")
        arrivals = [record["ApproximateArrivalTimestamp"] for record in everything]
        check(arrivals == sorted(arrivals), "arrival times fall")
        check(abs(arrivals[-1] - time.time()) < 60, f"arrived at {arrivals[-1]}, now it is {time.time()}")
        check(all("EncryptionType" not in record for record in everything), "records without encryption name one")
        self.same_records(first + second, self.read(latest, 40)[0])
        at, _ = self.read(self.iterator(name, shard_id, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[5]), 15)
        self.same_records(second[5:], at)
        after, _ = self.read(self.iterator(name, shard_id, "AFTER_SEQUENCE_NUMBER",
                                           StartingSequenceNumber=numbers[5]), 14)
        self.same_records(second[6:], after)
        # A whole second, since the AWS CLI cuts a timestamp to one; there is one in a pause of more than a second.
        between = int(arrivals[20])
        check(arrivals[19] < between, f"the records arrived at {arrivals[19]} and {arrivals[20]}")
        late, _ = self.read(self.iterator(name, shard_id, "AT_TIMESTAMP", Timestamp=between), 20)
        self.same_records(second, late)
        pages, answer = self.read(self.iterator(name, shard_id), 7, Limit=7)
        check(len(pages) == 14, f"two pages of 7 hold {len(pages)} records")
        check(answer["MillisBehindLatest"] > 0, "26 records before the end MillisBehindLatest is 0")
        self.same_records((first + second)[:14], pages)

    def limits(self):
        name = self.make("limits", 2)
        half = HASH_KEYS // 2
        full, other = self.shards(name)[0]["ShardId"], self.shards(name)[1]["ShardId"]
        # The first shard is asked for 2.4 MiB within one request, the other for next to nothing.
        batch = [{"PartitionKey": f"{n}", "Data": b"x" * 10_000, "ExplicitHashKey": "1"} for n in range(250)]
        batch += [{"PartitionKey": f"{n}", "Data": b"y", "ExplicitHashKey": str(half)} for n in range(250)]
        answer = self.once("PutRecords", StreamName=name, Records=batch)
        bad = [record for record in answer["Records"] if "ErrorCode" in record]
        check(answer["FailedRecordCount"] == len(bad), f"{answer['FailedRecordCount']} failed, {len(bad)} have errors")
        check(all("ErrorCode" not in record for record in answer["Records"][250:]), "the other shard was throttled")
        check(90 <= 250 - len(bad) <= 220, f"{250 - len(bad)} of 250 records of 10 kB were taken by one shard at once")
        for record in bad:
            check(record["ErrorCode"] == "ProvisionedThroughputExceededException", f"{record}")
            check(re.fullmatch(f"Rate exceeded for shard {full} in stream {name} under account \\d+\\.",
                               record["ErrorMessage"]), record["ErrorMessage"])
        time.sleep(1.5)
        for shard_id, wanted in ((full, 250 - len(bad)), (other, 250)):
            got, _ = self.read(self.iterator(name, shard_id), wanted)
            check(len(got) == wanted, f"{wanted} records were taken and {len(got)} can be read")
        refused("ValidationException", "Member must have length less than or equal to 500", self.once, "PutRecords",
                StreamName=name, Records=[{"PartitionKey": "k", "Data": b""}] * 501)
        self.read_limit(name)

    def read_limit(self, name):
        if "read-limit" in self.client.lacks:
            return
        iterator = self.iterator(name, self.shards(name)[1]["ShardId"], "LATEST")
        time.sleep(1.1)
        began, outcomes = time.monotonic(), []
        while len(outcomes) < 6 and time.monotonic() - began < 0.9:
            try:
                self.once("GetRecords", ShardIterator=iterator)
                outcomes.append("")
            except ApiError as error:
                outcomes.append(error.code)
        if time.monotonic() - began > 0.9:
            return
        check(outcomes == [""] * 5 + ["ProvisionedThroughputExceededException"], f"six reads in a second: {outcomes}")

    def send_more(self, name, label):
        batch = entries(150, label)
        self.put_all(name, batch)
        self.sent += batch

    def split(self):
        name = self.make("lineage", 2)
        self.moments["made"] = time.time()
        self.send_more(name, "before")
        time.sleep(1.1)
        first = self.shards(name)[0]
        self.call("SplitShard", StreamName=name, ShardToSplit=first["ShardId"], NewStartingHashKey=str(HASH_KEYS // 8))
        self.active(name)
        time.sleep(1.1)
        self.moments["split"] = time.time()
        shards = self.shards(name)
        check([is_open(s) for s in shards] == [False, True, True, True], f"after a split: {shards}")
        low, high = shards[2:]
        check(parents(low) == parents(high) == [first["ShardId"]], f"the parents are {parents(low)} {parents(high)}")
        check(low["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(HASH_KEYS // 8 - 1)}, f"{low}")
        check(high["HashKeyRange"]["StartingHashKey"] == str(HASH_KEYS // 8), f"{high}")
        self.send_more(name, "split")
        half = HASH_KEYS // 2
        refused("InvalidArgumentException", "hash key|NewStartingHashKey|HashKey", self.once, "SplitShard", StreamName=name,
                ShardToSplit=low["ShardId"], NewStartingHashKey=str(half))
        refused("InvalidArgumentException", "not an adjacent pair", self.once, "MergeShards", StreamName=name,
                ShardToMerge=low["ShardId"], AdjacentShardToMerge=shards[1]["ShardId"])

    def merge(self):
        name = self.topic("lineage")
        before = self.open_shards(name)
        right, left = before[0], before[2]
        self.call("MergeShards", StreamName=name, ShardToMerge=left["ShardId"],
                  AdjacentShardToMerge=right["ShardId"])
        self.active(name)
        time.sleep(1.1)
        self.moments["merge"] = time.time()
        child = self.shards(name)[-1]
        check(sorted(parents(child)) == sorted([left["ShardId"], right["ShardId"]]), f"merged into {child}")
        check(child["HashKeyRange"] == {"StartingHashKey": left["HashKeyRange"]["StartingHashKey"],
                                        "EndingHashKey": right["HashKeyRange"]["EndingHashKey"]}, f"{child}")
        self.send_more(name, "merge")

    def scale(self):
        name = self.topic("lineage")
        answer = self.call("UpdateShardCount", StreamName=name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
        check((answer["CurrentShardCount"], answer["TargetShardCount"]) == (2, 4), f"{answer}")
        check(self.active(name)["OpenShardCount"] == 4, "not scaled to 4")
        self.send_more(name, "scale")
        starts = sorted(int(s["HashKeyRange"]["StartingHashKey"]) for s in self.open_shards(name))
        check(starts == [HASH_KEYS // 4 * n for n in range(4)], f"four uniform shards start at {starts}")
        refused("LimitExceededException", "cannot scale up over double your current open shard count",
                self.once, "UpdateShardCount", StreamName=name, TargetShardCount=9, ScalingType="UNIFORM_SCALING")
        self.call("UpdateShardCount", StreamName=name, TargetShardCount=2, ScalingType="UNIFORM_SCALING")
        check(self.active(name)["OpenShardCount"] == 2, "not scaled to 2")
        self.send_more(name, "last")
        self.same_records(self.sent, self.lineage(name))

    def list_shards(self):
        name = self.topic("lineage")
        shards = self.shards(name)
        ids = [shard["ShardId"] for shard in shards]
        check(ids == sorted(set(ids)), f"ListShards gives {ids}")

        def listed(**shard_filter):
            return [shard["ShardId"] for shard in self.shards(name, ShardFilter=shard_filter)]

        first_three = ids[:4]
        opened = [shard["ShardId"] for shard in shards if is_open(shard)]
        wanted = {
            "AT_LATEST": opened,
            "AT_TRIM_HORIZON": ids[:2],
            "FROM_TRIM_HORIZON": ids,
        }
        for kind, expected in wanted.items():
            check(listed(Type=kind) == expected, f"{kind} gives {listed(Type=kind)} instead of {expected}")
        after = listed(Type="AFTER_SHARD_ID", ShardId=ids[2])
        check(after == ids[3:], f"AFTER_SHARD_ID {ids[2]} gives {after}")
        at = listed(Type="AT_TIMESTAMP", Timestamp=self.moments["split"])
        check(at == first_three[1:], f"AT_TIMESTAMP between split and merge gives {at} instead of {first_three[1:]}")
        since = listed(Type="FROM_TIMESTAMP", Timestamp=self.moments["split"])
        check(since == ids[1:], f"FROM_TIMESTAMP after the split gives {since} instead of {ids[1:]}")
        pages, more = [], {"StreamName": name}
        while more:
            answer = self.call("ListShards", MaxResults=2, **more)
            check(len(answer["Shards"]) <= 2, f"a page of {len(answer['Shards'])} shards")
            pages += [shard["ShardId"] for shard in answer["Shards"]]
            more = {"NextToken": answer["NextToken"]} if answer.get("NextToken") else None
        check(pages == ids, f"in pages of two ListShards gives {pages}")
        again = [shard["ShardId"] for shard in self.shards(name, ExclusiveStartShardId=ids[1])]
        check(again == ids[2:], f"ExclusiveStartShardId {ids[1]} gives {again}")

    def fan_out(self):
        name = self.make("fan-out", 1)
        shard_id = self.shards(name)[0]["ShardId"]
        stream = self.summary(name)["StreamARN"]
        made = self.call("RegisterStreamConsumer", StreamARN=stream, ConsumerName="reader")["Consumer"]
        arn = made["ConsumerARN"]
        check(re.fullmatch(re.escape(stream) + r"/consumer/reader:\d+", arn), f"the consumer's ARN is {arn}")
        refused("ResourceInUseException", "reader", self.once, "RegisterStreamConsumer", StreamARN=stream,
                ConsumerName="reader")

        def described():
            return self.call("DescribeStreamConsumer", ConsumerARN=arn)["ConsumerDescription"]

        until(lambda: described()["ConsumerStatus"] == "ACTIVE", "the consumer did not become ACTIVE",
              lambda: time.sleep(0.2))
        listed = self.call("ListStreamConsumers", StreamARN=stream)["Consumers"]
        check([one["ConsumerName"] for one in listed] == ["reader"], f"consumers: {listed}")
        check(self.summary(name)["ConsumerCount"] == 1, f"{self.summary(name)}")
        if "fan-out" not in self.client.lacks:
            self.subscription(name, shard_id, arn)
        self.call("DeregisterStreamConsumer", ConsumerARN=arn)
        until(lambda: not self.call("ListStreamConsumers", StreamARN=stream)["Consumers"], "the consumer stays",
              lambda: time.sleep(0.3))
        if "fan-out" in self.client.lacks:
            raise Skip(f"SubscribeToShard: {self.client.lacks['fan-out']}; the consumer was made and deleted")

    def subscription(self, name, shard_id, arn):
        before = entries(50, "before")
        self.put_all(name, before)
        got, pushed, ended = [], [], []

        def follow():
            try:
                for event in self.client.subscribe(arn, shard_id, {"Type": "TRIM_HORIZON"}):
                    pushed.append((time.time(), event))
                    got.extend(event["Records"])
                    if event.get("ChildShards"):
                        ended.append(event)
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        until(lambda: len(got) >= 50 or ended, lambda: f"pushed {len(got)} of 50 records")
        check(not ended, f"the subscription ended: {ended}")
        refused("ResourceInUseException", "", lambda *_: next(iter(self.client.subscribe(
            arn, shard_id, {"Type": "LATEST"}))), "SubscribeToShard")
        later = [{"PartitionKey": "now", "Data": f"{n}".encode()} for n in range(5)]
        for record in later:
            sent = time.time()
            self.call("PutRecord", StreamName=name, **record)
            wanted = len(got) if len(got) > 50 + later.index(record) else 51 + later.index(record)
            until(lambda: len(got) >= wanted or ended, "a record was not pushed", lambda: time.sleep(0.005))
            check(pushed[-1][0] - sent < 2, f"pushed {pushed[-1][0] - sent:.1f} s after the put")
        self.same_records(before + later, got)
        numbers = [int(event["ContinuationSequenceNumber"]) for _, event in pushed]
        check(numbers == sorted(numbers), "ContinuationSequenceNumber falls")
        check(pushed[-1][1]["MillisBehindLatest"] == 0, f"{pushed[-1][1]['MillisBehindLatest']} ms behind at the end")
        # At the end of the shard the children are told and the subscription is over.
        self.call("SplitShard", StreamName=name, ShardToSplit=shard_id, NewStartingHashKey=str(HASH_KEYS // 2))
        until(lambda: ended, "no event with ChildShards after a split")
        check(isinstance(ended[0], dict), f"instead of ChildShards: {ended[0]!r}")
        check(len(ended[0]["ChildShards"]) == 2, f"{ended[0]['ChildShards']}")
        thread.join(20)
        check(not thread.is_alive(), "the subscription to a closed shard did not end")
        self.active(name)

    def tags(self):
        name = self.make("tags", 1)
        arn = self.summary(name)["StreamARN"]
        self.call("AddTagsToStream", StreamName=name, Tags={"a": "1", "b": "2", "c": ""})
        self.call("RemoveTagsFromStream", StreamName=name, TagKeys=["b"])
        self.call("TagResource", ResourceARN=arn, Tags={"d": "4"})
        self.call("UntagResource", ResourceARN=arn, TagKeys=["a"])
        wanted = [{"Key": "c", "Value": ""}, {"Key": "d", "Value": "4"}]
        for answer in (self.call("ListTagsForStream", StreamName=name), self.call("ListTagsForResource", ResourceARN=arn)):
            check(sorted(answer["Tags"], key=lambda tag: tag["Key"]) == wanted, f"tags are {answer['Tags']}")

    def retention(self):
        name = self.make("retention", 1)
        self.call("IncreaseStreamRetentionPeriod", StreamName=name, RetentionPeriodHours=48)
        check(self.active(name)["RetentionPeriodHours"] == 48, "not increased to 48 h")
        refused("InvalidArgumentException", "48", self.once, "IncreaseStreamRetentionPeriod",
                StreamName=name, RetentionPeriodHours=30)
        self.call("DecreaseStreamRetentionPeriod", StreamName=name, RetentionPeriodHours=24)
        check(self.active(name)["RetentionPeriodHours"] == 24, "not decreased to 24 h")
        refused("InvalidArgumentException", "24", self.once, "DecreaseStreamRetentionPeriod",
                StreamName=name, RetentionPeriodHours=23)

    def errors(self):
        name = self.make("errors", 1)
        shard_id = self.shards(name)[0]["ShardId"]
        absent = self.topic("absent")
        missing = f"Stream {absent} under account \\d+ not found"
        for operation, parameters in (
                ("DescribeStream", {}), ("DescribeStreamSummary", {}), ("ListShards", {}), ("DeleteStream", {}),
                ("PutRecord", {"PartitionKey": "k", "Data": b""}), ("ListTagsForStream", {})):
            refused("ResourceNotFoundException", missing, self.once, operation, StreamName=absent, **parameters)
        refused("ResourceNotFoundException", f"Shard {shard_id} in stream {absent} under account \\d+ does not exist",
                self.once, "GetShardIterator", StreamName=absent, ShardId=shard_id, ShardIteratorType="LATEST")
        refused("ResourceNotFoundException", "shardId-000000000099", self.once, "GetShardIterator", StreamName=name,
                ShardId="shardId-000000000099", ShardIteratorType="LATEST")
        refused("InvalidArgumentException", "Invalid ShardIterator", self.once, "GetRecords", ShardIterator="nonsense")
        refused("InvalidArgumentException", "", self.once, "GetShardIterator", StreamName=name, ShardId=shard_id,
                ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber="1")
        refused("ValidationException", "Member must have length less than or equal to 256", self.once, "PutRecord",
                StreamName=name, PartitionKey="k" * 257, Data=b"x")
        refused("InvalidArgumentException", "ExplicitHashKey|hash", self.once, "PutRecord", StreamName=name,
                PartitionKey="k", Data=b"x", ExplicitHashKey=str(HASH_KEYS))
        refused("ValidationException", "less than or equal to 10000", self.once, "GetRecords",
                ShardIterator=self.iterator(name, shard_id), Limit=10_001)
        refused("ValidationException", "streamName", self.once, "CreateStream", StreamName="a/b", ShardCount=1)
        refused("LimitExceededException", "", self.once, "CreateStream", StreamName=absent, ShardCount=100_000)

    def consume(self, name, count):
        """What Apache Kafka's side holds: (partition, message) of every partition, from the beginning."""
        consumer = ck.Consumer({"bootstrap.servers": self.bootstrap, "group.id": "none", "enable.auto.commit": False,
                                "check.crcs": True})
        try:
            partitions = consumer.list_topics(name, 20).topics[name].partitions
            consumer.assign([ck.TopicPartition(name, p, ck.OFFSET_BEGINNING) for p in partitions])
            got, end = [], time.monotonic() + steps.WAIT_SECONDS
            while len(got) < count:
                check(time.monotonic() < end, f"a Kafka consumer read {len(got)} of {count} records")
                for message in consumer.consume(500, 0.5):
                    check(not message.error(), f"{message.error()}")
                    got.append(message)
            got += consumer.consume(500, 0.5)
            return got
        finally:
            consumer.close()

    def to_kafka(self):
        if "lineage" in self.client.lacks:
            raise Skip(self.client.lacks["lineage"])
        name = self.topic("lineage")
        check(self.sent, "nothing was put into the stream that was resharded")
        got = self.consume(name, len(self.sent))
        self.same_records(self.sent, [{"PartitionKey": m.key().decode(), "Data": m.value()} for m in sorted(
            got, key=lambda m: m.timestamp()[1])])
        check(all(abs(m.timestamp()[1] / 1000 - time.time()) < 600 for m in got), "timestamps are not arrival times")

    def from_kafka(self):
        name = self.make("from-kafka", 2)
        producer = ck.Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True, "acks": "all",
                                "compression.type": "lz4"})
        refusals = []
        wanted = {0: [], 1: []}
        for n in range(200):
            partition = n % 2
            key = None if n < 2 else f"key {n}".encode()
            value = None if 2 <= n < 4 else f"value {n} ü".encode()
            wanted[partition].append((f"partition-{partition}" if key is None else key.decode(), value or b""))
            producer.produce(name, key=key, value=value, partition=partition, headers=[("h", b"not visible")],
                             on_delivery=lambda error, _: refusals.append(error) if error else None)
        check(producer.flush(60) == 0 and not refusals, f"a Kafka producer was refused: {refusals[:1]}")
        for partition, shard in enumerate(self.shards(name)):
            got, _ = self.read_to_end(name, shard)
            check([(r["PartitionKey"], r["Data"]) for r in got] == wanted[partition],
                  f"partition {partition} holds {len(wanted[partition])} records, {shard['ShardId']} gave {len(got)}")
            check(all(abs(r["ApproximateArrivalTimestamp"] - time.time()) < 60 for r in got), "the arrival time is off")

    def restart(self):
        if not self.restart_command:
            raise Skip("this broker can't be restarted")
        name = self.make("restart", 2)
        shards = self.shards(name)
        self.call("AddTagsToStream", StreamName=name, Tags={"kept": "yes"})
        first = entries(100, "first")
        self.put_all(name, first)
        # Iterators in flight live through it.
        iterators = {shard["ShardId"]: self.iterator(name, shard["ShardId"]) for shard in shards}
        arn = self.summary(name)["StreamARN"]
        consumer = self.call("RegisterStreamConsumer", StreamARN=arn, ConsumerName="kept")["Consumer"]
        done = steps.subprocess.run(steps.shlex.split(self.restart_command) + ["kill"], stdin=steps.subprocess.DEVNULL)
        check(done.returncode == 0, "the broker did not come back")
        second = entries(100, "second")
        self.put_all(name, second)
        got = []
        for shard_id, iterator in iterators.items():
            while True:
                answer = self.call("GetRecords", ShardIterator=iterator)
                got += answer["Records"]
                iterator = answer["NextShardIterator"]
                if not answer["MillisBehindLatest"] and not answer["Records"]:
                    break
                time.sleep(BETWEEN_READS)
        self.same_records(first + second, got)
        self.same_records(first + second, self.lineage(name))
        check(self.shards(name) == shards, f"the shards changed from {shards} to {self.shards(name)}")
        check(self.call("ListTagsForStream", StreamName=name)["Tags"] == [{"Key": "kept", "Value": "yes"}], "tags")
        kept = self.call("DescribeStreamConsumer", ConsumerARN=consumer["ConsumerARN"])["ConsumerDescription"]
        check(kept["ConsumerName"] == "kept", f"{kept}")

    def delete(self):
        name = self.make("delete", 1)
        self.put_all(name, entries(10, "delete"))
        self.call("DeleteStream", StreamName=name)
        until(lambda: name not in self.call("ListStreams")["StreamNames"], "ListStreams still gives it",
              lambda: time.sleep(0.3))
        refused("ResourceNotFoundException", "not found", self.once, "DeleteStream", StreamName=name)
        admin = ck.Consumer({"bootstrap.servers": self.bootstrap, "group.id": "none"})
        try:
            check(name not in admin.list_topics(timeout=20).topics, "Kafka's metadata still lists it")
        finally:
            admin.close()

    def cloudwatch(self):
        """Metrics put, listed, read and refused, in every protocol that the client has for CloudWatch."""
        now = datetime.datetime.now(datetime.UTC)
        span = {"StartTime": now - datetime.timedelta(minutes=10), "EndTime": now + datetime.timedelta(minutes=10)}
        for protocol, call in self.client.clouds():
            namespace = f"{self.topic('cloud')}-{protocol}"
            dimensions = [{"Name": "b", "Value": "2"}, {"Name": "a", "Value": "1 & <2>"}]
            call("PutMetricData", Namespace=namespace, MetricData=[
                {"MetricName": "m", "Dimensions": dimensions, "Values": [1.0, 4.0], "Counts": [3.0, 1.0], "Unit": "Count"},
                {"MetricName": "m", "Dimensions": dimensions, "Unit": "Count",
                 "StatisticValues": {"SampleCount": 2, "Sum": 10, "Minimum": 5, "Maximum": 5}},
                {"MetricName": "n", "Value": 0.5, "Timestamp": now}])
            # Large enough that SDKs compress it.
            call("PutMetricData", Namespace=namespace, MetricData=[
                {"MetricName": f"many-{n}", "Value": n, "Dimensions": [{"Name": "long", "Value": "x" * 200}]}
                for n in range(300)])
            listed = call("ListMetrics", Namespace=namespace, MetricName="m")["Metrics"]
            listed = [{d["Name"]: d["Value"] for d in metric["Dimensions"]} for metric in listed]
            check(listed == [{"a": "1 & <2>", "b": "2"}], f"{protocol}: the metrics are {listed}")
            points = call("GetMetricStatistics", Namespace=namespace, MetricName="m", Dimensions=dimensions[::-1], Period=1200,
                          Statistics=["SampleCount", "Sum", "Average", "Minimum", "Maximum"],
                          ExtendedStatistics=["p50", "p100"], **span)["Datapoints"]
            points = [{name: value for name, value in point.items() if name != "Timestamp"} for point in points]
            check(points == [{"SampleCount": 6.0, "Sum": 17.0, "Average": 17 / 6, "Minimum": 1.0, "Maximum": 5.0,
                              "Unit": "Count", "ExtendedStatistics": {"p50": 1.0, "p100": 5.0}}],
                  f"{protocol}: the statistics are {points}")

            def stat(name, dimensions):
                return {"Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": dimensions},
                        "Period": 1200, "Stat": "Sum"}

            results = call("GetMetricData", MetricDataQueries=[
                {"Id": "m", "MetricStat": stat("m", dimensions)}, {"Id": "n", "MetricStat": stat("n", []), "ReturnData": False},
                {"Id": "ratio", "Expression": "m / n", "Label": "a ratio"}], **span)["MetricDataResults"]
            results = [(one["Id"], one["Label"], one["Values"], one["StatusCode"]) for one in results]
            check(results == [("m", "m", [17.0], "Complete"), ("ratio", "a ratio", [34.0], "Complete")],
                  f"{protocol}: the data are {results}")
            refused("InvalidParameterCombination", "mutually exclusive", call, "PutMetricData", Namespace=namespace, MetricData=[
                {"MetricName": "m", "Value": 1.0, "Values": [1.0]}])
            refused("InvalidParameterValue", "parameter Namespace is invalid", call, "PutMetricData", Namespace="AWS/Kinesis", MetricData=[])
            refused("MissingParameter", "At least one of the parameters", call, "PutMetricData", Namespace=namespace, MetricData=[{"MetricName": "m"}])

    def all(self):
        print(f"version {self.client.version}", flush=True)
        self.step("create", self.create)
        for name in ("put", "iterators", "limits", "split", "merge", "scale", "list-shards", "fan-out", "tags",
                     "retention", "errors", "to-kafka", "from-kafka", "restart", "delete"):
            self.step(name, getattr(self, name.replace("-", "_")))
        if hasattr(self.client, "clouds"):
            self.step("cloudwatch", self.cloudwatch)


def run(make_client, only=sys.argv[1:]):
    """Runs all steps, or those named, with the client that `make_client(endpoint)` gives, and ends the process."""
    job = Kinesis(make_client(os.environ["KINESIS"]), os.environ["BOOTSTRAP"], os.environ.get("RESTART"))
    if only:
        for name in only:
            job.step(name, getattr(job, name.replace("-", "_")))
    else:
        job.all()
    sys.stdout.flush()
    os._exit(1 if job.failed else 0)
