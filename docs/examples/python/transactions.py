"""Reads `transactions`: every committed entry of an ordinary account, in JSON or Avro.

    python transactions.py [--account ID] [--since 2026-01-31T00:00:00Z] [--follow]

Other examples build on `batches`. There is no consumer group: the caller stores the positions.
"""

import argparse
import functools
import io
import json
import os
import sys
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

BROKERS = os.environ.get("KAFKA_BROKERS", "127.0.0.1:9092")
TOPIC = os.environ.get("TOPIC_PREFIX", "") + os.environ.get("KAFKA_TOPIC", "transactions")
# The directory with all published versions of the schema; used only for Avro.
SCHEMAS = os.environ.get("AVRO_SCHEMAS", "../../schemas/published/versions")
# Used only for the Confluent wire format.
REGISTRY = os.environ.get("SCHEMA_REGISTRY_URL", "http://127.0.0.1:8081")
TIMEOUT_S = 30
# A record is written slightly after the time of its entry, by another clock.
SLACK = timedelta(minutes=5)


def partition_of(account, partitions):
    """The partition of an account's entries: murmur2 of its id, as in Kafka's Java client."""
    data, mask, m = account.encode(), 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        h = (h * m ^ (k ^ k >> 24) * m) & mask
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


def decoder():
    """Decodes by the first bytes: single-object Avro, Confluent Avro, or else JSON."""
    schemas = {}
    for path in Path(SCHEMAS).glob("transaction.*.avsc"):
        schema = fastavro.parse_schema(json.loads(path.read_text("utf-8")))
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
        schemas[bytes.fromhex(fingerprint)] = schema

    @functools.cache
    def by_id(id):
        with urllib.request.urlopen(f"{REGISTRY}/schemas/ids/{id}", timeout=TIMEOUT_S) as response:
            return fastavro.parse_schema(json.loads(json.load(response)["schema"]))

    def decode(value):
        if value[:2] == b"\xc3\x01":
            return fastavro.schemaless_reader(io.BytesIO(value[10:]), schemas[value[2:10]], None)
        if value[:1] == b"\x00":
            schema = by_id(int.from_bytes(value[1:5], "big"))
            return fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        return json.loads(value)

    return decode


def batches(positions=None, account=None, since=None, follow=False):
    """Yields lists of (partition, next offset, entry). `positions` has the next offset of each
    partition read before; other partitions start at `since`, or else at the beginning."""
    decode = decoder()
    consumer = Consumer(
        {
            "bootstrap.servers": BROKERS,
            "group.id": "none",  # required by the client but unused
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",  # never skip or restart silently
        }
    )
    try:
        topic = consumer.list_topics(TOPIC, timeout=TIMEOUT_S).topics[TOPIC]
        if topic.error is not None:
            raise KafkaException(topic.error)
        count = len(topic.partitions)
        wanted = range(count) if account is None else [partition_of(account, count)]
        starts = dict.fromkeys(wanted, OFFSET_BEGINNING)
        if since is not None:
            time_ms = int((since - SLACK).timestamp() * 1000)
            times = [TopicPartition(TOPIC, partition, time_ms) for partition in wanted]
            starts = {at.partition: at.offset for at in consumer.offsets_for_times(times)}
        starts |= {p: offset for p, offset in (positions or {}).items() if p in starts}
        consumer.assign([TopicPartition(TOPIC, *start) for start in starts.items()])
        unread = set(starts)
        while unread or follow:
            batch = []
            for message in consumer.consume(1_000, 0.5):
                if message.error() is None:
                    entry = decode(message.value())
                    if account in (None, entry["account_id"]) and (
                        since is None or datetime.fromisoformat(entry["timestamp"]) >= since
                    ):
                        batch.append((message.partition(), message.offset() + 1, entry))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise KafkaException(message.error())
            if batch:
                yield batch
    finally:
        consumer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--account")
    parser.add_argument("--since", type=datetime.fromisoformat)
    parser.add_argument("--follow", action="store_true")
    for batch in batches(**vars(parser.parse_args())):
        for _, _, entry in batch:
            sys.stdout.write(json.dumps(entry, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
