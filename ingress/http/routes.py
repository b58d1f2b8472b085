"""A route, declared once: what validates a request, what documents it and who may call it.

The dispatcher, the OpenAPI document and the matrix of roles all read the same declaration. A
handler gets a Call that is already authenticated, allowed and validated, and gives an Answer or
raises a Problem.
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
    """The base of what is sent: types as they are in JSON, and no field that is not known."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """The base of a query, a path or headers: all text, so read as what each field is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # Whether it says how long to wait for an outcome.
    waits: ClassVar[bool] = False


class TaggedHeaders(Query):
    """Documentation: it is read where a tag is made."""

    if_none_match: str | None = Field(
        default=None,
        alias="If-None-Match",
        description="An ETag; the answer is 304 if it still matches.",
    )


class ResponseModel(BaseModel):
    """The base of what is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def encoded(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, by_alias=True)


# As it is answered: in UTC, whatever zone the database speaks.
Instant = Annotated[datetime, AfterValidator(lambda time: time.astimezone(UTC))]


def _text_only(value: Any) -> Any:
    """pydantic would take a number, in JSON or in an address, for the seconds since 1970."""
    if isinstance(value, datetime) or (isinstance(value, str) and value[4:5] == "-"):
        return value
    raise PydanticCustomError("time_invalid", "must be an RFC 3339 time with an offset")


def _in_range(time: datetime) -> datetime:
    """At the ends of what a datetime holds, the same time in UTC may be none."""
    if time.year not in pages.YEARS:
        raise PydanticCustomError("out_of_range", "is out of range")
    return time


# As it is asked for.
Moment = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_text_only), AfterValidator(_in_range)
]


class Meta(ResponseModel):
    """What is said of a list beside its items. `next_cursor` is null on the last page."""

    limit: int
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `id` is the user's uuid, which accounts call `owner`; `number` the integer id."""

    id: str
    number: int
    role: UserRole
    session_id: str | None = None  # None: by an API key
    key_id: str | None = None  # of that API key
    scopes: frozenset[Scope] | None = None  # None: no API key, so all of the role
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
    """`value` is a Shown, or bytes of `content_type`, or None for an empty body."""

    value: ResponseModel | bytes | None = None
    status: int = 200
    headers: Mapping[str, str] | None = None
    content_type: str = JSON


Handler = Callable[[Any], Awaitable[Answer | web.StreamResponse]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """`path` has {names} and stands under API_V1_PREFIX unless `versioned` is False. `roles` None
    is for everybody; `scope` None keeps API keys out. `answers` gives each status with its model,
    None being an empty body; `problems` are those of its own, besides what every such route has."""

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
        """Whether a request of a user's may wait for an outcome."""
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
    """A route that tells and changes nothing; `tagged`: with an ETag, so that it may answer 304."""
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
