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
    return service.parts(settings, "0", pool, probe, probe).routes


def routes_page(generated: str) -> str:
    lines = [
        "# Routes",
        "",
        generated,
        "",
        "Every route, and who may call it: by role, and with an API key by the scope that the key",
        "needs besides. A route without roles asks nobody who they are. `/openapi.json` has all",
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
        "Every error is answered as `application/problem+json` (RFC 9457): `type`, the address of",
        "the page on its code; `title`; `status`; `code`, which never changes and is made to be",
        "tested for; `detail`, where there is more to say; `errors`, each with `field`, `code` and",
        "`detail`, all bad fields at once; `request_id`, by which it is found in the log. What was",
        "refused has written nothing, unless its page says otherwise.",
        "",
        "## The ingress's own",
    )
    for code in Code:
        meaning = problems.CATALOGUE[code]
        yield from ("", f"### {code}", "", f"{meaning.status}. {meaning.title} {meaning.help}")
    yield from (
        "",
        "## The ledger's",
        "",
        "The reasons of [reference/reasons.md](reference/reasons.md), in their order. The command",
        "was written and decided: the problem has its `transaction_id`, and the same key gets the",
        "same answer for ever, where the ledger did not refuse it at the door. The ingress answers",
        "some of them itself, when it can tell before anything is written.",
    )
    for reason, told in LEDGER.items():
        later = "may succeed" if told.may_succeed_later else "does not succeed"
        yield from (
            "",
            f"### {reason}",
            "",
            f"{told.status}. {told.sentence} The same with a new key {later} later.",
        )
