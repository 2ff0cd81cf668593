"""The AWS CLI, adapted to the Kinesis steps: each call is a process."""

import base64
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile

import kinesis

ERROR = re.compile(r"An error occurred \((\w+)\) when calling the \w+ operation[^:]*: ?(.*)", re.DOTALL)
PAGED = {"DescribeStream", "ListShards", "ListStreamConsumers", "ListStreams"}


def command(operation):
    return re.sub(r"(?<!^)(?=[A-Z][a-z])", "-", operation).lower()


def sent(value):
    """Parameters as the CLI takes them: data as text."""
    if isinstance(value, dict):
        return {name: sent(one) for name, one in value.items()}
    if isinstance(value, list):
        return [sent(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def received(name, value):
    if isinstance(value, dict):
        return {key: received(key, one) for key, one in value.items()}
    if isinstance(value, list):
        return [received(name, one) for one in value]
    if name == "Data":
        return base64.b64decode(value)
    if name.endswith("Timestamp") and isinstance(value, str):
        return datetime.datetime.fromisoformat(value).timestamp()
    return value


class Client:
    name = "aws-cli"
    lacks = {"fan-out": "the AWS CLI has no commands with an event stream",
             "read-limit": "a process for each call is too slow"}

    def __init__(self, endpoint):
        self.environment = dict(os.environ, AWS_ACCESS_KEY_ID="compat", AWS_SECRET_ACCESS_KEY="compat",
                                AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL_KINESIS=endpoint,
                                AWS_RETRY_MODE="standard", AWS_PAGER="")
        self.program = [sys.executable, "-m", "awscli"]
        done = subprocess.run(self.program + ["--version"], capture_output=True, text=True)
        self.version = re.match(r"aws-cli/(\S+)", done.stdout + done.stderr).group(1)

    def ask(self, attempts, operation, parameters):
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=os.environ["SCRATCH"], encoding="utf-8") as file:
            json.dump(sent(parameters), file)
            file.flush()
            arguments = ["kinesis", command(operation), "--cli-input-json", f"file://{file.name}", "--output", "json"]
            arguments += ["--no-paginate"] if operation in PAGED else []
            done = subprocess.run(self.program + arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  env=dict(self.environment, AWS_MAX_ATTEMPTS=str(attempts)))
        if done.returncode != 0:
            match = ERROR.search(done.stderr)
            kinesis.check(match, f"{operation}: {done.stderr.strip()[-400:]}")
            raise kinesis.ApiError(match.group(1), match.group(2).strip())
        return received("", json.loads(done.stdout)) if done.stdout.strip() else {}

    def call(self, operation, **parameters):
        return self.ask(12, operation, parameters)

    def once(self, operation, **parameters):
        return self.ask(1, operation, parameters)


if __name__ == "__main__":
    kinesis.run(Client)
