"""Both engines with a client that is not grpcio: grpc-js, from npm."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_door import TOKEN
from tests.support.grpc_door import door, engine, run  # noqa: F401
from tests.support.patience import seconds

GRPC_JS = "@grpc/grpc-js@1.14.7"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("engine")]

# InvokeRequest and InvokeResponse by hand: fields 1 (function) and 3 (payload), and field 1 (payload).
SCRIPT = """
const grpc = require("@grpc/grpc-js");
const [address, token] = process.argv.slice(2);
const client = new grpc.Client(address, grpc.credentials.createInsecure(), {"grpc.max_receive_message_length": -1});
const raw = (bytes) => bytes;
const metadata = new grpc.Metadata();
metadata.set("authorization", "Bearer " + token);
metadata.set("some-bin", Buffer.from([0, 255]));
const varint = (n) => n < 128 ? Buffer.from([n]) : Buffer.concat([Buffer.from([n % 128 + 128]), varint(Math.floor(n / 128))]);
const field = (number, bytes) => Buffer.concat([Buffer.from([number << 3 | 2]), varint(bytes.length), bytes]);
const request = (name, payload) => Buffer.concat([field(1, Buffer.from(name)), field(3, Buffer.from(payload))]);
const payloadOf = (bytes) => {
  if (bytes[0] !== 10) return "";
  let at = 1, size = 0, shift = 0;
  do { size += (bytes[at] & 127) * 2 ** shift; shift += 7; } while (bytes[at++] > 127);
  return bytes.subarray(at, at + size).toString();
};
const invoke = (name, payload, options = {}) => new Promise((resolve) => {
  const call = client.makeUnaryRequest("/forklight.v1.Invocations/Invoke", raw, raw, request(name, payload), metadata, options,
    (error, answer) => resolve(error ? {code: error.code, details: error.details, type: error.metadata.get("x-amzn-errortype")[0]}
                                     : {code: 0, payload: payloadOf(answer)}));
  if (options.cancel) setTimeout(() => call.cancel(), 50);
});
const stream = (name, payload) => new Promise((resolve) => {
  const call = client.makeServerStreamRequest("/forklight.v1.Invocations/InvokeStream", raw, raw, request(name, payload), metadata);
  let pieces = 0, size = 0;
  call.on("data", (bytes) => { pieces++; size += bytes.length; });
  call.on("status", (status) => resolve({code: status.code, pieces, size}));
  call.on("error", () => {});
});
(async () => {
  const many = await Promise.all([...Array(200).keys()].map((n) => invoke("echo", String(n))));
  const large = JSON.stringify("x".repeat(3000000));
  console.log(JSON.stringify({
    many: many.map((answer) => answer.payload),
    large: (await invoke("echo", large)).payload === large,
    absent: await invoke("absent", "1"),
    late: await invoke("hanging", "1", {deadline: Date.now() + 200}),
    cancelled: await invoke("hanging", "1", {cancel: true}),
    stream: await stream("echo", large),
    again: await invoke("echo", "7"),
  }));
  client.close();
})();
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With grpc-js in it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed")
    made = tmp_path_factory.mktemp("grpc-js")
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", GRPC_JS]
    try:
        done = subprocess.run(install, cwd=made, capture_output=True, text=True, timeout=seconds(120))
    except subprocess.TimeoutExpired:
        pytest.skip("npm cannot reach its registry")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {GRPC_JS}: {done.stderr.strip()[-200:]}")
    (made / "client.js").write_text(SCRIPT)
    return made


def test_grpc_js_is_served(folder: Path) -> None:
    async def test() -> Any:
        async with door() as it:
            process = await asyncio.create_subprocess_exec(
                "node", "client.js", f"127.0.0.1:{it.port}", TOKEN, cwd=folder, stdout=subprocess.PIPE
            )
            out, _ = await process.communicate()
            for _ in range(2):  # the late one and the cancelled one
                await it.dispatcher.cancelled.get()
            return json.loads(out)

    said = run(test())
    assert said["many"] == [str(number) for number in range(200)]
    assert said["large"] is True
    assert (said["absent"]["code"], said["absent"]["type"]) == (5, "ResourceNotFoundException")
    assert "Function not found" in said["absent"]["details"]
    assert (said["late"]["code"], said["cancelled"]["code"]) == (4, 1)
    assert (said["stream"]["code"], said["stream"]["pieces"]) == (0, 13)
    assert said["again"] == {"code": 0, "payload": "7"}
