import type { Load, OrganizationState } from '../../keys/change.js';
import type { Key, KeyState } from '../../keys/key.js';
import type { StoredKeyspace } from '../../keys/keyspace-facts.js';
import { type Organization, type OrganizationRef, newOrganization } from '../../keys/organization.js';
import type { KeySelector } from '../../keys/select-key.js';
import type { EventPage, EventQuery, FoundKey, KeyQuery } from '../port.js';
import type { Connection } from './connection.js';
import {
  type EventRow,
  type OrganizationRow,
  type ReadKeyRow,
  VERIFIABLE_COLUMNS,
  type VerifiableRows,
  fromEventRow,
  fromKeyRow,
  fromOrganizationRow,
  fromVerifiableRows,
} from './rows.js';

export type Reads = ReturnType<typeof prepareReads>;

// In these words for the planner, which uses a partial index only where its condition stands in the query.
const OF_ORGANIZATION = 'keyspace = :keyspace AND organization_id = :organization_id';
const UNREVOKED = 'revoke_time IS NULL';
const CURRENT = `${UNREVOKED} AND superseded_by IS NULL`;
const OF_TYPES = `(:types = '[]' OR type IN (SELECT value FROM json_each(:types)))`;

/** Each state's condition, in the words of `stateOf`. */
const OF_STATES = `(
  (standing = 'usable' AND ((:active AND (expire_time IS NULL OR expire_time > :at)) OR (:expired AND expire_time <= :at)))
  OR (standing = 'disabled' AND :disabled)
  OR (standing = 'revoked' AND :revoked)
)`;

/** What is read, each as of one moment: nothing else runs while one of these does. */
export function prepareReads(connection: Connection) {
  const verifiable = Object.entries(VERIFIABLE_COLUMNS).flatMap(([table, columns]) =>
    columns.map((column) => `${table}.${column}`),
  );
  const found = connection.prepareJoin<VerifiableRows>(
    `SELECT ${verifiable.join()} FROM keys LEFT JOIN organizations USING (keyspace, organization_id)
     WHERE keyspace = ? AND digest = ?`,
  );
  const keys = (rest: string) =>
    connection.prepare<ReadKeyRow>(
      `SELECT keys.*, last_uses.time AS last_use_time FROM keys LEFT JOIN last_uses USING (key_id) WHERE ${rest}`,
    );
  const byDigest = keys('keyspace = :keyspace AND digest = :digest');
  const byKeyId = keys(`key_id = :key_id AND ${OF_ORGANIZATION}`);
  const byClientId = keys(`client_id = :client_id AND ${OF_ORGANIZATION}`);
  const currentByName = keys(`${OF_ORGANIZATION} AND name = :name AND ${CURRENT} ORDER BY sequence DESC LIMIT 2`);
  const revokedLast = keys(
    `${OF_ORGANIZATION} AND name = :name AND revoke_time IS NOT NULL ORDER BY revoke_time DESC, sequence DESC LIMIT 1`,
  );
  // In no order: for one, the planner would rather walk all unrevoked keys of the organization.
  const unrevokedOfLineage = keys(`${OF_ORGANIZATION} AND lineage_id = :lineage_id AND ${UNREVOKED}`);
  const page = `sequence < :before_sequence AND ${OF_TYPES} AND ${OF_STATES} ORDER BY sequence DESC LIMIT :limit`;
  const listed = keys(`${OF_ORGANIZATION} AND ${page}`);
  const listedUnrevoked = keys(`${OF_ORGANIZATION} AND ${UNREVOKED} AND ${page}`);
  const expired = connection.prepare<{ count: number }>(
    `SELECT count(*) AS count FROM keys
     WHERE ${OF_ORGANIZATION} AND expire_time <= :at AND standing = 'usable' AND superseded_by IS NULL`,
  );

  const organizationRow = connection.prepare<OrganizationRow>(`SELECT * FROM organizations WHERE ${OF_ORGANIZATION}`);
  // From one organization's events to the next one's by the key: those in between are not read.
  const organizationsAfter = connection.prepare<OrganizationRow | UnrecordedRow>(
    `WITH RECURSIVE
       with_events (keyspace, organization_id) AS (
         VALUES (:keyspace, :organization_id)
         UNION ALL
         SELECT next.keyspace, next.organization_id FROM with_events AS this JOIN events AS next ON next.rowid = (
           SELECT rowid FROM events WHERE (keyspace, organization_id) > (this.keyspace, this.organization_id)
           ORDER BY keyspace, organization_id LIMIT 1
         )
         LIMIT 1 + :limit
       ),
       recorded AS (
         SELECT keyspace, organization_id FROM organizations
         WHERE (keyspace, organization_id) > (:keyspace, :organization_id)
         ORDER BY keyspace, organization_id LIMIT :limit
       )
     SELECT * FROM (SELECT * FROM with_events WHERE (keyspace, organization_id) > (:keyspace, :organization_id)
                    UNION SELECT * FROM recorded)
     LEFT JOIN organizations USING (keyspace, organization_id)
     ORDER BY keyspace, organization_id LIMIT :limit`,
  );

  const eventsWhere = (rest: string) =>
    `SELECT * FROM events WHERE ${OF_ORGANIZATION} AND sequence > :after_sequence AND ${OF_TYPES} ${rest}`;
  const eventsOfAll = connection.prepare<EventRow>(`${eventsWhere('')} ORDER BY sequence LIMIT :limit`);
  // Each half in the order of its index, and merged: an event that names the key in both places is never made.
  const eventsOfKey = connection.prepare<EventRow>(
    `${eventsWhere('AND key_id = :key_id')} UNION ALL ${eventsWhere('AND previous_key_id = :key_id')}
     ORDER BY sequence LIMIT :limit`,
  );

  const requestRow = connection.prepare<{ hash: string; key_ids: string }>(
    `SELECT hash, key_ids FROM requests
     WHERE ${OF_ORGANIZATION} AND caller = :caller AND method = :method AND request_id = :request_id`,
  );

  const keyspaceRows = connection.prepare<KeyspaceRow>(
    `SELECT *, EXISTS (SELECT 1 FROM keys WHERE keys.keyspace = keyspaces.name AND ${UNREVOKED}) AS has_unrevoked_keys
     FROM keyspaces ORDER BY name`,
  );
  const plansOfKeyspace = connection.prepare<{ plan: string }>(
    'SELECT DISTINCT plan FROM organizations WHERE keyspace = :keyspace AND plan IS NOT NULL ORDER BY plan',
  );

  function organization(ref: OrganizationRef): Organization {
    const row = organizationRow.get(toCells(ref));
    return row ? fromOrganizationRow(row) : newOrganization(ref);
  }

  function selectKeys(ref: OrganizationRef, selector: KeySelector): Key[] {
    const cells = toCells(ref);
    switch (selector.by) {
      case 'key_id':
        return byKeyId.all({ ...cells, key_id: selector.keyId }).map(fromKeyRow);
      case 'client_id':
        return byClientId.all({ ...cells, client_id: selector.clientId }).map(fromKeyRow);
      case 'name': {
        const named = { ...cells, name: selector.name };
        const current = currentByName.all(named);
        return (current.length > 0 ? current : revokedLast.all(named)).map(fromKeyRow);
      }
    }
  }

  /** These, and what is unrevoked of their lineages. */
  function withLineages(ref: OrganizationRef, selected: readonly Key[]): Key[] {
    const lineageIds = [...new Set(selected.map(({ lineageId }) => lineageId))];
    const related = lineageIds.flatMap((lineage_id) => unrevokedOfLineage.all({ ...toCells(ref), lineage_id }));
    return [...new Map([...selected, ...related.map(fromKeyRow)].map((key) => [key.keyId, key])).values()];
  }

  function keysOfIds(ref: OrganizationRef, keyIds: readonly string[]): Key[] {
    return keyIds.flatMap((key_id) => byKeyId.all({ ...toCells(ref), key_id })).map(fromKeyRow);
  }

  function request(ref: OrganizationRef, { caller, method, requestId }: NonNullable<Load['request']>) {
    const row = requestRow.get({ ...toCells(ref), caller, method, request_id: requestId });
    return row && { hash: row.hash, keys: keysOfIds(ref, JSON.parse(row.key_ids) as string[]) };
  }

  return {
    state(load: Load): OrganizationState {
      const { organization: ref, selector, keyIds = [], name, digests = [] } = load;
      const selected = selector ? selectKeys(ref, selector) : [];
      const nameHolder = name === undefined ? undefined : currentByName.all({ ...toCells(ref), name })[0];
      const [digestHolder] = digests.flatMap((digest) => byDigest.all({ keyspace: ref.keyspace, digest }));
      const earlier = load.request && request(ref, load.request);
      return {
        organization: organization(ref),
        selected: load.withLineage ? withLineages(ref, selected) : selected,
        listed: keysOfIds(ref, [...new Set(keyIds)]),
        ...(nameHolder && { nameHolder: fromKeyRow(nameHolder) }),
        ...(digestHolder && { digestHolder: fromKeyRow(digestHolder) }),
        ...(earlier && { request: earlier }),
      };
    },

    organization,

    /** The one read of a verification: without the last use, which it has no need of. */
    keyByDigest(keyspace: string, digest: Uint8Array): FoundKey | undefined {
      const rows = found.get([keyspace, digest]);
      return rows && fromVerifiableRows(rows);
    },

    selectKeys,

    listKeys(ref: OrganizationRef, { types, states, at, beforeSequence, limit }: KeyQuery): Key[] {
      const has = (state: KeyState) => Number(states.includes(state));
      const list = states.includes('REVOKED') ? listed : listedUnrevoked;
      const rows = list.all({
        ...toCells(ref),
        types: JSON.stringify(types),
        active: has('ACTIVE'),
        disabled: has('DISABLED'),
        expired: has('EXPIRED'),
        revoked: has('REVOKED'),
        at: at.getTime(),
        before_sequence: beforeSequence ?? Number.MAX_SAFE_INTEGER,
        limit,
      });
      return rows.map(fromKeyRow);
    },

    countExpired(ref: OrganizationRef, at: Date): number {
      return expired.get({ ...toCells(ref), at: at.getTime() })?.count ?? 0;
    },

    listEvents(ref: OrganizationRef, { keyId, types, afterSequence, limit }: EventQuery): EventPage {
      const cells = { ...toCells(ref), types: JSON.stringify(types), after_sequence: afterSequence, limit };
      const rows = keyId === undefined ? eventsOfAll.all(cells) : eventsOfKey.all({ ...cells, key_id: keyId });
      const { sequence, hash } = organization(ref);
      return { events: rows.map(fromEventRow), head: { sequence, hash } };
    },

    /** The organizations after this one, in an order of their own; those without a record, too, that have events. */
    organizationsAfter(ref: OrganizationRef, limit: number): Organization[] {
      return organizationsAfter.all({ ...toCells(ref), limit }).map((row) => {
        if (row.revision !== null) return fromOrganizationRow(row);
        return newOrganization({ keyspace: row.keyspace, organizationId: row.organization_id });
      });
    },

    keyspaceFacts(): StoredKeyspace[] {
      return keyspaceRows.all({}).map((row) => ({
        name: row.name,
        kind: row.kind,
        prefix: row.prefix,
        bodyLength: row.body_length,
        uniqueNames: row.unique_names === 1,
        hasUnrevokedKeys: row.has_unrevoked_keys === 1,
        plansInUse: plansOfKeyspace.all({ keyspace: row.name }).map(({ plan }) => plan),
      }));
    },
  };
}

interface UnrecordedRow {
  keyspace: string;
  organization_id: string;
  revision: null;
}

interface KeyspaceRow {
  name: string;
  kind: StoredKeyspace['kind'];
  prefix: string;
  body_length: number;
  unique_names: number;
  has_unrevoked_keys: number;
}

function toCells({ keyspace, organizationId }: OrganizationRef) {
  return { keyspace, organization_id: organizationId };
}
