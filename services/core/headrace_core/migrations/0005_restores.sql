-- What is left of a restore of this database from a backup: the history after the backup is void, and told anew.

CREATE TABLE runtime.restores (
    name text PRIMARY KEY,                       -- given by who restored; the same name raises once
    incarnation bigint NOT NULL,                 -- that began with it
    epoch bigint NOT NULL,                       -- all claims after it are higher
    raised_at timestamptz NOT NULL DEFAULT now()
);

-- Where each source's sequence goes on in an incarnation. Messages of lower incarnations from `first_seq` on are void.
CREATE TABLE runtime.rewinds (
    job text NOT NULL,
    partition int NOT NULL,
    incarnation bigint NOT NULL,
    first_seq bigint NOT NULL,
    PRIMARY KEY (job, partition, incarnation)
);
