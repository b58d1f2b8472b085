"""Keeps running totals per day, currency, kind and direction in a SQLite file.

    python daily.py totals.db [--follow]

It commits the totals together with the positions up to which they count. So it counts each entry
once, even if it is killed at any instant and restarted.
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
ADD_ENTRY = """
INSERT INTO totals VALUES (?, ?, ?, ?, 1, ?)
ON CONFLICT DO UPDATE SET entries = entries + 1, amount = amount + excluded.amount
"""
SAVE_POSITION = "INSERT OR REPLACE INTO positions VALUES (?, ?)"


def main():
    file, *options = sys.argv[1:]
    database = sqlite3.connect(file)
    database.executescript(TABLES)
    positions = dict(database.execute("SELECT partition, next_offset FROM positions"))
    for batch in transactions.batches(positions, follow="--follow" in options):
        with database:  # one SQLite transaction
            for partition, next_offset, entry in batch:
                day = entry["timestamp"][:10]
                key = (day, entry["currency"], entry["kind"], entry["entry"])
                database.execute(ADD_ENTRY, (*key, entry["amount"]))
                database.execute(SAVE_POSITION, (partition, next_offset))
    for row in database.execute("SELECT * FROM totals ORDER BY 1, 2, 3, 4"):
        sys.stdout.write("  ".join(map(str, row)) + "\n")
    database.close()


if __name__ == "__main__":
    main()
