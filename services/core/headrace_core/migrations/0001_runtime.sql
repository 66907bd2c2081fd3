-- What the stream workers persist: who owns a partition, how far it is, its state, and what is still to be published.

CREATE SCHEMA runtime;

-- One row raises with every restore of a backup: readers of sequenced topics tell by it that history was rewound.
CREATE TABLE runtime.incarnation (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    incarnation bigint NOT NULL DEFAULT 1,
    raised_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO runtime.incarnation DEFAULT VALUES;

-- A row per job and partition. Its epoch is the fencing token: a checkpoint commits only under the epoch it was claimed with.
CREATE TABLE runtime.partitions (
    job text NOT NULL,
    partition int NOT NULL,
    epoch bigint NOT NULL,
    number bigint NOT NULL DEFAULT 0,            -- checkpoint within the epoch
    owner text NOT NULL,                          -- application_name of the owner's connection
    claimed_at timestamptz NOT NULL DEFAULT now(),
    committed_at timestamptz,
    cluster text,                                 -- id of the Kafka cluster that the offsets belong to
    topics jsonb,                                 -- {topic: its id}
    offsets jsonb NOT NULL DEFAULT '{}',          -- {topic: next offset}
    watermarks jsonb NOT NULL DEFAULT '{}',       -- {topic: ms since the epoch}
    watermark bigint,                             -- of the operator, ms since the epoch
    ordinal bigint NOT NULL DEFAULT 0,            -- of the newest row in runtime.state
    snapshot_bytes bigint NOT NULL DEFAULT 0,     -- size of the newest snapshot
    changes_bytes bigint NOT NULL DEFAULT 0,      -- size of the changes after it
    next_seq bigint NOT NULL DEFAULT 1,           -- of the outbox
    published_seq bigint NOT NULL DEFAULT 0,      -- all of the outbox up to here is acknowledged by Kafka
    PRIMARY KEY (job, partition)
) WITH (fillfactor = 50);

-- State of operators: a snapshot and the changes after it. Compressed by the runtime, so Postgres need not try.
CREATE TABLE runtime.state (
    job text NOT NULL,
    partition int NOT NULL,
    ordinal bigint NOT NULL,
    whole boolean NOT NULL,
    data bytea STORAGE EXTERNAL NOT NULL,
    PRIMARY KEY (job, partition, ordinal)
);
