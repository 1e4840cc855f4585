"""The C tests of native/tests, one item each: built with AddressSanitizer and UndefinedBehaviorSanitizer, run by name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
CASES = [
    (source.stem, name)
    for source in sorted((NATIVE / "tests").glob("test_*.c"))
    for name in re.findall(r"^TEST\((\w+)\)", source.read_text(), re.MULTILINE)
]


@pytest.fixture(scope="session")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # Root's build is kept between runs; another user may not be able to write there.
    folder = NATIVE / "build"
    if os.geteuid() != 0:
        folder = tmp_path_factory.mktemp("native-build")
    answer = subprocess.run(
        ["make", "-s", "-j2", "-C", str(NATIVE), f"BUILD={folder}", "all"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return folder


@pytest.mark.parametrize(("program", "case"), CASES, ids=[f"{program}-{case}" for program, case in CASES])
def test_c(build_folder: Path, program: str, case: str) -> None:
    answer = subprocess.run(
        [build_folder / "tests" / program, case], capture_output=True, text=True, check=False, timeout=60
    )
    if "# SKIP" in answer.stdout:
        pytest.skip(answer.stdout.partition("# SKIP ")[2].splitlines()[0])
    assert answer.returncode == 0, answer.stdout + answer.stderr


MUTANTS = 100  # of each input, always the same ones


def test_the_fuzzing_corpus_and_mutants_of_it_replay_without_a_finding(build_folder: Path) -> None:
    for fuzzer in sorted((build_folder / "fuzz").glob("fuzz_*")):
        corpus = sorted((NATIVE / "fuzz" / "corpus" / fuzzer.name.removeprefix("fuzz_")).iterdir())
        command = [fuzzer, f"--mutate={MUTANTS}", *corpus]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert answer.returncode == 0, answer.stderr
        assert f"{len(corpus)} inputs replayed" in answer.stdout
