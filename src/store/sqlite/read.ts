import type { Load, OrganizationState } from '../../keys/change.js';
import type { Key, KeyState } from '../../keys/key.js';
import type { StoredKeyspace } from '../../keys/keyspace-facts.js';
import { type Organization, type OrganizationRef, newOrganization } from '../../keys/organization.js';
import type { KeySelector } from '../../keys/select-key.js';
import type { EventPage, EventQuery, KeyQuery } from '../port.js';
import type { Connection } from './connection.js';
import {
  type EventRow,
  type KeyRow,
  type OrganizationRow,
  fromEventRow,
  fromKeyRow,
  fromOrganizationRow,
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
  const keys = (rest: string) => connection.prepare<KeyRow>(`SELECT * FROM keys WHERE ${rest}`);
  const byDigest = keys('keyspace = :keyspace AND digest = :digest');
  const byKeyId = keys(`key_id = :key_id AND ${OF_ORGANIZATION}`);
  const byClientId = keys(`client_id = :client_id AND ${OF_ORGANIZATION}`);
  const currentByName = keys(`${OF_ORGANIZATION} AND name = :name AND ${CURRENT} ORDER BY sequence DESC LIMIT 2`);
  const revokedLast = keys(
    `${OF_ORGANIZATION} AND name = :name AND revoke_time IS NOT NULL ORDER BY revoke_time DESC, sequence DESC LIMIT 1`,
  );
  const unrevokedOfLineage = keys(`${OF_ORGANIZATION} AND lineage_id = :lineage_id AND ${UNREVOKED} ORDER BY sequence`);
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

  const events = (rest: string) =>
    connection.prepare<EventRow>(
      `SELECT * FROM events
       WHERE ${OF_ORGANIZATION} AND sequence > :after_sequence AND ${OF_TYPES} ${rest} ORDER BY sequence LIMIT :limit`,
    );
  const eventsOfAll = events('');
  const eventsOfKey = events('AND key_id = :key_id');

  const requestRow = connection.prepare<{ hash: string; key_ids: string }>(
    `SELECT hash, key_ids FROM requests
     WHERE ${OF_ORGANIZATION} AND caller = :caller AND method = :method AND request_id = :request_id`,
  );

  const keyspaceRows = connection.prepare<KeyspaceRow>(
    `SELECT *, EXISTS (SELECT 1 FROM keys WHERE keys.keyspace = keyspaces.name AND ${UNREVOKED}) AS has_unrevoked_keys
     FROM keyspaces ORDER BY name`,
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
        const found = current.length > 0 ? current : revokedLast.all(named);
        const lineages = found.flatMap(({ lineage_id }) => unrevokedOfLineage.all({ ...cells, lineage_id }));
        return [...new Map([...found, ...lineages].map((row) => [row.key_id, fromKeyRow(row)])).values()];
      }
    }
  }

  function request(ref: OrganizationRef, { caller, method, requestId }: NonNullable<Load['request']>) {
    const cells = toCells(ref);
    const row = requestRow.get({ ...cells, caller, method, request_id: requestId });
    if (!row) return undefined;
    const keyIds = JSON.parse(row.key_ids) as string[];
    return { hash: row.hash, keys: keyIds.flatMap((key_id) => byKeyId.all({ ...cells, key_id })).map(fromKeyRow) };
  }

  return {
    state({ organization: ref, selector, name, request: identity }: Load): OrganizationState {
      const holder = name === undefined ? undefined : currentByName.all({ ...toCells(ref), name })[0];
      const earlier = identity && request(ref, identity);
      return {
        organization: organization(ref),
        selected: selector ? selectKeys(ref, selector) : [],
        ...(holder && { nameHolder: fromKeyRow(holder) }),
        ...(earlier && { request: earlier }),
      };
    },

    keyByDigest(keyspace: string, digest: Uint8Array): Key | undefined {
      const row = byDigest.get({ keyspace, digest });
      return row && fromKeyRow(row);
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
