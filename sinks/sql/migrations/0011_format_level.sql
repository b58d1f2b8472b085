-- The format level that the journal had reached at a position. A program that does not support it
-- would drop fields that it does not know, so it refuses the partition.
-- Every row from before has level 1: no program that raised it has been released.

ALTER TABLE ledger.positions
    ADD COLUMN format_level integer NOT NULL DEFAULT 1 CHECK (format_level > 0);
ALTER TABLE ledger.positions ALTER COLUMN format_level DROP DEFAULT;
