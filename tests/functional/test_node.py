"""Node functions with a stock boto3 client and real sandboxes: Lambda's rules for handlers, errors, logs and streams."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.test_runtimes import get
from tests.support.deploy import function, invoke, zip_of
from tests.support.patience import handler_timeout
from tests.support.server import Server
from tests.support.streaming import stream
from tests.support.witness import until

CODE = """
const fs = require('fs');
let count = 0;

const does = {
  echo: (event, context) => Promise.resolve({ event, context, env: process.env, node: process.version, count: ++count }),
  callback: (event, context, callback) => { setTimeout(() => callback(null, 'called'), 1); },
  callbackError: (event, context, callback) => { callback(new TypeError('told')); },
  waits: (event, context, callback) => {
    let later = 'not yet';
    callback(null, { toJSON: () => later });
    setTimeout(() => { later = 'at last'; }, 50);
  },
  waitsNot: (event, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = false;
    setInterval(() => {}, 1000).unref();
    const timer = setTimeout(() => {}, 100000);
    callback(null, 'at once');
    setTimeout(() => clearTimeout(timer), 10);
  },
  nothing: () => {},
  never: async () => { await new Promise(() => {}); },
  succeed: (event, context) => { context.succeed('done'); context.fail(new Error('too late')); },
  raise: () => { throw Object.assign(new RangeError('no'), { extra: 1 }); },
  reject: async () => { throw new RangeError('no'); },
  text: async () => { throw 'a text'; },
  stray: async () => { setTimeout(() => { throw new Error('stray'); }, 1); await new Promise((resolve) => setTimeout(resolve, 9000)); },
  unhandled: async () => { Promise.reject(new Error('lost')); await new Promise((resolve) => setTimeout(resolve, 9000)); },
  exit: () => { process.exit(5); },
  sleep: async () => { await new Promise((resolve) => setTimeout(resolve, 60000)); },
  cycle: async () => { const a = {}; a.a = a; return a; },
  undefined: async () => undefined,
  large: async (event) => 'x'.repeat(event.bytes),
  logs: async () => {
    console.log('one %s', 'line', { a: 1 }); console.error('two\\nlines'); console.debug('deep'); process.stdout.write('plain\\n');
    return null;
  },
  files: async () => {
    fs.writeFileSync('/tmp/x', 'x');
    let refused = '';
    try { fs.writeFileSync('/var/task/x', 'x'); } catch (error) { refused = error.code; }
    return [refused, process.cwd(), fs.readdirSync('/opt')];
  },
  remaining: async (event, context) => context.getRemainingTimeInMillis(),
  gc: async () => { const all = []; for (let i = 0; i < 400; i++) { all.push(Buffer.alloc(1 << 18, 1)); all.shift(); } return typeof gc; },
};

exports.handler = (event, context, callback) => does[event?.do ?? 'echo'](event, context, callback);
exports.async = async (event, context) => does[event.do](event, context);
exports.nothing = 1;
exports.nested = { deep: { handler: async () => 'deep' } };
"""

STREAMING = """
exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {
  if (event.do === 'http') {
    stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { a: 'b' }, cookies: [] });
  }
  if (event.do === 'raise') throw new Error('at once');
  for (const piece of event.pieces) {
    if (!stream.write(piece)) await new Promise((resolve) => stream.once('drain', resolve));
  }
  if (event.do === 'late') throw new TypeError('in the middle');
  if (event.do === 'open') return;
  stream.end();
});
exports.piped = awslambda.streamifyResponse(async (event, stream) => {
  const { pipeline } = require('stream/promises');
  await pipeline(require('stream').Readable.from([Buffer.alloc(event.bytes, 'x')]), stream);
});
"""


@pytest.fixture(scope="module")
def node(server: Server) -> str:
    found = [name for name in get(server, "/forklight/v1/runtimes")["runtimes"] if name.startswith("nodejs")]
    if not found:
        pytest.skip("this host has no Node")
    return str(found[-1])


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def deployed(client: Any, node: str) -> Iterator[str]:
    with make(client, node, {"index.js": CODE}) as name:
        invoke(client, name)
        yield name


def make(client: Any, node: str, files: dict[str, str | bytes], **configuration: Any) -> Any:
    configuration = {"MemorySize": 512, "Timeout": handler_timeout(20), **configuration}
    return function(client, "", files=files, Runtime=node, **configuration)


def error_of(client: Any, name: str, event: Any) -> tuple[str, str]:
    answer, response = invoke(client, name, event)
    assert response["FunctionError"] == "Unhandled"
    return answer["errorType"], answer["errorMessage"]


def test_event_context_and_environment(client: Any, node: str, deployed: str) -> None:
    given = base64.b64encode(b'{"custom":{"k":"v"}}').decode()
    answer, response = invoke(client, deployed, {"a": [1, "ä"]}, ClientContext=given)
    again, _ = invoke(client, deployed)
    assert again["count"] == answer["count"] + 1
    context, env = answer["context"], answer["env"]
    assert answer["event"] == {"a": [1, "ä"]}
    assert answer["node"].startswith(f"v{node.removeprefix('nodejs').removesuffix('.x')}.")
    assert context["awsRequestId"] == response["ResponseMetadata"]["RequestId"]
    assert (context["functionName"], context["memoryLimitInMB"]) == (deployed, "512")
    assert context["clientContext"] == {"custom": {"k": "v"}}
    assert context["callbackWaitsForEmptyEventLoop"] is True
    assert env["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{node}"
    assert env["NODE_PATH"].startswith("/opt/nodejs/node")
    assert 0 < invoke(client, deployed, {"do": "remaining"})[0] <= handler_timeout(20) * 1000


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        ("callback", "called"), ("waits", "at last"), ("waitsNot", "at once"), ("nothing", None), ("succeed", "done"),
        ("undefined", None), ("files", ["EROFS", "/var/task", []]), ("gc", "function"),
    ],
)  # fmt: skip
def test_ways_to_answer(client: Any, deployed: str, do: str, expected: Any) -> None:
    answer, response = invoke(client, deployed, {"do": do})
    assert (answer, response.get("FunctionError")) == (expected, None)


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        ("raise", ("RangeError", "no")),
        ("reject", ("RangeError", "no")),
        ("callbackError", ("TypeError", "told")),
        ("text", ("string", "a text")),
        ("cycle", ("Error", "Unable to stringify response body")),
        ("stray", ("Error", "stray")),
        ("unhandled", ("Runtime.UnhandledPromiseRejection", "Error: lost")),
    ],
)
def test_ways_to_fail(client: Any, deployed: str, do: str, expected: tuple[str, str]) -> None:
    assert error_of(client, deployed, {"do": do}) == expected
    # Of those that end the runtime the end may come a moment behind the answer.
    until(lambda: "event" in invoke(client, deployed)[0], every_s=0)


def test_an_error_has_a_trace_and_is_in_the_log(client: Any, deployed: str) -> None:
    answer, response = invoke(client, deployed, {"do": "raise"}, LogType="Tail")
    assert list(answer) == ["errorType", "errorMessage", "trace"]
    assert answer["trace"][0] == "RangeError: no" and "/var/task/index.js" in answer["trace"][1]
    tail = base64.b64decode(response["LogResult"]).decode()
    request_id = response["ResponseMetadata"]["RequestId"]
    logged = re.search(rf"^\S+Z\t{request_id}\tERROR\tInvoke Error \t(\{{.*\}})$", tail, re.MULTILINE)
    assert logged and json.loads(logged[1])["extra"] == 1


def test_ends_that_the_platform_tells(client: Any, node: str, deployed: str) -> None:
    answer = invoke(client, deployed, {"do": "exit"})[0]
    assert answer["errorMessage"].endswith("Error: Runtime exited with error: exit status 5")
    too_large = invoke(client, deployed, {"do": "large", "bytes": 6_291_556})[0]
    assert too_large["errorType"] == "Function.ResponseSizeTooLarge"
    assert len(invoke(client, deployed, {"do": "large", "bytes": 6_291_554})[0]) == 6_291_554
    with make(client, node, {"index.js": CODE}, Handler="index.async", Timeout=2) as name:
        invoke(client, name, {"do": "undefined"})
        assert error_of(client, name, {"do": "never"})[0] == "Runtime.NodeJsExit"
        assert error_of(client, name, {"do": "sleep"})[0] == "Sandbox.Timedout"
        assert invoke(client, name, {"do": "undefined"})[0] is None


def test_logs(client: Any, node: str, deployed: str) -> None:
    _, response = invoke(client, deployed, {"do": "logs"}, LogType="Tail")
    tail = base64.b64decode(response["LogResult"]).decode()
    request_id = response["ResponseMetadata"]["RequestId"]
    assert re.search(rf"^\S+Z\t{request_id}\tINFO\tone line {{ a: 1 }}$", tail, re.MULTILINE)
    assert re.search(rf"^\S+Z\t{request_id}\tERROR\ttwo\nlines$", tail, re.MULTILINE)
    assert "\tDEBUG\tdeep\n" in tail and "\nplain\n" in tail
    levels = {"LogFormat": "JSON", "ApplicationLogLevel": "WARN"}
    with make(client, node, {"index.js": CODE}, LoggingConfig=levels) as name:
        _, response = invoke(client, name, {"do": "logs"}, LogType="Tail")
        lines = base64.b64decode(response["LogResult"]).decode().splitlines()
        records = [json.loads(line) for line in lines if '"level"' in line]
        assert [(each["level"], each["message"]) for each in records] == [("ERROR", "two\nlines")]


@pytest.mark.parametrize(
    ("files", "handler", "expected"),
    [
        ({"index.mjs": "export const handler = async () => import.meta.url;"}, "index.handler", "file:///var/task/index.mjs"),
        ({"index.js": "export const handler = async () => 'm';", "package.json": '{"type":"module"}'}, "index.handler", "m"),
        ({"a/b.cjs": "exports.handler = async () => require('./c.json').d;", "a/c.json": '{"d":1}'}, "a/b.handler", 1),
        ({"index.js": CODE}, "index.nested.deep.handler", "deep"),
        ({}, "gone.handler", "Runtime.ImportModuleError"),
        ({"index.js": CODE}, "index.gone", "Runtime.HandlerNotFound"),
        ({"index.js": CODE}, "index.nothing", "Runtime.HandlerNotFound"),
        ({"index.js": "exports.handler = ("}, "index.handler", "Runtime.UserCodeSyntaxError"),
        ({"index.js": "throw new TypeError('at load');"}, "index.handler", "TypeError"),
        ({"index.js": "require('nothing');"}, "index.handler", "Runtime.ImportModuleError"),
    ],
)  # fmt: skip
def test_finding_the_handler(
    client: Any, node: str, files: dict[str, str | bytes], handler: str, expected: Any
) -> None:
    with make(client, node, files, Handler=handler) as name:
        answer, response = invoke(client, name)
        assert (answer["errorType"] if "FunctionError" in response else answer) == expected


def test_streams(client: Any, node: str) -> None:
    with make(client, node, {"index.js": STREAMING}) as name:
        assert stream(client, name, {"pieces": ["one ", "two"]}).body == b"one two"
        response = client.invoke(FunctionName=name, Payload=b'{"pieces":["one ","two"]}')
        assert response["Payload"].read() == b"one two"
        assert stream(client, name, {"pieces": []}).body == b""
        found = stream(client, name, {"do": "http", "pieces": ["body"]})
        head, _, body = found.body.partition(bytes(8))
        assert (json.loads(head)["statusCode"], body) == (201, b"body")
        assert stream(client, name, {"do": "raise", "pieces": []}).error["errorMessage"] == "at once"
        late = stream(client, name, {"do": "late", "pieces": ["a part"]})
        assert (late.body, late.error["errorType"]) == (b"a part", "TypeError")
        unfinished = stream(client, name, {"do": "open", "pieces": ["a part"]})
        assert unfinished.error["errorMessage"] == "Response stream is not finished."
        assert stream(client, name, {"pieces": ["again"]}).body == b"again"
    with make(client, node, {"index.js": STREAMING}, Handler="index.piped") as name:
        assert len(stream(client, name, {"bytes": 10 << 20}).body) == 10 << 20


def test_a_layers_modules_and_a_wrapper(client: Any, node: str) -> None:
    wrapper = '#!/bin/sh\nexport WRAPPED=yes\nexec "$@"\n'
    layer = client.publish_layer_version(
        LayerName="node-layer",
        Content={
            "ZipFile": zip_of({"nodejs/node_modules/mine/index.js": "module.exports = 'mine';", "wrap": wrapper}, ["wrap"])
        },
    )  # fmt: skip
    source = "exports.handler = async () => [require('mine'), process.env.WRAPPED];"
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}}
    with make(
        client, node, {"index.js": source}, Layers=[layer["LayerVersionArn"]], Environment=variables
    ) as name:
        assert invoke(client, name)[0] == ["mine", "yes"]
    variables = {"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/gone"}}
    with make(client, node, {"index.js": source}, Environment=variables) as name:
        answer = invoke(client, name)[0]
        assert answer["errorMessage"].endswith("Error: Runtime exited with error: exit status 127")
    client.delete_layer_version(LayerName="node-layer", VersionNumber=layer["Version"])


def test_the_smallest_function(client: Any, node: str) -> None:
    """128 MB are enough for Node."""
    source = "exports.handler = async (event) => event;"
    with make(client, node, {"index.js": source}, MemorySize=128, isolation="request") as name:
        assert [invoke(client, name, number)[0] for number in range(3)] == [0, 1, 2]
