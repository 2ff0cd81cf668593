"""The AWS CLI, adapted to the Kinesis steps: each call is a process, forked after the CLI's modules were imported, which
is most of what a call costs otherwise."""

import base64
import datetime
import json
import os
import re
import sys
import tempfile

import awscli
import awscli.clidriver
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


def run(arguments, environment):
    """Runs `aws ARGUMENTS` in a process of its own; gives its status and what it printed."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                os.environ.update(environment)
                sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
                sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
                status = awscli.clidriver.create_clidriver().main(arguments)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        errors.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), errors.read().decode()


class Client:
    name = "aws-cli"
    version = awscli.__version__
    lacks = {"fan-out": "the AWS CLI has no commands with an event stream",
             "read-limit": "a process for each call is too slow"}

    def __init__(self, endpoint):
        self.environment = dict(AWS_ACCESS_KEY_ID="compat", AWS_SECRET_ACCESS_KEY="compat",
                                AWS_DEFAULT_REGION="us-east-1", AWS_ENDPOINT_URL_KINESIS=endpoint,
                                AWS_RETRY_MODE="standard", AWS_PAGER="")

    def ask(self, attempts, operation, parameters):
        with tempfile.NamedTemporaryFile("w", suffix=".json", dir=os.environ["SCRATCH"], encoding="utf-8") as file:
            json.dump(sent(parameters), file)
            file.flush()
            arguments = ["kinesis", command(operation), "--cli-input-json", f"file://{file.name}", "--output", "json"]
            arguments += ["--no-paginate"] if operation in PAGED else []
            status, out, errors = run(arguments, dict(self.environment, AWS_MAX_ATTEMPTS=str(attempts)))
        if status != 0:
            match = ERROR.search(errors)
            kinesis.check(match, f"{operation}: {errors.strip()[-400:]}")
            raise kinesis.ApiError(match.group(1), match.group(2).strip())
        return received("", json.loads(out)) if out.strip() else {}

    def call(self, operation, **parameters):
        return self.ask(12, operation, parameters)

    def once(self, operation, **parameters):
        return self.ask(1, operation, parameters)


if __name__ == "__main__":
    kinesis.run(Client)
