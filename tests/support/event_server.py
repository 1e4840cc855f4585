"""A server for tests of asynchronous events: it tries again soon, and knows queues, topics and an HTTP server to tell."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.aws_server import AwsServer, aws_server
from tests.support.server import Server

QUEUE_DEPTH = 50


class Hook(http.server.ThreadingHTTPServer):
    """Answers 500 to the first request of each path, then 204 and keeps what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tries: dict[str, int] = {}
        self.got: dict[str, list[dict[str, Any]]] = {}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        tries = self.server.tries[self.path] = self.server.tries.get(self.path, 0) + 1
        if tries == 1:
            self.send_response(500)
        else:
            self.server.got.setdefault(self.path, []).append(json.loads(body))
            self.send_response(204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hooks() -> Iterator[Hook]:
    with Hook() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:  # a thread that serves on would keep the whole run from ending
            running.shutdown()
            thread.join()


@dataclass(slots=True)
class EventServer:
    server: Server
    aws: AwsServer
    hook: Hook


@contextmanager
def event_server(folder: Path) -> Iterator[EventServer]:
    """`folder` is the state directory."""
    with aws_server(folder.parent / "aws.log") as aws, hooks() as hook:
        credentials = folder.parent / "credentials"
        credentials.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")
        with Server.start(
            folder, "--event-retry-waits", "0.1,0.2", "--event-queue-depth", str(QUEUE_DEPTH),
            "--s3-endpoint", aws.url, "--s3-credentials", str(credentials),
            "--sqs-endpoint", aws.url, "--sns-endpoint", aws.url, "--destination-credentials", str(credentials),
            "--http-destination", f"http://127.0.0.1:{hook.server_port}/hooks",
        ) as server:  # fmt: skip
            yield EventServer(server, aws, hook)
