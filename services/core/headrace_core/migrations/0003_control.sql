-- The control plane: events, models, runs, workflows. Locks are taken in this order: the scheduler's row, a model's row,
-- rows of runs, the counter's row.

CREATE SCHEMA control;

-- The newest offset. Whoever appends holds this row until he commits, so offsets are dense and in commit order, and
-- create_time never goes back.
CREATE TABLE control.counter (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    newest bigint NOT NULL DEFAULT 0,
    create_time bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO control.counter DEFAULT VALUES;

CREATE TABLE control.events (
    "offset" bigint PRIMARY KEY,
    key text NOT NULL,
    value text NOT NULL,
    type text NOT NULL,
    version bigint NOT NULL,                 -- of the key in its namespace
    namespace text NOT NULL,
    sender text NOT NULL,
    sequence bigint,                         -- the sender's own number, for sending again without a second event
    create_time bigint NOT NULL,             -- ms since the epoch
    context jsonb NOT NULL
);
CREATE UNIQUE INDEX events_once ON control.events (sender, sequence) WHERE sequence IS NOT NULL;
CREATE INDEX events_by_key ON control.events (key, "offset");

-- Appends a JSON array of events, gives back their offsets in the same order. Call it as the last statement of a
-- transaction: from here to the commit everybody else who appends waits.
CREATE FUNCTION control.append_events(incoming jsonb) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
    clock bigint;
    added bigint;
    offsets bigint[];
BEGIN
    SELECT newest, greatest(create_time, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    INTO STRICT before, clock FROM control.counter FOR UPDATE;
    -- From here on this transaction sees all that was appended before, since each statement has a snapshot of its own.
    WITH told AS (
        SELECT ordinality AS n, t.key, t.value, t.type, t.namespace, t.sender, t.sequence, t.context
        FROM ROWS FROM (jsonb_to_recordset(incoming) AS (key text, value text, type text, namespace text, sender text,
            sequence bigint, context jsonb)) WITH ORDINALITY
            AS t(key, value, type, namespace, sender, sequence, context, ordinality)
    ), firsts AS (
        SELECT told.*, old."offset" AS known,
            CASE WHEN told.sequence IS NULL THEN n ELSE min(n) OVER (PARTITION BY told.sender, told.sequence) END AS first
        FROM told LEFT JOIN control.events old ON old.sender = told.sender AND old.sequence = told.sequence
    ), fresh AS (
        SELECT f.*, before + row_number() OVER (ORDER BY n) AS place,
            row_number() OVER (PARTITION BY namespace, key ORDER BY n) AS nth
        FROM firsts f WHERE known IS NULL AND first = n
    ), versions AS (
        SELECT k.namespace, k.key, coalesce((SELECT e.version FROM control.events e
            WHERE e.key = k.key AND e.namespace = k.namespace ORDER BY e."offset" DESC LIMIT 1), 0) AS version
        FROM (SELECT DISTINCT namespace, key FROM fresh) k
    ), written AS (
        INSERT INTO control.events ("offset", key, value, type, version, namespace, sender, sequence, create_time, context)
        SELECT f.place, f.key, f.value, f.type, v.version + f.nth, f.namespace, f.sender, f.sequence, clock, f.context
        FROM fresh f JOIN versions v ON v.namespace = f.namespace AND v.key = f.key
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM written), array_agg(coalesce(f.known, g.place) ORDER BY f.n)
    INTO added, offsets
    FROM firsts f LEFT JOIN fresh g ON g.n = f.first;
    IF added > 0 THEN
        UPDATE control.counter SET newest = before + added, create_time = clock;
        PERFORM pg_notify('control_events', (before + added)::text);
    END IF;
    RETURN coalesce(offsets, '{}');
END $$;

-- How far the relay to Kafka is.
CREATE TABLE control.relay (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    published bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO control.relay DEFAULT VALUES;

CREATE TABLE control.models (
    model text PRIMARY KEY,
    reserved bigint NOT NULL DEFAULT 0       -- the newest version number that was given out
) WITH (fillfactor = 50);

CREATE TABLE control.versions (
    model text NOT NULL REFERENCES control.models,
    version bigint NOT NULL,
    stage text NOT NULL CHECK (stage IN ('GENERATED', 'VALIDATED', 'REJECTED', 'DEPLOYED', 'DEPRECATED', 'DELETED')),
    track text NOT NULL DEFAULT 'stable',
    artifact text NOT NULL,
    parent jsonb,
    manifest jsonb NOT NULL,
    metrics jsonb NOT NULL,
    run_id text,                             -- that made it
    PRIMARY KEY (model, version)
);
CREATE UNIQUE INDEX one_deployed ON control.versions (model, track) WHERE stage = 'DEPLOYED';

CREATE TABLE control.version_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    version bigint NOT NULL,
    stage text NOT NULL,
    time bigint NOT NULL,
    by text NOT NULL,
    why text NOT NULL,
    details jsonb NOT NULL,
    track text NOT NULL,
    FOREIGN KEY (model, version) REFERENCES control.versions
);
CREATE INDEX version_history_of ON control.version_history (model, version, id);

CREATE TABLE control.version_metrics (
    model text NOT NULL,
    version bigint NOT NULL,
    name text NOT NULL,
    slice text NOT NULL,
    time bigint NOT NULL,
    value float8 NOT NULL,
    PRIMARY KEY (model, version, name, slice, time),
    FOREIGN KEY (model, version) REFERENCES control.versions
);

-- The scheduler's place: the leader that holds this epoch may decide, and has seen all events up to `consumed`.
CREATE TABLE control.scheduler (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    epoch bigint NOT NULL DEFAULT 0,
    consumed bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
INSERT INTO control.scheduler DEFAULT VALUES;

CREATE TABLE control.workflows (
    workflow text PRIMARY KEY,
    snapshot bigint NOT NULL,
    paused boolean NOT NULL DEFAULT false
);

CREATE TABLE control.snapshots (
    workflow text NOT NULL,
    snapshot bigint NOT NULL,
    document jsonb NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (workflow, snapshot)
);

CREATE TABLE control.rule_states (
    workflow text NOT NULL,
    rule text NOT NULL,
    definition jsonb NOT NULL,               -- that the state belongs to; another one starts anew
    active_after bigint NOT NULL,            -- the rule sees later offsets only
    state jsonb NOT NULL,
    PRIMARY KEY (workflow, rule)
) WITH (fillfactor = 50);

CREATE TABLE control.firings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow text NOT NULL,
    rule text NOT NULL,
    time bigint NOT NULL,
    events bigint[] NOT NULL,                -- that met the conditions, oldest first
    effect text NOT NULL,
    run_id text
);
CREATE INDEX firings_of ON control.firings (workflow, rule, id);

-- Events that a rule could not work with.
CREATE TABLE control.set_aside (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow text NOT NULL,
    rule text NOT NULL,
    event bigint NOT NULL,
    time bigint NOT NULL,
    error text NOT NULL
);
CREATE INDEX set_aside_of ON control.set_aside (workflow, rule, id);

CREATE TABLE control.tasks (
    workflow text NOT NULL,
    task text NOT NULL,
    runs bigint NOT NULL DEFAULT 0,          -- how many it had
    PRIMARY KEY (workflow, task)
) WITH (fillfactor = 50);

CREATE TABLE control.runs (
    id bigint GENERATED ALWAYS AS IDENTITY,  -- their order
    run_id text PRIMARY KEY,                 -- workflow.task.number
    workflow text NOT NULL,
    task text NOT NULL,
    snapshot bigint NOT NULL,
    executor text NOT NULL CHECK (executor IN ('process', 'resident', 'stream')),
    service text NOT NULL,
    command jsonb NOT NULL,
    policy jsonb NOT NULL,                   -- {retries, backoff_ms, timeout_ms} as the workflow told when it began
    status text NOT NULL CHECK (status IN ('INIT', 'QUEUED', 'STARTING', 'RUNNING', 'STOPPING', 'STOPPED', 'SUCCEEDED',
        'FAILED', 'RETRYING')),
    attempt int NOT NULL DEFAULT 1,
    cause jsonb NOT NULL,
    worker text NOT NULL DEFAULT '',
    nonce text,                              -- of the claim, so that it may be repeated
    token text UNIQUE,                       -- good from the claim to the end
    host text NOT NULL DEFAULT '',
    pid int,
    pid_started float8,                      -- tells the process from another that got its pid
    created_at bigint NOT NULL,
    not_before bigint NOT NULL DEFAULT 0,    -- of the next attempt
    started_at bigint,
    heartbeat_at bigint,
    stopping_at bigint,
    ended_at bigint,
    result jsonb NOT NULL DEFAULT '{}',
    error text NOT NULL DEFAULT ''
) WITH (fillfactor = 50);
CREATE INDEX runs_of ON control.runs (workflow, task, id);
CREATE INDEX runs_alive ON control.runs (status) WHERE status NOT IN ('STOPPED', 'SUCCEEDED', 'FAILED');
