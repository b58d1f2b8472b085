"""A route, declared once: what validates a request, what documents it and who may call it.

The dispatcher, the OpenAPI document and the matrix of roles all read the same declaration. A
handler gets a Call that is already authenticated, authorized and validated. It returns an Answer or
raises an HttpProblem.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar

from aiohttp import web
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic_core import PydanticCustomError

from ingress.http.problems import AnyCode
from ingress.http.roles import Roles, Scope, UserRole
from sinks.reads import pages

B = TypeVar("B")
Q = TypeVar("Q")

JSON: Final = "application/json"


class Body(BaseModel):
    """The base of request bodies: strict JSON types, and no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """The base of a query, a path or headers: texts, converted to the type of each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Whether it has a field for how long to wait for an outcome.
    waits: ClassVar[bool] = False


class TaggedHeaders(Query):
    """For the documentation only: the code that computes the tag reads the header."""

    if_none_match: str | None = Field(
        default=None,
        alias="If-None-Match",
        description="An ETag; the answer is 304 if it still matches.",
    )


class ResponseModel(BaseModel):
    """The base of response bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def encoded(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, by_alias=True)


# A time in a response: in UTC, whatever the database's time zone.
Instant = Annotated[datetime, AfterValidator(lambda time: time.astimezone(UTC))]


def _text_only(value: Any) -> Any:
    """Rejects numbers, which pydantic would read as seconds since 1970."""
    if isinstance(value, datetime) or (isinstance(value, str) and value[4:5] == "-"):
        return value
    raise PydanticCustomError("time_invalid", "must be an RFC 3339 time with an offset")


def _in_range(time: datetime) -> datetime:
    """Near the limits of datetime, a time may have no equivalent in UTC."""
    if time.year not in pages.YEARS:
        raise PydanticCustomError("out_of_range", "is out of range")
    return time


# A time in a request.
Moment = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_text_only), AfterValidator(_in_range)
]


class Meta(ResponseModel):
    """Describes a list. `next_cursor` is null on the last page."""

    limit: int
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request. `id` is the user's uuid, which accounts call `owner`."""

    id: str
    number: int  # the user's integer id
    role: UserRole
    session_id: str | None = None  # None for an API key
    key_id: str | None = None  # the id of the API key
    scopes: frozenset[Scope] | None = None  # None without an API key: everything the role may
    by_cookie: bool = False


@dataclass(slots=True)
class Call(Generic[B, Q]):
    request: web.Request
    request_id: str
    trace: str  # a W3C traceparent; commands carry it as `trace`
    body: B
    query: Q
    path: Mapping[str, str]  # validated by `path`, where the route has that
    authenticated: Caller | None

    @property
    def caller(self) -> Caller:
        assert self.authenticated is not None, "the route is not public"
        return self.authenticated


@dataclass(slots=True)
class Answer:
    """`value` is a ResponseModel, or bytes of `content_type`, or None for an empty body."""

    value: ResponseModel | bytes | None = None
    status: int = 200
    headers: Mapping[str, str] | None = None
    content_type: str = JSON


Handler = Callable[[Any], Awaitable[Answer | web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """`path` has {names} and is below API_V1_PREFIX unless `versioned` is False. `roles` None means
    public; `scope` None means that no API key may use it. `answers` maps each status to its model,
    None for an empty body. `problems` are the route's own, besides those of every such route."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    roles: Roles | None
    scope: Scope | None = None
    body: Any = None
    body_required: bool = True
    query: type[Query] | None = None
    params: type[Query] | None = None
    headers: type[Query] | None = None  # documented, not validated: the handler reads them
    answers: Mapping[int, Any] = field(default_factory=dict)
    problems: tuple[AnyCode, ...] = ()
    description: str = ""
    versioned: bool = True
    hidden: bool = False  # not in the OpenAPI document: pages and files

    @property
    def waits(self) -> bool:
        """Whether a request may wait for an outcome."""
        models = (self.headers, self.query)
        return self.roles is not None and any(each is not None and each.waits for each in models)

    def full_path(self, prefix: str) -> str:
        return prefix + self.path if self.versioned else self.path


def reading(
    path: str,
    handler: Handler,
    summary: str,
    tag: str,
    roles: Roles,
    model: Any,
    *,
    tagged: bool = False,
    **more: Any,
) -> Route:
    """A route that only reads. `tagged` adds an ETag, so that it may return 304."""
    if tagged:
        more["headers"] = TaggedHeaders
    return Route(
        method="GET",
        path=path,
        handler=handler,
        summary=summary,
        tag=tag,
        roles=roles,
        scope=Scope.READ,
        answers={200: model, 304: None} if tagged else {200: model},
        **more,
    )
