"""Short runs of the simulated cluster: the rules and the naive model agree on every record.

The long one is `python -m tests.simulation`; each run says its seed, so that a failure can be had
again.
"""

from collections import Counter
from pathlib import Path

import pytest

from schemas.journal import Step
from schemas.reasons import Reason
from tests.simulation import checks
from tests.simulation.run import Run

SEEDS = (1, 2, 3, 4)
STEPS = set(Step.__args__)  # type: ignore[attr-defined]  # the names of a Literal


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    done = []
    for seed in SEEDS:
        print(f"seed {seed}")  # noqa: T201  # shown when it fails
        run = Run(seed, 5_000, partitions=8, thorough=True)
        run.run()
        done.append(run)
    return done


def test_the_model_agrees_and_every_reason_is_met(runs: list[Run]) -> None:
    met: Counter[str] = Counter()
    for run in runs:
        met.update(run.cluster.reasons)
    assert set(Reason) - met.keys() == set()


def test_every_step_and_every_accident_is_met(runs: list[Run]) -> None:
    steps: Counter[str] = Counter()
    accidents: Counter[str] = Counter()
    for run in runs:
        steps.update(run.cluster.steps)
        accidents.update(run.cluster.accidents)
    assert steps.keys() == STEPS
    assert accidents.keys() == {
        "crashed before the commit",
        "crashed after the commit",
        "delivered again",
    }


def test_one_partition_and_many_agree_too() -> None:
    for partitions in (1, 2, 31):
        Run(100 + partitions, 1_500, partitions, thorough=True).run()


@pytest.mark.parametrize("seed", [5, 6])
def test_a_processors_tables_decide_the_same_as_plain_memory(tmp_path: Path, seed: int) -> None:
    """Byte for byte, in `journal` and in all else that a batch writes."""
    run = Run(seed, 1_500, 2, thorough=True, folder=tmp_path)
    cluster = run.run()
    cluster.close()
    met = cluster.all_accidents().keys()
    assert met >= {"batch cut", "crashed", "disk lost", "reopened"}


def test_a_run_is_the_same_each_time() -> None:
    first, second = (Run(9, 1_200, 3, thorough=True).run() for _ in range(2))
    assert [one.hash for one in first.partitions] == [one.hash for one in second.partitions]


def test_a_difference_is_found() -> None:
    run = Run(5, 1_000, 3, thorough=True)
    cluster = run.run()
    name = next(name for name, account in cluster.model.accounts.items() if account.balance)
    cluster.model.accounts[name].balance += 1
    with pytest.raises(checks.Disagreement, match="totals"):
        cluster.check()
