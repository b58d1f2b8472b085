"""A producer that speaks to the broker itself: batches that no client library would send.

A broker does not compare the offsets within a batch that comes uncompressed, so a producer may
give several of its records the same one.
"""

import socket
import struct
import time
from collections.abc import Sequence
from functools import cache

PRODUCE, VERSION = 0, 3
CASTAGNOLI = 0x82F63B78
ALL, TIMEOUT_MS = -1, 10_000


def produce(
    bootstrap: str,
    topic: str,
    partition: int,
    records: Sequence[tuple[int, bytes | None, bytes]],
) -> int:
    """Each record as (its offset less the batch's, key, value); to be the batch's last offset is
    the broker's to say. Returns the broker's error code, 0 for none. The one broker leads all."""
    host, _, port = bootstrap.split(",")[0].rpartition(":")
    request = _request(topic, partition, _batch(records))
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        told = answer.read(size)
    # Correlation, one topic with its name, one partition with its number, the error.
    return int(struct.unpack_from(">h", told, 4 + 4 + 2 + len(topic) + 4 + 4)[0])


def _request(topic: str, partition: int, batch: bytes) -> bytes:
    name = topic.encode()
    return (
        struct.pack(">hhih", PRODUCE, VERSION, 1, -1)
        + struct.pack(">hhii", -1, ALL, TIMEOUT_MS, 1)
        + struct.pack(">h", len(name))
        + name
        + struct.pack(">iii", 1, partition, len(batch))
        + batch
    )


def _batch(records: Sequence[tuple[int, bytes | None, bytes]]) -> bytes:
    now_ms = time.time_ns() // 1_000_000
    body = struct.pack(
        ">hiqqqhii", 0, len(records) - 1, now_ms, now_ms, -1, -1, -1, len(records)
    ) + b"".join(_record(*record) for record in records)
    tail = struct.pack(">ibI", -1, 2, _crc32c(body)) + body
    return struct.pack(">qi", 0, len(tail)) + tail


def _record(offset: int, key: bytes | None, value: bytes) -> bytes:
    named = _varint(-1) if key is None else _varint(len(key)) + key
    body = b"\0" + _varint(0) + _varint(offset) + named + _varint(len(value)) + value + _varint(0)
    return _varint(len(body)) + body


def _varint(number: int) -> bytes:
    left = number << 1 if number >= 0 else ((-number) << 1) - 1
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


@cache
def _table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ CASTAGNOLI if number & 1 else number >> 1
        table.append(number)
    return tuple(table)


def _crc32c(data: bytes) -> int:
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
