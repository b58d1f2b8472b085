"""The pages about the API: the OpenAPI document, two viewers for it, and a page for each problem.

All files come from the package. Pages load nothing from other hosts, and their CSP forbids it.
"""

import asyncio
import gzip
import hashlib
import html
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import Any, Final

import msgspec
from aiohttp import web

from ingress.http import problems
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import PUBLIC
from ingress.http.routes import JSON, Answer, Call, Route
from schemas import reasons
from schemas.reasons import Reason

TAG: Final = "About"
HTML: Final = "text/html"
FILES: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-start.js": "text/javascript",
    "redoc.standalone.js": "text/javascript",
}
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
    " blob:; font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
# ReDoc loads its vendor's logo from the vendor's host.
_ELSEWHERE: Final = (b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    packed: bytes
    etag: str
    content_type: str


class ApiDocs:
    def __init__(self) -> None:
        self._openapi: File | None = None

    def set_openapi(self, document: dict[str, Any]) -> None:
        """Sets what /openapi.json returns."""
        self._openapi = _file(msgspec.json.encode(document), JSON)

    def routes(self) -> list[Route]:
        def get(path: str, handler: Any, summary: str, type: str, **more: Any) -> Route:
            return Route(
                method="GET",
                path=path,
                handler=handler,
                summary=summary,
                tag=TAG,
                roles=PUBLIC,
                answers={200: type},
                versioned=False,
                **more,
            )

        return [
            get("/openapi.json", self.openapi, "This document", JSON),
            get("/docs", self.swagger, "Try the API (Swagger UI)", HTML),
            get("/redoc", self.redoc, "Read the API documentation (ReDoc)", HTML),
            get("/docs/files/{name}", self.file, "A file of these pages", "*/*", hidden=True),
            get(
                "/problems/{code}",
                self.problem,
                "What a problem's code means",
                HTML,
                problems=(Code.NOT_FOUND,),
            ),
        ]

    async def openapi(self, call: Call[None, None]) -> web.Response:
        assert self._openapi is not None, "set_openapi is called before the server starts"
        return _served(call.request, self._openapi)

    async def swagger(self, call: Call[None, None]) -> Answer:
        return _page(_read("swagger.html"))

    async def redoc(self, call: Call[None, None]) -> Answer:
        return _page(_read("redoc.html"))

    async def file(self, call: Call[None, None]) -> web.Response:
        if call.path["name"] not in FILES:
            raise HttpProblem(Code.NOT_FOUND)
        return _served(call.request, await asyncio.to_thread(_bundled_file, call.path["name"]))

    async def problem(self, call: Call[None, None]) -> Answer:
        name = call.path["code"]
        if name in list(Code):
            meaning = problems.CATALOGUE[Code(name)]
            status, title, more = meaning.status, meaning.title, meaning.help
        elif name in list(Reason):
            reason = reasons.CATALOGUE[Reason(name)]
            later = "may succeed later" if reason.may_succeed_later else "will not succeed later"
            status, title = reason.status, reason.sentence
            more = f"The ledger decided so. The same, sent with a new key, {later}."
        else:
            raise HttpProblem(Code.NOT_FOUND)
        texts = {"code": name, "status": str(status), "title": title, "help": more}
        escaped = {key: html.escape(value) for key, value in texts.items()}
        return _page(Template(_read("problem.html").decode()).substitute(escaped).encode())


def _page(body: bytes) -> Answer:
    return Answer(body, headers={"Content-Security-Policy": CSP}, content_type=HTML)


def _served(request: web.Request, file: File) -> web.Response:
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if request.headers.get("If-None-Match") == file.etag:
        return web.Response(status=304, headers=headers)
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    if packed:
        headers["Content-Encoding"] = "gzip"
    body = file.packed if packed else file.body
    return web.Response(body=body, headers=headers, content_type=file.content_type)


@cache
def _read(name: str) -> bytes:
    return (resources.files("ingress.http") / "pages" / name).read_bytes()


@cache
def _bundled_file(name: str) -> File:
    return _file(_read(name).replace(*_ELSEWHERE), FILES[name])


def _file(body: bytes, content_type: str) -> File:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return File(body, gzip.compress(body, 6, mtime=0), etag, content_type)
