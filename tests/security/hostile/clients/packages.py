"""Packages and configurations that reach out of their place or are more than they seem."""

from __future__ import annotations

import io
import stat
import uuid
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from tests.security.hostile.arena import Arena
from tests.security.hostile.case import Case
from tests.support.deploy import ROLE, zip_of

ECHO = "def handler(event, context):\n    return event\n"


def _create(arena: Arena, package: bytes, **configuration: Any) -> None:
    name = configuration.pop("FunctionName", f"package-{uuid.uuid4().hex[:12]}")
    arena.client.create_function(
        **{
            "FunctionName": name,
            "Role": ROLE,
            "Runtime": "python3.11",
            "Handler": "index.handler",
            "Code": {"ZipFile": package},
            **configuration,
        }
    )
    arena.client.delete_function(FunctionName=name)


def _refused(arena: Arena, package: bytes, **configuration: Any) -> None:
    """By the API, as the caller's fault."""
    with pytest.raises(ClientError) as refusal:
        _create(arena, package, **configuration)
    status = refusal.value.response["ResponseMetadata"]["HTTPStatusCode"]
    assert status in (400, 413), refusal.value


def _zip(fill: Callable[[zipfile.ZipFile], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.py", ECHO)
        fill(archive)
    return buffer.getvalue()


def _with_entry(name: str, content: bytes, mode: int = 0o644) -> bytes:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    entry.create_system = 3
    return _zip(lambda archive: archive.writestr(entry, content))


def entries_that_climb(arena: Arena) -> None:
    for name in (
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a/./../../evil",
        "..\\evil",
        "a//../../../evil",
        "../" * 40 + "tmp/evil",
    ):
        try:
            _create(arena, _with_entry(name, b"x"))
        except ClientError as refusal:
            assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] == 400, refusal
        else:
            assert "\\" in name, f"{name} was taken"


def links_that_climb(arena: Arena) -> None:
    for target in (b"/etc/passwd", b"../../../etc/passwd", b"a/../../..", b"..", b"/", b"", b"x" * 5000):
        _refused(arena, _with_entry("link", target, stat.S_IFLNK | 0o777))


def files_through_links(arena: Arena) -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        for name, target in (("here", b"."), ("up", b"here/..")):
            link = zipfile.ZipInfo(name)
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, target)
        archive.writestr("here/up/evil", b"x")

    _refused(arena, _zip(fill))


def devices_pipes_and_sockets(arena: Arena) -> None:
    for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
        _refused(arena, _with_entry("node", b"", kind | 0o666))


def set_user_id_bits_are_lost(arena: Arena) -> None:
    source = "import os\ndef handler(event, context):\n    return [oct(os.stat('tool').st_mode), os.stat('tool').st_uid == os.getuid()]\n"
    entry = zipfile.ZipInfo("tool")
    entry.external_attr = (stat.S_IFREG | 0o6777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.py", source)
        archive.writestr(entry, b"#!/bin/sh\n")
    with arena.function(Case("", ECHO, ())) as name:
        arena.client.update_function_code(FunctionName=name, ZipFile=buffer.getvalue())
        arena.client.get_waiter("function_updated_v2").wait(FunctionName=name)
        reply = arena.invoke(name)
    assert reply.value[0] == "0o100755", reply


def a_bomb(arena: Arena) -> None:
    """300 MB of nothing, and the same behind a header that speaks of ten bytes."""
    package = _zip(lambda archive: archive.writestr("zeros", bytes(300 << 20)))
    _refused(arena, package)
    size = (300 << 20).to_bytes(4, "little")
    _refused(arena, package.replace(size, (10).to_bytes(4, "little")))


def a_hundred_thousand_entries(arena: Arena) -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        for number in range(60_000):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")

    _refused(arena, _zip(fill))


def one_name_twice(arena: Arena) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("index.py", ECHO)
        archive.writestr("jndex.py", "import os\n")
    _refused(arena, buffer.getvalue().replace(b"jndex.py", b"index.py"))


def a_file_that_is_a_folder(arena: Arena) -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        archive.writestr("a", b"x")
        archive.writestr("a/b", b"x")

    _refused(arena, _zip(fill))


def folders_too_deep(arena: Arena) -> None:
    _refused(arena, _with_entry("a/" * 2000 + "b", b"x"))


def encrypted_entries_and_strange_methods(arena: Arena) -> None:
    package = bytearray(_with_entry("x", b"x" * 100))
    package[package.rindex(b"PK\x01\x02") + 8] |= 1
    _refused(arena, bytes(package))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("index.py", ECHO)
    _refused(arena, buffer.getvalue())


def what_is_no_package(arena: Arena) -> None:
    good = zip_of({"index.py": ECHO})
    for package in (
        b"",
        b"PK\x05\x06" + bytes(18),
        b"x" * 1000,
        good[: len(good) // 2],
        good[40:],
        b"PK\x03\x04" + b"\xff" * 100,
        good[:-4] + b"\xff" * 4,
    ):
        with pytest.raises((ClientError, ParamValidationError)):
            _create(arena, package)


def broken_packages(arena: Arena) -> None:
    """Every tenth byte changed, one at a time: refused or made of, never a failure of the platform."""
    good = zip_of({"index.py": ECHO, "data": b"x" * 50})
    for position in range(0, len(good), 7):
        package = bytearray(good)
        package[position] ^= 0xFF
        try:
            _create(arena, bytes(package))
        except ClientError as refusal:
            assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] < 500, (position, refusal)


def names_that_are_not_names(arena: Arena) -> None:
    from botocore.config import Config

    good = zip_of({"index.py": ECHO})
    plain = arena.target.client(parameter_validation=False)
    assert isinstance(plain.meta.config, Config)
    for name in (
        "..",
        ".",
        "../../etc",
        "a/b",
        "a\0b",
        "x" * 65,
        "",
        " ",
        "ä",
        "a:b:c:d",
        "$LATEST",
        "%2e%2e",
        "a\nb",
        "arn:aws:lambda:us-east-1:123456789012:function:../x",
    ):
        with pytest.raises(ClientError) as refusal:
            plain.create_function(
                FunctionName=name,
                Role=ROLE,
                Runtime="python3.11",
                Handler="index.handler",
                Code={"ZipFile": good},
            )
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500, (name, refusal.value)
    plain.close()


def handlers_that_are_paths(arena: Arena) -> None:
    for handler in (
        "../../../../etc/passwd.x",
        "/etc/passwd.handler",
        "os.system",
        "index.__class__",
        "index",
        "..handler",
        "a.b.c.d.e",
        "sys.exit",
        "index.os._exit",
        "x" * 128,
    ):
        name = f"handler-{uuid.uuid4().hex[:12]}"
        try:
            arena.client.create_function(
                FunctionName=name,
                Role=ROLE,
                Runtime="python3.11",
                Handler=handler,
                Code={"ZipFile": zip_of({"index.py": "import os\n" + ECHO})},
                Tags={"forklight:snapshot": "off"},
            )
        except ClientError as refusal:
            assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] == 400, (handler, refusal)
            continue
        try:
            arena.client.get_waiter("function_active_v2").wait(FunctionName=name)
            reply = arena.invoke(name, "x")
            assert reply.error.startswith(
                ("Runtime.", "TypeError", "AttributeError", "ModuleNotFoundError")
            ), (handler, reply)
        finally:
            arena.client.delete_function(FunctionName=name)


def environments_that_are_the_platforms(arena: Arena) -> None:
    good = zip_of({"index.py": ECHO})
    for variables in (
        {"AWS_LAMBDA_RUNTIME_API": "x"},
        {"AWS_ACCESS_KEY_ID": "x"},
        {"_HANDLER": "x"},
        {"LAMBDA_TASK_ROOT": "/"},
        {"A": "x" * 5000},
        {"A\0B": "x"},
        {"A=B": "x"},
        {"1": "x"},
    ):
        with pytest.raises((ClientError, ParamValidationError)):
            _create(arena, good, Environment={"Variables": variables})


def sizes_that_cannot_be(arena: Arena) -> None:
    good = zip_of({"index.py": ECHO})
    plain = arena.target.client(parameter_validation=False)
    for bad in ({"MemorySize": 0}, {"MemorySize": 1 << 40}, {"MemorySize": -1}, {"Timeout": 0}, {"Timeout": 10**12}, {"EphemeralStorage": {"Size": 1}}, {"EphemeralStorage": {"Size": 1 << 40}},
                {"Tags": {"forklight:network": "host; rm"}}, {"Tags": {"forklight:isolation": "none"}}, {"Tags": {"forklight:snapshot": "\x00"}}):  # fmt: skip
        with pytest.raises(ClientError) as refusal:
            plain.create_function(
                **{
                    "FunctionName": "sizes",
                    "Role": ROLE,
                    "Runtime": "python3.11",
                    "Handler": "index.handler",
                    "Code": {"ZipFile": good},
                    **bad,
                }
            )
        assert refusal.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400, (bad, refusal.value)
    plain.close()


def create_and_delete_at_once(arena: Arena) -> None:
    """Eight callers that make, call and delete one name: each gets an answer or a clear refusal."""
    good = zip_of({"index.py": ECHO})
    client = arena.client

    def race(number: int) -> None:
        for _ in range(5):
            for call in (
                lambda: client.create_function(
                    FunctionName="contested",
                    Role=ROLE,
                    Runtime="python3.11",
                    Handler="index.handler",
                    Code={"ZipFile": good},
                ),
                lambda: client.invoke(FunctionName="contested", Payload=b"1"),
                lambda: client.update_function_configuration(FunctionName="contested", Timeout=number + 1),
                lambda: client.delete_function(FunctionName="contested"),
            ):
                try:
                    call()
                except ClientError as refusal:
                    status = refusal.response["ResponseMetadata"]["HTTPStatusCode"]
                    assert status in (404, 409, 429, 503), refusal

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(8)))
    try:
        client.delete_function(FunctionName="contested")
    except client.exceptions.ResourceNotFoundException:
        pass


ALL = [
    entries_that_climb, links_that_climb, files_through_links, devices_pipes_and_sockets, set_user_id_bits_are_lost, a_bomb,
    a_hundred_thousand_entries, one_name_twice, a_file_that_is_a_folder, folders_too_deep,
    encrypted_entries_and_strange_methods, what_is_no_package, broken_packages, names_that_are_not_names,
    handlers_that_are_paths, environments_that_are_the_platforms, sizes_that_cannot_be, create_and_delete_at_once,
]  # fmt: skip
