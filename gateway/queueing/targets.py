"""Sends one message to where it is owed: an SQS queue, an SNS topic, an HTTP URL. Blocks; functions of this host are not here.

Queues and topics are reached by botocore, at the endpoint that the operator has named for the service; botocore is imported with
the first message, because it costs a process 30 MB.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.model.target import AWS, allowed_url, service_of
from gateway.queueing.destinations import MAX_MESSAGE
from gateway.storage.aws_credentials import Credentials

CONNECT_LIMIT_S: Final = 3.0
READ_LIMIT_S: Final = 10.0
# What comes back however often it is tried.
_HOPELESS: Final = frozenset(
    {
        "InvalidMessageContents",
        "InvalidParameterValue",
        "InvalidParameter",
        "MessageTooLong",
        "UnsupportedOperation",
    }
)


class TargetError(Exception):
    """It was not delivered. `hopeless`: nor will it be, so that nothing else to this target need wait for it."""

    def __init__(self, why: str, hopeless: bool = False) -> None:
        super().__init__(why)
        self.hopeless = hopeless


@dataclass(frozen=True, slots=True)
class Endpoints:
    """By service ("sqs", "sns"): a URL, or "aws". `http`: prefixes of URLs that may be destinations."""

    services: dict[str, str] = field(default_factory=dict)
    http: tuple[str, ...] = ()


class Targets:
    """Safe to use from several threads."""

    def __init__(self, endpoints: Endpoints, credentials: Credentials | None = None) -> None:
        """Without `credentials` botocore looks for some where it always does."""
        self._endpoints = endpoints
        self._credentials = credentials
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._queue_urls: dict[str, str] = {}
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))

    def send(self, target: str, head: dict[str, Any], body: bytes) -> None:
        """Raises TargetError."""
        service = service_of(target)
        limit = MAX_MESSAGE.get(service)
        if limit is not None and len(body) > limit:
            raise TargetError(f"{len(body)} bytes are more than {service} takes", hopeless=True)
        if service == "http":
            self._post(target, head, body)
        elif service == "sqs":
            self._to_queue(target, head, body)
        elif service == "sns":
            self._to_topic(target, head, body)
        else:
            raise TargetError(f"{target} is nothing that this host can send to", hopeless=True)

    def _to_queue(self, arn: str, head: dict[str, Any], body: bytes) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        region, account, name = _parts(arn)
        options: dict[str, Any] = {}
        if name.endswith(".fifo"):
            options = {"MessageGroupId": str(head["name"]), "MessageDeduplicationId": str(head["request_id"])}
        try:
            client = self._client("sqs", region)
            url = self._queue_urls.get(arn)
            if url is None:
                found = client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
                url = self._queue_urls[arn] = str(found["QueueUrl"])
            client.send_message(
                QueueUrl=url, MessageBody=body.decode(), MessageAttributes=_attributes(head), **options
            )
        except (ClientError, BotoCoreError, ValueError) as error:
            # A queue that was deleted and made again may have another URL.
            self._queue_urls.pop(arn, None)
            raise _target_error(error) from error

    def _to_topic(self, arn: str, head: dict[str, Any], body: bytes) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        region, _, name = _parts(arn)
        options: dict[str, Any] = {}
        if name.endswith(".fifo"):
            options = {"MessageGroupId": str(head["name"]), "MessageDeduplicationId": str(head["request_id"])}
        try:
            client = self._client("sns", region)
            client.publish(
                TopicArn=arn, Message=body.decode(), MessageAttributes=_attributes(head), **options
            )
        except (ClientError, BotoCoreError, ValueError) as error:
            raise _target_error(error) from error

    def _post(self, url: str, head: dict[str, Any], body: bytes) -> None:
        if not allowed_url(url, self._endpoints.http):
            raise TargetError(f"{url} is not below a URL that this host may send to", hopeless=True)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "forklight",
            "x-amzn-RequestId": head["request_id"],
        }
        for name, value in head.get("attributes", {}).items():
            headers[f"x-forklight-{name}"] = (
                value.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")
            )
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=READ_LIMIT_S) as answer:
                answer.read(65536)
        except urllib.error.HTTPError as error:
            error.close()
            raise TargetError(f"{url} answered {error.code}") from error
        except (OSError, ValueError) as error:
            raise TargetError(f"{url}: {error}") from error

    def _client(self, service: str, region: str) -> Any:
        endpoint = self._endpoints.services.get(service)
        if not endpoint:
            raise TargetError(f"this host knows no endpoint of {service}")
        with self._lock:
            client = self._clients.get((service, region))
            if client is None:
                import botocore.session
                from botocore.config import Config

                if self._session is None:
                    self._session = botocore.session.Session()
                given = self._credentials
                client = self._clients[service, region] = self._session.create_client(
                    service,
                    region_name=region,
                    endpoint_url=None if endpoint == AWS else endpoint,
                    aws_access_key_id=given.access_key_id if given else None,
                    aws_secret_access_key=given.secret_access_key if given else None,
                    aws_session_token=given.session_token if given else None,
                    config=Config(
                        connect_timeout=CONNECT_LIMIT_S,
                        read_timeout=READ_LIMIT_S,
                        retries={"total_max_attempts": 1},
                    ),
                )
            return client


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would lead where the operator has not allowed."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _parts(arn: str) -> tuple[str, str, str]:
    """Region, account and name."""
    fields = arn.split(":", 5)
    if len(fields) != 6 or not fields[5]:
        raise TargetError(f"{arn} is no ARN", hopeless=True)
    return fields[3], fields[4], fields[5]


def _attributes(head: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        name: {"DataType": "Number" if name == "ErrorCode" else "String", "StringValue": value}
        for name, value in head.get("attributes", {}).items()
    }


def _target_error(error: Exception) -> TargetError:
    response = getattr(error, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    return TargetError(str(error), hopeless=code in _HOPELESS or isinstance(error, UnicodeDecodeError))
