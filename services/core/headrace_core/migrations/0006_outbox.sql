-- Changes of samples hold all features and compress tenfold; PostgreSQL's own method takes more CPU for it than the rest of an
-- insert. A server that was built without lz4 keeps its own.

DO $$
DECLARE part regclass;
BEGIN
    FOR part IN
        SELECT 'samples.changes'::regclass
        UNION ALL SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'samples.changes'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN value SET COMPRESSION lz4', part);
    END LOOP;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'PostgreSQL has no lz4 here: %', SQLERRM;
END $$;

-- What is read back goes on after a sequence number, whatever the day: by the day first, all that was left was read and sorted.
ALTER TABLE samples.changes DROP CONSTRAINT changes_pkey;
ALTER TABLE samples.changes ADD PRIMARY KEY (source, seq, day);
