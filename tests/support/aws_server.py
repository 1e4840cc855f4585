"""SQS and SNS that really answer: moto's server, a process of its own on a loopback port."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.patience import seconds

REGION = "us-east-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


@dataclass(slots=True)
class AwsServer:
    """`url` is the endpoint of every service."""

    url: str
    process: subprocess.Popen[bytes]

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **KEYS)

    def queue(self, name: str) -> Queue:
        client = self.client("sqs")
        url = client.create_queue(QueueName=name)["QueueUrl"]
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return Queue(client, url, found["Attributes"]["QueueArn"])

    def topic(self, name: str, queue: Queue) -> str:
        """ARN of a topic that `queue` is subscribed to."""
        client = self.client("sns")
        arn = str(client.create_topic(Name=name)["TopicArn"])
        client.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue.arn)
        return arn


@dataclass(slots=True)
class Queue:
    client: Any
    url: str
    arn: str

    def take(self) -> list[dict[str, Any]]:
        """What is in it now, at most ten messages, which are gone then."""
        answer = self.client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        if messages:
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            gone = self.client.delete_message_batch(QueueUrl=self.url, Entries=entries)
            assert not gone.get("Failed"), gone
        return messages

    def wait(self, patience_s: float = 30.0) -> dict[str, Any]:
        """The next message. Raises AssertionError."""
        end = time.monotonic() + seconds(patience_s)
        while time.monotonic() < end:
            for message in self.take():
                return message
            time.sleep(0.05)
        raise AssertionError(f"nothing came to {self.arn}")

    def wait_for_body(self, patience_s: float = 30.0) -> Any:
        """The next message's body as JSON."""
        return json.loads(self.wait(patience_s)["Body"])


@contextmanager
def aws_server(log: Path) -> Iterator[AwsServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + seconds(60)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"moto_server did not start:\n{log.read_text()[-2000:]}") from None
                time.sleep(0.05)
        yield AwsServer(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait()
