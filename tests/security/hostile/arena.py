"""Where attacks take place: a server (anybody's, by its endpoint, or one of our own), and a canary that is somebody else's function."""

from __future__ import annotations

import base64
import gc
import hashlib
import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.security.hostile.case import Case, Reply
from tests.security.hostile.clients.wire import Signed, invoke_path
from tests.security.hostile.target import PATIENCE_S, Target
from tests.support.deploy import ROLE, zip_of

ATTACK = Path(__file__).with_name("attack.py").read_text()
# A snapshot may take 150 s to be made before its function is Failed.
PENDING_S = 200.0
CANARY_CALLS = 3
# After each attack the quickest of three calls of the canary; the machine may be busy with the other attacks.
CANARY_LIMIT_S = 2.0
CANARY_SECRET = "the canary's own secret " + uuid.uuid4().hex
CANARY_SOURCE = """
import hashlib, os
def handler(event, context):
    return [event, hashlib.sha256(os.environ["CANARY_SECRET"].encode()).hexdigest(), os.listdir("/tmp")]
"""


@dataclass(slots=True)
class Arena:
    """Thread-safe: attacks run beside each other."""

    target: Target
    features: Mapping[str, str] = field(default_factory=dict)  # of the isolation report: name -> state
    canary_seconds: list[float] = field(default_factory=list)
    canary: str = ""  # the name of its function
    took_s: dict[str, float] = field(default_factory=dict)  # case -> seconds
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _client: Any = None

    @property
    def client(self) -> Any:
        with self._lock:  # boto3 makes clients in one thread at a time only
            if self._client is None:
                self._client = self.target.client()
            return self._client

    def disconnect(self) -> None:
        """Its connections are nothing that a server could have left."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
        gc.collect()  # urllib3 closes the connections of a pool when it is collected

    def read_features(self) -> None:
        """From the server's own report."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials
        from botocore.httpsession import URLLib3Session

        request = AWSRequest("GET", f"{self.target.url}/forklight/v1/isolation")
        keys = Credentials(self.target.access_key, self.target.secret_key)
        SigV4Auth(keys, "forklight", self.target.region).add_auth(request)
        response = URLLib3Session().send(request.prepare())
        assert response.status_code == 200, response.text
        document = json.loads(response.text)
        self.features = {name: feature["state"] for name, feature in document["features"].items()}

    def lacking(self, case: Case) -> list[str]:
        """Why the case makes no sense on that server: features that it does not enforce, and says so."""
        needs = [name for name in case.needs if self.features.get(name) != "enforced"]
        # By its nature never more than "degraded", and absent where the operator has not allowed it.
        if case.network == "host" and self.features.get("network-host", "absent") == "absent":
            needs.append("network-host")
        return needs

    # ---- functions -------------------------------------------------------------------------------------------------

    @contextmanager
    def function(self, case: Case, name: str = "") -> Iterator[str]:
        """Deployed; deleted at the end."""
        name = name or f"hostile-{uuid.uuid4().hex[:12]}"
        patiently(
            self.client.create_function,
            "ResourceConflictException",
            FunctionName=name,
            Role=ROLE,
            Runtime="python3.11",
            Handler="index.handler",
            Code={"ZipFile": zip_of({"index.py": case.source, "attack.py": ATTACK, **case.files})},
            Timeout=case.timeout,
            MemorySize=case.memory,
            EphemeralStorage={"Size": case.tmp},
            Environment={"Variables": dict(case.environment)},
            Tags={
                "forklight:isolation": case.isolation,
                "forklight:snapshot": case.snapshot,
                "forklight:network": case.network,
            },
        )
        try:
            deadline = time.monotonic() + PENDING_S
            while patiently(self.client.get_function_configuration, FunctionName=name)["State"] == "Pending":
                assert time.monotonic() < deadline, f"{name} stays Pending"
                time.sleep(0.02)
            yield name
        finally:
            patiently(self.client.delete_function, "ResourceNotFoundException", FunctionName=name)

    def invoke(self, name: str, event: Any = None, **options: Any) -> Reply:
        """Function errors and refusals are replies; no answer at all is an OSError or BotoCoreError."""
        start = time.monotonic()
        try:
            response = self.client.invoke(
                FunctionName=name, Payload=json.dumps(event).encode(), LogType="Tail", **options
            )
            body = response["Payload"].read()
        except ClientError as refused:
            status = refused.response["ResponseMetadata"]["HTTPStatusCode"]
            error = refused.response["Error"]
            return Reply(
                None, f"{status} {error['Code']}", error.get("Message", ""), time.monotonic() - start
            )
        seconds = time.monotonic() - start
        log = base64.b64decode(response.get("LogResult", "")).decode(errors="replace")
        if "FunctionError" not in response:
            return Reply(decoded(body), "", "", seconds, log)
        document = decoded(body)
        if not isinstance(document, dict) or "errorType" not in document:
            return Reply(document, "an error without errorType", repr(body[:500]), seconds, log)
        return Reply(document, document["errorType"], document.get("errorMessage", ""), seconds, log)

    def attack(self, case: Case, event_of_target: Mapping[str, Any]) -> None:
        """Deploy, make all calls, then see whether somebody else was harmed. Raises AssertionError."""
        try:
            with self.function(case) as name:
                for event, expectation in case.calls:
                    if isinstance(event, dict):
                        event = {key: event_of_target.get(key, value) for key, value in event.items()}
                    expectation(self.invoke(name, event))
                # What the attack has left is still there.
                self.check_canary()
        except (BotoCoreError, ClientError) as error:
            raise AssertionError(f"{case.name}: {error}") from error

    # ---- somebody else ---------------------------------------------------------------------------------------------

    def start_canary(self) -> Any:
        case = Case(
            "canary", CANARY_SOURCE, (), memory=1769, environment={"CANARY_SECRET": CANARY_SECRET}, timeout=30
        )
        return self.function(case, f"canary-{uuid.uuid4().hex[:12]}")

    def check_canary(self) -> None:
        """It answers, its own answer, soon, and finds nothing of anybody's."""
        digest = hashlib.sha256(CANARY_SECRET.encode()).hexdigest()
        seconds = []
        with closing(http.client.HTTPConnection(*self.target.address, timeout=PATIENCE_S)) as connection:
            connection.connect()
            for _ in range(CANARY_CALLS):
                sent = uuid.uuid4().hex
                signed = Signed(self.target, invoke_path(self.canary), json.dumps(sent).encode())
                head = signed.head()
                start = time.monotonic()
                connection.request("POST", signed.path, signed.body, head)
                response = connection.getresponse()
                body = response.read()
                seconds.append(time.monotonic() - start)
                assert response.status == 200, f"the canary was harmed: {response.status} {body!r}"
                assert response.headers["X-Amz-Function-Error"] is None, f"the canary was harmed: {body!r}"
                answer = json.loads(body)
                assert answer[:2] == [sent, digest], f"the canary answers wrongly: {answer}"
                assert set(answer[2]) <= {"lost+found"}, f"the canary finds files: {answer}"
        with self._lock:
            self.canary_seconds += seconds
        assert min(seconds) < CANARY_LIMIT_S, f"the canary is slow: {seconds}"


def patiently(call: Callable[..., Any], done_before: str = "", **parameters: Any) -> Any:
    """A 503 says "try again": so we do, for a while. `done_before`: the error that then means that the first try has worked."""
    deadline = time.monotonic() + PATIENCE_S
    tried = False
    while True:
        try:
            return call(**parameters)
        except ClientError as refused:
            if tried and refused.response["Error"]["Code"] == done_before:
                return None
            status = refused.response["ResponseMetadata"]["HTTPStatusCode"]
            if status != 503 or time.monotonic() > deadline:
                raise
            tried = True
            time.sleep(0.2)


def decoded(body: bytes) -> Any:
    """JSON where it is, else the text: a function may answer with any bytes."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("latin-1")
