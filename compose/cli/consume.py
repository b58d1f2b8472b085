"""`streamledger consume`: what is committed in a topic of the ledger, for people and programs.

Keeps the rule that nothing is shown that was not committed: it reads read_committed, in no
consumer group, so that it disturbs no reader. It decides nothing.
"""

import base64
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from plumbing.failures import Failure
from plumbing.kafka import clients
from plumbing.settings import KafkaSettings
from schemas import partitioning, topics
from schemas.encoding import codecs
from schemas.encoding.avro_schema_cache import AvroSchemas
from schemas.encoding.codecs import UnreadableRecord
from schemas.encoding.schema_registry import HttpRegistry

TIMEOUT_S: Final = 20.0
_AVRO: Final = (0x00, 0xC3)
_EOF: Final = KafkaError._PARTITION_EOF


class Wrong(Failure):
    exit_code = 2


@dataclass(frozen=True, slots=True)
class ConsumedRecord:
    partition: int
    offset: int
    time_ms: int
    key: str | None
    # As JSON has it; of what cannot be read, why, and its bytes as base64.
    value: Any

    def as_line(self) -> str:
        return f"{self.partition}:{self.offset}  {self.key or '-'}  {_json(self.value)}"

    def as_json(self) -> str:
        return _json(
            {
                "partition": self.partition,
                "offset": self.offset,
                "time_ms": self.time_ms,
                "key": self.key,
                "value": self.value,
            }
        )


def show(record: ConsumedRecord, as_json: bool) -> None:
    line = record.as_json() if as_json else record.as_line()
    # A command may hold half of a surrogate pair; JSON has a way to write it.
    sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.flush()


def schemas(registry: str | None) -> AvroSchemas:
    """Those that we publish; ids come from the registry, where there is one."""
    if registry is None:
        return AvroSchemas()
    try:
        return AvroSchemas(registry=HttpRegistry(registry))
    except ValueError as error:
        raise Wrong(str(error)) from None


def records(
    settings: KafkaSettings,
    client_id: str,
    role: str,
    known: AvroSchemas,
    *,
    key: str | None = None,
    from_beginning: bool = False,
    follow: bool = False,
) -> Iterator[ConsumedRecord]:
    """In the order of each partition. Without `follow` up to what is committed by now."""
    topic = _named(role)
    consumer = Consumer(
        {
            **clients.client_config(settings, client_id),
            # Required by the client; nothing is ever committed or subscribed under it.
            "group.id": "none",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 100,
        }
    )
    try:
        ranges = _ranges(consumer, settings.topics.name_of(topic), topic, key)
        starts = {number: start if from_beginning else end for number, start, end in ranges}
        consumer.assign(
            [TopicPartition(settings.topics.name_of(topic), *each) for each in starts.items()]
        )
        ends = {number: end for number, _, end in ranges if end > starts[number]}
        wanted = None if key is None else key.encode()
        heard = time.monotonic()
        while follow or ends:
            messages = consumer.consume(1_000, 0.1)
            if messages:
                heard = time.monotonic()
            elif not follow and time.monotonic() - heard > TIMEOUT_S:
                raise Failure(f"{role} cannot be read: no answer")
            for message in messages:
                error, number = message.error(), message.partition() or 0
                if error is not None and error.code() != _EOF:
                    raise KafkaException(error)
                offset = message.offset() or 0
                if not follow and offset >= ends.get(number, 0):
                    ends.pop(number, None)
                elif error is None and wanted in (None, message.key()):
                    yield _record(topic, message, known)
    except KafkaException as error:
        raise Failure(f"{role} cannot be read: {error.args[0].str()}") from None
    finally:
        consumer.close()


def _named(role: str) -> topics.Topic:
    for topic in topics.ALL:
        if topic.role == role:
            return topic
    known = ", ".join(topic.role for topic in topics.ALL)
    raise Wrong(f"{role}: no topic of the ledger; it has {known}")


def _ranges(
    consumer: Consumer, name: str, topic: topics.Topic, key: str | None
) -> list[tuple[int, int, int]]:
    """Partition, beginning and stable end of what has to be read."""
    found = consumer.list_topics(name, timeout=TIMEOUT_S).topics[name]
    if found.error is not None:
        raise Failure(f"{name} cannot be read: {found.error.str()}")
    numbers: Iterable[int] = sorted(found.partitions)
    if key is not None and topic is topics.TRANSACTIONS:
        # Its one writer puts an account's entries where the account is; anyone may write commands
        # elsewhere, and results lie with their commands.
        numbers = [partitioning.partition_of(key, len(found.partitions))]
    return [
        (number, *consumer.get_watermark_offsets(TopicPartition(name, number), TIMEOUT_S))
        for number in numbers
    ]


def _record(topic: topics.Topic, message: Message, schemas: AvroSchemas) -> ConsumedRecord:
    key, value = message.key(), message.value()
    if topic is topics.STATE:
        shown_key = None if key is None else repr(key)[2:-1]
        content = None if value is None else _plain(msgspec.msgpack.decode(value))
    else:
        shown_key = None if key is None else key.decode("utf-8", "backslashreplace")
        content = shown(topic, value, schemas)
    offset = message.offset() or 0
    return ConsumedRecord(
        message.partition() or 0, offset, message.timestamp()[1], shown_key, content
    )


def shown(topic: topics.Topic, value: bytes | None, schemas: AvroSchemas) -> Any:
    """A value as JSON has it."""
    if value is None:
        return None
    if topic in (topics.COMMANDS, topics.TRANSACTIONS) and value[:1] and value[0] in _AVRO:
        decode: Any = codecs.decode_command
        if topic is topics.TRANSACTIONS:
            decode = codecs.decode_transaction
        message = decode(value, schemas)
        if isinstance(message, UnreadableRecord):
            return _unreadable(f"{message.reason}: {message.detail}", value)
        return msgspec.to_builtins(message)
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        return _unreadable(f"not JSON: {error}", value)


def _unreadable(why: str, value: bytes) -> dict[str, str]:
    return {"unreadable": why, "base64": base64.b64encode(value).decode()}


def _plain(part: Any) -> Any:
    """Bytes, which state has and JSON has not, as hexadecimal text."""
    if isinstance(part, bytes):
        return part.hex()
    if isinstance(part, list):
        return [_plain(each) for each in part]
    if isinstance(part, dict):
        return {name: _plain(each) for name, each in part.items()}
    return part


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
