from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Isolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_UNSPECIFIED: _ClassVar[Isolation]
    ISOLATION_REUSE: _ClassVar[Isolation]
    ISOLATION_TENANT: _ClassVar[Isolation]
    ISOLATION_REQUEST: _ClassVar[Isolation]

class Snapshot(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SNAPSHOT_UNSPECIFIED: _ClassVar[Snapshot]
    SNAPSHOT_OFF: _ClassVar[Snapshot]
    SNAPSHOT_ON: _ClassVar[Snapshot]
    SNAPSHOT_AUTO: _ClassVar[Snapshot]

class Network(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NETWORK_UNSPECIFIED: _ClassVar[Network]
    NETWORK_NONE: _ClassVar[Network]
    NETWORK_HOST: _ClassVar[Network]
    NETWORK_EGRESS: _ClassVar[Network]
ISOLATION_UNSPECIFIED: Isolation
ISOLATION_REUSE: Isolation
ISOLATION_TENANT: Isolation
ISOLATION_REQUEST: Isolation
SNAPSHOT_UNSPECIFIED: Snapshot
SNAPSHOT_OFF: Snapshot
SNAPSHOT_ON: Snapshot
SNAPSHOT_AUTO: Snapshot
NETWORK_UNSPECIFIED: Network
NETWORK_NONE: Network
NETWORK_HOST: Network
NETWORK_EGRESS: Network

class Environment(_message.Message):
    __slots__ = ("variables",)
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    variables: _containers.ScalarMap[str, str]
    def __init__(self, variables: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CreateFunctionRequest(_message.Message):
    __slots__ = ("function_name", "runtime", "handler", "zip_file", "description", "memory_size", "timeout", "ephemeral_storage", "environment", "isolation", "snapshot", "network", "role")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    ZIP_FILE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_STORAGE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    runtime: str
    handler: str
    zip_file: bytes
    description: str
    memory_size: int
    timeout: int
    ephemeral_storage: int
    environment: Environment
    isolation: Isolation
    snapshot: Snapshot
    network: Network
    role: str
    def __init__(self, function_name: _Optional[str] = ..., runtime: _Optional[str] = ..., handler: _Optional[str] = ..., zip_file: _Optional[bytes] = ..., description: _Optional[str] = ..., memory_size: _Optional[int] = ..., timeout: _Optional[int] = ..., ephemeral_storage: _Optional[int] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., isolation: _Optional[_Union[Isolation, str]] = ..., snapshot: _Optional[_Union[Snapshot, str]] = ..., network: _Optional[_Union[Network, str]] = ..., role: _Optional[str] = ...) -> None: ...

class UpdateFunctionRequest(_message.Message):
    __slots__ = ("function_name", "runtime", "handler", "zip_file", "description", "memory_size", "timeout", "ephemeral_storage", "environment", "isolation", "snapshot", "network", "revision_id")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    ZIP_FILE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_STORAGE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    REVISION_ID_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    runtime: str
    handler: str
    zip_file: bytes
    description: str
    memory_size: int
    timeout: int
    ephemeral_storage: int
    environment: Environment
    isolation: Isolation
    snapshot: Snapshot
    network: Network
    revision_id: str
    def __init__(self, function_name: _Optional[str] = ..., runtime: _Optional[str] = ..., handler: _Optional[str] = ..., zip_file: _Optional[bytes] = ..., description: _Optional[str] = ..., memory_size: _Optional[int] = ..., timeout: _Optional[int] = ..., ephemeral_storage: _Optional[int] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., isolation: _Optional[_Union[Isolation, str]] = ..., snapshot: _Optional[_Union[Snapshot, str]] = ..., network: _Optional[_Union[Network, str]] = ..., revision_id: _Optional[str] = ...) -> None: ...

class GetFunctionRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class ListFunctionsRequest(_message.Message):
    __slots__ = ("marker", "max_items")
    MARKER_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    marker: str
    max_items: int
    def __init__(self, marker: _Optional[str] = ..., max_items: _Optional[int] = ...) -> None: ...

class ListFunctionsResponse(_message.Message):
    __slots__ = ("functions", "next_marker")
    FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_MARKER_FIELD_NUMBER: _ClassVar[int]
    functions: _containers.RepeatedCompositeFieldContainer[Function]
    next_marker: str
    def __init__(self, functions: _Optional[_Iterable[_Union[Function, _Mapping]]] = ..., next_marker: _Optional[str] = ...) -> None: ...

class DeleteFunctionRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DeleteFunctionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Function(_message.Message):
    __slots__ = ("function_name", "function_arn", "version", "runtime", "handler", "description", "memory_size", "timeout", "ephemeral_storage", "environment", "isolation", "snapshot", "network", "code_size", "code_sha256", "revision_id", "last_modified", "state", "state_reason", "last_update_status", "last_update_status_reason")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ARN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    HANDLER_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SIZE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    EPHEMERAL_STORAGE_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    CODE_SIZE_FIELD_NUMBER: _ClassVar[int]
    CODE_SHA256_FIELD_NUMBER: _ClassVar[int]
    REVISION_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_UPDATE_STATUS_FIELD_NUMBER: _ClassVar[int]
    LAST_UPDATE_STATUS_REASON_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    function_arn: str
    version: str
    runtime: str
    handler: str
    description: str
    memory_size: int
    timeout: int
    ephemeral_storage: int
    environment: Environment
    isolation: Isolation
    snapshot: Snapshot
    network: Network
    code_size: int
    code_sha256: str
    revision_id: str
    last_modified: str
    state: str
    state_reason: str
    last_update_status: str
    last_update_status_reason: str
    def __init__(self, function_name: _Optional[str] = ..., function_arn: _Optional[str] = ..., version: _Optional[str] = ..., runtime: _Optional[str] = ..., handler: _Optional[str] = ..., description: _Optional[str] = ..., memory_size: _Optional[int] = ..., timeout: _Optional[int] = ..., ephemeral_storage: _Optional[int] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., isolation: _Optional[_Union[Isolation, str]] = ..., snapshot: _Optional[_Union[Snapshot, str]] = ..., network: _Optional[_Union[Network, str]] = ..., code_size: _Optional[int] = ..., code_sha256: _Optional[str] = ..., revision_id: _Optional[str] = ..., last_modified: _Optional[str] = ..., state: _Optional[str] = ..., state_reason: _Optional[str] = ..., last_update_status: _Optional[str] = ..., last_update_status_reason: _Optional[str] = ...) -> None: ...
