from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeathCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEATH_CAUSE_UNSPECIFIED: _ClassVar[DeathCause]
    DEATH_CAUSE_EXIT: _ClassVar[DeathCause]
    DEATH_CAUSE_SIGNAL: _ClassVar[DeathCause]
    DEATH_CAUSE_OOM: _ClassVar[DeathCause]
    DEATH_CAUSE_TIMEOUT: _ClassVar[DeathCause]
    DEATH_CAUSE_SECCOMP: _ClassVar[DeathCause]
    DEATH_CAUSE_OPERATOR: _ClassVar[DeathCause]
    DEATH_CAUSE_PROTOCOL: _ClassVar[DeathCause]
    DEATH_CAUSE_INIT_TIMEOUT: _ClassVar[DeathCause]
    DEATH_CAUSE_HOST_OOM: _ClassVar[DeathCause]
    DEATH_CAUSE_LIMITS: _ClassVar[DeathCause]
    DEATH_CAUSE_SHUTDOWN: _ClassVar[DeathCause]

class InvocationStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INVOCATION_STATUS_UNSPECIFIED: _ClassVar[InvocationStatus]
    INVOCATION_STATUS_WAITING: _ClassVar[InvocationStatus]
    INVOCATION_STATUS_RUNNING: _ClassVar[InvocationStatus]
    INVOCATION_STATUS_SUCCEEDED: _ClassVar[InvocationStatus]
    INVOCATION_STATUS_FAILED: _ClassVar[InvocationStatus]
DEATH_CAUSE_UNSPECIFIED: DeathCause
DEATH_CAUSE_EXIT: DeathCause
DEATH_CAUSE_SIGNAL: DeathCause
DEATH_CAUSE_OOM: DeathCause
DEATH_CAUSE_TIMEOUT: DeathCause
DEATH_CAUSE_SECCOMP: DeathCause
DEATH_CAUSE_OPERATOR: DeathCause
DEATH_CAUSE_PROTOCOL: DeathCause
DEATH_CAUSE_INIT_TIMEOUT: DeathCause
DEATH_CAUSE_HOST_OOM: DeathCause
DEATH_CAUSE_LIMITS: DeathCause
DEATH_CAUSE_SHUTDOWN: DeathCause
INVOCATION_STATUS_UNSPECIFIED: InvocationStatus
INVOCATION_STATUS_WAITING: InvocationStatus
INVOCATION_STATUS_RUNNING: InvocationStatus
INVOCATION_STATUS_SUCCEEDED: InvocationStatus
INVOCATION_STATUS_FAILED: InvocationStatus

class InvokeRequest(_message.Message):
    __slots__ = ("function", "qualifier", "payload", "client_context", "tenant_id", "log_tail", "idempotency_key")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    function: str
    qualifier: str
    payload: bytes
    client_context: bytes
    tenant_id: str
    log_tail: bool
    idempotency_key: str
    def __init__(self, function: _Optional[str] = ..., qualifier: _Optional[str] = ..., payload: _Optional[bytes] = ..., client_context: _Optional[bytes] = ..., tenant_id: _Optional[str] = ..., log_tail: _Optional[bool] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class InvokeResponse(_message.Message):
    __slots__ = ("payload", "function_error", "executed_version", "request_id", "log_tail", "receipt", "death")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ERROR_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    DEATH_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    function_error: str
    executed_version: str
    request_id: str
    log_tail: bytes
    receipt: Receipt
    death: Death
    def __init__(self, payload: _Optional[bytes] = ..., function_error: _Optional[str] = ..., executed_version: _Optional[str] = ..., request_id: _Optional[str] = ..., log_tail: _Optional[bytes] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., death: _Optional[_Union[Death, _Mapping]] = ...) -> None: ...

class Death(_message.Message):
    __slots__ = ("cause", "detail")
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    cause: DeathCause
    detail: str
    def __init__(self, cause: _Optional[_Union[DeathCause, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class InvokeStreamResponse(_message.Message):
    __slots__ = ("payload", "complete")
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    complete: InvokeComplete
    def __init__(self, payload: _Optional[bytes] = ..., complete: _Optional[_Union[InvokeComplete, _Mapping]] = ...) -> None: ...

class InvokeComplete(_message.Message):
    __slots__ = ("function_error", "executed_version", "request_id", "log_tail", "receipt", "error", "death")
    FUNCTION_ERROR_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DEATH_FIELD_NUMBER: _ClassVar[int]
    function_error: str
    executed_version: str
    request_id: str
    log_tail: bytes
    receipt: Receipt
    error: bytes
    death: Death
    def __init__(self, function_error: _Optional[str] = ..., executed_version: _Optional[str] = ..., request_id: _Optional[str] = ..., log_tail: _Optional[bytes] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., error: _Optional[bytes] = ..., death: _Optional[_Union[Death, _Mapping]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("open", "event")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    open: SessionOpen
    event: SessionEvent
    def __init__(self, open: _Optional[_Union[SessionOpen, _Mapping]] = ..., event: _Optional[_Union[SessionEvent, _Mapping]] = ...) -> None: ...

class SessionOpen(_message.Message):
    __slots__ = ("function", "qualifier", "client_context", "tenant_id", "log_tail", "concurrency")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    function: str
    qualifier: str
    client_context: bytes
    tenant_id: str
    log_tail: bool
    concurrency: int
    def __init__(self, function: _Optional[str] = ..., qualifier: _Optional[str] = ..., client_context: _Optional[bytes] = ..., tenant_id: _Optional[str] = ..., log_tail: _Optional[bool] = ..., concurrency: _Optional[int] = ...) -> None: ...

class SessionEvent(_message.Message):
    __slots__ = ("id", "payload")
    ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    id: int
    payload: bytes
    def __init__(self, id: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("id", "answer", "refused")
    ID_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    id: int
    answer: InvokeResponse
    refused: SessionRefusal
    def __init__(self, id: _Optional[int] = ..., answer: _Optional[_Union[InvokeResponse, _Mapping]] = ..., refused: _Optional[_Union[SessionRefusal, _Mapping]] = ...) -> None: ...

class SessionRefusal(_message.Message):
    __slots__ = ("code", "message", "error_type")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    error_type: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., error_type: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("queue_us", "fork_us", "restore_us", "init_us", "handler_us", "billed_ms", "cpu_ns", "peak_memory_kib", "cold")
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    FORK_US_FIELD_NUMBER: _ClassVar[int]
    RESTORE_US_FIELD_NUMBER: _ClassVar[int]
    INIT_US_FIELD_NUMBER: _ClassVar[int]
    HANDLER_US_FIELD_NUMBER: _ClassVar[int]
    BILLED_MS_FIELD_NUMBER: _ClassVar[int]
    CPU_NS_FIELD_NUMBER: _ClassVar[int]
    PEAK_MEMORY_KIB_FIELD_NUMBER: _ClassVar[int]
    COLD_FIELD_NUMBER: _ClassVar[int]
    queue_us: int
    fork_us: int
    restore_us: int
    init_us: int
    handler_us: int
    billed_ms: int
    cpu_ns: int
    peak_memory_kib: int
    cold: bool
    def __init__(self, queue_us: _Optional[int] = ..., fork_us: _Optional[int] = ..., restore_us: _Optional[int] = ..., init_us: _Optional[int] = ..., handler_us: _Optional[int] = ..., billed_ms: _Optional[int] = ..., cpu_ns: _Optional[int] = ..., peak_memory_kib: _Optional[int] = ..., cold: _Optional[bool] = ...) -> None: ...

class InvokeAsyncRequest(_message.Message):
    __slots__ = ("function", "qualifier", "payload", "tenant_id", "idempotency_key")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    function: str
    qualifier: str
    payload: bytes
    tenant_id: str
    idempotency_key: str
    def __init__(self, function: _Optional[str] = ..., qualifier: _Optional[str] = ..., payload: _Optional[bytes] = ..., tenant_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class InvokeAsyncResponse(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class GetInvocationRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class Invocation(_message.Message):
    __slots__ = ("request_id", "function_arn", "status", "runs", "accepted_ms", "next_run_ms", "ended_ms", "condition", "executed_version", "function_error", "payload", "payload_dropped")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ARN_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_MS_FIELD_NUMBER: _ClassVar[int]
    NEXT_RUN_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    EXECUTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ERROR_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_DROPPED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    function_arn: str
    status: InvocationStatus
    runs: int
    accepted_ms: int
    next_run_ms: int
    ended_ms: int
    condition: str
    executed_version: str
    function_error: str
    payload: bytes
    payload_dropped: bool
    def __init__(self, request_id: _Optional[str] = ..., function_arn: _Optional[str] = ..., status: _Optional[_Union[InvocationStatus, str]] = ..., runs: _Optional[int] = ..., accepted_ms: _Optional[int] = ..., next_run_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., condition: _Optional[str] = ..., executed_version: _Optional[str] = ..., function_error: _Optional[str] = ..., payload: _Optional[bytes] = ..., payload_dropped: _Optional[bool] = ...) -> None: ...
