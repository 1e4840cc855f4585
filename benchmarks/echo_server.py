"""The limit of the gRPC door: a bare grpc.aio server that answers an Invoke request with its own payload.

It parses and builds the same protobuf messages, checks nothing and starts nothing. Prints "ready PORT".
"""

from __future__ import annotations

import asyncio

import grpc

from gateway.rpc import invocations_pb2


async def invoke(
    request: invocations_pb2.InvokeRequest, _: grpc.aio.ServicerContext
) -> invocations_pb2.InvokeResponse:
    return invocations_pb2.InvokeResponse(payload=request.payload, executed_version="$LATEST")


async def main() -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        invoke,
        request_deserializer=invocations_pb2.InvokeRequest.FromString,
        response_serializer=invocations_pb2.InvokeResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("forklight.v1.Invocations", {"Invoke": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready {port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
