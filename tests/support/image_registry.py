"""A registry of the tests' own on loopback, honest and otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.images import BuiltImage

Reply = tuple[int, dict[str, str], bytes]


class Registry:
    """`answer(path, authorization)` is what it says; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.answer: Callable[[str, str | None], Reply] = lambda path, authorization: (404, {}, b"")
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                authorization = self.headers.get("Authorization")
                registry.asked.append((self.path, authorization))
                status, headers, body = registry.answer(self.path, authorization)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def serve(self, image: BuiltImage) -> None:
        contents = {f"/v2/app/blobs/{digest}": data for digest, data in image.blobs.items()}
        contents |= dict.fromkeys(
            ("/v2/app/manifests/v1", f"/v2/app/manifests/{image.digest}"), image.manifest
        )
        self.answer = lambda path, _: (200, {}, contents[path]) if path in contents else (404, {}, b"")
