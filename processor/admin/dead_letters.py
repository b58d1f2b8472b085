"""`streamledger dead-letters`: what could not be read or came the wrong way, and sending it again.

The letter holds the reason and the first bytes; the whole original stays in `commands` forever, at
the position that the letter names.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from plumbing.failures import Failure
from plumbing.kafka import clients
from plumbing.kafka.committed_reader import CommittedReader, CommittedRecord
from plumbing.settings import KafkaSettings
from schemas.encoding import codecs
from schemas.encoding.codecs import AvroSchemas, UnreadableRecord
from schemas.published_records import DeadLetter
from schemas.topics import Names

_decode = msgspec.json.Decoder(DeadLetter).decode
_FLUSH_S = 30.0


def letters(reader: CommittedReader, names: Names) -> Iterator[DeadLetter]:
    """All of them, in the order in which they were written."""
    topic = names.commands_dead
    for partition in range(reader.partitions(topic)):
        for read in reader.read(topic, partition, *reader.range(topic, partition)):
            yield _decode(read.value or b"")


def find(
    reader: CommittedReader, names: Names, position: str
) -> tuple[DeadLetter, CommittedRecord]:
    """A letter by the `partition:offset` of its command, and the command as it was written."""
    partition, offset = parsed(position)
    for letter in letters(reader, names):
        if (letter.partition, letter.offset) == (partition, offset):
            original = reader.at(names.commands, partition, offset)
            if original is not None:
                return letter, original
    raise Failure(f"no dead letter at {position}")


def contents(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}") from None


def parsed(position: str) -> tuple[int, int]:
    partition, colon, offset = position.partition(":")
    if not (colon and partition.isdecimal() and offset.isdecimal()):
        raise Failure(f"invalid position {position!r}: expected partition:offset, such as 3:1200")
    return int(partition), int(offset)


def resubmit(settings: KafkaSettings, client_id: str, value: bytes) -> tuple[str, int, int]:
    """Writes a command again, keyed by its account; returns the key and the new position."""
    account = _account(value)
    sent: list[tuple[int, int]] = []
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            refused.append(error)
        else:
            sent.append((message.partition() or 0, message.offset() or 0))

    producer = clients.command_producer(settings, client_id)
    producer.produce(settings.topics.commands, value, account.encode(), on_delivery=delivered)
    producer.flush(_FLUSH_S)
    if refused:
        raise KafkaException(refused[0])
    if not sent:
        raise Failure("Kafka did not confirm it, and may have it: with an id it may be sent again")
    return account, *sent[0]


def _account(value: bytes) -> str:
    """Also of a command that cannot be read but for its account."""
    command = codecs.decode_command(value, AvroSchemas())
    if not isinstance(command, UnreadableRecord):
        return command.account
    try:
        return msgspec.json.decode(value, type=_Named).account
    except ValueError:
        raise Failure(
            f"not sent: it names no account, so it has no key: {command.detail}"
        ) from None


class _Named(msgspec.Struct):
    account: str
