"""Where artifacts come from: the registry that jgo knows, by its Python resolver.

jgo takes a cut file for whole and checks little, so it only ever writes into an empty folder and
the caller holds the result to the lock. Imported when something has to be fetched, not before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compose.embedded.artifacts import NETWORK_TIMEOUT_S, Cut


def download(coordinate: str, folder: Path, advance: Callable[[int], None]) -> Path:
    from jgo.maven import MavenContext, PythonResolver

    @contextmanager
    def report(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield advance

    context = MavenContext(
        resolver=PythonResolver(progress_callback=report),
        repo_cache=folder,
        local_repos=[],
        timeout=NETWORK_TIMEOUT_S,
    )
    try:
        path = context.create_dependency(coordinate).artifact.resolve()
    except OSError as error:
        if error.errno is not None:  # the disk's errors have a number, the network's have none
            raise
        raise Cut(f"the registry could not be reached ({type(error).__name__})") from error
    except RuntimeError as error:
        raise Cut("the registry does not have it") from error
    return Path(path)
