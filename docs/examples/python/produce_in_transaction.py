"""Sends all commands from standard input in one Kafka transaction, or none of them.

python produce_in_transaction.py [abort] < commands.jsonl
"""

import json
import sys

import produce
from confluent_kafka import Producer


def main():
    producer = Producer(
        {
            "bootstrap.servers": produce.BROKERS,
            "partitioner": "murmur2_random",
            # Unique per concurrent producer, and stable across restarts.
            "transactional.id": f"{produce.PREFIX}payroll-1",
            # Brokers configured for a ledger refuse the client's default of 60 s.
            "transaction.timeout.ms": 10_000,
        }
    )
    producer.init_transactions(30)
    consumer = produce.results_from_now_on()
    producer.begin_transaction()
    if sys.argv[1:] == ["abort"]:
        for line in sys.stdin:
            command = json.loads(line)
            producer.produce(produce.PREFIX + "commands", line.strip(), command["account"])
        producer.flush()
        producer.abort_transaction(30)
        sys.stdout.write("aborted: the ledger never sees them\n")
        return
    sent = produce.send(producer, sys.stdin)
    producer.commit_transaction(30)  # the ledger decides only after the commit
    for result in produce.wait_for(consumer, sent, "position"):
        position = f"{result['partition']}:{result['offset']}"
        sys.stdout.write(
            f"{position} {result.get('id')} {result['outcome']} {result.get('reason', '-')}\n"
        )


if __name__ == "__main__":
    main()
