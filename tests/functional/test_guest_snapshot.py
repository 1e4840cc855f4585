"""A function zygote: the module code runs once, workers are copies of what it made."""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.guest_fixtures import harness, runtime_zygote
from tests.support.guest_harness import INIT_FAILED, FunctionZygote, GuestHarness, document

__all__ = ["harness", "runtime_zygote"]


def zygote_of(harness: GuestHarness, folder: Path, source: str) -> FunctionZygote:
    (folder / "index.py").write_text(textwrap.dedent(source))
    return harness.fork_zygote(document(folder, "index.handler", init_type="snap-start"))


def test_module_code_runs_once_and_hooks_at_their_time(harness: GuestHarness, functions_dir: Path) -> None:
    init = document(functions_dir / "restored", "app.handler", init_type="snap-start")
    zygote = harness.fork_zygote(init)
    assert zygote.state["op"] == "ready"
    assert zygote.state["unforkable"] == []
    assert isinstance(zygote.state["init_us"], int)
    seen = []
    for number in range(3):
        instance = f"{number:032x}"
        worker = zygote.start_worker(
            {**init, "instance": instance, "credentials": {"access_key_id": str(number)}}
        )
        answer = worker.invoke(b"{}").json
        assert isinstance(answer, dict)
        assert answer["stream"] == f"2023/11/14/[$LATEST]{instance}"
        assert answer["env"]["AWS_LAMBDA_LOG_STREAM_NAME"] == answer["stream"]
        assert answer["env"]["AWS_ACCESS_KEY_ID"] == str(number)
        assert answer["env"]["AWS_LAMBDA_INITIALIZATION_TYPE"] == "snap-start"
        assert "OPENBLAS_NUM_THREADS" not in answer["env"]
        assert answer["calls"] == ["before 2", "before 1", "after 1", "after 2"]
        seen.append(answer)
        worker.close()
    assert len({answer["loaded"] for answer in seen}) == 1
    assert len({answer["random"] for answer in seen}) == 3
    assert len({answer["uuid"] for answer in seen}) == 3


def test_a_bundled_snapshot_package_is_used(harness: GuestHarness, tmp_path: Path) -> None:
    (tmp_path / "snapshot_restore_py.py").write_text(
        "ran = []\ndef get_before_snapshot(): return [(ran.append, ('before',), {})]\n"
        "def get_after_restore(): return [(ran.append, ('after',), {})]\n"
    )
    source = "import snapshot_restore_py\ndef handler(e, c): return snapshot_restore_py.ran"
    zygote = zygote_of(harness, tmp_path, source)
    # Its registry is not emptied by pop() here, because it is made anew by each call.
    assert zygote.state["op"] == "ready"
    worker = zygote.start_worker(document(tmp_path, "index.handler"))
    assert worker.invoke(b"{}").json == ["before", "after"]
    worker.close()


def test_init_that_fails(harness: GuestHarness, tmp_path: Path) -> None:
    zygote = zygote_of(harness, tmp_path, "print('trying')\nraise KeyError('x')")
    assert zygote.state["op"] == "init_failed"
    error = zygote.state["error"]
    assert isinstance(error, dict)
    assert (error["errorType"], error["errorMessage"], error["requestId"]) == ("KeyError", "'x'", "")


def test_before_hook_that_fails(harness: GuestHarness, tmp_path: Path) -> None:
    source = """
        from snapshot_restore_py import register_before_snapshot
        @register_before_snapshot
        def hook(): raise RuntimeError("before")
        def handler(e, c): pass
    """
    assert zygote_of(harness, tmp_path, source).state["op"] == "init_failed"


def test_after_hook_that_fails(harness: GuestHarness, tmp_path: Path) -> None:
    source = """
        from snapshot_restore_py import register_after_restore
        register_after_restore(lambda: 1 / 0)
        def handler(e, c): pass
    """
    zygote = zygote_of(harness, tmp_path, source)
    worker = zygote.fork(document(tmp_path, "index.handler"))
    reply = worker.reply()
    assert reply.kind == INIT_FAILED
    assert reply.json["errorType"] == "ZeroDivisionError"  # type: ignore[index]
    assert worker.log().startswith("[ERROR] ZeroDivisionError")
    worker.close()


@pytest.mark.parametrize(
    ("statement", "obstacle"),
    [
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "2 threads"),
        ("KEEP = subprocess.Popen(['/bin/sleep', '100'])", "1 child process"),
        ("KEEP = socket.socket(socket.AF_UNIX)", "socket fd 4"),
        ("KEEP = select.epoll()", "epoll fd 4"),
        ("KEEP = mmap.mmap(-1, 4096)", "1 shared memory mapping"),
    ],
)
def test_what_a_fork_cannot_carry_is_named(
    harness: GuestHarness, tmp_path: Path, statement: str, obstacle: str
) -> None:
    source = f"import mmap, select, socket, subprocess, threading\n{statement}\ndef handler(e, c): pass"
    zygote = zygote_of(harness, tmp_path, source)
    assert zygote.state["unforkable"] == [obstacle]
    zygote.send({"op": "fork", "id": 1, "role": "worker", "fds": []})  # and it still serves
    assert zygote.receive()[0]["op"] == "failed"


def test_user_hooks_of_os_register_at_fork_run(harness: GuestHarness, tmp_path: Path) -> None:
    source = """
        import os
        seen = []
        os.register_at_fork(after_in_child=lambda: seen.append(1))
        def handler(e, c): return seen
    """
    worker = zygote_of(harness, tmp_path, source).start_worker(document(tmp_path, "index.handler"))
    assert worker.invoke(b"{}").json == [1]
    worker.close()


def test_threads_of_numeric_libraries_are_held_back_during_init(
    harness: GuestHarness, tmp_path: Path
) -> None:
    source = "import os\nSEEN = os.environ['OMP_NUM_THREADS']\ndef handler(e, c): return [SEEN, 'OMP_NUM_THREADS' in os.environ]"
    worker = zygote_of(harness, tmp_path, source).start_worker(document(tmp_path, "index.handler"))
    assert worker.invoke(b"{}").json == ["1", False]
    worker.close()


def test_numpy_can_be_forked_and_draws_other_numbers_in_each_worker(
    harness: GuestHarness, tmp_path: Path
) -> None:
    numpy = importlib.util.find_spec("numpy")
    if numpy is None or numpy.origin is None or harness.runtime != f"python3.{sys.version_info.minor}":
        pytest.skip("numpy is not installed for this Python")
    if not os.access(numpy.origin, os.R_OK):
        pytest.skip("numpy is installed where this user cannot read it")
    source = """
        import numpy, random
        numpy.random.seed(1)
        def handler(e, c): return [float(numpy.random.random()), random.random(), float(numpy.ones((9, 9)).dot(numpy.ones(9))[0])]
    """
    (tmp_path / "index.py").write_text(textwrap.dedent(source))
    init = document(
        tmp_path,
        "index.handler",
        env={"PYTHONPATH": str(Path(numpy.origin).parent.parent)},
        runtime=harness.runtime,
    )
    zygote = harness.fork_zygote(init)
    assert zygote.state["op"] == "ready", zygote.state
    assert zygote.state["unforkable"] == []
    seen = []
    for _ in range(3):
        worker = zygote.start_worker(init)
        seen.append(worker.invoke(b"{}").json)
        worker.close()
    drawn, drawn_too, nine = zip(*seen, strict=True)
    assert len(set(drawn)) == len(set(drawn_too)) == 3
    assert set(nine) == {9.0}


def test_restored_workers_hold_four_descriptors_and_no_state_of_each_other(
    harness: GuestHarness, tmp_path: Path
) -> None:
    source = "import os\nn = 0\ndef handler(e, c):\n    global n\n    n += 1\n    return [n, len(os.listdir('/proc/self/fd')) - 1]"
    zygote = zygote_of(harness, tmp_path, source)
    for _ in range(2):
        worker = zygote.start_worker(document(tmp_path, "index.handler"))
        assert [worker.invoke(b"{}").json for _ in range(2)] == [[1, 4], [2, 4]]
        worker.close()


def test_a_large_zygote_is_forked_without_its_page_tables(harness: GuestHarness, tmp_path: Path) -> None:
    """A copied page table shows as resident memory of the worker; memory that moved is faulted in as it is used."""
    source = """
        parts = [bytes([n % 251]) * 100_000 for n in range(1000)] + [bytes([n]) * 3_000_000 for n in range(1, 30)]
        table = {number: str(number) for number in range(200_000)}
        def handler(event, context):
            before = sum(part[0] + part[-1] for part in parts)
            parts.append(b"mine")
            table[event["number"]] = "mine"
            with open("/proc/self/status") as file:
                resident = next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
            return [before, len(parts), table[event["number"]], table[event["number"] + 1], resident]
    """
    zygote = zygote_of(harness, tmp_path, source)
    assert zygote.state["op"] == "ready"
    assert isinstance(zygote.state["moved_bytes"], int)
    assert zygote.state["moved_bytes"] > 180 << 20
    expected = 2 * (sum(n % 251 for n in range(1000)) + sum(range(1, 30)))
    for number in range(3):
        worker = zygote.start_worker(document(tmp_path, "index.handler"))
        answer = worker.invoke(b'{"number": %d}' % number).json
        assert isinstance(answer, list)
        assert answer[:4] == [expected, 1030, "mine", str(number + 1)]
        # Faults bring neighbours along, so looking at every part's ends costs some.
        assert answer[4] < 150 * 1024
        worker.close()


def test_a_small_zygote_stays_as_it_is(harness: GuestHarness, tmp_path: Path) -> None:
    assert zygote_of(harness, tmp_path, "def handler(e, c): pass").state["moved_bytes"] == 0


def test_a_zygote_that_has_rehearsed_is_as_before(harness: GuestHarness, tmp_path: Path) -> None:
    """It takes an order from nobody when idle: that opens nothing, forks nothing and is seen by no worker."""
    source = "import os\ndef handler(e, c): return len(os.listdir('/proc/self/fd')) - 1"
    zygote = zygote_of(harness, tmp_path, source)
    pid = Path(f"/proc/self/fdinfo/{zygote.pidfd}").read_text().split("Pid:")[1].split()[0]
    descriptors = os.listdir(f"/proc/{pid}/fd")
    for _ in range(3):
        time.sleep(0.06)
        assert os.listdir(f"/proc/{pid}/fd") == descriptors
        assert not Path(f"/proc/{pid}/task/{pid}/children").read_text()
        worker = zygote.start_worker(document(tmp_path, "index.handler"))
        assert worker.invoke(b"{}").json == 4
        worker.close()


@pytest.mark.parametrize(
    ("statement", "obstacle"),
    [
        ("KEEP = os.eventfd(0) if hasattr(os, 'eventfd') else None", "eventfd fd 4"),
        ("KEEP = libc.timerfd_create(1, 0)", "timerfd fd 4"),
        ("KEEP = os.pidfd_open(os.getpid())", "pidfd fd 4"),
        ("KEEP = os.memfd_create('left')", "anonymous file fd 4"),
        ("signal.setitimer(signal.ITIMER_REAL, 1000)", "1 timer"),
        ("signal.alarm(1000)", "1 timer"),
        ("KEEP = ctypes.c_void_p(); assert libc.timer_create(1, None, ctypes.byref(KEEP)) == 0", "1 timer"),
        (
            "KEEP = os.open(__file__ + '.gone', os.O_RDWR | os.O_CREAT); os.unlink(__file__ + '.gone')",
            "file fd 4",
        ),
    ],
)
def test_what_copies_would_share_or_lack_is_named(
    harness: GuestHarness, tmp_path: Path, statement: str, obstacle: str
) -> None:
    source = f"import ctypes, os, signal\nlibc = ctypes.CDLL(None)\n{statement}\ndef handler(e, c): pass"
    zygote = zygote_of(harness, tmp_path, source)
    assert zygote.state["op"] == "ready", zygote.state
    assert zygote.state["unforkable"] == [obstacle]


def test_each_copy_has_its_own_position_in_files_that_were_open(
    harness: GuestHarness, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("0123456789")
    source = """
        import os
        folder = os.path.dirname(__file__)
        reader = open(folder + "/data", buffering=1)
        first = reader.read(1)
        reader.seek(3)
        raw = os.open(folder + "/data", os.O_RDONLY)
        os.lseek(raw, 3, os.SEEK_SET)
        log = open(folder + "/log", "a", buffering=1)
        listing = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        null = open("/dev/null", "w")
        os.set_inheritable(raw, True)
        def handler(event, context):
            print("x" * event, file=log)
            null.write("y")
            return [
                os.read(raw, event).decode(), reader.read(event), null.flush(),
                sorted(os.listdir(listing)) != [], os.get_inheritable(raw), os.get_inheritable(listing),
            ]
    """
    zygote = zygote_of(harness, tmp_path, source)
    assert zygote.state["unforkable"] == []
    workers = [zygote.start_worker(document(tmp_path, "index.handler")) for _ in range(2)]
    for worker in workers:
        assert worker.invoke(b"2").json == ["34", "34", None, True, True, False]
    for worker in workers:
        assert worker.invoke(b"3").json == ["567", "567", None, True, True, False]
        worker.close()
    assert (tmp_path / "log").read_text() == "xx\nxx\nxxx\nxxx\n"


def test_a_file_that_is_gone_fails_the_copy_that_misses_it(harness: GuestHarness, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("as it was")
    zygote = zygote_of(
        harness, tmp_path, f"file = open({str(tmp_path / 'data')!r})\ndef handler(e, c): return file.read()"
    )
    init = document(tmp_path, "index.handler")
    worker = zygote.start_worker(init)
    assert worker.invoke(b"{}").json == "as it was"
    worker.close()
    (tmp_path / "data").unlink()
    (tmp_path / "data").write_text("another one")
    worker = zygote.fork(init)
    reply = worker.reply()
    assert reply.kind == INIT_FAILED
    assert reply.json["errorType"] == "FileNotFoundError"  # type: ignore[index]
    worker.close()


def test_no_source_of_randomness_repeats(harness: GuestHarness, tmp_path: Path) -> None:
    """Each is used by the module code first, so that whatever state it keeps exists when the copy is made."""
    source = """
        import ctypes, glob, hashlib, os, random, secrets, ssl, tempfile, uuid
        import _ssl
        libcrypto = ctypes.CDLL(_ssl.__file__)

        def openssl():
            buffer = ctypes.create_string_buffer(16)
            assert libcrypto.RAND_bytes(buffer, 16) == 1
            return buffer.raw.hex()

        def draw():
            return {
                "random": random.random(), "gauss": random.gauss(0, 1), "bits": random.getrandbits(64),
                "choice": "".join(random.choices("abcdefghijklmnop", k=20)), "system": random.SystemRandom().random(),
                "secrets": secrets.token_hex(8), "urandom": os.urandom(8).hex(), "uuid4": str(uuid.uuid4()), "uuid1": str(uuid.uuid1()),
                "node": uuid.getnode(), "sequence of uuid1": uuid.uuid1().clock_seq, "ssl": ssl.RAND_bytes(8).hex(), "openssl": openssl(),
                "temporary name": next(tempfile._get_candidate_names()),
            }

        random.seed(1)
        random.gauss(0, 1)  # the next one is drawn already
        before = draw()
        random.gauss(0, 1)

        def handler(event, context):
            return draw()
    """
    zygote = zygote_of(harness, tmp_path, source)
    assert zygote.state["op"] == "ready", zygote.state
    assert zygote.state["unforkable"] == []
    drawn = []
    for _ in range(4):
        worker = zygote.start_worker(document(tmp_path, "index.handler"))
        answer = worker.invoke(b"{}")
        assert isinstance(answer.json, dict), answer
        drawn.append(answer.json)
        worker.close()
    for source_name in drawn[0]:
        values = [each[source_name] for each in drawn]
        # 14 bits may well be the same in two of four.
        enough = 2 if source_name == "sequence of uuid1" else 4
        assert len(set(values)) >= enough, (source_name, values)
