"""A function URL: the name under which HTTP clients reach a function or an alias, and how they are let in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.model.arn import LATEST, function_arn
from gateway.model.resource import ResourceId, function_owner

FUNCTION_URL: Final = "function-url"  # kind of resource; named after the qualifier
ID_LENGTH: Final = 32  # of lower-case letters and digits
HOST_PART: Final = ".lambda-url."  # between the id and the region

AuthType = Literal["NONE", "AWS_IAM"]
InvokeMode = Literal["BUFFERED", "RESPONSE_STREAM"]


@dataclass(frozen=True, slots=True)
class FunctionUrl:
    """`cors`: Lambda's structure of that name, or None. `created` and `modified`: ISO 8601."""

    region: str
    function: str
    qualifier: str  # an alias, or $LATEST
    url_id: str
    auth_type: AuthType
    invoke_mode: InvokeMode
    created: str
    modified: str
    cors: dict[str, Any] | None = None

    @property
    def id(self) -> ResourceId:
        return url_resource_id(self.region, self.function, self.qualifier)

    @property
    def arn(self) -> str:
        """Of what it invokes."""
        return function_arn(self.region, self.function, None if self.qualifier == LATEST else self.qualifier)

    def document(self) -> dict[str, Any]:
        return {
            "url_id": self.url_id,
            "auth_type": self.auth_type,
            "invoke_mode": self.invoke_mode,
            "created": self.created,
            "modified": self.modified,
            "cors": self.cors,
        }

    def message(self, public: bool) -> dict[str, Any]:
        """As a front door is told. `public`: its policy lets everybody invoke it."""
        return {
            "url_id": self.url_id,
            "region": self.region,
            "name": self.function,
            "qualifier": self.qualifier,
            "auth_type": self.auth_type,
            "streaming": self.invoke_mode == "RESPONSE_STREAM",
            "public": public,
            "cors": self.cors,
        }


def url_resource_id(region: str, function: str, qualifier: str | None) -> ResourceId:
    return ResourceId(region, function_owner(function), FUNCTION_URL, qualifier or LATEST)


@dataclass(frozen=True, slots=True)
class Cors:
    """What browsers are told. Names of headers and methods may be "*"."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age_s: int | None = None

    @classmethod
    def of(cls, document: dict[str, Any]) -> Cors:
        """Of Lambda's structure."""
        return cls(
            origins=tuple(document.get("AllowOrigins") or ()),
            methods=tuple(document.get("AllowMethods") or ()),
            headers=tuple(document.get("AllowHeaders") or ()),
            exposed=tuple(document.get("ExposeHeaders") or ()),
            credentials=bool(document.get("AllowCredentials")),
            max_age_s=document.get("MaxAge"),
        )


@dataclass(frozen=True, slots=True)
class UrlView:
    """What a front door knows of a function URL."""

    url_id: str
    region: str
    name: str
    qualifier: str | None  # None: the unpublished version
    signed: bool  # AuthType AWS_IAM
    streaming: bool
    public: bool
    cors: Cors | None = field(default=None)

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> UrlView:
        qualifier = item["qualifier"]
        cors = item.get("cors")
        return cls(
            url_id=item["url_id"],
            region=item["region"],
            name=item["name"],
            qualifier=None if qualifier == LATEST else qualifier,
            signed=item["auth_type"] == "AWS_IAM",
            streaming=bool(item["streaming"]),
            public=bool(item["public"]),
            cors=None if cors is None else Cors.of(cors),
        )
