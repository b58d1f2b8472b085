"""The OpenAPI 3.1 document, generated from the routes and the models that validate requests.

A route's declaration is its only description: it validates requests and generates this document.
It does no I/O and knows no handler.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from ingress.http import problems
from ingress.http.problems import AnyCode, Code, ProblemDocument
from ingress.http.request_headers import CSRF_HEADER, SESSION_COOKIE
from ingress.http.roles import UserRole
from ingress.http.routes import JSON, Route

VERSION: Final = "3.1.1"
REFS: Final = "#/components/schemas/{model}"
_NAMES: Final = re.compile(r"\{(\w+)(?::[^}]*)?\}")

# Problems of every route, of signed-in routes and of routes with a body, besides a route's own.
ANY_ROUTE: Final[tuple[AnyCode, ...]] = (
    Code.MALFORMED_REQUEST,
    Code.QUERY_INVALID,
    Code.INTERNAL_ERROR,
    Code.UNAVAILABLE,
)
SIGNED_IN: Final[tuple[AnyCode, ...]] = (Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.CSRF_FAILED)
WITH_BODY: Final[tuple[AnyCode, ...]] = (
    Code.MALFORMED_BODY,
    Code.BODY_TOO_SLOW,
    Code.BODY_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.FIELDS_INVALID,
)

Document = dict[str, Any]
_Models = dict[tuple[int, JsonSchemaMode], Document]


def document(routes: Iterable[Route], prefix: str, about: Mapping[str, str]) -> Document:
    visible = [route for route in routes if not route.hidden]
    models, components = _schemas(visible)
    paths: Document = {}
    for route in visible:
        path = _NAMES.sub(r"{\1}", route.full_path(prefix))
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, models)
    return {
        "openapi": VERSION,
        "info": {
            "title": about["name"],
            "version": about["version"],
            "description": "Endpoints to move money and to read the results. Errors are problem"
            " documents (RFC 9457).",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(route.tag for route in visible)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token, or an API key.",
                },
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": SESSION_COOKIE,
                    "description": "A browser's session. Requests that change something need the"
                    f" header `{CSRF_HEADER}`, too.",
                },
            },
        },
    }


def codes(route: Route) -> list[AnyCode]:
    """All problems that the route may return, without duplicates."""
    every: list[AnyCode] = [*route.problems, *ANY_ROUTE]
    if route.roles is not None:
        every += SIGNED_IN
    if route.waits:
        every.append(Code.TOO_MANY_WAITS)
    if route.body is not None:
        every += WITH_BODY
    return list(dict.fromkeys(every))


def operation_id(route: Route, path: str) -> str:
    words = re.findall(r"\w+", path)
    return "_".join([route.method.lower(), *words]).replace("_api_v1_", "_")


def _schemas(routes: list[Route]) -> tuple[_Models, Document]:
    inputs: list[tuple[Any, JsonSchemaMode, TypeAdapter[Any]]] = []
    for model, mode in _models(routes):
        inputs.append((id(model), mode, TypeAdapter(model)))
    unique = {(key, mode): (key, mode, adapter) for key, mode, adapter in inputs}
    schemas, shared = TypeAdapter.json_schemas(
        list(unique.values()), ref_template=REFS, schema_generator=GenerateJsonSchema
    )
    return schemas, dict(shared.get("$defs", {}))


def _models(routes: list[Route]) -> Iterator[tuple[Any, JsonSchemaMode]]:
    yield ProblemDocument, "serialization"
    for route in routes:
        for model in (route.body, route.query, route.params, route.headers):
            if model is not None:
                yield model, "validation"
        for model in route.answers.values():
            if isinstance(model, str):
                continue
            if model is not None:
                yield model, "serialization"


def _operation(route: Route, path: str, models: _Models) -> Document:
    operation: Document = {
        "operationId": operation_id(route, path),
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": [*_path_parameters(route, path), *_parameters(route)],
        "responses": _responses(route, models),
    }
    texts = [route.description] if route.description else []
    if route.roles is None:
        operation["security"] = []
    else:
        operation["security"] = [{"bearer": []}, {"cookie": []}]
        roles = ", ".join(role for role in UserRole if role in route.roles)
        scope = f" API keys: scope `{route.scope}`." if route.scope else " Not by API key."
        texts.append(f"Roles: {roles}.{scope}")
    if texts:
        operation["description"] = "\n\n".join(texts)
    if route.body is not None:
        operation["requestBody"] = {
            "required": route.body_required,
            "content": {JSON: {"schema": models[id(route.body), "validation"]}},
        }
    return operation


def _path_parameters(route: Route, path: str) -> Iterator[Document]:
    properties: Document = {}
    if route.params is not None:
        properties = TypeAdapter(route.params).json_schema(ref_template=REFS)["properties"]
    for name in _NAMES.findall(path):
        schema = _plain(properties.get(name, {}))
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": schema or {"type": "string", "minLength": 1},
        }


def _parameters(route: Route) -> Iterator[Document]:
    for model, place in ((route.query, "query"), (route.headers, "header")):
        if model is None:
            continue
        schema_of_model = TypeAdapter(model).json_schema(ref_template=REFS)
        for name, schema in schema_of_model.get("properties", {}).items():
            parameter: Document = {
                "name": name,
                "in": place,
                "required": name in schema_of_model.get("required", ()),
                "schema": _plain(schema),
            }
            if description := parameter["schema"].pop("description", None):
                parameter["description"] = description
            yield parameter


def _plain(schema: Document) -> Document:
    """The schema of a URL parameter or a header, which cannot be null."""
    plain = {key: value for key, value in schema.items() if key != "title"}
    if plain.get("default", ...) is None:
        del plain["default"]
    values = [each for each in plain.get("anyOf", ()) if each != {"type": "null"}]
    if len(values) == 1:
        del plain["anyOf"]
        plain |= values[0]
    return plain


def _responses(route: Route, models: _Models) -> Document:
    responses: Document = {}
    for status, model in route.answers.items():
        response: Document = {"description": HTTPStatus(status).phrase}
        if isinstance(model, str):  # a content type
            response["content"] = {model: {}}
        elif model is not None:
            response["content"] = {JSON: {"schema": models[id(model), "serialization"]}}
        responses[str(status)] = response
    by_status: dict[int, list[AnyCode]] = {}
    for code in codes(route):
        by_status.setdefault(problems.status(code), []).append(code)
    problem = {"schema": models[id(ProblemDocument), "serialization"]}
    for status, those in sorted(by_status.items()):
        names = ", ".join(f"`{code}`" for code in sorted(those))
        # The route's own response may have the same status.
        own = responses.setdefault(str(status), {"content": {}})
        own["description"] = f"{HTTPStatus(status).phrase}: {names}"
        own["content"] = {**own.get("content", {}), problems.CONTENT_TYPE: problem}
    return responses
