"""A runtime of the tests' own for `provided.al2023`: bare HTTP over one socket, and it does what its event says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.deploy import function

BOOTSTRAP = r"""#!/usr/bin/python3 -SE
import json, os, signal, socket, sys, time

HOST, PORT = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
PREFIX = "/2018-06-01/runtime/"


class Api:
    def __init__(self):
        self.socket = socket.create_connection((HOST, int(PORT)))
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def head(self, method, path, *lines):
        self.send("\r\n".join([f"{method} {PREFIX}{path} HTTP/1.1", "Host: x", *lines, "", ""]).encode())

    def answer(self):
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers, self.file.read(int(headers["Content-Length"]))

    def call(self, method, path, body=b"", *lines):
        self.head(method, path, f"Content-Length: {len(body)}", *lines)
        self.send(body)
        return self.answer()

    def respond(self, request_id, body, *lines):
        return self.call("POST", f"invocation/{request_id}/response", body, *lines)

    def begin_stream(self, request_id):
        self.head("POST", f"invocation/{request_id}/response", "Lambda-Runtime-Function-Response-Mode: streaming",
                  "Transfer-Encoding: chunked", "Trailer: Lambda-Runtime-Function-Error-Type")

    def chunk(self, data):
        self.send(b"%x\r\n%b\r\n" % (len(data), data))


api = Api()
told = []


def brief(answer):
    status, _, body = answer
    return [status, json.loads(body).get("errorType")]


def do_echo(event, headers, request_id):
    print("one line\nand another", flush=True)
    return {"event": event, "headers": headers, "env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv}


def do_error(event, headers, request_id):
    body = json.dumps({"errorMessage": "no", "errorType": "MyError", "stackTrace": ["here"]}).encode()
    assert api.call("POST", f"invocation/{request_id}/error", body, "Lambda-Runtime-Function-Error-Type: MyError")[0] == 202


def do_trickle(event, headers, request_id):
    do_error(event, headers, request_id)
    other = Api()
    for _ in range(400):  # 20 s
        other.send(b"G")
        time.sleep(0.05)


def do_exit(event, headers, request_id):
    print("about to go", flush=True)
    os._exit(event["status"])


def do_signal(event, headers, request_id):
    os.kill(os.getpid(), event["number"])


def do_sleep(event, headers, request_id):
    time.sleep(60)


def do_stream(event, headers, request_id):
    api.begin_stream(request_id)
    for piece in event["pieces"]:
        api.chunk(piece.encode())
        if event.get("go"):
            while not os.path.exists(event["go"]):
                time.sleep(0.005)
    api.send(b"0\r\n\r\n")
    assert api.answer()[0] == 202


def do_stream_error(event, headers, request_id):
    import base64
    api.begin_stream(request_id)
    api.chunk(b"a part")
    body = base64.b64encode(b'{"errorType":"Late","errorMessage":"in the middle"}').decode()
    api.send(f"0\r\nLambda-Runtime-Function-Error-Type: Late\r\nLambda-Runtime-Function-Error-Body: {body}\r\n\r\n".encode())
    assert api.answer()[0] == 202


def do_wrong(event, headers, request_id):
    told.append(["next", *brief(api.call("GET", "invocation/next"))])
    told.append(["other id", *brief(api.respond("8f507cfc-xmpl-4697-b07a-ac58fc914c95", b"1"))])
    told.append(["init error", *brief(api.call("POST", "init/error", b"{}"))])
    told.append(["path", api.call("GET", "nowhere")[0]])
    told.append(["restored", api.call("GET", "restore/next")[0]])
    other = Api()
    other.send(b"what is this\r\n\r\n")
    told.append(["no request", other.answer()[0]])
    assert api.respond(request_id, b'"fine"')[0] == 202
    told.append(["twice", *brief(api.respond(request_id, b"2"))])


def do_told(event, headers, request_id):
    return told


def do_mode(event, headers, request_id):
    told.append(["mode", *brief(api.respond(request_id, b"1", "Lambda-Runtime-Function-Response-Mode: sideways"))])


def do_large(event, headers, request_id):
    told.append(["large", *brief(api.respond(request_id, b'"' + b"x" * event["bytes"] + b'"'))])


def do_cut(event, headers, request_id):
    other = Api()
    other.head("POST", f"invocation/{request_id}/response", "Content-Length: 10")
    other.send(b"12345")
    other.socket.shutdown(socket.SHUT_WR)
    assert brief(other.answer()) == [400, "TruncatedHTTPRequest"]


def do_broken(event, headers, request_id):
    other = Api()
    other.head("POST", f"invocation/{request_id}/{event['to']}", "Transfer-Encoding: chunked")
    other.send(b"2\r\n{}\r\n" + event["size"].encode() + b"\r\n" + b"x" * 100)
    assert other.answer()[0] == 400


def do_cut_error(event, headers, request_id):
    other = Api()
    other.head("POST", f"invocation/{request_id}/error", "Content-Length: 10")
    other.send(b"12345")
    other.socket.close()
    other.file.close()


def do_early(event, headers, request_id):
    assert api.respond(request_id, b'"early"')[0] == 202
    while not os.path.exists(event["go"]):
        time.sleep(0.005)


def do_burn(event, headers, request_id):
    end = time.process_time() + event["seconds"]
    while time.process_time() < end:
        pass
    return {"held": len(b"x" * (1 << 24))}


if os.environ.get("AT_INIT") == "exit":
    print("no good", flush=True)
    sys.exit(3)
if os.environ.get("AT_INIT") == "error":
    body = b'{"errorMessage":"cannot begin","errorType":"Runtime.NoConfig","stackTrace":[]}'
    assert api.call("POST", "init/error", body, "Lambda-Runtime-Function-Error-Type: Runtime.NoConfig")[0] == 202
    time.sleep(60)

while True:
    _, headers, body = api.call("GET", "invocation/next")
    request_id = headers["Lambda-Runtime-Aws-Request-Id"]
    event = json.loads(body)
    do = event.get("do", "echo") if isinstance(event, dict) else "echo"
    answered = globals()["do_" + do](event, headers, request_id)
    if answered is not None:
        assert api.respond(request_id, json.dumps(answered).encode())[0] == 202
"""


@contextmanager
def own_runtime(client: Any, bootstrap: str = BOOTSTRAP, **configuration: Any) -> Iterator[str]:
    """A function of the runtime `provided.al2023` with this bootstrap; deleted at the end. Yields its name."""
    configuration.setdefault("Runtime", "provided.al2023")
    files = {"bootstrap": bootstrap, **configuration.pop("files", {})}
    with function(client, "", files=files, executable=["bootstrap"], **configuration) as name:
        yield name
