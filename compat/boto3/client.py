"""boto3, adapted to the Kinesis steps."""

import copy

import boto3
import botocore.exceptions
import botocore.session
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
        self.endpoint = endpoint

        def client(retries):
            return boto3.client(
                "kinesis", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="compat",
                aws_secret_access_key="compat",
                config=Config(retries={"mode": "standard", "total_max_attempts": retries}, read_timeout=30))
        self.patient, self.single = client(12), client(1)

    def ask(self, client, operation, parameters):
        answer = self.answer(client, operation, parameters)
        check_metadata(answer)
        return answer

    @staticmethod
    def answer(client, operation, parameters):
        try:
            return getattr(client, xform_name(operation))(**parameters)
        except botocore.exceptions.ClientError as error:
            raise kinesis.ApiError(error.response["Error"]["Code"], error.response["Error"].get("Message")) from None

    def call(self, operation, **parameters):
        return plain(self.ask(self.patient, operation, parameters))

    def once(self, operation, **parameters):
        return plain(self.ask(self.single, operation, parameters))

    def clouds(self):
        """Each protocol that boto3 has for CloudWatch, and how to call it by that."""
        for protocol in ("query", "json", "smithy-rpc-v2-cbor"):
            session = botocore.session.get_session()
            load = session.get_component("data_loader").load_service_model

            def load_with(service, kind, api_version=None, protocol=protocol, load=load):
                model = load(service, kind, api_version)
                if kind != "service-2" or service != "cloudwatch":
                    return model
                model = copy.deepcopy(model)
                model["metadata"].update(protocol=protocol, protocols=[protocol])
                if protocol == "query":
                    del model["metadata"]["awsQueryCompatible"]
                return model

            session.get_component("data_loader").load_service_model = load_with
            client = session.create_client(
                "cloudwatch", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="compat",
                aws_secret_access_key="compat", config=Config(retries={"total_max_attempts": 1}))

            def call(operation, client=client, **parameters):
                # Of an answer without a body botocore does not tell the request's id.
                return self.answer(client, operation, parameters)

            yield protocol, call

    def subscribe(self, consumer_arn, shard_id, position):
        answer = self.ask(self.single, "SubscribeToShard",
                          {"ConsumerARN": consumer_arn, "ShardId": shard_id, "StartingPosition": position})
        for event in answer["EventStream"]:
            yield plain(event["SubscribeToShardEvent"])


def check_metadata(answer):
    kinesis.check(answer["ResponseMetadata"].get("RequestId"), "an answer without a request id")


if __name__ == "__main__":
    kinesis.run(Client)
