"""The partition of an account is what Kafka's Java client would choose for its key."""

import pytest
from aiokafka.partitioner import (  # type: ignore[import-untyped]  # it has no types
    murmur2 as another_murmur2,
)
from hypothesis import given
from hypothesis import strategies as st

from schemas import partitioning


@pytest.mark.parametrize(("account", "partition"), [("w1", 7), ("alice", 5), ("wallet-0001", 1)])
def test_known_partitions_of_eight(account: str, partition: int) -> None:
    assert partitioning.partition_of(account, 8) == partition


@given(st.binary(max_size=200))
def test_another_implementation_agrees(data: bytes) -> None:
    assert partitioning.murmur2(data) == another_murmur2(data) & 0xFFFFFFFF


@given(st.text("abcXYZ019:_-", min_size=1, max_size=64), st.integers(1, 1024))
def test_it_is_one_of_the_partitions(account: str, partitions: int) -> None:
    assert 0 <= partitioning.partition_of(account, partitions) < partitions
