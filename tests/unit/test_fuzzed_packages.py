"""Damaged zips: each is unpacked or refused in Lambda's words, and never reaches outside its folder."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from gateway.control.packages import unpack
from gateway.model.errors import ApiError
from tests.support.packages import entry, package, package_of, symlink

ROUNDS = 400


def test_random_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    seeds = [
        package(),
        package({"a/b/c.py": "x = 1\n" * 50, "d.txt": "d"}),
        package_of([(entry("f"), "data"), symlink("g/l", "../f")]),
    ]
    chance = random.Random(20261121)
    for number in range(ROUNDS):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            kind = chance.randrange(3)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                del data[place : place + chance.randint(1, 20)]
            else:
                data[place:place] = chance.randbytes(chance.randint(1, 8))
            if not data:
                break
        root = tmp_path / "outside" / str(number)
        root.mkdir(parents=True)
        try:
            unpack(bytes(data), root)
        except ApiError as error:
            assert error.status == 400
        for path in root.rglob("*"):
            assert path.resolve().is_relative_to(root)
        assert [path.name for path in tmp_path.iterdir()] == ["outside"]
        shutil.rmtree(root)
