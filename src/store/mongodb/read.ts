import { Binary, type Filter } from 'mongodb';

import type { Load, OrganizationState } from '../../keys/change.js';
import type { Deadline } from '../../keys/clock.js';
import type { Key, KeyState, Standing } from '../../keys/key.js';
import type { StoredKeyspace } from '../../keys/keyspace-facts.js';
import { type Organization, type OrganizationRef, newOrganization, organizationPath } from '../../keys/organization.js';
import type { KeySelector } from '../../keys/select-key.js';
import type { EventPage, EventQuery, KeyQuery } from '../port.js';
import type { Ask, Connection } from './connection.js';
import {
  type KeyRow,
  fromEventRow,
  fromKeyRow,
  fromKeyspaceRow,
  fromOrganizationRow,
  toRefFields,
  toRequestRowId,
} from './rows.js';
import type { Collections } from './schema.js';

export type Reads = ReturnType<typeof makeReads>;

const UNREVOKED: Standing['kind'][] = ['usable', 'disabled'];

export function makeReads(connection: Connection, { keys, organizations, events, requests, keyspaces }: Collections) {
  async function organization(ask: Ask, ref: OrganizationRef): Promise<Organization> {
    const row = await ask((bounds) => organizations.findOne({ _id: organizationPath(ref) }, bounds));
    return row ? fromOrganizationRow(row) : newOrganization(ref);
  }

  async function selectKeys(ask: Ask, ref: OrganizationRef, selector: KeySelector): Promise<Key[]> {
    const ofOrganization = toRefFields(ref);
    const find = (filter: Filter<KeyRow>) => ask((bounds) => keys.find(filter, bounds).toArray());
    switch (selector.by) {
      case 'key_id':
        return (await find({ _id: selector.keyId, ...ofOrganization })).map(fromKeyRow);
      case 'client_id':
        return (await find({ ...ofOrganization, client_id: selector.clientId })).map(fromKeyRow);
      case 'name': {
        const named = await findNamed(ask, ref, selector.name);
        if (named.length === 0) return [];
        const lineages = named.map((row) => row.lineage_id);
        const related = await find({ ...ofOrganization, lineage_id: { $in: lineages }, standing: { $in: UNREVOKED } });
        return [...new Map([...named, ...related].map((row) => [row._id, fromKeyRow(row)])).values()];
      }
    }
  }

  /** Two current keys of the name at most, else the one revoked last. */
  async function findNamed(ask: Ask, ref: OrganizationRef, name: string): Promise<KeyRow[]> {
    const current = await findCurrent(ask, ref, name);
    if (current.length > 0) return current;
    return ask((bounds) =>
      keys
        .find({ ...toRefFields(ref), name, current: false, revoke_time: { $exists: true } }, bounds)
        .sort({ revoke_time: -1, sequence: -1 })
        .limit(1)
        .toArray(),
    );
  }

  function findCurrent(ask: Ask, ref: OrganizationRef, name: string): Promise<KeyRow[]> {
    return ask((bounds) =>
      keys
        .find({ ...toRefFields(ref), name, current: true }, bounds)
        .limit(2)
        .toArray(),
    );
  }

  async function request(ask: Ask, ref: OrganizationRef, identity: NonNullable<Load['request']>) {
    const row = await ask((bounds) => requests.findOne({ _id: toRequestRowId(ref, identity) }, bounds));
    if (!row) return undefined;
    const rows = await ask((bounds) => keys.find({ _id: { $in: row.key_ids } }, bounds).toArray());
    // In the order in which they were answered; the database has its own.
    const found = row.key_ids.flatMap((keyId) => rows.filter((one) => one._id === keyId));
    return { hash: row.hash, keys: found.map(fromKeyRow) };
  }

  return {
    organization,

    /** What a rule sees besides the organization. */
    async loaded(
      ask: Ask,
      { organization: ref, selector, name, request: identity }: Load,
    ): Promise<Omit<OrganizationState, 'organization'>> {
      const earlier = identity && (await request(ask, ref, identity));
      const [holder] = name === undefined ? [] : await findCurrent(ask, ref, name);
      return {
        selected: selector ? await selectKeys(ask, ref, selector) : [],
        ...(holder && { nameHolder: fromKeyRow(holder) }),
        ...(earlier && { request: earlier }),
      };
    },

    /**
     * Linearizable, which the server promises for a look-up that can match one document only: a majority read can be
     * answered by a primary that was deposed while it was paused, and does not know of a revocation since.
     */
    async keyByDigest(keyspace: string, digest: Uint8Array, deadline: Deadline): Promise<Key | undefined> {
      const row = await connection.ask(deadline)((bounds) =>
        keys.findOne({ keyspace, digest: new Binary(digest) }, { ...bounds, readConcern: 'linearizable' }),
      );
      return row ? fromKeyRow(row) : undefined;
    },

    selectKeys(ref: OrganizationRef, selector: KeySelector, deadline: Deadline): Promise<Key[]> {
      // In one moment: read apart, both keys of a rotation under way can look current, and the name ambiguous.
      return connection.atOneMoment(deadline, (ask) => selectKeys(ask, ref, selector));
    },

    async listKeys(ref: OrganizationRef, query: KeyQuery, deadline: Deadline): Promise<Key[]> {
      const rows = await connection.ask(deadline)((bounds) =>
        keys.find(listed(ref, query), bounds).sort({ sequence: -1 }).limit(query.limit).toArray(),
      );
      return rows.map(fromKeyRow);
    },

    countExpired(ref: OrganizationRef, at: Date, deadline: Deadline): Promise<number> {
      const filter = { ...toRefFields(ref), current: true, standing: 'usable' as const, expire_time: { $lte: at } };
      return connection.ask(deadline)((bounds) => keys.countDocuments(filter, bounds));
    },

    listEvents(ref: OrganizationRef, query: EventQuery, deadline: Deadline): Promise<EventPage> {
      const filter = {
        ...toRefFields(ref),
        ...(query.keyId !== undefined && { key_id: query.keyId }),
        ...(query.types.length > 0 && { type: { $in: [...query.types] } }),
        sequence: { $gt: query.afterSequence },
      };
      return connection.atOneMoment(deadline, async (ask) => {
        const rows = await ask((bounds) =>
          events.find(filter, bounds).sort({ sequence: 1 }).limit(query.limit).toArray(),
        );
        const { sequence, hash } = await organization(ask, ref);
        return { events: rows.map(fromEventRow), head: { sequence, hash } };
      });
    },

    /** Organizations in the order of their paths, from the one after that path. */
    async organizationsAfter(path: string, limit: number, deadline: Deadline): Promise<Organization[]> {
      const rows = await connection.ask(deadline)((bounds) =>
        organizations
          .find({ _id: { $gt: path } }, bounds)
          .sort({ _id: 1 })
          .limit(limit)
          .toArray(),
      );
      return rows.map(fromOrganizationRow);
    },

    async keyspacesOfEvents(deadline: Deadline): Promise<string[]> {
      return connection.ask(deadline)((bounds) => events.distinct('keyspace', {}, bounds));
    },

    /**
     * Looks for an organization with events and without a record, after this one of its keyspace and no further than
     * so many records reach.
     * @returns the first of them, if there is one, and from where to look on, unless that was the end
     */
    unrecordedAfter(
      { keyspace, organizationId }: OrganizationRef,
      limit: number,
      deadline: Deadline,
    ): Promise<{ unrecorded?: Organization; next?: OrganizationRef }> {
      const path = organizationPath({ keyspace, organizationId });
      const within = organizationPath({ keyspace, organizationId: '' });
      // The paths of a keyspace end where its slash would be the character behind it.
      const end = `${keyspace}0`;
      // In one moment: between the two reads an organization could be written for the first time.
      return connection.atOneMoment(deadline, async (ask) => {
        const rows = await ask((bounds) =>
          organizations
            .find({ _id: { $gt: path, $lt: end } }, { ...bounds, projection: { _id: 1 } })
            .sort({ _id: 1 })
            .limit(limit)
            .toArray(),
        );
        const recorded = rows.map(({ _id }) => _id.slice(within.length));
        const last = recorded.length < limit ? undefined : recorded.at(-1);
        // An index leads from one record's place to the next: the events of those recorded are not read.
        const others = { $gt: organizationId, ...(last !== undefined && { $lte: last }), $nin: recorded };
        const [event] = await ask((bounds) =>
          events
            .find({ keyspace, organization_id: others }, { ...bounds, projection: { _id: 0, organization_id: 1 } })
            .sort({ organization_id: 1 })
            .limit(1)
            .toArray(),
        );
        if (event) {
          const next = { keyspace, organizationId: event.organization_id };
          return { unrecorded: newOrganization(next), next };
        }
        return last === undefined ? {} : { next: { keyspace, organizationId: last } };
      });
    },

    async keyspaceFacts(deadline: Deadline): Promise<StoredKeyspace[]> {
      const ask = connection.ask(deadline);
      const rows = await ask((bounds) => keyspaces.find({}, bounds).sort({ _id: 1 }).toArray());
      const stored: StoredKeyspace[] = [];
      for (const row of rows) {
        const filter = { keyspace: row._id, standing: { $in: UNREVOKED } };
        const unrevoked = await ask((bounds) => keys.findOne(filter, { ...bounds, projection: { _id: 1 } }));
        stored.push({ ...fromKeyspaceRow(row), hasUnrevokedKeys: unrevoked !== null });
      }
      return stored;
    },
  };
}

const STANDINGS: Record<KeyState, Standing['kind']> = {
  ACTIVE: 'usable',
  EXPIRED: 'usable',
  DISABLED: 'disabled',
  REVOKED: 'revoked',
};

/** The states' condition in the words of `stateOf`: standings for the index, less the usable keys that are not meant. */
function listed(ref: OrganizationRef, { types, states, at, beforeSequence }: KeyQuery): Filter<KeyRow> {
  const expired = { standing: 'usable' as const, expire_time: { $lte: at } };
  const active = { standing: 'usable' as const, expire_time: { $not: { $lte: at } } };
  const unwanted = [...(states.includes('EXPIRED') ? [] : [expired]), ...(states.includes('ACTIVE') ? [] : [active])];
  return {
    ...toRefFields(ref),
    standing: { $in: [...new Set(states.map((state) => STANDINGS[state]))] },
    ...(unwanted.length > 0 && { $nor: unwanted }),
    ...(types.length > 0 && { type: { $in: [...types] } }),
    ...(beforeSequence !== undefined && { sequence: { $lt: beforeSequence } }),
  };
}
