"""Kinesis clients in other languages, adapted to the steps: their SDK runs in a program of its own.

    bridge.py NAME PROGRAM [ARGUMENT...]

The program is started with KINESIS in its environment and prints {"version": "..."}. From then on it reads a
request a line from its standard input, answers in a line, and may have several in hand:

    {"id": 7, "retry": true, "operation": "PutRecord", "parameters": {...}}
    {"id": 7, "answer": {...}}   or   {"id": 7, "error": {"code": "...", "message": "..."}}

`retry` false means the client that never retries. SubscribeToShard is answered with {"id": 7, "event": {...}} for
each SubscribeToShardEvent and {"id": 7, "answer": {}} at its end. Names are AWS's, data is in base64, timestamps are
seconds. At the end of its input the program ends.
"""

import base64
import itertools
import json
import queue
import subprocess
import sys
import threading

import kinesis

ANSWER_SECONDS = 100


def sent(value):
    if isinstance(value, dict):
        return {name: sent(one) for name, one in value.items()}
    if isinstance(value, list):
        return [sent(one) for one in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def received(name, value):
    if isinstance(value, dict):
        return {key: received(key, one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [received(name, one) for one in value]
    return base64.b64decode(value) if name == "Data" else value


class Client:
    lacks = {}

    def __init__(self, name, program):
        self.name = name
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        encoding="utf-8", bufsize=1)
        self.version = json.loads(self.process.stdout.readline())["version"]
        self.numbers = itertools.count()
        self.waiting = {}
        self.lock = threading.Lock()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            message = json.loads(line)
            self.waiting[message["id"]].put(message)
        for waiting in list(self.waiting.values()):
            waiting.put({"error": {"code": "Gone", "message": "the client's program has ended"}})

    def ask(self, retry, operation, parameters):
        number = next(self.numbers)
        answers = self.waiting[number] = queue.Queue()
        line = json.dumps({"id": number, "retry": retry, "operation": operation, "parameters": sent(parameters)})
        with self.lock:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        while True:
            message = answers.get(timeout=ANSWER_SECONDS)
            if "error" in message:
                raise kinesis.ApiError(message["error"]["code"], message["error"]["message"])
            if "answer" in message:
                del self.waiting[number]
                yield received("", message["answer"])
                return
            yield received("", message["event"])

    def call(self, operation, **parameters):
        return next(self.ask(True, operation, parameters))

    def once(self, operation, **parameters):
        return next(self.ask(False, operation, parameters))

    def subscribe(self, consumer_arn, shard_id, position):
        request = {"ConsumerARN": consumer_arn, "ShardId": shard_id, "StartingPosition": position}
        for message in self.ask(False, "SubscribeToShard", request):
            if "Records" in message:
                yield message


if __name__ == "__main__":
    kinesis.run(lambda _: Client(sys.argv[1], sys.argv[2:]), [])
