"""Which partition an account belongs to: murmur2 of its id, as Kafka's Java client hashes a key.

Every producer of commands must agree with this, or an account would have two writers; the
processor checks it for each command. librdkafka's own default is another hash.
"""

import struct
from functools import lru_cache

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32 bits of the hash as an unsigned number (Java shows the same bits signed)."""
    length = len(data)
    h = _SEED ^ length
    words = length >> 2
    for k in struct.unpack_from(f"<{words}I", data):
        k = k * _M & _MASK
        h = (h * _M ^ (k ^ k >> 24) * _M) & _MASK
    tail = data[words << 2 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


# Called for each command, mostly for accounts that were seen a moment ago.
@lru_cache(maxsize=65_536)
def partition_of(account_id: str, partitions: int) -> int:
    return (murmur2(account_id.encode()) & 0x7FFFFFFF) % partitions
