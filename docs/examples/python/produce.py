"""Sends commands, one JSON object per line of standard input, and prints the result of each.

python produce.py [position|id] < commands.jsonl
"""
# ruff: noqa: T201

import json
import os
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

BROKERS = os.environ.get("KAFKA_BROKERS", "127.0.0.1:9092")
PREFIX = os.environ.get("TOPIC_PREFIX", "")
TIMEOUT_S = 30


def producer():
    return Producer(
        {
            "bootstrap.servers": BROKERS,
            # With librdkafka's default hash most commands would be misrouted.
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "acks": "all",
        }
    )


def results_from_now_on():
    """A consumer of all of `results` without a group. Create it before sending anything."""
    consumer = Consumer(
        {
            "bootstrap.servers": BROKERS,
            "group.id": "none",  # required by the client but unused
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    topic = PREFIX + "results"
    ends = []
    metadata = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    for number in metadata.partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=TIMEOUT_S)
        ends.append(TopicPartition(topic, number, end))
    consumer.assign(ends)
    return consumer


def send(producer, lines):
    """Returns the ids and positions of the commands, in order, once Kafka has all of them."""
    sent = []
    for line in lines:
        command = json.loads(line)
        record = {"id": command["id"], "position": None}
        sent.append(record)

        def delivered(error, message, record=record):
            if error is not None:
                # It may be in the topic anyway: send it again with the same key.
                raise KafkaException(error)
            record["position"] = (message.partition(), message.offset())

        producer.produce(
            PREFIX + "commands",
            key=command["account"].encode(),  # the bare id: no quotes, no Avro
            value=json.dumps(command).encode(),
            on_delivery=delivered,
        )
        producer.poll(0)
    if producer.flush(TIMEOUT_S):
        sys.exit("Kafka did not acknowledge all commands in time")
    return sent


def wait_for(consumer, sent, by):
    """Returns the results of the commands sent, matched by `id` or by `position`."""
    results = {}
    deadline = time.monotonic() + TIMEOUT_S
    while not all(record[by] in results for record in sent):
        if time.monotonic() > deadline:
            sys.exit("some results did not arrive in time; no command is lost")
        for message in consumer.consume(100, 0.1):
            if message.error() is not None:
                raise KafkaException(message.error())
            result = json.loads(message.value())
            position = (result["partition"], result["offset"])
            results[position if by == "position" else result.get("id")] = result
    return [results[record[by]] for record in sent]


def main():
    by = sys.argv[1] if len(sys.argv) > 1 else "position"
    consumer = results_from_now_on()
    sent = send(producer(), sys.stdin)
    for result in wait_for(consumer, sent, by):
        position = f"{result['partition']}:{result['offset']}"
        print(position, result.get("id"), result["outcome"], result.get("reason", "-"))
    consumer.close()


if __name__ == "__main__":
    main()
