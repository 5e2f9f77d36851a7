from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class History(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[str]] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("history", "user", "k", "categories", "exclude_items", "include_seen", "num_reasons")
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEMS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    NUM_REASONS_FIELD_NUMBER: _ClassVar[int]
    history: History
    user: str
    k: int
    categories: _containers.RepeatedScalarFieldContainer[str]
    exclude_items: _containers.RepeatedScalarFieldContainer[str]
    include_seen: bool
    num_reasons: int
    def __init__(self, history: _Optional[_Union[History, _Mapping]] = ..., user: _Optional[str] = ..., k: _Optional[int] = ..., categories: _Optional[_Iterable[str]] = ..., exclude_items: _Optional[_Iterable[str]] = ..., include_seen: _Optional[bool] = ..., num_reasons: _Optional[int] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("item", "title", "contribution", "text")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    item: str
    title: str
    contribution: float
    text: str
    def __init__(self, item: _Optional[str] = ..., title: _Optional[str] = ..., contribution: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class ScoredItem(_message.Message):
    __slots__ = ("item", "title", "score", "reasons")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    item: str
    title: str
    score: float
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    def __init__(self, item: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ...) -> None: ...

class RecommendReply(_message.Message):
    __slots__ = ("items", "model_version", "personal")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    model_version: str
    personal: bool
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., model_version: _Optional[str] = ..., personal: _Optional[bool] = ...) -> None: ...

class SimilarRequest(_message.Message):
    __slots__ = ("item", "k", "categories", "exclude_items")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEMS_FIELD_NUMBER: _ClassVar[int]
    item: str
    k: int
    categories: _containers.RepeatedScalarFieldContainer[str]
    exclude_items: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item: _Optional[str] = ..., k: _Optional[int] = ..., categories: _Optional[_Iterable[str]] = ..., exclude_items: _Optional[_Iterable[str]] = ...) -> None: ...

class SimilarReply(_message.Message):
    __slots__ = ("items", "model_version")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScoredItem]
    model_version: str
    def __init__(self, items: _Optional[_Iterable[_Union[ScoredItem, _Mapping]]] = ..., model_version: _Optional[str] = ...) -> None: ...

class Interaction(_message.Message):
    __slots__ = ("item", "value", "timestamp")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    item: str
    value: float
    timestamp: int
    def __init__(self, item: _Optional[str] = ..., value: _Optional[float] = ..., timestamp: _Optional[int] = ...) -> None: ...

class FeedbackRequest(_message.Message):
    __slots__ = ("user", "interactions")
    USER_FIELD_NUMBER: _ClassVar[int]
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    user: str
    interactions: _containers.RepeatedCompositeFieldContainer[Interaction]
    def __init__(self, user: _Optional[str] = ..., interactions: _Optional[_Iterable[_Union[Interaction, _Mapping]]] = ...) -> None: ...

class FeedbackReply(_message.Message):
    __slots__ = ("stored", "known")
    STORED_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    stored: int
    known: int
    def __init__(self, stored: _Optional[int] = ..., known: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("model_version", "num_items", "dim", "catalogue_digest", "engine", "promise", "personal")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_ITEMS_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    num_items: int
    dim: int
    catalogue_digest: str
    engine: str
    promise: str
    personal: bool
    def __init__(self, model_version: _Optional[str] = ..., num_items: _Optional[int] = ..., dim: _Optional[int] = ..., catalogue_digest: _Optional[str] = ..., engine: _Optional[str] = ..., promise: _Optional[str] = ..., personal: _Optional[bool] = ...) -> None: ...
