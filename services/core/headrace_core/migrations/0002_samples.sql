-- The sample store: a row per request, its corrections, and the change stream.

CREATE SCHEMA samples;

-- One row per request, written at the first publication of one of its samples. Arrays run in parallel, one entry per
-- published item. The day is read off the UUIDv7.
CREATE TABLE samples.requests (
    day date NOT NULL,
    request_id uuid NOT NULL,
    user_id text NOT NULL,
    page_id text NOT NULL,
    source int NOT NULL,                     -- partition of behavior-events.v1
    model text NOT NULL,
    model_version bigint NOT NULL,
    feature_set_version bigint NOT NULL,
    items text[] NOT NULL,
    label int[] NOT NULL,
    version int[] NOT NULL,
    event_time bigint[] NOT NULL,            -- of the impressions, ms since the epoch
    position int[] NOT NULL,
    score float8[] NOT NULL,
    propensity float8[] NOT NULL,
    impression_offset bigint[] NOT NULL,
    joined_at bigint[] NOT NULL,             -- of the newest version, ms since the epoch
    log_offset bigint NOT NULL,
    log bytea STORAGE EXTERNAL NOT NULL,     -- UTF-8 JSON {"user", "context", "items": {item: features}} as served
    PRIMARY KEY (day, request_id)
) PARTITION BY RANGE (day);

-- What backs the labels of requests that have left the joiner's state, so that late clicks and cancellations are exact.
CREATE TABLE samples.actions (
    request_id uuid NOT NULL,
    item_id text NOT NULL,
    bit int NOT NULL,
    event bigint NOT NULL,                   -- hash of the action's event_id
    cancelled boolean NOT NULL,
    PRIMARY KEY (request_id, item_id, bit, event)
);

-- Actions whose sample is not there yet: tried again when it is published, given up at the horizon.
CREATE TABLE samples.waiting (
    request_id uuid NOT NULL,
    item_id text NOT NULL,
    bit int NOT NULL,
    event bigint NOT NULL,
    cancelled boolean NOT NULL,
    source int NOT NULL,
    event_time bigint NOT NULL,
    PRIMARY KEY (request_id, item_id, bit, event, cancelled)
);
CREATE INDEX waiting_by_time ON samples.waiting (source, event_time);

CREATE TABLE samples.accounting (
    source_partition int PRIMARY KEY,
    impressions bigint NOT NULL DEFAULT 0,
    joined bigint NOT NULL DEFAULT 0,
    positive bigint NOT NULL DEFAULT 0,
    negative bigint NOT NULL DEFAULT 0,
    orphaned bigint NOT NULL DEFAULT 0,
    duplicate bigint NOT NULL DEFAULT 0,
    pending bigint NOT NULL DEFAULT 0,
    corrected bigint NOT NULL DEFAULT 0,
    unattributed bigint NOT NULL DEFAULT 0,
    organic bigint NOT NULL DEFAULT 0,
    expired_logs bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- The binlog: every change of every sample, dense seq per source. Outbox of samples.v1.
CREATE TABLE samples.changes (
    day date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    source int NOT NULL,
    seq bigint NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, source, seq)
) PARTITION BY RANGE (day);

CREATE VIEW samples.current AS
SELECT r.request_id, i.item_id, r.user_id, i.event_time, i.label, i.version,
    to_timestamp(i.joined_at / 1000.0) AS joined_at, r.model, r.model_version, r.feature_set_version, r.page_id,
    i.position, i.score, i.propensity, r.source AS source_partition, i.impression_offset, r.log_offset,
    jsonb_build_object('user', d.log -> 'user', 'context', d.log -> 'context', 'item',
        coalesce(d.log -> 'items' -> i.item_id, '{}'::jsonb)) AS features
FROM samples.requests r
CROSS JOIN LATERAL unnest(r.items, r.label, r.version, r.event_time, r.position, r.score, r.propensity,
    r.impression_offset, r.joined_at)
    AS i(item_id, label, version, event_time, position, score, propensity, impression_offset, joined_at)
CROSS JOIN LATERAL (SELECT convert_from(r.log, 'UTF8')::jsonb AS log) d;
