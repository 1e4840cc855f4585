"""The least HTTP server for a component: `wasm_host.py compile WASM CODE`, `wasm_host.py serve CODE PORT`.

A POST to / is answered by one warm instance, to /cold by a new one, to /hold by a new one that is kept.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import wasmtime
from wasmtime import component


def engine():
    settings = wasmtime.Config()
    settings.wasm_component_model = True
    return wasmtime.Engine(settings)


class Instance:
    def __init__(self, host):
        self.store = wasmtime.Store(host.engine)
        self.store.set_wasi(wasmtime.WasiConfig())
        self.handle = host.linker.instantiate(self.store, host.code).get_func(self.store, "handle")

    def __call__(self, event):
        answer = self.handle(self.store, event)
        if hasattr(self.handle, "post_return"):
            self.handle.post_return(self.store)
        return answer


class Host:
    def __init__(self, path):
        self.engine = engine()
        self.linker = component.Linker(self.engine)
        self.linker.add_wasip2()
        self.code = component.Component.deserialize_file(self.engine, path)
        self.warm = Instance(self)
        self.held = []

    def answer(self, path, event):
        if path == b"/":
            return self.warm(event)
        instance = Instance(self)
        if path == b"/hold":
            self.held.append(instance)
        return instance(event)


class Connection(asyncio.Protocol):
    def __init__(self, host):
        self.host = host
        self.data = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        if not end or len(body) < length:
            return
        self.data = body[length:]
        answer = self.host.answer(head.split(b" ", 2)[1], body[:length].decode()).encode()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(answer), answer)
        )


async def serve(path, port):
    host = Host(path)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(host), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "compile":
        code = component.Component.from_file(engine(), sys.argv[2])
        Path(sys.argv[3]).write_bytes(code.serialize())
    else:
        asyncio.run(serve(sys.argv[2], int(sys.argv[3])))
