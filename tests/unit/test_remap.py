"""remap(): a process whose memory has been moved into a file is the same process."""

from __future__ import annotations

import subprocess
import textwrap

import pytest

from tests.support.guest_harness import GUEST, interpreters

PROLOGUE = f"""
import ctypes, errno, gc, hashlib, mmap, os, resource, sys, threading
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("_native", {str(GUEST / "_native.abi3.so")!r})
native = module_from_spec(spec)
spec.loader.exec_module(native)

def rollup(name):
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name + ":"))

def mappings(word):
    with open("/proc/self/maps") as file:
        return [line for line in file if word in line]

def huge_kib_at(address):
    inside = False
    with open("/proc/self/smaps") as file:
        for line in file:
            if "-" in line.split()[0]:
                start, end = (int(number, 16) for number in line.split()[0].split("-"))
                inside = start <= address < end
            elif inside and line.startswith("AnonHugePages:"):
                return int(line.split()[1])

def in_child(check):
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if check() else 1)
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr)
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0

def fill():
    return {{
        "arenas": [(number, str(number)) for number in range(100_000)],
        "heap": [bytes([number % 251]) * (600 + number) for number in range(4000)],
        "blocks": [bytearray(os.urandom(3 << 20)) for _ in range(4)],
        "small blocks": [bytearray(os.urandom(200_000)) for _ in range(20)],
    }}

def digest(data):
    state = hashlib.sha256(repr(data["arenas"]).encode())
    for name in ("heap", "blocks", "small blocks"):
        for part in data[name]:
            state.update(part)
    return state.hexdigest()

"""


@pytest.fixture(params=sorted(interpreters()))
def python(request: pytest.FixtureRequest) -> str:
    return interpreters()[request.param]


def run(python: str, script: str) -> None:
    done = subprocess.run(
        [python, "-I", "-S", "-c", PROLOGUE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 77:
        pytest.skip("this host gives no huge pages on request")
    assert done.returncode == 0, done.stderr


def test_what_was_there_is_there_and_can_be_changed(python: str) -> None:
    run(
        python,
        """
        assert native.watch_memory()
        data = fill()
        before, anonymous = digest(data), rollup("Anonymous")
        moved = native.remap()
        assert moved > 20 << 20, moved
        assert rollup("Anonymous") < anonymous - 0.8 * moved / 1024
        assert digest(data) == before
        # Blocks grow and shrink, are freed and made again; so do heap and arenas.
        kept = [bytes(block) for block in data["blocks"]]
        for block in data["blocks"]:
            block.extend(b"x" * (6 << 20))
        assert all(block == old + b"x" * (6 << 20) for block, old in zip(data["blocks"], kept))
        for block in data["blocks"]:
            del block[1 << 20 :]
        assert [bytes(block) for block in data["blocks"]] == [old[: 1 << 20] for old in kept]
        del data, kept
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        again = fill()
        again["heap"].append(b"y" * 100_000)
        assert digest(again) and all(not any(bytes(100_000 + number)) for number in range(100))
        assert not native.remap() or digest(again)
        """,
    )


def test_children_do_not_see_each_others_changes(python: str) -> None:
    run(
        python,
        """
        native.watch_memory()
        data = fill()
        assert native.remap()
        before = digest(data)
        def change():
            assert digest(data) == before
            for name in ("blocks", "small blocks"):
                for block in data[name]:
                    block[:] = bytes(len(block))
            data["arenas"].reverse()
            data["heap"].clear()
            return digest(data) != before
        for _ in range(3):
            assert in_child(change)
        assert digest(data) == before
        """,
    )


def test_nothing_can_reach_the_file(python: str) -> None:
    run(
        python,
        """
        native.watch_memory()
        data, descriptors = fill(), os.listdir("/proc/self/fd")
        assert native.remap()
        assert os.listdir("/proc/self/fd") == descriptors
        inside = mappings("/memfd:forklight-zygote")
        assert inside and all(line.split()[1] in ("rw-p", "r--p") for line in inside)
        assert not mappings("rw-s")
        """,
    )


def test_what_was_there_before_stays_where_it_is(python: str) -> None:
    run(
        python,
        """
        data = fill()
        assert native.remap() == 0  # nobody watched
        native.watch_memory()
        assert native.remap() == 0
        more = fill()
        moved = native.remap()
        assert 20 << 20 < moved < 60 << 20, moved
        """,
    )


def test_a_second_watch_starts_anew(python: str) -> None:
    run(
        python,
        """
        native.watch_memory()
        data = fill()
        native.watch_memory()
        assert native.remap() == 0
        more = fill()
        assert native.remap() > 20 << 20
        assert digest(data) and digest(more)
        """,
    )


def test_little_is_not_worth_it(python: str) -> None:
    run(
        python,
        """
        native.watch_memory()
        data = [bytes([number]) * 100_000 for number in range(60)]
        assert native.remap() == 0 and not mappings("memfd")
        """,
    )


def test_memory_of_an_unknown_owner_is_left(python: str) -> None:
    """Its owner may count on MADV_DONTNEED giving zeros, on a wiped copy in children, on the name of its file."""
    run(
        python,
        """
        MADV_WIPEONFORK = 18
        native.watch_memory()
        data = fill()
        own = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE)
        wiped = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE)
        wiped.madvise(MADV_WIPEONFORK)
        with open(sys.executable, "rb") as file:
            copied = mmap.mmap(file.fileno(), 4096, access=mmap.ACCESS_COPY)
        own[:] = b"x" * len(own)
        wiped[:5] = copied[:5] = b"hello"
        assert native.remap()
        assert own[:] == b"x" * len(own) and wiped[:5] == copied[:5] == b"hello"
        assert in_child(lambda: wiped[:5] == bytes(5) and copied[:5] == b"hello")
        own.madvise(mmap.MADV_DONTNEED)
        assert not any(own[:])
        """,
    )


def test_huge_pages_are_left(python: str) -> None:
    run(
        python,
        """
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        native.watch_memory()
        data = fill()
        block = libc.malloc(ctypes.c_size_t(32 << 20))
        start = -(-block // 4096) * 4096
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(30 << 20), mmap.MADV_HUGEPAGE)
        ctypes.memset(block, 1, 32 << 20)
        # Of this mapping alone: where the host makes huge pages unasked, others have a few, too, and are moved with them.
        huge = huge_kib_at(start)
        if huge < 16 << 10:
            sys.exit(77)
        assert native.remap() > 20 << 20
        assert huge_kib_at(start) == huge
        """,
    )


def test_a_large_block_becomes_huge_pages(python: str) -> None:
    run(
        python,
        """
        native.watch_memory()
        block = bytearray(os.urandom(1 << 20) * 40)
        before = hashlib.sha256(block).digest()
        native.remap()
        if rollup("AnonHugePages") == 0:
            sys.exit(77)  # an old kernel, or no huge page free
        assert rollup("AnonHugePages") >= 36 << 10
        assert hashlib.sha256(block).digest() == before
        def change():
            block[:] = bytes(len(block))
            block.extend(b"more" * 1_000_000)
            return not any(block[: 40 << 20])
        assert in_child(change)
        assert hashlib.sha256(block).digest() == before
        """,
    )


def test_memory_that_is_mostly_untouched_takes_no_more_of_it(python: str) -> None:
    run(
        python,
        """
        native.watch_memory()
        data = fill()
        sparse = [bytearray(2 << 20) for _ in range(20)]
        for block in sparse:
            block[0] = block[1 << 20] = 1
        resident = rollup("Rss")
        assert native.remap()
        assert all(block[0] == block[1 << 20] == 1 and not any(block[1:5000]) for block in sparse)
        assert digest(data) and rollup("Rss") < resident + 8 * 1024
        """,
    )


def test_not_with_a_second_thread(python: str) -> None:
    run(
        python,
        """
        native.watch_memory()
        data, end = fill(), threading.Event()
        threading.Thread(target=end.wait).start()
        try:
            native.remap()
        except OSError as error:
            assert error.errno == errno.EBUSY
        else:
            raise AssertionError("moved")
        finally:
            end.set()
        assert not mappings("memfd")
        """,
    )


def test_a_limit_of_file_sizes_is_no_harm(python: str) -> None:
    run(
        python,
        """
        native.watch_memory()
        data = fill()
        before = digest(data)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            native.remap()
        except OSError as error:
            assert error.errno == errno.EFBIG
        else:
            raise AssertionError("moved")
        assert digest(data) == before and not mappings("memfd")
        """,
    )
