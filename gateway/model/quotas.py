"""Limits that Lambda documents and we keep.  Sizes in bytes unless the name says otherwise."""

from __future__ import annotations

from typing import Final

MIN_TIMEOUT_S: Final = 1
MAX_TIMEOUT_S: Final = 900
MIN_MEMORY_MB: Final = 128
MAX_MEMORY_MB: Final = 10240
MIN_TMP_MB: Final = 512
MAX_TMP_MB: Final = 10240
MAX_NAME: Final = 64  # characters of a bare function name
MAX_TAGS: Final = 50
MIN_UNRESERVED: Final = 100  # concurrency of the account that no function may reserve
MAX_LAYERS: Final = 5  # of one function
MAX_POLICY: Final = 20_480  # of a function's resource policy
MAX_ENVIRONMENT: Final = 4096  # measured as the JSON of the variables

MAX_ZIPPED: Final = 52_428_800
MAX_UNZIPPED: Final = 262_144_000
MAX_ENTRIES: Final = 50_000  # files and folders of one package
MAX_REQUEST: Final = 70_167_211  # a whole CreateFunction request

# Of a region. AWS names no numbers; all of them are held in memory here.
MAX_MAPPINGS: Final = 10_000  # of event sources
MAX_SIGNING_CONFIGS: Final = 1000

CONCURRENT_EXECUTIONS: Final = 1000  # of the account, per region
MAX_CODE_STORAGE: Final = 80_530_636_800  # 75 GiB, shown by GetAccountSettings

DEFAULT_TIMEOUT_S: Final = 3
DEFAULT_MEMORY_MB: Final = 128
DEFAULT_TMP_MB: Final = 512
PIDS: Final = 1024  # processes and threads of one worker
LIST_PAGE: Final = 50  # functions in one answer of ListFunctions, whatever MaxItems says

# A user may not set these; Lambda sets them itself (developer guide, "Defined runtime environment variables").
RESERVED_ENVIRONMENT: Final = frozenset(
    {
        "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_LAMBDA_RUNTIME_API", "AWS_REGION", "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT",
    }
)  # fmt: skip
