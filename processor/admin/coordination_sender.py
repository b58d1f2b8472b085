"""Sends an operator's messages to partitions, through `coordination`.

Keeps the rule that a command never says that nothing changed where that is unknown. What a message
means is its sender's affair.
"""

from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from plumbing.failures import Failure
from plumbing.kafka import auth_errors, transient_errors
from plumbing.kafka.clients import ClientConfig
from processor.lanes import batch_output
from schemas.coordination import Configure, LogTime
from schemas.topics import Names

# The client reports on each message within the first; the flush waits a little longer.
DELIVERY_TIMEOUT_MS: Final = 30_000
FLUSH_TIMEOUT_S: Final = 40.0


class Unconfirmed(Failure):
    """Kafka may have taken the messages, or may not."""


def send(config: ClientConfig, names: Names, messages: Mapping[int, Configure | LogTime]) -> None:
    """One message to each partition. Returns once Kafka has confirmed all of them."""
    producer = Producer(
        {
            **config,
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": DELIVERY_TIMEOUT_MS,
        }
    )
    errors: list[KafkaError] = []
    confirmed: list[Message] = []

    def report(error: KafkaError | None, message: Message) -> None:
        if error is None:
            confirmed.append(message)
        else:
            errors.append(error)

    for partition, message in messages.items():
        encoded = batch_output.encode_message(message)
        producer.produce(names.coordination, encoded, None, partition, on_delivery=report)
    producer.flush(FLUSH_TIMEOUT_S)
    if len(confirmed) == len(messages):
        return
    failures = [KafkaException(error) for error in errors]
    refusals = [error for error in failures if not transient_errors.is_transient(error)]
    if len(refusals) < len(messages):
        raise Unconfirmed(
            f"Kafka has not confirmed {len(messages) - len(confirmed)} of {len(messages)} messages:"
            " they may have been written. Give the command again once Kafka answers"
        )
    refusal = auth_errors.with_operator_hint(config, refusals[0])
    if refusal is not refusals[0]:
        raise refusal
    raise Failure(f"Kafka refused the message: {refusals[0].args[0].str()}; nothing was changed")
