"""A worker's environment variables, built from nothing: Lambda's own set and the function's (Lambda developer guide,
"Defined runtime environment variables"; values as real python3.x environments show them)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

Document = Mapping[str, object]

RUNTIME_DIR = "/var/runtime"

_DEFAULTS = {
    "LANG": "en_US.UTF-8",
    "LC_CTYPE": "C.UTF-8",
    "TZ": ":UTC",
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
    "PYTHONPATH": "/var/runtime",
    "SHLVL": "0",
    "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    "AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129:2000",
    "_AWS_XRAY_DAEMON_ADDRESS": "169.254.79.129",
    "_AWS_XRAY_DAEMON_PORT": "2000",
}
_FROM_DOCUMENT = (
    ("_HANDLER", "handler"),
    ("LAMBDA_TASK_ROOT", "task_root"),
    ("AWS_REGION", "region"),
    ("AWS_DEFAULT_REGION", "region"),
    ("AWS_LAMBDA_FUNCTION_NAME", "function_name"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "function_version"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "memory_limit_in_mb"),
    ("AWS_LAMBDA_LOG_GROUP_NAME", "log_group_name"),
    ("AWS_LAMBDA_INITIALIZATION_TYPE", "init_type"),
    ("AWS_LAMBDA_LOG_FORMAT", "log_format"),
    ("AWS_LAMBDA_LOG_LEVEL", "log_level"),
    ("AWS_LAMBDA_RUNTIME_API", "runtime_api"),
)
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ("access_key_id", "AccessKeyId", "AWS_ACCESS_KEY_ID"),
    "AWS_SECRET_ACCESS_KEY": ("secret_access_key", "SecretAccessKey", "AWS_SECRET_ACCESS_KEY"),
    "AWS_SESSION_TOKEN": ("session_token", "SessionToken", "AWS_SESSION_TOKEN"),
}
# A library that starts threads when it is imported makes a process that cannot be forked.
_ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "BLIS_NUM_THREADS"),
    "1",
)


def defaults() -> dict[str, str]:
    """What a program that is not ours begins with."""
    return {name: value for name, value in _DEFAULTS.items() if name != "PYTHONPATH"}


def build(document: Document) -> dict[str, str]:
    """All variables of a function that `prepare` has not set already: the user's, then what nobody may change."""
    variables = {"PWD": str(document["task_root"])}
    user = document.get("env")
    if isinstance(user, dict):
        for name, value in user.items():
            variables[name] = str(value)
    for name, key in _FROM_DOCUMENT:
        value = document.get(key)
        if value:
            variables[name] = str(value)
    variables["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{document['runtime']}"
    variables["LAMBDA_RUNTIME_DIR"] = RUNTIME_DIR
    if variables.get("AWS_LAMBDA_LOG_FORMAT", "").upper() != "JSON":
        variables.pop("AWS_LAMBDA_LOG_FORMAT", None)
    variables.update(of_instance(document))
    return variables


def of_instance(document: Document) -> dict[str, str]:
    """The variables that differ between two workers of one function."""
    return {"AWS_LAMBDA_LOG_STREAM_NAME": log_stream_name(document), **_credentials(document)}


def log_stream_name(document: Document) -> str:
    """YYYY/MM/DD/[version]instance; the day is that of the worker's birth, UTC."""
    born = document.get("born")
    born_at = time.gmtime(born if isinstance(born, int | float) else None)
    day = f"{born_at.tm_year}/{born_at.tm_mon:02}/{born_at.tm_mday:02}"
    return f"{day}/[{document['function_version']}]{document.get('instance', '')}"


def _credentials(document: Document) -> dict[str, str]:
    given = document.get("credentials")
    if not isinstance(given, dict):
        return {}
    found = {}
    for variable, names in _CREDENTIALS.items():
        for name in names:
            if given.get(name):
                found[variable] = str(given[name])
    return found


def prepare() -> None:
    """In the zygote, whose environment was empty: what nearly every worker has."""
    os.environ.update(_DEFAULTS)
    time.tzset()


def install(variables: Mapping[str, str]) -> None:
    """Puts them into os.environ, and with it into the C environment and the time zone. What is there already stays."""
    environ = os.environ
    for name, value in variables.items():
        environ[name] = value
    if "TZ" in variables:
        time.tzset()


def hold_threads_back() -> list[str]:
    """Before the import of code that will be forked. Returns what `release_threads` has to take away again."""
    names = [name for name in _ONE_THREAD if name not in os.environ]
    for name in names:
        os.environ[name] = _ONE_THREAD[name]
    return names


def release_threads(names: list[str]) -> None:
    for name in names:
        os.environ.pop(name, None)
