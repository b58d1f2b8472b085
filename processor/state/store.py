"""A partition's state: RocksDB, a bounded cache before it, and an overlay for the batch in flight.

Values are decoded once and shared. What the batch changes is in the overlay alone until its Kafka
transaction has committed; then it goes to RocksDB in one write, with the position. Nothing reads
uncommitted state but the batch that makes it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import structlog
from msgspec.structs import replace
from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)
from rocksdict import (
    Cache as BlockCache,
)

from plumbing.failures import Failure
from processor.state import checkpoint, record_digest
from processor.state.cache import Cache
from processor.state.checkpoint import LocalCheckpoint
from processor.state.expiry_index import DueIndex
from schemas import state, state_keys
from schemas.state import PartitionPosition, PartitionState, StateValue

log = structlog.get_logger(__name__)

KIB = 1024
MIB = 1024 * KIB
LOCAL_KEY = b"\x00"

_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[int, Callable[[bytes], Any]] = {
    prefix[0]: msgspec.msgpack.Decoder(type).decode
    for prefix, type in (
        (state_keys.ACCOUNT, state.AccountState),
        (state_keys.SYSTEM_ACCOUNT, state.SystemAccountState),
        (state_keys.TRANSACTION, state.TransactionState),
        (state_keys.HOLD, state.HoldState),
        (state_keys.PREPARED, state.PreparedTransaction),
        (state_keys.DUE, state.Due),
    )
}
# Past transactions are rarely asked for again: they would push the accounts out.
_CACHED = frozenset((state_keys.ACCOUNT[0], state_keys.SYSTEM_ACCOUNT[0]))
# What is waiting for another partition's answer is asked for again in a moment. So many are kept
# at most, for as long as they wait: it only saves reading them.
_MOST_AWAITED = 4_000
# A batch that sees more, of many expiries, forgets it with what it commits on the way.
_MOST_SEEN = 50_000
# How RocksDB names a file that is not what it wrote, its reads, and what is no fault of the file.
_DAMAGE = ("Corruption", "No such file")
_READS = ("While pread", "While read", "for random read", "for sequential")
_NOT_THE_FILE = ("Permission denied", "Too many open files")
_AWAITABLE = frozenset((state_keys.TRANSACTION[0], state_keys.PREPARED[0]))
_DUE = state_keys.DUE[0]


class Memory:
    """What RocksDB may use, shared by all partitions of a process."""

    def __init__(self, mib: int) -> None:
        # What is not on disk yet is counted in here, too.
        self.blocks = BlockCache(mib * MIB)
        self.memtables = WriteBufferManager.new_write_buffer_manager_with_cache(
            mib * MIB // 2, False, self.blocks
        )


_decode_local = msgspec.msgpack.Decoder(LocalCheckpoint).decode

Staged = list[tuple[bytes, bytes | None]]


class _Seen(dict[bytes, StateValue | None]):
    """All that the batch in flight has asked for and put: one look-up finds it, or reads it."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[bytes], StateValue | None]) -> None:
        self._read = read

    def __missing__(self, key: bytes) -> StateValue | None:
        value = self[key] = self._read(key)
        return value


class StateStore:
    """Implements the rules' State. Used by one thread at a time."""

    def __init__(self, path: Path, partition: int, memory: Memory, entries: int) -> None:
        self.path = path
        self._number = partition
        self._memory = memory
        self._entries = entries
        checkpoint.delete_aside(path)
        try:
            self._open()
        except Exception as error:
            if not is_damage(error):
                raise
            log.warning("local copy wiped", partition=partition, reason=str(error))
            checkpoint.set_aside(path)
            checkpoint.delete_aside(path)
            self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        options = _options(self._memory)
        self._closed = False
        with disk_errors_as_failures():
            # Named once more for the only column family: else a copy that is there already would be
            # opened as it was last, with a cache of its own (docs/decisions/0024).
            self._db = Rdict(str(self.path), options, {"default": options})
        self._cache: Cache[StateValue] = Cache(self._entries)
        self._overlay: dict[bytes, StateValue | None] = {}
        self._seen = _Seen(self._read)
        # Asked several times for each command: without a frame of Python around it.
        self.get = self._seen.__getitem__
        self._awaited: dict[bytes, StateValue | None] = {}
        try:
            self.load()
        except BaseException:
            self._db.close()
            raise

    def load(self) -> None:
        """Take what RocksDB holds as the committed state: after opening and after a restore."""
        found = self._db.get(LOCAL_KEY)
        self.local = _decode_local(found) if found is not None else LocalCheckpoint()
        position = self._db.get(state_keys.POSITION)
        self.position = record_digest.decode(position) if position is not None else None
        self.partition = self.position.partition if self.position else PartitionState(self._number)
        self._index = DueIndex(self._read_due)
        self.due = self._index.due

    # The rules' State; `get` is made in `_open`, `due` in `load`.

    def put(self, key: bytes, value: StateValue | None) -> None:
        if key[0] == _DUE:
            if value is None:
                self._index.remove(key)
            else:
                self._index.add(key)
        self._overlay[key] = self._seen[key] = value

    # Batches.

    def fetch(self, keys: Iterable[bytes]) -> None:
        """Read keys that the batch will ask for, in one call."""
        seen, cached, missing = self._seen, self._cache.get, []
        for key in keys:
            if key in seen:
                continue
            value = cached(key) if key[0] in _CACHED else None
            # What is missing is taken for absent, so that it is read once, until it was read.
            seen[key] = value
            if value is None:
                missing.append(key)
        if missing:
            try:
                found: Any = self._db.get(missing)  # type: ignore[arg-type]  # a list is taken too
            except Exception as error:
                self._failed(error)
            for key, encoded in zip(missing, found, strict=True):
                if encoded is not None:
                    seen[key] = self._decoded(key, encoded)

    def staged(self) -> Staged:
        """What the batch in flight changes, encoded, but for the position."""
        return [
            (key, None if value is None else _encode(value)) for key, value in self._overlay.items()
        ]

    def commit(self, staged: Staged, position: PartitionPosition, local: LocalCheckpoint) -> None:
        """Write what Kafka has committed, with the position, at once; then forget the overlay."""
        batch = WriteBatch(raw_mode=True)
        for key, value in staged:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(state_keys.POSITION, _encode(position))
        batch.put(LOCAL_KEY, _encode(local))
        try:
            self._db.write(batch)
        except Exception as error:
            self._failed(error)
        self._remember()
        self._overlay = {}
        if len(self._seen) > _MOST_SEEN:
            self.forget()
        self.position, self.local = position, local

    def forget(self) -> None:
        """What a batch has asked for and put, before the next one: all of it is committed."""
        self._seen.clear()
        self._seen.update(self._awaited)

    def _remember(self) -> None:
        """Keep of the overlay what is likely to be asked for soon; what it ended is forgotten."""
        cache, awaited = self._cache, self._awaited
        for key, value in self._overlay.items():
            kind = key[0]
            if kind in _CACHED:
                if value is not None:
                    cache.put(key, value)
            elif kind in _AWAITABLE:
                if _is_awaited(value):
                    awaited[key] = value
                elif awaited:
                    awaited.pop(key, None)
        if len(awaited) > _MOST_AWAITED:
            awaited.clear()

    def earliest_due_ms(self) -> int | None:
        return self._index.earliest_ms()

    # Restoring.

    def restore(
        self, records: Iterable[tuple[bytes, bytes | None]], local: LocalCheckpoint
    ) -> None:
        """Committed changelog records, and how far they go, in one write. Call `restored` at
        the end.
        """
        batch = WriteBatch(raw_mode=True)
        for key, value in records:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(LOCAL_KEY, _encode(local))
        options = WriteOptions()
        # Lost together or kept together: without the log, a crash leaves an older whole prefix.
        options.disable_wal = True  # type: ignore[method-assign,assignment]  # it is a property
        try:
            self._db.write(batch, options)
        except Exception as error:
            self._failed(error)

    def restored(self) -> None:
        self._cache = Cache(self._entries)
        self._seen.clear()
        self._awaited = {}
        try:
            self._db.flush()
            self.load()
        except Exception as error:
            self._failed(error)

    def prove(self, journal_offset: int, journal_hash: str) -> None:
        """Note a journal record that this copy has seen: by it the copy can be told apart."""
        local = replace(self.local, journal_offset=journal_offset, journal_hash=journal_hash)
        try:
            self._db.put(LOCAL_KEY, _encode(local))
        except Exception as error:
            self._failed(error)
        self.local = local

    def wipe(self) -> None:
        self.close()
        checkpoint.set_aside(self.path)
        checkpoint.delete_aside(self.path)
        self._open()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with disk_errors_as_failures():
                self._db.close()

    def _failed(self, error: Exception) -> NoReturn:
        """Raises what an error of RocksDB means. A damaged copy is moved out of its place, and with
        it the claim to the lane: neither this worker nor another goes on from it."""
        if not is_damage(error):
            raise_disk_failure(error)
        log.error("local copy damaged", partition=self._number, reason=str(error))
        # A copy that cannot be read may fail to close, too.
        with suppress(Failure):
            self.close()
        try:
            checkpoint.set_aside(self.path)
        except OSError as broken:
            checkpoint.forget(self.path)
            raise Failure(
                f"the local copy of partition {self._number} is damaged, and cannot be moved out of"
                f" its place: {broken.strerror}; replace the disk, or set DATA to a folder on"
                " another one"
            ) from error
        raise Damaged(f"the local copy of partition {self._number} is damaged: {error}") from error

    def size_bytes(self) -> int:
        return sum(
            self._db.property_int_value(name) or 0
            for name in ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        )

    def _read(self, key: bytes) -> StateValue | None:
        cached = self._cache.get(key) if key[0] in _CACHED else None
        if cached is not None:
            return cached
        try:
            found = self._db.get(key)
        except Exception as error:
            self._failed(error)
        return None if found is None else self._decoded(key, found)

    def _decoded(self, key: bytes, found: bytes) -> StateValue:
        value: StateValue = _DECODERS[key[0]](found)
        if key[0] in _CACHED:
            self._cache.put(key, value)
        return value

    def _read_due(self, after: bytes, limit: int) -> list[bytes]:
        """Due keys that follow one, in RocksDB and in the overlay, which may have removed some."""
        found: list[bytes] = []
        try:
            for key, _ in scan(self._db, after + b"\x00"):
                if key[0] != _DUE or len(found) == limit:
                    break
                if self._overlay.get(key, key) is not None:
                    found.append(key)
        except Exception as error:
            self._failed(error)
        last = found[-1] if len(found) == limit else None
        added = [
            key
            for key, value in self._overlay.items()
            if key[0] == _DUE and value is not None and key > after and (not last or key < last)
        ]
        return sorted({*found, *added})[:limit]


def _is_awaited(value: StateValue | None) -> bool:
    if isinstance(value, state.TransactionState):
        return value.pending is not None
    return value is not None


class Damaged(Exception):
    """A file of the local copy is corrupt or cannot be read. The copy was set aside, and the next
    owner restores it."""


def scan(database: Rdict, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values from a key on. RocksDB's own iterators just end at what they cannot read;
    this one raises."""
    iterator = database.iter()
    iterator.seek(start)
    while iterator.valid():
        yield iterator.key(), iterator.value()
        iterator.next()
    iterator.status()


@contextmanager
def disk_errors_as_failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise_disk_failure(error)


def is_damage(error: Exception) -> bool:
    """Whether a file of the copy is corrupt, missing or unreadable: another copy mends that."""
    text = str(error)
    if any(words in text for words in _DAMAGE):
        return True
    return _is_read(text) and not any(words in text for words in _NOT_THE_FILE)


def raise_disk_failure(error: Exception) -> NoReturn:
    """Raises RocksDB's own words for a disk that is full or broken, as something to act on.

    Nothing is lost by it: what Kafka has committed is restored when there is room.
    """
    text = str(error)
    if "IO error" not in text:
        raise error
    action = "read" if _is_read(text) else "write"
    raise Failure(f"local disk {action} failed: {text}") from error


def _is_read(text: str) -> bool:
    return "IO error" in text and any(words in text for words in _READS)


def _options(memory: Memory) -> Options:
    """Point look-ups of keys that mostly do not exist: bloom filters everywhere, kept in memory. In
    parts: a filter that is read whole is as large as what the cache has for all that hashes there.
    docs/decisions/0024-filters-of-14-bits.md has what was measured.
    """
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(14, False)
    blocks.set_block_cache(memory.blocks)
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    blocks.set_index_type(BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_metadata_block_size(16 * KIB)
    blocks.set_pin_top_level_index_and_filter(True)
    blocks.set_format_version(5)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(blocks)
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(0.1)
    options.set_write_buffer_manager(memory.memtables)
    options.set_write_buffer_size(16 * MIB)
    options.set_max_write_buffer_number(3)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_level_compaction_dynamic_level_bytes(True)
    return options
