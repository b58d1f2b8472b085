"""Ids: valid account ids, transaction ids derived from account and idempotency key, service names.

A transaction id is never chosen: it is uuid5(uuid5(NAMESPACE, account), key), known at submission
and permanent. A command with `wallets_only` has its own key space: WALLETS_ONLY_NAMESPACE replaces
NAMESPACE.
"""

import hashlib
import re
from functools import lru_cache
from operator import itemgetter
from typing import Final, NewType
from uuid import UUID

AccountId = NewType("AccountId", str)
TransactionId = NewType("TransactionId", str)

# The epoch of a ledger's positions. Restoring a backup or changing the partition count starts the
# next one. Every position that leaves the system carries the ledger id and this number.
EPOCH: Final = 1

NAMESPACE: Final = UUID("5d0c5a2e-91b7-5b0e-8f43-6a1f0f0c7d11")
WALLETS_ONLY_NAMESPACE: Final = UUID("c1d8e0f2-3b6a-5c47-9e15-2f7a64b0d8c3")

ACCOUNT_ID_PATTERN: Final = r"^[A-Za-z0-9:_-]{1,64}\Z"
ACCOUNT_ID: Final = re.compile(ACCOUNT_ID_PATTERN)

SYSTEM_PREFIX: Final = "system:"
FUNDING: Final = "funding"
FEES: Final = "fees"
TRANSIT: Final = "transit"
SYSTEM_ROLES: Final = (FUNDING, FEES, TRANSIT)


_NAMESPACE = NAMESPACE.bytes
_WALLETS_ONLY_NAMESPACE = WALLETS_ONLY_NAMESPACE.bytes
# Copying this object is faster than creating a new one.
_SHA1 = hashlib.sha1(usedforsecurity=False)


def _uuid5(namespace: bytes | bytearray, name: bytes) -> bytearray:
    hash = _SHA1.copy()
    hash.update(namespace + name)
    digest = bytearray(hash.digest()[:16])
    # The version and the variant of a name-based UUID.
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return digest


def transaction_id(
    account: str, idempotency_key: str, *, wallets_only: bool = False
) -> TransactionId:
    return to_text(transaction_bytes(account, idempotency_key, wallets_only))


def transaction_bytes(account: str, idempotency_key: str, wallets_only: bool) -> bytes:
    return bytes(_uuid5(_namespace_of(account, wallets_only), idempotency_key.encode()))


# Caches the accounts in frequent use.
@lru_cache(maxsize=1_024)
def _namespace_of(account: str, wallets_only: bool) -> bytes:
    namespace = _WALLETS_ONLY_NAMESPACE if wallets_only else _NAMESPACE
    return bytes(_uuid5(namespace, account.encode()))


# Built once: five slices written inline would dominate the cost of `to_text`.
_groups = itemgetter(slice(8), slice(8, 12), slice(12, 16), slice(16, 20), slice(20, 32))


def to_text(key: bytes | bytearray) -> TransactionId:
    return TransactionId("-".join(_groups(key.hex())))


def to_key(transaction: str) -> bytes:
    """The 16 bytes of an id in canonical text form."""
    return bytes.fromhex(transaction.replace("-", ""))


# Names in Kafka for the services of a ledger. Topic prefixes and ledger ids contain no colon, so no
# name of one ledger equals, or is a prefix of, a name of another ledger on the same brokers.


def service_name(ledger_id: str, service: str) -> str:
    return f"{ledger_id}:{service}:{EPOCH}"


def service_id(topic_prefix: str, ledger_id: str, service: str) -> str:
    """The name of a service's consumer group, and the prefix of its transactional ids."""
    return f"{topic_prefix}:{service_name(ledger_id, service)}"


def service_ids(topic_prefix: str, ledger_id: str, service: str) -> str:
    """The prefix of all service ids of a service, in any epoch."""
    return f"{topic_prefix}:{ledger_id}:{service}:"


def is_system(account: str) -> bool:
    return account.startswith(SYSTEM_PREFIX)


def system_name(role: str, currency: str) -> str:
    """The name that a command may use; it refers to the coordinator's shard."""
    return f"{SYSTEM_PREFIX}{role}:{currency}"


@lru_cache(maxsize=1_024)
def system_shard(role: str, currency: str, partition: int) -> AccountId:
    return AccountId(f"{SYSTEM_PREFIX}{role}:{currency}:{partition}")
