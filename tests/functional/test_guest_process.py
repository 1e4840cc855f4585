"""A worker as a process: how it ends, what it holds, and that nobody else speaks for it."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

from tests.support.guest_fixtures import Function, function, harness, runtime_zygote
from tests.support.guest_harness import (
    ERROR,
    RESULT,
    SETUP_FAILED,
    GuestHarness,
    GuestWorker,
    document,
    interpreters,
)
from tests.support.leaks import census

__all__ = ["function", "harness", "runtime_zygote"]


def ends(worker: GuestWorker, event: bytes = b"{}") -> int:
    worker.post(event)
    with pytest.raises((EOFError, ConnectionResetError)):
        worker.reply()
    return worker.wait()


@pytest.mark.parametrize(
    ("statement", "status"),
    [
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("sys.exit('text')", 1),
        ("exit(4)", 4),
        ("os._exit(9)", 9),
        ("os.abort()", -signal.SIGABRT),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_a_worker_ends_as_its_handler_ends_it(function: Function, statement: str, status: int) -> None:
    worker = function(f"import os, signal, sys\ndef handler(e, c):\n    {statement}\n    signal.pause()")
    assert ends(worker) == status


def test_exit_at_import(harness: GuestHarness, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("import sys\nprint('bye')\nsys.exit(5)")
    worker = harness.fork(document(tmp_path, "m.h"))
    with pytest.raises(EOFError):
        worker.reply()
    assert worker.wait() == 5
    assert worker.log() == "bye\n"


def test_atexit_runs_on_sys_exit(function: Function) -> None:
    worker = function("import atexit, sys\natexit.register(print, 'at exit')\ndef handler(e, c): sys.exit(1)")
    ends(worker)
    assert worker.log() == "at exit\n"


def test_worker_ends_when_the_host_closes_the_channel(function: Function) -> None:
    worker = function("def handler(e, c): return 1")
    worker.channel.close()
    assert worker.wait() == 0


def test_a_forked_child_that_returns_does_not_answer(function: Function) -> None:
    worker = function(
        """
        import os, sys
        def handler(event, context):
            pid = os.fork()
            if pid == 0:
                if event == "raise":
                    raise ValueError("child")
                if event == "exit":
                    sys.exit(7)
                return "child"
            return ["parent", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
        """
    )
    assert worker.invoke(b'"return"').json == ["parent", 0]
    assert worker.invoke(b'"raise"').json == ["parent", 0]
    assert worker.invoke(b'"exit"').json == ["parent", 7]


def test_a_child_forked_at_import_does_not_answer(harness: GuestHarness, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\ndef h(e, c): return 1"
    )
    assert harness.start_worker(document(tmp_path, "m.h")).invoke(b"{}").json == 1


def test_leftover_threads_do_not_hold_the_answer_back(function: Function) -> None:
    worker = function(
        """
        import threading
        stop = threading.Event()
        def handler(event, context):
            threading.Thread(target=stop.wait).start()
            return threading.active_count()
        """
    )
    assert [worker.invoke(b"{}").json for _ in range(3)] == [2, 3, 4]


def test_closing_or_writing_to_the_channel_harms_only_the_worker(
    function: Function, harness: GuestHarness
) -> None:
    closes = function("import os\ndef handler(e, c): os.close(3)")
    assert ends(closes) == 1
    writes = function("import os\ndef handler(e, c): os.write(3, b'x' * 100)")
    writes.post(b"{}")
    assert writes.channel.recv(4) == b"xxxx"  # the host sees garbage and kills it
    assert function("def handler(e, c): return 1").invoke(b"{}").json == 1


def test_a_worker_holds_four_descriptors(function: Function) -> None:
    worker = function(
        "import os\ndef handler(e, c): return {n: os.readlink(f'/proc/self/fd/{n}').split(':')[0] "
        "for n in '0123'}, sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1]"
    )
    names, numbers = worker.invoke(b"{}").json
    assert names == {"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket"}
    assert numbers == [0, 1, 2, 3]


def test_signals_are_pythons_defaults(function: Function) -> None:
    worker = function(
        """
        import signal
        def handler(event, context):
            odd = {s.name for s in signal.valid_signals() if isinstance(s, signal.Signals)
                   and signal.getsignal(s) is not signal.SIG_DFL}
            return [sorted(odd), len(signal.pthread_sigmask(signal.SIG_BLOCK, []))]
        """
    )
    assert worker.invoke(b"{}").json == [["SIGINT", "SIGPIPE", "SIGXFSZ"], 0]


def test_worker_leads_a_session_and_has_one_thread(function: Function) -> None:
    worker = function(
        "import os, threading\ndef handler(e, c): return [os.getsid(0) == os.getpid(), len(os.listdir('/proc/self/task')), "
        "threading.main_thread() is threading.current_thread(), threading.main_thread().native_id == os.getpid()]"
    )
    assert worker.invoke(b"{}").json == [True, 1, True, True]


def test_workers_do_not_share_randomness(function: Function) -> None:
    source = "import random, secrets, uuid\ndef handler(e, c): return [random.random(), secrets.token_hex(), uuid.uuid4().hex]"
    seen = [function(source).invoke(b"{}").json for _ in range(4)]
    for values in zip(*seen, strict=True):
        assert len(set(values)) == 4


def test_forking_in_a_handler_keeps_working(function: Function) -> None:
    """Python's own bookkeeping of threads and locks must have survived the raw clone."""
    worker = function(
        """
        import concurrent.futures, multiprocessing, threading
        def square(x): return x * x
        def handler(event, context):
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                threads = list(pool.map(square, range(5)))
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("fork").Process(target=lambda: theirs.send(square(3)))
            process.start()
            nine = ours.recv()
            process.join()
            return [threads, nine, process.exitcode]
        """
    )
    assert worker.invoke(b"{}", timeout_s=20).json == [[0, 1, 4, 9, 16], 9, 0]


def test_asyncio_in_a_handler(function: Function) -> None:
    worker = function(
        "import asyncio\nasync def work(x):\n    await asyncio.sleep(0)\n    return x\n"
        "def handler(e, c): return asyncio.run(work(e))"
    )
    assert [worker.invoke(event).json for event in (b"1", b"2")] == [1, 2]


# ---- failures of the fork itself --------------------------------------------------------------------------------


def test_a_step_that_fails_in_the_child_is_reported(harness: GuestHarness, tmp_path: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        worker = harness.fork(fds={"tasks": full.fileno()})
    reply = worker.reply()
    assert reply.kind == SETUP_FAILED
    assert reply.json == {"step": "attach_cgroup", "errno": 28, "detail": ""}
    assert worker.wait() == 120


def test_a_step_that_fails_in_the_zygote_is_reported(harness: GuestHarness) -> None:
    with open(os.devnull) as null, pytest.raises(OSError) as caught:
        harness.fork(fds={"shell": null.fileno()}, join=["pid"])
    assert caught.value.filename == "setns_pid"
    assert caught.value.errno == 22


def test_a_nonsensical_order_is_refused(harness: GuestHarness) -> None:
    for options in ({"rlimits": {"WHAT": 1}}, {"drop": True, "uid": 0, "gid": 0}, {"drop": True}):
        with pytest.raises(OSError) as caught:
            harness.fork(**options)  # type: ignore[arg-type]
        assert caught.value.filename == "order"
    assert harness.start_worker  # and the zygote lives:
    harness.fork().close()


def test_limits_are_set(harness: GuestHarness, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import resource\ndef h(e, c): return resource.getrlimit(resource.RLIMIT_NOFILE)"
    )
    worker = harness.start_worker(document(tmp_path, "m.h"), rlimits={"NOFILE": 77})
    assert worker.invoke(b"{}").json == [77, 77]


def test_a_zygote_keeps_nothing_of_its_workers(harness: GuestHarness) -> None:
    def held() -> tuple[list[str], list[str]]:
        # It answers before it closes; once it has refused this, it has closed all that came before.
        harness.send({"op": "nothing", "id": 0})
        assert harness.receive()[0]["op"] == "failed"
        return sorted(os.listdir(f"/proc/{harness.pid}/fd")), os.listdir(f"/proc/{harness.pid}/task")

    before = held()
    for _ in range(20):
        harness.fork().close()
    with pytest.raises(OSError):
        harness.fork(rlimits={"WHAT": 1})
    assert held() == before == (["0", "1", "2", "3"], [str(harness.pid)])


def test_nothing_is_left_when_the_harness_closes(tmp_path: Path) -> None:
    gc.collect()  # descriptors of tests before this one
    before = census()
    (tmp_path / "m.py").write_text("import os\nif not os.fork(): os._exit(0)\ndef h(e, c): return 1")
    with GuestHarness.start(sorted(interpreters())[0]) as harness:
        harness.fork_zygote(document(tmp_path, "m.h"))
        for _ in range(5):
            harness.start_worker(document(tmp_path, "m.h")).invoke(b"{}")
    after = census()
    # Not the counts of the whole host: other tests may be running beside this one.
    assert after.fds <= before.fds and after.processes <= before.processes, (before, after)


@pytest.mark.parametrize("runtime", sorted(interpreters()))
def test_a_zygote_ends_with_its_control_socket(runtime: str) -> None:
    harness = GuestHarness.start(runtime)
    harness.control.close()
    assert os.waitpid(harness.pid, 0)[1] == 0
    harness.pid = 0


def test_a_zygote_has_no_terminal(harness: GuestHarness) -> None:
    harness.fork().close()  # it has come as far as serving
    assert os.getsid(harness.pid) == harness.pid


def test_many_workers_of_one_zygote_at_once(function: Function) -> None:
    workers = [function("def handler(e, c): return e") for _ in range(12)]
    for number, worker in enumerate(workers):
        worker.post(str(number).encode())
    replies = [worker.reply() for worker in workers]
    assert [reply.json for reply in replies] == list(range(12))
    assert {reply.kind for reply in replies} == {RESULT}
    assert ERROR not in {reply.kind for reply in replies}
