import { isDeepStrictEqual } from 'node:util';
import {
  type Collection,
  type CollectionInfo,
  type CreateIndexesOptions,
  type Db,
  type Document,
  Int32,
} from 'mongodb';
import { z } from 'zod';

import type { Deadline } from '../../keys/clock.js';
import { REQUEST_KEPT_MS } from '../../keys/repeat.js';
import { checkSource } from '../installation.js';
import type { Ask, Connection } from './connection.js';
import type {
  BudgetRow,
  EventRow,
  KeyRow,
  KeyspaceRow,
  LastUseRow,
  LeadershipRow,
  MetaRow,
  OrganizationRow,
  PepperRow,
  PositionRow,
  ReplicaRow,
  RequestRow,
} from './rows.js';
import { isSchemaRace } from './trouble.js';

/** What this release knows; one more with each change that an older release could not live with. */
const VERSION = 3;

/** Long after a window has ended, whatever its length. */
const BUDGET_KEPT_S = 24 * 60 * 60;

const RACES_MAX = 10;
const TOLD_EVERY_MS = 10_000;

interface Index extends CreateIndexesOptions {
  key: Record<string, 1 | -1>;
  name: string;
}

interface CollectionPlan {
  name: keyof Collections;
  validator: Document;
  indexes: Index[];
}

export interface Collections {
  keys: Collection<KeyRow>;
  organizations: Collection<OrganizationRow>;
  events: Collection<EventRow>;
  requests: Collection<RequestRow>;
  keyspaces: Collection<KeyspaceRow>;
  last_uses: Collection<LastUseRow>;
  budgets: Collection<BudgetRow>;
  peppers: Collection<PepperRow>;
  relay: Collection<LeadershipRow>;
  positions: Collection<PositionRow>;
  replicas: Collection<ReplicaRow>;
  meta: Collection<MetaRow>;
}

export function collectionsOf(db: Db): Collections {
  return {
    keys: db.collection('keys'),
    organizations: db.collection('organizations'),
    events: db.collection('events'),
    requests: db.collection('requests'),
    keyspaces: db.collection('keyspaces'),
    last_uses: db.collection('last_uses'),
    budgets: db.collection('budgets'),
    peppers: db.collection('peppers'),
    relay: db.collection('relay'),
    positions: db.collection('positions'),
    replicas: db.collection('replicas'),
    meta: db.collection('meta'),
  };
}

const ref = { keyspace: 'string', organization_id: 'string' };

/** Types as BSON names them, by field; a type in `optional` may be missing. */
function fields(required: Record<string, string>, optional: Record<string, string> = {}): Document {
  const typed = (types: Record<string, string>) =>
    Object.fromEntries(Object.entries(types).map(([name, bsonType]) => [name, { bsonType }]));
  return {
    $jsonSchema: {
      bsonType: 'object',
      required: Object.keys(required),
      properties: { ...typed(required), ...typed(optional) },
    },
  };
}

const PLANS: CollectionPlan[] = [
  {
    name: 'keys',
    validator: {
      ...fields(
        {
          _id: 'string',
          ...ref,
          sequence: 'long',
          revision: 'long',
          lineage_id: 'string',
          name: 'string',
          name_is_unique: 'bool',
          current: 'bool',
          type: 'string',
          display: 'string',
          digest: 'binData',
          digest_algorithm: 'string',
          pepper_version: 'int',
          scopes: 'array',
          labels: 'array',
          standing: 'string',
          create_time: 'date',
          created_by: 'object',
        },
        {
          public_id: 'string',
          client_id: 'string',
          rotated_from: 'string',
          superseded_by: 'string',
          unique_name: 'string',
          revoke_time: 'date',
          revoked_by: 'object',
          revocation_reason: 'string',
          reason_detail: 'string',
          expire_time: 'date',
        },
      ),
      $expr: { $eq: [{ $binarySize: '$digest' }, 32] },
    },
    indexes: [
      { name: 'digest', key: { keyspace: 1, digest: 1 }, unique: true },
      {
        name: 'unique_name',
        key: { keyspace: 1, organization_id: 1, unique_name: 1 },
        unique: true,
        partialFilterExpression: { unique_name: { $exists: true } },
      },
      { name: 'list', key: { keyspace: 1, organization_id: 1, standing: 1, sequence: -1 } },
      // Finds the current keys of a name, and the one revoked last.
      {
        name: 'name',
        key: { keyspace: 1, organization_id: 1, name: 1, current: 1, revoke_time: -1, sequence: -1 },
      },
      {
        name: 'client_id',
        key: { keyspace: 1, organization_id: 1, client_id: 1 },
        partialFilterExpression: { client_id: { $exists: true } },
      },
      { name: 'lineage', key: { keyspace: 1, organization_id: 1, lineage_id: 1, standing: 1 } },
      {
        name: 'expiry',
        key: { keyspace: 1, organization_id: 1, expire_time: 1 },
        partialFilterExpression: { current: true, standing: 'usable', expire_time: { $exists: true } },
      },
      // Tells whether a keyspace has unrevoked keys, and counts their digests by pepper, without reading one.
      { name: 'standing', key: { standing: 1, keyspace: 1, pepper_version: 1 } },
    ],
  },
  {
    name: 'organizations',
    validator: fields(
      {
        _id: 'string',
        ...ref,
        suspended: 'bool',
        key_count: 'long',
        sequence: 'long',
        hash: 'string',
        revision: 'long',
      },
      {
        plan: 'string',
        settings_revision: 'long',
        last_event_time: 'date',
        create_time: 'date',
        update_time: 'date',
      },
    ),
    indexes: [{ name: 'plan', key: { keyspace: 1, plan: 1 }, partialFilterExpression: { plan: { $exists: true } } }],
  },
  {
    name: 'events',
    validator: fields(
      {
        _id: 'string',
        ...ref,
        organization: 'string',
        sequence: 'long',
        type: 'string',
        key_id: 'string',
        time: 'date',
        hash: 'string',
        cloud_event: 'string',
        published: 'bool',
      },
      { previous_key_id: 'string' },
    ),
    indexes: [
      { name: 'sequence', key: { keyspace: 1, organization_id: 1, sequence: 1 }, unique: true },
      { name: 'key', key: { keyspace: 1, organization_id: 1, key_id: 1, sequence: 1 } },
      {
        name: 'previous_key',
        key: { keyspace: 1, organization_id: 1, previous_key_id: 1, sequence: 1 },
        partialFilterExpression: { previous_key_id: { $exists: true } },
      },
      {
        name: 'pending',
        key: { published: 1, time: 1, organization: 1, sequence: 1 },
        partialFilterExpression: { published: false },
      },
    ],
  },
  {
    name: 'requests',
    validator: fields({ _id: 'object', hash: 'string', key_ids: 'array', create_time: 'date' }),
    indexes: [{ name: 'age', key: { create_time: 1 }, expireAfterSeconds: REQUEST_KEPT_MS / 1000 }],
  },
  {
    name: 'keyspaces',
    validator: fields({
      _id: 'string',
      kind: 'string',
      prefix: 'string',
      body_length: 'int',
      unique_names: 'bool',
    }),
    indexes: [],
  },
  { name: 'last_uses', validator: fields({ _id: 'string', time: 'date' }), indexes: [] },
  {
    name: 'budgets',
    validator: fields({
      _id: 'string',
      opened_at: 'date',
      taken: 'long',
      last_taken: 'long',
      last_taken_at: 'date',
    }),
    indexes: [{ name: 'age', key: { opened_at: 1 }, expireAfterSeconds: BUDGET_KEPT_S }],
  },
  { name: 'peppers', validator: fields({ _id: 'int', fingerprint: 'string' }), indexes: [] },
  { name: 'relay', validator: fields({ _id: 'string', holder: 'string', count: 'long' }), indexes: [] },
  { name: 'positions', validator: fields({ _id: 'object', end: 'long' }), indexes: [] },
  {
    name: 'replicas',
    validator: fields({ _id: 'string', number: 'long', applied: 'timestamp', lease_ms: 'int' }),
    indexes: [],
  },
  {
    name: 'meta',
    validator: fields({ _id: 'string' }, { version: 'int', source: 'string', count: 'long' }),
    indexes: [],
  },
];

interface Preparing {
  /** The end of what takes no time: all but the building of indexes. */
  readonly soon: () => Deadline;
  /** Told, a line each, what was done and what takes long; nothing where there was nothing to do. */
  readonly report: (line: string) => void;
}

/**
 * Makes what is missing: collections, validators, indexes. Several replicas may do so at the same time. The server builds
 * an index for as long as it takes, which with many keys is minutes.
 * @throws Error for a database that a newer release has written to
 */
export async function prepareSchema(connection: Connection, preparing: Preparing): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await prepareOnce(connection, preparing);
      return;
    } catch (error) {
      if (!isSchemaRace(error) || attempt === RACES_MAX) throw error;
      await connection.backOff(attempt, preparing.soon());
    }
  }
}

async function prepareOnce(connection: Connection, { soon, report }: Preparing): Promise<void> {
  const { db } = connection;
  const { meta } = collectionsOf(db);
  const ask: Ask = (call) => connection.ask(soon())(call);
  const stored = await ask((bounds) => meta.findOne({ _id: 'schema' }, bounds));
  const version = Number(stored?.version ?? 0);
  if (version > VERSION) {
    throw new Error(
      `a newer release wrote it (schema version ${version}, this one knows ${VERSION}): run that release or a later one`,
    );
  }
  const existing = await ask((bounds) => db.listCollections<CollectionInfo>({}, bounds).toArray());
  for (const { name, validator, indexes } of PLANS) {
    const found = existing.find((collection) => collection.name === name);
    if (!found) {
      await ask((bounds) => db.createCollection(name, { ...bounds, validator }));
      report(`created collection ${name}`);
    } else if (!isDeepStrictEqual(found.options?.validator, validator)) {
      await ask((bounds) => db.command({ collMod: name, validator, maxTimeMS: bounds.maxTimeMS }));
      report(`set the validator of ${name}`);
    }
    if (indexes.length === 0) continue;
    const indexed = (await ask((bounds) => db.collection(name).listIndexes(bounds).toArray())) as { name: string }[];
    const missing = indexes.filter((index) => !indexed.some((one) => one.name === index.name));
    if (missing.length === 0) continue;
    await createIndexes(connection, name, missing, report);
    for (const index of missing) report(`created index ${name}.${index.name}`);
  }
  if (version === VERSION) return;
  await ask((bounds) =>
    meta.updateOne({ _id: 'schema' }, { $max: { version: new Int32(VERSION) } }, { ...bounds, upsert: true }),
  );
  report(`schema version ${VERSION}`);
}

async function createIndexes(
  connection: Connection,
  collection: string,
  indexes: readonly Index[],
  report: Preparing['report'],
): Promise<void> {
  const names = indexes.map(({ name }) => `${collection}.${name}`).join(', ');
  const timer = setInterval(() => report(`still creating index ${names}`), TOLD_EVERY_MS);
  try {
    // Not every member: one that is down must not keep the service from starting.
    await connection.patiently((db) =>
      db.collection(collection).createIndexes([...indexes], { commitQuorum: 'majority' }),
    );
  } finally {
    clearInterval(timer);
  }
}

/**
 * Ties the database to its first installation.
 * @throws Error where that was another one
 */
export async function claim(connection: Connection, source: string, deadline: Deadline): Promise<void> {
  const { meta } = collectionsOf(connection.db);
  const stored = await connection.ask(deadline)((bounds) => meta.findOne({ _id: 'installation' }, bounds));
  if (stored?.source !== undefined) {
    checkSource(stored.source, source);
    return;
  }
  const first = (await sourceOfEvents(connection, deadline)) ?? source;
  const row = await connection.upsert(deadline, (bounds) =>
    meta.findOneAndUpdate(
      { _id: 'installation' },
      { $setOnInsert: { source: first } },
      { ...bounds, upsert: true, returnDocument: 'after' },
    ),
  );
  checkSource(row?.source ?? first, source);
}

/** Of a database that an earlier release wrote to, which did not say it. */
async function sourceOfEvents(connection: Connection, deadline: Deadline): Promise<string | undefined> {
  const { events } = collectionsOf(connection.db);
  const event = await connection.ask(deadline)((bounds) =>
    events.findOne({}, { ...bounds, projection: { cloud_event: 1 } }),
  );
  return event ? z.object({ source: z.string() }).parse(JSON.parse(event.cloud_event)).source : undefined;
}
