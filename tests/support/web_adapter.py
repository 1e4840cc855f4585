"""A bootstrap that puts a web server behind events of payload format 2.0, as aws-lambda-web-adapter does: it starts the server,
waits until it listens, and answers each event with what the server says, whole or as a stream."""

from __future__ import annotations

ADAPTER = r"""#!/usr/bin/python3 -SE
import base64, http.client, json, os, subprocess, sys, time

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
PREFIX = "/2018-06-01/runtime/invocation/"
STREAMS = os.environ.get("AWS_LWA_INVOKE_MODE") == "response_stream"

# As a wrapper it is given the runtime's command, and does not run it.
subprocess.Popen(["/var/task/" + os.environ["_HANDLER"]])
while True:
    web = http.client.HTTPConnection("127.0.0.1", 8080)
    try:
        web.connect()
        break
    except OSError:
        time.sleep(0.01)

api = http.client.HTTPConnection(API)


def pieces(head, answer):
    yield json.dumps(head).encode() + bytes(8)
    while data := answer.read(65536):
        yield data


while True:
    api.request("GET", PREFIX + "next")
    event_answer = api.getresponse()
    event = json.load(event_answer)
    request_id = event_answer.headers["Lambda-Runtime-Aws-Request-Id"]
    body = event.get("body") or ""
    body = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    path = event["rawPath"] + ("?" + event["rawQueryString"] if event.get("rawQueryString") else "")
    web.request(event["requestContext"]["http"]["method"], path, body, event.get("headers") or {})
    answer = web.getresponse()
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-length"}
    head = {"statusCode": answer.status, "headers": headers}
    if STREAMS:
        head["headers"].pop("Transfer-Encoding", None)
        headers = {"Lambda-Runtime-Function-Response-Mode": "streaming",
                   "Content-Type": "application/vnd.awslambda.http-integration-response"}
        api.request("POST", PREFIX + request_id + "/response", pieces(head, answer), headers, encode_chunked=True)
    else:
        told = {**head, "body": base64.b64encode(answer.read()).decode(), "isBase64Encoded": True}
        api.request("POST", PREFIX + request_id + "/response", json.dumps(told))
    api.getresponse().read()
"""

# The user's program: any web server, which knows nothing of Lambda.
PYTHON_SERVER = r"""#!/usr/bin/python3 -SE
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.command} {self.path} {self.headers['X-Mine']}".encode()
        self.answer(200, b"x" * (7 << 20) if self.path == "/large" else body)

    def do_POST(self):
        self.answer(201, self.rfile.read(int(self.headers["Content-Length"]))[::-1])

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""

NODE_SERVER = r"""#!/usr/bin/env node
require('http').createServer((request, response) => {
  const pieces = [];
  request.on('data', (data) => pieces.push(data)).on('end', () => {
    if (request.method === 'POST') {
      response.writeHead(201, { 'Content-Type': 'text/plain' }).end(Buffer.concat(pieces).reverse());
    } else {
      response.writeHead(200, { 'Content-Type': 'text/plain' });
      response.end(`${request.method} ${request.url} ${request.headers['x-mine']}`);
    }
  });
}).listen(8080, '127.0.0.1');
"""
