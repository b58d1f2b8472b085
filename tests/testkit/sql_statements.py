"""Which statements a piece of code has Postgres run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest


@contextmanager
def counted() -> Iterator[list[object]]:
    """Those of all connections meanwhile."""
    run: Any = psycopg.AsyncCursor.execute
    seen: list[object] = []

    def execute(self: Any, query: Any, *rest: Any, **more: Any) -> Any:
        seen.append(query)
        return run(self, query, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "execute", execute)
        yield seen
