"""Sends commands, one of JSON on each line of standard input, and shows the result of each.

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
            # librdkafka's own default is another hash: with it most commands are misrouted.
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "acks": "all",
        }
    )


def results_from_now_on():
    """A reader of all of `results`, in no group. It must be made before anything is sent."""
    consumer = Consumer(
        {
            "bootstrap.servers": BROKERS,
            "group.id": "none",  # required by the client, and not used
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    topic = PREFIX + "results"
    ends = []
    known = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if known.error is not None:
        raise KafkaException(known.error)
    for number in known.partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=TIMEOUT_S)
        ends.append(TopicPartition(topic, number, end))
    consumer.assign(ends)
    return consumer


def send(producer, lines):
    """The commands with their positions, in their order, once Kafka has all of them."""
    sent = []
    for line in lines:
        command = json.loads(line)
        record = {"id": command["id"], "position": None}
        sent.append(record)

        def delivered(error, message, record=record):
            if error is not None:
                # It may be in the topic all the same: send it again with the same key.
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
        sys.exit("Kafka did not confirm all of them in time")
    return sent


def wait_for(consumer, sent, by):
    """The results of what was sent, by `id` or by `position`."""
    found = {}
    deadline = time.monotonic() + TIMEOUT_S
    while not all(record[by] in found for record in sent):
        if time.monotonic() > deadline:
            sys.exit("some results have not come in time; the commands are not lost")
        for message in consumer.consume(100, 0.1):
            if message.error() is not None:
                raise KafkaException(message.error())
            result = json.loads(message.value())
            position = (result["partition"], result["offset"])
            found[position if by == "position" else result.get("id")] = result
    return [found[record[by]] for record in sent]


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
