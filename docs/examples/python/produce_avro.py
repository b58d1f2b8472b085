"""Sends commands as Avro: in the Confluent wire format with a registry, else single-object.

    python produce_avro.py command.avsc [registry URL] < commands.jsonl

Needs confluent-kafka and fastavro. Results are read as in produce.py.
"""

import io
import json
import sys
import urllib.request
from pathlib import Path

import fastavro
import produce


def encoder(schema_file, registry):
    text = Path(schema_file).read_text("utf-8")
    schema = fastavro.parse_schema(json.loads(text))
    if registry is None:
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        fingerprint = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
        header = b"\xc3\x01" + bytes.fromhex(fingerprint)
    else:
        header = b"\x00" + register(registry, text).to_bytes(4, "big")

    def encode(command):
        file = io.BytesIO(header)
        file.seek(0, io.SEEK_END)
        # Fields that a kind does not have are null by default.
        fastavro.schemaless_writer(file, schema, command)
        return file.getvalue()

    return encode


def register(registry, text):
    """Registers the schema and returns its id. The subject is the topic's name plus -value."""
    request = urllib.request.Request(
        f"{registry}/subjects/{produce.PREFIX}commands-value/versions",
        json.dumps({"schema": text}).encode(),
        {"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["id"]


def main():
    schema_file, registry = (*sys.argv[1:], None)[:2]
    encode = encoder(schema_file, registry)
    consumer = produce.results_from_now_on()
    producer = produce.producer()
    positions = []
    for line in sys.stdin:
        command = json.loads(line)
        producer.produce(
            produce.PREFIX + "commands",
            key=command["account"].encode(),  # text, not Avro
            value=encode(command),
            on_delivery=lambda error, message: positions.append(
                {"position": (message.partition(), message.offset())}
            ),
        )
    producer.flush(produce.TIMEOUT_S)
    for result in produce.wait_for(consumer, positions, "position"):
        position = f"{result['partition']}:{result['offset']}"
        sys.stdout.write(
            f"{position} {result.get('id')} {result['outcome']} {result.get('reason', '-')}\n"
        )
    consumer.close()


if __name__ == "__main__":
    main()
