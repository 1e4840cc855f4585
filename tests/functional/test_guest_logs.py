"""What a function prints and logs arrives on the log pipe: one line per event, complete before the answer."""

from __future__ import annotations

import json
import re
import uuid

from tests.support.guest_fixtures import Function, function, harness, runtime_zygote

__all__ = ["function", "harness", "runtime_zygote"]


def test_print_and_stderr_in_order(function: Function) -> None:
    worker = function(
        """
        import os, sys
        def handler(event, context):
            print("one", "é")
            sys.stderr.write("two\\n")
            os.write(1, b"three\\n")
            print("four", end="")
        """
    )
    worker.invoke(b"{}")
    assert worker.log() == "one é\ntwo\nthree\nfour"


def test_text_that_cannot_be_encoded(function: Function) -> None:
    worker = function("def handler(e, c): print('\\ud800')")
    worker.invoke(b"{}")
    assert worker.log() == "\\ud800\n"


def test_output_of_init_is_there_with_ready(function: Function) -> None:
    worker = function("print('loading', end='')\ndef handler(e, c): pass")
    assert worker.log() == "loading"


def test_logging_in_lambdas_text_format(function: Function) -> None:
    worker = function(
        """
        import logging
        logging.warning("at init")
        log = logging.getLogger("mine")
        log.setLevel("INFO")
        def handler(event, context):
            log.info("hello %s", "world")
            log.debug("unseen")
            context.log("by context")
        """
    )
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"\[WARNING\]\t{stamp}\t\tat init\n", worker.log())
    request_id = uuid.uuid4()
    worker.invoke(b"{}", request_id=request_id)
    assert re.fullmatch(rf"\[INFO\]\t{stamp}\t{request_id}\thello world\nby context\n", worker.log())


def test_a_record_of_several_lines_is_one_event(function: Function) -> None:
    worker = function(
        """
        import logging
        def handler(event, context):
            try:
                1 / 0
            except ZeroDivisionError:
                logging.exception("oh")
        """
    )
    worker.invoke(b"{}")
    log = worker.log()
    assert log.count("\n") == 1
    assert "\toh\rTraceback (most recent call last):\r" in log
    assert log.endswith("ZeroDivisionError: division by zero\n")


def test_json_format(function: Function) -> None:
    worker = function(
        """
        import logging
        def handler(event, context):
            logging.getLogger().info({"a": 1})
            logging.getLogger("x").warning("say %s", "hi", extra={"order": 7})
            try:
                1 / 0
            except ZeroDivisionError:
                logging.exception("oh")
        """,
        log_format="JSON",
        log_level="INFO",
    )
    request_id = uuid.uuid4()
    worker.invoke(b"{}", request_id=request_id, tenant_id="t")
    first, second, third = [json.loads(line) for line in worker.log().splitlines()]
    assert first == {
        "timestamp": first["timestamp"],
        "level": "INFO",
        "message": {"a": 1},
        "logger": "root",
        "requestId": str(request_id),
        "tenantId": "t",
    }
    assert (second["message"], second["logger"], second["order"], second["level"]) == (
        "say hi",
        "x",
        7,
        "WARNING",
    )
    assert (third["errorType"], third["errorMessage"]) == ("ZeroDivisionError", "division by zero")
    assert third["location"].endswith(":handler:9")
    assert third["stackTrace"]


def test_log_level(function: Function) -> None:
    worker = function(
        "import logging\ndef handler(e, c): logging.debug('fine'); return logging.getLogger().level",
        log_level="TRACE",
    )
    assert worker.invoke(b"{}").json == 10
    assert worker.log().endswith("\tfine\n")


def test_errors_are_logged_even_when_stdout_is_closed(function: Function) -> None:
    worker = function("import sys\ndef handler(e, c):\n    sys.stdout.close()\n    raise KeyError('k')")
    for _ in range(2):
        worker.invoke(b"{}")
        assert worker.log().startswith("[ERROR] ")


def test_a_user_who_replaces_stdout_still_gets_an_answer(function: Function) -> None:
    worker = function(
        "import sys\ndef handler(e, c):\n    sys.stdout.close()\n    sys.stderr = None\n    return 1"
    )
    assert worker.invoke(b"{}").json == 1
    assert worker.invoke(b"{}").kind in (18, 19)
