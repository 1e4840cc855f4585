"""An external extension of the tests' own, after AWS's example in Python (python-example-extension of aws-samples/aws-lambda-extensions):
bare HTTP over sockets. It prints what it sees, one JSON object a line, and does what the function's variable EXTENSION says."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.deploy import log_events, zip_of

EXTENSION = r"""#!/usr/bin/python3 -SE
import json, os, socket, sys, threading, time

NAME = os.path.basename(sys.argv[0])
HOST, PORT = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
WISH = json.loads(os.environ.get("EXTENSION", "{}"))
HEADERS = {}


def see(what, **details):
    os.write(1, (json.dumps({"extension": NAME, "saw": what, **details}) + "\n").encode())


def call(method, path, document=None, **headers):
    with socket.create_connection((HOST, int(PORT))) as connection:
        body = b"" if document is None else json.dumps(document).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in {**HEADERS, **headers}.items()]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    got = dict(line.split(": ", 1) for line in rest)
    return int(first.split()[1]), got, json.loads(body) if body[:1] in b'{["' and body else body.decode()


def receive(listener):
    "A subscriber over HTTP."
    while True:
        connection, _ = listener.accept()
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        if WISH.get("deaf"):
            threading.Event().wait()
        if b'"function"' in body:
            time.sleep(WISH.pop("answers_late_s", 0))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.close()
        for event in json.loads(body):
            if len(event["record"]) < 1000:
                see("telemetry", event=event)


def receive_lines(listener):
    "A subscriber over TCP."
    connection, _ = listener.accept()
    for line in connection.makefile():
        see("telemetry", event=json.loads(line))


def subscribe():
    if "subscribe" not in WISH:
        return
    listener = socket.create_server(("sandbox.localdomain", 4243))
    over_tcp = WISH["subscribe"].get("tcp")
    threading.Thread(target=receive_lines if over_tcp else receive, args=(listener,), daemon=True).start()
    where = {"protocol": "TCP", "port": 4243} if over_tcp else {"protocol": "HTTP", "URI": "http://sandbox.localdomain:4243/here"}
    wish = {"schemaVersion": WISH["subscribe"].get("schema", "2022-12-13"), "destination": where,
            "types": WISH["subscribe"].get("types", ["platform", "function"]), "buffering": {"timeoutMs": 25}}
    path = WISH["subscribe"].get("path", "/2022-07-01/telemetry")
    for wrong in WISH.get("wrong", []):
        see("refused", answer=call("PUT", path, {**wish, **wrong})[::2])
    see("subscribed", answer=call("PUT", path, wish)[::2])


if WISH.get("at_start") == "exit":
    print("no good", flush=True)
    sys.exit(WISH.get("status", 3))
for wrong in WISH.get("wrong_registrations", []):
    see("refused", answer=call("POST", "/2020-01-01/extension/register", wrong["body"], **wrong["headers"])[::2])
status, got, metadata = call("POST", "/2020-01-01/extension/register", {"events": WISH.get("events", ["INVOKE", "SHUTDOWN"])},
                             Lambda_Extension_Name=NAME, Lambda_Extension_Accept_Feature="accountId")
see("registered", status=status, metadata=metadata, env=sorted(os.environ), uid=os.getuid(), cwd=os.getcwd())
HEADERS["Lambda_Extension_Identifier"] = got["Lambda-Extension-Identifier"]
subscribe()
if WISH.get("at_start") == "error":
    call("POST", "/2020-01-01/extension/init/error", {}, Lambda_Extension_Function_Error_Type="Extension.NoConfig")
    time.sleep(60)
count = 0
while True:
    status, got, event = call("GET", "/2020-01-01/extension/event/next")
    see("event", event=event, at=time.time() * 1000)
    if event["eventType"] == "SHUTDOWN":
        time.sleep(WISH.get("lingers_s", 0))
        see("end")
        sys.exit(0)
    count += 1
    if WISH.get("at_event") == count and WISH.get("who", NAME) == NAME:
        if WISH["do"] == "die":
            threading.Timer(0.1, os._exit, [7]).start()
        if WISH["do"] == "exit":
            sys.exit(WISH.get("status", 7))
        if WISH["do"] == "error":
            call("POST", "/2020-01-01/extension/exit/error", {}, Lambda_Extension_Function_Error_Type="Extension.Tired")
            time.sleep(60)
        if WISH["do"] == "hang":
            time.sleep(60)
    time.sleep(WISH.get("slow_s", 0))
    see("done", request=event["requestId"], at=time.time() * 1000)
"""


@contextmanager
def layer(
    client: Any, extensions: Mapping[str, str | bytes], executable: bool = True, **files: str
) -> Iterator[str]:
    """A layer with these extensions. Yields its version's ARN."""
    packed = {f"extensions/{name}": source for name, source in extensions.items()}
    made = client.publish_layer_version(
        LayerName=f"l-{uuid.uuid4().hex[:8]}",
        Content={"ZipFile": zip_of({**packed, **files}, list(packed) if executable else [])},
    )
    try:
        yield made["LayerVersionArn"]
    finally:
        client.delete_layer_version(LayerName=made["LayerArn"], VersionNumber=made["Version"])


def wishes(**wish: Any) -> dict[str, Any]:
    """The configuration of a function whose extensions shall do so."""
    return {"Environment": {"Variables": {"EXTENSION": json.dumps(wish)}}}


def sights(logs: Any, function: str, what: str | None = None) -> list[dict[str, Any]]:
    """What extensions have seen so far; as logs come, behind answers."""
    found = []
    for event in log_events(logs, function):
        if event["message"].startswith('{"extension"'):
            sight = json.loads(event["message"])
            if what in (None, sight["saw"]):
                found.append(sight)
    return found
