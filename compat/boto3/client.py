"""boto3, adapted to the Kinesis steps."""

import boto3
import botocore.exceptions
from botocore import xform_name
from botocore.config import Config

import kinesis


def plain(value):
    """Timestamps as seconds, everything else as it is."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.timestamp() if hasattr(value, "timestamp") else value


class Client:
    name = "boto3"
    version = boto3.__version__
    lacks = {}

    def __init__(self, endpoint):
        def client(retries):
            return boto3.client(
                "kinesis", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="compat",
                aws_secret_access_key="compat",
                config=Config(retries={"mode": "standard", "total_max_attempts": retries}, read_timeout=30))
        self.patient, self.single = client(12), client(1)

    def ask(self, client, operation, parameters):
        try:
            answer = getattr(client, xform_name(operation))(**parameters)
        except botocore.exceptions.ClientError as error:
            raise kinesis.ApiError(error.response["Error"]["Code"], error.response["Error"].get("Message")) from None
        check_metadata(answer)
        return answer

    def call(self, operation, **parameters):
        return plain(self.ask(self.patient, operation, parameters))

    def once(self, operation, **parameters):
        return plain(self.ask(self.single, operation, parameters))

    def subscribe(self, consumer_arn, shard_id, position):
        answer = self.ask(self.single, "SubscribeToShard",
                          {"ConsumerARN": consumer_arn, "ShardId": shard_id, "StartingPosition": position})
        for event in answer["EventStream"]:
            yield plain(event["SubscribeToShardEvent"])


def check_metadata(answer):
    kinesis.check(answer["ResponseMetadata"].get("RequestId"), "an answer without a request id")


if __name__ == "__main__":
    kinesis.run(Client)
