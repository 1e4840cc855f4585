"""Starting, stopping, dying and coming back: what was acknowledged stays, what was started is gone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.deploy import ROLE, function, invoke, zip_of
from tests.support.patience import handler_timeout
from tests.support.processes import alive, children_of, role_of, workers_of
from tests.support.server import Server, ServerError

ECHO = "import time\ndef handler(event, context):\n    time.sleep(event or 0)\n    return event\n"


def create(client: Any, name: str) -> None:
    client.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Handler="index.handler",
        Role=ROLE,
        Timeout=handler_timeout(30),
        Code={"ZipFile": zip_of({"index.py": ECHO})},
    )


def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value


def tree_of(pid: int) -> list[int]:
    found = []
    for child in children_of(pid):
        found += [child, *tree_of(child)]
    return found


def test_functions_and_keys_survive_a_restart_and_a_sigkill(
    start_server: Callable[..., Server], state_dir: Path
) -> None:
    server = start_server(state_dir=state_dir)
    create(server.client(), "kept")
    keys = server.access_key, server.secret_key
    server.stop()
    server = start_server(state_dir=state_dir)
    assert (server.access_key, server.secret_key) == keys
    assert invoke(server.client(), "kept", 0)[0] == 0
    everything = tree_of(server.pid)
    server.kill()
    assert eventually(lambda: not any(alive(pid) for pid in everything)), "processes outlived the supervisor"
    server = start_server(state_dir=state_dir)
    assert invoke(server.client(), "kept", 0)[0] == 0


def test_sigterm_finishes_what_runs_and_leaves_no_process(start_server: Callable[..., Server]) -> None:
    server = start_server()
    client = server.client()
    create(client, "slow")
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(invoke(client, "slow", 1.5)[0]))
    caller.start()
    assert eventually(lambda: workers_of(server.pid))
    time.sleep(0.3)  # the call is inside its handler: sleeping there is what is tested
    everything = tree_of(server.pid)
    assert server.stop() == 0
    caller.join(10)
    assert answers == [1.5]
    assert not any(alive(pid) for pid in everything)


@pytest.mark.parametrize("role", ["door", "control"])
def test_a_killed_door_or_control_comes_back(start_server: Callable[..., Server], role: str) -> None:
    server = start_server("--doors", "1")
    client = server.client()
    create(client, "f")
    (victim,) = role_of(server.pid, role)
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: role_of(server.pid, role) not in ([], [victim]))

    def works() -> bool:
        try:
            return invoke(client, "f", 0)[0] == 0 and bool(client.list_functions()["Functions"])
        except (ClientError, BotoCoreError):
            return False

    assert eventually(works)


def test_a_worker_killed_while_it_runs_is_an_error_and_the_next_call_is_well(server: Server) -> None:
    client = server.client()
    with function(client, ECHO, Timeout=handler_timeout(30)) as name:
        before = set(workers_of(server.pid))
        results: list[Any] = []
        caller = threading.Thread(target=lambda: results.append(invoke(client, name, 20)))
        caller.start()
        fresh = eventually(lambda: set(workers_of(server.pid)) - before)
        time.sleep(0.5)  # let the event reach the handler, so that it is the run that dies
        # The first one made has the call; a second one would be the spare made after it.
        os.kill(min(fresh), signal.SIGKILL)
        caller.join(10)
        answer, response = results[0]
        assert response["FunctionError"] == "Unhandled"
        assert answer["errorType"] == "Runtime.ExitError"
        assert "signal: killed" in answer["errorMessage"]
        assert invoke(client, name, 0)[0] == 0


def test_a_second_server_on_the_same_state_is_refused_in_one_line(
    start_server: Callable[..., Server], state_dir: Path
) -> None:
    start_server(state_dir=state_dir)
    with pytest.raises(ServerError) as refused:
        start_server(state_dir=state_dir)
    assert "in use by process" in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_a_state_directory_too_deep_for_a_socket_is_refused_in_one_line(
    start_server: Callable[..., Server], state_dir: Path
) -> None:
    with pytest.raises(ServerError, match="which a socket in it allows") as refused:
        start_server(state_dir=state_dir / ("deep" * 25))
    assert "Traceback" not in str(refused.value)
