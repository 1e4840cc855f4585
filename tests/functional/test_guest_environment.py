"""What user code sees of its surroundings: variables, modules, paths, the process it runs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.guest_fixtures import Function, function, harness, runtime_zygote
from tests.support.guest_harness import GuestHarness, document

__all__ = ["function", "harness", "runtime_zygote"]

ENVIRON = "import os\ndef handler(e, c): return dict(os.environ)"


def test_environment_is_lambdas(function: Function, harness: GuestHarness, tmp_path: Path) -> None:
    assert function(ENVIRON, runtime=harness.runtime).invoke(b"{}").json == {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{harness.runtime}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2023/11/14/[$LATEST]" + "0123456789abcdef" * 2,
        "AWS_REGION": "us-east-1",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129:2000",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": str(tmp_path),
        "LANG": "en_US.UTF-8",
        "LC_CTYPE": "C.UTF-8",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "PWD": str(tmp_path),
        "PYTHONPATH": "/var/runtime",
        "SHLVL": "0",
        "TZ": ":UTC",
        "_AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129",
        "_AWS_XRAY_DAEMON_PORT": "2000",
        "_HANDLER": "index.handler",
    }


def test_users_variables_win_except_over_reserved_ones(function: Function) -> None:
    worker = function(
        ENVIRON,
        env={"MINE": "1", "PATH": "/x", "AWS_REGION": "mars", "_HANDLER": "x", "LAMBDA_RUNTIME_DIR": "x"},
        credentials={"access_key_id": "AK", "secret_access_key": "SK", "session_token": "ST"},
    )
    seen = worker.invoke(b"{}").json
    assert isinstance(seen, dict)
    assert (seen["MINE"], seen["PATH"]) == ("1", "/x")
    assert (seen["AWS_REGION"], seen["_HANDLER"], seen["LAMBDA_RUNTIME_DIR"]) == (
        "us-east-1",
        "index.handler",
        "/var/runtime",
    )
    assert (seen["AWS_ACCESS_KEY_ID"], seen["AWS_SECRET_ACCESS_KEY"], seen["AWS_SESSION_TOKEN"]) == (
        "AK",
        "SK",
        "ST",
    )


def test_child_processes_get_the_same_variables_and_no_channel(function: Function) -> None:
    worker = function(
        """
        import os, subprocess
        def handler(event, context):
            fds = subprocess.run(["/bin/ls", "/proc/self/fd"], stdout=-1, close_fds=False, text=True).stdout.split()
            return [subprocess.check_output(["/usr/bin/env"], text=True), fds]
        """,
        env={"MINE": "yes"},
    )
    output, fds = worker.invoke(b"{}").json
    assert "MINE=yes" in output.splitlines()
    assert "AWS_LAMBDA_FUNCTION_NAME=f" in output.splitlines()
    assert "3" not in fds or len(fds) == 4  # ls itself opens the folder as fd 3


@pytest.mark.parametrize(("zone", "hour"), [(None, 0), ("Asia/Tokyo", 9)])
def test_time_zone(function: Function, zone: str | None, hour: int) -> None:
    if zone and not Path("/usr/share/zoneinfo", zone).exists():
        zone, hour = "JST-9", 9
    worker = function(
        "import time\ndef handler(e, c): return time.localtime(0).tm_hour", env={"TZ": zone} if zone else {}
    )
    assert worker.invoke(b"{}").json == hour


def test_import_path_and_working_directory(function: Function, harness: GuestHarness, tmp_path: Path) -> None:
    worker = function(
        "import os, sys\ndef handler(e, c): return [sys.path, os.getcwd(), os.path.dirname(os.__file__)]",
        env={"PYTHONPATH": "/opt/mine:/var/runtime"},
    )
    path, cwd, library = worker.invoke(b"{}").json
    assert cwd == str(tmp_path)
    assert path[:4] == [
        str(tmp_path),
        "/opt/python",
        f"/opt/python/lib/{harness.runtime}/site-packages",
        "/opt/mine",
    ]
    assert library in path[4:-1]
    assert path[-1] == "/var/runtime"
    assert not any("site-packages" in entry for entry in path[4:])


def test_users_module_names_are_the_users_own(harness: GuestHarness, functions_dir: Path) -> None:
    worker = harness.start_worker(document(functions_dir / "shadow_names", "gateway.handler"))
    assert worker.invoke(b"{}").json == [
        f"the user's {name}" for name in ("cffi", "orjson", "queue", "sandbox")
    ]


@pytest.mark.parametrize("name", ["uuid", "random", "dataclasses", "tempfile"])
def test_a_module_the_zygote_has_preloaded_may_be_shadowed(
    harness: GuestHarness, tmp_path: Path, name: str
) -> None:
    (tmp_path / f"{name}.py").write_text("def handler(e, c): return 'mine'")
    assert harness.start_worker(document(tmp_path, f"{name}.handler")).invoke(b"{}").json == "mine"


def test_only_the_standard_library_is_loaded(function: Function) -> None:
    worker = function(
        "import sys\nNAMES = sorted({n.partition('.')[0] for n in sys.modules})\n"
        "def handler(e, c): return [NAMES, sorted(sys.stdlib_module_names)]"
    )
    names, standard = worker.invoke(b"{}").json
    # a sysconfig data module has the platform in its name
    assert {n for n in names if not n.startswith("_sysconfigdata")} - set(standard) == {
        "_guest",
        "__main__",
        "index",
    }


def test_nothing_names_a_path_of_the_host_as_main(function: Function) -> None:
    worker = function(
        "import __main__, sys\ndef handler(e, c): return [getattr(__main__, '__file__', None), sys.argv]"
    )
    assert worker.invoke(b"{}").json == [None, ["/var/runtime/bootstrap"]]


def test_multiprocessing_by_spawn_does_not_run_main_again(function: Function) -> None:
    worker = function(
        """
        import multiprocessing, os
        def work(pipe): pipe.send(os.getpid()); pipe.close()
        def handler(event, context):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,))
            process.start()
            pid = ours.recv()
            process.join()
            return [pid == process.pid, process.exitcode]
        """
    )
    assert worker.invoke(b"{}", timeout_s=20).json == [True, 0]


def test_builtins_of_an_ordinary_python(function: Function) -> None:
    worker = function("def handler(e, c): return [callable(exit), callable(quit), callable(help)]")
    assert worker.invoke(b"{}").json == [True, True, True]


def test_bytecode_is_not_written_beside_the_code(function: Function, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("X = 1")
    function("import other\ndef handler(e, c): return other.X").invoke(b"{}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.py", "other.py"]


def test_text_files_are_utf8(function: Function) -> None:
    worker = function(
        "import locale, sys\ndef handler(e, c):\n"
        "    return [locale.getpreferredencoding(False).lower(), sys.getfilesystemencoding()]"
    )
    assert worker.invoke(b"{}").json == ["utf-8", "utf-8"]


def test_layers_come_after_the_function(function: Function) -> None:
    worker = function("import sys\nsys.path.insert(0, '/nowhere')\ndef handler(e, c): return sys.path[0]")
    assert worker.invoke(b"{}").json == "/nowhere"
