"""A whole run from one seed: commands and accidents until the count is reached, then rest, then the
last checks.
"""

import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from schemas.ledger_parameters import LedgerParameters
from tests.simulation.cluster import Cluster
from tests.simulation.generator import Generator

Progress = Callable[[Cluster, int], None]

# Short times and small bounds, so that all of them are met.
FIRST = LedgerParameters(
    # Of a real ledger of as many partitions as most runs have.
    lanes=2,
    commission_bps=150,
    max_overdraft=40_000,
    hold_ttl_ms=6_000,
    participant_timeout_ms=1_500,
    max_pending=60,
    rules_version=1,
)
BACKLOG = 60


class Run:
    def __init__(
        self,
        seed: int,
        commands: int,
        partitions: int,
        *,
        thorough: bool,
        folder: Path | None = None,
    ) -> None:
        """A thorough run keeps the whole journal and crashes often; a long one does both in
        measure. With a folder, each partition is kept in RocksDB there, too.
        """
        self.commands = commands
        self.dice = random.Random(f"accidents {seed}")
        self.generator = Generator(seed, partitions)
        self.cluster = Cluster(
            partitions,
            self.dice,
            keep_journal=thorough,
            save_every=400 if thorough else 1_500,
            folder=folder,
            seed=seed,
        )
        # More than are taken at once; where each of them is read again and again, fewer.
        self.burst = 1_030 if folder is None else 130
        # What a batch in flight hides shows in large ones.
        self.takes = (1, 1, 2, 3, 5, 12) if folder is None else (1, 2, 5, 12, 60)
        self.crashes = 0.01 if thorough else 0.001
        self.check_every = 5_000 if thorough else 100_000
        self.burst_at = commands // 2
        self.stalled: dict[int, int] = {}
        self.steps = 0

    def run(self, progress: Progress | None = None) -> Cluster:
        cluster, generator = self.cluster, self.generator
        cluster.begin(FIRST)
        next_check = self.check_every
        while generator.count < self.commands:
            self._write()
            self._happen()
            self._step()
            if generator.count >= self.burst_at:
                self.burst_at = generator.count + 250_000
                generator.burst_of_holds(cluster.now_ms, self.burst)
            if generator.count >= next_check:
                next_check += self.check_every
                cluster.check()
                if progress is not None:
                    progress(cluster, generator.count)
        self.rest()
        return cluster

    def rest(self) -> None:
        """Everything on its way arrives; then all holds expire."""
        cluster = self.cluster
        self._drain()
        cluster.check_quiet()
        cluster.now_ms += 400 * 24 * 3_600_000
        for number in range(len(cluster.partitions)):
            for _ in range(60):
                cluster.tick(number)
        self._drain()
        cluster.check_quiet()

    def _drain(self) -> None:
        cluster = self.cluster
        while any(cluster.backlog(number) for number in range(len(cluster.partitions))):
            for number in range(len(cluster.partitions)):
                while cluster.backlog(number):
                    cluster.step(number, take=20, coordination_first=True)

    def _write(self) -> None:
        """New commands, while the partitions keep up; those that stand still may fall behind."""
        cluster, dice = self.cluster, self.dice
        waiting = sum(
            cluster.backlog(partition.number)
            for partition in cluster.partitions
            if partition.number not in self.stalled
        )
        if waiting > BACKLOG:
            return
        for _ in range(dice.randrange(12)):
            if self.generator.count < self.commands:
                record = self.generator.next(cluster.now_ms)
                number = record.partition % len(cluster.partitions)
                cluster.command(number, record.key, record.value, record.time_ms)

    def _happen(self) -> None:
        """Time passes; now and then something else does."""
        cluster, dice = self.cluster, self.dice
        number = dice.randrange(len(cluster.partitions))
        cluster.now_ms += dice.randrange(6)
        chance = dice.random()
        if chance < 0.004:
            cluster.now_ms += dice.choice((500, 1_600, 3_000))
        elif chance < 0.0042:
            cluster.now_ms += dice.choice((60_000, 700_000))
        elif chance < 0.006:
            self.stalled[number] = self.steps + dice.choice((30, 200, 900))
        elif chance < 0.02:
            cluster.deliver_again(number)
        elif chance < 0.03:
            cluster.tick(number)
        elif chance < 0.0315:
            cluster.configure(number, self._settings(), genesis=dice.random() < 0.05)
        elif chance < 0.035:
            cluster.decide_log_time(number)

    def _settings(self) -> LedgerParameters:
        dice = self.dice
        return msgspec.structs.replace(
            FIRST,
            commission_bps=dice.choice((0, 1, 150, 150, 333, 10_000)),
            max_overdraft=dice.choice((0, 1_000, 40_000, 2**53 - 1)),
            hold_ttl_ms=dice.choice((1, 500, 6_000, 30_000)),
            participant_timeout_ms=dice.choice((1, 700, 1_500, 9_000)),
            max_pending=dice.choice((1, 3, 60, 60)),
            rules_version=dice.choice((1, 2)),
        )

    def _step(self) -> None:
        cluster, dice = self.cluster, self.dice
        self.steps += 1
        for number in [number for number, until in self.stalled.items() if until <= self.steps]:
            del self.stalled[number]
        ready = [
            partition.number
            for partition in cluster.partitions
            if partition.number not in self.stalled and cluster.backlog(partition.number)
        ]
        if not ready:
            return
        chance = dice.random()
        crash = None
        if chance < self.crashes:
            crash = dice.choice(("before", "before", "after"))
        cluster.step(
            dice.choice(ready),
            take=dice.choice(self.takes),
            coordination_first=dice.random() < 0.9,
            crash=crash,
        )
