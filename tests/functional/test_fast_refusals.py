"""What was taught once is not let through for ever: wrong signatures, old dates, keys and functions that are gone."""

from __future__ import annotations

import asyncio
import datetime
import re
from pathlib import Path

import botocore.auth
import pytest

from tests.support.dispatch_bench import go
from tests.support.fast_door import KEY, Fake, fast_door, normal, signed
from tests.support.lending import REGION, view

ECHO = "def handler(event, context):\n    return event\n"


def _refusals(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, bytes]]:
    """What must be refused although its route and its kind of header are known."""
    good = signed("f", b'{"a":1}', **{"X-Amz-Extra": "1"})
    signature = re.search(rb"Signature=(\w{64})", good)
    assert signature is not None
    last = signature[1][-1:]
    cases = {
        "another digit": (
            403,
            good.replace(signature[1], signature[1][:-1] + (b"0" if last != b"0" else b"1")),
        ),
        "upper case": (403, good.replace(signature[1], signature[1].upper())),
        "half": (403, good.replace(signature[1], signature[1][:32])),
        "nothing": (403, good.replace(signature[1], b"")),
        "another body": (403, good.replace(b'{"a":1}', b'{"a":2}')),
        "a longer body": (403, good.replace(b'{"a":1}', b'{"a":1} ').replace(b"Length: 7", b"Length: 8")),
        "a header changed": (403, good.replace(b"X-Amz-Extra: 1", b"X-Amz-Extra: 2")),
        "a header gone": (403, good.replace(b"X-Amz-Extra: 1\r\n", b"")),
        "a header twice": (403, good.replace(b"X-Amz-Extra: 1", b"X-Amz-Extra: 1\r\nX-Amz-Extra: 1")),
        "another host": (403, good.replace(b"Host: h", b"Host: g")),
        "another hash": (403, good.replace(b"Host: h", b"Host: h\r\nX-Amz-Content-Sha256: " + b"0" * 64)),
        "unsigned payload": (
            403,
            good.replace(b"Host: h", b"Host: h\r\nX-Amz-Content-Sha256: UNSIGNED-PAYLOAD"),
        ),
        "another target": (403, good.replace(b"/invocations ", b"/invocations?Qualifier=$LATEST ")),
        "another function": (404, signed("nobody")),
        "another region": (404, signed("f", region="eu-west-1")),
        "another key": (403, signed("f", key="AKIDOTHER")),
        "another secret": (403, signed("f", secret="other")),
        "not signed": (403, re.sub(rb"Authorization: [^\r]+\r\n", b"", good)),
        "another service": (403, good.replace(b"/lambda/", b"/logs/")),
    }
    now = datetime.datetime.now(datetime.UTC)
    for name, away in (("expired", -302), ("from the future", 302), ("of another day", -86400 * 2)):
        monkeypatch.setattr(
            botocore.auth, "get_current_datetime", lambda away=away: now + datetime.timedelta(seconds=away)
        )
        cases[name] = (403, signed("f"))
    for name, away in (("nearly expired", -297), ("nearly from the future", 297)):
        monkeypatch.setattr(
            botocore.auth, "get_current_datetime", lambda away=away: now + datetime.timedelta(seconds=away)
        )
        cases[name] = (200, signed("f"))
    monkeypatch.undo()
    return cases


def test_what_is_refused_is_refused_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO) as d:
            d.bench.directory.put(view("f", key="g-1"))  # it echoes
            cases = _refusals(monkeypatch)
            for request in (signed("f"), signed("f", b'{"a":1}', **{"X-Amz-Extra": "1"})):
                (await d.warm(request)).writer.close()
            for name, (status, request) in cases.items():
                before = d.answered_fast()
                answers = []
                for server in (d.fast, d.plain):
                    connection = Fake(d, server)
                    answers.append(normal(await connection.feed(request)))
                    connection.close()
                assert answers[0] == answers[1], name
                assert answers[0].startswith(b"HTTP/1.1 %d " % status), (name, answers[0])
                assert d.answered_fast() == before or status == 200, name

    go(test())


def test_a_key_that_is_gone_signs_nothing_any_more(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO) as d:
            client = await d.warm(signed("g"))
            d.router.set_keys({"AKIDOTHER": "other"})
            await client.send(signed("g"))
            answer = await client.answer()
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "UnrecognizedClientException")
            d.router.set_keys({KEY: "another secret", "AKIDOTHER": "other"})
            await client.send(signed("g"))
            answer = await client.answer()
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "InvalidSignatureException")
            await d.warm(signed("g", secret="another secret"), client)
            await d.warm(signed("g", key="AKIDOTHER", secret="other"), client)

    go(test())


def test_a_function_that_changes_or_goes_is_looked_up_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO) as d:
            client = await d.warm(signed("g"))
            d.bench.code(
                "g-2", "import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return 2\n"
            )
            d.bench.directory.put(view("g", key="g-2"))
            for _ in range(3):
                await client.send(signed("g"))
                assert (await client.answer()).body == b"2"
            d.bench.directory.put(view("g", key="g-2", state="Pending"))
            await client.send(signed("g"))
            assert (await client.answer()).status == 409
            d.bench.directory.put(view("g", key="g-2"))
            await d.warm(signed("g"), client)
            # While a call runs: it ends, the next one finds nothing.
            await client.send(signed("g"))
            await asyncio.sleep(0.02)
            d.bench.directory.remove(REGION, "g")
            assert (await client.answer()).body == b"2"
            await client.send(signed("g"))
            assert (await client.answer()).status == 404
            assert "g-2" not in d.bench.dispatcher.pools

    go(test())
