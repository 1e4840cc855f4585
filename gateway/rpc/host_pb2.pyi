from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IsolationLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_LEVEL_UNSPECIFIED: _ClassVar[IsolationLevel]
    ISOLATION_LEVEL_NONE: _ClassVar[IsolationLevel]
    ISOLATION_LEVEL_DEGRADED: _ClassVar[IsolationLevel]
    ISOLATION_LEVEL_FULL: _ClassVar[IsolationLevel]

class FeatureState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_STATE_UNSPECIFIED: _ClassVar[FeatureState]
    FEATURE_STATE_ABSENT: _ClassVar[FeatureState]
    FEATURE_STATE_DEGRADED: _ClassVar[FeatureState]
    FEATURE_STATE_ENFORCED: _ClassVar[FeatureState]
ISOLATION_LEVEL_UNSPECIFIED: IsolationLevel
ISOLATION_LEVEL_NONE: IsolationLevel
ISOLATION_LEVEL_DEGRADED: IsolationLevel
ISOLATION_LEVEL_FULL: IsolationLevel
FEATURE_STATE_UNSPECIFIED: FeatureState
FEATURE_STATE_ABSENT: FeatureState
FEATURE_STATE_DEGRADED: FeatureState
FEATURE_STATE_ENFORCED: FeatureState

class GetIsolationRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IsolationFeature(_message.Message):
    __slots__ = ("name", "state", "why")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: FeatureState
    why: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[FeatureState, str]] = ..., why: _Optional[str] = ...) -> None: ...

class IsolationReport(_message.Message):
    __slots__ = ("overall", "claim", "features")
    OVERALL_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    overall: IsolationLevel
    claim: str
    features: _containers.RepeatedCompositeFieldContainer[IsolationFeature]
    def __init__(self, overall: _Optional[_Union[IsolationLevel, str]] = ..., claim: _Optional[str] = ..., features: _Optional[_Iterable[_Union[IsolationFeature, _Mapping]]] = ...) -> None: ...
