"""The pages about the API: the document made from the routes, and what shows it, offline."""

import gzip
import re
import urllib.request
from typing import Any

import jsonschema
import pytest

from ingress.http.problems import Code
from schemas.reasons import Reason
from tests.testkit.ledger_api import Ingress, Person


@pytest.fixture(scope="module")
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    answer = request.getfixturevalue("api").ingress.get("/openapi.json", prefix="")
    assert answer.status == 200
    made: dict[str, Any] = answer.json
    return made


def test_it_is_openapi_with_every_reference_in_it(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    text = str(document)
    for name in re.findall(r"#/components/schemas/([\w.-]+)", text):
        assert name in document["components"]["schemas"], name
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert name
    operations = [
        operation for methods in document["paths"].values() for operation in methods.values()
    ]
    ids = [each["operationId"] for each in operations]
    assert len(ids) == len(set(ids))
    for each in operations:
        assert each["summary"]
        assert each["responses"]
        assert "security" in each


def test_what_is_answered_is_what_it_says(ingress: Ingress, document: dict[str, Any]) -> None:
    ada: Person = ingress.person()
    asked = [
        ("get", "/api/v1/me", ingress.get("/me", ada.token)),
        ("post", "/api/v1/login", ingress.login(ada.email)),
        ("post", "/api/v1/login", ingress.login(ada.email, "not this one")),
        ("get", "/api/v1/sessions", ingress.get("/sessions", ada.token)),
        ("get", "/api/v1/users", ingress.get("/users", ada.token)),
        ("get", "/api/v1/users", ingress.get("/users", ingress.admin().token)),
        ("post", "/api/v1/register", ingress.post("/register", {"email": 7})),
        ("get", "/health", ingress.get("/health", prefix="")),
        ("get", "/ready", ingress.get("/ready", prefix="")),
    ]
    for method, path, answer in asked:
        told = document["paths"][path][method]["responses"][str(answer.status)]
        kind = answer.headers["Content-Type"].partition(";")[0]
        schema = {**told["content"][kind]["schema"], "components": document["components"]}
        jsonschema.validate(answer.json, schema)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_asks_no_other_host(ingress: Ingress, path: str) -> None:
    page = ingress.get(path, prefix="")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert files
    for file in files:
        assert file.startswith(("/docs/files/", "data:")), file
        if file.startswith("/"):
            answer = ingress.get(file, prefix="")
            assert answer.status == 200
            known = {"If-None-Match": answer.headers["ETag"]}
            assert ingress.get(file, prefix="", headers=known).status == 304
    assert "cdn.redoc.ly/redoc/logo" not in ingress.get(files[-1], prefix="").text


def test_a_page_may_be_sent_packed(ingress: Ingress) -> None:
    url = f"http://127.0.0.1:{ingress.port}/docs/files/swagger-ui.css"
    asked = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        unpacked = gzip.decompress(answer.read()).decode()
    assert unpacked == ingress.get("/docs/files/swagger-ui.css", prefix="").text


def test_every_code_has_a_page(ingress: Ingress) -> None:
    for code in (*Code, *Reason):
        page = ingress.get(f"/problems/{code}", prefix="")
        assert page.status == 200
        assert f"<h1>{code}</h1>" in page.text
