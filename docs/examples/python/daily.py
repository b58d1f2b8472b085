"""A running total for each day, currency, kind and direction, in a SQLite file.

    python daily.py totals.db [--follow]

The totals and the positions up to which they count are committed together: killed at any instant
and started again, it counts each entry once.
"""

import sqlite3
import sys

import transactions

TABLES = """
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS totals (
    day TEXT, currency TEXT, kind TEXT, entry TEXT,
    entries INTEGER NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (day, currency, kind, entry)
);
"""
ADD = """
INSERT INTO totals VALUES (?, ?, ?, ?, 1, ?)
ON CONFLICT DO UPDATE SET entries = entries + 1, amount = amount + excluded.amount
"""
MOVE = "INSERT OR REPLACE INTO positions VALUES (?, ?)"


def main():
    file, *options = sys.argv[1:]
    kept = sqlite3.connect(file)
    kept.executescript(TABLES)
    positions = dict(kept.execute("SELECT partition, next_offset FROM positions"))
    for batch in transactions.batches(positions, follow="--follow" in options):
        with kept:  # one SQLite transaction: all of it, or nothing
            for partition, next_offset, it in batch:
                day = it["timestamp"][:10]
                kept.execute(ADD, (day, it["currency"], it["kind"], it["entry"], it["amount"]))
                kept.execute(MOVE, (partition, next_offset))
    for row in kept.execute("SELECT * FROM totals ORDER BY 1, 2, 3, 4"):
        sys.stdout.write("  ".join(map(str, row)) + "\n")
    kept.close()


if __name__ == "__main__":
    main()
