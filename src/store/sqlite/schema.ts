import { checkSource } from '../installation.js';
import type { Connection } from './connection.js';

// "KyRv": marks the file as Keyreeve's, so that another program's database is never written to.
const APPLICATION_ID = 0x4b795276;

interface Step {
  readonly does: string;
  readonly sql: string;
}

/** Each brings the file from the version that is its index to the next. A step that has been released never changes. */
export const STEPS: readonly Step[] = [
  {
    does: 'created the tables',
    // Times are milliseconds since 1970; scopes, labels, actors and revocations are JSON.
    sql: `
      CREATE TABLE organizations (
        keyspace TEXT NOT NULL,
        organization_id TEXT NOT NULL,
        plan TEXT,
        suspended INTEGER NOT NULL,
        key_count INTEGER NOT NULL CHECK (key_count >= 0),
        sequence INTEGER NOT NULL,
        hash TEXT NOT NULL,
        last_event_time INTEGER,
        create_time INTEGER,
        update_time INTEGER,
        revision INTEGER NOT NULL,
        PRIMARY KEY (keyspace, organization_id)
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE keys (
        key_id TEXT NOT NULL PRIMARY KEY,
        keyspace TEXT NOT NULL,
        organization_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        public_id TEXT,
        client_id TEXT,
        lineage_id TEXT NOT NULL,
        rotated_from TEXT,
        superseded_by TEXT,
        name TEXT NOT NULL,
        name_is_unique INTEGER NOT NULL,
        type TEXT NOT NULL,
        display TEXT NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        digest_algorithm TEXT NOT NULL CHECK (digest_algorithm IN ('sha256', 'hmac-sha256')),
        pepper_version INTEGER NOT NULL,
        scopes TEXT NOT NULL,
        labels TEXT NOT NULL,
        standing TEXT NOT NULL CHECK (standing IN ('usable', 'disabled', 'revoked')),
        revoke_time INTEGER CHECK ((revoke_time IS NOT NULL) = (standing = 'revoked')),
        revocation TEXT CHECK ((revocation IS NOT NULL) = (standing = 'revoked')),
        create_time INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        expire_time INTEGER
      ) STRICT;

      CREATE UNIQUE INDEX keys_digest ON keys (keyspace, digest);
      CREATE UNIQUE INDEX keys_sequence ON keys (keyspace, organization_id, sequence);
      CREATE UNIQUE INDEX keys_unique_name ON keys (keyspace, organization_id, name)
        WHERE name_is_unique = 1 AND revoke_time IS NULL AND superseded_by IS NULL;
      CREATE INDEX keys_name ON keys (keyspace, organization_id, name, revoke_time, sequence);
      CREATE INDEX keys_client_id ON keys (keyspace, organization_id, client_id) WHERE client_id IS NOT NULL;
      CREATE INDEX keys_lineage ON keys (keyspace, organization_id, lineage_id) WHERE revoke_time IS NULL;
      CREATE INDEX keys_unrevoked ON keys (keyspace, organization_id, sequence) WHERE revoke_time IS NULL;
      CREATE INDEX keys_expiry ON keys (keyspace, organization_id, expire_time)
        WHERE expire_time IS NOT NULL AND standing = 'usable' AND superseded_by IS NULL;

      CREATE TABLE events (
        keyspace TEXT NOT NULL,
        organization_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        event_id TEXT NOT NULL,
        type TEXT NOT NULL,
        key_id TEXT NOT NULL,
        time INTEGER NOT NULL,
        hash TEXT NOT NULL,
        cloud_event TEXT NOT NULL,
        published INTEGER NOT NULL,
        PRIMARY KEY (keyspace, organization_id, sequence)
      ) STRICT;

      CREATE INDEX events_key ON events (keyspace, organization_id, key_id, sequence);
      CREATE INDEX events_pending ON events (time, keyspace, organization_id, sequence) WHERE published = 0;
      CREATE INDEX events_pending_of ON events (keyspace, organization_id, sequence) WHERE published = 0;

      CREATE TABLE requests (
        keyspace TEXT NOT NULL,
        organization_id TEXT NOT NULL,
        caller TEXT NOT NULL,
        method TEXT NOT NULL,
        request_id TEXT NOT NULL,
        hash TEXT NOT NULL,
        key_ids TEXT NOT NULL,
        time INTEGER NOT NULL,
        PRIMARY KEY (keyspace, organization_id, caller, method, request_id)
      ) STRICT;

      CREATE INDEX requests_time ON requests (time);

      CREATE TABLE keyspaces (
        name TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        prefix TEXT NOT NULL,
        body_length INTEGER NOT NULL,
        unique_names INTEGER NOT NULL
      ) STRICT;

      -- One row at most, in each of these.
      CREATE TABLE leadership (
        one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
        holder TEXT NOT NULL,
        count INTEGER NOT NULL
      ) STRICT;

      CREATE TABLE last_ping (
        one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
        time INTEGER NOT NULL
      ) STRICT;
    `,
  },
  {
    does: 'made room for settings, rotations, last uses, budgets, peppers and positions',
    sql: `
      ALTER TABLE organizations ADD COLUMN settings_revision INTEGER NOT NULL DEFAULT 0;
      CREATE INDEX organizations_plan ON organizations (keyspace, plan) WHERE plan IS NOT NULL;

      -- With the column of its condition, or each row would be read to count it.
      CREATE INDEX keys_pepper ON keys (pepper_version, revoke_time) WHERE revoke_time IS NULL;

      ALTER TABLE events ADD COLUMN previous_key_id TEXT;
      CREATE INDEX events_previous_key ON events (keyspace, organization_id, previous_key_id, sequence)
        WHERE previous_key_id IS NOT NULL;

      CREATE TABLE last_uses (
        key_id TEXT NOT NULL PRIMARY KEY,
        time INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;

      CREATE TABLE budgets (
        lineage_id TEXT NOT NULL PRIMARY KEY,
        opened_at INTEGER NOT NULL,
        taken INTEGER NOT NULL
      ) STRICT, WITHOUT ROWID;

      CREATE INDEX budgets_opened_at ON budgets (opened_at);

      CREATE TABLE peppers (
        version INTEGER NOT NULL PRIMARY KEY,
        fingerprint TEXT NOT NULL
      ) STRICT;

      -- One row: where the events come from, since the first opening.
      CREATE TABLE installation (
        one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
        source TEXT NOT NULL
      ) STRICT;

      INSERT INTO installation (one, source) SELECT 1, cloud_event ->> '$.source' FROM events LIMIT 1;

      -- How far each lane of a sink is known to hold what was published from here.
      CREATE TABLE positions (
        sink TEXT NOT NULL,
        lane INTEGER NOT NULL,
        "end" INTEGER NOT NULL,
        PRIMARY KEY (sink, lane)
      ) STRICT, WITHOUT ROWID;
    `,
  },
];

/**
 * Brings the file to this release's version, each step whole or not at all.
 * @returns what it did, a line a step; empty where there was nothing to do
 * @throws Error for a file of another program or of a newer release
 */
export function prepareSchema(connection: Connection): string[] {
  const version = Number(connection.pragma('user_version'));
  if (connection.pragma('application_id') !== APPLICATION_ID && (version !== 0 || hasTables(connection))) {
    throw new Error('it is the database of another program');
  }
  if (version > STEPS.length) {
    throw new Error(
      `a newer release wrote it (schema version ${version}, this one knows ${STEPS.length}): run that release or a later one`,
    );
  }
  return STEPS.slice(version).map(({ does, sql }, at) => {
    const next = version + at + 1;
    connection.transaction(() => {
      connection.exec(sql);
      connection.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${next};`);
    });
    return `schema version ${next}: ${does}`;
  });
}

function hasTables(connection: Connection): boolean {
  return connection.prepare('SELECT 1 FROM sqlite_schema LIMIT 1').get({}) !== undefined;
}

/**
 * Ties the file to its first installation.
 * @throws Error where that was another one
 */
export function claim(connection: Connection, source: string): void {
  connection.transaction(() => {
    connection.prepare('INSERT OR IGNORE INTO installation (one, source) VALUES (1, :source)').run({ source });
    const stored = connection.prepare<{ source: string }>('SELECT source FROM installation').get({});
    checkSource(stored?.source ?? source, source);
  });
}
