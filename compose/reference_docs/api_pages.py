"""The generated pages on the HTTP API: its routes with who may call each, and its problems.

Made from the routes themselves, with nothing opened.
"""

from collections.abc import Iterator

from pydantic import SecretStr

from ingress import service
from ingress.http import problems
from ingress.http.problems import Code
from ingress.http.roles import UserRole
from ingress.http.routes import Route
from ingress.settings import IngressSettings
from plumbing.postgres import connection_pool
from schemas.reasons import CATALOGUE as LEDGER

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


def routes() -> list[Route]:
    """All that the ingress serves."""
    settings = IngressSettings(  # type: ignore[call-arg]  # of BaseSettings itself
        _env_file=None,
        database_url=NOWHERE,
        kafka_brokers="127.0.0.1:1",
        signing_key=SecretStr("only for the pages: nothing is signed"),
    )

    async def probe(_: float) -> str | None:
        return None

    pool = connection_pool.pool(NOWHERE, 1, "reference")
    return service.build_service(settings, "0", pool, probe, probe).routes


def routes_page(generated: str) -> str:
    lines = [
        "# Routes",
        "",
        generated,
        "",
        "Every route, and who may call it: by role, and with an API key by the scope that the key",
        "needs besides. A route without roles needs no authentication. `/openapi.json` has all",
        "else: what each takes and answers. `{prefix}` is `API_V1_PREFIX`, `/api/v1` unless set.",
        "HEAD goes wherever GET does. What is not one's own to read is answered as not there.",
        "",
        "| method | path | user | operator | auditor | admin | API key | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for route in routes():
        may = (
            ["all"] * len(UserRole)
            if route.roles is None
            else ["yes" if role in route.roles else "-" for role in UserRole]
        )
        scope = "-" if route.scope is None else f"`{route.scope}`"
        cells = (route.method, f"`{route.full_path('{prefix}')}`", *may, scope, route.summary)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def problems_page(generated: str) -> str:
    return "\n".join(_problems(generated)) + "\n"


def _problems(generated: str) -> Iterator[str]:
    yield from (
        "# Problems",
        "",
        generated,
        "",
        "Every error response is `application/problem+json` (RFC 9457). `type` is the URL of the",
        "page on its code. `title` and `status` describe it. `code` never changes; programs test",
        "it. `detail` is optional. `errors` lists all invalid fields at once, each with `field`,",
        "`code` and `detail`. `request_id` finds the request in the log. A refused request has",
        "written nothing, unless this page says otherwise.",
        "",
        "## Problems of the ingress",
    )
    for code in Code:
        meaning = problems.CATALOGUE[code]
        yield from ("", f"### {code}", "", f"{meaning.status}. {meaning.title} {meaning.help}")
    yield from (
        "",
        "## Rejections of the ledger",
        "",
        "The reasons of [reference/reasons.md](reference/reasons.md), in order of precedence. The",
        "command was written and decided: the problem has its `transaction_id`, and the same key",
        "always gets the same answer, unless command validation refused it. The ingress itself",
        "answers some of them if it can decide before anything is written.",
    )
    for reason, rejection in LEDGER.items():
        later = (
            "A retry with a new key may succeed later."
            if rejection.may_succeed_later
            else "A retry with a new key does not succeed."
        )
        yield from (
            "",
            f"### {reason}",
            "",
            f"{rejection.status}. {rejection.sentence} {later}",
        )
