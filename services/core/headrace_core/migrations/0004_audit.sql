-- Calls of the control plane that change something. A row is committed before the work begins; one without a status was cut off.
CREATE TABLE control.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time bigint NOT NULL,                    -- ms since the epoch
    by text NOT NULL,                        -- name of the key; empty where no keys are configured
    address text NOT NULL,                   -- of the client
    method text NOT NULL,
    path text NOT NULL,
    body text NOT NULL,                      -- JSON, without tokens; a large one by its SHA-256
    status int,                              -- that it was answered with
    ended bigint
) WITH (fillfactor = 80);
CREATE INDEX audit_by ON control.audit (by, id);
